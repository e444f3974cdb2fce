"""Whether all files of a study are as they were written, told from the hashes in the records of its artifacts."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from idal_assets.progress import Track, silently
from idal_assets.store.artifacts import find_damage, read_provenance
from idal_assets.store.database import recorded_sources
from idal_assets.store.files import DamagedError
from idal_assets.study.study import Study, named
from idal_assets.study.tables import Artifact, artifacts_on_disk

READERS = 4
"""Files that are read at once; hashing leaves the interpreter free, and a disk answers several requests faster."""


@dataclass(frozen=True)
class Damage:
    """Something that is not as it was written.

    Attributes:
        what: Artifact or file.
        how: How that shows.
    """

    what: str
    how: str

    def __str__(self) -> str:
        return f"{self.what} is damaged: {self.how}"


def damaged_artifacts(study: Study, track: Track = silently) -> dict[Artifact, Damage]:
    """Reads every file of every artifact.

    Args:
        study: The study.
        track: Shows the progress.

    Returns:
        Those of which a file is gone or other than it was written, also where the study has no use for them now.
    """
    places = list(artifacts_on_disk(study))
    with ThreadPoolExecutor(READERS) as readers:
        found = readers.map(lambda place: find_damage(study.path(*place)), places)
        looked = zip(track(places, "looking for damage"), found, strict=True)
        return {place: Damage(named(*place), how) for place, how in looked if how}


def take_back_damaged(study: Study, track: Track = silently) -> list[Damage]:
    """Has every damaged artifact count as missing, so that the next step that needs it makes it again."""
    found = damaged_artifacts(study, track)
    for place in found:
        study.refuse(*place)
    return list(found.values())


def damaged_database(study: Study) -> Damage | None:
    """Reads the whole database.

    Raises:
        duckdb.IOException: Another program kept it open for too long.
    """
    try:
        recorded_sources(study.folder.database, read_all=True)
    except DamagedError as error:
        return Damage(study.folder.database.name, str(error.__cause__).partition("\n")[0])
    return None


def without_hashes(study: Study) -> list[str]:
    """Artifacts from before files were hashed, of which only an unreadable record would show."""
    records = ((place, read_provenance(study.path(*place))) for place in artifacts_on_disk(study))
    return [named(*place) for place, record in records if record and record.files is None]
