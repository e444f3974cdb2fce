"""The table of cases: what it says of patients and scanners, and that no row is lost in silence."""

from pathlib import Path

import pytest

from idal_assets.imaging.case_table import CaseTable, read_case_table
from idal_assets.imaging.inspection import folder_signature, inspect_folder
from idal_assets.settings import CohortSettings
from idal_assets.study.cohort import choose_cohort
from idal_assets.study.roles import CohortError
from idal_assets_tests.raw_folders import make_cases, write_msd

pytestmark = pytest.mark.unit

CASES = ("Case_1", "Case_2", "Case_3")


def table(folder: Path, text: str, encoding: str = "utf-8") -> CaseTable:
    (folder / "cases.csv").write_text(text, encoding=encoding)
    return read_case_table(folder, CASES)


def said(found: CaseTable, severity: str = "warning") -> list[str]:
    assert all(problem.case_id is None for problem in found.problems)
    return [f"{problem.what}; {problem.remedy}" for problem in found.problems if problem.severity == severity]


def test_patients_and_scanners_are_read_where_they_are_known(tmp_path: Path) -> None:
    assert read_case_table(tmp_path, CASES) == CaseTable()
    text = "scanner,case_id,site, patient \nA,Case_1,Brno,P1\n ,Case_2,Brno, P 1 \n3 T B,Case_3,\n,,,\n\n"
    # spreadsheets put a mark before the first name
    found = table(tmp_path, text, "utf-8-sig")
    assert found.scanners == {"Case_1": "A", "Case_3": "3 T B"}
    assert found.patients == {"Case_1": "P1", "Case_2": "P 1"}
    assert not found.problems


@pytest.mark.parametrize("column", ["patient", "scanner"])
def test_one_of_both_columns_is_enough(tmp_path: Path, column: str) -> None:
    found = table(tmp_path, f"case_id,{column}\nCase_1,X\n")
    assert found.problems == ()
    assert {"patient": found.patients, "scanner": found.scanners}[column] == {"Case_1": "X"}


def test_rows_are_used_in_spite_of_blanks_and_capitals_and_it_is_said(tmp_path: Path) -> None:
    found = table(tmp_path, "case_id,patient\nCase_1 ,P1\nCASE_2,P1\n case_3,P3\n")
    assert found.patients == {"Case_1": "P1", "Case_2": "P1", "Case_3": "P3"}
    blanks, capitals = said(found)
    assert blanks.startswith("ids with blanks around them: Case_1, Case_3; the rows are used all the same")
    assert capitals.startswith("ids in other capitals than the cases: CASE_2 for Case_2, case_3 for Case_3; ")
    assert not said(found, "error")


def test_rows_that_name_no_case_are_listed(tmp_path: Path) -> None:
    rows = "".join(f"absent_{number:02d},GE\n" for number in range(12))
    (line,) = said(table(tmp_path, f"case_id,scanner\nCase_1,GE\n{rows}"))
    assert line.startswith("rows that name no case with a label: absent_00, ")
    assert "absent_09 and 2 more; write the ids of cases" in line


def test_capitals_that_two_cases_share_name_neither(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text("case_id,patient\nA,P1\nb,P2\n")
    found = read_case_table(tmp_path, ["a", "A", "B"])
    assert found.patients == {"A": "P1", "B": "P2"}
    (tmp_path / "cases.csv").write_text("case_id,patient\nAb,P1\n")
    assert not read_case_table(tmp_path, ["ab", "AB"]).patients


def test_of_several_rows_the_last_counts_and_it_is_said(tmp_path: Path) -> None:
    found = table(tmp_path, "case_id,scanner,patient\nCase_1,GE,P1\nCase_1,Philips,\nCase_2,GE,\n")
    assert found.scanners == {"Case_1": "Philips", "Case_2": "GE"}
    assert found.patients == {"Case_1": "P1"}
    assert said(found) == ["cases with several rows: Case_1; the last row counts; keep one for each case"]


def test_two_patients_of_one_case_are_an_error(tmp_path: Path) -> None:
    found = table(tmp_path, "case_id,patient\nCase_1,P1\nCase_1 ,P2\n")
    assert said(found, "error") == ["Case_1 is of two patients (P1, P2); keep the row that is right"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"case_id,age\nCase_1,61\n",
            "has the columns 'case_id', 'age'; write the columns case_id and patient or",
        ),
        (b"case_id;patient\nCase_1;P1\n", "has the columns 'case_id;patient'; .* with commas"),
        (b"patient\nP1\n", "has the columns 'patient'; "),
        (b"", "has the columns of an empty file; "),
        ("case_id,patient\nCase_1,Šárka\n".encode("cp1250"), "cannot be read .*; write .* in UTF-8"),
    ],
)
def test_a_table_that_cannot_be_read_stops_the_run_and_not_the_look(
    tmp_path: Path, content: bytes, message: str
) -> None:
    raw = write_msd(tmp_path, make_cases(*"ABCDEF"))
    (raw / "cases.csv").write_bytes(content)
    report = inspect_folder(raw)
    assert len(report.facts) == 6
    assert any(line.startswith("ERROR") and "cases.csv" in line for line in report.lines())
    with pytest.raises(CohortError, match=f"cases.csv: {message}"):
        choose_cohort(report, CohortSettings(), report.anatomy, (1,))


def test_a_row_of_a_refused_case_names_a_case(tmp_path: Path) -> None:
    raw = write_msd(tmp_path, make_cases(*"ABC"))
    (raw / "labelsTr" / "B.nii.gz").unlink()
    (raw / "cases.csv").write_text("case_id,scanner\nA,GE\nB,GE\nD,GE\n")
    report = inspect_folder(raw)
    assert set(report.refused) == {"B"}
    (warning,) = (problem for problem in report.problems if problem.severity == "warning")
    assert warning.what == "rows that name no case with a label: D"
    assert warning in report.warnings


def test_an_edited_table_changes_the_look_of_the_folder(tmp_path: Path) -> None:
    raw = write_msd(tmp_path, make_cases("A"))
    before = folder_signature(raw)
    (raw / "cases.csv").write_text("case_id,patient\nA,P1\n")
    assert folder_signature(raw) != before
