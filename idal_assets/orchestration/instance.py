"""The Dagster instance of a data folder."""

import os
import socket
from pathlib import Path

import dagster as dg

from idal_assets.artifacts import write_atomically
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
