"""Patients, cases that nobody labelled: found by the names of their files, whatever the layout.

Their channels are those of the study that they are for. Which file or volume is which channel is told by a name:
by that of the file, as in BraTS, or by a dataset.json. Where neither does, the numbers mean what they mean in the
study's own files, as nnU-Net's predictor takes them. Labels are never read.
"""

import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idal_assets.anatomy import Anatomy
from idal_assets.imaging.brain_tumour import CHANNELS
from idal_assets.imaging.brain_tumour_names import channel_of
from idal_assets.imaging.brats_layouts import BratsNames, generation_of, without_image
from idal_assets.imaging.case import CaseError
from idal_assets.imaging.dataset_layouts import NUMBERED, read_description, sort_numbered
from idal_assets.imaging.dataset_names import read_channel_names
from idal_assets.imaging.listing import list_folder, list_folders, nifti_files, nifti_stem
from idal_assets.imaging.problems import Problem
from idal_assets.imaging.raw_folder import FoundCase, Layout, Meaning, RawFolder, check_cases

DESCRIPTION = "dataset.json"
IMAGES = re.compile(r"images(?P<part>T[rs])")
"""Folders of images in a dataset of MSD or nnU-Net."""

LABELS = re.compile(r"labelsT[rs]")
"""Folders of labels in such a dataset."""

LABEL = re.compile(r"((?P<case>.*)[^a-z0-9])?(seg(mentation|m)?|labels?|mask|gt|truth)", re.IGNORECASE)
"""Name of a file that holds a label, and what stands before that word."""

BESIDE = (".json", ".csv", ".txt", ".md")
"""Files that lie beside images and are none; of any other that is no NIfTI file it is said that it is left out."""

UNUSED_LABEL = "label of a patient, not used"
"""Kind of the problem that a label lies where patients do."""

IMAGE = "image"
"""Role of the one file of a case."""


@dataclass(frozen=True)
class _FileSet:
    """Images of one folder.

    Attributes:
        folder: The folder.
        images: Path as it is named -> the file, see `listing.nifti_files`.
        description: The dataset.json that names its channels; None where there is none.
        channels: The names, by number.
    """

    folder: Path
    images: Mapping[Path, Path]
    description: Path | None
    channels: tuple[str, ...]


@dataclass(frozen=True)
class _Study:
    """What the study knows of its channels, see `find_patients`."""

    anatomy: Anatomy
    names: Sequence[str]
    order: Sequence[int]

    def places(self, names: Sequence[str]) -> tuple[int, ...] | None:
        """Return which of the channels so named is each of the anatomy; None unless they are the same channels."""
        spellings: tuple[Callable[[str], str], ...] = (str.strip, _plain, _known)
        for own in (self.anatomy.channels, self.names):
            for spelt in spellings:
                found = {spelt(name): number for number, name in enumerate(names)}
                wanted = [spelt(name) for name in own]
                if len(found) == len(names) and len({*wanted}) == len(wanted) and found.keys() == {*wanted}:
                    return tuple(found[name] for name in wanted)
        return None

    def unnamed(self) -> tuple[int, ...] | None:
        """Return the same of channels that nothing names; None where the study's own files have no numbers."""
        return tuple(self.order) or ((0,) if len(self.anatomy.channels) == 1 else None)


def _plain(name: str) -> str:
    return name.strip().lower()


def _known(name: str) -> str:
    return channel_of(name) or _plain(name)


def find_patients(
    paths: Sequence[Path], anatomy: Anatomy, names: Sequence[str] = (), order: Sequence[int] = ()
) -> RawFolder:
    """List patients by the names of their files; no voxel is read.

    Args:
        paths: Folders in any known layout: a dataset (its imagesTs, or imagesTr where there is no label at all), a
            folder of images, BraTS case folders or one of them; or single files. A path that is given twice counts
            once.
        anatomy: Channels of the study; its labels are left aside.
        names: What the study's raw folder calls its channels, in the order of the anatomy.
        order: Which channel of the study's files, by number, is each of the anatomy; empty where they are named.

    Returns:
        The patients, relative to the folder that holds all paths, and all that is wrong.

    Raises:
        CaseError: A path is not there or cannot be listed, or a dataset.json cannot be read.
    """
    study = _Study(anatomy, names, order)
    root = _common_folder(paths)
    problems: list[Problem] = []
    found: dict[tuple[Layout, tuple[int, ...]], list[FoundCase]] = defaultdict(list)
    for files in _file_sets(dict.fromkeys(Path(path).absolute() for path in paths), problems):
        _sort(files, study, found, problems)
    problems += _repeated(found, root)
    parts = [
        check_cases(root, layout, Meaning(anatomy, places, {}), candidates, [])
        for (layout, places), candidates in found.items()
        if candidates
    ]
    problems += [problem for part in parts for problem in part.problems]
    if not parts and not problems:
        remedy = "put images of patients there (.nii or .nii.gz), or give another folder"
        problems.append(Problem(None, root, "folder without a patient", remedy))
    refused = {problem.case_id for problem in problems if problem.severity == "error"}
    cases = (case for part in parts for case in part.cases if case.case_id not in refused)
    by_id = tuple(sorted(cases, key=lambda case: case.case_id))
    layout = parts[0].layout if parts else Layout.NNUNET
    return RawFolder(root, layout, anatomy, by_id, tuple(dict.fromkeys(problems)))


