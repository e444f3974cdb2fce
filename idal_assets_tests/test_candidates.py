"""Candidates for the baseline: trained and judged on different cases, in 2D and 3D, compared, the best chosen."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from rich.progress import Progress as Bars

from idal_assets.analysis.scores import confusion, score_table
from idal_assets.imaging.brain_tumour import BRAIN_TUMOUR
from idal_assets.nnunet.compute import Compute
from idal_assets.nnunet.geometry import to_nnunet
from idal_assets.nnunet.in_3d import volume_batches, workers
from idal_assets.nnunet.model_folder import load_history, load_weights
from idal_assets.nnunet.plans import Plans, make_plans
from idal_assets.nnunet.slices import SlicesOnDisk
from idal_assets.nnunet.training import train
from idal_assets.orchestration.instance import open_instance
from idal_assets.orchestration.runner import Made, Runner, StepFailedError
from idal_assets.profile import PROFILE_FOLDER, ProfileError
from idal_assets.progress import silently
from idal_assets.settings import PlansSettings
from idal_assets.steps import networks
from idal_assets.steps.baseline import Comparison, ComparisonError, baseline_sections, load_comparison
from idal_assets.steps.checks import trained_well
from idal_assets.store.artifacts import Inputs
from idal_assets.study.graph import GRAPH, upstream_of
from idal_assets.study.making import Task, make
from idal_assets.study.roles import draw_held_out
from idal_assets.study.study import Study
from idal_assets_tests.small_models import (
    FP32,
    assert_same_weights,
    phantom_files,
    plan,
    read_cases,
    slices_on_disk,
    training,
)
from idal_assets_tests.studies import as_written, give_new_version, make_study, with_settings

pytestmark = [pytest.mark.graph, pytest.mark.usefixtures("blank_pictures")]

NAMES = ("2d_dice_ce", "2d_ce", "3d_dice_ce")
SCHEDULE = {"epochs": 2, "iterations_per_epoch": 3, "optimizer": "adam", "learning_rate": 3.0e-3}
CANDIDATES = {"names": list(NAMES), "held_out_share": 0.4, "training_2d": SCHEDULE, "training_3d": SCHEDULE}
UP_TO_THE_BASELINE = upstream_of("baseline_weights")


def run(study: Study) -> Made:
    with open_instance(study.folder) as instance:
        return Runner(study, instance, Bars(disable=True), silently).run(UP_TO_THE_BASELINE)


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    values = yaml.safe_load((PROFILE_FOLDER / "tiny.yaml").read_text())
    path = tmp_path_factory.mktemp("profile") / "own.yaml"
    path.write_text(yaml.safe_dump({**values, "candidates": CANDIDATES, "compute": {"precision": "fp32"}}))
    return path


@pytest.fixture(scope="module")
def learned() -> dict[str, list[str]]:
    """Which cases each training was given."""
    return {}


@pytest.fixture(scope="module")
def compared(
    profile: Path, learned: dict[str, list[str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Study]:
    """All candidates of a phantom study, made and checked on a real instance; tests only look."""

    def noting(cases: SlicesOnDisk, *arguments: Any) -> Any:
        (description,) = (one for one in arguments if isinstance(one, str))
        learned[description] = list(cases.names)
        return train(cases, *arguments)

    study = Study.open(tmp_path_factory.mktemp("compared"), profile)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "train", noting)
        made = run(study)
    assert made.made["baseline_candidate"] == 3
    assert made.made["baseline_comparison"] == made.made["baseline_weights"] == 1
    yield study


@pytest.fixture
def copied(compared: Study, tmp_path: Path) -> Study:
    """The same in a place where it may be changed."""
    shutil.copytree(compared.folder.root, tmp_path / "data", copy_function=shutil.copy2)
    return Study(compared.profile, tmp_path / "data", None, compared.profile_source)


# --- which cases ---


def test_no_candidate_learns_from_a_case_that_it_is_judged_on(
    compared: Study, learned: dict[str, list[str]]
) -> None:
    cohort = compared.cohort
    held_out = set(draw_held_out(cohort.baseline_cases, 0.4, compared.profile.seed))
    assert len(held_out) == 2
    assert held_out < set(cohort.baseline_cases)
    for name in NAMES:
        assert set(learned[f"train {name}"]) == set(cohort.baseline_cases) - held_out
        judged = pd.read_parquet(compared.path("baseline_candidate", name) / "held_out.parquet")
        assert set(judged["case_id"]) == held_out
        assert len(judged) == 2 * 6
    assert set(learned["train baseline_weights"]) == set(cohort.baseline_cases)


def test_no_test_case_takes_part(compared: Study, learned: dict[str, list[str]]) -> None:
    tests = set(compared.cohort.tests)
    assert len(tests) == 2
    assert not tests & {case for cases in learned.values() for case in cases}
    for name in NAMES:
        made_from = compared.provenance("baseline_candidate", name).inputs.made_from
        (source,) = made_from.keys() & {"case_slices", "raw_case"}
        assert source == ("raw_case" if name.startswith("3d") else "case_slices")
        assert set(made_from[source]) == set(compared.cohort.baseline_cases)


# --- what a candidate is ---


def test_candidates_are_of_their_configuration_and_loss(compared: Study) -> None:
    losses = {}
    for name in NAMES:
        folder = compared.path("baseline_candidate", name)
        dimensions = {value.ndim - 2 for key, value in load_weights(folder).items() if key.endswith("conv.weight")}
        assert dimensions == {3 if name.startswith("3d") else 2}
        assert not trained_well(compared, "baseline_candidate", name).problems
        losses[name] = load_history(folder)["loss"]
        assert len(losses[name]) == 6
        assert not [path for path in folder.iterdir() if path.is_dir() and path.name != "fold_all"]
    # The same network and batches: the Dice is all that is between the first losses, and it is negative.
    assert losses["2d_dice_ce"][0] < losses["2d_ce"][0]


def test_nnunets_predictor_reads_the_3d_model_and_finds_the_same(compared: Study) -> None:
    folder = compared.path("baseline_candidate", "3d_dice_ce")
    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder), use_folds=("all",))
    assert len(predictor.configuration_manager.patch_size) == 3
    assert predictor.allowed_mirroring_axes == (0, 1, 2)
    rows = pd.read_parquet(folder / "held_out.parquet")
    for name, stored in rows.groupby("case_id"):
        image, label, properties = to_nnunet(compared.read_case(str(name)))
        found = predictor.predict_single_npy_array(image, properties)
        assert len(np.unique(found)) > 1
        expected = score_table(
            confusion(label[0].astype(np.uint8), found.astype(np.uint8), BRAIN_TUMOUR), BRAIN_TUMOUR.regions
        )
        pd.testing.assert_frame_equal(stored[expected.columns].reset_index(drop=True), expected, check_exact=True)


def test_width_of_the_profile_is_that_of_the_3d_network_too(compared: Study) -> None:
    plans = Plans.load(compared.path("nnunet_plans"))
    for configuration in ("2d", "3d_fullres"):
        assert plans.of(configuration).configuration.network_arch_init_kwargs["features_per_stage"][0] == 4
    assert plans.of("3d_fullres").version != plans.version == compared.version("nnunet_plans")


# --- 3D batches ---


@pytest.fixture(scope="module")
def in_3d(tmp_path_factory: pytest.TempPathFactory) -> tuple[SlicesOnDisk, Plans]:
    folder = tmp_path_factory.mktemp("volumes")
    cases = read_cases(phantom_files(folder / "raw", 2))
    plans = plan(cases).of("3d_fullres")
    return slices_on_disk(folder / "volumes", cases, plans), plans


def test_batches_are_the_same_from_a_process_of_their_own(in_3d: tuple[SlicesOnDisk, Plans]) -> None:
    cases, plans = in_3d
    apart = Compute(torch.device("cpu"), None, 6)
    assert (workers(FP32), workers(apart), workers(Compute(torch.device("cuda"), None, 4))) == (0, 1, 3)
    one, other = (list(volume_batches(cases, plans, training(4), compute, 3)) for compute in (FP32, apart))
    size = plans.configuration.batch_size
    for batch, again in zip(one, other, strict=True):
        assert batch.image.shape == (size, 4, *plans.patch_size)
        assert batch.targets[0].shape == (size, 1, *plans.patch_size)
        assert torch.equal(batch.image, again.image)
        assert all(torch.equal(*pair) for pair in zip(batch.targets, again.targets, strict=True))
    assert not torch.equal(one[0].image, one[1].image)


def test_training_in_3d_is_repeatable_and_its_loss_goes_down(in_3d: tuple[SlicesOnDisk, Plans]) -> None:
    cases, plans = in_3d
    first = train(cases, plans, training(20), FP32, 5)
    assert first.history["loss"].tail(5).mean() < first.history["loss"].head(5).mean()
    again = train(cases, plans, training(20), FP32, 5)
    assert_same_weights(again.weights, first.weights)


# --- the comparison ---


def compare_again(study: Study) -> Comparison | None:
    give_new_version(study, "baseline_candidate", "2d_ce")
    make(study, "baseline_comparison")
    return load_comparison(study.path("baseline_comparison"))


def in_the_report(study: Study) -> Task:
    """What the report is given of a study that got as far as the comparison."""
    node = GRAPH["experiment_report"]
    made_from = {name: study.version(name) for name in ("cohort", "baseline_comparison")}
    inputs = Inputs(code=node.code, settings=dict.fromkeys(node.settings), made_from=made_from)
    return Task(study, node, None, inputs, study.path(node.name))


def give_dice(study: Study, name: str, dice: float) -> None:
    file = study.path("baseline_candidate", name) / "held_out.parquet"
    pd.read_parquet(file).assign(dice=dice).to_parquet(file)
    as_written(file.parent)


def test_comparison_holds_what_the_candidates_say(compared: Study) -> None:
    found = load_comparison(compared.path("baseline_comparison"))
    assert found is not None
    table = found.table.set_index("candidate")
    assert list(table.index) == list(NAMES)
    assert list(table["epochs"]) == [2, 2, 2]
    assert list(table["iterations"]) == [6, 6, 6]
    for name in NAMES:
        rows = pd.read_parquet(compared.path("baseline_candidate", name) / "held_out.parquet")
        of_cases = rows[rows["region"].isin(["WT", "TC", "ET"])].groupby("case_id")["dice"].mean()
        assert table.loc[name, "dice"] == pytest.approx(of_cases.mean())
        assert table.loc[name, "dice_WT"] == pytest.approx(rows.loc[rows["region"] == "WT", "dice"].mean())
        last = load_history(compared.path("baseline_candidate", name)).filter(like="pseudo").iloc[-1]
        assert table.loc[name, "pseudo_dice"] == pytest.approx(last.mean())
        assert table.loc[name, "seconds"] == compared.provenance("baseline_candidate", name).seconds
    assert "no cascade" in found.cascade


@pytest.mark.parametrize(("dice", "best"), [((0.5, 0.6, 0.9), "2d_ce"), ((0.7, 0.6, 0.9), "2d_dice_ce")])
def test_the_best_is_the_2d_candidate_with_the_highest_true_dice(
    copied: Study, tmp_path: Path, dice: tuple[float, ...], best: str
) -> None:
    for name, value in zip(NAMES, dice, strict=True):
        give_dice(copied, name, value)
    found = compare_again(copied)
    assert found is not None
    assert found.best_2d == best
    assert list(found.table["dice"]) == pytest.approx(dice)


def test_candidates_judged_on_different_cases_are_not_compared(copied: Study, tmp_path: Path) -> None:
    file = copied.path("baseline_candidate", "2d_ce") / "held_out.parquet"
    rows = pd.read_parquet(file)
    rows[rows["case_id"] == rows["case_id"].iloc[0]].to_parquet(file)
    as_written(file.parent)
    with pytest.raises(ComparisonError, match=r"2d_dice_ce and 2d_ce were judged on different cases.*materialize"):
        compare_again(copied)


def test_without_candidates_there_is_nothing_to_compare_and_nothing_in_the_report(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    make(study, "cohort")
    make(study, "baseline_comparison")
    assert load_comparison(study.path("baseline_comparison")) is None
    assert baseline_sections(in_the_report(study)) == []


def test_report_shows_table_and_both_figures(compared: Study) -> None:
    (section,) = baseline_sections(in_the_report(compared))
    assert section.title == "Baselines compared"
    assert [row[0] for row in section.tables[0].rows] == list(NAMES)
    assert len(section.pictures) == 2
    assert "the loss of the baseline is the profile's" in section.text
    assert "no cascade" in section.text


# --- the baseline ---


def test_a_second_run_makes_nothing(copied: Study) -> None:
    assert run(copied).made == {}


def test_the_best_loss_trains_the_baseline_on_all_its_cases(copied: Study, tmp_path: Path) -> None:
    (copied.path("baseline_comparison") / "comparison.json").write_text(json.dumps({"best_2d": "2d_ce"}))
    as_written(copied.path("baseline_comparison"))
    best = with_settings(copied, {"candidates.best_becomes_baseline": True})
    named = with_settings(copied, {"baseline.loss": "ce"})
    folder = copied.path("baseline_weights")
    dice_ce = load_weights(folder)
    make(best, "baseline_weights")
    of_best = load_weights(folder)
    make(named, "baseline_weights")
    assert_same_weights(of_best, load_weights(folder))
    assert not all(torch.equal(value, dice_ce[key]) for key, value in of_best.items())
    assert GRAPH["baseline_weights"].inputs(best).made_from["baseline_comparison"] == "2d_ce"


# --- the cascade ---


def test_a_cascade_that_is_not_offered_is_an_error(copied: Study, profile: Path, tmp_path: Path) -> None:
    values = yaml.safe_load(profile.read_text())
    values["candidates"]["names"] = [*NAMES, "3d_cascade_dice_ce"]
    (tmp_path / "cascade.yaml").write_text(yaml.safe_dump(values))
    study = Study.open(copied.folder.root, tmp_path / "cascade.yaml")
    message = r"asks for 3d_cascade_dice_ce: nnU-Net's planner offers no cascade.*take it out of the profile"
    with pytest.raises(StepFailedError, match=message):
        run(study)


def test_an_offered_cascade_is_named_and_not_trained_either(copied: Study, tmp_path: Path) -> None:
    """Cases many times larger than a patch, for which the planner does offer one."""
    found = json.loads((copied.path("nnunet_plans") / "dataset_fingerprint.json").read_text())
    found |= {"spacings": [[1.0, 1.0, 1.0]] * 5, "shapes_after_crop": [[160, 160, 160]] * 5}
    plans = make_plans(found, 5, PlansSettings(memory_gb=0.4, base_features=32), BRAIN_TUMOUR)
    assert {"3d_lowres", "3d_cascade_fullres"} <= set(plans.configurations)
    plans.save(copied.path("nnunet_plans"))
    as_written(copied.path("nnunet_plans"))
    with pytest.raises(ProfileError, match=r"planner offers a cascade.*not among what can be trained here"):
        make(copied, "baseline_candidate", "3d_cascade_dice_ce")
