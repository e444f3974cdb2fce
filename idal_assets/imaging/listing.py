"""Which files lie in a folder; what a system or this project put there is no data and left out."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from idal_assets.imaging.case import CaseError
from idal_assets.store.layout import DataFolder


@dataclass(frozen=True)
class Folder:
    """A folder and what is in it.

    Attributes:
        path: The folder.
        images: Its NIfTI files, by the path that says what they are, see `nifti_files`.
        others: What else is in it.
    """

    path: Path
    images: Mapping[Path, Path]
    others: tuple[Path, ...]


_NIFTI = re.compile(r"(?P<stem>.+)\.nii(\.gz)?")

OF_THE_SYSTEM = frozenset(
    [
        *("__macosx", "lost+found", "$recycle.bin", "system volume information", "@eadir", "#recycle"),
        *("thumbs.db", "desktop.ini"),
    ]
)
"""Files and folders that macOS, Linux, Windows and network disks put beside the data, in lower case."""


def list_folders(top: Path) -> list[Folder]:
    """List a folder and all below it, but those that stand for the one file in them."""
    found = []
    for path, files, subfolders in walk(top):
        images = nifti_files(files, subfolders)
        others = tuple(entry for entry in (*files, *subfolders) if entry not in images)
        found.append(Folder(path, images, others))
    stand_for_files = {named for folder in found for named, file in folder.images.items() if named != file}
    return [folder for folder in found if folder.path not in stand_for_files]


def visible_files(folder: Path) -> list[Path]:
    """List all files below a folder, sorted; hidden files and folders are left out, links to folders followed."""
    return [file for _, files, _ in walk(folder) for file in files]


def walk(folder: Path, ancestors: tuple[Path, ...] = ()) -> Iterator[tuple[Path, list[Path], list[Path]]]:
    """Yield (folder, its files, its subfolders) from the top; a link to a folder above it is not followed.

    A data folder of this project below it, with results that look like cases, is left out.
    """
    real = folder.resolve()
    if real in ancestors:
        return
    files, subfolders = list_folder(folder)
    own = DataFolder(folder)
    if ancestors and own.study_file in files and own.dagster_home in subfolders:
        return
    yield folder, files, subfolders
    for subfolder in subfolders:
        yield from walk(subfolder, (*ancestors, real))


def list_folder(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the visible files (links that lead nowhere included) and subfolders of a folder, sorted."""
    files: list[Path] = []
    subfolders: list[Path] = []
    try:
        # unlike a path, an entry knows without asking the disk again whether it is a folder
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                # names with a dot in front are no data: MSD archives hold a ._BRATS_001.nii.gz for every file
                if not entry.name.startswith(".") and entry.name.lower() not in OF_THE_SYSTEM:
                    (subfolders if entry.is_dir() else files).append(folder / entry.name)
    except OSError as error:
        raise CaseError(f"{folder}: cannot be listed ({error}); make it readable") from error
    return files, subfolders


def nifti_stem(path: Path) -> str | None:
    """Return the name of a NIfTI file without its ending, None for any other file."""
    match = _NIFTI.fullmatch(path.name)
    return match["stem"] if match else None


def nifti_files(files: list[Path], subfolders: list[Path]) -> dict[Path, Path]:
    """Return the NIfTI files of a folder, by the path that says what they are.

    7-Zip unpacks CASE_flair.nii.gz to a folder of that name, with the file inside under the name that it had when
    it was compressed; then the folder's name is the one that counts.

    Args:
        files: Files of the folder.
        subfolders: Its subfolders.

    Returns:
        Path as it is named -> the file, the same but for those in folders.
    """
    found = {file: file for file in files if nifti_stem(file)}
    for subfolder in subfolders:
        inside = unpacked(subfolder)
        if inside:
            found[subfolder] = inside
    return dict(sorted(found.items()))


def unpacked(folder: Path) -> Path | None:
    """Return the one NIfTI file in a folder that is itself named as a NIfTI file; None for anything else."""
    if nifti_stem(folder) is None or not folder.is_dir():
        return None
    files, subfolders = list_folder(folder)
    return files[0] if len(files) == 1 and not subfolders and nifti_stem(files[0]) else None
