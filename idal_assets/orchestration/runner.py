"""Runs the whole graph: in this process, or with the workers that the profile names.

What is current is left alone, so a second run makes only what is missing or outdated. Whatever is made is recorded
in Dagster's instance, as one run.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import dagster as dg
from rich.progress import Progress as Bars

from idal_assets.analysis.reach import forecast
from idal_assets.orchestration.cluster import gathered
from idal_assets.orchestration.coordinator import Coordinator
from idal_assets.orchestration.display import Amount, RunDisplay
from idal_assets.orchestration.instance import keep_engines
from idal_assets.orchestration.partitions import register_partitions
from idal_assets.orchestration.recorder import Recorder
from idal_assets.orchestration.reports import Outcome, Report, attempt
from idal_assets.progress import Track
from idal_assets.study.currency import is_kept
from idal_assets.study.graph import GRAPH, Node
from idal_assets.study.making import prepare, record_rows
from idal_assets.study.selectors import same_key, whole
from idal_assets.study.soundness import take_back_damaged
from idal_assets.study.study import Study
from idal_assets.study.tables import record_tables


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
        write: Takes a line for a person; by default it is printed above the bars.
        run: Dagster's run that all is recorded in; by default one of its own, if there is something to make.
    """

    def __init__(
        self,
        study: Study,
        instance: dg.DagsterInstance,
        bars: Bars,
        track: Track | None = None,
        says: Amount = "usual",
        write: Callable[[str], Any] | None = None,
        run: dg.DagsterRun | None = None,
    ) -> None:
        self._study = study
        self._instance = instance
        self._display = RunDisplay(study, bars, says, write)
        self._track = track or self._display.track
        self._recorder = Recorder(study, instance, run)

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
        keep_engines()
        self._take_back_damaged()
        for name in wanted:
            prepare(self._study, name, self._track)
        result = Made()
        self._display.begin(wanted)
        with self._recorder:
            if self._study.profile.cluster.engine == "none":
                self._run_one_by_one(wanted, result)
            else:
                self._run_side_by_side(wanted, result)
        return result

    def _run_one_by_one(self, wanted: Collection[str], result: Made) -> None:
        for chain in chains(wanted):
            for key in chain[0].keys(self._study):
                for node in chain:
                    self._make(node.name, key, result)
            if chain[-1].names_partitions:
                self._meet_partitions(chain[-1].name)

    def _make(self, asset: str, key: str | None, result: Made) -> None:
        if self._is_done(asset, key):
            self._keep(asset, key, result)
            return
        self._display.starts(asset, key)
        with self._recorder.place(asset, key):
            outcome = attempt(self._study, asset, key, self._track)
        self._write(outcome, key, result)
        if outcome.failure:
            raise StepFailedError(outcome.failure.message, outcome.failure.trace)

    def _run_side_by_side(self, wanted: Collection[str], result: Made) -> None:
        books, say = _Books(self, result), self._display.say
        coordinator = Coordinator(self._study, wanted, lambda: gathered(self._study, self._track, say), books, say)
        coordinator.run()
        if coordinator.failures:
            needing = f"{coordinator.lost} more were not made, as they need it" if coordinator.lost else ""
            raise StepFailedError("\n".join([*coordinator.failures, *([needing] if needing else [])]))

    def _meet_partitions(self, asset: str) -> None:
        # also where it was current: some partitions are named by the profile
        register_partitions(self._study, self._instance)
        if asset == "cohort":
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

    def _is_done(self, asset: str, key: str | None) -> bool:
        """Whether an artifact is current and recorded; a kill may come between the two."""
        if not is_kept(self._study, GRAPH[asset], key):
            return False
        return self._recorder.knows(asset, key, self._study.version(asset, key))

    def _keep(self, asset: str, key: str | None, result: Made) -> None:
        result.kept += 1
        self._display.kept(asset, key)

    def _write(self, outcome: Outcome, key: str | None, result: Made) -> None:
        """Has the database hold the rows of an artifact, and Dagster know of it."""
        asset = outcome.asset
        if outcome.record and not outcome.failure:
            record_rows(self._study, asset, key)
        known = outcome.record and self._recorder.knows(asset, key, outcome.record.version)
        if outcome.made_now or outcome.failure or not known:
            self._recorder.write(outcome, key)
        if outcome.failure:
            return
        if outcome.made_now:
            result.made[asset] = result.made.get(asset, 0) + 1
            self._display.made(asset, key)
        else:
            self._keep(asset, key, result)


class _Books:
    """What is done, as a run knows it."""

    def __init__(self, runner: Runner, result: Made) -> None:
        self._runner, self._result = runner, result

    def is_done(self, asset: str, key: str | None) -> bool:
        """Whether an artifact is current and written down."""
        return self._runner._is_done(asset, key)

    def pass_over(self, asset: str, key: str | None) -> None:
        """Takes note of an artifact that is done already."""
        self._runner._keep(asset, key, self._result)
        self._meet_partitions(asset)

    def write(self, report: Report) -> None:
        """Writes down what became of the artifacts of a chain."""
        for outcome in report.outcomes:
            self._runner._write(outcome, report.chain.key, self._result)
            if not outcome.failure:
                self._meet_partitions(outcome.asset)

    def _meet_partitions(self, asset: str) -> None:
        if GRAPH[asset].names_partitions:
            self._runner._meet_partitions(asset)
