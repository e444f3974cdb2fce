"""Raw data folders as they are handed out: which layout, which cases, and a case read into the convention.

Every layout becomes the channels and labels of `conventions`. Channels and labels are told apart by name, never
by a guess; the voxel order and the geometry of the files are kept. Whether the content of a case is usable (NaN,
empty label, same image twice) is not decided here but in `inspection`.
"""

import gzip
import json
import math
import os
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import compress
from operator import not_
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from idal_assets.imaging.case import Case, CaseError
from idal_assets.imaging.conventions import CHANNELS, ENHANCING, NON_ENHANCING, OEDEMA

GEOMETRY_TOLERANCE_MM = 1e-3
"""Largest difference between two entries of an affine, or two voxel sizes, that counts as equal.

Writing the same affine as a float32 matrix or as a quaternion changes its entries, by about as much in the worst
case (measured on random rotations near a half turn). Over the 240 voxels of a BraTS volume the tolerance moves a
voxel by at most a quarter of a millimetre, less than any mismatch that matters.
"""

CHANNEL_SYNONYMS = {
    "FLAIR": ("flair", "t2f", "t2flair"),
    "T1w": ("t1", "t1w", "t1n"),
    "T1gd": ("t1gd", "t1ce", "t1c"),
    "T2w": ("t2", "t2w"),
}
"""Accepted names of each channel, in lower case and without separators."""

LABEL_PATTERNS = {
    OEDEMA: re.compile(r"edema|peritumou?ral|\bsnfh\b|^ed$"),
    NON_ENHANCING: re.compile(r"necro|\bncr\b|\bnetc?\b|non ?enhanc"),
    ENHANCING: re.compile(r"(?<!non)(?<!non )enhanc|^et$"),
}
"""What the name of a label must contain, in lower case and with spaces as separators."""

REGION_NAMES = {
    "WT": ("whole tumor", "whole tumour", "wt"),
    "TC": ("tumor core", "tumour core", "tc"),
    "ET": ("enhancing tumor", "enhancing tumour", "enhancing", "et"),
}

BRATS_2018_LABELS = {0: 0, 1: NON_ENHANCING, 2: OEDEMA, 4: ENHANCING}
BRATS_2023_LABELS = {0: 0, 1: NON_ENHANCING, 2: OEDEMA, 3: ENHANCING}

_LABEL = "label"
_NIFTI = re.compile(r"(?P<stem>.+)\.nii(\.gz)?")
_NUMBERED = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")
_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    OverflowError,
    zlib.error,
    ImageFileError,
    HeaderDataError,
    WrapStructError,
)


class Layout(str, Enum):
    """The layouts of a raw data folder that can be read."""

    MSD = "MSD"
    NNUNET = "nnU-Net v2"
    BRATS_2018 = "BraTS 2018-2021"
    BRATS_2023 = "BraTS 2023+"


KNOWN_LAYOUTS = (
    f"{Layout.MSD.value} (dataset.json with a 'training' list, 4D images in imagesTr, labelsTr); "
    f"{Layout.NNUNET.value} raw (dataset.json with 'channel_names', imagesTr/CASE_0000.nii.gz, labelsTr); "
    f"{Layout.BRATS_2018.value} (a folder for each case, CASE_flair, _t1, _t1ce, _t2, _seg); "
    f"{Layout.BRATS_2023.value} (a folder for each case, CASE-t2f, -t1n, -t1c, -t2w, -seg)"
)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a folder, a case or a file, and what to do about it.

    Attributes:
        case_id: The case concerned, None if it is the folder as a whole.
        file: The file concerned (it may be absent), None if it is no single file.
        what: What is wrong.
        remedy: What to do.
        severity: An error refuses the case, a warning does not.
    """

    case_id: str | None
    file: Path | None
    what: str
    remedy: str
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        place = [str(part) for part in (self.case_id, self.file) if part is not None]
        text = f"{', '.join(place) or 'folder'}: {self.what}; {self.remedy}"
        return " ".join(text.split())


class CaseProblems(CaseError):
    """A case that is refused for all of `problems`; the message has one line for each."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))

    def __reduce__(self) -> tuple[type, tuple[tuple[Problem, ...]]]:
        # an exception is otherwise rebuilt from its message, which loses the problems between processes
        return CaseProblems, (self.problems,)


