"""Which donors make the network of a patient, how many, and whether any: the choice and its gate.

An arm is a way to make a network for a patient: donors chosen by some score, how many of them, and what is made of
them (`settings.AdaptationMode`). The number is decided for each patient by what it gained on cases that were
played as patients. Where the lower bound of the gain is not above zero the baseline is used as it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

CHOSEN = "classifier"
"""Donors that the similarity classifier predicts to be the best for this patient."""


def scalar_scores(predicted: pd.DataFrame, column: str, regions: Sequence[str]) -> pd.Series:
    """One score for each donor: the mean of a column over the regions that the scalar averages."""
    chosen = predicted[predicted["region"].isin(list(regions))]
    return chosen.groupby("donor", sort=False)[column].mean()


def chosen_donors(scores: pd.Series, count: int) -> dict[str, float]:
    """The donors with the highest scores, and how much each counts.

    Args:
        scores: By donor; the higher, the more it suits.
        count: How many; all where there are fewer.

    Returns:
        Weight by donor, the best first, in all 1: in proportion to how far its score is above that of the best
        donor that is not chosen. One that ties with that donor counts as much as rounding leaves of it; where all
        tie, they count alike.
    """
    ordered = scores.sort_values(ascending=False, kind="stable")
    best = ordered.head(count)
    rest = ordered.iloc[count:]
    floor = float(rest.iloc[0]) if len(rest) else float(best.min()) - float(best.max() - best.min())
    above = np.maximum(best.to_numpy(float) - floor, 0.0)
    weights = above / above.sum() if above.sum() > 0 else np.full(len(best), 1 / len(best))
    return {str(name): float(weight) for name, weight in zip(best.index, weights, strict=True) if weight > 0}


@dataclass(frozen=True)
class Gain:
    """What adapting with some number of donors gains, as a line over the predicted advantage of the chosen.

    Attributes:
        intercept: Gain where the advantage is that of the mean case.
        slope: Gain for each unit of advantage; 0 where the advantage does not vary, and never below.
        mean: Mean advantage of the cases.
        square: Sum of the squared deviations of the advantage from it.
        spread: Standard deviation of the gains around the line.
        cases: How many cases were played.
    """

    intercept: float
    slope: float
    mean: float
    square: float
    spread: float
    cases: int

    def lower(self, advantage: float, level: float) -> float:
        """Lower bound of the expected gain of patients with this predicted advantage, one-sided.

        Args:
            advantage: Predicted, of the chosen donors over all.
            level: How sure the bound is, 0 to 1.

        Returns:
            Student's bound of a regression line; minus infinity with fewer than four cases.
        """
        degrees = self.cases - 2
        if degrees < 2:
            return -np.inf
        distance = (advantage - self.mean) ** 2 / self.square if self.square > 0 else 0.0
        error = self.spread * np.sqrt(1 / self.cases + distance)
        return float(self.expected(advantage) - stats.t.ppf(level, degrees) * error)

    def expected(self, advantage: float) -> float:
        """Expected gain of patients with this predicted advantage."""
        return self.intercept + self.slope * (advantage - self.mean)


def fit_gain(advantages: NDArray[np.float64], gains: NDArray[np.float64]) -> Gain:
    """Fits the line by least squares to cases that were played as patients; undefined gains are left out."""
    known = np.isfinite(gains) & np.isfinite(advantages)
    advantage, gain = advantages[known], gains[known]
    if not len(gain):
        return Gain(0.0, 0.0, 0.0, 0.0, float("nan"), 0)
    centred = advantage - advantage.mean()
    square = float((centred**2).sum())
    # what is predicted to suit better cannot be expected to gain less; a slope below zero is noise
    slope = max(float(centred @ gain) / square, 0.0) if square > 0 else 0.0
    residual = gain - gain.mean() - slope * centred
    spread = float(np.sqrt((residual**2).sum() / max(len(gain) - 2, 1)))
    return Gain(float(gain.mean()), slope, float(advantage.mean()), square, spread, len(gain))


@dataclass(frozen=True)
class Decision:
    """What is made for a patient.

    Attributes:
        count: How many donors; 0 where the baseline is used as it is.
        donors: Weight by donor; empty for the baseline.
        expected: Expected gain over the baseline; 0 for the baseline.
        lower: Its lower bound, of the best number of donors, also where that is not adapted to.
    """

    count: int
    donors: Mapping[str, float]
    expected: float
    lower: float


def decide(scores: pd.Series, gains: Mapping[int, Gain], level: float) -> Decision:
    """Decides how many donors a patient's network is made of, and whether of any.

    Args:
        scores: Predicted advantage of each donor on this patient.
        gains: What each number of donors gains.
        level: How sure it must be that something is gained, 0 to 1.

    Returns:
        The number with the highest lower bound, if that is above zero.
    """
    chosen = {count: chosen_donors(scores, count) for count in gains}
    lower = {count: gains[count].lower(advantage_of(scores, chosen[count]), level) for count in gains}
    best = max(lower, key=lambda count: lower[count], default=0)
    if not best or lower[best] <= 0:
        return Decision(0, {}, 0.0, lower.get(best, float("nan")))
    expected = gains[best].expected(advantage_of(scores, chosen[best]))
    return Decision(best, chosen[best], expected, lower[best])


def advantage_of(scores: pd.Series, donors: Mapping[str, float]) -> float:
    """Weighted mean of the scores of some donors."""
    return float(sum(weight * float(scores[name]) for name, weight in donors.items()))
