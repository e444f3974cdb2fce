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
    Removal,
    SeedSpread,
    about_as_large,
    against_random,
    bootstrap_intervals,
    case_differences,
    dice_by_set,
    difference_of_medians,
    differences_by_set,
    holm,
    mean_dice,
    mean_difference,
    mean_interval,
    median_dice,
    median_of_differences,
    pooled_degrees,
    seed_p,
    seed_spread,
    smallest_random_p,
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

PAIRED = np.array([[0.1, -0.1, 0.3, NAN, NAN], [0.3, 0.0, NAN, NAN, NAN]])


def test_every_training_is_compared_with_the_full_set_of_its_seed():
    full = np.array([[0.5, 0.6], [0.4, 0.9], [0.1, 0.2]])
    found = differences_by_set(tidy(all=full, worst_1=full + 0.1, other=full), "all")
    assert list(found) == ["worst_1", "other"]
    assert found["worst_1"].ravel().tolist() == near([0.1] * 6)
    # a random removal that has only the second of the seeds
    second = tidy(random_1_r01=full[[1]] - 0.2).assign(replicate=2)
    found = differences_by_set(pd.concat([tidy(all=full), second]), "all")
    assert found["random_1_r01"].tolist() == [near([-0.2, -0.2])]


def test_a_training_without_a_full_set_of_its_seed_is_refused():
    scalars = tidy(all=OLD[:, :3], worst_1=np.ones((2, 3)))
    with pytest.raises(IncompleteScalarsError, match="Replicate 2 of worst_1 has no network of all"):
        differences_by_set(scalars, "all")
    with pytest.raises(IncompleteScalarsError, match="removal set all has no Dice"):
        differences_by_set(tidy(worst_1=NEW), "all")


def test_differences_by_hand():
    assert case_differences(PAIRED).tolist() == near([0.2, -0.05, 0.3, NAN, NAN])
    assert median_of_differences(PAIRED) == near(0.2)
    assert mean_difference(PAIRED) == near(0.15)
    # 0.3, 0.6, 0.75, 0.9 against 0.4, 0.6, 0.8
    assert median_dice(NEW) == near(0.675)
    assert difference_of_medians(NEW, OLD) == near(0.075)


@pytest.mark.parametrize("difference", [median_of_differences, mean_difference])
def test_differences_are_undefined_without_cases(difference):
    assert np.isnan(difference(np.full((2, 5), NAN)))


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
    # the thesis's table leaves out a case in one of the sets; here one lacks a case in all of them
    found = effects(tidy(all=dice[:1], worst_1=dice[1:]), {"all": [], "worst_1": ["a"]}, {}, resamples=100)
    columns = ["removed", "median_dice", "difference_of_medians", "median_of_differences"]
    pd.testing.assert_frame_equal(
        found.set_index("removal_set")[columns], expected[columns], rtol=0, atol=ROUND_OFF
    )


# Bootstrap


def all_resamples(new, old):
    """Both statistics in each of the equally likely resamples, one after the other."""
    cases = range(new.shape[1])
    found = []
    for rows in itertools.product(range(len(new)), repeat=max(1, len(new) - 1)):
        a, b = new[list(rows)].mean(axis=0), old[list(rows)].mean(axis=0)
        for drawn in itertools.product(cases, repeat=len(cases)):
            a_drawn, b_drawn = a[list(drawn)], b[list(drawn)]
            found.append((np.median(a_drawn) - np.median(b_drawn), np.median(a_drawn - b_drawn)))
    return np.array(found).T


@pytest.mark.parametrize("replicates", [1, 2, 3])
def test_the_bootstrap_draws_every_resample_equally_often(replicates):
    random = np.random.default_rng(replicates)
    new, old = random.random((2, replicates, 4))
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


def test_seeds_are_drawn_in_pairs():
    cases = np.linspace(0.3, 0.7, 30)
    apart, same = np.stack([cases - 0.1, cases + 0.1]), np.stack([cases, cases])
    random = np.random.default_rng
    # what both sets share of a seed's luck is in no difference
    assert bootstrap_intervals(apart, apart, random(0), resamples=500).difference_of_medians == near((0, 0))
    found = bootstrap_intervals(apart, same, random(0), resamples=500)
    # one of two is drawn, so about half of the draws lie at each end
    assert found.difference_of_medians == near((-0.1, 0.1))
    assert found.median_of_differences == near((-0.1, 0.1))


