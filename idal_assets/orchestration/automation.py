"""What is made again by itself when the data, a setting or the code change: conditions, a sensor, a schedule.

All of it asks `currency` what is due, as `idal run` and `idal status` do, so that nothing is made that these would
call current, and nothing is made before everything that it is made from is current.
"""

import json
import time
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from idal_assets.imaging.inspection import FolderLook, look
from idal_assets.orchestration.instance import AUTOMATIC_TAG, recorded_versions
from idal_assets.orchestration.jobs import FULL_EXPERIMENT
from idal_assets.orchestration.resources import StudyResource
from idal_assets.settings import AutomationSettings
from idal_assets.store.artifacts import content_hash, read_provenance
from idal_assets.study.currency import due, survey
from idal_assets.study.graph import GRAPH, PATIENTS_FOLDER, RAW_FOLDER
from idal_assets.study.study import Study

if TYPE_CHECKING:
    from dagster._core.asset_graph_view.entity_subset import EntitySubset
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

# Own conditions need the first; the second Dagster passes to itself. Each load would say so on the terminal.
warnings.filterwarnings("ignore", "Parameter `(use_user_code_server|owners)`", dg.BetaWarning)

CONDITIONS = "conditions"
RAW_FOLDER_SENSOR = "raw_folder"
NIGHTLY = "nightly"
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
REASON_TAG = "idal/reason"
"""Names the state that a run was requested for; one that failed is not requested again for the same state."""


# --- conditions: every artifact as soon as it is due ---


class Due(dg.AutomationCondition[dg.AssetKey]):
    """True for the partitions that are due, once for each state of what they are made from.

    It means what Dagster's `newly_missing() | any_deps_match(data_version_changed())` means where no dependency is
    missing, but exactly. Dagster sees no settings and takes any partition of a dependency for a reason to run, so
    that one edited case would run every raw case and every evaluation again; it also forgets a change that comes
    during a run. Here a failed run is not repeated before something changes; one whose process was lost is the
    business of Dagster's run retries.

    Args:
        study: The experiment.
    """

    def __init__(self, study: StudyResource) -> None:
        self._study = study
        self._tick: object = None
        self._due: Mapping[str, Mapping[str | None, str]] = {}

    @property
    def name(self) -> str:
        """What the UI shows."""
        return "due"

    @property
    def description(self) -> str:
        """What the UI explains."""
        return "Made from something else than there is now, and everything above it is current"

    def evaluate(self, context: dg.AutomationContext) -> dg.AutomationResult:
        """Looks up the partitions that are candidates; the cursor remembers what was asked for."""
        asset = context.key.to_user_string()
        view = context.asset_graph_view
        if self._tick is not view:
            self._tick, self._due = view, due_by_asset(self._study.open(), view.instance)
        waiting = self._due[asset]
        asked = json.loads(context.cursor or "{}")
        candidates = _keys(context.candidate_subset)
        new = {key for key, state in waiting.items() if key in candidates and asked.get(_name(key)) != state}
        remembered = {
            _name(key): state for key, state in waiting.items() if key in new or asked.get(_name(key)) == state
        }
        return dg.AutomationResult(context, _only(context, new), cursor=json.dumps(remembered))


def _name(key: str | None) -> str:
    return key or ""


def _keys(subset: "EntitySubset") -> Collection[str | None]:
    if subset.is_partitioned:
        return subset.expensively_compute_partition_keys()
    return set() if subset.is_empty else {None}


def _only(context: dg.AutomationContext, keys: Collection[str | None]) -> "EntitySubset":
    if context.candidate_subset.is_partitioned:
        return context.candidate_subset.compute_intersection_with_partition_keys({key for key in keys if key})
    return context.candidate_subset if keys else context.get_empty_subset()


def due_by_asset(study: Study, instance: dg.DagsterInstance) -> Mapping[str, Mapping[str | None, str]]:
    """What is due, or current but not known to the instance; the folders are the sensor's business.

    Returns:
        Hashes of the states by asset and partition.
    """
    found: dict[str, dict[str | None, str]] = {}
    for asset, standings in survey(study, look_at_folders=False).items():
        recorded = recorded_versions(instance, GRAPH[asset])
        waiting = {key: standing.due for key, standing in standings.items() if standing.due}
        unrecorded = {
            key: study.version(asset, key)
            for key, standing in standings.items()
            if standing.state == "current" and recorded.get(key) != study.version(asset, key)
        }
        found[asset] = {**waiting, **unrecorded}
    return found


