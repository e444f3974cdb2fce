"""The worst cluster of the dendrogram, if one stands out, and how far all depends on the receivers."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage

from idal_assets.analysis.chance import matrices_by_chance, robust_z, row_effects, share_as_low
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
        members: Its donors, the worst first; empty where no cluster stands out.
        clusters: Number of every donor's cluster at the cut that decided, indexed by case id. Where no cluster
            stands out, it is the cut of the cluster with the lowest score for its size.
        count: Into how many clusters at most this cut divides the donors.
        deficit: How far the mean Dice of its models lies below that of the others, on the validation cases; None
            where there is no such cluster.
        p: Share of matrices by chance in which the models of some cluster are as low as those of this one, or of
            the one that came next to standing out; None where there is none.
        reason: Why it was chosen, or why none was, in words.
    """

    members: list[str]
    clusters: pd.Series
    count: int
    deficit: float | None
    p: float | None
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
        in_worst_cluster: Share of the draws in which a donor is in the cluster with the lowest score for its size
            whose models are below the others (mode `thesis`: with the lowest score), whether it stands out or not;
            indexed by case id.
    """

    resamples: int
    clusters: float | None
    ranking: float
    in_worst_cluster: pd.Series


def worst_cluster(
    tree: NDArray[np.float64], matrix: pd.DataFrame, scores: pd.DataFrame, settings: SimilaritySettings, seed: int
) -> WorstCluster:
    """Cuts the dendrogram and finds the cluster that is worse than chance would explain, if there is one.

    The tree is cut into k = 2 to N/2 clusters, and further where no cluster has an allowed size yet. Of all
    clusters of an allowed size the worst has the lowest mean score times the square root of its size: the mean of
    n scores spreads with 1/sqrt(n), so a small and a large cluster are judged alike. Ties go to the cut into fewer
    clusters, then by case id.

    In the mode `robust` it must pass three conditions, and the next one is looked at where it does not. It scores
    below average. Its models are below the others on the validation cases, so that a group of valid cases of a
    rare kind stays, as long as some validation case is of its kind; without validation cases the donors outside
    the cluster serve, without the diagonal, which is optimistic: a rare kind that leaves is no longer there to be
    missed. And its models are lower than the noise of rows explains (`_Search`). The mode `thesis` takes the worst
    and says the p-value only. Cells that are undefined are left out of all means.

    Args:
        tree: SciPy's linkage matrix of the donors, heights rising.
        matrix: Scalars, donors by donors and then validation cases.
        scores: Table of `rank_donors`.
        settings: Mode, sizes, distance, linkage, and how sure it must be.
        seed: Seed of the matrices by chance.

    Returns:
        The worst cluster; it is empty where no cluster has an allowed size or, in the mode `robust`, none stands
        out.
    """
    donors = list(matrix.index)
    by_case = scores.set_index("case_id")["score"]
    decision = _Decision(matrix, settings)
    found = decision.candidates(tree, by_case.loc[donors].to_numpy(), decision.same_weights())
    chances = _Search(matrix, settings).chances(found.parts[found.eligible], seed)
    likely = chances > 1 - settings.level
    none_named = decision.judged and bool(likely.all())
    place = 0 if none_named or not decision.judged else int((~likely).argmax())
    first = found.eligible[place] if len(found.eligible) else None
    named = first is not None and not none_named
    count = found.counts[first if named else 0] if len(found.counts) else 2
    numbers = pd.Series(fcluster(tree, int(count), "maxclust"), index=donors)
    inside = [] if first is None else [donors[donor] for donor in np.flatnonzero(found.parts[first])]
    inside.sort(key=lambda case: (by_case[case], case))
    deficit = None if first is None or np.isnan(found.deficits[first]) else float(found.deficits[first])
    p = None if first is None else float(chances[place])
    reason = decision.reason(len(found.parts), inside, named, deficit, p)
    return WorstCluster(inside if named else [], numbers, int(count), deficit if named else None, p, reason)


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
        again = decision.candidates(drawn_tree, score, judges)
        inside += again.parts[again.eligible[:1]].sum(axis=0)
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
class _Candidates:
    """The clusters of an allowed size, the worst first.

    Attributes:
        parts: Whether a donor is in it, one row a cluster, in the order of the matrix.
        counts: Into how many clusters at most the cut divides the donors that gives it.
        deficits: How far its models are below the others where it matters; NaN where nobody can judge.
        eligible: Places of those that may be the worst cluster, as far as score and deficit say.
    """

    parts: NDArray[np.bool_]
    counts: NDArray[np.int_]
    deficits: NDArray[np.float64]
    eligible: NDArray[np.int_]


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
        self._settings = settings

    @property
    def judges(self) -> int:
        """Number of the receivers that judge whether the models of a cluster are below the others."""
        return self._values.shape[1]

    def same_weights(self) -> NDArray[np.float64]:
        """Every judge counts once."""
        return np.ones(self.judges)

    def ranks(self, score: NDArray[np.float64]) -> NDArray[np.int_]:
        """Rank of every donor, ties by case id."""
        ranks = np.empty(len(score), int)
        ranks[self._by_name[np.argsort(score[self._by_name], kind="stable")]] = np.arange(len(score))
        return ranks

    def candidates(
        self, tree: NDArray[np.float64], score: NDArray[np.float64], weights: NDArray[np.float64]
    ) -> _Candidates:
        """The clusters to choose from.

        Args:
            tree: SciPy's linkage matrix.
            score: Score of every donor, in the order of the matrix.
            weights: How often each judge counts.
        """
        parts, counts = allowed_clusters(tree, self._settings)
        badness = (parts @ score / np.sqrt(parts.sum(axis=1))).round(ROUNDING)
        worst_first = np.lexsort((parts[:, self._by_name].argmax(axis=1), counts, badness))
        parts, counts, badness = parts[worst_first], counts[worst_first], badness[worst_first]
        deficits = self._deficits(parts, weights)
        may = (deficits > 0) & (badness < 0) if self.judged else np.ones(len(parts), bool)
        return _Candidates(parts, counts, deficits, np.flatnonzero(may))

    def _deficits(self, parts: NDArray[np.bool_], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean over the judges of the mean Dice of the other donors' models minus that of the cluster's."""
        defined = ~np.isnan(self._values)
        values = np.where(defined, self._values, 0.0)
        inside, outside = (
            _ratio(chosen @ values, chosen @ defined.astype(float)) for chosen in (parts * 1.0, ~parts * 1.0)
        )
        difference = outside - inside
        counting = np.where(parts, 0.0, weights) if self.donors_judge else np.broadcast_to(weights, inside.shape)
        counting = np.where(np.isnan(difference), 0.0, counting)
        return _ratio((np.nan_to_num(difference) * counting).sum(axis=1), counting.sum(axis=1)).round(ROUNDING)

    def reason(self, clusters: int, inside: list[str], named: bool, deficit: float | None, p: float | None) -> str:
        """Why a cluster was chosen, or why none was.

        Args:
            clusters: How many of an allowed size there are.
            inside: The donors of the one that was chosen or came next to it; empty where none may be chosen.
            named: Whether it was chosen.
            deficit: Its deficit.
            p: Its p-value.
        """
        sizes = sizes_in_words(self._settings, len(self._by_name))
        judges = "donors outside it" if self.donors_judge else "validation cases"
        if not clusters:
            return f"no cluster of the dendrogram has {sizes}"
        among = f"{clusters} clusters of {sizes}"
        if not inside:
            return f"none of the {among} scores below average with models below the others on the {judges}"
        if not self.judged:
            return f"lowest score for its size of {among}; the noise of rows has one as low with p = {p:.3f}"
        if deficit is None:
            raise AssertionError("a cluster that was judged has a deficit")
        below = f"its models are {deficit:.4f} below the others on the {judges} (mean Dice)"
        if not named:
            return (
                f"no cluster stands out; of the {among} the lowest is {', '.join(inside)}: {below}, and the noise "
                f"of rows has one as low with p = {p:.3f}"
            )
        return f"lowest score for its size of {among} that stand out; {below}, p = {p:.3f}"


