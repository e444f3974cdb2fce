"""Numbers that follow from the Dice of retrainings: differences, intervals, tests against chance.

Training is random, so one retraining on fewer cases proves nothing. Every chosen set is trained with several seeds
(replicates), and removals that are drawn at random show what removal itself does. A network is always compared
with that of the full set and the same seed, whose patches are the same as far as the cases are. What is made of
the numbers, the rule by which they are called a gain or a harm, is in `effects`.

A difference is always new minus old. Arrays are of shape (replicates, cases), with the same cases in the same
order; a case is a test patient. NaN is an undefined Dice, of a case whose truth holds no region that counts, and
is left out.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from idal_assets.analysis.similarity import ROUNDING

LEVEL = 0.95
RESAMPLES = 10_000

_NAN = float("nan")

Floats = NDArray[np.float64]
Interval = tuple[float, float]
Name = TypeVar("Name", bound=Hashable)


class IncompleteScalarsError(ValueError):
    """A set, a replicate or a test case has no row, or more than one; the message says which."""


def dice_by_set(scalars: pd.DataFrame, needed: Sequence[str] = ()) -> dict[str, Floats]:
    """Arranges the scalars of every set.

    Args:
        scalars: Rows with `removal_set` (without the replicate), `replicate`, `case_id` and `dice`.
        needed: Sets that must be there.

    Returns:
        By set in the order given: Dice in 0 to 1 or NaN, shape (replicates, cases), both in the order of their
        names.

    Raises:
        IncompleteScalarsError: A set has no row, or a test case has none in a replicate or more than one.
    """
    found = {name: block.to_numpy(float) for name, block in _blocks(scalars)}
    for name in needed:
        if name not in found:
            raise IncompleteScalarsError(f"The removal set {name} has no Dice; evaluate it first")
    return found


def mean_dice(scalars: pd.DataFrame) -> pd.DataFrame:
    """Averages the replicates of every test case.

    Args:
        scalars: As for `dice_by_set`.

    Returns:
        Dice, one row a removal set in the order given, one column a test case: the table that
        `reduction.differences_to_full_set` takes.

    Raises:
        IncompleteScalarsError: A test case has no row in a replicate, or more than one.
    """
    blocks = _blocks(scalars)
    rows = [mean_over_replicates(block.to_numpy(float)) for _, block in blocks]
    index = pd.Index([name for name, _ in blocks], name="removal_set")
    return pd.DataFrame(np.array(rows), index=index, columns=blocks[0][1].columns)


def _blocks(scalars: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    place = ["removal_set", "replicate", "case_id"]
    repeated = scalars.duplicated(place)
    if repeated.any():
        raise IncompleteScalarsError(f"{_named(*scalars.loc[repeated, place].iloc[0])} has more than one row")
    table = scalars.pivot(index=place[:2], columns="case_id", values="dice")
    if len(scalars) != table.size:
        present = pd.MultiIndex.from_frame(scalars[place])
        missing = table.stack(future_stack=True).index.difference(present)
        raise IncompleteScalarsError(
            f"{_named(*missing[0])} has no row, nor have {len(missing) - 1} others; every network must segment "
            "the same test cases"
        )
    of_set = dict(iter(table.groupby(level="removal_set", observed=True)))
    return [(str(name), of_set[name]) for name in scalars["removal_set"].unique()]


def _named(removal_set: object, replicate: object, case_id: object) -> str:
    return f"Test case {case_id} of replicate {replicate} of {removal_set}"


def mean_over_replicates(dice: Floats) -> Floats:
    """Averages the replicates of each test case, shape (cases,); NaN where it is undefined in all of them."""
    return _weighted_means(np.ones((1, len(dice))), dice)[0]


def _weighted_means(weights: Floats, dice: Floats) -> Floats:
    """Means of each case over replicates, for weights of shape (draws, replicates): shape (draws, cases)."""
    defined = np.isfinite(dice)
    with np.errstate(invalid="ignore"):
        return (weights @ np.where(defined, dice, 0.0)) / (weights @ defined)


def _medians(values: Floats) -> Floats:
    """Medians of the rows, NaN left out; sorting all at once is far faster than `np.nanmedian`."""
    ordered = np.sort(values, axis=1)
    count = np.isfinite(values).sum(axis=1, keepdims=True)
    around = np.concatenate([np.maximum(count - 1, 0) // 2, np.minimum(count // 2, values.shape[1] - 1)], axis=1)
    return np.take_along_axis(ordered, around, axis=1).mean(axis=1)


def differences_by_set(scalars: pd.DataFrame, full_set: str) -> dict[str, Floats]:
    """Difference of every training to that of the full set with the same seed.

    Args:
        scalars: As for `dice_by_set`.
        full_set: The set that removes nothing.

    Returns:
        By set in the order given, the full set left out: new minus old, shape (replicates, cases).

    Raises:
        IncompleteScalarsError: A test case has no row or more than one, or the full set lacks a seed.
    """
    blocks = dict(_blocks(scalars))
    if full_set not in blocks:
        raise IncompleteScalarsError(f"The removal set {full_set} has no Dice; evaluate it first")
    full = blocks.pop(full_set)
    of_full, seeds_of_full = full.to_numpy(float), full.index.get_level_values("replicate")
    found = {}
    for name, block in blocks.items():
        seeds = block.index.get_level_values("replicate")
        places = seeds_of_full.get_indexer(seeds)
        if (places < 0).any():
            raise IncompleteScalarsError(
                f"Replicate {seeds[places < 0][0]} of {name} has no network of {full_set} to compare"
            )
        found[name] = block.to_numpy(float) - of_full[places]
    return found


def median_of_differences(differences: Floats) -> float:
    """Median over test cases of the mean difference over replicates."""
    return float(_medians(case_differences(differences)[None])[0])


def median_dice(dice: Floats) -> float:
    """Median over test cases of the mean over replicates; it is not the mean of the replicates' medians."""
    return float(_medians(mean_over_replicates(dice)[None])[0])


