"""A real `idal ui`: webserver, daemon and code server in processes of their own, spoken to as the browser does."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from idal_assets_tests.conftest import IDAL

REPOSITORY = {"repositoryName": "__repository__", "repositoryLocationName": "idal_assets"}
QUICK_DAEMON = """
import sys
if any("dagster._daemon" in word for word in sys.orig_argv):
    import dagster._daemon.controller
    import dagster._daemon.sensor
    dagster._daemon.controller.DEFAULT_DAEMON_INTERVAL_SECONDS = 1
    dagster._daemon.sensor.MIN_INTERVAL_LOOP_TIME = 1
"""
"""Dagster's daemon looks at a backfill every 30 s and at a sensor every 5 s at most, and nothing can be set; only
those waits are made shorter here."""

BACKFILL = """mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
STATUS = (
    "query($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } } }"
)
LAUNCH = """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) { __typename
    ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } } } }"""


SWITCH_ON = """mutation($selector: SensorSelector!) { startSensor(sensorSelector: $selector) { __typename
    ... on Sensor { sensorState { id } } ... on PythonError { message } } }"""
SWITCH_OFF = """mutation($id: String!) { stopSensor(id: $id) { __typename ... on PythonError { message } } }"""
EVALUATE = """mutation($selector: ScheduleSelector!, $timestamp: Float!) {
    scheduleDryRun(selectorData: $selector, timestamp: $timestamp) { __typename ... on DryRunInstigationTick {
        evaluationResult { skipReason runRequests { tags { key value } } error { message } } } } }"""
LAUNCHPAD = """query($selector: PipelineSelector!) { runConfigSchemaOrError(selector: $selector) { __typename
    ... on RunConfigSchema { rootDefaultYaml } } }"""


class LiveUi:
    """A running `idal ui`."""

    def __init__(self, process: subprocess.Popen, port: int) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                found = json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error
        assert "errors" not in found, found["errors"]
        return found["data"]

    def launch(
        self,
        assets: list[str] | None = None,
        partition: str | None = None,
        config: Mapping | None = None,
        job: str = "__ASSET_JOB",
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Launches a run as the buttons Materialize and Launch run do; returns its id."""
        selector = {**REPOSITORY, "pipelineName": job}
        if assets:
            selector["assetSelection"] = [{"path": [asset]} for asset in assets]
        tags = {**(tags or {}), **({"dagster/partition": partition} if partition else {})}
        params = {
            "selector": selector,
            "runConfigData": json.dumps(config or {}),
            "mode": "default",
            "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
        }
        launched = self.ask(LAUNCH, params=params)["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return launched["run"]["runId"]

    def launchpad(self, asset: str) -> dict[str, Any]:
        """What the launchpad of an asset is filled with."""
        selector = {**REPOSITORY, "pipelineName": "__ASSET_JOB", "assetSelection": [{"path": [asset]}]}
        return yaml.safe_load(self.ask(LAUNCHPAD, selector=selector)["runConfigSchemaOrError"]["rootDefaultYaml"])

    def backfill(self, assets: list[str]) -> str:
        """Launches all partitions of assets, as `Materialize all` does; returns the backfill's id."""
        params = {"assetSelection": [{"path": [asset]} for asset in assets], "allPartitions": True}
        launched = self.ask(BACKFILL, params=params)["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        return launched["backfillId"]

    def backfill_status(self, backfill: str) -> str:
        return self.ask(STATUS, id=backfill)["partitionBackfillOrError"]["status"]

    @contextmanager
    def switched_on(self, *sensors: str) -> Iterator[None]:
        """Turns the switches of sensors on, and off again."""
        switches = []
        for sensor in sensors:
            found = self.ask(SWITCH_ON, selector={**REPOSITORY, "sensorName": sensor})["startSensor"]
            assert found["__typename"] == "Sensor", found
            switches.append(found["sensorState"]["id"])
        try:
            yield
        finally:
            for switch in switches:
                found = self.ask(SWITCH_OFF, id=switch)["stopSensor"]
                assert found["__typename"] == "StopSensorMutationResult", found

    def evaluate_schedule(self, schedule: str) -> dict[str, Any]:
        """What a tick of a schedule would do now, as the button that tests a schedule says."""
        selector = {**REPOSITORY, "scheduleName": schedule}
        found = self.ask(EVALUATE, selector=selector, timestamp=time.time())["scheduleDryRun"]
        assert found["__typename"] == "DryRunInstigationTick", found
        assert not found["evaluationResult"]["error"], found
        return found["evaluationResult"]


@contextmanager
def live_ui(data_dir: Path, profile: Path | str, helpers: Path) -> Iterator[LiveUi]:
    """Runs `idal ui` in a process group of its own, and ends the whole group."""
    (helpers / "sitecustomize.py").write_text(QUICK_DAEMON)
    port = free_port()
    path = os.pathsep.join([str(helpers), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "IDAL_PROFILE": str(profile)}
    with (helpers / "ui.log").open("ab") as log:
        process = subprocess.Popen(
            [*IDAL, "ui", "--data-dir", str(data_dir), "--port", str(port)],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    # Whoever stops the tests from outside must not leave a server behind.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    try:
        live = LiveUi(process, port)
        wait_until(lambda: _answers(live), 180, lambda: (helpers / "ui.log").read_text()[-3000:])
        yield live
    finally:
        end_group(process)
        signal.signal(signal.SIGTERM, before)


def wait_until(true: Callable[[], Any], seconds: float, explain: Callable[[], str] = str) -> Any:
    """What the function returns as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, explain()
        time.sleep(0.2)
    return found


def end_group(process: subprocess.Popen) -> None:
    """Ends a process and all that it started: first politely, then for sure."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(15)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def processes_of_group(group: int) -> dict[int, str]:
    """Command lines of the living processes of a group."""
    found = {}
    for line in subprocess.check_output(
        ["ps", "-e", "-ww", "-o", "pid=,pgid=,stat=,args="], text=True
    ).splitlines():
        number, of_group, state, command = line.split(None, 3)
        if int(of_group) == group and not state.startswith("Z"):
            found[int(number)] = command
    return found


def _answers(live: LiveUi) -> bool:
    assert live.process.poll() is None, "idal ui ended"
    with suppress(OSError, AssertionError):
        loaded = live.ask("{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }")
        return bool(loaded["repositoriesOrError"].get("nodes"))
    return False


def free_port() -> int:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        return chosen.getsockname()[1]
