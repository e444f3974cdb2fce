"""Workers elsewhere than in the process of the run: on this machine, as jobs of Slurm, or of a Dask cluster.

Dask hands chains to workers, gives a chain of a worker that was lost to another one, and knows who has a card.
Every connection is encrypted with a key that is made for the run and that only this user can read; no page of
Dask's listens anywhere but on loopback. Nothing here knows Dagster.
"""

import json
import logging
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Protocol
from uuid import uuid4

from idal_assets.cores import usable_cores
from idal_assets.orchestration.reports import Failure, Outcome, Report, failure_of
from idal_assets.progress import Track
from idal_assets.settings import ClusterSettings, ComputeSettings
from idal_assets.store.artifacts import write_atomically
from idal_assets.store.layout import DataFolder
from idal_assets.store.processes import remove_drafts_of
from idal_assets.study.order import Chain
from idal_assets.study.study import Study, named

SCHEDULER_FILE = "scheduler.json"
CERTIFICATE_FILE, KEY_FILE = "certificate.pem", "key.pem"
INSTALL = "pip install 'idal-assets[cluster]'"
PRELOADED = "idal_assets.orchestration.preloaded"
LOOPBACK = "127.0.0.1"
DASHBOARD = f"{LOOPBACK}:8787"
NO_DASHBOARD = f"{LOOPBACK}:0"
"""Where Dask's own server goes, which cannot be left out altogether."""

DEVICES_OF_CARDS = ("nvidia*", "kfd", "dxg")
"""What Linux shows of cards of NVIDIA and AMD, and of those that Windows lends it."""

SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_BETWEEN_REMINDERS = 60.0
SECONDS_TO_JOIN = 60.0
SECONDS_TO_RESTART = 300.0
"""A machine on which no process comes up for so long will not have one."""

SECONDS_BETWEEN_SUBMISSIONS = 2.0
"""Between two looks whether Slurm is to be given more jobs, or fewer."""

MOST_REFUSED = 3
"""So many workers with other versions, and none with the right ones, end the run."""


class ClusterError(RuntimeError):
    """Workers cannot be had; the message says why, in the words of whoever refused them, and what to do."""


class Crew(Protocol):
    """Whoever makes chains."""

    def is_free(self, accelerated: bool) -> bool:
        """Whether somebody is free to make a chain now, told whether it needs a card."""

    def hand(self, chain: Chain) -> None:
        """Has a chain made."""

    def finished(self, seconds: float) -> list[Report]:
        """Chains that are finished; waits so long for one.

        Raises:
            ClusterError: There is nobody any more who could make one.
        """

    def ask_for(self, chains: int) -> None:
        """Says how many chains could be made at once now, those in the making among them."""

    @property
    def busy(self) -> int:
        """How many chains are being made."""


@contextmanager
def gathered(study: Study, track: Track, say: Callable[[str], Any]) -> Iterator[Crew]:
    """The workers that the profile asks for, for as long as the context lasts.

    Args:
        study: The study.
        track: Shows the progress of each worker.
        say: Takes a line for a person.

    Raises:
        ClusterError: They cannot be had.
    """
    settings = study.profile.cluster
    _ensure_installed(settings)
    import dask
    from distributed import Client

    from idal_assets.orchestration.worker import WITHOUT_SAMPLING, Equipment, versions_here

    with ExitStack() as entered:
        entered.enter_context(dask.config.set(WITHOUT_SAMPLING))
        security = entered.enter_context(_security(settings, study.folder))
        cluster = entered.enter_context(_CLUSTERS[settings.engine](settings, study, security))
        client = entered.enter_context(_connected(Client, cluster, security))
        if settings.dashboard:
            say(f"Dask's dashboard is on {client.dashboard_link}")
        shared = study.with_settings({"compute": _share_of(settings, study.profile.compute).model_dump()})
        client.register_plugin(Equipment(shared, versions_here(), settings.latency_seconds))
        crew = DaskCrew(client, cluster, settings, shared.profile.compute, Shown(track), say)
        try:
            yield crew
        finally:
            crew.dismiss()
    for mark in crew.marks:
        remove_drafts_of(study.folder.unfinished, mark)