def test_a_resample_without_a_defined_case_does_not_count():
    new, old = np.array([[0.5, NAN, NAN]]), np.array([[0.4, NAN, NAN]])
    found = bootstrap_intervals(new, old, np.random.default_rng(0), resamples=100)
    assert found.difference_of_medians == near((0.1, 0.1))
    assert found.median_of_differences == near((0.1, 0.1))
    nothing = bootstrap_intervals(new * NAN, old, np.random.default_rng(0), resamples=100)
    assert np.isnan([*nothing.difference_of_medians, *nothing.median_of_differences]).all()


def test_undefined_cases_are_left_out_of_each_draw():
    # case 2 is defined in the second replicate of the new set alone: its difference is 0.3 or undefined
    new, old = np.array([[0.5, NAN], [0.5, 0.7]]), np.array([[0.4, 0.4], [0.4, 0.4]])
    found = bootstrap_intervals(new, old, np.random.default_rng(0), 0.9, 500)
    assert found.median_of_differences == near((0.1, 0.3))


# The interval of the mean difference


def test_without_seeds_the_interval_is_students():
    differences = np.random.default_rng(1).normal(0.02, 0.05, (1, 17))
    expected = stats.ttest_1samp(differences[0], 0).confidence_interval(0.9)
    found = mean_interval(differences, SeedSpread(NAN, 0), 0.9)
    assert found == near((expected.low, expected.high))
    # an undefined case is no case
    assert mean_interval(np.append(differences, [[NAN]], axis=1), SeedSpread(NAN, 0), 0.9) == near(found)


def test_the_interval_adds_the_spread_of_cases_and_seeds():
    differences = np.array([[0.1, 0.3, 0.2], [0.3, 0.1, 0.2], [0.2, 0.2, 0.2]])
    # cases alike on average, so only the seeds are left: variance 0.03 / 3, four degrees of freedom
    found = mean_interval(differences, SeedSpread(0.03, 4), 0.95)
    reach = stats.t.ppf(0.975, 4) * np.sqrt(0.01)
    assert found == near((0.2 - reach, 0.2 + reach))
    # cases differ too: 0.1, 0.2, 0.3, of variance 0.01 / 3; Welch and Satterthwaite
    found = mean_interval(np.array([[0.1, 0.2, 0.3]] * 3), SeedSpread(0.03, 4), 0.95)
    total = 0.01 / 3 + 0.03 / 3
    degrees = total**2 / ((0.01 / 3) ** 2 / 2 + 0.01**2 / 4)
    reach = stats.t.ppf(0.975, degrees) * np.sqrt(total)
    assert found == near((0.2 - reach, 0.2 + reach))


def test_no_interval_of_fewer_than_two_cases():
    assert np.isnan(mean_interval(np.array([[0.1, NAN]]), SeedSpread(NAN, 0))).all()


def test_cases_and_seeds_that_do_not_spread_leave_a_point():
    assert mean_interval(np.full((2, 3), 0.1), SeedSpread(0.0, 1)) == near((0.1, 0.1))


@pytest.mark.parametrize(("replicates", "seeds"), [(1, 0.0), (2, 0.015), (3, 0.015)])
def test_the_interval_holds_the_truth_as_often_as_it_says(replicates, seeds):
    random = np.random.default_rng(replicates)
    covered, experiments = 0, 2000
    for _ in range(experiments):
        # four sets are compared with the same networks of the full set
        full = trained(random, np.full(40, 0.7), 0, replicates, seeds, 0.02)
        differences = [trained(random, np.full(40, 0.7), 0.03, replicates, seeds, 0.02) - full for _ in range(4)]
        low, high = mean_interval(differences[0], seed_spread(differences))
        covered += low <= 0.03 <= high
    # four standard deviations of a share of 95 %
    assert covered / experiments == pytest.approx(0.95, abs=4 * np.sqrt(0.95 * 0.05 / experiments) + 0.01)


def test_one_replicate_does_not_hold_the_spread_of_the_seed():
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(500):
        difference = trained(random, np.zeros(40), 0.03, 1, 0.015 * np.sqrt(2), 0.02)
        low, high = mean_interval(difference, SeedSpread(NAN, 0))
        covered += low <= 0.03 <= high
    assert covered / 500 < 0.5


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


def test_wilcoxon_of_many_zeros_is_that_of_the_others():
    # five positive differences: 2 of the 32 patterns of signs, whatever the ten zeros
    assert wilcoxon_p([0.1, 0.2, 0.3, 0.4, 0.5, *[0.0] * 10]) == near(1 / 16)


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


