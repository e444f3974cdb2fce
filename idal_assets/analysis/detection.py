"""How well a score finds planted faults, where it is known which cases have one.

A score says how good a case is: low is bad. Beside the ranking's own score stand its parts, the clusters of the
dendrogram and the rivals out of fold, so that whichever finds most is seen to do so.
"""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
from scipy.stats import mannwhitneyu

from idal_assets.analysis.clusters import worst_cluster
from idal_assets.analysis.similarity import ROUNDING, cluster, deciding_matrix, donor_medians, rank_donors
from idal_assets.settings import SimilaritySettings

MODES = ("thesis", "robust")
COLUMNS = (
    *(
        "score",
        "auroc",
        "low",
        "high",
        "k",
        "precision_at_k",
        "recall_at_k",
        "decoys_removed",
        "decoys",
        "faults",
        "cases",
    ),
    *("offered", "best"),
)
"""Columns of a detection table, with those that a study adds."""


LEVEL = 0.95
"""Level of the interval of an AUROC."""

RESAMPLES = 2000


def offered_score(mode: str) -> str:
    """Name of the score by which `case_ranking` ranks in a mode."""
    return f"both means ({mode})"


def matrix_scores(
    cells: pd.DataFrame,
    donors: Sequence[str],
    receivers: Sequence[str],
    settings: SimilaritySettings,
    scalar_regions: Collection[str],
    seed: int,
) -> pd.DataFrame:
    """Everything that the matrix says of a donor, in both modes, whichever of them decides.

    Args:
        cells: Rows with `donor`, `receiver`, `region`, `dice`, `tp`, `fp` and `fn`, without scalars.
        donors: The donors.
        receivers: The donors, then the validation cases.
        settings: Distance, linkage and sizes; their mode and scalar do not count.
        scalar_regions: Names of the regions that the scalar averages.
        seed: Seed of the matrices by chance, as in the ranking.

    Returns:
        One row a donor, indexed by case id. For each mode: `donor mean`, `donor median`, `receiver mean`, `both
        means` (the score), `clusters` (mean score of the donor's cluster at the cut of the worst cluster) and
        `worst cluster` (whether the donor is in it), each followed by the mode.
    """
    parts = []
    for mode in MODES:
        of_mode = settings.model_copy(update={"mode": mode})
        matrix = deciding_matrix(cells, donors, receivers, of_mode, scalar_regions)
        scores = rank_donors(matrix[list(donors)])
        found = worst_cluster(cluster(matrix[list(donors)], of_mode).linkage, matrix, scores, of_mode, seed)
        by_case = scores.set_index("case_id")
        numbers = found.clusters.loc[by_case.index]
        part = {
            "donor mean": by_case["donor_mean"],
            "donor median": donor_medians(matrix[list(donors)]).loc[by_case.index],
            "receiver mean": by_case["receiver_mean"],
            "both means": by_case["score"],
            "clusters": by_case["score"].groupby(numbers.to_numpy()).transform("mean").round(ROUNDING),
            "worst cluster": pd.Series(by_case.index.isin(found.members), by_case.index),
        }
        parts.append(pd.DataFrame(part).add_suffix(f" ({mode})"))
    return pd.concat(parts, axis=1).loc[list(donors)]


