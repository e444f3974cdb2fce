"""Which files lie in a folder; hidden ones are no data and left out."""

import re
from collections.abc import Iterator
from pathlib import Path

from idal_assets.imaging.case import CaseError

_NIFTI = re.compile(r"(?P<stem>.+)\.nii(\.gz)?")


def visible_files(folder: Path) -> list[Path]:
    """List all files below a folder, sorted; hidden files and folders are left out, links to folders followed."""
    return [file for _, files, _ in walk(folder) for file in files]


def walk(folder: Path, ancestors: tuple[Path, ...] = ()) -> Iterator[tuple[Path, list[Path], list[Path]]]:
    """Yield (folder, its files, its subfolders) from the top; a link to a folder above it is not followed."""
    real = folder.resolve()
    if real in ancestors:
        return
    files, subfolders = list_folder(folder)
    yield folder, files, subfolders
    for subfolder in subfolders:
        yield from walk(subfolder, (*ancestors, real))


def list_folder(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the visible files (links that lead nowhere included) and subfolders of a folder, sorted."""
    files: list[Path] = []
    subfolders: list[Path] = []
    try:
        for entry in sorted(folder.iterdir()):
            # names with a dot in front are no data: MSD archives hold a ._BRATS_001.nii.gz for every file
            if not entry.name.startswith("."):
                (subfolders if entry.is_dir() else files).append(entry)
    except OSError as error:
        raise CaseError(f"{folder}: cannot be listed ({error}); make it readable") from error
    return files, subfolders


def nifti_stem(path: Path) -> str | None:
    """Return the name of a NIfTI file without its ending, None for any other file."""
    match = _NIFTI.fullmatch(path.name)
    return match["stem"] if match else None
