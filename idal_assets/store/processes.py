"""Which process of which host this is, and whether another one is still there."""

import hashlib
import os
import re
import shutil
import socket
from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=1)
def host_mark() -> str:
    """A short mark of this host, of the same length whatever its name, for the names of files."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def process_mark() -> str:
    """Host and process, as drafts are named by."""
    return f"{host_mark()}.{os.getpid()}"


def remove_abandoned(folder: Path, name: str) -> None:
    """Removes drafts of a name whose process on this host has died; what other hosts do cannot be seen from here.

    Args:
        folder: Where drafts are.
        name: What they are of; `.HOST.PROCESS` follows in their names, except in those from before there were any.
    """
    pattern = re.compile(re.escape(name) + r"(?:\.([0-9a-f]{8})\.(\d+))?(?:\.outdated)?")
    for path in folder.iterdir() if folder.is_dir() else ():
        found = pattern.fullmatch(path.name)
        if found and (found[1] is None or (found[1] == host_mark() and not _is_another(int(found[2])))):
            shutil.rmtree(path, ignore_errors=True)


def remove_drafts_of(folder: Path, mark: str) -> None:
    """Removes the drafts of a process that is known to be gone.

    Args:
        folder: Where drafts are.
        mark: Its `process_mark`.
    """
    for path in folder.glob(f"*.{mark}*"):
        shutil.rmtree(path, ignore_errors=True)


def is_alive(process: int) -> bool:
    """Whether a process of this host is there and has not ended."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _is_zombie(process)


def _is_another(process: int) -> bool:
    return process != os.getpid() and is_alive(process)


def _is_zombie(process: int) -> bool:
    """Whether a process has ended and only its parent has not noticed, as far as the system tells."""
    try:
        said = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return said.rpartition(")")[2].split()[0] == "Z"
