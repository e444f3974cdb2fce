"""What each donor does to the test cases: which help, which harm, and of which nothing can be said."""

from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd
from scipy import stats

from idal_assets.analysis.effects import significance
from idal_assets.analysis.statistics import ONE_SEED, mean_interval

COLUMNS = ("case_id", "effect", "standard_error", "low", "high", "pairs", "p", "corrected_p", "verdict")


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
    cancels. Interval and p are Student's t over the pairs, for these test cases, and each stands for itself: of
    100 donors without any effect about five intervals of 95 % leave zero out. So a donor is called helping or
    harming by a p that is corrected for all donors (Benjamini and Hochberg, 1995): of those called at a level of
    95 %, one in twenty is expected to be so by chance.

    Args:
        mean_dice: Mean Dice of the test cases, 0 to 1, after the training on each half, by name; the order pairs
            them.
        removed: Donors that each half does without.
        donors: All donors.
        level: Level of the intervals.

    Returns:
        One row a donor, the most harmful first: `case_id`, `effect` (above zero it helps), `standard_error`,
        `low`, `high`, `pairs`, `p`, `corrected_p`, and `verdict`: `helps`, `harms`, or `cannot be said`. With
        fewer than two pairs the numbers are NaN.

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
    if table["p"].notna().all():
        table["corrected_p"] = stats.false_discovery_control(table["p"])
        shown = table["corrected_p"] < significance(level)
        table.loc[shown, "verdict"] = np.where(table.loc[shown, "effect"] > 0, "helps", "harms")
    return table.sort_values(["effect", "case_id"], ignore_index=True)


def _estimate(differences: np.ndarray, level: float) -> dict[str, object]:
    pairs = len(differences)
    numbers = ("effect", "standard_error", "low", "high", "p")
    if pairs < 2 or not np.isfinite(differences).all():
        return {**dict.fromkeys(numbers, float("nan")), "pairs": pairs, "verdict": "cannot be said"}
    effect, error = float(differences.mean()), float(differences.std(ddof=1) / np.sqrt(pairs))
    # the luck of the seed is in none of them, so pairs are all that spreads
    low, high = mean_interval(differences[None], ONE_SEED, level)
    p = float(stats.ttest_1samp(differences, 0).pvalue)
    found = dict(zip(numbers, (effect, error, low, high, p), strict=True))
    return {**found, "pairs": pairs, "verdict": "cannot be said"}
