"""A file from the internet: what a broken transfer left is gone on with, and only a matching checksum is believed.

`requests` does the transfer. Of the download libraries, pooch throws away what a broken transfer left, and pypdl
writes the file under its final name before it is checked.
"""

import hashlib
import math
import re
import shutil
from http import HTTPStatus
from pathlib import Path

import requests

from idal_assets.progress import Track, silently

MEGABYTE = 1_000_000
PATIENCE = (10, 60)
"""Seconds to wait for the connection, and for the next bytes of the file."""


class DownloadError(RuntimeError):
    """A file that cannot be fetched, or is not the one that was expected; the message says what to do."""


def fetch_archive(address: str, checksum: str, target: Path, track: Track = silently) -> None:
    """Fetches an uncompressed archive that is to be extracted beside it; one that is there is only checked.

    What arrives is kept as `NAME.DIGITS.part`, with the first digits of the checksum, and gets its name when it is
    complete and right. A wrong file is kept as `NAME.refused` and never used.

    Args:
        address: Where it is.
        checksum: `md5:` or `sha256:` and its hexadecimal digits.
        target: Where it belongs.
        track: Shows the megabytes that are done.

    Raises:
        DownloadError: The server does not give the file, the connection broke, the disk is too full or the
            checksum is wrong.
    """
    if target.is_file():
        _verify(target, address, checksum, target, track)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{checksum.partition(':')[2][:8]}.part")
    try:
        _receive(address, part, track)
    except requests.HTTPError as error:
        raise DownloadError(f"{error}; correct download.address in the profile or try again later") from error
    except requests.RequestException as error:
        raise _broken(address, part, str(error)) from error
    _verify(part, address, checksum, target, track)
    part.replace(target)


def check_space(folder: Path, needed: int, what: str) -> None:
    """Refuses what does not fit on the disk.

    Args:
        folder: An existing folder on the disk.
        needed: Bytes.
        what: What they are needed for.

    Raises:
        DownloadError: Less is free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DownloadError(
            f"{folder}: {what} needs {_megabytes(needed)} and {_megabytes(free)} are free; "
            "free some space or give another --data-dir"
        )


def _receive(address: str, part: Path, track: Track) -> None:
    """Writes what is missing of the file into `part`."""
    present = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"}
    if present:
        # the last byte is asked for again, since a server refuses the empty range after a complete file
        headers["Range"] = f"bytes={present - 1}-"
    with requests.get(address, headers=headers, stream=True, timeout=PATIENCE) as answer:
        if present and answer.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink()  # longer than the file, so it is the part of another one
            _receive(address, part, track)
            return
        answer.raise_for_status()
        start, total = _extent(answer)
        if start > present:
            raise DownloadError(f"{address}: the server left bytes {present} to {start} out; delete {part}")
        check_space(part.parent, 2 * total - start, "to download and extract the archive")
        blocks = answer.iter_content(MEGABYTE)
        with part.open("r+b" if start else "wb") as file:
            file.seek(start)
            file.truncate()
            for _ in track(range(math.ceil((total - start) / MEGABYTE)), "Downloading (MB)"):
                file.write(next(blocks, b""))
        # urllib3 before version 2 does not notice it
        if part.stat().st_size != total:
            raise _broken(address, part, f"the file has {_megabytes(total)}")


def _extent(answer: requests.Response) -> tuple[int, int]:
    """Where the body begins in the file, and how long the file is, in bytes.

    A server that does not know ranges sends the file from its beginning.
    """
    if answer.status_code == HTTPStatus.PARTIAL_CONTENT:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""))
        if found:
            return int(found[1]), int(found[2])
    elif answer.headers.get("Content-Length", "").isdecimal():
        return 0, int(answer.headers["Content-Length"])
    raise DownloadError(
        f"{answer.url}: the server does not say how long the file is; give another download.address"
    )


def _verify(file: Path, address: str, checksum: str, target: Path, track: Track) -> None:
    kind, _, expected = checksum.partition(":")
    digest = hashlib.new(kind, usedforsecurity=False)
    with file.open("rb") as content:
        for _ in track(range(math.ceil(file.stat().st_size / MEGABYTE)), "Checking the download (MB)"):
            digest.update(content.read(MEGABYTE))
    if digest.hexdigest() == expected:
        return
    refused = target.with_name(f"{target.name}.refused")
    file.replace(refused)
    raise DownloadError(
        f"{target.name} from {address}: the {kind} is {digest.hexdigest()}, {expected} was expected. The file was "
        f"not used and is kept as {refused}. Try again to download it anew; if it is what you want, correct "
        f"download.checksum in the profile and rename it to {target}"
    )


def _broken(address: str, part: Path, reason: str) -> DownloadError:
    present = part.stat().st_size if part.exists() else 0
    way_on = f"{_megabytes(present)} are here, and the next try goes on from there" if present else "try again"
    return DownloadError(f"{address}: the transfer broke off ({reason}); {way_on}")


def _megabytes(size: int) -> str:
    return f"{size / MEGABYTE:,.1f} MB"
