"""Effects, intervals and tests against hand-worked numbers, enumerations and simulated experiments."""

import itertools
from dataclasses import fields

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from idal_assets.analysis.effects import Effect, effects, sentence
from idal_assets.analysis.reduction import median_change
from idal_assets.analysis.statistics import (
    IncompleteScalarsError,
    SeedSpread,
    bootstrap_intervals,
    control_p,
    dice_by_set,
    difference_of_medians,
    holm,
    mean_dice,
    mean_difference,
    median_dice,
    median_of_differences,
    paired_differences,
    probability_false,
    seed_spread,
    smallest_control_p,
    wilcoxon_p,
)

pytestmark = pytest.mark.unit

# Two ways to add up the same numbers; values are of the order of 1.
ROUND_OFF = 1e-12
NAN = float("nan")

# Case 3 is undefined in the second replicate, case 4 in the old set, case 5 in both.
NEW = np.array([[0.5, 0.7, 0.9, 0.3, NAN], [0.7, 0.8, NAN, 0.3, NAN]])
OLD = np.array([[0.4, 0.8, 0.6, NAN, NAN]])


def tidy(**sets):
    """Rows of sets that are given as arrays of shape (replicates, cases)."""
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "removal_set": name,
                    "replicate": np.repeat(np.arange(1, len(dice) + 1), np.shape(dice)[1]),
                    "case_id": np.tile([f"t{case:02d}" for case in range(np.shape(dice)[1])], len(dice)),
                    "dice": np.ravel(dice),
                }
            )
            for name, dice in sets.items()
        ],
        ignore_index=True,
    )


def trained(random, cases, gain=0.0, replicates=3, seeds=0.01, noise=0.01):
    """One set: every seed shifts all test cases, and each case on its own."""
    shift = random.normal(0, seeds, (replicates, 1))
    return cases + gain + shift + random.normal(0, noise, (replicates, len(cases)))


def near(expected):
    return pytest.approx(expected, abs=ROUND_OFF, nan_ok=True)


# Rows and arrays


def test_rows_become_replicates_by_cases_in_any_order_of_rows():
    scalars = tidy(b=NEW, a=OLD)
    found = dice_by_set(scalars)
    assert list(found) == ["b", "a"]
    np.testing.assert_array_equal(found["b"], NEW)
    np.testing.assert_array_equal(found["a"], OLD)
    shuffled = dice_by_set(scalars.sample(frac=1, random_state=0))
    np.testing.assert_array_equal(shuffled["b"], NEW)
    np.testing.assert_array_equal(shuffled["a"], OLD)


def test_a_missing_row_is_refused_with_its_name():
    scalars = tidy(all=OLD, worst_1=NEW)
    gone = scalars.query("removal_set == 'worst_1' and replicate == 2 and case_id == 't01'").index
    with pytest.raises(IncompleteScalarsError, match="t01 of replicate 2 of worst_1 has no row"):
        dice_by_set(scalars.drop(gone))


def test_a_repeated_row_is_refused_with_its_name():
    scalars = tidy(all=OLD, worst_1=NEW)
    with pytest.raises(IncompleteScalarsError, match="t03 of replicate 1 of all has more than one row"):
        dice_by_set(pd.concat([scalars, scalars.iloc[[3]]]))


def test_replicates_are_averaged_by_case_and_undefined_ones_left_out():
    table = mean_dice(tidy(worst_1=NEW, all=OLD))
    assert table.index.tolist() == ["worst_1", "all"]
    assert table.columns.tolist() == ["t00", "t01", "t02", "t03", "t04"]
    assert table.loc["worst_1"].tolist() == near([0.6, 0.75, 0.9, 0.3, NAN])
    assert table.loc["all"].tolist() == near([0.4, 0.8, 0.6, NAN, NAN])


# Differences


def test_differences_by_hand():
    assert paired_differences(NEW, OLD).tolist() == near([0.2, -0.05, 0.3, NAN, NAN])
    assert median_of_differences(NEW, OLD) == near(0.2)
    assert mean_difference(NEW, OLD) == near(0.15)
    # 0.3, 0.6, 0.75, 0.9 against 0.4, 0.6, 0.8
    assert median_dice(NEW) == near(0.675)
    assert difference_of_medians(NEW, OLD) == near(0.075)


