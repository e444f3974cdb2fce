"""The webserver of `idal ui`: Dagster's own, behind a door for its own pages and the tools of this machine.

A browser sends requests to loopback for any page that its user has open. Dagster answers all of them, even queries
in an address, so that a picture on a foreign page could launch a run. `OnlyOwnPages` refuses what a foreign page
can send, by the headers that no page can forge: Host, Origin and Sec-Fetch-*.
"""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import parse_qs

import uvicorn
from dagster import DagsterInstance
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster_webserver.version import __version__
from dagster_webserver.webserver import DagsterWebserver
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from idal_assets.orchestration.files import artifact_route

HOST = "127.0.0.1"
OWN_NAME = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?", re.IGNORECASE)
"""This machine as it calls itself; whoever asks by another name was led here by a foreign name server."""

MILLISECONDS_BETWEEN_LOOKS = 2000
"""How often an open page asks for what is new; the default of `dagster dev`."""

SECONDS_TO_CLOSE = 3
"""How long open pages may keep the server from ending."""


class OnlyOwnPages:
    """Refuses requests that a page of another origin caused; tools without a browser pass.

    Args:
        app: What answers the others.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers 403, or closes a WebSocket before it opens, where `objection` has one."""
        refused = objection(scope) if scope["type"] in ("http", "websocket") else None
        if refused is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": refused})
        else:
            await PlainTextResponse(f"{refused}\n", status_code=403)(scope, receive, send)


def objection(scope: Scope) -> str | None:
    """Why a request is refused; None where it is not.

    Args:
        scope: An ASGI scope of the type `http` or `websocket`.
    """
    headers = Headers(scope=scope)
    hosts = headers.getlist("host")
    if len(hosts) != 1 or not OWN_NAME.fullmatch(hosts[0]):
        return "This server answers to 127.0.0.1 and localhost only"
    if any(origin != f"http://{hosts[0]}" for origin in headers.getlist("origin")):
        return "A page of another origin asks"
    if not _comes_from_own_page(headers) and not _opens_a_page(scope, headers):
        return "A page of another site asks"
    return _objection_to_query(scope, headers) if scope["type"] == "http" else None


def _comes_from_own_page(headers: Headers) -> bool:
    """Or from an address that was typed, or from no browser; old browsers do not say."""
    return all(site in ("same-origin", "none") for site in headers.getlist("sec-fetch-site"))


def _opens_a_page(scope: Scope, headers: Headers) -> bool:
    """Whether somebody follows a link to here: the page opens by itself, unseen by the one with the link."""
    opened = [headers.getlist(name) for name in ("sec-fetch-mode", "sec-fetch-dest")]
    return scope.get("method") == "GET" and opened == [["navigate"], ["document"]]


def _objection_to_query(scope: Scope, headers: Headers) -> str | None:
    if scope["method"] in ("GET", "HEAD"):
        asks = scope["path"].rstrip("/").endswith("/graphql") and "query" in parse_qs(
            scope["query_string"].decode("latin-1"), keep_blank_values=True
        )
        return "Send queries by POST" if asks else None
    kinds = [kind.partition(";")[0].strip().lower() for kind in headers.getlist("content-type")]
    return None if kinds == ["application/json"] else "Send JSON, with Content-Type: application/json"


class OwnWebserver(DagsterWebserver):
    """Dagster's webserver behind `OnlyOwnPages`, and in no frame."""

    def build_middleware(self) -> list[Middleware]:
        """Dagster's own, behind the door."""
        return [Middleware(OnlyOwnPages), *super().build_middleware()]

    def build_routes(self) -> list[BaseRoute]:
        """Pictures and pages of the artifacts, then Dagster's own."""
        return [artifact_route(Path(os.environ["IDAL_DATA_DIR"])), *super().build_routes()]

    def make_security_headers(self) -> dict:
        """Dagster's own, and none that lets a page show this one in a frame."""
        return {**super().make_security_headers(), "X-Frame-Options": "DENY"}


def main(arguments: Sequence[str]) -> None:
    """Serves the instance of `DAGSTER_HOME` until it is told to end.

    Args:
        arguments: The workspace file and the port.
    """
    workspace, port = arguments
    with (
        DagsterInstance.get() as instance,
        WorkspaceProcessContext(instance, WorkspaceFileTarget([workspace]), version=__version__) as process,
    ):
        app = OwnWebserver(process, live_data_poll_rate=MILLISECONDS_BETWEEN_LOOKS).create_asgi_app()
        uvicorn.run(
            app, host=HOST, port=int(port), log_level="warning", timeout_graceful_shutdown=SECONDS_TO_CLOSE
        )


if __name__ == "__main__":
    main(sys.argv[1:])
