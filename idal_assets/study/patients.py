"""Which cases are of one patient: several sessions, which must stay together whatever is drawn."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from idal_assets.seeds import in_drawing_order

_BRATS = re.compile(r"(.*BraTS[-_](?:[A-Z]+[-_])+\d{4,5})[-_]\d{1,3}", re.IGNORECASE)
"""Ids of BraTS since 2023, such as BraTS-GLI-00005-001 and BraTS-MEN-RT-0001-1: project, patient, session."""


def patients_of(
    cases: Iterable[str], pattern: str | None, table: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Says of which patient each case is.

    Args:
        cases: Names of cases.
        pattern: Regular expression with one group, the patient, that is looked for in each name; None for none.
        table: Patient by case, as far as somebody wrote it down; it goes before the pattern.

    Returns:
        Patient by case. Where neither knows, ids of BraTS since 2023 tell; any other case is a patient by itself.
        A case that the table leaves out goes with those whose name tells the same patient.
    """
    table = table or {}
    named = {case: _named(case, pattern) for case in cases}
    written = {named[case]: table[case] for case in named if case in table}
    return {case: table.get(case) or written.get(patient, patient) for case, patient in named.items()}


def _named(case: str, pattern: str | None) -> str:
    of_profile = re.search(pattern, case) if pattern else None
    of_brats = _BRATS.fullmatch(case)
    return (of_profile and of_profile[1]) or (of_brats and of_brats[1]) or case


def sessions(cases: Iterable[str], patients: Mapping[str, str]) -> dict[str, list[str]]:
    """The cases of each patient, sorted; a case that `patients` does not name is a patient by itself."""
    found: dict[str, list[str]] = defaultdict(list)
    for case in sorted(cases):
        found[patients.get(case, case)].append(case)
    return dict(found)


def in_words(patients: Mapping[str, str]) -> str:
    """How many patients there are, and what to do where the names do not tell.

    Args:
        patients: Patient by case.
    """
    several = [own for own in sessions(patients, patients).values() if len(own) > 1]
    if several:
        return (
            f"{len(patients)} cases of {len({*patients.values()})} patients, {len(several)} of whom have several; "
            "all of a patient get the same role"
        )
    return (
        f"{len(patients)} cases, each taken for a patient of its own. Ids such as those of MSD do not tell: where "
        "a patient has several, name the patients in a column patient of cases.csv, or set cohort.patient_pattern"
    )


def waiting_line(cases: Iterable[str], patients: Mapping[str, str], seed: int) -> list[list[str]]:
    """The patients in the order in which they are drawn, each with all cases.

    A patient's place is that of the first case by name, so that later sessions move nobody, and cases that are all
    of different patients are drawn as if there were no patients.
    """
    by_first = {own[0]: own for own in sessions(cases, patients).values()}
    return [by_first[case] for case in in_drawing_order(by_first, seed)]


def draw_whole(waiting: Sequence[list[str]], count: int) -> list[list[str]]:
    """Draws patients with all their cases.

    From the front of the line each is taken that does not make it more than `count` cases, so they may be fewer by
    less than the sessions of one patient. Where not even one fits, the first of those with the fewest is taken.

    Args:
        waiting: Patients in drawing order.
        count: How many cases are wanted.
    """
    drawn: list[list[str]] = []
    left = count
    for own in waiting:
        if len(own) <= left:
            drawn.append(own)
            left -= len(own)
    if count and waiting and not drawn:
        return [min(waiting, key=len)]
    return drawn


def divide_whole(waiting: Sequence[list[str]], count: int) -> list[list[str]]:
    """Divides patients into consecutive parts of about as many cases, each of one patient at least.

    Args:
        waiting: Patients in drawing order.
        count: How many parts.

    Returns:
        Cases of each part, sorted; parts are empty only where there are fewer patients.
    """
    before = [0]
    for own in waiting:
        before.append(before[-1] + len(own))
    ends = [0]
    for number in range(1, count + 1):
        wanted = number * before[-1] // count
        nearest = min(range(len(before)), key=lambda end: abs(before[end] - wanted))
        # as many patients are left as parts that need one
        latest = len(waiting) - (count - number)
        ends.append(max(ends[-1], min(max(nearest, ends[-1] + 1), latest)))
    return [sorted(case for own in waiting[start:end] for case in own) for start, end in pairwise(ends)]