@pytest.mark.parametrize("difference", [median_of_differences, mean_difference, difference_of_medians])
def test_differences_are_new_minus_old_and_undefined_without_cases(difference):
    assert difference(OLD, NEW) == near(-difference(NEW, OLD))
    assert np.isnan(difference(NEW, np.full((2, 5), NAN)))


def test_medians_are_those_of_numpy():
    random = np.random.default_rng(1)
    for cases in (1, 2, 7, 8):
        dice = random.random((3, cases))
        dice[random.random(dice.shape) < 0.3] = NAN
        dice[0, 0] = 0.5
        assert median_dice(dice) == near(np.nanmedian(np.nanmean(dice, axis=0)))


def test_one_replicate_gives_the_numbers_of_the_thesis_table():
    dice = np.random.default_rng(2).random((2, 9))
    dice[0, 2] = dice[1, 5] = NAN
    table = mean_dice(tidy(all=dice[:1], worst_1=dice[1:]))
    expected = median_change(table, {"all": [], "worst_1": ["a"]}, donors=5).set_index("removal_set")
    found = effects(tidy(all=dice[:1], worst_1=dice[1:]), {"all": [], "worst_1": ["a"]}, {}, resamples=10)
    columns = ["removed", "median_dice", "difference_of_medians", "median_of_differences"]
    pd.testing.assert_frame_equal(
        found.set_index("removal_set")[columns], expected[columns], rtol=0, atol=ROUND_OFF
    )


# Bootstrap


def all_resamples(new, old):
    """Both statistics in each of the equally likely resamples, one after the other."""
    cases = range(new.shape[1])
    found = []
    for new_rows in itertools.product(range(len(new)), repeat=max(1, len(new) - 1)):
        for old_rows in itertools.product(range(len(old)), repeat=max(1, len(old) - 1)):
            a, b = new[list(new_rows)].mean(axis=0), old[list(old_rows)].mean(axis=0)
            for drawn in itertools.product(cases, repeat=len(cases)):
                a_drawn, b_drawn = a[list(drawn)], b[list(drawn)]
                found.append((np.median(a_drawn) - np.median(b_drawn), np.median(a_drawn - b_drawn)))
    return np.array(found).T


@pytest.mark.parametrize(("new_replicates", "old_replicates"), [(1, 1), (2, 1), (2, 2), (3, 2)])
def test_the_bootstrap_draws_every_resample_equally_often(new_replicates, old_replicates):
    random = np.random.default_rng(new_replicates)
    new, old = random.random((new_replicates, 4)), random.random((old_replicates, 4))
    exact = all_resamples(new, old)
    resamples = 40_000
    # four standard deviations of a share among the resamples
    margin = 4 * np.sqrt(0.25 / resamples)
    for level in (0.3, 0.6, 0.95):
        found = bootstrap_intervals(new, old, np.random.default_rng(0), level, resamples)
        intervals = (found.difference_of_medians, found.median_of_differences)
        for values, ends in zip(exact, intervals, strict=True):
            for share, end in zip(((1 - level) / 2, (1 + level) / 2), ends, strict=True):
                low, high = np.quantile(values, [max(0, share - margin), min(1, share + margin)])
                assert low - ROUND_OFF <= end <= high + ROUND_OFF


def test_cases_are_drawn_in_pairs():
    old = np.linspace(0.1, 0.9, 30)[None]
    found = bootstrap_intervals(old + 0.05, old, np.random.default_rng(0), resamples=200)
    assert found.difference_of_medians == near((0.05, 0.05))
    assert found.median_of_differences == near((0.05, 0.05))


