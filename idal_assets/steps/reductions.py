"""Removal sets, their training sets, and the report on what they changed."""

import json
from pathlib import Path

import pandas as pd

from idal_assets.analysis.reduction import (
    differences_to_full_set,
    draw_controls,
    median_change,
    plan_removals,
    replicate_scalars,
)
from idal_assets.analysis.reduction import training_set as list_training_set
from idal_assets.analysis.removal_sets import CONTROLS
from idal_assets.analysis.statistics import mean_dice
from idal_assets.plots.reduction import dice_by_set, difference_map
from idal_assets.plots.reduction import median_change as median_change_figure
from idal_assets.plots.style import png_bytes
from idal_assets.seeds import derived_seed
from idal_assets.steps.cells import EVALUATION_FILE, read_scores
from idal_assets.steps.cohort import label_millilitres
from idal_assets.steps.matrix import load_decision, load_dendrogram, load_ranking
from idal_assets.store.artifacts import content_hash
from idal_assets.study.graph import version_in_the_making
from idal_assets.study.study import NotMadeError, Study

PLAN_FILE = "plan.json"
TRAINING_SETS_FILE = "training_sets.parquet"
TRAINING_SET_FILE = "training_set.parquet"


def make_plan(study: Study, folder: Path) -> pd.DataFrame:
    """Decides the removal sets; writes `plan.json`, and `training_sets.parquet` with every donor's place in each.

    Returns:
        The rows of the database's table `removal_plan`.
    """
    profile, sets = study.profile, study.removal_sets
    scores = load_ranking(study)
    leaves = load_dendrogram(study.path("dendrogram")).leaves
    decision = load_decision(study.path("case_ranking"))
    removed = plan_removals(sets.values(), scores, leaves, decision["worst_cluster"], profile.removal)
    tumours = donor_tumours(study)
    removed |= draw_controls(sets.values(), removed, tumours, profile.controls.nearest, profile.seed)
    plan = {name: removed[one.base] for name, one in sets.items()}
    (folder / PLAN_FILE).write_text(json.dumps(plan, indent=1))
    # the matrix that there was at the ranking: one of other test cases may have come since
    decided_from = {
        "ranking_version": study.version("case_ranking"),
        "matrix_version": decision["matrix_version"],
    }
    tables = [list_training_set(one, plan[name], scores) for name, one in sets.items()]
    pd.concat(tables, ignore_index=True).assign(**decided_from).to_parquet(
        folder / TRAINING_SETS_FILE, index=False
    )
    rows = [
        {
            "removal_set": one.name,
            "kind": one.kind,
            "base_set": one.base,
            "replicate": one.replicate,
            "control_of": one.controls,
            "removed": plan[one.name],
        }
        for one in sets.values()
    ]
    return pd.DataFrame(rows).assign(plan_version=version_in_the_making(study, "removal_plan"), **decided_from)


def donor_tumours(study: Study) -> pd.DataFrame:
    """Volume of each label in ml, one row a donor."""
    cohort = study.cohort
    return pd.DataFrame({case: label_millilitres(cohort.case(case).facts) for case in cohort.donors}).T


def load_plan(folder: Path) -> dict[str, list[str]]:
    """Reads the removed donors of every set."""
    return json.loads((folder / PLAN_FILE).read_text())


def chosen_sets(study: Study) -> list[str]:
    """Names of the sets that were chosen and not drawn, without those of other seeds."""
    return [one.name for one in study.removal_sets.values() if one.name == one.base and not one.is_control]


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


def training_seed(study: Study, removal_set: str) -> int:
    """The seed that a removal set is trained with; all sets of the same replicate share it."""
    return derived_seed(study.profile.seed, "reduced_model", study.removal_sets[removal_set].replicate)


def model_row(study: Study, removal_set: str) -> pd.DataFrame:
    """The row of the database's table `model` for the network that is being trained."""
    decided = load_training_set(study.path("training_set", removal_set)).iloc[[0]]
    return decided[["removal_set", "training_set_version", "plan_version"]].assign(
        model_version=version_in_the_making(study, "reduced_model", removal_set),
        replicate=study.removal_sets[removal_set].replicate,
        seed=training_seed(study, removal_set),
    )


def load_evaluation(study: Study, removal_set: str) -> pd.DataFrame:
    """Scores of every test case, with the scalar that the profile asks for now."""
    file = study.path("reduced_evaluation", removal_set) / EVALUATION_FILE
    return read_scores(file, study.profile.similarity.scalar)


def load_evaluations(study: Study) -> pd.DataFrame:
    """Scores of every test case under every training."""
    return pd.concat([load_evaluation(study, name) for name in study.removal_sets], ignore_index=True)


def make_reduction_report(study: Study, folder: Path) -> pd.DataFrame:
    """Writes table 3.3 and figures 3.6a and 3.6b of the thesis for this run, of the chosen sets.

    Returns:
        The rows of the database's table `evaluation`.
    """
    plan = load_plan(study.path("removal_plan"))
    evaluation = load_evaluations(study)
    trained = replicate_scalars(evaluation, study.removal_sets)
    scalars = mean_dice(trained[~trained["kind"].isin(CONTROLS)])
    change = median_change(scalars, plan, len(study.cohort.donors))
    change.to_csv(folder / "median_change.csv", index=False)
    figures = {
        "figure_3_6a": dice_by_set(scalars.stack(future_stack=True).rename("dice").reset_index()),
        "figure_3_6b": difference_map(differences_to_full_set(scalars)),
        "median_change": median_change_figure(change),
    }
    for name, figure in figures.items():
        (folder / f"{name}.png").write_bytes(png_bytes(figure))
    return evaluation.assign(
        base_set=[study.removal_sets[name].base for name in evaluation["removal_set"]],
        replicate=[study.removal_sets[name].replicate for name in evaluation["removal_set"]],
        plan_version=study.version("removal_plan"),
        report_version=version_in_the_making(study, "reduction_report"),
    )
