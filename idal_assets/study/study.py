"""A study: one experiment in its data folder, with its profile, its raw data and its finished artifacts.

Whatever needs a path, a setting or the version of an artifact is handed a study.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idal_assets.analysis.removal_sets import RemovalSet, confirmations, removal_sets
from idal_assets.profile import Profile, ProfileError, load_profile, with_changes
from idal_assets.store.artifacts import (
    REFUSED_FILE,
    Provenance,
    find_damage,
    read_provenance,
    refuse,
    write_atomically,
)
from idal_assets.store.files import with_seal, without_seal
from idal_assets.store.layout import DataFolder

if TYPE_CHECKING:
    from idal_assets.imaging.case import Case
    from idal_assets.imaging.inspection import CaseFacts
    from idal_assets.study.cohort import Cohort
    from idal_assets.study.patient_list import PatientList

DEFAULT_DATA_FOLDER = Path("data")
DEFAULT_PROFILE = "demo"


class NotMadeError(LookupError):
    """An artifact that something else needs does not exist yet; the message says which."""


class Study:
    """One experiment.

    Attributes:
        profile: Every setting.
        folder: Where its files are.
        raw: The folder with the raw cases.
        profile_source: Name or file of the profile.
        given_patients: The folder of patients that a command named, which goes before that of the profile.
    """

    def __init__(
        self,
        profile: Profile,
        data_dir: Path,
        raw: Path | None,
        profile_source: str,
        given_patients: Path | None = None,
    ) -> None:
        self.profile = profile
        self.folder = DataFolder(data_dir.resolve())
        downloaded = profile.download is not None and profile.download.automatic
        own = self.folder.brain_tumour if downloaded else self.folder.phantom
        self.raw = (raw or profile.raw or own).resolve()
        self.profile_source = profile_source
        self.given_patients = given_patients.resolve() if given_patients else None

    @property
    def patients_folder(self) -> Path | None:
        """The folder with the patients, cases without a label; None where nobody named one.

        That of a phantom is the phantom's own.
        """
        named = self.profile.cohort.patients
        folder = self.given_patients or (Path(named) if named else None)
        phantom = self.profile.phantom
        if folder is None and phantom is not None and phantom.patients and self.raw == self.folder.phantom:
            folder = self.raw / "imagesTs"
        return folder.resolve() if folder else None

    @property
    def reviewed_file(self) -> Path | None:
        """The file with what a person decided of cases; None where there is none."""
        named = self.profile.cohort.reviewed
        if named:
            return Path(named)
        return self.folder.reviewed if self.folder.reviewed.is_file() else None

    @property
    def patient_paths(self) -> tuple[Path, ...]:
        """Folders and files in which patients are looked for, all of them within `patients_folder`."""
        return (self.patients_folder,) if self.patients_folder else ()

    @classmethod
    def open(
        cls,
        data_dir: str | Path | None = None,
        profile: str | Path | None = None,
        raw: Path | None = None,
        default_profile: str = DEFAULT_PROFILE,
        patients: Path | None = None,
    ) -> "Study":
        """Opens a data folder.

        What is not given comes from the environment (`IDAL_DATA_DIR`, `IDAL_PROFILE`), then from what the data
        folder was made with, then from the defaults (`data`, `default_profile`).

        Args:
            data_dir: The data folder; it need not exist.
            profile: Name or file of the profile.
            raw: The raw folder.
            default_profile: The profile where nothing else says which.
            patients: The folder with patients.
        """
        root = Path(data_dir or os.environ.get("IDAL_DATA_DIR") or DEFAULT_DATA_FOLDER)
        made_with = _made_with(DataFolder(root))
        chosen = str(profile or os.environ.get("IDAL_PROFILE") or made_with.get("profile") or default_profile)
        if made_with.get("profile") == _as_source(chosen):
            raw = raw or _as_path(made_with.get("raw"))
            patients = patients or _as_path(made_with.get("patients"))
        return cls(load_profile(chosen), root, raw, _as_source(chosen), patients)

    def with_settings(self, changes: Mapping[str, Any]) -> "Study":
        """The same study with other values for some settings.

        Args:
            changes: Values by section and setting, nested as in a profile.

        Raises:
            ProfileError: A key is unknown or a value bad.
        """
        profile = with_changes(self.profile, changes)
        return Study(profile, self.folder.root, self.raw, self.profile_source, self.given_patients)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Every setting as JSON would hold it."""
        return self.profile.model_dump(mode="json")

    def remember(self) -> None:
        """Notes profile, raw folder and patients in the data folder, for the UI and for the next command.

        Raises:
            ProfileError: The data folder is the raw folder or that of the patients, so that results would be read
                as cases.
        """
        if self.raw == self.folder.root:
            raise ProfileError(f"{self.raw} holds the raw cases; give another folder for results with --data-dir")
        if self.patients_folder == self.folder.root:
            raise ProfileError(
                f"{self.patients_folder} holds the patients; give another folder for results with --data-dir"
            )
        if _made_with(self.folder) != self._noted():
            write_atomically(self.folder.study_file, with_seal(json.dumps(self._noted(), indent=1)))

    def replaces(self) -> str | None:
        """The other study that this data folder was made with, in words; None if it is this one or none."""
        before, now = _made_with(self.folder), self._noted()
        if not before or all(before[name] == now[name] for name in ("profile", "raw")):
            return None
        return f"profile {before['profile']}, cases in {before['raw'] or self.folder.phantom}"

    def _noted(self) -> dict[str, str | None]:
        given = None if self.raw == self.folder.phantom else str(self.raw)
        patients = None if self.given_patients is None else str(self.given_patients)
        return {"profile": self.profile_source, "raw": given, "patients": patients}

    def path(self, asset: str, key: str | None = None) -> Path:
        """Folder of an artifact, made or not."""
        return self.folder.artifact(asset, key)

    def intact(self, asset: str, key: str | None = None) -> Path:
        """Folder of an artifact whose files are about to be used: they are those that were written.

        Each is read once in a process to know it. Where the artifact is not made, nothing is wrong with it.

        Raises:
            NotMadeError: It is damaged, and counts as missing from now on.
        """
        folder = self.path(asset, key)
        if damage := find_damage(folder):
            # in a folder that is read-only this process knows it all the same
            with suppress(OSError):
                self.refuse(asset, key)
            raise NotMadeError(f"{named(asset, key)} is damaged: {damage}; it is made again by the next run")
        return folder

    def provenance(self, asset: str, key: str | None = None) -> Provenance:
        """Record of a finished artifact.

        Raises:
            NotMadeError: There is none.
        """
        found = read_provenance(self.path(asset, key))
        if found is None:
            name = named(asset, key)
            if (self.path(asset, key) / REFUSED_FILE).is_file():
                raise NotMadeError(f"{name} was refused, by its check or as damaged; materialize {asset} again")
            raise NotMadeError(f"{name} has not been made yet; materialize {asset} first")
        return found

    def refuse(self, asset: str, key: str | None = None) -> None:
        """Takes back a finished artifact that turned out to be damaged; it counts as missing from now on."""
        refuse(self.path(asset, key))

    def version(self, asset: str, key: str | None = None) -> str:
        """Data version of a finished artifact.

        Raises:
            NotMadeError: There is none.
        """
        return self.provenance(asset, key).version

    @property
    def cohort(self) -> "Cohort":
        """Which cases take part.

        The raw folder may have been moved since; where it lies does not determine the cohort.

        Raises:
            NotMadeError: The cohort has not been made.
        """
        from idal_assets.study.cohort import read_cohort

        self.provenance("cohort")
        found = read_cohort(self.intact("cohort"))
        return found if found.raw == self.raw else found.model_copy(update={"raw": self.raw})

    @property
    def patient_list(self) -> "PatientList":
        """The patients that were verified.

        Raises:
            NotMadeError: The list has not been made.
        """
        from idal_assets.study.patient_list import read_patient_list

        self.provenance("patient_list")
        return read_patient_list(self.intact("patient_list"))

    @property
    def patients(self) -> list[str]:
        """Names of the patients that can be used; none before they were verified."""
        if self.patients_folder is None:
            return []
        try:
            return list(self.patient_list.patients)
        except NotMadeError:
            return []

    def read_patient(self, facts: "CaseFacts") -> "Case":
        """Reads a patient whose content is still that which was verified.

        Args:
            facts: What verification found of the patient.

        Raises:
            CaseError: The files are gone, unreadable or hold something else since.
        """
        from idal_assets.study.patient_list import read_unchanged_patient

        return read_unchanged_patient(self.patient_list, self.patients_folder, facts)

    def read_case(self, case_id: str) -> "Case":
        """Reads a case of the cohort from the raw folder.

        Raises:
            CaseError: Its files are unreadable or changed since the cohort was made.
        """
        from idal_assets.study.cohort import read_unchanged_case

        return read_unchanged_case(self.raw, self.cohort.case(case_id).facts)

    @cached_property
    def removal_sets(self) -> dict[str, RemovalSet]:
        """The removal sets that the profile asks for, by name."""
        return removal_sets(self.profile.removal, self.profile.controls)

    @cached_property
    def confirmations(self) -> dict[str, RemovalSet]:
        """The trainings that confirm the best set from scratch, by name."""
        return confirmations(self.profile.confirmation.seeds)

    @property
    def candidates(self) -> list[str]:
        """Names of the candidates for the baseline that the profile asks for."""
        return list(self.profile.candidates.names)

    @property
    def folds(self) -> dict[str, list[str]]:
        """Donors of each fold, by name of the fold.

        Raises:
            NotMadeError: The cohort has not been made.
        """
        from idal_assets.study.roles import draw_folds

        names = self.profile.out_of_fold.names
        cohort = self.cohort
        drawn = draw_folds(cohort.donors, len(names), self.profile.seed, cohort.sessions_learned_from)
        return dict(zip(names, drawn, strict=True))


