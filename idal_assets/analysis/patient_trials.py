"""Whether a choice of donors for each patient pays: every test case was played as a patient, with all rivals.

What is offered is the network that the rule decides on for each patient, or the baseline. A rival is given the
same mode and the same number of donors for the same patient, so that only the choice differs. Differences are
paired by patient; the ceiling (oracle) chooses by the true Dice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from idal_assets.analysis import words
from idal_assets.analysis.effects import significance
from idal_assets.analysis.statistics import ONE_SEED, holm, mean_interval, percentiles

OFFERED = "offered"
LOSS = 0.05
"""A patient loses where the Dice falls by more than this."""


def patient_means(scalars: pd.DataFrame, patients: Mapping[str, str]) -> pd.DataFrame:
    """The Dice of each arm on each patient, the mean over its cases and over the draws of random donors.

    Args:
        scalars: Rows with `case_id`, `arm`, `mode`, `count`, `draw` and `dice`.
        patients: Patient by case.

    Returns:
        Indexed by `arm`, `mode` and `count`, one column a patient.
    """
    table = scalars.assign(patient=scalars["case_id"].map(patients))
    return table.pivot_table(
        index=["arm", "mode", "count"], columns="patient", values="dice", aggfunc="mean", sort=False, dropna=False
    ).dropna(how="all")


def same_numbers(
    scalars: pd.DataFrame, arm: str, mode: str, counts: Mapping[str, int], baseline: str
) -> pd.Series:
    """The Dice of an arm on each case, with as many donors as are offered for it; the baseline where none are.

    Args:
        scalars: As for `patient_means`.
        arm: Who chooses.
        mode: What is made of the chosen.
        counts: Number of donors by case.
        baseline: Name of the arm that adapts nothing.

    Returns:
        By case, the mean over the draws.
    """
    found = {}
    for case, count in counts.items():
        rows = scalars[scalars["case_id"] == case]
        of_arm = (rows["arm"] == arm) & (rows["mode"] == mode) & (rows["count"] == count)
        chosen = of_arm if count else rows["arm"] == baseline
        found[case] = float(rows.loc[chosen, "dice"].mean())
    return pd.Series(found)


@dataclass(frozen=True)
class Comparison:
    """What is offered against one rival.

    Attributes:
        rival: Its name.
        mean_difference: Mean over the patients of offered minus rival.
        low: Lower end of its interval.
        high: Its upper end.
        p: Two-sided p of Student's paired test, corrected for the number of rivals (Holm).
        level: Level of the interval; one minus it is the largest p of a claim.
    """

    rival: str
    mean_difference: float
    low: float
    high: float
    p: float
    level: float

    @property
    def better(self) -> bool:
        """Whether what is offered is shown to be better."""
        return self.low > 0 and self.p < significance(self.level)

    @property
    def worse(self) -> bool:
        """Whether it is shown to be worse."""
        return self.high < 0 and self.p < significance(self.level)


def compare(offered: pd.Series, rivals: Mapping[str, pd.Series], level: float) -> list[Comparison]:
    """Compares what is offered with each rival.

    Args:
        offered: Dice by patient.
        rivals: Dice by patient, by name.
        level: Level of the intervals.
    """
    differences = {name: (offered - dice).to_numpy(float) for name, dice in rivals.items()}
    corrected = holm([_p(values) for values in differences.values()])
    return [
        Comparison(name, float(np.nanmean(values)), *interval(values, level), float(p), level)
        for (name, values), p in zip(differences.items(), corrected, strict=True)
    ]


def _p(differences: NDArray[np.float64]) -> float:
    values = differences[np.isfinite(differences)]
    if len(values) < 2 or not values.any():
        return 1.0 if len(values) else float("nan")
    if values.std() == 0:
        return 0.0
    return float(stats.ttest_1samp(values, 0.0).pvalue)


def interval(differences: NDArray[np.float64], level: float) -> tuple[float, float]:
    """Student's interval of the mean over other patients."""
    return mean_interval(differences[None], ONE_SEED, level)


