"""A cell of the matrix is what nnU-Net's own predictor gives for the same model folder and the same raw files."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from nnunetv2.inference import predict_from_raw_data
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from numpy.typing import NDArray
from scipy.ndimage import zoom

from idal_assets.analysis.scores import confusion, score_table
from idal_assets.imaging.brain_tumour import BRAIN_TUMOUR
from idal_assets.nnunet.compute import Compute
from idal_assets.nnunet.geometry import as_in_file
from idal_assets.nnunet.model_folder import load_weights, save_model
from idal_assets.nnunet.plans import Plans
from idal_assets.nnunet.prediction import Predictor
from idal_assets.nnunet.slices import CaseSlices, SlicesOnDisk
from idal_assets.nnunet.training import Trained, train
from idal_assets.settings import ComputeSettings, InferenceSettings, PlansSettings
from idal_assets_tests.raw_folders import real_data
from idal_assets_tests.small_models import (
    FP32,
    RawFiles,
    changed,
    phantom_files,
    plan,
    raw_files,
    read_cases,
    slices_on_disk,
    split_channels,
    training,
    with_margin,
)

pytestmark = pytest.mark.graph

REGIONS = {"WT": (1, 2, 3), "TC": (2, 3), "ET": (3,), "L1": (1,), "L2": (2,), "L3": (3,)}

SHAPE, SPACING = (64, 80, 12), (2.5, 2.5, 8.0)
"""Large enough that a single voxel hardly changes a Dice."""

MARGIN = ((9, 3), (2, 12), (1, 2))
PLANS = PlansSettings(memory_gb=1, base_features=8, batch_size=4)
MIXED = Compute.choose(ComputeSettings(device="cpu", precision="mixed", threads=1))


@dataclass(frozen=True)
class Model:
    """A trained model with the cases that it segments.

    Attributes:
        folder: The model folder.
        plans: Its plans.
        slices: The cases to segment, preprocessed.
        files: Their raw files.
        channels: The raw image files of each case as nnU-Net reads them.
    """

    folder: Path
    plans: Plans
    slices: SlicesOnDisk
    files: Sequence[RawFiles]
    channels: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Taught:
    """What a training gives, and the cases that it was given."""

    trained: Trained
    plans: Plans
    files: Sequence[RawFiles]


def teach(folder: Path, files: Sequence[RawFiles], iterations: int) -> Taught:
    cases = read_cases(files)
    plans = plan(cases, PLANS)
    settings = training(iterations, learning_rate=5e-3, foreground_share=1)
    trained = train(slices_on_disk(folder / "training", cases, plans), plans, settings, FP32, seed=0)
    return Taught(trained, plans, files)


def make_model(folder: Path, trained: Trained, plans: Plans, files: Sequence[RawFiles]) -> Model:
    (folder / "model").mkdir()
    save_model(folder / "model", trained, plans)
    slices = slices_on_disk(folder / "slices", read_cases(files), plans)
    channels = [split_channels(one, folder / "channels")[0] for one in files]
    return Model(folder / "model", plans, slices, files, channels)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Taught:
    """A network trained on two phantoms with air around them, so that nnU-Net crops and masks."""
    folder = tmp_path_factory.mktemp("phantoms")
    files = with_margin(phantom_files(folder / "inner", 2, SHAPE, SPACING), folder / "raw", MARGIN)
    return teach(folder, files, 100)


@pytest.fixture(scope="module")
def sagittal(tmp_path_factory: pytest.TempPathFactory) -> Taught:
    """A network trained on two phantoms of sagittal slices, which nnU-Net transposes."""
    folder = tmp_path_factory.mktemp("sagittal")
    taught = teach(folder, phantom_files(folder / "raw", 2, shape=(12, 80, 64), spacing=(8.0, 2.5, 2.5)), 100)
    assert taught.plans.values["transpose_forward"] == [2, 0, 1]
    assert taught.plans.values["transpose_backward"] == [1, 2, 0]
    return taught


def cropped_model(folder: Path, phantoms: Taught, sagittal: Taught) -> Model:
    model = make_model(folder, phantoms.trained, phantoms.plans, phantoms.files)
    for name in model.slices.names:
        properties = model.slices[name].properties
        assert properties["shape_before_cropping"] != properties["shape_after_cropping_and_before_resampling"]
    return model


def tiled_model(folder: Path, phantoms: Taught, sagittal: Taught) -> Model:
    """The network is the same at any patch; its slices are larger than this one."""
    plans = changed(phantoms.plans, patch_size=[48, 32])
    model = make_model(folder, phantoms.trained, plans, phantoms.files)
    for name in model.slices.names:
        _, rows, columns = model.slices[name].label.shape
        assert rows > 48
        assert columns > 32
    return model


def resampled_model(folder: Path, phantoms: Taught, sagittal: Taught) -> Model:
    files = phantom_files(folder / "finer", 2, shape=(76, 88, 12), spacing=(2.1, 2.3, 8.0), seed=5)
    model = make_model(folder, phantoms.trained, phantoms.plans, files)
    for name in model.slices.names:
        case = model.slices[name]
        assert list(case.label.shape) != case.properties["shape_after_cropping_and_before_resampling"]
    return model


def transposed_model(folder: Path, phantoms: Taught, sagittal: Taught) -> Model:
    return make_model(folder, sagittal.trained, sagittal.plans, sagittal.files)


def entangled_model(folder: Path, phantoms: Taught, sagittal: Taught) -> Model:
    """Transposed, resampled, tiled and cropped at once."""
    finer = phantom_files(folder / "finer", 1, shape=(12, 88, 76), spacing=(8.0, 2.3, 2.1), seed=5)
    files = with_margin(finer, folder / "raw", ((1, 2), (9, 3), (2, 12)))
    model = make_model(folder, sagittal.trained, changed(sagittal.plans, patch_size=[32, 48]), files)
    (name,) = model.slices.names
    shape, properties = model.slices[name].label.shape, model.slices[name].properties
    assert shape[1] > 32
    assert shape[2] > 48
    assert list(shape) != properties["shape_after_cropping_and_before_resampling"]
    assert properties["shape_after_cropping_and_before_resampling"] != properties["shape_before_cropping"]
    return model


def real_model(folder: Path, phantoms: Taught, sagittal: Taught) -> Model:
    files = raw_files(real_data("brats_mini"), ("BraTS2021_00006", "BraTS2021_01484"))
    taught = teach(folder, files, 30)
    return make_model(folder, taught.trained, taught.plans, files)


MODELS: dict[str, Callable[[Path, Taught, Taught], Model]] = {
    "cropped": cropped_model,
    "tiled": tiled_model,
    "resampled": resampled_model,
    "transposed": transposed_model,
    "entangled": entangled_model,
    "real": real_model,
}
"""Kinds of models; the last needs the real cases."""


REAL = pytest.param("real", marks=pytest.mark.real)


@pytest.fixture(scope="module", params=[*list(MODELS)[:-1], REAL])
def model(
    request: pytest.FixtureRequest,
    phantoms: Taught,
    sagittal: Taught,
    tmp_path_factory: pytest.TempPathFactory,
) -> Model:
    return MODELS[request.param](tmp_path_factory.mktemp(request.param), phantoms, sagittal)


def nnunets_own(model: Model, folder: Path, mirror: bool = False) -> list[NDArray]:
    """Segmentations of nnU-Net's predictor, read from the files that it writes."""
    torch.set_num_threads(FP32.threads)
    predictor = nnUNetPredictor(use_mirroring=mirror, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model.folder), use_folds=("all",))
    targets = [str(folder / files.name) for files in model.files]
    predictor.predict_from_files_sequential(model.channels, targets)
    return [voxels(Path(f"{target}.nii.gz")) for target in targets]


