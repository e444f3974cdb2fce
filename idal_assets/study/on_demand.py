"""Patients who are segmented on demand, with what a study has made and without becoming part of it."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from idal_assets.progress import Track, silently
from idal_assets.store.layout import DataFolder
from idal_assets.study.graph import GRAPH, Node, upstream_of
from idal_assets.study.making import make
from idal_assets.study.study import NotMadeError, Study, named

PATIENT_LIST, SEGMENTATION = "patient_list", "patient_segmentation"
PLACE, LOCK = "segment", "in_use.lock"
OF_PATIENTS = frozenset({PATIENT_LIST, *(node.name for node in GRAPH.values() if node.partition == "patient")})
"""Assets that are made for patients."""


class OtherVersionError(NotMadeError):
    """What a study has made is of another version of this package; the message says what and what to do."""


class OnDemand(Study):
    """A study with other patients, whose artifacts lie in a folder of their own.

    Args:
        study: The study.
        paths: Folders and files of the patients.
        own: Where their artifacts are written.
    """

    def __init__(self, study: Study, paths: Sequence[Path], own: Path) -> None:
        super().__init__(study.profile, study.folder.root, study.raw, study.profile_source)
        self._paths = tuple(path.absolute() for path in paths)
        self._own = DataFolder(own.resolve())

    @property
    def patients_folder(self) -> Path:
        """The folder that holds all of them."""
        folders = [path if path.is_dir() else path.parent for path in self._paths]
        return Path(os.path.commonpath(folders))

    @property
    def patient_paths(self) -> tuple[Path, ...]:
        """Their folders and files."""
        return self._paths

    def path(self, asset: str, key: str | None = None) -> Path:
        """Folder of an artifact, made or not."""
        return self._own.artifact(asset, key) if asset in OF_PATIENTS else super().path(asset, key)


@contextmanager
def place_for_patients(study: Study) -> Iterator[Path]:
    """A folder for the artifacts of patients who are asked for once, removed in the end.

    What a killed process left is removed by the next one.
    """
    study.folder.unfinished.mkdir(exist_ok=True)
    study.folder.locks.mkdir(exist_ok=True)
    with FileLock(study.folder.locks / f"{PLACE}.lock"):
        for left in study.folder.unfinished.glob(f"{PLACE}-*"):
            # whoever still works there holds the lock
            with suppress(Timeout), FileLock(left / LOCK, timeout=0):
                shutil.rmtree(left, ignore_errors=True)
        place = Path(tempfile.mkdtemp(prefix=f"{PLACE}-", dir=study.folder.unfinished))
        held = FileLock(place / LOCK)
        held.acquire()
    try:
        yield place
    finally:
        held.release()
        shutil.rmtree(place, ignore_errors=True)


def make_missing(study: Study, track: Track = silently) -> None:
    """Makes what segmenting patients needs of a study and was never made; what is outdated stays as it is.

    Raises:
        NotMadeError: The study has no cohort: there is no study.
        OtherVersionError: Another version of this package made some of it, which this one cannot read for sure.
    """
    if not study.path("cohort").is_dir():
        raise NotMadeError(
            f"{study.folder.root} holds no study; run idal run there first, or give another folder with --data-dir"
        )
    needed = upstream_of(SEGMENTATION) - OF_PATIENTS
    for node in GRAPH.values():
        for key in node.keys(study) if node.name in needed else ():
            if not _is_made(study, node, key):
                make(study, node.name, key, track)


def _is_made(study: Study, node: Node, key: str | None) -> bool:
    try:
        record = study.provenance(node.name, key)
    except NotMadeError:
        return False
    if record.inputs.code != node.code:
        raise OtherVersionError(
            f"{named(node.name, key)} in {study.folder.root} was made by another version of idal-assets; bring "
            f"the study up to date with `idal run --data-dir {study.folder.root}`, or segment with that version"
        )
    return True


def segment(study: OnDemand, track: Track = silently) -> list[str]:
    """Segments the patients that can be used.

    Returns:
        Their names; why others cannot be used says `study.patient_list`.
    """
    make(study, PATIENT_LIST, None, track)
    patients = study.patients
    wanted = upstream_of(SEGMENTATION) & OF_PATIENTS
    for patient in patients:
        for name in (name for name in GRAPH if name in wanted and name != PATIENT_LIST):
            make(study, name, patient, track)
    return patients
