"""Whether the voxels of one case can mean what they should: an image in every channel, a label that lies on it."""

from collections.abc import Iterator
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes

from idal_assets.imaging.brain_tumour import (
    BRAIN_TUMOUR,
    CHANNELS,
    ENHANCING,
    NON_ENHANCING,
    OEDEMA,
    POST_TREATMENT,
)
from idal_assets.imaging.nifti import Volume
from idal_assets.imaging.problems import Problem, Severity
from idal_assets.imaging.raw_folder import CaseFiles

SPIKE = 20
"""So many times as far from the median as all but a thousandth of the voxels, a value is a spike.

The largest of the cases of BraTS and of MSD's hippocampus that were measured is 4.3 times as far.
"""

COPY = 0.9999
"""Correlation from which one channel is a copy of another, rescaled or not; those of one head stay below 0.9."""

ENOUGH_OF_A_LABEL = 20
"""Voxels of a label whose mean brightness means something."""

ENOUGH_VOXELS = 200_000
"""Of so many, evenly spread, percentiles and correlations are taken; extremes are those of all voxels."""

CONSTANT = "constant channel"
"""Kind of the problem that a channel has the same value everywhere."""

EMPTY_PART = 0.1
"""Share of the image that one channel may lack without a word."""

BESIDE, MOSTLY_BESIDE = 0.05, 0.5
"""Shares of the label where there is no image: from the first it is odd, from the second nothing is learned."""


def image_problems(files: CaseFiles, image: Volume | None) -> list[Problem]:
    """Report what is wrong or odd about the intensities of a case.

    Args:
        files: Where the case is.
        image: Its channels; None where they could not be read.
    """
    if image is None:
        return []
    unusable = list(_not_finite(files, image)) or _without_image(files, image)
    return unusable or [
        *_constant(files, image),
        *_spikes(files, image),
        *_copies(files, image),
        *_gaps(files, image),
    ]


def label_problems(files: CaseFiles, image: Volume | None, label: Volume | None) -> list[Problem]:
    """Report a label that is empty or lies beside the image.

    Args:
        files: Where the case is.
        image: Its channels; None where they could not be read.
        label: Its label; None where it has none or could not be read.
    """
    if label is None:
        return []
    # voxels that nobody looked at are none of the label
    labelled = (label.data > 0) & (label.data != (files.anatomy.ignore or 0))
    if not labelled.any():
        remedy = f"label the {files.anatomy.foreground} or remove the case"
        return [Problem(files.case_id, files.label, "label is empty", remedy)]
    if image is None or image.data.shape[1:] != labelled.shape or not np.isfinite(image.data).all():
        return []
    background = _background(image)
    if background is None:
        return []
    without_image = (image.data == background).all(axis=0)
    if without_image.all():
        return []
    outside = labelled & without_image
    of_zeros = not background.any()
    if of_zeros and outside.any():
        # holes such as a necrosis of zeros belong to the image, to nnU-Net too
        outside &= ~binary_fill_holes(~without_image)
    share = float(outside.sum() / labelled.sum())
    if share < BESIDE:
        return []
    what = f"{share:.0%} of the label lie where all channels are background"
    remedy = "look at both, and correct the label or its header if it was shifted or flipped"
    # nnU-Net learns nothing where all channels are 0; another background may be meant to be labelled, as air is
    severity: Severity = "error" if of_zeros and share > MOSTLY_BESIDE else "warning"
    return [Problem(files.case_id, files.label, what, remedy, severity, "label beside the image")]


def enhancement(files: CaseFiles, image: Volume, label: Volume | None) -> float | None:
    """Return how much more the enhancing tumour takes up contrast than the rest of the tumour.

    Args:
        files: Where the case is.
        image: Its channels.
        label: Its label, of the same shape; None where it has none.

    Returns:
        Difference of the brightness after and before contrast, each in standard deviations of its channel, in the
        enhancing tumour, minus that in the brighter of oedema and non-enhancing tumour. None where the anatomy is
        another or there is too little of one of them.
    """
    if label is None or files.anatomy not in (BRAIN_TUMOUR, POST_TREATMENT):
        return None
    before, after = (_standardised(image.data[CHANNELS.index(name)]) for name in ("T1w", "T1gd"))
    parts = {value: label.data == value for value in (OEDEMA, NON_ENHANCING, ENHANCING)}
    uptake = {
        value: float((after[part] - before[part]).mean())
        for value, part in parts.items()
        if part.sum() >= ENOUGH_OF_A_LABEL
    }
    enhancing = uptake.pop(ENHANCING, None)
    return None if enhancing is None or not uptake else round(enhancing - max(uptake.values()), 3)


