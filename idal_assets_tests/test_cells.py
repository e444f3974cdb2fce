"""The cell cache: what is true is taken over, what may have changed is segmented again, and nothing else."""

import json
import shutil
from itertools import count

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from idal_assets.analysis.scores import score_table
from idal_assets.progress import silently
from idal_assets.steps import models
from idal_assets.steps.cells import cell_counts, find_cells, read_scores
from idal_assets.steps.models import evaluate_reduced_model, score_case_model
from idal_assets.study import Study
from idal_assets_tests.studies import give_new_version, make, with_settings

VERSIONS = {"b": "b-1", "a": "a-1", "c": "c-1"}


def scores(case, number):
    """A case's table; every number gives another."""
    return score_table(np.full((4, 4), number)).assign(receiver=case)


def row(folder, versions=VERSIONS, before=None, model="m-1", numbers=None):
    """Makes a row as a step does; the numbers of what is computed rise from call to call."""
    cells = find_cells(before, "receiver", model, versions)
    numbers = numbers or count(1)
    rows = cells.complete([scores(name, next(numbers)) for name in cells.missing], folder)
    return cells.missing, rows


def noted(folder):
    return json.loads((folder / "cells.json").read_text())


def test_without_a_row_before_every_cell_is_computed(tmp_path):
    missing, rows = row(tmp_path)
    assert missing == ["b", "a", "c"]
    assert rows["receiver"].unique().tolist() == ["b", "a", "c"]
    assert set(rows["model_version"]) == {"m-1"}
    assert dict(zip(rows["receiver"], rows["receiver_version"], strict=True)) == VERSIONS
    assert noted(tmp_path) == {"computed": ["b", "a", "c"], "taken_over": []}


def test_nothing_changed_and_nothing_is_computed(tmp_path):
    _, before = row(tmp_path)
    missing, rows = row(tmp_path, before=before)
    assert missing == []
    pd.testing.assert_frame_equal(rows, before)
    assert noted(tmp_path) == {"computed": [], "taken_over": ["b", "a", "c"]}


def test_one_receiver_changed_and_only_its_cell_is_computed(tmp_path):
    _, before = row(tmp_path)
    missing, rows = row(tmp_path, {**VERSIONS, "a": "a-2"}, before, numbers=count(100))
    assert missing == ["a"]
    assert rows["receiver"].unique().tolist() == ["b", "a", "c"]
    same = rows["receiver"] != "a"
    pd.testing.assert_frame_equal(rows[same], before[same])
    assert set(rows.loc[~same, "receiver_version"]) == {"a-2"}
    assert (rows.loc[~same, "tp"] > before.loc[~same, "tp"]).all()


def test_a_case_that_came_is_computed_and_one_that_left_disappears(tmp_path):
    _, before = row(tmp_path)
    missing, rows = row(tmp_path, {"d": "d-1", "b": "b-1", "a": "a-1"}, before)
    assert missing == ["d"]
    assert rows["receiver"].unique().tolist() == ["d", "b", "a"]
    assert noted(tmp_path) == {"computed": ["d"], "taken_over": ["b", "a"]}


def test_another_model_takes_nothing_over(tmp_path):
    _, before = row(tmp_path)
    missing, rows = row(tmp_path, before=before, model="m-2")
    assert missing == list(VERSIONS)
    assert set(rows["model_version"]) == {"m-2"}
    assert len(rows) == len(before)


def test_a_version_that_another_case_had_is_no_reason_to_take_over(tmp_path):
    _, before = row(tmp_path)
    missing, _ = row(tmp_path, {"b": "a-1", "a": "b-1", "c": "c-1"}, before)
    assert missing == ["b", "a"]


def test_counts_are_those_of_the_run_that_asks(tmp_path):
    assert cell_counts(tmp_path, made_now=True) == {}
    _, before = row(tmp_path)
    row(tmp_path, {**VERSIONS, "a": "a-2"}, before)
    assert cell_counts(tmp_path, made_now=True) == {"cells_computed": 1, "cells_taken_over": 2}
    assert cell_counts(tmp_path, made_now=False) == {"cells_computed": 0, "cells_taken_over": 3}


# --- on the models of a finished run ---


@pytest.fixture
def study(finished_run, tmp_path):
    """A finished study that may be changed."""
    shutil.copytree(finished_run.data_dir, tmp_path / "data", copy_function=shutil.copy2)
    return Study.open(tmp_path / "data")


@pytest.fixture
def segmented(monkeypatch):
    """Names of the cases that networks segment from now on."""
    names = []

    class Spy(models.Predictor):
        def __init__(self, *arguments):
            names.append("a network was loaded")
            super().__init__(*arguments)

        def segment(self, cases, wanted):
            names.extend(wanted)
            return super().segment(cases, wanted)

    monkeypatch.setattr(models, "Predictor", Spy)
    return names


def make_row(study, donor):
    make(study, "dice_row", lambda folder: score_case_model(study, donor, folder, silently), donor)
    return pd.read_parquet(study.path("dice_row", donor) / "row.parquet")


