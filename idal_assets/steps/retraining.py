"""The part `reduction`, its networks: retrained on reduced sets and evaluated on the test cases."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from idal_assets.nnunet.geometry import as_in_file
from idal_assets.nnunet.model_folder import load_weights
from idal_assets.nnunet.plans import Plans
from idal_assets.nnunet.training import Weights
from idal_assets.seeds import derived_seed
from idal_assets.settings import TrainingSettings
from idal_assets.steps.cells import EVALUATION_FILE, find_cells, rows_before
from idal_assets.steps.networks import segment_and_score, show_training, slices_of, train_into
from idal_assets.steps.removal import load_training_set
from idal_assets.store.artifacts import PROVENANCE_FILE
from idal_assets.study.making import Outcome, Task

SEGMENTATIONS = "segmentations"


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
