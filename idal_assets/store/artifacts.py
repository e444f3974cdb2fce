"""How an artifact is written: whole or not at all, with a record of what it was made from.

An artifact is a folder. It is made under a temporary name, which host and process have for themselves, and renamed
when it is complete, so a killed process leaves nothing that a later one would believe, and of two that make the
same the later one takes what it finds. `provenance.json` inside says what determined it, and size and hash of each
of its files: sizes are compared whenever somebody looks, contents before a process uses them.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from functools import lru_cache
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from idal_assets.store.files import (
    DamagedError,
    FileMark,
    difference_of_content,
    difference_of_sizes,
    flush,
    held,
    mark_files,
    with_seal,
    without_seal,
)
from idal_assets.store.processes import process_mark, remove_abandoned

LOGGER = logging.getLogger(__name__)

PROVENANCE_FILE = "provenance.json"
REFUSED_FILE = "refused.json"
COMPUTE_FILE = "compute.txt"
"""Device, precision and threads in words, in an artifact that a network was run for."""
RECORDED_PACKAGES = (
    "idal-assets",
    "nnunetv2",
    "torch",
    "batchgeneratorsv2",
    "numpy",
    "scipy",
    "cleanlab",
    "dagster",
)


class Inputs(BaseModel):
    """Everything that determines an artifact.

    Attributes:
        code: Version of the code that makes it.
        settings: The settings that matter, by section.
        made_from: Versions of the upstream artifacts, by asset and, where only some matter, by partition.
    """

    model_config = ConfigDict(frozen=True)

    code: str
    settings: Mapping[str, Any]
    made_from: Mapping[str, str | Mapping[str, str]]

    def without(self, sources: Collection[str]) -> "Inputs":
        """The same without what was made from some sources."""
        kept = {source: versions for source, versions in self.made_from.items() if source not in sources}
        return self.model_copy(update={"made_from": kept})

    def hash(self) -> str:
        """Content hash of the inputs."""
        return content_hash(self.model_dump(mode="json"))


class Provenance(BaseModel):
    """What is known of one artifact; stored inside it.

    Attributes:
        asset: Name of the asset.
        key: Its partition, or null.
        version: The data version that everything downstream sees.
        inputs: What determined it.
        inputs_hash: Hash of `inputs`; the artifact is current as long as its inputs still hash to this.
        seconds: Seconds that making it took.
        cpu_seconds: Seconds of processor time that this process spent on it, of all cores; null in older records.
        written: When it was finished, UTC, ISO 8601.
        software: Versions of the packages it was made with.
        files: Size and hash of each of its files; null in records from before there were any.
    """

    asset: str
    key: str | None
    version: str
    inputs: Inputs
    inputs_hash: str
    seconds: float
    cpu_seconds: float | None = None
    written: str
    software: dict[str, str]
    files: dict[str, FileMark] | None = None


def content_hash(value: Any) -> str:
    """Hashes anything that JSON can hold.

    Returns:
        The first 16 hexadecimal digits of the SHA-256 of its canonical JSON.
    """
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


Place = tuple[Path, int, int, int]
"""A record at one time: its file, when that was written, its inode, and its size: some disks use inodes again."""

_intact: set[Place] = set()
"""Records whose files this process wrote or has compared with their hashes."""

_altered: dict[Place, str] = {}
"""Records of which this process found a file to be altered, and which."""

_said: set[tuple[Place, str]] = set()
"""Damage that was said, so that it is said once."""


def read_provenance(folder: Path) -> Provenance | None:
    """Reads the record of an artifact.

    Args:
        folder: The artifact's folder.

    Returns:
        The record, or None where there is no finished artifact: none was made, or it is damaged, which is logged.
        A file that is gone or has another size is noticed here, another content only after `find_damage`.
    """
    place = _place_of(folder)
    if place is None:
        return None
    record, damage = _look_at(place)
    if damage and _place_of(folder) != place:
        # another process replaced the artifact during the look
        return read_provenance(folder)
    if damage and (place, damage) not in _said:
        _said.add((place, damage))
        LOGGER.warning("%s is damaged: %s. It counts as missing and is made again.", folder, damage)
    return record


def find_damage(folder: Path) -> str | None:
    """Compares all files of an artifact with their hashes, once in a process.

    Args:
        folder: The artifact's folder.

    Returns:
        How it is damaged; None where all files are as they were written, where the record is from before there
        were hashes, and where there is no artifact.
    """
    place = _place_of(folder)
    if place is None:
        return None
    record, damage = _look_at(place)
    if record and place not in _intact:
        damage = difference_of_content(folder, record.files or {})
    if damage and _place_of(folder) != place:
        # another process replaced the artifact during the look
        return find_damage(folder)
    if record and damage:
        _altered[place] = damage
    elif record:
        _intact.add(place)
    return damage


def _look_at(place: Place) -> tuple[Provenance | None, str | None]:
    """The record of a place, or None and how the artifact is damaged."""
    if place in _altered:
        return None, _altered[place]
    try:
        record = _parse_provenance(*place)
    except DamagedError as error:
        return None, str(error)
    damage = difference_of_sizes(place[0].parent, record.files or {})
    return (None if damage else record), damage


def _place_of(folder: Path) -> Place | None:
    path = folder / PROVENANCE_FILE
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return path, found.st_mtime_ns, found.st_ino, found.st_size


@lru_cache(maxsize=65536)
def _parse_provenance(path: Path, modified: int, inode: int, size: int) -> Provenance:
    """Reads a record once; two written within one tick of the file system's clock still differ in their inode."""
    try:
        return Provenance.model_validate_json(without_seal(path.read_bytes()))
    except (ValidationError, DamagedError) as error:
        raise DamagedError(f"{PROVENANCE_FILE} is not as it was written") from error


