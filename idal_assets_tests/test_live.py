"""Servers, daemons and workers that are killed, on the smallest experiment that has every asset."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import dagster as dg
import duckdb
import pandas as pd
import pytest

from idal_assets.orchestration.instance import open_instance, process_of
from idal_assets.study.graph import GRAPH
from idal_assets.study.study import Study
from idal_assets_tests.conftest import IDAL, idal
from idal_assets_tests.live_ui import live_ui, processes_of_group, wait_until

pytestmark = pytest.mark.live

PROFILE = """
phantom: {train_cases: 3, test_cases: 1, faults: 0, rare: 0, shape: [32, 40, 8], spacing: [4.0, 4.0, 8.0]}
cohort: {test_cases: [phantom_test_*], minimum_donors: 3}
plans: {memory_gb: 0.1, base_features: 4, batch_size: 4}
baseline: &short {epochs: 1, iterations_per_epoch: 4}
variants: {count: 1}
case_model: {epochs: 1, iterations_per_epoch: 4}
removal: {sizes: [1]}
reduced: *short
out_of_fold: {folds: 0}
compute: {device: cpu, precision: fp32, threads: 1}
"""
CLOCK = ("seconds", "cpu_seconds", "gpu_seconds", "written")
"""What no two runs have in common."""

AT_WORK = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.QUEUED]


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("profile") / "smallest.yaml"
    path.write_text(PROFILE)
    return path


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, profile: Path) -> Path:
    """The data folder of `idal run` with the same profile."""
    data_dir = tmp_path_factory.mktemp("undisturbed") / "data"
    done = idal("run", "--profile", profile, "--data-dir", data_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    return data_dir


def versions(data_dir: Path, profile: Path) -> dict[tuple[str, str | None], str]:
    study = Study.open(data_dir, profile)
    return {(name, key): study.version(name, key) for name, node in GRAPH.items() for key in node.keys(study)}


def tables(data_dir: Path) -> dict[str, pd.DataFrame]:
    with duckdb.connect(str(data_dir / "idal.duckdb"), read_only=True) as connection:
        names = [name for (name,) in connection.sql("SHOW TABLES").fetchall()]
        found = {name: connection.table(name).order("ALL").df() for name in names}
    return {name: table.drop(columns=list(CLOCK), errors="ignore") for name, table in found.items()}


def is_being_made(data_dir: Path, asset: str) -> bool:
    unfinished = data_dir / ".unfinished"
    return unfinished.is_dir() and any(path.name.startswith(f"{asset}--") for path in unfinished.iterdir())


def is_starting(instance: dg.DagsterInstance) -> bool:
    """Whether a run has been launched that has not said anything yet; the daemon gives such a run a minute."""
    return bool(instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTING])))


def wait_for_run(instance: dg.DagsterInstance, run_id: str, seconds: float = 120) -> dg.DagsterRun:
    wait_until(lambda: instance.get_run_by_id(run_id).is_finished, seconds)
    return instance.get_run_by_id(run_id)


def running_process(instance: dg.DagsterInstance, data_dir: Path, asset: str) -> int | None:
    """Process of the run that is making a partition of the asset now."""
    if not is_being_made(data_dir, asset):
        return None
    for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])):
        if dg.AssetKey(asset) in (run.asset_selection or ()):
            return process_of(instance, run)
    return None


def maker_of(data_dir: Path, asset: str) -> int | None:
    """Process that is making a partition of the asset now, as its draft is named."""
    unfinished = data_dir / ".unfinished"
    drafts = [path.name for path in unfinished.iterdir()] if unfinished.is_dir() else []
    made = [name.rpartition(".")[2] for name in drafts if name.startswith(f"{asset}--")]
    return next((int(process) for process in made if process.isdigit()), None)


def assert_recorded(data_dir: Path, profile: Path) -> None:
    """Dagster's instance knows the version of every artifact, and that each check was passed."""
    with open_instance(Study.open(data_dir).folder) as instance:
        for (name, key), version in versions(data_dir, profile).items():
            latest = instance.fetch_materializations(
                dg.AssetRecordsFilter(dg.AssetKey(name), asset_partitions=[key] if key else None), limit=1
            ).records[0]
            assert latest.asset_materialization.tags["dagster/data_version"] == version
        assert not instance.get_runs(dg.RunsFilter(statuses=AT_WORK))


