"""From how many workers on the coordinator is the limit, and whether its memory stays flat.

The whole graph of hundreds of donors, with workers that only sleep, in a time of its own: the clock of the
simulation goes on by what the real coordinator computes, by what it takes to record in Dagster, and by the sleep
of workers while there is nothing else to do. Artifacts are folders with nothing but a record. Dask's own work,
about a millisecond a chain, is left out.

    python benchmarks/many_workers.py --donors 484 --workers 8 64 256
"""

import argparse
import heapq
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from measuring import CONSOLE, print_table
from workload import write_profile

from idal_assets.orchestration.coordinator import Coordinator
from idal_assets.orchestration.instance import open_instance
from idal_assets.orchestration.recorder import Recorder
from idal_assets.orchestration.reports import Outcome, Report
from idal_assets.store.artifacts import build
from idal_assets.study.graph import GRAPH
from idal_assets.study.making import make, prepare
from idal_assets.study.order import Chain
from idal_assets.study.selectors import (
    CHOICE_FILE,
    COMPARISON_FILE,
    CONFIGURATIONS_FILE,
    CONTEST_FILE,
    KEPT_FILE,
)
from idal_assets.study.study import Study

TESTS = 100
LONG, SHORT = 300.0, 10.0
"""Seconds that a training or segmentation sleeps, and anything else."""


class Sleepers:
    """Workers that sleep for as long as an artifact takes.

    Args:
        study: The study.
        workers: How many.
    """

    def __init__(self, study: Study, workers: int) -> None:
        self._study, self._workers = study, workers
        self._asleep: list[tuple[float, int, Chain]] = []
        self._numbers = count()
        self._spent = time.process_time()
        self.now = self.slept = self.coordinated = 0.0
        self.chains = 0

    @property
    def busy(self) -> int:
        """How many sleep."""
        return len(self._asleep)

    def is_free(self, accelerated: bool) -> bool:
        """Whether one is awake."""
        return self.busy < self._workers

    def ask_for(self, chains: int) -> None:
        """Does nothing: as many as there are."""

    def hand(self, chain: Chain) -> None:
        """Has one sleep."""
        seconds = sum(LONG if GRAPH[asset].accelerated else SHORT for asset in chain.assets)
        heapq.heappush(self._asleep, (self.now + seconds, next(self._numbers), chain))
        self.slept += seconds
        self.chains += 1

    def finished(self, seconds: float) -> list[Report]:
        """Those that woke up; where nothing else is to be done, it is the time when the next one does."""
        self.charge(time.process_time() - self._spent)
        if seconds and self._asleep:
            self.now = max(self.now, self._asleep[0][0])
        woken = []
        while self._asleep and self._asleep[0][0] <= self.now:
            woken.append(heapq.heappop(self._asleep)[2])
        reports = [Report(chain, [self._pretend(asset, chain.key) for asset in chain.assets]) for chain in woken]
        self._spent = time.process_time()
        return reports

    def charge(self, seconds: float) -> None:
        """The coordinator was at work for so long."""
        self.now += seconds
        self.coordinated += seconds

    def _pretend(self, asset: str, key: str | None) -> Outcome:
        study, node = self._study, GRAPH[asset]
        if node.names_partitions:
            return Outcome(asset, *make(study, asset, key))
        files = {
            "contest": (CONTEST_FILE, {"contested": []}),
            "nnunet_plans": (CONFIGURATIONS_FILE, {"2d": "2d-1", "3d_fullres": "3d-1"}),
            "baseline_comparison": (COMPARISON_FILE, {"candidates": ["2d_ce"], "best_2d": "2d_ce"}),
            "training_set": (KEPT_FILE, study.cohort.donors),
            "evidence": (CHOICE_FILE, {"removal_set": "worst_1", "removed": study.cohort.donors[:1]}),
        }

        def write(folder: Path) -> None:
            if asset in files:
                name, content = files[asset]
                (folder / name).write_text(json.dumps(content))

        inputs, folder = node.inputs(study, key), study.path(asset, key)
        made = build(folder, asset, key, inputs, write, study.folder.unfinished, study.folder.locks)
        return Outcome(asset, *made)


class Forgetful:
    """Books in which nothing stands yet; what is written there is written to Dagster."""

    def __init__(self, crew: Sleepers, recorder: Recorder) -> None:
        self._crew, self._recorder = crew, recorder
        self.artifacts = 0
        self.memory: list[float] = []

    def is_done(self, asset: str, key: str | None) -> bool:
        """Nothing is."""
        return False

    def pass_over(self, asset: str, key: str | None) -> None:
        """Nothing is passed over."""

    def write(self, report: Report) -> None:
        """Takes its processor time."""
        spent = time.process_time()
        for outcome in report.outcomes:
            self._recorder.write(outcome, report.chain.key)
        self._crew.charge(time.process_time() - spent)
        self.artifacts += len(report.outcomes)
        self.memory.append(_memory_gb())


def simulate(study: Study, workers: int) -> dict[str, Any]:
    """Runs the graph and says how much each side was at work."""
    crew = Sleepers(study, workers)

    @contextmanager
    def gather() -> Iterator[Sleepers]:
        yield crew

    with open_instance(study.folder) as instance, Recorder(study, instance) as recorder:
        books = Forgetful(crew, recorder)
        Coordinator(study, GRAPH, gather, books, lambda line: None).run()
    quarter = len(books.memory) // 4
    return {
        "artifacts": books.artifacts,
        "chains": len(books.memory),
        "hours": crew.now / 3600,
        "at_work": crew.slept / (workers * crew.now),
        "coordinator": crew.coordinated / crew.now,
        "seconds": crew.coordinated / books.artifacts,
        "most_workers": crew.slept / crew.coordinated,
        "memory": (books.memory[quarter], books.memory[-1]),
    }


def _memory_gb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e9


def main() -> None:
    """Reads the command line and simulates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--donors", type=int, default=484)
    parser.add_argument("--workers", type=int, nargs="+", default=[8, 64, 256])
    arguments = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        profile = Path(folder) / "many.yaml"
        cases = {"train_cases": arguments.donors, "test_cases": TESTS, "shape": [16, 20, 6]}
        write_profile(
            profile, "tiny", {"phantom": cases, "cohort": {"test_cases": ["phantom_test_*"], "test": None}}
        )
        study = Study.open(Path(folder) / "data", profile)
        for name in GRAPH:
            prepare(study, name)
        for workers in arguments.workers:
            found[workers] = simulate(study, workers)
            CONSOLE.print(f"{workers} workers: {found[workers]['hours']:.1f} hours")
    rows = [
        [
            str(workers),
            f"{one['hours']:.1f}",
            f"{100 * one['at_work']:.0f} %",
            f"{100 * one['coordinator']:.0f} %",
            f"{one['seconds']:.2f} s",
            "{:.2f} GB, {:.2f} GB".format(*one["memory"]),
        ]
        for workers, one in found.items()
    ]
    columns = (
        "workers",
        "hours",
        "they work",
        "coordinator works",
        "an artifact",
        "memory at a quarter, at the end",
    )
    any_one = next(iter(found.values()))
    print_table(f"{any_one['artifacts']} artifacts in {any_one['chains']} chains", columns, rows)
    CONSOLE.print(f"The coordinator is the limit from {any_one['most_workers']:.0f} workers on.")


if __name__ == "__main__":
    main()
