"""Voxel counts, Dice and IoU against sets of voxels counted one by one."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from idal_assets.analysis.scores import MEAN, confusion, dice, iou, score_table, with_scalar
from idal_assets.anatomy import Anatomy
from idal_assets.imaging.brain_tumour import BRAIN_TUMOUR

pytestmark = pytest.mark.unit

REGION_LABELS = {"WT": {1, 2, 3}, "TC": {2, 3}, "ET": {3}, "L1": {1}, "L2": {2}, "L3": {3}}


def random_pair(seed):
    """Two label volumes that agree in part."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, (3, 4, 5), dtype=np.uint8)
    return truth, np.where(rng.random(truth.shape) < 0.5, truth, rng.integers(0, 4, truth.shape, dtype=np.uint8))


PAIRS = array_shapes(min_dims=3, max_dims=3, max_side=4).flatmap(
    lambda shape: st.tuples(*[arrays(np.uint8, shape, elements=st.integers(0, 3))] * 2)
)
"""Two label volumes of one shape, which may lack labels."""


def voxels(volume, labels):
    return {place for place in itertools.product(*map(range, volume.shape)) if int(volume[place]) in labels}


def counted(truth, predicted):
    return confusion(np.asarray(truth, np.uint8), np.asarray(predicted, np.uint8), BRAIN_TUMOUR)


def table_of(truth, predicted, hd95=None):
    return score_table(counted(truth, predicted), BRAIN_TUMOUR.regions, hd95)


def scores_of(truth, predicted):
    table = table_of(truth, predicted)
    return table.set_index("region")


@given(PAIRS)
def test_counts_dice_and_iou_equal_those_of_voxel_sets(pair):
    truth, predicted = pair
    table = scores_of(truth, predicted)
    assert list(table.index) == list(REGION_LABELS)
    for region, labels in REGION_LABELS.items():
        there, found = voxels(truth, labels), voxels(predicted, labels)
        row = table.loc[region]
        assert (row["tp"], row["fp"], row["fn"]) == (len(there & found), len(found - there), len(there - found))
        if there or found:
            # one division of whole numbers, so the nearest double of the exact fraction
            assert row["dice"] == float(Fraction(2 * len(there & found), len(there) + len(found)))
            assert row["iou"] == float(Fraction(len(there & found), len(there | found)))
        else:
            assert math.isnan(row["dice"])
            assert math.isnan(row["iou"])
        assert math.isnan(row["hd95"])


@given(PAIRS)
def test_confusion_counts_every_voxel_once(pair):
    truth, predicted = pair
    counts = counted(truth, predicted)
    assert counts.shape == (4, 4)
    for true, found in itertools.product(range(4), repeat=2):
        assert counts[true, found] == len(voxels(truth, {true}) & voxels(predicted, {found}))


def test_confusion_does_not_depend_on_memory_layout():
    truth, predicted = random_pair(3)
    np.testing.assert_array_equal(counted(np.asfortranarray(truth), predicted), counted(truth, predicted))
    np.testing.assert_array_equal(counted(truth.T, predicted.T), counted(truth, predicted))


def test_a_case_worked_by_hand():
    table = scores_of([1, 1, 2, 3, 0, 0], [1, 2, 2, 0, 3, 0])
    assert table[["tp", "fp", "fn"]].to_numpy().tolist() == [
        [3, 1, 1],
        [1, 2, 1],
        [0, 1, 1],
        [1, 0, 1],
        [1, 1, 0],
        [0, 1, 1],
    ]
    expected = [Fraction(3, 4), Fraction(2, 5), 0, Fraction(2, 3), Fraction(2, 3), 0]
    assert table["dice"].tolist() == [float(value) for value in expected]
    expected = [Fraction(3, 5), Fraction(1, 4), 0, Fraction(1, 2), Fraction(1, 2), 0]
    assert table["iou"].tolist() == [float(value) for value in expected]


def test_a_region_is_the_union_of_its_labels_and_forgives_confusion_within():
    table = scores_of([1, 2, 3, 0], [2, 3, 1, 0])
    assert table["dice"].to_dict() == {"WT": 1.0, "TC": 0.5, "ET": 0.0, "L1": 0.0, "L2": 0.0, "L3": 0.0}


def test_dice_is_undefined_where_both_are_empty_and_zero_where_one_is():
    table = scores_of([1, 1, 0, 0], [1, 0, 2, 0])
    assert math.isnan(table.loc["ET", "dice"])
    assert table.loc["TC", ["dice", "iou"]].tolist() == [0, 0]
    assert scores_of([2], [0]).loc["L2", ["dice", "iou"]].tolist() == [0, 0]
    assert scores_of([0, 0], [0, 0])[["dice", "iou"]].isna().all(axis=None)


