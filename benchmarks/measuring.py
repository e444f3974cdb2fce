"""What all benchmarks measure with: fresh processes, peak memory, medians and tables."""

import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from rich.console import Console
from rich.table import Table

from idal_assets.cores import usable_cores

CONSOLE = Console(width=110)

SECONDS_BETWEEN_LOOKS = 2.0
"""How often the memory of a program is looked at."""


def peak_memory_gb() -> float:
    """Largest resident memory of this process, or of one of the processes that it waited for, in GB."""
    kib = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return kib * (1 if sys.platform == "darwin" else 1024) / 1e9


def memory_gb(pid: int) -> float:
    """Memory of a process and all that it started; what they share counts once."""
    total = 0
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    for process in processes:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total / 1e9


@dataclass(frozen=True)
class Ran:
    """What a program took.

    Attributes:
        output: What it printed.
        seconds: From before it was started until it had ended.
        peak_memory_gb: The most that it and all that it started held together, seen every few seconds; what they
            share counts once.
    """

    output: str
    seconds: float
    peak_memory_gb: float


def run_program(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Ran:
    """Runs a program to its end.

    Raises:
        RuntimeError: It failed; the message holds the end of what it printed.
    """
    started, peak = time.perf_counter(), 0.0
    running = subprocess.Popen(
        command,
        env=None if environment is None else dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while True:
        try:
            output, errors = running.communicate(timeout=SECONDS_BETWEEN_LOOKS)
            break
        except subprocess.TimeoutExpired:
            peak = max(peak, memory_gb(running.pid))
    if running.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{output[-2000:]}\n{errors[-4000:]}")
    return Ran(output, time.perf_counter() - started, peak)


def in_fresh_process(script: str, *arguments: object, environment: Mapping[str, str]) -> dict[str, Any]:
    """Runs a script of this folder, which prints a JSON object as its last line.

    Returns:
        The object, with `process_seconds`, from before the process is started until it has ended, and
        `together_gb`, the most memory that it and those that it started held.

    Raises:
        RuntimeError: The script failed; the message holds the end of what it printed.
    """
    ran = run_program([sys.executable, str(Path(__file__).with_name(script)), *map(str, arguments)], environment)
    found = json.loads(ran.output.splitlines()[-1])
    return {**found, "process_seconds": ran.seconds, "together_gb": ran.peak_memory_gb}


def side_by_side(
    script: str, works: Iterable[Sequence[object]], jobs: int, options: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """Runs a script of this folder as `script OPTION... --one ARGUMENT... FOLDER`, some at once, on a thread each.

    Args:
        script: Prints a JSON object as its last line.
        works: The arguments of each run; an empty folder for its files is added.
        jobs: How many run at once.
        options: What all of them are given alike.

    Yields:
        The objects, in the order of `works`.
    """

    def run(arguments: Sequence[object]) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            return in_fresh_process(script, *options, "--one", *arguments, folder, environment=environment)

    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(run, works)


def processor() -> str:
    """The processor, and the widest instructions that PyTorch uses on it: `x86_64, AVX2, 2 cores`."""
    instructions = torch.backends.cpu.get_cpu_capability()
    return f"{platform.machine()}, {instructions}, {usable_cores()} cores"


def median_seconds(work: Callable[[], Any], repeats: int) -> float:
    """Median time of some calls after one that does not count."""
    work()
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return float(np.median(taken))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table; all columns but the first hold numbers."""
    table = Table(title=title, title_justify="left")
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left")
    for row in rows:
        table.add_row(*row)
    CONSOLE.print(table)
