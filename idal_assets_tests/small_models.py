"""Small cases, plans and networks, and the way nnU-Net itself gets at the same cases: one 3D file a channel."""

import copy
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from idal_assets.anatomy import Anatomy
from idal_assets.imaging.brain_tumour import BRAIN_TUMOUR
from idal_assets.imaging.case import Case
from idal_assets.imaging.phantom import write_phantom
from idal_assets.imaging.readers import read_case, scan_raw_folder
from idal_assets.nnunet.compute import Compute
from idal_assets.nnunet.network import build_network
from idal_assets.nnunet.plans import CONFIGURATION, Plans, fingerprint, make_plans
from idal_assets.nnunet.slices import SlicesOnDisk, preprocess
from idal_assets.nnunet.training import Weights
from idal_assets.settings import PhantomSettings, PlansSettings, TrainingSettings

SHAPE, SPACING = (40, 48, 8), (4.0, 4.0, 12.0)
SMALL_PLANS = PlansSettings(memory_gb=1, base_features=4, batch_size=4)
FP32 = Compute(torch.device("cpu"), None, 1)
"""One thread, as several wait for each other on networks this small."""


@dataclass(frozen=True)
class RawFiles:
    """A raw case on disk: one 4D image and its label."""

    image: Path
    label: Path

    @property
    def name(self) -> str:
        return self.image.name.removesuffix(".nii.gz")


def phantom_files(
    folder: Path,
    count: int,
    shape: tuple[int, int, int] = SHAPE,
    spacing: tuple[float, float, float] = SPACING,
    seed: int = 0,
) -> list[RawFiles]:
    settings = PhantomSettings(
        train_cases=count, test_cases=0, faults=0, rare=0, shape=shape, spacing=spacing, seed=seed
    )
    write_phantom(folder, settings)
    return raw_files(folder)


def raw_files(folder: Path, names: Sequence[str] = ()) -> list[RawFiles]:
    """The cases of a folder in the layout of the Medical Segmentation Decathlon, all of them or those named."""
    images = sorted((folder / "imagesTr").glob("*.nii.gz"))
    found = [RawFiles(image, folder / "labelsTr" / image.name) for image in images]
    return [files for files in found if not names or files.name in names]


def read_cases(files: Sequence[RawFiles]) -> list[Case]:
    folders = {one.image.parents[1] for one in files}
    listed = {(folder, case.case_id): case for folder in folders for case in scan_raw_folder(folder).cases}
    return [read_case(listed[one.image.parents[1], one.name]) for one in files]


def with_margin(files: Sequence[RawFiles], folder: Path, margin: Sequence[tuple[int, int]]) -> list[RawFiles]:
    """Adds zeros around raw cases, as many as `margin` says before and after along X, Y and Z."""
    for one in files:
        for path, widths in ((one.image, [*margin, (0, 0)]), (one.label, margin)):
            image = nib.load(path)
            target = folder / path.parent.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(np.pad(np.asanyarray(image.dataobj), widths), image.affine), target)
        shutil.copy(one.image.parents[1] / "dataset.json", folder)
    return raw_files(folder)


def split_channels(files: RawFiles, folder: Path) -> tuple[list[str], str]:
    """Writes what nnU-Net reads, `NAME_0000.nii.gz` and so on; the project's readers have no part in it."""
    folder.mkdir(parents=True, exist_ok=True)
    image = nib.load(files.image)
    voxels = np.asanyarray(image.dataobj)
    paths = []
    for channel in range(voxels.shape[3]):
        paths.append(str(folder / f"{files.name}_{channel:04d}.nii.gz"))
        nib.save(nib.Nifti1Image(voxels[..., channel], image.affine), paths[-1])
    return paths, str(files.label)


def plan(cases: Sequence[Case], settings: PlansSettings = SMALL_PLANS, anatomy: Anatomy = BRAIN_TUMOUR) -> Plans:
    return make_plans(fingerprint(cases, len(cases), anatomy), len(cases), settings, anatomy)


WHOLES = {"WT": (1, 2, 3), "TC": (2, 3), "ET": (3,)}
ANATOMIES = {
    "two labels": Anatomy.of(("FLAIR",), {1: "oedema", 2: "core"}),
    "CT": Anatomy.of(("CT",), {1: "organ", 2: "lesion"}),
    "regions": Anatomy.of(BRAIN_TUMOUR.channels, BRAIN_TUMOUR.labels, WHOLES, (1, 2, 3)),
    "ignored": Anatomy.of(BRAIN_TUMOUR.channels, BRAIN_TUMOUR.labels, ignore=4),
    "regions, ignored": Anatomy.of(BRAIN_TUMOUR.channels[:2], BRAIN_TUMOUR.labels, WHOLES, (1, 2, 3), 4),
}
"""Other datasets than the brain tumour's, which `as_other` makes of its phantoms."""


def as_other(case: Case, kind: str) -> Case:
    """A phantom as a case of another dataset.

    One channel and two labels; a CT, whose air is no zero; and one where nobody labelled every third slice of
    the head. (nnU-Net normalises over labels outside the head too, but not where it has none.)
    """
    anatomy = ANATOMIES[kind]
    assert case.label is not None
    image, label = case.image[: len(anatomy.channels)].copy(), case.label.copy()
    if len(anatomy.labels) == 2:
        label[label == 3] = 2
    if kind == "CT":
        image = np.where(image > 0, image / 10, -1000).astype(np.float32)
    if anatomy.ignore is not None:
        label[::3][image[0, ::3] > 0] = anatomy.ignore
    return replace(case, image=image, label=label)


def write_case(folder: Path, case: Case) -> RawFiles:
    """Writes image and label of a case as `RawFiles`."""
    assert case.label is not None
    paths = [folder / part / f"{case.case_id}.nii.gz" for part in ("imagesTr", "labelsTr")]
    for path, voxels in zip(paths, (np.moveaxis(case.image, 0, -1), case.label), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(voxels, case.affine), path)
    return RawFiles(*paths)


def changed(plans: Plans, **fields: Any) -> Plans:
    """The plans with other fields of the 2D configuration."""
    values = copy.deepcopy(plans.values)
    values["configurations"][CONFIGURATION].update(fields)
    return Plans(values, copy.deepcopy(plans.dataset))


def slices_on_disk(folder: Path, cases: Sequence[Case], plans: Plans, memory_gb: float = 1.0) -> SlicesOnDisk:
    folders = {case.case_id: folder / case.case_id for case in cases}
    for case in cases:
        folders[case.case_id].mkdir(parents=True)
        preprocess(case, plans).save(folders[case.case_id])
    return SlicesOnDisk(folders, memory_gb)


def training(iterations: int, iterations_per_epoch: int | None = None, **settings: Any) -> TrainingSettings:
    per_epoch = iterations_per_epoch or iterations
    chosen = {"optimizer": "adam", "learning_rate": 3e-3, **settings}
    return TrainingSettings(epochs=iterations // per_epoch, iterations_per_epoch=per_epoch, **chosen)


def noise_weights(plans: Plans, seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights that no initialisation makes, other ones in every tensor."""
    generator = torch.Generator().manual_seed(seed)
    network = build_network(plans, deep_supervision=True)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def assert_same_weights(found: Weights, expected: Mapping[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
