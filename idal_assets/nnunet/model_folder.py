"""Trained models as folders that nnU-Net's own predictor reads."""

from pathlib import Path

import pandas as pd
import torch

from idal_assets.nnunet.plans import Plans
from idal_assets.nnunet.training import Trained, Weights

CHECKPOINT = Path("fold_all") / "checkpoint_final.pth"
HISTORY = "history.csv"
EARLIER = "after_{iterations}_iterations"
"""Model folder within one, of the same training when it had come so far."""


def save_model(folder: Path, trained: Trained, plans: Plans) -> None:
    """Writes `plans.json`, `dataset.json`, `fold_all/checkpoint_final.pth` and `history.csv`.

    What the training was after fewer iterations becomes a model folder within.
    """
    folder.mkdir(exist_ok=True)
    plans.save(folder)
    (folder / CHECKPOINT).parent.mkdir(parents=True, exist_ok=True)
    checkpoint = {
        "network_weights": dict(trained.weights),
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": plans.name, "fold": "all"},
        # Training mirrors all axes of a patch, so nnU-Net's predictor may mirror them too.
        "inference_allowed_mirroring_axes": tuple(range(len(plans.patch_size))),
        "current_epoch": len(trained.history),
    }
    torch.save(checkpoint, folder / CHECKPOINT)
    trained.history.to_csv(folder / HISTORY, index=False)
    for iterations, earlier in trained.earlier.items():
        save_model(earlier_model(folder, iterations), earlier, plans)


def earlier_model(folder: Path, iterations: int) -> Path:
    """Model folder of the same training after fewer iterations."""
    return folder / EARLIER.format(iterations=iterations)


def load_weights(folder: Path) -> Weights:
    """Reads the weights of a model folder; nothing but tensors and plain values is unpickled."""
    checkpoint = torch.load(folder / CHECKPOINT, map_location="cpu", weights_only=True)
    return checkpoint["network_weights"]


class HeldWeights:
    """Weights of model folders, of which as many stay in memory as a bound allows.

    Args:
        memory_gb: Bound on the bytes held in memory, in GB; weights past it are read again each time.
    """

    def __init__(self, memory_gb: float) -> None:
        self._held: dict[tuple[Path, int], Weights] = {}
        self._free = int(memory_gb * 1e9)

    def __getitem__(self, folder: Path) -> Weights:
        place = (folder, (folder / CHECKPOINT).stat().st_mtime_ns)
        if place in self._held:
            return self._held[place]
        weights = load_weights(folder)
        size = sum(value.nbytes for value in weights.values())
        if size <= self._free:
            self._free -= size
            self._held[place] = weights
        return weights


def load_history(folder: Path) -> pd.DataFrame:
    """Reads the training history of a model folder."""
    return pd.read_csv(folder / HISTORY)