def arm_table(
    means: pd.DataFrame,
    baseline: pd.Series,
    oracle: pd.Series,
    random: np.random.Generator,
    level: float,
    resamples: int,
) -> pd.DataFrame:
    """Describes every arm against the baseline.

    Args:
        means: Table of `patient_means`, or one of its kind.
        baseline: Dice by patient of the baseline.
        oracle: Dice by patient of the ceiling.
        random: Source of the bootstrap's draws.
        level: Level of the intervals.
        resamples: Draws of the bootstrap.

    Returns:
        One row an arm, mode and count: `arm`, `mode`, `count`, `patients` with a defined difference, `mean_dice`,
        `mean_difference` to the baseline with `low` and `high`, `gap_share` (of the gap between baseline and
        ceiling that it closes, NaN where there is none) with `gap_low` and `gap_high` (bootstrap over the
        patients), `lose_share` (of the patients whose Dice falls by more than `LOSS`).
    """
    draws = random.integers(len(baseline), size=(resamples, len(baseline)))
    gap = (oracle - baseline).to_numpy(float)
    rows = []
    for place, dice in means.iterrows():
        arm, mode, count = place
        difference = (dice - baseline).to_numpy(float)
        low, high = interval(difference, level)
        share, share_low, share_high = _gap_share(difference, gap, draws, level)
        rows.append(
            {
                **{"arm": arm, "mode": mode, "count": int(count), "patients": int(np.isfinite(difference).sum())},
                **{"mean_dice": float(dice.mean()), "mean_difference": float(np.nanmean(difference))},
                **{"low": low, "high": high, "gap_share": share, "gap_low": share_low, "gap_high": share_high},
                "lose_share": float((difference[np.isfinite(difference)] < -LOSS).mean()),
            }
        )
    return pd.DataFrame(rows)


def _gap_share(
    difference: NDArray[np.float64], gap: NDArray[np.float64], draws: NDArray[np.int64], level: float
) -> tuple[float, float, float]:
    nan = float("nan")
    if not np.nanmean(gap) > 0:
        return nan, nan, nan
    drawn_gap, drawn = np.nanmean(gap[draws], axis=1), np.nanmean(difference[draws], axis=1)
    shares = np.divide(drawn, drawn_gap, out=np.full_like(drawn, nan), where=drawn_gap > 0)
    low, high = percentiles(shares, level)
    return float(np.nanmean(difference) / np.nanmean(gap)), low, high


def sentence(comparisons: Sequence[Comparison], adapted: int, patients: int, level: float) -> str:
    """Says what follows for this cohort.

    A gain is claimed where what is offered is better than the baseline and than as many random donors; that the
    choice matters, where it is also better than the donors that are best on average and than the ensemble of all.
    """
    by_rival = {one.rival: one for one in comparisons}
    if not adapted:
        return (
            f"No gain could be foreseen for any of {patients} patients, so each gets the baseline: one network "
            "for all is as good."
        )
    base = by_rival["baseline"]
    said = (
        f"{adapted} of {patients} patients get a network of their own. Over all of them the mean Dice changes by "
        f"{words.signed(base.mean_difference)} against the baseline ({100 * level:g} % interval "
        f"{words.interval(base.low, base.high)})"
    )
    if base.worse:
        return f"{said}: adapting does harm here. Use the baseline."
    if not base.better:
        return f"{said}: no gain is shown. One network for all is as good."
    if not by_rival["random"].better:
        return f"{said}: a gain, but random donors do as well. The choice adds nothing that could be shown."
    not_beaten = [one.rival for one in comparisons if one.rival in ("best", "all") and not one.better]
    if not_beaten:
        names = {"best": "the donors that are best on average", "all": "the ensemble of all donors"}
        rivals = " and ".join(names[name] for name in not_beaten)
        return (
            f"{said}: a gain, more than with random donors. It is not shown to be better than {rivals}, the same "
            "for every patient, so similarity to the patient adds nothing that could be shown."
        )
    return (
        f"{said}: a gain, more than with random donors, with those that are best on average, and with the "
        "ensemble of all. Which donors suit depends on the patient."
    )


def risk_coverage(predicted: NDArray[np.float64], dice: NDArray[np.float64]) -> pd.DataFrame:
    """How good the segmentations are that are kept if those with the lowest predicted Dice are left out.

    Returns:
        `coverage`, share of the patients kept, and `mean_dice` of them; from all to one.
    """
    known = np.isfinite(predicted) & np.isfinite(dice)
    ordered = dice[known][np.argsort(-predicted[known], kind="stable")]
    kept = np.arange(1, len(ordered) + 1)
    return pd.DataFrame({"coverage": kept / max(len(ordered), 1), "mean_dice": np.cumsum(ordered) / kept})[::-1]
