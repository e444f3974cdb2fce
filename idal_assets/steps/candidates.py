"""Training the candidates for the baseline, in 2D and 3D, and judging them on held-out cases."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from idal_assets.analysis.scores import confusion, score_table
from idal_assets.imaging.brain_tumour import BRAIN_TUMOUR
from idal_assets.nnunet.compute import Compute, taken
from idal_assets.nnunet.in_3d import volume_predictor, workers
from idal_assets.nnunet.model_folder import load_weights
from idal_assets.nnunet.plans import CASCADE, CONFIGURATION, Plans
from idal_assets.nnunet.slices import SlicesOnDisk, preprocess
from idal_assets.profile import ProfileError
from idal_assets.progress import Track
from idal_assets.seeds import derived_seed
from idal_assets.settings import CANDIDATES
from idal_assets.steps.comparison import HELD_OUT_FILE
from idal_assets.steps.networks import segment, slices_of, train_into
from idal_assets.study.study import Study


def train_candidate(study: Study, name: str, folder: Path, track: Track) -> None:
    """Trains a candidate for the baseline without the held-out cases, and segments these whole.

    Writes `held_out.parquet` with one row a held-out case and region: `case_id`, `region`, `dice`, `tp`, `fp`,
    `fn`.

    Raises:
        ProfileError: The candidate is of a kind that nnU-Net did not plan for these cases, or a cascade.
    """
    configuration = _planned_configuration(study, name)
    settings = study.profile.candidates
    held_out = study.cohort.held_out(settings.held_out_share, study.profile.seed)
    learned_from = [case for case in study.cohort.baseline_cases if case not in held_out]
    training = settings.training(name)
    seed = derived_seed(study.profile.seed, "baseline_candidate")
    if configuration == CONFIGURATION:
        cases = slices_of(study, learned_from)
        train_into(study, folder, cases, training, seed, track, name)
        segmented = segment(study, folder, held_out, folder, track, f"segment with {name}")
    else:
        plans = Plans.load(study.path("nnunet_plans")).of(configuration)
        with tempfile.TemporaryDirectory(dir=folder) as volumes:
            cases = _preprocessed_volumes(study, learned_from, plans, Path(volumes), track)
            train_into(study, folder, cases, training, seed, track, name, plans=plans)
        segmented = _segment_volumes(study, folder, plans, held_out, track, f"segment with {name}")
    scores = [table.assign(case_id=case) for case, table, _ in segmented]
    pd.concat(scores, ignore_index=True).to_parquet(folder / HELD_OUT_FILE, index=False)


def _planned_configuration(study: Study, name: str) -> str:
    plans = Plans.load(study.path("nnunet_plans"))
    configuration = CANDIDATES[name].configuration
    if configuration == CASCADE:
        raise ProfileError(f"candidates.names asks for {name}: {plans.cascade}; take it out of the profile")
    if configuration not in plans.configurations:
        raise ProfileError(
            f"candidates.names asks for {name}, and nnU-Net planned only {', '.join(plans.configurations)} for "
            "these cases; take it out of the profile"
        )
    return configuration


def _preprocessed_volumes(
    study: Study, names: list[str], plans: Plans, folder: Path, track: Track
) -> SlicesOnDisk:
    """Preprocesses cases in 3D, which may resample between the slices; the files last as long as the training."""
    folders = {name: folder / name for name in names}
    for name in track(names, "preprocess in 3D"):
        folders[name].mkdir()
        preprocess(study.read_case(name), plans).save(folders[name])
    settings = study.profile.compute
    return SlicesOnDisk(folders, settings.slices_memory_gb / max(1, workers(Compute.choose(settings))))


def _segment_volumes(
    study: Study, model: Path, plans: Plans, names: list[str], track: Track, description: str
) -> Iterable[tuple[str, pd.DataFrame, NDArray[np.uint8]]]:
    with taken(study.profile.compute) as compute:
        segment = volume_predictor(load_weights(model), plans, study.profile.inference, compute)
        for name in track(names, description):
            case = preprocess(study.read_case(name), plans)
            assert case.truth is not None
            predicted = segment(case)
            counts = confusion(case.truth, predicted, BRAIN_TUMOUR)
            yield name, score_table(counts, BRAIN_TUMOUR.regions), predicted
