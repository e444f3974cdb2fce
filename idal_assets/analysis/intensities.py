"""How unusual the intensities under a label are, without any network.

A label on the wrong place or with the wrong values lies over other intensities than those of the other cases, and
so does a label on a spoilt image. Intensities are those of nnU-Net's preprocessing, which puts cases on one scale.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

from idal_assets.analysis.chance import robust_z

LARGEST = 10.0
"""A feature counts at most this many standard deviations, so that a single one does not decide."""

IN_PLANE = np.ones((1, 3, 3), bool)
"""Neighbours within a slice; slices may lie far apart."""

LAPLACIAN = np.array([[[0, 1, 0], [1, -4, 1], [0, 1, 0]]], np.float32)


def intensity_features(image: NDArray[np.float32], label: NDArray[np.int8], values: Iterable[int]) -> pd.Series:
    """Describes the intensities of one case.

    Args:
        image: Normalised intensities, shape (channels, Z, Y, X).
        label: Label in the same space; negative where there is no image.
        values: Label values.

    Returns:
        By name, for each channel: `mean_V`, the mean under label value V; `edge`, the mean of the outermost
        labelled voxels minus that of the voxels around them; `noise`, the median of the absolute Laplacian within
        slices. NaN where the label has no such voxel.
    """
    values = tuple(values)
    inside = np.isin(label, values)
    content = label >= 0
    rim = inside & ~ndimage.binary_erosion(inside, IN_PLANE)
    around = ndimage.binary_dilation(inside, IN_PLANE) & ~inside & content
    found: dict[str, float] = {}
    for number, channel in enumerate(image):
        curved = np.abs(ndimage.convolve(channel, LAPLACIAN, mode="nearest"))
        found |= {f"mean_{value} of {number}": _mean(channel[label == value]) for value in values}
        found[f"edge of {number}"] = _mean(channel[rim]) - _mean(channel[around])
        found[f"noise of {number}"] = float(np.median(curved[content])) if content.any() else float("nan")
    return pd.Series(found)


def intensity_scores(features: Sequence[pd.Series]) -> NDArray[np.float64]:
    """Compares the cases: minus the mean absolute robust z of their features, low where a case is unusual.

    Args:
        features: Of each case, as of `intensity_features`; what a case does not have says nothing of it.
    """
    table = pd.DataFrame(list(features)).astype(float)
    table = table.loc[:, table.notna().any()]
    z = np.abs(robust_z(table.to_numpy().T).T).clip(max=LARGEST)
    return -np.nanmean(np.where(table.isna(), np.nan, z), axis=1)


def _mean(values: NDArray[np.float32]) -> float:
    return float(values.mean()) if values.size else float("nan")