class _Search:
    """How low the models of the lowest cluster are where no donor is worse than the others.

    The statistic of a cluster is the sum of the robust z of its row effects, over the square root of its size. The
    whole search is repeated on each matrix by chance: its own dendrogram, its own cuts, its own lowest cluster.
    What is compared is the lowest of all, so it does not matter how many clusters there were to choose from.

    Args:
        matrix: Scalars, donors by donors and then validation cases.
        settings: Distance, linkage, sizes and number of matrices.
    """

    def __init__(self, matrix: pd.DataFrame, settings: SimilaritySettings) -> None:
        self._values = matrix.to_numpy(float)
        self._filled = without_gaps(matrix).to_numpy(float)
        self._settings = settings

    def chances(self, parts: NDArray[np.bool_], seed: int) -> NDArray[np.float64]:
        """A p-value for each of some clusters, given by their members.

        Args:
            parts: Whether a donor is in it, one row a cluster.
            seed: Seed of the matrices by chance.
        """
        if not len(parts):
            return np.empty(0)
        made = matrices_by_chance(self._filled, self._settings.permutations, seed)
        lowest = [self._lowest(values) for values in made]
        return share_as_low(_lowness(parts, self._values), np.array(lowest))

    def _lowest(self, values: NDArray[np.float64]) -> float:
        among_donors = values[:, : len(values)]
        distances = distances_between(among_donors, np.ones(len(values)), self._settings.distance)
        parts, _ = allowed_clusters(linkage(distances, self._settings.linkage), self._settings)
        return float(_lowness(parts, values).min(initial=0.0))


def _lowness(parts: NDArray[np.bool_], values: NDArray[np.float64]) -> NDArray[np.float64]:
    return (parts @ robust_z(row_effects(values)) / np.sqrt(parts.sum(axis=1))).round(ROUNDING)


def _ratio(part: NDArray[np.floating], total: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.divide(part, total, out=np.full(np.shape(total), np.nan), where=total > 0)


def _sizes(settings: SimilaritySettings, donors: int) -> tuple[int, int]:
    """Fewest and most donors of the worst cluster."""
    # rounded, because 0.29 of 100 is 28.999999999999996
    return settings.smallest_cluster, max(1, int(round(settings.largest_cluster * donors, ROUNDING)))


def sizes_in_words(settings: SimilaritySettings, donors: int) -> str:
    """Which sizes are allowed."""
    smallest, largest = _sizes(settings, donors)
    return f"{smallest} to {largest} donors"


def allowed_clusters(
    tree: NDArray[np.float64], settings: SimilaritySettings
) -> tuple[NDArray[np.bool_], NDArray[np.int_]]:
    """The clusters of an allowed size that a cut gives, as of `subtrees`.

    Cuts are those into 2 to N/2 clusters, and further where none of these has a cluster of an allowed size.
    """
    parts, counts = subtrees(tree)
    smallest, largest = _sizes(settings, parts.shape[1])
    sizes = parts.sum(axis=1)
    allowed = (counts >= 2) & (sizes >= smallest) & (sizes <= largest)
    if allowed.any():
        allowed &= counts <= max(parts.shape[1] // 2, counts[allowed].min())
    return parts[allowed], counts[allowed]


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
