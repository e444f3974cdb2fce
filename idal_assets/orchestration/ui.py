"""`idal ui`: code server, webserver and daemon, as `dagster dev` runs them, but behind our own webserver's door.

All of them end together: on Ctrl-C, on SIGTERM, or when one of them ends by itself.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

import yaml
from dagster._cli.proxy_server_manager import ProxyServerManager
from dagster._core.workspace.load_target import ModuleTarget

from idal_assets.orchestration.instance import (
    DEFINITIONS,
    LOCATION,
    close_abandoned_runs,
    mend_instance,
    open_instance,
)
from idal_assets.store.layout import DataFolder

LOOPBACK = "127.0.0.1"
SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_TO_END = 30
"""How long webserver and daemon may take to end by themselves."""


class UiError(RuntimeError):
    """The UI could not start or did not stay; the message says why."""


def serve(folder: DataFolder, port: int, ready: Callable[[str], None] = print) -> None:
    """Serves the UI on this machine until SIGTERM or Ctrl-C.

    Args:
        folder: The data folder that is shown.
        port: Port on loopback.
        ready: Told the address as soon as it can be opened.

    Raises:
        UiError: The port is in use, or the webserver or the daemon ended by itself.
    """
    _ensure_free(port)
    os.environ |= {
        "DAGSTER_HOME": str(folder.dagster_home),
        "IDAL_DATA_DIR": str(folder.root),
        # as `dagster dev` sets them: short error messages, no advice for deployments
        "DAGSTER_IS_DEV_CLI": "1",
        "DAGSTER_verbose": "",
    }
    with _ends_when_told() as is_told, ExitStack() as started:
        mend_instance(folder)
        instance = started.enter_context(open_instance(folder))
        close_abandoned_runs(instance)
        code = started.enter_context(
            ProxyServerManager(instance, ModuleTarget(DEFINITIONS, None, None, LOCATION), "warning")
        )
        place = started.enter_context(TemporaryDirectory())
        workspace = Path(place) / "workspace.yaml"
        workspace.write_text(yaml.safe_dump({"load_from": list(code.get_code_server_specs())}))
        commands = {
            "webserver": ["-m", "idal_assets.orchestration.webserver", str(workspace), str(port)],
            # it would say every few seconds that it looks for runs
            "daemon": ["-m", "dagster._daemon", "run", "--workspace", str(workspace), "--log-level", "warning"],
        }
        processes = {name: started.enter_context(_process(command)) for name, command in commands.items()}
        _wait_until_open(port, is_told, processes)
        ready(f"http://{LOOPBACK}:{port}")
        while not is_told():
            _ensure_alive(processes)
            time.sleep(SECONDS_BETWEEN_LOOKS)


def _ensure_free(port: int) -> None:
    with socket.socket() as tried:
        # a port whose server has just ended counts as free
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((LOOPBACK, port))
        except OverflowError as error:
            raise UiError(f"There is no port {port}; ports go up to 65535") from error
        except OSError as error:
            raise UiError(
                f"Port {port} cannot be used ({error.strerror}); give another one with --port"
            ) from error


@contextmanager
def _ends_when_told() -> Iterator[Callable[[], bool]]:
    """Listens for SIGTERM and Ctrl-C, also where a script started this with interrupts ignored."""
    told: list[int] = []

    def listen(number: int, _: FrameType | None) -> None:
        told.append(number)

    before = {number: signal.signal(number, listen) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(told)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _process(command: Sequence[str]) -> Iterator[subprocess.Popen]:
    """A Python process that ends with the context, politely if it can."""
    process = subprocess.Popen([sys.executable, *command])
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS_TO_END)
        process.kill()
        process.wait()


def _wait_until_open(port: int, is_told: Callable[[], bool], processes: Mapping[str, subprocess.Popen]) -> None:
    while not is_told():
        _ensure_alive(processes)
        with suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1):
            return
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _ensure_alive(processes: Mapping[str, subprocess.Popen]) -> None:
    for name, process in processes.items():
        if (code := process.poll()) is not None:
            raise UiError(f"The {name} of the UI ended by itself (exit code {code}); what it said is above")
