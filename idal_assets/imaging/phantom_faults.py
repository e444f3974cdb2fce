"""The faults that can be planted in a phantom case, each a mistake that happens in real cohorts.

A fault changes either the image or the label of one case, badly enough to harm a model trained on it, and
leaves files that still pass as valid: label values 0 to 3, not empty, int16 intensities, zero outside the brain.
Which case gets which fault is decided in `phantom`.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from idal_assets.imaging.brain_tumour import ENHANCING, NON_ENHANCING, OEDEMA

Image = NDArray[np.int16]
Label = NDArray[np.uint8]

SHIFT_SHARE = 0.18
"""Shift of a label as share of the brain's width; some 25 mm in a head, far beyond any disagreement of raters."""

ERASED_SHARE = 0.6
"""Share of the tumour's voxels that goes missing: more than half, so that the rest misleads about the extent."""

NOISE_FACTOR = 4.0
"""Noise in standard deviations of the channel within the brain; a tumour differs from the brain by one to two."""

PERMUTATION = {OEDEMA: NON_ENHANCING, NON_ENHANCING: ENHANCING, ENHANCING: OEDEMA}
"""What each label value becomes, as when a converter assumes another convention."""

SWAPPED_CHANNELS = (1, 0, 3, 2)
"""Order of the channels after the swap: FLAIR and T1w trade places, so do T1gd and T2w."""


def plant(fault: str, image: Image, label: Label, rng: np.random.Generator) -> tuple[Image, Label]:
    """Plant a fault in a case.

    Args:
        fault: One of `FAULTS`.
        image: Intensities, shape (4, X, Y, Z), zero outside the brain.
        label: Label values 0 to 3, shape (X, Y, Z).
        rng: Source of the fault's direction or noise.

    Returns:
        Image and label with the fault, of the same shapes and types; one of the two is unchanged.
    """
    return _PLANTERS[fault](image, label, rng)


def _shift_label(image: Image, label: Label, rng: np.random.Generator) -> tuple[Image, Label]:
    """Move the label within the axial plane towards the middle of the brain, which keeps it on the brain."""
    brain = image.any(axis=0)
    middle = np.array(ndimage.center_of_mass(brain))
    inwards = (middle - np.array(ndimage.center_of_mass(label > 0)))[:2]
    distance = SHIFT_SHARE * np.ptp(np.nonzero(brain)[0])
    offset = np.rint(distance * inwards / np.linalg.norm(inwards))
    return image, ndimage.shift(label, (*offset, 0), order=0)


def _permute_labels(image: Image, label: Label, rng: np.random.Generator) -> tuple[Image, Label]:
    lookup = np.array([0, *(PERMUTATION[value] for value in sorted(PERMUTATION))], dtype=np.uint8)
    return image, lookup[label]


def _swap_channels(image: Image, label: Label, rng: np.random.Generator) -> tuple[Image, Label]:
    return image[list(SWAPPED_CHANNELS)], label


def _erase_part(image: Image, label: Label, rng: np.random.Generator) -> tuple[Image, Label]:
    """Cut the label along a plane at right angles to the slices, in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    x, y, _ = np.nonzero(label)
    position = x * np.cos(angle) + y * np.sin(angle)
    erased = position > np.quantile(position, 1 - ERASED_SHARE)
    remaining = label.copy()
    remaining[tuple(axis[erased] for axis in np.nonzero(label))] = 0
    return image, remaining


def _add_noise(image: Image, label: Label, rng: np.random.Generator) -> tuple[Image, Label]:
    brain = image.any(axis=0)
    sigma = NOISE_FACTOR * image[:, brain].std(axis=1, keepdims=True)
    real, imaginary = sigma * rng.normal(size=(2, *image[:, brain].shape))
    noisy = np.zeros_like(image)
    # a magnitude image has Rician noise; at least 1 keeps the brain apart from the background
    noisy[:, brain] = np.hypot(image[:, brain] + real, imaginary).clip(1, np.iinfo(np.int16).max)
    return noisy, label


_PLANTERS: dict[str, Callable[[Image, Label, np.random.Generator], tuple[Image, Label]]] = {
    "label_shifted": _shift_label,
    "labels_permuted": _permute_labels,
    "channels_swapped": _swap_channels,
    "label_partly_missing": _erase_part,
    "heavy_noise": _add_noise,
}

FAULTS = tuple(_PLANTERS)
"""The kinds of fault."""
