"""What a person decided of cases after looking at their cards: the file that the report's form saves.

A case whose label is wrong or whose image is bad loses its role; nobody else's role changes by that. All decisions
stand in the cohort, whichever they are.
"""

import csv
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import cast

from pydantic import BaseModel, ConfigDict

from idal_assets.settings import DECISIONS, Decision
from idal_assets.study.roles import CohortError, RoleName

TAKEN_OUT: frozenset[Decision] = frozenset({"label wrong", "bad image"})
"""Decisions after which a case takes no part."""

CASE, DECISION, NOTE = "case_id", "decision", "note"
REVIEW_COLUMNS = (CASE, DECISION, NOTE)
"""Columns of the file; a note may be empty, and other columns are left alone."""


class Review(BaseModel):
    """One decision.

    Attributes:
        decision: What the case is.
        note: Whatever the person wrote beside it.
    """

    model_config = ConfigDict(frozen=True)

    decision: Decision
    note: str = ""

    @property
    def takes_out(self) -> bool:
        """Whether the case takes no part any more."""
        return self.decision in TAKEN_OUT

    def __str__(self) -> str:
        return f"{self.decision} ({self.note})" if self.note else self.decision


def read_reviews(file: Path) -> dict[str, Review]:
    """Reads the decisions of a person.

    Args:
        file: Comma-separated values in UTF-8 with the columns `case_id`, `decision` and perhaps `note`; rows
            without a decision say nothing.

    Returns:
        The decisions by case, in the order of the names.

    Raises:
        CohortError: The file cannot be read, a decision is none of `DECISIONS`, or a case is decided in two ways.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            rows = list(csv.DictReader(lines))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CohortError(f"{file}, which cohort.reviewed names, cannot be read ({error})") from error
    if rows and not {CASE, DECISION} <= rows[0].keys():
        raise CohortError(f"{file} needs the columns {CASE} and {DECISION}; save it again from the report's form")
    found: dict[str, Review] = {}
    for number, row in enumerate(rows, start=2):
        case, said = (row[CASE] or "").strip(), (row[DECISION] or "").strip().lower()
        if not said:
            continue
        if said not in DECISIONS:
            raise CohortError(
                f"{file}, line {number}: {said!r} of {case} is no decision; take one of {', '.join(DECISIONS)}"
            )
        review = Review(decision=cast("Decision", said), note=(row.get(NOTE) or "").strip())
        if found.setdefault(case, review).decision != review.decision:
            raise CohortError(f"{file}, line {number}: {case} is decided twice, otherwise; leave one of the rows")
    return dict(sorted(found.items()))


def ensure_known(reviews: Mapping[str, Review], cases: Collection[str], source: str) -> None:
    """Refuses decisions on cases that there are not.

    Args:
        reviews: Decisions by case.
        cases: Names of all cases of the raw folder.
        source: Where the cases are, for the message.

    Raises:
        CohortError: A decision is on another case; all are named.
    """
    unknown = sorted(reviews.keys() - set(cases))
    if unknown:
        raise CohortError(
            f"cohort.reviewed decides on {', '.join(unknown)}, which {source} does not hold; correct the names or "
            "take the rows out"
        )


def without_taken_out(roles: Mapping[str, RoleName], reviews: Mapping[str, Review]) -> dict[str, RoleName]:
    """The roles of the cases that still take part; nobody takes the place of one that left."""
    return {case: role for case, role in roles.items() if case not in reviews or not reviews[case].takes_out}