class StillStudy(Study):
    """A study as it is at one moment: the cohort and every record are read once.

    Args:
        study: The study to look at.
    """

    def __init__(self, study: Study) -> None:
        super().__init__(study.profile, study.folder.root, study.raw, study.profile_source, study.given_patients)
        self._records: dict[tuple[str, str | None], Provenance] = {}

    def provenance(self, asset: str, key: str | None = None) -> Provenance:
        """As of a study."""
        place = (asset, key)
        if place not in self._records:
            self._records[place] = super().provenance(asset, key)
        return self._records[place]

    @cached_property
    def cohort(self) -> "Cohort":
        """As of a study."""
        return super().cohort

    @cached_property
    def patient_list(self) -> "PatientList":
        """As of a study."""
        return super().patient_list


def named(asset: str, key: str | None) -> str:
    """An artifact in words."""
    return asset if key is None else f"{asset} of {key}"


def _made_with(folder: DataFolder) -> dict[str, str | None]:
    try:
        return dict(json.loads(without_seal(folder.study_file.read_bytes())))
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError) as error:
        raise ProfileError(
            f"{folder.study_file} is damaged. Delete it and give --profile and --raw again to `idal run`; it says "
            "nothing but these, and nothing else is lost"
        ) from error


def _as_path(noted: str | None) -> Path | None:
    return Path(noted) if noted else None


def _as_source(profile: str) -> str:
    """A profile file is remembered by its full path, so that it is found from any folder."""
    return str(Path(profile).resolve()) if profile.endswith((".yaml", ".yml")) else profile
