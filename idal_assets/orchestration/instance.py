"""The Dagster instance of a data folder."""

import os
import shutil
import socket
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy
import yaml
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from sqlalchemy import Engine

from idal_assets.store.artifacts import write_atomically
from idal_assets.store.layout import DataFolder
from idal_assets.store.processes import is_alive
from idal_assets.study.graph import Node

CONFIGURATION = """\
# Written by idal; yours to change.
telemetry:
  enabled: false
nux:
  enabled: false
concurrency:
  pools:
    # What trains or segments takes a place in the pool "accelerator". With several cards, make it as many places:
    # each run takes a free card. Then raise max_concurrent_runs too.
    granularity: op
    default_limit: 1
    # One more run may start and wait for the place.
    op_granularity_run_buffer: 1
  runs:
    # One run computes while the next one starts and reads; each takes about one GB of memory.
    max_concurrent_runs: 2
run_queue:
  dequeue_interval_seconds: 1
run_monitoring:
  enabled: true
  poll_interval_seconds: 10
  start_timeout_seconds: 60
  # A killed run must not keep its place in the pool.
  free_slots_after_run_end_seconds: 1
run_retries:
  enabled: true
  max_retries: 2
  # A run whose process was killed is started again. What an asset raises is the asset's own affair: it tries again
  # what can pass, and bad data stay bad.
  retry_on_asset_or_op_failure: false
"""
DATABASES = ("history/runs.db", "history/runs/index.db", "schedules/schedules.db")
"""SQLite files of the instance that everything is looked up in; beside them each run has one of its own."""

TERMINAL: Mapping[str, Any] = {
    "compute_logs": {
        "module": "dagster._core.storage.noop_compute_log_manager",
        "class": "NoOpComputeLogManager",
    }
}
"""What differs from the configuration where a process keeps its output."""

DEFINITIONS, LOCATION = "idal_assets.definitions", "idal_assets"
"""Module of the code location, and its name in the UI."""

PROCESS_TAG = "idal/process"
AUTOMATIC_TAG = "idal/automatic"
"""On runs that no person asked for artifact by artifact."""

DATA_VERSION_TAG = "dagster/data_version"


class InstanceError(RuntimeError):
    """The Dagster instance cannot be opened; the message says why and what to do."""


def open_instance(folder: DataFolder, shows_output: bool = False) -> dg.DagsterInstance:
    """Opens the instance of a data folder, and makes it if it is not there.

    Args:
        folder: The data folder.
        shows_output: Whether what steps of this process write stays on its terminal, where bars move. Else it goes
            into files that the UI shows.

    Raises:
        InstanceError: Its configuration cannot be used.
    """
    home = ensure_home(folder)
    try:
        return dg.DagsterInstance.from_ref(
            InstanceRef.from_dir(str(home), overrides=TERMINAL if shows_output else {})
        )
    except (yaml.YAMLError, UnicodeDecodeError, dg.DagsterInvalidConfigError) as error:
        raise InstanceError(
            f"{home / 'dagster.yaml'} cannot be used: mend it, or delete it and it is written anew"
        ) from error


def keep_engines() -> None:
    """Has this process keep one engine for each SQLite file of Dagster's event log.

    Dagster makes an engine for every statement, which must then be compiled anew: a quarter of what it costs to
    record an artifact. For a process with one run; in one that looks at many, engines would pile up.
    """
    kept: dict[str, Engine] = {}
    make = sqlalchemy.create_engine

    def engine(url: str, **options: Any) -> Engine:
        if url not in kept:
            kept[url] = make(url, **options)
        return kept[url]

    sqlite_event_log.create_engine = engine  # type: ignore[assignment]


def mend_instance(folder: DataFolder) -> Path | None:
    """Puts a damaged instance aside: it remembers runs and events, and the artifacts are recorded in a new one.

    Returns:
        Where the damaged one is now, instead of an earlier one; None where nothing is wrong.
    """
    home = folder.dagster_home
    if all(_is_sound(home / database) for database in DATABASES):
        return None
    aside = home.with_name(f"{home.name}.damaged")
    shutil.rmtree(aside, ignore_errors=True)
    home.rename(aside)
    ensure_home(folder)
    if (aside / "dagster.yaml").is_file():
        shutil.copy(aside / "dagster.yaml", home)
    return aside


def _is_sound(database: Path) -> bool:
    """What SQLite says of its file; one that is not there yet is sound."""
    if not database.is_file():
        return True
    try:
        with closing(sqlite3.connect(database)) as connection:
            return connection.execute("PRAGMA quick_check(1)").fetchall() == [("ok",)]
    except sqlite3.OperationalError:
        # in use, or in a folder that is read-only: that is no damage
        return True
    except sqlite3.DatabaseError:
        return False


def ensure_home(folder: DataFolder) -> Path:
    """Makes the Dagster home with its configuration, without touching one that is there."""
    home = folder.dagster_home
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "dagster.yaml").exists():
        write_atomically(home / "dagster.yaml", CONFIGURATION)
    return home


def recorded_versions(instance: dg.DagsterInstance, node: Node) -> Mapping[str | None, str]:
    """Data versions that the instance knows of an asset, by partition."""
    asset = dg.AssetKey(node.name)
    if node.partition is None:
        event = instance.get_latest_materialization_event(asset)
        materialization = event.asset_materialization if event else None
        return {None: (materialization.tags or {}).get(DATA_VERSION_TAG, "")} if materialization else {}
    by_partition = instance.event_log_storage.get_latest_tags_by_partition(
        asset, dg.DagsterEventType.ASSET_MATERIALIZATION, [DATA_VERSION_TAG]
    )
    return {key: tags[DATA_VERSION_TAG] for key, tags in by_partition.items()}


def process_tag() -> dict[str, str]:
    """Tags a run with the process it runs in."""
    return {PROCESS_TAG: f"{socket.gethostname()}:{os.getpid()}"}


def close_abandoned_runs(instance: dg.DagsterInstance) -> int:
    """Closes runs whose process was killed; Dagster would show them as running for ever.

    A run of `idal run` is marked as cancelled: the next one goes on. A run that the UI launched is marked as
    failed, which the daemon answers with a retry. Their places in pools become free.

    Returns:
        How many there were.
    """
    running = instance.get_runs(
        dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING])
    )
    abandoned = [run for run in running if _is_abandoned(instance, run)]
    for run in abandoned:
        report = instance.report_run_canceled if _is_ours(run) else instance.report_run_failed
        report(run, message="The process of this run was killed")
    _free_forgotten_places(instance)
    return len(abandoned)


def _free_forgotten_places(instance: dg.DagsterInstance) -> None:
    storage = instance.event_log_storage
    for run_id in storage.get_concurrency_run_ids():
        run = instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            storage.free_concurrency_slots_for_run(run_id)


def process_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> int | None:
    """The process of a run that the UI launched, as it said itself; None before it said anything."""
    said = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    found = [entry.get_dagster_event().engine_event_data.metadata.get("pid") for entry in said]
    processes = [int(str(process.value)) for process in found if process is not None]
    return processes[-1] if processes else None


def _is_abandoned(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    if not _is_ours(run):
        process = process_of(instance, run)
        return process is not None and not is_alive(process)
    host, _, number = run.tags[PROCESS_TAG].rpartition(":")
    return host == socket.gethostname() and not is_alive(int(number))


def _is_ours(run: dg.DagsterRun) -> bool:
    """Whether it is a run of `idal run`; one that the UI launched again from it only has its tags."""
    return PROCESS_TAG in run.tags and run.parent_run_id is None