def difference_of_medians(new: Floats, old: Floats) -> float:
    """Difference of the sets' `median_dice` (thesis table 3.3)."""
    return median_dice(new) - median_dice(old)


def case_differences(differences: Floats) -> Floats:
    """Difference of each test case, the mean over its replicates, shape (cases,)."""
    return mean_over_replicates(differences)


def mean_difference(differences: Floats) -> float:
    """The estimand: mean over test cases of the mean over replicates; NaN if no case is defined."""
    return float(pd.Series(case_differences(differences)).mean())


@dataclass(frozen=True)
class SeedSpread:
    """How far the mean difference of one training lies from that of another seed.

    Attributes:
        variance: Pooled variance of one training's mean difference; NaN if no set has two replicates.
        degrees: Its degrees of freedom.
    """

    variance: float
    degrees: float


ONE_SEED = SeedSpread(_NAN, 0)
"""Where every set was trained once, and nothing is known of other seeds."""


def seed_spread(differences: Iterable[Floats]) -> SeedSpread:
    """Pools the variance of the mean difference between the replicates of each set over all sets.

    Args:
        differences: Of each set, shape (replicates, cases).
    """
    squares, degrees, sets = 0.0, 0, 0
    for of_set in differences:
        means = mean_over_replicates(of_set.T)
        means = means[np.isfinite(means)]
        if len(means) > 1:
            squares += float(((means - means.mean()) ** 2).sum())
            degrees += len(means) - 1
            sets += 1
    if not degrees:
        return ONE_SEED
    return SeedSpread(squares / degrees, pooled_degrees(sets, 1 + degrees / sets))


def pooled_degrees(sets: int, replicates: float) -> float:
    """Degrees of freedom of a variance between replicates that is pooled over sets.

    All sets are compared with the same networks of the full set, whose luck is a half of every difference. So the
    estimates of two sets correlate by a quarter, and k of them count as k / (1 + (k - 1) / 4): the variance of a
    mean of correlated values.

    Args:
        sets: How many sets have two replicates or more.
        replicates: How many each has, on average.
    """
    return sets * (replicates - 1) / (1 + (sets - 1) / 4)


