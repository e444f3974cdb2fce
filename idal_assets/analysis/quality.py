"""How well a label agrees with a network that has not learned from it."""

import numpy as np
from numpy.typing import NDArray


def label_quality(label: NDArray[np.int8], probabilities: NDArray[np.float32]) -> float:
    """Scores a label as cleanlab does (Lad and Mueller, Estimating label quality and errors, ICML DMLR 2023).

    Each voxel has the probability s that the network gives to its label. The score is their mean with weights
    proportional to exp((1 - s) / 0.1), cleanlab's softmin: a voxel that the network thinks wrong weighs up to
    22 000 times as much as one that it agrees with, so what counts is the share of such voxels. Voxels outside the
    brain are left out. The network is sure of them, and they would only dilute the others, the more the more air
    there is in the crop.

    Args:
        label: Label after preprocessing, any shape; -1 outside the brain.
        probabilities: Probability of each label, shape (labels, ...), 0 to 1.

    Returns:
        0 to 1, low where the label is doubtful.
    """
    # imported here, because it takes a second and only this score needs it
    from cleanlab.segmentation.rank import get_label_quality_scores

    inside = label >= 0
    # cleanlab scores images of rows and columns; neither counts for the softmin
    labels, found = label[inside].astype(np.int64)[None, None], probabilities[:, inside][None, :, None]
    scores, _ = get_label_quality_scores(labels, found, method="softmin", verbose=False)
    return float(scores[0])