def with_conditions(assets: Sequence[dg.AssetsDefinition], study: StudyResource) -> Sequence[dg.AssetsDefinition]:
    """Gives every asset the condition under which it is made by itself."""
    condition = (
        ~dg.AutomationCondition.in_progress()
        & ~dg.AutomationCondition.any_deps_in_progress()
        # The last: what comes out of it is what is requested, and what it remembers as asked for.
        & Due(study)
    )
    return [
        asset.map_asset_specs(lambda spec: spec.replace_attributes(automation_condition=condition))
        for asset in assets
    ]


def conditions_sensor(settings: AutomationSettings) -> dg.AutomationConditionSensorDefinition:
    """The switch of the conditions."""
    return dg.AutomationConditionSensorDefinition(
        CONDITIONS,
        target=dg.AssetSelection.all(),
        description="Makes every artifact as soon as it is due. While this is on, the sensor "
        f"{RAW_FOLDER_SENSOR} only sees to the cohort and the list of patients.",
        default_status=_sensor_status(settings.conditions),
        minimum_interval_seconds=settings.seconds_between_looks,
        run_tags={AUTOMATIC_TAG: "true"},
        use_user_code_server=True,
    )


# --- the raw folder and that of the patients ---

look_at_raw_folder = dg.define_asset_job(
    "look_at_raw_folder",
    selection=[dg.AssetKey("cohort")],
    description="Verifies what changed in the raw folder and registers the cases.",
)
look_at_patients = dg.define_asset_job(
    "look_at_patients",
    selection=[dg.AssetKey("patient_list")],
    description="Verifies what changed in the folder of the patients and registers them.",
)


@dataclass(frozen=True)
class Looks:
    """What a cheap look at the folders tells.

    Attributes:
        seen: By the asset that is made from the folder; none of patients where nobody named their folder.
        changed: Assets whose folder looks other than when they were made.
    """

    seen: Mapping[str, FolderLook]
    changed: tuple[str, ...]

    @property
    def signature(self) -> str:
        """Hash of how the folders look."""
        return content_hash({asset: look.signature for asset, look in self.seen.items()})


@dataclass(frozen=True)
class WatchedFolder:
    """A folder that the sensor looks at.

    Attributes:
        words: What it is called.
        source: Its name in the graph.
        of: Where it is; None where there is none.
        job: The job that verifies it.
    """

    words: str
    source: str
    of: Callable[[Study], Path | None]
    job: "UnresolvedAssetJobDefinition"


FOLDERS: Mapping[str, WatchedFolder] = {
    "cohort": WatchedFolder("The raw folder", RAW_FOLDER, lambda study: study.raw, look_at_raw_folder),
    "patient_list": WatchedFolder(
        "The folder of the patients", PATIENTS_FOLDER, lambda study: study.patients_folder, look_at_patients
    ),
}
"""By the asset that is made from it, the raw folder first."""


