"""What the names in a raw data folder say: the layout, the cases, and all that is wrong with them.

The modules of the layouts propose candidates; `check_candidates` decides here, alike for all, which are cases.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from idal_assets.imaging.problems import Problem

LABEL_ROLE = "label"
_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Layout(str, Enum):
    """The layouts of a raw data folder that can be read."""

    MSD = "MSD"
    NNUNET = "nnU-Net v2"
    BRATS_2018 = "BraTS 2018-2021"
    BRATS_2023 = "BraTS 2023+"


KNOWN_LAYOUTS = (
    f"{Layout.MSD.value} (dataset.json with a 'training' list, 4D images in imagesTr, labelsTr); "
    f"{Layout.NNUNET.value} raw (dataset.json with 'channel_names', imagesTr/CASE_0000.nii.gz, labelsTr); "
    f"{Layout.BRATS_2018.value} (a folder for each case, CASE_flair, _t1, _t1ce, _t2, _seg); "
    f"{Layout.BRATS_2023.value} (a folder for each case, CASE-t2f, -t1n, -t1c, -t2w, -seg)"
)


@dataclass(frozen=True)
class CaseFiles:
    """Where one case is, and how the content of its files maps to the convention.

    Attributes:
        case_id: Name of the case, safe as the name of a folder.
        layout: Layout of the folder it is in.
        images: One 4D file, or four 3D files in the order of `CHANNELS`.
        label: The label file.
        channel_order: For a 4D file, which of its channels is each of `CHANNELS`; otherwise 0 to 3.
        label_values: Value in the label file -> value of the convention, 0 -> 0 included.
    """

    case_id: str
    layout: Layout
    images: tuple[Path, ...]
    label: Path
    channel_order: tuple[int, ...]
    label_values: Mapping[int, int]


@dataclass(frozen=True)
class RawFolder:
    """What the names in a raw data folder say.

    Attributes:
        path: The folder.
        layout: Its layout.
        cases: The cases whose files are complete, sorted by case id.
        problems: Everything that is wrong; a case with an error is not among `cases`.
    """

    path: Path
    layout: Layout
    cases: tuple[CaseFiles, ...]
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class Candidate:
    """A case as found by name, complete or not.

    Attributes:
        case_id: Its name.
        expected: Role ("image" or a channel, "label") -> the file that should be there.
        found: Role -> the files that may be meant.
    """

    case_id: str
    expected: dict[str, Path]
    found: dict[str, list[Path]]


def check_candidates(
    raw_dir: Path,
    layout: Layout,
    candidates: list[Candidate],
    problems: list[Problem],
    *,
    channel_order: tuple[int, ...] = (0, 1, 2, 3),
    label_values: Mapping[int, int],
) -> RawFolder:
    """Keep the candidates that nothing is wrong with and put everything else among the problems.

    Args:
        raw_dir: The folder.
        layout: Its layout.
        candidates: What may be a case.
        problems: What was found on the way; an error that names a case refuses it.
        channel_order: As in `CaseFiles`.
        label_values: As in `CaseFiles`.
    """
    of_candidates = [problem for candidate in candidates for problem in _candidate_problems(candidate)]
    problems = [*problems, *of_candidates, *_duplicate_problems(candidates)]
    if not candidates and not problems:
        problems = [Problem(None, raw_dir, f"{layout.value} folder without a case", "add cases")]
    refused = {problem.case_id for problem in problems if problem.severity == "error"}
    cases = [
        CaseFiles(
            case_id=candidate.case_id,
            layout=layout,
            images=tuple(candidate.found[role][0] for role in candidate.expected if role != LABEL_ROLE),
            label=candidate.found[LABEL_ROLE][0],
            channel_order=channel_order,
            label_values=label_values,
        )
        for candidate in candidates
        if candidate.case_id not in refused
    ]
    return RawFolder(raw_dir, layout, tuple(sorted(cases, key=lambda case: case.case_id)), tuple(problems))


def _candidate_problems(candidate: Candidate) -> list[Problem]:
    """Check the name of one candidate and that each of its files is there exactly once."""
    case_id = candidate.case_id
    problems = []
    if not _SAFE_ID.fullmatch(case_id) or ".." in case_id:
        what = f"case id {case_id!r} is not safe as the name of a folder"
        remedy = "rename its files to letters, digits, '.', '_' and '-', starting with a letter or digit"
        problems.append(Problem(case_id, candidate.expected[LABEL_ROLE], what, remedy))
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


def _duplicate_problems(candidates: list[Candidate]) -> list[Problem]:
    """Report case ids, and label files, that more than one candidate claims."""
    ids = Counter(candidate.case_id for candidate in candidates)
    problems = []
    for case_id in sorted(case_id for case_id, count in ids.items() if count > 1):
        places = [candidate.expected[LABEL_ROLE] for candidate in candidates if candidate.case_id == case_id]
        what = f"case id is there {len(places)} times ({', '.join(map(str, places))})"
        problems.append(Problem(case_id, places[1], what, "keep one of them or rename"))
    labels = Counter(candidate.expected[LABEL_ROLE] for candidate in candidates)
    for candidate in candidates:
        label = candidate.expected[LABEL_ROLE]
        if ids[candidate.case_id] == 1 and labels[label] > 1:
            problems.append(Problem(candidate.case_id, label, "label of several cases", "give each case its own"))
    return problems
