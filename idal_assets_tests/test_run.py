"""The whole graph on the smallest profile, on a real instance, through the command that people use."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import dagster as dg
import duckdb
import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from idal_assets.orchestration.metadata import LONG_TABLE, MOST_COLUMNS, metadata_of
from idal_assets.steps.evidence import load_evidence
from idal_assets.study.graph import GRAPH
from idal_assets.study.study import Study
from idal_assets_tests.conftest import IDAL, FinishedRun, idal
from idal_assets_tests.raw_folders import real_data

pytestmark = pytest.mark.graph

NUMBERS = ("dice", "case_score", "training_set", "evaluation")


def tables(data_dir: Path) -> dict[str, pd.DataFrame]:
    with duckdb.connect(str(data_dir / "idal.duckdb"), read_only=True) as connection:
        return {name: connection.table(name).order("ALL").df() for name in NUMBERS}


def assert_same_numbers(one: Path, other: Path) -> None:
    for name, expected in tables(one).items():
        pd.testing.assert_frame_equal(tables(other)[name], expected, check_exact=True, obj=name)


def materializations(instance: dg.DagsterInstance) -> Counter[tuple[str, str | None]]:
    found: Counter[tuple[str, str | None]] = Counter()
    for name in GRAPH:
        records = instance.fetch_materializations(dg.AssetKey(name), limit=1000).records
        found.update((name, record.partition_key) for record in records)
    return found


def test_every_artifact_is_recorded_once_with_its_version(finished_run: FinishedRun) -> None:
    study = finished_run.study()
    expected = {(node.name, key) for node in GRAPH.values() for key in node.keys(study)}
    with finished_run.instance() as instance:
        assert materializations(instance) == Counter(dict.fromkeys(expected, 1))
        for name, _ in expected:
            for record in instance.fetch_materializations(dg.AssetKey(name), limit=100).records:
                version = record.asset_materialization.tags["dagster/data_version"]
                assert version == study.version(name, record.partition_key)


def test_a_second_run_makes_nothing(finished_run: FinishedRun, tmp_path: Path) -> None:
    copied = finished_run.copied_to(tmp_path)
    with copied.instance() as instance:
        before = materializations(instance)
    again = idal("run", "--data-dir", copied.data_dir)
    assert again.returncode == 0
    assert f"0 artifacts made, {len(before)} were current" in again.stdout
    with copied.instance() as instance:
        assert materializations(instance) == before


def test_into_a_file_each_artifact_is_a_line(finished_run: FinishedRun) -> None:
    study = finished_run.study()
    lines = finished_run.output.splitlines()
    for node in GRAPH.values():
        for key in node.keys(study):
            name = node.name if key is None else f"{node.name} of {key}"
            assert [line for line in lines if f"  {name}, " in line], name


def test_ctrl_c_says_how_far_it_came_and_the_same_command_goes_on(tmp_path: Path) -> None:
    command = [*IDAL, "run", "--profile", "tiny", "--data-dir", str(tmp_path / "data")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        while not (line := started.stdout.readline()).startswith("2/"):
            assert line, "it ended by itself"
        started.send_signal(signal.SIGINT)
        said, errors = started.communicate()
    assert started.returncode == 130, said + errors
    assert re.search(r"Stopped at \d+ of \d+; the same command goes on\.", errors)
    assert "Traceback" not in errors


def test_what_would_be_made_is_told_and_nothing_is_made(finished_run: FinishedRun, tmp_path: Path) -> None:
    done = idal("run", "--dry-run", "--data-dir", finished_run.data_dir)
    assert "0 artifacts would be made at most; nothing was made." in done.stdout
    told = idal("run", "--dry-run", "--profile", "tiny", "--data-dir", tmp_path / "new")
    assert "which nobody has read yet; nothing was made." in told.stdout
    assert not (tmp_path / "new").exists()


def reviewed(folder: Path, *rows: str) -> Path:
    """What the report's form saves."""
    file = folder / "reviewed.csv"
    file.write_text("\n".join(("case_id,decision,note", *rows, "")))
    return file