def build(
    folder: Path,
    asset: str,
    key: str | None,
    inputs: Inputs,
    work: Callable[[Path], str | None],
    unfinished: Path,
    locks: Path,
) -> tuple[Provenance, bool]:
    """Makes an artifact, unless the one on disk was made from the same inputs.

    Args:
        folder: Where the artifact belongs.
        asset: Name of the asset.
        key: Its partition, or None.
        inputs: What determines it.
        work: Writes the artifact's files into the folder it is given. It may return a version of its own where
            the content and not the inputs decides whether anything downstream changes.
        unfinished: Folder for artifacts in the making, on the same disk.
        locks: Folder of the lock files, so that two processes do not make the same artifact at once. Where a disk
            has no locks and they do, what the first one made is kept.

    Returns:
        The record of the artifact, and whether it was made now.
    """
    name = asset if key is None else f"{asset}--{key}"
    locks.mkdir(parents=True, exist_ok=True)
    with held(locks / f"{name}.lock"):
        inputs_hash = inputs.hash()
        present = None if find_damage(folder) else read_provenance(folder)
        if present is not None and present.inputs_hash == inputs_hash:
            return present, False
        remove_abandoned(unfinished, name)
        with _draft(unfinished / f"{name}.{process_mark()}") as draft:
            started, spent = time.perf_counter(), time.process_time()
            version = work(draft)
            seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - spent
            provenance = Provenance(
                asset=asset,
                key=key,
                version=version or inputs_hash,
                inputs=inputs,
                inputs_hash=inputs_hash,
                seconds=round(seconds, 3),
                cpu_seconds=round(cpu_seconds, 3),
                written=datetime.now(timezone.utc).isoformat(timespec="seconds"),
                software=software_versions(),
                files=mark_files(draft),
            )
            write_record(draft, provenance)
            if quicker := _put_in_place(draft, folder, inputs_hash):
                return quicker, False
            believe(folder)
    return provenance, True


def write_record(folder: Path, provenance: Provenance) -> None:
    """Writes the record of an artifact into its folder."""
    write_atomically(folder / PROVENANCE_FILE, with_seal(provenance.model_dump_json(indent=1)))


def believe(folder: Path) -> None:
    """What this process has just written, or a worker of its own, need not be read to know it."""
    place = _place_of(folder)
    if place is not None:
        _intact.add(place)


def refuse(folder: Path) -> None:
    """Takes the record of a damaged artifact away: nothing is made from it, and the next run makes it anew."""
    with suppress(FileNotFoundError):
        (folder / PROVENANCE_FILE).replace(folder / REFUSED_FILE)


@contextmanager
def emptied(draft: Path) -> Iterator[Path]:
    """Gives a folder for unfinished files, without what a killed process left there."""
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    yield draft


@contextmanager
def _draft(folder: Path) -> Iterator[Path]:
    """An empty folder that is gone afterwards, whatever becomes of what is written into it."""
    try:
        with emptied(folder) as draft:
            yield draft
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _put_in_place(draft: Path, folder: Path, inputs_hash: str) -> Provenance | None:
    """Renames the draft; a folder cannot be renamed over another, so the old one steps aside first.

    Returns:
        None where the draft is in place; else the record of the artifact that another process made of the same
        inputs meanwhile.
    """
    outdated = draft.with_name(f"{draft.name}.outdated")
    folder.parent.mkdir(parents=True, exist_ok=True)
    while True:
        present = read_provenance(folder)
        if present is not None and present.inputs_hash == inputs_hash:
            return present
        shutil.rmtree(outdated, ignore_errors=True)
        with suppress(FileNotFoundError):
            folder.rename(outdated)
        try:
            draft.rename(folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            # another process was quicker by this moment; what it put there is looked at
            continue
        shutil.rmtree(outdated, ignore_errors=True)
        return None


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes one file under a temporary name and renames it when it is on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)
        flush(draft)
        draft.replace(path)
    except OSError:
        # a full disk takes a name and no content
        draft.unlink(missing_ok=True)
        raise
    flush(path.parent)


@lru_cache(maxsize=1)
def software_versions() -> dict[str, str]:
    """Installed versions of the packages that numbers depend on."""
    return {name: installed_version(name) for name in RECORDED_PACKAGES}
