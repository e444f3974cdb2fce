"""The part `reduction`, its answer: what the retrained networks scored, set against each other.

What is here reads and compares; it needs no PyTorch, so the command line can say what a run found at once.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from idal_assets.analysis.reduction import differences_to_full_set, median_change, replicate_scalars
from idal_assets.analysis.removal_sets import DRAWN, WORST_CLUSTER
from idal_assets.analysis.scores import MEAN, held_by_truth
from idal_assets.analysis.statistics import mean_dice
from idal_assets.analysis.words import signed
from idal_assets.plots.reduction import dice_by_set, difference_map
from idal_assets.plots.reduction import median_change as median_change_figure
from idal_assets.plots.style import save_chart
from idal_assets.report.html import KEPT, REMOVED, ReportSection, ReportTable, picture_of
from idal_assets.steps.cells import EVALUATION_FILE, read_scores
from idal_assets.steps.removal import RemovalPlan, load_plan
from idal_assets.steps.similarity import load_ranking
from idal_assets.study.making import Outcome, Task

CHANGE_FILE = "median_change.csv"
STARTS = {"scratch": "from scratch", "pretraining": "from the baseline, which has seen none of them"}
"""In words, where a retraining starts."""


# --- scores of retrained networks ---


def load_evaluation(folder: Path, scalar_regions: tuple[str, ...]) -> pd.DataFrame:
    """Scores of every test case, with the scalar that the profile asks for now."""
    return read_scores(folder / EVALUATION_FILE, scalar_regions)


def load_evaluations(task: Task, asset: str = "reduced_evaluation") -> pd.DataFrame:
    """Scores of every test case under every training, which the column `removal_set` names."""
    regions = task.cohort.anatomy.scored(task.setting("similarity.scalar"))
    tables = [
        load_evaluation(task.path(asset, name), regions).assign(removal_set=name) for name in task.keys(asset)
    ]
    return pd.concat(tables, ignore_index=True)


def show_evaluation(task: Task) -> Mapping[str, Any]:
    """Scores of every test case."""
    anatomy = task.cohort.anatomy
    rows = load_evaluation(task.folder, anatomy.scored(task.setting("similarity.scalar")))
    by_case = rows.pivot(index=["case_id", "receiver_version"], columns="region", values="dice")
    return {
        "model_version": str(rows["model_version"].iloc[0]),
        "test_cases": len(by_case),
        "mean_dice": float(by_case[MEAN].mean()),
        "median_dice": float(by_case[MEAN].median()),
        **_median_distance(rows, anatomy.composites[0]),
        "dice_by_case": by_case.reset_index()[["case_id", MEAN, *anatomy.regions, "receiver_version"]],
    }


def _median_distance(rows: pd.DataFrame, region: str) -> Mapping[str, float]:
    """Nothing where no distance was measured."""
    of_region = rows[rows["region"] == region]
    distances = of_region["hd95"].dropna()
    if distances.empty:
        return {}
    # where only truth or segmentation has voxels there is no distance, and the penalty of BraTS stands for it
    missed = held_by_truth(of_region) != (of_region["tp"] + of_region["fp"] > 0)
    return {f"median_hd95_{region}_mm": float(distances.median()), f"missed_{region}": int(missed.sum())}


# --- report of the thesis ---


def make_reduction_report(task: Task) -> Outcome:
    """Writes table 3.3 and figures 3.6a and 3.6b of the thesis for this run, of the chosen sets.

    The rows of the table `evaluation`.
    """
    plan = load_plan(task.path("removal_plan"))
    evaluation = load_evaluations(task)
    trained = replicate_scalars(evaluation, plan.sets)
    scalars = mean_dice(trained[~trained["kind"].isin(DRAWN)])
    change = median_change(scalars, plan.of_base, len(task.cohort.donors))
    change.to_csv(task.folder / CHANGE_FILE, index=False)
    figures = {
        "figure_3_6a": dice_by_set(scalars.stack(future_stack=True).rename("dice").reset_index()),
        "figure_3_6b": difference_map(differences_to_full_set(scalars)),
        "median_change": median_change_figure(change),
    }
    for name, figure in figures.items():
        save_chart(figure, task.folder / f"{name}")
    rows = evaluation.assign(
        base_set=[plan.sets[name].base for name in evaluation["removal_set"]],
        replicate=[plan.sets[name].replicate for name in evaluation["removal_set"]],
        plan_version=task.upstream_version("removal_plan"),
        report_version=task.version,
    )
    return Outcome(tables={"evaluation": rows})


def load_median_change(folder: Path) -> pd.DataFrame:
    """Table 3.3 of this run."""
    return pd.read_csv(folder / CHANGE_FILE)


def show_reduction_report(task: Task) -> Mapping[str, Any]:
    """Table 3.3 of this run."""
    return {"table_3_3": load_median_change(task.folder)}


# --- sections of the report ---


def reduction_section(task: Task, change: pd.DataFrame) -> ReportSection:
    """The retrainings on reduced sets, as the thesis shows them."""
    start = task.setting("reduced.start")
    folder = task.path("reduction_report")
    changes = ReportTable(
        "Change of the median Dice (thesis table 3.3)",
        ["removal set", "removed", "cases left", "median Dice", "difference of medians", "median of differences"],
        [
            [
                row.removal_set,
                row.removed,
                row.cases_left,
                float(row.median_dice),
                signed(row.difference_of_medians, 4),
                signed(row.median_of_differences, 4),
            ]
            for row in change.itertuples()
        ],
        "Differences are new minus old: above zero is better than with all cases.",
    )
    removed = _removed_cases(load_plan(task.path("removal_plan")), load_ranking(task.path("case_ranking")))
    return ReportSection(
        "Reductions",
        "reductions",
        f"On each set of donors a network was trained, {STARTS[start]}. It then segmented the test cases.",
        [changes, removed],
        [
            picture_of(
                folder / "median_change", "Change of the median", "Two marks a removal set; zero is all cases."
            ),
            picture_of(
                folder / "figure_3_6a", "Dice of the test cases", "Thesis figure 3.6a: a dot a retraining."
            ),
            picture_of(
                folder / "figure_3_6b",
                "Difference to the full set",
                "Thesis figure 3.6b, in its colours: red better, white the same, blue worse than with all cases. "
                "In every other figure red is bad.",
            ),
        ],
    )


def _removed_cases(plan: RemovalPlan, scores: pd.DataFrame) -> ReportTable:
    removed = {name: plan.of_base[name] for name in plan.chosen}
    rows = [
        [row.rank, row.case_id, *(REMOVED if row.case_id in cases else KEPT for cases in removed.values())]
        for row in scores.itertuples()
        if any(row.case_id in cases for cases in removed.values())
    ]
    return ReportTable(
        "Which case was removed from which set",
        ["rank", "case", *removed],
        rows,
        f"Every other donor is in all sets. {WORST_CLUSTER} comes from the dendrogram, the rest from the ranking.",
    )