@dataclass
class Shown:
    """Shows how far each worker is, each as something of its own that is tracked.

    Attributes:
        track: Shows the progress of one thing.
    """

    track: Track
    _shown: dict[str, tuple[str, Iterator[int], int]] = field(default_factory=dict)

    def tell(self, worker: str, said: str, done: int, total: int) -> None:
        """Shows that a worker has done so much of what it says."""
        if worker not in self._shown or self._shown[worker][0] != said:
            self.forget(worker)
            self._shown[worker] = (said, iter(self.track(range(total), said)), 0)
        _, items, shown = self._shown[worker]
        for _ in range(done + 1 - shown):
            next(items, None)
        self._shown[worker] = (said, items, max(shown, done + 1))

    def forget(self, worker: str) -> None:
        """Shows nothing of a worker any more."""
        if found := self._shown.pop(worker, None):
            for _ in found[1]:
                pass


@dataclass
class _Worker:
    name: str
    has_card: bool


class DaskCrew:
    """Workers that Dask knows.

    Args:
        client: Of the scheduler.
        cluster: Who starts workers, where somebody does.
        settings: Where they are.
        compute: What they compute with.
        shown: Shows the progress.
        say: Takes a line for a person.

    Attributes:
        marks: What the drafts of all workers are named by that were ever seen.
    """

    def __init__(
        self,
        client: Any,
        cluster: "Cluster",
        settings: ClusterSettings,
        compute: ComputeSettings,
        shown: Shown,
        say: Callable[[str], Any],
    ) -> None:
        from idal_assets.orchestration.worker import TOPIC

        self._client, self._cluster, self._settings = client, cluster, settings
        self._compute, self._shown, self._say = compute, shown, say
        self._workers: dict[str, _Worker] = {}
        self._refused: dict[str, str] = {}
        self._running: dict[str, tuple[Chain, Any]] = {}
        self._done: SimpleQueue[str] = SimpleQueue()
        self._heard: SimpleQueue[Mapping[str, Any]] = SimpleQueue()
        self._looked = self._reminded = self._seen = time.monotonic()
        self.marks: set[str] = set()
        client.subscribe_topic(TOPIC, lambda event: self._heard.put(event[1]))
        self._look()

    @property
    def busy(self) -> int:
        """How many chains are being made."""
        return len(self._running)

    def is_free(self, accelerated: bool) -> bool:
        """Whether somebody is free to make a chain now, told whether it needs a card."""
        if self.busy >= len(self._workers):
            return False
        if not (accelerated and self._uses_cards):
            return True
        cards = sum(worker.has_card for worker in self._workers.values())
        return sum(chain.accelerated for chain, _ in self._running.values()) < cards

    def hand(self, chain: Chain) -> None:
        """Has a chain made."""
        from idal_assets.orchestration.worker import CARD, make_chain

        name = f"{named(chain.assets[0], chain.key)}-{uuid4().hex[:8]}"
        resources = {CARD: 1} if chain.accelerated and self._uses_cards else None
        future = self._client.submit(make_chain, chain, key=name, pure=False, resources=resources)
        self._running[name] = (chain, future)
        future.add_done_callback(lambda done: self._done.put(done.key))

    def finished(self, seconds: float) -> list[Report]:
        """Chains that are finished; waits so long for one.

        Raises:
            ClusterError: There is nobody any more who could make one.
        """
        reports = []
        with suppress(Empty):
            reports.append(self._report(self._done.get(timeout=seconds) if seconds else self._done.get_nowait()))
            while True:
                reports.append(self._report(self._done.get_nowait()))
        with suppress(Empty):
            while True:
                self._hear(self._heard.get_nowait())
        if time.monotonic() - self._looked >= SECONDS_BETWEEN_LOOKS:
            self._look()
        return reports

    def ask_for(self, chains: int) -> None:
        """Says how many chains could be made at once now, those in the making among them."""
        self._cluster.wanted = chains

    def dismiss(self) -> None:
        """Lets go of everything; what was being made is not finished."""
        for worker in list(self._workers):
            self._shown.forget(worker)
        self._client.cancel([future for _, future in self._running.values()], force=True)

    @property
    def _uses_cards(self) -> bool:
        """Whether chains that train or segment go to cards alone."""
        some = any(worker.has_card for worker in self._workers.values())
        return self._compute.device == "cuda" or (self._compute.device == "auto" and some)

    def _report(self, name: str) -> Report:
        from distributed import KilledWorker

        chain, future = self._running.pop(name)
        if future.status == "finished":
            return Report(chain, future.result())
        if future.status in ("lost", "cancelled"):
            raise ClusterError(
                "The connection to Dask's scheduler was lost. Call the same command again: it goes on where it was"
            )
        error = future.exception()
        asset = chain.assets[0]
        if isinstance(error, KilledWorker):
            what = ", ".join(named(asset, chain.key) for asset in chain.assets)
            said = f"{what} failed.\nEach worker that made it died, the last one on {error.last_worker.address}: "
            failure = Failure(
                f"{said}killed from outside, or out of memory. See what the system or Slurm says there"
            )
        else:
            failure = failure_of(error, asset, chain.key)
        return Report(chain, [Outcome(asset, failure=failure)])

    def _hear(self, said: Mapping[str, Any]) -> None:
        worker = self._workers.get(said["worker"])
        if worker:
            line = f"{worker.name}: {said['what']}: {said['description']}"
            self._shown.tell(said["worker"], line, said["done"], said["total"])

    def _look(self) -> None:
        """Notices who came and who is gone."""
        self._looked = time.monotonic()
        # asked here and not of the client, which at times forgets who there is
        present = self._client.sync(self._client.scheduler.identity, n_workers=-1)["workers"]
        for address in self._workers.keys() - present.keys():
            gone = self._workers.pop(address)
            self._shown.forget(address)
            self._say(f"{gone.name} is gone; what it was making is made by another worker")
        self._welcome({name: found for name, found in present.items() if name not in self._workers})
        self._ensure_somebody()

    def _welcome(self, arrived: Mapping[str, Mapping[str, Any]]) -> None:
        from idal_assets.orchestration.worker import CARD, differences, identity, versions_here

        new = [address for address in arrived if address not in self._refused]
        found = self._client.run(identity, workers=new, on_error="return") if new else {}
        for address, who in found.items():
            if isinstance(who, OSError):
                # it left in this moment
                continue
            if isinstance(who, Exception):
                self._refuse(address, f"the worker at {address}", [f"it cannot load idal-assets ({who})"])
            elif wrong := differences(versions_here(), who.versions):
                self._refuse(address, f"worker {who.process} on {who.host}", wrong)
            else:
                has_card = bool(arrived[address]["resources"].get(CARD))
                self._workers[address] = _Worker(f"worker {who.process} on {who.host}", has_card)
                self.marks.add(who.mark)

    def _refuse(self, address: str, name: str, reasons: Collection[str]) -> None:
        self._refused[address] = f"{name} is refused: {', '.join(reasons)}. Install the same there"
        self._say(self._refused[address])
        self._client.retire_workers([address], close_workers=True)

    def _ensure_somebody(self) -> None:
        now = time.monotonic()
        if self._workers:
            self._reminded = self._seen = now
            return
        if self._cluster.refusals:
            raise ClusterError(self._cluster.refusals[-1])
        if len(self._refused) >= MOST_REFUSED:
            raise ClusterError("\n".join(self._refused.values()))
        if now - self._seen > self._cluster.patience:
            raise ClusterError("All workers ended. Call the same command again: it goes on where it was")
        if now - self._reminded >= SECONDS_BETWEEN_REMINDERS:
            self._reminded = now
            self._say(f"There is no worker at present; {self._cluster.hint}")


