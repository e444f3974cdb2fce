"""Labels judged out of fold: by networks that have not seen them, with cleanlab's score, beside the ranking."""

import shutil
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from idal_assets.analysis.quality import label_quality
from idal_assets.analysis.scores import MEAN, confusion, score_table
from idal_assets.imaging.brain_tumour import BRAIN_TUMOUR, REGIONS
from idal_assets.nnunet.compute import taken
from idal_assets.nnunet.model_folder import load_weights
from idal_assets.nnunet.plans import Plans
from idal_assets.nnunet.prediction import Predictor
from idal_assets.nnunet.slices import SlicesOnDisk
from idal_assets.orchestration.partitions import register_partitions
from idal_assets.plots.quality import label_quality_figure
from idal_assets.steps import networks
from idal_assets.steps.quality import load_label_quality
from idal_assets.steps.similarity import load_ranking
from idal_assets.study.currency import is_kept
from idal_assets.study.graph import GRAPH
from idal_assets.study.making import make, make_all
from idal_assets.study.roles import CohortError, draw_folds
from idal_assets.study.study import NotMadeError, Study
from idal_assets_tests.conftest import FinishedRun
from idal_assets_tests.small_models import ANATOMIES
from idal_assets_tests.studies import make_study, pretend_all, with_settings

pytestmark = pytest.mark.graph

ROUND_OFF = 1e-12
NAMES = [f"case_{number:03}" for number in range(103)]

# --- the score ---


def quality(label, probabilities):
    return label_quality(label, probabilities, BRAIN_TUMOUR)


def drawn(seed=0, shape=(3, 6, 5)):
    rng = np.random.default_rng(seed)
    label = rng.integers(-1, 4, shape).astype(np.int8)
    logits = 3 * rng.standard_normal((4, *shape))
    return label, (np.exp(logits) / np.exp(logits).sum(0)).astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
def test_the_score_is_the_formula_over_the_brain(seed):
    label, probabilities = drawn(seed)
    given = [
        float(probabilities[value][place]) for place, value in np.ndenumerate(label) if value >= 0
    ]  # fmt: skip
    weights = [np.exp((1 - value) / 0.1) for value in given]
    assert quality(label, probabilities) == pytest.approx(np.average(given, weights=weights), abs=ROUND_OFF)


def test_what_lies_outside_the_brain_does_not_count():
    label, probabilities = drawn()
    expected = quality(label, probabilities)
    other = probabilities.copy()
    other[:, label < 0] = 0.25
    assert quality(label, other) == expected
    assert quality(np.pad(label, 4, constant_values=-1), np.pad(probabilities, [(0, 0), *[(4, 4)] * 3])) == (
        pytest.approx(expected, abs=ROUND_OFF)
    )


def test_regions_are_as_sure_as_the_least_sure_of_them():
    anatomy = ANATOMIES["regions, ignored"]
    label = np.array([0, 1, 2, 3, 4, -1], np.int8)
    whole, core, enhancing = [0.1, 0.9, 0.8, 0.9, 0, 0], [0.2, 0.3, 0.6, 0.8, 0, 0], [0.3, 0.1, 0.1, 0.7, 0, 0]
    sure = np.array([whole, core, enhancing], np.float32)
    # 1 - 0.3 of ET; 1 - 0.3 of TC; TC; ET; the last two voxels do not count
    given = np.array([0.7, 0.7, 0.6, 0.7])
    expected = np.average(given, weights=np.exp((1 - given) / 0.1))
    assert label_quality(label, sure, anatomy) == pytest.approx(expected, abs=1e-6)


def test_what_nobody_labelled_does_not_count():
    label, probabilities = drawn()
    expected = quality(label, probabilities)
    unknown = np.where(label < 0, 4, label).astype(np.int8)
    assert label_quality(unknown, probabilities, ANATOMIES["ignored"]) == expected
    assert np.isnan(label_quality(np.full_like(label, 4), probabilities, ANATOMIES["ignored"]))


def test_a_wrong_label_lowers_the_score():
    label = np.zeros((4, 8, 8), np.int8)
    label[1:3, 2:6, 2:6] = 1
    sure = np.full((4, *label.shape), 0.01, np.float32)
    np.put_along_axis(sure, label[None].astype(np.int64), 0.97, axis=0)
    scores = []
    for wrong in range(4):
        doubtful = label.copy()
        doubtful[1, 2, 2 : 2 + wrong] = 3
        scores.append(quality(doubtful, sure))
    assert scores[0] == pytest.approx(0.97, abs=1e-6)
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == len(scores)


