"""How damage to files is noticed: by size and SHA-256 of each, and by a seal on what says so.

Disks and cables flip bits, people delete files, and a power cut leaves names without content. None of the formats
in use notices all of it: PyTorch, numpy and Blosc2 read a flipped bit as another number.
"""

import hashlib
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

LOGGER = logging.getLogger(__name__)

CHUNK = 1 << 20
"""Bytes that are hashed at a time."""

SEAL = re.compile(rb',\n "seal": "([0-9a-f]{16})"\n}\s*\Z')
"""How a record ends that says what it was; written by `with_seal`."""


class DamagedError(ValueError):
    """A file is not as it was written; the message says which, and how that shows."""


class FileMark(NamedTuple):
    """What a file was when it was written.

    Attributes:
        size: In bytes.
        sha256: Hash of its content, in hexadecimal digits.
    """

    size: int
    sha256: str


FileMarks = Mapping[str, FileMark]
"""By path below the artifact's folder, with slashes."""


def mark_files(folder: Path) -> dict[str, FileMark]:
    """Flushes everything in a folder to disk and tells what it is.

    Args:
        folder: It may have folders in it.
    """
    marks = {}
    for path in sorted(_files_below(folder)):
        flush(path)
        marks[path.relative_to(folder).as_posix()] = FileMark(path.stat().st_size, sha256_of(path))
    for inner in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        flush(inner)
    return marks


def difference_of_sizes(folder: Path, marks: FileMarks) -> str | None:
    """The first file that is gone or has another size, in words; None where all are there. Reads none of them."""
    for name, (size, _) in marks.items():
        try:
            found = os.stat(f"{folder}/{name}").st_size  # noqa: PTH116 - twice as fast, and called for every file
        except (FileNotFoundError, NotADirectoryError):
            return f"{name} is gone"
        if found != size:
            return f"{name} has {found} bytes instead of {size}"
    return None


def difference_of_content(folder: Path, marks: FileMarks) -> str | None:
    """The first file that is gone or other than it was written, in words; None where all are as they were."""
    found = difference_of_sizes(folder, marks)
    if found:
        return found
    for name, (_, expected) in marks.items():
        try:
            if sha256_of(folder / name) != expected:
                return f"{name} is not as it was written"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return None


def sha256_of(path: Path) -> str:
    """Hash of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def with_seal(record: str) -> str:
    """Adds to a JSON object of indent 1 the hash of itself.

    Args:
        record: The object as text.

    Returns:
        The same object with one more key, `seal`, at its end.
    """
    body = record.removesuffix("\n}")
    return f'{body},\n "seal": "{_seal_of(record.encode())}"\n}}'


def without_seal(record: bytes) -> bytes:
    """The object that `with_seal` was given; a record from before there were seals is returned as it is.

    Raises:
        DamagedError: Not a bit of it may have changed, but has.
    """
    found = SEAL.search(record)
    if found is None:
        return record
    body = record[: found.start()] + b"\n}"
    if _seal_of(body) != found[1].decode():
        raise DamagedError("it is not as it was written")
    return body


@contextmanager
def held(lock: Path) -> Iterator[None]:
    """Holds a lock file for as long as the context lasts.

    Some network file systems have no locks; there nothing is held, and what is written must bear that.
    """
    file = FileLock(lock)
    try:
        file.acquire()
    except NotImplementedError:
        LOGGER.info("%s: this file system has no locks", lock)
        yield
        return
    try:
        yield
    finally:
        file.release()


def flush(path: Path) -> None:
    """Has the system write a file, or the names in a folder, to disk now; a power cut leaves it whole."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _seal_of(record: bytes) -> str:
    return hashlib.sha256(record).hexdigest()[:16]


def _files_below(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())
