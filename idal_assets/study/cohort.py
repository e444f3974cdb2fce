"""The cohort: which cases take part, and in which role."""

import csv
import hashlib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from idal_assets.imaging.case import Case, CaseError
from idal_assets.imaging.inspection import CaseFacts, FolderReport, case_signature
from idal_assets.imaging.readers import read_case, scan_raw_folder
from idal_assets.imaging.truth import CASE_TABLE, CaseTruth, read_truth
from idal_assets.settings import CohortSettings
from idal_assets.store.artifacts import content_hash

COHORT_FILE = "cohort.json"
Role = Literal["donor", "test", "pretraining", "validation"]


class CohortError(ValueError):
    """A raw folder that the profile cannot be run on; the message lists every reason.

    Attributes:
        refused: Refused cases with their reasons.
    """

    def __init__(self, message: str, refused: Mapping[str, tuple[str, ...]] | None = None) -> None:
        super().__init__(message)
        self.refused = refused or {}


class CohortCase(BaseModel):
    """A case that takes part.

    Attributes:
        case_id: Name of the case.
        role: `donor` (a model is fine-tuned on it), `validation` (segmented to judge which donors may leave),
            `test` (segmented, decides nothing), `pretraining` (trains the baseline).
        facts: What verification found.
    """

    model_config = ConfigDict(frozen=True)

    case_id: str
    role: Role
    facts: CaseFacts


class Cohort(BaseModel):
    """All cases with their roles.

    Attributes:
        raw: The raw folder.
        layout: Its layout.
        cases: The cases that take part, by name.
        left_over: Verified cases without a role.
        refused: Refused cases with their reasons.
        known: Facts of every verified case, so that a later look reads only what changed.
        scanners: Scanner by case, as far as the raw folder's `cases.csv` says.
        truth: What was planted in each case, as far as the raw folder's `truth.json` says.
    """

    model_config = ConfigDict(frozen=True)

    raw: Path
    layout: str
    cases: tuple[CohortCase, ...]
    left_over: tuple[str, ...]
    refused: Mapping[str, tuple[str, ...]]
    known: Mapping[str, CaseFacts]
    scanners: Mapping[str, str] = {}
    truth: Mapping[str, CaseTruth] = {}

    def _with_role(self, role: Role) -> list[str]:
        return [case.case_id for case in self.cases if case.role == role]

    @property
    def donors(self) -> list[str]:
        """Names of the donors."""
        return self._with_role("donor")

    @property
    def tests(self) -> list[str]:
        """Names of the test cases."""
        return self._with_role("test")

    @property
    def pretraining(self) -> list[str]:
        """Names of the pretraining cases."""
        return self._with_role("pretraining")

    @property
    def validation(self) -> list[str]:
        """Names of the validation cases."""
        return self._with_role("validation")

    @property
    def baseline_cases(self) -> list[str]:
        """Names of the cases that train the baseline: the pretraining cases, or the donors if there are none."""
        return self.pretraining or self.donors

    def held_out(self, share: float, seed: int) -> list[str]:
        """Names of the baseline's cases that its candidates are judged on instead of trained on.

        The draw goes by a hash of seed and name, as that of the roles does; test cases are not among those drawn.

        Args:
            share: Share of the baseline's cases, rounded, at least one.
            seed: Seed of the draw.

        Raises:
            CohortError: There would be none left to train on.
        """
        cases = self.baseline_cases
        count = max(1, round(share * len(cases)))
        if count >= len(cases):
            raise CohortError(
                f"The baseline has {len(cases)} training cases, and candidates.held_out_share {share:g} would "
                "leave none to train its candidates on; lower the share or give the cohort more cases"
            )
        return sorted(_in_drawing_order(cases, seed)[:count])

    @property
    def receivers(self) -> list[str]:
        """Names of the cases that every model segments: donors, validation cases, then test cases."""
        return self.deciding + self.tests

    @property
    def deciding(self) -> list[str]:
        """Names of the receivers that a decision may look at: donors, then validation cases."""
        return self.donors + self.validation

    def case(self, case_id: str) -> CohortCase:
        """Finds a case.

        Raises:
            CaseError: It does not take part.
        """
        for case in self.cases:
            if case.case_id == case_id:
                return case
        raise CaseError(f"{case_id} is not in the cohort; materialize cohort again or choose another case")

    @property
    def version(self) -> str:
        """Hash of the cases' roles and contents; where they lie and how they are compressed does not count."""
        return content_hash({case.case_id: [case.role, case.facts.content_hash] for case in self.cases})


