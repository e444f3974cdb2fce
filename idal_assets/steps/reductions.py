"""Removal sets, their training sets, and the report on what they changed."""

import json
from pathlib import Path

import pandas as pd

from idal_assets.analysis.reduction import (
    differences_to_full_set,
    median_change,
    plan_removals,
    scalar_by_set,
)
from idal_assets.analysis.reduction import training_set as list_training_set
from idal_assets.analysis.scores import MEAN
from idal_assets.artifacts import content_hash
from idal_assets.plots.reduction import dice_by_set, difference_map
from idal_assets.plots.reduction import median_change as median_change_figure
from idal_assets.plots.style import png_bytes
from idal_assets.steps.matrix import load_dendrogram, load_ranking
from idal_assets.study import Study

PLAN_FILE = "plan.json"


def make_plan(study: Study, folder: Path) -> pd.DataFrame:
    """Decides the removal sets; writes `plan.json`.

    Returns:
        The rows of the database's table `training_set`, for all sets.
    """
    scores = load_ranking(study)
    leaves = load_dendrogram(study.path("dendrogram")).leaves
    members = json.loads((study.path("case_ranking") / "worst_cluster.json").read_text())
    plan = plan_removals(scores, leaves, members, study.profile.removal)
    (folder / PLAN_FILE).write_text(json.dumps(plan, indent=1))
    return pd.concat([list_training_set(name, plan, scores) for name in plan], ignore_index=True)


def load_plan(folder: Path) -> dict[str, list[str]]:
    """Reads the removed donors of every set."""
    return json.loads((folder / PLAN_FILE).read_text())


def make_training_set(study: Study, removal_set: str, folder: Path) -> str:
    """Writes which cases a set keeps and which it lost.

    Returns:
        Hash of the preprocessed cases that it keeps.
    """
    plan = load_plan(study.path("removal_plan"))
    rows = list_training_set(removal_set, plan, load_ranking(study))
    rows.to_parquet(folder / "training_set.parquet", index=False)
    kept = sorted(rows.loc[rows["kept"], "case_id"])
    return content_hash({case: study.version("case_slices", case) for case in kept})


def make_reduction_report(study: Study, folder: Path) -> pd.DataFrame:
    """Writes table 3.3 and figures 3.6a and 3.6b of the thesis for this run.

    Returns:
        The rows of the database's table `evaluation`.
    """
    plan = load_plan(study.path("removal_plan"))
    evaluation = pd.concat(
        [pd.read_parquet(study.path("reduced_evaluation", name) / "evaluation.parquet") for name in plan],
        ignore_index=True,
    )
    scalars = scalar_by_set(evaluation)
    change = median_change(scalars, plan, len(study.cohort.donors))
    change.to_csv(folder / "median_change.csv", index=False)
    figures = {
        "figure_3_6a": dice_by_set(evaluation[evaluation["region"] == MEAN]),
        "figure_3_6b": difference_map(differences_to_full_set(scalars)),
        "median_change": median_change_figure(change),
    }
    for name, figure in figures.items():
        (folder / f"{name}.png").write_bytes(png_bytes(figure))
    return evaluation
