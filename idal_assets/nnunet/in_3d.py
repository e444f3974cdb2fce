"""Training and segmenting in 3D, with nnU-Net's own loader, augmentation and predictor.

Only the baseline's candidates are ever 3D, a few trainings on a few cases each, so nothing here is written anew
for speed: patches are augmented one by one, and a case is segmented by nnU-Net's sliding window.
"""

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from idal_assets.nnunet.compute import Compute, use_threads
from idal_assets.nnunet.network import build_network
from idal_assets.nnunet.patches import Batch, seed_global_generators, training_transforms
from idal_assets.nnunet.plans import Plans
from idal_assets.nnunet.slices import CaseSlices, SlicesOnDisk
from idal_assets.settings import InferenceSettings, TrainingSettings

MOST_WORKERS = 8
"""Processes that prepare 3D batches for a card; one batch takes a core some seconds."""


def workers(compute: Compute) -> int:
    """Processes that prepare batches while the network computes; 0 where both take turns."""
    if not compute.overlaps:
        return 0
    return min(compute.threads - 1, MOST_WORKERS) if compute.device.type == "cuda" else 1


def volume_batches(
    cases: SlicesOnDisk, plans: Plans, settings: TrainingSettings, compute: Compute, seed: int
) -> Iterator[Batch]:
    """Yields the batches of a training in 3D; batch `i` depends on the seed and `i` alone.

    Args:
        cases: The cases to draw from, each equally often; every process that prepares batches holds its own.
        plans: Patch and batch size.
        settings: How many batches, and the share of each that is centred on a labelled voxel.
        compute: Where batches go, and how many processes prepare them.
        seed: Seed of the draws.
    """
    patches = _VolumePatches(cases, plans, settings.foreground_share, seed)
    count = workers(compute)
    loader = DataLoader(
        patches,
        batch_size=None,
        sampler=range(settings.iterations),
        num_workers=count,
        prefetch_factor=1 if count else None,
    )
    for batch in loader:
        image = batch.image.to(compute.device)
        yield Batch(image, [target.to(compute.device) for target in batch.targets])


class _VolumePatches(Dataset[Batch]):
    """Batches by their number, drawn and augmented by nnU-Net's own loader."""

    def __init__(self, cases: SlicesOnDisk, plans: Plans, foreground_share: float, seed: int) -> None:
        self._seed = seed
        transforms, drawn_size = _repeatable_transforms(plans)
        self._loader = nnUNetDataLoader(
            _Cases(cases, cases.names),
            plans.configuration.batch_size,
            drawn_size,
            plans.patch_size,
            plans.labels,
            oversample_foreground_percent=foreground_share,
            transforms=transforms,
        )

    def __getitem__(self, number: int) -> Batch:
        seed_global_generators(self._seed, number)
        drawn = self._loader.generate_train_batch()
        return Batch(drawn["data"], drawn["target"])


@dataclass(frozen=True)
class _Cases:
    """Preprocessed cases as nnU-Net's loader asks for them."""

    cases: SlicesOnDisk
    identifiers: list[str]

    def load_case(self, name: str) -> tuple[NDArray[np.float32], NDArray[np.int8], None, dict[str, Any]]:
        """Image, label with a channel, no segmentation of an earlier stage, and the places of the labels."""
        case = self.cases[name]
        return case.image, case.require_label()[None], None, {"class_locations": dict(case.foreground)}


def _repeatable_transforms(plans: Plans) -> tuple[ComposeTransforms, Sequence[int]]:
    transforms, drawn_size = training_transforms(plans)
    for step in transforms.transforms:
        inner = getattr(step, "transform", step)
        if isinstance(inner, GaussianBlurTransform):
            # It would time two ways to blur and take the quicker one, whose rounding would differ from run to run.
            inner.benchmark = False
    return transforms, drawn_size


def volume_predictor(
    weights: Mapping[str, torch.Tensor], plans: Plans, inference: InferenceSettings, compute: Compute
) -> Callable[[CaseSlices], NDArray[np.uint8]]:
    """Makes nnU-Net's own predictor of a trained 3D network, without mirroring.

    Args:
        weights: The network's state.
        plans: The plans it was trained with.
        inference: Step between tiles.
        compute: Device; the precision is nnU-Net's, which is mixed on a card and fp32 on a CPU.

    Returns:
        A function that segments a case preprocessed with the same plans. Its result has the original geometry,
        transposed as nnU-Net does, shape (Z, Y, X) like the case's `truth`.
    """
    use_threads(compute.threads)
    with contextlib.redirect_stdout(io.StringIO()):
        predictor = nnUNetPredictor(
            inference.tile_step, use_mirroring=False, device=compute.device, allow_tqdm=False
        )
    network = build_network(plans, deep_supervision=False)
    predictor.manual_initialization(
        *(network, plans.manager, plans.configuration, [dict(weights)], plans.dataset, "nnUNetTrainer", None)
    )

    def segment(case: CaseSlices) -> NDArray[np.uint8]:
        logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(case.image))
        segmentation = convert_predicted_logits_to_segmentation_with_correct_shape(
            logits.cpu(),
            plans.manager,
            plans.configuration,
            plans.labels,
            dict(case.properties),
            num_threads_torch=compute.threads,
        )
        return segmentation.transpose(plans.manager.transpose_forward)

    return segment