def choose_cohort(
    report: FolderReport, settings: CohortSettings, removal_sizes: Sequence[int], folds: int = 0
) -> Cohort:
    """Gives the verified cases their roles.

    Args:
        report: The verified raw folder.
        settings: Lists, counts and seed.
        removal_sizes: How many donors the removal sets take away.
        folds: Parts that the donors are to be divided into.

    Returns:
        The cohort.

    Raises:
        CohortError: Cases are refused and the profile does not go on without them, or too few are left.
        CaseError: The raw folder has a truth that cannot be read.
    """
    refused = {case: tuple(str(problem) for problem in found) for case, found in report.refused.items()}
    of_folder = [
        str(problem) for problem in report.problems if not problem.case_id and problem.severity == "error"
    ]
    if of_folder or (refused and not settings.go_on_without_refused):
        reasons = [*of_folder, *(line for lines in refused.values() for line in lines)]
        raise CohortError(_refusal(report, reasons), refused)
    roles = choose_roles(sorted(report.facts), settings, report.raw_dir)
    _check_enough_donors(roles, settings, removal_sizes, folds, report.raw_dir)
    return Cohort(
        raw=report.raw_dir,
        layout=report.layout.value,
        cases=tuple(
            CohortCase(case_id=case, role=roles[case], facts=report.facts[case]) for case in sorted(roles)
        ),
        left_over=tuple(case for case in sorted(report.facts) if case not in roles),
        refused=refused,
        known=report.facts,
        scanners=read_scanners(report.raw_dir),
        truth=read_truth(report.raw_dir),
    )


def read_scanners(raw_dir: Path) -> dict[str, str]:
    """Reads which scanner each case comes from, where somebody wrote it down.

    Args:
        raw_dir: The raw folder; its `cases.csv` has the columns `case_id` and `scanner`, and whatever else.

    Returns:
        Scanner by case id; empty where there is no such file.

    Raises:
        CohortError: The file has no such columns.
    """
    file = raw_dir / CASE_TABLE
    if not file.is_file():
        return {}
    with file.open(newline="", encoding="utf-8-sig") as lines:
        rows = csv.DictReader(lines)
        if not {"case_id", "scanner"} <= set(rows.fieldnames or ()):
            raise CohortError(f"{file} needs the columns case_id and scanner; add them or rename the file")
        return {row["case_id"]: row["scanner"] for row in rows if row["scanner"]}


def choose_roles(names: Sequence[str], settings: CohortSettings, raw_dir: Path) -> dict[str, Role]:
    """Gives each case a role, by the lists and then by the draw.

    The draw orders the cases by a hash of seed and name, so that a case that comes or goes moves few others.

    Args:
        names: Verified cases.
        settings: Lists, counts and seed.
        raw_dir: The raw folder, for the messages.

    Returns:
        The role of every case that takes part.

    Raises:
        CohortError: A listed case does not exist or there are too few cases.
    """
    roles: dict[str, Role] = {}
    lists: tuple[tuple[Role, tuple[str, ...]], ...] = (
        ("test", settings.test_cases),
        ("pretraining", settings.pretraining_cases),
        ("validation", settings.validation_cases),
        ("donor", settings.donor_cases),
    )
    for role, patterns in lists:
        for case in _listed(names, patterns, role, raw_dir):
            if roles.setdefault(case, role) != role:
                raise CohortError(f"{case} is listed as {roles[case]} and as {role}; leave it in one list")
    drawn = [case for case in _in_drawing_order(names, settings.seed) if case not in roles]
    tests = settings.test if settings.test is not None else max(2, round(settings.test_share * len(names)))
    wanted: tuple[tuple[Role, int | None, bool], ...] = (
        ("test", tests, bool(settings.test_cases)),
        ("pretraining", settings.pretraining, bool(settings.pretraining_cases)),
        ("validation", settings.validation, bool(settings.validation_cases)),
        ("donor", settings.donors, bool(settings.donor_cases)),
    )
    for role, count, is_listed in wanted:
        if is_listed:
            continue
        taken, drawn = (drawn, []) if count is None else (drawn[:count], drawn[count:])
        if count is not None and len(taken) < count:
            raise CohortError(
                f"{raw_dir}: {count} {role} cases are asked for and only {len(taken)} of {len(names)} are left; "
                f"add cases or lower cohort.{'donors' if role == 'donor' else role} in the profile"
            )
        roles.update(dict.fromkeys(taken, role))
    return roles


