"""The matrix, the ranking and the clusters against hand-worked numbers and second implementations."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.cluster.hierarchy import cophenet, fcluster
from scipy.spatial.distance import squareform

from idal_assets.analysis.similarity import (
    IncompleteMatrixError,
    cluster,
    dice_matrix,
    rank_donors,
    without_gaps,
    worst_cluster,
)
from idal_assets.settings import SimilaritySettings

# Two ways to add up the same numbers; values are of the order of 1.
ROUND_OFF = 1e-12


def square(values, names=None):
    values = np.asarray(values, float)
    names = names or [f"c{number:02d}" for number in range(len(values))]
    return pd.DataFrame(values, index=names, columns=names)


def random_square(seed, size):
    return square(np.random.default_rng(seed).random((size, size)))


def shuffled(matrix, seed):
    order = np.random.default_rng(seed).permutation(len(matrix))
    return matrix.iloc[order, order]


def cells(donors="ab", receivers="abt"):
    rows = [(donor, receiver, "mean", 0.5) for donor in donors for receiver in receivers]
    rows += [(donor, receiver, "WT", 0.9) for donor in donors for receiver in receivers]
    return pd.DataFrame(rows, columns=["donor", "receiver", "region", "dice"])


# --- the matrix ---


def test_the_matrix_has_donors_as_rows_in_the_order_asked_for():
    table = cells().sample(frac=1, random_state=0)
    table.loc[(table["donor"] == "b") & (table["receiver"] == "t") & (table["region"] == "mean"), "dice"] = 0.25
    matrix = dice_matrix(table, ["b", "a"], ["t", "a", "b"])
    assert matrix.to_numpy().tolist() == [[0.25, 0.5, 0.5], [0.5, 0.5, 0.5]]
    assert (list(matrix.index), list(matrix.columns)) == (["b", "a"], ["t", "a", "b"])


def test_a_missing_cell_is_named():
    table = cells()
    lost = (table["donor"] == "b") & (table["receiver"] == "t") & (table["region"] == "mean")
    with pytest.raises(IncompleteMatrixError, match=r"1 of 6 cells .* donor b and receiver t; .*dice_row of b"):
        dice_matrix(table[~lost], ["a", "b"], ["a", "b", "t"])


def test_a_missing_row_is_counted():
    with pytest.raises(IncompleteMatrixError, match=r"3 of 9 cells .* donor c and receiver a"):
        dice_matrix(cells(), ["a", "b", "c"], ["a", "b", "t"])


def test_a_cell_that_appears_twice_is_named():
    table = pd.concat([cells(), cells().iloc[[4]]])
    with pytest.raises(IncompleteMatrixError, match="donor b and receiver b appears twice"):
        dice_matrix(table, ["a", "b"], ["a", "b", "t"])


@pytest.mark.parametrize("value", [-0.01, 1.01, np.inf])
def test_a_dice_outside_0_to_1_is_refused(value):
    table = cells()
    table.loc[2, "dice"] = value
    with pytest.raises(IncompleteMatrixError, match="outside 0 to 1"):
        dice_matrix(table, ["a", "b"], ["a", "b", "t"])


def test_an_undefined_cell_is_present():
    table = cells()
    table.loc[2, "dice"] = np.nan
    assert dice_matrix(table, ["a", "b"], ["a", "b", "t"]).isna().to_numpy().tolist() == [
        [False, False, True],
        [False, False, False],
    ]


def test_gaps_take_the_mean_of_their_receiver():
    matrix = square([[1, np.nan, np.nan], [0.2, 1, np.nan], [0.4, 0.5, np.nan]])
    assert without_gaps(matrix).to_numpy().tolist() == [[1, 0.75, 0], [0.2, 1, 0], [0.4, 0.5, 0]]


# --- the ranking ---

# donor means .3 .7 .5, receiver means .5 .4 .6; z-scores (ddof 0) are -r r 0 and 0 -r r with r = sqrt(1.5)
WORKED = [[0.9, 0.2, 0.4], [0.6, 0.9, 0.8], [0.4, 0.6, 0.9]]


def test_ranking_worked_by_hand():
    table = rank_donors(square(WORKED, ["a", "b", "c"]))
    assert table["case_id"].tolist() == ["a", "b", "c"]
    assert table["rank"].tolist() == [1, 2, 3]
    np.testing.assert_allclose(table["donor_mean"], [0.3, 0.7, 0.5], atol=ROUND_OFF)
    np.testing.assert_allclose(table["receiver_mean"], [0.5, 0.4, 0.6], atol=ROUND_OFF)
    np.testing.assert_allclose(table["score"], [-np.sqrt(1.5), 0, np.sqrt(1.5)], atol=ROUND_OFF)


@pytest.mark.parametrize("diagonal", [0.0, 1.0, np.nan])
def test_the_diagonal_never_counts(diagonal):
    values = np.array(WORKED)
    np.fill_diagonal(values, diagonal)
    pd.testing.assert_frame_equal(rank_donors(square(values)), rank_donors(square(WORKED)))


def test_undefined_cells_are_left_out_of_the_means():
    values = np.array(WORKED)
    values[0, 2] = np.nan
    table = rank_donors(square(values, ["a", "b", "c"])).set_index("case_id")
    assert table.loc["a", "donor_mean"] == 0.2
    assert table.loc["c", "receiver_mean"] == 0.8


def test_ranking_leaves_the_matrix_as_it_was():
    matrix = square(WORKED)
    before = matrix.copy()
    rank_donors(matrix)
    pd.testing.assert_frame_equal(matrix, before)


@pytest.mark.parametrize("value", [0.0, 0.1, 0.7])
@pytest.mark.parametrize("size", [2, 3, 6, 12])
def test_a_constant_matrix_scores_zero_and_ranks_by_case_id(value, size):
    # 0.1 three times over is not three times 0.1, which a z-score must not blow up to 1
    names = [f"c{number:02d}" for number in reversed(range(size))]
    table = rank_donors(square(np.full((size, size), value), names))
    assert table["score"].tolist() == [0] * size
    assert table["case_id"].tolist() == sorted(names)


def test_a_constant_row_mean_leaves_the_order_to_the_receivers():
    matrix = square([[1, 0.1, 0.5], [0.1, 1, 0.5], [0.1, 0.5, 1]], ["a", "b", "c"])
    # donor means .3 .3 .3, receiver means .1 .3 .5
    assert rank_donors(matrix)["case_id"].tolist() == ["a", "b", "c"]


@pytest.mark.parametrize("seed", range(10))
def test_ties_go_by_case_id_in_whatever_order_the_donors_come(seed):
    values = np.random.default_rng(seed).random((8, 8)).round(2)
    values[1], values[:, 1] = values[0], values[:, 0]
    values[0, 1] = values[1, 0] = 0.5
    matrix = square(values)
    table = rank_donors(matrix)
    assert table.set_index("case_id")["score"].loc["c00"] == table.set_index("case_id")["score"].loc["c01"]
    assert table["case_id"].tolist().index("c01") == table["case_id"].tolist().index("c00") + 1
    assert rank_donors(shuffled(matrix, seed))["case_id"].tolist() == table["case_id"].tolist()


# --- the dendrogram ---


def row_distances(similarity):
    return np.sqrt(((similarity[:, None] - similarity[None]) ** 2).sum(axis=2))


def mirrored_distances(similarity):
    distances = 1 - (similarity + similarity.T) / 2
    np.fill_diagonal(distances, 0)
    return distances


def naive_upgma(distances):
    """Average linkage by its definition: the mean of all pairwise distances. Returns the cophenetic distances."""
    groups = [[leaf] for leaf in range(len(distances))]
    height = np.zeros_like(distances)
    while len(groups) > 1:
        first, second = min(
            itertools.combinations(groups, 2), key=lambda pair: distances[np.ix_(pair[0], pair[1])].mean()
        )
        merged_at = distances[np.ix_(first, second)].mean()
        height[np.ix_(first, second)] = merged_at
        height[np.ix_(second, first)] = merged_at
        groups = [group for group in groups if group not in (first, second)] + [first + second]
    return height


@pytest.mark.parametrize(("distance", "naive"), [("rows", row_distances), ("symmetric", mirrored_distances)])
@pytest.mark.parametrize("size", [2, 3, 9])
@pytest.mark.parametrize("seed", range(3))
def test_the_tree_is_that_of_a_naive_upgma(distance, naive, size, seed):
    matrix = random_square(seed, size)
    distances = naive(matrix.to_numpy())
    expected = naive_upgma(distances)
    found = cluster(matrix, distance)
    np.testing.assert_allclose(squareform(cophenet(found.linkage)), expected, atol=ROUND_OFF)
    upper = np.triu_indices(size, 1)
    if size > 2:
        correlation = np.corrcoef(distances[upper], expected[upper])[0, 1]
        assert found.cophenetic == pytest.approx(correlation, abs=ROUND_OFF)
    else:
        assert np.isnan(found.cophenetic)  # of one distance there is no correlation


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_cuts_equal_those_of_scikit_learn(count):
    sklearn_cluster = pytest.importorskip("sklearn.cluster")
    matrix = random_square(1, 16)
    ours = fcluster(cluster(matrix, "rows").linkage, count, "maxclust")
    theirs = sklearn_cluster.AgglomerativeClustering(count, linkage="average").fit_predict(matrix.to_numpy())
    assert len(set(ours)) == len(set(zip(ours, theirs, strict=True))) == count


def test_symmetric_distance_does_not_tell_donor_from_receiver_and_rows_does():
    matrix = random_square(2, 7)
    for distance, same in (("symmetric", True), ("rows", False)):
        one, other = cluster(matrix, distance), cluster(matrix.T, distance)
        assert np.allclose(one.linkage[:, 2], other.linkage[:, 2], rtol=0, atol=ROUND_OFF) == same


def test_gaps_are_filled_before_clustering():
    matrix = random_square(3, 6)
    matrix.iloc[1, 4] = np.nan
    filled = matrix.copy()
    filled.iloc[1, 4] = matrix.iloc[[0, 2, 3, 4, 5], 4].mean()
    for distance in ("rows", "symmetric"):
        found, expected = cluster(matrix, distance), cluster(filled, distance)
        np.testing.assert_allclose(found.linkage, expected.linkage, atol=ROUND_OFF)
        assert found.leaves == expected.leaves


BAD = ["c03", "c07", "c08"]


def with_bad_donors(seed=0, size=12, bad=BAD):
    """Models of bad donors reach 0.3 where others reach 0.8, and every model does worse on bad cases."""
    rng = np.random.default_rng(seed)
    matrix = square(0.8 + 0.02 * rng.standard_normal((size, size)))
    matrix.loc[bad] -= 0.5
    matrix[bad] -= 0.2
    return matrix


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("distance", ["rows", "symmetric"])
def test_leaves_end_with_the_bad_donors_in_whatever_order_they_come(seed, distance):
    matrix = with_bad_donors(seed)
    if distance == "symmetric":
        # only a pair that is similar both ways is close
        matrix.loc[BAD, BAD] = 0.9
    for given in (matrix, matrix.iloc[::-1, ::-1], shuffled(matrix, seed)):
        leaves = cluster(given, distance).leaves
        assert sorted(leaves) == list(matrix.index)
        assert set(leaves[-3:]) == set(BAD)


# --- the worst cluster ---


def found_in(matrix, distance="rows", **settings):
    chosen = SimilaritySettings(distance=distance, **settings)
    return worst_cluster(cluster(matrix, distance), list(matrix.index), rank_donors(matrix), chosen)


@pytest.mark.parametrize("seed", range(5))
def test_a_coherent_group_of_bad_donors_is_found(seed):
    matrix = with_bad_donors(seed)
    members, clusters = found_in(matrix)
    assert sorted(members) == BAD
    assert members == [case for case in rank_donors(matrix)["case_id"] if case in BAD]
    assert sorted(clusters.index) == list(matrix.index)
    assert sorted(clusters.index[clusters == clusters[members[0]]]) == BAD


@pytest.mark.parametrize("seed", range(5))
def test_a_single_outlier_is_a_cluster_too(seed):
    assert found_in(with_bad_donors(seed, bad=["c05"]))[0] == ["c05"]


def test_a_cluster_larger_than_allowed_is_not_taken():
    bad = ["c00", "c01", "c02", "c03"]
    matrix = with_bad_donors(bad=bad)
    assert sorted(found_in(matrix, largest_cluster=0.34)[0]) == bad  # 4 of 12
    members, _ = found_in(matrix, largest_cluster=0.33)  # at most 3 of 12
    assert len(members) <= 3
    assert set(members) < set(bad)


def test_the_largest_cluster_is_not_lost_to_rounding():
    # 0.29 of 100 is 28.999999999999996 in floating point
    bad = [f"c{number:02d}" for number in range(29)]
    matrix = with_bad_donors(size=100, bad=bad)
    assert sorted(found_in(matrix, largest_cluster=0.29)[0]) == bad


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
    assert sorted(found_in(matrix)[0]) == [matrix.index[leaf] for leaf in best]


@pytest.mark.parametrize("size", range(2, 13))
@pytest.mark.parametrize("distance", ["rows", "symmetric"])
def test_there_is_always_a_worst_cluster(size, distance):
    matrices = [random_square(seed, size) for seed in range(5)]
    matrices += [square(np.full((size, size), 0.5)), square(np.eye(size))]
    pairs = np.repeat(np.repeat(np.random.default_rng(0).random((6, 6)), 2, axis=0), 2, axis=1)
    matrices.append(square(pairs[:size, :size]))
    for matrix in matrices:
        members, clusters = found_in(matrix, distance)
        assert 1 <= len(members) <= max(1, size // 4)
        assert len(set(members)) == len(members)
        assert set(members) <= set(matrix.index)
        assert len(clusters) == size
