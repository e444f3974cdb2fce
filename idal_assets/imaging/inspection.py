"""Verification of a whole raw data folder: every case looked at, all that is wrong in one report.

What is known of a case is kept as `CaseFacts`, so that a later look at the same files costs no more than reading
their sizes and times. How files are found and read is the business of `readers`.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from idal_assets.anatomy import Anatomy
from idal_assets.imaging.brats_labels import doubt
from idal_assets.imaging.case import CaseError
from idal_assets.imaging.case_table import CaseTable, read_case_table
from idal_assets.imaging.comparison import compare
from idal_assets.imaging.content import enhancement, image_problems, label_problems
from idal_assets.imaging.fingerprint import Twins, find_twins, fingerprint
from idal_assets.imaging.listing import visible_files
from idal_assets.imaging.nifti import Volume
from idal_assets.imaging.problems import CaseProblems, Problem, by_kind
from idal_assets.imaging.raw_folder import CaseFiles, Layout, RawFolder
from idal_assets.imaging.readers import (
    OTHER_CONVENTION,
    attempt,
    geometry_problems,
    read_image,
    read_label,
    scan_raw_folder,
)
from idal_assets.progress import Track, silently

VERIFICATION = 2
"""Raised when more is verified, so that facts from before do not hold any longer."""

NAMED = 10
"""Up to as many cases are named where a kind of warning is counted."""

AFFINE_DECIMALS = 3
"""Decimals of an affine, in mm, that count for the content of a case; more depend on how it was written."""


class CaseFacts(BaseModel):
    """What is known of one verified case.

    Attributes:
        case_id: Name of the case.
        layout: Layout of its folder.
        files: Its files relative to the raw folder, images first, label (if it has one) last.
        signature: Hash of the files' names, sizes and times and of how they are mapped to the anatomy; as long
            as it stays the same, the other facts hold.
        content_hash: SHA-256 of voxels, shape and affine as read, the same in every layout and compression.
        image_hash: SHA-256 of voxels and shape of the image alone.
        fingerprint: What an image that is nearly the same has alike, see `fingerprint`; one text a channel.
        shape: Voxels along X, Y and Z.
        spacing: Voxel size in mm along X, Y and Z.
        affine: Voxel to world transform in mm, 4 rows of 4.
        orientation: World directions that X, Y and Z point to, such as "RAS".
        label_voxels: Number of voxels of each label of the anatomy by its value, keys "1", "2", ...; empty where
            the case has no label.
        enhancement: How much more the enhancing tumour takes up contrast than the rest, see `content.enhancement`.
        zero_share: Share of the voxels in which all channels are 0, as outside a brain that was cut out.
        warnings: What is odd about the case without being an error.
    """

    model_config = ConfigDict(frozen=True)

    case_id: str
    layout: str
    files: tuple[str, ...]
    signature: str
    content_hash: str
    image_hash: str
    fingerprint: tuple[str, ...]
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    affine: tuple[tuple[float, float, float, float], ...]
    orientation: str
    label_voxels: dict[str, int]
    zero_share: float
    enhancement: float | None
    warnings: tuple[Problem, ...] = ()

    @property
    def of_image(self) -> "CaseFacts":
        """Only what the image tells; an edited label changes none of it."""
        without: dict[str, object] = {"signature": "", "files": (), "warnings": ()}
        without |= {"content_hash": self.image_hash, "label_voxels": {}, "enhancement": None}
        return self.model_copy(update=without)


@dataclass(frozen=True)
class FolderReport:
    """The result of looking at a whole raw data folder.

    Attributes:
        raw_dir: The folder.
        layout: Its layout.
        anatomy: Its channels and labels, as the folder describes them.
        facts: Case id -> facts of each case that can be used, sorted by case id.
        problems: Everything that was found, errors and warnings.
        table: What the folder's `cases.csv` says.
        twins: Cases that can be used whose images are nearly alike, in pairs.
        channel_order: As of `RawFolder`.
    """

    raw_dir: Path
    layout: Layout
    anatomy: Anatomy
    facts: Mapping[str, CaseFacts]
    problems: tuple[Problem, ...]
    table: CaseTable
    twins: tuple[Twins, ...] = ()
    channel_order: tuple[int, ...] = ()

    @property
    def refused(self) -> dict[str, list[Problem]]:
        """Case id -> its errors, for each case that cannot be used, sorted by case id."""
        errors = [problem for problem in self.problems if problem.severity == "error"]
        ids = sorted({problem.case_id for problem in errors if problem.case_id is not None})
        return {case_id: [problem for problem in errors if problem.case_id == case_id] for case_id in ids}

    @property
    def has_errors(self) -> bool:
        """Whether the folder or any of its cases is refused."""
        return any(problem.severity == "error" for problem in self.problems)

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """What is odd about the folder and about the cases that can be used, by case id, the folder first."""
        of_names = [problem for problem in self.problems if problem.severity == "warning"]
        of_content = [warning for facts in self.facts.values() for warning in facts.warnings]
        usable = [
            warning
            for warning in (*of_names, *of_content)
            if warning.case_id is None or warning.case_id in self.facts
        ]
        return tuple(sorted(usable, key=lambda warning: warning.case_id or ""))

    def lines(self) -> list[str]:
        """Return the report as text: what concerns the folder first, then a line for each case."""
        lines = [f"{problem.severity.upper()} {problem}" for problem in self.problems if problem.case_id is None]
        refused = self.refused
        warnings: dict[str | None, list[Problem]] = defaultdict(list)
        for warning in self.warnings:
            warnings[warning.case_id].append(warning)
        for case_id in sorted({*self.facts, *refused}):
            if case_id in refused:
                lines.append(f"{case_id}  REFUSED: {' | '.join(one.sentence for one in refused[case_id])}")
            else:
                lines.append(self._ok_line(self.facts[case_id], warnings.get(case_id, [])))
        return lines

    def summary(self) -> list[str]:
        """Return in words: kinds of warnings with their cases, how many cases there are, and what they hold."""
        kinds = [f"  {_counted(kind, alike)}" for kind, alike in by_kind(self.warnings).items()]
        counts = f"{len(self.facts)} cases can be used, {len(self.refused)} are refused."
        # a misspelt name makes a dataset of its own out of a known one, which should be seen
        channels, labels = ", ".join(self.anatomy.channels), ", ".join(self.anatomy.labels.values())
        return [
            *(["Warnings:", *kinds] if kinds else []),
            f"{self.layout.value}: {counts}",
            f"Channels: {channels}. Labels: {labels}.",
        ]

    def as_json(self) -> dict[str, Any]:
        """Return the report for a script: all that is said of a problem, and the facts of each case."""
        shown = ("shape", "spacing", "orientation", "label_voxels")
        return {
            "raw_folder": str(self.raw_dir),
            "layout": self.layout.value,
            "channels": list(self.anatomy.channels),
            "labels": {str(value): name for value, name in self.anatomy.labels.items()},
            "cases": {
                case_id: facts.model_dump(mode="json", include=set(shown)) for case_id, facts in self.facts.items()
            },
            "refused": sorted(self.refused),
            "errors": _as_json(problem for problem in self.problems if problem.severity == "error"),
            "warnings": _as_json(self.warnings),
        }

    def _ok_line(self, facts: CaseFacts, warnings: Iterable[Problem]) -> str:
        shape = " x ".join(map(str, facts.shape))
        spacing = " x ".join(f"{size:g}" for size in facts.spacing)
        notes = "".join(f"; warning: {warning.sentence}" for warning in warnings)
        return f"{facts.case_id}  ok ({shape} voxels, {spacing} mm, {facts.orientation}){notes}"


def _counted(kind: str, alike: Iterable[Problem]) -> str:
    """Return one kind of warning in words, with the cases that have it."""
    cases = list(dict.fromkeys(warning.case_id for warning in alike if warning.case_id is not None))
    if not cases:
        return f"{kind}: the folder"
    shown = ", ".join(cases[:NAMED]) + (f" and {len(cases) - NAMED} more" if len(cases) > NAMED else "")
    return f"{kind}: {len(cases)} {'case' if len(cases) == 1 else 'cases'} ({shown})"


def _as_json(problems: Iterable[Problem]) -> list[dict[str, Any]]:
    """Return kinds with their cases and all that is said of each."""
    return [
        {
            "kind": kind,
            "cases": list(dict.fromkeys(problem.case_id for problem in alike if problem.case_id is not None)),
            "problems": [
                {
                    "case": problem.case_id,
                    "file": None if problem.file is None else str(problem.file),
                    "what": problem.what,
                    "remedy": problem.remedy,
                }
                for problem in alike
            ],
        }
        for kind, alike in by_kind(problems).items()
    ]


@dataclass(frozen=True)
class FolderLook:
    """What a cheap look at a folder tells.

    Attributes:
        signature: As of `folder_signature`.
        written: File relative to the folder -> when it was last written, in seconds since 1970.
    """

    signature: str
    written: Mapping[str, float]

    def still_being_written(self, now: float, settle_seconds: float) -> list[str]:
        """Return the files that changed so lately that more may come; a time in the future says nothing."""
        return [file for file, time in self.written.items() if 0 <= now - time < settle_seconds]


def look(raw_dir: Path, without: Path | None = None) -> FolderLook:
    """Look at names, sizes and times of the files of a folder; hidden files aside.

    Args:
        raw_dir: The folder.
        without: A folder below it that is not looked at.

    Raises:
        CaseError: The folder cannot be listed, or there is nothing in it, as where its disk is not mounted.
    """
    raw_dir = Path(raw_dir)
    files = _files_outside(raw_dir, without)
    if not files:
        raise CaseError(f"{raw_dir}: there is no file in it; mount its disk or put the cases back")
    written = {file.relative_to(raw_dir).as_posix(): _size_and_time(file)[1] / 1e9 for file in files}
    return FolderLook(_signature(files, raw_dir), written)


def folder_signature(raw_dir: Path, without: Path | None = None) -> str:
    """Return a cheap hash of a folder, of the relative names, sizes and times of its files; hidden files aside.

    Args:
        raw_dir: The folder.
        without: A folder below it that is not looked at.

    Raises:
        CaseError: The folder or one below it cannot be listed.
    """
    return _signature(_files_outside(Path(raw_dir), without), Path(raw_dir))


def _files_outside(raw_dir: Path, without: Path | None) -> list[Path]:
    """List the files of a folder but those in one below it; a folder that is not below it leaves nothing out."""
    files = visible_files(raw_dir)
    if without is None or raw_dir not in without.parents:
        return files
    return [file for file in files if without not in file.parents]


def inspect_folder(
    raw_dir: Path,
    known: Mapping[str, CaseFacts] | None = None,
    track: Track = silently,
) -> FolderReport:
    """Verify all cases of a raw data folder.

    Args:
        raw_dir: Folder in one of the layouts of `raw_folder.Layout`.
        known: Case id -> facts from an earlier look; they are taken over where the signature of the case is still
            the same, and no voxel of that case is read.
        track: Iterates over the cases and shows how far it got.

    Returns:
        The report; bad cases are in it, they raise nothing.

    Raises:
        CaseError: The folder as a whole cannot be used, see `scan_raw_folder`.
    """
    raw_dir = Path(raw_dir)
    folder = scan_raw_folder(raw_dir)
    facts, problems = inspect_cases(folder, known or {}, track)
    problems = [*folder.problems, *problems]
    other = {problem.case_id for problem in problems if problem.kind == OTHER_CONVENTION and problem.case_id}
    if other:
        problems.append(doubt(raw_dir, other, len(folder.cases)))
    among = [*_same_image_problems(facts, raw_dir), *compare(facts, raw_dir)]
    refused = {problem.case_id for problem in among if problem.severity == "error"}
    usable = {case_id: fact for case_id, fact in facts.items() if case_id not in refused}
    twins = find_twins({case_id: fact.fingerprint for case_id, fact in usable.items()})
    all_cases = {*facts, *(problem.case_id for problem in problems if problem.case_id)}
    table = read_case_table(raw_dir, all_cases)
    problems += [*among, *_twin_warnings(twins, folder.anatomy), *table.problems]
    return FolderReport(
        raw_dir,
        folder.layout,
        folder.anatomy,
        usable,
        tuple(problems),
        table,
        tuple(twins),
        folder.channel_order,
    )


def inspect_cases(
    folder: RawFolder, known: Mapping[str, CaseFacts], track: Track
) -> tuple[dict[str, CaseFacts], list[Problem]]:
    """Verify the content of cases, each by itself.

    Args:
        folder: Where they are.
        known: As of `inspect_folder`.
        track: Iterates over the cases and shows how far it got.

    Returns:
        Facts by id of the cases that can be used, and what is wrong with the others.
    """
    facts: dict[str, CaseFacts] = {}
    problems: list[Problem] = []
    for files in track(folder.cases, "verifying cases"):
        earlier = known.get(files.case_id)
        try:
            if earlier is None or earlier.signature != case_signature(files, folder.path):
                earlier = inspect_case(files, folder.path)
            facts[files.case_id] = earlier
        except CaseProblems as error:
            problems += error.problems
    return facts, problems


def inspect_case(files: CaseFiles, raw_dir: Path) -> CaseFacts:
    """Read one case and verify its content.

    Args:
        files: Where the case is, from `scan_raw_folder`.
        raw_dir: The folder that its files are named relative to.

    Returns:
        The facts, with a warning for each thing that is odd, see `content`.

    Raises:
        CaseProblems: The case cannot be read (see `read_case`), or nothing can be learned from its content, as
            where voxels are NaN or its label is empty. It lists all that was found.
    """
    # before the voxels: if a file changes in between, the facts look outdated and are made anew
    signature = case_signature(files, raw_dir)
    image, problems = attempt(read_image, files)
    label, of_label = attempt(read_label, files)
    problems = problems + of_label
    problems = problems + geometry_problems(files, image, label)
    odd = [*image_problems(files, image), *label_problems(files, image, label)]
    problems = problems + [problem for problem in odd if problem.severity == "error"]
    if problems or image is None:
        raise CaseProblems(problems)
    warnings = [problem for problem in odd if problem.severity == "warning"]
    return _facts(files, raw_dir, signature, image, label, warnings)


def case_signature(files: CaseFiles, raw_dir: Path) -> str:
    """Return a hash of the names, sizes and times of a case's files, and of how they are mapped to the anatomy.

    The mapping comes from dataset.json: if a channel gets another name there, the files stay as they are and still
    hold other content.
    """
    anatomy = files.anatomy
    mapping = [
        *(files.layout.value, files.channel_order, sorted(files.label_values.items())),
        *(anatomy.channels, anatomy.ignore, VERIFICATION),
    ]
    return _signature(_all_files(files), raw_dir, json.dumps(mapping))


def are_there(files: CaseFiles) -> bool:
    """Whether all files of a case are there, changed or not."""
    return all(file.is_file() for file in _all_files(files))


def _all_files(files: CaseFiles) -> list[Path]:
    return [*files.images, *([] if files.label is None else [files.label])]


def _signature(files: Iterable[Path], raw_dir: Path, mapping: str = "") -> str:
    digest = hashlib.sha256(mapping.encode())
    for file in files:
        entry = [file.relative_to(raw_dir).as_posix(), *_size_and_time(file)]
        digest.update(json.dumps(entry).encode())
    return digest.hexdigest()


def _size_and_time(file: Path) -> tuple[int, int]:
    """Return size in bytes and time of change in ns; -1 for a link that leads nowhere or a file just removed."""
    try:
        stat = file.stat()
    except OSError:
        return -1, -1
    return stat.st_size, stat.st_mtime_ns


def _facts(
    files: CaseFiles,
    raw_dir: Path,
    signature: str,
    image: Volume,
    label: Volume | None,
    warnings: Iterable[Problem],
) -> CaseFacts:
    """Collect what is worth knowing of a case that nothing is wrong with."""
    x, y, z = image.data.shape[1:]
    voxels = [label.data] if label else []
    image_hash = _hash(image.data.astype("<f4", copy=False))
    # + 0.0 turns the -0.0 that rounding leaves into 0.0
    affine = np.round(image.affine, AFFINE_DECIMALS) + 0.0
    return CaseFacts(
        case_id=files.case_id,
        layout=files.layout.value,
        files=tuple(file.relative_to(raw_dir).as_posix() for file in _all_files(files)),
        signature=signature,
        content_hash=_hash(*voxels, affine.astype("<f8", copy=False), prefix=image_hash),
        image_hash=image_hash,
        fingerprint=fingerprint(image.data, image.affine),
        shape=(x, y, z),
        spacing=image.spacing,
        affine=tuple(map(tuple, image.affine.tolist())),
        orientation="".join(nib.aff2axcodes(image.affine)),
        label_voxels={str(value): int((data == value).sum()) for data in voxels for value in files.anatomy.labels},
        zero_share=float((~image.data.any(axis=0)).mean()),
        enhancement=enhancement(files, image, label),
        warnings=tuple(warnings),
    )


def _hash(*arrays: NDArray[np.generic], prefix: str = "") -> str:
    """Return the SHA-256 of a prefix and of the shapes and contents of arrays, in their order of axes."""
    digest = hashlib.sha256(prefix.encode())
    for array in arrays:
        digest.update(str(array.shape).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _same_image_problems(facts: Mapping[str, CaseFacts], raw_dir: Path) -> list[Problem]:
    """Report cases with identical images: in training and in test they would make every score too good."""
    by_image = defaultdict(list)
    for case_id in sorted(facts):
        by_image[facts[case_id].image_hash].append(case_id)
    problems = []
    for same in by_image.values():
        for case_id in same if len(same) > 1 else []:
            others = ", ".join(other for other in same if other != case_id)
            what = f"image is identical to that of {others}"
            problems.append(Problem(case_id, raw_dir / facts[case_id].files[0], what, "keep one of them"))
    return problems


def _twin_warnings(twins: Iterable[Twins], anatomy: Anatomy) -> list[Problem]:
    """Report cases with nearly the same image; whether that does harm depends on their roles."""
    remedy = "keep one of them, or see that both have the same patient (column patient of cases.csv)"
    warnings = []
    for pair in twins:
        for case_id, other in (pair.cases, pair.cases[::-1]):
            what = f"image is nearly that of {other}: {pair.alike(anatomy.channels)}"
            warnings.append(Problem(case_id, None, what, remedy, "warning", "nearly the same image"))
    return warnings
