"""Raw folders that a dataset.json describes: MSD and nnU-Net v2."""

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from idal_assets.imaging.brats_labels import adult_values_of_children
from idal_assets.imaging.case import CaseError
from idal_assets.imaging.dataset_names import read_meaning
from idal_assets.imaging.listing import list_folder, nifti_files, nifti_stem, unpacked
from idal_assets.imaging.problems import CaseProblems, Problem
from idal_assets.imaging.raw_folder import (
    KNOWN_LAYOUTS,
    LABEL_ROLE,
    FoundCase,
    Layout,
    Meaning,
    RawFolder,
    check_cases,
    id_too_long,
)

NUMBERED = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")


def scan_described(raw_dir: Path) -> RawFolder:
    """Scan a folder that a dataset.json describes.

    Args:
        raw_dir: The folder.

    Raises:
        CaseError: The dataset.json cannot be read or does not say which layout, channel and label it means.
    """
    path = raw_dir / "dataset.json"
    meta = read_description(path)
    layout, key = _layout_of(path, meta)
    meaning = read_meaning(path, meta, key)
    problems: list[Problem] = []
    if layout is Layout.NNUNET:
        candidates = _nnunet_candidates(raw_dir, meta, meaning, problems)
    else:
        candidates = _msd_candidates(raw_dir, meta, problems)
    problems += _number_problems(path, meta, len(candidates))
    problems += adult_values_of_children(path, meaning, [candidate.case_id for candidate in candidates])
    return check_cases(raw_dir, layout, meaning, candidates, problems)


def read_description(path: Path) -> dict[str, Any]:
    """Read a dataset.json.

    Raises:
        CaseError: It cannot be read or is not an object.
    """
    try:
        meta = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise CaseError(f"{path}: cannot be read ({error}); correct or restore it") from error
    if not isinstance(meta, dict):
        raise CaseError(f"{path}: is not a JSON object; correct or restore it")
    return meta


def only_labels(meta: dict[str, Any]) -> dict[str, Any] | None:
    """Return the labels of a dataset.json that says nothing of layout and channels, as in a BraTS folder."""
    labels = meta.get("labels")
    others = {"channel_names", "modality", "training", "file_ending", "dataset"} & meta.keys()
    return labels if isinstance(labels, dict) and not others else None


def _layout_of(path: Path, meta: dict[str, Any]) -> tuple[Layout, str]:
    """Return the layout of the folder of a dataset.json, and the key of its channel names."""
    if "dataset" in meta:
        raise CaseError(
            f"{path}: lists its files under 'dataset', which is not supported; put or link the files into"
            " imagesTr and labelsTr and remove 'dataset'"
        )
    # MSD has 'modality' too, so what only nnU-Net v2 has comes first
    if "channel_names" in meta:
        return Layout.NNUNET, "channel_names"
    if (
        isinstance(meta.get("training"), list)
        and "file_ending" not in meta
        and not _is_numbered(path.parent, meta)
    ):
        return Layout.MSD, "modality"
    if "modality" in meta:
        return Layout.NNUNET, "modality"
    if "file_ending" in meta:
        return Layout.NNUNET, "channel_names"
    raise CaseError(f"{path}: belongs to no known layout; known are: {KNOWN_LAYOUTS}")


def _is_numbered(raw_dir: Path, meta: dict[str, Any]) -> bool:
    """Whether the images are numbered by channel, as those of nnU-Net v1 are, which 'training' lists without."""
    images = raw_dir / "imagesTr"
    names = {nifti_stem(image) for image in nifti_files(*list_folder(images))} if images.is_dir() else set()
    listed = _listed_cases(meta)
    return not listed & names and any(f"{case_id}_0000" in names for case_id in listed)


