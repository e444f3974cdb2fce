"""How much faster two workers are than one, each of one thread, and whether they make the same.

Runs the whole graph with `--workers 1` and with `--workers 2`, in fp32, each in a fresh data folder, and measures
the parts that do not depend on one another: from the first to the last of case models and rows, and of
retrainings. It needs two cores that nothing else uses.

    python benchmarks/workers.py
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import Any

from measuring import CONSOLE, in_fresh_process, print_table
from rich.console import Console
from rich.progress import Progress as Bars
from workload import write_profile

from idal_assets.orchestration.instance import open_instance
from idal_assets.orchestration.runner import Runner
from idal_assets.progress import silently
from idal_assets.study.graph import GRAPH
from idal_assets.study.study import Study

PARTS = {
    "case models and rows": ("augmented_case", "case_model", "dice_row", "early_row", "settled_row", "fold_model"),
    "retrainings": ("training_set", "reduced_model", "reduced_evaluation"),
}
ITERATIONS = 150
"""Of each training: long enough that a worker is not done before the coordinator has looked."""

RANDOM = 4
"""Random removals of each size: with few retrainings, one more on a worker than on the other is a large share."""


def run_once(profile: Path, data_dir: Path, workers: int) -> dict[str, Any]:
    """Runs the graph with workers, this process being their coordinator, and says what it took."""
    changes = {"cluster": {"engine": "local", "workers": workers}}
    study = Study.open(data_dir, profile).with_settings(changes)
    study.remember()
    started, spent = time.perf_counter(), time.process_time()
    with open_instance(study.folder, shows_output=True) as instance, Bars(console=Console(quiet=True)) as bars:
        Runner(study, instance, bars, silently).run()
    spent = time.process_time() - spent
    artifacts = sum(len(node.keys(study)) for node in GRAPH.values())
    return {
        "wall_seconds": time.perf_counter() - started,
        "seconds": {part: _span(study, assets) for part, assets in PARTS.items()},
        "artifacts": artifacts,
        "coordinator_seconds": spent / artifacts,
    }


def _span(study: Study, assets: Collection[str]) -> float:
    """Seconds from when the first of some artifacts was begun until the last one was finished."""
    records = [study.provenance(asset, key) for asset in assets for key in GRAPH[asset].keys(study)]
    ends = [datetime.fromisoformat(record.written).timestamp() for record in records]
    return max(ends) - min(end - record.seconds for end, record in zip(ends, records, strict=True))


def main() -> None:
    """Reads the command line and measures."""
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(run_once(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--donors", type=int, default=12)
    parser.add_argument("--iterations", type=int, default=ITERATIONS)
    arguments = parser.parse_args()
    long = {"epochs": 1, "iterations_per_epoch": arguments.iterations}
    sections: dict[str, dict[str, Any]] = {
        "phantom": {"train_cases": arguments.donors, "test_cases": 4, "shape": [64, 80, 16]},
        "cohort": {"test_cases": ["phantom_test_*"], "test": None},
        "case_model": long,
        "reduced": long,
        "controls": {"random": RANDOM},
        "compute": {"device": "cpu", "precision": "fp32", "threads": 1},
    }
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        profile = Path(folder) / "workers.yaml"
        write_profile(profile, "tiny", sections)
        for workers in (1, 2):
            CONSOLE.print(f"{workers} workers of one thread")
            data_dir = Path(folder) / str(workers)
            found[workers] = in_fresh_process(
                "workers.py",
                "--one",
                profile,
                data_dir,
                workers,
                environment={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        compare = [
            sys.executable,
            str(Path(__file__).with_name("compare_tables.py")),
            f"{folder}/1",
            f"{folder}/2",
        ]
        compared = subprocess.run(compare, capture_output=True, text=True, check=False)
    _print(found)
    differing = [line for line in compared.stdout.splitlines() if "the same (" not in line]
    CONSOLE.print("\n".join(differing) or "all tables are the same", highlight=False)
    times = _sum(found[1]) / _sum(found[2])
    print(f"workers: {times:.2f} times faster with 2 of one thread")
    sys.exit(bool(differing) or compared.returncode)


def _sum(one: dict[str, Any]) -> float:
    return sum(one["seconds"].values())


def _print(found: dict[int, dict[str, Any]]) -> None:
    rows = [
        [
            str(workers),
            f"{one['wall_seconds']:.0f} s",
            *(f"{seconds:.0f} s" for seconds in one["seconds"].values()),
            f"{one['coordinator_seconds']:.2f} s",
        ]
        for workers, one in found.items()
    ]
    columns = ("workers", "all", *PARTS, "coordinator an artifact")
    print_table(f"{found[1]['artifacts']} artifacts", columns, rows)


if __name__ == "__main__":
    main()
