"""How far another training says the same: against a published example and by simulation."""

import numpy as np
import pandas as pd
import pytest

from idal_assets.analysis.reliability import icc_2_1, reliability, reliability_sentence
from idal_assets_tests.matrices import square

pytestmark = pytest.mark.unit


def test_the_intraclass_correlation_is_that_of_shrout_and_fleiss():
    # Psychological Bulletin 86 (1979), table 2: six targets, four judges; BMS 11.24, JMS 32.49, EMS 1.02
    judges = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    assert icc_2_1(judges) == pytest.approx(0.29, abs=0.005)


def test_the_intraclass_correlation_worked_by_hand():
    # subjects 1, 3, 5 and the second rater one above: BMS 8, JMS 1.5, EMS 0
    assert icc_2_1([[1, 2], [3, 4], [5, 6]]) == pytest.approx(8 / (8 + 2 * 1.5 / 3))
    assert icc_2_1([[1, 1], [3, 3], [5, 5]]) == 1
    assert np.isnan(icc_2_1([[2, 2], [2, 2]]))


def repeated(spread, noise, seeds=3, size=30):
    rng = np.random.default_rng(0)
    teaches, is_hard = spread * rng.standard_normal((size, 1)), spread * rng.standard_normal(size)
    return [square(0.7 + teaches + is_hard + noise * rng.standard_normal((size, size))) for _ in range(seeds)]


def test_pure_noise_is_not_reliable_and_real_differences_are():
    noise = reliability(repeated(0.0, 0.05)).set_index("measure")
    assert (noise[["icc", "spearman"]].abs() < 0.25).all(axis=None)
    real = reliability(repeated(0.03, 0.02)).set_index("measure")
    assert (real[["icc", "spearman"]] > 0.95).all(axis=None)
    # half of the variance of a mean of 29 cells
    half = reliability(repeated(0.02, 0.02 * np.sqrt(29), seeds=6, size=30)).set_index("measure")
    assert half.loc["row mean", "icc"] == pytest.approx(0.5, abs=0.2)
    assert list(real.index) == ["row mean", "column mean", "score"]
    assert set(real["seeds"]) == {3}


def test_it_is_said_or_said_not_to_have_been_measured():
    assert "was not measured: case_model.seeds is 1" in reliability_sentence(
        reliability(repeated(0.1, 0.1, seeds=1))
    )
    table = pd.DataFrame([("row mean", 2, 0.98, 0.95)], columns=["measure", "seeds", "icc", "spearman"])
    assert "Between 2 seeds" in reliability_sentence(table)
    assert "row mean 0.98 (0.95)" in reliability_sentence(table)
