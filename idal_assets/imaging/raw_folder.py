"""What the names in a raw data folder say: the layout, the cases, and all that is wrong with them.

The modules of the layouts propose candidates; `check_cases` decides here, alike for all, which are cases.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from idal_assets.anatomy import Anatomy
from idal_assets.imaging.problems import Problem

LABEL_ROLE = "label"
_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
LONGEST_ID = 200
"""Letters of a case id; disks take names of 255 bytes, and some files are named after asset and case."""


class Layout(str, Enum):
    """The layouts of a raw data folder that can be read."""

    MSD = "MSD"
    NNUNET = "nnU-Net v2"
    BRATS_2018 = "BraTS 2018-2021"
    BRATS_2023 = "BraTS 2023+"


KNOWN_LAYOUTS = (
    f"{Layout.MSD.value} (dataset.json with a 'training' list, 3D or 4D images in imagesTr, labelsTr); "
    f"{Layout.NNUNET.value} raw (dataset.json with 'channel_names', imagesTr/CASE_0000.nii.gz, labelsTr); "
    f"{Layout.BRATS_2018.value} (a folder for each case, CASE_flair, _t1, _t1ce, _t2, _seg); "
    f"{Layout.BRATS_2023.value} (a folder for each case, CASE-t2f, -t1n, -t1c, -t2w, -seg)"
)


@dataclass(frozen=True)
class Meaning:
    """What the channels and label values in the files of a raw folder mean.

    Attributes:
        anatomy: What they are mapped to.
        channel_order: Which channel of the files is each channel of the anatomy.
        label_values: Value in a label file -> value of the anatomy, 0 -> 0 and that of `ignore` included.
    """

    anatomy: Anatomy
    channel_order: tuple[int, ...]
    label_values: Mapping[int, int]


@dataclass(frozen=True)
class CaseFiles:
    """Where one case is, and how the content of its files maps to the anatomy.

    Attributes:
        case_id: Name of the case, safe as the name of a folder.
        layout: Layout of the folder it is in.
        anatomy: Channels and labels of the folder.
        images: One file with all channels, or one 3D file for each channel in the order of the anatomy.
        label: The label file; None where the case has none.
        channel_order: For one file, which of its channels is each of the anatomy; otherwise 0, 1, 2, ...
        label_values: Value in the label file -> value of the anatomy, 0 -> 0 and that of `ignore` included.
    """

    case_id: str
    layout: Layout
    anatomy: Anatomy
    images: tuple[Path, ...]
    label: Path | None
    channel_order: tuple[int, ...]
    label_values: Mapping[int, int]


@dataclass(frozen=True)
class RawFolder:
    """What the names in a raw data folder say.

    Attributes:
        path: The folder.
        layout: Its layout.
        anatomy: Its channels and labels, as the folder describes them.
        cases: The cases whose files are complete, sorted by case id.
        problems: Everything that is wrong; a case with an error is not among `cases`.
        channel_order: Which channel of its files, by number, is each of the anatomy; empty where files are
            named by channel.
    """

    path: Path
    layout: Layout
    anatomy: Anatomy
    cases: tuple[CaseFiles, ...]
    problems: tuple[Problem, ...]
    channel_order: tuple[int, ...] = ()


@dataclass(frozen=True)
class FoundCase:
    """A case as found by name, complete or not.

    Attributes:
        case_id: Its name.
        expected: Role ("image" or a channel, and "label" if it should have one) -> the file that should be there.
        found: Role -> the files that may be meant.
    """

    case_id: str
    expected: dict[str, Path]
    found: dict[str, list[Path]]

    @property
    def place(self) -> Path:
        """The file that stands for the case in a message: its label, or else its last image."""
        return list(self.expected.values())[-1]


def check_cases(
    raw_dir: Path,
    layout: Layout,
    meaning: Meaning,
    candidates: list[FoundCase],
    problems: list[Problem],
) -> RawFolder:
    """Keep the candidates that nothing is wrong with and put everything else among the problems.

    Args:
        raw_dir: The folder.
        layout: Its layout.
        meaning: What its channels and label values mean.
        candidates: What may be a case.
        problems: What was found on the way; an error that names a case refuses it.
    """
    of_candidates = [problem for candidate in candidates for problem in _candidate_problems(candidate)]
    problems = [*problems, *of_candidates, *_duplicate_problems(candidates)]
    if not candidates and not problems:
        problems = [Problem(None, raw_dir, f"{layout.value} folder without a case", "add cases")]
    refused = {problem.case_id for problem in problems if problem.severity == "error"}
    # one file holds the channels in its own order, several are listed in that of the anatomy
    in_order = tuple(range(len(meaning.channel_order)))
    cases = []
    for candidate in candidates:
        if candidate.case_id in refused:
            continue
        images = tuple(candidate.found[role][0] for role in candidate.expected if role != LABEL_ROLE)
        label = candidate.found[LABEL_ROLE][0] if LABEL_ROLE in candidate.expected else None
        order = meaning.channel_order if len(images) == 1 else in_order
        cases.append(
            CaseFiles(candidate.case_id, layout, meaning.anatomy, images, label, order, meaning.label_values)
        )
    by_id = tuple(sorted(cases, key=lambda case: case.case_id))
    numbered = layout in (Layout.MSD, Layout.NNUNET)
    order_of_files = meaning.channel_order if numbered else ()
    return RawFolder(raw_dir, layout, meaning.anatomy, by_id, tuple(problems), order_of_files)


def id_too_long(case_id: str, place: Path) -> Problem | None:
    """Why an id cannot name files; to be asked before the disk is, which would not even look for them."""
    if len(case_id.encode()) <= LONGEST_ID:
        return None
    what = f"case id has {len(case_id.encode())} letters; files of results are named after it"
    return Problem(case_id, place, what, f"rename its files to {LONGEST_ID} letters at most")


def _candidate_problems(candidate: FoundCase) -> list[Problem]:
    """Check the name of one candidate and that each of its files is there exactly once."""
    case_id = candidate.case_id
    if problem := id_too_long(case_id, candidate.place):
        return [problem]
    problems = []
    if not _SAFE_ID.fullmatch(case_id) or ".." in case_id:
        what = f"case id {case_id!r} is not safe as the name of a folder"
        remedy = "rename its files to letters, digits, '.', '_' and '-', starting with a letter or digit"
        problems.append(Problem(case_id, candidate.place, what, remedy))
    for role, expected in candidate.expected.items():
        files = candidate.found.get(role, [])
        if len(files) > 1:
            names = ", ".join(file.name for file in files)
            problems.append(Problem(case_id, files[1], f"{role} is there more than once ({names})", "keep one"))
        elif not files:
            problems.append(Problem(case_id, expected, f"{role} is missing", "add the file or remove the case"))
        elif not files[0].is_file():
            remedy = "restore the file (or the target of the link) or remove the case"
            problems.append(Problem(case_id, files[0], f"{role} is named but absent", remedy))
    return problems


def _duplicate_problems(candidates: list[FoundCase]) -> list[Problem]:
    """Report case ids, and label files, that more than one candidate claims."""
    ids = Counter(candidate.case_id for candidate in candidates)
    problems = []
    for case_id in sorted(case_id for case_id, count in ids.items() if count > 1):
        places = [candidate.place for candidate in candidates if candidate.case_id == case_id]
        what = f"case id is there {len(places)} times ({', '.join(map(str, places))})"
        problems.append(Problem(case_id, places[1], what, "keep one of them or rename"))
    labels = Counter(candidate.expected.get(LABEL_ROLE) for candidate in candidates)
    for candidate in candidates:
        label = candidate.expected.get(LABEL_ROLE)
        if label and ids[candidate.case_id] == 1 and labels[label] > 1:
            problems.append(Problem(candidate.case_id, label, "label of several cases", "give each case its own"))
    return problems