def mean_interval(differences: Floats, spread: SeedSpread, level: float = LEVEL) -> Interval:
    """Interval of the mean difference, for other test cases and other seeds.

    Student's t with the variance s2 / n + a2 / S, of which s2 is that between the n cases (means over the S
    replicates) and a2 that between seeds, pooled over all sets; the degrees of freedom are those of Welch and
    Satterthwaite (1946). With one replicate nothing is known of a2: the interval then says what other test cases
    would do to these two networks.

    Args:
        differences: Shape (replicates, cases).
        spread: Between seeds, of one training.
        level: Share of such intervals that hold the truth, 0 to 1.

    Returns:
        Lower and upper end; NaN with fewer than two cases.
    """
    values = case_differences(differences)
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return _NAN, _NAN
    of_cases = float(values.var(ddof=1)) / len(values)
    of_seeds = spread.variance / len(differences) if len(differences) > 1 else 0.0
    total = of_cases + of_seeds
    if not total:
        return float(values.mean()), float(values.mean())
    parts = of_cases**2 / (len(values) - 1) + (of_seeds**2 / spread.degrees if of_seeds else 0.0)
    reach = float(stats.t.ppf((1 + level) / 2, total**2 / parts)) * np.sqrt(total)
    return float(values.mean() - reach), float(values.mean() + reach)


def seed_p(differences: Floats, spread: SeedSpread) -> float:
    """One-sided p of the seeds alone that the mean difference is zero or less, the test cases taken as they are.

    Args:
        differences: Shape (replicates, cases).
        spread: Between seeds, of one training.

    Returns:
        Upper tail of Student's t, 0 to 1; NaN where no set has two replicates.
    """
    found = mean_difference(differences)
    error = np.sqrt(spread.variance / len(differences))
    if error == 0:
        return float(np.heaviside(-found, 0.5))
    return float(stats.t.sf(found / error, spread.degrees)) if np.isfinite(error) else _NAN


@dataclass(frozen=True)
class Intervals:
    """Bootstrap intervals of two statistics, from the same resamples.

    Attributes:
        difference_of_medians: Its lower and upper end.
        median_of_differences: Its lower and upper end.
    """

    difference_of_medians: Interval
    median_of_differences: Interval


def bootstrap_intervals(
    new: Floats, old: Floats, random: np.random.Generator, level: float = LEVEL, resamples: int = RESAMPLES
) -> Intervals:
    """Percentile intervals of the medians, which hold the spread of the test cases and that of the seeds.

    Test cases are drawn with replacement, the same for both sets, since they are paired (Efron and Tibshirani, An
    Introduction to the Bootstrap, 1993). So are replicates, since both sets share their seeds: the same ones, as
    wholes, and one fewer than there are. Drawing all S would make the variance of their mean (S - 1)/S of what it
    is, half of it with two (Rao and Wu, Resampling Inference with Complex Survey Data, 1988). With one replicate
    there is no spread to draw from, and with two or three it is seldom shown whole.

    Args:
        new: Dice of the new set, shape (replicates, cases).
        old: Dice of the old set with the same seeds, shape (replicates, cases).
        random: Source of the draws.
        level: Share of the resamples inside the interval, 0 to 1.
        resamples: Number of draws.

    Returns:
        The intervals; NaN where no test case is defined.
    """
    count = len(new)
    drawn = random.integers(new.shape[1], size=(resamples, new.shape[1]))
    times = random.multinomial(max(1, count - 1), np.full(count, 1 / count), size=resamples).astype(float)
    new_cases, old_cases = (np.take_along_axis(_weighted_means(times, dice), drawn, axis=1) for dice in (new, old))
    return Intervals(
        difference_of_medians=percentiles(_medians(new_cases) - _medians(old_cases), level),
        median_of_differences=percentiles(_medians(new_cases - old_cases), level),
    )


