"""Preprocessed cases: made by nnU-Net's own preprocessor, kept as compressed slices on disk and in memory.

The files need no unpickling: Blosc2 arrays, as nnU-Net keeps them, with JSON and NumPy beside them.
"""

import contextlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from numpy.typing import NDArray

from idal_assets.imaging.case import Case, CaseError
from idal_assets.nnunet.geometry import to_nnunet
from idal_assets.nnunet.plans import Label, Plans

OUTSIDE = -1
"""nnU-Net's label of voxels where there is no image, as outside the brain."""


@dataclass(frozen=True)
class CaseSlices:
    """A preprocessed case.

    Attributes:
        case_id: Name of the case.
        image: Normalised intensities, shape (channels, Z, Y, X) after nnU-Net's transposition, crop and
            resampling.
        label: Label in the same space, shape (Z, Y, X); -1 where there is no image, as outside the brain. None for
            a case that nobody labelled.
        foreground: What patches are centred on, rows of voxel coordinates (0, z, y, x): for each label value, or
            for each region that networks are trained on; where there are voxels to ignore, also for all others.
        properties: nnU-Net's record of crop and spacing, and the affine of the file, to go back to the original
            geometry.
        truth: Label in the original geometry (transposed as nnU-Net does), shape (Z, Y, X); None for a variant and
            for a case that nobody labelled.
    """

    case_id: str
    image: NDArray[np.float32]
    label: NDArray[np.int8] | None
    foreground: Mapping[Label, NDArray[np.int32]]
    properties: Mapping[str, Any]
    truth: NDArray[np.uint8] | None

    def save(self, folder: Path) -> None:
        """Writes the case into an empty folder."""
        _write_array(folder / "image.b2nd", self.image, chunks=(self.image.shape[0], 1, *self.image.shape[2:]))
        for name in ("label", "truth"):
            array = getattr(self, name)
            if array is not None:
                _write_array(folder / f"{name}.b2nd", array, chunks=(1, *array.shape[1:]))
        foreground = {_written(label): places for label, places in self.foreground.items()}
        # NumPy before 2.2 would store an allow_pickle given here as an array of that name
        np.savez_compressed(folder / "foreground.npz", **foreground)  # type: ignore[arg-type]
        (folder / "properties.json").write_text(json.dumps(dict(self.properties)))

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays in memory."""
        arrays = [self.image, self.label, self.truth, *self.foreground.values()]
        return sum(array.nbytes for array in arrays if array is not None)

    def require_label(self) -> NDArray[np.int8]:
        """The label, where nothing can be done without it.

        Raises:
            CaseError: Nobody labelled the case.
        """
        if self.label is None:
            raise CaseError(
                f"{self.case_id} has no label, so no network can learn from it; leave it out or label it"
            )
        return self.label

    def require_truth(self) -> NDArray[np.uint8]:
        """The label in the original geometry, where nothing can be scored without it.

        Raises:
            CaseError: The case has none.
        """
        if self.truth is None:
            raise CaseError(f"{self.case_id} has no label to score a segmentation by; label it or leave it out")
        return self.truth


def preprocess(case: Case, plans: Plans) -> CaseSlices:
    """Runs nnU-Net's preprocessor on a case: transposition, crop, normalisation, resampling.

    Args:
        case: The case, with or without a label.
        plans: The plans to follow; in 2D the distance of slices stays, in 3D it may be resampled.

    Returns:
        The preprocessed case.
    """
    image, label, properties = to_nnunet(case)
    with contextlib.redirect_stdout(io.StringIO()):
        data, seg, properties = DefaultPreprocessor(verbose=False).run_case_npy(
            image, label, properties, plans.manager, plans.configuration, plans.dataset
        )
    places = properties.pop("class_locations", {})
    # without a label nnU-Net makes one up of its crop mask
    truth = None if label is None else label[0].transpose(plans.manager.transpose_forward).astype(np.uint8)
    return CaseSlices(
        case_id=case.case_id,
        image=data.astype(np.float32, copy=False),
        label=None if label is None else seg[0].astype(np.int8, copy=False),
        foreground={of: _places(found) for of, found in places.items()},
        properties=_plain(properties),
        truth=truth,
    )


def foreground_places(label: NDArray[np.int8], labels: Sequence[Label]) -> dict[Label, NDArray[np.int32]]:
    """Samples the voxels of each label or region that patches may be centred on, as nnU-Net does.

    Args:
        label: Label of shape (Z, Y, X).
        labels: The label values to sample, or the values of regions.

    Returns:
        For each of them, an array of rows (0, z, y, x); empty where it is absent.
    """
    found = DefaultPreprocessor._sample_foreground_locations(label[None], list(labels))
    return {of: _places(rows) for of, rows in found.items()}


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

    def voxels(self) -> int:
        """Voxels of all cases, by what their files say without being read."""
        images = (blosc2.open(str(folder / "image.b2nd"), mode="r") for folder in self._folders.values())
        return sum(math.prod(image.shape[1:]) for image in images)

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
        foreground = {_read(name): stored[name] for name in stored.files}
    label, truth = folder / "label.b2nd", folder / "truth.b2nd"
    return CaseSlices(
        case_id=case_id,
        image=_read_array(folder / "image.b2nd"),
        label=_read_array(label) if label.is_file() else None,
        foreground=foreground,
        properties=json.loads((folder / "properties.json").read_text()),
        truth=_read_array(truth) if truth.is_file() else None,
    )


def _written(label: Label) -> str:
    return f"region_{'_'.join(map(str, label))}" if isinstance(label, tuple) else f"label_{label}"


def _read(name: str) -> Label:
    kind, *values = name.split("_")
    return tuple(map(int, values)) if kind == "region" else int(values[0])


def _read_array(path: Path) -> NDArray:
    return blosc2.open(str(path), mode="r")[:]


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
