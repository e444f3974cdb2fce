"""What networks say of each other's segmentations, against cases worked by hand and a second way to count."""

import itertools

import numpy as np
import pytest

from idal_assets.analysis.agreement import (
    BASELINE,
    agreement_table,
    doubt,
    majority,
    segmentation_agreement,
)

pytestmark = pytest.mark.unit

REGIONS = {"both": (1, 2), "one": (1,), "two": (2,)}
SIZE = 3


@pytest.fixture
def labels() -> np.ndarray:
    rng = np.random.default_rng(3)
    return rng.choice(SIZE, size=(5, 4, 6, 7), p=(0.5, 0.3, 0.2)).astype(np.uint8)


@pytest.fixture
def names() -> list[str]:
    return [BASELINE, "a", "b", "c", "d"]


def plain(one: np.ndarray, other: np.ndarray) -> float:
    total = one.sum() + other.sum()
    return 2 * (one & other).sum() / total if total else 1.0


def test_majority_is_the_most_frequent_label_of_each_voxel(labels: np.ndarray):
    found = majority(labels, SIZE)
    for place in itertools.product(*map(range, found.shape)):
        votes = np.bincount(labels[(slice(None), *place)], minlength=SIZE)
        assert found[place] == votes.argmax(), place


def test_a_tie_goes_to_the_lowest_label():
    said = np.array([[[[2]]], [[[1]]], [[[2]]], [[[1]]]], dtype=np.uint8)
    assert majority(said, SIZE)[0, 0, 0] == 1


def test_dice_with_baseline_majority_and_others_by_another_way(labels: np.ndarray, names: list[str]):
    table = agreement_table(names, labels, REGIONS, SIZE).set_index(["model", "region"])
    most = majority(labels[1:], SIZE)
    for (number, name), (region, values) in itertools.product(enumerate(names), REGIONS.items()):
        masks = [np.isin(one, values) for one in labels]
        others = [plain(masks[number], masks[k]) for k in range(1, 5) if k != number]
        found = table.loc[(name, region)]
        assert found["with_baseline"] == pytest.approx(plain(masks[number], masks[0]))
        assert found["with_majority"] == pytest.approx(plain(masks[number], np.isin(most, values)))
        assert found["with_others"] == pytest.approx(np.mean(others))
        assert found["volume"] == masks[number].sum()


def test_networks_that_see_nothing_agree(names: list[str]):
    labels = np.zeros((5, 2, 3, 3), dtype=np.uint8)
    labels[1, 0, 0, 0] = 1
    table = agreement_table(names, labels, {"one": (1,)}, SIZE).set_index("model")
    assert table.loc["b", "with_baseline"] == table.loc["b", "with_majority"] == 1
    assert table.loc["a", "with_others"] == 0
    assert table.loc["b", "with_others"] == pytest.approx(2 / 3)
    assert np.isnan(table.loc["b", "extent"])


def test_extent_of_a_line_is_greater_than_that_of_a_cube(names: list[str]):
    labels = np.zeros((5, 8, 8, 8), dtype=np.uint8)
    labels[1, :2, :2, :2] = 1
    labels[2, 0, 0, :8] = 1
    table = agreement_table(names, labels, {"one": (1,)}, SIZE).set_index("model")
    # a cube of 2: every voxel is half a voxel from the centre along each axis, and the cube root of 8 is 2
    assert table.loc["a", "extent"] == pytest.approx(np.sqrt(3 * 0.25) / 2)
    # a line of 8: the variance of 0 to 7 is 5.25
    assert table.loc["b", "extent"] == pytest.approx(np.sqrt(5.25) / 2)


def test_agreement_of_a_segmentation_is_its_mean_dice_with_the_networks(labels: np.ndarray):
    found = segmentation_agreement(labels[0], labels[1:], REGIONS)
    for region, values in REGIONS.items():
        dice = [plain(np.isin(labels[0], values), np.isin(one, values)) for one in labels[1:]]
        assert found.loc[region, "agreement"] == pytest.approx(np.mean(dice))
        assert found.loc[region, "lowest"] == pytest.approx(np.quantile(dice, 0.1))


def test_doubt_is_the_share_that_says_something_else():
    said = np.array([[[[1, 0]]], [[[2, 0]]], [[[1, 1]]], [[[1, 0]]]], dtype=np.uint8)
    np.testing.assert_allclose(doubt(np.array([[[1, 0]]], dtype=np.uint8), said)[0, 0], (0.25, 0.25))
