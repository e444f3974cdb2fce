"""Other datasets go nnU-Net's way too: fewer channels, a CT, regions, voxels to ignore, cases without a label."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from nnunetv2.inference import predict_from_raw_data
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from numpy.typing import NDArray
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from idal_assets.anatomy import Anatomy
from idal_assets.imaging.brain_tumour import BRAIN_TUMOUR
from idal_assets.imaging.case import Case, CaseError
from idal_assets.nnunet import plans as planning
from idal_assets.nnunet.augmentation import BatchAugmentation
from idal_assets.nnunet.geometry import as_case, as_in_file
from idal_assets.nnunet.in_3d import volume_predictor
from idal_assets.nnunet.model_folder import save_model
from idal_assets.nnunet.network import build_network, segmented
from idal_assets.nnunet.patches import PatchSource, seed_global_generators, training_transforms
from idal_assets.nnunet.plans import FOREGROUND_SAMPLES, Plans, dataset_json, fingerprint, make_plans
from idal_assets.nnunet.prediction import Predictor
from idal_assets.nnunet.slices import SlicesOnDisk, load_slices, preprocess
from idal_assets.nnunet.training import Trained, train
from idal_assets.nnunet.variants import OUTSIDE, make_variants
from idal_assets.settings import ComputeSettings, InferenceSettings, VariantSettings
from idal_assets_tests.small_models import (
    ANATOMIES,
    FP32,
    SMALL_PLANS,
    RawFiles,
    as_other,
    assert_same_weights,
    changed,
    noise_weights,
    phantom_files,
    plan,
    read_cases,
    slices_on_disk,
    split_channels,
    training,
    with_margin,
    write_case,
)
from idal_assets_tests.test_plans_and_slices import assert_same_case, nnunets_own
from idal_assets_tests.test_training import plain_training

pytestmark = pytest.mark.graph

MARGIN = ((3, 2), (2, 4), (1, 1))


@dataclass(frozen=True)
class World:
    """A dataset that is none of brain tumours.

    Attributes:
        anatomy: Its channels and labels.
        cases: Its cases.
        files: The same on disk.
        plans: Their plans.
        slices: The cases, preprocessed.
    """

    anatomy: Anatomy
    cases: list[Case]
    files: Sequence[RawFiles]
    plans: Plans
    slices: SlicesOnDisk


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    """Phantoms with air around them, so that nnU-Net crops and masks."""
    folder = tmp_path_factory.mktemp("phantoms")
    return read_cases(with_margin(phantom_files(folder / "inner", 2), folder / "raw", MARGIN))


@pytest.fixture(scope="module", params=ANATOMIES)
def world(request: pytest.FixtureRequest, phantoms: list[Case], tmp_path_factory: pytest.TempPathFactory) -> World:
    folder, anatomy = tmp_path_factory.mktemp("world"), ANATOMIES[request.param]
    cases = [as_other(case, request.param) for case in phantoms]
    files = [write_case(folder / "raw", case) for case in cases]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "FOREGROUND_SAMPLES", 20_000)
        plans = plan(cases, SMALL_PLANS, anatomy)
    return World(anatomy, cases, files, plans, slices_on_disk(folder / "slices", cases, plans))


@pytest.fixture
def trainer(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nnUNetTrainer:
    """nnU-Net's own trainer of the same plans, which needs folders."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path / name))
    values = {**world.plans.values, "continue_training": False}
    return nnUNetTrainer(values, "2d", "all", world.plans.dataset, torch.device("cpu"))


