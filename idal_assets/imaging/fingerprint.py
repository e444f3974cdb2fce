"""Images that are nearly alike: one patient under two names.

Equal voxels are found by a hash, which one flip or one rescaled channel escapes. A fingerprint survives that: a
channel in canonical orientation, cropped to what is not background, its intensities replaced by their ranks and
averaged over a small grid. Two are compared by how each cell differs from its neighbours: where they are bright on
the whole, all brains are alike, and in the details only those of one patient.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from scipy.stats import rankdata

CELLS = 10
"""Cells of a fingerprint along each axis."""

FINE = 4
"""Blocks along each axis of a cell. Means of blocks are ranked, which takes less time than to rank all voxels."""

TWINS = 0.85
"""Correlation of fingerprints from which two images are taken for one.

Measured: between any two of 200 hippocampi at most 0.78, of 8 brains 0.46, of 32 phantoms 0.71. A case with itself
mirrored, smoothed, cropped or shifted by a voxel, turned by 3 degrees, stretched by 10 %, or with its intensities
rescaled, raised to a power or multiplied by a ramp: at least 0.88, brains and hippocampi.
"""

MIRRORED: tuple[tuple[int, ...], ...] = tuple(axes for count in range(4) for axes in combinations(range(3), count))
"""All ways to mirror an image, by its axes; the first is not to."""

_DIRECTIONS = ("left to right", "back to front", "bottom to top")


@dataclass(frozen=True)
class Twins:
    """Two cases whose images are nearly alike.

    Attributes:
        cases: Their names, sorted.
        channels: Which of their channels are alike, by number.
        correlation: The lowest correlation of these channels' fingerprints.
        mirrored: Axes of the canonical orientation, 0 to 2, along which one of the two is mirrored.
    """

    cases: tuple[str, str]
    channels: tuple[int, ...]
    correlation: float
    mirrored: tuple[int, ...]

    def alike(self, channels: Sequence[str]) -> str:
        """What is alike, in words.

        Args:
            channels: Names of all channels.
        """
        names = ", ".join(channels[number] for number in self.channels)
        turned = f", mirrored {' and '.join(_DIRECTIONS[axis] for axis in self.mirrored)}" if self.mirrored else ""
        return f"{names} (correlation {self.correlation:.2f}{turned})"


def fingerprint(image: NDArray[np.float32], affine: NDArray[np.float64]) -> tuple[str, ...]:
    """What is left of an image for the comparison with others.

    Args:
        image: Intensities, finite, shape (channels, X, Y, Z).
        affine: Voxel to world transform in mm, shape (4, 4).

    Returns:
        A text for each channel, the base64 of a byte a cell: 0 for background, else 1 to 255 by the mean rank.
    """
    turn = nib.io_orientation(affine)
    cells = [nib.apply_orientation(_cells(channel), turn) for channel in image]
    return tuple(base64.b64encode(np.ascontiguousarray(found).tobytes()).decode() for found in cells)


def find_twins(fingerprints: Mapping[str, Sequence[str]]) -> list[Twins]:
    """Finds the cases whose images are nearly alike.

    Two cases are if at least half of their channels are, all mirrored in the same way; the others may have been
    processed anew. A channel that is constant in either case is alike to none.

    Args:
        fingerprints: Case -> its `fingerprint`, as many channels for each.

    Returns:
        Pairs of cases, sorted by name.
    """
    names = sorted(fingerprints)
    if len(names) < 2:
        return []
    details = np.stack([[_details(_decoded(text)) for text in fingerprints[name]] for name in names], axis=1)
    channels = len(details)
    needed = (channels + 1) // 2
    found: dict[tuple[int, int], Twins] = {}
    for mirrored in MIRRORED:
        others = np.flip(details, tuple(axis + 2 for axis in mirrored))
        alike = np.stack([_products(one, other) for one, other in zip(details, others, strict=True)])
        correlations = np.sort(alike, axis=0)[channels - needed]
        for first, second in np.argwhere(np.triu(correlations >= TWINS, 1)).tolist():
            found.setdefault(
                (first, second), _twins(names[first], names[second], alike[:, first, second], mirrored)
            )
    return [found[pair] for pair in sorted(found)]


def _twins(first: str, second: str, alike: NDArray[Any], mirrored: tuple[int, ...]) -> Twins:
    channels = np.flatnonzero(alike >= TWINS)
    return Twins((first, second), tuple(channels.tolist()), float(alike[channels].min()), mirrored)


def _products(one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
    """Correlation of every case of one with every case of the other, shape (cases, cases)."""
    return one.reshape(len(one), -1) @ other.reshape(len(other), -1).T


def _decoded(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(CELLS, CELLS, CELLS)


def _details(cells: NDArray[np.uint8]) -> NDArray[np.float32]:
    """How each cell differs from its neighbours, background aside, scaled to length 1; zeros if none does."""
    inside = (cells > 0).astype(np.float32)
    sums = uniform_filter(cells.astype(np.float32), 3, mode="constant")
    shares = uniform_filter(inside, 3, mode="constant")
    details = (cells - sums / np.maximum(shares, 1 / 27)) * inside
    length = np.linalg.norm(details)
    return details / length if length > 1 else np.zeros_like(details)


def _cells(channel: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Mean rank of the voxels of each cell, 1 to 255, and 0 where most are background; all 0 if it is constant."""
    cells = np.zeros((CELLS,) * 3, np.uint8)
    if channel.min() == channel.max():
        return cells
    cropped, inside = _without_background(channel)
    shares = _means(inside, CELLS * FINE)
    blocks = _means(cropped * inside, CELLS * FINE)
    tissue = shares >= 0.5
    ranks = np.zeros_like(blocks)
    ranks[tissue] = rankdata(blocks[tissue] / shares[tissue]) / np.count_nonzero(tissue)
    shares = _means(tissue.astype(np.float32), CELLS)
    ranks = _means(ranks, CELLS)
    filled = shares >= 0.5
    cells[filled] = 1 + np.round(254 * ranks[filled] / shares[filled])
    return cells


def _without_background(channel: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The box around what is not background, and 1 where it is not; background is what all eight corners are."""
    corners = channel[np.ix_(*[(0, -1)] * 3)]
    if np.ptp(corners):
        return channel, np.ones_like(channel)
    inside = channel != corners.flat[0]
    plane = inside.any(axis=2)
    along = (plane.any(axis=1), plane.any(axis=0), inside.any(axis=0).any(axis=0))
    box = tuple(slice(places[0], places[-1] + 1) for places in map(np.flatnonzero, along))
    return channel[box], inside[box].astype(np.float32)


def _means(volume: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Means over as many equal parts along each axis; a voxel that parts share counts for each by its share."""
    for _ in range(3):
        pooled = _parts(len(volume), count) @ volume.reshape(len(volume), -1)
        # the axis that is done goes last, so that after three rounds all are where they were
        volume = np.moveaxis(pooled.reshape(count, *volume.shape[1:]), 0, 2)
    return volume


@lru_cache(maxsize=256)
def _parts(size: int, count: int) -> NDArray[np.float32]:
    """What each voxel of an axis contributes to the mean of each part, shape (count, size)."""
    ends = np.linspace(0, size, count + 1)
    voxels = np.arange(size)
    overlap = np.minimum(ends[1:, None], voxels + 1) - np.maximum(ends[:-1, None], voxels)
    return (np.clip(overlap, 0, None) * count / size).astype(np.float32)
