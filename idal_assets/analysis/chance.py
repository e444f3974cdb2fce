"""What chance alone would show: matrices and donors of which none is worse than the others.

Donors differ, and the mean of a row has noise, so some donor and some cluster is always the lowest. Here is what
the lowest ones are compared with. Spread is measured by the median absolute deviation (MAD), which a few bad
donors do not widen, and measured anew in all that chance makes; so it does not matter how far donors differ.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from idal_assets.analysis.similarity import ROUNDING

NORMAL = 1.482602218505602
"""Standard deviations of a normal distribution in one MAD."""


def robust_z(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far each value lies from the median of its sample, in standard deviations as the MAD estimates them.

    Args:
        values: Samples, the last axis theirs; NaN counts as an average value.

    Returns:
        The same shape; 0 where all are alike. Where more than half are, the mean absolute deviation stands for
        the MAD.
    """
    centred = values - np.nanmedian(values, axis=-1, keepdims=True)
    scale = NORMAL * np.nanmedian(np.abs(centred), axis=-1, keepdims=True)
    mean_deviation = np.sqrt(np.pi / 2) * np.nanmean(np.abs(centred), axis=-1, keepdims=True)
    scale = np.where(scale > 10**-ROUNDING, scale, mean_deviation)
    z = np.divide(centred, scale, out=np.zeros_like(centred), where=scale > 10**-ROUNDING)
    return np.nan_to_num(z, nan=0.0).round(ROUNDING)


def chance_of_outliers(values: NDArray[np.float64], samples: int, seed: int) -> NDArray[np.float64]:
    """How often the lowest of as many ordinary donors is as low as each of these.

    Args:
        values: Score of every donor, low is bad.
        samples: How many samples of a normal distribution are drawn.
        seed: Seed of the draws.

    Returns:
        A p-value for each donor, corrected for their number by the distribution of the lowest one (single step;
        Westfall and Young 1993).
    """
    drawn = np.random.default_rng(seed).standard_normal((samples, len(values)))
    return share_as_low(robust_z(values), robust_z(drawn).min(axis=1))


def share_as_low(found: NDArray[np.float64], by_chance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of what chance made that is at most as high as what was found, which counts as made by chance too."""
    return (1 + (by_chance <= found[:, None]).sum(axis=1)) / (1 + len(by_chance))


def row_effects(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far the models of each donor lie above or below the others, on average over the receivers.

    Args:
        values: Donors by receivers, the donors first; a donor's own case does not count.

    Returns:
        Mean of every row after the means of the columns; NaN where no cell is defined.
    """
    others = _without_own(values)
    return _mean_of(others - _mean_of(others.T)[None])


def matrices_by_chance(values: NDArray[np.float64], samples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Makes matrices whose donors differ no more than ordinary ones, with the noise of this one.

    What is left of a cell after the means of its row and column is dealt out anew among the donors, column by
    column, so that no two rows are alike for a reason. Every row is then moved as a whole by a draw from a normal
    distribution, so that rows differ as far as those of most donors do.

    Args:
        values: Donors by receivers, the donors first, without gaps.
        samples: How many matrices.
        seed: Seed of the draws.

    Yields:
        Matrices of the same shape.
    """
    rng = np.random.default_rng(seed)
    donors, receivers = values.shape
    columns, rows = _mean_of(_without_own(values).T), row_effects(values)
    rest = values - columns - rows[:, None]
    own = np.eye(donors, receivers, dtype=bool)
    noise = np.nanvar(np.where(own, np.nan, rest)) / max(1, receivers - 1)
    spread = NORMAL * np.median(np.abs(rows - np.median(rows)))
    beyond_noise = np.sqrt(max(spread**2 - noise, 0.0))
    # a donor's own case is training data, so it is not dealt among the others
    among_donors, others = rest[:, :donors].T, ~own[:, :donors]
    for _ in range(samples):
        dealt = np.empty_like(rest)
        dealt[:, :donors] = np.where(others, 0.0, among_donors)
        by_column = rng.permuted(among_donors[others].reshape(donors, donors - 1), axis=1)
        dealt[:, :donors].T[others] = by_column.ravel()
        dealt[:, donors:] = rng.permuted(rest[:, donors:], axis=0)
        yield columns + beyond_noise * rng.standard_normal((donors, 1)) + dealt


def _without_own(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.eye(values.shape[0], values.shape[1], dtype=bool), np.nan, values)


def _mean_of(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of every row over the defined cells; NaN without any."""
    count = (~np.isnan(values)).sum(axis=1)
    return np.divide(np.nansum(values, axis=1), count, out=np.full(len(values), np.nan), where=count > 0)
