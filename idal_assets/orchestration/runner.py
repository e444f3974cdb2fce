"""Runs the whole graph in dependency order, partition by partition, in this process, on a real instance.

What is current is left alone, so a second run makes only what is missing or outdated.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import dagster as dg
from rich.progress import Progress as Bars

from idal_assets.analysis.reach import forecast
from idal_assets.orchestration.assets import artifact_definitions
from idal_assets.orchestration.checks import check_of
from idal_assets.orchestration.display import Amount, RunDisplay
from idal_assets.orchestration.instance import AUTOMATIC_TAG, process_tag, recorded_versions
from idal_assets.orchestration.partitions import register_partitions
from idal_assets.orchestration.resources import StepProgress, StudyResource
from idal_assets.progress import Track
from idal_assets.store.artifacts import read_provenance
from idal_assets.study.currency import is_kept
from idal_assets.study.graph import GRAPH, Node
from idal_assets.study.making import prepare
from idal_assets.study.selectors import same_key, whole
from idal_assets.study.soundness import take_back_damaged
from idal_assets.study.study import Study
from idal_assets.study.tables import record_tables

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class StepFailedError(RuntimeError):
    """A step of the graph failed; the message says which and why.

    Attributes:
        trace: Where in the code it failed; empty where a check did.
    """

    def __init__(self, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.trace = trace


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
    """

    def __init__(
        self,
        study: Study,
        instance: dg.DagsterInstance,
        bars: Bars,
        track: Track | None = None,
        says: Amount = "usual",
    ) -> None:
        self._study = study
        self._instance = instance
        self._display = RunDisplay(study, bars, says)
        self._track = track or self._display.track
        resource = StudyResource(
            data_dir=str(study.folder.root),
            profile=study.profile_source,
            raw=str(study.raw),
            patients=str(study.given_patients or ""),
        )
        definitions = artifact_definitions(resource, StepProgress(self._track))
        self._job = definitions.resolve_implicit_global_asset_job_def()

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
        for chain in chains(wanted):
            known = {node.name: self._known_to_instance(node) for node in chain}
            for key in chain[0].keys(self._study):
                self._run_chain(chain, key, known, result)
            if chain[-1].names_partitions:
                register_partitions(self._study, self._instance)
                if chain[-1].name == "cohort":
                    self._say_what_to_expect()
                self._display.count()
        return result

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
        result = self._job.execute_in_process(
            run_config=QUIET,
            instance=self._instance,
            partition_key=key,
            asset_selection=[dg.AssetKey(node.name) for node in nodes],
            tags={**process_tag(), AUTOMATIC_TAG: "true"},
            raise_on_error=False,
        )
        if not result.success and not _failed(result):
            # nobody failed: somebody pressed Ctrl-C, which Dagster took for itself
            raise KeyboardInterrupt
        if not result.success:
            raise StepFailedError(_explain(result, nodes, key), _trace(result))

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
