"""How time and memory grow with the number of cases, and what the orchestration costs.

Runs the whole graph, as `idal run` does, on phantoms of 8, 16, 32 and 64 donors, each in a fresh process, with a
bound on the slices in memory that the larger ones exceed. Training must grow with the donors, the matrix with its
cells, and memory not at all.

    python benchmarks/scaling.py
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from measuring import CONSOLE, in_fresh_process, peak_memory_gb, print_table
from rich.console import Console
from rich.progress import Progress as Bars
from workload import write_profile

from idal_assets.orchestration.instance import open_instance
from idal_assets.orchestration.runner import Runner
from idal_assets.study.graph import GRAPH
from idal_assets.study.study import Study

TESTS = 2
SLICES_MEMORY_GB = 0.003
"""Less than the slices of 16 cases of this size take."""


def run_once(profile: Path, data_dir: Path) -> dict[str, Any]:
    """Runs the graph in this process and says what it took."""
    # Loading PyTorch is a matter of the process and not of the cases.
    import idal_assets.steps.networks  # noqa: F401

    study = Study.open(data_dir, profile)
    started = time.perf_counter()
    with open_instance(study.folder) as instance, Bars(console=Console(quiet=True)) as bars:
        Runner(study, instance, bars).run()
    wall = time.perf_counter() - started
    seconds = {
        node.name: sum(study.provenance(node.name, key).seconds for key in node.keys(study))
        for node in GRAPH.values()
    }
    cohort = study.cohort
    return {
        "donors": len(cohort.donors),
        "cells": len(cohort.donors) * len(cohort.receivers),
        "artifacts": sum(len(node.keys(study)) for node in GRAPH.values()),
        "wall_seconds": wall,
        "seconds": seconds,
        "peak_memory_gb": peak_memory_gb(),
    }


def exponent(sizes: list[float], seconds: list[float]) -> float:
    """Exponent p of the best fit of seconds = c * size ** p."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def _measure(donors: int, folder: Path) -> dict[str, Any]:
    profile = folder / f"donors_{donors}.yaml"
    sections: dict[str, dict[str, Any]] = {
        "phantom": {"train_cases": donors, "test_cases": TESTS},
        "cohort": {"test_cases": ["phantom_test_*"], "test": None},
        "compute": {"slices_memory_gb": SLICES_MEMORY_GB},
    }
    write_profile(profile, "tiny", sections)
    data_dir = folder / f"donors_{donors}"
    return in_fresh_process("scaling.py", "--one", profile, data_dir, environment=os.environ)


def _print(found: list[dict[str, Any]]) -> None:
    rows = []
    for one in found:
        work = sum(one["seconds"].values())
        rows.append(
            [
                str(one["donors"]),
                str(one["cells"]),
                f"{one['wall_seconds']:.0f} s",
                f"{one['seconds']['case_model']:.1f} s",
                f"{one['seconds']['dice_row']:.1f} s",
                f"{one['peak_memory_gb']:.2f} GB",
                f"{(one['wall_seconds'] - work) / one['artifacts']:.2f} s",
            ]
        )
    columns = ("donors", "cells", "all", "case models", "rows", "peak memory", "orchestration an artifact")
    print_table("The whole graph", columns, rows)
    training = exponent([one["donors"] for one in found], [one["seconds"]["case_model"] for one in found])
    matrix = exponent([one["cells"] for one in found], [one["seconds"]["dice_row"] for one in found])
    growth = (found[-1]["peak_memory_gb"] - found[0]["peak_memory_gb"]) / found[0]["peak_memory_gb"]
    CONSOLE.print(
        f"training grows with donors ** {training:.2f}, the matrix with cells ** {matrix:.2f}, "
        f"peak memory by {100 * growth:.0f} % from {found[0]['donors']} to {found[-1]['donors']} donors"
    )


def main() -> None:
    """Reads the command line and measures."""
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(run_once(Path(sys.argv[2]), Path(sys.argv[3]))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--donors", type=int, nargs="+", default=[8, 16, 32, 64])
    arguments = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for donors in arguments.donors:
            CONSOLE.print(f"{donors} donors")
            found.append(_measure(donors, Path(folder)))
    _print(found)


if __name__ == "__main__":
    main()