def _common_folder(paths: Iterable[Path]) -> Path:
    folders = [path if path.is_dir() else path.parent for path in (Path(path).absolute() for path in paths)]
    return Path(os.path.commonpath(folders))


# --- which files there are ---


def _file_sets(paths: Iterable[Path], problems: list[Problem]) -> Iterator[_FileSet]:
    single: dict[Path, list[Path]] = defaultdict(list)
    for path in paths:
        if path.is_dir() and nifti_stem(path) is None:
            yield from _of_folder(path, problems)
        elif path.exists():
            single[path.parent].append(path)
        else:
            raise CaseError(f"{path}: no such file or folder; give the images of a patient")
    for folder, files in single.items():
        wrong = [file for file in files if nifti_stem(file) is None]
        problems += [_left_out(file) for file in wrong]
        files = [file for file in files if file not in wrong]
        images = nifti_files([file for file in files if file.is_file()], [file for file in files if file.is_dir()])
        yield _described(folder, images)


def _of_folder(top: Path, problems: list[Problem]) -> Iterator[_FileSet]:
    folders = [folder for folder in list_folders(top) if not _is_of_training(folder.path, top)]
    names = {folder.path.name for folder in folders if folder.images}
    problems += without_image(folders, top, names)
    for folder in folders:
        others = [file for file in folder.others if not file.name.lower().endswith(BESIDE) and not file.is_dir()]
        if folder.images:
            problems += [_left_out(file) for file in others]
            yield _described(folder.path, folder.images)


def _is_of_training(folder: Path, top: Path) -> bool:
    """Whether a folder of a dataset holds labels, or the images that have them; one that was given is taken."""
    if folder == top:
        return False
    return bool(LABELS.fullmatch(folder.name)) or (
        folder.name == "imagesTr" and any((folder.parent / name).is_dir() for name in ("imagesTs", "labelsTr"))
    )


def _described(folder: Path, images: Mapping[Path, Path]) -> _FileSet:
    """Return the images with the names of their channels, as the dataset.json beside them or their folder says.

    Raises:
        CaseError: It cannot be read, or its names are none.
    """
    places = [folder, folder.parent] if IMAGES.fullmatch(folder.name) else [folder]
    for description in (place / DESCRIPTION for place in places):
        meta = read_description(description) if description.exists() else {}
        for key in ("channel_names", "modality"):
            if isinstance(meta.get(key), dict) and meta[key]:
                return _FileSet(
                    folder, images, description, tuple(read_channel_names(description, key, meta[key]))
                )
    return _FileSet(folder, images, None, ())


def _left_out(file: Path) -> Problem:
    return Problem(
        None, file, "not a NIfTI file, left out", "convert it to .nii.gz, or move it elsewhere", "warning"
    )


# --- which patients they are of ---


def _sort(
    files: _FileSet,
    study: _Study,
    found: dict[tuple[Layout, tuple[int, ...]], list[FoundCase]],
    problems: list[Problem],
) -> None:
    """Add the patients of a folder to `found`, and what is wrong with them to `problems`."""
    labels = {file for file in files.images if _is_label(file)}
    images = {named: file for named, file in files.images.items() if named not in labels}
    brats = _brats_names(images, study)
    known: tuple[str, ...] = files.channels
    if brats is not None:
        layout, known = brats.layout, CHANNELS
        for named in [named for named in images if brats.split(named) is None]:
            del images[named]
            what = f"not named as a file of {layout.value}, left out"
            problems.append(Problem(None, named, what, "rename it or move it elsewhere", "warning"))
        ids = {case for named in images for case, _ in [brats.split(named) or ("", "")]}
    elif any(str(nifti_stem(named)).endswith("_0000") for named in images):
        layout = Layout.NNUNET
        ids = {match["case"] for named in images if (match := NUMBERED.fullmatch(str(nifti_stem(named))))}
        # nnU-Net calls the label of CASE_0000 and CASE_0001 CASE
        own = {named for named in images if nifti_stem(named) in ids}
        labels |= own
        images = {named: file for named, file in images.items() if named not in own}
    else:
        layout = Layout.MSD
        ids = {str(nifti_stem(named)) for named in images}
    problems += _label_warnings(files, labels, ids)
    places = study.places(known) if known else study.unnamed()
    if places is None:
        problems += [_other_channels(case, files, known, study.anatomy) for case in sorted(ids)]
        return
    if ids and not known and len(places) > 1:
        problems.append(_as_in_the_study(files.folder, places, study.anatomy))
    found[layout, places] += _candidates(layout, brats, files.folder, images, places, study.anatomy, problems)


def _is_label(file: Path) -> bool:
    return LABEL.fullmatch(str(nifti_stem(file))) is not None


