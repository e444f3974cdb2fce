"""What leaves the study and what comes in: the exported dataset in nnU-Net's hands, and a network of nnU-Net's."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from idal_assets.imaging.case import CaseError
from idal_assets.imaging.readers import read_case, scan_raw_folder
from idal_assets.nnunet.given import given_weights
from idal_assets.nnunet.given_folder import GivenNetworkError
from idal_assets.nnunet.model_folder import load_weights
from idal_assets.nnunet.plans import Plans
from idal_assets.steps.export import EXCLUDED_FILE, SPLITS_FILE, export_dataset
from idal_assets.steps.removal import load_plan
from idal_assets.steps.similarity import load_ranking
from idal_assets.study.making import make
from idal_assets.study.reviews import Review
from idal_assets_tests.conftest import FinishedRun, idal

pytestmark = pytest.mark.graph


@pytest.fixture(scope="module")
def exported(finished_run: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("nnunet") / "raw" / "Dataset501_Clean"
    done = idal("export", "worst_2", target, "--data-dir", finished_run.data_dir)
    assert done.returncode == 0, done.stderr
    assert "nnUNetv2_plan_and_preprocess -d 501" in done.stdout
    return target


def excluded_of(folder: Path) -> dict[str, str]:
    with (folder / EXCLUDED_FILE).open(newline="") as lines:
        return {row["case_id"]: row["reason"] for row in csv.DictReader(lines)}


def test_an_export_holds_all_but_what_the_set_removes(exported: Path, finished_run: FinishedRun) -> None:
    study = finished_run.study()
    removed = load_plan(study.path("removal_plan")).of_base["worst_2"]
    training = {path.name.removesuffix(".nii.gz") for path in (exported / "labelsTr").iterdir()}
    tests = {path.name.removesuffix(".nii.gz") for path in (exported / "labelsTs").iterdir()}
    assert training == set(study.cohort.donors) - set(removed)
    assert tests == set(study.cohort.tests)
    assert excluded_of(exported).keys() == set(removed)
    assert all(reason.startswith("worst_2: rank ") for reason in excluded_of(exported).values())
    splits = json.loads((exported / SPLITS_FILE).read_text())
    assert sorted(case for split in splits for case in split["val"]) == sorted(training)
    assert all(set(split["train"]) | set(split["val"]) == training for split in splits)
    (found,) = [files for files in scan_raw_folder(exported).cases if files.case_id == min(training)]
    again, before = read_case(found), study.read_case(min(training))
    np.testing.assert_array_equal(again.image, before.image)
    np.testing.assert_array_equal(again.label, before.label)


def nnunet(program: str, *options: str, raw: Path) -> None:
    """A command of nnU-Net with its folders beside that of the raw datasets.

    Args:
        program: What its script does.
        options: The words after its name.
        raw: Folder of the raw datasets.
    """
    places = {
        "nnUNet_raw": raw,
        "nnUNet_preprocessed": raw.parent / "preprocessed",
        "nnUNet_results": raw.parent / "results",
    }
    few = {"nnUNet_def_n_proc": "1", "nnUNet_n_proc_DA": "1", "nnUNet_compile": "f"}
    done = subprocess.run(
        [sys.executable, "-c", program, *options],
        env={**os.environ, **few, **{name: str(path) for name, path in places.items()}},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def exported_whole(finished_run: FinishedRun, exported: Path) -> Path:
    """The cases that the study itself plans for: without some of them nnU-Net may plan another network."""
    target = exported.parent / "Dataset502_Whole"
    done = idal("export", "all", target, "--data-dir", finished_run.data_dir)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="module")
def preprocessed(exported_whole: Path) -> Path:
    """What nnU-Net's own command plans and preprocesses of the exported dataset."""
    program = (
        "from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import plan_and_preprocess_entry\n"
        "plan_and_preprocess_entry()"
    )
    options = ["-d", "502", "-c", "2d", "-np", "1", "-npfp", "1", "--verify_dataset_integrity"]
    nnunet(program, *options, raw=exported_whole.parent)
    return exported_whole.parent.parent / "preprocessed" / exported_whole.name


def test_nnunet_plans_and_preprocesses_what_was_exported(exported_whole: Path, preprocessed: Path) -> None:
    training = {path.name.removesuffix(".nii.gz") for path in (exported_whole / "labelsTr").iterdir()}
    assert {path.stem for path in (preprocessed / "nnUNetPlans_2d").glob("*.pkl")} == training


def test_a_reviewed_case_is_left_out_with_its_reason(finished_run: FinishedRun, tmp_path: Path) -> None:
    study = finished_run.study()
    plan, ranking = load_plan(study.path("removal_plan")), load_ranking(study.path("case_ranking"))
    out = study.cohort.donors[0]
    cohort = study.cohort.model_copy(update={"reviews": {out: Review(decision="label wrong", note="shifted")}})
    export_dataset(cohort, plan, ranking, "all", tmp_path / "Dataset502_All")
    assert excluded_of(tmp_path / "Dataset502_All") == {out: "reviewed: label wrong (shifted)"}
    for target, removal_set, said in (
        ("Dataset502_All", "all", "is not empty"),
        ("clean", "all", "Dataset501_Clean"),
        ("Dataset503_X", "worst_9", "There is no set worst_9; take one of all"),
    ):
        with pytest.raises(CaseError, match=said):
            export_dataset(cohort, plan, ranking, removal_set, tmp_path / target)