@dataclass(frozen=True)
class CaseFiles:
    """Where one case is, and how the content of its files maps to the convention.

    Attributes:
        case_id: Name of the case, safe as the name of a folder.
        layout: Layout of the folder it is in.
        images: One 4D file, or four 3D files in the order of `CHANNELS`.
        label: The label file.
        channel_order: For a 4D file, which of its channels is each of `CHANNELS`; otherwise 0 to 3.
        label_values: Value in the label file -> value of the convention, 0 -> 0 included.
    """

    case_id: str
    layout: Layout
    images: tuple[Path, ...]
    label: Path
    channel_order: tuple[int, ...]
    label_values: Mapping[int, int]


@dataclass(frozen=True)
class RawFolder:
    """What the names in a raw data folder say.

    Attributes:
        path: The folder.
        layout: Its layout.
        cases: The cases whose files are complete, sorted by case id.
        problems: Everything that is wrong; a case with an error is not among `cases`.
    """

    path: Path
    layout: Layout
    cases: tuple[CaseFiles, ...]
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class Volume:
    """Voxels and geometry as read from the file or files of one case.

    Attributes:
        data: Voxels, shape (X, Y, Z), with the channels (or channel) as a first axis where it is an image.
        affine: Voxel to world transform in mm, shape (4, 4).
        spacing: Voxel size in mm along X, Y and Z.
    """

    data: NDArray[Any]
    affine: NDArray[np.float64]
    spacing: tuple[float, float, float]


# --------------------------------------------------------------------------------------- scan a folder


def scan_raw_folder(raw_dir: Path) -> RawFolder:
    """List the cases of a raw data folder by the names of its files; no voxel is read.

    Args:
        raw_dir: Folder in one of the known layouts, which is recognised by itself.

    Raises:
        CaseError: The folder does not exist, has no known layout, or its dataset.json does not say which channel
            and label is which.
    """
    raw_dir = Path(raw_dir)
    if not raw_dir.is_dir():
        raise CaseError(f"{raw_dir}: no such folder; give the raw data folder")
    if (raw_dir / "dataset.json").exists():
        return _scan_described(raw_dir)
    if (raw_dir / "imagesTr").is_dir():
        raise CaseError(
            f"{raw_dir}: imagesTr without dataset.json, so nothing says which channel is which; write one"
            " with 'channel_names' and 'labels' (nnU-Net v2) or 'modality', 'labels' and 'training' (MSD)"
        )
    return _scan_brats(raw_dir)


def visible_files(folder: Path) -> list[Path]:
    """List all files below a folder, sorted; hidden files and folders are left out, links to folders followed."""
    return [file for _, files, _ in _walk(folder) for file in files]


def _walk(folder: Path, ancestors: tuple[Path, ...] = ()) -> Iterator[tuple[Path, list[Path], list[Path]]]:
    """Yield (folder, its files, its subfolders) from the top; a link to a folder above it is not followed."""
    real = folder.resolve()
    if real in ancestors:
        return
    files, subfolders = _list(folder)
    yield folder, files, subfolders
    for subfolder in subfolders:
        yield from _walk(subfolder, (*ancestors, real))


