"""What happens in a worker: it makes the artifacts of a chain, has them checked, and says what became of them.

A worker writes files into the data folder and nothing else. It knows neither Dagster nor the database, so that it
may be on another host; whoever gave it the chain records what it made.
"""

import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any, TypeVar, cast

from distributed import Reschedule, WorkerPlugin, get_worker

import idal_assets
from idal_assets.orchestration.reports import Outcome, attempt
from idal_assets.progress import Track
from idal_assets.store.artifacts import content_hash, software_versions
from idal_assets.store.files import sha256_of
from idal_assets.store.processes import process_mark
from idal_assets.study.graph import GRAPH, SOURCES
from idal_assets.study.order import Chain
from idal_assets.study.study import NotMadeError, Study, named

T = TypeVar("T")

PLUGIN = "idal"
TOPIC = "idal"
"""Under which workers say how far they are."""

CARD = "GPU"
"""Resource of a worker that has a card, as Dask's users call it."""

WITHOUT_SAMPLING = {"distributed.worker.profile.enabled": False}
"""Dask's setting for processes whose stacks it does not sample. It would do so a hundred times a second for a page
of its dashboard, and keep all of them: in ten minutes of training 200 MB and a tenth of a core."""

SECONDS_BETWEEN_WORDS = 1.0
SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_TO_REACH_THE_SCHEDULER = 60


@dataclass(frozen=True)
class Identity:
    """Who a worker is.

    Attributes:
        host: Its host.
        process: Its number there.
        mark: What its drafts are named by.
        versions: Of its packages, and a hash of this project's code.
    """

    host: str
    process: int
    mark: str
    versions: Mapping[str, str]


def identity() -> Identity:
    """Who this process is."""
    return Identity(socket.gethostname(), os.getpid(), process_mark(), versions_here())


@lru_cache(maxsize=1)
def versions_here() -> Mapping[str, str]:
    """Versions of all that two processes must have in common to make the same artifacts."""
    root = Path(idal_assets.__file__).parent
    code = [(path.relative_to(root).as_posix(), sha256_of(path)) for path in sorted(root.rglob("*.py"))]
    return {
        "Python": ".".join(map(str, sys.version_info[:2])),
        **software_versions(),
        "distributed": installed_version("distributed"),
        "the code of idal-assets": content_hash(code),
    }


class Equipment(WorkerPlugin):
    """What every worker is given once, when it arrives.

    Args:
        study: The study.
        versions: Those that a worker must have.
        latency_seconds: How long files of another host may take to be seen.
    """

    name = PLUGIN

    def __init__(self, study: Study, versions: Mapping[str, str], latency_seconds: float) -> None:
        self.study = study
        self.versions = versions
        self.latency_seconds = latency_seconds


def make_chain(chain: Chain) -> list[Outcome]:
    """Makes the artifacts of a chain that are not current, and has each checked before the next one.

    Returns:
        What became of each, up to the first that cannot be used. An error is returned and not raised, since bad
        data stay bad on every other worker.

    Raises:
        Reschedule: This worker has other versions, and was not told to go yet.
    """
    worker = get_worker()
    equipment = cast(Equipment, worker.plugins[PLUGIN])
    if differences(equipment.versions, versions_here()):
        time.sleep(SECONDS_BETWEEN_LOOKS)
        raise Reschedule
    outcomes: list[Outcome] = []
    for place, asset in enumerate(chain.assets):
        track = said_by(worker, named(asset, chain.key))
        ready = partial(_wait_until_seen, equipment, chain, place)
        outcomes.append(attempt(equipment.study, asset, chain.key, track, ready))
        if outcomes[-1].failure:
            break
    return outcomes


def _wait_until_seen(equipment: Equipment, chain: Chain, place: int) -> None:
    """Waits until this host sees the artifacts that the chain was given out for.

    Raises:
        NotMadeError: It still sees others, or none.
    """
    node, expected = GRAPH[chain.assets[place]], chain.made_from[place]
    deadline = time.monotonic() + equipment.latency_seconds
    while True:
        try:
            without = {*chain.assets[:place], *SOURCES}
            if node.inputs(equipment.study, chain.key, without).hash() == expected:
                return
            seen = "artifacts of other versions"
        except NotMadeError as error:
            seen = str(error)
        if time.monotonic() > deadline:
            raise NotMadeError(
                f"{socket.gethostname()} does not see what {named(node.name, chain.key)} is made from as the host "
                f"of the run does ({seen}). Both must have one data folder; if it is a slow network folder, raise "
                "cluster.latency_seconds"
            )
        for asset in node.made_from.keys() & GRAPH.keys():
            _look_again(equipment.study.folder.root / asset)
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _look_again(folder: Path) -> None:
    """Lists a folder, which has a network file system ask for what is in it now."""
    if folder.is_dir():
        list(folder.iterdir())


def differences(expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """In which versions a worker differs, in words."""
    names = [name for name in expected if expected[name] != found.get(name)]
    return [f"{name} is {found.get(name, 'missing')} instead of {expected[name]}" for name in names]


def said_by(worker: Any, what: str) -> Track:
    """Shows progress by telling it to whoever gave out the work; what takes less than a second is not told."""

    def track(items: Sequence[T], description: str) -> Iterable[T]:
        return _told(worker, what, items, description)

    return track


def _told(worker: Any, what: str, items: Sequence[T], description: str) -> Iterator[T]:
    last = time.monotonic()
    for done, item in enumerate(items):
        if time.monotonic() - last >= SECONDS_BETWEEN_WORDS:
            last = time.monotonic()
            said = {"worker": worker.address, "what": what, "description": description}
            worker.log_event(TOPIC, {**said, "done": done, "total": len(items)})
        yield item


def serve(arguments: Sequence[str]) -> None:
    """Runs `dask worker` for one chain at a time, without any page, with a card where there is one."""
    import dask
    from distributed.cli.dask_worker import main

    # Slurm says what is too much memory; Dask would let a worker pause for ever that keeps slices in it
    fixed = ["--nthreads", "1", "--memory-limit", "0", "--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
    cards = ["--resources", f"{CARD}=1"] if has_card() else []
    place = [] if "--local-directory" in arguments else ["--local-directory", tempfile.gettempdir()]
    with dask.config.set(WITHOUT_SAMPLING):
        main([*arguments, *fixed, *cards, *place])


def has_card() -> bool:
    """Whether this machine has a card that can be used."""
    import torch

    return torch.cuda.is_available()


if __name__ == "__main__":
    serve(sys.argv[1:])
