"""What the UI's server shows of the data folder: files of finished artifacts, and nothing else."""

import io
from pathlib import Path

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from idal_assets.orchestration.files import address_of, artifact_route

pytestmark = pytest.mark.unit

CHART = b'<?xml version="1.0"?><svg width="691.2pt" height="300pt" viewBox="0 0 691.2 300"><g width="5"/></svg>'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for folder in ("evidence", "case_view/a", "experiment_report/cases", "dagster_home"):
        (root / folder).mkdir(parents=True)
    (root / "evidence" / "forest.svg").write_bytes(CHART)
    (root / "evidence" / "secret.json").write_text("{}")
    (root / "experiment_report" / "report.html").write_text("<p>the report</p>")
    (root / "dagster_home" / "page.html").write_text("not an artifact")
    (root / "notes.html").write_text("not an artifact")
    (tmp_path / "outside.html").write_text("outside")
    (root / "evidence" / "link.html").symlink_to(tmp_path / "outside.html")
    Image.new("L", (1000, 500)).save(root / "case_view" / "a" / "slice.png")
    return root


@pytest.fixture
def client(root: Path) -> TestClient:
    return TestClient(Starlette(routes=[artifact_route(root)]), base_url="http://127.0.0.1:3000")


def test_pages_and_pictures_are_shown(client: TestClient, root: Path) -> None:
    page = client.get(address_of(root, root / "experiment_report" / "report.html"))
    assert (page.status_code, page.text) == (200, "<p>the report</p>")
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert page.headers["x-content-type-options"] == "nosniff"
    chart = client.get("/artifacts/evidence/forest.svg")
    assert (chart.content, chart.headers["content-type"]) == (CHART, "image/svg+xml")


def test_a_thumbnail_is_as_wide_as_asked(client: TestClient) -> None:
    chart = client.get("/artifacts/evidence/forest.svg?width=480").content
    assert b'<svg width="480" viewBox="0 0 691.2 300"><g width="5"/>' in chart
    picture = Image.open(io.BytesIO(client.get("/artifacts/case_view/a/slice.png?width=480").content))
    assert picture.size == (480, 240)


@pytest.mark.parametrize(
    "path",
    [
        "evidence/secret.json",
        "evidence/gone.svg",
        "evidence",
        "notes.html",
        "dagster_home/page.html",
        "evidence/link.html",
        "evidence/../notes.html",
        "evidence/%2e%2e/dagster_home/page.html",
        "evidence/..%2f..%2foutside.html",
        "/etc/passwd",
        "evidence/" + "x" * 300 + ".svg",
        "evidence/a%00.svg",
    ],
)
def test_nothing_else_is_shown(client: TestClient, path: str) -> None:
    assert client.get(f"/artifacts/{path}").status_code == 404


def test_nothing_can_be_written(client: TestClient) -> None:
    assert client.post("/artifacts/evidence/forest.svg", json={}).status_code == 405
