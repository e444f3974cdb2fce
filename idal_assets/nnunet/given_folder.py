"""Where a network lies that somebody has trained with nnU-Net v2 already; nothing here reads it."""

from functools import lru_cache
from pathlib import Path

from idal_assets.store.files import sha256_of

CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")


class GivenNetworkError(ValueError):
    """A network that cannot be the baseline; the message says why and what to do."""


def given_checkpoint(folder: Path) -> Path:
    """The checkpoint of a folder that nnU-Net trained.

    Args:
        folder: nnU-Net's folder of a training (`nnUNetTrainer__nnUNetPlans__2d`), one of its folds, or a file.

    Returns:
        Its file: of several folds `all`, else the first; the final one before the best one.

    Raises:
        GivenNetworkError: There is none.
    """
    if folder.is_file():
        return folder
    folds = [folder / "fold_all", *sorted(folder.glob("fold_*")), folder]
    found = [fold / name for fold in folds for name in CHECKPOINTS if (fold / name).is_file()]
    if not found:
        raise GivenNetworkError(
            f"{folder}, which baseline.weights names, holds no {CHECKPOINTS[0]}; give the folder that nnU-Net "
            "trained, such as nnUNet_results/Dataset501_Clean/nnUNetTrainer__nnUNetPlans__2d"
        )
    return found[0]


def given_version(folder: Path) -> str:
    """Hash of the network, wherever it lies.

    Args:
        folder: As in `given_checkpoint`.

    Raises:
        GivenNetworkError: There is none.
    """
    checkpoint = given_checkpoint(folder)
    return _hash(checkpoint, checkpoint.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _hash(checkpoint: Path, modified: int) -> str:
    return sha256_of(checkpoint)[:16]
