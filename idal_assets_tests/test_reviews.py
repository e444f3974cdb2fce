"""What a person decides of cases: read, refused by name, and what it does to the cohort."""

from pathlib import Path

import pytest

from idal_assets.store.database import read_table
from idal_assets.study.graph import GRAPH
from idal_assets.study.making import make
from idal_assets.study.reviews import Review, read_reviews
from idal_assets.study.roles import CohortError
from idal_assets.study.study import Study
from idal_assets_tests.studies import make_study, with_settings

pytestmark = pytest.mark.unit

LISTS = {"cohort.donor_cases": ("case_[0-5]",), "cohort.test_cases": ("case_6", "case_7"), "removal.sizes": (1,)}


def written(folder: Path, *rows: str) -> Path:
    file = folder / "reviewed.csv"
    file.write_text("\n".join(("case_id,decision,note", *rows, "")))
    return file


def test_decisions_are_read_with_their_notes(tmp_path: Path) -> None:
    rows = ('b,Label wrong,"shifted, left"', "a,rare but valid,", "c,,")
    found = read_reviews(written(tmp_path, *rows))
    assert found == {
        "a": Review(decision="rare but valid"),
        "b": Review(decision="label wrong", note="shifted, left"),
    }
    assert [review.takes_out for review in found.values()] == [False, True]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (("a,ugly,",), r"line 2: 'ugly' of a is no decision; take one of label wrong, bad image"),
        (("a,fine,", "a,bad image,"), r"line 3: a is decided twice"),
    ],
)
def test_what_is_no_decision_is_refused_by_its_line(tmp_path: Path, rows: tuple[str, ...], said: str) -> None:
    with pytest.raises(CohortError, match=said):
        read_reviews(written(tmp_path, *rows))


def test_a_file_without_its_columns_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.csv"
    file.write_text("case,what\na,fine\n")
    with pytest.raises(CohortError, match="needs the columns case_id and decision"):
        read_reviews(file)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    found = make_study(tmp_path, LISTS)
    make(found, "cohort")
    return found


def test_a_wrong_label_takes_its_case_out_and_moves_nobody(study: Study, tmp_path: Path) -> None:
    before = study.cohort.roles
    file = written(tmp_path, "case_2,label wrong,shifted", "case_6,bad image,", "case_3,fine,")
    decided = with_settings(study, {"cohort.reviewed": str(file)})
    make(decided, "cohort")
    cohort = decided.cohort
    assert cohort.roles == {case: role for case, role in before.items() if case not in ("case_2", "case_6")}
    assert cohort.taken_out == ["case_2", "case_6"]
    assert not set(cohort.taken_out) & set(cohort.left_over)
    rows = read_table(decided.folder.database, "cohort").set_index("case_id")
    assert rows.loc[["case_2", "case_6"], "role"].tolist() == ["taken out", "taken out"]
    assert rows.loc["case_2", "reason"] == "label wrong (shifted)"
    assert rows.loc["case_3", "review"] == "fine"


def test_a_decision_that_takes_nobody_out_is_noted_and_reruns_nothing_else(study: Study, tmp_path: Path) -> None:
    version = study.version("cohort")
    decided = with_settings(study, {"cohort.reviewed": str(written(tmp_path, "case_3,rare but valid,"))})
    record, made_now = make(decided, "cohort")
    assert made_now
    assert record.version == version
    assert decided.cohort.reviews == {"case_3": Review(decision="rare but valid")}


def test_the_content_of_the_file_counts_and_not_its_name(study: Study, tmp_path: Path) -> None:
    untouched = GRAPH["cohort"].inputs(study).hash()
    file = written(tmp_path, "case_3,fine,")
    named = with_settings(study, {"cohort.reviewed": str(file)})
    in_data_folder = study.folder.reviewed
    in_data_folder.write_bytes(file.read_bytes())
    decided = GRAPH["cohort"].inputs(study).hash()
    assert decided == GRAPH["cohort"].inputs(named).hash() != untouched
    in_data_folder.unlink()
    assert GRAPH["cohort"].inputs(study).hash() == untouched


def test_a_decision_on_another_case_is_refused_by_name(study: Study, tmp_path: Path) -> None:
    decided = with_settings(study, {"cohort.reviewed": str(written(tmp_path, "case_42,fine,"))})
    with pytest.raises(CohortError, match=r"cohort\.reviewed decides on case_42, which .* does not hold"):
        make(decided, "cohort")
