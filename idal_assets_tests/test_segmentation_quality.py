"""The predicted Dice, its interval and the light."""

import numpy as np
import pandas as pd
import pytest

from idal_assets.analysis.segmentation_quality import (
    QUALITY_FEATURES,
    conformal_reach,
    fit_quality,
    light_of,
    worst_region,
)

pytestmark = pytest.mark.unit

CASES = 60


def played(seed: int, cases: int = CASES) -> pd.DataFrame:
    """Segmentations whose Dice follows from their agreement, with noise of .03."""
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame({name: rng.uniform(0.4, 1, cases) for name in QUALITY_FEATURES})
    dice = 0.1 + 0.7 * rows["agreement"] + 0.1 * rows["with_others"] + rng.normal(0, 0.03, cases)
    names = [f"case_{number}" for number in range(cases)]
    return rows.assign(case=names, group=names, region="whole", dice=dice.clip(0, 1), final=True)


class TestReach:
    @pytest.mark.parametrize(
        ("errors", "level", "place"), [(9, 0.9, 9), (19, 0.9, 18), (24, 0.9, 23), (99, 0.9, 90)]
    )
    def test_the_error_at_its_place(self, errors: int, level: float, place: int):
        assert conformal_reach(np.arange(errors, 0, -1.0), level) == place

    def test_unknown_where_too_few_judge(self):
        assert np.isnan(conformal_reach(np.ones(8), 0.9))

    def test_new_cases_lie_inside_as_often_as_it_says(self):
        # the coverage of split conformal intervals is exact over calibration and new case: .909 for 10 of 10
        rng, inside = np.random.default_rng(1), 0
        for _ in range(4000):
            inside += abs(rng.normal()) <= conformal_reach(np.abs(rng.normal(size=10)), 0.9)
        # four standard errors of a share of .909 are .018
        assert abs(inside / 4000 - 10 / 11) < 0.018


class TestQuality:
    def test_it_predicts_new_cases_and_its_intervals_hold(self):
        quality = fit_quality(played(0), [f"case_{number}" for number in range(CASES)], 0.9)
        new = played(1, 400)
        found = pd.concat([quality.predict(new.iloc[[row]]) for row in range(len(new))])
        error = np.abs(found["predicted"].to_numpy() - new["dice"].to_numpy())
        # of noise with a standard deviation of .03 the mean size is .024
        assert error.mean() < 0.03
        inside = (found["low"].to_numpy() <= new["dice"]) & (new["dice"] <= found["high"].to_numpy())
        assert 0.82 < inside.mean() < 0.98

    def test_only_judges_and_final_segmentations_make_the_interval(self):
        rows = played(0)
        # donors whose label is wrong
        rows.loc[rows.index[:10], "dice"] = 0.0
        judges = list(rows["case"][10:])
        wild = rows.iloc[20:40].assign(final=False, dice=0.5)
        quality = fit_quality(pd.concat([rows, wild]), judges, 0.9)
        assert quality.judged["whole"] == len(judges)

    def test_cases_of_one_patient_do_not_predict_each_other(self):
        rows = played(0)
        # each case twice, with features that tell nothing but which patient it is
        twice = pd.concat([rows, rows.assign(case=rows["case"] + "b")])
        alone = fit_quality(rows, list(rows["case"]), 0.9)
        together = fit_quality(twice, list(rows["case"]), 0.9)
        assert together.reach["whole"] == pytest.approx(alone.reach["whole"], rel=0.1)

    def test_without_enough_judges_the_interval_is_all_that_a_dice_can_be(self):
        quality = fit_quality(played(0), ["case_1", "case_2"], 0.9)
        found = quality.predict(played(1).iloc[[0]])
        assert (found["low"].iloc[0], found["high"].iloc[0]) == (0, 1)

    def test_undefined_dice_are_left_out(self):
        rows = played(0)
        with_gap = pd.concat([rows, rows.iloc[:5].assign(case="x", group="x", dice=np.nan)])
        judges = list(rows["case"])
        assert fit_quality(with_gap, judges, 0.9) == fit_quality(rows, judges, 0.9)


@pytest.mark.parametrize(
    ("worst", "light"), [(0.85, "believe"), (0.8, "believe"), (0.7, "look"), (0.59, "by_hand")]
)
def test_the_worst_region_decides_the_light(worst: float, light: str):
    quality = pd.DataFrame({"predicted": {"a": 0.95, "b": worst, "c": 0.0}})
    assert light_of(quality, ["a", "b", "not found"], believe=0.8, by_hand=0.6) == light


def test_the_worst_region_is_one_that_counts():
    quality = pd.DataFrame({"predicted": {"a": 0.95, "b": 0.7, "c": 0.1}})
    assert worst_region(quality, ["a", "b", "not found"]) == "b"
    assert worst_region(quality, ["not found"]) is None


def test_where_nothing_is_found_a_person_does_it():
    assert light_of(pd.DataFrame({"predicted": []}), ["a"], 0.8, 0.6) == "by_hand"
