"""Artifacts made side by side: what can be made is handed to workers, and what they report is kept in the books.

The coordinator makes nothing itself. It alone decides what is next, writes to Dagster's instance and to the
database, and it never lets a worker wait for that: what was reported is recorded when nothing else is to be done.
"""

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, Protocol

from idal_assets.orchestration.cluster import ClusterError, Crew
from idal_assets.orchestration.reports import Report
from idal_assets.store.artifacts import Provenance, believe, read_provenance
from idal_assets.study.graph import GRAPH
from idal_assets.study.order import Chain, Order
from idal_assets.study.study import Study, named

SECONDS_TO_WAIT = 1.0
SECONDS_BETWEEN_LOOKS = 0.5


class Books(Protocol):
    """Where the coordinator looks up what is done, and writes down what was done."""

    def is_done(self, asset: str, key: str | None) -> bool:
        """Whether an artifact is current and written down."""

    def write(self, report: Report) -> None:
        """Writes down what became of the artifacts of a chain."""

    def pass_over(self, asset: str, key: str | None) -> None:
        """Takes note of an artifact that is done already."""


class Coordinator:
    """Has everything made that is missing or outdated.

    Args:
        study: The study.
        wanted: Names of the assets.
        gather: Gathers workers, once there is something to make.
        books: What is done.
        say: Takes a line for a person.

    Attributes:
        failures: Why artifacts could not be made, one message for each; others that need them are not listed.
    """

    def __init__(
        self,
        study: Study,
        wanted: Collection[str],
        gather: Callable[[], AbstractContextManager[Crew]],
        books: Books,
        say: Callable[[str], Any],
    ) -> None:
        self._study = study
        self._order = Order(study, wanted)
        self._gather = gather
        self._books = books
        self._say = say
        self._unwritten: deque[Report] = deque()
        self.failures: list[str] = []

    @property
    def known(self) -> int:
        """How many artifacts there are, as far as the partitions are known."""
        return self._order.known

    @property
    def lost(self) -> int:
        """How many artifacts could not be made because they need one that failed."""
        return len(self._order.lost) - len(self.failures)

    def run(self) -> None:
        """Ends when everything is made that can be made.

        Raises:
            ClusterError: There are no workers.
        """
        self._look()
        if self._order.due:
            with ExitStack() as entered:
                crew = entered.enter_context(self._gather())
                while self._order.due or crew.busy:
                    self._hand_out(crew)
                    self._take_in(crew.finished(0 if self._unwritten else SECONDS_TO_WAIT))
        while self._unwritten:
            self._books.write(self._unwritten.popleft())

    def _hand_out(self, crew: Crew) -> None:
        crew.ask_for(self._order.due + crew.busy)
        while chain := self._order.next_chain(crew.is_free):
            crew.hand(chain)

    def _take_in(self, reports: Iterable[Report]) -> None:
        reports = list(reports)
        for report in reports:
            self._settle(report)
            self._unwritten.append(report)
        if reports:
            self._look()
        elif self._unwritten:
            self._books.write(self._unwritten.popleft())

    def _settle(self, report: Report) -> None:
        for outcome in report.outcomes:
            if outcome.record and outcome.failure is None:
                self._wait_until_seen(report.chain, outcome.asset, outcome.record)
                self._order.settle(outcome.asset, report.chain.key)
            elif outcome.failure:
                self._lose(outcome.asset, report.chain.key, outcome.failure.message)
        for asset in report.chain.assets[len(report.outcomes) :]:
            self._order.give_back(asset, report.chain.key)

    def _lose(self, asset: str, key: str | None, message: str) -> None:
        self._order.settle(asset, key, lost=True)
        if message:
            self.failures.append(message)
            self._say(f"{named(asset, key)} failed; whatever does not need it is made all the same")

    def _look(self) -> None:
        """Looks at what has become ready, until only work is left."""
        while ready := self._order.ready():
            for asset, key in ready:
                why_lost = self._order.why_lost(asset, key)
                if why_lost is not None:
                    self._lose(asset, key, why_lost and f"{named(asset, key)} failed.\n{why_lost}")
                elif self._books.is_done(asset, key):
                    self._books.pass_over(asset, key)
                    self._order.settle(asset, key)
                else:
                    self._order.call_due(asset, key)

    def _wait_until_seen(self, chain: Chain, asset: str, record: Provenance) -> None:
        """Waits until this host sees what another one wrote; network folders take their time.

        Raises:
            ClusterError: It does not.
        """
        folder = self._study.path(asset, chain.key if GRAPH[asset].partition else None)
        deadline = time.monotonic() + self._study.profile.cluster.latency_seconds
        while not _is_seen(folder, record):
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"A worker made {named(asset, chain.key)}, and this host does not see it in {folder}. Both "
                    "must have one data folder under one path; if it is a slow network folder, raise "
                    "cluster.latency_seconds"
                )
            time.sleep(SECONDS_BETWEEN_LOOKS)
        believe(folder)


def _is_seen(folder: Path, record: Provenance) -> bool:
    found = read_provenance(folder)
    if found is None and folder.parent.is_dir():
        # a listing has a network file system ask for what is in the folder now
        list(folder.parent.iterdir())
    return found is not None and (found.version, found.written) == (record.version, record.written)
