"""How many donors a patient gets, and whether any; against lines worked out by SciPy."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from idal_assets.analysis.adaptation import Gain, advantage_of, chosen_donors, decide, fit_gain

pytestmark = pytest.mark.unit

SCORES = pd.Series({"a": 0.1, "b": 0.4, "c": -0.2, "d": 0.3})


class TestChoice:
    def test_the_best_count_in_proportion_to_how_far_they_are_above_the_next(self):
        assert chosen_donors(SCORES, 2) == pytest.approx({"b": 0.6, "d": 0.4})

    def test_one_donor_has_all_the_weight(self):
        assert chosen_donors(SCORES, 1) == {"b": 1.0}

    def test_all_where_there_are_fewer(self):
        found = chosen_donors(SCORES, 9)
        assert list(found) == ["b", "d", "a", "c"]
        assert sum(found.values()) == pytest.approx(1)

    def test_donors_that_tie_count_alike(self):
        tied = pd.Series({"a": 0.2, "b": 0.2, "c": 0.2})
        assert chosen_donors(tied, 2) == {"a": 0.5, "b": 0.5}

    def test_advantage_is_the_weighted_mean(self):
        assert advantage_of(SCORES, {"b": 0.75, "a": 0.25}) == pytest.approx(0.325)


def sample(slope: float, count: int = 30) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    advantage = rng.normal(0.05, 0.02, count)
    return advantage, 0.01 + slope * advantage + rng.normal(0, 0.01, count)


class TestGain:
    def test_the_line_is_that_of_scipy(self):
        advantage, gain = sample(0.8)
        line, expected = fit_gain(advantage, gain), stats.linregress(advantage, gain)
        assert line.slope == pytest.approx(expected.slope)
        assert line.expected(0.07) == pytest.approx(expected.intercept + expected.slope * 0.07)

    def test_the_bound_holds_the_true_mean_as_often_as_it_says(self):
        # 2000 samples: the standard error of a share of .95 is .005
        rng, held = np.random.default_rng(0), 0
        for _ in range(2000):
            advantage = rng.normal(0, 1, 12)
            line = fit_gain(advantage, 0.5 * advantage + rng.normal(0, 0.5, 12))
            held += line.lower(1.0, 0.95) <= 0.5
        assert 0.93 < held / 2000 < 0.97

    def test_a_falling_line_is_taken_for_a_level_one(self):
        advantage, gain = sample(-0.8)
        line = fit_gain(advantage, gain)
        assert line.slope == 0
        assert line.expected(0.2) == pytest.approx(gain.mean())

    def test_undefined_gains_are_left_out(self):
        advantage, gain = sample(0.8)
        with_gap = fit_gain(np.append(advantage, 9.0), np.append(gain, np.nan))
        assert with_gap == fit_gain(advantage, gain)

    def test_nothing_is_sure_of_three_cases(self):
        assert fit_gain(np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.0, 1.0])).lower(2.0, 0.95) == -np.inf
        assert fit_gain(np.array([]), np.array([])).lower(2.0, 0.95) == -np.inf


class TestDecision:
    @staticmethod
    def level_gain(mean: float, spread: float = 0.01) -> Gain:
        return Gain(mean, 0.0, 0.0, 0.0, spread, 20)

    def test_the_number_with_the_highest_lower_bound(self):
        gains = {1: self.level_gain(0.03, 0.1), 2: self.level_gain(0.02, 0.001)}
        found = decide(SCORES, gains, 0.95)
        assert (found.count, list(found.donors)) == (2, ["b", "d"])
        assert found.expected == pytest.approx(0.02)
        assert 0 < found.lower < 0.02

    def test_none_where_no_bound_is_above_zero(self):
        found = decide(SCORES, {1: self.level_gain(0.001, 0.1)}, 0.95)
        assert (found.count, found.donors, found.expected) == (0, {}, 0.0)
        assert found.lower < 0

    def test_a_patient_for_whom_the_donors_suit_better_is_adapted_to(self):
        gains = {1: Gain(0.0, 1.0, 0.1, 1.0, 0.01, 20)}
        suits, does_not = pd.Series({"a": 0.3, "b": 0.0}), pd.Series({"a": 0.05, "b": 0.0})
        assert decide(suits, gains, 0.95).count == 1
        assert decide(does_not, gains, 0.95).count == 0
