"""Runs the whole graph on a real instance: in this process, or with the workers that the profile names.

What is current is left alone, so a second run makes only what is missing or outdated.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.execute_in_process import core_execute_in_process, merge_run_tags
from rich.progress import Progress as Bars

from idal_assets.analysis.reach import forecast
from idal_assets.orchestration.assets import artifact_definitions
from idal_assets.orchestration.checks import check_of
from idal_assets.orchestration.cluster import gathered
from idal_assets.orchestration.coordinator import Coordinator
from idal_assets.orchestration.display import Amount, RunDisplay
from idal_assets.orchestration.instance import AUTOMATIC_TAG, process_tag, recorded_versions
from idal_assets.orchestration.partitions import register_partitions
from idal_assets.orchestration.reports import Outcome, Report
from idal_assets.orchestration.resources import Maker, StepProgress, StudyResource
from idal_assets.progress import Track
from idal_assets.store.artifacts import Provenance, read_provenance
from idal_assets.study.currency import is_kept
from idal_assets.study.graph import GRAPH, Node
from idal_assets.study.making import Finding, prepare, record_rows
from idal_assets.study.order import Chain
from idal_assets.study.selectors import same_key, whole
from idal_assets.study.soundness import take_back_damaged
from idal_assets.study.study import Study
from idal_assets.study.tables import record_tables

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class StepFailedError(RuntimeError):
    """A step of the graph failed; the message says which and why.

    Attributes:
        trace: Where in the code it failed; empty where a check did.
        shows: What the error has to show on the page of its asset.
    """

    def __init__(self, message: str, trace: str = "", shows: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.trace = trace
        self.shows = shows


class Reported(Maker):
    """Makes nothing: hands on what workers reported, and records the rows of what they made."""

    def __init__(self) -> None:
        self.report = Report(Chain((), None, ()), [])

    def make(
        self, study: Study, asset: str, key: str | None, track: Track, by_itself: bool
    ) -> tuple[Provenance, bool]:
        """The record of what a worker made.

        Raises:
            StepFailedError: It could not make it.
        """
        outcome = self._outcome(asset)
        if outcome.failure:
            raise StepFailedError(outcome.failure.message, outcome.failure.trace, outcome.failure.shows)
        assert outcome.record
        record_rows(study, asset, key)
        return outcome.record, outcome.made_now

    def judge(self, study: Study, asset: str, key: str | None) -> Finding:
        """What a worker found."""
        finding = self._outcome(asset).finding
        assert finding
        return finding

    def _outcome(self, asset: str) -> Outcome:
        return next(outcome for outcome in self.report.outcomes if outcome.asset == asset)


@dataclass
class Made:
    """What a run did.

    Attributes:
        made: Artifacts made, by asset.
        kept: Artifacts that were current.
    """

    made: dict[str, int] = field(default_factory=dict)
    kept: int = 0


def chains(wanted: Collection[str] = tuple(GRAPH)) -> list[list[Node]]:
    """Groups assets that can be made together, one partition at a time.

    Assets belong together where they follow each other, have the same partitions, and need from one another only
    the same partition.

    Args:
        wanted: Names of the assets.

    Returns:
        These assets in dependency order.
    """
    found: list[list[Node]] = []
    for node in (node for node in GRAPH.values() if node.name in wanted):
        chain = found[-1] if found else []
        names = {member.name for member in chain}
        direct = {whole} if node.partition is None else {same_key}
        together = (
            bool(chain)
            and chain[0].partition == node.partition
            and not chain[-1].names_partitions
            and all(select in direct for name, select in node.made_from.items() if name in names)
        )
        if together and names & node.made_from.keys():
            chain.append(node)
        else:
            found.append([node])
    return found


class Runner:
    """Runs a study.

    Args:
        study: The study.
        instance: Where materializations are recorded.
        bars: Shows the progress.
        track: Shows the progress of a step; by default as another bar.
        says: How much is said of each artifact.
        write: Takes a line for a person; by default it is printed above the bars.
    """

    def __init__(
        self,
        study: Study,
        instance: dg.DagsterInstance,
        bars: Bars,
        track: Track | None = None,
        says: Amount = "usual",
        write: Callable[[str], Any] | None = None,
    ) -> None:
        self._study = study
        self._instance = instance
        self._display = RunDisplay(study, bars, says, write)
        self._track = track or self._display.track
        self._reported = Reported()
        self._has_workers = study.profile.cluster.engine != "none"
        resource = StudyResource(
            data_dir=str(study.folder.root),
            profile=study.profile_source,
            raw=str(study.raw),
            patients=str(study.given_patients or ""),
        )
        maker = self._reported if self._has_workers else Maker()
        definitions = artifact_definitions(resource, StepProgress(self._track), maker)
        self._job = definitions.resolve_implicit_global_asset_job_def()
        self._jobs: dict[tuple[dg.AssetKey, ...], dg.JobDefinition] = {}

    @property
    def progress(self) -> tuple[int, int]:
        """How many artifacts were looked at so far, and how many there are, as far as is known."""
        return self._display.done, self._display.count_of_all

    def run(self, wanted: Collection[str] = tuple(GRAPH)) -> Made:
        """Makes everything that is missing or outdated.

        Args:
            wanted: Names of the assets to look at; what is before them is taken as it is.

        Raises:
            StepFailedError: A step or its check failed; what was made before stays.
        """
        self._take_back_damaged()
        for name in wanted:
            prepare(self._study, name, self._track)
        result = Made()
        self._display.begin(wanted)
        if self._has_workers:
            self._run_side_by_side(wanted, result)
        else:
            self._run_one_by_one(wanted, result)
        return result

    def _run_one_by_one(self, wanted: Collection[str], result: Made) -> None:
        for chain in chains(wanted):
            known = {node.name: self._known_to_instance(node) for node in chain}
            for key in chain[0].keys(self._study):
                self._run_chain(chain, key, known, result)
            if chain[-1].names_partitions:
                self._meet_partitions(chain[-1])

    def _run_side_by_side(self, wanted: Collection[str], result: Made) -> None:
        books, say = _Books(self, result), self._display.say
        coordinator = Coordinator(self._study, wanted, lambda: gathered(self._study, self._track, say), books, say)
        coordinator.run()
        if coordinator.failures:
            needing = f"{coordinator.lost} more were not made, as they need it" if coordinator.lost else ""
            raise StepFailedError("\n".join([*coordinator.failures, *([needing] if needing else [])]))

    def _meet_partitions(self, node: Node) -> None:
        register_partitions(self._study, self._instance)
        if node.name == "cohort":
            self._say_what_to_expect()
        self._display.count()

    def _take_back_damaged(self) -> None:
        """Nothing is made from files that are not as they were written, and no row of the database is lost."""
        for damage in take_back_damaged(self._study, self._track):
            self._display.say(f"{damage}; it is made again")
        record_tables(self._study)

    def _say_what_to_expect(self) -> None:
        cohort = self._study.cohort
        setting = partial(getattr, self._study.profile)
        for line in forecast(setting, len(cohort.donors), cohort.test_patients):
            self._display.say(line)

    def _run_chain(
        self,
        chain: Sequence[Node],
        key: str | None,
        known: Mapping[str, Mapping[str | None, str]],
        result: Made,
    ) -> None:
        waiting = list(chain)
        while waiting:
            node = waiting[0]
            if self._is_done(node, key, known[node.name]):
                waiting.pop(0)
                result.kept += 1
                self._display.kept(node.name, key)
                continue
            batch = self._surely_needed(waiting, key)
            self._display.starts(batch[0].name, key)
            self._materialize(batch, key)
            for node in batch:
                result.made[node.name] = result.made.get(node.name, 0) + 1
                self._display.made(node.name, key)
            waiting = waiting[len(batch) :]

    def _is_done(self, node: Node, key: str | None, known: Mapping[str | None, str]) -> bool:
        """Whether an artifact is current and the instance knows it; a kill may come between the two."""
        if not is_kept(self._study, node, key):
            return False
        return known.get(key) == self._study.version(node.name, key)

    def _surely_needed(self, waiting: Sequence[Node], key: str | None) -> list[Node]:
        """The first asset, and those after it that do not exist; one that exists may turn out to be current."""
        batch = [waiting[0]]
        for node in waiting[1:]:
            if read_provenance(self._study.path(node.name, key)) is not None:
                break
            batch.append(node)
        return batch

    def _materialize(self, nodes: Sequence[Node], key: str | None) -> None:
        result = self._record(nodes, key)
        if not result.success and not _failed(result):
            # nobody failed: somebody pressed Ctrl-C, which Dagster took for itself
            raise KeyboardInterrupt
        if not result.success:
            raise StepFailedError(_explain(result, nodes, key), _trace(result))

    def _record(self, nodes: Sequence[Node], key: str | None) -> dg.ExecuteInProcessResult:
        """As `execute_in_process`, which describes the job anew for every run, a third of what a run takes."""
        selection = tuple(dg.AssetKey(node.name) for node in nodes)
        if selection not in self._jobs:
            self._jobs[selection] = self._job.as_ephemeral_job({}, {}, asset_selection=selection)
        tags = {**process_tag(), AUTOMATIC_TAG: "true"}
        return core_execute_in_process(
            QUIET,
            InMemoryJob(self._jobs[selection]),
            self._instance,
            output_capturing_enabled=False,
            raise_on_error=False,
            run_tags=merge_run_tags(self._job, key, tags, selection, self._instance, QUIET),
            asset_selection=frozenset(selection),
        )

    def _known_to_instance(self, node: Node) -> Mapping[str | None, str]:
        """Versions that the instance has recorded and, where the asset has a check, has checked."""
        versions = recorded_versions(self._instance, node)
        check = check_of(node.name)
        if check is None:
            return versions
        found = self._instance.event_log_storage.get_asset_check_partition_info([check])
        # A failed check leaves no current artifact to be looked at here, or was only a warning.
        checked = {
            info.partition_key
            for info in found
            if info.is_current and info.latest_execution_status.value in ("SUCCEEDED", "FAILED")
        }
        return {key: version for key, version in versions.items() if key in checked}


class _Books:
    """What is done, as the instance of a run knows it."""

    def __init__(self, runner: Runner, result: Made) -> None:
        self._runner, self._result = runner, result
        self._known: dict[str, Mapping[str | None, str]] = {}

    def is_done(self, asset: str, key: str | None) -> bool:
        """Whether an artifact is current and written down."""
        return self._runner._is_done(GRAPH[asset], key, self._known_of(asset))

    def pass_over(self, asset: str, key: str | None) -> None:
        """Takes note of an artifact that is done already."""
        if GRAPH[asset].names_partitions:
            self._runner._meet_partitions(GRAPH[asset])
        self._keep(asset, key)

    def write(self, report: Report) -> None:
        """Writes down what became of the artifacts of a chain, except what was known."""
        key, known = report.chain.key, self._known_of
        new = [
            outcome
            for outcome in report.outcomes
            if not outcome.record or outcome.failure or known(outcome.asset).get(key) != outcome.record.version
        ]
        self._runner._reported.report = report
        if new:
            nodes = [GRAPH[outcome.asset] for outcome in new]
            recorded = self._runner._record(nodes, key)
            if not recorded.success and not any(outcome.failure for outcome in new):
                raise StepFailedError(_explain(recorded, nodes, key), _trace(recorded))
        for outcome in report.outcomes:
            if outcome.failure:
                continue
            if outcome.made_now:
                self._result.made[outcome.asset] = self._result.made.get(outcome.asset, 0) + 1
                self._runner._display.made(outcome.asset, key if GRAPH[outcome.asset].partition else None)
            else:
                self._keep(outcome.asset, key)
            if GRAPH[outcome.asset].names_partitions:
                self._runner._meet_partitions(GRAPH[outcome.asset])

    def _known_of(self, asset: str) -> Mapping[str | None, str]:
        if asset not in self._known:
            self._known[asset] = self._runner._known_to_instance(GRAPH[asset])
        return self._known[asset]

    def _keep(self, asset: str, key: str | None) -> None:
        self._result.kept += 1
        self._runner._display.kept(asset, key)


def _failed(result: dg.ExecuteInProcessResult) -> bool:
    """Whether a step or a check failed, rather than being stopped."""
    interrupted = "DagsterExecutionInterruptedError"
    checked = (
        event.asset_check_evaluation_data
        for event in result.all_events
        if event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION
    )
    errors = (event.step_failure_data.error for event in result.all_events if event.is_step_failure)
    return any(_blocks(evaluation) for evaluation in checked) or any(
        error is not None and error.cls_name != interrupted for error in errors
    )


def _explain(result: dg.ExecuteInProcessResult, nodes: Sequence[Node], key: str | None) -> str:
    for event in result.all_events:
        if event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            evaluation = event.asset_check_evaluation_data
            if _blocks(evaluation):
                place = evaluation.asset_key.to_user_string() + ("" if key is None else f" of {key}")
                return f"{place} did not pass its check {evaluation.check_name}.\n{evaluation.description}"
    failures = [event for event in result.all_events if event.is_step_failure]
    if not failures:
        return f"{nodes[0].name} of {key} failed; see its run in the UI"
    failure = failures[0]
    error = failure.step_failure_data.error
    while error is not None and error.cause is not None:
        error = error.cause
    name = failure.step_key if key is None else f"{failure.step_key} of {key}"
    reason = (
        _without_module(error.message.strip(), error.cls_name) if error is not None else "see its run in the UI"
    )
    return f"{name} failed.\n{reason}"


def _trace(result: dg.ExecuteInProcessResult) -> str:
    errors = [event.step_failure_data.error for event in result.all_events if event.is_step_failure]
    return "\n".join(error.to_string() for error in errors if error is not None)


def _blocks(evaluation: dg.AssetCheckEvaluation) -> bool:
    return not evaluation.passed and evaluation.severity is dg.AssetCheckSeverity.ERROR


def _without_module(message: str, error_name: str | None) -> str:
    """Dagster puts the full path of the error's class first; its name is enough for a person."""
    path, name, rest = message.partition(f"{error_name}: ")
    return name + rest if name and " " not in path else message
