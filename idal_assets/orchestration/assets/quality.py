"""Assets of the group `quality`: what networks that have not seen a donor say of its label."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from idal_assets.orchestration.assembly import study_asset, table
from idal_assets.orchestration.assets.baseline import describe_training
from idal_assets.orchestration.pools import ACCELERATOR
from idal_assets.progress import Track
from idal_assets.study.study import Study


def _describe_model(study: Study, fold: str, folder: Path) -> Mapping[str, Any]:
    learned_from = study.provenance("fold_model", fold).inputs.made_from["case_slices"]
    return {
        "model_version": study.version("fold_model", fold),
        "donors_left_out": ", ".join(study.folds[fold]),
        "donors_learned_from": ", ".join(learned_from),
        **describe_training(study, fold, folder),
    }


@study_asset(kinds={"pytorch"}, describe=_describe_model, pool=ACCELERATOR)
def fold_model(study: Study, fold: str, folder: Path, track: Track) -> None:
    """A network trained from scratch on the donors that are not in this fold, to segment those that are."""
    from idal_assets.steps.folds import train_fold_model

    train_fold_model(study, fold, folder, track)


def _describe_quality(study: Study, key: None, folder: Path) -> Mapping[str, Any]:
    from idal_assets.steps.quality import load_label_quality

    labels = load_label_quality(folder, study.profile.similarity.scalar)
    labels = labels.sort_values(["label_quality", "case_id"])
    return {"folds": labels["fold"].nunique(), "scores": table(labels)}


@study_asset(kinds={"pytorch", "parquet"}, describe=_describe_quality, pool=ACCELERATOR)
def label_quality(study: Study, key: None, folder: Path, track: Track) -> None:
    """How well the label of each donor agrees with the network of its fold: Dice out of fold, cleanlab's softmin.

    The cheap rival of the matrix's score: it takes one training a fold, not one a donor. Without folds it says
    nothing.
    """
    from idal_assets.steps.folds import score_labels

    score_labels(study, folder, track)
