"""Known truth: which score finds the planted faults, by hand-worked numbers and on a finished run."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from idal_assets.analysis.detection import (
    auroc,
    auroc_interval,
    best_scores,
    detection_table,
    given_cases,
    is_decoy,
)
from idal_assets.imaging.case import CaseError
from idal_assets.imaging.truth import CaseTruth, read_truth
from idal_assets.steps.detection import load_detection, load_scores, statement, truth_sections
from idal_assets.steps.similarity import load_decision, load_ranking
from idal_assets.store.database import read_table
from idal_assets.study.cohort import save_cohort
from idal_assets.study.graph import GRAPH
from idal_assets.study.making import Task, make, shown
from idal_assets.study.study import Study
from idal_assets_tests.conftest import FinishedRun
from idal_assets_tests.studies import as_written, make_study, task_of

pytestmark = pytest.mark.graph

ROUND_OFF = 1e-12
CASES = ["a", "b", "c", "d", "e", "f"]
TRUTH = pd.DataFrame(
    {
        "case_id": CASES,
        "fault": ["shift", None, None, "swap", None, None],
        "subtype": ["ring", "ring", "rare", "ring", "ring", "rare"],
    }
)
FAULTY = TRUTH.set_index("case_id")["fault"].notna()


def scored(*values):
    return pd.Series(values, CASES)


# --- numbers by hand ---


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((1, 3, 4, 2, 5, 6), 1.0),
        ((6, 1, 2, 5, 3, 4), 0.0),
        ((1, 2, 3, 4, 5, 6), 6 / 8),  # a before all 4 sound ones, d before e and f
        ((1, 1, 1, 1, 1, 1), 0.5),
        ((1, 2, 3, 2, 5, 6), 7.5 / 8),  # d before c, e, f; tied with b
        ((1, np.nan, 3, 2, 5, 6), 1.0),
        ((np.nan, 2, 3, 1, 5, 6), 4 / 8),  # nothing is said of a, so it counts as the best
    ],
)
def test_auroc_counts_the_pairs_in_which_the_fault_is_lower(values, expected):
    assert auroc(scored(*values), FAULTY) == pytest.approx(expected, abs=ROUND_OFF)


def test_auroc_is_the_share_of_pairs_of_any_scores():
    rng = np.random.default_rng(0)
    for _ in range(20):
        values = pd.Series(rng.integers(0, 6, 30).astype(float))
        faulty = pd.Series(rng.random(30) < 0.3)
        low, high = values[faulty].to_numpy()[:, None], values[~faulty].to_numpy()
        expected = ((low < high) + 0.5 * (low == high)).mean()
        assert auroc(values, faulty) == pytest.approx(expected, abs=ROUND_OFF)


def test_auroc_of_a_set_that_names_cases():
    named = pd.Series([True, True, False, False, False, False], CASES)
    # of 8 pairs, a is named and 3 sound ones are not; a and b tie; d ties with 3 and loses against b
    assert auroc(named, FAULTY) == pytest.approx((3 + 0.5 + 1.5) / 8, abs=ROUND_OFF)


@pytest.mark.parametrize("faulty", [True, False])
def test_auroc_needs_both_kinds(faulty):
    assert np.isnan(auroc(scored(*range(6)), pd.Series(faulty, CASES)))


def test_the_interval_of_an_auroc_is_that_of_drawing_the_cases_anew():
    rng = np.random.default_rng(0)
    values = pd.Series(rng.standard_normal(40)) - 1.2 * (np.arange(40) < 10)
    faulty = pd.Series(np.arange(40) < 10)
    found = auroc_interval(values, faulty)
    drawn = []
    for _ in range(1000):
        cases = np.concatenate([rng.integers(0, 10, 10), rng.integers(10, 40, 30)])
        drawn.append(auroc(values.iloc[cases].reset_index(drop=True), faulty))
    np.testing.assert_allclose(found, np.quantile(drawn, [0.025, 0.975]), atol=0.02)
    assert found[0] < auroc(values, faulty) < found[1]
    assert auroc_interval(scored(1, 3, 4, 2, 5, 6), FAULTY) == (1, 1)
    assert np.isnan(auroc_interval(scored(*range(6)), pd.Series(False, CASES))).all()


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    rng, inside, runs = np.random.default_rng(1), 0, 200
    faulty = pd.Series(np.arange(60) < 20)
    for _ in range(runs):
        low, high = auroc_interval(pd.Series(rng.standard_normal(60) - faulty), faulty)
        inside += low < 0.760 < high  # normal scores one standard deviation apart: Phi(1 / sqrt(2))
    assert 0.90 <= inside / runs <= 0.98


def test_ties_go_by_case_id_as_in_the_ranking():
    assert given_cases(pd.Series([1.0, 1.0, 0.0], ["z", "y", "x"]), 2) == ["x", "y"]
    assert given_cases(pd.Series([np.nan, 1.0, 2.0], ["x", "y", "z"]), 2) == ["y", "z"]
    assert given_cases(pd.Series([True, False, True], ["z", "y", "x"]), 1) == ["x", "z"]


def test_decoys_are_rare_and_without_fault():
    rare_fault = TRUTH.assign(fault=[None, None, "shift", None, None, None])
    assert list(is_decoy(TRUTH)) == [False, False, True, False, False, True]
    assert list(is_decoy(rare_fault)) == [False, False, False, False, False, True]


def test_the_table_of_detection():
    candidates = pd.DataFrame(
        {
            "score": scored(1.0, 3.0, 2.0, 4.0, 5.0, 6.0),
            "set": pd.Series([True, False, True, True, False, False], CASES),
            "nobody": pd.Series(False, CASES),
            "not measured": scored(*[np.nan] * 6),
        }
    )
    found = detection_table(candidates, TRUTH.sample(frac=1, random_state=0)).set_index("score")
    assert found.loc["score", ["k", "decoys_removed", "decoys", "faults", "cases"]].tolist() == [2, 1, 2, 2, 6]
    assert found.loc["score", ["auroc", "precision_at_k", "recall_at_k"]].tolist() == [6 / 8, 0.5, 0.5]
    assert found.loc["set", ["k", "decoys_removed"]].tolist() == [3, 1]
    assert found.loc["set", ["precision_at_k", "recall_at_k"]].tolist() == [2 / 3, 1.0]
    assert found.loc["nobody", ["auroc", "k", "recall_at_k"]].tolist() == [0.5, 0, 0.0]
    assert np.isnan(found.loc["nobody", "precision_at_k"])
    assert found.loc["not measured", ["auroc", "k", "precision_at_k", "recall_at_k"]].isna().all()
    without = detection_table(candidates, TRUTH.assign(fault=None)).set_index("score")
    assert without[["auroc", "recall_at_k"]].isna().all(axis=None)
    assert without.loc["score", "k"] == 0
    assert best_scores(without.reset_index()) == []


def test_the_best_is_named_whichever_it_is():
    table = pd.DataFrame(
        {
            "score": ["ours", "rival", "other", "silent"],
            "auroc": [0.9, 0.95, 0.95, np.nan],
            "precision_at_k": [1.0, 0.5, 0.5, np.nan],
            "recall_at_k": [1.0, 0.5, 0.5, np.nan],
            "decoys_removed": pd.array([0, 1, 1, None], "Int64"),
        }
    )
    assert best_scores(table) == ["rival", "other"]
    table.loc[2, "decoys_removed"] = 0
    assert best_scores(table) == ["other"]
    table.loc[0, "auroc"] = 0.95
    assert best_scores(table) == ["ours"]


# --- the truth of a raw folder ---


def test_the_cohort_knows_the_truth_and_another_truth_concerns_only_the_comparison(tmp_path):
    study = make_study(tmp_path)
    make(study, "cohort")
    select = GRAPH["fault_detection"].made_from["cohort"]
    version, unknown = study.version("cohort"), select(study, "cohort", None)
    donor, test = study.cohort.donors[0], study.cohort.tests[0]
    assert study.cohort.truth == {}

    def write(**faults):
        cases = {case: {"subtype": "ring", "scanner": "A", "fault": faults.get(case)} for case in (donor, test)}
        (study.raw / "truth.json").write_text(json.dumps({"cases": cases}))
        make(study, "cohort")
        assert study.version("cohort") == version
        return select(study, "cohort", None)

    sound = write()
    assert study.cohort.truth[donor] == CaseTruth("ring", "A", None)
    assert study.cohort.planted == {donor: [None, "ring"]}
    assert write(**{test: "shift"}) == sound
    assert len({unknown, sound, write(**{donor: "shift"})}) == 3


@pytest.mark.parametrize("text", ["[]", "{}", '{"cases": {"a": {"fault": 3}}}', "no JSON"])
def test_another_file_of_that_name_is_refused(tmp_path, text):
    (tmp_path / "truth.json").write_text(text)
    with pytest.raises(CaseError, match=r"truth\.json does not say subtype, scanner and fault .*rename it"):
        read_truth(tmp_path)


# --- a finished run ---


def test_the_scores_are_those_of_ranking_and_decision(finished_run: FinishedRun):
    study = finished_run.study()
    scores = load_scores(study.path("fault_detection")).set_index("case_id").drop(columns=["fault", "subtype"])
    ranking = load_ranking(study.path("case_ranking")).set_index("case_id")
    mode = study.profile.similarity.mode
    ranking = ranking.loc[scores.index]
    for name, column in (
        (f"donor mean ({mode})", "donor_mean"),
        (f"receiver mean ({mode})", "receiver_mean"),
        (f"both means ({mode})", "score"),
        ("out-of-fold Dice", "out_of_fold_dice"),
        ("label quality", "label_quality"),
    ):
        pd.testing.assert_series_equal(scores[name], ranking[column], check_names=False)
    inside = set(scores.index[scores[f"worst cluster ({mode})"]])
    assert inside == set(load_decision(study.path("case_ranking"))["worst_cluster"])
    clusters = ranking.groupby("cluster")["score"].mean()
    expected = ranking["cluster"].map(clusters)
    np.testing.assert_allclose(scores[f"clusters ({mode})"], expected, rtol=0, atol=ROUND_OFF)
    held = scores["baseline's Dice, regions held"]
    pd.testing.assert_series_equal(held, ranking["baseline_dice_held"], check_names=False)
    pd.testing.assert_series_equal(scores["baseline's loss"], -ranking["baseline_loss"], check_names=False)
    pd.testing.assert_series_equal(scores[f"donor median ({mode})"], ranking["donor_median"], check_names=False)
    assert len(scores.columns) == 2 * 6 + 8


def test_file_database_and_report_know_the_truth(finished_run: FinishedRun):
    study = finished_run.study()
    truth = json.loads((study.raw / "truth.json").read_text())["cases"]
    scores = load_scores(study.path("fault_detection")).set_index("case_id")
    assert sorted(scores.index) == study.cohort.donors
    faults = [truth[case]["fault"] for case in scores.index]
    assert scores["fault"].tolist() == faults
    found = load_detection(study.path("fault_detection"))
    assert set(found["faults"]) == {sum(fault is not None for fault in faults)}
    assert set(found["cases"]) == {5}
    assert found.loc[found["offered"], "score"].tolist() == ["both means (robust)"]
    recorded = read_table(study.folder.database, "detection").set_index("score").loc[found["score"]]
    np.testing.assert_array_equal(recorded["auroc"], found["auroc"])
    assert recorded["k"].tolist() == found["k"].tolist()
    assert set(recorded["detection_version"]) == {study.version("fault_detection")}
    page = (study.path("experiment_report") / "report.html").read_text()
    assert "Known truth" in page
    assert statement(found, []) in page


@pytest.fixture
def other_truth(finished_run: FinishedRun, tmp_path: Path):
    """The finished run with other knowledge of its donors."""
    copied = finished_run.copied_to(tmp_path)

    def known(truth: dict[str, CaseTruth]) -> Study:
        study = copied.study()
        save_cohort(study.cohort.model_copy(update={"truth": truth}), study.path("cohort"))
        as_written(study.path("cohort"))
        make(study, "fault_detection")
        return study

    return known


def said_of(study: Study) -> str:
    (said,) = shown(study, "fault_detection")["in_words"]
    return said


def report_of(study: Study) -> Task:
    return task_of(study, "experiment_report")


def test_the_best_score_is_named_with_that_of_the_ranking(finished_run: FinishedRun, other_truth):
    ranking = load_ranking(finished_run.study().path("case_ranking"))
    best = ranking["case_id"].iloc[-1]
    study = other_truth(
        {case: CaseTruth("ring", "A", "shift" if case == best else None) for case in ranking["case_id"]}
    )
    found = load_detection(study.path("fault_detection")).set_index("score")
    # the fault is the donor that the ranking thinks best
    assert found.loc["both means (robust)", ["auroc", "precision_at_k", "k", "decoys"]].tolist() == [0, 0, 1, 0]
    assert not found.loc["both means (robust)", "best"]
    assert found.loc[found["best"], "auroc"].eq(found["auroc"].max()).all()
    said = said_of(study)
    assert said.startswith(f"1 of 5 donors have a planted fault. Best at finding them: {found['best'].idxmax()}")
    assert (
        "The ranking goes by both means (robust) (AUROC 0.000 (0.000 to 0.000), 0% of the faults among the 1 worst"
        in said
    )
    assert [picture.title for picture in truth_sections(report_of(study))[0].pictures] == [
        "Scores compared",
        "The ranking and the truth",
    ]


def test_without_truth_the_comparison_is_empty_and_says_so(other_truth):
    study = other_truth({})
    assert load_detection(study.path("fault_detection")).empty
    assert said_of(study) == "Nothing is known of the donors: the raw folder has no truth.json."
    assert truth_sections(report_of(study)) == []


def test_a_table_of_detections_empties_where_the_truth_is_lost(finished_run: FinishedRun, other_truth):
    ranking = load_ranking(finished_run.study().path("case_ranking"))
    known = {case: CaseTruth("ring", "A", "shift") for case in ranking["case_id"].head(1)}
    for truth, rows in ((known, True), ({}, False)):
        study = other_truth(truth)
        assert bool(len(read_table(study.folder.database, "detection"))) is rows
    assert not list(study.path("fault_detection").glob("*.svg"))


def test_a_donor_of_which_nothing_is_known_is_left_out_and_named(finished_run: FinishedRun, other_truth):
    truth = dict(finished_run.study().cohort.truth)
    donors = finished_run.study().cohort.donors
    left_out = next(case for case in donors if truth[case].fault is None)
    study = other_truth({case: known for case, known in truth.items() if case != left_out})
    assert (load_detection(study.path("fault_detection"))["cases"] == 4).all()
    assert f"nothing is known of them: {left_out}." in said_of(study)


def test_without_faults_no_score_wins(finished_run: FinishedRun, other_truth):
    truth = finished_run.study().cohort.truth
    study = other_truth({case: replace(known, fault=None) for case, known in truth.items()})
    assert not load_detection(study.path("fault_detection"))["best"].any()
    assert "0 of 5 donors have a planted fault, so no score" in said_of(study)
    assert len(truth_sections(report_of(study))) == 1
