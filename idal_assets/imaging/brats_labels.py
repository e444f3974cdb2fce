"""What the label values of BraTS folders mean: of which challenge the cases are, by their names.

The challenges give the same values other meanings. Where the names leave no doubt the values are mapped by them;
where they do, the owner of the folder has to say which are meant.
"""

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from idal_assets.anatomy import Anatomy
from idal_assets.imaging.brain_tumour import (
    BRAIN_TUMOUR,
    CAVITY,
    ENHANCING,
    NON_ENHANCING,
    OEDEMA,
    POST_TREATMENT,
)
from idal_assets.imaging.brain_tumour_names import recognise_labels
from idal_assets.imaging.case import CaseError
from idal_assets.imaging.problems import Problem
from idal_assets.imaging.raw_folder import Meaning

CONVENTIONS = {
    "BraTS 2023, all challenges": {"non-enhancing tumor": 1, "edema": 2, "enhancing tumor": 3},
    "BraTS 2024, adults after treatment": {
        **{"non-enhancing tumor": 1, "edema": 2, "enhancing tumor": 3},
        "resection cavity": 4,
    },
    "BraTS 2024, children": {"enhancing tumor": 1, "non-enhancing tumor": 2, "cystic component": 3, "edema": 4},
    "BraTS 2018 to 2021": {"non-enhancing tumor": 1, "edema": 2, "enhancing tumor": 4},
    "BraTS 2013": {"necrosis": 1, "edema": 2, "non-enhancing tumor": 3, "enhancing tumor": 4},
}
"""Label values by name, as a dataset.json may state them."""

FIRST_SESSION_AFTER_TREATMENT = 100
"""BraTS 2024 numbers the scans of an adult glioma after an operation from here, such as BraTS-GLI-02062-101."""

_CHALLENGE = re.compile(
    r"brats(?:20)?(?:\d\d)?[-_](?P<name>ped|gli|met|ssa|men|goat)s?[-_]\d+(?:[-_](?P<session>\d+))?",
    re.IGNORECASE,
)
_ADULT = {0: 0, 1: NON_ENHANCING, 2: OEDEMA, 3: ENHANCING}
_WORDS = {"MET": "metastases", "SSA": "gliomas of sub-Saharan Africa", "MEN": "meningiomas", "GOAT": "all tumours"}


def read_convention(
    raw_dir: Path, usual: Mapping[int, int], case_ids: Collection[str], stated: dict[str, Any] | None
) -> tuple[Anatomy, Mapping[int, int], list[Problem]]:
    """Return the anatomy of a BraTS folder, file value -> value of the anatomy, and what to be wary of.

    Args:
        raw_dir: The folder, for the message.
        usual: The values of adult gliomas in its layout.
        case_ids: The cases in it.
        stated: The `labels` of its dataset.json; None where there are none.

    Raises:
        CaseError: The names do not tell what the values mean, or what is stated cannot be understood.
    """
    challenges = _challenges(case_ids)
    found = None if stated is None else recognise_labels(stated)
    if found and ("PED" not in challenges or len(challenges) == 1 or found[1] == _ADULT):
        return *found, []
    if found:
        raise CaseError(
            f"{raw_dir}: cases named BraTS-PED have other label values than the adults beside them; give each kind"
            " a raw folder of its own"
        )
    if stated is not None:
        raise CaseError(
            f"{raw_dir / 'dataset.json'}: 'labels' are not those of a brain tumour; {_what_to_write()}"
        )
    if "PED" in challenges:
        raise CaseError(
            f"{raw_dir}: cases named BraTS-PED are of children, and their label values are others since 2024"
            " (1 enhancing, 2 and 3 non-enhancing, 4 edema) than in 2023 (1 non-enhancing, 2 edema, 3 enhancing);"
            f" say which are meant: {_what_to_write()}"
        )
    warnings = [_as_of_adults(raw_dir, name, usual) for name in sorted(challenges & _WORDS.keys())]
    if "POST" in challenges and CAVITY not in usual:
        return POST_TREATMENT, {**usual, CAVITY: CAVITY}, warnings
    return BRAIN_TUMOUR, usual, warnings


def adult_values_of_children(description: Path, meaning: Meaning, case_ids: Collection[str]) -> list[Problem]:
    """Warn where a dataset.json gives children the label values of adults, which some conversions do.

    Args:
        description: The dataset.json.
        meaning: What it says.
        case_ids: The cases that it describes.
    """
    if "PED" not in _challenges(case_ids) or meaning.label_values != _ADULT:
        return []
    what = (
        "cases named BraTS-PED have the label values of adults; since 2024, children have 1 for enhancing tumour"
    )
    remedy = f"look which are meant; of 2024 they are {json.dumps(CONVENTIONS['BraTS 2024, children'])}"
    return [Problem(None, description, what, remedy, "warning", "assumed label values")]


def _challenges(case_ids: Collection[str]) -> set[str]:
    return {challenge for case_id in case_ids if (challenge := _challenge(case_id))}


def _challenge(case_id: str) -> str | None:
    """Return the challenge that a case is named after; POST where it is an adult glioma after treatment."""
    match = _CHALLENGE.match(case_id)
    if match is None:
        return None
    later = match["session"] is not None and int(match["session"]) >= FIRST_SESSION_AFTER_TREATMENT
    return "POST" if match["name"].upper() == "GLI" and later else match["name"].upper()


def _as_of_adults(raw_dir: Path, challenge: str, usual: Mapping[int, int]) -> Problem:
    parts = ", ".join(f"{value} {BRAIN_TUMOUR.labels[target]}" for value, target in usual.items() if target)
    what = f"cases named BraTS-{challenge} ({_WORDS[challenge]}) are read by the values of adult gliomas ({parts})"
    return Problem(
        None, raw_dir, what, f"if they are others, {_what_to_write()}", "warning", "assumed label values"
    )


def doubt(raw_dir: Path, cases: Collection[str], among: int) -> Problem:
    """Report that some cases have values that the folder's convention lacks, so that all may mean something else.

    Args:
        raw_dir: The folder.
        cases: Those cases.
        among: How many cases were looked at.
    """
    shown = ", ".join(sorted(cases)[:3]) + (", ..." if len(cases) > 3 else "")
    what = (
        f"labels of {len(cases)} of {among} cases ({shown}) have values of another convention of BraTS, so those"
        " of all cases may mean something else than was taken for granted"
    )
    remedy = f"find out which convention is meant; {_what_to_write()}, and relabel cases that differ from it"
    return Problem(None, raw_dir, what, remedy, kind="label values of another convention")


def _what_to_write() -> str:
    ways = "; ".join(f"{name}: {json.dumps({'labels': labels})}" for name, labels in CONVENTIONS.items())
    return f"write a dataset.json beside the cases, with nothing in it but their labels ({ways})"