def test_seeds_of_both_sets_widen_the_interval():
    cases = np.linspace(0.3, 0.7, 30)
    apart, same = np.stack([cases - 0.1, cases + 0.1]), np.stack([cases, cases])
    random = np.random.default_rng
    assert bootstrap_intervals(same, same, random(0), resamples=500).difference_of_medians == near((0, 0))
    for new, old, widest in ((apart, same, 0.1), (same, apart, 0.1), (apart, apart, 0.2)):
        found = bootstrap_intervals(new, old, random(0), resamples=500)
        # one of two is drawn from each, so a quarter or more of the draws lie at each end
        assert found.difference_of_medians == near((-widest, widest))
        assert found.median_of_differences == near((-widest, widest))


def test_a_resample_without_a_defined_case_does_not_count():
    new, old = np.array([[0.5, NAN, NAN]]), np.array([[0.4, NAN, NAN]])
    found = bootstrap_intervals(new, old, np.random.default_rng(0), resamples=100)
    assert found.difference_of_medians == near((0.1, 0.1))
    assert found.median_of_differences == near((0.1, 0.1))
    nothing = bootstrap_intervals(new * NAN, old, np.random.default_rng(0), resamples=100)
    assert np.isnan([*nothing.difference_of_medians, *nothing.median_of_differences]).all()


def test_undefined_cases_are_left_out_of_each_draw():
    # case 2 is defined in the second replicate of the new set alone: its difference is 0.3 or undefined
    new, old = np.array([[0.5, NAN], [0.5, 0.7]]), np.array([[0.4, 0.4]])
    found = bootstrap_intervals(new, old, np.random.default_rng(0), 0.9, 500)
    assert found.median_of_differences == near((0.1, 0.3))


def share_covered(replicates, seeds, experiments=1000):
    random = np.random.default_rng(replicates)
    covered = np.zeros(2)
    for _ in range(experiments):
        cases = random.normal(0.7, 0.1, 40)
        new = trained(random, cases, 0.03, replicates, seeds, 0.02)
        old = trained(random, cases, 0.0, replicates, seeds, 0.02)
        found = bootstrap_intervals(new, old, random, 0.95, 300)
        for place, (low, high) in enumerate((found.difference_of_medians, found.median_of_differences)):
            covered[place] += low <= 0.03 <= high
    return covered / experiments


@pytest.mark.parametrize(("replicates", "seeds"), [(1, 0.0), (10, 0.015)])
def test_the_interval_holds_the_truth_as_often_as_it_says(replicates, seeds):
    # 1000 experiments at 95 % spread by 0.7 %, three times which is 2 %; two more below, as ten seeds are few
    of_medians, of_differences = share_covered(replicates, seeds)
    assert 0.91 < of_differences < 0.97
    # the two medians fall on different cases, so this interval is wider than it must be
    assert of_medians > 0.93


def test_one_replicate_does_not_hold_the_spread_of_the_seed():
    assert (share_covered(1, 0.015) < 0.8).all()


# Tests


def test_wilcoxon_is_the_share_of_sign_patterns_that_are_as_far_from_balance():
    differences = np.array([0.11, -0.02, 0.35, 0.27, -0.05, 0.41, 0.08])
    ranks = stats.rankdata(np.abs(differences))
    sums = np.array([ranks @ np.array(signs) for signs in itertools.product([-1, 1], repeat=len(ranks))])
    expected = (np.abs(sums) >= abs(ranks @ np.sign(differences))).mean()
    assert wilcoxon_p(differences) == near(expected)
    assert wilcoxon_p(-differences) == near(expected)
    assert wilcoxon_p([*differences, NAN]) == near(expected)


def test_wilcoxon_without_any_difference():
    assert wilcoxon_p([0.0, 0.0, NAN]) == 1
    # (0.1 + 0.2) - 0.3 is rounding error, not a sign
    assert wilcoxon_p([0.1 + 0.2 - 0.3] * 20) == 1
    assert np.isnan(wilcoxon_p([NAN, NAN]))


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]).tolist() == near([0.03, 0.06, 0.06])
    # a step must not undo the one before: 0.011 * 1 is below 0.01 * 2
    assert holm([0.011, 0.01]).tolist() == near([0.02, 0.02])
    assert holm([0.5, 0.7]).tolist() == near([1.0, 1.0])
    assert holm([0.02, NAN, 0.03]).tolist() == near([0.04, NAN, 0.04])
    assert holm([]).tolist() == []


