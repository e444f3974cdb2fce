"""What a retraining proves: the effect of every removal set, and the rule by which it is called a gain or a harm.

The numbers are those of `statistics`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd

from idal_assets.analysis.removal_sets import FULL_SET
from idal_assets.analysis.similarity import ROUNDING
from idal_assets.analysis.statistics import (
    LEVEL,
    RESAMPLES,
    Floats,
    IncompleteScalarsError,
    Intervals,
    SeedSpread,
    bootstrap_intervals,
    control_p,
    dice_by_set,
    difference_of_medians,
    holm,
    mean_difference,
    median_dice,
    median_of_differences,
    paired_differences,
    probability_false,
    seed_spread,
    smallest_control_p,
    wilcoxon_p,
)

_NAN = float("nan")
_NO_INTERVALS = Intervals((_NAN, _NAN), (_NAN, _NAN))


@dataclass(frozen=True)
class Effect:
    """What one removal set did to the test cases, compared with the full set.

    A set that removes nothing is not tested: its intervals and p values are NaN.

    Attributes:
        removal_set: Name of the set.
        removed: Donors that it removes.
        replicates: Trainings of this set or of the full set, whichever has fewer.
        median_dice: Median Dice of this set, 0 to 1.
        difference_of_medians: New minus old.
        low: Lower end of the interval of the difference of medians.
        high: Upper end of it.
        median_of_differences: Of the paired differences, new minus old.
        median_of_differences_low: Lower end of its interval.
        median_of_differences_high: Upper end of it.
        mean_difference: Mean of the paired differences.
        wilcoxon_p: Two-sided p of the paired differences.
        holm_p: The same, corrected for the number of sets.
        controls: Number of controls.
        control_gain_median: Median of the controls' differences of medians.
        control_p: One-sided p against the controls.
        smallest_control_p: The smallest that so many controls can reach.
        probability_false: Probability that the true difference is 0 or less, given the spread between seeds.
        level: Level of the intervals, 0 to 1; a p value must be below 1 - level.
    """

    removal_set: str
    removed: int
    replicates: int
    median_dice: float
    difference_of_medians: float
    low: float
    high: float
    median_of_differences: float
    median_of_differences_low: float
    median_of_differences_high: float
    mean_difference: float
    wilcoxon_p: float
    holm_p: float
    controls: int
    control_gain_median: float
    control_p: float
    smallest_control_p: float
    probability_false: float
    level: float

    @property
    def gain(self) -> bool:
        """Whether a gain is claimed: beyond the spread of cases and seeds, and better than removal at random."""
        limit = significance(self.level)
        return self.low > 0 and self.holm_p < limit and self.control_p < limit

    @property
    def harm(self) -> bool:
        """Whether a harm is claimed: beyond the spread of cases and seeds, so never from one training of each."""
        return self.high < 0 and self.holm_p < significance(self.level) and self.replicates > 1


def significance(level: float) -> float:
    """1 - level without rounding error: 1 - 0.95 is above 0.05, which 19 controls must not pass."""
    return round(1 - level, ROUNDING)


def effects(
    scalars: pd.DataFrame,
    removed: Mapping[str, Sequence[str]],
    controls: Mapping[str, Sequence[str]],
    full_set: str = FULL_SET,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Compares every removal set that is no control with the full set.

    Args:
        scalars: Rows with `removal_set` (without the replicate), `replicate`, `case_id` and `dice`.
        removed: Removed donors by set; controls may be among them.
        controls: Names of the controls by the set that they are for.
        full_set: The set that removes nothing.
        level: Level of the intervals; p values are held against 1 - level.
        resamples: Draws of the bootstrap.
        seed: Seed of the bootstrap; all sets start from it, so that no set's interval depends on the others.

    Returns:
        One row a set in the order of `removed`: the attributes of `Effect`, `gain` and `harm`.

    Raises:
        IncompleteScalarsError: A set or a test case has no row, or more than one.
    """
    dice = dice_by_set(scalars)
    drawn = {control for names in controls.values() for control in names}
    chosen = [name for name in removed if name not in drawn]
    for name in (full_set, *chosen, *sorted(drawn)):
        if name not in dice:
            raise IncompleteScalarsError(f"The removal set {name} has no Dice; evaluate it first")
    spread = seed_spread(dice.values())
    found = []
    for name in chosen:
        new, old = dice[name], dice[full_set]
        random = np.random.default_rng(seed)
        intervals = bootstrap_intervals(new, old, random, level, resamples) if removed[name] else _NO_INTERVALS
        control_dice = [dice[control] for control in controls.get(name, ())]
        found.append(_effect(name, len(removed[name]), new, old, control_dice, intervals, spread, level))
    corrected = holm([effect.wilcoxon_p for effect in found])
    found = [replace(effect, holm_p=float(p)) for effect, p in zip(found, corrected, strict=True)]
    return pd.DataFrame([asdict(effect) | {"gain": effect.gain, "harm": effect.harm} for effect in found])


