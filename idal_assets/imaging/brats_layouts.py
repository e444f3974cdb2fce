"""Raw folders as BraTS hands them out: a folder for each case, in two generations of names."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idal_assets.imaging.brain_tumour import CHANNELS, ENHANCING, NON_ENHANCING, OEDEMA
from idal_assets.imaging.brats_labels import read_convention
from idal_assets.imaging.case import CaseError
from idal_assets.imaging.listing import Folder, list_folders, nifti_stem
from idal_assets.imaging.problems import Problem
from idal_assets.imaging.raw_folder import (
    KNOWN_LAYOUTS,
    LABEL_ROLE,
    FoundCase,
    Layout,
    Meaning,
    RawFolder,
    check_cases,
)


@dataclass(frozen=True)
class BratsNames:
    """How a generation of BraTS names and labels its files.

    Attributes:
        layout: The generation.
        separator: What stands between case and suffix.
        suffixes: Those of the channels in the order of `CHANNELS`, then that of the label.
        label_values: Value in its label files -> value of the convention.
    """

    layout: Layout
    separator: str
    suffixes: tuple[str, str, str, str, str]
    label_values: Mapping[int, int]

    def split(self, path: Path) -> tuple[str, str] | None:
        """Return (case, suffix) of a file name, None if it is not of this generation."""
        case, _, suffix = (nifti_stem(path) or "").rpartition(self.separator)
        return (case, suffix.lower()) if case and suffix.lower() in self.suffixes else None


_BRATS = (
    BratsNames(
        Layout.BRATS_2018,
        "_",
        ("flair", "t1", "t1ce", "t2", "seg"),
        {0: 0, 1: NON_ENHANCING, 2: OEDEMA, 4: ENHANCING},
    ),
    BratsNames(
        Layout.BRATS_2023,
        "-",
        ("t2f", "t1n", "t1c", "t2w", "seg"),
        {0: 0, 1: NON_ENHANCING, 2: OEDEMA, 3: ENHANCING},
    ),
)


_SEGMENTATION = re.compile(r"(.*[^a-z])?seg(mentation|m)?", re.IGNORECASE)
"""Name of a label that is not named as its case: BraTS 2020 has a W39_1998.09.19_Segm.nii."""


def scan_brats(raw_dir: Path, stated: dict[str, Any] | None = None) -> RawFolder:
    """Scan folders of BraTS, one for each case, at any depth below the raw folder.

    Args:
        raw_dir: The raw folder.
        stated: What its owner says that the label values are, as in a dataset.json; None where nobody does.

    Raises:
        CaseError: No file is named as in BraTS, a folder cannot be listed, or the names do not tell what the label
            values mean.
    """
    folders = list_folders(raw_dir)
    names = _brats_generation(raw_dir, [file for folder in folders for file in folder.images])
    candidates = []
    problems: list[Problem] = []
    for folder in folders:
        if folder.path == raw_dir:
            what = "file of a case outside a folder of its own"
            remedy = "move it into a folder named after its case, or give the folder above"
            problems += [Problem(None, file, what, remedy) for file in folder.images]
        elif folder.images:
            candidate, of_candidate = _brats_candidate(folder, names)
            candidates.append(candidate)
            problems += of_candidate
    case_ids = [candidate.case_id for candidate in candidates]
    problems += without_image(folders, raw_dir, case_ids)
    anatomy, values, of_names = read_convention(raw_dir, names.label_values, case_ids, stated)
    meaning = Meaning(anatomy, tuple(range(len(CHANNELS))), values)
    return check_cases(raw_dir, names.layout, meaning, candidates, [*of_names, *problems])


def _brats_generation(raw_dir: Path, files: list[Path]) -> BratsNames:
    """Return the generation that most files are named by; cases of the other one then lack all their files.

    Raises:
        CaseError: No file is named by either.
    """
    found = generation_of(files)
    if found is None:
        raise CaseError(f"{raw_dir}: no known layout; known are: {KNOWN_LAYOUTS}")
    return found


def generation_of(files: Collection[Path]) -> BratsNames | None:
    """Return the generation of BraTS that most files are named by; None if no file is named by either."""
    counts = [sum(names.split(file) is not None for file in files) for names in _BRATS]
    return _BRATS[counts.index(max(counts))] if any(counts) else None


def _brats_candidate(folder: Folder, names: BratsNames) -> tuple[FoundCase, list[Problem]]:
    """Return the case of a folder, and what is wrong with files that do not belong to it."""
    case_id = folder.path.name
    problems = []
    roles = dict(zip(names.suffixes, (*CHANNELS, LABEL_ROLE), strict=True))
    found: dict[str, list[Path]] = defaultdict(list)
    strays = []
    for named, file in folder.images.items():
        parts = names.split(named)
        if parts is None:
            strays.append(file)
        elif parts[0] != case_id:
            remedy = f"move it to a folder {parts[0]}, or rename the file or the folder"
            problems.append(Problem(case_id, file, f"file of another case ({parts[0]})", remedy))
        else:
            found[roles[parts[1]]].append(file)
    segmentations = [file for file in strays if _is_segmentation(file)]
    if LABEL_ROLE not in found and len(segmentations) == 1:
        found[LABEL_ROLE] = segmentations
        strays.remove(segmentations[0])
        what = "taken for the label, as no other file of the case is called a segmentation"
        remedy = "rename it after its case"
        problems.append(Problem(case_id, segmentations[0], what, remedy, "warning", "label of another name"))
    for file in strays:
        what = f"not named as a file of {names.layout.value}, left out"
        problems.append(Problem(case_id, file, what, "rename it or move it elsewhere", "warning"))
    first = next(iter(folder.images))
    ending = ".nii" if first.suffix == ".nii" else ".nii.gz"
    start = f"{case_id}{names.separator}"
    expected = {role: folder.path / f"{start}{suffix}{ending}" for suffix, role in roles.items()}
    return FoundCase(case_id, expected, found), problems


def _is_segmentation(file: Path) -> bool:
    """Whether a name says so; that of another generation does not count, as its label values differ."""
    return bool(_SEGMENTATION.fullmatch(str(nifti_stem(file)))) and not any(names.split(file) for names in _BRATS)


def without_image(folders: Iterable[Folder], raw_dir: Path, case_ids: Collection[str]) -> list[Problem]:
    """Report the folders that hold no image at any depth, which would otherwise vanish without a word.

    An empty one, or one that is named as the cases are, is a case that was not unpacked or not all downloaded.

    Args:
        folders: All folders.
        raw_dir: The folder above them.
        case_ids: Names of the cases that were found.
    """
    holding = {above for folder in folders if folder.images for above in (folder.path, *folder.path.parents)}
    patterns = {_pattern(case_id) for case_id in case_ids}
    problems = []
    for folder in folders:
        if folder.path in holding or folder.path == raw_dir or folder.path.parent not in holding | {raw_dir}:
            continue
        only = f", only {_some_names(folder.others)}" if folder.others else ""
        what = f"no NIfTI file in its folder{only}"
        name = folder.path.name
        if not folder.others or _pattern(name) in patterns:
            remedy = "unpack or download it again, convert its images, or remove the folder"
            problems.append(Problem(name, folder.path, what, remedy, kind="case without any image"))
        else:
            remedy = "move it elsewhere, or bring its images if it is a case"
            problems.append(
                Problem(None, folder.path, f"{what}, left out", remedy, "warning", "folder without any image")
            )
    return problems


def _pattern(name: str) -> str:
    """Return a name with every number as one sign, alike for all cases of a dataset."""
    return re.sub(r"\d+", "0", name)


def _some_names(paths: Collection[Path]) -> str:
    shown = [path.name for path in list(paths)[:3]]
    return ", ".join([*shown, "..."] if len(paths) > len(shown) else shown)