# --- a network that nnU-Net trained ---


@pytest.fixture(scope="module")
def trained(finished_run: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as nnU-Net's own trainer leaves it, of a network with fresh weights."""
    folder = tmp_path_factory.mktemp("results") / "nnUNetTrainer__nnUNetPlans__2d"
    plans = Plans.load(finished_run.study().path("nnunet_plans"))
    (folder / "fold_0").mkdir(parents=True)
    plans.save(folder)
    # the trainer looks at what kind of files it will read
    preprocessed = folder / plans.values["dataset_name"] / "nnUNetPlans_2d"
    preprocessed.mkdir(parents=True)
    for name in ("a.b2nd", "a_seg.b2nd"):
        (preprocessed / name).touch()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("nnUNet_preprocessed", "nnUNet_results"):
            patch.setenv(name, str(folder))
        patch.setenv("nnUNet_compile", "f")
        values = {**plans.values, "continue_training": False}
        trainer = nnUNetTrainer(values, "2d", 0, plans.dataset, torch.device("cpu"))
        trainer.initialize()
        trainer._best_ema = np.float64(0.5)
        trainer.save_checkpoint(str(folder / "fold_0" / "checkpoint_final.pth"))
    return folder


def test_a_network_of_nnunet_is_read_whole(trained: Path, finished_run: FinishedRun) -> None:
    plans = Plans.load(finished_run.study().path("nnunet_plans"))
    kept = torch.load(trained / "fold_0" / "checkpoint_final.pth", weights_only=False)["network_weights"]
    found = given_weights(trained, plans)
    assert found.keys() == kept.keys()
    assert all(torch.equal(found[name], kept[name]) for name in kept)


def test_a_network_of_other_plans_is_refused_by_what_differs(trained: Path, finished_run: FinishedRun) -> None:
    plans = Plans.load(finished_run.study().path("nnunet_plans"))
    other = json.loads(json.dumps(plans.values))
    other["configurations"]["2d"]["architecture"]["arch_kwargs"]["features_per_stage"] = [8, 16]
    with pytest.raises(GivenNetworkError, match=r"its architecture is .* Set plans\.memory_gb"):
        given_weights(trained, Plans(other, plans.dataset))
    other["configurations"]["2d"]["spacing"] = [9.0, 9.0]
    with pytest.raises(
        GivenNetworkError, match=r"its spacing is .*; its architecture is .* name the cases that it"
    ):
        given_weights(trained, Plans(other, plans.dataset))
    with pytest.raises(GivenNetworkError, match=r"holds no checkpoint_final\.pth; give the folder"):
        given_weights(trained.parent, plans)


SHORT_TRAINING = """
from nnunetv2.run.run_training import run_training_entry
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as trainers

class ShortTrainer(trainers.nnUNetTrainer):
    def initialize(self):
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 1, 2, 1
        super().initialize()

trainers.ShortTrainer = ShortTrainer
run_training_entry()
"""
"""What `nnUNetv2_train` calls, with a trainer that it finds by name; the shortest of its own makes 250 batches."""


@pytest.fixture(scope="module")
def trained_by_command(exported_whole: Path, preprocessed: Path) -> Path:
    """nnU-Net's folder of a training on the exported dataset, split as the export says."""
    raw = exported_whole.parent
    shutil.copy(exported_whole / SPLITS_FILE, preprocessed)
    nnunet(SHORT_TRAINING, "502", "2d", "0", "-tr", "ShortTrainer", "-device", "cpu", raw=raw)
    return raw.parent / "results" / exported_whole.name / "ShortTrainer__nnUNetPlans__2d"


@pytest.mark.live
def test_a_network_that_nnunets_command_trained_is_the_baseline(
    trained_by_command: Path, finished_run: FinishedRun, tmp_path: Path
) -> None:
    # as nnU-Net plans where nobody says otherwise
    planned = {"memory_gb": 8.0, "base_features": 32, "batch_size": 2}
    changes = {"plans": planned, "baseline": {"weights": str(trained_by_command)}}
    study = finished_run.copied_to(tmp_path).study().with_settings(changes)
    donor = study.cohort.donors[0]
    make(study, "nnunet_plans")
    make(study, "baseline_weights")
    for asset in ("case_slices", "augmented_case", "case_model"):
        make(study, asset, donor)
    kept = torch.load(trained_by_command / "fold_0" / "checkpoint_final.pth", weights_only=False)
    baseline, own = (load_weights(study.path(*place)) for place in (("baseline_weights",), ("case_model", donor)))
    assert all(torch.equal(values, kept["network_weights"][name]) for name, values in baseline.items())
    assert own.keys() == baseline.keys()
    assert any(not torch.equal(own[name], baseline[name]) for name in own)