# --- who starts workers ---


@dataclass
class Cluster:
    """Where workers come from.

    Attributes:
        address: Of the scheduler, or what Dask connects to.
        hint: What a person can do while there is no worker.
        patience: Seconds after which none comes any more.
        wanted: How many workers there is work for.
        refusals: In whose words a job was refused, and why.
    """

    address: Any
    hint: str
    patience: float = math.inf
    wanted: int = 0
    refusals: list[str] = field(default_factory=list)


@contextmanager
def _local(settings: ClusterSettings, study: Study, security: Any) -> Iterator[Cluster]:
    """Processes on this machine, on loopback; as many of them have a card as there are places on cards."""
    from distributed import Nanny, Scheduler, SpecCluster

    from idal_assets.orchestration.worker import CARD

    compute = study.profile.compute
    places = _cards(compute) * compute.models_per_card
    common = {"host": LOOPBACK, "protocol": "tls://", "security": security, "dashboard_address": NO_DASHBOARD}
    own = {"nthreads": 1, "memory_limit": 0, "dashboard": False, "silence_logs": logging.ERROR}
    workers = {
        number: {"cls": Nanny, "options": {**common, **own, "resources": {CARD: 1} if number < places else {}}}
        for number in range(settings.workers)
    }
    scheduler = {"cls": Scheduler, "options": {**common, **_dashboard(settings)}}
    with ExitStack() as entered:
        entered.enter_context(_forked_from_one())
        with _deaf_to_interrupts():
            local = SpecCluster(workers, scheduler, security=security, silence_logs=logging.ERROR)
            cluster = entered.enter_context(local)
        yield Cluster(cluster, "one that was lost is started again", SECONDS_TO_RESTART)


