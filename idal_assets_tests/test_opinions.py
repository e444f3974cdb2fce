"""Several networks on one case: their opinions, their merger and their ensemble."""

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from idal_assets.imaging.brain_tumour import BRAIN_TUMOUR
from idal_assets.nnunet.ensemble import ensembles
from idal_assets.nnunet.geometry import as_in_file
from idal_assets.nnunet.merging import merged_weights
from idal_assets.nnunet.model_folder import HeldWeights, load_weights, save_model
from idal_assets.nnunet.opinions import (
    Both,
    KeptOpinions,
    Opinion,
    image_statistics,
    kept_opinions,
    load_labels,
    opinions,
    opinions_on,
    pooled_features,
    save_labels,
)
from idal_assets.nnunet.plans import Plans
from idal_assets.nnunet.prediction import Predictor
from idal_assets.nnunet.slices import CaseSlices
from idal_assets.nnunet.training import Trained, Weights, train
from idal_assets.progress import silently
from idal_assets.settings import ComputeSettings, InferenceSettings
from idal_assets.steps.networks import held_weights, train_into
from idal_assets.study.making import Task
from idal_assets_tests.small_models import (
    FP32,
    RawFiles,
    assert_same_weights,
    phantom_files,
    plan,
    read_cases,
    slices_on_disk,
    split_channels,
    training,
)

SHARES = {"one": 0.7, "other": 0.3}


@dataclass(frozen=True)
class World:
    """A baseline, two networks that were fine-tuned from it, a case, and one that preprocessing resamples."""

    plans: Plans
    networks: dict[str, Weights]
    case: CaseSlices
    finer: CaseSlices
    files: RawFiles

    @property
    def donors(self) -> dict[str, Weights]:
        return {name: self.networks[name] for name in SHARES}

    def predictor(self) -> Predictor:
        baseline = self.networks["baseline"]
        return Predictor(baseline, self.plans, InferenceSettings(), ComputeSettings(), FP32)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("networks")
    files = phantom_files(folder / "raw", 4)
    finer = phantom_files(folder / "finer", 1, shape=(50, 60, 8), spacing=(3.2, 3.2, 12.0), seed=4)
    cases = read_cases([*files, *finer])
    plans = plan(cases[:3])
    slices = slices_on_disk(folder / "slices", cases[:3], plans)
    baseline = train(slices, plans, training(60, learning_rate=5e-3), FP32, seed=0).weights
    networks = {"baseline": baseline}
    for number, name in enumerate(SHARES, start=1):
        own = slices_on_disk(folder / name, [cases[number]], plans)
        networks[name] = train(own, plans, training(12), FP32, seed=number, initial=baseline).weights
    patients = slices_on_disk(folder / "patients", [replace(cases[4], case_id="finer"), cases[3]], plans)
    return World(plans, networks, patients[cases[3].case_id], patients["finer"], files[3])


def segmented(world: World, weights: Weights, case: CaseSlices | None = None) -> np.ndarray:
    predictor, case = world.predictor(), case or world.case
    predictor.take(weights)
    ((_, found),) = predictor.segment(Both({case.case_id: case}), [case.case_id])
    return found


def test_a_predictor_that_takes_other_weights_is_the_predictor_of_these(world: World):
    other = world.networks["one"]
    fresh = Predictor(other, world.plans, InferenceSettings(), ComputeSettings(), FP32)
    ((_, expected),) = fresh.segment(Both({world.case.case_id: world.case}), [world.case.case_id])
    np.testing.assert_array_equal(segmented(world, other), expected)
    assert (segmented(world, world.networks["baseline"]) != expected).any()


