"""What reruns when the data or a setting change, with `idal ui` running: its sensors look, its daemon launches.

All tests share one server. Each changes something, waits until the sensors have come to rest and compares what was
materialized since; none depends on what another one changed.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus
from dagster._core.scheduler.instigation import InstigatorTick, TickStatus

from idal_assets.orchestration.automation import CONDITIONS, NIGHTLY, RAW_FOLDER_SENSOR, unfinished_runs
from idal_assets.study.graph import GRAPH
from idal_assets_tests.live_ui import LiveUi, live_ui, wait_until
from idal_assets_tests.raw_folders import rewrite_same_content
from idal_assets_tests.worlds import (
    DONORS,
    NEW,
    SETS,
    TESTS,
    Places,
    World,
    after_edited_donor,
    after_edited_test_case,
    after_other_case_models,
    after_other_distance,
    after_removed_case,
    changed_sets,
    folds,
    new_world,
    once,
    refolded,
    training_sets,
)

LONGEST = 300
"""Seconds until what a change causes must be done; a tenth of it is usual."""
UNFINISHED_BACKFILLS = BulkActionsFilter(
    statuses=[BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING, BulkActionStatus.FAILING]
)
AT_REST = (
    "Everything is current",
    "The raw folder is as it was",
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


def rows_and_cells(world: World) -> dict[str, int]:
    """Cells that were computed for the newest row of each donor."""
    found = world.cells_computed("dice_row")
    return {donor: found[donor] for donor in world.study.cohort.donors}


def test_of_an_empty_data_folder_everything_is_made_once(automated: Automated, first: Places) -> None:
    keys = {
        "case": (*DONORS, *TESTS),
        "candidate": (),
        "donor": DONORS,
        "fold": automated.world.study.folds,
        "removal_set": SETS,
        None: (None,),
    }
    assert first == {(name, key): 1 for name, node in GRAPH.items() for key in keys[node.partition]}


# --- the sensor of the raw folder: one run for everything ---


def test_nothing_happens_when_nothing_changes(automated: Automated) -> None:
    for _ in range(2):
        with automated.rerun(RAW_FOLDER_SENSOR) as reran:
            pass
        assert reran == Counter()


def test_a_touched_file_leads_to_nothing_but_the_look(automated: Automated) -> None:
    world = automated.world
    with automated.rerun(RAW_FOLDER_SENSOR) as reran:
        rewrite_same_content(world.raw / "imagesTr" / f"{world.study.cohort.donors[1]}.nii.gz")
    assert reran == once("cohort")
    assert world.all_current()


def test_an_edited_donor_reruns_its_chain_and_what_fans_in(automated: Automated) -> None:
    world = automated.world
    versions, donors = training_sets(world), world.study.cohort.donors
    with automated.rerun(RAW_FOLDER_SENSOR) as reran:
        world.edit_label(donors[0])
    retrained = changed_sets(world, versions)
    assert "all" in retrained
    assert reran == after_edited_donor(donors[0], donors, refolded(world, folds(world), donors[0]), retrained)
    assert rows_and_cells(world) == {**dict.fromkeys(donors, 1), donors[0]: len([*donors, *TESTS])}
    assert world.all_current()


def test_an_edited_case_that_a_set_has_removed_does_not_retrain_that_set(automated: Automated) -> None:
    world = automated.world
    removed, ranking = removed_case(world), ranked_cases(world)
    versions, donors = training_sets(world), world.study.cohort.donors
    with automated.rerun(RAW_FOLDER_SENSOR) as reran:
        world.move(removed)
    assert ranked_cases(world) == ranking
    retrained = changed_sets(world, versions)
    assert "all" in retrained
    assert "worst_1" not in retrained
    assert reran == after_edited_donor(removed, donors, refolded(world, folds(world), removed), retrained)
    assert world.all_current()


def removed_case(world: World) -> str:
    rows = pd.read_parquet(world.study.path("training_set", "worst_1") / "training_set.parquet")
    return rows.loc[~rows["kept"], "case_id"].item()


def ranked_cases(world: World) -> list[str]:
    return pd.read_parquet(world.study.path("case_ranking") / "case_score.parquet")["case_id"].tolist()


def test_an_edited_test_case_trains_and_decides_nothing(automated: Automated) -> None:
    world = automated.world
    donors = world.study.cohort.donors
    with automated.rerun(RAW_FOLDER_SENSOR) as reran:
        world.edit_label(TESTS[0])
    assert reran == after_edited_test_case(TESTS[0], donors)
    assert rows_and_cells(world) == dict.fromkeys(donors, 1)
    assert world.cells_computed("reduced_evaluation") == dict.fromkeys(SETS, 1)
    assert world.all_current()


def test_a_new_case_runs_its_chain_and_what_fans_in(automated: Automated) -> None:
    world = automated.world
    donors, learned_from = world.study.cohort.donors, folds(world)
    with automated.rerun(RAW_FOLDER_SENSOR) as reran:
        world.add_case(NEW, like=donors[0])
    assert NEW in world.instance.get_dynamic_partitions("donor")
    assert reran == after_edited_donor(NEW, [*donors, NEW], refolded(world, learned_from), SETS)
    assert rows_and_cells(world) == {**dict.fromkeys(donors, 1), NEW: len([*donors, NEW, *TESTS])}
    assert world.all_current()


def test_a_removed_case_trains_no_other_case_model(automated: Automated) -> None:
    world = automated.world
    versions, learned_from = training_sets(world), folds(world)
    *left, gone = world.study.cohort.donors
    with automated.rerun(RAW_FOLDER_SENSOR) as reran:
        world.remove_case(gone)
    assert gone not in world.instance.get_dynamic_partitions("donor")
    assert reran == after_removed_case(left, refolded(world, learned_from), changed_sets(world, versions))
    assert rows_and_cells(world) == dict.fromkeys(left, 0)
    assert world.all_current()


# --- the other switches ---


def test_nothing_happens_under_the_conditions_when_nothing_changes(automated: Automated) -> None:
    for _ in range(2):
        with automated.rerun(RAW_FOLDER_SENSOR, CONDITIONS) as reran:
            pass
        assert reran == Counter()


def test_under_the_conditions_each_artifact_is_made_once(automated: Automated) -> None:
    world = automated.world
    runs = world.instance.get_runs_count()
    with automated.rerun(RAW_FOLDER_SENSOR, CONDITIONS) as reran:
        world.change_profile(evidence={"resamples": 200})
    assert reran == once("evidence", "experiment_report")
    # the report is due only when the evidence is made
    assert world.instance.get_runs_count() - runs == len(reran)
    assert world.all_current()


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


def test_the_nightly_run_notices_more_iterations_of_case_models(automated: Automated) -> None:
    world, live = automated.world, automated.live
    versions, before = training_sets(world), world.materializations()
    assert live.evaluate_schedule(NIGHTLY)["skipReason"] == "Everything is current"
    world.change_profile(case_model={"iterations_per_epoch": 3})
    (request,) = live.evaluate_schedule(NIGHTLY)["runRequests"]
    run_id = live.launch(job="full_experiment", tags={tag["key"]: tag["value"] for tag in request["tags"]})
    wait_until(lambda: not unfinished_runs(world.instance), LONGEST)
    assert world.instance.get_run_by_id(run_id).is_success
    expected = after_other_case_models(world.study.cohort.donors, changed_sets(world, versions))
    assert world.materializations() - before == expected
    assert live.evaluate_schedule(NIGHTLY)["skipReason"] == "Everything is current"
