"""Turns facts, tables and pictures into one self-contained HTML page; what they mean is the caller's affair."""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from idal_assets.plots.style import data_uri
from idal_assets.settings import DECISIONS

if TYPE_CHECKING:
    from idal_assets.report.cards import CaseCard

HERE = Path(__file__).parent

OWN_FILES = {"style": "page.css", "script": "page.js"}

PNG_SIGNATURE = b"\x89PNG"

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
            as "+0.048" or "46%") is aligned to the right.
        note: Small print below it; none if empty.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""


@dataclass(frozen=True)
class MatrixCells:
    """What a page tells of the cell of a matrix that somebody points at.

    Attributes:
        rows: Names of the rows, the first at the top.
        columns: Names of the columns.
        values: Cells, one sequence a row; None where not defined.
    """

    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float | None]]


@dataclass(frozen=True)
class Picture:
    """A picture of a section.

    Attributes:
        title: Heading, and the text for those who cannot see the picture.
        image: The file, a chart as SVG or a picture as PNG.
        caption: Text below it.
        cells: Cells of the matrix that it shows, if it shows one.
        pdf: The chart for print.
        name: Name of its files, without ending; letters, digits, hyphens and underscores.
        downloads: Addresses of its files, by ending.
    """

    title: str
    image: bytes
    caption: str
    cells: MatrixCells | None = None
    pdf: bytes | None = None
    name: str = ""
    downloads: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_svg(self) -> bool:
        """Whether it is a chart."""
        return not self.image.startswith(PNG_SIGNATURE)


def picture_of(path: Path, title: str, caption: str, cells: MatrixCells | None = None) -> Picture:
    """A picture that an artifact holds.

    Args:
        path: Its file; without an ending a chart, or a picture where there is no chart of that name.
        title: As in `Picture`.
        caption: As in `Picture`.
        cells: As in `Picture`.
    """
    file = path if path.suffix else path.with_suffix(".svg")
    if not file.is_file():
        file = path.with_suffix(".png")
    pdf = file.with_suffix(".pdf")
    printed = pdf.read_bytes() if pdf.is_file() else None
    return Picture(title, file.read_bytes(), caption, cells, printed, f"{path.parent.name}_{path.stem}")


@dataclass(frozen=True)
class ReportSection:
    """A part of the page with an entry in its table of contents.

    Attributes:
        title: Heading.
        anchor: Address within the page, unique; letters, digits and hyphens.
        text: Paragraphs, apart by empty lines; none if empty.
        tables: Tables, below the text.
        pictures: Pictures, below the tables.
        cards: Cards of cases, below the text.
        review: Cases on which a person may decide here, with what is worth knowing of each; none if None.
        facts: Names and values, below all else.
        links: Files beside the page, by name.
    """

    title: str
    anchor: str
    text: str = ""
    tables: Sequence[ReportTable] = ()
    pictures: Sequence[Picture] = ()
    cards: Sequence["CaseCard"] = ()
    review: "ReviewTable | None" = None
    facts: Sequence[tuple[str, str]] = ()
    links: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ReviewTable:
    """The form in which a person decides on cases.

    Attributes:
        columns: Heads of the columns, that of the case first; the decision follows on its own.
        rows: Cells, the case's name first.
        decided: Decision and note of cases that were decided before.
        study: What tells the answers of this study from those of another.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    decided: Mapping[str, Mapping[str, str]]
    study: str


@dataclass(frozen=True)
class ReportContent:
    """All that a report says, in its order.

    Attributes:
        title: Title of the page.
        verdict: The answer, in one sentence.
        summary: What came out, in a sentence or two of plain language.
        cautions: What a reader must know before believing it.
        sections: The parts, the most important first; notes on how to read them follow on their own.
        case_pages: Address of the page of each case that has one, by its name; tables lead there.
    """

    title: str
    verdict: str
    summary: str
    sections: Sequence[ReportSection]
    cautions: Sequence[str] = ()
    case_pages: Mapping[str, str] = field(default_factory=dict)


def render_report(content: ReportContent) -> str:
    """Write the report as one HTML page that fetches nothing; its script is its own."""
    return _template("report.html.j2", content.case_pages).render(content=content)


def render_case(card: "CaseCard", case_pages: Mapping[str, str]) -> str:
    """Write the page of one case.

    Args:
        card: What is known of it.
        case_pages: Addresses of the pages of other cases, by their names.
    """
    return _template("case.html.j2", case_pages).render(card=card)


def _template(name: str, case_pages: Mapping[str, str]) -> Template:
    environment = Environment(
        loader=PackageLoader("idal_assets", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "data_uri": data_uri,
        "cell": lambda cell: _typeset(_cell_text(cell)),
        "paragraphs": _paragraphs,
        "typeset": _typeset,
        "inline_svg": inline_svg,
        "as_json": _as_json,
    }
    # own files, which hold nothing from outside
    own = {
        kind: Markup((HERE / file).read_text()) for kind, file in (("style", "page.css"), ("script", "page.js"))
    }
    environment.globals |= {
        "numeric_columns": _numeric_columns,
        "marks": (KEPT, REMOVED),
        "case_pages": case_pages,
        "decisions": DECISIONS,
        **own,
    }
    return environment.get_template(name)


def inline_svg(svg: bytes) -> Markup:
    """A chart as a part of the page, without what only a file of its own needs.

    Charts are this project's own, and their writer escapes what is written in them. Names are made its own where
    charts refer to them, as two on one page may have the same.
    """
    text = svg.decode()
    text = text[text.index("<svg") :]
    own = hashlib.sha256(svg).hexdigest()[:8]
    text = SVG_REFERENCE.sub(lambda found: f"{found[1]}{own}-{found[2]}", text)
    return Markup(text)


SVG_REFERENCE = re.compile(r'((?:\bid="|url\(#|href="#))(?!cells")([\w.-]+)')
"""A name in a chart, or a reference to one; the area of a matrix keeps its name, by which the page knows it."""


def _as_json(cells: MatrixCells) -> str:
    return json.dumps(asdict(cells), separators=(",", ":"))


def _typeset(text: str) -> str:
    """Minus signs for the hyphens before numbers; a hyphen within a word or an id stays."""
    return MINUS.sub("−", text)


MINUS = re.compile(r"(?<![\w.\-])-(?=\d)")


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


def _numeric_columns(table: ReportTable | ReviewTable) -> list[bool]:
    columns = [[row[i] for row in table.rows] for i in range(len(table.columns))]
    return [all(map(_is_number, column)) and not all(map(_is_missing, column)) for column in columns]


def _is_number(cell: Cell) -> bool:
    if isinstance(cell, bool):
        return False
    try:
        number = cell.removesuffix("%") if isinstance(cell, str) else cell
        return _is_missing(cell) or math.isfinite(float(number))  # type: ignore[arg-type]
    except ValueError:
        return cell in ("", NOT_DEFINED, "not defined")


def _paragraphs(text: str) -> list[str]:
    return [x.strip() for x in text.split("\n\n") if x.strip()]