class TestMerger:
    def test_it_is_the_weighted_mean_of_the_changes(self, world: World):
        baseline = world.networks["baseline"]
        found = merged_weights(baseline, world.networks, SHARES)
        for name, value in baseline.items():
            changes = sum(share * (world.networks[donor][name] - value) for donor, share in SHARES.items())
            # rounding of single precision
            torch.testing.assert_close(found[name], value + changes, atol=1e-6, rtol=1e-5)
            assert found[name].dtype == value.dtype

    def test_one_donor_is_its_own_network(self, world: World):
        found = merged_weights(world.networks["baseline"], world.networks, {"one": 1.0})
        assert_same_weights(found, world.networks["one"])

    def test_nobody_is_the_baseline(self, world: World):
        found = merged_weights(world.networks["baseline"], world.networks, {})
        assert_same_weights(found, world.networks["baseline"])

    def test_nnunets_predictor_says_the_same_of_its_folder(self, world: World, tmp_path: Path):
        weights = merged_weights(world.networks["baseline"], world.networks, SHARES)
        (tmp_path / "model").mkdir()
        save_model(tmp_path / "model", Trained(weights, pd.DataFrame(), {}), world.plans)
        channels, _ = split_channels(world.files, tmp_path / "channels")
        theirs = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
        theirs.initialize_from_trained_model_folder(str(tmp_path / "model"), use_folds=("all",))
        theirs.predict_from_files_sequential([channels], [str(tmp_path / "found")])
        expected = np.asanyarray(nib.load(tmp_path / "found.nii.gz").dataobj)
        ours = as_in_file(segmented(world, weights), world.plans)
        assert expected.any()
        # nnU-Net sums logits in half precision, which moves single voxels at a border
        agreed = (ours == expected) & (ours > 0)
        assert 2 * agreed.sum() / ((ours > 0).sum() + (expected > 0).sum()) > 0.999


class TestEnsemble:
    def test_it_segments_by_the_mean_probability(self, world: World):
        predictor = world.predictor()
        found = ensembles(world.donors, {"both": SHARES}, world.case, world.plans, predictor, 1)["both"]
        probable = np.zeros(())
        for name, share in SHARES.items():
            predictor.take(world.networks[name])
            ((_, _, own),) = predictor.segment_with_probabilities(
                Both({world.case.case_id: world.case}), [world.case.case_id]
            )
            probable = probable + share * own
        box = tuple(slice(low, high) for low, high in world.case.properties["bbox_used_for_cropping"])
        assert found.any()
        assert found.shape == world.case.truth.shape
        # where two labels are equally probable, rounding decides
        assert (found[box] != probable.argmax(0)).mean() < 1e-4

    def test_of_one_network_it_is_that_networks_segmentation(self, world: World):
        alone, case = {"one": {"one": 1.0}}, world.finer
        found = ensembles(world.donors, alone, case, world.plans, world.predictor(), 1)["one"]
        assert found.shape != case.image.shape[1:]
        # logits are resampled from probabilities, which have another zero than the network's
        assert (found != segmented(world, world.networks["one"], case)).mean() < 0.005

    def test_several_at_once_are_the_same_as_each_alone(self, world: World):
        wanted = {"a": SHARES, "b": {"other": 1.0}}
        found = ensembles(world.donors, wanted, world.case, world.plans, world.predictor(), 1)
        for name, shares in wanted.items():
            (alone,) = ensembles(
                world.donors, {name: shares}, world.case, world.plans, world.predictor(), 1
            ).values()
            np.testing.assert_array_equal(found[name], alone)


class TestOpinions:
    def test_each_network_says_what_it_says_alone(self, world: World):
        found = dict(opinions(world.networks, world.case, world.predictor(), 2))
        assert list(found) == list(world.networks)
        for name, said in found.items():
            np.testing.assert_array_equal(said.labels, segmented(world, world.networks[name]))
            assert 0.25 < said.confidence < 1
            assert 0 <= said.turned <= 1

    def test_a_network_that_does_not_care_how_an_image_lies_says_the_same_of_it_turned(self, world: World):
        blind = {name: torch.zeros_like(value) for name, value in world.networks["baseline"].items()}
        ((_, said),) = opinions({"blind": blind}, world.case, world.predictor(), 1)
        assert said.turned == 1
        assert np.isnan(said.confidence)

    def test_of_many_cases_it_is_that_of_each_alone(self, world: World):
        cases = Both({"case": world.case, "finer": world.finer})
        found = opinions_on(world.predictor(), cases, ["finer", "case"], 2)
        for case, (seen, together) in zip((world.finer, world.case), found, strict=True):
            ((_, alone),) = opinions({"one": world.networks["baseline"]}, case, world.predictor(), 2)
            assert seen is case
            np.testing.assert_array_equal(together.labels, alone.labels)
            assert (together.confidence, together.turned) == (alone.confidence, alone.turned)

    def test_labels_come_back(self, tmp_path: Path):
        labels = np.random.default_rng(0).integers(0, 4, (3, 5, 6, 7)).astype(np.uint8)
        save_labels(tmp_path, labels)
        np.testing.assert_array_equal(load_labels(tmp_path), labels)