def test_dice_and_iou_take_arrays_and_hundreds_of_millions_of_voxels():
    counts = [1, 0, 300_000_000], [0, 0, 100_000_000], [1, 0, 100_000_000]
    np.testing.assert_array_equal(dice(*counts), [2 / 3, np.nan, 0.75])
    np.testing.assert_array_equal(iou(*counts), [1 / 2, np.nan, 0.6])


def test_distances_stand_beside_the_region_that_they_are_of():
    distances = {region: float(place) for place, region in enumerate(REGION_LABELS)}
    table = table_of([1, 2, 3], [1, 2, 0], distances)
    assert dict(zip(table["region"], table["hd95"], strict=True)) == distances


def test_shapes_must_be_the_same():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3, 2\)"):
        confusion(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), BRAIN_TUMOUR)


def two_segmentations():
    first = table_of([1, 1, 2, 3, 0, 0], [1, 2, 2, 0, 3, 0]).assign(case="b")
    # enhancing tumour is neither there nor found
    second = table_of([1, 1, 2, 0], [1, 0, 2, 0]).assign(case="a")
    return pd.concat([first, second])


@pytest.mark.parametrize(
    ("scalar", "first", "second"),
    [
        ("regions", Fraction(23, 60), Fraction(9, 10)),  # (3/4 + 2/5 + 0) / 3; (4/5 + 1) / 2
        ("labels", Fraction(4, 9), Fraction(5, 6)),  # (2/3 + 2/3 + 0) / 3; (2/3 + 1) / 2
        ("WT", Fraction(3, 4), Fraction(4, 5)),
    ],
)
def test_the_scalar_is_the_mean_of_the_defined_regions(scalar, first, second):
    scores = two_segmentations()
    table = with_scalar(scores, ["case"], BRAIN_TUMOUR.scored(scalar))
    assert len(table) == len(scores) + 2
    means = table[table["region"] == MEAN].set_index("case")
    # a mean of doubles may differ from the exact fraction in its last digit
    assert means["dice"].to_dict() == pytest.approx({"b": float(first), "a": float(second)}, rel=1e-15)
    assert means[["tp", "fp", "fn"]].isna().all(axis=None)
    kept = table[table["region"] != MEAN]
    assert kept[["tp", "fp", "fn"]].to_numpy().tolist() == scores[["tp", "fp", "fn"]].to_numpy().tolist()


def test_iou_and_distance_have_a_scalar_too():
    labels = [1, 1, 2, 3, 0, 0], [1, 2, 2, 0, 3, 0]
    distances = {"WT": 1.0, "TC": 4.0, "ET": math.nan, "L1": 5.0, "L2": 6.0, "L3": 9.0}
    table = with_scalar(
        table_of(*labels, distances).assign(case="a"),
        ["case"],
        BRAIN_TUMOUR.composites,
    )
    mean = table[table["region"] == MEAN].iloc[0]
    assert mean["iou"] == pytest.approx(17 / 60, rel=1e-15)  # (3/5 + 1/4 + 0) / 3
    assert mean["hd95"] == 2.5


def test_the_scalar_is_undefined_where_nothing_is_there_or_found():
    empty = table_of([0, 0, 0], [0, 0, 0]).assign(case="a")
    table = with_scalar(empty, ["case"], BRAIN_TUMOUR.composites)
    assert table.loc[table["region"] == MEAN, ["dice", "iou", "hd95"]].isna().all(axis=None)


def test_the_scalar_is_taken_for_each_pair_of_columns():
    rows = pd.concat([two_segmentations().assign(donor=donor) for donor in ("x", "y")])
    table = with_scalar(rows, ["donor", "case"], ("WT",))
    means = table[table["region"] == MEAN]
    assert list(zip(means["donor"], means["case"], means["dice"], strict=True)) == [
        ("x", "b", 0.75),
        ("x", "a", 0.8),
        ("y", "b", 0.75),
        ("y", "a", 0.8),
    ]


def test_what_nobody_labelled_does_not_count():
    truth = np.array([1, 1, 0, 2, 3, 3], np.uint8)
    predicted = np.array([1, 0, 1, 2, 1, 2], np.uint8)
    anatomy = Anatomy.of(("CT",), {1: "organ", 2: "lesion"}, {"both": (1, 2)}, ignore=3)
    counts = confusion(truth, predicted, anatomy)
    np.testing.assert_array_equal(counts, [[0, 1, 0], [1, 1, 0], [0, 0, 1]])
    table = score_table(counts, anatomy.regions).set_index("region")
    assert table[["tp", "fp", "fn"]].T.to_dict("list") == {
        "both": [2, 1, 1],
        "organ": [1, 1, 1],
        "lesion": [1, 0, 0],
    }
    assert table["dice"].to_dict() == {"both": 2 / 3, "organ": 0.5, "lesion": 1.0}
