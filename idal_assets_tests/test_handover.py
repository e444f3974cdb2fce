"""What leaves the study and what comes in: the exported dataset in nnU-Net's hands, and a network of nnU-Net's."""

import csv
import json
import os
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
from idal_assets.nnunet.plans import Plans
from idal_assets.steps.export import EXCLUDED_FILE, SPLITS_FILE, export_dataset
from idal_assets.steps.removal import load_plan
from idal_assets.steps.similarity import load_ranking
from idal_assets.study.reviews import Review
from idal_assets_tests.conftest import FinishedRun, idal

pytestmark = pytest.mark.graph


@pytest.fixture(scope="module")
def exported(finished_run: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("nnUNet_raw") / "Dataset501_Clean"
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


def test_nnunet_plans_and_preprocesses_what_was_exported(exported: Path, tmp_path: Path) -> None:
    places = {
        "nnUNet_raw": exported.parent,
        "nnUNet_preprocessed": tmp_path / "preprocessed",
        "nnUNet_results": tmp_path / "results",
    }
    entry = "from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import plan_and_preprocess_entry"
    options = ["-d", "501", "-c", "2d", "-np", "1", "-npfp", "1", "--verify_dataset_integrity"]
    done = subprocess.run(
        [sys.executable, "-c", f"{entry}; plan_and_preprocess_entry()", *options],
        env={**os.environ, **{name: str(path) for name, path in places.items()}},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    made = tmp_path / "preprocessed" / exported.name / "nnUNetPlans_2d"
    training = {path.name.removesuffix(".nii.gz") for path in (exported / "labelsTr").iterdir()}
    assert {path.stem for path in made.glob("*.pkl")} == training


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
    with pytest.raises(GivenNetworkError, match=r"holds no checkpoint_final\.pth; give the folder"):
        given_weights(trained.parent, plans)
