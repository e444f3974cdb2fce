"""How good a segmentation of a patient without a label probably is, with an interval and a light.

The Dice of each region is predicted from how far the donors' networks agree with the segmentation and with each
other (Hann et al. 2021; Zenk et al. 2025), by a regression on cases that were played as patients. The interval is
that of split conformal prediction (Vovk et al. 2005; Lei et al. 2018): of the errors on judging cases, each
predicted by regressions that had not seen it, the one that the share `level` of new errors does not exceed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from idal_assets.analysis.donor_choice import FEWEST, FOLDS, Linear, fit_linear

QUALITY_FEATURES = ("agreement", "lowest", "with_others", "confidence", "turned")
Light = Literal["believe", "look", "by_hand"]


@dataclass(frozen=True)
class Quality:
    """What predicts the Dice of a segmentation.

    Attributes:
        regressions: By region.
        reach: By region, half the width of the interval; NaN where too few cases judged to give one.
        judged: By region, how many cases that were.
    """

    regressions: Mapping[str, Linear]
    reach: Mapping[str, float]
    judged: Mapping[str, int]

    def predict(self, signs: pd.DataFrame) -> pd.DataFrame:
        """Predicts the Dice of each region.

        Args:
            signs: One row a region with `region` and `QUALITY_FEATURES`.

        Returns:
            Indexed by region: `predicted`, `low` and `high`, 0 to 1. Of regions that too few cases had, nothing.
        """
        found = {}
        for region, rows in signs[signs["region"].isin(list(self.regressions))].groupby("region", sort=False):
            predicted = float(np.clip(self.regressions[str(region)].predict(rows)[0], 0, 1))
            reach = self.reach[str(region)]
            low, high = max(predicted - reach, 0.0), min(predicted + reach, 1.0)
            # an interval of which nothing is known is all that a Dice can be
            found[region] = (predicted, low, high) if math.isfinite(reach) else (predicted, 0.0, 1.0)
        columns = ["predicted", "low", "high"]
        return pd.DataFrame.from_dict(found, orient="index", columns=columns).rename_axis("region")


def fit_quality(rows: pd.DataFrame, judges: Sequence[str], level: float) -> Quality:
    """Fits the regressions and their intervals.

    Args:
        rows: Segmentations of cases that were played as patients: `case`, `group` (its patient), `region`, `dice`
            (true; rows where it is undefined are left out), `final` (whether it is the one that a patient would
            get) and `QUALITY_FEATURES`.
        judges: Cases whose errors make the interval.
        level: Share of new errors that the interval is to hold, 0 to 1.
    """
    rows = rows[rows["dice"].notna()]
    regressions, reach, judged = {}, {}, {}
    for region, found in rows.groupby("region", sort=False):
        if found["case"].nunique() < FEWEST:
            continue
        regressions[str(region)] = fit_linear(found, QUALITY_FEATURES, "dice")
        errors = _errors_out_of_fold(found, judges)
        reach[str(region)] = conformal_reach(errors, level)
        judged[str(region)] = len(errors)
    return Quality(regressions, reach, judged)


def _errors_out_of_fold(rows: pd.DataFrame, judges: Sequence[str]) -> np.ndarray:
    """Absolute errors on the final segmentations of the judges, by regressions without their patient."""
    groups = sorted(set(rows["group"]))
    part = rows["group"].map({group: number % FOLDS for number, group in enumerate(groups)})
    errors = []
    for fold in range(FOLDS):
        asked = rows[(part == fold) & rows["final"] & rows["case"].isin(list(judges))]
        others = rows[part != fold]
        if len(asked) and len(others) > 2:
            predicted = fit_linear(others, QUALITY_FEATURES, "dice").predict(asked).clip(0, 1)
            errors += list(np.abs(predicted - asked["dice"]))
    return np.asarray(errors)


def conformal_reach(errors: Sequence[float] | np.ndarray, level: float) -> float:
    """The error that a new one exceeds with a probability of at most one minus the level.

    Args:
        errors: Absolute errors of n exchangeable cases.
        level: 0 to 1.

    Returns:
        The ceil((n + 1) level)-th smallest; NaN where that is more than there are.
    """
    place = math.ceil((len(errors) + 1) * level)
    return float(np.sort(np.asarray(errors))[place - 1]) if place <= len(errors) else float("nan")


def worst_region(quality: pd.DataFrame, regions: Sequence[str]) -> str | None:
    """The region with the lowest predicted Dice among those that count; None where none was found."""
    known = [region for region in regions if region in quality.index]
    return str(quality.loc[known, "predicted"].idxmin()) if known else None


def light_of(quality: pd.DataFrame, regions: Sequence[str], believe: float, by_hand: float) -> Light:
    """What a person should do with a segmentation.

    Args:
        quality: Table of `Quality.predict`.
        regions: The regions that count: the worst of them decides.
        believe: Believe it from this predicted Dice on.
        by_hand: Below this one, segment by hand.
    """
    region = worst_region(quality, regions)
    worst = float(quality.loc[region, "predicted"]) if region else 0.0
    if worst >= believe:
        return "believe"
    return "by_hand" if worst < by_hand else "look"
