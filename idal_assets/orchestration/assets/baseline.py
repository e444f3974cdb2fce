"""Assets of the group `baseline`: the network that every case model starts from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from idal_assets.orchestration.assembly import study_asset
from idal_assets.orchestration.pools import ACCELERATOR
from idal_assets.progress import Track
from idal_assets.study import Study


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


@study_asset(kinds={"pytorch"}, describe=describe_training, pool=ACCELERATOR)
def baseline_weights(study: Study, key: None, folder: Path, track: Track) -> None:
    """The 2D nnU-Net that all case models start from, trained on the donors or on the pretraining cases."""
    from idal_assets.steps.models import train_baseline

    train_baseline(study, folder, track)
