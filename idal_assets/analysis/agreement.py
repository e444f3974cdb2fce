"""How far networks agree on a case without a label: what can be known of each of them there.

Agreement is a Dice of two segmentations. Where both are empty the two agree, so unlike the Dice to a truth it is
1.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

BASELINE = "baseline"
"""Name of the network that is no donor's."""

FEATURES = ("with_baseline", "with_majority", "with_others", "volume", "extent")


def majority(labels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The label that most networks say of each voxel; of several the lowest value.

    Args:
        labels: Segmentations, shape (networks, Z, Y, X).
        size: How many values there are, background among them.

    Returns:
        Shape (Z, Y, X).
    """
    chosen = np.zeros(labels.shape[1:], dtype=np.uint8)
    most = (labels == 0).sum(axis=0, dtype=np.int32)
    for value in range(1, size):
        votes = (labels == value).sum(axis=0, dtype=np.int32)
        chosen[votes > most] = value
        most = np.maximum(most, votes)
    return chosen


def agreement_table(
    names: Sequence[str], labels: NDArray[np.uint8], regions: Mapping[str, Sequence[int]], size: int
) -> pd.DataFrame:
    """Describes what each donor's network and the baseline say of a case by what the others say.

    Args:
        names: The networks, `BASELINE` first.
        labels: Their segmentations, shape (networks, Z, Y, X).
        regions: Label values of each region, by name.
        size: How many label values there are, background among them.

    Returns:
        One row a network and region: `model`, `region`; Dice `with_baseline`, `with_majority` of the donors'
        networks and `with_others`, the mean over the other donors' networks; `volume` in voxels; and `extent`, the
        root mean square distance in voxels from the centre as a multiple of the cube root of the volume (NaN where
        empty).
    """
    labels = labels[(slice(None), *_box(labels.max(axis=0)))]
    most = majority(labels[1:], size)
    tables = []
    for region, values in regions.items():
        inside = np.isin(labels, list(values))
        shared = _intersections(inside)
        volumes = np.diag(shared)
        pairwise = _dice(shared, volumes[:, None] + volumes[None])
        consensus = np.isin(most, list(values))
        with_majority = _dice((inside & consensus).sum(axis=(1, 2, 3)), volumes + consensus.sum())
        table = pd.DataFrame(
            {
                "model": list(names),
                "region": region,
                "with_baseline": pairwise[0],
                "with_majority": with_majority,
                "with_others": _mean_with_others(pairwise),
                "volume": volumes,
                "extent": [_extent(mask) for mask in inside],
            }
        )
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def segmentation_agreement(
    segmentation: NDArray[np.uint8], labels: NDArray[np.uint8], regions: Mapping[str, Sequence[int]]
) -> pd.DataFrame:
    """Mean Dice of one segmentation with those of many networks.

    Args:
        segmentation: Shape (Z, Y, X).
        labels: Shape (networks, Z, Y, X).
        regions: Label values of each region, by name.

    Returns:
        Indexed by region: `agreement`, the mean, and `lowest`, the tenth percentile over the networks.
    """
    box = _box(np.maximum(labels.max(axis=0), segmentation))
    segmentation, labels = segmentation[box], labels[(slice(None), *box)]
    counts = _joint_counts(segmentation, labels)
    found = {}
    for region, values in regions.items():
        known = [value for value in values if value < counts.shape[1]]
        own, others = counts[:, known].sum(axis=(1, 2)), counts[:, :, known].sum(axis=(1, 2))
        dice = _dice(counts[:, known][:, :, known].sum(axis=(1, 2)), own + others)
        found[region] = {"agreement": float(dice.mean()), "lowest": float(np.quantile(dice, 0.1))}
    return pd.DataFrame(found).T.rename_axis("region")


def _joint_counts(segmentation: NDArray[np.uint8], labels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Voxels by network, label in the segmentation and label of the network."""
    size = int(max(segmentation.max(), labels.max())) + 1
    rows = size * segmentation.ravel().astype(np.intp)
    found = [np.bincount(rows + label.ravel(), minlength=size**2) for label in labels]
    return np.stack(found).reshape(len(labels), size, size)


def doubt(segmentation: NDArray[np.uint8], labels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Share of the networks that say something else than the segmentation, of each voxel, 0 to 1."""
    return (labels != segmentation).mean(axis=0, dtype=np.float32)


def _box(largest: NDArray[np.uint8]) -> tuple[slice, ...]:
    """The part of a volume in which some label is seen; on what lies outside all agree."""
    edges = [np.flatnonzero(largest.max(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return tuple(slice(int(edge[0]), int(edge[-1]) + 1) if len(edge) else slice(0, 1) for edge in edges)


def _intersections(inside: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Voxels that each two masks share, shape (masks, masks); slice by slice, so that memory stays small."""
    shared = np.zeros((len(inside), len(inside)))
    for z in range(inside.shape[1]):
        flat = inside[:, z].reshape(len(inside), -1)
        flat = flat[:, flat.any(axis=0)].astype(np.float32)
        shared += flat @ flat.T
    return shared.astype(np.int64)


def _dice(shared: NDArray, total: NDArray) -> NDArray[np.float64]:
    return np.divide(2.0 * shared, total, out=np.ones(np.shape(total)), where=np.asarray(total) > 0)


def _mean_with_others(pairwise: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean Dice with the donors' networks but itself; the first row is the baseline's."""
    donors = pairwise[:, 1:]
    own = np.concatenate([[0.0], np.ones(len(pairwise) - 1)])
    others = np.maximum(donors.shape[1] - own, 1)
    return (donors.sum(axis=1) - own) / others


def _extent(mask: NDArray[np.bool_]) -> float:
    places = np.argwhere(mask).astype(float)
    if not len(places):
        return float("nan")
    return float(np.sqrt(((places - places.mean(axis=0)) ** 2).sum(axis=1).mean()) / len(places) ** (1 / 3))
