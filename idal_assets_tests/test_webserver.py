"""The door of the UI: what a foreign page can send is refused, what the own pages and tools send is answered.

Here the door stands before a small application; `test_live_webserver` sends the same to a running `idal ui`.
"""

import asyncio
import json
from typing import Any
from urllib.parse import quote

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from idal_assets.orchestration.webserver import OnlyOwnPages
from idal_assets_tests.hostile import HOSTILE, WELCOME, Asked, evil_socket_headers

pytestmark = pytest.mark.unit

HERE = "127.0.0.1:3000"


async def page(request: Any) -> PlainTextResponse:
    return PlainTextResponse("answered")


async def talk(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text("opened")
    await websocket.close()


@pytest.fixture(scope="module")
def client() -> TestClient:
    routes = [
        WebSocketRoute("/graphql", talk),
        Route("/{path:path}", page, methods=["GET", "POST", "PUT", "DELETE"]),
    ]
    app = Starlette(routes=routes, middleware=[Middleware(OnlyOwnPages)])
    return TestClient(app, base_url=f"http://{HERE}")


def send(client: TestClient, asked: Asked) -> int:
    filled = asked.at(HERE)
    return client.request(
        filled.method, filled.target, content=filled.body, headers={"Host": HERE, **filled.headers}
    ).status_code


@pytest.mark.parametrize("asked", HOSTILE, ids=lambda asked: asked.name)
def test_what_a_foreign_page_can_send_is_refused(client: TestClient, asked: Asked) -> None:
    assert send(client, asked) == 403


@pytest.mark.parametrize("asked", WELCOME, ids=lambda asked: asked.name)
def test_own_pages_and_tools_are_answered(client: TestClient, asked: Asked) -> None:
    assert send(client, asked) == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_what_changes_something_must_be_json(client: TestClient, method: str) -> None:
    for kind in ("", "text/plain", "text/plain; application/json", "application/graphql", "multipart/form-data"):
        assert client.request(method, "/x", content="{}", headers={"Content-Type": kind}).status_code == 403
    for kind in ("application/json", "application/json; charset=utf-8", "Application/JSON"):
        assert client.request(method, "/x", content="{}", headers={"Content-Type": kind}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:3000", "0.0.0.0:3000", "", "[", "@"]
)
def test_only_names_of_this_machine_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"Host": host}).status_code == 403


@pytest.mark.parametrize("host", ["127.0.0.1:3000", "localhost:3000", "LOCALHOST", "[::1]:3000", "localhost:8080"])
def test_every_name_of_this_machine_is_answered(client: TestClient, host: str) -> None:
    # 8080: as after `ssh -L 8080:127.0.0.1:3000`
    assert client.get("/", headers={"Host": host}).status_code == 200


def raw_request(headers: list[tuple[bytes, bytes]]) -> int:
    """Sends headers that no client would, straight to the application."""
    sent: list[dict] = []

    async def receive() -> dict:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def keep(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": headers}
    app = OnlyOwnPages(PlainTextResponse("answered"))
    asyncio.run(app(scope, receive, keep))
    return sent[0]["status"]


def test_two_hosts_or_none_are_refused() -> None:
    own, foreign = (b"host", HERE.encode()), (b"host", b"evil.example")
    assert raw_request([own]) == 200
    for headers in ([], [own, foreign], [foreign, own], [own, own]):
        assert raw_request(headers) == 403


def test_a_second_origin_or_site_does_not_hide_the_first() -> None:
    own = [(b"host", HERE.encode()), (b"origin", f"http://{HERE}".encode()), (b"sec-fetch-site", b"same-origin")]
    assert raw_request(own) == 200
    assert raw_request([*own, (b"origin", b"http://evil.example")]) == 403
    assert raw_request([*own, (b"sec-fetch-site", b"cross-site")]) == 403


def test_a_websocket_opens_for_the_own_page_and_for_tools(client: TestClient) -> None:
    for headers in ({}, {"Origin": f"http://{HERE}", "Sec-Fetch-Site": "same-origin"}):
        with client.websocket_connect("/graphql", headers={"Host": HERE, **headers}) as opened:
            assert opened.receive_text() == "opened"


@pytest.mark.parametrize("headers", evil_socket_headers(HERE), ids=json.dumps)
def test_a_websocket_of_another_origin_never_opens(client: TestClient, headers: dict[str, str]) -> None:
    with (
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect("/graphql", headers={"Host": HERE, **headers}) as opened,
    ):
        opened.receive_text()


def test_a_query_in_an_address_is_refused_however_it_is_written(client: TestClient) -> None:
    for target in (
        "/graphql?query=",
        "/graphql/?query={x}",
        "/graphql?a=1&query=x",
        f"/graphql?{quote('query')}=x",
    ):
        assert client.get(target).status_code == 403, target
    assert client.get("/graphql?%71uery=x").status_code == 403
    # a page may have a parameter of that name, such as the list of runs
    assert client.get("/runs?query=x").status_code == 200
