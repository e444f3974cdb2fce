"""What Dagster knows after `idal run`: one run as the UI shows them, and assets as current as they are."""

import shutil
import time
from collections.abc import Collection
from pathlib import Path
from threading import Timer

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from rich.progress import Progress as Bars

from idal_assets.orchestration.assets import ACCELERATOR
from idal_assets.orchestration.definitions import build_definitions
from idal_assets.orchestration.instance import LOCATION, close_abandoned_runs, keep_engines, process_tag
from idal_assets.orchestration.recorder import Recorder
from idal_assets.orchestration.reports import Report, attempt
from idal_assets.orchestration.resources import StudyResource
from idal_assets.orchestration.runner import Made, Runner, StepFailedError, _Books
from idal_assets.progress import silently
from idal_assets.steps import similarity
from idal_assets.study.graph import GRAPH
from idal_assets.study.order import Chain
from idal_assets.study.study import Study
from idal_assets.study.tables import Artifact
from idal_assets_tests.conftest import FinishedRun

pytestmark = [pytest.mark.graph, pytest.mark.usefixtures("blank_pictures")]


def outdated(study: Study, instance: dg.DagsterInstance, assets: Collection[str] = tuple(GRAPH)) -> set[Artifact]:
    """What the UI shows as outdated."""
    graph = build_definitions(StudyResource(data_dir=str(study.folder.root))).resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    places = {(name, key) for name in assets for key in GRAPH[name].keys(study)}
    found = {place: resolver.get_status(dg.AssetKey(place[0]), place[1]) for place in places}
    assert StaleStatus.MISSING not in found.values()
    return {place for place, status in found.items() if status is StaleStatus.STALE}


def run_again(study: Study, instance: dg.DagsterInstance) -> None:
    Runner(study, instance, Bars(disable=True), silently).run()


def test_the_whole_run_is_one_run_of_the_job_that_the_ui_can_launch_again(
    finished_run: FinishedRun, instance: dg.DagsterInstance
) -> None:
    (run,) = instance.get_runs()
    assert (run.job_name, run.status) == ("full_experiment", dg.DagsterRunStatus.SUCCESS)
    assert run.remote_job_origin.repository_origin.code_location_origin.location_name == LOCATION
    made = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    study = finished_run.study()
    assert len(made) == sum(len(node.keys(study)) for node in GRAPH.values())


def test_nothing_is_shown_as_outdated_until_something_is(
    copied: FinishedRun, instance: dg.DagsterInstance
) -> None:
    study, donor = copied.study(), copied.study().cohort.donors[0]
    assert outdated(study, instance) == set()
    definitions = build_definitions(StudyResource(data_dir=str(copied.data_dir)))
    done = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        run_config={"ops": {"early_row": {"config": {"inference": {"tile_step": 0.25}}}}},
        asset_selection=[dg.AssetKey("early_row")],
        partition_key=donor,
        instance=instance,
    )
    assert done.success
    assert outdated(study, instance, ["convergence"]) == {("convergence", None)}
    # made as it was, what follows from it need not be made again
    Runner(study, instance, Bars(disable=True), silently).run({"early_row"})
    assert outdated(study, instance, ["convergence"]) == set()


def test_a_partition_that_the_profile_names_is_there_also_where_nothing_is_made(
    copied: FinishedRun, instance: dg.DagsterInstance
) -> None:
    fold = copied.study().folds
    before = instance.get_dynamic_partitions("fold")
    assert set(before) == set(fold)
    instance.delete_dynamic_partition("fold", before[0])
    run_again(copied.study(), instance)
    assert set(instance.get_dynamic_partitions("fold")) == set(fold)


def test_a_run_with_nothing_to_do_is_not_written_down(copied: FinishedRun, instance: dg.DagsterInstance) -> None:
    run_again(copied.study(), instance)
    assert len(instance.get_runs()) == 1