def test_holm_rejects_what_its_steps_reject():
    random = np.random.default_rng(3)
    for _ in range(50):
        p_values = random.random(5) ** 3
        limit = random.uniform(0.01, 0.3)
        rejected = set()
        for step, place in enumerate(np.argsort(p_values)):
            if p_values[place] > limit / (5 - step):
                break
            rejected.add(int(place))
        assert set(np.flatnonzero(holm(p_values) <= limit)) == rejected


def test_each_rank_among_the_controls_is_equally_likely():
    gains = np.random.default_rng(4).normal(size=20)
    found = [control_p(gain, [*gains[:place], *gains[place + 1 :]]) for place, gain in enumerate(gains)]
    assert sorted(found) == near([rank / 20 for rank in range(1, 21)])
    assert found[int(np.argmax(gains))] == near(1 / 20) == smallest_control_p(19)


def test_controls_that_gain_as_much_count_against_the_set():
    assert control_p(0.02, [0.01, 0.02, 0.03, -0.5]) == near(3 / 5)
    assert control_p(0.1 + 0.2, [0.3]) == 1
    assert np.isnan(control_p(0.02, []))
    assert np.isnan(control_p(NAN, [0.1]))
    assert np.isnan(control_p(0.2, [0.1, NAN]))
    assert np.isnan(smallest_control_p(0))


def test_seed_spread_is_pooled_over_the_sets_with_replicates():
    cases = np.array([0.1, 0.5, 0.8])
    two, three, one = (cases + np.array(shifts)[:, None] for shifts in ([0, 0.2], [0, 0.1, 0.2], [7.0]))
    # squares about the mean: 0.02 with one degree of freedom, 0.02 with two
    found = seed_spread([two, three, one])
    assert (found.variance, found.degrees) == near((0.04 / 3, 3))
    undefined = np.full((1, 3), NAN)
    assert seed_spread([np.concatenate([two, undefined])]).variance == near(0.02)
    nothing = seed_spread([one, undefined])
    assert np.isnan(nothing.variance)
    assert nothing.degrees == 0


def test_probability_that_a_gain_is_false_is_that_of_the_t_test():
    random = np.random.default_rng(5)
    cases = random.random(11)
    for gain in (-0.02, 0.0, 0.02):
        # noiseless cases, so that the median of the means is the mean of the medians
        new = trained(random, cases, gain, replicates=4, noise=0)
        old = trained(random, cases, 0, replicates=3, noise=0)
        found = probability_false(difference_of_medians(new, old), seed_spread([new, old]), 4, 3)
        test = stats.ttest_ind(np.median(new, axis=1), np.median(old, axis=1), alternative="greater")
        # differences of the order of 0.01 turn round-off into a relative error
        assert found == pytest.approx(test.pvalue, abs=1e-9)


def test_probability_that_a_gain_is_false_at_its_ends():
    assert np.isnan(probability_false(0.1, SeedSpread(NAN, 0), 1, 1))
    still = SeedSpread(0.0, 4)
    assert [probability_false(difference, still, 2, 2) for difference in (0.1, 0.0, -0.1)] == [0, 0.5, 1]


# Effects

COLUMNS = [
    *("removal_set", "removed", "replicates", "median_dice", "difference_of_medians", "low", "high"),
    *("median_of_differences", "median_of_differences_low", "median_of_differences_high", "mean_difference"),
    *("wilcoxon_p", "holm_p", "controls", "control_gain_median", "control_p", "smallest_control_p"),
    *("probability_false", "level", "gain", "harm"),
]


def experiment(gains, controls=20, replicates=3, cases=25, seed=0):
    """Scalars, removed cases and controls of one chosen set for each gain; its controls change little."""
    random = np.random.default_rng(seed)
    difficulty = random.normal(0.7, 0.1, cases)
    sets = {"all": trained(random, difficulty, 0, replicates)}
    removed = {"all": []}
    drawn = {}
    for size, gain in enumerate(gains, 1):
        sets[f"worst_{size}"] = trained(random, difficulty, gain, replicates)
        removed[f"worst_{size}"] = [f"c{case}" for case in range(size)]
        drawn[f"worst_{size}"] = [f"random_{size}_r{number:02d}" for number in range(controls)]
        for name in drawn[f"worst_{size}"]:
            sets[name] = trained(random, difficulty, random.normal(0, 0.003), replicates)
            removed[name] = [f"c{case}" for case in range(size)]
    return tidy(**sets), removed, drawn


