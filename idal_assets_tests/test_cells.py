"""The cell cache: what is true is taken over, what may have changed is segmented again, and nothing else."""

import json
import shutil
from itertools import count

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from idal_assets.analysis.scores import score_table
from idal_assets.imaging.brain_tumour import REGIONS
from idal_assets.steps import networks
from idal_assets.steps.cells import cell_counts, find_cells, read_scores
from idal_assets.study.making import make
from idal_assets.study.study import Study
from idal_assets_tests.studies import as_written, give_new_version, with_settings

pytestmark = [pytest.mark.graph, pytest.mark.usefixtures("blank_pictures")]

ANATOMY = "anatomy-1"
VERSIONS = {"b": "b-1", "a": "a-1", "c": "c-1"}


def scores(case, number):
    """A case's table; every number gives another."""
    return score_table(np.full((4, 4), number), REGIONS).assign(receiver=case)


def row(folder, versions=VERSIONS, before=None, model="m-1", numbers=None, measured=()):
    """Makes a row as a step does; the numbers of what is computed rise from call to call."""
    cells = find_cells(before, "receiver", model, versions, ANATOMY, measured)
    numbers = numbers or count(1)
    computed = [scores(name, next(numbers)) for name in cells.missing]
    computed = [table.assign(hd95=7.5 if table["receiver"].iloc[0] in measured else np.nan) for table in computed]
    rows = cells.complete(computed, folder)
    return cells.missing, rows


def noted(folder):
    found = json.loads((folder / "cells.json").read_text())
    assert found.pop("anatomy_version") == ANATOMY
    return found


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


def test_a_cell_without_distances_is_computed_once_they_are_asked_for(tmp_path):
    _, before = row(tmp_path, measured=["b"])
    missing, rows = row(tmp_path, before=before, measured=["b", "c"])
    assert missing == ["c"]
    assert set(rows.loc[rows["hd95"].notna(), "receiver"]) == {"b", "c"}
    assert row(tmp_path, before=rows, measured=["b", "c"])[0] == []


def test_a_single_region_without_its_distance_is_reason_enough(tmp_path):
    _, before = row(tmp_path, measured=["b", "c"])
    before.loc[(before["receiver"] == "b") & (before["region"] == "TC"), "hd95"] = np.nan
    assert row(tmp_path, before=before, measured=["b", "c"])[0] == ["b"]


def test_a_cell_in_which_nothing_is_defined_is_not_computed_again_and_again(tmp_path):
    cells = find_cells(None, "receiver", "m-1", {"b": "b-1"}, ANATOMY, ["b"])
    empty = cells.complete([scores("b", 0)], tmp_path)
    assert empty[["dice", "hd95"]].isna().all(axis=None)
    assert row(tmp_path, {"b": "b-1"}, empty, measured=["b"])[0] == []


def test_distances_that_are_asked_for_no_longer_are_dropped(tmp_path):
    _, before = row(tmp_path, measured=["b", "c"])
    missing, rows = row(tmp_path, before=before, measured=["c"])
    assert missing == []
    pd.testing.assert_frame_equal(rows, row(tmp_path, measured=["c"])[1])


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
    return finished_run.copied_to(tmp_path).study()


@pytest.fixture
def segmented(monkeypatch):
    """Names of the cases that networks segment from now on."""
    names = []

    class Spy(networks.Predictor):
        def __init__(self, *arguments):
            names.append("a network was loaded")
            super().__init__(*arguments)

        def segment(self, cases, wanted):
            names.extend(wanted)
            return super().segment(cases, wanted)

    monkeypatch.setattr(networks, "Predictor", Spy)
    return names


def make_row(study, donor):
    make(study, "dice_row", donor)
    return pd.read_parquet(study.path("dice_row", donor) / "row.parquet")


def make_evaluation(study, name):
    make(study, "reduced_evaluation", name)
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
    cases = tuple(case for case in study.cohort.cases if case.case_id != gone)
    left = study.cohort.model_copy(update={"cases": cases})
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


def test_distances_are_measured_on_test_cases_alone(finished_run):
    study = finished_run.study()
    for donor in study.cohort.donors:
        rows = pd.read_parquet(study.path("dice_row", donor) / "row.parquet")
        of_test = rows["receiver"].isin(study.cohort.tests)
        assert (rows["hd95"].notna() == (of_test & rows["dice"].notna())).all()
        assert rows.loc[of_test, "hd95"].notna().any()


def with_roles(study, **roles):
    cases = [case.model_copy(update={"role": roles.get(case.case_id, case.role)}) for case in study.cohort.cases]
    return study.cohort.model_copy(update={"cases": tuple(cases)})


def test_a_donor_that_becomes_a_test_case_costs_one_cell_a_row(study, segmented, monkeypatch):
    donor, other = study.cohort.donors[:2]
    before = pd.read_parquet(study.path("dice_row", donor) / "row.parquet").set_index(["receiver", "region"])
    as_it_was = study.cohort
    monkeypatch.setattr(Study, "cohort", with_roles(study, **{other: "test"}))
    after = make_row(study, donor).set_index(["receiver", "region"])
    assert segmented == ["a network was loaded", other]
    assert after.loc[other, "hd95"].notna().equals(after.loc[other, "dice"].notna())
    pd.testing.assert_frame_equal(after.drop(columns="hd95").loc[before.index], before.drop(columns="hd95"))
    monkeypatch.setattr(Study, "cohort", as_it_was)
    pd.testing.assert_frame_equal(make_row(study, donor).set_index(["receiver", "region"]), before)
    assert len(segmented) == 2


def test_without_surface_distances_none_is_measured(study, segmented):
    study = with_settings(study, {"inference.surface_distances": False})
    assert make_row(study, study.cohort.donors[0])["hd95"].isna().all()
    assert make_evaluation(study, "all")["hd95"].isna().all()


@pytest.mark.parametrize("change", [{"inference.tile_step": 0.25}, {"compute.precision": "fp32"}])
def test_other_settings_of_inference_segment_all_again(study, segmented, change):
    donor = study.cohort.donors[1]
    make_row(with_settings(study, change), donor)
    assert segmented[1:] == study.cohort.receivers


def test_other_regions_segment_all_again(study, segmented):
    donor = study.cohort.donors[1]
    other = with_settings(study, {"anatomy.regions": {"halo": ("oedema",)}})
    make(other, "cohort")
    assert set(make_row(other, donor)["region"]) == {"halo", *REGIONS}
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
    as_written(folder.parent)
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
    rows = read_scores(file, study.cohort.anatomy.scored(scalar))
    # what the truth does not hold is in no scalar
    held = rows.assign(dice=rows["dice"].where((rows["region"] == "mean") | (rows["tp"] + rows["fn"] > 0)))
    by_case = held.pivot(index="receiver", columns="region", values="dice")
    expected = by_case[["WT", "TC", "ET"]].mean(axis=1) if scalar == "regions" else by_case["WT"]
    np.testing.assert_allclose(by_case["mean"], expected, rtol=1e-12)
    assert len(by_case) == len(study.cohort.receivers)