def test_what_a_decision_would_make_anew_is_told_and_the_decision_not_kept(
    finished_run: FinishedRun, tmp_path: Path
) -> None:
    study = finished_run.study()
    file = reviewed(tmp_path, f"{study.cohort.donors[0]},label wrong,shifted")
    told = idal("run", "--dry-run", "--reviewed", file, "--data-dir", finished_run.data_dir)
    assert told.returncode == 0, told.stderr
    assert re.search(r"^│ cohort +│ 0 +│ 1 +│$", told.stdout, re.MULTILINE), told.stdout
    assert "nothing was made." in told.stdout
    assert not study.folder.reviewed.exists()
    wrong = reviewed(tmp_path, f"{study.cohort.donors[0]},ugly,")
    refused = idal("run", "--reviewed", wrong, "--data-dir", finished_run.data_dir)
    assert refused.returncode == 1
    assert "'ugly' of" in refused.stderr
    assert not study.folder.reviewed.exists()


def test_a_decision_that_takes_nobody_out_stands_on_the_card_and_trains_nothing(
    finished_run: FinishedRun, tmp_path: Path
) -> None:
    copied = finished_run.copied_to(tmp_path)
    worst = tables(copied.data_dir)["case_score"].set_index("rank").loc[1, "case_id"]
    file = reviewed(tmp_path, f"{worst},rare but valid,a cystic tumour")
    done = idal("run", "--reviewed", file, "--data-dir", copied.data_dir)
    assert done.returncode == 0, done.stderr
    assert_same_numbers(copied.data_dir, finished_run.data_dir)
    assert "2 artifacts made" in done.stdout
    card = (copied.study().path("experiment_report") / "cases" / f"{worst}.html").read_text()
    assert "decided: rare but valid (a cystic tumour)" in card


def test_the_status_of_nothing_says_so(tmp_path: Path) -> None:
    done = idal("status", "--data-dir", tmp_path / "nothing")
    assert done.returncode == 1
    assert "There is no study in" in done.stderr


def test_the_outcome_is_printed(finished_run: FinishedRun) -> None:
    worst = tables(finished_run.data_dir)["case_score"].set_index("rank").loc[1, "case_id"]
    for expected in ("worst_1", "worst_cluster", "median Dice", worst, "report.html", "idal.duckdb", "idal ui"):
        assert expected in finished_run.output
    for said in load_evidence(finished_run.study().path("evidence")).sentences:
        assert f"- {said}" in finished_run.output


def test_the_ui_sees_pictures_tables_and_paths(finished_run: FinishedRun) -> None:
    tabled = {
        "cohort": "cases",
        "dice_row": "cells_by_receiver",
        "label_quality": "scores",
        "case_ranking": "scores",
        "training_set": "cases",
        "evidence": "effect",
        "cost": "by_asset",
    }
    with finished_run.instance() as instance:
        shown = {
            name: instance.fetch_materializations(dg.AssetKey(name), limit=1)
            .records[0]
            .asset_materialization.metadata
            for name, node in GRAPH.items()
            if node.keys(finished_run.study())
        }
    pictures = [
        (name, file.stem)
        for name in shown
        for file in Path(shown[name]["path"].value).iterdir()
        if file.suffix in (".svg", ".png")
    ]
    assert {"raw_case", "case_model", "dendrogram", "evidence", "cost"} <= {name for name, _ in pictures}
    for name, picture in pictures:
        # nothing else has taken its name
        assert shown[name][picture].value.startswith(f"[![{picture}](/artifacts/{name}/")
        # longer ones are not shown in place
        assert len(shown[name][picture].value) < 1000
    for name, rows in tabled.items():
        assert isinstance(shown[name][rows], dg.TableMetadataValue)
        assert shown[name][rows].records
    assert all(Path(metadata["path"].value).is_dir() for metadata in shown.values())
    wide = [table for one in shown.values() for table in one.values() if isinstance(table, dg.TableMetadataValue)]
    assert all(len(table.schema.columns) <= MOST_COLUMNS for table in wide)
    assert [column.name for column in shown["case_ranking"]["scores"].schema.columns][:2] == ["rank", "case_id"]
    answer = shown["experiment_report"]
    assert answer["answer"].value.startswith("- Nothing follows: the networks have not learned to segment")
    assert answer["page"].value == "[report.html](/artifacts/experiment_report/report.html)"
    cohort = finished_run.study().cohort
    size = tuple(shown["dice_matrix"][name].value for name in ("rows", "columns"))
    assert size == (len(cohort.donors), len(cohort.receivers))


