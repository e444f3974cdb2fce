"""Cards: outlines as they are drawn, what networks are said to see, and the pages of a finished study."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from idal_assets.plots.outlines import box_around, grey_png, outline, outline_points, outlines
from idal_assets.report.cards import strip
from idal_assets.steps.cells import EVALUATION_FILE
from idal_assets.steps.quality import load_out_of_fold
from idal_assets.steps.views import FOLD, FULL, load_view
from idal_assets_tests.conftest import FinishedRun


def area(points: np.ndarray) -> float:
    """Signed area of a closed line (shoelace formula)."""
    x, y = points.T
    return float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) / 2)


@pytest.mark.unit
def test_an_outline_runs_halfway_between_in_and_outside() -> None:
    mask = np.zeros((6, 8), bool)
    mask[1:4, 2:7] = True
    (line,) = outline_points(mask)
    assert line.min(axis=0).tolist() == [1.5, 0.5]
    assert line.max(axis=0).tolist() == [6.5, 3.5]
    # half a pixel more on every side, but for the four corners that are cut off
    assert abs(area(line)) == pytest.approx(5 * 3 - 4 * 0.125)
    assert outline(mask).startswith("M")
    assert outline(mask).endswith("Z")


@pytest.mark.unit
def test_an_outline_has_holes_and_closes_at_the_edge() -> None:
    mask = np.ones((5, 5), bool)
    mask[2, 2] = False
    assert outline(mask).count("Z") == 2
    assert outline(np.zeros((5, 5), bool)) == ""
    assert outlines(np.array([[0, 2], [0, 2]], np.uint8), {1: "a", 2: "b"}).keys() == {"2"}


@pytest.mark.unit
def test_a_slice_is_cut_to_what_there_is_to_see() -> None:
    inside = np.zeros((40, 60), bool)
    inside[10, 20] = inside[20, 30] = True
    assert box_around(inside) == (slice(6, 25), slice(16, 35))
    assert box_around(np.zeros((4, 5), bool)) == (slice(0, 4), slice(0, 5))


@pytest.mark.unit
def test_a_slice_is_a_small_picture_of_its_window() -> None:
    from io import BytesIO

    from PIL import Image

    drawn = np.array(Image.open(BytesIO(grey_png(np.array([[-5.0, 0.0, 50.0, 100.0, np.nan]]), (0, 100)))))
    assert drawn.tolist() == [[0, 0, 129, 255, 0]]


@pytest.mark.unit
def test_a_volume_stands_among_those_of_all_cases() -> None:
    found = strip("tumour", 3.0, [1.0, 3.0, 5.0], "ml")
    assert (found.place, list(found.others), found.rank) == (0.5, [0.0, 0.5, 1.0], "1 of 3 cases have less")


# --- a finished study ---


@pytest.mark.graph
def test_every_case_has_a_card_that_needs_nothing_else(finished_run: FinishedRun) -> None:
    study = finished_run.study()
    folder = study.path("experiment_report")
    report = (folder / "report.html").read_text()
    cases = {case.case_id for case in study.cohort.cases}
    assert {page.stem for page in (folder / "cases").iterdir()} == cases
    for case in cases:
        page = (folder / "cases" / f"{case}.html").read_text()
        assert f'href="cases/{case}.html"' in report
        assert f'data-decision="{case}"' in report
        assert not re.search(r"https?:|@import", page)
        assert set(re.findall(r'<use href="#([\w-]+)"', page)) == set(re.findall(r'<image id="([\w-]+)"', page))
        assert "itksnap -g " in page
    for link in re.findall(r'href="((?:figures|tables)/[^"]+|methods\.md)"', report):
        assert (folder / link).is_file()


@pytest.mark.graph
def test_a_card_says_what_was_measured_elsewhere(finished_run: FinishedRun) -> None:
    study = finished_run.study()
    out_of_fold = load_out_of_fold(study.path("label_quality")).set_index(["case_id", "region"])["dice"]
    donor, test = study.cohort.donors[0], study.cohort.tests[0]
    assert_same(dice_of(study.path("case_view", donor), FOLD), out_of_fold[donor])
    evaluation = pd.read_parquet(study.path("reduced_evaluation", "all") / EVALUATION_FILE)
    evaluation = evaluation.set_index(["case_id", "region"])["dice"]
    assert_same(dice_of(study.path("case_view", test), FULL), evaluation[test])


def dice_of(folder: Path, source: str) -> pd.Series:
    (found,) = [one for one in load_view(folder)["sources"] if one["source"] == source]
    return pd.Series(found["dice"], dtype=float)


def assert_same(found: pd.Series, expected: pd.Series) -> None:
    # the view keeps four digits
    np.testing.assert_allclose(found, expected[found.index], atol=0.5e-4)


@pytest.mark.graph
def test_tables_are_taken_away_as_they_are_shown(finished_run: FinishedRun) -> None:
    tables = finished_run.study().path("experiment_report") / "tables"
    ranking = pd.read_csv(tables / "ranking_donors_the_worst_first.csv")
    assert ranking["rank"].tolist() == list(range(1, len(ranking) + 1))
    assert r"\toprule" in (tables / "ranking_donors_the_worst_first.tex").read_text()


@pytest.mark.graph
def test_the_views_hold_every_slice_they_name(finished_run: FinishedRun) -> None:
    study = finished_run.study()
    for case in study.cohort.cases:
        folder = study.path("case_view", case.case_id)
        for one in json.loads((folder / "view.json").read_text())["slices"]:
            assert all((folder / file).is_file() for file in one["channels"])
            assert len(one["channels"]) == len(study.cohort.anatomy.channels)
