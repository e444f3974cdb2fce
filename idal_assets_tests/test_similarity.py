"""The matrix, the ranking and the dendrogram against hand-worked numbers and second implementations."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.cluster.hierarchy import cophenet, fcluster
from scipy.spatial.distance import squareform

from idal_assets.analysis.scores import dice, found_regions, only_shared_regions
from idal_assets.analysis.similarity import (
    IncompleteMatrixError,
    cluster,
    deciding_matrix,
    dice_matrix,
    rank_donors,
    without_gaps,
)
from idal_assets.settings import SimilaritySettings
from idal_assets_tests.matrices import (
    BAD,
    ROUND_OFF,
    mirrored_distances,
    naive_upgma,
    random_square,
    row_distances,
    shuffled,
    square,
    with_bad_donors,
)

pytestmark = pytest.mark.unit

SEEDS = st.integers(0, 2**32 - 1)


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


# --- regions that both cases hold ---

ROBUST, THESIS = (SimilaritySettings(mode=mode) for mode in ("robust", "thesis"))

# voxels of WT, TC and ET in the truth: "a" is a full tumour, "n" has no enhancing part, "o" is oedema alone
TRUTH = {"a": (9, 6, 3), "n": (9, 6, 0), "o": (9, 0, 0), "v": (9, 0, 3)}


def scored(found, truth=TRUTH, donors="ano"):
    """Rows of a matrix: Dice by donor, receiver and region; the size of a truth is TP + FN."""
    rows = [
        {"donor": donor, "receiver": receiver, "region": region, "dice": found(donor, receiver, region)}
        | {"tp": size // 3, "fp": 0, "fn": size - size // 3}
        for donor in donors
        for receiver, sizes in truth.items()
        for region, size in zip(("WT", "TC", "ET"), sizes, strict=True)
    ]
    return pd.DataFrame(rows)


def by_region(donor, receiver, region):
    return {"WT": 0.9, "TC": 0.6, "ET": 0.0}[region]


def test_a_cell_averages_the_regions_that_both_cases_hold():
    found = deciding_matrix(scored(by_region), list("ano"), list("anov"), ROBUST, ("WT", "TC", "ET"))
    expected = [[0.5, 0.75, 0.9, 0.45], [0.75, 0.75, 0.9, 0.9], [0.9, 0.9, 0.9, 0.9]]
    np.testing.assert_allclose(found, expected, atol=ROUND_OFF)
    everything = deciding_matrix(scored(by_region), list("ano"), list("anov"), THESIS, ("WT", "TC", "ET"))
    np.testing.assert_allclose(everything, np.full((3, 4), 0.5), atol=ROUND_OFF)


def test_cases_that_share_no_region_have_no_scalar():
    labels = scored(by_region).assign(region=lambda rows: rows["region"].map({"WT": "L1", "TC": "L2", "ET": "L3"}))
    labels = labels[labels["region"] != "L1"]
    found = deciding_matrix(labels, ["a", "n"], list("anov"), ROBUST, ("L1", "L2", "L3"))
    np.testing.assert_allclose(found, [[0.3, 0.6, np.nan, 0.0], [0.6, 0.6, np.nan, np.nan]], atol=ROUND_OFF)


def test_a_rare_kind_is_not_ranked_below_a_bad_case():
    """Wherever enhancing tumour is there or predicted, a case without it loses all of that region."""
    truth = {name: (9, 6, 0) if name in "yz" else (9, 6, 3) for name in "abcdefyz"}

    def found(donor, receiver, region):
        if region == "ET" and ((donor in "yz") != (receiver in "yz")):
            return 0.0
        return 0.7 if donor == "a" or receiver == "a" else 0.8

    cells = scored(found, truth, "abcdefyz")
    worst = {
        settings.mode: rank_donors(deciding_matrix(cells, list(truth), list(truth), settings, ("WT", "TC", "ET")))
        for settings in (ROBUST, THESIS)
    }
    assert worst["robust"]["case_id"].iloc[0] == "a"
    assert set(worst["thesis"]["case_id"].head(2)) == {"y", "z"}


# --- labels that lack what is there ---

LABELS = {"full": (100, 60, 20), "rare": (100, 60, 0), "forgotten": (100, 60, 0)}
KINDS = {f"d{number:02}": "full" for number in range(16)} | {"r1": "rare", "r2": "rare", "f1": "forgotten"}
KINDS |= {"v_full": "full", "v_rare": "rare", "v_forgotten": "forgotten"}


def forgotten_label(seed=0, regions=("whole", "core", "rim")):
    """Donors (d, r, f) and validation cases (v); the rim is the hardest region.

    Models that learned from a full label find a rim where there is one, whatever the label says, and next to
    nothing where there is none. The others find it nowhere.
    """
    rng, rows = np.random.default_rng(seed), []
    for donor, receiver in itertools.product([name for name in KINDS if name[0] != "v"], KINDS):
        truth = LABELS[KINDS[receiver]]
        knows_rim = KINDS[donor] == "full"
        rim_found = (20 if KINDS[receiver] != "rare" else rng.integers(0, 4)) if knows_rim else 0
        hits = [
            round(0.9 * truth[0]),
            round(0.8 * truth[1]),
            min(rim_found, truth[2]) * rng.integers(50, 70) // 100,
        ]
        found = [truth[0], truth[1] + rng.integers(-3, 4), rim_found]
        for region, hit, size, predicted in zip(regions, hits, truth, found, strict=True):
            counts = {"tp": hit, "fp": predicted - hit, "fn": size - hit}
            score = float(dice(**counts))
            rows.append({"donor": donor, "receiver": receiver, "region": region, "dice": score, **counts})
    return pd.DataFrame(rows)


@pytest.mark.parametrize("regions", [("whole", "core", "rim"), ("liver", "vessel", "tumour")])
def test_a_region_is_absent_only_where_the_other_models_do_not_find_it(regions):
    table = found_regions(forgotten_label(regions=regions), 0.05).xs(regions[2], level="region")
    assert list(table.index[table["absent"]]) == ["r1", "r2", "v_rare"]
    assert list(table.index[table["contradicted"]]) == ["f1", "v_forgotten"]
    # a donor's own model has no say in its case; a validation case has none
    assert table.loc[["f1", "v_forgotten"], "models"].tolist() == [18, 19]
    assert table.loc[["f1", "v_forgotten"], "found"].tolist() == [20, 20]
    assert table.loc[["f1", "d00"], "labelled"].tolist() == [0, 20]


def test_how_much_may_be_found_is_a_setting():
    cells = forgotten_label()
    rim = {share: found_regions(cells, share).xs("rim", level="region") for share in (0.0, 0.19, 0.2)}
    assert rim[0.0].loc["r1", "contradicted"]
    assert rim[0.19].loc["f1", "contradicted"]
    assert rim[0.2].loc["f1", "absent"]  # 20 of the 100 voxels of the whole


@pytest.mark.parametrize("seed", range(5))
def test_a_forgotten_label_is_among_the_worst_and_a_rare_kind_is_not(seed):
    cells = forgotten_label(seed)
    receivers = list(KINDS)
    donors = [name for name in receivers if name[0] != "v"]
    matrix = deciding_matrix(cells, donors, receivers, ROBUST, ("whole", "core", "rim"))
    ranks = rank_donors(matrix[donors]).set_index("case_id")
    third = len(donors) // 3
    assert ranks.loc["f1", "rank"] <= third
    assert (ranks.loc[["r1", "r2"], "rank"] > third).all()
    # it is bad on both sides: as a teacher, and as a case
    assert ranks["donor_mean"].idxmin() == ranks["receiver_mean"].idxmin() == "f1"


def test_what_is_absent_is_left_out_on_both_sides():
    shared = only_shared_regions(forgotten_label(), 0.05).set_index(["donor", "receiver", "region"])["dice"]
    assert shared[[("r1", "d00", "rim"), ("d00", "r1", "rim"), ("d00", "v_rare", "rim")]].isna().all()
    assert (
        shared[("f1", "d00", "rim")] == shared[("d00", "f1", "rim")] == shared[("d00", "v_forgotten", "rim")] == 0
    )
    assert shared.drop("rim", level="region").notna().all()


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


def test_a_donor_without_a_defined_cell_counts_as_average():
    matrix = square([[1, np.nan, np.nan], [0.4, 1, 0.8], [0.2, 0.6, 1]], ["a", "b", "c"])
    table = rank_donors(matrix).set_index("case_id")
    assert np.isnan(table.loc["a", "donor_mean"])
    # donor means of the others .6 .4, receiver means .3 .6 .8
    receivers = (np.array([0.3, 0.6, 0.8]) - 1.7 / 3) / np.std([0.3, 0.6, 0.8])
    np.testing.assert_allclose(table.loc[list("abc"), "score"], receivers + np.array([0, 1, -1]), atol=ROUND_OFF)


def test_a_constant_row_mean_leaves_the_order_to_the_receivers():
    matrix = square([[1, 0.1, 0.5], [0.1, 1, 0.5], [0.1, 0.5, 1]], ["a", "b", "c"])
    # donor means .3 .3 .3, receiver means .1 .3 .5
    assert rank_donors(matrix)["case_id"].tolist() == ["a", "b", "c"]


@given(seed=SEEDS)
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


@pytest.mark.parametrize(("distance", "naive"), [("rows", row_distances), ("symmetric", mirrored_distances)])
@given(seed=SEEDS, size=st.integers(2, 9))
def test_the_tree_is_that_of_a_naive_upgma(distance, naive, size, seed):
    matrix = random_square(seed, size)
    distances = naive(matrix.to_numpy())
    expected = naive_upgma(distances)
    found = cluster(matrix, SimilaritySettings(distance=distance))
    np.testing.assert_allclose(squareform(cophenet(found.linkage)), expected, atol=ROUND_OFF)
    upper = np.triu_indices(size, 1)
    if size > 2:
        correlation = np.corrcoef(distances[upper], expected[upper])[0, 1]
        assert found.cophenetic == pytest.approx(correlation, abs=ROUND_OFF)
    else:
        assert np.isnan(found.cophenetic)  # of one distance there is no correlation


@pytest.mark.parametrize("linkage", ["single", "complete", "weighted"])
def test_the_linkage_is_that_of_the_settings(linkage):
    # distances ab .1, bc .2, ac .4: c joins a and b at the nearest, the farthest, or their mean
    matrix = square([[1, 0.9, 0.6], [0.9, 1, 0.8], [0.6, 0.8, 1]], list("abc"))
    found = cluster(matrix, SimilaritySettings(distance="symmetric", linkage=linkage))
    height = {"single": 0.2, "complete": 0.4, "weighted": 0.3}[linkage]
    np.testing.assert_allclose(found.linkage[:, 2], [0.1, height], atol=ROUND_OFF)


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_cuts_equal_those_of_scikit_learn(count):
    sklearn_cluster = pytest.importorskip("sklearn.cluster")
    matrix = random_square(1, 16)
    ours = fcluster(cluster(matrix, SimilaritySettings()).linkage, count, "maxclust")
    theirs = sklearn_cluster.AgglomerativeClustering(count, linkage="average").fit_predict(matrix.to_numpy())
    assert len(set(ours)) == len(set(zip(ours, theirs, strict=True))) == count


def test_symmetric_distance_does_not_tell_donor_from_receiver_and_rows_does():
    matrix = random_square(2, 7)
    for distance, same in (("symmetric", True), ("rows", False)):
        one, other = (cluster(table, SimilaritySettings(distance=distance)) for table in (matrix, matrix.T))
        assert np.allclose(one.linkage[:, 2], other.linkage[:, 2], rtol=0, atol=ROUND_OFF) == same


def test_gaps_are_filled_before_clustering():
    matrix = random_square(3, 6)
    matrix.iloc[1, 4] = np.nan
    filled = matrix.copy()
    filled.iloc[1, 4] = matrix.iloc[[0, 2, 3, 4, 5], 4].mean()
    for distance in ("rows", "symmetric"):
        found, expected = (cluster(table, SimilaritySettings(distance=distance)) for table in (matrix, filled))
        np.testing.assert_allclose(found.linkage, expected.linkage, atol=ROUND_OFF)
        assert found.leaves == expected.leaves


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("distance", ["rows", "symmetric"])
def test_leaves_end_with_the_bad_donors_in_whatever_order_they_come(seed, distance):
    matrix = with_bad_donors(seed)
    if distance == "symmetric":
        # only a pair that is similar both ways is close
        matrix.loc[BAD, BAD] = 0.9
    for table in (matrix, matrix.iloc[::-1, ::-1], shuffled(matrix, seed)):
        leaves = cluster(table, SimilaritySettings(distance=distance)).leaves
        assert sorted(leaves) == list(matrix.index)
        assert set(leaves[-3:]) == set(BAD)
