"""The raw folder that is downloaded: MSD Task01_BrainTumour."""

from filelock import FileLock

from idal_assets.imaging.archive import Extraction, extract_cases, read_extraction
from idal_assets.imaging.download import fetch_archive
from idal_assets.profile import ProfileError
from idal_assets.progress import Track
from idal_assets.study.roles import needed_cases
from idal_assets.study.study import Study


def download_brain_tumour(study: Study, track: Track) -> tuple[Extraction, int]:
    """Downloads the archive and extracts the labelled cases that the profile needs; what is there is left alone.

    Args:
        study: The study; where the profile says it, its raw folder need not be the downloaded one.
        track: Shows the megabytes and files that are done.

    Returns:
        What the raw folder holds, and how many of its cases were extracted now.

    Raises:
        ProfileError: The profile says nothing of a download.
        DownloadError: The archive cannot be fetched or used.
        CohortError: The archive does not have the cases that the profile needs.
        FileExistsError: The raw folder was made in another way.
    """
    settings = study.profile.download
    if settings is None:
        raise ProfileError(
            f"The profile {study.profile.name} has no section download, with address and checksum of the archive; "
            "take --profile thesis or add the section to a profile of your own"
        )
    archive, folder = study.folder.brain_tumour_archive, study.folder.brain_tumour
    study.folder.locks.mkdir(parents=True, exist_ok=True)
    with FileLock(study.folder.locks / "download.lock"):
        before = read_extraction(folder)
        if before and before.checksum == settings.checksum and _has_enough(study, before):
            return before, 0
        fetch_archive(settings.address, settings.checksum, archive, track)
        after = extract_cases(
            archive,
            settings.checksum,
            folder,
            lambda names: needed_cases(names, study.profile.cohort, archive),
            study.folder.unfinished,
            track,
        )
    return after, len(after.cases) - (len(before.cases) if before else 0)


def _has_enough(study: Study, extraction: Extraction) -> bool:
    needed = needed_cases(extraction.labelled, study.profile.cohort, study.folder.brain_tumour)
    return set(needed) <= set(extraction.cases)