def _effect(
    name: str,
    removed: int,
    new: Floats,
    old: Floats,
    controls: Sequence[Floats],
    intervals: Intervals,
    spread: SeedSpread,
    level: float,
) -> Effect:
    """Everything but the correction for the number of sets."""
    gain = difference_of_medians(new, old)
    control_gains = [difference_of_medians(control, old) for control in controls]
    return Effect(
        removal_set=name,
        removed=removed,
        replicates=min(len(new), len(old)),
        median_dice=median_dice(new),
        difference_of_medians=gain,
        low=intervals.difference_of_medians[0],
        high=intervals.difference_of_medians[1],
        median_of_differences=median_of_differences(new, old),
        median_of_differences_low=intervals.median_of_differences[0],
        median_of_differences_high=intervals.median_of_differences[1],
        mean_difference=mean_difference(new, old),
        wilcoxon_p=wilcoxon_p(paired_differences(new, old)) if removed else _NAN,
        holm_p=_NAN,
        controls=len(controls),
        control_gain_median=float(np.median(control_gains)) if controls else _NAN,
        control_p=control_p(gain, control_gains),
        smallest_control_p=smallest_control_p(len(controls)),
        probability_false=probability_false(gain, spread, len(new), len(old)) if removed else _NAN,
        level=level,
    )


def sentence(row: pd.Series) -> str:
    """Says in one sentence what a set did, and no more than the numbers hold.

    Args:
        row: A row of `effects`.
    """
    removed, name = row["removed"], row["removal_set"]
    if not removed:
        return f"removing nothing ({name}) gives a median Dice of {row['median_dice']:.3f}"
    what = f"removing {removed} {'case' if removed == 1 else 'cases'} ({name})"
    if np.isnan(row["low"]):
        return f"{what} cannot be judged, as no test case has a defined Dice"
    seed = ", without the spread of the seed" if row["replicates"] == 1 else ""
    return (
        f"{what} changes the median Dice by {_rounded(row['difference_of_medians']):+.3f} "
        f"({100 * row['level']:g} % interval {_rounded(row['low']):.3f} to {_rounded(row['high']):.3f}{seed}), "
        f"{_conclusion(row)}"
    )


def _conclusion(row: pd.Series) -> str:
    limit = significance(row["level"])
    at_random = f"removing {row['removed']} at random, {_p(row['control_p'])}"
    consistent = f"consistent over the test cases, {_p(row['holm_p'])}"
    luck = "this cannot be told from luck"
    if row["gain"]:
        return f"a gain: better than {at_random}"
    if row["harm"]:
        return f"a loss {consistent}"
    if row["high"] < 0:
        lone = row["replicates"] == 1
        return f"but with one training of a set {luck}" if lone else f"but not {consistent}"
    if not row["controls"]:
        return f"but without random controls {luck}"
    if row["smallest_control_p"] >= limit:
        return f"but with only {row['controls']} random control{'s' if row['controls'] > 1 else ''} {luck}"
    # an undefined p is no evidence
    if not row["control_p"] < limit:
        return f"{'but ' if row['low'] > 0 else ''}no better than {at_random}"
    doubt = f"not {consistent}" if row["low"] > 0 else "perhaps no change at all"
    return f"better than {at_random}, but {doubt}"


def _rounded(value: float) -> float:
    """To three decimals, without a negative zero."""
    return round(value, 3) + 0.0


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}"