def test_metadata_are_shown_from_words_to_long_tables(finished_run: FinishedRun) -> None:
    long, short = (pd.DataFrame({"case_id": ["a"] * rows}) for rows in (LONG_TABLE + 1, LONG_TABLE))
    study = finished_run.study()
    folder, record = study.path("dendrogram"), study.provenance("dendrogram")
    shown = metadata_of({"cases": long, "removed": short, "mean": 1 / 3}, folder, record, made_now=True)
    assert list(shown)[:4] == ["mean", "dendrogram", "removed", "path"]
    assert list(shown)[-1] == "cases"
    assert shown["mean"] == 0.3333


def test_nothing_is_a_pickle(finished_run: FinishedRun) -> None:
    files = [path for path in finished_run.data_dir.rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in (".pkl", ".pickle")]
    storage = finished_run.data_dir / "dagster_home" / "storage"
    stored_outputs = [path for path in storage.rglob("*") if path.is_file() and path.name == "result"]
    assert not stored_outputs
    # A checkpoint is a zip archive that PyTorch reads without unpickling objects; everything else has no pickle.
    assert not [path for path in files if path.suffix != ".pth" and starts_like_a_pickle(path)]


def starts_like_a_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def test_models_are_nnunet_model_folders(finished_run: FinishedRun) -> None:
    study = finished_run.study()
    for donor in study.cohort.donors:
        folder = study.path("case_model", donor)
        assert folder.name == donor
        assert {"plans.json", "dataset.json", "fold_all"} <= {path.name for path in folder.iterdir()}
        assert (folder / "fold_all" / "checkpoint_final.pth").is_file()


def test_the_database_has_every_cell_and_the_ranking_follows_from_it(finished_run: FinishedRun) -> None:
    found = tables(finished_run.data_dir)
    cohort = finished_run.study().cohort
    regions = {"WT", "TC", "ET", "L1", "L2", "L3", "mean"}
    cells = found["dice"]
    assert len(cells) == len(cohort.donors) * len(cohort.receivers) * len(regions)
    assert set(cells["region"]) == regions
    # the profile's mode is robust: a cell averages the regions that label or most models see in both its cases
    scored = cells[cells["region"].isin(["WT", "TC", "ET"])]
    place, own = ["receiver", "region"], scored["donor"] == scored["receiver"]
    seen = scored[~own].assign(size=scored["tp"] + scored["fp"]).groupby(place)["size"].median()
    labelled = scored.assign(size=scored["tp"] + scored["fn"]).groupby(place)["size"].first()
    there = (labelled > 0) | (seen > 0.05 * labelled.groupby("receiver").transform("max"))
    held = there[there].reset_index()[place]
    shared = scored.merge(held).merge(held.rename(columns={"receiver": "donor"}))
    means = shared.groupby(["donor", "receiver"], as_index=False)["dice"].mean()
    means = means[means["receiver"].isin(cohort.donors) & (means["donor"] != means["receiver"])]
    by_donor, by_receiver = means.groupby("donor")["dice"].mean(), means.groupby("receiver")["dice"].mean()

    def z(values: pd.Series) -> pd.Series:
        return (values - values.mean()) / values.std(ddof=0)

    score = z(by_donor) + z(by_receiver)
    ranked = found["case_score"].set_index("case_id")
    np.testing.assert_allclose(ranked["score"], score[ranked.index], rtol=1e-9)
    assert list(ranked.sort_values("rank").index) == list(score.sort_values().index)


def test_an_evaluated_dice_is_that_of_the_segmentation_on_disk(finished_run: FinishedRun) -> None:
    study = finished_run.study()
    name = study.cohort.tests[0]
    predicted = nib.load(study.path("reduced_evaluation", "all") / "segmentations" / f"{name}.nii.gz")
    truth = nib.load(study.raw / "labelsTr" / f"{name}.nii.gz")
    np.testing.assert_allclose(predicted.affine, truth.affine)
    said, meant = np.asarray(predicted.dataobj) > 0, np.asarray(truth.dataobj) > 0
    expected = 2 * (said & meant).sum() / (said.sum() + meant.sum())
    rows = tables(finished_run.data_dir)["evaluation"].set_index(["removal_set", "case_id", "region"])
    assert rows.loc[("all", name, "WT"), "dice"] == pytest.approx(expected, abs=1e-12)


