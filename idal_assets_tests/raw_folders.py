"""Small raw data folders in every layout, written from one case in the convention, and where the real data is."""

import gzip
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from idal_assets.imaging.case import Case

SHAPE = (6, 5, 4)

# oblique, left-handed and anisotropic, so that neither axes nor spacing can be mixed up; spacing 1, 2, 3 mm
AFFINE = np.array(
    [
        [-0.8, -1.2, 0.0, 90.0],
        [-0.6, 1.6, 0.0, -126.0],
        [0.0, 0.0, 3.0, -72.0],
        [0.0, 0.0, 0.0, 1.0],
    ]
)
SPACING = (1.0, 2.0, 3.0)

MSD_CHANNELS = ("FLAIR", "T1w", "t1gd", "T2w")
MSD_LABELS = {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"}
NNUNET_LABELS = {"background": 0, "edema": 1, "non-enhancing tumor": 2, "enhancing tumor": 3}


def make_case(case_id: str, seed: int = 0) -> Case:
    """A case of random intensities with 6 voxels of oedema, 4 non-enhancing and 2 enhancing."""
    rng = np.random.default_rng(seed)
    image = rng.integers(1, 1000, (4, *SHAPE)).astype(np.float32)
    label = np.zeros(SHAPE, np.uint8)
    label[:, 0, 0], label[:4, 1, 0], label[:2, 2, 0] = 1, 2, 3
    return Case(case_id, image, label, AFFINE, SPACING)


def make_organ(case_id: str, seed: int = 0) -> Case:
    """A case of one channel, 8 bits to a million, with 6 voxels of the head and 4 of the tail."""
    rng = np.random.default_rng(seed)
    image = rng.choice([0, 1, 255, 65535, 999_999, 1_000_000], (1, *SHAPE)).astype(np.float32)
    label = np.zeros(SHAPE, np.uint8)
    label[:, 0, 0], label[:4, 1, 0] = 1, 2
    return Case(case_id, image, label, AFFINE, SPACING)


def make_cases(*case_ids: str) -> list[Case]:
    return [make_case(case_id, seed) for seed, case_id in enumerate(case_ids)]


def save(path: Path, data: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


def write_json(folder: Path, content: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "dataset.json"
    path.write_text(json.dumps(content))
    return path


def read_json(folder: Path) -> dict:
    return json.loads((folder / "dataset.json").read_text())


def msd_entry(case_id: str) -> dict[str, str]:
    return {"image": f"./imagesTr/{case_id}.nii.gz", "label": f"./labelsTr/{case_id}.nii.gz"}


def write_msd(folder: Path, cases: Sequence[Case], order: Sequence[int] = (0, 1, 2, 3)) -> Path:
    """Write 4D files; `order` says which of the convention's channels comes at each place of the file."""
    for case in cases:
        data = np.moveaxis(case.image[list(order)], 0, 3).astype(np.int16)
        save(folder / "imagesTr" / f"{case.case_id}.nii.gz", data, case.affine)
        save(folder / "labelsTr" / f"{case.case_id}.nii.gz", case.label, case.affine)
    meta = {
        "modality": {str(place): MSD_CHANNELS[channel] for place, channel in enumerate(order)},
        "labels": MSD_LABELS,
        "training": [msd_entry(case.case_id) for case in cases],
        "test": ["./imagesTs/BRATS_999.nii.gz"],
    }
    write_json(folder, meta)
    return folder


def write_dataset(
    folder: Path,
    cases: Sequence[Case],
    labels: dict,
    channels: Sequence[str] = ("MRI",),
    nnunet: bool = False,
    **more: object,
) -> Path:
    """Write a dataset of any channels and labels for MSD or nnU-Net; `more` goes to its dataset.json."""
    for case in cases:
        data = np.moveaxis(case.image, 0, 3).astype(np.int32)
        for place in range(len(channels)) if nnunet else ():
            save(folder / "imagesTr" / f"{case.case_id}_{place:04d}.nii.gz", data[..., place], case.affine)
        if not nnunet:
            whole = data[..., 0] if len(channels) == 1 else data
            save(folder / "imagesTr" / f"{case.case_id}.nii.gz", whole, case.affine)
        if case.label is not None:
            save(folder / "labelsTr" / f"{case.case_id}.nii.gz", case.label, case.affine)
    names = {str(place): name for place, name in enumerate(channels)}
    form = {"channel_names": names, "file_ending": ".nii.gz"}
    if not nnunet:
        form = {"modality": names, "training": [msd_entry(case.case_id) for case in cases]}
    write_json(folder, {"labels": labels, **form, **more})
    return folder


def write_nnunet(
    folder: Path,
    cases: Sequence[Case],
    names: Sequence[str] = ("T1", "T1ce", "T2", "Flair"),
    labels: dict | None = None,
) -> Path:
    """Write a file for each channel, by default in the order of nnU-Net's own BraTS conversion."""
    order = [{"Flair": 0, "T1": 1, "T1ce": 2, "T2": 3}[name] for name in names]
    for case in cases:
        for place, channel in enumerate(order):
            path = folder / "imagesTr" / f"{case.case_id}_{place:04d}.nii.gz"
            save(path, case.image[channel].astype(np.int16), case.affine)
        save(folder / "labelsTr" / f"{case.case_id}.nii.gz", case.label, case.affine)
    meta = {
        "channel_names": dict(enumerate(names)),
        "labels": NNUNET_LABELS if labels is None else labels,
        "file_ending": ".nii.gz",
        "numTraining": len(cases),
    }
    write_json(folder, meta)
    return folder


def write_brats_2018(folder: Path, cases: Sequence[Case], ending: str = ".nii.gz") -> Path:
    """Write a folder for each case; in the label 1 is non-enhancing, 2 oedema and 4 enhancing."""
    suffixes = ("_flair", "_t1", "_t1ce", "_t2", "_seg")
    return _write_brats(folder, cases, suffixes, np.array([0, 2, 1, 4], np.uint8), ending)


def write_brats_2023(folder: Path, cases: Sequence[Case], ending: str = ".nii.gz") -> Path:
    """Write a folder for each case; in the label 1 is non-enhancing, 2 oedema and 3 enhancing."""
    suffixes = ("-t2f", "-t1n", "-t1c", "-t2w", "-seg")
    return _write_brats(folder, cases, suffixes, np.array([0, 2, 1, 3], np.uint8), ending)


def _write_brats(
    folder: Path, cases: Sequence[Case], suffixes: Sequence[str], values: np.ndarray, ending: str
) -> Path:
    for case in cases:
        volumes = [*case.image.astype(np.int16), values[case.label]]
        for suffix, data in zip(suffixes, volumes, strict=True):
            save(folder / case.case_id / f"{case.case_id}{suffix}{ending}", data, case.affine)
    return folder


WRITERS: dict[str, Callable[[Path, Sequence[Case]], Path]] = {
    "MSD": write_msd,
    "nnU-Net v2": write_nnunet,
    "BraTS 2018-2021": write_brats_2018,
    "BraTS 2023+": write_brats_2023,
}


def rewrite_same_content(path: Path) -> None:
    """Compress a file anew with another level, so that its bytes change and its content does not."""
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), compresslevel=1, mtime=12345))


def real_data(name: str) -> Path:
    """The folder of real cases of that name; the test is skipped where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("IDAL_TEST_DATA", default)) / name
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set IDAL_TEST_DATA to the folder that holds {name}")
    return folder