def percentiles(values: Floats, level: float) -> Interval:
    """Where the middle `level` of some draws lies; NaN where none is defined."""
    # a resample can hold undefined cases only
    defined = values[np.isfinite(values)]
    if not len(defined):
        return _NAN, _NAN
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def wilcoxon_p(differences: ArrayLike) -> float:
    """Two-sided signed-rank test that the paired differences lie around zero (Wilcoxon 1945; `scipy.stats`).

    It takes the networks as they are, so it says nothing about another seed. Zero differences have no sign and are
    left out.

    Args:
        differences: One a test case; NaN is left out, and what is smaller than rounding error is zero.

    Returns:
        p; 1 if all differences are zero, NaN if there are none.
    """
    values = np.round(np.asarray(differences, dtype=float), ROUNDING)
    values = values[np.isfinite(values)]
    if not len(values):
        return _NAN
    # SciPy's exact law is for values without zeros; it would take the normal one for the sake of them
    return float(stats.wilcoxon(values[values != 0]).pvalue) if values.any() else 1.0


def holm(p_values: Sequence[float]) -> Floats:
    """Corrects p values for their number by the step-down procedure (Holm 1979).

    Args:
        p_values: One a test; NaN is a test that was not made and does not count.

    Returns:
        Corrected p values in the order given, at most 1.
    """
    values = np.asarray(p_values, dtype=float)
    order = np.argsort(values)
    remaining = np.isfinite(values).sum() - np.arange(len(values))
    corrected = np.full(len(values), np.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(values[order] * remaining), 1.0)
    return corrected


@dataclass(frozen=True)
class Removal:
    """What one random removal did.

    Attributes:
        removed: How many donors it removes.
        difference: Its mean difference.
    """

    removed: int
    difference: float


def about_as_large(removed: int, sizes: Mapping[Name, int]) -> list[Name]:
    """Names of the random removals that a set is held against: at least half as large and at most twice.

    Args:
        removed: How many donors the set removes.
        sizes: How many each random removal does, by name.
    """
    return [name for name, size in sizes.items() if removed <= 2 * size and size <= 2 * removed]


@dataclass(frozen=True)
class AgainstRandom:
    """A chosen set among random removals of about its size.

    Attributes:
        expected: Mean difference that a random removal of its size makes.
        better_p: Share of the removals that do at least as well, one-sided p that it is better than random.
        worse_p: Share that do at least as badly.
    """

    expected: float
    better_p: float
    worse_p: float


def against_random(chosen: Removal, random: Sequence[Removal]) -> AgainstRandom:
    """Permutation test of a chosen set against random removals of about its size.

    What removal itself does is taken out as a straight line over the number removed, fitted to all of them with
    the chosen one; with one size it is their mean. If the choice is no better than random, the chosen set is one
    more random removal, and each rank among them all is equally likely (Phipson and Smyth 2010: the chosen one
    counts, so p is never 0). That is exact where all have the same size; random removals may be trained less often
    than the chosen set, which makes the test conservative.

    Args:
        chosen: The chosen set.
        random: Random removals, all different and none the chosen one.

    Returns:
        NaN throughout without random removals or where a difference is undefined.
    """
    everyone = [chosen, *random]
    sizes = np.array([one.removed for one in everyone], dtype=float)
    values = np.array([one.difference for one in everyone], dtype=float)
    if len(everyone) == 1 or not np.isfinite(values).all():
        return AgainstRandom(_NAN, _NAN, _NAN)
    ranked = np.round(values - _trend(sizes, values, sizes), ROUNDING)
    return AgainstRandom(
        expected=float(_trend(sizes[1:], values[1:], sizes[:1])[0]),
        better_p=float((ranked >= ranked[0]).mean()),
        worse_p=float((ranked <= ranked[0]).mean()),
    )


def _trend(sizes: Floats, values: Floats, at: Floats) -> Floats:
    """Least squares, of a straight line where there are sizes to tell it from."""
    # two sizes among three values would fit the chosen set itself
    if len(np.unique(sizes)) < 2 or len(values) < 4:
        return np.full(len(at), values.mean())
    return np.polynomial.Polynomial.fit(sizes, values, 1)(at)


def smallest_random_p(removals: int) -> float:
    """The smallest p that `against_random` can reach with so many random removals; NaN without."""
    return 1 / (1 + removals) if removals else _NAN