def removals(values, size=5):
    return [Removal(size, value) for value in values]


def test_each_rank_among_the_random_removals_is_equally_likely():
    values = np.random.default_rng(4).normal(size=20)
    found = [
        against_random(Removal(5, value), removals([*values[:place], *values[place + 1 :]]))
        for place, value in enumerate(values)
    ]
    ranks = near([rank / 20 for rank in range(1, 21)])
    assert sorted(one.better_p for one in found) == ranks
    assert sorted(one.worse_p for one in found) == ranks
    assert found[int(np.argmax(values))].better_p == near(1 / 20) == smallest_random_p(19)
    assert found[int(np.argmin(values))].worse_p == near(1 / 20)


def test_random_removals_that_do_as_well_count_against_the_set():
    found = against_random(Removal(5, 0.02), removals([0.01, 0.02, 0.03, -0.5]))
    assert (found.better_p, found.worse_p, found.expected) == near((3 / 5, 4 / 5, -0.11))
    assert against_random(Removal(5, 0.1 + 0.2), removals([0.3])).better_p == 1
    for undefined in (
        against_random(Removal(5, 0.02), []),
        against_random(Removal(5, NAN), removals([0.1])),
        against_random(Removal(5, 0.2), removals([0.1, NAN])),
    ):
        assert np.isnan([undefined.expected, undefined.better_p, undefined.worse_p]).all()
    assert np.isnan(smallest_random_p(0))


def test_what_removal_of_more_donors_does_is_taken_out():
    # each donor less costs 0.01; the set of 4 loses 0.02 less than 4 donors do
    random = [Removal(size, -0.01 * size + wobble) for size in (2, 3, 5, 6) for wobble in (-0.001, 0.001)]
    found = against_random(Removal(4, -0.02), random)
    assert found.expected == near(-0.04)
    assert found.better_p == near(1 / 9)
    # without the trend four of the eight random removals would do as well
    assert sum(one.difference >= -0.031 for one in random) == 4


def test_a_set_is_held_against_removals_of_about_its_size():
    sizes = {"a": 1, "b": 2, "c": 4, "d": 8, "e": 9}
    assert about_as_large(4, sizes) == ["b", "c", "d"]
    assert about_as_large(1, sizes) == ["a", "b"]
    assert about_as_large(20, sizes) == []


def test_seed_spread_is_pooled_over_the_sets_with_replicates():
    cases = np.array([0.1, 0.5, 0.8])
    two, three, one = (cases + np.array(shifts)[:, None] for shifts in ([0, 0.2], [0, 0.1, 0.2], [7.0]))
    # squares about the mean: 0.02 with one degree of freedom, 0.02 with two
    found = seed_spread([two, three, one])
    # the estimates of two sets correlate by a quarter, so they count as 2 / 1.25
    assert (found.variance, found.degrees) == near((0.04 / 3, 3 / 1.25))
    undefined = np.full((1, 3), NAN)
    alone = seed_spread([np.concatenate([two, undefined])])
    assert (alone.variance, alone.degrees) == near((0.02, 1))
    nothing = seed_spread([one, undefined])
    assert np.isnan(nothing.variance)
    assert nothing.degrees == 0


def test_pooled_degrees_are_those_of_a_variance_with_that_spread():
    random = np.random.default_rng(0)
    sets, replicates = 4, 3
    found = []
    for _ in range(4000):
        full = random.normal(0, 1, replicates)
        found.append(np.mean([(random.normal(0, 1, replicates) - full).var(ddof=1) for _ in range(sets)]))
    # the variance of a scaled chi square is 2 mean^2 / degrees; its estimate from 4000 spreads by some 3 %
    assert 2 * np.mean(found) ** 2 / np.var(found) == pytest.approx(pooled_degrees(sets, replicates), rel=0.15)


def test_p_of_the_seeds_is_that_of_the_t_test():
    random = np.random.default_rng(5)
    for gain in (-0.02, 0.0, 0.02):
        # noiseless cases, so that one training's mean difference is its shift
        differences = trained(random, np.zeros(11), gain, replicates=4, noise=0)
        test = stats.ttest_1samp(differences.mean(axis=1), 0, alternative="greater")
        # differences of the order of 0.01 turn round-off into a relative error
        assert seed_p(differences, seed_spread([differences])) == pytest.approx(test.pvalue, abs=1e-9)


