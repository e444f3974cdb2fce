"""Mixed precision is a matter of speed: it tells the same about the cases as fp32."""

import numpy as np
import pytest
import torch

from idal_assets.analysis.scores import confusion, score_table
from idal_assets.imaging.brain_tumour import BRAIN_TUMOUR
from idal_assets.nnunet.compute import Compute, multiplies_bfloat16
from idal_assets.nnunet.plans import Plans
from idal_assets.nnunet.prediction import Predictor
from idal_assets.nnunet.slices import SlicesOnDisk
from idal_assets.nnunet.training import Weights, train
from idal_assets.settings import ComputeSettings, InferenceSettings, PlansSettings
from idal_assets_tests.small_models import FP32, phantom_files, plan, read_cases, slices_on_disk, training

pytestmark = [
    pytest.mark.graph,
    pytest.mark.skipif(
        not multiplies_bfloat16("cpu"),
        reason="bfloat16 is emulated here, which takes minutes and no profile does",
    ),
]

MIXED = Compute(torch.device("cpu"), torch.bfloat16, FP32.threads)
CASES = 4


@pytest.fixture(scope="module")
def plans_and_cases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plans, SlicesOnDisk]:
    folder = tmp_path_factory.mktemp("precision")
    cases = read_cases(phantom_files(folder / "raw", CASES, shape=(64, 80, 12), spacing=(2.5, 2.5, 8.0)))
    plans = plan(cases, PlansSettings(memory_gb=1, base_features=16, batch_size=4))
    return plans, slices_on_disk(folder / "slices", cases, plans)


def matrix(cases: SlicesOnDisk, plans: Plans, initial: Weights, compute: Compute) -> np.ndarray:
    """Dice of the whole tumour of every case's model on every case."""
    rows = []
    for donor in cases.names:
        own = SlicesOnDisk({donor: cases._folders[donor]}, 1.0)
        weights = train(own, plans, training(20, learning_rate=1e-3), compute, 1, initial).weights
        predictor = Predictor(weights, plans, InferenceSettings(), ComputeSettings(), compute)
        rows.append(
            [
                score_table(confusion(case.truth, predicted, BRAIN_TUMOUR), BRAIN_TUMOUR.regions)
                .set_index("region")
                .loc["WT", "dice"]
                for case, predicted in predictor.segment(cases, cases.names)
            ]
        )
    return np.array(rows)


def test_mean_dice_of_a_matrix_is_that_of_fp32(plans_and_cases: tuple[Plans, SlicesOnDisk]):
    plans, cases = plans_and_cases
    baseline = train(cases, plans, training(120), FP32, seed=0).weights
    exact, mixed = (matrix(cases, plans, baseline, compute) for compute in (FP32, MIXED))
    assert exact.mean() > 0.5
    assert not np.array_equal(exact, mixed)
    # a hundredth of Dice is less than what another seed changes
    assert abs(exact.mean() - mixed.mean()) < 0.01
