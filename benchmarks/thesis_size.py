"""The experiment at the size of the thesis on small volumes: what it takes, and how that grows with the donors.

Runs `idal run` on a folder of real cases, such as MSD Task04_Hippocampus, with 25, 50 and 100 donors, each into a
data folder of its own, and prints seconds by asset, cells a second and the memory of all processes together. It
needs the cores for itself. With `--folder` the data folders stay, and a size that is there is not run again.

    python benchmarks/thesis_size.py --raw FOLDER
    python benchmarks/thesis_size.py --raw FOLDER --donors 100 --folder runs
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from measuring import CONSOLE, print_table, processor, run_program
from scaling import exponent
from workload import write_profile

from idal_assets.study.graph import GRAPH
from idal_assets.study.study import Study

FEWEST_SECONDS = 20
"""Assets that take less with the most donors have no line of their own."""


def run_once(profile: Path, raw: Path, data_dir: Path, workers: int) -> dict[str, Any]:
    """Runs the whole graph as a user would, and says what it took.

    Returns:
        `wall_seconds`, `peak_memory_gb` (of all processes together, what they share counted once), `donors`,
        `cells`, `artifacts`, and `cpu_seconds` by asset.
    """
    command = [str(Path(sys.executable).with_name("idal")), "run", "--profile", str(profile), "--raw", str(raw)]
    options = ["--data-dir", str(data_dir), "--workers", str(workers), "--quiet"]
    ran = run_program([*command, *options])
    study = Study.open(data_dir, profile, raw)
    records = {
        node.name: [study.provenance(node.name, key) for key in node.keys(study)] for node in GRAPH.values()
    }
    cohort = study.cohort
    return {
        "donors": len(cohort.donors),
        "cells": len(cohort.donors) * len(cohort.receivers),
        "artifacts": sum(map(len, records.values())),
        "wall_seconds": ran.seconds,
        "peak_memory_gb": ran.peak_memory_gb,
        "cpu_seconds": {asset: sum(record.cpu_seconds for record in made) for asset, made in records.items()},
    }


def _print(found: list[dict[str, Any]]) -> None:
    largest = found[-1]["cpu_seconds"]
    dear = sorted((asset for asset in largest if largest[asset] >= FEWEST_SECONDS), key=largest.get, reverse=True)
    donors = [one["donors"] for one in found]
    rows = []
    for asset in dear:
        seconds = [one["cpu_seconds"][asset] for one in found]
        power = f"{exponent(donors, seconds):.2f}" if len(found) > 1 else ""
        rows.append([asset, *(f"{value:.0f}" for value in seconds), power])
    for line, digits, values in (
        ("all assets", 0, [sum(one["cpu_seconds"].values()) for one in found]),
        ("wall, minutes", 1, [one["wall_seconds"] / 60 for one in found]),
        ("artifacts", 0, [one["artifacts"] for one in found]),
        ("cells a second", 0, [one["cells"] / one["cpu_seconds"]["dice_row"] for one in found]),
        ("peak memory, GB", 2, [one["peak_memory_gb"] for one in found]),
    ):
        rows.append([line, *(f"{value:.{digits}f}" for value in values), ""])
    columns = ("seconds of one core", *(f"{count} donors" for count in donors), "grows with donors **")
    print_table(processor(), columns, rows)
    last = found[-1]
    CONSOLE.print(f"thesis size: {last['donors']} donors in {last['wall_seconds'] / 60:.1f} minutes")


def _measure(donors: int, folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    place = folder / f"donors_{donors}"
    result = folder / f"donors_{donors}.json"
    if result.is_file():
        return json.loads(result.read_text())
    profile = folder / f"donors_{donors}.yaml"
    write_profile(profile, given.profile, {"cohort": {"donors": donors}})
    found = run_once(profile, given.raw, place, given.workers)
    result.write_text(json.dumps(found))
    return found


def main() -> None:
    """Reads the command line and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw", type=Path, required=True, help="folder with real cases")
    parser.add_argument("--profile", default="thesis_small", help="profile whose donors are counted")
    parser.add_argument("--donors", type=int, nargs="+", default=[25, 50, 100])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where the data folders stay; without it they do not")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        found = []
        for donors in given.donors:
            CONSOLE.print(f"{donors} donors")
            found.append(_measure(donors, folder.resolve(), given))
    _print(found)


if __name__ == "__main__":
    main()
