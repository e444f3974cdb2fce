"""What the UI's own server shows beside Dagster: pictures, pages and tables of finished artifacts, read-only.

Only files of kinds that a browser shows, only within the folders of assets; nothing is listed, nothing is written.
"""

import io
import re
from pathlib import Path

from PIL import Image
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from idal_assets.study.graph import GRAPH

PLACE = "/artifacts"

KINDS = {
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".html": "text/html; charset=utf-8",
    ".pdf": "application/pdf",
    ".csv": "text/csv; charset=utf-8",
    ".tex": "text/plain; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
}

HEADERS = {
    # own pages have styles and a script within, and fetch nothing
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}

SVG_SIZE = re.compile(rb'(<svg[^>]*?) width="[\d.]+\w*"')
SVG_HEIGHT = re.compile(rb'(<svg[^>]*?) height="[\d.]+\w*"')


def address_of(root: Path, file: Path) -> str:
    """Where the UI shows a file of an artifact, from the root of its server.

    Args:
        root: The data folder.
        file: A file below it.
    """
    return f"{PLACE}/{file.relative_to(root).as_posix()}"


def artifact_route(root: Path) -> Route:
    """The route that answers for the files of a data folder."""

    async def answer(request: Request) -> Response:
        file = find(root, request.path_params["path"])
        if file is None:
            raise HTTPException(404)
        content = file.read_bytes()
        if wide := request.query_params.get("width", ""):
            content = narrowed(content, file.suffix, int(wide)) if wide.isdecimal() else content
        return Response(content, media_type=KINDS[file.suffix], headers=HEADERS)

    return Route(f"{PLACE}/{{path:path}}", answer, methods=["GET"])


def find(root: Path, path: str) -> Path | None:
    """The file of an artifact that an address means; None where it is none that may be shown.

    Args:
        root: The data folder.
        path: The address below `PLACE`.
    """
    asset, _, _ = path.partition("/")
    folder = (root / asset).resolve()
    try:
        file = (root / path).resolve()
        allowed = asset in GRAPH and file.is_relative_to(folder) and file.suffix in KINDS and file.is_file()
    except (OSError, ValueError):
        # a name that no disk can hold
        return None
    return file if allowed else None


def narrowed(content: bytes, suffix: str, width: int) -> bytes:
    """A picture as wide as a page has room for; other files as they are.

    Args:
        content: The file.
        suffix: Its ending.
        width: Width in pixels.
    """
    if suffix == ".svg":
        return SVG_HEIGHT.sub(rb"\1", SVG_SIZE.sub(rb'\1 width="%d"' % width, content, count=1), count=1)
    if suffix != ".png":
        return content
    picture = Image.open(io.BytesIO(content))
    picture.thumbnail((width, 10 * width))
    buffer = io.BytesIO()
    picture.save(buffer, format="png")
    return buffer.getvalue()
