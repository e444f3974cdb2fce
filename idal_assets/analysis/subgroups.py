"""Who pays: what a removal changes for the subgroups of the test cases, and whether it removes a rare subtype.

A mean can rise while a few patients lose. Badly segmented cases of a rare but valid subtype look like bad cases,
and a network that is trained without them fails where they matter.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import hypergeom

from idal_assets.analysis.removal_sets import FULL_SET
from idal_assets.analysis.statistics import SeedSpread, case_differences, mean_interval, percentiles
from idal_assets.analysis.words import interval
from idal_assets.anatomy import Anatomy

THIRDS = ("small", "middle", "large")


def subgroups_of(cases: pd.DataFrame, anatomy: Anatomy) -> pd.DataFrame:
    """Lists the subgroups of every case; a case is in several.

    Thirds of the labelled volume lie among the cases given, equal volumes in the same one, so donors and test
    cases that are to be compared are given together. A label makes two subgroups where some case lacks it and some
    has it.

    Args:
        cases: One row a case with `case_id`, `foreground_ml` (volume of all labels) and a column for each label,
            by its name, with its number of voxels; `scanner` and `cluster` if they are known, missing where not.
        anatomy: Names of the labels, and what all of them are called.

    Returns:
        One row a case and subgroup with `kind` (`volume`, `label`, `scanner`, `cluster`), `subgroup` and
        `case_id`; only subgroups that have a case.

    Raises:
        ValueError: A case appears twice, or its volume or a voxel count is missing.
    """
    labels = list(anatomy.labels.values())
    for case in cases.loc[cases["case_id"].duplicated(), "case_id"]:
        raise ValueError(f"Case {case} appears twice among the cases")
    for case, *numbers in cases[["case_id", "foreground_ml", *labels]].itertuples(index=False):
        for name in [name for name, number in zip(("volume", *labels), numbers, strict=True) if pd.isna(number)]:
            raise ValueError(f"Case {case} has no number for {name}; it comes from its label")
    smaller = cases["foreground_ml"].rank(method="min").astype(int) - 1
    named: list[tuple[str, list[str | None]]] = []
    named.append(("volume", [f"{THIRDS[place]} {anatomy.foreground}" for place in smaller * 3 // len(cases)]))
    for name in labels:
        lacks = cases[name] == 0
        if lacks.any() and not lacks.all():
            named.append(("label", [f"{'without' if one else 'with'} {name}" for one in lacks]))
    for kind in ("scanner", "cluster"):
        if kind in cases:
            named.append((kind, [None if pd.isna(value) else f"{kind} {_plain(value)}" for value in cases[kind]]))
    tables = [
        pd.DataFrame({"kind": kind, "subgroup": subgroup, "case_id": cases["case_id"].to_numpy()})
        for kind, subgroup in named
    ]
    return pd.concat(tables, ignore_index=True).dropna(subset="subgroup", ignore_index=True)


def _plain(value: object) -> object:
    # a column of cluster numbers with gaps holds 3.0
    return int(value) if isinstance(value, float) and value.is_integer() else value


def subgroup_changes(
    differences: Mapping[str, pd.DataFrame],
    memberships: pd.DataFrame,
    spread: SeedSpread,
    level: float,
    fewest_cases: int,
) -> pd.DataFrame:
    """Says what each removal set changed for each subgroup of the test cases.

    Args:
        differences: By set, new minus old: one row a replicate, one column a test case.
        memberships: Table of `subgroups_of`; cases that are no test cases do not count.
        spread: Between seeds, of one training.
        level: Level of the intervals.
        fewest_cases: Of a subgroup with fewer no interval is given.

    Returns:
        One row a set and subgroup that has test cases: `removal_set`, `kind`, `subgroup`, `cases` (test cases with
        a defined difference), `mean_difference` with its interval `low` to `high` (NaN where the cases are too
        few), and `worst_difference`; NaN if no case is defined.
    """
    rows = []
    for removal_set, of_set in differences.items():
        tested = memberships[memberships["case_id"].isin(of_set.columns)]
        for (kind, subgroup), members in tested.groupby(["kind", "subgroup"], sort=False)["case_id"]:
            changed = of_set[list(members)].to_numpy(float)
            of_cases = pd.Series(case_differences(changed)).dropna()
            enough = len(of_cases) >= fewest_cases
            low, high = mean_interval(changed, spread, level) if enough else (float("nan"), float("nan"))
            rows.append(
                {
                    "removal_set": removal_set,
                    "kind": kind,
                    "subgroup": subgroup,
                    "cases": len(of_cases),
                    "mean_difference": of_cases.mean(),
                    "low": low,
                    "high": high,
                    "worst_difference": of_cases.min(),
                }
            )
    columns = ["removal_set", "kind", "subgroup", "cases", "mean_difference", "low", "high", "worst_difference"]
    return pd.DataFrame(rows, columns=columns)


def worst_tenth_changes(
    dice: pd.DataFrame, random: np.random.Generator, level: float, resamples: int, fewest_cases: int
) -> pd.DataFrame:
    """Says what each removal set changed for the worst segmented tenth of the test cases.

    Every set has a worst tenth of its own. The tenth that was worst under the full set would seem to gain whatever
    is removed, by regression to the mean (Galton 1886). The interval is over other test cases, by bootstrap.

    Args:
        dice: Table of `statistics.mean_dice`, with the full set.
        random: Source of the draws.
        level: Level of the interval.
        resamples: Number of draws.
        fewest_cases: Where the tenth has fewer cases no interval is given.

    Returns:
        One row a set, the full set left out: `removal_set`, `cases` (a tenth of those that are defined in both
        sets, at least one), `mean_dice` (of the set's worst tenth), `difference` (of the means, new minus old) and
        its interval `low` to `high`; NaN if no case is defined, the interval also where the cases are too few.
    """
    rows = []
    for removal_set, new in dice.drop(index=FULL_SET).iterrows():
        both = pd.DataFrame({"new": new, "old": dice.loc[FULL_SET]}).dropna().to_numpy()
        cases = max(1, len(both) // 10) if len(both) else 0
        low = high = float("nan")
        if cases >= fewest_cases:
            drawn = random.integers(len(both), size=(resamples, len(both)))
            low, high = percentiles(_worst_difference(both[drawn], cases), level)
        rows.append(
            {
                "removal_set": removal_set,
                "cases": cases,
                "mean_dice": np.sort(both[:, 0])[:cases].mean() if cases else float("nan"),
                "difference": _worst_difference(both[None], cases)[0] if cases else float("nan"),
                "low": low,
                "high": high,
            }
        )
    return pd.DataFrame(rows, columns=["removal_set", "cases", "mean_dice", "difference", "low", "high"])


def _worst_difference(both: NDArray[np.float64], cases: int) -> NDArray[np.float64]:
    """Of pairs (draws, test cases, new and old): difference between the means of the worst cases of each."""
    worst = np.sort(both, axis=1)[:, :cases].mean(axis=1)
    return worst[:, 0] - worst[:, 1]


def rare_subtype_warning(
    removal_set: str,
    removed: Sequence[str],
    donors: Sequence[str],
    memberships: pd.DataFrame,
    changes: pd.DataFrame,
    rare: float = 0.25,
    significance: float = 0.05,
) -> str | None:
    """Warns where a set removes a rare subtype whose test cases lose.

    A subgroup is removed as such if more of it is removed than a draw of as many donors would explain (upper tail
    of the hypergeometric distribution, which is Fisher's exact test), or more than half of it.

    Args:
        removal_set: Name of the set.
        removed: Donors that it removes.
        donors: All donors.
        memberships: Table of `subgroups_of` for the donors; other cases do not count.
        changes: Table of `subgroup_changes`, with subgroups of the same names.
        rare: Largest share of the donors that a rare subgroup has, 0 to 1.
        significance: The tail probability below which chance explains too little.

    Returns:
        A sentence for each such subgroup, the greatest loss first; None if there is none.

    Raises:
        ValueError: A removed case is no donor.
    """
    for case in sorted(set(removed) - set(donors)):
        raise ValueError(f"Case {case} is removed by {removal_set} but is no donor")
    lost = changes[(changes["removal_set"] == removal_set) & (changes["mean_difference"] < 0)]
    warnings = []
    for change in lost.sort_values(["mean_difference", "subgroup"]).itertuples():
        of_it = memberships["subgroup"].eq(change.subgroup) & memberships["kind"].eq(change.kind)
        members = set(memberships.loc[of_it, "case_id"]) & set(donors)
        gone = len(members & set(removed))
        chance = hypergeom.sf(gone - 1, len(donors), len(members), len(removed))
        if len(members) <= rare * len(donors) and (chance < significance or gone > len(members) / 2):
            cases = "test case of this subgroup loses" if change.cases == 1 else "test cases of this subgroup lose"
            warnings.append(
                f"{removal_set} may remove a rare but valid subtype: it takes {gone} of the {len(members)} donors "
                f"of the subgroup '{change.subgroup}' (as many by chance: p = {chance:.2g}), and the "
                f"{change.cases} {cases} {-change.mean_difference:.3f} of Dice on average {_how_sure(change)}"
            )
    return "\n".join(warnings) or None


def _how_sure(change: Any) -> str:
    if pd.isna(change.low):
        return "(too few for an interval)"
    return f"(interval {interval(change.low, change.high)})"
