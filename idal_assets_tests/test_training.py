"""Training is nnU-Net's: its batches, its losses, its schedule; repeatable, and readable by its predictor."""

import json
import math
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from idal_assets.imaging.brain_tumour import LABELS
from idal_assets.nnunet.augmentation import BatchAugmentation
from idal_assets.nnunet.compute import Compute
from idal_assets.nnunet.model_folder import CHECKPOINT, load_history, load_weights, save_model
from idal_assets.nnunet.network import accelerate, build_network
from idal_assets.nnunet.patches import PatchSource, derived_seed, prefetched, seed_global_generators
from idal_assets.nnunet.plans import Plans
from idal_assets.nnunet.slices import CaseSlices, SlicesOnDisk
from idal_assets.nnunet.training import Trained, train
from idal_assets.nnunet.variants import OUTSIDE
from idal_assets.settings import ComputeSettings, TrainingSettings
from idal_assets_tests.small_models import (
    FP32,
    assert_same_weights,
    noise_weights,
    phantom_files,
    plan,
    read_cases,
    slices_on_disk,
    training,
)

pytestmark = pytest.mark.graph


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cases")


@pytest.fixture(scope="module")
def plans(folder: Path) -> Plans:
    return plan(read_cases(phantom_files(folder / "raw", 3)))


@pytest.fixture(scope="module")
def cases(folder: Path, plans: Plans) -> SlicesOnDisk:
    return slices_on_disk(folder / "slices", read_cases(phantom_files(folder / "raw", 3)), plans)


def on_disk(folder: Path, names: Sequence[str]) -> SlicesOnDisk:
    """Some of the cases."""
    return SlicesOnDisk({name: folder / "slices" / name for name in names}, 1)


