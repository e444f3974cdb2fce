"""Fingerprint, plans and preprocessed slices are those that nnU-Net itself makes from the same files."""

import copy
import json
import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

from idal_assets.imaging.brain_tumour import BRAIN_TUMOUR
from idal_assets.imaging.case import Case
from idal_assets.nnunet.plans import FEWER_SAMPLES, Plans, fingerprint, make_plans
from idal_assets.nnunet.slices import CaseSlices, SlicesOnDisk, load_slices, preprocess
from idal_assets.settings import PlansSettings
from idal_assets_tests.raw_folders import real_data
from idal_assets_tests.small_models import (
    RawFiles,
    changed,
    phantom_files,
    plan,
    raw_files,
    read_cases,
    slices_on_disk,
    split_channels,
    with_margin,
)

pytestmark = pytest.mark.unit

DATASET = "Dataset007_Elsewhere"
DESCRIPTION = {
    "channel_names": {"0": "FLAIR", "1": "T1w", "2": "T1gd", "3": "T2w"},
    "labels": {"background": 0, "oedema": 1, "non-enhancing tumour": 2, "enhancing tumour": 3},
    "file_ending": ".nii.gz",
    "overwrite_image_reader_writer": "NibabelIO",
}
"""What a person would write into nnU-Net's `dataset.json`."""

MARGIN = ((9, 3), (2, 12), (1, 2))
REAL_NAMES = ("BraTS2021_00006", "BraTS2021_01476", "BraTS2021_01484")


def files_of(kind: str, folder: Path) -> list[RawFiles]:
    if kind == "plain":
        return phantom_files(folder / "plain", 2)
    if kind == "margins":
        return with_margin(phantom_files(folder / "inner", 2), folder / "margins", MARGIN)
    if kind == "sagittal slices":
        return phantom_files(folder / "sagittal", 2, shape=(8, 48, 40), spacing=(12.0, 4.0, 4.0))
    if kind == "mixed spacings":
        coarse = phantom_files(folder / "coarse", 2)
        return coarse + phantom_files(folder / "fine", 1, shape=(56, 60, 9), spacing=(3.0, 3.2, 10.0), seed=5)
    return raw_files(real_data("brats_mini"), REAL_NAMES)


REAL = pytest.param("real", marks=pytest.mark.real)