class TestDatasetJson:
    def test_of_brain_tumours(self):
        assert dataset_json(BRAIN_TUMOUR, 7) == {
            "channel_names": {"0": "FLAIR", "1": "T1w", "2": "T1gd", "3": "T2w"},
            "labels": {"background": 0, "oedema": 1, "non-enhancing tumour": 2, "enhancing tumour": 3},
            "numTraining": 7,
            "file_ending": ".nii.gz",
            "overwrite_image_reader_writer": "NibabelIO",
        }

    def test_says_regions_in_the_order_that_writes_them_and_what_to_ignore(self):
        found = dataset_json(ANATOMIES["regions, ignored"], 7)
        assert found["labels"] == {"background": 0, "WT": [1, 2, 3], "TC": [2, 3], "ET": [3], "ignore": 4}
        assert found["regions_class_order"] == [1, 2, 3]
        assert found["channel_names"] == {"0": "FLAIR", "1": "T1w"}

    @pytest.mark.parametrize(
        ("kind", "heads", "regions", "ignore"),
        [
            ("two labels", 3, None, None),
            ("CT", 3, None, None),
            ("regions", 3, [(1, 2, 3), (2, 3), (3,)], None),
            ("ignored", 4, None, 4),
            ("regions, ignored", 3, [(1, 2, 3), (2, 3), (3,)], 4),
        ],
    )
    def test_nnunet_reads_it_so(self, kind: str, heads: int, regions: list | None, ignore: int | None):
        anatomy = ANATOMIES[kind]
        dataset = dataset_json(anatomy, 2)
        manager = LabelManager(dataset["labels"], dataset.get("regions_class_order"))
        assert (manager.num_segmentation_heads, manager.all_regions) == (heads, regions)
        assert manager.ignore_label == ignore
        assert manager.all_labels == [0, *anatomy.labels]