def detection_table(candidates: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Compares scores by how well they find the planted faults.

    A score gives the k cases with the lowest values, where k is the number of faults, so that precision and recall
    are the same; ties go by case id, as in the ranking. A column of booleans is no score but a set: it gives those
    for which it is true, and k is their number.

    Args:
        candidates: One row a case, indexed by case id; one column a score, low where the case is bad. What is NaN
            says nothing of a case, which then counts as better than all others.
        truth: One row a case, at least those of the scores: `case_id`; `fault`, its kind or None; `subtype`.

    Returns:
        One row a score: `score`, its name; `auroc`, with the ends `low` and `high` of its interval; `k`;
        `precision_at_k`, the share of faults among the k; and `recall_at_k`, the share of the faults that are
        among the k; `decoys_removed`, how many of the k are valid cases of a rare subtype; and how many `decoys`,
        `faults` and `cases` there are. What cannot be said is missing: all that is said of a score without any
        value, AUROC and recall without faults.
    """
    known = truth.set_index("case_id").loc[candidates.index]
    faulty, decoys = known["fault"].notna(), is_decoy(known)
    rows = []
    for name, values in candidates.items():
        row = {"score": str(name), "decoys": int(decoys.sum()), "faults": int(faulty.sum()), "cases": len(known)}
        if values.notna().any():
            given = given_cases(values, int(faulty.sum()))
            hits = int(faulty[given].sum())
            low, high = auroc_interval(values, faulty)
            row |= {
                "auroc": auroc(values, faulty),
                "low": low,
                "high": high,
                "k": len(given),
                "precision_at_k": hits / len(given) if given else None,
                "recall_at_k": hits / int(faulty.sum()) if faulty.any() else None,
                "decoys_removed": int(decoys[given].sum()),
            }
        rows.append(row)
    table = pd.DataFrame(rows, columns=[name for name in COLUMNS if name not in ("offered", "best")])
    counts = dict.fromkeys(("k", "decoys_removed", "decoys", "faults", "cases"), "Int64")
    shares = dict.fromkeys(("auroc", "low", "high", "precision_at_k", "recall_at_k"), "float64")
    return table.astype(counts | shares)


def auroc(values: pd.Series, faulty: pd.Series) -> float:
    """Area under the ROC curve (Hanley and McNeil 1982): how often a fault scores lower than a sound case.

    Args:
        values: Score of every case, low where it is bad, or a boolean that is true there; NaN is better than all.
        faulty: Whether it has a fault, in the same order.

    Returns:
        0 to 1, a tie counts half and 0.5 is chance; NaN where all cases have a fault, or none.
    """
    if faulty.all() or not faulty.any():
        return float("nan")
    ranks = _low_is_bad(values).rank(na_option="bottom").to_numpy()
    faults, sound = ranks[faulty.to_numpy()], ranks[~faulty.to_numpy()]
    return float(mannwhitneyu(sound, faults).statistic / (len(faults) * len(sound)))


def auroc_interval(values: pd.Series, faulty: pd.Series, seed: int = 0) -> tuple[float, float]:
    """Interval of an AUROC: percentiles of a bootstrap that draws cases with and without a fault apart.

    Where no fault scores higher than a sound case the interval is a point, although a few faults prove little.

    Args:
        values: As of `auroc`.
        faulty: As of `auroc`.
        seed: Seed of the draws.

    Returns:
        Both ends, 0 to 1; NaN where all cases have a fault, or none.
    """
    if faulty.all() or not faulty.any():
        return float("nan"), float("nan")
    ranks = _low_is_bad(values).rank(na_option="bottom").to_numpy()
    faults, sound = ranks[faulty.to_numpy()], ranks[~faulty.to_numpy()]
    lower = (faults[:, None] < sound) + 0.5 * (faults[:, None] == sound)
    rng = np.random.default_rng(seed)
    drawn_faults, drawn_sound = (
        rng.multinomial(count, np.full(count, 1 / count), RESAMPLES) / count for count in lower.shape
    )
    aurocs = np.einsum("rf,fs,rs->r", drawn_faults, lower, drawn_sound, optimize=True)
    low, high = np.quantile(aurocs, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low.clip(0, 1)), float(high.clip(0, 1))


def given_cases(values: pd.Series, faults: int) -> list[str]:
    """Cases that a score would have removed.

    Args:
        values: The score, indexed by case id, low is bad; or booleans.
        faults: How many a score gives; for booleans it does not count.
    """
    ordered = _low_is_bad(values).sort_index().sort_values(kind="stable", na_position="last")
    count = int(values.sum()) if values.dtype == bool else faults
    return [str(case) for case in ordered.index[:count]]


def is_decoy(known: pd.DataFrame) -> pd.Series:
    """Which cases look unusual and are valid: those without a fault whose subtype is not the most frequent one.

    Args:
        known: One row a case with `fault` and `subtype`.
    """
    common = known["subtype"].value_counts().index[:1]
    return known["fault"].isna() & known["subtype"].notna() & ~known["subtype"].isin(common)


def best_scores(table: pd.DataFrame) -> list[str]:
    """Names of the scores that find the faults best, several where they are alike.

    The AUROC decides, then precision and recall at k, then the fewest decoys removed.

    Args:
        table: Table of `detection_table`, or means of several ones.
    """
    rated = table[table["auroc"].notna()]
    for measure, sign in (("auroc", 1), ("precision_at_k", 1), ("recall_at_k", 1), ("decoys_removed", -1)):
        values = (sign * rated[measure].astype(float)).fillna(float("-inf")).round(ROUNDING)
        rated = rated[values == values.max()]
    return list(rated["score"])


def _low_is_bad(values: pd.Series) -> pd.Series:
    return -values.astype(float) if values.dtype == bool else values
