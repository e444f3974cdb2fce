"""How far another training of the case models would say the same of the donors.

It is the ceiling of whatever is decided from the matrix: no ranking is truer than it is repeatable.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import spearmanr

from idal_assets.analysis.similarity import rank_donors

MEASURED = {"row mean": "donor_mean", "column mean": "receiver_mean", "score": "score"}
"""What is compared, and its column in the ranking."""

RELIABILITY_COLUMNS = ("measure", "seeds", "icc", "spearman")


def icc_2_1(ratings: ArrayLike) -> float:
    """Intraclass correlation ICC(2,1) of Shrout and Fleiss 1979: both effects random, agreement of single ratings.

    Args:
        ratings: Subjects by raters, at least two of each, without gaps.

    Returns:
        The share of the variance that belongs to the subjects: 1 where raters agree, about 0 or below where
        nothing is repeated; NaN where all ratings are alike.
    """
    values = np.asarray(ratings, dtype=float)
    subjects, raters = values.shape
    by_subject, by_rater = values.mean(axis=1, keepdims=True), values.mean(axis=0, keepdims=True)
    between = raters * by_subject.var(ddof=1)
    across = subjects * by_rater.var(ddof=1)
    rest = ((values - by_subject - by_rater + values.mean()) ** 2).sum() / ((subjects - 1) * (raters - 1))
    total = between + (raters - 1) * rest + raters * (across - rest) / subjects
    return float((between - rest) / total) if total > 0 else float("nan")


def reliability(matrices: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Compares the matrices that trainings with different seeds gave.

    Args:
        matrices: Donors by donors, one a seed; the same donors in the same order.

    Returns:
        One row for row means, column means and scores: `measure`, `seeds`, `icc` (of the values) and `spearman`
        (of the ranks, mean over all pairs of seeds). No row for a single seed.
    """
    rankings = [rank_donors(matrix).set_index("case_id").loc[list(matrices[0].index)] for matrix in matrices]
    rows = []
    for measure, column in MEASURED.items() if len(matrices) > 1 else ():
        values = pd.concat([ranking[column] for ranking in rankings], axis=1).dropna().to_numpy()
        pairs = combinations(values.T, 2)
        spearman = float(np.mean([spearmanr(one, other).statistic for one, other in pairs]))
        rows.append((measure, len(matrices), icc_2_1(values), spearman))
    return pd.DataFrame(rows, columns=list(RELIABILITY_COLUMNS))


def reliability_sentence(table: pd.DataFrame) -> str:
    """Says how reliable the ranking is, or that nobody measured it.

    Args:
        table: Table of `reliability`.
    """
    if table.empty:
        return (
            "How far another training of the case models would rank the donors alike was not measured: "
            "case_model.seeds is 1."
        )
    told = ", ".join(f"{row.measure} {row.icc:.2f} ({row.spearman:.2f})" for row in table.itertuples())
    return (
        f"Between {table['seeds'].iloc[0]} seeds of the case models the intraclass correlation ICC(2,1), and in "
        f"brackets Spearman's of the ranks, is: {told}. No decision from the matrix can be truer than that."
    )