def test_p_of_the_seeds_at_its_ends():
    assert np.isnan(seed_p(np.full((1, 3), 0.1), SeedSpread(NAN, 0)))
    still = SeedSpread(0.0, 4)
    assert [seed_p(np.full((2, 3), value), still) for value in (0.1, 0.0, -0.1)] == [0, 0.5, 1]


# Effects


def experiment(gains, controls=20, replicates=3, cases=25, seed=0):
    """Scalars and removed cases of one chosen set for each gain, and of random removals, which change little."""
    random = np.random.default_rng(seed)
    difficulty = random.normal(0.7, 0.1, cases)
    sets = {"all": trained(random, difficulty, 0, replicates)}
    chosen, drawn = {"all": []}, {}
    for size, gain in enumerate(gains, 1):
        sets[f"worst_{size}"] = trained(random, difficulty, gain, replicates)
        chosen[f"worst_{size}"] = [f"c{case}" for case in range(size)]
        for number in range(controls):
            name = f"random_{size}_r{number:02d}"
            sets[name] = trained(random, difficulty, random.normal(0, 0.003), replicates)
            drawn[name] = chosen[f"worst_{size}"]
    return tidy(**sets), chosen, drawn


def row_of(gain, resamples=200, **settings):
    found = effects(*experiment([gain], **settings), resamples=resamples)
    assert found["removal_set"].tolist() == ["all", "worst_1"]
    return found.iloc[1]


def test_an_effect_holds_what_the_functions_say():
    scalars, chosen, random = experiment([0.02, -0.01], controls=4)
    found = effects(scalars, chosen, random, level=0.9, resamples=300, seed=7)
    assert found.columns.tolist() == [*(field.name for field in fields(Effect)), "gain", "harm"]
    assert found["removal_set"].tolist() == ["all", "worst_1", "worst_2"]
    dice, differences = dice_by_set(scalars), differences_by_set(scalars, "all")
    spread = seed_spread(differences.values())
    # sizes 1 and 2 are about as large as one another
    pool = [Removal(len(removed), mean_difference(differences[name])) for name, removed in random.items()]
    compared = [
        against_random(Removal(size, mean_difference(differences[f"worst_{size}"])), pool) for size in (1, 2)
    ]
    for place, name in ((1, "worst_1"), (2, "worst_2")):
        row, difference = found.iloc[place], differences[name]
        intervals = bootstrap_intervals(dice[name], dice["all"], np.random.default_rng(7), 0.9, 300)
        assert (row["removed"], row["replicates"], row["cases"], row["level"]) == (place, 3, 25, 0.9)
        assert row["mean_dice"] == near(dice[name].mean())
        assert row["mean_difference"] == mean_difference(difference)
        assert (row["low"], row["high"]) == mean_interval(difference, spread, 0.9)
        assert (row["controls"], row["smallest_p"]) == (8, near(2 / 9))
        against = compared[place - 1]
        assert row["expected_difference"] == against.expected
        assert (row["better_p"], row["worse_p"]) == (against.better_p, against.worse_p)
        assert row["holm_better_p"] == holm([one.better_p for one in compared])[place - 1]
        assert row["holm_worse_p"] == holm([one.worse_p for one in compared])[place - 1]
        assert row["seed_p"] == seed_p(difference, spread)
        assert row["median_dice"] == median_dice(dice[name])
        assert row["difference_of_medians"] == difference_of_medians(dice[name], dice["all"])
        assert (
            row["difference_of_medians_low"],
            row["difference_of_medians_high"],
        ) == intervals.difference_of_medians
        assert row["median_of_differences"] == median_of_differences(difference)
        assert row["wilcoxon_p"] == wilcoxon_p(case_differences(difference))


def test_a_set_that_removes_nothing_is_not_tested_and_does_not_count():
    scalars, chosen, random = experiment([0.02])
    empty = scalars[scalars["removal_set"] == "all"].assign(removal_set="worst_cluster")
    found = effects(pd.concat([scalars, empty]), chosen | {"worst_cluster": []}, random, resamples=100)
    full, worst, cluster = (row for _, row in found.iterrows())
    for nothing in (full, cluster):
        assert nothing["mean_dice"] == near(dice_by_set(scalars)["all"].mean())
        assert nothing[["difference_of_medians", "median_of_differences", "mean_difference"]].tolist() == [0, 0, 0]
        assert nothing[["low", "high", "wilcoxon_p", "better_p", "holm_better_p", "seed_p"]].isna().all()
        assert not nothing["gain"]
        assert not nothing["harm"]
    assert worst["holm_better_p"] == worst["better_p"]


