"""What chance alone shows: the robust spread by hand, and that p-values hold what they promise."""

import numpy as np
import pytest

from idal_assets.analysis.chance import chance_of_outliers, matrices_by_chance, robust_z, row_effects, share_as_low

pytestmark = pytest.mark.unit

ROUND_OFF = 1e-11


def test_the_robust_z_worked_by_hand():
    # median 3, absolute deviations 2, 1, 0, 1, 97: their median is 1
    expected = np.array([-2, -1, 0, 1, 97]) / 1.4826022185
    np.testing.assert_allclose(robust_z(np.array([1.0, 2, 3, 4, 100])), expected, atol=1e-8)
    samples = np.array([[1.0, 2, 3, 4, 100], [5, 5, 5, 5, 5]])
    np.testing.assert_allclose(robust_z(samples), [expected, np.zeros(5)], atol=1e-8)
    # more than half are alike: mean absolute deviation 8/5 times sqrt(pi/2)
    np.testing.assert_allclose(
        robust_z(np.array([5.0, 5, 5, 5, 13]))[-1], 8 / (1.6 * np.sqrt(np.pi / 2)), atol=ROUND_OFF
    )
    assert robust_z(np.array([1.0, np.nan, 3, 2]))[1] == 0


def test_the_effects_of_rows_worked_by_hand():
    # own cases left out, column means are .3, .4, .5 and, of the validation case, .6
    values = np.array([[9, 0.4, 0.6, 0.7], [0.2, 9, 0.4, 0.6], [0.4, 0.4, 9, 0.5]])
    np.testing.assert_allclose(
        row_effects(values), [(0 + 0.1 + 0.1) / 3, (-0.1 - 0.1 + 0) / 3, (0.1 + 0 - 0.1) / 3], atol=ROUND_OFF
    )


def test_what_was_found_counts_as_made_by_chance_too():
    found = share_as_low(np.array([-3.0, -1.0, 0.5]), np.array([-2.0, -1.0, 0.0]))
    assert found.tolist() == [1 / 4, 3 / 4, 1.0]


def test_few_donors_are_outliers_by_chance_and_bad_ones_are():
    rng = np.random.default_rng(0)
    ordinary = rng.standard_normal((200, 20)) * 7 + 3
    lowest = [chance_of_outliers(values, 499, seed).min() for seed, values in enumerate(ordinary)]
    assert 0.01 < np.mean(np.array(lowest) <= 0.05) < 0.09
    bad = ordinary[0].copy()
    bad[[3, 8]] -= 80
    assert set(np.flatnonzero(chance_of_outliers(bad, 499, 0) <= 0.01)) == {3, 8}
    assert chance_of_outliers(np.full(6, 0.5), 99, 0).min() > 0.5


def test_matrices_by_chance_keep_columns_and_spread_and_nothing_else():
    rng = np.random.default_rng(1)
    columns, rows = 0.2 * rng.standard_normal(34), 0.1 * rng.standard_normal((30, 1))
    values = 0.6 + columns + rows + 0.02 * rng.standard_normal((30, 34))
    values[:3, 3:] -= 0.3  # three donors are worse, with a block of their own
    values[:3, 20:] += 0.5
    np.fill_diagonal(values, 2.0)
    made = list(matrices_by_chance(values, 200, seed=0))
    assert all(one.shape == values.shape for one in made)
    others = ~np.eye(30, 34, dtype=bool)
    means = np.mean([np.where(others, one, 0).sum(axis=0) / others.sum(axis=0) for one in made], axis=0)
    np.testing.assert_allclose(means, np.where(others, values, 0).sum(axis=0) / others.sum(axis=0), atol=0.02)
    spreads = [np.std(row_effects(one)) for one in made]
    assert np.mean(spreads) == pytest.approx(np.std(rows[3:]), rel=0.35)
    # the three rows are no longer alike
    assert np.mean([np.corrcoef(one[0, 3:] - columns[3:], one[1, 3:] - columns[3:])[0, 1] for one in made]) < 0.1
    # a donor's own case is not dealt among the others
    assert all((np.diagonal(one) > 1).all() and (one[others] < 1.9).all() for one in made)
