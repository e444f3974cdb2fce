"""Distances between the surfaces of truth and segmentation, in mm.

Here belong the definition, the rules for empty masks, and what makes it affordable: SciPy's exact distance
transform on the smallest box that holds both masks.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

PERCENTILE = 95


def hd95_of_regions(
    truth: NDArray[np.uint8],
    predicted: NDArray[np.uint8],
    spacing: Sequence[float],
    regions: Mapping[str, tuple[int, ...]],
) -> dict[str, float]:
    """HD95 of every region and label of one segmentation.

    The surface of a region is its voxels that share a face with a voxel outside it or lie at the edge of the
    volume. From the centre of each surface voxel the distance goes to the nearest centre of the other surface.
    HD95 is the larger of two numbers: the 95th percentile of these distances from the prediction to the truth, and
    that from the truth to the prediction, interpolated linearly between ranks.

    Where truth and prediction are both empty, HD95 is not defined (NaN), like the Dice. Where one is empty, it is
    the diagonal of the whole volume, as bad as the volume allows: NaN would hide the failure, and infinity would
    make every mean infinite. BraTS does the same with the diagonal of its volumes, 373 mm.

    Args:
        truth: Label values, shape (Z, Y, X) or any other order of the axes; where it may hold voxels to ignore,
            both volumes come from `without_ignored`.
        predicted: Label values, the same shape.
        spacing: Voxel size in mm along the axes of the two volumes, in their order.
        regions: Label values of each region, by name.

    Returns:
        HD95 in mm by region, in 0 to the diagonal of the volume, or NaN.

    Raises:
        ValueError: The shapes differ, or there is not one voxel size for each axis.
    """
    if truth.shape != predicted.shape or len(spacing) != truth.ndim:
        raise ValueError(
            f"truth has shape {truth.shape}, prediction {predicted.shape} and spacing {tuple(spacing)}; "
            "the shapes must be the same, with one voxel size for each axis"
        )
    diagonal = float(np.linalg.norm(np.multiply(truth.shape, spacing)))
    box = _foreground_box(truth, predicted)
    truth, predicted = truth[box], predicted[box]
    of_labels: dict[tuple[int, ...], float] = {}
    for labels in set(regions.values()):
        there, found = np.isin(truth, labels), np.isin(predicted, labels)
        if there.any() and found.any():
            of_labels[labels] = _hd95(there, found, spacing)
        else:
            of_labels[labels] = diagonal if there.any() or found.any() else float("nan")
    return {region: of_labels[labels] for region, labels in regions.items()}


def without_ignored(
    truth: NDArray[np.uint8], predicted: NDArray[np.uint8], ignore: int | None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Truth and prediction with background where nobody labelled, so that neither has a surface inside.

    Args:
        truth: Label values, any shape.
        predicted: Label values, the same shape.
        ignore: Value of the voxels to ignore in the truth; None where there are none.
    """
    if ignore is None:
        return truth, predicted
    unknown = truth == ignore
    return np.where(unknown, 0, truth).astype(truth.dtype), np.where(unknown, 0, predicted).astype(predicted.dtype)


def _hd95(there: NDArray[np.bool_], found: NDArray[np.bool_], spacing: Sequence[float]) -> float:
    surface, other = _surface(there), _surface(found)
    ways = (_distances(surface, other, spacing), _distances(other, surface, spacing))
    return float(max(np.percentile(distances, PERCENTILE) for distances in ways))


def _surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Voxels that share a face with one outside or lie at the edge of the volume."""
    return mask & ~ndimage.binary_erosion(mask)


def _distances(
    surface: NDArray[np.bool_], other: NDArray[np.bool_], spacing: Sequence[float]
) -> NDArray[np.float64]:
    """Distance of each voxel of a surface to the nearest one of another surface."""
    return ndimage.distance_transform_edt(~other, sampling=spacing)[surface]


def _foreground_box(truth: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> tuple[slice, ...]:
    """The smallest box that holds all labels of both; all that is outside it is background."""
    labelled = (truth > 0) | (predicted > 0)
    box = []
    for axis in range(labelled.ndim):
        others = tuple(other for other in range(labelled.ndim) if other != axis)
        places = np.flatnonzero(labelled.any(axis=others))
        box.append(slice(places[0], places[-1] + 1) if len(places) else slice(0))
    return tuple(box)
