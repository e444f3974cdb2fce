"""The weighted mean of what several networks say of one case."""

from collections.abc import Mapping

import numpy as np
import torch
from nnunetv2.inference.export_prediction import (
    convert_predicted_logits_to_segmentation_with_correct_shape,
)
from numpy.typing import NDArray

from idal_assets.nnunet.opinions import Both
from idal_assets.nnunet.plans import Plans
from idal_assets.nnunet.prediction import Predictor
from idal_assets.nnunet.slices import CaseSlices
from idal_assets.nnunet.training import Weights

SMALLEST = 1e-6
"""Probabilities below it are taken for it, so that their logits are finite."""


def ensembles(
    models: Mapping[str, Weights],
    wanted: Mapping[str, Mapping[str, float]],
    case: CaseSlices,
    plans: Plans,
    predictor: Predictor,
    threads: int,
) -> dict[str, NDArray[np.uint8]]:
    """Segments a case with several ensembles; each network is asked once, however many of them it is in.

    Args:
        models: Weights by name.
        wanted: By name of the ensemble, the share of each network, in all 1.
        case: The case.
        plans: The plans of all networks.
        predictor: A predictor of these plans, which takes the weights of each.
        threads: Threads for resampling.

    Returns:
        By ensemble, its segmentation in the original geometry, shape (Z, Y, X): from the weighted mean of the
        probabilities, as nnU-Net's `ensemble_folders` does with equal weights.
    """
    summed: dict[str, NDArray[np.float32]] = {}
    members = list(dict.fromkeys(name for shares in wanted.values() for name in shares))
    for name in members:
        predictor.take(models[name])
        ((_, _, probable),) = predictor.segment_with_probabilities(Both({case.case_id: case}), [case.case_id])
        for ensemble, shares in wanted.items():
            if name in shares:
                part = np.float32(shares[name]) * probable
                summed[ensemble] = summed[ensemble] + part if ensemble in summed else part
    return {ensemble: _segmentation(probable, case, plans, threads) for ensemble, probable in summed.items()}


def _segmentation(
    probable: NDArray[np.float32], case: CaseSlices, plans: Plans, threads: int
) -> NDArray[np.uint8]:
    """Labels in the original geometry, by the way that nnU-Net takes from logits."""
    certain = np.clip(probable, SMALLEST, 1 - SMALLEST)
    # softmax and sigmoid undo these, so the probabilities are what is resampled and compared
    logits = np.log(certain) - np.log1p(-certain) if plans.labels.has_regions else np.log(certain)
    segmentation = convert_predicted_logits_to_segmentation_with_correct_shape(
        torch.from_numpy(logits),
        plans.manager,
        plans.configuration,
        plans.labels,
        dict(case.properties),
        num_threads_torch=threads,
    )
    return segmentation.transpose(plans.manager.transpose_forward)
