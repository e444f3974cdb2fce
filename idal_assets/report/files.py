"""What a person takes away from a report: its charts and tables as files beside the page, and where they are."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from idal_assets.report.html import Picture, ReportContent, ReportSection, ReportTable

FIGURES, TABLES = "figures", "tables"


def take_away(content: ReportContent, folder: Path) -> ReportContent:
    """Writes the charts and tables of a report beside it.

    Charts are `figures/NAME.svg` and `.pdf`, tables `tables/NAME.csv` and `.tex` (booktabs).

    Args:
        content: The report.
        folder: Where its page will be.

    Returns:
        The report with the addresses of the files, and a section that lists them.
    """
    for name in (FIGURES, TABLES):
        (folder / name).mkdir()
    sections = [
        replace(section, pictures=[_with_files(picture, folder) for picture in section.pictures])
        for section in content.sections
    ]
    for section in sections:
        for table in section.tables:
            _write_table(table, folder / TABLES / _table_name(section, table))
    links = dict(_links(sections, folder))
    return replace(content, sections=[*sections, _files_section(links)])


def _with_files(picture: Picture, folder: Path) -> Picture:
    if not picture.is_svg or not picture.name:
        return picture
    files = {"svg": picture.image, **({"pdf": picture.pdf} if picture.pdf else {})}
    for ending, content in files.items():
        (folder / FIGURES / f"{picture.name}.{ending}").write_bytes(content)
    return replace(picture, downloads={ending: f"{FIGURES}/{picture.name}.{ending}" for ending in files})


def _table_name(section: ReportSection, table: ReportTable) -> str:
    words = "".join(letter if letter.isalnum() else " " for letter in table.title.lower()).split()
    return f"{section.anchor}_{'_'.join(words[:6])}"


def _write_table(table: ReportTable, path: Path) -> None:
    rows = pd.DataFrame(list(table.rows), columns=list(table.columns))
    rows.to_csv(path.with_suffix(".csv"), index=False)
    latex = rows.to_latex(index=False, escape=True, float_format="%.3f", na_rep="--", caption=table.title)
    path.with_suffix(".tex").write_text(latex, encoding="utf-8")


def _links(sections: Sequence[ReportSection], folder: Path) -> Iterator[tuple[str, str]]:
    for place in (FIGURES, TABLES):
        yield from ((file.name, f"{place}/{file.name}") for file in sorted((folder / place).iterdir()))


def _files_section(links: dict[str, str]) -> ReportSection:
    return ReportSection(
        "Take away",
        "files",
        "Charts as SVG and PDF, tables as CSV and LaTeX (booktabs), and a paragraph on the methods. Whoever gives "
        "this report on gives the whole folder: the page alone has no cards.",
        links={"methods.md": "methods.md", **links},
    )
