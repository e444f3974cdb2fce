"""The roles of cases, and how they are given: by the profile's lists, then by a draw."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import pandas as pd

from idal_assets.settings import CohortSettings
from idal_assets.study.patients import divide_whole, draw_whole, patients_of, sessions, waiting_line

RoleName = Literal["donor", "test", "pretraining", "validation"]


class CohortError(ValueError):
    """A raw folder that the profile cannot be run on; the message lists every reason.

    Attributes:
        refused: Refused cases with their reasons.
    """

    def __init__(self, message: str, refused: Mapping[str, tuple[str, ...]] | None = None) -> None:
        super().__init__(message)
        self.refused = refused or {}

    @property
    def shows(self) -> dict[str, pd.DataFrame]:
        """What the page of the cohort shows of it."""
        rows = [(case, reason) for case, reasons in self.refused.items() for reason in reasons]
        return {"refused": pd.DataFrame(rows, columns=["case_id", "reason"])} if rows else {}


@dataclass(frozen=True)
class Role:
    """A role that cases can have, by the settings of `cohort` that give it.

    Attributes:
        name: Its name.
        listed: Setting that lists its cases.
        count: Setting that says how many are drawn; null leaves it to the share.
        share: Setting that says which share of all cases is drawn; None where there is no such setting.
        least: How many a share is at least.
    """

    name: RoleName
    listed: str
    count: str
    share: str | None = None
    least: int = 0

    def by_share(self, settings: CohortSettings) -> bool:
        """Whether the number of its cases depends on how many cases there are."""
        drawn = not getattr(settings, self.listed) and getattr(settings, self.count) is None
        return drawn and self.share is not None and getattr(settings, self.share) is not None

    def wanted(self, settings: CohortSettings, cases: int) -> int | None:
        """How many are drawn of so many cases; None takes all that are left."""
        if self.share is not None and self.by_share(settings):
            return max(self.least, round(getattr(settings, self.share) * cases))
        return getattr(settings, self.count)


ROLES: tuple[Role, ...] = (
    # segmented by every model, decides nothing
    Role("test", "test_cases", "test", "test_share", least=2),
    # trains the baseline
    Role("pretraining", "pretraining_cases", "pretraining", "pretraining_share", least=2),
    # segmented by every model to judge which donors may leave
    Role("validation", "validation_cases", "validation", "validation_share", least=1),
    # a model is fine-tuned on it
    Role("donor", "donor_cases", "donors", "donor_share", least=2),
)
"""All roles, in the order in which cases are listed and drawn for them."""


def choose_roles(
    names: Sequence[str], settings: CohortSettings, raw_dir: Path, patients: Mapping[str, str] | None = None
) -> dict[str, RoleName]:
    """Gives each case a role, by the lists and then by the draw.

    The draw orders the patients by a hash of seed and name, so that a case that comes or goes moves few others.
    All cases of a patient get one role; counts are of cases and are reached as nearly as whole patients allow (see
    `draw_whole`). Of a patient that a list names, cases that no list names take no part.

    Args:
        names: Verified cases.
        settings: Lists, counts and seed.
        raw_dir: The raw folder, for the messages.
        patients: Patient by case; a case that it does not name is a patient by itself.

    Returns:
        The role of every case that takes part.

    Raises:
        CohortError: A listed case does not exist, a patient is in several lists, or there are too few cases.
    """
    patients = patients or {}
    roles: dict[str, RoleName] = {}
    for role in ROLES:
        for case in _listed(names, role, settings, raw_dir):
            if roles.setdefault(case, role.name) != role.name:
                raise CohortError(f"{case} is listed as {roles[case]} and as {role.name}; leave it in one list")
    _ensure_whole(roles, patients)
    listed = {patients.get(case, case) for case in roles}
    waiting = waiting_line(
        (case for case in names if patients.get(case, case) not in listed), patients, settings.seed
    )
    for role in ROLES:
        if getattr(settings, role.listed):
            continue
        left = sum(map(len, waiting))
        count = role.wanted(settings, len(names))
        if count is not None and left < count:
            raise CohortError(
                f"{raw_dir}: {count} {role.name} cases are asked for and only {left} of {len(names)} are "
                f"left; add cases or lower cohort.{role.count} in the profile"
            )
        drawn = draw_whole(waiting, left if count is None else count)
        roles.update({case: role.name for own in drawn for case in own})
        waiting = [own for own in waiting if own[0] not in roles]
    return roles


def _ensure_whole(roles: Mapping[str, RoleName], patients: Mapping[str, str]) -> None:
    """Refuses lists that give cases of one patient different roles."""
    for patient, own in sessions(roles, patients).items():
        if len({roles[case] for case in own}) > 1:
            given = ", ".join(f"{case} as {roles[case]}" for case in own)
            raise CohortError(
                f"the cases of patient {patient} are listed in different roles ({given}); list all in one"
            )


def needed_cases(names: Sequence[str], settings: CohortSettings, source: Path) -> list[str]:
    """Chooses cases that suffice for the profile and get the same roles as they would among all.

    The draw orders the cases by themselves, so those without a role can be missing from it. All are needed where
    the number of cases decides (a share of them, or patients of several), or where others may stand in for refused
    ones.

    Args:
        names: All cases that there are.
        settings: Lists, counts and seed.
        source: Where the cases come from, for the messages.

    Returns:
        The needed cases, sorted.

    Raises:
        CohortError: A listed case does not exist, a patient is in several lists, or there are too few cases.
    """
    patients = patients_of(names, settings.patient_pattern)
    roles = choose_roles(names, settings, source, patients)
    by_number = any(role.by_share(settings) for role in ROLES) or len({*patients.values()}) < len(patients)
    return sorted(names) if by_number or settings.go_on_without_refused else sorted(roles)


def draw_folds(
    donors: Sequence[str], count: int, seed: int, patients: Mapping[str, str] | None = None
) -> list[list[str]]:
    """Divides the donors into folds, all cases of a patient into one.

    The folds are consecutive parts of the drawing order. A donor that comes or goes shifts their ends, so it moves
    at most one other patient across each.

    Args:
        donors: The donors.
        count: How many folds.
        seed: Seed of the draw.
        patients: Patient by case; a case that it does not name is a patient by itself.

    Returns:
        Donors of each fold, sorted; sizes differ by at most one where each is a patient of its own.
    """
    return divide_whole(waiting_line(donors, patients or {}, seed), count)


def draw_held_out(
    cases: Sequence[str], share: float, seed: int, patients: Mapping[str, str] | None = None
) -> list[str]:
    """Draws cases that candidates for the baseline are judged on instead of trained on, whole patients only.

    Args:
        cases: The cases that train the baseline.
        share: Share of them, rounded, at least one, as nearly as whole patients allow.
        seed: Seed of the draw.
        patients: Patient by case; a case that it does not name is a patient by itself.

    Returns:
        The drawn cases, sorted.

    Raises:
        CohortError: There would be none left to train on.
    """
    waiting = waiting_line(cases, patients or {}, seed)
    drawn = sorted(case for own in draw_whole(waiting, max(1, round(share * len(cases)))) for case in own)
    if len(drawn) == len(cases):
        raise CohortError(
            f"The baseline has {len(cases)} training cases, and candidates.held_out_share {share:g} would "
            "leave none to train its candidates on; lower the share or give the cohort more cases"
        )
    return drawn


def ensure_enough_donors(
    roles: Mapping[str, RoleName],
    patients: Mapping[str, str],
    settings: CohortSettings,
    removal_sizes: Sequence[int],
    folds: int,
    raw_dir: Path,
) -> None:
    """Refuses a cohort with fewer donors than the profile needs.

    Raises:
        CohortError: There are too few.
    """
    donors = [case for case, role in roles.items() if role == "donor"]
    needed = max(settings.minimum_donors, max(removal_sizes) + 2)
    if len(donors) < needed:
        raise CohortError(
            f"{raw_dir}: {len(donors)} donors are too few for this profile, which needs {needed} "
            f"(it removes up to {max(removal_sizes)}); add cases or choose smaller removal.sizes"
        )
    donor_patients = len({patients[case] for case in donors})
    if donor_patients < folds:
        raise CohortError(
            f"{raw_dir}: {len(donors)} donors of {donor_patients} patients cannot be divided into {folds} folds; "
            "add cases or choose a smaller out_of_fold.folds (0 leaves the folds out)"
        )


def _listed(names: Sequence[str], role: Role, settings: CohortSettings, raw_dir: Path) -> list[str]:
    found: list[str] = []
    for pattern in getattr(settings, role.listed):
        matching = [name for name in names if fnmatchcase(name, pattern)]
        if not matching:
            raise CohortError(f"{raw_dir}: no case is called {pattern!r}, which cohort.{role.listed} lists")
        found += matching
    return found