def _brats_names(images: Iterable[Path], study: _Study) -> BratsNames | None:
    """Return how the files are named by channel; None where they are not.

    A name such as liver_t1 may be that of a patient. Where the study has the channels of BraTS, or there are
    several files of one case, it is that of a channel.
    """
    images = list(images)
    names = generation_of(images)
    if names is None:
        return None
    counts = Counter(parts[0] for named in images if (parts := names.split(named)))
    return names if study.places(CHANNELS) or max(counts.values()) > 1 else None


def _candidates(
    layout: Layout,
    brats: BratsNames | None,
    folder: Path,
    images: Mapping[Path, Path],
    places: Sequence[int],
    anatomy: Anatomy,
    problems: list[Problem],
) -> list[FoundCase]:
    if layout is Layout.MSD:
        return [
            FoundCase(str(nifti_stem(named)), {IMAGE: named}, {IMAGE: [file]}) for named, file in images.items()
        ]
    channels = dict(zip(places, anatomy.channels, strict=True))
    if brats is None:
        roles = {f"{number:04d}": channel for number, channel in channels.items()}
        sorted_files = sort_numbered(images, roles, problems)
        start = {role: f"_{number}" for number, role in roles.items()}
    else:
        suffixes = {suffix: channels[number] for number, suffix in enumerate(brats.suffixes[:-1])}
        sorted_files = _sort_by_suffix(images, brats, suffixes)
        start = {role: f"{brats.separator}{suffix}" for suffix, role in suffixes.items()}
    ending = ".nii" if all(named.suffix == ".nii" for named in images) else ".nii.gz"
    return [
        FoundCase(
            case_id,
            {role: folder / f"{case_id}{start[role]}{ending}" for role in anatomy.channels},
            sorted_files[case_id],
        )
        for case_id in sorted_files
    ]


def _sort_by_suffix(
    images: Mapping[Path, Path], brats: BratsNames, suffixes: Mapping[str, str]
) -> dict[str, dict[str, list[Path]]]:
    found: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for named, file in images.items():
        case_id, suffix = brats.split(named) or ("", "")
        found[case_id][suffixes[suffix]].append(file)
    return found


def _label_warnings(files: _FileSet, labels: Iterable[Path], ids: Iterable[str]) -> Iterator[Problem]:
    """Say of every label that lies beside the images, or in the folder of the labels, that it is not used."""
    ids = {*ids}
    for label in sorted(labels):
        stem = str(nifti_stem(label))
        match = LABEL.fullmatch(stem)
        case = match["case"] if match and match["case"] in ids else stem
        yield _unused(case if case in ids else None, label)
    images = IMAGES.fullmatch(files.folder.name)
    folder = files.folder.parent / f"labels{images['part']}" if images else None
    if folder is not None and folder.is_dir():
        for label in nifti_files(*list_folder(folder)):
            if nifti_stem(label) in ids:
                yield _unused(nifti_stem(label), label)


def _unused(case: str | None, label: Path) -> Problem:
    remedy = (
        "add the case to the study's raw folder if it is to be learned from or judged by, else remove the label"
    )
    return Problem(case, label, "label of a patient; it is not used", remedy, "warning", UNUSED_LABEL)


def _other_channels(case: str, files: _FileSet, known: Sequence[str], anatomy: Anatomy) -> Problem:
    wanted = ", ".join(anatomy.channels)
    file = files.description or files.folder
    if known:
        what = f"channels are {', '.join(known)}, and those of the study {wanted}"
        remedy = "give patients with the channels of the study; where only names differ, correct them"
    else:
        what = f"nothing says which of its files or volumes is which channel ({wanted})"
        remedy = _what_to_write(anatomy)
    return Problem(case, file, what, remedy, kind="other channels")


def _as_in_the_study(folder: Path, places: Sequence[int], anatomy: Anatomy) -> Problem:
    order = ", ".join(anatomy.channels[places.index(number)] for number in range(len(places)))
    what = f"no dataset.json names the channels, which are taken in the order of the study's own files: {order}"
    remedy = f"if they are in another, {_what_to_write(anatomy)}"
    return Problem(None, folder, what, remedy, "warning", "channels in the order of the study")


def _what_to_write(anatomy: Anatomy) -> str:
    names = json.dumps(dict(enumerate(anatomy.channels)))
    return f'write a dataset.json beside them, with the order that the files have: {{"channel_names": {names}}}'


def _repeated(found: Mapping[Any, Sequence[FoundCase]], root: Path) -> Iterator[Problem]:
    """Refuse ids that are there in several layouts; within one `check_cases` does."""
    places = defaultdict(list)
    for candidates in found.values():
        for case_id in {candidate.case_id for candidate in candidates}:
            places[case_id].append(next(one.place for one in candidates if one.case_id == case_id))
    for case_id, files in places.items():
        if len(files) > 1:
            what = f"case id is there {len(files)} times ({', '.join(map(str, files))})"
            yield Problem(case_id, files[1], what, "keep one of them or rename")
