"""Which donors' places are open after short trainings, and how longer ones settle them.

Case models that are trained for a part of their length rank most donors as the full length would. Whose place
among the removed the noise of the scores leaves open is trained to the end, as in successive halving (Jamieson and
Talwalkar, 2016), and these donors share out among themselves the places that they had.
"""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from idal_assets.analysis.similarity import mean_of_defined, score_of, without_diagonal
from idal_assets.settings import EarlyStopSettings


def chances_of_removal(
    matrix: pd.DataFrame, sizes: Sequence[int], resamples: int, random: np.random.Generator
) -> pd.DataFrame:
    """How often each donor is among the worst, if other donors had been drawn.

    Donors are drawn with replacement, as receivers of the models and as models alike.

    Args:
        matrix: Donors by donors, Dice or NaN.
        sizes: How many each removal set takes away.
        resamples: How many draws.
        random: Source of the draws.

    Returns:
        Shares, 0 to 1, shape (donors, sizes).
    """
    values = without_diagonal(matrix)
    count = len(values)
    weights = random.multinomial(count, np.full(count, 1 / count), size=resamples).astype(float)
    scores = np.array(
        [score_of(mean_of_defined(values, drawn), mean_of_defined(values.T, drawn)) for drawn in weights]
    )
    places = scores.argsort(axis=1, kind="stable").argsort(axis=1)
    shares = {size: (places < size).mean(axis=0) for size in sizes}
    return pd.DataFrame(shares, index=matrix.index)


def open_places(chances: pd.DataFrame, settings: EarlyStopSettings) -> list[str]:
    """The donors whose place is open, those first that are nearest to a toss of a coin.

    Args:
        chances: Those of `chances_of_removal`.
        settings: How sure a place must be, and how many donors may be trained to the end.

    Returns:
        At most the share of the donors that the settings allow, but two where any place is open: one alone has
        nobody to change places with.
    """
    doubt = (chances - 0.5).abs().min(axis=1).sort_values(kind="stable")
    still_open = doubt[doubt < settings.level - 0.5]
    most = settings.most_contested(len(chances))
    return [str(name) for name in still_open.index[:most]] if len(still_open) > 1 else []


def settled(ranking: pd.DataFrame, contested: Collection[str], full_means: pd.Series) -> pd.DataFrame:
    """Lets donors share out among themselves the places that they had, by what their full trainings say.

    Args:
        ranking: Table of `rank_donors`.
        contested: Donors that were trained to the end.
        full_means: Their donor means after the full training.

    Returns:
        The same table in the new order of `rank`; a donor's score and means stay those that all donors have alike.
    """
    own = ranking[ranking["case_id"].isin(contested)]
    if own.empty:
        return ranking
    # z-scores of the rows as in `rank_donors`, so that a longer training moves a score as its row does
    spread = ranking["donor_mean"].std(ddof=0) or 1.0
    shift = own["case_id"].map(full_means) - own["donor_mean"]
    score = own["score"] + shift / spread
    order = own.assign(full_score=score).sort_values(["full_score", "case_id"])["case_id"]
    places = dict(zip(order, own["rank"].sort_values(), strict=True))
    changed = ranking.assign(rank=ranking["case_id"].map(places).fillna(ranking["rank"]).astype(int))
    return changed.sort_values("rank", ignore_index=True)