def needed_cases(names: Sequence[str], settings: CohortSettings, source: Path) -> list[str]:
    """Chooses cases that suffice for the profile and get the same roles as they would among all.

    The draw orders the cases by themselves, so those without a role can be missing from it. All are needed where
    the number of cases decides (`test` is a share) or where others may stand in for refused ones.

    Args:
        names: All cases that there are.
        settings: Lists, counts and seed.
        source: Where the cases come from, for the messages.

    Returns:
        The needed cases, sorted.

    Raises:
        CohortError: A listed case does not exist or there are too few cases.
    """
    roles = choose_roles(names, settings, source)
    by_share = settings.test is None and not settings.test_cases
    return sorted(names) if by_share or settings.go_on_without_refused else sorted(roles)


def draw_folds(donors: Sequence[str], count: int, seed: int) -> list[list[str]]:
    """Divides the donors into folds.

    The folds are consecutive parts of the drawing order. A donor that comes or goes shifts their ends, so it moves
    at most one other donor across each.

    Args:
        donors: The donors.
        count: How many folds.
        seed: Seed of the draw.

    Returns:
        Donors of each fold, sorted; sizes differ by at most one.
    """
    order = _in_drawing_order(donors, seed)
    ends = [number * len(order) // count for number in range(count + 1)] if count else []
    return [sorted(order[start:end]) for start, end in pairwise(ends)]


def save_cohort(cohort: Cohort, folder: Path) -> None:
    """Writes the cohort as JSON."""
    (folder / COHORT_FILE).write_text(cohort.model_dump_json(indent=1))


def read_cohort(folder: Path) -> Cohort:
    """Reads what `save_cohort` wrote."""
    path = folder / COHORT_FILE
    return _parse_cohort(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _parse_cohort(path: Path, modified: int) -> Cohort:
    return Cohort.model_validate_json(path.read_bytes())


def read_unchanged_case(cohort: Cohort, case_id: str) -> Case:
    """Reads a case whose files are still those that the cohort was made from.

    Raises:
        CaseError: The files are gone, unreadable or changed.
    """
    facts = cohort.case(case_id).facts
    found = [files for files in scan_raw_folder(cohort.raw).cases if files.case_id == case_id]
    if not found or case_signature(found[0], cohort.raw) != facts.signature:
        raise CaseError(
            f"{case_id}: its files in {cohort.raw} changed or went away since the cohort was made; "
            "materialize cohort again"
        )
    return read_case(found[0])


def _listed(names: Sequence[str], patterns: Sequence[str], role: Role, raw_dir: Path) -> list[str]:
    found: list[str] = []
    for pattern in patterns:
        matching = [name for name in names if fnmatchcase(name, pattern)]
        if not matching:
            raise CohortError(f"{raw_dir}: no case is called {pattern!r}, which cohort.{role}_cases lists")
        found += matching
    return found


def _in_drawing_order(names: Sequence[str], seed: int) -> list[str]:
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())


def _check_enough_donors(
    roles: Mapping[str, Role],
    settings: CohortSettings,
    removal_sizes: Sequence[int],
    folds: int,
    raw_dir: Path,
) -> None:
    donors = sum(role == "donor" for role in roles.values())
    needed = max(settings.minimum_donors, max(removal_sizes) + 2)
    if donors < needed:
        raise CohortError(
            f"{raw_dir}: {donors} donors are too few for this profile, which needs {needed} "
            f"(it removes up to {max(removal_sizes)}); add cases or choose smaller removal.sizes"
        )
    if donors < folds:
        raise CohortError(
            f"{raw_dir}: {donors} donors cannot be divided into {folds} folds; add cases or choose a smaller "
            "out_of_fold.folds (0 leaves the folds out)"
        )


def _refusal(report: FolderReport, lines: Sequence[str]) -> str:
    problems = "\n".join(f"  {line}" for line in lines)
    way_on = ", or set cohort.go_on_without_refused to leave the refused cases out" if report.refused else ""
    head = f"{report.raw_dir} cannot be used: {len(report.refused)} cases are refused. Nothing was trained."
    return f"{head}\n{problems}\nMend the folder{way_on}."
