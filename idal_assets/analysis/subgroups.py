"""Who pays: what a removal changes for the subgroups of the test cases, and whether it removes a rare subtype.

A median can rise while a few patients lose. Badly segmented cases of a rare but valid subtype look like bad cases,
and a network that is trained without them fails where they matter.
"""

from collections.abc import Sequence

import pandas as pd
from scipy.stats import hypergeom

from idal_assets.analysis.reduction import differences_to_full_set
from idal_assets.analysis.removal_sets import FULL_SET
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


def subgroup_changes(dice: pd.DataFrame, memberships: pd.DataFrame) -> pd.DataFrame:
    """Says what each removal set changed for each subgroup of the test cases.

    Args:
        dice: Table of `statistics.mean_dice`: one row a set, the full set among them, one column a test case.
        memberships: Table of `subgroups_of`; cases that are no test cases do not count.

    Returns:
        One row a set and subgroup that has test cases, the full set left out: `removal_set`, `kind`, `subgroup`,
        `cases` (test cases that are defined in both sets), `median_of_differences` and `worst_difference` (new
        minus old; NaN if no case is defined).
    """
    differences = differences_to_full_set(dice)
    tested = memberships[memberships["case_id"].isin(dice.columns)]
    rows = []
    for removal_set, difference in differences.iterrows():
        for (kind, subgroup), members in tested.groupby(["kind", "subgroup"], sort=False)["case_id"]:
            changed = difference[members].dropna()
            rows.append(
                {
                    "removal_set": removal_set,
                    "kind": kind,
                    "subgroup": subgroup,
                    "cases": len(changed),
                    "median_of_differences": changed.median(),
                    "worst_difference": changed.min(),
                }
            )
    columns = ["removal_set", "kind", "subgroup", "cases", "median_of_differences", "worst_difference"]
    return pd.DataFrame(rows, columns=columns)


def worst_tenth_changes(dice: pd.DataFrame) -> pd.DataFrame:
    """Says what each removal set changed for the worst segmented tenth of the test cases.

    Every set has a worst tenth of its own. The tenth that was worst under the full set would seem to gain whatever
    is removed, by regression to the mean (Galton 1886).

    Args:
        dice: Table of `statistics.mean_dice`, with the full set.

    Returns:
        One row a set, the full set left out: `removal_set`, `cases` (a tenth of those that are defined in both
        sets, at least one), `mean_dice` (of the set's worst tenth) and `difference` (of the means, new minus old);
        NaN if no case is defined.
    """
    rows = []
    for removal_set, new in dice.drop(index=FULL_SET).iterrows():
        both = pd.DataFrame({"new": new, "old": dice.loc[FULL_SET]}).dropna()
        cases = max(1, len(both) // 10) if len(both) else 0
        means = {name: both[name].nsmallest(cases).mean() for name in both}
        rows.append(
            {
                "removal_set": removal_set,
                "cases": cases,
                "mean_dice": means["new"],
                "difference": means["new"] - means["old"],
            }
        )
    return pd.DataFrame(rows, columns=["removal_set", "cases", "mean_dice", "difference"])


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
    lost = changes[(changes["removal_set"] == removal_set) & (changes["median_of_differences"] < 0)]
    warnings = []
    for change in lost.sort_values(["median_of_differences", "subgroup"]).itertuples():
        of_it = memberships["subgroup"].eq(change.subgroup) & memberships["kind"].eq(change.kind)
        members = set(memberships.loc[of_it, "case_id"]) & set(donors)
        gone = len(members & set(removed))
        chance = hypergeom.sf(gone - 1, len(donors), len(members), len(removed))
        if len(members) <= rare * len(donors) and (chance < significance or gone > len(members) / 2):
            cases = "test case of this subgroup loses" if change.cases == 1 else "test cases of this subgroup lose"
            warnings.append(
                f"{removal_set} may remove a rare but valid subtype: it takes {gone} of the {len(members)} donors "
                f"of the subgroup '{change.subgroup}' (as many by chance: p = {chance:.2g}), and the "
                f"{change.cases} {cases} {-change.median_of_differences:.3f} of Dice in the median"
            )
    return "\n".join(warnings) or None
