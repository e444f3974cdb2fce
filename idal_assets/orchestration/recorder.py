"""Writes what became of artifacts into Dagster's instance: all that a run of the graph made, as one run there.

A run of Dagster's for each partition would take longer than many artifacts do, so nothing is executed here: the
events are written that Dagster itself writes of an asset, its check and its place in a pool.
"""

import sqlite3
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from types import TracebackType

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,
)
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_IS_USER_PROVIDED_TAG,
    DATA_VERSION_TAG,
    NULL_EVENT_POINTER,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)
from dagster._core.events import DagsterEvent, EventSpecificData, StepMaterializationData
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
from dagster._core.execution.plan.objects import StepFailureData, StepSuccessData
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.storage.tags import MAX_RETRIES_TAG
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._utils.error import serializable_error_info_from_exc_info
from sqlalchemy.exc import SQLAlchemyError

from idal_assets.orchestration.assets import ACCELERATOR
from idal_assets.orchestration.checks import check_of, outcome_of, tell_anew
from idal_assets.orchestration.instance import (
    AUTOMATIC_TAG,
    DEFINITIONS,
    LOCATION,
    process_tag,
    recorded_versions,
)
from idal_assets.orchestration.jobs import FULL_EXPERIMENT
from idal_assets.orchestration.metadata import as_metadata, metadata_of
from idal_assets.orchestration.reports import Outcome
from idal_assets.orchestration.resources import StudyResource
from idal_assets.study.graph import GRAPH, drawn_edges
from idal_assets.study.making import Finding
from idal_assets.study.selectors import same_key
from idal_assets.study.study import Study, named

SECONDS_TO_WAIT_FOR_A_PLACE = 0.5
STORAGE_ERRORS = (SQLAlchemyError, sqlite3.Error, OSError)


