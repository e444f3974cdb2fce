"""Batches of augmented 2D patches, drawn and transformed as nnU-Net's trainer does, from slices in memory."""

import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from idal_assets.nnunet.plans import Plans
from idal_assets.nnunet.slices import SlicesOnDisk
from idal_assets.nnunet.variants import OUTSIDE


@dataclass(frozen=True)
class Batch:
    """One training batch.

    Attributes:
        image: Patches, shape (batch, 4, rows, columns).
        targets: Labels at each resolution of deep supervision, shape (batch, 1, rows, columns) and smaller.
    """

    image: torch.Tensor
    targets: list[torch.Tensor]


class PatchSource:
    """Draws batches; batch `i` depends on the seed and `i` alone.

    Args:
        cases: The cases to draw from, each equally often.
        plans: Patch and batch size.
        foreground_share: Share of a batch that is centred on a tumour voxel.
        seed: Seed of the draws.
    """

    def __init__(self, cases: SlicesOnDisk, plans: Plans, foreground_share: float, seed: int) -> None:
        self._cases = cases
        self._seed = seed
        trainer = trainer_stand_in(plans)
        rotation, dummy_2d, drawn_size, mirror_axes = (
            nnUNetTrainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size(trainer)
        )
        scales = nnUNetTrainer._get_deep_supervision_scales(trainer)
        self._transforms = nnUNetTrainer.get_training_transforms(
            plans.patch_size,
            rotation,
            scales,
            mirror_axes,
            dummy_2d,
            use_mask_for_norm=plans.configuration.use_mask_for_norm,
            foreground_labels=plans.labels.foreground_labels,
        )
        _stop_timing(self._transforms)
        self._batch_size = plans.configuration.batch_size
        self._loader = nnUNetDataLoader(
            SimpleNamespace(identifiers=cases.names),
            self._batch_size,
            drawn_size,
            plans.patch_size,
            plans.labels,
            oversample_foreground_percent=foreground_share,
        )

    def batch(self, number: int) -> Batch:
        """Draws one batch."""
        seed_global_generators(self._seed, number)
        names = np.random.choice(self._cases.names, self._batch_size)  # noqa: NPY002 - as nnU-Net's loader
        drawn = [self._patch(name, place) for place, name in enumerate(names)]
        targets = [torch.stack(level) for level in zip(*(labels for _, labels in drawn), strict=True)]
        return Batch(torch.stack([image for image, _ in drawn]), targets)

    def _patch(self, name: str, place: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
        case = self._cases[name]
        on_tumour = self._loader.get_do_oversample(place)
        low, high = self._loader.get_bbox(case.label.shape, on_tumour, case.foreground)
        box = [list(edge) for edge in zip(low, high, strict=True)]
        image = crop_and_pad_nd(case.image, box, 0)[:, 0]
        label = crop_and_pad_nd(case.label[None], box, OUTSIDE)[:, 0]
        moved = self._transforms(
            image=torch.from_numpy(image).float(), segmentation=torch.from_numpy(label).to(torch.int16)
        )
        return moved["image"], moved["segmentation"]


def _stop_timing(transforms: ComposeTransforms) -> None:
    """Keeps nnU-Net's blur from choosing between two algorithms by the clock, so that bits repeat."""
    for step in transforms.transforms:
        transform = getattr(step, "transform", step)
        if isinstance(transform, GaussianBlurTransform):
            transform.benchmark = False


def prefetched(source: PatchSource, count: int, ahead: int) -> Iterator[Batch]:
    """Yields batches, prepared in a thread of its own.

    Args:
        source: Where they come from.
        count: Batches 0 to count - 1 are yielded.
        ahead: How many are prepared before they are asked for; with 0 the caller waits for each.
    """
    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as worker:
        waiting = deque(worker.submit(source.batch, number) for number in range(min(ahead, count)))
        try:
            for number in range(count):
                if number + ahead < count:
                    waiting.append(worker.submit(source.batch, number + ahead))
                yield waiting.popleft().result()
        finally:
            for batch in waiting:
                batch.cancel()


def trainer_stand_in(plans: Plans) -> SimpleNamespace:
    """What nnU-Net's trainer methods look up on the trainer.

    Its augmentation and loss are methods of a class that wants dataset folders; called with this in place of a
    trainer they are nnU-Net's own code without them.
    """
    stand_in = SimpleNamespace(
        configuration_manager=plans.configuration,
        label_manager=plans.labels,
        enable_deep_supervision=True,
        is_ddp=False,
        print_to_log_file=lambda *_: None,
        _do_i_compile=lambda: False,
    )
    stand_in._get_deep_supervision_scales = lambda: nnUNetTrainer._get_deep_supervision_scales(stand_in)
    return stand_in


def derived_seed(*parts: object) -> int:
    """Derives a seed of 32 bits from anything that prints, such as (profile seed, asset, case id)."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")


def seed_global_generators(*parts: object) -> None:
    """Seeds the global generators that nnU-Net's augmentation and network initialisation draw from."""
    seed = derived_seed(*parts)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)