VERSIONS = {"a": "1", "b case": "2", "c": "3"}


class TestKept:
    @pytest.fixture
    def said(self, tmp_path: Path) -> dict[str, Opinion]:
        random = np.random.default_rng(0)
        said = {
            name: Opinion(random.integers(0, 4, shape).astype(np.uint8), confidence, turned)
            for name, shape, confidence, turned in (
                ("a", (5, 6, 7), 0.9, 0.25),
                ("b case", (2, 3, 4), np.nan, 1.0),
            )
        }
        with KeptOpinions(tmp_path, "network", VERSIONS, 4) as kept:
            for name, one in said.items():
                kept.add(name, one)
        return said

    def test_they_come_back(self, said: dict[str, Opinion], tmp_path: Path):
        found = dict(kept_opinions(tmp_path, "network", VERSIONS, 4))
        assert found.keys() == said.keys()
        for name, one in found.items():
            np.testing.assert_array_equal(one.labels, said[name].labels)
            np.testing.assert_equal((one.confidence, one.turned), (said[name].confidence, said[name].turned))

    @pytest.mark.parametrize(
        ("network", "cases", "step", "expected"),
        [
            ("other", VERSIONS, 4, set()),
            ("network", VERSIONS, 3, set()),
            ("network", {"a": "other", "b case": "2"}, 4, {"b case"}),
            ("network", {"c": "3"}, 4, set()),
        ],
    )
    def test_only_what_would_be_found_again(
        self,
        said: dict[str, Opinion],
        tmp_path: Path,
        network: str,
        cases: dict[str, str],
        step: int,
        expected: set,
    ):
        assert set(dict(kept_opinions(tmp_path, network, cases, step))) == expected

    def test_a_folder_that_keeps_none_has_none(self, tmp_path: Path):
        assert list(kept_opinions(tmp_path, "network", VERSIONS, 4)) == []


def test_features_of_the_encoder_tell_images_apart(world: World):
    baseline = world.networks["baseline"]
    one = pooled_features(baseline, world.plans, world.case, FP32)
    other_channels = CaseSlices("b", world.case.image[::-1].copy(), None, {}, world.case.properties, None)
    other = pooled_features(baseline, world.plans, other_channels, FP32)
    assert one.shape == other.shape
    assert np.isfinite(one).all()
    assert np.abs(one - other).max() > 0.01


def test_statistics_of_an_image(world: World):
    found = image_statistics(world.case)
    assert found.shape == (7 * len(BRAIN_TUMOUR.channels),)
    first = world.case.image[0].ravel().astype(float)
    np.testing.assert_allclose(found[:5], np.quantile(first, (0.05, 0.25, 0.5, 0.75, 0.95)))
    assert found[5] == pytest.approx(first.std())


def test_weights_are_held_as_far_as_memory_allows(world: World, tmp_path: Path):
    for name, weights in world.donors.items():
        (tmp_path / name).mkdir()
        save_model(tmp_path / name, Trained(weights, pd.DataFrame(), {}), world.plans)
    size = sum(value.nbytes for value in world.networks["one"].values())
    held = HeldWeights(1.5 * size / 1e9)
    one, other = (held[tmp_path / name] for name in SHARES)
    assert held[tmp_path / "one"] is one
    assert held[tmp_path / "other"] is not other
    assert_same_weights(held[tmp_path / "other"], load_weights(tmp_path / "other"))


def test_a_training_lets_go_of_the_weights_that_were_held(world: World, tmp_path: Path):
    held = held_weights(1.0)
    assert held_weights(1.0) is held
    cases = slices_on_disk(tmp_path / "slices", read_cases([world.files]), world.plans)
    folder = tmp_path / "model"
    folder.mkdir()
    task = SimpleNamespace(compute=ComputeSettings(device="cpu"), track=silently, key="one", folder=folder)
    train_into(cast(Task, task), cases, world.plans, training(1), seed=0)
    assert held_weights(1.0) is not held
