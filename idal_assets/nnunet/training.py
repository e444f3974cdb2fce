"""The one training loop: baseline and its candidates, case models and reduced models are all trained by `train`.

Network, loss and augmentation are nnU-Net's. What its trainer adds around them (a split, validation, pictures,
checkpoints in between) is left out: training is on all given cases, for a fixed number of iterations.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from idal_assets.nnunet.compute import Compute, kept_memory, use_threads
from idal_assets.nnunet.in_3d import volume_batches
from idal_assets.nnunet.network import accelerate, build_network, compiled, inside_regions, largest, memory_format
from idal_assets.nnunet.patches import Batch, PatchSource, prefetched, seed_global_generators, trainer_stand_in
from idal_assets.nnunet.plans import Plans
from idal_assets.nnunet.slices import SlicesOnDisk
from idal_assets.progress import Track, silently
from idal_assets.settings import TrainingSettings

Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Trained:
    """Result of a training.

    Attributes:
        weights: State of the network, on the CPU.
        history: One row an iteration: `iteration` from 1, `loss`, and `pseudo_dice_NAME` of each label, or of each
            region that is trained on, over the training patches of the epoch that ends there (else NaN).
        earlier: What both were after fewer iterations, by their number.
    """

    weights: Weights
    history: pd.DataFrame
    earlier: Mapping[int, "Trained"] = field(default_factory=dict)


def train(
    cases: SlicesOnDisk,
    plans: Plans,
    settings: TrainingSettings,
    compute: Compute,
    seed: int,
    initial: Weights | None = None,
    track: Track = silently,
    description: str = "training",
    keep_after: Collection[int] = (),
    pool: Sequence[str] | None = None,
) -> Trained:
    """Trains a network on all given cases.

    Args:
        cases: Preprocessed cases; each is drawn equally often.
        plans: Network, patch and batch size.
        settings: Length, loss and optimiser.
        compute: Device and precision.
        seed: Seed of initial weights and batches.
        initial: Weights to start from, all of them, segmentation heads too; None starts from scratch.
        track: Shows the iterations.
        description: What the progress is called.
        keep_after: Numbers of iterations after which the weights are kept too.
        pool: Names of which the cases are those that may be drawn, in 2D: trainings with the same seed and pool
            have common draws (`PatchSource`).

    Returns:
        Weights and history; on a CPU in fp32 the same bits for the same seed and number of threads.

    Raises:
        FloatingPointError: The loss is no longer finite.
    """
    use_threads(compute.training_threads)
    seed_global_generators(seed, "initial weights")
    network = build_network(plans, deep_supervision=True)
    if initial is not None:
        network.load_state_dict(initial)
    network = accelerate(network, plans, compute).train()
    forward = compiled(network, compute, settings.iterations)
    order = memory_format(plans, compute)
    loss_function = _loss(plans, settings)
    parameters = list(network.parameters())
    optimizer = _optimizer(parameters, settings)
    history = _History(settings.iterations_per_epoch, plans, compute.device)
    kept: dict[int, Weights] = {}
    batches = _batches(cases, plans, settings, compute, seed, pool)
    with kept_memory():
        for iteration in track(range(settings.iterations), description):
            for group in optimizer.param_groups:
                group["lr"] = _poly_rate(settings, iteration)
            batch = next(batches)
            with compute.autocast():
                outputs = forward(batch.image.contiguous(memory_format=order))
            loss = loss_function([output.float() for output in outputs], batch.targets)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, settings.gradient_clip)
            optimizer.step()
            history.add(loss.detach(), outputs[0].detach(), batch.targets[0])
            if iteration + 1 in keep_after:
                kept[iteration + 1] = _on_cpu(network.state_dict())
    whole = history.table()
    earlier = {count: Trained(weights, whole.head(count)) for count, weights in kept.items()}
    return Trained(_on_cpu(network.state_dict()), whole, earlier)


def _batches(
    cases: SlicesOnDisk,
    plans: Plans,
    settings: TrainingSettings,
    compute: Compute,
    seed: int,
    pool: Sequence[str] | None,
) -> Iterator[Batch]:
    if plans.is_3d:
        return volume_batches(cases, plans, settings, compute, seed)
    source = PatchSource(cases, plans, settings.foreground_share, seed, compute.device, pool)
    return prefetched(source, settings.iterations, compute.batches_ahead)


def _on_cpu(state: Weights) -> Weights:
    return {
        name: value.detach().to("cpu", memory_format=torch.contiguous_format).clone()
        for name, value in state.items()
    }


def _loss(plans: Plans, settings: TrainingSettings) -> nn.Module:
    loss = nnUNetTrainer._build_loss(trainer_stand_in(plans))
    if settings.loss == "ce":
        # what is left is nnU-Net's cross-entropy, of regions its binary one, without the voxels to ignore
        loss.loss.weight_dice = 0
    return loss


def _optimizer(parameters: list[nn.Parameter], settings: TrainingSettings) -> torch.optim.Optimizer:
    if settings.optimizer == "adam":
        return torch.optim.Adam(parameters, settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
    return torch.optim.SGD(
        parameters,
        settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=True,
        fused=True,
    )


def _poly_rate(settings: TrainingSettings, iteration: int) -> float:
    left = 1 - iteration / settings.iterations
    return settings.learning_rate * left**settings.poly_exponent


class _History:
    """Loss of every iteration and pseudo-Dice of every epoch; copies from the device once an epoch."""

    def __init__(self, iterations_per_epoch: int, plans: Plans, device: torch.device) -> None:
        self._iterations_per_epoch = iterations_per_epoch
        self._names = list(plans.learned)
        self._by_label = not plans.labels.has_regions
        # on the device from the start, as the CPU would wait for the card at every copy
        values = plans.learned.values() if self._by_label else ()
        self._values = torch.tensor(list(values), dtype=torch.uint8, device=device)
        self._ignored = plans.labels.ignore_label
        self._losses: list[torch.Tensor] = []
        self._counts: list[torch.Tensor] = []
        self._rows: list[dict[str, float]] = []

    def add(self, loss: torch.Tensor, output: torch.Tensor, target: torch.Tensor) -> None:
        hit, meant = self._labels(output, target) if self._by_label else self._regions(output, target)
        voxels = tuple(range(1, hit.ndim))
        overlap = (hit & meant).sum(voxels)
        sizes = hit.sum(voxels) + meant.sum(voxels)
        self._losses.append(loss)
        self._counts.append(torch.stack([overlap, sizes]))
        if len(self._losses) == self._iterations_per_epoch:
            self._end_epoch()

    def _labels(self, output: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Where each label is segmented and where it is true, labels first; never at voxels to ignore."""
        predicted, truth = largest(output), target[:, 0].to(torch.uint8)
        values = self._values.reshape(-1, *[1] * truth.ndim)
        hit, meant = predicted[None] == values, truth[None] == values
        return (hit if self._ignored is None else hit & (truth != self._ignored)), meant

    def _regions(self, output: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The same for regions, whose target may have a last channel for the voxels to ignore."""
        hit = inside_regions(output)
        if self._ignored is not None:
            hit &= ~target[:, -1:]
        return hit.transpose(0, 1), target[:, : hit.shape[1]].transpose(0, 1)

    def _end_epoch(self) -> None:
        losses = torch.stack(self._losses).cpu().numpy()
        if not np.isfinite(losses).all():
            iteration = len(self._rows) + int(np.flatnonzero(~np.isfinite(losses))[0]) + 1
            raise FloatingPointError(
                f"The loss is not finite at iteration {iteration}; lower the learning rate or use precision fp32"
            )
        overlap, sizes = torch.stack(self._counts).sum(0).cpu().numpy()
        for loss in losses:
            self._rows.append({"iteration": len(self._rows) + 1, "loss": float(loss)})
        for name, shared, size in zip(self._names, overlap, sizes, strict=True):
            self._rows[-1][f"pseudo_dice_{name}"] = float(2 * shared / size) if size else np.nan
        self._losses, self._counts = [], []

    def table(self) -> pd.DataFrame:
        return pd.DataFrame(self._rows)
