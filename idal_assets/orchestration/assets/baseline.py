"""Assets of the group `baseline`: the network that every case model starts from, and how it was chosen."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from idal_assets.orchestration.assembly import study_asset, table
from idal_assets.orchestration.pools import ACCELERATOR
from idal_assets.progress import Track
from idal_assets.settings import CANDIDATES
from idal_assets.study.study import Study


def describe_training(study: Study, key: str | None, folder: Path) -> Mapping[str, Any]:
    """Losses and pseudo-Dice of a trained model."""
    from idal_assets.nnunet.model_folder import load_history

    history = load_history(folder)
    pseudo_dice = history.filter(like="pseudo_dice").dropna(how="all")
    epoch = max(1, len(history) // max(1, len(pseudo_dice)))
    return {
        "iterations": len(history),
        "loss_first_epoch": float(history["loss"].head(epoch).mean()),
        "loss_last_epoch": float(history["loss"].tail(epoch).mean()),
        **{name: float(value) for name, value in pseudo_dice.iloc[-1].dropna().items()},
    }


def _describe_candidate(study: Study, name: str, folder: Path) -> Mapping[str, Any]:
    from idal_assets.steps.comparison import load_held_out

    by_case = load_held_out(study, name).pivot(index="case_id", columns="region", values="dice")
    return {
        "configuration": CANDIDATES[name].configuration,
        "loss": CANDIDATES[name].loss,
        **describe_training(study, name, folder),
        "held_out_dice": table(by_case.reset_index()),
    }


@study_asset(kinds={"pytorch"}, describe=_describe_candidate, pool=ACCELERATOR)
def baseline_candidate(study: Study, name: str, folder: Path, track: Track) -> None:
    """A network that could be the baseline, 2D or 3D, trained without some of the baseline's cases.

    The cases that it has not seen are segmented whole: their Dice is the true one, the pseudo Dice of its curves
    is over random patches of its training cases. Test cases never take part.
    """
    from idal_assets.steps.candidates import train_candidate

    train_candidate(study, name, folder, track)


def _describe_comparison(study: Study, key: None, folder: Path) -> Mapping[str, Any]:
    from idal_assets.steps.comparison import load_comparison

    found = load_comparison(folder)
    if found is None:
        return {"candidates": "none: candidates.names of the profile is empty"}
    return {
        "candidates": table(found.table),
        "best_2d": found.best_2d or "no candidate is 2D",
        "held_out": ", ".join(found.held_out),
        "cascade": found.cascade,
    }


@study_asset(kinds={"matplotlib"}, describe=_describe_comparison)
def baseline_comparison(study: Study, key: None, folder: Path, track: Track) -> None:
    """The candidates side by side: table 3.2 and figures 3.1 and 3.2 of the thesis, and which 2D one is the best.

    The best becomes the baseline where the profile says so; else this is for people to look at.
    """
    from idal_assets.steps.comparison import compare_candidates

    compare_candidates(study, folder)


@study_asset(kinds={"pytorch"}, describe=describe_training, pool=ACCELERATOR)
def baseline_weights(study: Study, key: None, folder: Path, track: Track) -> None:
    """The 2D nnU-Net that all case models start from, trained on the donors or on the pretraining cases."""
    from idal_assets.steps.models import train_baseline

    train_baseline(study, folder, track)