def row_of(gain, resamples=500, **settings):
    found = effects(*experiment([gain], **settings), resamples=resamples)
    assert found["removal_set"].tolist() == ["all", "worst_1"]
    return found.iloc[1]


def test_an_effect_holds_what_the_functions_say():
    scalars, removed, controls = experiment([0.02, -0.01], controls=4)
    found = effects(scalars, removed, controls, level=0.9, resamples=300, seed=7)
    assert found.columns.tolist() == COLUMNS
    assert found["removal_set"].tolist() == ["all", "worst_1", "worst_2"]
    dice = dice_by_set(scalars)
    old = dice["all"]
    p_values = [wilcoxon_p(paired_differences(dice[name], old)) for name in ("worst_1", "worst_2")]
    for place, name in ((1, "worst_1"), (2, "worst_2")):
        new, row = dice[name], found.iloc[place]
        intervals = bootstrap_intervals(new, old, np.random.default_rng(7), 0.9, 300)
        gains = [difference_of_medians(dice[control], old) for control in controls[name]]
        assert row["removed"] == place
        assert row["replicates"] == 3
        assert row["median_dice"] == median_dice(new)
        assert row["difference_of_medians"] == difference_of_medians(new, old)
        assert (row["low"], row["high"]) == intervals.difference_of_medians
        assert row["median_of_differences"] == median_of_differences(new, old)
        assert (
            row["median_of_differences_low"],
            row["median_of_differences_high"],
        ) == intervals.median_of_differences
        assert row["mean_difference"] == mean_difference(new, old)
        assert row["wilcoxon_p"] == p_values[place - 1]
        assert row["holm_p"] == holm(p_values)[place - 1]
        assert row["controls"] == 4
        assert row["control_gain_median"] == near(np.median(gains))
        assert row["control_p"] == control_p(row["difference_of_medians"], gains)
        assert row["smallest_control_p"] == 0.2
        assert row["probability_false"] == probability_false(
            row["difference_of_medians"], seed_spread(dice.values()), 3, 3
        )
        assert row["level"] == 0.9


def test_a_set_that_removes_nothing_is_not_tested_and_does_not_count():
    scalars, removed, controls = experiment([0.02])
    found = effects(scalars, removed, controls, resamples=50)
    full = found.iloc[0]
    assert full["median_dice"] == median_dice(dice_by_set(scalars)["all"])
    assert full[["difference_of_medians", "median_of_differences", "mean_difference"]].tolist() == [0, 0, 0]
    tests = ["low", "high", "wilcoxon_p", "holm_p", "control_p", "probability_false"]
    assert full[tests].isna().all()
    assert not full["gain"]
    assert not full["harm"]
    assert found.iloc[1]["holm_p"] == found.iloc[1]["wilcoxon_p"]


def test_an_interval_depends_neither_on_the_other_sets_nor_on_the_order_of_rows():
    scalars, removed, controls = experiment([0.02, -0.01], controls=2)
    both = effects(scalars, removed, controls, resamples=200)
    kept = scalars[~scalars["removal_set"].str.contains("_1")].sample(frac=1, random_state=1)
    alone = effects(kept, {"worst_2": removed["worst_2"]}, {"worst_2": controls["worst_2"]}, resamples=200)
    columns = ["low", "high", "median_of_differences_low", "median_of_differences_high", "control_p"]
    assert both.iloc[2][columns].tolist() == alone.iloc[0][columns].tolist()


@pytest.mark.parametrize("lost", ["all", "worst_1", "random_1_r01"])
def test_a_set_without_dice_is_refused_with_its_name(lost):
    scalars, removed, controls = experiment([0.02], controls=2)
    with pytest.raises(IncompleteScalarsError, match=f"removal set {lost} has no Dice"):
        effects(scalars[scalars["removal_set"] != lost], removed, controls)