def make_evaluation(study, name):
    make(study, "reduced_evaluation", lambda folder: evaluate_reduced_model(study, name, folder, silently), name)
    return pd.read_parquet(study.path("reduced_evaluation", name) / "evaluation.parquet")


def test_a_changed_test_case_costs_one_cell_a_row(study, segmented):
    donor, receiver = study.cohort.donors[0], study.cohort.tests[0]
    before = pd.read_parquet(study.path("dice_row", donor) / "row.parquet")
    give_new_version(study, "case_slices", receiver)
    after = make_row(study, donor)
    assert segmented == ["a network was loaded", receiver]
    # the content is the same, so what was computed must be too
    pd.testing.assert_frame_equal(after.drop(columns="receiver_version"), before.drop(columns="receiver_version"))
    changed = after["receiver_version"] != before["receiver_version"]
    assert set(after.loc[changed, "receiver"]) == {receiver}
    shutil.rmtree(study.path("dice_row", donor))
    pd.testing.assert_frame_equal(make_row(study, donor), after)
    assert segmented[2:] == ["a network was loaded", *study.cohort.receivers]


def test_no_network_is_loaded_where_only_a_case_left(study, segmented, monkeypatch):
    donor, gone = study.cohort.donors[0], study.cohort.donors[-1]
    left = study.cohort.model_copy(update={"cases": [case for case in study.cohort.cases if case.case_id != gone]})
    monkeypatch.setattr(Study, "cohort", left)
    after = make_row(study, donor)
    assert segmented == []
    assert after["receiver"].unique().tolist() == left.receivers
    assert gone not in set(after["receiver"])


def test_a_changed_model_segments_all_again(study, segmented):
    donor = study.cohort.donors[1]
    give_new_version(study, "case_model", donor)
    make_row(study, donor)
    assert segmented == ["a network was loaded", *study.cohort.receivers]


@pytest.mark.parametrize("change", [{"inference.tile_step": 0.25}, {"compute.precision": "fp32"}])
def test_other_settings_of_inference_segment_all_again(study, segmented, change):
    donor = study.cohort.donors[1]
    make_row(with_settings(study, change), donor)
    assert segmented[1:] == study.cohort.receivers


def test_an_artifact_without_a_record_is_not_taken_over(study, segmented):
    donor = study.cohort.donors[1]
    (study.path("dice_row", donor) / "provenance.json").unlink()
    make_row(study, donor)
    assert segmented[1:] == study.cohort.receivers


def test_an_evaluation_takes_segmentations_over_too(study, segmented):
    changed, same = study.cohort.tests
    folder = study.path("reduced_evaluation", "all") / "segmentations"
    before = pd.read_parquet(folder.parent / "evaluation.parquet")
    # such as no network would write
    mark = nib.Nifti1Image(np.full((2, 2, 2), 3, dtype=np.uint8), np.eye(4))
    for name in study.cohort.tests:
        nib.save(mark, folder / f"{name}.nii.gz")
    give_new_version(study, "case_slices", changed)
    after = make_evaluation(study, "all")
    assert segmented == ["a network was loaded", changed]
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{name}.nii.gz" for name in (changed, same))
    assert nib.load(folder / f"{same}.nii.gz").shape == (2, 2, 2)
    assert nib.load(folder / f"{changed}.nii.gz").shape != (2, 2, 2)
    pd.testing.assert_frame_equal(after.drop(columns="receiver_version"), before.drop(columns="receiver_version"))


def test_an_evaluation_without_its_segmentation_is_made_again(study, segmented):
    lost, other = study.cohort.tests
    (study.path("reduced_evaluation", "all") / "segmentations" / f"{lost}.nii.gz").unlink()
    give_new_version(study, "case_slices", other)
    make_evaluation(study, "all")
    assert set(segmented[1:]) == {lost, other}
    assert (study.path("reduced_evaluation", "all") / "segmentations" / f"{lost}.nii.gz").is_file()


def test_a_retrained_model_is_evaluated_on_all_again(study, segmented):
    give_new_version(study, "reduced_model", "worst_1")
    after = make_evaluation(study, "worst_1")
    assert segmented[1:] == study.cohort.tests
    assert set(after["model_version"]) == {"another version"}


@pytest.mark.parametrize("scalar", ["regions", "WT"])
def test_the_scalar_is_that_of_the_one_who_reads(finished_run, scalar):
    study = finished_run.study()
    file = study.path("dice_row", study.cohort.donors[0]) / "row.parquet"
    assert "mean" not in set(pd.read_parquet(file)["region"])
    by_case = read_scores(file, scalar).pivot(index="receiver", columns="region", values="dice")
    expected = by_case[["WT", "TC", "ET"]].mean(axis=1) if scalar == "regions" else by_case["WT"]
    np.testing.assert_allclose(by_case["mean"], expected, rtol=1e-12)
    assert len(by_case) == len(study.cohort.receivers)
