"""What a retraining proves: the effect of every chosen set, and the rule by which it is called a gain or a harm.

The numbers are those of `statistics`. A claim needs all of: two trainings or more, an interval of the mean
difference to the full set that leaves zero out, and a p against random removals of about the size that stays below
the limit after Holm's correction for the number of sets that were chosen as bad, or as good.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from idal_assets.analysis.removal_sets import FULL_SET
from idal_assets.analysis.similarity import ROUNDING
from idal_assets.analysis.statistics import (
    LEVEL,
    RESAMPLES,
    Floats,
    Intervals,
    Removal,
    SeedSpread,
    about_as_large,
    against_random,
    bootstrap_intervals,
    case_differences,
    dice_by_set,
    difference_of_medians,
    differences_by_set,
    holm,
    mean_difference,
    mean_interval,
    mean_over_replicates,
    median_dice,
    median_of_differences,
    seed_p,
    seed_spread,
    smallest_random_p,
    wilcoxon_p,
)
from idal_assets.analysis.words import interval, signed

_NAN = float("nan")


@dataclass(frozen=True)
class Effect:
    """What one chosen set did to the test cases, compared with the full set.

    A set that removes nothing is not tested: its intervals and p values are NaN.

    Attributes:
        removal_set: Name of the set.
        removed: Donors that it removes.
        replicates: How often it was trained.
        cases: Test patients with a defined Dice; several test cases of one count once.
        mean_dice: Mean Dice of this set, 0 to 1.
        mean_difference: Mean of the paired differences, new minus old: the estimand.
        low: Lower end of its interval, over test cases and seeds.
        high: Upper end of it.
        controls: Random removals of about its size.
        expected_difference: Mean difference that a random removal of its size makes.
        better_p: One-sided p against these that it is better.
        worse_p: One-sided p that it is worse.
        holm_better_p: `better_p`, corrected for the number of sets.
        holm_worse_p: `worse_p`, corrected for the number of sets.
        smallest_p: The smallest corrected p that so many random removals can reach.
        seed_p: One-sided p of the seeds alone that the mean difference is zero or less.
        median_dice: Median Dice of this set, 0 to 1.
        difference_of_medians: New minus old (thesis table 3.3).
        difference_of_medians_low: Lower end of its bootstrap interval.
        difference_of_medians_high: Upper end of it.
        median_of_differences: Of the paired differences, new minus old.
        median_of_differences_low: Lower end of its bootstrap interval.
        median_of_differences_high: Upper end of it.
        wilcoxon_p: Two-sided p of the paired differences of these very networks, as in the thesis.
        level: Level of the intervals, 0 to 1; a p value must be below 1 - level.
    """

    removal_set: str
    removed: int
    replicates: int
    cases: int
    mean_dice: float
    mean_difference: float
    low: float
    high: float
    controls: int
    expected_difference: float
    better_p: float
    worse_p: float
    holm_better_p: float
    holm_worse_p: float
    smallest_p: float
    seed_p: float
    median_dice: float
    difference_of_medians: float
    difference_of_medians_low: float
    difference_of_medians_high: float
    median_of_differences: float
    median_of_differences_low: float
    median_of_differences_high: float
    wilcoxon_p: float
    level: float

    @property
    def gain(self) -> bool:
        """Whether a gain is claimed."""
        return self.replicates > 1 and self.low > 0 and self.holm_better_p < significance(self.level)

    @property
    def harm(self) -> bool:
        """Whether a harm is claimed, which is more than that fewer cases teach less."""
        return self.replicates > 1 and self.high < 0 and self.holm_worse_p < significance(self.level)


def significance(level: float) -> float:
    """1 - level without rounding error: 1 - 0.95 is above 0.05, which 19 controls must not pass."""
    return round(1 - level, ROUNDING)


def effects(
    scalars: pd.DataFrame,
    chosen: Mapping[str, Sequence[str]],
    random: Mapping[str, Sequence[str]],
    good: Collection[str] = (),
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Compares every chosen set with the full set and with random removals.

    Args:
        scalars: Rows with `removal_set` (without the replicate), `replicate`, `case_id` and `dice`.
        chosen: Removed donors of the chosen sets, the full set among them.
        random: Removed donors of the random removals, all different and none a chosen set.
        good: Chosen sets whose donors are thought good. Nobody hopes that their removal gains, so they are no
            reason to doubt the others: p values are corrected among them and among the others apart.
        level: Level of the intervals; p values are held against 1 - level.
        resamples: Draws of the bootstrap.
        seed: Seed of the bootstrap; all sets start from it, so that no set's interval depends on the others.

    Returns:
        One row a chosen set in the order given: the attributes of `Effect`, `gain` and `harm`.

    Raises:
        IncompleteScalarsError: A set or a test case has no row, or more than one.
    """
    dice = dice_by_set(scalars, [*chosen, *random])
    differences = differences_by_set(scalars, FULL_SET)
    pool = {name: Removal(len(removed), mean_difference(differences[name])) for name, removed in random.items()}
    spread = seed_spread(differences.values())
    found = []
    for name, removed in chosen.items():
        if not removed:
            found.append(_nothing_removed(name, dice[name], level))
            continue
        random_draws = np.random.default_rng(seed)
        intervals = bootstrap_intervals(dice[name], dice[FULL_SET], random_draws, level, resamples)
        found.append(_effect(name, len(removed), dice, differences[name], pool, spread, intervals, level))
    found = _corrected(found, good)
    return pd.DataFrame([asdict(effect) | {"gain": effect.gain, "harm": effect.harm} for effect in found])