def claims(**numbers):
    """Gain and harm of an effect whose other numbers do not matter."""
    effect = Effect(**{field.name: NAN for field in fields(Effect)} | {"level": 0.95, "replicates": 2} | numbers)
    return effect.gain, effect.harm


def test_each_number_of_a_claim_is_needed():
    gain = {"low": 0.001, "high": 0.02, "holm_p": 0.049, "control_p": 0.049}
    assert claims(**gain) == (True, False)
    assert claims(**gain, replicates=1) == (True, False)
    for lacking in ({"low": 0.0}, {"holm_p": 0.05}, {"control_p": 0.05}, {"control_p": NAN}, {"level": 0.96}):
        assert claims(**gain | lacking) == (False, False)
    harm = {"low": -0.02, "high": -0.001, "holm_p": 0.049, "control_p": 1.0}
    assert claims(**harm) == (False, True)
    assert claims(**harm | {"control_p": NAN}) == (False, True)
    for lacking in ({"high": 0.0}, {"holm_p": 0.05}, {"holm_p": NAN}, {"replicates": 1}, {"level": 0.96}):
        assert claims(**harm | lacking) == (False, False)


def test_a_gain_needs_enough_controls():
    # with 19 the smallest p is 0.05, and 1 - 0.95 is a little more than that
    nineteen, twenty = row_of(0.1, controls=19), row_of(0.1, controls=20)
    assert nineteen["control_p"] == nineteen["smallest_control_p"] == 0.05
    assert nineteen["low"] > 0
    assert not nineteen["gain"]
    assert twenty["gain"]
    assert not row_of(0.1, controls=0)["gain"]


def test_a_gain_needs_the_interval_and_the_signed_ranks_too():
    assert row_of(0.1)["gain"]
    # one test case: its interval lies above zero, and two signs are no test
    few = row_of(0.1, cases=1)
    assert few["low"] > 0
    assert few["control_p"] < 0.05
    assert not few["gain"]
    # controls that lose as much as the chosen set does not: better than random, and no gain
    scalars, removed, controls = experiment([0.0])
    drawn = scalars["removal_set"].str.startswith("random")
    harmed = scalars.assign(dice=scalars["dice"].where(~drawn, scalars["dice"] - 0.1))
    spared = effects(harmed, removed, controls, resamples=500).iloc[1]
    assert spared["control_p"] < 0.05
    assert spared["low"] < 0 < spared["high"]
    assert not spared["gain"]


def test_a_harm_needs_no_controls_but_more_than_one_training():
    assert row_of(-0.1, controls=0)["harm"]
    assert row_of(-0.1)["harm"]
    assert not row_of(0.1)["harm"]
    single = row_of(-0.1, replicates=1)
    assert single["high"] < 0
    assert single["holm_p"] < 0.05
    assert not single["harm"]


def test_without_effect_neither_gain_nor_harm_is_often_claimed():
    experiments = 300
    found = pd.DataFrame([row_of(0.0, resamples=200, seed=seed) for seed in range(experiments)])
    # what a share of 5 % exceeds once in a thousand times
    assert found["gain"].sum() <= stats.binom.ppf(0.999, experiments, 0.05)
    assert found["harm"].sum() <= stats.binom.ppf(0.999, experiments, 0.05)
    # the same experiments look like gains to a test that does not know of seeds
    naive = (found["wilcoxon_p"] < 0.05) & (found["difference_of_medians"] > 0)
    assert naive.mean() > 0.2
    # p against the controls is uniform, so a half of them lie below a half; four standard deviations
    assert (found["control_p"] <= 0.5).mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(experiments))


def test_a_large_effect_is_claimed():
    found = pd.DataFrame([row_of(0.08, resamples=200, seed=seed) for seed in range(20)])
    # eight standard deviations of one seed's shift
    assert found["gain"].all()
    assert (found["probability_false"] < 0.001).all()


# Sentences


