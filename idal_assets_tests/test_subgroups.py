"""Subgroups, what they pay, and the warning of a rare subtype, against hand-worked numbers."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from idal_assets.analysis.statistics import SeedSpread
from idal_assets.analysis.subgroups import (
    rare_subtype_warning,
    subgroup_changes,
    subgroups_of,
    worst_tenth_changes,
)
from idal_assets.anatomy import Anatomy
from idal_assets.imaging.brain_tumour import BRAIN_TUMOUR

pytestmark = pytest.mark.unit

ENHANCING = "enhancing tumour"

# Decimal fractions in binary.
ROUND_OFF = 1e-12
NAN = float("nan")


def case_table(volumes, **columns):
    table = {
        "case_id": [f"c{place}" for place in range(len(volumes))],
        "foreground_ml": volumes,
        **dict.fromkeys(BRAIN_TUMOUR.labels.values(), 5),
    }
    return pd.DataFrame(table | columns)


def members(memberships, kind):
    of_kind = memberships[memberships["kind"] == kind]
    return {name: group["case_id"].tolist() for name, group in of_kind.groupby("subgroup", sort=False)}


# Memberships


def test_every_case_is_in_a_third_and_with_or_without_enhancing_tumour():
    found = subgroups_of(
        case_table([30.0, 10.0, 20.0, 60.0, 50.0, 40.0], **{ENHANCING: [0, 4, 0, 1, 2, 3]}), BRAIN_TUMOUR
    )
    assert found.columns.tolist() == ["kind", "subgroup", "case_id"]
    assert members(found, "volume") == {
        "middle tumour": ["c0", "c5"],
        "small tumour": ["c1", "c2"],
        "large tumour": ["c3", "c4"],
    }
    assert members(found, "label") == {
        "without enhancing tumour": ["c0", "c2"],
        "with enhancing tumour": ["c1", "c3", "c4", "c5"],
    }
    assert len(found) == 12


@pytest.mark.parametrize("count", range(1, 12))
def test_thirds_are_of_one_size_but_for_one_case_and_in_order(count):
    volumes = np.random.default_rng(count).permutation(count) + 1.0
    thirds = members(subgroups_of(case_table(volumes), BRAIN_TUMOUR), "volume")
    ordered = [thirds.get(name, []) for name in ("small tumour", "middle tumour", "large tumour")]
    sizes = [len(third) for third in ordered]
    assert sum(sizes) == count
    assert max(sizes) - min(sizes) <= 1
    by_case = dict(zip((f"c{place}" for place in range(count)), volumes, strict=True))
    for smaller, larger in itertools.pairwise([third for third in ordered if third]):
        assert max(by_case[case] for case in smaller) < min(by_case[case] for case in larger)


def test_equal_volumes_are_in_the_same_third():
    assert members(subgroups_of(case_table([1.0, 2.0, 2.0, 2.0, 2.0, 3.0]), BRAIN_TUMOUR), "volume") == {
        "small tumour": ["c0", "c1", "c2", "c3", "c4"],
        "large tumour": ["c5"],
    }


def test_scanners_and_clusters_are_subgroups_where_they_are_known():
    found = subgroups_of(case_table([1.0, 2.0, 3.0], scanner=["A", None, "A"], cluster=[3, NAN, 1]), BRAIN_TUMOUR)
    assert members(found, "scanner") == {"scanner A": ["c0", "c2"]}
    assert members(found, "cluster") == {"cluster 3": ["c0"], "cluster 1": ["c2"]}
    assert set(subgroups_of(case_table([1.0]), BRAIN_TUMOUR)["kind"]) == {"volume"}


def test_labels_that_all_cases_have_or_none_has_make_no_subgroup():
    anatomy = Anatomy.of(("CT",), {1: "liver", 2: "lesion", 3: "cyst"})
    table = pd.DataFrame(
        {
            "case_id": ["a", "b", "c"],
            "foreground_ml": [1.0, 2.0, 3.0],
            "liver": [5, 6, 7],
            "lesion": [0, 1, 0],
            "cyst": 0,
        }
    )
    found = subgroups_of(table, anatomy)
    assert members(found, "label") == {"without lesion": ["a", "c"], "with lesion": ["b"]}
    assert list(members(found, "volume")) == [f"{size} labelled volume" for size in ("small", "middle", "large")]


def test_cases_that_are_repeated_or_not_measured_are_refused_with_their_name():
    with pytest.raises(ValueError, match="Case c1 has no number for volume"):
        subgroups_of(case_table([1.0, NAN]), BRAIN_TUMOUR)
    with pytest.raises(ValueError, match="Case c0 has no number for enhancing tumour"):
        subgroups_of(case_table([1.0], **{ENHANCING: [NAN]}), BRAIN_TUMOUR)
    with pytest.raises(ValueError, match="Case c2 appears twice"):
        subgroups_of(case_table([1.0, 2.0, 3.0]).iloc[[0, 1, 2, 2]], BRAIN_TUMOUR)


# Changes

DICE = pd.DataFrame(
    {"t0": [0.9, 0.8, 0.9], "t1": [0.7, 0.8, NAN], "t2": [0.5, 0.2, 0.6], "t3": [0.4, 0.6, 0.4]},
    index=pd.Index(["all", "worst_1", "worst_2"], name="removal_set"),
)
MEMBERSHIPS = pd.DataFrame(
    [
        ("scanner", "scanner A", "t0"),
        ("scanner", "scanner A", "t1"),
        ("scanner", "scanner A", "t2"),
        ("scanner", "scanner B", "t3"),
        ("volume", "small tumour", "t1"),
        # a donor, and a subgroup that has donors only
        ("scanner", "scanner B", "d0"),
        ("scanner", "scanner C", "d1"),
    ],
    columns=["kind", "subgroup", "case_id"],
)


# one training of each set
NO_SEEDS = SeedSpread(NAN, 0)
DIFFERENCES = {name: (DICE.loc[[name]] - DICE.loc["all"]) for name in ("worst_1", "worst_2")}


def changes_in(differences, spread=NO_SEEDS, fewest_cases=3):
    return subgroup_changes(differences, MEMBERSHIPS, spread, 0.9, fewest_cases)


def test_changes_of_each_subgroup_by_hand():
    # -0.1, 0.1 and -0.3 of t0, t1 and t2; Student's t with two degrees of freedom
    reach = stats.t.ppf(0.95, 2) * 0.2 / np.sqrt(3)
    expected = pd.DataFrame(
        [
            ("worst_1", "scanner", "scanner A", 3, -0.1, -0.1 - reach, -0.1 + reach, -0.3),
            ("worst_1", "scanner", "scanner B", 1, 0.2, NAN, NAN, 0.2),
            ("worst_1", "volume", "small tumour", 1, 0.1, NAN, NAN, 0.1),
            ("worst_2", "scanner", "scanner A", 2, 0.05, NAN, NAN, 0.0),
            ("worst_2", "scanner", "scanner B", 1, 0.0, NAN, NAN, 0.0),
            ("worst_2", "volume", "small tumour", 0, NAN, NAN, NAN, NAN),
        ],
        columns=[
            *("removal_set", "kind", "subgroup", "cases", "mean_difference", "low", "high", "worst_difference")
        ],
    )
    pd.testing.assert_frame_equal(changes_in(DIFFERENCES), expected, check_dtype=False, rtol=0, atol=ROUND_OFF)


def test_the_interval_of_a_subgroup_holds_the_seeds_too():
    twice = {"worst_1": pd.concat([DIFFERENCES["worst_1"]] * 2)}
    still, moved = (changes_in(twice, SeedSpread(variance, 4)).iloc[0] for variance in (0.0, 0.1))
    assert moved["low"] < still["low"] < still["high"] < moved["high"]


def worst_tenth(dice, resamples=200, fewest_cases=1):
    return worst_tenth_changes(dice, np.random.default_rng(0), 0.95, resamples, fewest_cases)


def test_the_worst_tenth_by_hand():
    found = worst_tenth(DICE, fewest_cases=2)
    # worst_1: 0.2 of t2 against 0.4 of t3; worst_2: 0.4 against 0.4, t1 left out; one case is too few
    expected = pd.DataFrame(
        [("worst_1", 1, 0.2, -0.2, NAN, NAN), ("worst_2", 1, 0.4, 0.0, NAN, NAN)],
        columns=["removal_set", "cases", "mean_dice", "difference", "low", "high"],
    )
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, rtol=0, atol=ROUND_OFF)


def test_the_interval_of_the_worst_tenth_is_over_other_test_cases():
    old = np.linspace(0.3, 0.9, 40)
    found = worst_tenth(pd.DataFrame([old, old + 0.05], index=["all", "worst_1"])).iloc[0]
    # whichever cases are drawn, all gain alike
    assert (found["low"], found["high"]) == (pytest.approx(0.05), pytest.approx(0.05))
    noise = np.random.default_rng(1).normal(0, 0.05, 40)
    found = worst_tenth(pd.DataFrame([old, old + noise], index=["all", "worst_1"])).iloc[0]
    assert found["low"] < found["difference"] < found["high"]


@pytest.mark.parametrize(("cases", "tenth"), [(1, 1), (9, 1), (19, 1), (20, 2), (35, 3)])
def test_the_worst_tenth_is_a_tenth_rounded_down_and_at_least_one(cases, tenth):
    dice = np.random.default_rng(cases).random((2, cases))
    found = worst_tenth(pd.DataFrame(dice, index=["all", "worst_1"])).iloc[0]
    old, new = np.sort(dice, axis=1)[:, :tenth].mean(axis=1)
    assert found["cases"] == tenth
    assert found["mean_dice"] == pytest.approx(new, abs=ROUND_OFF)
    assert found["difference"] == pytest.approx(new - old, abs=ROUND_OFF)


def test_a_set_without_a_defined_case_has_no_worst_tenth():
    found = worst_tenth(pd.DataFrame([[0.5], [NAN]], index=["all", "worst_1"])).iloc[0]
    assert found["cases"] == 0
    assert np.isnan(found["difference"])


def test_the_worst_tenth_does_not_gain_by_chance():
    """The tenth that was worst under the full set would gain 0.1 and more from a new draw of the same noise."""
    random = np.random.default_rng(0)
    changes, regressed = [], []
    for _ in range(200):
        old, new = random.normal(0.7, 0.1, (2, 50))
        changes.append(worst_tenth(pd.DataFrame([old, new], index=["all", "worst_1"]))["difference"][0])
        regressed.append((new - old)[np.argsort(old)[:5]].mean())
    # the mean of five spreads by about 0.04 in each set; four standard deviations of the mean of 200 differences
    assert np.mean(changes) == pytest.approx(0, abs=4 * 0.04 * np.sqrt(2 / 200))
    assert np.mean(regressed) > 0.1


# Rare subtypes

DONORS = [f"d{place:02d}" for place in range(20)]


def memberships_of(size, kind="scanner", subgroup="scanner B"):
    """The first donors are of the subgroup, and test cases that must not count."""
    rows = [(kind, subgroup, case) for case in [*DONORS[:size], "t0", "t1", "t2"]]
    rows += [("volume", "small tumour", case) for case in DONORS]
    return pd.DataFrame(rows, columns=["kind", "subgroup", "case_id"])


def changes_of(change, kind="scanner", subgroup="scanner B", removal_set="worst_5"):
    row = (removal_set, kind, subgroup, 3, change, change - 0.01, change + 0.01, change)
    columns = ["removal_set", "kind", "subgroup", "cases", "mean_difference", "low", "high", "worst_difference"]
    return pd.DataFrame([row], columns=columns)


def warning(size=4, gone=3, removed=5, change=-0.02, **settings):
    """Of the first `size` donors `gone` are removed, and others up to `removed`."""
    chosen = DONORS[:gone] + DONORS[size : size + removed - gone]
    return rare_subtype_warning("worst_5", chosen, DONORS, memberships_of(size), changes_of(change), **settings)


def chance_by_enumeration(size, gone, removed):
    draws = list(itertools.combinations(range(20), removed))
    return np.mean([sum(place < size for place in draw) >= gone for draw in draws])


def test_a_rare_subgroup_that_is_removed_and_loses_is_warned_of():
    assert warning() == (
        "worst_5 may remove a rare but valid subtype: it takes 3 of the 4 donors of the subgroup 'scanner B' "
        f"(as many by chance: p = {chance_by_enumeration(4, 3, 5):.2g}), and the 3 test cases "
        "of this subgroup lose 0.020 of Dice on average (interval -0.030 to -0.010)"
    )


def test_no_warning_where_the_subgroup_does_not_lose():
    assert warning(change=0.0) is None
    assert warning(change=0.02) is None
    assert warning(change=NAN) is None


def test_no_warning_where_the_subgroup_is_not_rare():
    assert warning(size=5, gone=4) is not None
    assert warning(size=6, gone=5) is None
    assert warning(size=6, gone=5, rare=0.3) is not None


@pytest.mark.parametrize(
    ("size", "gone", "removed"), [(size, gone, 6) for size in (1, 3, 5) for gone in range(size + 1)]
)
def test_a_warning_needs_more_than_chance_or_more_than_half(size, gone, removed):
    unlikely = chance_by_enumeration(size, gone, removed) < 0.05
    assert (warning(size, gone, removed) is not None) == (unlikely or gone > size / 2)


def test_chance_counts_where_less_than_half_is_removed():
    # two of four in two removed: half, but by chance in 6 of 190 draws
    assert warning(size=4, gone=2, removed=2) is not None
    assert warning(size=4, gone=2, removed=2, significance=0.03) is None


def test_a_warning_is_of_this_set_and_of_this_kind():
    other_set = changes_of(-0.02, removal_set="worst_7")
    assert rare_subtype_warning("worst_5", DONORS[:4], DONORS, memberships_of(4), other_set) is None
    other_kind = changes_of(-0.02, kind="cluster")
    assert rare_subtype_warning("worst_5", DONORS[:4], DONORS, memberships_of(4), other_kind) is None
    assert rare_subtype_warning("worst_5", DONORS[:4], DONORS, memberships_of(4), changes_of(-0.02)) is not None


def test_removing_nothing_warns_of_nothing():
    assert rare_subtype_warning("worst_5", [], DONORS, memberships_of(4), changes_of(-0.02)) is None


def test_every_subgroup_has_a_sentence_and_the_greatest_loss_comes_first():
    memberships = pd.concat([memberships_of(4), memberships_of(4, "label", "without enhancing tumour")])
    changes = pd.concat([changes_of(-0.02), changes_of(-0.1, "label", "without enhancing tumour")])
    found = rare_subtype_warning("worst_5", DONORS[:5], DONORS, memberships, changes)
    first, second = found.split("\n")
    assert "'without enhancing tumour'" in first
    assert "lose 0.100" in first
    assert "'scanner B'" in second


def test_a_removed_case_that_is_no_donor_is_refused():
    with pytest.raises(ValueError, match="Case t0 is removed by worst_5 but is no donor"):
        rare_subtype_warning("worst_5", ["t0"], DONORS, memberships_of(4), changes_of(-0.02))


def test_from_cases_to_the_warning():
    donors = case_table(np.arange(20.0), **{ENHANCING: [0] * 3 + [9] * 17}).assign(case_id=DONORS)
    tests = case_table(np.arange(6.0), **{ENHANCING: [0, 0, 9, 9, 9, 9]})
    memberships = subgroups_of(pd.concat([donors, tests], ignore_index=True), BRAIN_TUMOUR)
    difference = pd.DataFrame([[-0.2, -0.1, 0.15, 0.15, 0.15, 0.15]], columns=tests["case_id"])
    changes = subgroup_changes({"worst_3": difference}, memberships, NO_SEEDS, 0.95, 5)
    found = rare_subtype_warning("worst_3", DONORS[:3], DONORS, memberships, changes)
    assert found.count("may remove") == 1
    assert "it takes 3 of the 3 donors of the subgroup 'without enhancing tumour'" in found
    assert "2 test cases of this subgroup lose 0.150 of Dice on average (too few for an interval)" in found
    assert rare_subtype_warning("worst_3", DONORS[10:13], DONORS, memberships, changes) is None
