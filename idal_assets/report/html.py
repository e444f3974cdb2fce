"""Turns facts, tables and pictures into one self-contained HTML page; what they mean is the caller's affair."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from idal_assets.plots.style import data_uri

KEPT, REMOVED = "kept", "removed"
"""Cells that the page draws as marks, for tables of which case was removed from which set."""

NOT_DEFINED = "–"

Cell = str | int | float | bool | None


@dataclass(frozen=True)
class ReportTable:
    """A table of a section.

    Attributes:
        title: Caption above it.
        columns: Heads of the columns.
        rows: Cells, one sequence a row. Strings are shown as they are, floats with three decimals, `None` and
            NaN as a dash, booleans as yes and no. A column of numbers (or of strings that are numbers, such
            as "+0.048") is aligned to the right.
        note: Small print below it; none if empty.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""


@dataclass(frozen=True)
class Picture:
    """A picture of a section.

    Attributes:
        title: Heading, and the text for those who cannot see the picture.
        png: The PNG file.
        caption: Text below it.
    """

    title: str
    png: bytes
    caption: str


def picture_of(path: Path, title: str, caption: str) -> Picture:
    """A picture that an artifact holds."""
    return Picture(title, path.read_bytes(), caption)


@dataclass(frozen=True)
class ReportSection:
    """A part of the page with an entry in its table of contents.

    Attributes:
        title: Heading.
        anchor: Address within the page, unique; letters, digits and hyphens.
        text: Paragraphs, apart by empty lines; none if empty.
        tables: Tables, below the text.
        pictures: Pictures, below the tables.
    """

    title: str
    anchor: str
    text: str = ""
    tables: Sequence[ReportTable] = ()
    pictures: Sequence[Picture] = ()


@dataclass(frozen=True)
class ReportContent:
    """All that a report says, in its order.

    Attributes:
        title: Title of the page.
        summary: What came out, in a sentence or two of plain language.
        facts: Names and values of the headline: profile, data, numbers of cases, versions, seed, device.
        sections: The parts, the most important first; notes on how to read them follow on their own.
    """

    title: str
    summary: str
    facts: Sequence[tuple[str, str]]
    sections: Sequence[ReportSection]


def render_report(content: ReportContent) -> str:
    """Write the report as one HTML page without scripts or outside resources."""
    environment = Environment(
        loader=PackageLoader("idal_assets", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"data_uri": data_uri, "cell": _cell_text, "paragraphs": _paragraphs}
    environment.globals |= {"numeric_columns": _numeric_columns, "marks": (KEPT, REMOVED)}
    return environment.get_template("report.html.j2").render(content=content)


def _cell_text(cell: Cell) -> str:
    if _is_missing(cell):
        return NOT_DEFINED
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, Real) and not isinstance(cell, Integral):
        return f"{float(cell):.3f}"
    return str(cell)


def _is_missing(cell: Cell) -> bool:
    return cell is None or (isinstance(cell, Real) and math.isnan(cell))


def _numeric_columns(table: ReportTable) -> list[bool]:
    columns = [[row[i] for row in table.rows] for i in range(len(table.columns))]
    return [bool(column) and all(_is_number(x) for x in column) for column in columns]


def _is_number(cell: Cell) -> bool:
    if isinstance(cell, bool):
        return False
    try:
        return _is_missing(cell) or math.isfinite(float(cell))  # type: ignore[arg-type]
    except ValueError:
        return cell in ("", NOT_DEFINED)


def _paragraphs(text: str) -> list[str]:
    return [x.strip() for x in text.split("\n\n") if x.strip()]
