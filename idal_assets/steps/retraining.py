"""The part `reduction`, its networks: retrained on reduced sets, evaluated on the test cases, and compared."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from idal_assets.analysis.reduction import differences_to_full_set, median_change, replicate_scalars
from idal_assets.analysis.removal_sets import DRAWN, WORST_CLUSTER
from idal_assets.analysis.scores import MEAN, held_by_truth
from idal_assets.analysis.statistics import mean_dice
from idal_assets.analysis.words import signed
from idal_assets.nnunet.geometry import as_in_file
from idal_assets.nnunet.model_folder import load_weights
from idal_assets.nnunet.plans import Plans
from idal_assets.nnunet.training import Weights
from idal_assets.plots.reduction import dice_by_set, difference_map
from idal_assets.plots.reduction import median_change as median_change_figure
from idal_assets.plots.style import save_chart
from idal_assets.report.html import KEPT, REMOVED, ReportSection, ReportTable, picture_of
from idal_assets.seeds import derived_seed
from idal_assets.settings import TrainingSettings
from idal_assets.steps.cells import EVALUATION_FILE, find_cells, read_scores, rows_before
from idal_assets.steps.networks import segment_and_score, show_training, slices_of, train_into
from idal_assets.steps.removal import RemovalPlan, load_plan, load_training_set
from idal_assets.steps.similarity import load_ranking
from idal_assets.store.artifacts import PROVENANCE_FILE
from idal_assets.study.making import Outcome, Task

SEGMENTATIONS = "segmentations"
STARTS = {"scratch": "from scratch", "pretraining": "from the baseline, which has seen none of them"}
"""In words, where a retraining starts."""

CHANGE_FILE = "median_change.csv"


# --- models ---


def train_reduced_model(task: Task) -> Outcome:
    """Trains on the cases that a removal set keeps; the row of the table `model`.

    All sets share their seeds and the number of iterations and train on all their cases: nnU-Net's five folds
    would be drawn anew when cases leave, which would hide what the removal did. Sets of the same donors and seed
    are trained once.
    """
    seed = _training_seed(task)
    places = load_training_set(task.path("training_set", task.key))
    row = places.iloc[[0]][["removal_set", "training_set_version", "plan_version"]].assign(
        model_version=task.version, replicate=task.replicate, seed=seed
    )
    settings = task.setting("reduced")
    initial = load_weights(task.path("baseline_weights")) if settings.start == "pretraining" else None
    train_on_kept(task, settings, seed, list(places["case_id"]), initial)
    return Outcome(tables={"model": row})


def train_on_kept(
    task: Task, settings: TrainingSettings, seed: int, pool: Sequence[str], initial: Weights | None = None
) -> None:
    """Trains a network on the slices that an artifact is made from, or takes over that of its twin.

    Args:
        task: The artifact in the making.
        settings: Length, loss and optimiser.
        seed: Seed of initial weights and draws.
        pool: All donors, with whom trainings that share a seed share their draws.
        initial: Weights to start from; None starts from scratch.
    """
    twin = task.twin()
    if twin is not None:
        take_over(twin, task.folder)
        return
    cases = slices_of(task, task.keys("case_slices"))
    train_into(task, cases, Plans.load(task.path("nnunet_plans")), settings, seed, initial, pool=pool)


def take_over(twin: Path, folder: Path) -> None:
    """Copies the files of a finished artifact, but for its record."""
    shutil.copytree(twin, folder, ignore=shutil.ignore_patterns(PROVENANCE_FILE), dirs_exist_ok=True)


def _training_seed(task: Task) -> int:
    """The seed that a removal set is trained with; all sets of the same replicate share it."""
    return derived_seed(task.setting("seed"), "reduced_model", task.replicate)


def show_reduced_model(task: Task) -> Mapping[str, Any]:
    """What the network learned from, its seed and its training."""
    return {
        "replicate": task.replicate,
        "seed": _training_seed(task),
        "start": task.setting("reduced.start"),
        "model_version": task.version,
        "training_set_version": task.inputs.made_from["training_set"],
        **show_training(task),
    }


# --- evaluations ---


def evaluate_reduced_model(task: Task) -> None:
    """Segments the test cases with a retrained network."""
    evaluate(task, "reduced_model")


def evaluate(task: Task, model_asset: str) -> None:
    """Segments with a network every test case that the evaluation before has no cell of.

    Writes the segmentations, and `evaluation.parquet` with one row a test case and region: `case_id`, `region`,
    `dice`, `iou`, `hd95`, `tp`, `fp`, `fn`, `model_version`, `receiver_version`.

    Args:
        task: The artifact in the making.
        model_asset: The asset whose network of the same key segments.
    """
    twin = task.twin()
    if twin is not None:
        take_over(twin, task.folder)
        return
    anatomy, tests = task.cohort.anatomy, task.keys("case_slices")
    target = task.folder / SEGMENTATIONS
    target.mkdir()
    before = rows_before(task, EVALUATION_FILE, anatomy)
    # where there is nothing to take over, nothing of it is read
    earlier = task.before_alike or task.folder
    if before is not None:
        before = before[before["case_id"].map(lambda name: _segmentation(earlier, name).is_file())]
    measured = tests if task.setting("inference.surface_distances") else ()
    # The versions are read before the files, so that a case that changes meanwhile is not taken for the new one.
    versions = {name: task.upstream_version("case_slices", name) for name in tests}
    model_version = task.upstream_version(model_asset, task.key)
    cells = find_cells(before, "case_id", model_version, versions, anatomy.version, measured)
    for name in cells.present:
        shutil.copyfile(_segmentation(earlier, name), _segmentation(task.folder, name))
    model = task.path(model_asset, task.key)
    plans = Plans.load(model)
    computed = []
    mirror = task.setting("inference.mirror_retrained")
    segmented = segment_and_score(
        task, model, cells.missing, anatomy, f"segment with {task.key}", measured, mirror
    )
    for name, scores, (case, predicted) in segmented:
        computed.append(scores.assign(case_id=name))
        affine = np.asarray(case.properties["affine"])
        nib.save(nib.Nifti1Image(as_in_file(predicted, plans), affine), _segmentation(task.folder, name))
    cells.complete(computed, task.folder).to_parquet(task.folder / EVALUATION_FILE, index=False)


def _segmentation(folder: Path, name: str) -> Path:
    return folder / SEGMENTATIONS / f"{name}.nii.gz"


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