def described(**changes):
    row = {
        "removal_set": "worst_7",
        "removed": 7,
        "replicates": 3,
        "median_dice": 0.812,
        "difference_of_medians": 0.012,
        "low": -0.003,
        "high": 0.027,
        "holm_p": 0.3,
        "controls": 20,
        "control_p": 0.21,
        "smallest_control_p": 1 / 21,
        "level": 0.95,
        "gain": False,
        "harm": False,
    }
    return sentence(pd.Series(row | changes))


ABOVE = {"difference_of_medians": 0.031, "low": 0.0101, "high": 0.052}
ABOVE_TEXT = "removing 7 cases (worst_7) changes the median Dice by +0.031 (95 % interval 0.010 to 0.052), "
BELOW = {"difference_of_medians": -0.031, "low": -0.052, "high": -0.0101}
BELOW_TEXT = "removing 7 cases (worst_7) changes the median Dice by -0.031 (95 % interval -0.052 to -0.010), "
AROUND_TEXT = "removing 7 cases (worst_7) changes the median Dice by +0.012 (95 % interval -0.003 to 0.027), "


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, AROUND_TEXT + "no better than removing 7 at random, p = 0.21"),
        (
            {"control_p": 0.048},
            AROUND_TEXT + "better than removing 7 at random, p = 0.048, but perhaps no change at all",
        ),
        (
            {"controls": 3, "smallest_control_p": 0.25},
            AROUND_TEXT + "but with only 3 random controls this cannot be told from luck",
        ),
        (
            {"controls": 0, "smallest_control_p": NAN, "control_p": NAN},
            AROUND_TEXT + "but without random controls this cannot be told from luck",
        ),
        (
            ABOVE | {"gain": True, "control_p": 0.048, "holm_p": 0.01},
            ABOVE_TEXT + "a gain: better than removing 7 at random, p = 0.048",
        ),
        (ABOVE, ABOVE_TEXT + "but no better than removing 7 at random, p = 0.21"),
        (ABOVE | {"control_p": NAN}, ABOVE_TEXT + "but no better than removing 7 at random, p = nan"),
        (
            ABOVE | {"controls": 1, "smallest_control_p": 0.5},
            ABOVE_TEXT + "but with only 1 random control this cannot be told from luck",
        ),
        (
            ABOVE | {"control_p": 0.0004},
            ABOVE_TEXT
            + "better than removing 7 at random, p < 0.001, but not consistent over the test cases, p = 0.3",
        ),
        (BELOW | {"harm": True, "holm_p": 0.002}, BELOW_TEXT + "a loss consistent over the test cases, p = 0.002"),
        (BELOW, BELOW_TEXT + "but not consistent over the test cases, p = 0.3"),
        (
            {"removed": 0, "removal_set": "all", "low": NAN, "high": NAN},
            "removing nothing (all) gives a median Dice of 0.812",
        ),
        (
            {"low": NAN, "high": NAN, "difference_of_medians": NAN},
            "removing 7 cases (worst_7) cannot be judged, as no test case has a defined Dice",
        ),
    ],
)
def test_a_sentence_says_what_the_numbers_hold(changes, expected):
    assert described(**changes) == expected


def test_a_sentence_tells_where_one_training_leaves_the_seed_out():
    text = described(**BELOW, replicates=1, removed=1, removal_set="worst_1", level=0.9)
    assert text == (
        "removing 1 case (worst_1) changes the median Dice by -0.031 (90 % interval -0.052 to -0.010, without the "
        "spread of the seed), but with one training of a set this cannot be told from luck"
    )


def test_a_sentence_has_no_negative_zero():
    assert "by +0.000 (95 % interval -0.003 to 0.000)" in described(difference_of_medians=-1e-5, high=-1e-5)


def test_sentences_follow_the_claims():
    gained, harmed = row_of(0.1), row_of(-0.1)
    assert ", a gain: better than removing 1 at random, p = 0.048" in sentence(gained)
    assert ", a loss consistent over the test cases, p < 0.001" in sentence(harmed)
    assert "cannot be told from luck" in sentence(row_of(0.1, controls=19))