def test_sets_thought_good_are_corrected_among_themselves():
    scalars, chosen, random = experiment([0.02, -0.01, 0.0], controls=4)
    found = effects(scalars, chosen, random, good=["worst_3"], resamples=100).set_index("removal_set")
    for side in ("better", "worse"):
        p_values = found[f"{side}_p"]
        expected = holm(p_values[["worst_1", "worst_2"]].tolist())
        assert found.loc[["worst_1", "worst_2"], f"holm_{side}_p"].tolist() == near(expected.tolist())
        assert found.loc["worst_3", f"holm_{side}_p"] == p_values["worst_3"]
    # 1 and 2 are about as large as one another, 2 and 3 too
    assert found.loc["worst_1", "smallest_p"] == near(2 / 9)
    assert found.loc["worst_3", "smallest_p"] == near(1 / 9)


@pytest.mark.parametrize("lost", ["all", "worst_1", "random_1_r01"])
def test_a_set_without_dice_is_refused_with_its_name(lost):
    scalars, chosen, random = experiment([0.02], controls=2)
    with pytest.raises(IncompleteScalarsError, match=f"removal set {lost} has no Dice"):
        effects(scalars[scalars["removal_set"] != lost], chosen, random)


def claims(**numbers):
    """Gain and harm of an effect whose other numbers do not matter."""
    effect = Effect(**{field.name: NAN for field in fields(Effect)} | {"level": 0.95, "replicates": 2} | numbers)
    return effect.gain, effect.harm


def test_each_number_of_a_claim_is_needed():
    gain = {"low": 0.001, "high": 0.02, "holm_better_p": 0.049, "holm_worse_p": 1.0}
    assert claims(**gain) == (True, False)
    harm = {"low": -0.02, "high": -0.001, "holm_better_p": 1.0, "holm_worse_p": 0.049}
    assert claims(**harm) == (False, True)
    for lacking in (
        {"low": 0.0},
        {"holm_better_p": 0.05},
        {"holm_better_p": NAN},
        {"replicates": 1},
        {"level": 0.96},
    ):
        assert claims(**gain | lacking) == (False, False)
    for lacking in (
        {"high": 0.0},
        {"holm_worse_p": 0.05},
        {"holm_worse_p": NAN},
        {"replicates": 1},
        {"level": 0.96},
    ):
        assert claims(**harm | lacking) == (False, False)


@pytest.mark.parametrize(("sign", "claim", "p"), [(1, "gain", "holm_better_p"), (-1, "harm", "holm_worse_p")])
def test_a_claim_needs_enough_random_removals(sign, claim, p):
    # with 19 the smallest p is 0.05, and 1 - 0.95 is a little more than that
    nineteen, twenty = row_of(sign * 0.1, controls=19), row_of(sign * 0.1, controls=20)
    assert nineteen[p] == nineteen["smallest_p"] == 0.05
    assert not nineteen[claim]
    assert twenty[claim]
    assert not row_of(sign * 0.1, controls=0)[claim]
    assert not row_of(sign * 0.1, replicates=1)[claim]


def test_better_than_random_is_no_gain_where_random_removal_harms():
    scalars, chosen, random = experiment([0.0])
    drawn = scalars["removal_set"].str.startswith("random")
    harmed = scalars.assign(dice=scalars["dice"].where(~drawn, scalars["dice"] - 0.1))
    spared = effects(harmed, chosen, random, resamples=100).iloc[1]
    assert spared["better_p"] < 0.05
    assert spared["low"] < 0 < spared["high"]
    assert not spared["gain"]


def test_without_effect_neither_gain_nor_harm_is_often_claimed():
    experiments = 200
    found = pd.DataFrame([row_of(0.0, resamples=100, seed=seed) for seed in range(experiments)])
    # what a share of 5 % exceeds once in a thousand times
    assert (found["gain"] | found["harm"]).sum() <= stats.binom.ppf(0.999, experiments, 0.05)
    # the same experiments look like gains to a test that does not know of seeds
    naive = (found["wilcoxon_p"] < 0.05) & (found["mean_difference"] > 0)
    assert naive.mean() > 0.2
    # p against random removal is uniform, so a half of them lie below a half; four standard deviations
    assert (found["better_p"] <= 0.5).mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(experiments))


