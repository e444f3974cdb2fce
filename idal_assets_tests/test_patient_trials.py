"""Whether a choice of donors pays: made-up trials with known answers."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from idal_assets.analysis.patient_trials import (
    arm_table,
    compare,
    patient_means,
    risk_coverage,
    same_numbers,
    sentence,
)

pytestmark = pytest.mark.unit

CASES = [f"case_{number}" for number in range(40)]


def scalars(gains: dict[str, float], noise: float = 0.02, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    level = {case: rng.uniform(0.6, 0.9) for case in CASES}
    rows = [("baseline", "merged", 0, 0, case, level[case]) for case in CASES]
    for arm, gain in gains.items():
        for draw in (1, 2) if arm == "random" else (0,):
            for count in (1, 3):
                rows += [
                    (arm, "merged", count, draw, case, level[case] + gain + rng.normal(0, noise)) for case in CASES
                ]
    return pd.DataFrame(rows, columns=["arm", "mode", "count", "draw", "case_id", "dice"])


class TestSameNumbers:
    def test_each_case_with_as_many_donors_as_it_is_offered(self):
        table = scalars({"best": 0.1})
        counts = dict(zip(CASES, [0, 1, 3] * 14, strict=False))
        found = same_numbers(table, "best", "merged", counts, "baseline")
        for case, count in counts.items():
            arm = "best" if count else "baseline"
            (expected,) = table.loc[
                (table["case_id"] == case) & (table["arm"] == arm) & (table["count"] == count), "dice"
            ]
            assert found[case] == expected

    def test_draws_of_random_donors_are_averaged(self):
        table = scalars({"random": 0.0})
        found = same_numbers(table, "random", "merged", dict.fromkeys(CASES, 3), "baseline")
        own = table[(table["arm"] == "random") & (table["count"] == 3)]
        pd.testing.assert_series_equal(
            found.sort_index(), own.groupby("case_id")["dice"].mean(), check_names=False
        )


def test_cases_of_one_patient_count_once():
    table = scalars({"best": 0.1})
    patients = {case: "twice" if case in CASES[:2] else case for case in CASES}
    means = patient_means(table, patients)
    assert means.shape == (3, 39)
    both = table[table["case_id"].isin(CASES[:2]) & (table["arm"] == "best") & (table["count"] == 3)]
    assert means.loc[("best", "merged", 3), "twice"] == pytest.approx(both["dice"].mean())


def test_comparisons_are_students_paired_test_corrected_by_holm():
    rng = np.random.default_rng(2)
    offered = pd.Series(rng.normal(0.8, 0.05, 40))
    rivals = {"near": offered + rng.normal(-0.004, 0.02, 40), "far": offered + rng.normal(-0.03, 0.02, 40)}
    found = {one.rival: one for one in compare(offered, rivals, 0.95)}
    p = {name: stats.ttest_rel(offered, other).pvalue for name, other in rivals.items()}
    assert found["far"].p == pytest.approx(min(2 * p["far"], 1))
    assert found["near"].p == pytest.approx(max(p["near"], 2 * p["far"]))
    low, high = stats.ttest_rel(offered, rivals["far"]).confidence_interval(0.95)
    assert (found["far"].low, found["far"].high) == pytest.approx((low, high))
    assert found["far"].better
    assert not found["far"].worse


def test_share_of_the_gap():
    table = scalars({"classifier": 0.02, "oracle": 0.08}, noise=0.005)
    means = patient_means(table, {case: case for case in CASES})
    baseline, oracle = means.loc[("baseline", "merged", 0)], means.loc[("oracle", "merged", 3)]
    found = arm_table(means, baseline, oracle, np.random.default_rng(0), 0.95, 2000)
    rows = found.set_index(["arm", "count"])
    assert rows.loc[("oracle", 3), "gap_share"] == pytest.approx(1)
    own = rows.loc[("classifier", 3)]
    assert own["gap_low"] < own["gap_share"] < own["gap_high"]
    assert own["gap_share"] == pytest.approx(0.25, abs=0.03)
    assert rows.loc[("baseline", 0), ["mean_difference", "gap_share", "lose_share"]].tolist() == [0, 0, 0]


def test_who_loses():
    means = pd.DataFrame(
        [[0.8, 0.8, 0.8, 0.8], [0.8, 0.74, 0.76, 0.9]],
        index=pd.MultiIndex.from_tuples(
            [("baseline", "merged", 0), ("best", "merged", 1)], names=["arm", "mode", "count"]
        ),
        columns=list("abcd"),
    )
    found = arm_table(means, means.iloc[0], means.iloc[0], np.random.default_rng(0), 0.95, 100)
    assert found.loc[1, "lose_share"] == 0.25
    assert np.isnan(found.loc[1, "gap_share"])


ENOUGH = {"baseline": 0.0, "random": 0.0, "best": 0.0, "all": 0.0}


class TestSentence:
    @staticmethod
    def said(**rivals: float) -> str:
        rng = np.random.default_rng(0)
        offered = pd.Series(0.8 + rng.normal(0, 0.001, 40))
        others = {name: 0.8 + gain + rng.normal(0, 0.01, 40) for name, gain in (ENOUGH | rivals).items()}
        found = compare(offered, {name: pd.Series(dice) for name, dice in others.items()}, 0.95)
        return sentence(found, 30, 40, 0.95)

    def test_a_gain_over_all_rivals(self):
        said = self.said(baseline=-0.05, random=-0.05, best=-0.05, all=-0.05)
        assert said.startswith("30 of 40 patients get a network of their own")
        assert "Which donors suit depends on the patient" in said

    def test_no_more_than_the_best_on_average(self):
        said = self.said(baseline=-0.05, random=-0.05, all=-0.05)
        assert (
            "not shown to be better than the donors that are best on average, the same for every patient" in said
        )

    def test_no_more_than_random_donors(self):
        assert "random donors do as well" in self.said(baseline=-0.05)

    def test_no_gain(self):
        assert "One network for all is as good" in self.said()

    def test_harm(self):
        assert "does harm" in self.said(baseline=0.05)

    def test_nobody_is_adapted_to(self):
        assert sentence([], 0, 40, 0.95).endswith("one network for all is as good.")


def test_what_is_kept_when_the_least_sure_are_left_out():
    found = risk_coverage(np.array([0.9, 0.2, 0.5, np.nan]), np.array([0.8, 0.1, 0.6, 0.4]))
    assert found["coverage"].tolist() == pytest.approx([1, 2 / 3, 1 / 3])
    assert found["mean_dice"].tolist() == pytest.approx([0.5, 0.7, 0.8])
