"""Removal sets, the training sets they leave, and what the retraining changed."""

from collections.abc import Mapping, Sequence

import pandas as pd

from idal_assets.analysis.scores import MEAN
from idal_assets.settings import FULL_SET, WORST_CLUSTER, RemovalSettings


def plan_removals(
    scores: pd.DataFrame, leaves: Sequence[str], worst_cluster: Sequence[str], settings: RemovalSettings
) -> dict[str, list[str]]:
    """Decides which donors each removal set takes away.

    Args:
        scores: Table of `similarity.rank_donors`, ordered by rank.
        leaves: Donors in leaf order, the bad end last.
        worst_cluster: Members of the worst cluster.
        settings: Sizes and order.

    Returns:
        Removed donors by name of the set. `all` removes nothing; the sets `worst_N` are nested; `worst_cluster`
        removes nothing where there is no worst cluster.
    """
    order = list(scores["case_id"]) if settings.order == "score" else list(reversed(leaves))
    plan: dict[str, list[str]] = {FULL_SET: []}
    for name, size in settings.worst_sets.items():
        plan[name] = order[:size]
    plan[WORST_CLUSTER] = list(worst_cluster)
    return plan


def training_set(removal_set: str, plan: Mapping[str, Sequence[str]], scores: pd.DataFrame) -> pd.DataFrame:
    """Lists which donors a removal set keeps and which it loses.

    Args:
        removal_set: Name of the set.
        plan: Removed donors of every set.
        scores: Table of `similarity.rank_donors`.

    Returns:
        One row a donor, ordered by rank: `removal_set`, `case_id`, `kept`, `rank`, `score`, `reason`.
    """
    removed = set(plan[removal_set])
    table = scores[["case_id", "rank", "score"]].copy()
    table["kept"] = ~table["case_id"].isin(removed)
    table["reason"] = [
        "kept" if kept else _reason(removal_set, rank, len(scores))
        for kept, rank in zip(table["kept"], table["rank"], strict=True)
    ]
    table["removal_set"] = removal_set
    return table[["removal_set", "case_id", "kept", "rank", "score", "reason"]]


def _reason(removal_set: str, rank: int, donors: int) -> str:
    place = f"rank {rank} of {donors}"
    return (
        f"in the worst cluster, {place}" if removal_set == WORST_CLUSTER else f"among the {removal_set}, {place}"
    )


def scalar_by_set(evaluation: pd.DataFrame) -> pd.DataFrame:
    """Arranges the scalars of the test cases.

    Args:
        evaluation: Rows with `removal_set`, `case_id`, `region` and `dice`.

    Returns:
        Scalars, one row a removal set in the order given, one column a test case.
    """
    scalars = evaluation[evaluation["region"] == MEAN]
    table = scalars.pivot(index="removal_set", columns="case_id", values="dice")
    return table.reindex(list(dict.fromkeys(evaluation["removal_set"])))


def differences_to_full_set(scalars: pd.DataFrame) -> pd.DataFrame:
    """Difference of every test case to the full set, new minus old (thesis figure 3.6b).

    Args:
        scalars: Table of `scalar_by_set`.

    Returns:
        The same table without the full set.
    """
    return scalars.drop(index=FULL_SET) - scalars.loc[FULL_SET]


def median_change(scalars: pd.DataFrame, plan: Mapping[str, Sequence[str]], donors: int) -> pd.DataFrame:
    """Change of the median Dice by removal set (thesis table 3.3).

    Args:
        scalars: Table of `scalar_by_set`.
        plan: Removed donors of every set.
        donors: Number of all donors.

    Returns:
        One row a set: `removal_set`, `removed`, `cases_left`, `median_dice`, `difference_of_medians` and
        `median_of_differences`, both new minus old and zero for the full set; undefined cases are left out.
    """
    full = scalars.loc[FULL_SET]
    rows = []
    for name, dice in scalars.iterrows():
        rows.append(
            {
                "removal_set": name,
                "removed": len(plan[str(name)]),
                "cases_left": donors - len(plan[str(name)]),
                "median_dice": dice.median(),
                "difference_of_medians": dice.median() - full.median(),
                "median_of_differences": (dice - full).median(),
            }
        )
    return pd.DataFrame(rows)