def raw_folder_sensor(study: StudyResource, settings: AutomationSettings) -> dg.SensorDefinition:
    """The switch of the raw folder's sensor."""

    @dg.sensor(
        name=RAW_FOLDER_SENSOR,
        jobs=[look_at_raw_folder, look_at_patients, FULL_EXPERIMENT],
        minimum_interval_seconds=settings.seconds_between_looks,
        default_status=_sensor_status(settings.raw_folder),
        description="Looks at names, sizes and times in the raw folder and in that of the patients. Once a change "
        "has settled, everything that is outdated is made again in one run. While the sensor "
        f"{CONDITIONS} is on, that one takes over after the cohort and the list of patients.",
    )
    def raw_folder(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        opened = study.open()
        instance = context.instance
        looks = _look(opened)
        if looks.changed and looks.signature != context.cursor:
            what = " and ".join(FOLDERS[asset].words for asset in looks.changed)
            why = f"{what} changed; looks again in {settings.seconds_between_looks} s whether that was all"
            return dg.SensorResult(cursor=looks.signature, skip_reason=why)
        if unsettled := _unsettled(opened, looks):
            return dg.SensorResult(skip_reason=unsettled)
        if conditions_are_on(instance, settings):
            return _request_look(opened, instance, looks)
        return _request_everything(opened, instance, looks.signature if looks.changed else None)

    return raw_folder


def nightly_schedule(study: StudyResource, settings: AutomationSettings) -> dg.ScheduleDefinition:
    """The switch of the nightly run."""
    hour, minute = settings.nightly_at.split(":")

    @dg.schedule(
        name=NIGHTLY,
        job=FULL_EXPERIMENT,
        cron_schedule=f"{int(minute)} {int(hour)} * * *",
        execution_timezone=settings.timezone,
        default_status=dg.DefaultScheduleStatus[settings.nightly.upper()],
        description="Does once a night what the raw folder's sensor does all day.",
    )
    def nightly(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        opened = study.open()
        looks = _look(opened)
        if unsettled := _unsettled(opened, looks):
            return dg.SkipReason(unsettled)
        if running := unfinished_runs(context.instance):
            return dg.SkipReason(f"{len(running)} runs are not finished, among them {running[0].run_id}")
        if not looks.changed and not due(survey(opened, look_at_folders=False)):
            return dg.SkipReason("Everything is current")
        return dg.RunRequest(tags={AUTOMATIC_TAG: "true"})

    return nightly


def _look(study: Study) -> Looks:
    """Looks at the folders; a phantom that is not there yet is written by the first run."""
    seen = {}
    is_unwritten_phantom = study.raw == study.folder.phantom and study.profile.phantom and not study.raw.exists()
    for asset, folder in FOLDERS.items():
        path = folder.of(study)
        if path is not None and is_unwritten_phantom and (path == study.raw or study.raw in path.parents):
            seen[asset] = FolderLook("not written yet", {})
        elif path is not None:
            seen[asset] = look(path, study.patients_folder)
    return Looks(seen, tuple(asset for asset in seen if _differs(study, asset, seen[asset])))


def _differs(study: Study, asset: str, seen: FolderLook) -> bool:
    record = read_provenance(study.path(asset))
    return record is None or record.inputs.made_from.get(FOLDERS[asset].source) != seen.signature


def _unsettled(study: Study, looks: Looks) -> str | None:
    settle_seconds, now = study.profile.automation.settle_seconds, time.time()
    files = [
        file for asset in looks.changed for file in looks.seen[asset].still_being_written(now, settle_seconds)
    ]
    return f"Perhaps still being written: {', '.join(files[:3])}" if files else None


def _request_look(study: Study, instance: dg.DagsterInstance, looks: Looks) -> dg.SensorResult:
    """Requests the run that verifies a folder, the raw one first, since patients are held against the cohort."""
    if not looks.changed:
        return _nothing("The folders are as they were")
    asset = looks.changed[0]
    running = [run for run in unfinished_runs(instance) if dg.AssetKey(asset) in (run.asset_selection or ())]
    record = read_provenance(study.path(asset))
    reason = content_hash([looks.seen[asset].signature, record.written if record else None])
    return _request(instance, FOLDERS[asset].job.name, reason, running)


def _request_everything(study: Study, instance: dg.DagsterInstance, signature: str | None) -> dg.SensorResult:
    waiting = due(survey(study, look_at_folders=False))
    if not waiting and signature is None:
        return _nothing("Everything is current")
    return _request(instance, FULL_EXPERIMENT.name, content_hash([signature, waiting]), unfinished_runs(instance))


def _request(
    instance: dg.DagsterInstance, job: str, reason: str, running: Sequence[dg.DagsterRun]
) -> dg.SensorResult:
    if running:
        return _nothing(f"Waits for {len(running)} runs that are not finished, among them {running[0].run_id}")
    before = instance.get_runs(dg.RunsFilter(tags={REASON_TAG: reason}), limit=1)
    if before:
        return _nothing(f"Nothing changed since run {before[0].run_id}, which did not end well; see there why")
    request = dg.RunRequest(run_key=reason, job_name=job, tags={REASON_TAG: reason, AUTOMATIC_TAG: "true"})
    return dg.SensorResult(run_requests=[request])


def _nothing(why: str) -> dg.SensorResult:
    return dg.SensorResult(skip_reason=why)


def unfinished_runs(instance: dg.DagsterInstance) -> Sequence[dg.DagsterRun]:
    """Runs that are queued or in progress."""
    return instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))


def conditions_are_on(instance: dg.DagsterInstance, settings: AutomationSettings) -> bool:
    """Whether the conditions are switched on, in the UI or, where nobody touched the switch, by the profile."""
    touched = [state.status.value for state in instance.all_instigator_state() if state.name == CONDITIONS]
    if not touched or touched[0] == "DECLARED_IN_CODE":
        return settings.conditions == "running"
    return touched[0] == "RUNNING"


def _sensor_status(switch: str) -> dg.DefaultSensorStatus:
    return dg.DefaultSensorStatus[switch.upper()]
