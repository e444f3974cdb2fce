"""Requests to the UI: those that a hostile page can have a browser send, and those that have to be answered."""

import json
from dataclasses import dataclass, field, replace
from urllib.parse import quote

LAUNCH = 'mutation { launchRun(executionParams: {mode: "default"}) { __typename } }'
QUERY = "{ version }"
EVIL = "http://evil.example"
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Asked:
    """One request; `HERE` in a header is the server's own host and port."""

    name: str
    method: str = "GET"
    target: str = "/"
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""

    def at(self, host: str) -> "Asked":
        return replace(self, headers={name: value.replace("HERE", host) for name, value in self.headers.items()})


def posted(query: str) -> str:
    return json.dumps({"query": query})


IN_ADDRESS = f"/graphql?query={quote(LAUNCH)}"
FROM_PICTURE = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
LINK = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
OWN = {
    "Origin": "http://HERE",
    "Sec-Fetch-Site": "same-origin",
    "Sec-Fetch-Mode": "cors",
    "Sec-Fetch-Dest": "empty",
}

HOSTILE = (
    Asked("picture that launches a run", "GET", IN_ADDRESS, FROM_PICTURE),
    Asked("the same of an old browser", "GET", IN_ADDRESS, {"Referer": EVIL}),
    Asked("the same with its origin", "GET", IN_ADDRESS, {"Origin": EVIL}),
    Asked("link that launches a run", "GET", IN_ADDRESS, LINK),
    Asked(
        "form with the query in the address", "POST", IN_ADDRESS, {"Origin": EVIL, "Content-Type": "text/plain"}
    ),
    Asked("the same without an origin", "POST", IN_ADDRESS, {"Content-Type": "text/plain"}),
    Asked(
        "form", "POST", "/graphql", {"Content-Type": "application/x-www-form-urlencoded"}, f"query={quote(LAUNCH)}"
    ),
    Asked(
        "text that Dagster takes for JSON",
        "POST",
        "/graphql",
        {"Content-Type": "text/plain; application/json"},
        posted(LAUNCH),
    ),
    Asked("query as its own type", "POST", "/graphql", {"Content-Type": "application/graphql"}, LAUNCH),
    Asked("script of another origin", "POST", "/graphql", {**JSON, "Origin": EVIL}, posted(LAUNCH)),
    Asked(
        "script of another port", "POST", "/graphql", {**JSON, "Origin": "http://127.0.0.1:8888"}, posted(LAUNCH)
    ),
    Asked("script of a file or a sandbox", "POST", "/graphql", {**JSON, "Origin": "null"}, posted(LAUNCH)),
    Asked("script of another site", "POST", "/graphql", {**JSON, "Sec-Fetch-Site": "cross-site"}, posted(LAUNCH)),
    Asked(
        "script of another port, old", "POST", "/graphql", {**JSON, "Sec-Fetch-Site": "same-site"}, posted(LAUNCH)
    ),
    Asked("name of another server", "POST", "/graphql", {**JSON, "Host": "evil.example"}, posted(QUERY)),
    Asked(
        "the same from its own page",
        "POST",
        "/graphql",
        {
            **JSON,
            "Host": "evil.example:3000",
            "Origin": "http://evil.example:3000",
            "Sec-Fetch-Site": "same-origin",
        },
        posted(QUERY),
    ),
    Asked("page of another server", "GET", "/", {"Host": "evil.example"}),
    Asked("page in a foreign frame", "GET", "/", {**LINK, "Sec-Fetch-Dest": "iframe"}),
    Asked("leave to ask, before asking", "OPTIONS", "/graphql", {"Origin": EVIL}),
    Asked(
        "materialization that nobody made",
        "POST",
        "/report_asset_materialization/cohort?data_version=1",
        {"Origin": EVIL, "Content-Type": "text/plain"},
    ),
    Asked(
        "the same without an origin",
        "POST",
        "/report_asset_materialization/cohort?data_version=1",
        {"Content-Type": "text/plain"},
    ),
)
"""All are to be answered with 403."""

WELCOME = (
    Asked("page, typed", "GET", "/", {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}),
    Asked("page, from a link", "GET", "/assets/cohort", LINK),
    Asked("page without a browser", "GET", "/"),
    Asked("page by its other name", "GET", "/", {"Host": "localhost:3000"}),
    Asked("own script", "POST", "/graphql", {**JSON, **OWN}, posted(QUERY)),
    Asked("tool", "POST", "/graphql", JSON, posted(QUERY)),
    Asked("own script's file", "GET", "/favicon.png", {"Sec-Fetch-Site": "same-origin"}),
)
"""All are to be answered with 200."""


def evil_socket_headers(host: str) -> list[dict[str, str]]:
    """Headers of WebSockets that must not open."""
    return [
        {"Origin": EVIL},
        {"Origin": "null"},
        {"Origin": "http://localhost:8888"},
        {"Origin": f"https://{host}"},
        {"Host": "evil.example", "Origin": EVIL},
        {"Host": "evil.example"},
        {"Origin": f"http://{host}", "Sec-Fetch-Site": "cross-site"},
    ]