@pytest.fixture(scope="module")
def theirs(model: Model, tmp_path_factory: pytest.TempPathFactory) -> list[NDArray]:
    return nnunets_own(model, tmp_path_factory.mktemp("theirs"))


def voxels(path: Path) -> NDArray:
    return np.asanyarray(nib.load(path).dataobj)


def segment(
    model: Model, compute: Compute = FP32, megapixels: float = 0.6, mirror: bool = False
) -> Iterator[tuple[CaseSlices, NDArray[np.uint8]]]:
    settings = ComputeSettings(inference_megapixels=megapixels)
    predictor = Predictor(load_weights(model.folder), model.plans, InferenceSettings(), settings, compute, mirror)
    return predictor.segment(model.slices, model.slices.names)


def plain_dice(truth: NDArray, predicted: NDArray, labels: tuple[int, ...]) -> float:
    one, other = np.isin(truth, labels), np.isin(predicted, labels)
    size = one.sum() + other.sum()
    return 2 * (one & other).sum() / size if size else float("nan")


def assert_cells_agree(
    model: Model, theirs: list[NDArray], compute: Compute, tolerance: float, mirror: bool = False
) -> None:
    for (case, predicted), files, their_prediction in zip(
        segment(model, compute, mirror=mirror), model.files, theirs, strict=True
    ):
        assert case.truth is not None
        table = score_table(confusion(case.truth, predicted, BRAIN_TUMOUR), REGIONS).set_index("region")
        label = voxels(files.label)
        for region, labels in REGIONS.items():
            expected = plain_dice(label, their_prediction, labels)
            assert table.loc[region, "dice"] == pytest.approx(expected, abs=tolerance, nan_ok=True), region
            assert table.loc[region, ["tp", "fn"]].sum() == np.isin(label, labels).sum()


