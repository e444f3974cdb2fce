"""Raw data folders as they are handed out: which layout, which cases, and a case read.

What the channels and labels are, the folder says itself (`idal_assets.anatomy`); they are told apart by name,
never by a guess. The voxel order and the geometry of the files are kept. Whether the content of a case is usable
(NaN, empty label, same image twice) is not decided here but in `inspection`.

This is the entry. The layouts are in `dataset_layouts` (with `dataset_names`) and `brats_layouts`, what they have
in common in `raw_folder`, and the reading of a single file in `nifti`.
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from idal_assets.imaging.brats_layouts import scan_brats
from idal_assets.imaging.case import Case, CaseError
from idal_assets.imaging.dataset_layouts import only_labels, read_description, scan_described
from idal_assets.imaging.nifti import Volume, mismatches, read_volume
from idal_assets.imaging.problems import CaseProblems, Problem
from idal_assets.imaging.raw_folder import CaseFiles, Layout, RawFolder

LABEL_ROUNDING = 1e-3
"""How far a label value in a file of floats may be off a whole number.

Arithmetic on the way leaves 1e-6 in float32. A label that was interpolated is still refused: it has values all
over, so that some are further off.
"""

UNKNOWN_VALUE = "label value outside the convention"
"""Kind of the problem that a label file has other values than its folder's convention."""

OTHER_CONVENTION = "label value of another convention"
"""Kind of the problem that a label file has values that another challenge of BraTS gives a meaning."""

BRATS_LAYOUTS = (Layout.BRATS_2018, Layout.BRATS_2023)
BRATS_VALUES = (1, 2, 3, 4)
"""What any challenge of BraTS has in its label files."""


def scan_raw_folder(raw_dir: Path) -> RawFolder:
    """List the labelled cases of a raw data folder by the names of its files; no voxel is read.

    Args:
        raw_dir: Folder in one of the known layouts, which is recognised by itself.

    Raises:
        CaseError: The folder does not exist, has no known layout, or its dataset.json does not say which channel
            and label is which.
    """
    raw_dir = Path(raw_dir)
    if not raw_dir.is_dir():
        raise CaseError(f"{raw_dir}: no such folder; give the raw data folder")
    description = raw_dir / "dataset.json"
    if description.exists():
        stated = only_labels(read_description(description))
        return scan_described(raw_dir) if stated is None else scan_brats(raw_dir, stated)
    if (raw_dir / "imagesTr").is_dir():
        raise CaseError(
            f"{raw_dir}: imagesTr without dataset.json, so nothing says which channel is which; write one"
            " with 'channel_names' and 'labels' (nnU-Net v2) or 'modality', 'labels' and 'training' (MSD)"
        )
    return scan_brats(raw_dir)


def find_case(raw_dir: Path, case_id: str, fits: Callable[[CaseFiles], bool]) -> CaseFiles | None:
    """Find one labelled case without listing the folder anew for each.

    What an earlier look found is taken where it fits; otherwise the case may have come or moved since, and the
    folder is listed once more.

    Args:
        raw_dir: The raw folder.
        case_id: Name of the case.
        fits: Whether its files are those that are wanted; it must ask the disk.

    Returns:
        Where it is, None where there is no such case or it does not fit.

    Raises:
        CaseError: The folder as a whole cannot be used, see `scan_raw_folder`.
    """
    for _ in range(2):
        files = _listed(Path(raw_dir), _age(Path(raw_dir) / "dataset.json")).get(case_id)
        if files is not None and fits(files):
            return files
        _listed.cache_clear()
    return None


@lru_cache(maxsize=4)
def _listed(raw_dir: Path, description: tuple[int, int] | None) -> dict[str, CaseFiles]:
    """Return the labelled cases of a folder by name; another `description` may give its files another meaning."""
    return {files.case_id: files for files in scan_raw_folder(raw_dir).cases}


