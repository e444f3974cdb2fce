"""The worst cluster of the dendrogram, and how far clusters and ranking depend on the receivers that there are."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage

from idal_assets.analysis.similarity import (
    ROUNDING,
    distances_between,
    mean_of_defined,
    score_of,
    without_diagonal,
    without_gaps,
)
from idal_assets.settings import SimilaritySettings


@dataclass(frozen=True)
class WorstCluster:
    """The cluster of donors that should leave, if any should.

    Attributes:
        members: Its donors, the worst first; empty where no cluster should leave.
        clusters: Number of every donor's cluster at the cut that decided, indexed by case id. Where no cluster
            should leave, it is the cut of the cluster with the lowest score for its size.
        count: Into how many clusters at most this cut divides the donors.
        gain: Mean change of Dice of the validation cases when its donors leave; None in the mode `thesis`, and
            where there is no such cluster.
        reason: Why it was chosen, or why none was, in words.
    """

    members: list[str]
    clusters: pd.Series
    count: int
    gain: float | None
    reason: str


@dataclass(frozen=True)
class Stability:
    """What stays the same when the receivers are drawn anew, with replacement.

    Attributes:
        resamples: How often they were drawn.
        clusters: Mean adjusted Rand index (Hubert and Arabie 1985) of the cut into the same number of clusters and
            the original one, 1 the same, 0 as by chance. None for the distance `symmetric`, where a pair of donors
            has two cells and no receivers to draw from.
        ranking: Mean Spearman correlation of the ranking and the original one, -1 to 1.
        in_worst_cluster: Share of the draws in which a donor is in the worst cluster, indexed by case id.
    """

    resamples: int
    clusters: float | None
    ranking: float
    in_worst_cluster: pd.Series


def worst_cluster(
    tree: NDArray[np.float64], matrix: pd.DataFrame, scores: pd.DataFrame, settings: SimilaritySettings
) -> WorstCluster:
    """Cuts the dendrogram and finds the cluster that is worse than chance would explain.

    The tree is cut into k = 2 to N/2 clusters, and further where no cluster has an allowed size yet. Of all
    clusters of an allowed size the worst has the lowest mean score times the square root of its size: the mean of
    n scores spreads with 1/sqrt(n), so a small and a large cluster are judged alike. Ties go to the cut into fewer
    clusters, then by case id.

    In the mode `robust` only those take part whose leaving does not cost the validation cases: their gain, the
    mean over validation cases of the mean Dice of the donors left minus that of all donors, must be above zero. So
    a group of valid cases of a rare kind stays, as long as some validation case is of its kind. Where there are no
    validation cases, the donors outside the cluster serve, without the diagonal. That is optimistic: a rare kind
    that leaves is no longer there to be missed. Cells that are undefined are left out of all means, and so is a
    receiver of which none is left.

    Args:
        tree: SciPy's linkage matrix of the donors, heights rising.
        matrix: Scalars, donors by donors and then validation cases.
        scores: Table of `rank_donors`.
        settings: Mode and sizes.

    Returns:
        The worst cluster; it is empty where no cluster has an allowed size or none has a gain.
    """
    donors = list(matrix.index)
    by_case = scores.set_index("case_id")["score"]
    decision = _Decision(matrix, settings)
    chosen = decision.choose(tree, by_case.loc[donors].to_numpy(), decision.same_weights())
    numbers = pd.Series(fcluster(tree, chosen.count, "maxclust"), index=donors)
    members = [case for case, is_inside in zip(donors, chosen.members, strict=True) if is_inside]
    members.sort(key=lambda case: (by_case[case], case))
    return WorstCluster(members, numbers, chosen.count, chosen.gain, decision.reason(chosen))


def stability(
    tree: NDArray[np.float64], matrix: pd.DataFrame, found: WorstCluster, settings: SimilaritySettings, seed: int
) -> Stability:
    """Draws the receivers anew with replacement, and decides again from each draw (bootstrap; Efron 1979).

    Donors as receivers and validation cases are drawn apart, as many as there are. Every draw has its own donor
    means, dendrogram, ranking and worst cluster; the receiver means are over donors, which all stay.

    Args:
        tree: SciPy's linkage matrix of the donors.
        matrix: Scalars, donors by donors and then validation cases.
        found: The worst cluster of the original.
        settings: Mode, distance, linkage, sizes and number of draws.
        seed: Seed of the draws.
    """
    donors = list(matrix.index)
    values, filled = without_diagonal(matrix[donors]), without_gaps(matrix[donors]).to_numpy()
    decision = _Decision(matrix, settings)
    same = np.ones(len(donors))
    receiver_mean = mean_of_defined(values.T, same)
    original = decision.ranks(score_of(mean_of_defined(values, same), receiver_mean))
    rng = np.random.default_rng(seed)
    rand, spearman, inside = [], [], np.zeros(len(donors))
    for _ in range(settings.stability_resamples):
        weights = _drawn(rng, len(donors))
        score = score_of(mean_of_defined(values, weights), receiver_mean)
        # Spearman's correlation is Pearson's of the ranks
        spearman.append(np.corrcoef(original, decision.ranks(score))[0, 1])
        drawn_tree = tree
        if settings.distance == "rows":
            drawn_tree = linkage(distances_between(filled, weights, settings.distance), settings.linkage)
            numbers = fcluster(drawn_tree, found.count, "maxclust")
            rand.append(adjusted_rand_index(found.clusters.to_numpy(), numbers))
        judges = weights if decision.donors_judge else _drawn(rng, decision.judges)
        inside += decision.choose(drawn_tree, score, judges).members
    return Stability(
        settings.stability_resamples,
        float(np.mean(rand)) if rand else None,
        float(np.mean(spearman)),
        pd.Series(inside / settings.stability_resamples, index=donors),
    )


def adjusted_rand_index(one: NDArray[np.int_], other: NDArray[np.int_]) -> float:
    """How far two clusterings agree on which pairs belong together, corrected for chance (Hubert and Arabie 1985).

    Args:
        one: Cluster number of every item.
        other: Those of the other clustering, in the same order.

    Returns:
        1 where they are the same, 0 on average for clusterings by chance.
    """
    table = np.zeros((one.max() + 1, other.max() + 1), int)
    np.add.at(table, (one, other), 1)
    together, in_one, in_other = (
        float((sizes * (sizes - 1)).sum() / 2) for sizes in (table, table.sum(axis=1), table.sum(axis=0))
    )
    pairs = len(one) * (len(one) - 1) / 2
    expected, most = in_one * in_other / max(pairs, 1), (in_one + in_other) / 2
    return 1.0 if most == expected else (together - expected) / (most - expected)


def _drawn(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """How often each of some receivers comes in as many draws with replacement."""
    return np.bincount(rng.integers(count, size=count), minlength=count).astype(float)


@dataclass(frozen=True)
class _Choice:
    """A cluster, or none.

    Attributes:
        members: Whether a donor is in it, in the order of the matrix.
        count: Into how many clusters at most the deciding cut divides the donors.
        gain: What its leaving gains; None where nobody judged or nothing was chosen.
        candidates: How many clusters there were to choose from.
    """

    members: NDArray[np.bool_]
    count: int
    gain: float | None
    candidates: int


class _Decision:
    """The rule of `worst_cluster` for one matrix, whatever weights its receivers have.

    Args:
        matrix: Scalars, donors by donors and then validation cases.
        settings: Mode and sizes.
    """

    def __init__(self, matrix: pd.DataFrame, settings: SimilaritySettings) -> None:
        donors = list(matrix.index)
        validation = matrix.drop(columns=donors)
        self.judged = settings.mode == "robust"
        self.donors_judge = validation.empty
        self._values = without_diagonal(matrix[donors]) if validation.empty else validation.to_numpy(float)
        self._by_name = np.argsort([str(name) for name in donors])
        self._smallest = settings.smallest_cluster
        # rounded, because 0.29 of 100 is 28.999999999999996
        self._largest = max(1, int(round(settings.largest_cluster * len(donors), ROUNDING)))

    @property
    def judges(self) -> int:
        """Number of the receivers that judge what a cluster's leaving gains."""
        return self._values.shape[1]

    def same_weights(self) -> NDArray[np.float64]:
        """Every judge counts once."""
        return np.ones(self.judges)

    def ranks(self, score: NDArray[np.float64]) -> NDArray[np.int_]:
        """Rank of every donor, ties by case id."""
        ranks = np.empty(len(score), int)
        ranks[self._by_name[np.argsort(score[self._by_name], kind="stable")]] = np.arange(len(score))
        return ranks

    def choose(
        self, tree: NDArray[np.float64], score: NDArray[np.float64], weights: NDArray[np.float64]
    ) -> _Choice:
        """Chooses the worst cluster.

        Args:
            tree: SciPy's linkage matrix.
            score: Score of every donor, in the order of the matrix.
            weights: How often each judge counts.
        """
        parts, counts = subtrees(tree)
        sizes = parts.sum(axis=1)
        allowed = (counts >= 2) & (sizes >= self._smallest) & (sizes <= self._largest)
        nobody = np.zeros(len(score), bool)
        if not allowed.any():
            return _Choice(nobody, 2, None, 0)
        allowed &= counts <= max(len(score) // 2, counts[allowed].min())
        parts, counts, sizes = parts[allowed], counts[allowed], sizes[allowed]
        badness = (parts @ score / np.sqrt(sizes)).round(ROUNDING)
        worst_first = np.lexsort((parts[:, self._by_name].argmax(axis=1), counts, badness))
        if not self.judged:
            chosen = worst_first[0]
            return _Choice(parts[chosen], int(counts[chosen]), None, len(parts))
        gains = self._gains(parts, weights)
        for chosen in worst_first[gains[worst_first] > 0]:
            return _Choice(parts[chosen], int(counts[chosen]), float(gains[chosen]), len(parts))
        return _Choice(nobody, int(counts[worst_first[0]]), None, len(parts))

    def _gains(self, parts: NDArray[np.bool_], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean over the judges of the mean Dice of the donors left minus that of all; NaN where none can judge."""
        defined = ~np.isnan(self._values)
        values = np.where(defined, self._values, 0.0)
        total, number = values.sum(axis=0), defined.sum(axis=0)
        left = number - parts @ defined.astype(float)
        difference = np.full(left.shape, np.nan)
        np.divide(total - parts @ values, left, out=difference, where=left > 0)
        difference -= np.divide(total, number, out=np.full(len(total), np.nan), where=number > 0)
        counting = np.where(parts, 0.0, weights) if self.donors_judge else np.broadcast_to(weights, left.shape)
        counting = np.where(np.isnan(difference), 0.0, counting)
        summed, weight = (np.nan_to_num(difference) * counting).sum(axis=1), counting.sum(axis=1)
        return np.divide(summed, weight, out=np.full(len(parts), np.nan), where=weight > 0).round(ROUNDING)

    def reason(self, chosen: _Choice) -> str:
        """Why a cluster was chosen, or why none was."""
        sizes = f"{self._smallest} to {self._largest} donors"
        judges = "donors outside it" if self.donors_judge else "validation cases"
        if not chosen.candidates:
            return f"no cluster of the dendrogram has {sizes}"
        if not chosen.members.any():
            return f"none of the {chosen.candidates} clusters of {sizes} leaves the {judges} better off"
        lowest = f"lowest score for its size of {chosen.candidates} clusters of {sizes}"
        if chosen.gain is None:
            return lowest
        return f"{lowest} whose leaving does not cost; the mean Dice of the {judges} gains {chosen.gain:+.4f}"


def subtrees(tree: NDArray[np.float64]) -> tuple[NDArray[np.bool_], NDArray[np.int_]]:
    """Every cluster that a cut of the dendrogram can give, with the first cut that gives it.

    Args:
        tree: SciPy's linkage matrix, heights rising.

    Returns:
        Members, shape (2 donors - 1, donors), donors first and then merges; and the smallest k with which
        `fcluster(tree, k, "maxclust")` has this cluster. It is 0 where none has, which happens to a merge at the
        height of the one above it.
    """
    donors = len(tree) + 1
    members = np.zeros((2 * donors - 1, donors), bool)
    members[:donors] = np.eye(donors, dtype=bool)
    above = np.full(2 * donors - 1, np.inf)
    for place, pair in enumerate(tree[:, :2].astype(int)):
        members[donors + place] = members[pair[0]] | members[pair[1]]
        above[pair] = tree[place, 2]
    # A cut at the height of merge i leaves donors - 1 - i clusters, and none is cut below the leaves.
    cuts = np.concatenate([[-np.inf], tree[:, 2]])
    highest = np.searchsorted(tree[:, 2], above)
    own = np.concatenate([np.full(donors, -np.inf), tree[:, 2]])
    return members, np.where(own <= cuts[highest], donors - highest, 0)