@contextmanager
def _forked_from_one() -> Iterator[None]:
    """Has Dask fork its workers from one process that has imported what they need, where forks are safe.

    On macOS libraries of the system may not be used after a fork; workers import everything themselves there.
    """
    if sys.platform != "linux":
        yield
        return
    import dask
    from distributed.utils import get_mp_context

    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        # Dask names some packages at its first call; what is named last counts
        get_mp_context().set_forkserver_preload([PRELOADED])
        yield


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Has processes that are started inside not hear Ctrl-C, which a terminal says to all of them.

    Who started them ends them; this thread hears it afterwards.
    """
    # where it is started it opens the ears of its thread again
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _waiting(settings: ClusterSettings, study: Study, security: Any) -> Iterator[Cluster]:
    """Nobody yet: a scheduler whose address workers find in the data folder."""
    from distributed import Scheduler, SpecCluster

    options: dict[str, Any] = {"protocol": "tls://", "security": security, **_dashboard(settings)}
    if settings.interface:
        options["interface"] = settings.interface
    note = study.folder.cluster / SCHEDULER_FILE
    scheduler = {"cls": Scheduler, "options": options}
    with SpecCluster({}, scheduler, security=security, silence_logs=logging.ERROR) as cluster:
        write_atomically(note, json.dumps({"address": cluster.scheduler_address, "interface": settings.interface}))
        try:
            yield Cluster(cluster, f"submit `idal worker --data-dir {study.folder.root}`")
        finally:
            note.unlink(missing_ok=True)


@contextmanager
def _slurm(settings: ClusterSettings, study: Study, security: Any) -> Iterator[Cluster]:
    """Jobs of Slurm, as many as there is work for between the fewest and the most."""
    from dask_jobqueue.slurm import SLURMCluster, SLURMJob
    from distributed import Adaptive

    logs = study.folder.cluster / "logs"
    found = Cluster(None, f"see `squeue --me`, and what jobs said in {logs}")

    class Job(SLURMJob):
        async def _submit_job(self, script_filename: str) -> Any:
            try:
                return await super()._submit_job(script_filename)
            except (RuntimeError, OSError) as error:
                found.refusals.append(f"Slurm refuses the job.\n{_last_words(str(error))}")
                raise

    class ByWork(Adaptive):
        async def target(self) -> int:
            return found.wanted

    # what they say of a job that was refused is said here
    for name in ("asyncio", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    given = dict(settings.slurm)
    options = {
        "job_cls": Job,
        "security": security,
        "protocol": "tls://",
        "worker_command": "idal_assets.orchestration.worker",
        "log_directory": str(logs),
        "silence_logs": logging.CRITICAL,
        **given,
        "scheduler_options": {**_dashboard(settings), **given.get("scheduler_options", {})},
    }
    try:
        with SLURMCluster(**options) as cluster:
            found.address = cluster
            cluster.adapt(
                Adaptive=ByWork,
                minimum=min(settings.fewest_workers, settings.workers),
                maximum=settings.workers,
                interval=SECONDS_BETWEEN_SUBMISSIONS,
            )
            yield found
    except (TypeError, ValueError) as error:
        raise ClusterError(f"cluster.slurm cannot be used: {error}") from error


@contextmanager
def _at_address(settings: ClusterSettings, study: Study, security: Any) -> Iterator[Cluster]:
    """The workers of a Dask cluster that is there."""
    yield Cluster(settings.address, f"see to the workers of {settings.address}")


_CLUSTERS: Mapping[str, Callable[[ClusterSettings, Study, Any], Any]] = {
    "local": _local,
    "slurm": _slurm,
    "address": _at_address,
    "wait": _waiting,
}


@contextmanager
def _connected(client: Any, cluster: Cluster, security: Any) -> Iterator[Any]:
    try:
        connected = client(cluster.address, security=security, timeout=SECONDS_TO_JOIN, set_as_default=False)
    except (OSError, TimeoutError, RuntimeError) as error:
        raise ClusterError(f"{cluster.address} does not answer: {error}") from error
    with connected:
        yield connected


@contextmanager
def _security(settings: ClusterSettings, folder: DataFolder) -> Iterator[Any]:
    """What connections are encrypted with: a key for this run, in files that this user alone can read."""
    from distributed import Security

    if settings.engine == "address":
        yield Security(**{"require_encryption": True, **settings.security})
        return
    made = Security.temporary()
    folder.cluster.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.cluster.chmod(0o700)
    files = {CERTIFICATE_FILE: made.tls_ca_file, KEY_FILE: made.tls_client_key}
    for name, content in files.items():
        _write_for_this_user(folder.cluster / name, content)
    try:
        yield _from_files(folder)
    finally:
        for name in files:
            (folder.cluster / name).unlink(missing_ok=True)


def _from_files(folder: DataFolder) -> Any:
    from distributed import Security

    certificate, key = (str(folder.cluster / name) for name in (CERTIFICATE_FILE, KEY_FILE))
    roles = [f"tls_{role}_{part}" for role in ("client", "scheduler", "worker") for part in ("cert", "key")]
    files = {name: key if name.endswith("key") else certificate for name in roles}
    return Security(require_encryption=True, tls_ca_file=certificate, **files)


def _write_for_this_user(path: Path, content: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content)


def _dashboard(settings: ClusterSettings) -> dict[str, Any]:
    return {
        "dashboard": settings.dashboard,
        "dashboard_address": DASHBOARD if settings.dashboard else NO_DASHBOARD,
    }


def _share_of(settings: ClusterSettings, compute: ComputeSettings) -> ComputeSettings:
    """What one of several workers on this machine may take of its cores and of the memory of one process."""
    if settings.engine != "local":
        return compute
    return compute.model_copy(
        update={
            "threads": compute.threads or max(1, usable_cores() // settings.workers),
            "slices_memory_gb": compute.slices_memory_gb / settings.workers,
            "weights_memory_gb": compute.weights_memory_gb / settings.workers,
        }
    )


def _cards(compute: ComputeSettings) -> int:
    if compute.device == "cpu" or not _has_graphics():
        return 0
    import torch

    return torch.cuda.device_count()


def _has_graphics() -> bool:
    """Whether there may be a card; importing PyTorch for the answer would take seconds and 200 MB."""
    return sys.platform != "linux" or any(next(Path("/dev").glob(name), None) for name in DEVICES_OF_CARDS)


def _last_words(said: str) -> str:
    """What a command said on stderr, as dask-jobqueue hands it on."""
    _, _, words = said.rpartition("stderr:")
    return words.strip() or said


def _ensure_installed(settings: ClusterSettings) -> None:
    from importlib.util import find_spec

    needed = ["distributed", "cryptography", *(["dask_jobqueue"] if settings.engine == "slurm" else [])]
    needed += ["bokeh"] if settings.dashboard else []
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise ClusterError(f"{', '.join(missing)} is not installed; {INSTALL}, and bokeh for a dashboard")


# --- a worker that a person starts ---


def work(folder: DataFolder, seconds: float) -> None:
    """Works for the run of a data folder until it ends.

    Args:
        folder: The data folder, as this host sees it.
        seconds: How long to wait for a run that waits for workers.

    Raises:
        ClusterError: There is none.
    """
    from idal_assets.orchestration.worker import SECONDS_TO_REACH_THE_SCHEDULER, serve

    _ensure_installed(ClusterSettings())
    note = folder.cluster / SCHEDULER_FILE
    deadline = time.monotonic() + seconds
    while not note.is_file():
        if time.monotonic() > deadline:
            raise ClusterError(
                f"No run in {folder.root} waits for workers; start one with `idal run --cluster wait --data-dir "
                f"{folder.root}`"
            )
        time.sleep(SECONDS_BETWEEN_LOOKS)
    security = _from_files(folder).get_tls_config_for_role("worker")
    tls = [
        part for name, value in security.items() if value for part in (f"--tls-{name.replace('_', '-')}", value)
    ]
    told = json.loads(note.read_text())
    place = ["--interface", told["interface"]] if told["interface"] else []
    serve([told["address"], *tls, *place, "--death-timeout", str(SECONDS_TO_REACH_THE_SCHEDULER)])
