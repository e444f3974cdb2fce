"""What is made by itself with `idal ui` running: its sensors look, its daemon launches.

What each change reruns is held in test_automation; here is only what takes a server and a daemon. The tests share
one server. Each changes something, waits until the sensors have come to rest and compares what was made since.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus
from dagster._core.scheduler.instigation import InstigatorTick, TickStatus

from idal_assets.orchestration.automation import CONDITIONS, RAW_FOLDER_SENSOR, unfinished_runs
from idal_assets.study.graph import GRAPH
from idal_assets_tests.live_ui import LiveUi, live_ui, wait_until
from idal_assets_tests.worlds import (
    DONORS,
    SETS,
    TESTS,
    Places,
    World,
    after_other_distance,
    changed_sets,
    new_world,
    training_sets,
)

pytestmark = pytest.mark.live

LONGEST = 300
"""Seconds until what a change causes must be done; a tenth of it is usual."""
UNFINISHED_BACKFILLS = BulkActionsFilter(
    statuses=[BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING, BulkActionStatus.FAILING]
)
AT_REST = (
    "Everything is current",
    "The folders are as they were",
    "Sensor function returned an empty result",
)
"""What a look says that finds nothing to do; the last is Dagster's word where the conditions ask for nothing."""


class Automated:
    """A study and the server that makes it."""

    def __init__(self, world: World, live: LiveUi, log: Path) -> None:
        self.world = world
        self.live = live
        self.log = log

    @contextmanager
    def switched_on(self, *sensors: str) -> Iterator[None]:
        """Turns sensors on, sees that nothing is left to do, and off again."""
        since = time.time()
        with self.live.switched_on(*sensors):
            self._wait_for_rest(sensors, since)
            yield

    @contextmanager
    def rerun(self, *sensors: str) -> Iterator[Places]:
        """Collects what is materialized because of the change that is made in the context."""
        found: Places = Counter()
        with self.switched_on(*sensors):
            before, since = self.world.materializations(), time.time()
            yield found
            self._wait_for_rest(sensors, since)
        found.update(self.world.materializations() - before)

    def _wait_for_rest(self, sensors: Sequence[str], since: float) -> None:
        """Waits until what was changed up to now is dealt with; nothing may have failed since the given time."""
        now = time.time()

        def explain() -> str:
            return self._explain(sensors, since)

        wait_until(lambda: self._rests(sensors, since, now), LONGEST, explain)
        assert not self._failed(since), explain()

    def _rests(self, sensors: Sequence[str], since: float, now: float) -> bool:
        """Whether something failed, or each sensor looked and asked for nothing after all was done."""
        instance = self.world.instance
        if unfinished_runs(instance) or instance.get_backfills(UNFINISHED_BACKFILLS):
            return False
        if self._failed(since):
            return True
        ends = [record.end_time for record in instance.get_run_records(limit=20)]
        ends += [backfill.backfill_end_timestamp for backfill in instance.get_backfills(limit=5)]
        quiet = max([now, *(end for end in ends if end)])
        return all(any(_asks_for_nothing(tick, quiet) for tick in self._ticks(sensor)) for sensor in sensors)

    def _ticks(self, sensor: str) -> Sequence[InstigatorTick]:
        instance = self.world.instance
        (state,) = [state for state in instance.all_instigator_state() if state.name == sensor]
        return instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=10)

    def _failed(self, since: float) -> list[str]:
        """Runs and looks that failed."""
        failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED])
        runs = [
            f"{record.dagster_run.job_name} {record.dagster_run.asset_selection} {record.dagster_run.run_id}"
            for record in self.world.instance.get_run_records(failed, limit=10)
            if record.create_timestamp.timestamp() > since
        ]
        ticks = [
            str(tick.error)
            for state in self.world.instance.all_instigator_state()
            for tick in self._ticks(state.name)
            if tick.status is TickStatus.FAILURE and tick.timestamp > since
        ]
        return runs + ticks

    def _explain(self, sensors: Sequence[str], since: float) -> str:
        looks = {
            sensor: [f"{tick.timestamp - since:.1f} s {tick.status.value} {tick.skip_reason}" for tick in ticks]
            for sensor, ticks in ((sensor, self._ticks(sensor)) for sensor in sensors)
        }
        unfinished = [
            (run.job_name, run.asset_selection, run.status) for run in unfinished_runs(self.world.instance)
        ]
        return f"not at rest.\nfailed: {self._failed(since)}\nunfinished: {unfinished}\nlooks: {looks}"


def _asks_for_nothing(tick: InstigatorTick, since: float) -> bool:
    return tick.timestamp > since and tick.status is TickStatus.SKIPPED and tick.skip_reason in AT_REST


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Automated]:
    """A server on a data folder that is empty as yet."""
    root = tmp_path_factory.mktemp("automated")
    world = new_world(root / "world")
    world.change_profile(automation={"seconds_between_looks": 2})
    world.study.remember()
    with world.instance, live_ui(world.study.folder.root, world.profile, root) as live:
        yield Automated(world, live, root / "ui.log")


@pytest.fixture(scope="module")
def first(started: Automated) -> Places:
    """What the raw folder's sensor makes by itself of an empty data folder."""
    with started.switched_on(RAW_FOLDER_SENSOR):
        return started.world.materializations()


@pytest.fixture
def automated(started: Automated, first: Places, request: pytest.FixtureRequest) -> Iterator[Automated]:
    """The server with everything made; what it logs is shown where a test fails."""
    before = started.log.stat().st_size
    assert started.world.all_current()
    yield started
    said = started.log.read_bytes()[before:].decode(errors="replace")
    request.node.add_report_section("teardown", "log of idal ui", said[-8000:])


def test_of_an_empty_data_folder_everything_is_made_once(automated: Automated, first: Places) -> None:
    keys = {
        "case": (*DONORS, *TESTS),
        "candidate": (),
        "receiver": (),
        "donor": DONORS,
        "fold": automated.world.study.folds,
        "confirmation": automated.world.study.confirmations,
        "removal_set": SETS,
        "patient": (),
        None: (None,),
    }
    assert first == {(name, key): 1 for name, node in GRAPH.items() for key in keys[node.partition]}


def test_a_run_by_hand_and_the_conditions_make_nothing_twice(automated: Automated) -> None:
    world = automated.world
    versions, before = training_sets(world), world.made()
    with automated.rerun(RAW_FOLDER_SENSOR, CONDITIONS):
        choose_other_distance(world)
        automated.live.launch(job="full_experiment")
    assert world.made() - before == after_other_distance(changed_sets(world, versions))
    assert world.all_current()


def choose_other_distance(world: World) -> None:
    other = {"rows": "symmetric", "symmetric": "rows"}[world.study.profile.similarity.distance]
    world.change_profile(similarity={"distance": other})
