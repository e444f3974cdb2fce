"""The Dice matrix, its dendrogram and the ranking of the donors."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.cluster.hierarchy import cophenet, leaves_list, linkage
from scipy.spatial.distance import pdist, squareform

from idal_assets.analysis.scores import MEAN, only_shared_regions, with_scalar
from idal_assets.settings import SimilaritySettings

ROUNDING = 12
"""Decimals of a score; what lies behind them is rounding error, which must not order donors that are tied."""


class IncompleteMatrixError(ValueError):
    """Cells of the matrix are missing or not between 0 and 1; the message says which."""


def dice_matrix(table: pd.DataFrame, donors: Sequence[str], receivers: Sequence[str]) -> pd.DataFrame:
    """Arranges the scalars as a matrix.

    Args:
        table: Rows with `donor`, `receiver`, `region` and `dice`.
        donors: Rows of the matrix, in order.
        receivers: Columns of the matrix, in order.

    Returns:
        Scalars in 0 to 1 or NaN, shape (donors, receivers).

    Raises:
        IncompleteMatrixError: A cell has no row, or more than one.
    """
    scalars = table[table["region"] == MEAN]
    repeated = scalars.duplicated(["donor", "receiver"])
    if repeated.any():
        donor, receiver = scalars.loc[repeated, ["donor", "receiver"]].iloc[0]
        raise IncompleteMatrixError(f"The cell of donor {donor} and receiver {receiver} appears twice")
    counted = scalars.assign(present=1).pivot(index="donor", columns="receiver", values="present")
    missing = counted.reindex(index=donors, columns=receivers).isna()
    if missing.to_numpy().any():
        donor, receiver = missing.stack()[lambda cell: cell].index[0]
        raise IncompleteMatrixError(
            f"{int(missing.to_numpy().sum())} of {missing.size} cells are missing, the first is donor {donor} and "
            f"receiver {receiver}; materialize dice_row of {donor} again"
        )
    matrix = scalars.pivot(index="donor", columns="receiver", values="dice")
    matrix = matrix.reindex(index=donors, columns=receivers)
    if ((matrix < 0) | (matrix > 1)).to_numpy().any():
        raise IncompleteMatrixError("A Dice is outside 0 to 1")
    return matrix.rename_axis(index="donor", columns="receiver")


def deciding_matrix(
    cells: pd.DataFrame,
    donors: Sequence[str],
    receivers: Sequence[str],
    settings: SimilaritySettings,
    scalar_regions: Collection[str],
) -> pd.DataFrame:
    """Arranges the scalars that decide: of all regions in the mode `thesis`, of shared regions in `robust`.

    Args:
        cells: Rows with `donor`, `receiver`, `region`, `dice`, `tp`, `fp` and `fn`, without scalars.
        donors: Rows of the matrix, in order.
        receivers: Columns of the matrix, in order: the donors, then the validation cases.
        settings: The mode, and when a region is absent from a case.
        scalar_regions: Names of the regions that the scalar averages.

    Returns:
        Scalars in 0 to 1, shape (donors, receivers); NaN where no region is defined, or none is shared.

    Raises:
        IncompleteMatrixError: A cell has no row, or more than one.
    """
    if settings.mode == "robust":
        cells = only_shared_regions(cells, settings.absent_share)
    return dice_matrix(with_scalar(cells, ["donor", "receiver"], scalar_regions), donors, receivers)


def without_gaps(matrix: pd.DataFrame) -> pd.DataFrame:
    """Fills undefined cells, since distances need all of them.

    A cell is undefined only where no region is defined, or none is shared. It takes the mean of its receiver over
    the other donors, or 0 if every donor's is undefined.
    """
    return matrix.fillna(matrix.mean(axis=0)).fillna(0.0)


@dataclass(frozen=True)
class Dendrogram:
    """Hierarchical clustering of the donors.

    Attributes:
        linkage: SciPy's linkage matrix, shape (donors - 1, 4).
        cophenetic: Cophenetic correlation, how well the tree keeps the distances, -1 to 1.
        leaves: Donors in leaf order, the end with the lower scores last.
    """

    linkage: NDArray[np.float64]
    cophenetic: float
    leaves: list[str]


def cluster(matrix: pd.DataFrame, settings: SimilaritySettings) -> Dendrogram:
    """Clusters the donors, by average linkage (UPGMA; Sokal and Michener 1958) unless the settings say otherwise.

    Args:
        matrix: Donors by donors, Dice; the diagonal counts as any other cell of a row, gaps are filled.
        settings: Distance and linkage.

    Returns:
        The dendrogram. A plot may be flipped, so the leaves are turned to end with the half whose donors score
        lower on average.
    """
    similarity = without_gaps(matrix).to_numpy()
    distances = distances_between(similarity, np.ones(len(similarity)), settings.distance)
    tree = linkage(distances, settings.linkage, optimal_ordering=True)
    order = leaves_list(tree)
    row_means = similarity.mean(axis=1)[order]
    half = len(order) // 2
    if row_means[:half].mean() < row_means[-half:].mean():
        order = order[::-1]
    correlation = float(cophenet(tree, distances)[0]) if np.ptp(distances) > 0 else float("nan")
    return Dendrogram(tree, correlation, [str(matrix.index[place]) for place in order])


def distances_between(
    similarity: NDArray[np.float64], weights: NDArray[np.float64], distance: str
) -> NDArray[np.float64]:
    """Distances of all pairs of donors, in SciPy's condensed form.

    Args:
        similarity: Donors by donors, without gaps.
        weights: How often each receiver counts.
        distance: `rows`: Euclidean distance of the donors' rows. `symmetric`: 1 - (S + S') / 2, where a pair has
            two cells and no receivers that could count more or less.
    """
    if distance == "rows":
        return pdist(similarity * np.sqrt(weights), "euclidean")
    symmetric = 1 - (similarity + similarity.T) / 2
    np.fill_diagonal(symmetric, 0.0)
    return squareform(symmetric, checks=False)


def rank_donors(matrix: pd.DataFrame) -> pd.DataFrame:
    """Ranks the donors, the worst first.

    A donor's mean is that of its row, a receiver's that of its column, both over donors and without the diagonal,
    where a model segments the case that it was trained on. The score adds the z-scores of both, so it does not
    depend on how a dendrogram is drawn.

    Args:
        matrix: Donors by donors, Dice or NaN; undefined cells are left out of the means.

    Returns:
        One row a donor with `case_id`, `donor_mean`, `receiver_mean`, `score` and `rank` (1 the worst; ties by
        case id), ordered by rank. A mean without any defined cell is NaN and counts as an average one.
    """
    values = without_diagonal(matrix)
    donor_mean, receiver_mean = (
        pd.Series(mean_of_defined(table, np.ones(len(matrix)))) for table in (values, values.T)
    )
    scores = pd.DataFrame(
        {"case_id": matrix.index.astype(str), "donor_mean": donor_mean, "receiver_mean": receiver_mean}
    )
    scores["score"] = score_of(donor_mean, receiver_mean)
    scores = scores.sort_values(["score", "case_id"], ignore_index=True)
    scores["rank"] = np.arange(1, len(scores) + 1)
    return scores


def donor_medians(matrix: pd.DataFrame) -> pd.Series:
    """Median of every row without the diagonal: how a donor teaches, whatever a few bad receivers make of it.

    Args:
        matrix: Donors by donors, Dice or NaN; undefined cells are left out.
    """
    return pd.DataFrame(without_diagonal(matrix), matrix.index).median(axis=1)


def without_diagonal(matrix: pd.DataFrame) -> NDArray[np.float64]:
    """The values of a matrix of donors by donors, the diagonal undefined."""
    values = matrix.to_numpy(dtype=float, copy=True)
    np.fill_diagonal(values, np.nan)
    return values


def mean_of_defined(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted mean of every row over the cells that are defined.

    Args:
        values: Any table, NaN where it is undefined.
        weights: One weight a column.

    Returns:
        One mean a row; NaN where no cell of any weight is defined.
    """
    defined = ~np.isnan(values)
    weight = defined @ weights
    total = np.where(defined, values, 0.0) @ weights
    return np.divide(total, weight, out=np.full(len(values), np.nan), where=weight > 0)


def score_of(donor_mean: ArrayLike, receiver_mean: ArrayLike) -> NDArray[np.float64]:
    """Score of every donor: z-score of its donor mean plus z-score of its receiver mean."""
    return (_z(np.asarray(donor_mean)) + _z(np.asarray(receiver_mean))).round(ROUNDING)


def _z(values: NDArray[np.float64]) -> NDArray[np.float64]:
    defined = values[~np.isnan(values)]
    if not len(defined) or defined.std() <= 10**-ROUNDING:
        return np.zeros_like(values)
    return np.nan_to_num((values - defined.mean()) / defined.std(), nan=0.0)
