"""A raw folder from an archive in the layout of MSD: labelled cases only, and no file outside the folder."""

import copy
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict

from idal_assets.imaging.dataset_layouts import msd_candidate, read_description
from idal_assets.imaging.download import DownloadError, check_space
from idal_assets.progress import Track, silently
from idal_assets.store.artifacts import emptied, write_atomically

EXTRACTION_FILE = "extraction.json"


class Extraction(BaseModel):
    """What a raw folder was extracted from; stored inside it.

    Attributes:
        checksum: Checksum of the archive.
        labelled: All labelled cases of the archive.
        cases: Those that were extracted.
    """

    model_config = ConfigDict(frozen=True)

    checksum: str
    labelled: tuple[str, ...]
    cases: tuple[str, ...]


@dataclass(frozen=True)
class _LabelledCase:
    """An entry of 'training' in the archive's dataset.json, with its files relative to the raw folder."""

    case_id: str
    entry: Any
    files: tuple[PurePosixPath, ...]


def read_extraction(folder: Path) -> Extraction | None:
    """Reads what a raw folder was extracted from; None where there is no folder.

    Raises:
        FileExistsError: The folder was made in another way.
    """
    path = folder / EXTRACTION_FILE
    if path.is_file():
        return Extraction.model_validate_json(path.read_bytes())
    if folder.exists():
        raise FileExistsError(
            f"{folder} was not made by a download ({EXTRACTION_FILE} is missing); move it elsewhere"
        )
    return None


def extract_cases(
    archive: Path,
    checksum: str,
    folder: Path,
    choose: Callable[[Sequence[str]], Sequence[str]],
    unfinished: Path,
    track: Track = silently,
) -> Extraction:
    """Extracts the chosen labelled cases that the folder does not have yet; what it has is left as it is.

    The whole archive is looked at before anything is written. A new folder appears complete or not at all.

    Args:
        archive: A tar file without compression.
        checksum: Its checksum, for the record.
        folder: The raw folder, missing or with cases of the same archive.
        choose: Chooses among the names of the labelled cases.
        unfinished: Folder for files in the making, on the same disk.
        track: Iterates over the files and shows how far it got.

    Returns:
        What the folder holds now.

    Raises:
        DownloadError: A member of the archive would leave the folder or is no file or folder, the archive is not
            in the layout of MSD, or the disk is too full.
        FileExistsError: The folder was made in another way or from another archive.
    """
    before = read_extraction(folder)
    if before and before.checksum != checksum:
        raise FileExistsError(f"{folder} holds cases of another archive ({before.checksum}); move it elsewhere")
    present = before.cases if before else ()
    try:
        with tarfile.open(archive, "r:") as tar:
            members = _safe_members(tar, archive)
            root, description = _description(tar, members, archive)
            labelled = _labelled_cases(description, archive)
            names = sorted({case.case_id for case in labelled})
            chosen = set(choose(names)) - set(present)
            cases = [case for case in labelled if case.case_id in chosen]
            # a file that is listed and absent stays listed, so that its case is refused by name
            wanted = {
                file: members[root / file] for case in cases for file in case.files if root / file in members
            }
            folder.parent.mkdir(parents=True, exist_ok=True)
            check_space(folder.parent, sum(member.size for member in wanted.values()), "to extract the archive")
            with emptied(unfinished / folder.name) as draft:
                for file in track(list(wanted), "Extracting files"):
                    _extract(tar, wanted[file], file, draft)
                after = Extraction(
                    checksum=checksum, labelled=tuple(names), cases=tuple(sorted({*present, *chosen}))
                )
                _put_in_place(draft, folder, wanted, _listed(description, folder, cases), after)
    except tarfile.TarError as error:
        raise DownloadError(f"{archive}: no readable tar archive without compression ({error})") from error
    return after


def _safe_members(tar: tarfile.TarFile, archive: Path) -> Mapping[PurePosixPath, tarfile.TarInfo]:
    """The files by path, none of which leads out of the folder."""
    found = {}
    for member in tar:
        path = PurePosixPath(member.name)
        if danger := _danger(member, path):
            raise DownloadError(
                f"{archive}: the member {member.name!r} {danger}; nothing was extracted. Such an archive is not "
                "to be trusted, correct download.address and download.checksum in the profile"
            )
        if member.isreg():
            found[path] = member
    return found


def _danger(member: tarfile.TarInfo, path: PurePosixPath) -> str | None:
    if path.is_absolute():
        return "has an absolute path"
    if ".." in path.parts:
        return "leads out of its folder"
    if member.issym() or member.islnk():
        return f"is a link to {member.linkname!r}"
    if not (member.isreg() or member.isdir()):
        return "is neither a file nor a folder"
    return None


def _description(
    tar: tarfile.TarFile, members: Mapping[PurePosixPath, tarfile.TarInfo], archive: Path
) -> tuple[PurePosixPath, dict[str, Any]]:
    """The folder in the archive that a dataset.json describes, and what it says."""
    found = [path for path in members if path.name == "dataset.json"]
    if len(found) != 1:
        raise DownloadError(f"{archive}: {len(found)} files dataset.json, an archive in the layout of MSD has one")
    content = tar.extractfile(members[found[0]])
    try:
        description = json.loads(content.read()) if content else None
    except ValueError as error:
        raise DownloadError(f"{archive}: its dataset.json cannot be read ({error})") from error
    if not isinstance(description, dict) or not isinstance(description.get("training"), list):
        raise DownloadError(f"{archive}: its dataset.json has no list 'training'; it is not in the layout of MSD")
    return found[0].parent, description


def _labelled_cases(description: Mapping[str, Any], archive: Path) -> list[_LabelledCase]:
    cases = []
    for entry in description["training"]:
        try:
            candidate = msd_candidate(Path(), entry)
        except (TypeError, KeyError) as error:
            raise DownloadError(f"{archive}: {entry!r} in 'training' of its dataset.json is not a case") from error
        files = tuple(PurePosixPath(file.as_posix()) for file in candidate.expected.values())
        cases.append(_LabelledCase(candidate.case_id, entry, files))
    return cases


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, file: PurePosixPath, draft: Path) -> None:
    # Python before 3.10.12 and 3.11.4 has no filters; the members were looked at before
    tar.extraction_filter = getattr(tarfile, "data_filter", None)
    renamed = copy.copy(member)
    renamed.name = str(file)
    tar.extract(renamed, draft)


def _listed(description: Mapping[str, Any], folder: Path, cases: Sequence[_LabelledCase]) -> dict[str, Any]:
    """The folder's dataset.json with these cases added; what the user changed in it stays."""
    path = folder / "dataset.json"
    base = read_description(path) if path.exists() else {**description, "training": [], "test": []}
    training = [*base.get("training", []), *(case.entry for case in cases)]
    return {**base, "training": training, "numTraining": len(training), "numTest": 0}


def _put_in_place(
    draft: Path, folder: Path, files: Iterable[PurePosixPath], description: dict[str, Any], extraction: Extraction
) -> None:
    """Renames a new folder; adds to one that is there, and lists the files when all of them are."""
    new = not folder.exists()
    if not new:
        for file in files:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (draft / file).replace(folder / file)
    described = draft if new else folder
    write_atomically(described / "dataset.json", json.dumps(description, indent=1))
    write_atomically(described / EXTRACTION_FILE, extraction.model_dump_json(indent=1))
    if new:
        draft.rename(folder)
