"""Turns what a step shows, plain values, into what Dagster's pages show."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd

from idal_assets.orchestration.files import KINDS, address_of
from idal_assets.steps.cells import cell_counts
from idal_assets.store.artifacts import Provenance

PICTURE_WIDTH = 380
"""Pixels that the UI has for a picture, beside a long key in a window of 1400; the whole one opens from it."""

MOST_COLUMNS = 6
"""Of a wider table the first ones are shown, as a wide one moves words out of sight; the database has all."""

FIRST_COLUMNS = ("rank", "case_id")

LONG_TABLE = 10
"""Rows; a longer table is shown below everything else."""


def metadata_of(shown: Mapping[str, Any], folder: Path, record: Provenance, made_now: bool) -> dict[str, Any]:
    """All metadata of a materialization, as the UI shows it: words and numbers, pictures, tables, the record.

    Args:
        shown: What the step shows.
        folder: Folder of the artifact.
        record: Its record.
        made_now: Whether it was made now.
    """
    described = as_metadata(shown, _root(folder, record))
    tables = {name: value for name, value in described.items() if isinstance(value, dg.TableMetadataValue)}
    long = {name: value for name, value in tables.items() if len(value.records) > LONG_TABLE}
    words = {name: value for name, value in described.items() if name not in tables}
    short = {name: value for name, value in tables.items() if name not in long}
    ordered = {
        **words,
        **_pictures(folder, _root(folder, record)),
        **short,
        **_of_record(folder, record, made_now),
        **long,
    }
    return {name: _rounded(value) for name, value in ordered.items()}


def _root(folder: Path, record: Provenance) -> Path:
    """The data folder that an artifact is in."""
    return folder.parent if record.key is None else folder.parent.parent


def as_metadata(shown: Mapping[str, Any], root: Path | None = None) -> dict[str, Any]:
    """Plain values as Dagster shows them: tables, lists of sentences, other values of JSON, files to open.

    Args:
        shown: What there is to show.
        root: The data folder, whose pages the UI's server shows.
    """
    return {name: _as_metadata(value, root) for name, value in shown.items()}


def _as_metadata(value: Any, root: Path | None) -> Any:
    if isinstance(value, pd.DataFrame):
        return _table(value)
    if isinstance(value, Path):
        if root is None or value.suffix not in KINDS:
            return dg.MetadataValue.path(value)
        return dg.MetadataValue.md(f"[{value.name}]({address_of(root, value)})")
    if isinstance(value, list):
        return _sentences(value)
    return dg.MetadataValue.json(value) if isinstance(value, dict) else value


def _table(rows: pd.DataFrame) -> dg.TableMetadataValue:
    first = [name for name in FIRST_COLUMNS if name in rows.columns]
    ordered = [*first, *(name for name in rows.columns if name not in first)]
    rows = rows[ordered[:MOST_COLUMNS]]
    types = {"i": "int", "f": "float", "b": "bool"}
    columns = [dg.TableColumn(str(name), types.get(rows[name].dtype.kind, "string")) for name in rows.columns]
    records = [
        dg.TableRecord({str(name): _cell(value) for name, value in row.items()})
        for row in rows.to_dict(orient="records")
    ]
    return dg.MetadataValue.table(records, schema=dg.TableSchema(columns))


def _cell(value: Any) -> Any:
    if pd.isna(value):
        return None
    if hasattr(value, "item"):
        value = value.item()
    return _rounded(value)


def _rounded(value: Any) -> Any:
    """What people read of a number; the files and the database hold all of it."""
    return round(value, 4) if isinstance(value, float) else value


def _sentences(lines: Sequence[str]) -> dg.MarkdownMetadataValue:
    """A list; the UI breaks lines of Markdown but not those of plain text."""
    return dg.MetadataValue.md("\n".join(f"- {line}" for line in lines) or "none")


def _pictures(folder: Path, root: Path) -> dict[str, dg.MetadataValue]:
    """Every picture of an artifact, shown in place by the UI's server."""
    files = sorted([*folder.glob("*.svg"), *folder.glob("*.png")])
    return {file.stem: _picture(address_of(root, file), file.stem) for file in files}


def _picture(address: str, name: str) -> dg.MetadataValue:
    return dg.MetadataValue.md(f"[![{name}]({address}?width={PICTURE_WIDTH})]({address})")


def _of_record(folder: Path, record: Provenance, made_now: bool) -> dict[str, Any]:
    inputs = record.inputs.model_dump(mode="json")
    return {
        "path": dg.MetadataValue.path(folder),
        "seconds": record.seconds,
        "cpu_seconds": record.cpu_seconds,
        "made": record.written,
        "reused": not made_now,
        **cell_counts(folder, made_now),
        "made_from": dg.MetadataValue.json(inputs["made_from"]),
        "settings": dg.MetadataValue.json(inputs["settings"]),
        "software": dg.MetadataValue.json(record.software),
    }
