"""The worst cluster and the stability of decisions, against hand-worked numbers and second implementations."""

import numpy as np
import pandas as pd
import pytest
from scipy.cluster.hierarchy import fcluster

from idal_assets.analysis.clusters import adjusted_rand_index, stability, subtrees, worst_cluster
from idal_assets.analysis.similarity import cluster, rank_donors
from idal_assets.settings import SimilaritySettings
from idal_assets_tests.matrices import BAD, naive_upgma, random_square, row_distances, square, with_bad_donors

pytestmark = pytest.mark.unit


def found_in(matrix, distance="rows", mode="thesis", **settings):
    """The worst cluster of a matrix of donors by donors and then validation cases."""
    # level 0: whether it is worse than chance explains does not count
    chosen = SimilaritySettings(**{"distance": distance, "mode": mode, "level": 0, "permutations": 19, **settings})
    donors = matrix[list(matrix.index)]
    return worst_cluster(cluster(donors, chosen).linkage, matrix, rank_donors(donors), chosen, seed=0)


# --- the lowest score for its size ---


@pytest.mark.parametrize("seed", range(5))
def test_a_coherent_group_of_bad_donors_is_found(seed):
    matrix = with_bad_donors(seed)
    found = found_in(matrix)
    members, clusters = found.members, found.clusters
    assert sorted(members) == BAD
    assert members == [case for case in rank_donors(matrix)["case_id"] if case in BAD]
    assert sorted(clusters.index) == list(matrix.index)
    assert sorted(clusters.index[clusters == clusters[members[0]]]) == BAD


@pytest.mark.parametrize("seed", range(5))
def test_a_single_outlier_is_a_cluster_too(seed):
    assert found_in(with_bad_donors(seed, bad=["c05"])).members == ["c05"]


def test_a_cluster_larger_than_allowed_is_not_taken():
    bad = ["c00", "c01", "c02", "c03"]
    matrix = with_bad_donors(bad=bad)
    assert sorted(found_in(matrix, largest_cluster=0.34).members) == bad  # 4 of 12
    members = found_in(matrix, largest_cluster=0.33).members  # at most 3 of 12
    assert len(members) <= 3
    assert set(members) < set(bad)


def test_the_largest_cluster_is_not_lost_to_rounding():
    # 0.29 of 100 is 28.999999999999996 in floating point
    bad = [f"c{number:02d}" for number in range(29)]
    matrix = with_bad_donors(size=100, bad=bad)
    assert sorted(found_in(matrix, largest_cluster=0.29).members) == bad


def cut_naively(height, count):
    """Parts of a tree with distinct merges, cut into `count` clusters."""
    merges = np.unique(height[np.triu_indices(len(height), 1)])
    threshold = np.concatenate([[-1], merges])[len(height) - count]
    return {
        tuple(np.flatnonzero(row <= threshold)) if threshold >= 0 else (leaf,) for leaf, row in enumerate(height)
    }