def _list(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the visible files (links that lead nowhere included) and subfolders of a folder, sorted."""
    try:
        # names with a dot in front are no data: MSD archives hold a ._BRATS_001.nii.gz for every file
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        is_folder = [entry.is_dir() for entry in entries]
    except OSError as error:
        raise CaseError(f"{folder}: cannot be listed ({error}); make it readable") from error
    return list(compress(entries, map(not_, is_folder))), list(compress(entries, is_folder))


def _stem(path: Path) -> str | None:
    """Return the name of a NIfTI file without its ending, None for any other file."""
    match = _NIFTI.fullmatch(path.name)
    return match["stem"] if match else None


@dataclass(frozen=True)
class _Candidate:
    """A case as found by name, complete or not.

    Attributes:
        case_id: Its name.
        expected: Role ("image" or a channel, "label") -> the file that should be there.
        found: Role -> the files that may be meant.
    """

    case_id: str
    expected: dict[str, Path]
    found: dict[str, list[Path]]


def _raw_folder(
    raw_dir: Path,
    layout: Layout,
    candidates: list[_Candidate],
    problems: list[Problem],
    *,
    channel_order: tuple[int, ...] = (0, 1, 2, 3),
    label_values: Mapping[int, int],
) -> RawFolder:
    """Keep the candidates that nothing is wrong with and put everything else among the problems."""
    for candidate in candidates:
        problems = problems + _candidate_problems(candidate)
    problems = problems + _duplicate_problems(candidates)
    if not candidates and not problems:
        problems = [Problem(None, raw_dir, f"{layout.value} folder without a case", "add cases")]
    refused = {problem.case_id for problem in problems if problem.severity == "error"}
    cases = [
        CaseFiles(
            case_id=candidate.case_id,
            layout=layout,
            images=tuple(candidate.found[role][0] for role in candidate.expected if role != _LABEL),
            label=candidate.found[_LABEL][0],
            channel_order=channel_order,
            label_values=dict(label_values),
        )
        for candidate in candidates
        if candidate.case_id not in refused
    ]
    return RawFolder(raw_dir, layout, tuple(sorted(cases, key=lambda case: case.case_id)), tuple(problems))


def _candidate_problems(candidate: _Candidate) -> list[Problem]:
    """Check the name of one candidate and that each of its files is there exactly once."""
    case_id = candidate.case_id
    problems = []
    if not _SAFE_ID.fullmatch(case_id) or ".." in case_id:
        what = f"case id {case_id!r} is not safe as the name of a folder"
        remedy = "rename its files to letters, digits, '.', '_' and '-', starting with a letter or digit"
        problems.append(Problem(case_id, candidate.expected[_LABEL], what, remedy))
    for role, expected in candidate.expected.items():
        files = candidate.found.get(role, [])
        if len(files) > 1:
            names = ", ".join(file.name for file in files)
            problems.append(Problem(case_id, files[1], f"{role} is there more than once ({names})", "keep one"))
        elif not files:
            problems.append(Problem(case_id, expected, f"{role} is missing", "add the file or remove the case"))
        elif not files[0].is_file():
            remedy = "restore the file (or the target of the link) or remove the case"
            problems.append(Problem(case_id, files[0], f"{role} is named but absent", remedy))
    return problems


def _duplicate_problems(candidates: list[_Candidate]) -> list[Problem]:
    """Report case ids, and label files, that more than one candidate claims."""
    ids = Counter(candidate.case_id for candidate in candidates)
    problems = []
    for case_id in sorted(case_id for case_id, count in ids.items() if count > 1):
        places = [candidate.expected[_LABEL] for candidate in candidates if candidate.case_id == case_id]
        what = f"case id is there {len(places)} times ({', '.join(map(str, places))})"
        problems.append(Problem(case_id, places[1], what, "keep one of them or rename"))
    labels = Counter(candidate.expected[_LABEL] for candidate in candidates)
    for candidate in candidates:
        label = candidate.expected[_LABEL]
        if ids[candidate.case_id] == 1 and labels[label] > 1:
            problems.append(Problem(candidate.case_id, label, "label of several cases", "give each case its own"))
    return problems


# ------------------------------------------------------------------------- folders with a dataset.json


def _scan_described(raw_dir: Path) -> RawFolder:
    """Scan a folder that a dataset.json describes."""
    path = raw_dir / "dataset.json"
    meta = _read_json(path)
    scan, key = _layout_of(path, meta)
    order = _channel_order(path, meta.get(key), key)
    return scan(raw_dir, meta, order, _label_values(path, meta.get("labels")))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        meta = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise CaseError(f"{path}: cannot be read ({error}); correct or restore it") from error
    if not isinstance(meta, dict):
        raise CaseError(f"{path}: is not a JSON object; correct or restore it")
    return meta


_Scan = Callable[[Path, dict[str, Any], tuple[int, ...], dict[int, int]], RawFolder]


def _layout_of(path: Path, meta: dict[str, Any]) -> tuple[_Scan, str]:
    """Return how to scan the folder of a dataset.json, and the key of its channel names."""
    if "dataset" in meta:
        raise CaseError(
            f"{path}: lists its files under 'dataset', which is not supported; put or link the files into"
            " imagesTr and labelsTr and remove 'dataset'"
        )
    # MSD has 'modality' too, so what only nnU-Net v2 has comes first
    if "channel_names" in meta:
        return _scan_nnunet, "channel_names"
    if isinstance(meta.get("training"), list) and "file_ending" not in meta:
        return _scan_msd, "modality"
    if "modality" in meta:
        return _scan_nnunet, "modality"
    if "file_ending" in meta:
        return _scan_nnunet, "channel_names"
    raise CaseError(f"{path}: belongs to no known layout; known are: {KNOWN_LAYOUTS}")


def _channel_order(path: Path, names: object, key: str) -> tuple[int, ...]:
    """Return which channel of the file is each of `CHANNELS`, by name.

    Args:
        path: The dataset.json, for the message.
        names: What it gives as number -> name.
        key: The key it gives them under.

    Raises:
        CaseError: A name is not recognised, or there is not exactly one name for each channel.
    """
    example = json.dumps({str(index): name for index, name in enumerate(CHANNELS)})
    remedy = f'write "{key}": {example} in the order of the files'
    if not isinstance(names, dict):
        raise CaseError(f"{path}: no channel names; {remedy}")
    by_channel = {}
    for index, name in names.items():
        channel = _channel_of(str(name))
        if channel is None:
            raise CaseError(f"{path}: channel {index} has the unknown name {name!r}; {remedy}")
        by_channel[channel] = index
    if sorted(names) != ["0", "1", "2", "3"] or set(by_channel) != set(CHANNELS):
        raise CaseError(f"{path}: channels {names} are not the four, numbered 0 to 3; {remedy}")
    return tuple(int(by_channel[channel]) for channel in CHANNELS)


def _channel_of(name: str) -> str | None:
    """Return the channel that a name stands for, None if it is not known."""
    plain = re.sub(r"[\s_-]+", "", name.lower())
    return next((channel for channel, known in CHANNEL_SYNONYMS.items() if plain in known), None)


def _label_values(path: Path, labels: object) -> dict[int, int]:
    """Return file value -> convention value from the 'labels' of a dataset.json, by name.

    MSD writes value -> name, nnU-Net name -> value, or name -> values where labels are defined as regions.

    Raises:
        CaseError: The labels are missing, not recognised or contradict one another.
    """
    if not isinstance(labels, dict) or not labels:
        raise _label_error(path, "no 'labels'")
    if all(re.fullmatch(r"\d+", key) for key in labels):
        pairs = [(str(name), int(value)) for value, name in labels.items()]
    elif any(isinstance(value, list) for value in labels.values()):
        return _values_of_regions(path, labels)
    else:
        pairs = list(labels.items())
    values = {0: 0}
    for name, value in pairs:
        target = _label_of(name)
        if target is None or type(value) is not int:
            raise _label_error(path, f"label {name!r}: {value!r} is not recognised")
        if (target == 0) != (value == 0) or (value in values and value != 0):
            raise _label_error(path, f"label {name!r} cannot have the value {value}")
        values[value] = target
    if set(values.values()) != {0, OEDEMA, NON_ENHANCING, ENHANCING}:
        raise _label_error(path, f"labels {labels} lack one of the three")
    return values


def _label_of(name: str) -> int | None:
    """Return the label of the convention that a name stands for, None if it is none or could be several."""
    plain = re.sub(r"[\s_-]+", " ", name.lower()).strip()
    if plain == "background":
        return 0
    matches = [label for label, pattern in LABEL_PATTERNS.items() if pattern.search(plain)]
    return matches[0] if len(matches) == 1 else None


def _values_of_regions(path: Path, labels: dict[str, Any]) -> dict[int, int]:
    """Return file value -> convention value from nested regions, as nnU-Net's BraTS conversion writes them.

    Oedema is what the whole tumour has and the core has not, non-enhancing what the core has beyond the enhancing
    tumour. For nnU-Net's own conversion (1 oedema, 2 necrotic, 3 enhancing) this is the identity.
    """
    regions: dict[str, set[int]] = {}
    for name, value in labels.items():
        plain = re.sub(r"[\s_-]+", " ", name.lower()).strip()
        region = next((region for region, known in REGION_NAMES.items() if plain in known), None)
        members = value if isinstance(value, list) else [value]
        if plain == "background" and members == [0]:
            continue
        if region is None or not all(type(member) is int and member > 0 for member in members):
            raise _label_error(path, f"region {name!r}: {value!r} is not recognised")
        regions[region] = set(members)
    if set(regions) != set(REGION_NAMES) or not regions["ET"] < regions["TC"] < regions["WT"]:
        raise _label_error(path, f"regions {labels} are not the whole tumour, its core and the enhancing tumour")
    values = {0: 0}
    values.update(dict.fromkeys(sorted(regions["WT"] - regions["TC"]), OEDEMA))
    values.update(dict.fromkeys(sorted(regions["TC"] - regions["ET"]), NON_ENHANCING))
    values.update(dict.fromkeys(sorted(regions["ET"]), ENHANCING))
    return values


def _label_error(path: Path, what: str) -> CaseError:
    return CaseError(
        f"{path}: {what}; write 'labels' with the values of the label files, MSD:"
        ' {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumor"}, nnU-Net:'
        ' {"background": 0, "edema": 1, "non-enhancing tumor": 2, "enhancing tumor": 3}, or as regions:'
        ' {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": [3]}'
    )


def _scan_msd(raw_dir: Path, meta: dict[str, Any], order: tuple[int, ...], values: dict[int, int]) -> RawFolder:
    """Scan a folder in the layout of MSD Task01; the images of 'test' are no cases and are left out."""
    candidates = []
    problems: list[Problem] = []
    for number, entry in enumerate(meta["training"]):
        try:
            candidates.append(_msd_candidate(raw_dir, entry))
        except CaseProblems as error:
            problems += error.problems
        except (TypeError, KeyError):
            what = f"entry {number} of 'training' is {entry!r}"
            remedy = 'write {"image": "./imagesTr/CASE.nii.gz", "label": "./labelsTr/CASE.nii.gz"}'
            problems.append(Problem(None, raw_dir / "dataset.json", what, remedy))
    listed = {path for candidate in candidates for path in candidate.expected.values()}
    for file in _split_files(raw_dir, problems):
        if file not in listed:
            remedy = "add it to 'training' in dataset.json or remove the file"
            problems.append(Problem(_stem(file), file, "present but not listed", remedy))
    return _raw_folder(raw_dir, Layout.MSD, candidates, problems, channel_order=order, label_values=values)


def _msd_candidate(raw_dir: Path, entry: Any) -> _Candidate:
    """Return the case that an entry of 'training' names.

    Raises:
        CaseProblems: A path is not that of a NIfTI file below the folder.
        TypeError: The entry is not an object.
        KeyError: The entry lacks its image or label.
    """
    named = {"image": str(entry["image"]), _LABEL: str(entry["label"])}
    case_id = _stem(Path(named["image"]))
    files = {}
    for role, name in named.items():
        # by name only: a link inside the folder was made by its owner and may lead anywhere, an entry may not
        relative = Path(os.path.normpath(name))
        if relative.is_absolute() or relative.drive or relative.parts[:1] == ("..",):
            remedy = "write a path relative to dataset.json and inside its folder"
            raise CaseProblems([Problem(case_id, Path(name), f"{role} lies outside the raw folder", remedy)])
        files[role] = raw_dir / relative
        if case_id is None or _stem(relative) is None:
            remedy = "write a name that ends in .nii or .nii.gz"
            raise CaseProblems([Problem(case_id, files[role], f"{role} is not a NIfTI file", remedy)])
    return _Candidate(str(case_id), files, {role: [file] for role, file in files.items()})


def _split_files(raw_dir: Path, problems: list[Problem]) -> list[Path]:
    """List the NIfTI files in imagesTr and labelsTr; what else lies there is added to `problems` as a warning."""
    folders = [raw_dir / name for name in ("imagesTr", "labelsTr") if (raw_dir / name).is_dir()]
    files = []
    for folder in folders:
        inside, subfolders = _list(folder)
        files += [file for file in inside if _stem(file)]
        for other in [file for file in inside if not _stem(file)] + subfolders:
            problems.append(Problem(None, other, "not a NIfTI file, left out", "move it elsewhere", "warning"))
    return files


def _scan_nnunet(raw_dir: Path, meta: dict[str, Any], order: tuple[int, ...], values: dict[int, int]) -> RawFolder:
    """Scan a raw folder of nnU-Net v2: one file for each channel, numbered as in 'channel_names'."""
    ending = meta.get("file_ending", ".nii.gz")
    if ending not in (".nii", ".nii.gz"):
        raise CaseError(f"{raw_dir / 'dataset.json'}: file_ending {ending!r} is not read; convert to .nii.gz")
    roles = {f"{order[index]:04d}": channel for index, channel in enumerate(CHANNELS)}
    problems: list[Problem] = []
    found: dict[str, dict[str, list[Path]]] = {}
    for file in _split_files(raw_dir, problems):
        stem = str(_stem(file))
        numbered = _NUMBERED.fullmatch(stem)
        if file.parent.name == "labelsTr":
            found.setdefault(stem, {}).setdefault(_LABEL, []).append(file)
        elif numbered is None:
            remedy = "name it CASE_0000 to CASE_0003 by its channel"
            problems.append(Problem(stem, file, "image without a channel number", remedy))
        elif numbered["channel"] not in roles:
            remedy = "remove it: dataset.json names the channels 0000 to 0003"
            problems.append(Problem(numbered["case"], file, "file of an extra channel", remedy))
        else:
            case = found.setdefault(numbered["case"], {})
            case.setdefault(roles[numbered["channel"]], []).append(file)
    candidates = []
    for case_id, files in found.items():
        channel_files = {channel: f"imagesTr/{case_id}_{number}{ending}" for number, channel in roles.items()}
        names = {**channel_files, _LABEL: f"labelsTr/{case_id}{ending}"}
        expected = {role: raw_dir / name for role, name in names.items()}
        candidates.append(_Candidate(case_id, expected, files))
    return _raw_folder(raw_dir, Layout.NNUNET, candidates, problems, label_values=values)


# --------------------------------------------------------------------------------------- BraTS folders


@dataclass(frozen=True)
class _BratsNames:
    """How a generation of BraTS names and labels its files.

    Attributes:
        layout: The generation.
        separator: What stands between case and suffix.
        suffixes: Those of the channels in the order of `CHANNELS`, then that of the label.
        label_values: Value in its label files -> value of the convention.
    """

    layout: Layout
    separator: str
    suffixes: tuple[str, str, str, str, str]
    label_values: Mapping[int, int]

    def split(self, path: Path) -> tuple[str, str] | None:
        """Return (case, suffix) of a file name, None if it is not of this generation."""
        case, _, suffix = (_stem(path) or "").rpartition(self.separator)
        return (case, suffix.lower()) if case and suffix.lower() in self.suffixes else None


_BRATS = (
    _BratsNames(Layout.BRATS_2018, "_", ("flair", "t1", "t1ce", "t2", "seg"), BRATS_2018_LABELS),
    _BratsNames(Layout.BRATS_2023, "-", ("t2f", "t1n", "t1c", "t2w", "seg"), BRATS_2023_LABELS),
)


def _scan_brats(raw_dir: Path) -> RawFolder:
    """Scan folders of BraTS, one for each case, at any depth below the raw folder."""
    folders = list(_walk(raw_dir))
    names = _brats_generation(raw_dir, [file for _, inside, _ in folders for file in inside])
    candidates = []
    problems: list[Problem] = []
    for folder, inside, subfolders in folders:
        images = [file for file in inside if _stem(file)]
        if folder == raw_dir:
            what = "file of a case outside a folder of its own"
            remedy = "move it into a folder named after its case, or give the folder above"
            problems += [Problem(None, file, what, remedy) for file in images]
        # a folder with nothing in it is a case that was not unpacked, so it is reported with all files missing
        elif images or not (inside or subfolders):
            candidates.append(_brats_candidate(folder, images, names, problems))
    return _raw_folder(raw_dir, names.layout, candidates, problems, label_values=names.label_values)


def _brats_generation(raw_dir: Path, files: list[Path]) -> _BratsNames:
    """Return the generation that most files are named by; cases of the other one then lack all their files.

    Raises:
        CaseError: No file is named by either.
    """
    counts = [sum(names.split(file) is not None for file in files) for names in _BRATS]
    if not any(counts):
        raise CaseError(f"{raw_dir}: no known layout; known are: {KNOWN_LAYOUTS}")
    return _BRATS[counts.index(max(counts))]


def _brats_candidate(folder: Path, files: list[Path], names: _BratsNames, problems: list[Problem]) -> _Candidate:
    """Return the case of a folder; files that do not belong to it are added to `problems`."""
    case_id = folder.name
    roles = dict(zip(names.suffixes, (*CHANNELS, _LABEL), strict=True))
    found: dict[str, list[Path]] = {}
    for file in files:
        parts = names.split(file)
        if parts is None:
            what = f"not named as a file of {names.layout.value}, left out"
            problems.append(Problem(case_id, file, what, "rename it or move it elsewhere", "warning"))
        elif parts[0] != case_id:
            remedy = f"move it to a folder {parts[0]}, or rename the file or the folder"
            problems.append(Problem(case_id, file, f"file of another case ({parts[0]})", remedy))
        else:
            found.setdefault(roles[parts[1]], []).append(file)
    ending = ".nii" if files and files[0].suffix == ".nii" else ".nii.gz"
    stems = {role: f"{case_id}{names.separator}{suffix}" for suffix, role in roles.items()}
    expected = {role: folder / f"{stem}{ending}" for role, stem in stems.items()}
    return _Candidate(case_id, expected, found)


# ----------------------------------------------------------------------------------------- read a case


def read_case(files: CaseFiles) -> Case:
    """Read one case into the convention.

    Args:
        files: Where the case is, from `scan_raw_folder`.

    Returns:
        The case, image float32 and label uint8, in the voxel order of its files.

    Raises:
        CaseProblems: A file is unreadable, truncated or of the wrong shape, shapes or affines of its files
            differ, or a label value has no place in the convention. It lists all that was found.
    """
    image, problems = attempt(read_image, files)
    label, label_problems = attempt(read_label, files)
    problems = problems + label_problems
    if image and label:
        problems = problems + mismatches(files.case_id, image, label, files.label)
    if problems or image is None or label is None:
        raise CaseProblems(problems)
    return Case(files.case_id, image.data, label.data, image.affine, image.spacing)


def attempt(read: Callable[[CaseFiles], Volume], files: CaseFiles) -> tuple[Volume | None, list[Problem]]:
    """Return what `read` returns, or None and its problems, so that the rest of the case is still looked at."""
    try:
        return read(files), []
    except CaseProblems as error:
        return None, list(error.problems)


def read_image(files: CaseFiles) -> Volume:
    """Read the channels of a case, data float32 of shape (4, X, Y, Z) in the order of `CHANNELS`.

    Raises:
        CaseProblems: A file is unreadable or its number of channels is wrong, or channels differ in geometry.
    """
    if len(files.images) == 1:
        volume = _read_volume(files.case_id, files.images[0], channels=len(CHANNELS))
        data = volume.data[list(files.channel_order)]
        return Volume(data, volume.affine, volume.spacing)
    return _stack_channels(files)


def _stack_channels(files: CaseFiles) -> Volume:
    """Read a file for each channel; the geometry is that of the first."""
    volumes = []
    problems: list[Problem] = []
    for path in files.images:
        try:
            volumes.append((path, _read_volume(files.case_id, path, channels=1)))
        except CaseProblems as error:
            problems += error.problems
    for path, volume in volumes[1:]:
        problems += mismatches(files.case_id, volumes[0][1], volume, path)
    if problems:
        raise CaseProblems(problems)
    first = volumes[0][1]
    return Volume(np.concatenate([volume.data for _, volume in volumes]), first.affine, first.spacing)


def read_label(files: CaseFiles) -> Volume:
    """Read the label of a case, data uint8 of shape (X, Y, Z) with the values of the convention.

    Raises:
        CaseProblems: The file is unreadable, no volume, or holds values that `files.label_values` does not know.
    """
    volume = _read_volume(files.case_id, files.label, channels=1, dtype=None)
    raw = volume.data[0]
    label = np.zeros(raw.shape, np.uint8)
    known = np.zeros(raw.shape, bool)
    for value, target in files.label_values.items():
        here = raw == value
        label[here] = target
        known |= here
    if not known.all():
        what = _unknown_values(raw[~known])
        expected = ", ".join(map(str, files.label_values))
        remedy = f"relabel it to the values of {files.layout.value} ({expected}) or remove the case"
        raise CaseProblems([Problem(files.case_id, files.label, what, remedy)])
    return Volume(label, volume.affine, volume.spacing)


def _unknown_values(unknown: NDArray[Any]) -> str:
    values = np.unique(unknown)
    whole = np.all(np.isfinite(values)) and np.all(values == np.round(values))
    shown = ", ".join(f"{value:g}" for value in values[:5]) + (", ..." if len(values) > 5 else "")
    kind = "label values outside the convention" if whole else "label values that are no whole numbers"
    return f"{kind} ({shown}) in {unknown.size} voxels"


def mismatches(case_id: str, reference: Volume, other: Volume, file: Path) -> list[Problem]:
    """Compare shape and affine of two volumes of one case.

    Args:
        case_id: The case.
        reference: Volume of the first image file.
        other: Volume of another file.
        file: That other file.
    """
    shape, expected = other.data.shape[-3:], reference.data.shape[-3:]
    if shape != expected:
        what = f"shape {shape} differs from {expected} of the first image file"
        return [Problem(case_id, file, what, "resample it onto the image or remove the case")]
    difference = float(np.abs(other.affine - reference.affine).max())
    if difference > GEOMETRY_TOLERANCE_MM:
        what = f"affine differs from that of the first image file by up to {difference:.3g} mm"
        return [Problem(case_id, file, what, "resample it onto the image or correct its header")]
    return []


def _read_volume(case_id: str, path: Path, *, channels: int, dtype: type | None = np.float32) -> Volume:
    """Read a NIfTI file as data of shape (channels, X, Y, Z).

    Args:
        case_id: The case, for the message.
        path: The file.
        channels: 4 for a 4D file; 1 for a 3D file, or a 4D file with one volume.
        dtype: Type to convert the voxels to, None to keep that of the file.

    Raises:
        CaseProblems: The file cannot be read or has another shape, or its geometry is unusable.
    """
    try:
        image = _open_nifti(path)
        problem = _header_problem(image)
        # a value beyond float32 becomes infinite, which is reported as such by the inspection
        with np.errstate(all="ignore"):
            data = np.zeros(0) if problem else np.asanyarray(image.dataobj, dtype=dtype)
    except _UNREADABLE as error:
        what = f"cannot be read, truncated or damaged ({type(error).__name__}: {error})"
        raise CaseProblems([Problem(case_id, path, what, "download or copy it again")]) from error
    if problem:
        raise CaseProblems([Problem(case_id, path, *problem)])
    if data.ndim == 3:
        data = data[..., np.newaxis]
    if data.ndim != 4 or data.shape[3] != channels or 0 in data.shape:
        wanted = "(X, Y, Z)" if channels == 1 else f"(X, Y, Z, {channels})"
        what = f"wrong number of channels: shape {image.shape}, not {wanted}"
        raise CaseProblems([Problem(case_id, path, what, "correct the file or remove the case")])
    data = np.ascontiguousarray(np.moveaxis(data, 3, 0))
    return Volume(data, np.asarray(image.affine, np.float64), _spacing(image))


def _open_nifti(path: Path) -> nib.Nifti1Image:
    """Open a NIfTI-1 or NIfTI-2 file from memory.

    nibabel stops at the last voxel and so never compares the checksum at the end of a compressed file;
    decompressing the whole file does.

    Raises:
        EOFError: The file is shorter than its header says.
        Exception: Another of `_UNREADABLE`.
    """
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    header_size = content[:4]
    is_nifti2 = 540 in (int.from_bytes(header_size, "little"), int.from_bytes(header_size, "big"))
    image = (nib.Nifti2Image if is_nifti2 else nib.Nifti1Image).from_bytes(content)
    promised = math.prod(image.shape) * image.get_data_dtype().itemsize
    # nibabel would first ask for the memory, and a damaged header may promise more than the machine has
    if promised > len(content):
        raise EOFError(f"{promised} bytes of voxels promised, {len(content)} bytes in all")
    return image


def _spacing(image: nib.Nifti1Image) -> tuple[float, float, float]:
    """Return the voxel size in mm along the first three axes; the header holds it as float32."""
    x, y, z = (round(float(size), 6) for size in nib.affines.voxel_sizes(image.affine))
    return x, y, z


def _header_problem(image: nib.Nifti1Image) -> tuple[str, str] | None:
    """Return (what, remedy) if the type of the voxels or the geometry is unusable."""
    dtype = image.get_data_dtype()
    if dtype.kind not in "iuf":
        return f"voxels of type {dtype} are no intensities or labels", "convert it to a numeric type"
    affine = image.affine
    if not np.all(np.isfinite(affine)) or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        return "affine is not finite or not invertible", "correct qform and sform of its header"
    pixdim, spacing = np.asarray(image.header.get_zooms()[:3]), _spacing(image)
    # other programs take the voxel size from pixdim, so a file that contradicts itself is not used
    if pixdim.shape == (3,) and not np.allclose(pixdim, spacing, rtol=0, atol=GEOMETRY_TOLERANCE_MM):
        what = f"voxel size {pixdim.tolist()} of the header contradicts {spacing} of the affine"
        return what, "correct pixdim, qform or sform of its header"
    return None