def _age(path: Path) -> tuple[int, int] | None:
    """Return size and time of change of a file, None where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


def read_case(files: CaseFiles) -> Case:
    """Read one case with the channels and label values of its anatomy.

    Args:
        files: Where the case is, from `scan_raw_folder`.

    Returns:
        The case, image float32 and label uint8, in the voxel order of its files; without a label where
        `files.label` is None.

    Raises:
        CaseProblems: A file is unreadable, truncated or of the wrong shape, shapes or affines of its files
            differ, or a label value has no place in the anatomy. It lists all that was found.
    """
    image, problems = attempt(read_image, files)
    label, label_problems = attempt(read_label, files)
    problems = problems + label_problems + geometry_problems(files, image, label)
    if problems or image is None:
        raise CaseProblems(problems)
    return Case(files.case_id, image.data, label.data if label else None, image.affine, image.spacing)


def geometry_problems(files: CaseFiles, image: Volume | None, label: Volume | None) -> list[Problem]:
    """Compare shape and affine of image and label, as far as both are there."""
    if image is None or label is None or files.label is None:
        return []
    return mismatches(files.case_id, image, label, files.label)


def attempt(read: Callable[[CaseFiles], Volume | None], files: CaseFiles) -> tuple[Volume | None, list[Problem]]:
    """Return what `read` returns, or None and its problems, so that the rest of the case is still looked at."""
    try:
        return read(files), []
    except CaseProblems as error:
        return None, list(error.problems)


def read_image(files: CaseFiles) -> Volume:
    """Read the channels of a case, data float32 of shape (channels, X, Y, Z) in the order of the anatomy.

    Raises:
        CaseProblems: A file is unreadable or its number of channels is wrong, or channels differ in geometry.
    """
    if len(files.images) == 1:
        volume = read_volume(files.case_id, files.images[0], channels=len(files.channel_order))
        data = volume.data[list(files.channel_order)]
        return Volume(data, volume.affine, volume.spacing)
    return _stack_channels(files)


def _stack_channels(files: CaseFiles) -> Volume:
    """Read a file for each channel; the geometry is that of the first."""
    volumes = []
    problems: list[Problem] = []
    for path in files.images:
        try:
            volumes.append((path, read_volume(files.case_id, path, channels=1)))
        except CaseProblems as error:
            problems += error.problems
    for path, volume in volumes[1:]:
        problems += mismatches(files.case_id, volumes[0][1], volume, path)
    if problems:
        raise CaseProblems(problems)
    first = volumes[0][1]
    return Volume(np.concatenate([volume.data for _, volume in volumes]), first.affine, first.spacing)


def read_label(files: CaseFiles) -> Volume | None:
    """Read the label of a case, data uint8 of shape (X, Y, Z) with the values of the anatomy.

    Returns:
        The label, None where the case has none.

    Raises:
        CaseProblems: The file is unreadable, no volume, or holds values that `files.label_values` does not know.
    """
    if files.label is None:
        return None
    volume = read_volume(files.case_id, files.label, channels=1, dtype=None)
    raw = _whole(volume)
    label = np.zeros(raw.shape, np.uint8)
    known = np.zeros(raw.shape, bool)
    for value, target in files.label_values.items():
        here = raw == value
        label[here] = target
        known |= here
    if not known.all():
        raise CaseProblems([_unknown_value_problem(files, raw[~known])])
    return Volume(label, volume.affine, volume.spacing)


def _whole(volume: Volume) -> NDArray[Any]:
    """Return the values of a label, rounded where they are off a whole number by no more than the file rounds.

    Where a file scales whole numbers, as nibabel does when it saves floats as such, a 3 comes back as the nearest
    multiple of the scale factor: off by half of it at most.
    """
    raw = volume.data[0]
    if raw.dtype.kind != "f":
        return raw
    rounded = np.round(raw)
    tolerance = min(max(LABEL_ROUNDING, volume.step / 2 * (1 + LABEL_ROUNDING)), 0.25)
    return np.where(np.isclose(raw, rounded, rtol=0, atol=tolerance), rounded, raw)


def _unknown_value_problem(files: CaseFiles, unknown: NDArray[Any]) -> Problem:
    what = _unknown_values(unknown)
    expected = f"{files.layout.value} ({', '.join(map(str, files.label_values))})"
    if files.layout in BRATS_LAYOUTS and np.isin(unknown, BRATS_VALUES).all():
        remedy = f"find out which convention this and the other cases follow; {expected} was taken for granted"
        return Problem(files.case_id, files.label, what, remedy, kind=OTHER_CONVENTION)
    remedy = f"relabel it to the values of {expected} or remove the case"
    return Problem(files.case_id, files.label, what, remedy, kind=UNKNOWN_VALUE)


def _unknown_values(unknown: NDArray[Any]) -> str:
    values = np.unique(unknown)
    whole = np.all(np.isfinite(values)) and np.all(values == np.round(values))
    shown = ", ".join(f"{value:g}" for value in values[:5]) + (", ..." if len(values) > 5 else "")
    kind = "label values outside the convention" if whole else "label values that are no whole numbers"
    return f"{kind} ({shown}) in {unknown.size} voxels"