def test_training_sets_agree_in_database_plan_and_models(finished_run: FinishedRun) -> None:
    study = finished_run.study()
    rows = tables(finished_run.data_dir)["training_set"]
    ranking = tables(finished_run.data_dir)["case_score"].sort_values("rank")["case_id"].tolist()
    lost = rows[~rows["kept"]].groupby("removal_set")["case_id"].agg(set).to_dict()
    assert "all" not in lost
    assert lost["worst_1"] == set(ranking[:1])
    assert lost["worst_2"] == set(ranking[:2])
    for name in study.removal_sets:
        written = pd.read_parquet(study.path("training_set", name) / "training_set.parquet")
        assert set(written.loc[~written["kept"], "case_id"]) == lost.get(name, set())


def test_status_counts_what_a_lost_artifact_leaves_missing(finished_run: FinishedRun, tmp_path: Path) -> None:
    copied = finished_run.copied_to(tmp_path)
    study = copied.study()
    donor = study.cohort.donors[0]
    shutil.rmtree(study.path("dice_row", donor))
    counts = json.loads(idal("status", "--json", "--data-dir", copied.data_dir).stdout)
    assert list(counts) == list(GRAPH)
    assert counts["dice_row"] == {"current": 4, "outdated": 0, "missing": 1}
    assert counts["case_model"] == {"current": 5, "outdated": 0, "missing": 0}
    assert counts["dice_matrix"] == {"current": 0, "outdated": 1, "missing": 0}


@pytest.mark.live
@pytest.mark.parametrize("until", ["case_model", "reduced_model"])
def test_a_killed_run_is_taken_up_with_the_same_numbers(
    finished_run: FinishedRun, tmp_path: Path, until: str
) -> None:
    data_dir = tmp_path / "data"
    command = [*IDAL, "run", "--profile", "tiny", "--data-dir", str(data_dir)]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (data_dir / ".unfinished").is_dir() or not any(
        path.name.startswith(until) for path in (data_dir / ".unfinished").iterdir()
    ):
        assert running.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    with FinishedRun(data_dir).instance() as instance:
        before = materializations(instance)

    done = idal("run", "--data-dir", data_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_numbers(finished_run.data_dir, data_dir)
    with FinishedRun(data_dir).instance() as instance:
        after = materializations(instance)
        unfinished = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING]
        assert not instance.get_runs(dg.RunsFilter(statuses=unfinished))
    assert before
    assert all(after[partition] == 1 for partition in after)


def test_bad_cases_stop_the_run_before_any_training(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    assert idal("phantom", raw, "--profile", "tiny").returncode == 0
    cut = raw / "imagesTr" / "phantom_train_02.nii.gz"
    cut.write_bytes(cut.read_bytes()[:2000])
    (raw / "labelsTr" / "phantom_train_04.nii.gz").unlink()
    failed = idal("run", "--profile", "tiny", "--raw", raw, "--data-dir", tmp_path / "data")
    assert failed.returncode == 1
    assert "phantom_train_02" in failed.stderr
    assert "phantom_train_04" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not (tmp_path / "data" / "baseline_weights").exists()
    with FinishedRun(tmp_path / "data").instance() as instance:
        seen = instance.fetch_observations(dg.AssetKey("cohort"), limit=1).records[0].asset_observation
    refused = {record.data["case_id"]: record.data["reason"] for record in seen.metadata["refused"].records}
    assert set(refused) == {"phantom_train_02", "phantom_train_04"}
    assert "labelsTr" in refused["phantom_train_04"]


@pytest.mark.real
def test_real_cases_run_through_the_tiny_profile(tmp_path: Path) -> None:
    raw = real_data("brats_mini")
    done = idal("run", "--profile", "tiny", "--raw", raw, "--data-dir", tmp_path / "data")
    assert done.returncode == 0, done.stdout + done.stderr
    cohort = Study.open(tmp_path / "data").cohort
    assert (len(cohort.donors), len(cohort.tests)) == (6, 2)
    cells = tables(tmp_path / "data")["dice"]
    assert cells.loc[cells["region"] == "WT", "dice"].between(0, 1).all()
