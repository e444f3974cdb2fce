"""One training and one segmentation of a study's cases: what all steps that run a network share."""

from collections.abc import Collection, Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from idal_assets.analysis.scores import confusion, score_table
from idal_assets.analysis.surfaces import hd95_of_regions
from idal_assets.imaging.brain_tumour import BRAIN_TUMOUR
from idal_assets.nnunet.compute import Compute, taken
from idal_assets.nnunet.geometry import truth_spacing
from idal_assets.nnunet.model_folder import load_history, load_weights, save_model
from idal_assets.nnunet.plans import Plans
from idal_assets.nnunet.prediction import Predictor
from idal_assets.nnunet.slices import SlicesOnDisk
from idal_assets.nnunet.training import Weights, train
from idal_assets.plots.curves import training_curves
from idal_assets.plots.style import png_bytes
from idal_assets.progress import Track
from idal_assets.settings import TrainingSettings
from idal_assets.store.artifacts import COMPUTE_FILE
from idal_assets.study.study import Study


def slices_of(study: Study, names: Iterable[str]) -> SlicesOnDisk:
    """The preprocessed slices of some cases, held in memory as far as the profile allows."""
    found = tuple((name, study.path("case_slices", name), study.version("case_slices", name)) for name in names)
    return _held_slices(found, study.profile.compute.slices_memory_gb)


@lru_cache(maxsize=1)
def _held_slices(cases: tuple[tuple[str, Path, str], ...], memory_gb: float) -> SlicesOnDisk:
    """Every row of the matrix asks for the same receivers, which stay in memory as long as their versions do."""
    return SlicesOnDisk({name: folder for name, folder, _ in cases}, memory_gb)


def train_into(
    study: Study,
    folder: Path,
    cases: SlicesOnDisk,
    settings: TrainingSettings,
    seed: int,
    track: Track,
    name: str,
    initial: Weights | None = None,
    plans: Plans | None = None,
    keep_after: Collection[int] = (),
) -> None:
    """Trains a network into an artifact's folder: an nnU-Net model folder with its curves.

    Args:
        study: The study.
        folder: Folder of the artifact in the making.
        cases: What the network learns from.
        settings: Length, loss and optimiser.
        seed: Seed of initial weights and batches.
        track: Shows the iterations.
        name: What the progress calls it.
        initial: Weights to start from; None starts from scratch.
        plans: Those of another configuration than 2D.
        keep_after: Numbers of iterations after which the weights are kept too.
    """
    plans = plans or Plans.load(study.path("nnunet_plans"))
    with taken(study.profile.compute) as compute:
        trained = train(cases, plans, settings, compute, seed, initial, track, f"train {name}", keep_after)
    save_model(folder, trained, plans)
    (folder / COMPUTE_FILE).write_text(str(compute))
    (folder / "curves.png").write_bytes(png_bytes(training_curves(load_history(folder))))


def segment(
    study: Study, model: Path, names: list[str], folder: Path, track: Track, description: str
) -> Iterable[tuple[str, pd.DataFrame, NDArray[np.uint8]]]:
    """Names of the cases, with the table of their scores and their segmentation as `Predictor` gives it."""
    if not names:
        return
    plans = Plans.load(study.path("nnunet_plans"))
    measured = set(measured_cases(study))
    with taken(study.profile.compute) as compute:
        (folder / COMPUTE_FILE).write_text(str(compute))
        predictor = predictor_of(study, model, compute)
        segmented = predictor.segment(slices_of(study, names), names)
        for name, (case, predicted) in zip(track(names, description), segmented, strict=True):
            assert case.truth is not None
            spacing = truth_spacing(case, plans)
            regions = BRAIN_TUMOUR.regions
            hd95 = hd95_of_regions(case.truth, predicted, spacing, regions) if name in measured else None
            yield name, score_table(confusion(case.truth, predicted, BRAIN_TUMOUR), regions, hd95), predicted


def measured_cases(study: Study) -> Collection[str]:
    """Cases on which surface distances are measured."""
    return study.cohort.tests if study.profile.inference.surface_distances else ()


def predictor_of(study: Study, model: Path, compute: Compute) -> Predictor:
    """A trained network, ready to segment as the profile says."""
    profile = study.profile
    plans = Plans.load(study.path("nnunet_plans"))
    return Predictor(load_weights(model), plans, profile.inference, profile.compute, compute)
