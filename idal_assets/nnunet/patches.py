"""Batches of augmented 2D patches, drawn as nnU-Net's loader does from slices in memory."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import numpy as np
import torch
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from idal_assets.nnunet.augmentation import BatchAugmentation
from idal_assets.nnunet.compute import use_threads
from idal_assets.nnunet.cutting import Outline, Place, cutter_of
from idal_assets.nnunet.plans import Plans
from idal_assets.nnunet.slices import OUTSIDE, SlicesOnDisk
from idal_assets.seeds import derived_seed


@dataclass(frozen=True)
class Batch:
    """One training batch.

    Attributes:
        image: Patches, shape (batch, channels, rows, columns), in 3D with slices before the rows, on the device
            that the source is given.
        targets: Labels at each resolution of deep supervision, as large as patches and smaller: one channel of
            label values, or a channel of truth values for each region that networks are trained on and, where
            voxels may be unlabelled, a last one for these.
    """

    image: torch.Tensor
    targets: list[torch.Tensor]


class PatchSource:
    """Draws batches; batch `i` depends on the seed and `i` alone.

    Every slot of a batch has a stream of its own, which draws a case from the pool until it meets one that may be
    drawn. So two trainings with the same seed and pool, one of which does without some cases, have common draws:
    the same patches with the same augmentation in every slot but those where the first draw is such a case.

    Args:
        cases: The cases to draw from, each equally often.
        plans: Patch and batch size.
        foreground_share: Share of a batch that is centred on a labelled voxel.
        seed: Seed of the draws.
        device: Where batches are augmented and stay.
        pool: Names among which slots draw, those of `cases` and others that are never taken; None for those of
            `cases` alone.
    """

    def __init__(
        self,
        cases: SlicesOnDisk,
        plans: Plans,
        foreground_share: float,
        seed: int,
        device: torch.device,
        pool: Sequence[str] | None = None,
    ) -> None:
        self._pool = sorted(pool or cases.names)
        self._may_be_drawn = frozenset(cases.names)
        self._seed = seed
        transforms, drawn_size = training_transforms(plans)
        ignored = [plans.labels.ignore_label] if plans.labels.has_ignore_label else []
        self._augment = BatchAugmentation(transforms, [OUTSIDE, *plans.labels.all_labels, *ignored])
        self._batch_size = plans.configuration.batch_size
        size = [int(length) for length in drawn_size]
        self._cutter = cutter_of(cases, plans.channels, size, device)
        self._loader = nnUNetDataLoader(
            SimpleNamespace(identifiers=cases.names),
            self._batch_size,
            drawn_size,
            plans.patch_size,
            plans.labels,
            oversample_foreground_percent=foreground_share,
        )

    def batch(self, number: int) -> Batch:
        """Draws and augments one batch."""
        return Batch(*self._augment(*self.draw(number), derived_seed(self._seed, number, "augmentation")))

    def draw(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Draws the patches of one batch, larger than those of a batch, as rotation needs what is around them.

        Returns:
            Images of shape (batch, channels, drawn rows, drawn columns) and labels, -1 where there is no image, of
            shape (batch, 1, drawn rows, drawn columns); on the device.
        """
        names = [self.drawn_case(number, slot) for slot in range(self._batch_size)]
        return self._cutter.cut(names, partial(self._place, number))

    def _place(self, number: int, slot: int, name: str, outline: Outline) -> Place:
        # nnU-Net's loader draws from NumPy's global generator
        _seed_numpy(derived_seed(self._seed, number, slot, name))
        on_foreground = self._loader.get_do_oversample(slot)
        low, _ = self._loader.get_bbox(outline.shape, on_foreground, outline.foreground)
        return Place(*map(int, low))

    def drawn_case(self, number: int, slot: int) -> str:
        """Name of the case that a slot of a batch shows."""
        random = np.random.default_rng(derived_seed(self._seed, number, slot))
        while (name := self._pool[random.integers(len(self._pool))]) not in self._may_be_drawn:
            pass
        return name


def prefetched(source: PatchSource, count: int, ahead: int) -> Iterator[Batch]:
    """Yields batches, prepared in a thread of its own.

    Args:
        source: Where they come from.
        count: Batches 0 to count - 1 are yielded.
        ahead: How many are prepared before they are asked for; with 0 the caller waits for each.
    """
    with ThreadPoolExecutor(1, initializer=use_threads, initargs=(1,)) as worker:
        waiting = deque(worker.submit(source.batch, number) for number in range(min(ahead, count)))
        try:
            for number in range(count):
                if number + ahead < count:
                    waiting.append(worker.submit(source.batch, number + ahead))
                yield waiting.popleft().result()
        finally:
            for batch in waiting:
                batch.cancel()


def training_transforms(plans: Plans) -> tuple[ComposeTransforms, Sequence[int]]:
    """nnU-Net's augmentation of the plans, and the size of the patches that are drawn for it."""
    trainer = trainer_stand_in(plans)
    rotation, dummy_2d, drawn_size, mirror_axes = (
        nnUNetTrainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size(trainer)
    )
    transforms = nnUNetTrainer.get_training_transforms(
        plans.patch_size,
        rotation,
        nnUNetTrainer._get_deep_supervision_scales(trainer),
        mirror_axes,
        dummy_2d,
        use_mask_for_norm=plans.configuration.use_mask_for_norm,
        foreground_labels=plans.labels.foreground_labels,
        regions=plans.labels.foreground_regions if plans.labels.has_regions else None,
        ignore_label=plans.labels.ignore_label,
    )
    return transforms, drawn_size


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


def seed_global_generators(*parts: object) -> None:
    """Seeds the global generators that nnU-Net's loader and network initialisation draw from."""
    seed = derived_seed(*parts)
    _seed_numpy(seed)
    torch.manual_seed(seed)


def _seed_numpy(seed: int) -> None:
    """Seeds NumPy alone: PyTorch formats its stack for each kind of card, which takes longer than a draw."""
    np.random.seed(seed)  # noqa: NPY002
