"""Removal sets, the training sets they leave, and what the retraining changed."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from math import comb

import pandas as pd

from idal_assets.analysis.removal_sets import FULL_SET, RemovalSet
from idal_assets.analysis.scores import MEAN, held_by_truth
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
        sets: Trainings on removal sets; drawn ones among them are left out.
        scores: Table of `similarity.rank_donors`, ordered by rank.
        leaves: Donors in leaf order, the bad end last.
        worst_cluster: Members of the worst cluster.
        settings: The order of removal.

    Returns:
        Removed donors by `base` of the set. `all` removes nothing; the sets `worst_N` are nested, as are the sets
        `best_N`; `worst_cluster` removes nothing where there is no worst cluster.
    """
    order = list(scores["case_id"]) if settings.order == "score" else list(reversed(leaves))
    taken = {"all": order[:0], "cluster": list(worst_cluster)}
    removed: dict[str, list[str]] = {}
    for one in sets:
        if one.kind == "worst":
            removed[one.base] = order[: one.size]
        elif one.kind == "best":
            removed[one.base] = order[::-1][: one.size]
        elif not one.is_drawn:
            removed[one.base] = taken[one.kind]
    return removed


def draw_removals(
    sets: Iterable[RemovalSet], chosen: Mapping[str, Sequence[str]], donors: Sequence[str], seed: int
) -> dict[str, list[str]]:
    """Draws the donors that the random sets take away.

    A random removal is none of the chosen sets, nor another random removal. Where there are not so many different
    ones, the last repeat the first in turn; they are trained once and count once. Halves come in pairs, of which
    the second removes what the first keeps, so that every donor is in half of them.

    Args:
        sets: Trainings on removal sets; chosen ones among them are left out.
        chosen: Removed donors of the chosen sets.
        donors: All donors.
        seed: Seed of the draws; each set's depends on its name as well.

    Returns:
        Removed donors by `base` of the set.
    """
    bases = {one.base: one for one in sets if one.is_drawn}
    drawn: dict[str, list[str]] = {}
    for size, group in groupby(
        sorted((one for one in bases.values() if one.kind == "random"), key=_by_size), key=_by_size
    ):
        names = [one.base for one in group]
        drawn |= _different_removals(names, size, chosen.values(), donors, seed)
    halves = [one.base for one in bases.values() if one.kind == "half"]
    for name, complement in zip(halves[::2], halves[1::2], strict=True):
        drawn[name] = shuffled(donors, seed, name)[: len(donors) // 2]
        drawn[complement] = [donor for donor in donors if donor not in set(drawn[name])]
    return {name: drawn[name] for name in bases}


def _by_size(one: RemovalSet) -> int:
    return one.size or 0


def _different_removals(
    names: Sequence[str], size: int, chosen: Iterable[Sequence[str]], donors: Sequence[str], seed: int
) -> dict[str, list[str]]:
    used = {frozenset(removed) for removed in chosen if len(removed) == size}
    left = max(0, comb(len(donors), size) - len(used))
    drawn: dict[str, list[str]] = {}
    for name in names[:left]:
        attempt = 0
        while frozenset(removed := shuffled(donors, seed, name, attempt)[:size]) in used:
            attempt += 1
        used.add(frozenset(removed))
        drawn[name] = removed
    # where even one more differs from none of these, it takes what the chosen set does
    different = list(drawn.values()) or [shuffled(donors, seed, names[0])[:size]]
    repeated = names[left:]
    return drawn | {name: different[place % len(different)] for place, name in enumerate(repeated)}


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
        "random": f"drawn at random as one of {one.size}",
        "half": "drawn at random as one of half of the donors",
    }
    return reasons.get(one.kind, f"among the {one.base}")


def replicate_scalars(
    evaluation: pd.DataFrame, sets: Mapping[str, RemovalSet], patients: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """The scalar of every test case under every training.

    Args:
        evaluation: Rows with `removal_set`, `case_id`, `region` and `dice`.
        sets: The removal sets by name.
        patients: Patient of each case: the mean over the test cases of a patient stands for them, under the
            patient's name, since they are not independent of one another. None keeps the cases.

    Returns:
        Rows with `removal_set` (without the seed), `kind`, `replicate`, `case_id` and `dice`.
    """
    scalars = evaluation[evaluation["region"] == MEAN]
    trained = [sets[name] for name in scalars["removal_set"]]
    table = pd.DataFrame(
        {
            "removal_set": [one.base for one in trained],
            "kind": [one.kind for one in trained],
            "replicate": [one.replicate for one in trained],
            "case_id": scalars["case_id"].to_numpy(),
            "dice": scalars["dice"].to_numpy(),
        }
    )
    if patients is None:
        return table
    table["case_id"] = table["case_id"].map(patients)
    place = ["removal_set", "kind", "replicate", "case_id"]
    return table.groupby(place, sort=False, as_index=False)["dice"].mean()


def false_volumes(
    evaluation: pd.DataFrame, sets: Mapping[str, RemovalSet], voxel_ml: Mapping[str, float]
) -> pd.DataFrame:
    """What networks segment of regions that are not there, of which no Dice says how much it is.

    Args:
        evaluation: Rows with `removal_set`, `case_id`, `region`, `tp`, `fp` and `fn`.
        sets: The removal sets by name.
        voxel_ml: Volume of one voxel of each test case in ml.

    Returns:
        One row a set (without the seed, drawn ones left out) and region that some test case lacks: `removal_set`,
        `region`; `cases` that lack it; `segmented`, how many of them have a voxel of it in the segmentation, and
        `millilitres`, its volume in one of them; both means over the trainings of the set.
    """
    regions = evaluation[evaluation["region"] != MEAN]
    absent = regions[~held_by_truth(regions)]
    trained = absent["removal_set"].map(sets)
    absent = absent.assign(
        base=trained.map(lambda one: one.base),
        drawn=trained.map(lambda one: one.is_drawn),
        volume=absent["fp"].astype(float) * absent["case_id"].map(voxel_ml).astype(float),
        segmented=absent["fp"] > 0,
    )
    found = [
        {
            "removal_set": base,
            "region": region,
            "cases": rows["case_id"].nunique(),
            "segmented": float(rows.groupby("removal_set")["segmented"].sum().mean()),
            "millilitres": float(rows["volume"].mean()),
        }
        for (base, region), rows in absent[~absent["drawn"].astype(bool)].groupby(["base", "region"], sort=False)
    ]
    return pd.DataFrame(found, columns=["removal_set", "region", "cases", "segmented", "millilitres"])


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
