"""The table `cases.csv` of a raw folder: which patient each case is of, and with which scanner it was made."""

import csv
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from idal_assets.imaging.problems import Problem

CASE_TABLE = "cases.csv"
"""What is known of the cases beside their images; optional, in the raw folder."""

CASE = "case_id"
PATIENT = "patient"
SCANNER = "scanner"


@dataclass(frozen=True)
class CaseTable:
    """What the table says of the cases of its folder, and what does not fit.

    Attributes:
        patients: Patient by case, as far as it says.
        scanners: Scanner by case, as far as it says.
        problems: What is wrong with the file; rows that name no case, or name it otherwise or twice.
    """

    patients: Mapping[str, str] = field(default_factory=dict)
    scanners: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


def read_case_table(raw_dir: Path, cases: Collection[str]) -> CaseTable:
    """Read what somebody wrote down of the cases.

    Blanks around a value do not count. A row also means the case whose name differs in capitals only, if there is
    but one. Either is a warning, as are rows that name no case: a row that is lost in silence may be the one that
    says of what patient a case is. Where a case has several rows, the last counts; two patients are an error.

    Args:
        raw_dir: The raw folder; its `cases.csv` has the column `case_id`, one of `patient` and `scanner` or both,
            and whatever else.
        cases: Names of all cases in the folder.

    Returns:
        What it says; nothing where there is no such file.
    """
    file = raw_dir / CASE_TABLE
    if not file.is_file():
        return CaseTable()
    try:
        rows = _rows(file)
    except ValueError as error:
        remedy = f"write the columns {CASE} and {PATIENT} or {SCANNER}, with commas, in UTF-8, or rename the file"
        return CaseTable(problems=(Problem(None, file, str(error), remedy),))
    meant = {name: _case_of(name.strip(), cases) for name in dict.fromkeys(row[CASE] for row in rows)}
    said: dict[str, list[Mapping[str, str]]] = defaultdict(list)
    for row in rows:
        if case := meant[row[CASE]]:
            said[case].append(row)
    problems = (*_name_problems(file, meant), *_repetition_problems(file, said))
    return CaseTable(_last_values(said, PATIENT), _last_values(said, SCANNER), problems)


def _rows(file: Path) -> list[dict[str, str]]:
    """Return the rows by column, those without an id left out; ids as written, other values without blanks.

    Raises:
        ValueError: The file cannot be read or lacks a column.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            header, *rows = [*csv.reader(lines)] or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"cannot be read ({error})") from error
    columns = [column.strip() for column in header]
    if CASE not in columns or not {PATIENT, SCANNER} & {*columns}:
        raise ValueError(f"has the columns {', '.join(map(repr, columns)) or 'of an empty file'}")
    cells = [dict(zip(columns, row, strict=False)) for row in rows]
    return [
        {column: cell if column == CASE else cell.strip() for column, cell in row.items()}
        for row in cells
        if row.get(CASE, "").strip()
    ]


def _case_of(name: str, cases: Collection[str]) -> str | None:
    """Return the case of a name; None if there is none, or several that differ from it in capitals."""
    if name in cases:
        return name
    alike = [case for case in cases if case.lower() == name.lower()]
    return alike[0] if len(alike) == 1 else None


def _last_values(said: Mapping[str, Sequence[Mapping[str, str]]], column: str) -> dict[str, str]:
    return {case: row[column] for case, rows in said.items() for row in rows if row.get(column)}


def _name_problems(file: Path, meant: Mapping[str, str | None]) -> list[Problem]:
    """Report names that are no case's or are not written as it; one warning for all of a kind."""
    padded = [case for name, case in meant.items() if case and name != name.strip()]
    respelt = [f"{name.strip()} for {case}" for name, case in meant.items() if case and name.strip() != case]
    unknown = [name.strip() for name, case in meant.items() if case is None]
    used = "the rows are used all the same, but write the ids as the cases have them"
    return [
        Problem(None, file, f"{kind}: {_listed(names)}", remedy, "warning", kind)
        for kind, names, remedy in (
            ("rows that name no case with a label", unknown, "write the ids of cases, or remove the rows"),
            ("ids with blanks around them", padded, used),
            ("ids in other capitals than the cases", respelt, used),
        )
        if names
    ]


def _repetition_problems(file: Path, said: Mapping[str, Sequence[Mapping[str, str]]]) -> list[Problem]:
    """Report cases with several rows; an error for each that is said to be of two patients."""
    repeated = {case: rows for case, rows in said.items() if len(rows) > 1}
    problems = []
    if repeated:
        kind = "cases with several rows"
        remedy = "the last row counts; keep one for each case"
        problems.append(Problem(None, file, f"{kind}: {_listed([*repeated])}", remedy, "warning", kind))
    for case, rows in repeated.items():
        patients = dict.fromkeys(row[PATIENT] for row in rows if row.get(PATIENT))
        if len(patients) > 1:
            what = f"{case} is of two patients ({', '.join(patients)})"
            problems.append(Problem(None, file, what, "keep the row that is right"))
    return problems


def _listed(names: Sequence[str]) -> str:
    """The first names, and how many there are more."""
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more
