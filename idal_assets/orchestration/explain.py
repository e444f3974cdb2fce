"""What a person can do about an error of the disk, the system or another program, in one sentence."""

import errno
import resource
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

GO_ON = "and call the same command again: it goes on where it was, nothing is lost"
BY_NUMBER: Mapping[int, str] = {
    errno.ENOSPC: f"The disk is full; make room {GO_ON}",
    errno.EDQUOT: f"Your quota on the disk is used up; make room {GO_ON}",
    errno.EFBIG: f"A file may not become as large as it must; raise the limit (ulimit -f) {GO_ON}",
    errno.EROFS: "It cannot be written to, since the disk is read-only; give another data folder with --data-dir",
    errno.EACCES: "You may not use it; change its permissions, or give another data folder with --data-dir",
    errno.ENAMETOOLONG: "The name is too long for the disk; shorten the id of the case or the path of the folder",
    errno.EMFILE: f"Too many files are open; raise the limit (ulimit -n) {GO_ON}",
    errno.EIO: f"The disk reports an error; see to it {GO_ON}",
}
"""By number of the system's error."""

BY_TEXT: Mapping[str, int] = {
    "No space left on device": errno.ENOSPC,
    "database or disk is full": errno.ENOSPC,
    "Disk quota exceeded": errno.EDQUOT,
    "File too large": errno.EFBIG,
    "Read-only file system": errno.EROFS,
    "readonly database": errno.EROFS,
    "File name too long": errno.ENAMETOOLONG,
    "Input/output error": errno.EIO,
}
"""What libraries say of these that do not hand on the number."""

OF_SQLITE = "disk I/O error"
"""What SQLite says of a broken disk, and of a file that may not grow."""

BYTES_OF_A_FULL_DISK = 1 << 20
"""With less room than this whatever fails, fails for want of it."""


def remedy(error: BaseException, folder: Path) -> str | None:
    """What a person can do about an error, with the file where it is known.

    Args:
        error: The error, with what it was raised from.
        folder: The data folder; it need not exist.

    Returns:
        One sentence; None where the error is of another kind.
    """
    for cause in _causes(error):
        if (number := _number(cause)) is not None:
            place = getattr(cause, "filename", None)
            return f"{place}: {BY_NUMBER[number]}" if place else BY_NUMBER[number]
        if _is_held(cause):
            return f"Another program has the database open; close it {GO_ON}"
    if _is_full(folder):
        return f"{folder}: {BY_NUMBER[errno.ENOSPC]}"
    if any(OF_SQLITE in str(cause) for cause in _causes(error)):
        return f"{folder}: {BY_NUMBER[errno.EFBIG if _are_files_limited() else errno.EIO]}"
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and from what it was raised, the last one first; the deepest one often knows most."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return reversed(found)


def _number(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno in BY_NUMBER:
        return error.errno
    said = str(error)
    return next((number for text, number in BY_TEXT.items() if text in said), None)


def _is_held(error: BaseException) -> bool:
    from idal_assets.store.database import is_held_by_another

    return type(error).__module__.endswith("duckdb") and is_held_by_another(error)


def _are_files_limited() -> bool:
    return resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY


def _is_full(folder: Path) -> bool:
    place = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
    return shutil.disk_usage(place).free < BYTES_OF_A_FULL_DISK