@pytest.fixture
def trainer(plans: Plans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nnUNetTrainer:
    """nnU-Net's own trainer of the same plans, which needs folders."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path / name))
    values = {**plans.values, "continue_training": False}
    return nnUNetTrainer(values, "2d", "all", plans.dataset, torch.device("cpu"))


class TestRepeatability:
    SETTINGS = training(12, 4)

    @pytest.fixture(scope="class")
    def trained(self, cases: SlicesOnDisk, plans: Plans) -> Trained:
        return train(cases, plans, self.SETTINGS, FP32, seed=5)

    def test_same_seed_gives_the_same_bits(self, cases: SlicesOnDisk, plans: Plans, trained: Trained):
        again = train(cases, plans, self.SETTINGS, FP32, seed=5)
        assert_same_weights(again.weights, trained.weights)
        assert again.history.equals(trained.history)

    def test_same_seed_gives_the_same_bits_on_two_threads(self, cases: SlicesOnDisk, plans: Plans):
        compute = Compute(torch.device("cpu"), None, 2)
        one, other = (train(cases, plans, training(3), compute, seed=5) for _ in range(2))
        assert_same_weights(one.weights, other.weights)
        assert one.history.equals(other.history)

    def test_another_seed_gives_another_network(self, cases: SlicesOnDisk, plans: Plans, trained: Trained):
        other = train(cases, plans, self.SETTINGS, FP32, seed=6)
        heads = [name for name in trained.weights if "seg_layers" in name and name.endswith("weight")]
        assert heads
        assert not any(torch.equal(other.weights[name], trained.weights[name]) for name in heads)
        assert not np.isclose(other.history["loss"], trained.history["loss"]).any()

    def test_initial_weights_and_batches_follow_the_seed_alone(self, cases: SlicesOnDisk, plans: Plans):
        """Whatever was drawn before: other trainings in the process, nnU-Net's planner, a test before this one."""
        settings = training(1)
        first = train(cases, plans, settings, FP32, seed=5)
        np.random.seed(99)  # noqa: NPY002
        torch.manual_seed(99)
        assert_same_weights(train(cases, plans, settings, FP32, seed=5).weights, first.weights)

    def test_history_has_a_row_an_iteration_and_pseudo_dice_an_epoch(self, trained: Trained):
        history = trained.history
        assert list(history["iteration"]) == list(range(1, 13))
        assert history["loss"].notna().all()
        for name in LABELS.values():
            assert list(history.index[history[f"pseudo_dice_{name}"].notna()]) == [3, 7, 11]
            assert history[f"pseudo_dice_{name}"].dropna().between(0, 1).all()


class TestInitialWeights:
    def test_all_of_them_are_used(self, cases: SlicesOnDisk, plans: Plans):
        """A training that hardly moves returns what it started from, segmentation heads too."""
        initial = noise_weights(plans)
        assert any("seg_layers" in name for name in initial)
        found = train(cases, plans, training(2, learning_rate=1e-12), FP32, seed=0, initial=initial).weights
        assert found.keys() == initial.keys()
        for name, value in initial.items():
            # Adam moves a weight by at most about the rate an iteration
            torch.testing.assert_close(found[name], value, rtol=0, atol=1e-11, msg=name)

    def test_given_weights_are_not_changed(self, cases: SlicesOnDisk, plans: Plans):
        initial = noise_weights(plans)
        train(cases, plans, training(2), FP32, seed=0, initial=initial)
        assert_same_weights(initial, noise_weights(plans))

    def test_weights_of_another_network_are_refused(self, cases: SlicesOnDisk, plans: Plans):
        initial = noise_weights(plans)
        del initial["decoder.seg_layers.0.weight"]
        with pytest.raises(RuntimeError, match=r"seg_layers\.0\.weight"):
            train(cases, plans, training(1), FP32, seed=0, initial=initial)


class TestLoss:
    def first_loss(self, cases: SlicesOnDisk, plans: Plans, **settings: Any) -> float:
        initial = noise_weights(plans)
        return float(train(cases, plans, training(1, **settings), FP32, 3, initial).history["loss"][0])

    def logits_and_targets(
        self, cases: SlicesOnDisk, plans: Plans
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Of the first iteration."""
        torch.set_num_threads(FP32.threads)
        network = fast_network(plans)
        batch = PatchSource(cases, plans, 1 / 3, 3, FP32.device).batch(0)
        with torch.no_grad():
            return network.train()(batch.image), batch.targets

    def test_dice_and_cross_entropy_is_that_of_nnunets_trainer(
        self, cases: SlicesOnDisk, plans: Plans, trainer: nnUNetTrainer
    ):
        expected = trainer._build_loss()(*self.logits_and_targets(cases, plans)).item()
        assert self.first_loss(cases, plans, loss="dice_ce") == expected

    def test_cross_entropy_is_weighted_by_resolution(self, cases: SlicesOnDisk, plans: Plans):
        logits, targets = self.logits_and_targets(cases, plans)
        assert len(logits) == 3
        weights = (2 / 3, 1 / 3, 0)  # 1, 1/2 and, as in nnU-Net, nothing for the lowest; they sum to 1
        expected = sum(
            weight * torch.nn.functional.cross_entropy(output, target[:, 0].long())
            for weight, output, target in zip(weights, logits, targets, strict=True)
        )
        # the sums are taken in another order
        assert self.first_loss(cases, plans, loss="ce") == pytest.approx(float(expected), rel=1e-6)

    def test_loss_goes_down(self, cases: SlicesOnDisk, plans: Plans):
        loss = train(cases, plans, training(60), FP32, seed=0).history["loss"]
        assert loss.iloc[-15:].mean() < loss.iloc[:15].mean() - 0.3

    def test_loss_that_is_not_finite_stops_and_names_the_iteration(self, cases: SlicesOnDisk, plans: Plans):
        size = plans.configuration.batch_size
        with pytest.raises(FloatingPointError, match=r"iteration 7;.*learning rate"):
            train(Spoiled(cases, after=6 * size), plans, training(8, 4), FP32, seed=0)


class Spoiled:
    """Cases that turn into NaN after some draws."""

    def __init__(self, cases: SlicesOnDisk, after: int) -> None:
        self._cases, self._left, self.names = cases, after, cases.names

    def __getitem__(self, name: str) -> CaseSlices:
        case = self._cases[name]
        self._left -= 1
        if self._left >= 0:
            return case
        return CaseSlices(
            name, np.full_like(case.image, np.nan), case.label, case.foreground, case.properties, case.truth
        )


def fast_network(plans: Plans) -> nn.Module:
    network = build_network(plans, deep_supervision=True)
    network.load_state_dict(noise_weights(plans))
    return accelerate(network, plans, FP32)


def plain_training(
    cases: SlicesOnDisk, plans: Plans, settings: TrainingSettings, seed: int, trainer: nnUNetTrainer
) -> tuple[dict[str, torch.Tensor], list[float], list[float]]:
    """The training as nnU-Net's trainer would write it down: weights, losses and learning rates."""
    torch.set_num_threads(FP32.threads)
    network = fast_network(plans)
    if settings.optimizer == "sgd":
        trainer.network, trainer.num_epochs = network, settings.iterations
        trainer.initial_lr, trainer.weight_decay = settings.learning_rate, settings.weight_decay
        optimizer, schedule = trainer.configure_optimizers()
    else:
        optimizer = torch.optim.Adam(network.parameters(), settings.learning_rate, weight_decay=3e-5, fused=True)
        schedule = PolyLRScheduler(optimizer, settings.learning_rate, settings.iterations)
    loss_function = trainer._build_loss()
    source = PatchSource(cases, plans, settings.foreground_share, seed, FP32.device)
    losses, rates = [], []
    for iteration in range(settings.iterations):
        schedule.step(iteration)
        rates.append(optimizer.param_groups[0]["lr"])
        batch = source.batch(iteration)
        loss = loss_function(network(batch.image), batch.targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), settings.gradient_clip)
        optimizer.step()
        losses.append(loss.item())
    return network.state_dict(), losses, rates


class TestLoop:
    # nnU-Net clips at 12; the lower bound makes sure that something is clipped
    @pytest.mark.parametrize(("optimizer", "gradient_clip"), [("sgd", 12), ("sgd", 0.1), ("adam", 12)])
    def test_equals_a_plain_loop_over_nnunets_parts(
        self, cases: SlicesOnDisk, plans: Plans, trainer: nnUNetTrainer, optimizer: str, gradient_clip: float
    ):
        settings = training(6, optimizer=optimizer, learning_rate=1e-2, gradient_clip=gradient_clip)
        expected, losses, rates = plain_training(cases, plans, settings, 7, trainer)
        # nnU-Net's schedule: polynomial with exponent 0.9, to zero after the last iteration
        assert rates == pytest.approx([1e-2 * (1 - iteration / 6) ** 0.9 for iteration in range(6)])
        found = train(cases, plans, settings, FP32, 7, noise_weights(plans))
        assert list(found.history["loss"]) == losses
        assert_same_weights(found.weights, expected)

    def test_pseudo_dice_is_that_of_the_patches_of_the_epoch(
        self, cases: SlicesOnDisk, plans: Plans, trainer: nnUNetTrainer
    ):
        history = train(cases, plans, training(1), FP32, 7, noise_weights(plans)).history
        network = fast_network(plans)
        batch = PatchSource(cases, plans, 1 / 3, 7, FP32.device).batch(0)
        predicted, truth = network(batch.image)[0].argmax(1).numpy(), batch.targets[0][:, 0].numpy()
        for value, name in LABELS.items():
            sizes = (predicted == value).sum() + (truth == value).sum()
            expected = 2 * ((predicted == value) & (truth == value)).sum() / sizes
            assert history[f"pseudo_dice_{name}"][0] == pytest.approx(expected)

    def test_mixed_precision_computes_in_bfloat16_and_keeps_fp32_weights(self, cases: SlicesOnDisk, plans: Plans):
        mixed = Compute.choose(ComputeSettings(device="cpu", precision="mixed", threads=2))
        exact = train(cases, plans, training(1), FP32, 7, noise_weights(plans))
        found = train(cases, plans, training(1), mixed, 7, noise_weights(plans))
        assert {value.dtype for value in found.weights.values()} == {torch.float32}
        # bfloat16 has 8 bits: close, and not the same number
        assert found.history["loss"][0] != exact.history["loss"][0]
        assert found.history["loss"][0] == pytest.approx(exact.history["loss"][0], rel=0.05)


class TestThreads:
    # from six threads on, augmentation has one to itself; with fewer the network waits for it and takes all
    @pytest.mark.parametrize(("threads", "expected"), [(1, 1), (2, 2), (5, 5), (6, 5)])
    def test_network_and_augmentation_never_compete(
        self, cases: SlicesOnDisk, plans: Plans, threads: int, expected: int
    ):
        """The thread that prepares batches restricts itself to one, which must not reach the network's."""
        seen = []

        def track(items: Sequence[int], description: str) -> Iterator[int]:
            for item in items:
                seen.append((torch.get_num_threads(), pools_of_this_thread()))
                yield item

        torch.set_num_threads(expected + 1)
        compute = Compute(torch.device("cpu"), None, threads)
        train(cases, plans, training(3), compute, seed=0, track=track)
        assert seen == [(expected, {str(expected)})] * 3

    def test_also_the_first_training_of_a_process_takes_all_threads(
        self, cases: SlicesOnDisk, plans: Plans, tmp_path: Path
    ):
        """PyTorch gives a thread its number at its first parallel operator, when another may have set its own."""
        plans.save(tmp_path)
        folders = {name: str(cases._folders[name]) for name in cases.names}
        done = subprocess.run(
            [sys.executable, "-c", FIRST_TRAINING, str(tmp_path), json.dumps(folders)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == ["2", "2", "2"]


FIRST_TRAINING = """
import json, sys
from pathlib import Path
import torch
from idal_assets.nnunet.compute import Compute
from idal_assets.nnunet.plans import Plans
from idal_assets.nnunet.slices import SlicesOnDisk
from idal_assets.nnunet.training import train
from idal_assets.settings import TrainingSettings

def track(items, description):
    for item in items:
        yield item
        print(torch.get_num_threads())

cases = SlicesOnDisk({name: Path(path) for name, path in json.loads(sys.argv[2]).items()}, 1.0)
settings = TrainingSettings(epochs=1, iterations_per_epoch=3)
train(cases, Plans.load(Path(sys.argv[1])), settings, Compute(torch.device("cpu"), None, 2), seed=0, track=track)
"""


def pools_of_this_thread() -> set[str]:
    """Threads that OpenMP and, where torch has it, MKL would take here."""
    return set(re.findall(r"(?:omp|mkl)_get_max_threads\(\) : (\d+)", torch.__config__.parallel_info()))


class TestBatches:
    def source(self, cases: SlicesOnDisk, plans: Plans, share: float = 0.5, seed: int = 1) -> PatchSource:
        return PatchSource(cases, plans, share, seed, FP32.device)

    def nnunets_transforms(self, trainer: nnUNetTrainer) -> tuple[ComposeTransforms, Sequence[int]]:
        """What the trainer augments with, and the size of the patches that it draws for that."""
        rotation, dummy_2d, drawn_size, mirror_axes = (
            trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        )
        transforms = trainer.get_training_transforms(
            trainer.configuration_manager.patch_size,
            rotation,
            trainer._get_deep_supervision_scales(),
            mirror_axes,
            dummy_2d,
            use_mask_for_norm=trainer.configuration_manager.use_mask_for_norm,
            foreground_labels=trainer.label_manager.foreground_labels,
        )
        return transforms, drawn_size

    def test_are_drawn_as_by_nnunets_loader(self, cases: SlicesOnDisk, plans: Plans, trainer: nnUNetTrainer):
        _, drawn_size = self.nnunets_transforms(trainer)

        def load_case(name: str) -> tuple:
            case = cases[name]
            return case.image, case.label[None], None, {"class_locations": dict(case.foreground)}

        def loader(name: str, on_foreground: bool) -> nnUNetDataLoader:
            """nnU-Net's loader of one slot; choosing from one name draws nothing."""
            return nnUNetDataLoader(
                SimpleNamespace(identifiers=[name], load_case=load_case),
                1,
                drawn_size,
                trainer.configuration_manager.patch_size,
                trainer.label_manager,
                oversample_foreground_percent=float(on_foreground),
            )

        source = self.source(cases, plans, share=1 / 3)
        drawn_names = set()
        for number in range(6):
            image, label = source.draw(number)
            for place in range(4):
                name = source.drawn_case(number, place)
                drawn_names.add(name)
                seed_global_generators(1, number, place, name)
                expected = loader(name, on_foreground=place == 3).generate_train_batch()
                for found, wanted in ((image[place], expected["data"][0]), (label[place], expected["target"][0])):
                    assert torch.equal(found, wanted)
                    assert found.dtype == wanted.dtype
        assert drawn_names == set(cases.names)

    def test_two_sets_differ_only_where_a_removed_case_was_drawn(
        self, cases: SlicesOnDisk, plans: Plans, folder: Path
    ):
        whole = self.source(cases, plans)
        removed, *kept = cases.names
        fewer = PatchSource(on_disk(folder, kept), plans, 0.5, 1, FP32.device, pool=cases.names)
        differing, redrawn = [], []
        for number in range(8):
            all_patches, patches = whole.batch(number).image, fewer.batch(number).image
            differing += [not torch.equal(one, other) for one, other in zip(all_patches, patches, strict=True)]
            redrawn += [whole.drawn_case(number, place) == removed for place in range(4)]
        assert any(redrawn) and not all(redrawn)
        assert differing == redrawn

    def test_cases_that_may_be_drawn_are_equally_frequent_whatever_is_removed(
        self, cases: SlicesOnDisk, plans: Plans, folder: Path
    ):
        kept = cases.names[1:]
        source = PatchSource(on_disk(folder, kept), plans, 0.5, 1, FP32.device, pool=cases.names)
        counts = Counter(source.drawn_case(number, place) for number in range(300) for place in range(4))
        assert set(counts) == set(kept)
        # 1200 draws: four standard deviations of a binomial count
        share = 1 / len(kept)
        assert (
            max(abs(count / 1200 - share) for count in counts.values()) < 4 * (share * (1 - share) / 1200) ** 0.5
        )

    def test_are_augmented_as_the_trainer_of_the_plans_would(
        self, cases: SlicesOnDisk, plans: Plans, trainer: nnUNetTrainer
    ):
        transforms, _ = self.nnunets_transforms(trainer)
        augment = BatchAugmentation(transforms, [OUTSIDE, *trainer.label_manager.all_labels])
        source = self.source(cases, plans)
        seeds = [derived_seed(1, number, "augmentation") for number in range(3)]
        assert len(set(seeds)) == 3
        for number, seed in enumerate(seeds):
            assert_same_batch(source.batch(number), *augment(*source.draw(number), seed))

    def test_have_the_shapes_of_the_plans(self, cases: SlicesOnDisk, plans: Plans):
        batch = self.source(cases, plans).batch(0)
        assert plans.patch_size == (48, 40)
        assert batch.image.shape == (4, 4, 48, 40)
        assert [tuple(target.shape) for target in batch.targets] == [
            (4, 1, 48, 40),
            (4, 1, 24, 20),
            (4, 1, 12, 10),
        ]
        assert set(batch.targets[0].unique().tolist()) <= {0, 1, 2, 3}

    def test_depend_on_seed_and_number_alone(self, cases: SlicesOnDisk, plans: Plans):
        source = self.source(cases, plans)
        for number in (0, 1, 2):
            source.batch(number)
        torch.rand(3)
        batch = source.batch(3)
        expected = self.source(cases, plans).batch(3)
        assert_same_batch(batch, expected.image, expected.targets)

    def test_differ_by_seed_and_by_number(self, cases: SlicesOnDisk, plans: Plans):
        images = [
            self.source(cases, plans, seed=seed).batch(number).image for seed, number in ((1, 0), (1, 1), (2, 0))
        ]
        assert not torch.equal(images[0], images[1])
        assert not torch.equal(images[0], images[2])

    @pytest.mark.parametrize(("share", "certain"), [(0.0, 0), (0.5, 2), (1.0, 4)])
    def test_last_patches_of_a_batch_show_tumour(
        self, cases: SlicesOnDisk, plans: Plans, share: float, certain: int
    ):
        source = self.source(cases, plans, share)
        targets = torch.stack([source.batch(number).targets[0] for number in range(25)])
        shows_tumour = (targets > 0).flatten(2).any(2)
        # rotation and scaling about the tumour voxel in the centre leave it in the patch, but for a patch that was
        # moved inwards at the border
        assert shows_tumour[:, 4 - certain :].float().mean() > 0.97 or certain == 0
        assert shows_tumour[:, : 4 - certain].float().mean() < 0.9 or certain == 4

    def test_every_case_is_drawn(self, cases: SlicesOnDisk, plans: Plans):
        drawn = Noted(cases)
        source = self.source(drawn, plans)
        for number in range(30):
            source.batch(number)
        counts = [drawn.seen.count(name) for name in cases.names]
        assert sum(counts) == 120
        # equally often: 40 each, and 5 standard deviations of a binomial count
        assert all(abs(count - 40) < 5 * math.sqrt(120 * 2 / 9) for count in counts)


class Noted:
    """Cases that note which of them are asked for."""

    def __init__(self, cases: SlicesOnDisk) -> None:
        self._cases, self.names, self.seen = cases, cases.names, []

    def __getitem__(self, name: str) -> CaseSlices:
        self.seen.append(name)
        return self._cases[name]


def assert_same_batch(batch: Any, image: torch.Tensor, targets: Sequence[torch.Tensor]) -> None:
    assert torch.equal(batch.image, image)
    assert len(batch.targets) == len(targets)
    for found, expected in zip(batch.targets, targets, strict=True):
        assert torch.equal(found, expected)


class TestPrefetching:
    @pytest.mark.parametrize("ahead", [0, 1, 3, 20])
    def test_yields_the_same_batches_in_order(self, cases: SlicesOnDisk, plans: Plans, ahead: int):
        source = PatchSource(cases, plans, 1 / 3, 1, FP32.device)
        found = list(prefetched(source, 7, ahead))
        assert len(found) == 7
        for number, batch in enumerate(found):
            expected = source.batch(number)
            assert_same_batch(batch, expected.image, expected.targets)

    def test_raises_what_the_source_raises(self):
        def batch(number: int) -> int:
            if number == 2:
                raise ValueError("unreadable")
            return number

        batches = prefetched(SimpleNamespace(batch=batch), 5, ahead=3)
        assert [next(batches), next(batches)] == [0, 1]
        with pytest.raises(ValueError, match="unreadable"):
            next(batches)

    def test_stops_when_nobody_listens_any_more(self):
        prepared = []
        batches = prefetched(SimpleNamespace(batch=prepared.append), 1000, ahead=3)
        next(batches)
        batches.close()
        assert len(prepared) < 10

    @pytest.mark.parametrize(("ahead", "expected"), [(0, 2), (3, 5)])
    def test_prepares_as_many_as_are_asked_for(self, ahead: int, expected: int):
        prepared = []
        batches = prefetched(SimpleNamespace(batch=prepared.append), 1000, ahead)
        next(batches)
        next(batches)
        time.sleep(0.2)
        assert len(prepared) == expected
        batches.close()


class TestModelFolder:
    @pytest.fixture(scope="class")
    def trained(self, cases: SlicesOnDisk, plans: Plans) -> Trained:
        return train(cases, plans, training(4, 2), FP32, seed=0)

    def test_checkpoint_holds_only_tensors_and_plain_values(self, trained: Trained, plans: Plans, tmp_path: Path):
        save_model(tmp_path, trained, plans)
        checkpoint = torch.load(tmp_path / CHECKPOINT, weights_only=True)
        assert_same_weights(checkpoint["network_weights"], trained.weights)
        assert_same_weights(load_weights(tmp_path), trained.weights)

    def test_history_survives_the_file(self, trained: Trained, plans: Plans, tmp_path: Path):
        save_model(tmp_path, trained, plans)
        loaded = load_history(tmp_path)
        assert list(loaded.columns) == list(trained.history.columns)
        np.testing.assert_array_equal(loaded.to_numpy(), trained.history.to_numpy())

    def test_nnunets_predictor_takes_the_folder(self, trained: Trained, plans: Plans, tmp_path: Path):
        save_model(tmp_path, trained, plans)
        predictor = nnUNetPredictor(device=torch.device("cpu"))
        predictor.initialize_from_trained_model_folder(str(tmp_path), use_folds=("all",))
        assert_same_weights(predictor.network.state_dict(), trained.weights)
        assert predictor.allowed_mirroring_axes == (0, 1)
        assert predictor.trainer_name == "nnUNetTrainer"

    def test_mirroring_axes_are_those_of_nnunets_training(self, trained: Trained, plans: Plans, tmp_path: Path):
        save_model(tmp_path, trained, plans)
        stand_in = SimpleNamespace(configuration_manager=plans.configuration, print_to_log_file=print)
        nnUNetTrainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size(stand_in)
        stored = torch.load(tmp_path / CHECKPOINT, weights_only=True)["inference_allowed_mirroring_axes"]
        assert stored == stand_in.inference_allowed_mirroring_axes