@pytest.mark.parametrize("seed", range(12))
def test_the_worst_cluster_has_the_lowest_mean_score_for_its_size(seed):
    size = 8 + seed
    matrix = random_square(seed, size)
    height = naive_upgma(row_distances(matrix.to_numpy()))
    scores = rank_donors(matrix).set_index("case_id")["score"].loc[list(matrix.index)].to_numpy()
    candidates = {part for count in range(2, size // 2 + 1) for part in cut_naively(height, count)}
    small = [part for part in candidates if len(part) <= size // 4]
    if not small:
        pytest.fail("choose another seed: no cut has a cluster that is small enough")
    best = min(small, key=lambda part: scores[list(part)].sum() / np.sqrt(len(part)))
    assert sorted(found_in(matrix).members) == [matrix.index[leaf] for leaf in best]


@pytest.mark.parametrize("size", range(2, 13))
@pytest.mark.parametrize("distance", ["rows", "symmetric"])
def test_the_mode_of_the_thesis_always_finds_one(size, distance):
    matrices = [random_square(seed, size) for seed in range(2)]
    matrices += [square(np.full((size, size), 0.5)), square(np.eye(size))]
    pairs = np.repeat(np.repeat(np.random.default_rng(0).random((6, 6)), 2, axis=0), 2, axis=1)
    matrices.append(square(pairs[:size, :size]))
    for matrix in matrices:
        found = found_in(matrix, distance)
        members, clusters = found.members, found.clusters
        assert 1 <= len(members) <= max(1, size // 4)
        assert len(set(members)) == len(members)
        assert set(members) <= set(matrix.index)
        assert len(clusters) == size


def test_the_size_has_two_ends():
    matrix = with_bad_donors(bad=["c05"])
    assert len(found_in(matrix, smallest_cluster=2).members) >= 2
    none = found_in(matrix, smallest_cluster=4)
    assert none.members == []
    assert none.reason == "no cluster of the dendrogram has 4 to 3 donors"
    assert sorted(none.clusters.index) == list(matrix.index)


def tied(size):
    values = np.repeat(np.repeat(np.random.default_rng(size).random((9, 9)), 2, axis=0), 2, axis=1)
    return square(values[:size, :size])


@pytest.mark.parametrize(
    "matrix",
    [*(random_square(seed, 11) for seed in range(4)), tied(12), tied(9), square(np.full((6, 6), 0.5))],
)
@pytest.mark.parametrize("linkage", ["average", "single", "complete", "weighted"])
def test_subtrees_are_the_clusters_of_the_cuts(matrix, linkage):
    tree = cluster(matrix, SimilaritySettings(linkage=linkage)).linkage
    first: dict[tuple[int, ...], int] = {}
    for count in range(len(matrix), 0, -1):
        numbers = fcluster(tree, count, "maxclust")
        first |= {tuple(np.flatnonzero(numbers == number)): count for number in set(numbers)}
    members, counts = subtrees(tree)
    found = {tuple(np.flatnonzero(part)): count for part, count in zip(members, counts, strict=True) if count}
    assert found == first


# --- what its leaving does to the validation cases ---

# Five good donors, a bad one and two of a rare kind, whose models do well on their kind alone.
KINDS = dict.fromkeys("abcde", "good") | {"f": "bad"} | dict.fromkeys("yz", "rare")
DICE = {
    ("good", "good"): 0.8,
    ("good", "bad"): 0.55,
    ("good", "rare"): 0.4,
    ("bad", "good"): 0.6,
    ("bad", "bad"): 0.6,
    ("bad", "rare"): 0.6,
    ("rare", "good"): 0.5,
    ("rare", "bad"): 0.55,
    ("rare", "rare"): 0.85,
}


def judged_by(**validation):
    """The matrix of these donors; each validation case has the Dice of good, bad and rare donors."""
    columns = {name: [DICE[kind, KINDS[name]] for kind in KINDS.values()] for name in KINDS}
    for name, (good, bad, rare) in validation.items():
        columns[name] = [{"good": good, "bad": bad, "rare": rare}[kind] for kind in KINDS.values()]
    return pd.DataFrame(columns, index=list(KINDS))


GOOD_CASE, RARE_CASE = (0.8, 0.6, 0.5), (0.4, 0.3, 0.85)


def test_a_rare_kind_stays_where_a_validation_case_needs_it():
    matrix = judged_by(v=GOOD_CASE, w=RARE_CASE)
    assert found_in(matrix).members == ["y", "z"]
    found = found_in(matrix, mode="robust")
    assert found.members == ["f"]
    # f: .6 on v, the others (5 * .8 + 2 * .5) / 7; .3 on w, the others (5 * .4 + 2 * .85) / 7; y, z are above on w
    assert found.deficit == pytest.approx(((5 / 7 - 0.6) + (3.7 / 7 - 0.3)) / 2, abs=1e-11)
    assert found.reason == (
        "lowest score for its size of 2 clusters of 1 to 2 donors that stand out; its models are 0.1714 below the "
        f"others on the validation cases (mean Dice), p = {found.p:.3f}"
    )
    assert found.count == found.clusters.nunique() == 3


def test_it_leaves_where_it_is_below_the_others_on_all_validation_cases():
    found = found_in(judged_by(v=GOOD_CASE), mode="robust")
    assert found.members == ["y", "z"]
    assert found.deficit == pytest.approx(4.6 / 6 - 0.5, abs=1e-11)


def test_without_validation_cases_the_other_donors_judge():
    found = found_in(judged_by(), mode="robust")
    assert found.members == ["y", "z"]
    # a good receiver: .5, the others (4 * .8 + .6) / 5; the bad one: .55 of all
    assert found.deficit == pytest.approx((5 * (3.8 / 5 - 0.5) + 0) / 6, abs=1e-11)
    assert "donors outside it" in found.reason


def test_no_cluster_is_the_worst_where_all_are_above_the_others():
    found = found_in(judged_by(v=(0.4, 0.6, 0.85)), mode="robust")
    assert (found.members, found.deficit, found.p) == ([], None, None)
    assert found.reason == (
        "none of the 2 clusters of 1 to 2 donors scores below average with models below the others on the "
        "validation cases"
    )
    assert found.clusters.nunique() == 3


def test_a_good_cluster_is_not_the_worst_although_it_is_below_the_others():
    # the best donor by far fails on the validation case, which the bad one alone can segment
    matrix = with_bad_donors(bad=["c05"])
    matrix.loc["c00", matrix.columns] += 0.15
    matrix["v"] = 0.5
    matrix.loc[["c00", "c05"], "v"] = 0.1, 0.9
    found = found_in(matrix, mode="robust", largest_cluster=0.1)
    assert found.members == []


def test_models_like_the_others_are_not_below_them():
    assert found_in(judged_by(v=(0.5, 0.5, 0.5)), mode="robust").members == []


def test_undefined_cells_do_not_judge():
    matrix = judged_by(v=GOOD_CASE, w=RARE_CASE)
    expected = found_in(matrix, mode="robust")
    matrix["nothing"] = np.nan
    assert found_in(matrix, mode="robust").deficit == expected.deficit
    matrix.loc[matrix.index != "f", "nothing"] = np.nan
    matrix.loc["f", "nothing"] = 0.9  # there are no others to be compared with
    assert found_in(matrix, mode="robust").deficit == expected.deficit


# --- more than chance ---


def noise(seed, donors, validation=0, spread=0.0):
    """A matrix in which no donor is worse than ordinary ones; those differ by `spread`, and cases differ too."""
    rng = np.random.default_rng(seed)
    values = 0.7 + 0.05 * rng.standard_normal((donors, donors + validation))
    values += spread * rng.standard_normal((donors, 1)) + 0.05 * rng.standard_normal(donors + validation)
    names = [f"c{number:03}" for number in range(donors)]
    return pd.DataFrame(values, index=names, columns=[*names, *(f"v{number}" for number in range(validation))])


@pytest.mark.parametrize("spread", [0.0, 0.03])
@pytest.mark.parametrize("validation", [0, 4, 50])
def test_pure_noise_names_no_cluster(validation, spread):
    judged = [
        found_in(noise(seed, 20, validation, spread), mode="robust", level=0.95, permutations=19)
        for seed in range(40)
    ]
    assert sum(bool(found.members) for found in judged) <= 5  # 2 are to be expected
    said = next(found for found in judged if found.p is not None and not found.members)
    assert said.reason.startswith("no cluster stands out; of the ")
    assert f"p = {said.p:.3f}" in said.reason
    # without the test nearly each of these matrices has a worst cluster
    without = [found_in(noise(seed, 20, validation, spread), mode="robust").members for seed in range(10)]
    assert sum(map(bool, without)) >= 8


@pytest.mark.parametrize("validation", [0, 4, 50])
@pytest.mark.parametrize("size", [20, 60])
def test_a_bad_cluster_is_named(size, validation):
    bad = ["c000", "c001", "c002"]
    for seed in range(3):
        matrix = noise(seed, size, validation, spread=0.01)
        # alike in what they get wrong, so that they are a cluster
        matrix.loc[bad] -= 0.2 + 0.1 * np.random.default_rng(seed).standard_normal(matrix.shape[1])
        found = found_in(matrix, mode="robust", level=0.99, permutations=99)
        # one that is easy to segment may score too well to leave with the others
        assert set(found.members) <= set(bad)
        assert len(found.members) >= 2
        assert found.p == 1 / 100
        assert found.deficit == pytest.approx(0.2, abs=0.15)


def test_the_mode_of_the_thesis_says_the_chance_and_takes_the_worst_anyway():
    found = found_in(noise(0, 20), level=0.99, permutations=99)
    assert found.members
    assert found.p > 0.01
    assert found.reason.endswith(f"the noise of rows has one as low with p = {found.p:.3f}")


def test_where_one_cluster_does_not_stand_out_the_next_may():
    """The lowest score belongs to a hard case whose model is no worse than others."""
    matrix = noise(1, 20, spread=0.01)
    matrix["c000"] -= 0.6
    matrix["c001"] += 0.1
    matrix.loc["c001"] -= 0.15
    scores = rank_donors(matrix)
    assert scores["case_id"].iloc[0] == "c000"
    assert found_in(matrix, mode="robust", level=0.99, permutations=199).members == ["c001"]


# --- stability ---


def stability_of(matrix, seed=0, **settings):
    chosen = SimilaritySettings(**{"permutations": 19, "level": 0, **settings})
    donors = matrix[list(matrix.index)]
    tree = cluster(donors, chosen).linkage
    found = worst_cluster(tree, matrix, rank_donors(donors), chosen, seed)
    return found, stability(tree, matrix, found, chosen, seed)


@pytest.mark.parametrize("mode", ["robust", "thesis"])
@pytest.mark.parametrize("validation", [(), ("v", "w")])
def test_receivers_that_are_all_alike_leave_everything_as_it_is(mode, validation):
    teaches = dict(zip("abcdefgh", (0.8, 0.81, 0.83, 0.84, 0.79, 0.3, 0.32, 0.78), strict=True))
    matrix = pd.DataFrame({name: list(teaches.values()) for name in (*teaches, *validation)}, index=list(teaches))
    found, stays = stability_of(matrix, mode=mode)
    # a donor is not among its own receivers, so here its receiver mean undoes its donor mean: all score 0
    assert bool(found.members) == (mode == "thesis")
    assert (stays.clusters, stays.ranking) == pytest.approx((1.0, 1.0), abs=1e-12)
    assert stays.in_worst_cluster.to_dict() == {name: float(name in found.members) for name in teaches}
    assert stays.resamples == 200


def test_receivers_that_disagree_show_in_all_three_numbers():
    matrix = random_square(4, 12)
    _, stays = stability_of(matrix, stability_resamples=50)
    assert 0 < stays.clusters < 0.9
    assert 0 < stays.ranking < 0.99
    assert stays.in_worst_cluster.between(0, 1).all()
    assert (stays.in_worst_cluster > 0).sum() > 1
    _, again = stability_of(matrix, stability_resamples=50)
    pd.testing.assert_series_equal(again.in_worst_cluster, stays.in_worst_cluster)
    assert (again.clusters, again.ranking) == (stays.clusters, stays.ranking)
    _, other = stability_of(matrix, seed=1, stability_resamples=50)
    assert other.ranking != stays.ranking


def test_an_outlier_stays_the_worst():
    _, stays = stability_of(with_bad_donors(bad=["c05"]), mode="robust")
    assert stays.in_worst_cluster["c05"] == 1
    assert stays.in_worst_cluster.sum() == 1


def test_the_symmetric_distance_has_no_receivers_to_draw():
    _, stays = stability_of(random_square(1, 8), distance="symmetric")
    assert stays.clusters is None
    assert 0 < stays.ranking < 1


@pytest.mark.parametrize("size", [2, 3])
def test_few_donors_have_a_stability_too(size):
    found, stays = stability_of(random_square(0, size))
    assert np.isfinite([stays.clusters, stays.ranking]).all()
    assert len(found.members) <= 1


def test_the_adjusted_rand_index_worked_by_hand():
    # pairs together in both 1, in the first 2, in the second 4, of 10: (1 - .8) / (3 - .8)
    one, other = np.array([1, 1, 2, 2, 3]), np.array([1, 1, 1, 2, 2])
    assert adjusted_rand_index(one, other) == pytest.approx(0.2 / 2.2)
    assert adjusted_rand_index(one, np.array([5, 5, 4, 4, 1])) == 1
    assert adjusted_rand_index(np.ones(4, int), np.ones(4, int)) == 1
    assert adjusted_rand_index(np.arange(4), np.arange(4)) == 1


@pytest.mark.parametrize("seed", range(5))
def test_the_adjusted_rand_index_is_that_of_scikit_learn(seed):
    metrics = pytest.importorskip("sklearn.metrics")
    one, other = np.random.default_rng(seed).integers(1, 6, (2, 30))
    assert adjusted_rand_index(one, other) == pytest.approx(metrics.adjusted_rand_score(one, other), abs=1e-12)