def test_what_a_worker_found_to_be_current_is_not_written_a_second_time(
    copied: FinishedRun, instance: dg.DagsterInstance
) -> None:
    study, made = copied.study(), Made()
    books = _Books(Runner(study, instance, Bars(disable=True), silently), made)
    found = attempt(study, "dendrogram", None, silently)
    books.write(Report(Chain(("dendrogram",), None, ("",)), [found]))
    assert (made.made, made.kept) == ({}, 1)
    assert len(instance.fetch_materializations(dg.AssetKey("dendrogram"), limit=9).records) == 1


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError("bad data"), dg.DagsterRunStatus.FAILURE), (KeyboardInterrupt(), dg.DagsterRunStatus.CANCELED)],
)
def test_a_run_that_stops_says_so_and_is_not_retried(
    copied: FinishedRun,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    status: dg.DagsterRunStatus,
) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(similarity, "make_dendrogram", fail)
    study = copied.study()
    shutil.rmtree(study.path("dendrogram"))
    shutil.rmtree(study.path("dice_row", study.cohort.donors[0]))
    with pytest.raises((StepFailedError, KeyboardInterrupt)):
        run_again(study, instance)
    run, _ = instance.get_runs()
    assert (run.status, run.tags["dagster/max_retries"]) == (status, "0")
    (row,) = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    assert row.get_dagster_event().partition == study.cohort.donors[0]
    said = [entry.message for entry in instance.all_logs(run.run_id)]
    assert any("dendrogram failed" in text and "bad data" in text for text in said) == isinstance(
        error, ValueError
    )


def test_what_computes_waits_for_its_place_in_the_pool(copied: FinishedRun, instance: dg.DagsterInstance) -> None:
    storage, donor = instance.event_log_storage, copied.study().cohort.donors[0]
    storage.initialize_concurrency_limit_to_default(ACCELERATOR)
    assert storage.claim_concurrency_slot(ACCELERATOR, "another run", "case_model").is_claimed
    other = Timer(1, storage.free_concurrency_slots_for_run, ["another run"])
    other.start()
    began = time.monotonic()
    with Recorder(copied.study(), instance) as written:
        with written.place("case_model", donor):
            assert time.monotonic() - began >= 1
            assert not storage.claim_concurrency_slot(ACCELERATOR, "a third run", "case_model").is_claimed
        storage.free_concurrency_slots_for_run("a third run")
        assert storage.claim_concurrency_slot(ACCELERATOR, "a fourth run", "case_model").is_claimed
    other.join()


def test_engines_that_are_kept_read_what_took_the_place_of_a_database(tmp_path: Path) -> None:
    keep_engines()
    here, aside = tmp_path / "home", tmp_path / "aside"
    here.mkdir()

    def seen() -> list[str]:
        with dg.DagsterInstance.local_temp(str(here)) as instance:
            instance.report_runless_asset_event(dg.AssetMaterialization(f"asset_{aside.exists()}"))
            return sorted(key.to_user_string() for key in instance.all_asset_keys())

    assert seen() == ["asset_False"]
    kept = sqlite_event_log.create_engine("sqlite:///kept.db")
    assert sqlite_event_log.create_engine("sqlite:///kept.db") is kept
    here.rename(aside)
    here.mkdir()
    assert seen() == ["asset_True"]


def test_a_run_that_the_ui_launched_again_is_not_taken_for_the_one_that_was_killed(
    copied: FinishedRun, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = instance.get_runs()
    monkeypatch.setattr("os.getpid", lambda: 2**22 + 1)
    dead = process_tag()
    monkeypatch.undo()
    job = build_definitions(StudyResource(profile="tiny")).resolve_job_def("full_experiment")
    started = {"status": dg.DagsterRunStatus.STARTED, "tags": dead, "remote_job_origin": first.remote_job_origin}
    killed = instance.create_run_for_job(job, **started)
    again = instance.create_run_for_job(job, **started, parent_run_id=killed.run_id, root_run_id=killed.run_id)
    assert close_abandoned_runs(instance) == 1
    assert instance.get_run_by_id(killed.run_id).status is dg.DagsterRunStatus.CANCELED
    assert instance.get_run_by_id(again.run_id).status is dg.DagsterRunStatus.STARTED
