"""The Dagster instance of a data folder."""

import os
import socket
from collections.abc import Mapping
from pathlib import Path

import dagster as dg

from idal_assets.artifacts import write_atomically
from idal_assets.graph import Node
from idal_assets.layout import DataFolder

CONFIGURATION = """\
# Written by idal; yours to change.
telemetry:
  enabled: false
nux:
  enabled: false
# One run at a time: each uses all cores or the card.
concurrency:
  runs:
    max_concurrent_runs: 1
"""
PROCESS_TAG = "idal/process"
AUTOMATIC_TAG = "idal/automatic"
"""On runs that no person asked for artifact by artifact."""

DATA_VERSION_TAG = "dagster/data_version"


def open_instance(folder: DataFolder) -> dg.DagsterInstance:
    """Opens the instance of a data folder, and makes it if it is not there."""
    return dg.DagsterInstance.from_config(str(ensure_home(folder)))


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
    """Marks runs whose process was killed as cancelled; Dagster would show them as running for ever.

    Returns:
        How many there were.
    """
    running = instance.get_runs(
        dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING])
    )
    abandoned = [run for run in running if PROCESS_TAG in run.tags and not _is_alive(run.tags[PROCESS_TAG])]
    for run in abandoned:
        instance.report_run_canceled(run, message="The process of this run was killed")
    return len(abandoned)


def _is_alive(process: str) -> bool:
    host, _, number = process.rpartition(":")
    if host != socket.gethostname():
        return True
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
