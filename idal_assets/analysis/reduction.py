"""Removal sets, the training sets they leave, and what the retraining changed."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from idal_assets.analysis.removal_sets import FULL_SET, RemovalSet
from idal_assets.analysis.scores import MEAN
from idal_assets.seeds import shuffled
from idal_assets.settings import RemovalSettings


def plan_removals(
    sets: Iterable[RemovalSet],
    scores: pd.DataFrame,
    leaves: Sequence[str],
    worst_cluster: Sequence[str],
    settings: RemovalSettings,
) -> dict[str, list[str]]:
    """Decides which donors each chosen set takes away.

    Args:
        sets: Removal sets; controls and other seeds among them are left out.
        scores: Table of `similarity.rank_donors`, ordered by rank.
        leaves: Donors in leaf order, the bad end last.
        worst_cluster: Members of the worst cluster.
        settings: The order of removal.

    Returns:
        Removed donors by name of the set. `all` removes nothing; the sets `worst_N` are nested; `worst_cluster`
        removes nothing where there is no worst cluster.
    """
    order = list(scores["case_id"]) if settings.order == "score" else list(reversed(leaves))
    return {
        one.name: list(worst_cluster) if one.kind == "cluster" else order[: one.size]
        for one in sets
        if one.name == one.base and not one.is_control
    }


def draw_controls(
    sets: Iterable[RemovalSet],
    chosen: Mapping[str, Sequence[str]],
    volumes: pd.DataFrame,
    nearest: int,
    seed: int,
) -> dict[str, list[str]]:
    """Draws the donors that the controls take away, as many as the chosen set has.

    A random control is drawn from all donors. A matched one takes for each chosen donor another that is drawn from
    the `nearest` most similar: those with the same labels missing come first, and among them those of similar
    labelled volume (the ratio counts). Donors of the chosen set stand in only where no others are left.

    Args:
        sets: Removal sets; chosen ones and other seeds among them are left out.
        chosen: Removed donors of the chosen sets.
        volumes: Volume of each label, one row a donor, any unit.
        nearest: From how many a matched donor is drawn.
        seed: Seed of the draws; each control's depends on its name as well.

    Returns:
        Removed donors by name of the control.
    """
    drawn = {}
    for one in sets:
        if one.controls is None or one.name != one.base:
            continue
        removed = chosen[one.controls]
        key = (seed, one.name)
        if one.kind == "random":
            drawn[one.name] = shuffled(volumes.index, *key)[: len(removed)]
        else:
            drawn[one.name] = _matched(removed, volumes, nearest, key)
    return drawn


def _matched(removed: Sequence[str], volumes: pd.DataFrame, nearest: int, key: tuple[int, str]) -> list[str]:
    volume = np.log(volumes.sum(axis=1))
    missing = volumes.eq(0)
    found: list[str] = []
    for case in removed:
        others = volumes.index.drop([case, *(name for name in found if name != case)])
        likeness = pd.DataFrame(
            {
                "chosen": others.isin(removed),
                "other_labels": missing.loc[others].ne(missing.loc[case]).any(axis=1).to_numpy(),
                "distance": (volume[others] - volume[case]).abs().to_numpy(),
            },
            index=others,
        )
        order = likeness.sort_values(["chosen", "other_labels", "distance"], kind="stable")
        found.append(shuffled(order.index[:nearest], *key)[0])
    return found


def training_set(one: RemovalSet, removed: Sequence[str], scores: pd.DataFrame) -> pd.DataFrame:
    """Lists which donors a removal set keeps and which it loses.

    Args:
        one: The set.
        removed: Donors that it takes away.
        scores: Table of `similarity.rank_donors`.

    Returns:
        One row a donor, ordered by rank: `removal_set`, `case_id`, `kept`, `rank`, `score`, `reason`.
    """
    table = scores[["case_id", "rank", "score"]].copy()
    table["kept"] = ~table["case_id"].isin(set(removed))
    table["reason"] = [
        "kept" if kept else f"{_reason(one)}, rank {rank} of {len(scores)}"
        for kept, rank in zip(table["kept"], table["rank"], strict=True)
    ]
    table["removal_set"] = one.name
    return table[["removal_set", "case_id", "kept", "rank", "score", "reason"]]


def _reason(one: RemovalSet) -> str:
    reasons = {
        "cluster": "in the worst cluster",
        "random": f"drawn at random as a control of {one.controls}",
        "matched": f"drawn as a match for a case of {one.controls}",
    }
    return reasons.get(one.kind, f"among the {one.base}")


def replicate_scalars(evaluation: pd.DataFrame, sets: Mapping[str, RemovalSet]) -> pd.DataFrame:
    """The scalar of every test case under every training.

    Args:
        evaluation: Rows with `removal_set`, `case_id`, `region` and `dice`.
        sets: The removal sets by name.

    Returns:
        Rows with `removal_set` (without the seed), `kind`, `replicate`, `case_id` and `dice`.
    """
    scalars = evaluation[evaluation["region"] == MEAN]
    trained = [sets[name] for name in scalars["removal_set"]]
    return pd.DataFrame(
        {
            "removal_set": [one.base for one in trained],
            "kind": [one.kind for one in trained],
            "replicate": [one.replicate for one in trained],
            "case_id": scalars["case_id"].to_numpy(),
            "dice": scalars["dice"].to_numpy(),
        }
    )


def differences_to_full_set(scalars: pd.DataFrame) -> pd.DataFrame:
    """Difference of every test case to the full set, new minus old (thesis figure 3.6b).

    Args:
        scalars: Table of `statistics.mean_dice`.

    Returns:
        The same table without the full set.
    """
    return scalars.drop(index=FULL_SET) - scalars.loc[FULL_SET]


def median_change(scalars: pd.DataFrame, plan: Mapping[str, Sequence[str]], donors: int) -> pd.DataFrame:
    """Change of the median Dice by removal set (thesis table 3.3).

    Args:
        scalars: Table of `statistics.mean_dice`.
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