def _effect(
    name: str,
    removed: int,
    dice: Mapping[str, Floats],
    difference: Floats,
    pool: Mapping[str, Removal],
    spread: SeedSpread,
    intervals: Intervals,
    level: float,
) -> Effect:
    """Everything but the correction for the number of sets."""
    new = dice[name]
    found = mean_difference(difference)
    low, high = mean_interval(difference, spread, level)
    near = about_as_large(removed, {name: one.removed for name, one in pool.items()})
    compared = against_random(Removal(removed, found), [pool[name] for name in near])
    of_cases = case_differences(difference)
    return Effect(
        removal_set=name,
        removed=removed,
        replicates=len(new),
        cases=int(np.isfinite(of_cases).sum()),
        mean_dice=_mean(new),
        mean_difference=found,
        low=low,
        high=high,
        controls=len(near),
        expected_difference=compared.expected,
        better_p=compared.better_p,
        worse_p=compared.worse_p,
        holm_better_p=compared.better_p,
        holm_worse_p=compared.worse_p,
        smallest_p=smallest_random_p(len(near)),
        seed_p=seed_p(difference, spread),
        median_dice=median_dice(new),
        difference_of_medians=difference_of_medians(new, dice[FULL_SET]),
        difference_of_medians_low=intervals.difference_of_medians[0],
        difference_of_medians_high=intervals.difference_of_medians[1],
        median_of_differences=median_of_differences(difference),
        median_of_differences_low=intervals.median_of_differences[0],
        median_of_differences_high=intervals.median_of_differences[1],
        wilcoxon_p=wilcoxon_p(of_cases),
        level=level,
    )


def _corrected(found: Sequence[Effect], good: Collection[str]) -> list[Effect]:
    """Corrects the p values for the number of sets that are tested, good and bad ones apart."""
    corrected = list(found)
    for thought_good in (False, True):
        places = [place for place, one in enumerate(found) if (one.removal_set in good) == thought_good]
        tested = sum(np.isfinite(found[place].better_p) for place in places)
        better = holm([found[place].better_p for place in places])
        worse = holm([found[place].worse_p for place in places])
        for place, of_better, of_worse in zip(places, better, worse, strict=True):
            smallest = found[place].smallest_p * tested
            corrected[place] = replace(
                found[place],
                holm_better_p=float(of_better),
                holm_worse_p=float(of_worse),
                smallest_p=min(1.0, smallest) if found[place].controls else _NAN,
            )
    return corrected


def _nothing_removed(name: str, dice: Floats, level: float) -> Effect:
    """The full set, and a worst cluster where there is none."""
    values: dict[str, Any] = dict.fromkeys(Effect.__dataclass_fields__, _NAN)
    values |= {
        "removal_set": name,
        "removed": 0,
        "replicates": len(dice),
        "cases": int(np.isfinite(mean_over_replicates(dice)).sum()),
        "mean_dice": _mean(dice),
        "mean_difference": 0.0,
        "controls": 0,
        "median_dice": median_dice(dice),
        "difference_of_medians": 0.0,
        "median_of_differences": 0.0,
        "level": level,
    }
    return Effect(**values)


def _mean(dice: Floats) -> float:
    return float(pd.Series(mean_over_replicates(dice)).mean())


def sentence(row: pd.Series) -> str:
    """Says in one sentence what a set did, and no more than the numbers hold.

    Args:
        row: A row of `effects`.
    """
    removed, name = row["removed"], row["removal_set"]
    if not removed:
        return f"removing nothing ({name}) gives a mean Dice of {row['mean_dice']:.3f}"
    what = f"removing {removed} {'case' if removed == 1 else 'cases'} ({name})"
    if np.isnan(row["low"]):
        return f"{what} cannot be judged, as fewer than two test patients have a defined Dice"
    seed = ", without the spread of the seed" if row["replicates"] == 1 else ""
    return (
        f"{what} changes the mean Dice of {row['cases']} test patients by {signed(row['mean_difference'])} "
        f"({100 * row['level']:g} % interval {interval(row['low'], row['high'])}{seed}), "
        f"{_conclusion(row)}"
    )


def _conclusion(row: pd.Series) -> str:
    limit = significance(row["level"])
    luck = "this cannot be told from luck"
    at_random = f"removing as many at random ({signed(row['expected_difference'])})"
    better = f"better than {at_random}, {_p(row['better_p'], row['holm_better_p'])}"
    worse = f"worse than {at_random}, {_p(row['worse_p'], row['holm_worse_p'])}"
    if row["gain"]:
        return f"a gain: {better}"
    if row["harm"]:
        return f"a harm: {worse}"
    if not row["controls"]:
        return f"but without random removals of about this size {luck}"
    if row["replicates"] == 1:
        return f"but with one training of a set {luck}"
    if row["smallest_p"] >= limit:
        removals = "removal" if row["controls"] == 1 else "removals"
        return f"but with only {row['controls']} random {removals} {luck}"
    if row["holm_better_p"] < limit:
        return f"{better}, but perhaps no better than with all cases"
    if row["holm_worse_p"] < limit:
        return f"{worse}, but perhaps no worse than with all cases"
    if min(row["better_p"], row["worse_p"]) < limit:
        found = better if row["better_p"] < limit else worse
        return f"{found}, which does not hold for all the sets together"
    return f"{'but ' if row['low'] > 0 or row['high'] < 0 else ''}no other than {at_random}"


def _p(value: float, corrected: float) -> str:
    said = "p < 0.001" if value < 0.001 else f"p = {value:.2g}"
    return said if corrected == value else f"{said}, corrected {corrected:.2g}"
