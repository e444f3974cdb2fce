"""The Dice matrix, its clusters and the ranking of the donors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.cluster.hierarchy import cophenet, fcluster, leaves_list, linkage
from scipy.spatial.distance import pdist, squareform

from idal_assets.analysis.scores import MEAN
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


def without_gaps(matrix: pd.DataFrame) -> pd.DataFrame:
    """Fills undefined cells, since distances need all of them.

    A cell is undefined only where no region is. It takes the mean of its receiver over the other donors, or 0 if
    every donor's is undefined.
    """
    return matrix.fillna(matrix.mean(axis=0)).fillna(0.0)


@dataclass(frozen=True)
class Dendrogram:
    """UPGMA clustering of the donors.

    Attributes:
        linkage: SciPy's linkage matrix, shape (donors - 1, 4).
        cophenetic: Cophenetic correlation, how well the tree keeps the distances, -1 to 1.
        leaves: Donors in leaf order, the end with the lower scores last.
    """

    linkage: NDArray[np.float64]
    cophenetic: float
    leaves: list[str]


def cluster(matrix: pd.DataFrame, distance: str) -> Dendrogram:
    """Clusters the donors by average linkage (UPGMA; Sokal and Michener 1958).

    Args:
        matrix: Donors by donors, Dice.
        distance: `rows`: Euclidean distance of the donors' rows. `symmetric`: 1 - (S + S') / 2.

    Returns:
        The dendrogram. A plot may be flipped, so the leaves are turned to end with the half whose donors score
        lower on average.
    """
    similarity = without_gaps(matrix).to_numpy()
    if distance == "rows":
        distances = pdist(similarity, "euclidean")
    else:
        symmetric = 1 - (similarity + similarity.T) / 2
        np.fill_diagonal(symmetric, 0.0)
        distances = squareform(symmetric, checks=False)
    tree = linkage(distances, "average", optimal_ordering=True)
    order = leaves_list(tree)
    row_means = similarity.mean(axis=1)[order]
    half = len(order) // 2
    if row_means[:half].mean() < row_means[-half:].mean():
        order = order[::-1]
    correlation = float(cophenet(tree, distances)[0]) if np.ptp(distances) > 0 else float("nan")
    return Dendrogram(tree, correlation, [str(matrix.index[place]) for place in order])


def rank_donors(matrix: pd.DataFrame) -> pd.DataFrame:
    """Ranks the donors, the worst first.

    A donor's mean is that of its row, a receiver's that of its column, both over donors and without the diagonal,
    where a model segments the case that it was trained on. The score adds the z-scores of both, so it does not
    depend on how a dendrogram is drawn.

    Args:
        matrix: Donors by donors, Dice or NaN; undefined cells are left out of the means.

    Returns:
        One row a donor with `case_id`, `donor_mean`, `receiver_mean`, `score` and `rank` (1 the worst; ties by
        case id), ordered by rank.
    """
    values = matrix.to_numpy(dtype=float, copy=True)
    np.fill_diagonal(values, np.nan)
    scores = pd.DataFrame(
        {
            "case_id": matrix.index.astype(str),
            "donor_mean": np.nanmean(values, axis=1),
            "receiver_mean": np.nanmean(values, axis=0),
        }
    )
    scores["score"] = (_z(scores["donor_mean"]) + _z(scores["receiver_mean"])).round(ROUNDING)
    scores = scores.sort_values(["score", "case_id"], ignore_index=True)
    scores["rank"] = np.arange(1, len(scores) + 1)
    return scores


def _z(values: pd.Series) -> pd.Series:
    spread = values.std(ddof=0)
    return (values - values.mean()) / spread if spread > 10**-ROUNDING else values * 0.0


def worst_cluster(
    dendrogram: Dendrogram, donors: Sequence[str], scores: pd.DataFrame, settings: SimilaritySettings
) -> tuple[list[str], pd.Series]:
    """Cuts the dendrogram and finds the cluster that is worse than chance would explain.

    The tree is cut into k = 2 to N/2 clusters, and further where no cluster is small enough yet. Of all clusters
    that are not too large, singletons included, the worst has the lowest mean score times the square root of its
    size: the mean of n scores spreads with 1/sqrt(n), so a small and a large cluster are judged alike.

    Args:
        dendrogram: Clustering of the donors.
        donors: The donors in the order of the matrix.
        scores: Table of `rank_donors`.
        settings: Size of the largest cluster.

    Returns:
        The members of the worst cluster, worst first, and the cluster number of every donor at the cut that it
        was found in, indexed by case id.
    """
    by_case = scores.set_index("case_id")["score"]
    # rounded, because 0.29 of 100 is 28.999999999999996
    largest = max(1, int(round(settings.largest_cluster * len(donors), ROUNDING)))
    found: list[tuple[float, int, list[str], pd.Series]] = []
    for count in range(2, len(donors) + 1):
        if found and count > len(donors) // 2:
            break
        numbers = pd.Series(fcluster(dendrogram.linkage, count, "maxclust"), index=list(donors))
        for _, members in numbers.groupby(numbers):
            if len(members) <= largest:
                badness = float(by_case[members.index].mean() * np.sqrt(len(members)))
                found.append((badness, count, list(members.index), numbers))
    _, _, members, numbers = min(found, key=lambda candidate: (candidate[0], candidate[1]))
    return sorted(members, key=lambda case: (by_case[case], case)), numbers
