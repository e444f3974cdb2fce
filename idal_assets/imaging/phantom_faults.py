"""The faults that can be planted in a phantom case, each a mistake that happens in real cohorts.

A fault changes either the image or the label of one case and leaves files that still pass as valid: label values
of the phantom, not empty, int16 intensities, and zero outside a brain. At severity 1 it harms a model that is
trained on it; below, what can be done by degrees is done by less, down to what raters disagree about. Each kind of
phantom has the faults that make sense for it. Which case gets which fault is decided in `phantom`.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from idal_assets.imaging.brain_tumour import ENHANCING, NON_ENHANCING, OEDEMA
from idal_assets.imaging.phantom_parts import Image, Label, Planter, Planting

SHIFT_SHARE = 0.18
"""Shift of a label as share of the width of brain or image.

It is some 25 mm in a head, far beyond any disagreement of raters.
"""

ERASED_SHARE = 0.6
"""Share of the label's voxels that goes missing: more than half, so that the rest misleads about the extent."""

UNLABELLED_SHARE = 0.6
"""Share of the labelled slices, all in a row, that lose their label."""

RESIZED_VOXELS = 3
"""By how many voxels within a slice a label is dilated or eroded."""

WITHIN_SLICES = (1.0, 1.0, 1e6)
"""Distances between voxels along X, Y and Z that make a voxel of the same slice the nearest one."""

NOISE_FACTOR = 4.0
"""Noise in standard deviations of the channel within brain or body.

A tumour differs from the brain by one to two of them, an organ from what surrounds it by two.
"""

BRAIN_PERMUTATION = {OEDEMA: NON_ENHANCING, NON_ENHANCING: ENHANCING, ENHANCING: OEDEMA}
ORGAN_PERMUTATION = {1: 2, 2: 1}
"""What each label value becomes, as when a converter assumes another convention."""

BRAIN_MERGES = ((ENHANCING, NON_ENHANCING), (NON_ENHANCING, ENHANCING))
ORGAN_MERGES = ((1, 2), (2, 1))
"""Which structure may be drawn as which other one."""

SWAPPED_CHANNELS = (1, 0, 3, 2)
"""Order of the channels of a brain after the swap: FLAIR and T1w trade places, so do T1gd and T2w."""

AIR_FLOOR = -1024
"""Lowest value of a CT in Hounsfield units."""

BODY_THRESHOLD = -150
"""Hounsfield units; what lies below is air. No intensity of MRI does."""


UNGRADED = ("labels_permuted", "channels_swapped", "label_mirrored", "label_of_another")
"""Faults that are there or not; at every severity they are the same."""


def _shift_brain_label(image: Image, label: Label, planting: Planting) -> tuple[Image, Label]:
    """Move the label within the axial plane towards the middle of the brain, which keeps it on the brain."""
    brain = image.any(axis=0)
    middle = np.array(ndimage.center_of_mass(brain))
    inwards = (middle - np.array(ndimage.center_of_mass(label > 0)))[:2]
    distance = max(1.0, planting.severity * SHIFT_SHARE * np.ptp(np.nonzero(brain)[0]))
    offset = np.rint(distance * inwards / np.linalg.norm(inwards))
    return image, ndimage.shift(label, (*offset, 0), order=0)


def _shift_organ_label(image: Image, label: Label, planting: Planting) -> tuple[Image, Label]:
    """Move the label across the organ, to the side where the image has more room."""
    width = label.shape[0]
    position = ndimage.center_of_mass(label > 0)[0]
    distance = max(1.0, np.rint(planting.severity * SHIFT_SHARE * width))
    return image, ndimage.shift(label, (distance * (1 if position < (width - 1) / 2 else -1), 0, 0), order=0)


def _permute_labels(
    permutation: Mapping[int, int], image: Image, label: Label, planting: Planting
) -> tuple[Image, Label]:
    lookup = np.array([0, *(permutation[value] for value in sorted(permutation))], dtype=np.uint8)
    return image, lookup[label]


def _swap_channels(image: Image, label: Label, planting: Planting) -> tuple[Image, Label]:
    return image[list(SWAPPED_CHANNELS)], label


def _erase_part(image: Image, label: Label, planting: Planting) -> tuple[Image, Label]:
    return image, _without(label, _one_side(label > 0, planting.severity * ERASED_SHARE, planting.rng))


def _forget_structure(image: Image, label: Label, planting: Planting) -> tuple[Image, Label]:
    """Leave one label out: background where it was."""
    value = planting.rng.choice(np.unique(label[label > 0]))
    return image, _without(label, _one_side(label == value, planting.severity, planting.rng))


def _merge_structures(
    merges: Sequence[tuple[int, int]], image: Image, label: Label, planting: Planting
) -> tuple[Image, Label]:
    """Draw one structure as another."""
    source, target = merges[int(planting.rng.integers(len(merges)))]
    merged = label.copy()
    merged[_one_side(label == source, planting.severity, planting.rng)] = target
    return image, merged


