"""The one place that turns voxel counts into Dice and IoU.

Dice = 2 TP / (2 TP + FP + FN) and IoU = TP / (TP + FP + FN), per volume. Where truth and prediction are both
empty they are not defined (NaN); where one is empty they are 0. Counts are kept beside every score, so that any
other score can be derived later. What counts cannot say, how far the surfaces are apart, is in `surfaces`.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from idal_assets.anatomy import MEAN, Anatomy

MEASURES = ("dice", "iou", "hd95")
COUNTS = ("tp", "fp", "fn")


def confusion(truth: NDArray[np.uint8], predicted: NDArray[np.uint8], anatomy: Anatomy) -> NDArray[np.int64]:
    """Counts voxels by true and predicted label; those that the truth says to ignore are left out.

    Args:
        truth: Label values, any shape.
        predicted: Label values, the same shape.
        anatomy: Which values there are.

    Returns:
        Shape (values, values), background first: row the true label, column the predicted one.

    Raises:
        ValueError: The shapes differ.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"truth has shape {truth.shape} and prediction {predicted.shape}; they must be the same")
    if anatomy.ignore is not None:
        labelled = truth != anatomy.ignore
        truth, predicted = truth[labelled], predicted[labelled]
    size = anatomy.size
    pairs = truth.ravel().astype(np.int64) * size + predicted.ravel()
    return np.bincount(pairs, minlength=size * size).reshape(size, size)


def dice(tp: ArrayLike, fp: ArrayLike, fn: ArrayLike) -> NDArray[np.float64]:
    """Dice from voxel counts.

    Args:
        tp: True positives.
        fp: False positives.
        fn: False negatives, of the same shape.

    Returns:
        Dice in 0 to 1; NaN where all counts are zero.
    """
    tp, fp, fn = (np.asarray(count, dtype=np.float64) for count in (tp, fp, fn))
    return _share(2 * tp, 2 * tp + fp + fn)


