"""The patients of a study, cases without a label: which can be used, and where their files are.

Of which patient a labelled case with several sessions is, is the business of `patients`.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from idal_assets.anatomy import Anatomy
from idal_assets.imaging.case import Case, CaseError
from idal_assets.imaging.inspection import CaseFacts, FolderReport, case_signature
from idal_assets.imaging.patients import inspect_patients
from idal_assets.imaging.problems import Problem
from idal_assets.imaging.raw_folder import CaseFiles, Layout, RawFolder
from idal_assets.imaging.readers import read_case
from idal_assets.imaging.unlabelled import find_patients
from idal_assets.progress import Track, silently
from idal_assets.settings import AnatomySettings
from idal_assets.store.artifacts import content_hash
from idal_assets.study.cohort import Cohort
from idal_assets.study.study import NotMadeError

PATIENTS_FILE = "patients.json"


class ListedPatient(BaseModel):
    """A patient that can be used.

    Attributes:
        facts: What verification found; its files are relative to the folder of the patients.
        channel_order: As of `CaseFiles`.
    """

    model_config = ConfigDict(frozen=True)

    facts: CaseFacts
    channel_order: tuple[int, ...]


class PatientList(BaseModel):
    """What is in the folder of the patients.

    Attributes:
        anatomy: Channels and labels of the study that they were verified for; None where no folder was named.
        patients: The patients that can be used, by id.
        refused: Refused patients with their reasons.
        problems: What is wrong with the folder as a whole.
        warnings: What is odd about the folder and the patients that can be used.
    """

    model_config = ConfigDict(frozen=True)

    anatomy: Anatomy | None = None
    patients: Mapping[str, ListedPatient] = {}
    refused: Mapping[str, tuple[str, ...]] = {}
    problems: tuple[str, ...] = ()
    warnings: tuple[Problem, ...] = ()

    @property
    def known(self) -> dict[str, CaseFacts]:
        """Facts by patient, so that a later look reads only what changed."""
        return {patient: listed.facts for patient, listed in self.patients.items()}

    def patient(self, patient: str) -> ListedPatient:
        """Finds a patient.

        Raises:
            CaseError: It is not in the list.
        """
        if patient not in self.patients:
            reasons = " ".join(self.refused.get(patient, ()))
            why = f"was refused: {reasons}" if reasons else "is not in the list of patients"
            raise CaseError(f"{patient} {why}; mend or add its images and materialize patient_list again")
        return self.patients[patient]

    def files(self, patient: str, folder: Path) -> CaseFiles:
        """Where the files of a patient are.

        Args:
            patient: Its id.
            folder: The folder of the patients.
        """
        assert self.anatomy is not None
        listed = self.patient(patient)
        images = tuple(folder / file for file in listed.facts.files)
        layout = Layout(listed.facts.layout)
        return CaseFiles(patient, layout, self.anatomy, images, None, listed.channel_order, {})

    @property
    def version(self) -> str:
        """Hash of the contents of the patients that can be used, and of which are refused."""
        contents = {patient: facts.content_hash for patient, facts in self.known.items()}
        return content_hash([contents, sorted(self.refused)])


@dataclass(frozen=True)
class Reference:
    """The labelled cases that patients are held against.

    Attributes:
        anatomy: Their channels and labels.
        channel_names: As of `Cohort`.
        channel_order: As of `Cohort`.
        images: Facts of each case.
        roles: Role of each case, in words.
    """

    anatomy: Anatomy
    channel_names: tuple[str, ...]
    channel_order: tuple[int, ...]
    images: Mapping[str, CaseFacts]
    roles: Mapping[str, str]

    @classmethod
    def of_cohort(cls, cohort: Cohort) -> "Reference":
        """The cases that take part in a study."""
        return cls(cohort.anatomy, cohort.channel_names, cohort.channel_order, cohort.images, cohort.roles)

    @classmethod
    def of_folder(cls, report: FolderReport, settings: AnatomySettings) -> "Reference":
        """All cases of a verified raw folder.

        Args:
            report: The folder.
            settings: What a profile says of its anatomy.
        """
        anatomy, roles = report.anatomy.with_settings(settings), dict.fromkeys(report.facts, "case")
        return cls(anatomy, report.anatomy.channels, report.channel_order, report.facts, roles)

    def find(self, *paths: Path) -> RawFolder:
        """Lists patients whose channels are to be those of the cases, see `imaging.unlabelled`."""
        return find_patients(paths, self.anatomy, self.channel_names, self.channel_order)

    def verify(
        self, found: RawFolder, known: Mapping[str, CaseFacts] | None = None, track: Track = silently
    ) -> FolderReport:
        """Verifies patients that were found, see `imaging.patients`."""
        return inspect_patients(found, self.images, self.roles, known, track)


def list_of(found: RawFolder, report: FolderReport) -> PatientList:
    """The list of the patients that were found and verified."""
    order = {files.case_id: files.channel_order for files in found.cases}
    errors = [problem for problem in report.problems if problem.severity == "error"]
    return PatientList(
        anatomy=found.anatomy,
        patients={
            patient: ListedPatient(facts=facts, channel_order=order[patient])
            for patient, facts in sorted(report.facts.items())
        },
        refused={patient: tuple(map(str, problems)) for patient, problems in report.refused.items()},
        problems=tuple(str(problem) for problem in errors if problem.case_id is None),
        warnings=report.warnings,
    )


def save_patient_list(patients: PatientList, folder: Path) -> None:
    """Writes the list as JSON."""
    (folder / PATIENTS_FILE).write_text(patients.model_dump_json(indent=1))


def read_patient_list(folder: Path) -> PatientList:
    """Reads what `save_patient_list` wrote.

    Raises:
        NotMadeError: An older version of this project wrote it.
    """
    path = folder / PATIENTS_FILE
    try:
        return _parse(path, path.stat().st_mtime_ns)
    except ValidationError as error:
        raise NotMadeError(
            f"{path} is of an older version of this project; materialize patient_list again"
        ) from error


def known_before(folder: Path | None) -> Mapping[str, CaseFacts]:
    """Facts of the patients of a list that is replaced; one of an older version is made anew from the files."""
    with suppress(NotMadeError):
        return read_patient_list(folder).known if folder else {}
    return {}


@lru_cache(maxsize=4)
def _parse(path: Path, modified: int) -> PatientList:
    return PatientList.model_validate_json(path.read_bytes())


def read_unchanged_patient(patients: PatientList, folder: Path | None, facts: CaseFacts) -> Case:
    """Reads a patient whose content is still that which was verified.

    Args:
        patients: The list as it is now.
        folder: The folder of the patients.
        facts: What was found of the patient when it was verified; its files may have been written anew since.

    Raises:
        CaseError: The files are gone, unreadable or hold something else since.
    """
    listed = patients.patient(facts.case_id).facts
    if folder is not None and listed.content_hash == facts.content_hash:
        files = patients.files(facts.case_id, folder)
        if case_signature(files, folder) == listed.signature:
            return read_case(files)
    raise CaseError(
        f"{facts.case_id}: its files in {folder} changed or went away since they were verified; "
        "materialize patient_list again"
    )
