"""The work that is timed: a study up to the donors' variants, and the same for nnU-Net in its own folders."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import yaml
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2
from numpy.typing import NDArray

from idal_assets.nnunet.plans import DATASET_NAME, Plans
from idal_assets.nnunet.slices import load_slices
from idal_assets.profile import load_profile
from idal_assets.study.making import make, make_all
from idal_assets.study.study import Study

LEARNING_RATE = 1e-3
CONSTANT = 1e-9
"""Exponent of a decay that does not decay: nnU-Net changes its rate by epoch, this project by iteration."""


def write_profile(
    path: Path, base: str, sections: Mapping[str, Mapping[str, Any]], seed: int | None = None
) -> None:
    """Writes a profile with some settings changed, and with another seed where one is given."""
    values = load_profile(base).model_dump(mode="json", exclude={"name"})
    if seed is not None:
        values["seed"] = seed
    for section, changes in sections.items():
        values[section] = {**(values[section] or {}), **changes}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(values))


def like_nnunet(iterations: int) -> dict[str, Any]:
    """Settings of a training with nnU-Net's optimiser at a constant rate, as in one of its epochs."""
    return {
        "epochs": 1,
        "iterations_per_epoch": iterations,
        "optimizer": "sgd",
        "learning_rate": LEARNING_RATE,
        "poly_exponent": CONSTANT,
    }


def prepare_study(folder: Path, profile: Path, raw: Path | None) -> Study:
    """Makes everything that comes before a row of the matrix.

    Args:
        folder: An empty folder.
        profile: The profile's file.
        raw: Raw folder; None takes the phantom.
    """
    study = Study.open(folder, profile, raw)
    make_all(study, "baseline_weights")
    for donor in study.cohort.donors:
        make(study, "augmented_case", donor)
    for case in study.cohort.receivers:
        make(study, "case_slices", case)
    return study


@dataclass(frozen=True)
class NnunetFolders:
    """What nnU-Net reads and writes.

    Attributes:
        root: Everything below is here.
        channels: How many channels an image has.
    """

    root: Path
    channels: int

    def environment(self, donor: str) -> dict[str, str]:
        """nnU-Net's environment variables for one donor's model."""
        names = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
        return {name: str(self.root / donor / name) for name in names}

    def images(self, case_id: str) -> list[str]:
        """One 3D file a channel."""
        names = [f"{case_id}_{channel:04d}.nii.gz" for channel in range(self.channels)]
        return [str(self.root / "images" / name) for name in names]

    def label(self, case_id: str) -> Path:
        """The label of a case."""
        return self.root / "labels" / f"{case_id}.nii.gz"


def write_for_nnunet(study: Study, donors: list[str], root: Path) -> NnunetFolders:
    """Writes receivers as raw files and the donors' variants as preprocessed datasets of nnU-Net."""
    folders = NnunetFolders(root, len(study.cohort.anatomy.channels))
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    for name in study.cohort.receivers:
        case = study.read_case(name)
        for channel, path in enumerate(folders.images(name)):
            nib.save(nib.Nifti1Image(case.image[channel], case.affine), path)
        nib.save(nib.Nifti1Image(case.require_label(), case.affine), folders.label(name))
    plans = Plans.load(study.path("nnunet_plans"))
    identifier = plans.configuration.data_identifier
    for donor in donors:
        dataset = Path(folders.environment(donor)["nnUNet_preprocessed"]) / DATASET_NAME
        (dataset / identifier).mkdir(parents=True)
        plans.save(dataset)
        (dataset / "dataset_fingerprint.json").write_text("{}")
        (dataset / "gt_segmentations").mkdir()
        affine = np.asarray(study.cohort.case(donor).facts.affine)
        for variant in sorted(path for path in study.path("augmented_case", donor).iterdir() if path.is_dir()):
            _save_preprocessed(variant, dataset / identifier, plans, affine)
            # The donor's label stands for those of its variants: nnU-Net's validation only has to take its time.
            shutil.copy(folders.label(donor), dataset / "gt_segmentations" / f"{variant.name}.nii.gz")
    return folders


def _save_preprocessed(variant: Path, target: Path, plans: Plans, affine: NDArray[np.float64]) -> None:
    case = load_slices(variant, variant.name)
    properties = {
        **case.properties,
        "class_locations": dict(case.foreground),
        "nibabel_stuff": {"original_affine": affine},
    }
    image, label = np.ascontiguousarray(case.image), case.require_label()[None].astype(np.int16)
    patch = tuple(plans.configuration.patch_size)
    blocks, chunks = comp_blosc2_params(image.shape, patch, image.itemsize)
    label_blocks, label_chunks = comp_blosc2_params(label.shape, patch, label.itemsize)
    nnUNetDatasetBlosc2.save_case(
        image,
        label,
        properties,
        str(target / variant.name),
        chunks=chunks,
        blocks=blocks,
        chunks_seg=label_chunks,
        blocks_seg=label_blocks,
    )
