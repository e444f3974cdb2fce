"""How well a label agrees with a network that has not learned from it."""

import numpy as np
from numpy.typing import NDArray

from idal_assets.anatomy import Anatomy


def label_quality(label: NDArray[np.int8], probabilities: NDArray[np.float32], anatomy: Anatomy) -> float:
    """Scores a label as cleanlab does (Lad and Mueller, Estimating label quality and errors, ICML DMLR 2023).

    Each voxel has the probability s that the network gives to its label. Networks that are trained on regions give
    none; there it is the least of the probabilities that a region holds the voxel, or does not, as its label says.
    The score is the mean of s with weights proportional to exp((1 - s) / 0.1), cleanlab's softmin: a voxel that
    the network thinks wrong weighs up to 22 000 times as much as one that it agrees with, so what counts is the
    share of such voxels. Voxels outside the image's content, as outside the brain, are left out: the network is
    sure of them, and they would only dilute the others, the more the more air there is in the crop. So are voxels
    to ignore.

    Args:
        label: Label after preprocessing, any shape; -1 outside.
        probabilities: Probability of each label, shape (labels, ...), or of each region trained on, shape
            (regions, ...); 0 to 1.
        anatomy: Says what is trained on and which voxels to ignore.

    Returns:
        0 to 1, low where the label is doubtful; NaN where no voxel is labelled.
    """
    # imported here, because it takes a second and only this score needs it
    from cleanlab.segmentation.rank import get_label_quality_scores

    inside = label >= 0
    if anatomy.ignore is not None:
        inside &= label != anatomy.ignore
    if not inside.any():
        return float("nan")
    confidence = _self_confidence(label[inside], probabilities[:, inside], anatomy)
    # cleanlab scores images of rows and columns, neither of which counts for the softmin, and looks up what is
    # predicted for the label; here that is the first of two classes
    found = np.stack([confidence, 1 - confidence])[None, :, None]
    labels = np.zeros((1, 1, len(confidence)), dtype=np.int64)
    scores, _ = get_label_quality_scores(labels, found, method="softmin", verbose=False)
    return float(scores[0])


def _self_confidence(
    label: NDArray[np.int8], probabilities: NDArray[np.float32], anatomy: Anatomy
) -> NDArray[np.float32]:
    """Probability that each voxel's label is right, for labels (voxels,) and probabilities (heads, voxels)."""
    if not anatomy.trained:
        return np.take_along_axis(probabilities, label[None].astype(np.int64), axis=0)[0]
    inside = [np.isin(label, anatomy.regions[region]) for region in anatomy.trained]
    return np.where(inside, probabilities, 1 - probabilities).min(axis=0)