class TestAgainstNnunetsPredictor:
    def test_the_models_see_tumour(self, model: Model, theirs: list[NDArray]):
        """Otherwise the comparisons below would compare empty segmentations."""
        for files, predicted in zip(model.files, theirs, strict=True):
            assert plain_dice(voxels(files.label), predicted, REGIONS["WT"]) > 0.1
            assert len(np.unique(predicted)) > 2

    def test_dice_in_fp32(self, model: Model, theirs: list[NDArray]):
        # nnU-Net sums logits in half precision, so a voxel may differ where two labels are nearly equal
        assert_cells_agree(model, theirs, FP32, tolerance=1e-3)

    def test_dice_with_mirroring(self, model: Model, theirs: list[NDArray], tmp_path: Path):
        mirrored = nnunets_own(model, tmp_path, mirror=True)
        assert any((one != other).any() for one, other in zip(mirrored, theirs, strict=True))
        assert_cells_agree(model, mirrored, FP32, tolerance=1e-3, mirror=True)

    def test_dice_in_mixed_precision(self, model: Model, theirs: list[NDArray]):
        # nnU-Net computes in fp32 on a CPU; bfloat16 has 8 bits
        assert_cells_agree(model, theirs, MIXED, tolerance=1e-2)

    def test_voxels_in_the_order_of_the_file(self, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        # without nnU-Net's half precision nothing is left that could differ but the order of sums
        gaussian = partial(predict_from_raw_data.compute_gaussian, dtype=torch.float32)
        gaussian.cache_clear = predict_from_raw_data.compute_gaussian.cache_clear
        monkeypatch.setattr(predict_from_raw_data, "compute_gaussian", gaussian)
        # PyTorch keeps this table for good, which must not be made while `half` means another type
        torch.storage._storage_type_to_dtype_map()
        monkeypatch.setattr(torch, "half", torch.float32)
        for (_, predicted), expected in zip(segment(model), nnunets_own(model, tmp_path), strict=True):
            ours = as_in_file(predicted, model.plans)
            assert ours.shape == expected.shape
            assert (ours != expected).mean() < 1e-5


def test_probabilities_lead_to_the_same_segmentation(model: Model):
    predictor = Predictor(load_weights(model.folder), model.plans, InferenceSettings(), ComputeSettings(), FP32)
    found = predictor.segment_with_probabilities(model.slices, model.slices.names)
    for (case, predicted, probabilities), (_, expected) in zip(found, segment(model), strict=True):
        np.testing.assert_array_equal(predicted, expected)
        assert probabilities.shape == (4, *case.label.shape)
        # rounding of single precision
        np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)
        box = tuple(slice(low, high) for low, high in case.properties["bbox_used_for_cropping"])
        inside, most_probable = predicted[box], probabilities.argmax(0)
        if inside.shape == case.label.shape:
            np.testing.assert_array_equal(most_probable, inside)
        else:
            finer = zoom(
                inside, np.divide(case.label.shape, inside.shape), order=0, grid_mode=True, mode="nearest"
            )
            # the segmentation comes from resampled logits, so borders differ by a voxel
            assert plain_dice(finer, most_probable, REGIONS["WT"]) > 0.8


class TestStream:
    @pytest.mark.parametrize("megapixels", [1e-6, 0.05], ids=["single tiles", "tiles of several cases"])
    def test_batches_do_not_change_a_segmentation(self, model: Model, megapixels: float):
        for (case, predicted), (other, expected) in zip(
            segment(model, megapixels=megapixels), segment(model), strict=True
        ):
            assert case.case_id == other.case_id
            # a convolution sums in another order for another size of batch
            assert (predicted != expected).mean() < 1e-4

    def test_cases_come_in_the_order_asked_for(self, model: Model):
        assert [case.case_id for case, _ in segment(model)] == [files.name for files in model.files]
