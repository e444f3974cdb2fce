"""What each donor does to the test cases: which help, which harm, and of which nothing can be said."""

from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd

from idal_assets.analysis.statistics import ONE_SEED, mean_interval

COLUMNS = ("case_id", "effect", "standard_error", "low", "high", "pairs", "verdict")


def case_effects(
    mean_dice: Mapping[str, float],
    removed: Mapping[str, Collection[str]],
    donors: Collection[str],
    level: float,
) -> pd.DataFrame:
    """Estimates the effect of every donor from trainings on random halves.

    The effect of a donor is the mean Dice of trainings with it minus that of trainings without it, averaged over
    random sets of the others: its Banzhaf value (Wang and Jia, Data Banzhaf, 2023), estimated by the averages of
    the random sets as datamodels are (Ilyas et al. 2022). Halves come in pairs, the second keeps what the first
    removes, so that in each pair every donor is there exactly once, and the luck of the seed, which both share,
    cancels. The interval is Student's t over the pairs, for these test cases; each stands for itself, so of 100
    donors without any effect about five are called helping or harming at a level of 95 %.

    Args:
        mean_dice: Mean Dice of the test cases, 0 to 1, after the training on each half, by name; the order pairs
            them.
        removed: Donors that each half does without.
        donors: All donors.
        level: Level of the intervals.

    Returns:
        One row a donor, the most harmful first: `case_id`, `effect` (above zero it helps), `standard_error`,
        `low`, `high`, `pairs`, and `verdict`: `helps`, `harms`, or `cannot be said`. With fewer than two pairs the
        numbers are NaN.

    Raises:
        ValueError: Two halves are no pair.
    """
    names = list(mean_dice)
    pairs = list(zip(names[::2], names[1::2], strict=True))
    for one, other in pairs:
        if set(removed[one]) != set(donors) - set(removed[other]):
            raise ValueError(f"{other} does not keep what {one} removes, so they are no pair")
    rows = []
    for donor in donors:
        with_minus_without = np.array(
            [(mean_dice[one] - mean_dice[other]) * (-1 if donor in removed[one] else 1) for one, other in pairs]
        )
        rows.append({"case_id": donor, **_estimate(with_minus_without, level)})
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.sort_values(["effect", "case_id"], ignore_index=True)


def _estimate(differences: np.ndarray, level: float) -> dict[str, object]:
    pairs = len(differences)
    if pairs < 2 or not np.isfinite(differences).all():
        unknown = dict.fromkeys(("effect", "standard_error", "low", "high"), float("nan"))
        return {**unknown, "pairs": pairs, "verdict": "cannot be said"}
    effect, error = float(differences.mean()), float(differences.std(ddof=1) / np.sqrt(pairs))
    # the luck of the seed is in none of them, so pairs are all that spreads
    low, high = mean_interval(differences[None], ONE_SEED, level)
    verdict = "helps" if low > 0 else "harms" if high < 0 else "cannot be said"
    return {
        "effect": effect,
        "standard_error": error,
        "low": low,
        "high": high,
        "pairs": pairs,
        "verdict": verdict,
    }
