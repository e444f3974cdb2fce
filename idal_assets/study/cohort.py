"""The cohort: which cases take part, and in which role."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from idal_assets.anatomy import Anatomy
from idal_assets.imaging.case import Case, CaseError
from idal_assets.imaging.inspection import CaseFacts, FolderReport, case_signature
from idal_assets.imaging.problems import Problem
from idal_assets.imaging.readers import find_case, read_case
from idal_assets.imaging.truth import CaseTruth, read_truth
from idal_assets.settings import CohortSettings
from idal_assets.store.artifacts import content_hash
from idal_assets.study.patients import patients_of, sessions
from idal_assets.study.reviews import Review, ensure_known, without_taken_out
from idal_assets.study.roles import CohortError, RoleName, choose_roles, ensure_enough_donors
from idal_assets.study.study import NotMadeError

COHORT_FILE = "cohort.json"
FACTS_FILE = "facts.json"
"""What verification found of one case, in its own artifact."""


class CohortCase(BaseModel):
    """A case that takes part.

    Attributes:
        case_id: Name of the case.
        role: One of `roles.ROLES`.
        facts: What verification found.
    """

    model_config = ConfigDict(frozen=True)

    case_id: str
    role: RoleName
    facts: CaseFacts


class Cohort(BaseModel):
    """All cases with their roles.

    Attributes:
        raw: The raw folder.
        layout: Its layout.
        anatomy: Its channels, labels and regions, with what the profile says of them.
        cases: The cases that take part, by name.
        left_over: Verified cases without a role.
        refused: Refused cases with their reasons.
        warnings: What is odd about the folder and its cases without being an error.
        known: Facts of every verified case, so that a later look reads only what changed.
        patients: Patient by case, for all cases that take part; a case of its own patient by its own name.
        scanners: Scanner by case, as far as the raw folder's `cases.csv` says.
        truth: What was planted in each case, as far as the raw folder's `truth.json` says.
        channel_names: What the raw folder itself calls the channels, in the order of the anatomy.
        channel_order: Which channel of its files, by number, is each of the anatomy; empty where files are
            named by channel.
        reviews: What a person decided of cases, whether they still take part or not.
    """

    model_config = ConfigDict(frozen=True)

    raw: Path
    layout: str
    anatomy: Anatomy
    cases: tuple[CohortCase, ...]
    left_over: tuple[str, ...]
    refused: Mapping[str, tuple[str, ...]]
    known: Mapping[str, CaseFacts]
    patients: Mapping[str, str]
    warnings: tuple[Problem, ...] = ()
    scanners: Mapping[str, str] = {}
    truth: Mapping[str, CaseTruth] = {}
    channel_names: tuple[str, ...] = ()
    channel_order: tuple[int, ...] = ()
    reviews: Mapping[str, Review] = {}

    def _with_role(self, role: RoleName) -> list[str]:
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
    def taken_out(self) -> list[str]:
        """Names of verified cases that a person took out."""
        return sorted(case for case, review in self.reviews.items() if review.takes_out and case in self.known)

    @property
    def test_patients(self) -> int:
        """How many patients the test cases are of."""
        return len({self.patients[case] for case in self.tests})

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

    @property
    def receivers(self) -> list[str]:
        """Names of the cases that every model segments: donors, validation cases, then test cases."""
        return self.deciding + self.tests

    @property
    def deciding(self) -> list[str]:
        """Names of the receivers that a decision may look at: donors, then validation cases."""
        return self.donors + self.validation

    @property
    def roles(self) -> dict[str, RoleName]:
        """Role of each case that takes part."""
        return {case.case_id: case.role for case in self.cases}

    @property
    def images(self) -> dict[str, CaseFacts]:
        """What is known of the image of each case that takes part, whatever its label."""
        return {case.case_id: case.facts.of_image for case in self.cases}

    @property
    def sessions_learned_from(self) -> dict[str, str]:
        """Patient of each donor or pretraining case that shares it with another; empty where none does.

        What is drawn among these cases depends on no more of `patients`, so that a test case can come or go
        without a rerun.
        """
        learned_from = sessions([*self.donors, *self.pretraining], self.patients)
        return {case: patient for patient, own in learned_from.items() if len(own) > 1 for case in own}

    @property
    def voxel_millilitres(self) -> dict[str, float]:
        """Volume of a voxel in ml, of each case that decides."""
        return {case: voxel_millilitres(self.case(case).facts) for case in self.deciding}

    @property
    def planted(self) -> dict[str, list[str | None]]:
        """Fault and subtype of each donor of which they are known; which scanner it has is no part of it."""
        known = {case: self.truth[case] for case in self.donors if case in self.truth}
        return {case: [truth.fault, truth.subtype] for case, truth in known.items()}

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
        """Hash of roles, contents and patients; where the files lie and how they are compressed does not count."""
        return content_hash({case.case_id: self._of_version(case) for case in self.cases})

    def _of_version(self, case: CohortCase) -> list[str]:
        patient = self.patients[case.case_id]
        # a patient that says no more than the case leaves the version as it was before there were patients
        return [case.role, case.facts.content_hash, *([] if patient == case.case_id else [patient])]


def choose_cohort(
    report: FolderReport,
    settings: CohortSettings,
    anatomy: Anatomy,
    removal_sizes: Sequence[int],
    folds: int = 0,
    reviews: Mapping[str, Review] | None = None,
) -> Cohort:
    """Gives the verified cases their roles.

    Args:
        report: The verified raw folder.
        settings: Lists, counts and seed.
        anatomy: The folder's anatomy, with what the profile says of it.
        removal_sizes: How many donors the removal sets take away.
        folds: Parts that the donors are to be divided into.
        reviews: What a person decided of cases.

    Returns:
        The cohort.

    Raises:
        CohortError: Cases are refused and the profile does not go on without them, too few are left, a decision is
            on a case that there is not, or one image has two roles under two names.
        CaseError: The raw folder has a truth that cannot be read.
    """
    refused = {case: tuple(str(problem) for problem in found) for case, found in report.refused.items()}
    of_folder = [
        str(problem) for problem in report.problems if not problem.case_id and problem.severity == "error"
    ]
    if of_folder or (refused and not settings.go_on_without_refused):
        reasons = [*of_folder, *(line for lines in refused.values() for line in lines)]
        raise CohortError(_refusal(report, reasons), refused)
    patients = patients_of_folder(report, settings.patient_pattern)
    reviews = reviews or {}
    ensure_known(reviews, {*report.facts, *refused}, str(report.raw_dir))
    roles = without_taken_out(choose_roles(sorted(report.facts), settings, report.raw_dir, patients), reviews)
    ensure_enough_donors(roles, patients, settings, removal_sizes, folds, report.raw_dir)
    _ensure_twins_together(report, roles)
    return Cohort(
        raw=report.raw_dir,
        layout=report.layout.value,
        anatomy=anatomy,
        cases=tuple(
            CohortCase(case_id=case, role=roles[case], facts=report.facts[case]) for case in sorted(roles)
        ),
        left_over=tuple(
            case
            for case in sorted(report.facts)
            if case not in roles and not (case in reviews and reviews[case].takes_out)
        ),
        refused=refused,
        known=report.facts,
        patients={case: patients[case] for case in sorted(roles)},
        warnings=report.warnings,
        scanners=report.table.scanners,
        truth=read_truth(report.raw_dir),
        channel_names=report.anatomy.channels,
        channel_order=report.channel_order,
        reviews=reviews,
    )


def patients_of_folder(report: FolderReport, pattern: str | None) -> dict[str, str]:
    """Says of which patient each case that can be used is, see `patients_of`.

    Args:
        report: The verified raw folder.
        pattern: The profile's `cohort.patient_pattern`.

    Raises:
        CohortError: The pattern is found in the name of no case.
    """
    if pattern and report.facts and not any(re.search(pattern, case) for case in report.facts):
        raise CohortError(
            f"{report.raw_dir}: cohort.patient_pattern {pattern!r} is found in the name of no case, such as "
            f"{min(report.facts)}; correct it or leave it out"
        )
    return patients_of(report.facts, pattern, report.table.patients)


def _ensure_twins_together(report: FolderReport, roles: Mapping[str, RoleName]) -> None:
    """Refuses nearly the same image in two roles: a network would be judged on what it or its rivals learned from.

    Raises:
        CohortError: There is such a pair; all are listed.
    """
    apart = [pair for pair in report.twins if len({roles.get(case) for case in pair.cases} - {None}) > 1]
    if apart:
        lines = "".join(
            f"\n  {one} ({roles[one]}) and {other} ({roles[other]}): {pair.alike(report.anatomy.channels)}"
            for pair in apart
            for one, other in [pair.cases]
        )
        raise CohortError(
            f"{report.raw_dir}: cases with nearly the same image have different roles. Nothing was trained."
            f"{lines}\nTake one of each pair away, or give both the same patient (column patient of cases.csv)."
        )


def label_millilitres(facts: CaseFacts) -> dict[int, float]:
    """Volume of each label in ml, by its value."""
    voxel = voxel_millilitres(facts)
    return {int(value): round(count * voxel, 2) for value, count in facts.label_voxels.items()}


def voxel_millilitres(facts: CaseFacts) -> float:
    """Volume of one voxel in ml."""
    return facts.spacing[0] * facts.spacing[1] * facts.spacing[2] / 1000


def save_cohort(cohort: Cohort, folder: Path) -> None:
    """Writes the cohort as JSON."""
    (folder / COHORT_FILE).write_text(cohort.model_dump_json(indent=1))


def read_cohort(folder: Path) -> Cohort:
    """Reads what `save_cohort` wrote.

    Raises:
        NotMadeError: An older version of this project wrote it, which knew less of the cases.
    """
    path = folder / COHORT_FILE
    try:
        return _parse_cohort(path, path.stat().st_mtime_ns)
    except ValidationError as error:
        raise NotMadeError(f"{path} is of an older version of this project; materialize cohort again") from error


@lru_cache(maxsize=4)
def _parse_cohort(path: Path, modified: int) -> Cohort:
    return Cohort.model_validate_json(path.read_bytes())


def read_facts(folder: Path) -> CaseFacts:
    """Reads what verification found of a case from the folder of its artifact."""
    return CaseFacts.model_validate_json((folder / FACTS_FILE).read_bytes())


def read_unchanged_case(raw_dir: Path, facts: CaseFacts) -> Case:
    """Reads a case whose files are still those that were verified.

    Args:
        raw_dir: The raw folder.
        facts: What verification found of the case.

    Raises:
        CaseError: The files are gone, unreadable or changed.
    """
    found = find_case(raw_dir, facts.case_id, lambda files: case_signature(files, raw_dir) == facts.signature)
    if found is None:
        raise CaseError(
            f"{facts.case_id}: its files in {raw_dir} changed or went away since the cohort was made; "
            "materialize cohort again"
        )
    return read_case(found)


def _refusal(report: FolderReport, lines: Sequence[str]) -> str:
    problems = "\n".join(f"  {line}" for line in lines)
    # what is wrong with the folder as a whole is not mended by leaving out the cases that show it
    of_cases_only = all(problem.case_id for problem in report.problems if problem.severity == "error")
    way_on = ", or set cohort.go_on_without_refused to leave the refused cases out" if of_cases_only else ""
    head = f"{report.raw_dir} cannot be used: {len(report.refused)} cases are refused. Nothing was trained."
    return f"{head}\n{problems}\nMend the folder{way_on}."