def _unlabel_slices(image: Image, label: Label, planting: Planting) -> tuple[Image, Label]:
    """Take the label from a row of slices; at least one slice keeps its own."""
    labelled = np.flatnonzero(label.any(axis=(0, 1)))
    count = round(planting.severity * UNLABELLED_SHARE * len(labelled))
    count = min(max(1, count), len(labelled) - 1)
    first = planting.rng.integers(len(labelled) - count + 1)
    remaining = label.copy()
    remaining[:, :, labelled[first : first + count]] = 0
    return image, remaining


def _dilate_brain_label(image: Image, label: Label, planting: Planting) -> tuple[Image, Label]:
    return image, np.where(image.any(axis=0), _dilated(label, _voxels(planting)), 0).astype(np.uint8)


def _dilate_organ_label(image: Image, label: Label, planting: Planting) -> tuple[Image, Label]:
    return image, _dilated(label, _voxels(planting))


def _erode_label(image: Image, label: Label, planting: Planting) -> tuple[Image, Label]:
    """Take the outermost voxels of the label in each slice; of a thin one the innermost stay."""
    depth = ndimage.distance_transform_edt(label > 0, sampling=WITHIN_SLICES)
    return image, _without(label, depth <= min(_voxels(planting), depth.max() - 0.5))


def _mirror_brain_label(image: Image, label: Label, planting: Planting) -> tuple[Image, Label]:
    return image, np.where(image.any(axis=0), label[::-1], 0).astype(np.uint8)


def _mirror_organ_label(image: Image, label: Label, planting: Planting) -> tuple[Image, Label]:
    return image, label[::-1].copy()


def _take_other_brain_label(image: Image, label: Label, planting: Planting) -> tuple[Image, Label]:
    return image, np.where(image.any(axis=0), planting.label_of_another(), 0).astype(np.uint8)


def _take_other_organ_label(image: Image, label: Label, planting: Planting) -> tuple[Image, Label]:
    return image, planting.label_of_another()


def _voxels(planting: Planting) -> int:
    return max(1, round(planting.severity * RESIZED_VOXELS))


def _dilated(label: Label, voxels: int) -> Label:
    """Give every voxel that is this near to the label, within its slice, the value of the nearest labelled one."""
    distance, nearest = ndimage.distance_transform_edt(label == 0, sampling=WITHIN_SLICES, return_indices=True)
    return np.where(distance <= voxels, label[tuple(nearest)], 0).astype(np.uint8)


def _without(label: Label, erased: NDArray[np.bool_]) -> Label:
    remaining = label.copy()
    remaining[erased] = 0
    return remaining


def _one_side(inside: NDArray[np.bool_], share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Cut off this share of some voxels along a plane at right angles to the slices, in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    x, y, _ = np.nonzero(inside)
    position = x * np.cos(angle) + y * np.sin(angle)
    chosen = position > np.quantile(position, 1 - share) if share < 1 else np.ones(len(position), bool)
    side = np.zeros_like(inside)
    side[tuple(axis[chosen] for axis in np.nonzero(inside))] = True
    return side


def _add_noise_to_brain(image: Image, label: Label, planting: Planting) -> tuple[Image, Label]:
    brain, rng = image.any(axis=0), planting.rng
    sigma = planting.severity * NOISE_FACTOR * image[:, brain].std(axis=1, keepdims=True)
    real, imaginary = sigma * rng.normal(size=(2, *image[:, brain].shape))
    noisy = np.zeros_like(image)
    # a magnitude image has Rician noise; at least 1 keeps the brain apart from the background
    noisy[:, brain] = np.hypot(image[:, brain] + real, imaginary).clip(1, np.iinfo(np.int16).max)
    return noisy, label


def _add_noise_to_organ(image: Image, label: Label, planting: Planting) -> tuple[Image, Label]:
    body = image > BODY_THRESHOLD
    noise = planting.severity * NOISE_FACTOR * image[body].std() * planting.rng.normal(size=image.shape)
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
    "structure_forgotten": _forget_structure,
    "structures_merged": partial(_merge_structures, BRAIN_MERGES),
    "slices_unlabelled": _unlabel_slices,
    "label_dilated": _dilate_brain_label,
    "label_eroded": _erode_label,
    "label_mirrored": _mirror_brain_label,
    "label_of_another": _take_other_brain_label,
}

ORGAN_FAULTS: Mapping[str, Planter] = {
    "label_shifted": _shift_organ_label,
    "labels_permuted": partial(_permute_labels, ORGAN_PERMUTATION),
    "label_partly_missing": _erase_part,
    "heavy_noise": _add_noise_to_organ,
    "structure_forgotten": _forget_structure,
    "structures_merged": partial(_merge_structures, ORGAN_MERGES),
    "slices_unlabelled": _unlabel_slices,
    "label_dilated": _dilate_organ_label,
    "label_eroded": _erode_label,
    "label_mirrored": _mirror_organ_label,
    "label_of_another": _take_other_organ_label,
}
"""An organ has one channel, so that none can be swapped."""