def test_a_large_effect_is_claimed():
    found = pd.DataFrame([row_of(0.08, resamples=100, seed=seed) for seed in range(20)])
    # eight standard deviations of one seed's shift
    assert found["gain"].all()


# Sentences


def described(**changes):
    row = {
        "removal_set": "worst_7",
        "removed": 7,
        "replicates": 3,
        "cases": 40,
        "mean_dice": 0.812,
        "mean_difference": 0.012,
        "low": -0.003,
        "high": 0.027,
        "controls": 20,
        "expected_difference": -0.004,
        "better_p": 0.21,
        "worse_p": 0.81,
        "holm_better_p": 0.21,
        "holm_worse_p": 0.81,
        "smallest_p": 1 / 21,
        "level": 0.95,
        "gain": False,
        "harm": False,
    }
    return sentence(pd.Series(row | changes))


WHAT = "removing 7 cases (worst_7) changes the mean Dice of 40 test patients by "
AROUND = WHAT + "+0.012 (95 % interval -0.003 to +0.027), "
ABOVE = {"mean_difference": 0.031, "low": 0.0101, "high": 0.052}
ABOVE_TEXT = WHAT + "+0.031 (95 % interval +0.010 to +0.052), "
BELOW = {"mean_difference": -0.031, "low": -0.052, "high": -0.0101}
BELOW_TEXT = WHAT + "-0.031 (95 % interval -0.052 to -0.010), "
RANDOM = "than removing as many at random (-0.004), "


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, AROUND + "no other than removing as many at random (-0.004)"),
        (
            {"better_p": 0.02, "holm_better_p": 0.04},
            AROUND + f"better {RANDOM}p = 0.02, corrected 0.04, but perhaps no better than with all cases",
        ),
        (
            {"better_p": 0.02, "holm_better_p": 0.06},
            AROUND + f"better {RANDOM}p = 0.02, corrected 0.06, which does not hold for all the sets together",
        ),
        (
            {"worse_p": 0.02, "holm_worse_p": 0.02},
            AROUND + f"worse {RANDOM}p = 0.02, but perhaps no worse than with all cases",
        ),
        (
            {"controls": 3, "smallest_p": 0.25},
            AROUND + "but with only 3 random removals this cannot be told from luck",
        ),
        (
            {"controls": 0, "smallest_p": NAN, "expected_difference": NAN, "better_p": NAN},
            AROUND + "but without random removals of about this size this cannot be told from luck",
        ),
        (
            ABOVE | {"gain": True, "better_p": 0.0004, "holm_better_p": 0.0012},
            ABOVE_TEXT + f"a gain: better {RANDOM}p < 0.001, corrected 0.0012",
        ),
        (ABOVE, ABOVE_TEXT + "but no other than removing as many at random (-0.004)"),
        (
            BELOW | {"harm": True, "worse_p": 0.048, "holm_worse_p": 0.048},
            BELOW_TEXT + f"a harm: worse {RANDOM}p = 0.048",
        ),
        (BELOW, BELOW_TEXT + "but no other than removing as many at random (-0.004)"),
        (
            {"removed": 0, "removal_set": "all", "low": NAN, "high": NAN},
            "removing nothing (all) gives a mean Dice of 0.812",
        ),
        (
            {"low": NAN, "high": NAN},
            "removing 7 cases (worst_7) cannot be judged, as fewer than two test patients have a defined Dice",
        ),
    ],
)
def test_a_sentence_says_what_the_numbers_hold(changes, expected):
    assert described(**changes) == expected


def test_a_sentence_tells_where_one_training_leaves_the_seed_out():
    text = described(**BELOW, replicates=1, removed=1, removal_set="worst_1", level=0.9)
    assert text == (
        "removing 1 case (worst_1) changes the mean Dice of 40 test patients by -0.031 (90 % interval -0.052 to "
        "-0.010, without the spread of the seed), but with one training of a set this cannot be told from luck"
    )


def test_a_sentence_has_no_negative_zero():
    assert "by +0.000 (95 % interval -0.003 to +0.000)" in described(mean_difference=-1e-5, high=-1e-5)


def test_sentences_follow_the_claims():
    assert ", a gain: better than removing as many at random" in sentence(row_of(0.1))
    assert ", a harm: worse than removing as many at random" in sentence(row_of(-0.1))
    assert "cannot be told from luck" in sentence(row_of(0.1, controls=19))
