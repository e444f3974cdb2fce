"""What a trained network would learn from a case: the loss on its slices, and where its gradient points."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from idal_assets.nnunet.augmentation import Regions
from idal_assets.nnunet.compute import Compute, use_threads
from idal_assets.nnunet.network import accelerate, build_network
from idal_assets.nnunet.patches import trainer_stand_in
from idal_assets.nnunet.plans import Plans
from idal_assets.nnunet.slices import OUTSIDE, CaseSlices, SlicesOnDisk
from idal_assets.nnunet.training import Weights
from idal_assets.progress import Track, silently


class CaseLoss:
    """nnU-Net's loss (Dice plus cross-entropy) of a 2D network at its weights, on one case at a time.

    A case stands as it is, without augmentation: the slices that hold some label, or all where none does, each cut
    or padded to the patch around the middle of its label. Computed in full precision.

    Args:
        weights: The network's state.
        plans: The plans it was trained with.
        compute: Where to compute.
    """

    def __init__(self, weights: Weights, plans: Plans, compute: Compute) -> None:
        use_threads(compute.threads)
        network = build_network(plans, deep_supervision=False)
        network.load_state_dict(weights)
        self._network = accelerate(network, plans, compute).eval()
        # within nnU-Net's sum over the resolutions of deep supervision, of which only the finest is asked for
        self._loss = nnUNetTrainer._build_loss(trainer_stand_in(plans)).loss
        self._plans = plans
        self._device = compute.device

    def __call__(self, case: CaseSlices) -> tuple[float, torch.Tensor]:
        """Loss of a case and its gradient in all weights, flat and on the CPU."""
        image, target = self._patches(case)
        size = self._plans.configuration.batch_size
        parameters = list(self._network.parameters())
        gradient = [torch.zeros_like(parameter) for parameter in parameters]
        total = 0.0
        for first in range(0, len(image), size):
            part = slice(first, first + size)
            share = len(image[part]) / len(image)
            loss = share * self._loss(self._network(image[part].to(self._device)), target[part].to(self._device))
            # the heads of deep supervision have no part in the finest resolution
            found = torch.autograd.grad(loss, parameters, allow_unused=True)
            for summed, one in zip(gradient, found, strict=True):
                if one is not None:
                    summed += one
            total += float(loss.detach())
        return total, torch.cat([one.flatten() for one in gradient]).cpu()

    def _patches(self, case: CaseSlices) -> tuple[torch.Tensor, torch.Tensor]:
        label = case.require_label()
        ignored = self._plans.labels.ignore_label
        labelled = (label > 0) & (label != (OUTSIDE if ignored is None else ignored))
        slices = np.flatnonzero(labelled.any(axis=(1, 2)))
        if not len(slices):
            slices = np.arange(len(label))
        boxes = [_box(int(z), labelled[z], self._plans.patch_size) for z in slices]
        image = np.stack([crop_and_pad_nd(case.image, box, 0)[:, 0] for box in boxes])
        target = np.stack([crop_and_pad_nd(label[None], box, OUTSIDE)[:, 0] for box in boxes])
        return torch.from_numpy(image).float(), self._target(torch.from_numpy(target.clip(0)))

    def _target(self, label: torch.Tensor) -> torch.Tensor:
        """Labels as the loss wants them, (slices, 1, rows, columns); or regions, those to ignore last."""
        labels = self._plans.labels
        if not labels.has_regions:
            return label.float()
        values = [np.atleast_1d(region).tolist() for region in labels.foreground_regions]
        return Regions([*values, *([[labels.ignore_label]] if labels.has_ignore_label else [])])(
            label.float()
        ).bool()


def _box(z: int, labelled: np.ndarray, patch: Sequence[int]) -> list[list[int]]:
    """Where the patch of a slice lies: around the middle of its label, or of the slice."""
    rows, columns = np.nonzero(labelled) if labelled.any() else np.nonzero(np.ones_like(labelled))
    corners = [
        (int(axis.min()) + int(axis.max()) + 1 - size) // 2
        for axis, size in zip((rows, columns), patch, strict=True)
    ]
    return [[z, z + 1], *([low, low + size] for low, size in zip(corners, patch, strict=True))]


def losses_and_alignment(
    loss: CaseLoss, cases: SlicesOnDisk, names: Sequence[str], track: Track = silently
) -> Iterator[tuple[float, float]]:
    """Says of each case how large its loss is, and whether what it teaches is what the others teach.

    Each gradient is computed twice, so that two are held at once and not one a case.

    Args:
        loss: The loss of the network.
        cases: Where the cases are.
        names: Which of them; at least two.
        track: Shows the cases.

    Yields:
        Loss and cosine, -1 to 1, of the gradient and the mean gradient of the other cases (0 where one vanishes).
    """
    total = sum((loss(cases[name])[1] for name in names), start=torch.zeros(()))
    for name in track(names, "loss of the baseline"):
        value, own = loss(cases[name])
        yield value, float(torch.nn.functional.cosine_similarity(own, total - own, dim=0))
