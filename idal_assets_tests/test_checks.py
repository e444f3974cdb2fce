"""Checks: each damage is found by the check that is there for it, and nothing is made from what was refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blosc2
import dagster as dg
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from rich.progress import Progress as Bars

from idal_assets.orchestration.checks import build_checks
from idal_assets.orchestration.runner import Made, Runner, StepFailedError
from idal_assets.steps import prepare
from idal_assets.steps.checks import (
    complete_row,
    current_matrix,
    sound_patient_slices,
    sound_slices,
    trained_well,
    verified_content,
    verified_patient,
)
from idal_assets.study.currency import all_states
from idal_assets.study.graph import GRAPH
from idal_assets.study.making import Task
from idal_assets.study.study import NotMadeError, Study
from idal_assets_tests.conftest import FinishedRun
from idal_assets_tests.studies import as_written, give_new_version

pytestmark = pytest.mark.graph


@pytest.fixture
def study(copied: FinishedRun) -> Study:
    return copied.study()


def run_all(finished: FinishedRun) -> Made:
    with finished.instance() as instance:
        return Runner(finished.study(), instance, Bars(disable=True)).run()


def test_a_finished_run_passes_every_check(finished_run: FinishedRun) -> None:
    study = finished_run.study()
    findings = {
        "raw_case": [verified_content(study, "raw_case", case.case_id) for case in study.cohort.cases],
        "patient_case": [verified_patient(study, "patient_case", patient) for patient in study.patients],
        "patient_slices": [sound_patient_slices(study, "patient_slices", patient) for patient in study.patients],
        "case_slices": [sound_slices(study, "case_slices", case.case_id) for case in study.cohort.cases],
        "baseline_candidate": [trained_well(study, "baseline_candidate", name) for name in study.candidates],
        "baseline_weights": [trained_well(study, "baseline_weights", None)],
        "case_model": [trained_well(study, "case_model", donor) for donor in study.cohort.donors],
        "fold_model": [trained_well(study, "fold_model", fold) for fold in study.folds],
        "reduced_model": [trained_well(study, "reduced_model", name) for name in study.removal_sets],
        "confirmed_model": [trained_well(study, "confirmed_model", name) for name in study.confirmations],
        "dice_row": [complete_row(study, "dice_row", donor) for donor in study.cohort.donors],
        "dice_matrix": [current_matrix(study)],
    }
    checked = {key.asset_key.to_user_string() for check in build_checks() for key in check.check_keys}
    assert checked == set(findings)
    assert not [finding for found in findings.values() for finding in found if finding.problems]


def test_the_instance_has_an_evaluation_of_every_artifact(finished_run: FinishedRun) -> None:
    study = finished_run.study()
    keys = {key.asset_key.to_user_string(): key for check in build_checks() for key in check.check_keys}
    with finished_run.instance() as instance:
        for asset, key in keys.items():
            found = instance.event_log_storage.get_asset_check_partition_info([key])
            assert {info.partition_key for info in found} == set(GRAPH[asset].keys(study))
            assert all(info.is_current for info in found)


# --- raw cases ---


def test_changed_voxels_of_a_raw_case_are_found(study: Study) -> None:
    case_id = study.cohort.donors[0]
    file = study.raw / "imagesTr" / f"{case_id}.nii.gz"
    image = nib.load(file)
    voxels = np.asarray(image.dataobj).copy()
    voxels[3, 3, 3, 0] += 1
    nib.save(nib.Nifti1Image(voxels, image.affine, image.header), file)
    assert "no longer those that the cohort verified" in verified_content(study, "raw_case", case_id).problems[0]


def test_a_cut_off_raw_file_is_found(study: Study) -> None:
    case_id = study.cohort.donors[0]
    file = study.raw / "labelsTr" / f"{case_id}.nii.gz"
    file.write_bytes(file.read_bytes()[:200])
    (problem,) = verified_content(study, "raw_case", case_id).problems
    assert case_id in problem
    assert str(file) in problem


def test_a_raw_case_that_went_away_is_found(study: Study) -> None:
    case_id = study.cohort.donors[0]
    for folder in ("imagesTr", "labelsTr"):
        (study.raw / folder / f"{case_id}.nii.gz").unlink()
    assert "no longer in" in verified_content(study, "raw_case", case_id).problems[0]


def test_damaged_facts_of_a_raw_case_are_found(study: Study) -> None:
    one, other = study.cohort.donors[:2]
    shutil.copy(study.path("raw_case", other) / "facts.json", study.path("raw_case", one))
    assert "another content" in verified_content(study, "raw_case", one).problems[0]
    (study.path("raw_case", one) / "facts.json").write_text("{")
    assert "cannot be read" in verified_content(study, "raw_case", one).problems[0]


# --- slices ---


def rewrite(path: Path, change: Callable[[np.ndarray], Any]) -> None:
    """Writes an array again as `change` leaves or returns it."""
    array = blosc2.open(str(path), mode="r")[:]
    changed = change(array)
    blosc2.asarray(np.ascontiguousarray(array if changed is None else changed), urlpath=str(path), mode="w")


@pytest.mark.parametrize(
    ("file", "change", "problem"),
    [
        ("image.b2nd", lambda image: image.__setitem__((0, 0, 0, 0), np.nan), "1 of"),
        ("image.b2nd", lambda image: image.__setitem__((1, 0, 0, 0), np.inf), "NaN or infinite"),
        ("image.b2nd", lambda image: image[:3], "4 channels"),
        ("image.b2nd", lambda image: image[:, :-1], "shape"),
        ("label.b2nd", lambda label: label.__setitem__((0, 0, 0), 7), "[7]"),
        ("label.b2nd", lambda label: np.minimum(label, 0), "label has no voxel of the tumour"),
        ("truth.b2nd", lambda truth: truth.__setitem__((0, 0, 0), 4), "[4]"),
        ("truth.b2nd", lambda truth: truth * 0, "truth has no voxel of the tumour"),
    ],
)
def test_damaged_slices_are_found(study: Study, file: str, change: Callable, problem: str) -> None:
    case_id = study.cohort.donors[0]
    rewrite(study.path("case_slices", case_id) / file, change)
    assert problem in "; ".join(sound_slices(study, "case_slices", case_id).problems)


@pytest.mark.parametrize("file", ["image.b2nd", "label.b2nd", "foreground.npz", "properties.json"])
def test_cut_off_and_lost_files_of_slices_are_found(study: Study, file: str) -> None:
    case_id = study.cohort.donors[0]
    path = study.path("case_slices", case_id) / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert sound_slices(study, "case_slices", case_id).problems
    path.unlink()
    assert sound_slices(study, "case_slices", case_id).problems


def test_a_lost_truth_is_found(study: Study) -> None:
    case_id = study.cohort.tests[0]
    (study.path("case_slices", case_id) / "truth.b2nd").unlink()
    assert "its label is missing" in sound_slices(study, "case_slices", case_id).problems[0]


def test_lost_places_of_a_label_are_found(study: Study) -> None:
    case_id = study.cohort.donors[0]
    path = study.path("case_slices", case_id) / "foreground.npz"
    with np.load(path) as stored:
        places = {name: stored[name][:0] for name in stored.files}
    np.savez_compressed(path, **places)
    assert "no places" in sound_slices(study, "case_slices", case_id).problems[0]


# --- models ---


def spoil_weights(folder: Path) -> None:
    file = folder / "fold_all" / "checkpoint_final.pth"
    checkpoint = torch.load(file, weights_only=True)
    next(reversed(checkpoint["network_weights"].values())).view(-1)[0] = torch.nan
    torch.save(checkpoint, file)
    as_written(folder)


def test_weights_that_are_not_finite_are_found(study: Study) -> None:
    donor = study.cohort.donors[0]
    spoil_weights(study.path("case_model", donor))
    assert "1 of" in trained_well(study, "case_model", donor).problems[0]


def test_a_cut_off_checkpoint_is_found(study: Study) -> None:
    donor = study.cohort.donors[0]
    file = study.path("case_model", donor) / "fold_all" / "checkpoint_final.pth"
    file.write_bytes(file.read_bytes()[:1000])
    assert "cannot be read" in trained_well(study, "case_model", donor).problems[0]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda history: history.iloc[:-1], "19 iterations and 20 were asked for"),
        (lambda history: history.assign(loss=history["loss"].where(history.index != 4)), "iteration 5"),
    ],
)
def test_a_training_that_ended_early_or_diverged_is_found(study: Study, change: Callable, problem: str) -> None:
    file = study.path("baseline_weights") / "history.csv"
    change(pd.read_csv(file)).to_csv(file, index=False)
    as_written(file.parent)
    assert problem in trained_well(study, "baseline_weights", None).problems[0]


def test_a_loss_that_rises_is_a_warning(study: Study) -> None:
    assert not trained_well(study, "baseline_weights", None).warnings
    file = study.path("baseline_weights") / "history.csv"
    history = pd.read_csv(file)
    history["loss"] = history["loss"].to_numpy()[::-1]
    history.to_csv(file, index=False)
    as_written(file.parent)
    finding = trained_well(study, "baseline_weights", None)
    assert not finding.problems
    assert "did not fall" in finding.warnings[0]


def test_a_training_too_short_to_judge_is_not_judged_by_its_loss(study: Study) -> None:
    donor = study.cohort.donors[0]
    file = study.path("case_model", donor) / "history.csv"
    history = pd.read_csv(file).assign(loss=[1.0, 2.0, 3.0, 4.0, 5.0])
    history.to_csv(file, index=False)
    as_written(file.parent)
    finding = trained_well(study, "case_model", donor)
    assert not finding.problems + finding.warnings
    assert "not judged" in str(finding.facts["loss"])


# --- rows ---


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda rows: rows.iloc[1:], "1 scores are missing"),
        (lambda rows: rows[rows["region"] != "ET"], "7 scores are missing"),
        (lambda rows: pd.concat([rows, rows.iloc[:2]]), "2 scores appear twice"),
        (lambda rows: rows.assign(donor="another"), "not expected"),
        (lambda rows: rows.assign(dice=rows["dice"].where(rows.index != 0, 1.5)), "outside 0 to 1"),
        (lambda rows: rows.assign(dice=rows["dice"].where(rows.index != 0, -0.5)), "outside 0 to 1"),
        (lambda rows: rows.assign(dice=rows["dice"] / 2), "voxel counts"),
        (lambda rows: rows.assign(dice=np.nan), "voxel counts"),
        (lambda rows: rows.assign(iou=rows["iou"].where(rows.index != 0, 1.5)), "IoU are outside 0 to 1"),
        (lambda rows: rows.assign(iou=rows["dice"]), "IoU are not what their voxel counts say"),
        (lambda rows: rows.drop(columns="iou"), "cannot be read"),
        (lambda rows: rows.assign(hd95=-rows["hd95"] - 1), "HD95 are negative or infinite"),
        (lambda rows: rows.assign(hd95=np.inf), "HD95 are negative or infinite"),
        (lambda rows: rows.assign(hd95=np.nan), "HD95 of test cases are missing"),
        (lambda rows: rows.assign(hd95=rows["hd95"].fillna(1.0)), "not defined or not asked for"),
    ],
)
def test_damaged_rows_are_found(study: Study, change: Callable, problem: str) -> None:
    donor = study.cohort.donors[0]
    file = study.path("dice_row", donor) / "row.parquet"
    change(pd.read_parquet(file).reset_index(drop=True)).to_parquet(file, index=False)
    as_written(file.parent)
    assert problem in "; ".join(complete_row(study, "dice_row", donor).problems)


def test_a_row_that_was_to_be_made_without_distances_must_have_none(study: Study) -> None:
    donor = study.cohort.donors[0]
    place = study.path("dice_row", donor) / "provenance.json"
    inputs = study.provenance("dice_row", donor).inputs
    settings = {**inputs.settings, "inference.surface_distances": False}
    as_written(place.parent, inputs=inputs.model_copy(update={"settings": settings}))
    assert "not defined or not asked for" in complete_row(study, "dice_row", donor).problems[0]
    file = place.with_name("row.parquet")
    pd.read_parquet(file).assign(hd95=np.nan).to_parquet(file, index=False)
    as_written(file.parent)
    assert not complete_row(study, "dice_row", donor).problems


def test_an_unreadable_row_is_found(study: Study) -> None:
    donor = study.cohort.donors[0]
    file = study.path("dice_row", donor) / "row.parquet"
    file.write_bytes(file.read_bytes()[:100])
    assert "cannot be read" in complete_row(study, "dice_row", donor).problems[0]


# --- the matrix ---


def test_a_matrix_of_earlier_rows_is_not_current(study: Study) -> None:
    one, other = study.cohort.donors[:2]
    give_new_version(study, "dice_row", one)
    shutil.rmtree(study.path("dice_row", other))
    text = "; ".join(current_matrix(study).problems)
    assert f"1 rows are made again since: {one}" in text
    assert f"1 rows are missing since: {other}" in text


def test_a_matrix_of_another_cohort_is_not_current(study: Study) -> None:
    give_new_version(study, "cohort")
    assert "cohort" in current_matrix(study).problems[0]


# --- what follows from a failed check ---


def test_a_run_stops_at_an_artifact_that_its_check_refuses_and_a_later_one_makes_it_anew(
    copied: FinishedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = copied.study()
    case_id = study.cohort.donors[1]
    version = study.version("case_slices", case_id)
    shutil.rmtree(study.path("case_slices", case_id))
    shutil.rmtree(study.path("augmented_case", case_id))

    def without_tumour(task: Task) -> None:
        real(task)
        rewrite(task.folder / "label.b2nd", lambda label: np.minimum(label, 0))

    real = prepare.preprocess_case
    monkeypatch.setattr(prepare, "preprocess_case", without_tumour)
    for _ in range(2):
        with pytest.raises(StepFailedError) as failed:
            run_all(copied)
        assert f"case_slices of {case_id} did not pass its check sound_slices" in str(failed.value)
        assert "label has no voxel of the tumour" in str(failed.value)
        with pytest.raises(NotMadeError, match="refused, by its check"):
            study.version("case_slices", case_id)
    assert all_states(study)["case_slices"][case_id] == "missing"
    assert not study.path("augmented_case", case_id).exists()

    monkeypatch.setattr(prepare, "preprocess_case", real)
    assert run_all(copied).made == {"case_slices": 1, "augmented_case": 1}
    assert study.version("case_slices", case_id) == version


def test_an_artifact_whose_check_was_cut_off_is_checked_by_the_next_run(copied: FinishedRun) -> None:
    study = copied.study()
    with copied.instance() as instance:
        # a kill between the two: the materialization is recorded, its check is not
        (latest,) = instance.fetch_materializations(dg.AssetKey("case_model"), limit=1).records
        instance.report_runless_asset_event(latest.asset_materialization)
    donor = latest.partition_key
    spoil_weights(study.path("case_model", donor))
    with pytest.raises(StepFailedError, match=f"case_model of {donor} did not pass its check trained_well"):
        run_all(copied)


def test_the_record_of_a_refused_artifact_is_kept_beside_it(study: Study) -> None:
    donor = study.cohort.donors[0]
    version = study.version("dice_row", donor)
    study.refuse("dice_row", donor)
    assert json.loads((study.path("dice_row", donor) / "refused.json").read_text())["version"] == version
    study.refuse("dice_row", donor)