def iou(tp: ArrayLike, fp: ArrayLike, fn: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union (Jaccard index) from voxel counts.

    Args:
        tp: True positives.
        fp: False positives.
        fn: False negatives, of the same shape.

    Returns:
        IoU in 0 to 1; NaN where all counts are zero.
    """
    tp, fp, fn = (np.asarray(count, dtype=np.float64) for count in (tp, fp, fn))
    return _share(tp, tp + fp + fn)


def _share(part: NDArray[np.float64], total: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(part, total, out=np.full_like(total, np.nan), where=total > 0)


def score_table(
    counts: NDArray[np.int64], regions: Mapping[str, Sequence[int]], hd95: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """Scores every region and label of one segmentation.

    Args:
        counts: Table of `confusion`.
        regions: Label values of each region, by name.
        hd95: Surface distance of every region in mm; without it `hd95` is NaN.

    Returns:
        One row a region with `region`, `dice`, `iou`, `hd95`, `tp`, `fp`, `fn`.
    """
    rows = []
    for region, labels in regions.items():
        inside = list(labels)
        tp = int(counts[np.ix_(inside, inside)].sum())
        fp = int(counts[:, inside].sum()) - tp
        fn = int(counts[inside].sum()) - tp
        distance = hd95[region] if hd95 else float("nan")
        scores = {"dice": float(dice(tp, fp, fn)), "iou": float(iou(tp, fp, fn)), "hd95": distance}
        rows.append({"region": region, **scores, "tp": tp, "fp": fp, "fn": fn})
    return pd.DataFrame(rows)


def found_regions(cells: pd.DataFrame, absent_share: float) -> pd.DataFrame:
    """Tells the regions that a case does not have from those that its label only leaves out.

    A label that lacks a region may be right, as of a tumour without an enhancing part, or forgotten, as where a
    structure was not drawn or its value was lost. The models of the other donors tell them apart: what most of
    them find is there. They learned from other labels, so what all labels of a cohort leave out goes unnoticed.

    Args:
        cells: Rows with `donor`, `receiver`, `region`, `tp`, `fp` and `fn`. The size of a receiver's truth is
            TP + FN, the same in all rows of its column; TP + FP is what the donor's model finds.
        absent_share: A region that a label lacks counts as absent where the others find at most this share of the
            largest region of that label.

    Returns:
        Indexed by `receiver` and `region`: `labelled`, voxels of the label; `found`, the median of the voxels that
        the other donors' models find (NaN without others); `models`, how many these are; `absent`, whether the
        case does not have the region; and `contradicted`, whether the label lacks what the models find.
    """
    place = ["receiver", "region"]
    labelled = (cells["tp"] + cells["fn"]).astype(float).groupby([cells[name] for name in place]).max()
    others = cells[cells["donor"] != cells["receiver"]]
    predicted = (others["tp"] + others["fp"]).astype(float).groupby([others[name] for name in place])
    table = pd.DataFrame({"labelled": labelled, "found": predicted.median(), "models": predicted.size()})
    table["models"] = table["models"].fillna(0).astype(int)
    largest = table.groupby("receiver")["labelled"].transform("max")
    lacking = table["labelled"] == 0
    seen = table["found"] > absent_share * largest
    return table.assign(absent=lacking & ~seen, contradicted=lacking & seen)


def only_shared_regions(cells: pd.DataFrame, absent_share: float) -> pd.DataFrame:
    """Leaves out what donor or receiver does not have: such a region counts as undefined.

    A case can teach only what it has, and only that can be judged on it. Otherwise a model that never saw a region
    would have a Dice of 0 wherever there is some of it, and a case without any a Dice of 0 wherever some is
    predicted, which is no fault of either label. A region that the label lacks although the other models find it
    stays: there the label is contradicted, and both the Dice of 0 on it and that of its model tell so.

    Args:
        cells: Rows as of `found_regions`, with `dice`; every donor is a receiver too.
        absent_share: As of `found_regions`.

    Returns:
        The rows with Dice NaN in regions that are absent from donor or receiver.
    """
    absent = found_regions(cells, absent_share)["absent"]
    lacking = [
        absent.loc[pd.MultiIndex.from_arrays([cells[side], cells["region"]])].to_numpy(bool)
        for side in ("donor", "receiver")
    ]
    return cells.assign(dice=cells["dice"].mask(lacking[0] | lacking[1]))


def without_absent(scores: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """Leaves out of other segmentations what a case does not have, as in the cells of the matrix.

    Args:
        scores: Rows with `case_id`, `region` and `dice`.
        found: Table of `found_regions`, of all these cases.

    Returns:
        The rows with Dice NaN in regions that are absent from the case.
    """
    places = pd.MultiIndex.from_arrays([scores["case_id"], scores["region"]])
    return scores.assign(dice=scores["dice"].mask(found["absent"].reindex(places).to_numpy(bool)))


def held_by_truth(scores: pd.DataFrame) -> pd.Series:
    """Which rows of `score_table` are of a region that the truth of the case holds."""
    return scores["tp"] + scores["fn"] > 0


def with_scalar(
    scores: pd.DataFrame, by: list[str], scalar_regions: Collection[str], held_only: bool = False
) -> pd.DataFrame:
    """Adds the scalar of each segmentation as region `mean`: of Dice, of IoU and of HD95.

    Args:
        scores: Rows of `score_table`, perhaps without some measures, with columns that say which segmentation they
            belong to.
        by: Those columns.
        scalar_regions: Names of the regions that the scalar averages; of each measure the undefined ones are left
            out, and it is NaN if all are.
        held_only: Average only those that the truth of the case holds. They are the same whichever network
            segments the case; otherwise a region that is not there counts as soon as a network finds one voxel of
            it, as 0, and two networks are compared by different regions.

    Returns:
        The rows with one more a segmentation, whose counts are missing.
    """
    counts = scores["region"].isin(scalar_regions)
    chosen = scores[counts & held_by_truth(scores) if held_only else counts]
    measures = [name for name in MEASURES if name in scores]
    means = chosen.groupby(by, sort=False, as_index=False)[measures].mean()
    # a segmentation of which no region counts has a scalar too, which is undefined
    means = scores[by].drop_duplicates().merge(means, on=by, how="left")
    table = pd.concat([scores, means.assign(region=MEAN)], ignore_index=True)
    return table.astype(dict.fromkeys(COUNTS, "Int64"))


def scalar_of(scores: pd.DataFrame, by: str, scalar_regions: Collection[str]) -> pd.Series:
    """The scalar of the Dice of each segmentation, without the rows.

    Args:
        scores: Rows with `region` and `dice`.
        by: Column that says which segmentation they belong to.
        scalar_regions: Names of the regions that it averages.
    """
    chosen = scores[scores["region"].isin(scalar_regions)]
    return chosen["dice"].astype(float).groupby(chosen[by]).mean()
