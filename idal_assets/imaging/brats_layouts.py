"""Raw folders as BraTS hands them out: a folder for each case, in two generations of names."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from idal_assets.imaging.brain_tumour import BRAIN_TUMOUR, CHANNELS, ENHANCING, NON_ENHANCING, OEDEMA
from idal_assets.imaging.case import CaseError
from idal_assets.imaging.listing import nifti_stem, walk
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
class _BratsNames:
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
    _BratsNames(
        Layout.BRATS_2018,
        "_",
        ("flair", "t1", "t1ce", "t2", "seg"),
        {0: 0, 1: NON_ENHANCING, 2: OEDEMA, 4: ENHANCING},
    ),
    _BratsNames(
        Layout.BRATS_2023,
        "-",
        ("t2f", "t1n", "t1c", "t2w", "seg"),
        {0: 0, 1: NON_ENHANCING, 2: OEDEMA, 3: ENHANCING},
    ),
)


def scan_brats(raw_dir: Path, labelled: bool) -> RawFolder:
    """Scan folders of BraTS, one for each case, at any depth below the raw folder.

    Args:
        raw_dir: The raw folder.
        labelled: Whether to look for cases with a label, or for those without.

    Raises:
        CaseError: No file is named as in BraTS, or a folder cannot be listed.
    """
    folders = list(walk(raw_dir))
    names = _brats_generation(raw_dir, [file for _, inside, _ in folders for file in inside])
    candidates = []
    problems: list[Problem] = []
    for folder, inside, subfolders in folders:
        images = [file for file in inside if nifti_stem(file)]
        if folder == raw_dir:
            what = "file of a case outside a folder of its own"
            remedy = "move it into a folder named after its case, or give the folder above"
            problems += [Problem(None, file, what, remedy) for file in images]
        # a folder with nothing in it is a case that was not unpacked, so it is reported with all files missing
        elif images or not (inside or subfolders):
            candidate, of_candidate = _brats_candidate(folder, images, names, labelled)
            if labelled or LABEL_ROLE not in candidate.found:
                candidates.append(candidate)
                problems += of_candidate
    meaning = Meaning(BRAIN_TUMOUR, tuple(range(len(CHANNELS))), names.label_values)
    return check_cases(raw_dir, names.layout, meaning, candidates, problems, labelled=labelled)


def _brats_generation(raw_dir: Path, files: list[Path]) -> _BratsNames:
    """Return the generation that most files are named by; cases of the other one then lack all their files.

    Raises:
        CaseError: No file is named by either.
    """
    counts = [sum(names.split(file) is not None for file in files) for names in _BRATS]
    if not any(counts):
        raise CaseError(f"{raw_dir}: no known layout; known are: {KNOWN_LAYOUTS}")
    return _BRATS[counts.index(max(counts))]


def _brats_candidate(
    folder: Path, files: list[Path], names: _BratsNames, labelled: bool
) -> tuple[FoundCase, list[Problem]]:
    """Return the case of a folder, and what is wrong with files that do not belong to it."""
    case_id = folder.name
    problems = []
    roles = dict(zip(names.suffixes, (*CHANNELS, LABEL_ROLE), strict=True))
    found: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        parts = names.split(file)
        if parts is None:
            what = f"not named as a file of {names.layout.value}, left out"
            problems.append(Problem(case_id, file, what, "rename it or move it elsewhere", "warning"))
        elif parts[0] != case_id:
            remedy = f"move it to a folder {parts[0]}, or rename the file or the folder"
            problems.append(Problem(case_id, file, f"file of another case ({parts[0]})", remedy))
        else:
            found[roles[parts[1]]].append(file)
    ending = ".nii" if files and files[0].suffix == ".nii" else ".nii.gz"
    start = f"{case_id}{names.separator}"
    expected = {role: folder / f"{start}{suffix}{ending}" for suffix, role in roles.items()}
    if not labelled:
        del expected[LABEL_ROLE]
    return FoundCase(case_id, expected, found), problems
