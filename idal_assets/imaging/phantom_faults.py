"""The faults that can be planted in a phantom case, each a mistake that happens in real cohorts.

A fault changes either the image or the label of one case, badly enough to harm a model trained on it, and
leaves files that still pass as valid: label values of the phantom, not empty, int16 intensities, and zero outside
a brain. Each kind of phantom has the faults that make sense for it. Which case gets which fault is decided in
`phantom`.
"""

from collections.abc import Mapping
from functools import partial

import numpy as np
from scipy import ndimage

from idal_assets.imaging.brain_tumour import ENHANCING, NON_ENHANCING, OEDEMA
from idal_assets.imaging.phantom_parts import Image, Label, Planter

SHIFT_SHARE = 0.18
"""Shift of a label as share of the width of brain or image.

It is some 25 mm in a head, far beyond any disagreement of raters.
"""

ERASED_SHARE = 0.6
"""Share of the label's voxels that goes missing: more than half, so that the rest misleads about the extent."""

NOISE_FACTOR = 4.0
"""Noise in standard deviations of the channel within brain or body.

A tumour differs from the brain by one to two of them, an organ from what surrounds it by two.
"""

BRAIN_PERMUTATION = {OEDEMA: NON_ENHANCING, NON_ENHANCING: ENHANCING, ENHANCING: OEDEMA}
ORGAN_PERMUTATION = {1: 2, 2: 1}
"""What each label value becomes, as when a converter assumes another convention."""

SWAPPED_CHANNELS = (1, 0, 3, 2)
"""Order of the channels of a brain after the swap: FLAIR and T1w trade places, so do T1gd and T2w."""

AIR_FLOOR = -1024
"""Lowest value of a CT in Hounsfield units."""

BODY_THRESHOLD = -150
"""Hounsfield units; what lies below is air. No intensity of MRI does."""


def _shift_brain_label(image: Image, label: Label, rng: np.random.Generator) -> tuple[Image, Label]:
    """Move the label within the axial plane towards the middle of the brain, which keeps it on the brain."""
    brain = image.any(axis=0)
    middle = np.array(ndimage.center_of_mass(brain))
    inwards = (middle - np.array(ndimage.center_of_mass(label > 0)))[:2]
    distance = SHIFT_SHARE * np.ptp(np.nonzero(brain)[0])
    offset = np.rint(distance * inwards / np.linalg.norm(inwards))
    return image, ndimage.shift(label, (*offset, 0), order=0)


def _shift_organ_label(image: Image, label: Label, rng: np.random.Generator) -> tuple[Image, Label]:
    """Move the label across the organ, to the side where the image has more room."""
    width = label.shape[0]
    position = ndimage.center_of_mass(label > 0)[0]
    offset = np.rint(SHIFT_SHARE * width) * (1 if position < (width - 1) / 2 else -1)
    return image, ndimage.shift(label, (offset, 0, 0), order=0)


def _permute_labels(
    permutation: Mapping[int, int], image: Image, label: Label, rng: np.random.Generator
) -> tuple[Image, Label]:
    lookup = np.array([0, *(permutation[value] for value in sorted(permutation))], dtype=np.uint8)
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


def _add_noise_to_brain(image: Image, label: Label, rng: np.random.Generator) -> tuple[Image, Label]:
    brain = image.any(axis=0)
    sigma = NOISE_FACTOR * image[:, brain].std(axis=1, keepdims=True)
    real, imaginary = sigma * rng.normal(size=(2, *image[:, brain].shape))
    noisy = np.zeros_like(image)
    # a magnitude image has Rician noise; at least 1 keeps the brain apart from the background
    noisy[:, brain] = np.hypot(image[:, brain] + real, imaginary).clip(1, np.iinfo(np.int16).max)
    return noisy, label


def _add_noise_to_organ(image: Image, label: Label, rng: np.random.Generator) -> tuple[Image, Label]:
    body = image > BODY_THRESHOLD
    noise = NOISE_FACTOR * image[body].std() * rng.normal(size=image.shape)
    noisy = np.where(body, image + noise, image)
    if image.min() > 0:
        # a magnitude has no sign
        noisy = np.abs(noisy).clip(1)
    return noisy.clip(AIR_FLOOR, np.iinfo(np.int16).max).astype(np.int16), label


BRAIN_FAULTS: Mapping[str, Planter] = {
    "label_shifted": _shift_brain_label,
    "labels_permuted": partial(_permute_labels, BRAIN_PERMUTATION),
    "channels_swapped": _swap_channels,
    "label_partly_missing": _erase_part,
    "heavy_noise": _add_noise_to_brain,
}

ORGAN_FAULTS: Mapping[str, Planter] = {
    "label_shifted": _shift_organ_label,
    "labels_permuted": partial(_permute_labels, ORGAN_PERMUTATION),
    "label_partly_missing": _erase_part,
    "heavy_noise": _add_noise_to_organ,
}
"""An organ has one channel, so that none can be swapped."""
