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
from idal_assets.graph import version_in_the_making
from idal_assets.plots.reduction import dice_by_set, difference_map
from idal_assets.plots.reduction import median_change as median_change_figure
from idal_assets.plots.style import png_bytes
from idal_assets.steps.cells import EVALUATION_FILE, read_scores
from idal_assets.steps.matrix import load_decision, load_dendrogram, load_ranking
from idal_assets.study import NotMadeError, Study

PLAN_FILE = "plan.json"
TRAINING_SETS_FILE = "training_sets.parquet"
TRAINING_SET_FILE = "training_set.parquet"


def make_plan(study: Study, folder: Path) -> pd.DataFrame:
    """Decides the removal sets; writes `plan.json`, and `training_sets.parquet` with every donor's place in each.

    Returns:
        The rows of the database's table `removal_plan`.
    """
    scores = load_ranking(study)
    leaves = load_dendrogram(study.path("dendrogram")).leaves
    decision = load_decision(study.path("case_ranking"))
    plan = plan_removals(scores, leaves, decision["worst_cluster"], study.profile.removal)
    (folder / PLAN_FILE).write_text(json.dumps(plan, indent=1))
    # the matrix that there was at the ranking: one of other test cases may have come since
    decided_from = {
        "ranking_version": study.version("case_ranking"),
        "matrix_version": decision["matrix_version"],
    }
    sets = pd.concat([list_training_set(name, plan, scores) for name in plan], ignore_index=True)
    sets.assign(**decided_from).to_parquet(folder / TRAINING_SETS_FILE, index=False)
    return pd.DataFrame({"removal_set": list(plan), "removed": list(plan.values())}).assign(
        plan_version=version_in_the_making(study, "removal_plan"), **decided_from
    )


def load_plan(folder: Path) -> dict[str, list[str]]:
    """Reads the removed donors of every set."""
    return json.loads((folder / PLAN_FILE).read_text())


def make_training_set(study: Study, removal_set: str, folder: Path) -> tuple[str, pd.DataFrame]:
    """Writes which cases a set keeps and which it lost, and what decided that.

    Returns:
        Hash of the preprocessed cases that it keeps, and the rows of the database's table `training_set`.

    Raises:
        NotMadeError: The plan was made for other removal sets.
    """
    sets = pd.read_parquet(study.path("removal_plan") / TRAINING_SETS_FILE)
    rows = sets[sets["removal_set"] == removal_set].reset_index(drop=True)
    if rows.empty:
        raise NotMadeError(f"The removal plan has no set {removal_set}; materialize removal_plan first")
    kept = sorted(rows.loc[rows["kept"], "case_id"])
    version = content_hash({case: study.version("case_slices", case) for case in kept})
    rows = rows.assign(training_set_version=version, plan_version=study.version("removal_plan"))
    rows.to_parquet(folder / TRAINING_SET_FILE, index=False)
    return version, rows


def load_training_set(folder: Path) -> pd.DataFrame:
    """Reads what `make_training_set` wrote: one row a donor, ordered by rank."""
    return pd.read_parquet(folder / TRAINING_SET_FILE)


def model_row(study: Study, removal_set: str) -> pd.DataFrame:
    """The row of the database's table `model` for the network that is being trained."""
    decided = load_training_set(study.path("training_set", removal_set)).iloc[[0]]
    return decided[["removal_set", "training_set_version", "plan_version"]].assign(
        model_version=version_in_the_making(study, "reduced_model", removal_set)
    )


def load_evaluation(study: Study, removal_set: str) -> pd.DataFrame:
    """Scores of every test case, with the scalar that the profile asks for now."""
    file = study.path("reduced_evaluation", removal_set) / EVALUATION_FILE
    return read_scores(file, study.profile.similarity.scalar)


def make_reduction_report(study: Study, folder: Path) -> pd.DataFrame:
    """Writes table 3.3 and figures 3.6a and 3.6b of the thesis for this run.

    Returns:
        The rows of the database's table `evaluation`.
    """
    plan = load_plan(study.path("removal_plan"))
    evaluation = pd.concat([load_evaluation(study, name) for name in plan], ignore_index=True)
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
    return evaluation.assign(
        plan_version=study.version("removal_plan"), report_version=version_in_the_making(study, "reduction_report")
    )
