"""The part `reduction`, its decisions: which donors each set takes away, and which cases that leaves."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from idal_assets.analysis.reduction import draw_removals, plan_removals
from idal_assets.analysis.reduction import training_set as list_training_set
from idal_assets.analysis.removal_sets import RemovalSet, removal_sets
from idal_assets.steps.similarity import load_decision, load_dendrogram, load_ranking
from idal_assets.store.artifacts import content_hash
from idal_assets.study.making import Outcome, Task
from idal_assets.study.selectors import KEPT_FILE
from idal_assets.study.study import NotMadeError

PLAN_FILE = "plan.json"
TRAINING_SETS_FILE = "training_sets.parquet"
TRAINING_SET_FILE = "training_set.parquet"


@dataclass(frozen=True)
class RemovalPlan:
    """What every removal set takes away.

    Attributes:
        sets: The trainings on removal sets, by name.
        removed: Donors that each takes away, by name.
    """

    sets: Mapping[str, RemovalSet]
    removed: Mapping[str, Sequence[str]]

    @property
    def of_base(self) -> dict[str, Sequence[str]]:
        """Donors that each set takes away, by its name without the seed."""
        return {one.base: self.removed[name] for name, one in self.sets.items()}

    @property
    def chosen(self) -> list[str]:
        """Names of the sets that were chosen and not drawn, without the seed."""
        return list(dict.fromkeys(one.base for one in self.sets.values() if not one.is_drawn))

    @property
    def random(self) -> dict[str, Sequence[str]]:
        """Donors that each random removal of a chosen size takes away; of those with the same donors the first."""
        named = {one.base: self.removed[name] for name, one in self.sets.items() if one.kind == "random"}
        first = {frozenset(removed): name for name, removed in reversed(named.items())}
        chosen = {frozenset(self.of_base[name]) for name in self.chosen}
        kept = {name for removed, name in first.items() if removed not in chosen}
        return {name: removed for name, removed in named.items() if name in kept}


def make_plan(task: Task) -> Outcome:
    """Decides the removal sets; writes `plan.json`, and `training_sets.parquet` with every donor's place in each.

    The rows of the table `removal_plan`.
    """
    sets = removal_sets(task.setting("removal"), task.setting("controls"))
    ranking = task.path("case_ranking")
    scores, decision = load_ranking(ranking), load_decision(ranking)
    leaves = load_dendrogram(task.path("dendrogram")).leaves
    removed = plan_removals(sets.values(), scores, leaves, decision["worst_cluster"], task.setting("removal"))
    removed |= draw_removals(sets.values(), removed, sorted(scores["case_id"]), task.setting("seed"))
    plan = RemovalPlan(sets, {name: removed[one.base] for name, one in sets.items()})
    _save_plan(plan, task.folder)
    # the matrix that there was at the ranking: one of other test cases may have come since
    decided_from = {
        "ranking_version": task.upstream_version("case_ranking"),
        "matrix_version": decision["matrix_version"],
    }
    tables = [list_training_set(one, plan.removed[name], scores) for name, one in sets.items()]
    places = pd.concat(tables, ignore_index=True).assign(**decided_from)
    places.to_parquet(task.folder / TRAINING_SETS_FILE, index=False)
    rows = [
        {
            "removal_set": one.name,
            "kind": one.kind,
            "base_set": one.base,
            "replicate": one.replicate,
            "removed": plan.removed[one.name],
        }
        for one in sets.values()
    ]
    table = pd.DataFrame(rows).assign(plan_version=task.version, **decided_from)
    return Outcome(tables={"removal_plan": table})


def _save_plan(plan: RemovalPlan, folder: Path) -> None:
    noted = {name: {**asdict(one), "removed": list(plan.removed[name])} for name, one in plan.sets.items()}
    (folder / PLAN_FILE).write_text(json.dumps(noted, indent=1))


def load_plan(folder: Path) -> RemovalPlan:
    """Reads what `make_plan` decided."""
    noted = json.loads((folder / PLAN_FILE).read_text())
    removed = {name: values.pop("removed") for name, values in noted.items()}
    return RemovalPlan({name: RemovalSet(**values) for name, values in noted.items()}, removed)


def show_plan(task: Task) -> Mapping[str, Any]:
    """Every set with what it takes away."""
    rows = [
        {"removal_set": name, "removed": len(cases), "cases": ", ".join(cases)}
        for name, cases in load_plan(task.folder).removed.items()
    ]
    return {"removal_sets": pd.DataFrame(rows)}


def make_training_set(task: Task) -> Outcome:
    """Writes which cases a set keeps and which it lost, and what decided that.

    The version is a hash of the preprocessed cases that it keeps, and of the names of all donors, among which the
    patches of its training are drawn; the rows of the table `training_set`.

    Raises:
        NotMadeError: The plan was made for other removal sets.
    """
    sets = pd.read_parquet(task.path("removal_plan") / TRAINING_SETS_FILE)
    rows = sets[sets["removal_set"] == task.key].reset_index(drop=True)
    if rows.empty:
        raise NotMadeError(f"The removal plan has no set {task.key}; materialize removal_plan first")
    kept = sorted(rows.loc[rows["kept"], "case_id"])
    contents = {case: task.upstream_version("case_slices", case) for case in kept}
    version = content_hash({"kept": contents, "donors": sorted(rows["case_id"])})
    rows = rows.assign(training_set_version=version, plan_version=task.upstream_version("removal_plan"))
    rows.to_parquet(task.folder / TRAINING_SET_FILE, index=False)
    (task.folder / KEPT_FILE).write_text(json.dumps(kept))
    return Outcome(version, {"training_set": rows})


def load_training_set(folder: Path) -> pd.DataFrame:
    """Reads what `make_training_set` wrote: one row a donor, ordered by rank."""
    return pd.read_parquet(folder / TRAINING_SET_FILE)


def show_training_set(task: Task) -> Mapping[str, Any]:
    """Which cases are kept and which lost, and what decided that."""
    rows = load_training_set(task.folder)
    lost = rows[~rows["kept"]]
    places = ["case_id", "rank", "score", "reason"]
    versions = ("training_set_version", "plan_version", "ranking_version", "matrix_version")
    return {
        "kept": int(rows["kept"].sum()),
        "removed": len(lost),
        "removed_cases": ", ".join(lost["case_id"]) or "none",
        "difference_to_all": lost[places],
        "cases": rows[["case_id", "kept", *places[1:]]],
        **{name: str(rows[name].iloc[0]) for name in versions},
    }
