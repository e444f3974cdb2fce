"""The effect of each donor from random halves, against hand-worked numbers and simulated experiments."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from idal_assets.analysis.case_effects import case_effects

pytestmark = pytest.mark.unit

DONORS = [f"d{number:02d}" for number in range(20)]


def halves(pairs, seed=0):
    random = np.random.default_rng(seed)
    removed = {}
    for pair in range(pairs):
        order = list(random.permutation(DONORS))
        removed[f"half_r{2 * pair + 1:02d}"], removed[f"half_r{2 * pair + 2:02d}"] = order[:10], order[10:]
    return removed


def simulated(effects, pairs, noise=0.004, seed=0):
    """Mean Dice after trainings on halves, to which each donor that is there adds its effect."""
    random = np.random.default_rng(seed)
    removed = halves(pairs, seed)
    dice = {}
    for place, (name, gone) in enumerate(removed.items()):
        if place % 2 == 0:
            luck = random.normal(0, 0.05)
        there = sum(effect for donor, effect in effects.items() if donor not in gone)
        dice[name] = 0.7 + luck + there + random.normal(0, noise)
    return dice, removed


def test_effects_by_hand():
    # a is in the first of both pairs, b in the second, c in one each
    removed = {"h1": ["b", "c"], "h2": ["a"], "h3": ["b"], "h4": ["a", "c"]}
    dice = {"h1": 0.8, "h2": 0.7, "h3": 0.6, "h4": 0.58}
    found = case_effects(dice, removed, ["a", "b", "c"], 0.9).set_index("case_id")
    assert list(found.index) == ["b", "c", "a"]
    assert found["effect"].tolist() == pytest.approx([-0.06, -0.04, 0.06])
    # differences of the pairs 0.1 and 0.02, so the error is 0.04
    assert found.loc["a", "standard_error"] == pytest.approx(0.04)
    reach = stats.t.ppf(0.95, 1) * 0.04
    assert found.loc["a", ["low", "high"]].tolist() == pytest.approx([0.06 - reach, 0.06 + reach])
    assert set(found["pairs"]) == {2}
    assert set(found["verdict"]) == {"cannot be said"}


def test_halves_that_are_no_pair_are_refused():
    removed = {"h1": ["b", "c"], "h2": ["a", "b"]}
    with pytest.raises(ValueError, match="h2 does not keep what h1 removes"):
        case_effects({"h1": 0.8, "h2": 0.7}, removed, ["a", "b", "c"], 0.9)


def test_without_halves_nothing_can_be_said():
    found = case_effects({}, {}, ["a", "b"], 0.95)
    assert found["effect"].isna().all()
    assert set(found["verdict"]) == {"cannot be said"}
    assert set(found["pairs"]) == {0}


def test_the_luck_of_the_seed_that_a_pair_shares_is_in_no_effect():
    dice, removed = simulated({"d03": -0.02}, pairs=10, noise=1e-9)
    found = case_effects(dice, removed, DONORS, 0.95).set_index("case_id")
    # the seed moves pairs by 0.05, and this donor alone tells the two halves of each apart
    assert found.loc["d03", "effect"] == pytest.approx(-0.02, abs=1e-6)
    assert found.loc["d03", "verdict"] == "harms"


def test_planted_harm_is_found_and_valid_donors_are_seldom_called_harmful():
    called, found_harm, off_zero, experiments = 0, 0, 0, 60
    for seed in range(experiments):
        effects = {"d00": -0.02, "d01": -0.02, "d02": 0.005, "d03": -0.0}
        dice, removed = simulated(effects, pairs=20, seed=seed)
        found = case_effects(dice, removed, DONORS, 0.95).set_index("case_id")
        verdicts = found["verdict"]
        off_zero += (found.loc[["d00", "d01"], "high"] < 0).sum()
        found_harm += (verdicts[["d00", "d01"]] == "harms").sum()
        called += (verdicts.drop(["d00", "d01", "d02"]) == "harms").sum()
    assert off_zero / (2 * experiments) > 0.9
    assert found_harm / (2 * experiments) > 0.7
    # one side of 95 % is 2.5 %; five standard deviations of a share among 17 donors of 60 experiments
    assert called / (17 * experiments) < 0.025 + 5 * np.sqrt(0.025 * 0.975 / (17 * experiments))


def test_where_no_donor_does_anything_hardly_any_experiment_names_one():
    named, left_zero_out, experiments = 0, 0, 200
    for seed in range(experiments):
        dice, removed = simulated({}, pairs=20, seed=seed)
        found = case_effects(dice, removed, DONORS, 0.95)
        named += (found["verdict"] != "cannot be said").any()
        left_zero_out += ((found["low"] > 0) | (found["high"] < 0)).sum()
    # intervals are what they claim to be, and it is their number that the correction is for
    assert left_zero_out / (20 * experiments) == pytest.approx(0.05, abs=0.02)
    # five standard deviations of a share of 5 % of the experiments
    assert named / experiments < 0.05 + 5 * np.sqrt(0.05 * 0.95 / experiments)


def test_effects_add_up_to_what_a_regression_on_all_donors_says():
    effects = dict(zip(DONORS, np.linspace(-0.02, 0.02, 20), strict=True))
    dice, removed = simulated(effects, pairs=400)
    found = case_effects(dice, removed, DONORS, 0.95).set_index("case_id")["effect"]
    kept = pd.DataFrame({name: [donor not in gone for donor in DONORS] for name, gone in removed.items()}, DONORS)
    pair = np.repeat(np.eye(400), 2, axis=0)
    design = np.concatenate([kept.T.to_numpy(float), pair], axis=1)
    fitted = np.linalg.lstsq(design, np.array(list(dice.values())), rcond=None)[0][:20]
    # halves of one size tell effects apart only up to a common shift
    difference = (found[DONORS].to_numpy() - fitted) - np.mean(found[DONORS].to_numpy() - fitted)
    assert np.abs(difference).max() < 0.006