# --- the folds ---


@pytest.mark.parametrize("count", [2, 3, 5, 7, 103])
def test_folds_are_balanced_and_hold_every_donor_once(count):
    folds = draw_folds(NAMES, count, seed=0)
    assert len(folds) == count
    assert sorted(name for fold in folds for name in fold) == NAMES
    sizes = [len(fold) for fold in folds]
    assert max(sizes) - min(sizes) <= 1
    assert draw_folds(NAMES[::-1], count, seed=0) == folds
    assert draw_folds(NAMES, count, seed=1) != folds


@pytest.mark.parametrize("count", [2, 5])
def test_a_donor_that_comes_moves_at_most_one_across_each_border(count):
    def places(names):
        return {name: number for number, fold in enumerate(draw_folds(names, count, 0)) for name in fold}

    for new in range(40):
        before, after = places(NAMES), places([*NAMES, f"new_{new}"])
        moved = [name for name in NAMES if before[name] != after[name]]
        assert len(moved) <= count - 1


def test_more_folds_than_donors_are_refused(tmp_path):
    study = make_study(tmp_path, {"out_of_fold.folds": 7})
    with pytest.raises(
        CohortError, match=r"6 donors of 6 patients cannot be divided into 7 folds; .* smaller out_of_fold\.folds"
    ):
        make(study, "cohort")


# --- a finished run ---


@pytest.fixture(scope="module")
def scores(finished_run: FinishedRun) -> pd.DataFrame:
    return pd.read_parquet(finished_run.study().path("label_quality") / "out_of_fold.parquet")


def learned_from(study: Study, fold: str) -> set[str]:
    return set(study.provenance("fold_model", fold).inputs.made_from["case_slices"])


def test_every_donor_is_segmented_once_by_a_network_that_has_not_seen_it(
    finished_run: FinishedRun, scores: pd.DataFrame
):
    study = finished_run.study()
    fold_of = {study.version("fold_model", fold): fold for fold in GRAPH_FOLDS}
    assert len(fold_of) == 2
    assert sorted(scores["case_id"]) == sorted(6 * study.cohort.donors)
    for row in scores.itertuples():
        assert row.fold == fold_of[row.model_version]
        assert row.case_id not in learned_from(study, row.fold)
        assert row.receiver_version == study.version("case_slices", row.case_id)
    for fold, inside in scores.groupby("fold")["case_id"]:
        assert learned_from(study, str(fold)) == set(study.cohort.donors) - set(inside)


GRAPH_FOLDS = ("fold_1", "fold_2")


@pytest.mark.parametrize("fold", GRAPH_FOLDS)
def test_a_fold_trains_on_what_its_record_says(
    finished_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fold: str
):
    given: list[list[str]] = []

    def stop(cases: SlicesOnDisk, *rest: object) -> None:
        given.append(cases.names)
        raise InterruptedError

    monkeypatch.setattr(networks, "train", stop)
    study = finished_run.copied_to(tmp_path).study()
    shutil.rmtree(study.path("fold_model", fold))
    with pytest.raises(InterruptedError):
        make(study, "fold_model", fold)
    assert len(given) == 1
    assert set(given[0]) == learned_from(finished_run.study(), fold)
    assert not set(given[0]) & set(study.cohort.tests)


def test_the_scores_are_those_of_the_networks_on_disk(finished_run: FinishedRun, scores: pd.DataFrame):
    study = finished_run.study()
    cases = SlicesOnDisk({name: study.path("case_slices", name) for name in study.cohort.donors}, 1.0)
    plans = Plans.load(study.path("nnunet_plans"))
    written = load_label_quality(study.path("label_quality"), ("WT", "TC", "ET")).set_index("case_id")
    profile = study.profile
    with taken(profile.compute) as compute:
        for fold, rows in scores.groupby("fold"):
            weights = load_weights(study.path("fold_model", str(fold)))
            predictor = Predictor(weights, plans, profile.inference, profile.compute, compute)
            names = list(dict.fromkeys(rows["case_id"]))
            for case, predicted, found in predictor.segment_with_probabilities(cases, names):
                counts = ["region", "tp", "fp", "fn"]
                expected = score_table(confusion(case.truth, predicted, BRAIN_TUMOUR), REGIONS)
                one = rows[rows["case_id"] == case.case_id].reset_index(drop=True)
                pd.testing.assert_frame_equal(one[counts], expected[counts])
                assert written.loc[case.case_id, "label_quality"] == quality(case.label, found)
                dice = expected.set_index("region").loc[["WT", "TC", "ET"], "dice"].mean()
                assert written.loc[case.case_id, "out_of_fold_dice"] == pytest.approx(dice, abs=ROUND_OFF)


