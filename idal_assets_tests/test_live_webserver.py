"""A running `idal ui` under attack, and how it ends; its own pages and tools go on working."""

import http.client
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from idal_assets_tests.conftest import IDAL, idal
from idal_assets_tests.hostile import HOSTILE, WELCOME, Asked, evil_socket_headers
from idal_assets_tests.live_ui import LiveUi, free_port, live_ui, processes_of_group, wait_until

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveUi]:
    helpers = tmp_path_factory.mktemp("ui")
    with live_ui(helpers / "data", "tiny", helpers) as started:
        yield started


def place_of(live: LiveUi) -> str:
    return live.url.removeprefix("http://")


def send(live: LiveUi, asked: Asked) -> tuple[int, str]:
    filled = asked.at(place_of(live))
    with closing(http.client.HTTPConnection(place_of(live), timeout=60)) as connection:
        connection.request(filled.method, filled.target, filled.body, filled.headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")


def test_hostile_requests_are_refused_and_change_nothing(live: LiveUi) -> None:
    found = {asked.name: send(live, asked)[0] for asked in HOSTILE}
    assert found == dict.fromkeys(found, 403)
    said = live.ask("{ runsOrError { ... on Runs { results { id } } } }")
    assert said["runsOrError"]["results"] == []
    said = live.ask(
        '{ assetOrError(assetKey: {path: ["cohort"]}) { ... on Asset { assetMaterializations { runId } } } }'
    )
    assert not said["assetOrError"].get("assetMaterializations")


def test_own_pages_scripts_and_tools_are_answered(live: LiveUi) -> None:
    found = {asked.name: send(live, asked)[0] for asked in WELCOME}
    assert found == dict.fromkeys(found, 200)


def test_the_page_and_every_script_of_it_load_as_in_a_browser(live: LiveUi) -> None:
    code, page = send(live, Asked("page", headers={"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}))
    assert code == 200
    files = re.findall(r'(?:src|href)="(/[^"]+)"', page)
    assert any(file.endswith(".js") for file in files)
    own = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "no-cors", "Referer": f"{live.url}/"}
    assert {file: send(live, Asked(file, target=file, headers=own))[0] for file in files} == dict.fromkeys(
        files, 200
    )


def talks(live: LiveUi, headers: dict[str, str]) -> bool:
    with connect(
        f"ws://{place_of(live)}/graphql", subprotocols=["graphql-ws"], additional_headers=headers
    ) as opened:
        opened.send('{"type": "connection_init"}')
        return "connection_ack" in opened.recv(timeout=30)


def test_websockets_open_for_the_own_page_alone(live: LiveUi) -> None:
    assert talks(live, {})
    assert talks(live, {"Origin": live.url, "Sec-Fetch-Site": "same-origin"})
    for headers in evil_socket_headers(place_of(live)):
        if "Host" in headers:
            continue  # this client sends its own; `test_webserver` tries these
        with pytest.raises(InvalidStatus) as refused:
            talks(live, headers)
        assert refused.value.response.status_code == 403


def test_it_listens_on_loopback_only(live: LiveUi) -> None:
    port = int(live.url.rpartition(":")[2])
    with pytest.raises(OSError):
        # answered by what listens on every address, and by nothing else
        socket.create_connection(("127.0.0.2", port), timeout=5)


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_told_also_where_a_script_started_it(tmp_path: Path, told: signal.Signals) -> None:
    """A shell that starts something with `&` has it ignore interrupts."""
    port, log = free_port(), tmp_path / "ui.log"
    command = [*IDAL, "ui", "--data-dir", str(tmp_path / "data"), "--port", str(port)]
    with log.open("wb") as output:
        started = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        )
    wait_until(lambda: "Ctrl-C ends it" in log.read_text(), 180, log.read_text)
    assert len(processes_of_group(started.pid)) >= 4
    started.send_signal(told)
    assert started.wait(60) == 0, log.read_text()
    wait_until(lambda: not processes_of_group(started.pid), 30)
    assert "Traceback" not in log.read_text()


def test_a_port_in_use_is_a_sentence(live: LiveUi, tmp_path: Path) -> None:
    port = live.url.rpartition(":")[2]
    refused = idal("ui", "--data-dir", tmp_path / "data", "--port", port)
    assert refused.returncode == 1
    assert f"Port {port} cannot be used" in refused.stderr
    assert "--port" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_webserver_that_is_killed_takes_the_rest_along(tmp_path: Path) -> None:
    with live_ui(tmp_path / "data", "tiny", tmp_path) as started:
        (webserver,) = [
            number
            for number, said in processes_of_group(started.process.pid).items()
            if "idal_assets.orchestration.webserver" in said
        ]
        os.kill(webserver, signal.SIGKILL)
        assert started.process.wait(60) == 1
        assert "webserver of the UI ended by itself" in (tmp_path / "ui.log").read_text()
        wait_until(lambda: not processes_of_group(started.process.pid), 30)
