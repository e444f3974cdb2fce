"""Preprocessed cases: made by nnU-Net's own preprocessor, kept as compressed slices on disk and in memory.

The files need no unpickling: Blosc2 arrays, as nnU-Net keeps them, with JSON and NumPy beside them.
"""

import contextlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from numpy.typing import NDArray

from idal_assets.imaging.case import Case
from idal_assets.nnunet.plans import Plans, to_nnunet


@dataclass(frozen=True)
class CaseSlices:
    """A preprocessed case.

    Attributes:
        case_id: Name of the case.
        image: Normalised intensities, shape (4, Z, Y, X) after nnU-Net's transposition, crop and resampling.
        label: Label in the same space, shape (Z, Y, X); -1 outside the brain.
        foreground: For each label, voxel coordinates (1, 4) + rows of (0, z, y, x) that patches are centred on.
        properties: nnU-Net's record of crop and spacing, to go back to the original geometry.
        truth: Label in the original geometry (transposed as nnU-Net does), shape (Z, Y, X); None for a variant.
    """

    case_id: str
    image: NDArray[np.float32]
    label: NDArray[np.int8]
    foreground: Mapping[int, NDArray[np.int32]]
    properties: Mapping[str, Any]
    truth: NDArray[np.uint8] | None

    def save(self, folder: Path) -> None:
        """Writes the case into an empty folder."""
        _write_array(folder / "image.b2nd", self.image, chunks=(self.image.shape[0], 1, *self.image.shape[2:]))
        _write_array(folder / "label.b2nd", self.label, chunks=(1, *self.label.shape[1:]))
        if self.truth is not None:
            _write_array(folder / "truth.b2nd", self.truth, chunks=(1, *self.truth.shape[1:]))
        foreground = {f"label_{value}": places for value, places in self.foreground.items()}
        # NumPy before 2.2 would store an allow_pickle given here as an array of that name
        np.savez_compressed(folder / "foreground.npz", **foreground)  # type: ignore[arg-type]
        (folder / "properties.json").write_text(json.dumps(dict(self.properties)))

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays in memory."""
        truth = 0 if self.truth is None else self.truth.nbytes
        places = sum(found.nbytes for found in self.foreground.values())
        return self.image.nbytes + self.label.nbytes + places + truth


def preprocess(case: Case, plans: Plans) -> CaseSlices:
    """Runs nnU-Net's preprocessor on a case: transposition, crop, normalisation, resampling.

    Args:
        case: The case.
        plans: The plans to follow; in 2D the distance of slices stays, in 3D it may be resampled.

    Returns:
        The preprocessed case.
    """
    image, label, properties = to_nnunet(case)
    with contextlib.redirect_stdout(io.StringIO()):
        data, seg, properties = DefaultPreprocessor(verbose=False).run_case_npy(
            image, label, properties, plans.manager, plans.configuration, plans.dataset
        )
    places = properties.pop("class_locations")
    return CaseSlices(
        case_id=case.case_id,
        image=data.astype(np.float32, copy=False),
        label=seg[0].astype(np.int8, copy=False),
        foreground={int(value): _places(found) for value, found in places.items()},
        properties=_plain(properties),
        truth=label[0].transpose(plans.manager.transpose_forward).astype(np.uint8),
    )


def truth_spacing(case: CaseSlices, plans: Plans) -> list[float]:
    """Voxel size in mm along the axes of `CaseSlices.truth`, which nnU-Net's transposition may have exchanged."""
    spacing = case.properties["spacing"]
    return [float(spacing[axis]) for axis in plans.manager.transpose_forward]


def foreground_places(label: NDArray[np.int8], labels: list[int]) -> dict[int, NDArray[np.int32]]:
    """Samples the voxels of each label that patches may be centred on, as nnU-Net does.

    Args:
        label: Label of shape (Z, Y, X).
        labels: The label values to sample.

    Returns:
        For each label value, an array of rows (0, z, y, x); empty where the label is absent.
    """
    found = DefaultPreprocessor._sample_foreground_locations(label[None], labels)
    return {int(value): _places(rows) for value, rows in found.items()}


class SlicesOnDisk:
    """Preprocessed cases on disk, of which as many stay in memory as a bound allows.

    Args:
        folders: Folder of each case, by case id.
        memory_gb: Bound on the bytes held in memory, in GB; a case past it is read again each time.
    """

    def __init__(self, folders: Mapping[str, Path], memory_gb: float) -> None:
        self._folders = dict(folders)
        self._held: dict[str, CaseSlices] = {}
        self._free = int(memory_gb * 1e9)

    def __len__(self) -> int:
        return len(self._folders)

    @cached_property
    def names(self) -> list[str]:
        """Case ids in the order given."""
        return list(self._folders)

    def __getitem__(self, case_id: str) -> CaseSlices:
        if case_id in self._held:
            return self._held[case_id]
        case = load_slices(self._folders[case_id], case_id)
        if case.nbytes <= self._free:
            self._free -= case.nbytes
            self._held[case_id] = case
        return case


def load_slices(folder: Path, case_id: str) -> CaseSlices:
    """Reads a preprocessed case that `CaseSlices.save` wrote."""
    with np.load(folder / "foreground.npz", allow_pickle=False) as stored:
        foreground = {int(name.removeprefix("label_")): stored[name] for name in stored.files}
    truth = folder / "truth.b2nd"
    return CaseSlices(
        case_id=case_id,
        image=blosc2.open(str(folder / "image.b2nd"), mode="r")[:],
        label=blosc2.open(str(folder / "label.b2nd"), mode="r")[:],
        foreground=foreground,
        properties=json.loads((folder / "properties.json").read_text()),
        truth=blosc2.open(str(truth), mode="r")[:] if truth.is_file() else None,
    )


def _write_array(path: Path, array: NDArray, chunks: tuple[int, ...]) -> None:
    blosc2.asarray(np.ascontiguousarray(array), urlpath=str(path), chunks=chunks, mode="w")


def _places(found: Any) -> NDArray[np.int32]:
    return np.asarray(found, dtype=np.int32).reshape(-1, 4)


def _plain(value: Any) -> Any:
    """nnU-Net's properties hold tuples and NumPy numbers; JSON does not."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value
