"""One training and one segmentation of a study's cases: what all steps that run a network share."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from idal_assets.analysis.scores import confusion, score_table
from idal_assets.analysis.surfaces import hd95_of_regions, without_ignored
from idal_assets.anatomy import Anatomy
from idal_assets.nnunet.compute import Compute, taken
from idal_assets.nnunet.geometry import truth_spacing
from idal_assets.nnunet.model_folder import HeldWeights, load_history, load_weights, save_model
from idal_assets.nnunet.opinions import KeptOpinions, opinions_on
from idal_assets.nnunet.plans import Plans
from idal_assets.nnunet.prediction import Predictor
from idal_assets.nnunet.slices import CaseSlices, SlicesOnDisk
from idal_assets.nnunet.training import Weights, train
from idal_assets.plots.curves import training_curves
from idal_assets.plots.style import save_chart
from idal_assets.settings import TrainingSettings
from idal_assets.store.artifacts import COMPUTE_FILE
from idal_assets.study.making import Task

Segmented = tuple[CaseSlices, NDArray[np.uint8]]


def slices_of(task: Task, names: Sequence[str]) -> SlicesOnDisk:
    """The preprocessed slices of some cases, held in memory as far as the profile allows."""
    found = tuple(
        (name, task.path("case_slices", name), task.upstream_version("case_slices", name)) for name in names
    )
    return _held_slices(found, task.compute.slices_memory_gb)


@lru_cache(maxsize=1)
def _held_slices(cases: tuple[tuple[str, Path, str], ...], memory_gb: float) -> SlicesOnDisk:
    """Every row of the matrix asks for the same receivers, which stay in memory as long as their versions do."""
    return SlicesOnDisk({name: folder for name, folder, _ in cases}, memory_gb)


@lru_cache(maxsize=1)
def held_weights(memory_gb: float) -> HeldWeights:
    """Weights of many networks, which stay in memory from one case that they segment to the next."""
    return HeldWeights(memory_gb)


@contextmanager
def _taken_to_train(task: Task) -> Iterator[Compute]:
    """Takes what computes; who trains segments no case with many networks meanwhile, and needs the memory."""
    held_weights.cache_clear()
    with taken(task.compute) as compute:
        yield compute


def variants_of(task: Task, donors: Sequence[str]) -> SlicesOnDisk:
    """The variants of some donors, which networks learn from."""
    places = [place for donor in donors for place in sorted(task.path("augmented_case", donor).iterdir())]
    return SlicesOnDisk({place.name: place for place in places if place.is_dir()}, task.compute.slices_memory_gb)


def train_into(
    task: Task,
    cases: SlicesOnDisk,
    plans: Plans,
    settings: TrainingSettings,
    seed: int,
    initial: Weights | None = None,
    keep_after: Collection[int] = (),
    pool: Sequence[str] | None = None,
) -> None:
    """Trains a network into an artifact's folder: an nnU-Net model folder with its curves.

    Args:
        task: The artifact in the making.
        cases: What the network learns from.
        plans: Network, patch and batch size.
        settings: Length, loss and optimiser.
        seed: Seed of initial weights and batches.
        initial: Weights to start from; None starts from scratch.
        keep_after: Numbers of iterations after which the weights are kept too.
        pool: Names that share their draws with these cases, as `train` says.
    """
    description = f"train {task.key or task.asset}"
    with _taken_to_train(task) as compute:
        trained = train(cases, plans, settings, compute, seed, initial, task.track, description, keep_after, pool)
    save_model(task.folder, trained, plans)
    (task.folder / COMPUTE_FILE).write_text(str(compute))
    save_chart(training_curves(load_history(task.folder)), task.folder / "curves", for_print=False)


def fine_tune(task: Task, settings: TrainingSettings, seed: int, description: str, folder: Path) -> None:
    """Trains the baseline on the variants of one donor into a folder that the artifact does not keep.

    Args:
        task: The artifact in the making, made from `baseline_weights` and the donor's `augmented_case`.
        settings: Length, loss and optimiser.
        seed: Seed of the batches.
        description: What the progress is called.
        folder: An empty folder.
    """
    baseline = task.path("baseline_weights")
    plans, cases = Plans.load(baseline), variants_of(task, [task.key])
    with _taken_to_train(task) as compute:
        trained = train(cases, plans, settings, compute, seed, load_weights(baseline), task.track, description)
    save_model(folder, trained, plans)


def predictor_of(task: Task, model: Path, plans: Plans, compute: Compute, mirror: bool = False) -> Predictor:
    """A trained network, ready to segment as the profile says."""
    return Predictor(load_weights(model), plans, task.setting("inference"), task.compute, compute, mirror)


def segment_and_score(
    task: Task,
    model: Path,
    names: Sequence[str],
    anatomy: Anatomy,
    description: str,
    measured: Collection[str] = (),
    mirror: bool = False,
    kept: KeptOpinions | None = None,
) -> Iterator[tuple[str, pd.DataFrame, Segmented]]:
    """Segments cases with a trained network and scores what it says.

    Args:
        task: The artifact in the making.
        model: The network's folder.
        names: Cases that the artifact is made from.
        anatomy: Regions to score.
        description: What the progress is called.
        measured: Cases on which surface distances are measured.
        mirror: Whether slices are segmented in all their mirror images.
        kept: Keeps what else the network says of the cases; None does not ask for it.

    Yields:
        Name of the case, table of its scores, and slices and segmentation as `Predictor` gives them.
    """
    if not names:
        return
    plans = Plans.load(model)
    with taken(task.compute) as compute:
        (task.folder / COMPUTE_FILE).write_text(str(compute))
        predictor, cases = predictor_of(task, model, plans, compute, mirror), slices_of(task, names)
        segmented = _keeping(kept, predictor, cases, names) if kept else predictor.segment(cases, names)
        for name, (case, predicted) in zip(task.track(names, description), segmented, strict=True):
            yield name, scores_of(case, predicted, plans, anatomy, name in measured), (case, predicted)


def _keeping(
    kept: KeptOpinions, predictor: Predictor, cases: SlicesOnDisk, names: Sequence[str]
) -> Iterator[Segmented]:
    """Segments cases as `Predictor.segment`, and keeps what the network says of them."""
    for case, opinion in opinions_on(predictor, cases, names, kept.turned_step):
        kept.add(case.case_id, opinion)
        yield case, opinion.labels


def scores_of(
    case: CaseSlices, predicted: NDArray[np.uint8], plans: Plans, anatomy: Anatomy, with_distances: bool = False
) -> pd.DataFrame:
    """Scores one segmentation in the original geometry.

    Args:
        case: The preprocessed case.
        predicted: Its segmentation, as `Predictor` gives it.
        plans: The plans that preprocessed it.
        anatomy: Regions to score.
        with_distances: Whether HD95 is measured.

    Returns:
        Table of `score_table`.

    Raises:
        CaseError: The case has no label.
    """
    truth = case.require_truth()
    counts = confusion(truth, predicted, anatomy)
    if not with_distances:
        return score_table(counts, anatomy.regions)
    known = without_ignored(truth, predicted, anatomy.ignore)
    hd95 = hd95_of_regions(*known, truth_spacing(case, plans), anatomy.regions)
    return score_table(counts, anatomy.regions, hd95)


def show_training(task: Task) -> Mapping[str, Any]:
    """Losses and pseudo-Dice of a trained model."""
    history = load_history(task.folder)
    if history.empty:
        return {"iterations": 0, "trained": "elsewhere"}
    pseudo_dice = history.filter(like="pseudo_dice").dropna(how="all")
    epoch = max(1, len(history) // max(1, len(pseudo_dice)))
    return {
        "iterations": len(history),
        "loss_first_epoch": float(history["loss"].head(epoch).mean()),
        "loss_last_epoch": float(history["loss"].tail(epoch).mean()),
        **{name: float(value) for name, value in pseudo_dice.iloc[-1].dropna().items()},
    }