def test_workers_and_their_coordinator_are_killed_and_the_same_command_ends_like_a_serial_run(
    tmp_path: Path, profile: Path, undisturbed: Path
) -> None:
    psutil = pytest.importorskip("psutil", reason="the extra `cluster` is not installed")
    data_dir = tmp_path / "data"
    command = [*IDAL, "run", "--profile", str(profile), "--data-dir", str(data_dir), "--workers", "2"]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        killed = wait_until(lambda: maker_of(data_dir, "case_model"), 300)
        processes = psutil.Process(running.pid).children(recursive=True)
        assert killed in {process.pid for process in processes}
        listening = {
            connection.laddr.ip
            for process in (psutil.Process(running.pid), *processes)
            for connection in process.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening == {"127.0.0.1"}
        os.kill(killed, signal.SIGKILL)
        other = wait_until(lambda: maker_of(data_dir, "reduced_model"), 300)
        assert other not in (killed, running.pid)
    finally:
        running.kill()
        running.wait()
    wait_until(lambda: not any(process.is_running() for process in processes), 60)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert versions(data_dir, profile) == versions(undisturbed, profile)
    for name, expected in tables(undisturbed).items():
        pd.testing.assert_frame_equal(tables(data_dir)[name], expected, check_exact=True, obj=name)
    assert_recorded(data_dir, profile)
    assert not list((data_dir / ".unfinished").iterdir())
    assert not (data_dir / ".cluster" / "key.pem").exists()


def test_a_job_of_the_ui_has_its_artifacts_made_by_the_workers_of_the_profile(
    tmp_path: Path, profile: Path, undisturbed: Path
) -> None:
    pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
    data_dir, own = tmp_path / "data", tmp_path / profile.name
    own.write_text(f"{PROFILE}cluster: {{engine: local, workers: 2}}\n")
    with live_ui(data_dir, own, tmp_path) as ui, open_instance(Study.open(data_dir, own).folder) as instance:
        run_id = ui.launch(job="full_experiment")
        maker = wait_until(lambda: maker_of(data_dir, "case_model"), 300)
        assert maker != process_of(instance, instance.get_run_by_id(run_id))
        assert wait_for_run(instance, run_id, 300).status is dg.DagsterRunStatus.SUCCESS
    assert versions(data_dir, own) == versions(undisturbed, profile)


def test_a_backfill_of_everything_survives_kills_and_ends_like_an_undisturbed_run(
    tmp_path: Path, profile: Path, undisturbed: Path
) -> None:
    data_dir = tmp_path / "data"
    with live_ui(data_dir, profile, tmp_path) as live, open_instance(Study.open(data_dir).folder) as instance:
        assert wait_for_run(instance, live.launch(["cohort"])).is_success
        backfill = live.backfill([name for name in GRAPH if name != "cohort"])
        killed = wait_until(lambda: running_process(instance, data_dir, "case_model"), 300)
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: is_being_made(data_dir, "reduced_model") and not is_starting(instance), 300)
        (daemon,) = [
            number
            for number, command in processes_of_group(live.process.pid).items()
            if "dagster._daemon" in command or "dagster-daemon" in command
        ]
        os.kill(daemon, signal.SIGKILL)
        os.killpg(live.process.pid, signal.SIGKILL)
    with live_ui(data_dir, profile, tmp_path) as live, open_instance(Study.open(data_dir).folder) as instance:
        wait_until(lambda: live.backfill_status(backfill).startswith("COMPLETED"), 300)
        assert live.backfill_status(backfill) == "COMPLETED_SUCCESS"
        assert not instance.get_runs(dg.RunsFilter(statuses=AT_WORK))
        assert versions(data_dir, profile) == versions(undisturbed, profile)
    assert_recorded(data_dir, profile)
    for name, expected in tables(undisturbed).items():
        pd.testing.assert_frame_equal(tables(data_dir)[name], expected, check_exact=True, obj=name)


def test_runs_at_once_take_turns_at_the_pool_and_at_the_database(
    tmp_path: Path, profile: Path, undisturbed: Path
) -> None:
    data_dir = tmp_path / "data"
    shutil.copytree(undisturbed, data_dir, copy_function=shutil.copy2)
    donors = Study.open(data_dir, profile).cohort.donors
    longer = {"ops": {"case_model": {"config": {"case_model": {"iterations_per_epoch": 40}}}}}
    with live_ui(data_dir, profile, tmp_path) as live, open_instance(Study.open(data_dir).folder) as instance:
        shown = live.launchpad("case_model")["ops"]["case_model"]["config"]
        assert shown["case_model"] == Study.open(data_dir, profile).profile.case_model.model_dump(mode="json")
        assert shown["seed"] == 0

        trainings = [live.launch(["case_model"], donor, longer) for donor in donors[:2]]
        assert all(wait_for_run(instance, run).is_success for run in trainings)
        first, second = sorted(seconds_of_step(instance, run, "case_model") for run in trainings)
        assert first[1] <= second[0]
        for donor in donors[:2]:
            made_with = Study.open(data_dir, profile).provenance("case_model", donor).inputs.settings
            assert made_with["case_model"]["iterations_per_epoch"] == 40

        with duckdb.connect(str(data_dir / "idal.duckdb")):
            writers = [
                live.launch([asset], config={"ops": {asset: {"config": settings}}})
                for asset, settings in (
                    ("case_ranking", {"similarity": {"largest_cluster": 0.5}}),
                    ("removal_plan", {"removal": {"order": "leaves"}}),
                )
            ]
            wait_until(lambda: all(has_started(instance, run) for run in writers), 60)
            time.sleep(1)
        assert all(wait_for_run(instance, run).is_success for run in writers)
        both = [
            seconds_of_step(instance, run, asset)
            for run, asset in zip(writers, ("case_ranking", "removal_plan"), strict=True)
        ]
        assert max(start for start, _ in both) < min(end for _, end in both), "the runs were not at once"
    found, before = tables(data_dir), tables(undisturbed)
    with duckdb.connect(str(data_dir / "idal.duckdb"), read_only=True) as connection:
        for name in ("case_score", "removal_plan"):
            assert len(found[name]) == len(before[name])
            assert len(connection.table(f"history.{name}")) == 2 * len(before[name])


def seconds_of_step(instance: dg.DagsterInstance, run_id: str, step: str) -> tuple[float, float]:
    (found,) = instance.get_run_step_stats(run_id, [step])
    return found.start_time, found.end_time


def has_started(instance: dg.DagsterInstance, run_id: str) -> bool:
    return any(found.start_time for found in instance.get_run_step_stats(run_id))