def test_the_ranking_has_both_rivals_in_file_database_and_report(finished_run: FinishedRun):
    study = finished_run.study()
    rivals = ["case_id", "out_of_fold_dice", "label_quality"]
    expected = load_label_quality(study.path("label_quality"), ("WT", "TC", "ET"))[rivals]
    assert expected[rivals[1:]].stack().between(0, 1).all()
    expected = expected.sort_values("case_id", ignore_index=True)
    with duckdb.connect(str(study.folder.database), read_only=True) as connection:
        recorded = connection.table("case_score").df()
    for found in (load_ranking(study.path("case_ranking")), recorded):
        assert found["rank"].tolist() == sorted(found["rank"]) == list(range(1, 6))
        pd.testing.assert_frame_equal(found[rivals].sort_values("case_id", ignore_index=True), expected)
    page = (study.path("experiment_report") / "report.html").read_text()
    for value in expected[rivals[1:]].to_numpy().ravel():
        assert f"{value:.3f}" in page


def test_the_scalar_is_chosen_when_the_scores_are_read(finished_run: FinishedRun, scores: pd.DataFrame):
    folder = finished_run.study().path("label_quality")
    whole = scores[scores["region"] == "WT"].set_index("case_id")["dice"]
    found = load_label_quality(folder, ("WT",)).set_index("case_id")["out_of_fold_dice"]
    pd.testing.assert_series_equal(found.sort_index(), whole.sort_index(), check_names=False)
    assert MEAN not in set(scores["region"])


def test_a_network_that_has_seen_a_donor_of_its_fold_does_not_judge_it(tmp_path):
    study = make_study(tmp_path)
    pretend_all(study)
    folds = {tuple(donors) for donors in study.folds.values()}
    others = (with_settings(study, {"seed": seed}) for seed in range(1, 20))
    other = next(other for other in others if not folds & {tuple(donors) for donors in other.folds.values()})
    with pytest.raises(
        NotMadeError, match=r"fold_model of fold_1 has learned from case_\d.*; materialize it again"
    ):
        make(other, "label_quality")


def test_without_folds_nothing_is_trained_and_the_ranking_stays(
    finished_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    before, copied = finished_run.study(), finished_run.copied_to(tmp_path)
    study = with_settings(copied.study(), {"out_of_fold.folds": 0})
    monkeypatch.delattr(networks, "train")
    make_all(study, "removal_plan")
    with copied.instance() as instance:
        register_partitions(study, instance)
        assert instance.get_dynamic_partitions("fold") == []
    ranking = load_ranking(study.path("case_ranking"))
    rivals = ["out_of_fold_dice", "out_of_fold_dice_held", "label_quality"]
    assert ranking[rivals].isna().all(axis=None)
    expected = load_ranking(before.path("case_ranking"))
    pd.testing.assert_frame_equal(ranking.drop(columns=rivals), expected.drop(columns=rivals))
    for name in study.removal_sets:
        make(study, "training_set", name)
        assert is_kept(study, GRAPH["reduced_model"], name)
    assert not (study.path("label_quality") / "label_quality.svg").exists()


# --- the picture ---


@pytest.mark.parametrize("count", [3, 60])
def test_the_picture_shows_the_worst_first(count):
    rng = np.random.default_rng(0)
    labels = pd.DataFrame({"case_id": NAMES[:count], "label_quality": rng.random(count)})
    table = pd.DataFrame({"case_id": NAMES[:count], "region": "WT", "dice": rng.random(count)})
    left, right = label_quality_figure(labels, table, ["WT"]).axes
    shown = left.collections[0].get_offsets()
    expected = labels.sort_values("label_quality").head(40)
    np.testing.assert_allclose(shown[:, 0], expected["label_quality"])
    assert [text.get_text() for text in left.get_yticklabels()] == list(expected["case_id"])
    by_case = table.set_index("case_id")["dice"]
    np.testing.assert_allclose(right.collections[0].get_offsets()[:, 0], by_case[expected["case_id"]])