class Recorder:
    """Writes down what becomes of artifacts, and knows what was written before.

    As a context it ends the run that it began: as succeeded, as failed with an error, or as cancelled.

    Args:
        study: The study.
        instance: Where it is written.
        run: The run that all belongs to; without one, a run of its own begins with the first artifact.
    """

    def __init__(self, study: Study, instance: dg.DagsterInstance, run: dg.DagsterRun | None = None) -> None:
        self._study, self._instance = study, instance
        self._given = run
        self._own: dg.DagsterRun | None = None
        self._began = 0.0
        self._versions: dict[str, dict[str | None, str]] = {}
        self._checked: dict[str, set[str | None]] = {}
        self._sources = {name: drawn_edges(name) for name in GRAPH}

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._own is None:
            return
        if error is None:
            self._say_of_step(dg.DagsterEventType.STEP_SUCCESS, StepSuccessData(self._milliseconds()))
            self._say(dg.DagsterEventType.RUN_SUCCESS, "Everything is made")
            return
        # a full disk must not hide why the run ended; the next one closes this run
        with suppress(*STORAGE_ERRORS):
            if isinstance(error, Exception):
                said = serializable_error_info_from_exc_info(sys.exc_info())
                self._say_of_step(dg.DagsterEventType.STEP_FAILURE, StepFailureData(said, None))
                self._instance.report_run_failed(self._own, str(error))
            else:
                self._instance.report_run_canceled(self._own, "Stopped; the same command goes on")

    # --- what is known ---

    def knows(self, asset: str, key: str | None, version: str) -> bool:
        """Whether a version is written down as the last one and, where the asset has a check, was checked."""
        return self._recorded(asset).get(key) == version and self._is_checked(asset, key)

    def _recorded(self, asset: str) -> dict[str | None, str]:
        """Versions by partition."""
        if asset not in self._versions:
            self._versions[asset] = dict(recorded_versions(self._instance, GRAPH[asset]))
        return self._versions[asset]

    def _is_checked(self, asset: str, key: str | None) -> bool:
        check = check_of(asset)
        if check is None:
            return True
        if asset not in self._checked:
            found = self._instance.event_log_storage.get_asset_check_partition_info([check])
            # A failed check leaves no current artifact to be looked at here, or was only a warning.
            self._checked[asset] = {
                info.partition_key
                for info in found
                if info.is_current and info.latest_execution_status.value in ("SUCCEEDED", "FAILED")
            }
        return key in self._checked[asset]

    # --- what is written ---

    @contextmanager
    def place(self, asset: str, key: str | None) -> Iterator[None]:
        """Waits for a place in the pool of what computes, and keeps it while the artifact is made."""
        if not GRAPH[asset].accelerated:
            yield
            return
        step = named(asset, key)
        with InstanceConcurrencyContext(self._instance, self._run) as places:
            while not places.claim(ACCELERATOR, step):
                time.sleep(SECONDS_TO_WAIT_FOR_A_PLACE)
        try:
            yield
        finally:
            self._instance.event_log_storage.free_concurrency_slot_for_step(self._run.run_id, step)

    def write(self, outcome: Outcome, key: str | None) -> None:
        """Writes down what became of an artifact; its rows are in the database already."""
        if outcome.record:
            self._write_materialization(outcome, key)
        if outcome.record and outcome.finding:
            self._write_check(outcome.asset, key, outcome.finding)
        if outcome.failure:
            self._write_failure(outcome)

    def _write_materialization(self, outcome: Outcome, key: str | None) -> None:
        asset, record = outcome.asset, outcome.record
        assert record
        tell_anew(self._study, self._instance, asset)
        folder = self._study.path(asset, key)
        materialization = dg.AssetMaterialization(
            asset_key=asset,
            partition=key,
            metadata=metadata_of(outcome.shows, folder, record, outcome.made_now),
            tags={
                DATA_VERSION_TAG: record.version,
                DATA_VERSION_IS_USER_PROVIDED_TAG: "true",
                CODE_VERSION_TAG: GRAPH[asset].code,
                **self._tags_of_sources(asset, key),
            },
        )
        self._say(
            dg.DagsterEventType.ASSET_MATERIALIZATION,
            f"{named(asset, key)} is {'made' if outcome.made_now else 'there'}",
            StepMaterializationData(materialization, []),
        )
        self._recorded(asset)[key] = record.version

    def _tags_of_sources(self, asset: str, key: str | None) -> Mapping[str, str]:
        """Versions of its sources as Dagster writes them: they tell the UI whether an artifact is outdated."""
        newest = self._instance.event_log_storage.get_maximum_record_id()
        tags = {}
        for source in self._sources[asset]:
            tags[get_input_data_version_tag(dg.AssetKey(source))] = self._version_of_source(source, asset, key)
            tags[get_input_event_pointer_tag(dg.AssetKey(source))] = str(newest or NULL_EVENT_POINTER)
        return tags

    def _version_of_source(self, source: str, asset: str, key: str | None) -> str:
        recorded = self._recorded(source)
        if GRAPH[source].partition is None:
            return recorded.get(None, "")
        node = GRAPH[asset]
        own = node.partition is not None and node.made_from[source] is same_key
        versions = [recorded[one] for one in sorted(recorded, key=str) if not own or one == key]
        return sha256("".join(versions).encode()).hexdigest()

    def _write_check(self, asset: str, key: str | None, finding: Finding) -> None:
        check = check_of(asset)
        assert check
        made = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[key] if key else None)
        target = self._instance.fetch_materializations(made, limit=1).records[0]
        evaluation = dg.AssetCheckEvaluation(
            asset_key=check.asset_key,
            check_name=check.name,
            blocking=True,
            partition=key,
            target_materialization_data=AssetCheckEvaluationTargetMaterializationData(
                storage_id=target.storage_id, run_id=target.run_id, timestamp=target.timestamp
            ),
            **outcome_of(finding),
        )
        said = f"{named(asset, key)} {'passed' if evaluation.passed else 'did not pass'} {check.name}"
        self._say(dg.DagsterEventType.ASSET_CHECK_EVALUATION, said, evaluation)
        self._checked.get(asset, set()).add(key)

    def _write_failure(self, outcome: Outcome) -> None:
        failure = outcome.failure
        assert failure
        if failure.shows:
            shown = dg.AssetObservation(outcome.asset, metadata=as_metadata(failure.shows))
            self._instance.report_runless_asset_event(shown)
        self._instance.report_engine_event("\n".join([failure.message, failure.trace]), self._run)

    def _say(
        self,
        kind: dg.DagsterEventType,
        message: str,
        data: EventSpecificData | None = None,
        step: str | None = None,
    ) -> None:
        event = DagsterEvent(
            kind.value, self._run.job_name, message=message, event_specific_data=data, step_key=step
        )
        self._instance.report_dagster_event(event, self._run.run_id)

    def _say_of_step(self, kind: dg.DagsterEventType, data: EventSpecificData | None = None) -> None:
        """Of the one step that the job has in the UI."""
        (step,) = FULL_EXPERIMENT.nodes
        self._say(kind, kind.value.replace("_", " ").lower(), data, step.name)

    def _milliseconds(self) -> float:
        return 1000 * (time.monotonic() - self._began)

    @property
    def _run(self) -> dg.DagsterRun:
        if self._given is None and self._own is None:
            self._own = _begun(self._study, self._instance)
            self._began = time.monotonic()
            self._say(dg.DagsterEventType.RUN_START, "Made by `idal run`")
            self._say_of_step(dg.DagsterEventType.STEP_START)
        run = self._given or self._own
        assert run
        return run


def _begun(study: Study, instance: dg.DagsterInstance) -> dg.DagsterRun:
    """A run as the UI would have launched it, so that it is shown among the others and can be launched again."""
    resource = StudyResource(data_dir=str(study.folder.root))
    definitions = dg.Definitions(jobs=[FULL_EXPERIMENT], resources={"study": resource})
    job = definitions.resolve_job_def(FULL_EXPERIMENT.name)
    code = LoadableTargetOrigin(executable_path=sys.executable, module_name=DEFINITIONS)
    location = ManagedGrpcPythonEnvCodeLocationOrigin(code, LOCATION)
    return instance.create_run_for_job(
        job,
        status=dg.DagsterRunStatus.NOT_STARTED,
        tags={**process_tag(), AUTOMATIC_TAG: "true", MAX_RETRIES_TAG: "0"},
        remote_job_origin=RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), job.name),
    )
