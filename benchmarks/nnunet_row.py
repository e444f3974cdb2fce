"""One process of nnU-Net: the fine-tuning of one donor's model, or the segmentation of all receivers with it.

Called by `against_nnunet.py`, with nnU-Net's folders in the environment, and prints its measurements as JSON. What
nnU-Net computes is left to its own `nnUNetTrainer.run_training` and `nnUNetPredictor`; by default they do what its
commands do, and with `lean` only what a case model needs, as far as they can switch the rest off themselves.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

CPU = torch.device("cpu")
VALIDATION_SHARE = 50 / 250
"""Validation batches for each training batch in nnU-Net's epochs."""


def train(arguments: argparse.Namespace) -> dict[str, Any]:
    """Fine-tunes as `nnUNetv2_train` does."""
    (dataset,) = Path(str(nnUNet_preprocessed)).iterdir()
    plans = json.loads((dataset / "plans.json").read_text())
    description = json.loads((dataset / "dataset.json").read_text())
    trainer = nnUNetTrainer({**plans, "continue_training": False}, "2d", "all", description, CPU)
    trainer.num_epochs = 1
    trainer.num_iterations_per_epoch = arguments.iterations
    trainer.initial_lr = arguments.learning_rate
    trainer.disable_checkpointing = False
    trainer.num_val_iterations_per_epoch = (
        1 if arguments.lean else max(1, round(VALIDATION_SHARE * arguments.iterations))
    )
    trainer.initialize()
    checkpoint = torch.load(arguments.initial, map_location="cpu", weights_only=True)
    trainer.network.load_state_dict(checkpoint["network_weights"])
    steps = _timed_steps(trainer)
    started = time.perf_counter()
    trainer.run_training()
    trained = time.perf_counter()
    if not arguments.lean:
        trainer.perform_actual_validation()
    return {
        "train_seconds": trained - started,
        "validation_seconds": time.perf_counter() - trained,
        "iteration_seconds": (steps[-1] - steps[0]) / (len(steps) - 1),
        "model": trainer.output_folder_base,
    }


def _timed_steps(trainer: nnUNetTrainer) -> list[float]:
    """Notes when each training step begins, so that the time of an iteration includes its batch."""
    begun: list[float] = []
    step = trainer.train_step

    def timed(batch: dict) -> dict:
        begun.append(time.perf_counter())
        return step(batch)

    trainer.train_step = timed
    return begun


def predict(arguments: argparse.Namespace) -> dict[str, Any]:
    """Segments as `nnUNetv2_predict` does; lean without mirroring and without worker processes."""
    predictor = nnUNetPredictor(use_mirroring=not arguments.lean, device=CPU, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(arguments.model, use_folds=("all",))
    receivers = json.loads(arguments.receivers.read_text())
    targets = [str(arguments.output / name) for name in receivers]
    arguments.output.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    if arguments.lean:
        predictor.predict_from_files_sequential(list(receivers.values()), targets)
    else:
        predictor.predict_from_files(
            list(receivers.values()), targets, num_processes_preprocessing=3, num_processes_segmentation_export=3
        )
    return {"segment_seconds": time.perf_counter() - started}


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lean", action="store_true")
    parser.add_argument("--threads", type=int, required=True)
    actions = parser.add_subparsers(dest="action", required=True)
    training = actions.add_parser("train")
    training.add_argument("--iterations", type=int, required=True)
    training.add_argument("--learning-rate", type=float, required=True)
    training.add_argument("--initial", type=Path, required=True)
    segmenting = actions.add_parser("predict")
    segmenting.add_argument("--model", required=True)
    segmenting.add_argument("--receivers", type=Path, required=True)
    segmenting.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    # Its workers hand over tensors by file descriptors, which now and then waits for ever; files do not.
    torch.multiprocessing.set_sharing_strategy("file_system")
    torch.set_num_threads(arguments.threads)
    found = {"train": train, "predict": predict}[arguments.action](arguments)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