@pytest.fixture(scope="module", params=["plain", "margins", "sagittal slices", "mixed spacings", REAL])
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[RawFiles]:
    return files_of(request.param, tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def cases(files: list[RawFiles]) -> list[Case]:
    return [replace(case, case_id=f"{place}_{case.case_id}") for place, case in enumerate(read_cases(files))]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    return read_cases(files_of("plain", tmp_path_factory.mktemp("raw")))


@pytest.fixture(scope="module")
def found(plain: list[Case]) -> dict[str, Any]:
    return fingerprint(plain, len(plain), BRAIN_TUMOUR)


def write_nnunet_dataset(folder: Path, files: Sequence[RawFiles], description: dict[str, Any]) -> None:
    listed = {}
    for place, one in enumerate(files):
        images, label = split_channels(one, folder / "imagesTr" / str(place))
        listed[str(place)] = {"images": images, "label": label}
    content = {**description, "numTraining": len(files), "dataset": listed}
    (folder / "dataset.json").write_text(json.dumps(content))


def nnunets_own(
    files: Sequence[RawFiles],
    folder: Path,
    memory_gb: float,
    monkeypatch: pytest.MonkeyPatch,
    description: dict[str, Any] = DESCRIPTION,
    samples: int = FEWER_SAMPLES,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fingerprint and plans as nnU-Net's own extractor and planner write them."""
    monkeypatch.setenv("nnUNet_raw", str(folder / "raw"))
    monkeypatch.setenv("nnUNet_preprocessed", str(folder / "preprocessed"))
    write_nnunet_dataset(folder / "raw" / DATASET, files, description)
    extractor = DatasetFingerprintExtractor(DATASET, num_processes=1)
    extractor.show_progress_bar = False
    # the project takes fewer voxels; with as many, the statistics are the same numbers too
    extractor.num_foreground_voxels_for_intensitystats = samples
    # threads instead of processes, each of which would import torch
    with monkeypatch.context() as patch:
        patch.setattr(multiprocessing, "get_context", lambda _: SimpleNamespace(Pool=ThreadPool))
        extractor.run()
    ExperimentPlanner(DATASET, gpu_memory_target_in_gb=memory_gb).plan_experiment()
    written = folder / "preprocessed" / DATASET
    return tuple(
        json.loads((written / name).read_text()) for name in ("dataset_fingerprint.json", "nnUNetPlans.json")
    )


class TestAgainstNnunetsPlanning:
    # 8 GB is nnU-Net's default target; 0.5 GB makes the planner shrink patch and network on the real cases
    @pytest.mark.parametrize("memory_gb", [8.0, 0.5])
    def test_fingerprint_and_2d_plans_are_nnunets(
        self,
        files: list[RawFiles],
        cases: list[Case],
        memory_gb: float,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ):
        their_fingerprint, theirs = nnunets_own(files, tmp_path, memory_gb, monkeypatch)
        our_fingerprint = fingerprint(cases, len(cases), BRAIN_TUMOUR)
        ours = make_plans(our_fingerprint, len(cases), PlansSettings(memory_gb=memory_gb), BRAIN_TUMOUR).values
        # nnU-Net's reader takes spacings as the header's float32, the project's rounds them to six digits
        np.testing.assert_allclose(our_fingerprint.pop("spacings"), their_fingerprint.pop("spacings"), rtol=1e-6)
        assert our_fingerprint == their_fingerprint
        our_2d, their_2d = ours["configurations"]["2d"], theirs["configurations"]["2d"]
        np.testing.assert_allclose(our_2d.pop("spacing"), their_2d.pop("spacing"), rtol=1e-6)
        assert our_2d == their_2d
        for key in ("transpose_forward", "transpose_backward", "image_reader_writer", "label_manager"):
            assert ours[key] == theirs[key]

    def test_the_cases_reach_the_decisions_of_the_planner(self, tmp_path: Path):
        """Otherwise the comparison above would compare defaults."""
        planned = {
            kind: plan(read_cases(files_of(kind, tmp_path / kind)), PlansSettings())
            for kind in ("plain", "margins", "sagittal slices")
        }
        assert planned["plain"].values["transpose_forward"] == [0, 1, 2]
        assert planned["sagittal slices"].values["transpose_forward"] == [2, 0, 1]
        assert planned["plain"].configuration.use_mask_for_norm == [False] * 4
        assert planned["margins"].configuration.use_mask_for_norm == [True] * 4


class TestPlansSettings:
    def test_base_features_double_from_stage_to_stage(self, found: dict[str, Any]):
        network = make_plans(
            found, 2, PlansSettings(base_features=6), BRAIN_TUMOUR
        ).configuration.network_arch_init_kwargs
        assert network["features_per_stage"] == [6, 12, 24, 48]

    def test_batch_size_replaces_the_planners_and_nothing_else(self, found: dict[str, Any]):
        planned = make_plans(found, 2, PlansSettings(), BRAIN_TUMOUR)
        ours = make_plans(found, 2, PlansSettings(batch_size=13), BRAIN_TUMOUR)
        assert ours.configuration.batch_size == 13 != planned.configuration.batch_size
        assert changed(planned, batch_size=13).values == ours.values

    @pytest.mark.parametrize("before", [None, "/somewhere/else"])
    def test_environment_stays_as_it_was(
        self, found: dict[str, Any], before: str | None, monkeypatch: pytest.MonkeyPatch
    ):
        for name in ("nnUNet_raw", "nnUNet_preprocessed"):
            monkeypatch.setenv(name, before) if before else monkeypatch.delenv(name, raising=False)
        environment = dict(os.environ)
        make_plans(found, 2, PlansSettings(), BRAIN_TUMOUR)
        assert dict(os.environ) == environment

    def test_environment_stays_as_it_was_when_planning_fails(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.delenv("nnUNet_raw", raising=False)
        with pytest.raises(KeyError):
            make_plans({}, 2, PlansSettings(), BRAIN_TUMOUR)
        assert "nnUNet_raw" not in os.environ


class TestPlans:
    def test_version_ignores_what_only_describes_the_dataset(self, found: dict[str, Any]):
        plans = make_plans(found, 2, PlansSettings(), BRAIN_TUMOUR)
        other = changed(plans, median_image_size_in_voxels=[1.0, 2.0])
        other.values["foreground_intensity_properties_per_channel"]["0"]["mean"] += 1
        other.values["original_median_shape_after_transp"] = [1, 2, 3]
        other.dataset["numTraining"] = 99
        assert other.version == plans.version

    @pytest.mark.parametrize(
        "fields",
        [
            {"patch_size": [32, 32]},
            {"batch_size": 3},
            {"spacing": [1.0, 1.0]},
            {"normalization_schemes": ["NoNormalization"] * 4},
            {"use_mask_for_norm": [True] * 4},
        ],
        ids=lambda fields: next(iter(fields)),
    )
    def test_version_follows_what_changes_slices_or_network(self, found: dict[str, Any], fields: dict[str, Any]):
        plans = make_plans(found, 2, PlansSettings(), BRAIN_TUMOUR)
        assert changed(plans, **fields).version != plans.version

    def test_version_follows_network_and_transposition(self, found: dict[str, Any]):
        plans = make_plans(found, 2, PlansSettings(), BRAIN_TUMOUR)
        values = copy.deepcopy(plans.values)
        values["transpose_forward"] = [2, 0, 1]
        assert Plans(values, plans.dataset).version != plans.version
        assert make_plans(found, 2, PlansSettings(base_features=4), BRAIN_TUMOUR).version != plans.version

    def test_plans_survive_the_files(self, found: dict[str, Any], tmp_path: Path):
        plans = make_plans(found, 2, PlansSettings(), BRAIN_TUMOUR)
        plans.save(tmp_path)
        loaded = Plans.load(tmp_path)
        assert (loaded.values, loaded.dataset, loaded.version) == (plans.values, plans.dataset, plans.version)


def assert_same_case(found: CaseSlices, expected: CaseSlices) -> None:
    for name in ("image", "label", "truth"):
        array, other = getattr(found, name), getattr(expected, name)
        assert array.dtype == other.dtype
        np.testing.assert_array_equal(array, other, strict=True)
    assert found.foreground.keys() == expected.foreground.keys()
    for value, places in expected.foreground.items():
        np.testing.assert_array_equal(found.foreground[value], places, strict=True)
    assert (found.case_id, found.properties) == (expected.case_id, expected.properties)


class TestPreprocessing:
    def test_slices_are_bit_for_bit_nnunets(self, files: list[RawFiles], cases: list[Case], tmp_path: Path):
        plans = plan(cases)
        # the last case has the other spacing where spacings are mixed, so it is resampled
        images, label = split_channels(files[-1], tmp_path)
        data, seg, properties = DefaultPreprocessor(verbose=False).run_case(
            images, label, plans.manager, plans.configuration, plans.dataset
        )
        case = preprocess(cases[-1], plans)
        np.testing.assert_array_equal(case.image, data)
        np.testing.assert_array_equal(case.label, seg[0])
        assert (case.image.dtype, case.label.dtype) == (np.float32, np.int8)
        assert case.properties["bbox_used_for_cropping"] == [
            list(edge) for edge in properties["bbox_used_for_cropping"]
        ]
        for key in ("shape_before_cropping", "shape_after_cropping_and_before_resampling"):
            assert case.properties[key] == list(properties[key])
        assert case.foreground.keys() == properties["class_locations"].keys()
        for value, places in properties["class_locations"].items():
            np.testing.assert_array_equal(case.foreground[value], np.reshape(places, (-1, 4)))

    def test_the_mixed_spacings_are_resampled_and_margins_cropped(self, tmp_path: Path):
        """Otherwise the comparison above would not show either."""
        mixed = read_cases(files_of("mixed spacings", tmp_path / "mixed"))
        case = preprocess(mixed[-1], plan(mixed))
        assert list(case.label.shape) != case.properties["shape_after_cropping_and_before_resampling"]
        padded = read_cases(files_of("margins", tmp_path / "margins"))
        case = preprocess(padded[0], plan(padded))
        assert [low for low, _ in case.properties["bbox_used_for_cropping"]] >= [1, 2, 9]

    def test_truth_is_the_raw_label_in_nnunets_order(self, tmp_path: Path):
        (case, *_) = cases = read_cases(files_of("sagittal slices", tmp_path))
        truth = preprocess(case, plan(cases)).truth
        assert truth is not None
        # nnU-Net reads (z, y, x) and puts the axis of the largest spacing first: (x, z, y)
        np.testing.assert_array_equal(truth, case.label.transpose(0, 2, 1))


class TestFiles:
    def test_a_case_survives_the_files(self, plain: list[Case], tmp_path: Path):
        case = preprocess(plain[0], plan(plain))
        case.save(tmp_path)
        assert_same_case(load_slices(tmp_path, case.case_id), case)

    def test_a_case_without_a_label_or_truth_survives_the_files(self, plain: list[Case], tmp_path: Path):
        label = np.where(plain[0].label == 3, 0, plain[0].label).astype(np.uint8)
        case = preprocess(replace(plain[0], label=label), plan(plain))
        replace(case, truth=None).save(tmp_path)
        loaded = load_slices(tmp_path, case.case_id)
        assert loaded.truth is None
        assert loaded.foreground[3].shape == (0, 4)
        assert_same_case(replace(loaded, truth=case.truth), case)

    def test_nothing_in_the_files_needs_unpickling(self, plain: list[Case], tmp_path: Path):
        preprocess(plain[0], plan(plain)).save(tmp_path)
        assert {path.suffix for path in tmp_path.rglob("*")} == {".b2nd", ".npz", ".json"}
        with np.load(tmp_path / "foreground.npz", allow_pickle=False) as stored:
            assert {stored[name].dtype for name in stored.files} == {np.dtype(np.int32)}
        json.loads((tmp_path / "properties.json").read_text())


class TestMemory:
    def held(self, cases: SlicesOnDisk) -> list[CaseSlices]:
        """The cases that are the same object when asked for again, so not read from disk a second time."""
        for name in cases.names:
            _ = cases[name]
        return [cases[name] for name in cases.names if cases[name] is cases[name]]

    @pytest.mark.parametrize("missing_bytes", [0, 1])
    @pytest.mark.parametrize("room_for", [1, 2])
    def test_cases_in_memory_stay_within_the_bound(
        self, plain: list[Case], tmp_path: Path, room_for: int, missing_bytes: int
    ):
        plans = plan(plain)
        twins = [replace(plain[0], case_id=name) for name in ("one", "other")]
        needed = room_for * size_in_memory(preprocess(plain[0], plans))
        # half a byte more, as the bound is a floating-point number of GB
        bound = needed - missing_bytes + 0.5
        held = self.held(slices_on_disk(tmp_path, twins, plans, memory_gb=bound / 1e9))
        assert len(held) == room_for - missing_bytes
        assert sum(map(size_in_memory, held)) <= bound

    def test_a_case_past_the_bound_is_the_same_case(self, plain: list[Case], tmp_path: Path):
        plans = plan(plain)
        cases = slices_on_disk(tmp_path, plain, plans, memory_gb=1e-9)
        assert (len(cases), cases.names) == (2, [case.case_id for case in plain])
        for case in plain:
            assert_same_case(cases[case.case_id], preprocess(case, plans))


def size_in_memory(case: CaseSlices) -> int:
    arrays = [case.image, case.label, *case.foreground.values()]
    return sum(array.nbytes for array in arrays) + (0 if case.truth is None else case.truth.nbytes)
