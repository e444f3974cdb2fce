"""The part `quality`: what networks that have not learned from a donor say of its label."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from idal_assets.analysis.intensities import intensity_features, intensity_scores
from idal_assets.analysis.quality import label_quality
from idal_assets.analysis.scores import MEAN
from idal_assets.nnunet.case_loss import CaseLoss, losses_and_alignment
from idal_assets.nnunet.compute import taken
from idal_assets.nnunet.model_folder import load_weights
from idal_assets.nnunet.plans import Plans
from idal_assets.plots.quality import label_quality_figure
from idal_assets.plots.style import save_chart
from idal_assets.seeds import derived_seed
from idal_assets.steps.cells import read_scores
from idal_assets.steps.networks import (
    predictor_of,
    scores_of,
    segment_and_score,
    show_training,
    slices_of,
    train_into,
)
from idal_assets.study.making import Task
from idal_assets.study.roles import draw_folds
from idal_assets.study.study import NotMadeError

LABELS_FILE = "label_quality.parquet"
SCORES_FILE = "out_of_fold.parquet"
SIGNALS_FILE = "signals.parquet"
BASELINE_FILE = "baseline_scores.parquet"
SCORE_COLUMNS = ("case_id", "fold", "region", "dice", "tp", "fp", "fn", "model_version", "receiver_version")


def train_fold_model(task: Task) -> None:
    """Trains from scratch on the donors that are not in a fold, with the same seed for every fold."""
    cases = slices_of(task, task.keys("case_slices"))
    plans = Plans.load(task.path("nnunet_plans"))
    seed = derived_seed(task.setting("seed"), "fold_model")
    train_into(task, cases, plans, task.setting("out_of_fold.training"), seed)


def show_fold_model(task: Task) -> Mapping[str, Any]:
    """What the network learned from, and its training."""
    return {
        "model_version": task.version,
        "donors_learned_from": ", ".join(task.inputs.made_from["case_slices"]),
        **show_training(task),
    }


def score_labels(task: Task) -> None:
    """Segments every donor with the network of its fold and compares that with its label.

    Writes `label_quality.parquet` with one row a donor (`case_id`, `fold`, `label_quality`), `out_of_fold.parquet`
    with one row a donor and region (`case_id`, `fold`, `region`, `dice`, `tp`, `fp`, `fn`, `model_version`,
    `receiver_version`; the scalar is not in it, as in the rows of the matrix), and a picture. Without folds the
    quality of every label is undefined, and there are neither scores nor a picture.

    Raises:
        NotMadeError: A network has learned from a donor of its own fold.
    """
    labels = pd.DataFrame({"case_id": task.cohort.donors, "fold": None, "label_quality": np.nan})
    scores = pd.DataFrame(columns=list(SCORE_COLUMNS))
    names = task.keys("fold_model")
    if names:
        cohort, count, seed = task.cohort, task.setting("out_of_fold.folds"), task.setting("seed")
        drawn = draw_folds(cohort.donors, count, seed, cohort.sessions_learned_from)
        labels, scores = _judged(task, dict(zip(names, drawn, strict=True)))
        figure = label_quality_figure(labels, scores, task.cohort.anatomy.composites)
        save_chart(figure, task.folder / "label_quality")
    labels.to_parquet(task.folder / LABELS_FILE, index=False)
    scores.to_parquet(task.folder / SCORES_FILE, index=False)


def _judged(task: Task, folds: Mapping[str, Sequence[str]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    for fold, donors in folds.items():
        _ensure_unseen(task, fold, donors)
    # The versions are read before the files, so that a case that changes meanwhile is not taken for the new one.
    versions = {donor: task.upstream_version("case_slices", donor) for donor in task.keys("case_slices")}
    cases = slices_of(task, list(versions))
    anatomy = task.cohort.anatomy
    labels, scores = [], []
    with taken(task.compute) as compute:
        for fold, donors in folds.items():
            version, model = task.upstream_version("fold_model", fold), task.path("fold_model", fold)
            plans = Plans.load(model)
            judged = predictor_of(task, model, plans, compute).segment_with_probabilities(cases, donors)
            for donor, (case, predicted, found) in zip(task.track(donors, f"judge {fold}"), judged, strict=True):
                place = {"case_id": donor, "fold": fold}
                labels.append({**place, "label_quality": label_quality(case.require_label(), found, anatomy)})
                counted = scores_of(case, predicted, plans, anatomy)
                scores.append(counted.assign(**place, model_version=version, receiver_version=versions[donor]))
    return pd.DataFrame(labels).sort_values("case_id", ignore_index=True), pd.concat(scores, ignore_index=True)


def _ensure_unseen(task: Task, fold: str, donors: Sequence[str]) -> None:
    """A network from before the folds changed may know a donor of its fold, which would flatter that label."""
    learned_from = task.upstream("fold_model", fold).inputs.made_from["case_slices"]
    seen = [donor for donor in donors if donor in learned_from]
    if seen:
        raise NotMadeError(
            f"fold_model of {fold} has learned from {', '.join(seen)}, now in that fold; materialize it again"
        )


def load_label_quality(folder: Path, scalar_regions: Sequence[str]) -> pd.DataFrame:
    """Reads what `score_labels` wrote.

    Args:
        folder: Folder of the artifact.
        scalar_regions: Which regions the Dice averages.

    Returns:
        One row a donor: `case_id`, `fold`, `out_of_fold_dice`, `label_quality`; without folds the last three are
        undefined.
    """
    labels = pd.read_parquet(folder / LABELS_FILE)
    scores = read_scores(folder / SCORES_FILE, scalar_regions, held_only=False)
    dice = scores[scores["region"] == MEAN].set_index("case_id")["dice"]
    labels["out_of_fold_dice"] = labels["case_id"].map(dice).astype(float)
    return labels[["case_id", "fold", "out_of_fold_dice", "label_quality"]]


def load_out_of_fold(folder: Path) -> pd.DataFrame:
    """Reads how the networks of the folds segmented the donors, one row a donor and region."""
    return pd.read_parquet(folder / SCORES_FILE)


def show_quality(task: Task) -> Mapping[str, Any]:
    """Both scores of each label, the doubtful ones first."""
    labels = load_label_quality(task.folder, task.cohort.anatomy.scored(task.setting("similarity.scalar")))
    labels = labels.sort_values(["label_quality", "case_id"])
    return {"folds": labels["fold"].nunique(), "scores": labels}


# --- rivals without any training of their own ---


def judge_by_baseline(task: Task) -> None:
    """Asks the baseline, and the images alone, about every donor.

    Writes `baseline_scores.parquet` with one row a donor and region (`case_id`, `region`, `dice`, `tp`, `fp`,
    `fn`), and `signals.parquet` with one row a donor: `case_id`; `baseline_loss`; `gradient_alignment`, the cosine
    of the gradient and the mean gradient of the other donors at the baseline's weights; `intensity_score`, low
    where the intensities under the label are unusual.
    """
    donors, anatomy, model = task.keys("case_slices"), task.cohort.anatomy, task.path("baseline_weights")
    segmented = segment_and_score(task, model, donors, anatomy, "segment with the baseline")
    scores = pd.concat([scores.assign(case_id=name) for name, scores, _ in segmented], ignore_index=True)
    scores[["case_id", "region", "dice", "tp", "fp", "fn"]].to_parquet(task.folder / BASELINE_FILE, index=False)
    cases = slices_of(task, donors)
    with taken(task.compute) as compute:
        loss = CaseLoss(load_weights(model), Plans.load(model), compute)
        taught = list(losses_and_alignment(loss, cases, donors, task.track))
    signals = pd.DataFrame(taught, columns=["baseline_loss", "gradient_alignment"])
    signals.insert(0, "case_id", donors)
    slices = (cases[name] for name in donors)
    features = [intensity_features(case.image, case.require_label(), anatomy.labels) for case in slices]
    signals["intensity_score"] = intensity_scores(features)
    signals.to_parquet(task.folder / SIGNALS_FILE, index=False)


def load_signals(folder: Path) -> pd.DataFrame:
    """Reads what the baseline and the images say, one row a donor."""
    return pd.read_parquet(folder / SIGNALS_FILE)


def load_baseline_scores(folder: Path) -> pd.DataFrame:
    """Reads how the baseline segmented the donors, one row a donor and region."""
    return pd.read_parquet(folder / BASELINE_FILE)


def show_signals(task: Task) -> Mapping[str, Any]:
    """What is said of each donor, those with the largest loss first."""
    return {
        "signals": load_signals(task.folder).sort_values(["baseline_loss", "case_id"], ascending=[False, True])
    }