def _standardised(channel: NDArray[np.float32]) -> NDArray[np.float32]:
    inside = channel[channel != 0]
    spread = float(inside.std(dtype=np.float64)) if inside.size else 0.0
    return (channel - inside.mean(dtype=np.float64)) / spread if spread else np.zeros_like(channel)


def _not_finite(files: CaseFiles, image: Volume) -> Iterator[Problem]:
    """Report each channel that has NaN or infinite voxels."""
    for index, channel in enumerate(files.anatomy.channels):
        data = image.data[index]
        bad = data.size - int(np.isfinite(data).sum())
        if bad:
            nan = int(np.isnan(data).sum())
            what = f"channel {channel} has {nan} NaN and {bad - nan} infinite voxels of {data.size}"
            remedy = "export it again or set them to 0 if they are background"
            file = files.images[index] if len(files.images) > 1 else files.images[0]
            yield Problem(files.case_id, file, what, remedy, kind="NaN or infinite voxels")


def _without_image(files: CaseFiles, image: Volume) -> list[Problem]:
    if any(data.min() < data.max() for data in image.data):
        return []
    what = "all channels are constant, so there is nothing to learn from"
    remedy = "export or download the case again, or remove it"
    return [Problem(files.case_id, files.images[0], what, remedy, kind="no image")]


def _constant(files: CaseFiles, image: Volume) -> Iterator[Problem]:
    for channel, data in zip(files.anatomy.channels, image.data, strict=True):
        if data.min() == data.max():
            yield _odd(files, f"channel {channel} is constant", CONSTANT)


def _spikes(files: CaseFiles, image: Volume) -> Iterator[Problem]:
    """Warn of voxels so far out that normalisation would leave nothing of the rest."""
    for channel, data in zip(files.anatomy.channels, image.data, strict=True):
        inside = data[data != 0]
        if not inside.size:
            continue
        low, median, high = np.percentile(_some(inside), (0.1, 50, 99.9))
        for extreme, usual in ((inside.min(), low), (inside.max(), high)):
            if abs(extreme - median) > SPIKE * abs(usual - median):
                what = f"channel {channel} has a spike of {extreme:.3g}; all but a thousandth of it lie"
                what += f" within {low:.3g} and {high:.3g}"
                yield _odd(files, what, "spike", "set such voxels to the value of their neighbours")


def _copies(files: CaseFiles, image: Volume) -> Iterator[Problem]:
    voxels = _some(image.data[:, image.data.any(axis=0)])
    for first, second in combinations(range(len(voxels)), 2):
        a, b = voxels[first] - voxels[first].mean(), voxels[second] - voxels[second].mean()
        size = float(np.sqrt((a @ a) * (b @ b)))
        if size > 0 and a @ b > COPY * size:
            channels = files.anatomy.channels
            yield _odd(files, f"channel {channels[second]} is a copy of {channels[first]}", "copied channel")


def _gaps(files: CaseFiles, image: Volume) -> Iterator[Problem]:
    """Warn of a channel that is 0 in a part of the image, as where slices are missing."""
    inside = image.data.any(axis=0)
    for channel, data in zip(files.anatomy.channels, image.data, strict=True):
        share = float((data[inside] == 0).mean())
        if EMPTY_PART < share < 1:
            yield _odd(files, f"channel {channel} is 0 in {share:.0%} of the image", "channel with a gap")


def _some(voxels: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return evenly spread ones of the last axis."""
    return voxels[..., :: max(1, voxels.shape[-1] // ENOUGH_VOXELS)].astype(np.float64)


def _odd(files: CaseFiles, what: str, kind: str, remedy: str = "export it again or remove the case") -> Problem:
    return Problem(files.case_id, None, what, remedy, "warning", kind)


def _background(image: Volume) -> NDArray[np.float32] | None:
    """Return the value that each channel has in all corners, shape (channels, 1, 1, 1); None if they differ."""
    corners = np.stack([image.data[:, x, y, z] for x, y, z in product((0, -1), repeat=3)])
    return corners[0][:, None, None, None] if (corners == corners[0]).all() else None