class TestPlans:
    def test_say_channels_and_what_is_learned(self, world: World):
        anatomy = world.anatomy
        assert world.plans.channels == len(anatomy.channels)
        expected = {name: value for value, name in anatomy.labels.items()}
        if anatomy.trained:
            expected = {name: anatomy.regions[name] for name in anatomy.trained}
        assert world.plans.learned == expected

    def test_names_are_those_of_the_values_in_any_order(self, world: World):
        plans = Plans(world.plans.values, {**world.plans.dataset, "labels": {"background": 0, "b": 2, "a": 1}})
        assert plans.learned == {"b": 2, "a": 1}

    def test_fingerprint_and_plans_are_nnunets(
        self, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(planning, "FOREGROUND_SAMPLES", 20_000)
        monkeypatch.setattr(planning, "FEWER_SAMPLES", 20_000)
        found = fingerprint(world.cases, 2, world.anatomy)
        ours = make_plans(found, 2, replace_memory(), world.anatomy).values
        description = {name: value for name, value in world.plans.dataset.items() if name != "numTraining"}
        their_fingerprint, theirs = nnunets_own(
            world.files, tmp_path, replace_memory().memory_gb, monkeypatch, description, 20_000
        )
        np.testing.assert_allclose(found.pop("spacings"), their_fingerprint.pop("spacings"), rtol=1e-6)
        assert found == their_fingerprint
        for key in ("transpose_forward", "foreground_intensity_properties_per_channel"):
            assert ours[key] == theirs[key]
        assert ours["configurations"]["2d"] == {
            **theirs["configurations"]["2d"],
            "spacing": ours["configurations"]["2d"]["spacing"],
            "architecture": ours["configurations"]["2d"]["architecture"],
        }

    def test_as_many_voxels_as_nnunet_takes_where_something_depends_on_them(
        self, phantoms: list[Case], monkeypatch: pytest.MonkeyPatch
    ):
        asked = []

        def collect(label: NDArray, image: NDArray, num_samples: int) -> tuple[list, None]:
            asked.append(num_samples)
            return [[1.0]] * len(image), None

        monkeypatch.setattr(
            planning.DatasetFingerprintExtractor, "collect_foreground_intensities", staticmethod(collect)
        )
        for kind in ("CT", "two labels"):
            fingerprint([as_other(case, kind) for case in phantoms], 2, ANATOMIES[kind])
        assert asked == [50_000_000] * 2 + [500_000] * 2
        assert FOREGROUND_SAMPLES == 10e7

    def test_version_follows_statistics_only_where_they_normalise(self, world: World):
        schemes = world.plans.configuration.normalization_schemes
        assert schemes == [
            "CTNormalization" if name == "CT" else "ZScoreNormalization" for name in world.anatomy.channels
        ]
        for name, matters in (("mean", True), ("percentile_99_5", True), ("max", False)):
            other = changed(world.plans)
            other.values["foreground_intensity_properties_per_channel"]["0"][name] += 1
            assert (other.version != world.plans.version) == (matters and schemes[0] == "CTNormalization")

    def test_version_follows_the_order_of_regions(self, world: World):
        if not world.anatomy.class_order:
            pytest.skip("has no regions")
        dataset = {**world.plans.dataset, "regions_class_order": [3, 2, 1]}
        assert Plans(world.plans.values, dataset).version != world.plans.version

    def test_a_case_without_a_label_cannot_be_planned_on(self, phantoms: list[Case]):
        unlabelled = replace(phantoms[0], label=None)
        with pytest.raises(CaseError, match="phantom_train_01 has no label"):
            fingerprint([unlabelled], 1, BRAIN_TUMOUR)


def replace_memory():
    """The planner's own width and batch, with the memory of the small plans."""
    return type(SMALL_PLANS)(memory_gb=SMALL_PLANS.memory_gb)


class TestSlices:
    def test_are_bit_for_bit_nnunets(self, world: World, tmp_path: Path):
        plans = world.plans
        images, label = split_channels(world.files[0], tmp_path)
        data, seg, properties = DefaultPreprocessor(verbose=False).run_case(
            images, label, plans.manager, plans.configuration, plans.dataset
        )
        case = preprocess(world.cases[0], plans)
        np.testing.assert_array_equal(case.image, data)
        np.testing.assert_array_equal(case.label, seg[0])
        locations = properties["class_locations"]
        assert list(case.foreground) == list(locations)
        for of, places in locations.items():
            np.testing.assert_array_equal(case.foreground[of], np.reshape(places, (-1, 4)))
        assert set(map(type, case.foreground)) <= {int, tuple}

    def test_survive_the_files(self, world: World):
        for case in world.cases:
            assert_same_case(world.slices[case.case_id], preprocess(case, world.plans))

    def test_variants_sample_the_same_labels_and_regions(self, world: World):
        case = world.slices[world.slices.names[0]]
        (variant,) = make_variants(case, VariantSettings(count=1, deformation_probability=1), seed=1)
        assert list(variant.foreground) == list(case.foreground)
        assert variant.label is not None
        for of, places in variant.foreground.items():
            assert np.isin(variant.label[tuple(places[:, 1:].T)], of).all()
        assert set(np.unique(variant.label)) <= {OUTSIDE, 0, *world.anatomy.labels, world.anatomy.ignore}


class TestBatches:
    def test_are_drawn_as_by_nnunets_loader(self, world: World, trainer: nnUNetTrainer):
        cases = world.slices

        def load_case(name: str) -> tuple:
            case = cases[name]
            return case.image, case.label[None], None, {"class_locations": dict(case.foreground)}

        _, _, drawn_size, _ = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        source = PatchSource(cases, world.plans, 1 / 3, 1, FP32.device)
        size = trainer.configuration_manager.batch_size
        for number in range(4):
            image, label = source.draw(number)
            for place in range(size):
                name = source.drawn_case(number, place)
                # nnU-Net's loader of one slot; choosing from one name draws nothing
                loader = nnUNetDataLoader(
                    SimpleNamespace(identifiers=[name], load_case=load_case),
                    1,
                    drawn_size,
                    trainer.configuration_manager.patch_size,
                    trainer.label_manager,
                    oversample_foreground_percent=float(place >= round(size * 2 / 3)),
                )
                seed_global_generators(1, number, place, name)
                expected = loader.generate_train_batch()
                assert torch.equal(image[place], expected["data"][0])
                assert torch.equal(label[place], expected["target"][0])

    def test_transforms_are_the_trainers(self, world: World, trainer: nnUNetTrainer):
        """As its `get_dataloaders` asks for them."""
        manager = trainer.label_manager
        rotation, dummy_2d, _, mirror_axes = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        expected = trainer.get_training_transforms(
            tuple(trainer.configuration_manager.patch_size),
            rotation,
            trainer._get_deep_supervision_scales(),
            mirror_axes,
            dummy_2d,
            use_mask_for_norm=trainer.configuration_manager.use_mask_for_norm,
            is_cascaded=trainer.is_cascaded,
            foreground_labels=manager.foreground_labels,
            regions=manager.foreground_regions if manager.has_regions else None,
            ignore_label=manager.ignore_label,
        )
        # without the addresses of objects
        found, theirs = (
            re.sub(r"0x\w+", "", repr(one.transforms)) for one in (training_transforms(world.plans)[0], expected)
        )
        assert found == theirs

    def test_targets_are_those_of_nnunets_transforms(self, world: World):
        """With nothing left to chance, patch by patch."""
        transforms, _ = training_transforms(world.plans)
        transforms.transforms[0].p_rotation = transforms.transforms[0].p_scaling = 0
        for step in transforms.transforms:
            if isinstance(step, RandomTransform):
                step.apply_probability = 0
            if isinstance(step, MirrorTransform):
                step.allowed_axes = ()
        values = [OUTSIDE, *world.plans.labels.all_labels, *filter(None, [world.plans.labels.ignore_label])]
        augment = BatchAugmentation(transforms, values)
        drawn, label = PatchSource(world.slices, world.plans, 1 / 3, 3, FP32.device).draw(0)
        image, targets = augment(drawn, label, seed=0)
        for place in range(len(drawn)):
            expected = transforms(image=drawn[place].clone(), segmentation=label[place].clone())
            assert torch.equal(image[place], expected["image"])
            for target, one in zip(targets, expected["segmentation"], strict=True):
                assert target.dtype == one.dtype
                assert torch.equal(target[place], one)

    def test_moved_targets_hold_what_the_dataset_knows(self, world: World):
        targets = PatchSource(world.slices, world.plans, 1 / 3, 3, FP32.device).batch(0).targets
        ignored = world.anatomy.ignore is not None
        for target in targets:
            assert target.shape[1] == (len(world.anatomy.trained) + ignored if world.anatomy.trained else 1)
        if world.anatomy.trained:
            whole, core, enhancing = targets[0][:, :3].unbind(1)
            assert not (core & ~whole).any() and not (enhancing & ~core).any()
            assert not ignored or not (whole & targets[0][:, 3]).any()
        assert not ignored or (targets[0][:, -1] == (True if world.anatomy.trained else 4)).any()


class TestTraining:
    def test_equals_a_plain_loop_over_nnunets_parts(self, world: World, trainer: nnUNetTrainer):
        settings = training(4, learning_rate=1e-2, gradient_clip=12)
        expected, losses, _ = plain_training(world.slices, world.plans, settings, 7, trainer)
        found = train(world.slices, world.plans, settings, FP32, 7, noise_weights(world.plans))
        assert list(found.history["loss"]) == losses
        assert_same_weights(found.weights, expected)

    def test_cross_entropy_alone_leaves_out_what_is_to_be_ignored(self, world: World):
        settings = training(1, loss="ce", gradient_clip=1e9)
        weights = noise_weights(world.plans)
        found = train(world.slices, world.plans, settings, FP32, 7, weights).history["loss"][0]
        network = build_network(world.plans, deep_supervision=True)
        network.load_state_dict(weights)
        batch = PatchSource(world.slices, world.plans, settings.foreground_share, 7, FP32.device).batch(0)
        expected, shares = [], []
        for level, (output, target) in enumerate(zip(network(batch.image), batch.targets, strict=True)):
            expected.append(self.cross_entropy(output, target, world.anatomy))
            shares.append(0 if level + 1 == len(batch.targets) else 0.5**level)
        weighted = sum(share * loss for share, loss in zip(shares, expected, strict=True)) / sum(shares)
        # sums of single precision in another order
        assert found == pytest.approx(float(weighted.detach()), rel=1e-5)

    def cross_entropy(self, output: torch.Tensor, target: torch.Tensor, anatomy: Anatomy) -> torch.Tensor:
        if not anatomy.trained:
            labelled = target[:, 0] != (-9 if anatomy.ignore is None else anatomy.ignore)
            return cross_entropy(output.movedim(1, -1)[labelled], target[:, 0][labelled].long())
        losses = binary_cross_entropy_with_logits(output, target[:, :3].float(), reduction="none")
        if anatomy.ignore is None:
            return losses.mean()
        # nnU-Net divides by the number of voxels, not by that of voxels and regions
        labelled = ~target[:, 3:]
        return (losses * labelled).sum() / labelled.sum()

    def test_pseudo_dice_is_nnunets_of_the_patches(self, world: World, trainer: nnUNetTrainer):
        weights = noise_weights(world.plans)
        history = train(world.slices, world.plans, training(1), FP32, 7, weights).history
        batch = PatchSource(world.slices, world.plans, 1 / 3, 7, FP32.device).batch(0)
        trainer.network = build_network(world.plans, deep_supervision=True)
        trainer.network.load_state_dict(weights)
        trainer.loss = trainer._build_loss()
        with torch.no_grad():
            found = trainer.validation_step({"data": batch.image, "target": batch.targets})
        names = [name for name in history if name.startswith("pseudo_dice_")]
        assert names == [f"pseudo_dice_{name}" for name in world.anatomy.trained or world.anatomy.labels.values()]
        tp, fp, fn = (found[name] for name in ("tp_hard", "fp_hard", "fn_hard"))
        np.testing.assert_allclose(history[names].to_numpy()[0], 2 * tp / (2 * tp + fp + fn), rtol=1e-6)


@pytest.fixture(scope="module")
def trained(world: World) -> Trained:
    """A short training; where it is on regions, their probabilities are moved so that some voxels are in each."""
    settings = training(60, learning_rate=5e-3, foreground_share=1)
    found = train(world.slices, world.plans, settings, FP32, seed=0)
    if not world.anatomy.trained:
        return found
    sure = predictor(found, world.plans).segment_with_probabilities(world.slices, world.slices.names[:1])
    logits = torch.logit(torch.from_numpy(next(sure)[2])).flatten(1)
    bias = max(name for name in found.weights if re.fullmatch(r"decoder\.seg_layers\.\d+\.bias", name))
    moved = found.weights[bias] - torch.quantile(logits, 0.95, dim=1)
    return Trained({**found.weights, bias: moved}, found.history)


def predictor(trained: Trained, plans: Plans) -> Predictor:
    return Predictor(trained.weights, plans, InferenceSettings(), ComputeSettings(), FP32)


class TestPrediction:
    @pytest.mark.parametrize(
        "fields", [{}, {"patch_size": [32, 32]}, {"spacing": [3.5, 3.7]}], ids=["plain", "tiled", "resampled"]
    )
    def test_segmentations_are_nnunets(
        self, world: World, trained: Trained, fields: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        # without nnU-Net's half precision nothing is left that could differ but the order of sums
        gaussian = partial(predict_from_raw_data.compute_gaussian, dtype=torch.float32)
        gaussian.cache_clear = predict_from_raw_data.compute_gaussian.cache_clear
        monkeypatch.setattr(predict_from_raw_data, "compute_gaussian", gaussian)
        # PyTorch keeps this table for good, which must not be made while `half` means another type
        torch.storage._storage_type_to_dtype_map()
        monkeypatch.setattr(torch, "half", torch.float32)
        plans = changed(world.plans, **fields)
        save_model(tmp_path / "model", trained, plans)
        theirs = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
        theirs.initialize_from_trained_model_folder(str(tmp_path / "model"), use_folds=("all",))
        channels = [split_channels(one, tmp_path / "channels")[0] for one in world.files]
        expected = theirs.predict_from_files_sequential(channels, None)
        slices = slices_on_disk(tmp_path / "slices", world.cases, plans)
        found = list(predictor(trained, plans).segment(slices, slices.names))
        for (case, segmentation), other in zip(found, expected, strict=True):
            ours = as_in_file(segmentation, plans).transpose(2, 1, 0)
            # a voxel or two where both sides are all but equal
            assert (ours != other).sum() <= 2, case.case_id
            assert set(np.unique(ours)) <= {0, *world.anatomy.labels}
            assert (ours > 0).mean() > 0.001

    def test_probabilities_lead_to_the_same_segmentation(self, world: World, trained: Trained):
        names = world.slices.names
        found = predictor(trained, world.plans).segment_with_probabilities(world.slices, names)
        plain = predictor(trained, world.plans).segment(world.slices, names)
        for (case, segmentation, probabilities), (_, expected) in zip(found, plain, strict=True):
            np.testing.assert_array_equal(segmentation, expected)
            box = tuple(slice(low, high) for low, high in case.properties["bbox_used_for_cropping"])
            decided = world.plans.labels.convert_probabilities_to_segmentation(probabilities)
            np.testing.assert_array_equal(decided, segmentation[box])

    def test_logits_are_decided_on_as_by_nnunet(self, world: World):
        heads, labels = world.plans.labels.num_segmentation_heads, world.plans.labels
        logits = torch.randn(3, heads, 9, 8, generator=torch.Generator().manual_seed(0))
        # the smallest positive logits have a probability of one half
        logits[0, :, 0] = torch.tensor([0.0, 1e-9, 1e-8, 1e-7, 1e-6, -1e-7, -1e-9, 1.0])
        for one, found in zip(logits, segmented(logits, labels), strict=True):
            assert torch.equal(found.int(), labels.convert_logits_to_segmentation(one).int())


class TestWithoutALabel:
    @pytest.fixture
    def unlabelled(self, world: World, tmp_path: Path) -> SlicesOnDisk:
        return slices_on_disk(
            tmp_path / "slices", [replace(case, label=None) for case in world.cases], world.plans
        )

    def test_a_case_has_neither_label_nor_truth(self, world: World, unlabelled: SlicesOnDisk, tmp_path: Path):
        for case in world.cases:
            found, labelled = unlabelled[case.case_id], world.slices[case.case_id]
            assert (found.label, found.truth, dict(found.foreground)) == (None, None, {})
            np.testing.assert_array_equal(found.image, labelled.image)
            assert found.properties == labelled.properties
            assert as_case(found, world.plans).label is None
            assert found.nbytes == found.image.nbytes
            again = load_slices(tmp_path / "slices" / case.case_id, case.case_id)
            assert (again.label, again.truth) == (None, None)

    def test_it_is_segmented_like_with_one(self, world: World, trained: Trained, unlabelled: SlicesOnDisk):
        names = world.slices.names
        segmented_so = predictor(trained, world.plans).segment(unlabelled, names)
        expected = predictor(trained, world.plans).segment(world.slices, names)
        for (_, found), (_, other) in zip(segmented_so, expected, strict=True):
            np.testing.assert_array_equal(found, other)

    def test_nothing_learns_from_it(self, world: World, unlabelled: SlicesOnDisk):
        with pytest.raises(CaseError, match="has no label"):
            train(unlabelled, world.plans, training(1), FP32, seed=0)


def test_regions_in_3d(phantoms: list[Case], tmp_path: Path):
    kind = "regions, ignored"
    cases = [as_other(case, kind) for case in phantoms]
    plans = plan(cases, SMALL_PLANS, ANATOMIES[kind]).of("3d_fullres")
    slices = slices_on_disk(tmp_path, cases, plans)
    trained = train(slices, plans, training(2), FP32, seed=0)
    assert trained.history["loss"].notna().all()
    assert [name for name in trained.history if "WT" in name] == ["pseudo_dice_WT"]
    case = slices[slices.names[0]]
    segmentation = volume_predictor(trained.weights, plans, InferenceSettings(), FP32)(case)
    assert case.truth is not None
    assert segmentation.shape == case.truth.shape
    assert set(np.unique(segmentation)) <= {0, 1, 2, 3}