def _listed_cases(meta: dict[str, Any]) -> set[str]:
    """Return the case ids in 'training', as far as its entries can be understood.

    Where there are several channels, an entry may name the file of the first.
    """
    entries = meta.get("training")
    images = (
        [entry.get("image") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    )
    stems = {stem for image in images if isinstance(image, str) and (stem := nifti_stem(Path(image)))}
    channels = meta.get("modality") or meta.get("channel_names")
    if not isinstance(channels, dict) or len(channels) < 2:
        return stems
    return {stem.removesuffix("_0000") for stem in stems}


def _number_problems(path: Path, meta: dict[str, Any], found: int) -> list[Problem]:
    """Warn where 'numTraining' says another number of cases, as cases may have been lost in a copy."""
    said = meta.get("numTraining")
    if said is None or str(said) == str(found):
        return []
    what = f"'numTraining' is {said!r} and {found} cases are there"
    return [Problem(None, path, what, "bring the missing cases, or correct it", "warning", "number of cases")]


def _msd_candidates(raw_dir: Path, meta: dict[str, Any], problems: list[Problem]) -> list[FoundCase]:
    """List the cases of 'training'; what is wrong on the way is added to `problems`."""
    candidates = []
    for number, entry in enumerate(meta["training"]):
        try:
            candidates.append(msd_candidate(raw_dir, entry))
        except CaseProblems as error:
            problems += error.problems
        except (TypeError, KeyError):
            what = f"entry {number} of 'training' is {entry!r}"
            remedy = 'write {"image": "./imagesTr/CASE.nii.gz", "label": "./labelsTr/CASE.nii.gz"}'
            problems.append(Problem(None, raw_dir / "dataset.json", what, remedy))
    listed = {path for candidate in candidates for path in candidate.expected.values()}
    for file in _split_files(raw_dir, ("imagesTr", "labelsTr"), problems):
        if file not in listed:
            remedy = "add it to 'training' in dataset.json or remove the file"
            problems.append(Problem(nifti_stem(file), file, "present but not listed", remedy))
    return candidates


def msd_candidate(raw_dir: Path, entry: Any) -> FoundCase:
    """Return the case that an entry of 'training' names.

    Raises:
        CaseProblems: A path is not that of a NIfTI file below the folder.
        TypeError: The entry is not an object.
        KeyError: The entry lacks its image or label.
    """
    named = {"image": str(entry["image"]), LABEL_ROLE: str(entry["label"])}
    case_id = nifti_stem(Path(named["image"]))
    files = {}
    for role, name in named.items():
        # by name only: a link inside the folder was made by its owner and may lead anywhere, an entry may not
        relative = Path(os.path.normpath(name))
        if relative.is_absolute() or relative.drive or relative.parts[:1] == ("..",):
            remedy = "write a path relative to dataset.json and inside its folder"
            raise CaseProblems([Problem(case_id, Path(name), f"{role} lies outside the raw folder", remedy)])
        files[role] = raw_dir / relative
        if case_id is None or nifti_stem(relative) is None:
            remedy = "write a name that ends in .nii or .nii.gz"
            raise CaseProblems([Problem(case_id, files[role], f"{role} is not a NIfTI file", remedy)])
    # a disk is not asked for a name that it cannot have; `check_cases` refuses that
    asked = not id_too_long(str(case_id), files["image"])
    found = {role: [(asked and unpacked(file)) or file] for role, file in files.items()}
    return FoundCase(str(case_id), files, found)


def _split_files(raw_dir: Path, folders: tuple[str, ...], problems: list[Problem]) -> list[Path]:
    """List the NIfTI files in some folders by name; what else lies there is added to `problems` as a warning."""
    files: list[Path] = []
    for folder in (raw_dir / name for name in folders):
        inside, subfolders = list_folder(folder) if folder.is_dir() else ([], [])
        images = nifti_files(inside, subfolders)
        files += images
        for other in (entry for entry in (*inside, *subfolders) if entry not in images):
            problems.append(Problem(None, other, "not a NIfTI file, left out", "move it elsewhere", "warning"))
    return files


def _nnunet_candidates(
    raw_dir: Path, meta: dict[str, Any], meaning: Meaning, problems: list[Problem]
) -> list[FoundCase]:
    """List the cases of nnU-Net v2: one file for each channel, numbered as in 'channel_names'."""
    ending = meta.get("file_ending", ".nii.gz")
    if ending not in (".nii", ".nii.gz"):
        raise CaseError(f"{raw_dir / 'dataset.json'}: file_ending {ending!r} is not read; convert to .nii.gz")
    channels = zip(meaning.channel_order, meaning.anatomy.channels, strict=True)
    roles = {f"{number:04d}": channel for number, channel in channels}
    listed = {file: unpacked(file) or file for file in _split_files(raw_dir, ("imagesTr", "labelsTr"), problems)}
    labels = {named for named in listed if named.parent.name == "labelsTr"}
    found = sort_numbered({named: listed[named] for named in listed if named not in labels}, roles, problems)
    for named in sorted(labels):
        found[str(nifti_stem(named))][LABEL_ROLE].append(listed[named])
    for case_id in sorted(_listed_cases(meta) - found.keys()):
        remedy = "restore its files or take it out of 'training'"
        problems.append(
            Problem(case_id, raw_dir / "dataset.json", "listed, but none of its files is there", remedy)
        )
    candidates = []
    for case_id, files in found.items():
        images = raw_dir / "imagesTr"
        expected = {channel: images / f"{case_id}_{number}{ending}" for number, channel in roles.items()}
        expected[LABEL_ROLE] = raw_dir / "labelsTr" / f"{case_id}{ending}"
        candidates.append(FoundCase(case_id, expected, files))
    return candidates


def sort_numbered(
    images: Mapping[Path, Path], roles: Mapping[str, str], problems: list[Problem]
) -> dict[str, dict[str, list[Path]]]:
    """Sort the files of nnU-Net, which are numbered by channel, by case and channel.

    Args:
        images: Path as it is named -> the file.
        roles: Channel by number, of four digits.
        problems: What is wrong on the way is added to them.
    """
    found: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for named, file in images.items():
        stem = str(nifti_stem(named))
        numbered = NUMBERED.fullmatch(stem)
        if numbered is None:
            remedy = f"name it {_range(roles, 'CASE_')} by its channel"
            problems.append(Problem(stem, named, "image without a channel number", remedy))
        elif numbered["channel"] not in roles:
            remedy = f"remove it: channels are numbered {_range(roles)}"
            problems.append(Problem(numbered["case"], named, "file of an extra channel", remedy))
        else:
            found[numbered["case"]][roles[numbered["channel"]]].append(file)
    return found


def _range(numbers: Iterable[str], before: str = "") -> str:
    """Return the first and the last of some numbers, in words."""
    first, last = min(numbers), max(numbers)
    return f"{before}{first}" if first == last else f"{before}{first} to {before}{last}"
