"""Removal sets, the training sets they leave, and what the retraining changed."""

import json
from functools import partial

import duckdb
import numpy as np
import pandas as pd
import pytest

from idal_assets.analysis.reduction import (
    differences_to_full_set,
    draw_removals,
    false_volumes,
    median_change,
    plan_removals,
    replicate_scalars,
    training_set,
)
from idal_assets.analysis.removal_sets import RemovalSet, removal_sets
from idal_assets.analysis.statistics import mean_dice
from idal_assets.settings import ControlSettings, RemovalSettings
from idal_assets.steps.removal import load_plan, load_training_set
from idal_assets.steps.similarity import load_decision, load_dendrogram, load_matrix, load_ranking
from idal_assets.store.database import read_table
from idal_assets.study.cohort import FACTS_FILE
from idal_assets.study.currency import is_kept
from idal_assets.study.graph import GRAPH
from idal_assets.study.making import make
from idal_assets.study.study import NotMadeError
from idal_assets_tests.studies import copied, give_new_version, make_study, pretend

pytestmark = pytest.mark.unit

# Differences of decimal fractions in binary.
ROUND_OFF = 1e-12

SCORES = pd.DataFrame(
    {"case_id": list("dbaefc"), "rank": range(1, 7), "score": [-2.5, -1.0, -0.5, 0.5, 1.5, 2.0], "donor_mean": 0.5}
)
LEAVES = list("acebfd")


CHOSEN = ("all", "worst_1", "worst_2", "worst_cluster")


def sets_of(sizes, best=(), **controls):
    return removal_sets(RemovalSettings(sizes=sizes, best=best), ControlSettings(**controls))


def plan(**settings):
    removal = RemovalSettings(**settings)
    sets = removal_sets(removal, ControlSettings(random=1, seeds=2)).values()
    return plan_removals(sets, SCORES, LEAVES, ["b", "e"], removal)


def test_names_say_what_a_set_is():
    sets = sets_of((2, 4), best=(4,), random=2, halves=2, seeds=2)
    first = list(sets)[: len(sets) // 2]
    assert first[:5] == ["all", "worst_2", "worst_4", "best_4", "worst_cluster"]
    assert first[5:] == [
        *(f"random_{size}_r0{draw}" for size in (2, 4) for draw in (1, 2)),
        "half_r01",
        "half_r02",
    ]
    assert list(sets)[len(first) :] == [f"{name}_s2" for name in first]
    assert sets["random_4_r02_s2"] == RemovalSet(
        "random_4_r02_s2", "random", "random_4_r02", replicate=2, size=4, draw=2
    )
    assert [name for name, one in sets.items() if one.is_drawn] == [
        name for name in sets if name.startswith(("random", "half"))
    ]


def test_random_removals_that_are_trained_less_often_take_turns_with_the_seeds():
    sets = sets_of((2,), random=5, seeds=3, random_seeds=1)
    seeds = {one.base: one.replicate for one in sets.values() if one.kind == "random"}
    assert seeds == {f"random_2_r0{draw}": (draw - 1) % 3 + 1 for draw in range(1, 6)}
    assert [one.replicate for one in sets.values() if one.base == "worst_2"] == [1, 2, 3]
    halves = sets_of((2,), halves=8, seeds=3, random_seeds=1)
    pairs = [(one.draw, one.replicate) for one in halves.values() if one.kind == "half"]
    # the halves of a pair share their seed, and the pairs take turns
    assert sorted(pairs) == [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (6, 3), (7, 1), (8, 1)]
    twice = sets_of((2,), random=3, seeds=3, random_seeds=2)
    found = [(one.base[-1], one.replicate) for one in twice.values() if one.kind == "random"]
    assert sorted(found) == [("1", 1), ("1", 2), ("2", 2), ("2", 3), ("3", 1), ("3", 3)]


def test_without_controls_there_are_the_chosen_sets_alone():
    assert list(sets_of((1,))) == ["all", "worst_1", "worst_cluster"]


def test_sets_take_the_worst_by_score_and_are_nested():
    assert plan(sizes=(1, 3, 4)) == {
        "all": [],
        "worst_1": ["d"],
        "worst_3": ["d", "b", "a"],
        "worst_4": ["d", "b", "a", "e"],
        "worst_cluster": ["b", "e"],
    }


def test_the_best_come_from_the_other_end():
    found = plan(sizes=(2,), best=(1, 3))
    assert (found["best_1"], found["best_3"]) == (["c"], ["c", "f", "e"])
    by_leaves = plan(sizes=(2,), best=(3,), order="leaves")
    assert by_leaves["best_3"] == ["a", "c", "e"]


def test_leaf_order_takes_from_the_bad_end_inwards():
    found = plan(sizes=(1, 3), order="leaves")
    assert found["worst_1"] == ["d"]
    assert found["worst_3"] == ["d", "f", "b"]
    assert found["all"] == []
    assert found["worst_cluster"] == ["b", "e"]


DONORS = list("abcdefghij")


def drawn(sets, chosen, seed=0, donors=DONORS):
    return draw_removals(sets.values(), chosen, donors, seed)


def test_random_removals_have_their_size_and_differ_from_each_other_and_the_chosen():
    chosen = {"all": [], "worst_1": ["d"], "worst_3": ["d", "b", "a"], "worst_cluster": ["e"]}
    found = drawn(sets_of((1, 3), random=8), chosen)
    for size, others in ((1, 2), (3, 1)):
        removed = [frozenset(donors) for name, donors in found.items() if name.startswith(f"random_{size}_")]
        of_size = {frozenset(donors) for donors in chosen.values() if len(donors) == size}
        assert {len(donors) for donors in removed} == {size}
        assert len(of_size) == others
        # all eight differ, and none of them is chosen
        assert len({*removed, *of_size}) == 8 + others


def test_where_too_few_differ_the_last_repeat_the_first():
    found = drawn(sets_of((1,), random=12), {"worst_1": ["d"], "worst_cluster": ["e"]})
    removed = [donors[0] for donors in found.values()]
    assert sorted(removed[:8]) == sorted(set(DONORS) - {"d", "e"})
    assert removed[8:] == removed[:4]


def test_each_donor_is_drawn_as_often_as_another():
    sets = sets_of((2,), random=40)
    counts = pd.Series(0, index=DONORS)
    for seed in range(25):
        found = drawn(sets, {"worst_2": ["d", "b"]}, seed=seed)
        counts += pd.Series([donor for donors in found.values() for donor in donors]).value_counts()
    # 40 of the 44 sets without {d, b}: b and d are in 8 of these, the others in 9; five standard deviations
    expected = pd.Series(2000 * 9 / 88, index=DONORS)
    expected[["b", "d"]] = 2000 * 8 / 88
    assert (counts - expected).abs().max() < 5 * np.sqrt(expected.max())


def test_a_donor_that_leaves_changes_only_the_random_removals_that_had_it():
    sets = sets_of((3,), random=10)
    chosen = {"worst_3": ["d", "b", "c"], "worst_cluster": []}
    before, after = drawn(sets, chosen), drawn(sets, chosen, donors=[name for name in DONORS if name != "a"])
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {name for name in before if "a" in before[name]} != set()


@pytest.mark.parametrize("donors", [DONORS, DONORS[:7]])
def test_halves_come_in_pairs_that_keep_what_the_other_removes(donors):
    found = drawn(sets_of((1,), halves=6), {"worst_1": ["d"]}, donors=donors)
    names = list(found)
    assert names == [f"half_r0{draw}" for draw in range(1, 7)]
    for one, other in zip(names[::2], names[1::2], strict=True):
        assert sorted([*found[one], *found[other]]) == donors
        assert len(found[one]) == len(donors) // 2
    assert len({frozenset(removed) for removed in found.values()}) > 2


def reasons(name, removed, **controls):
    return training_set(sets_of((3,), **controls)[name], removed, SCORES)


def test_a_training_set_tells_rank_score_and_reason_of_every_donor():
    table = reasons("worst_3", ["d", "b", "a"])
    assert list(table.columns) == ["removal_set", "case_id", "kept", "rank", "score", "reason"]
    assert set(table["removal_set"]) == {"worst_3"}
    assert table[["case_id", "rank", "score"]].equals(SCORES[["case_id", "rank", "score"]])
    assert table["kept"].tolist() == [False, False, False, True, True, True]
    assert table["reason"].tolist() == [
        *(f"among the worst_3, rank {rank} of 6" for rank in (1, 2, 3)),
        *["kept"] * 3,
    ]


def test_the_full_set_keeps_all_and_the_others_say_why():
    full = reasons("all", [])
    assert full["kept"].all()
    assert set(full["reason"]) == {"kept"}
    lost = reasons("worst_cluster", ["b", "e"]).set_index("case_id")
    assert lost.index[~lost["kept"]].tolist() == ["b", "e"]
    assert lost.loc["e", "reason"] == "in the worst cluster, rank 4 of 6"
    random = reasons("random_3_r01_s2", ["f"], random=1, seeds=2).set_index("case_id")
    assert random.loc["f", "reason"] == "drawn at random as one of 3, rank 5 of 6"
    half = reasons("half_r02", ["f"], halves=2).set_index("case_id")
    assert half.loc["f", "reason"] == "drawn at random as one of half of the donors, rank 5 of 6"


def evaluation(**dice_by_set):
    """Rows of the table `evaluation`, with a region that must not be mistaken for the scalar."""
    rows = [
        {
            "removal_set": name,
            "case_id": f"t{number}",
            "region": region,
            "dice": value if region == "mean" else 0.123,
        }
        for name, values in dice_by_set.items()
        for number, value in enumerate(values, 1)
        for region in ("WT", "mean")
    ]
    return pd.DataFrame(rows)


def test_what_is_segmented_where_it_is_not_is_told_in_ml():
    # t1 lacks ET, t2 holds it; of the two trainings of a set one finds some in t1
    counts = {"all": 0, "all_s2": 30, "worst_1": 10, "worst_1_s2": 20, "random_1_r01": 99}
    rows = [
        {"removal_set": name, "case_id": case, "region": region, "tp": 0, "fp": fp, "fn": fn}
        for name, fp in counts.items()
        for case, region, fn in (("t1", "ET", 0), ("t2", "ET", 5), ("t1", "WT", 5), ("t2", "mean", 0))
    ]
    found = false_volumes(pd.DataFrame(rows), sets_of((1,), random=1, seeds=2), {"t1": 0.5, "t2": 1.0})
    assert found.to_dict("records") == [
        {"removal_set": "all", "region": "ET", "cases": 1, "segmented": 0.5, "millilitres": 7.5},
        {"removal_set": "worst_1", "region": "ET", "cases": 1, "segmented": 1.0, "millilitres": 7.5},
    ]


SETS = {"all": [], "worst_2": ["a", "b"], "worst_1": ["a"]}


def scalars_of(**dice_by_set):
    """Means over the seeds by set and case."""
    return mean_dice(replicate_scalars(evaluation(**dice_by_set), sets_of((1, 2), seeds=2)))


def test_seeds_are_averaged_and_an_undefined_case_stays_undefined():
    table = scalars_of(all=[0.5, np.nan], worst_2=[0.1, np.nan], all_s2=[0.7, np.nan], worst_2_s2=[0.4, np.nan])
    assert list(table.index) == ["all", "worst_2"]
    np.testing.assert_allclose(table["t1"], [0.6, 0.25], atol=ROUND_OFF)
    assert table["t2"].isna().all()


def test_sessions_of_one_patient_count_once():
    rows = evaluation(all=[0.5, 0.7, 0.9], worst_1=[0.4, np.nan, 0.9])
    table = replicate_scalars(rows, sets_of((1,)), {"t1": "p", "t2": "p", "t3": "q"})
    assert table[["removal_set", "case_id", "dice"]].to_numpy().tolist() == [
        ["all", "p", pytest.approx(0.6)],
        ["all", "q", 0.9],
        ["worst_1", "p", 0.4],
        ["worst_1", "q", 0.9],
    ]


def test_scalars_keep_the_order_of_the_sets():
    table = scalars_of(all=[0.5, 0.6], worst_2=[0.1, 0.2], worst_1=[0.3, 0.4])
    assert list(table.index) == ["all", "worst_2", "worst_1"]
    assert table.to_numpy().tolist() == [[0.5, 0.6], [0.1, 0.2], [0.3, 0.4]]


def test_difference_is_new_minus_old():
    scalars = scalars_of(all=[0.5, 0.75], worst_1=[0.75, 0.5])
    differences = differences_to_full_set(scalars)
    assert list(differences.index) == ["worst_1"]
    assert differences.loc["worst_1"].tolist() == [0.25, -0.25]


def test_the_two_definitions_of_the_change_may_differ_in_sign():
    scalars = scalars_of(all=[0.5, 0.6, 0.9], worst_2=[0.7, 0.5, 0.8], worst_1=[0.5, 0.6, 0.9])
    table = median_change(scalars, SETS, donors=6).set_index("removal_set")
    assert table["removed"].to_dict() == {"all": 0, "worst_2": 2, "worst_1": 1}
    assert table["cases_left"].to_dict() == {"all": 6, "worst_2": 4, "worst_1": 5}
    changes = ["median_dice", "difference_of_medians", "median_of_differences"]
    np.testing.assert_allclose(table.loc["worst_2", changes].astype(float), [0.7, 0.1, -0.1], atol=ROUND_OFF)
    for unchanged in ("all", "worst_1"):
        assert table.loc[unchanged, changes].tolist() == [0.6, 0.0, 0.0]


def test_an_undefined_test_case_is_left_out():
    with_gap = scalars_of(all=[0.5, np.nan, 0.6, 0.9], worst_2=[0.7, np.nan, 0.5, 0.8])
    without = scalars_of(all=[0.5, 0.6, 0.9], worst_2=[0.7, 0.5, 0.8])
    pd.testing.assert_frame_equal(median_change(with_gap, SETS, 6), median_change(without, SETS, 6))
    assert differences_to_full_set(with_gap).isna().to_numpy().tolist() == [[False, True, False, False]]


# --- the steps from rows of the matrix to the report, on files that no network wrote ---

QUALITY = {"case_0": 0.9, "case_1": 0.8, "case_2": 0.2, "case_3": 0.7, "case_4": 0.6, "case_5": 0.75}
EASE = {case: 0.5 + 0.5 * quality for case, quality in QUALITY.items()} | {"case_6": 0.7, "case_7": 0.6}
LISTS = {"cohort.test_cases": ["case_6", "case_7"], "out_of_fold.folds": 0}
REGION_FACTORS = {"WT": 1.0, "TC": 0.5, "ET": 0.25, "L1": 0.8, "L2": 0.6, "L3": 0.4}


def region_rows(dice, **columns):
    """Counts whose Dice is `dice` times the factor of the region."""
    counts = {region: round(1000 * dice * factor) for region, factor in REGION_FACTORS.items()}
    return [
        {"region": region, "dice": tp / 1000, "iou": tp / (2000 - tp), "hd95": 2.0}
        | {"tp": tp, "fp": 1000 - tp, "fn": 1000 - tp, **columns}
        for region, tp in counts.items()
    ]


def write_row(study, donor, folder):
    rows = []
    for receiver in study.cohort.receivers:
        columns = {"donor": donor, "receiver": receiver, "model_version": "m", "receiver_version": "r"}
        rows += region_rows(QUALITY[donor] * EASE[receiver], **columns)
    pd.DataFrame(rows).to_parquet(folder / "row.parquet", index=False)


@pytest.fixture(scope="module")
def decided(tmp_path_factory):
    """A study that got as far as the removal plan."""
    study = make_study(tmp_path_factory.mktemp("decided"), LISTS)
    decide_all(study)
    return study


def decide_all(study):
    make(study, "cohort")
    pretend_models(study)
    write_rows(study)
    decide(study)


def write_rows(study):
    for donor in study.cohort.donors:
        pretend(study, "dice_row", donor, partial(write_row, study, donor))


def pretend_models(study):
    pretend_slices(study)
    pretend(study, "baseline_weights")
    for donor in study.cohort.donors:
        pretend(study, "augmented_case", donor)
        pretend(study, "case_model", donor)
    make(study, "label_quality")
    pretend(study, "donor_signals", write=partial(write_signals, study))


def write_signals(study, folder):
    """What the baseline and the images say of the donors, whose order it has no part in."""
    signals = pd.DataFrame({"case_id": study.cohort.donors})
    columns = ("baseline_loss", "gradient_alignment", "intensity_score")
    signals.assign(**dict.fromkeys(columns, 0.5)).to_parquet(folder / "signals.parquet", index=False)
    rows = [row for donor in study.cohort.donors for row in region_rows(0.8, case_id=donor)]
    pd.DataFrame(rows).to_parquet(folder / "baseline_scores.parquet", index=False)


def decide(study):
    """Everything from the matrix to the training sets."""
    for asset in (
        "dice_matrix",
        "contest",
        "settled_row",
        "dendrogram",
        "case_ranking",
        "removal_plan",
        "training_set",
    ):
        for key in GRAPH[asset].keys(study):
            make(study, asset, key)


@pytest.mark.parametrize(("scalar", "factor"), [("regions", 1.75 / 3), ("labels", 0.6), ("WT", 1.0)])
def test_the_matrix_takes_the_scalar_of_the_profile(decided, tmp_path, scalar, factor):
    study = copied(decided, tmp_path, {"similarity.scalar": scalar})
    make(study, "dice_matrix")
    rows, matrix = read_table(study.folder.database, "dice"), load_matrix(study.path("dice_matrix"))
    assert list(matrix.columns) == decided.cohort.receivers
    # the counts are whole numbers out of 1000
    assert matrix.loc["case_2", "case_7"] == pytest.approx(0.2 * 0.6 * factor, abs=5e-4)
    assert matrix.loc["case_0", "case_0"] == pytest.approx(0.9 * 0.95 * factor, abs=5e-4)
    assert len(rows) == 6 * 8 * 7
    assert rows.drop(columns=["tp", "fp", "fn"]).notna().all(axis=None)
    roles = rows.groupby("receiver")["receiver_role"].unique().map(list).to_dict()
    assert roles == {case.case_id: [case.role] for case in decided.cohort.cases}


def test_the_plan_follows_from_the_matrix(decided):
    worst_first = ["case_2", "case_4", "case_3", "case_5", "case_1", "case_0"]
    assert load_ranking(decided.path("case_ranking"))["case_id"].tolist() == worst_first
    plan = load_plan(decided.path("removal_plan"))
    assert plan.sets == decided.removal_sets
    assert plan.chosen == list(CHOSEN)
    assert list(plan.random) == ["random_1_r01", "random_2_r01"]
    assert not {frozenset(removed) for removed in plan.random.values()} & {
        frozenset(plan.removed[name]) for name in CHOSEN
    }
    found = plan.removed
    assert list(found) == list(decided.removal_sets)
    assert list(found)[:4] == list(CHOSEN)
    assert (found["all"], found["worst_1"], found["worst_2"]) == ([], ["case_2"], ["case_2", "case_4"])
    assert found["worst_cluster"] == ["case_2"]
    assert load_dendrogram(decided.path("dendrogram")).leaves[-1] == "case_2"


def test_without_folds_the_ranking_has_undefined_rivals(decided):
    ranking = load_ranking(decided.path("case_ranking"))
    assert len(ranking) == 6
    assert ranking[["out_of_fold_dice", "label_quality"]].isna().all(axis=None)
    in_database = read_table(decided.folder.database, "case_score")
    assert in_database[["out_of_fold_dice", "label_quality"]].isna().all(axis=None)


def test_test_cases_take_no_part_in_the_decision(decided):
    assert sorted(load_ranking(decided.path("case_ranking"))["case_id"]) == decided.cohort.donors
    assert sorted(load_dendrogram(decided.path("dendrogram")).leaves) == decided.cohort.donors


def test_the_tables_of_the_database_say_the_same(decided):
    query = """
        SELECT t.removal_set, count(*) FILTER (t.kept), string_agg(t.case_id, ',') FILTER (NOT t.kept)
        FROM training_set t JOIN case_score s USING (case_id, rank) JOIN removal_plan p USING (removal_set)
        WHERE p.kind NOT IN ('random', 'half') GROUP BY ALL ORDER BY ALL
    """
    with duckdb.connect(str(decided.folder.database), read_only=True) as connection:
        found = connection.execute(query).fetchall()
        counted = connection.execute("SELECT count(*), count(DISTINCT (donor, receiver)) FROM dice").fetchone()
    assert [row[:2] for row in found] == [("all", 6), ("worst_1", 5), ("worst_2", 4), ("worst_cluster", 5)]
    assert found[0][2] is None
    assert sorted(found[2][2].split(",")) == ["case_2", "case_4"]
    assert counted == (6 * 8 * 7, 6 * 8)


def test_a_training_set_changes_with_its_kept_cases_alone(decided, tmp_path):
    study = copied(decided, tmp_path)

    def versions():
        return {name: make(study, "training_set", name)[0].version for name in study.removal_sets}

    before = versions()
    assert before["worst_1"] == before["worst_cluster"]  # both lose case_2 and nothing else
    assert len({before[name] for name in CHOSEN}) == 3
    give_new_version(study, "case_slices", "case_2")
    after = versions()
    plan = load_plan(study.path("removal_plan")).removed
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {name for name, removed in plan.items() if "case_2" not in removed}
    assert changed & {*CHOSEN} == {"all"}


def test_another_seed_trains_another_model_on_the_same_training_set(decided, tmp_path):
    study = copied(decided, tmp_path, {"controls.seeds": 2})
    make(study, "removal_plan")
    pairs = [("all", "all_s2"), ("worst_1", "worst_1_s2"), ("random_2_r01", "random_2_r01_s2")]
    for name, again in pairs:
        for removal_set in (name, again):
            make(study, "training_set", removal_set)
        assert study.version("training_set", again) == study.version("training_set", name)
        one, other = (GRAPH["reduced_model"].inputs(study, removal_set) for removal_set in (name, again))
        assert one.made_from == other.made_from
        assert other.settings == {**one.settings, "replicate": 2} != one.settings


def test_a_training_set_tells_what_decided_it_and_not_what_was_ranked_since(decided, tmp_path):
    study = copied(decided, tmp_path, {"similarity.scalar": "WT", "similarity.largest_cluster": 0.5})
    before = load_training_set(decided.path("training_set", "worst_1"))
    plan = study.provenance("removal_plan")
    assert set(before["plan_version"]) == {plan.version}
    assert set(before["ranking_version"]) == {plan.inputs.made_from["case_ranking"]}
    assert set(before["matrix_version"]) == {study.version("dice_matrix")}
    make(study, "dice_matrix")
    make(study, "case_ranking")
    assert study.version("case_ranking") not in set(before["ranking_version"])
    (study.path("training_set", "worst_1") / "provenance.json").unlink()
    make(study, "training_set", "worst_1")
    pd.testing.assert_frame_equal(load_training_set(study.path("training_set", "worst_1")), before)


def test_an_edited_test_case_decides_nothing_anew(decided, tmp_path):
    study = copied(decided, tmp_path, {"removal.order": "leaves"})
    decided_from = study.version("dice_matrix")
    give_new_version(study, "case_slices", "case_7")
    write_rows(study)
    make(study, "dice_matrix")
    assert study.version("dice_matrix") != decided_from
    assert all(is_kept(study, GRAPH[asset], None) for asset in ("dendrogram", "case_ranking"))
    # a plan that is made only now still names the matrix of its ranking, and its cells are known
    make(study, "removal_plan")
    make(study, "training_set", "worst_1")
    assert set(load_training_set(study.path("training_set", "worst_1"))["matrix_version"]) == {decided_from}
    assert set(read_table(study.folder.database, "removal_plan")["matrix_version"]) == {decided_from}
    known = "SELECT count(*) FROM history.dice JOIN removal_plan USING (matrix_version) WHERE removal_set = 'all'"
    with duckdb.connect(str(study.folder.database), read_only=True) as connection:
        assert connection.execute(known).fetchall() == [(6 * 8 * 7,)]


@pytest.fixture(scope="module")
def validated(tmp_path_factory):
    """The same study, where `case_7` is a validation case that needs every donor."""
    roles = {"cohort.test_cases": ["case_6"], "cohort.validation_cases": ["case_7"]}
    lists = {**LISTS, **roles, "cohort.minimum_donors": 2}
    study = make_study(tmp_path_factory.mktemp("validated"), lists)
    make(study, "cohort")
    pretend_models(study)
    for donor in study.cohort.donors:
        pretend(study, "dice_row", donor, partial(write_helpless_row, study, donor))
    decide(study)
    return study


def write_helpless_row(study, donor, folder):
    """The worst donor is the only one that can segment the validation case."""
    write_row(study, donor, folder)
    rows = pd.read_parquet(folder / "row.parquet")
    columns = {"donor": donor, "receiver": "case_7", "model_version": "m", "receiver_version": "r"}
    needed = region_rows(0.9 if donor == "case_2" else 0.5, **columns)
    kept = rows[rows["receiver"] != "case_7"]
    pd.concat([kept, pd.DataFrame(needed)]).to_parquet(folder / "row.parquet", index=False)


def test_a_validation_case_keeps_a_donor_that_it_needs(validated):
    assert load_ranking(validated.path("case_ranking"))["case_id"].iloc[0] == "case_2"
    decision = load_decision(validated.path("case_ranking"))
    assert decision["worst_cluster"] == []
    assert "models below the others on the validation cases" in decision["reason"]
    assert load_ranking(validated.path("case_ranking")).set_index("case_id")["stability"]["case_2"] == 0


def test_without_a_worst_cluster_its_set_is_the_full_one(validated):
    assert load_plan(validated.path("removal_plan")).removed["worst_cluster"] == []
    assert validated.version("training_set", "worst_cluster") == validated.version("training_set", "all")
    assert load_training_set(validated.path("training_set", "worst_cluster"))["kept"].all()
    scalars = scalars_of(all=[0.5, 0.7], worst_cluster=[0.5, 0.7])
    change = median_change(scalars, {"all": [], "worst_cluster": []}, 6).set_index("removal_set")
    assert change.loc["worst_cluster"].tolist() == [0, 6, 0.6, 0.0, 0.0]


def test_validation_cases_are_receivers_and_nothing_else(validated):
    rows, matrix = read_table(validated.folder.database, "dice"), load_matrix(validated.path("dice_matrix"))
    assert list(matrix.columns) == [*validated.cohort.donors, "case_7", "case_6"]
    assert set(rows.loc[rows["receiver"] == "case_7", "receiver_role"]) == {"validation"}
    keys = {name: set(node.keys(validated)) for name, node in GRAPH.items()}
    assert "case_7" in keys["case_slices"]
    assert not any("case_7" in keys[name] for name in ("augmented_case", "case_model", "dice_row"))
    for name, source in (("baseline_weights", "case_slices"), ("nnunet_plans", "raw_case")):
        assert list(GRAPH[name].inputs(validated).made_from[source]) == validated.cohort.donors
    pretend(validated, "reduced_model", "all")
    evaluated = GRAPH["reduced_evaluation"].inputs(validated, "all").made_from["case_slices"]
    assert list(evaluated) == ["case_6"]


def test_a_set_that_is_not_in_the_plan_is_not_made(decided, tmp_path):
    study = copied(decided, tmp_path)
    with pytest.raises(NotMadeError, match="no set worst_3; materialize removal_plan first"):
        make(study, "training_set", "worst_3")
    assert not study.path("training_set", "worst_3").exists()


def test_an_earlier_plan_can_still_be_asked_for(decided, tmp_path):
    study = copied(decided, tmp_path, {"similarity.distance": "symmetric", "removal.sizes": (3,)})
    make(study, "cohort")
    decide(study)
    current = read_table(study.folder.database, "training_set")
    chosen = {"all", "worst_3", "worst_cluster"}
    assert set(current["removal_set"]) == {*chosen, "random_3_r01", *(f"half_r0{draw}" for draw in range(1, 5))}
    assert set(current["plan_version"]) == {study.version("removal_plan")}
    decisions = """
        SELECT removal_set, plan_version, matrix_version, ranking_version, plan_version = ? AS earlier
        FROM history.training_set WHERE case_id = 'case_2' AND NOT kept AND removal_set LIKE 'worst%'
        ORDER BY recorded, removal_set
    """
    with duckdb.connect(str(study.folder.database), read_only=True) as connection:
        found = connection.execute(decisions, [decided.version("removal_plan")]).fetchall()
    before, after = ((one.version("dice_matrix"), one.version("case_ranking")) for one in (decided, study))
    assert [(removal_set, earlier) for removal_set, *_, earlier in found] == [
        *((name, True) for name in ("worst_1", "worst_2", "worst_cluster")),
        *((name, False) for name in ("worst_3", "worst_cluster")),
    ]
    assert {row[2:4] for row in found if row[4]} == {before}
    assert {row[2:4] for row in found if not row[4]} == {after}


def pretend_slices(study):
    for case in study.cohort.cases:
        pretend(study, "raw_case", case.case_id, partial(write_facts, case.facts))
    pretend(study, "nnunet_plans")
    for case in study.cohort.cases:
        pretend(study, "case_slices", case.case_id)


def write_facts(facts, folder):
    (folder / FACTS_FILE).write_text(facts.model_dump_json())


def write_evaluation(removal_set, values, folder):
    rows = [
        {"removal_set": removal_set, "case_id": case, "region": region, "dice": value}
        for case, value in zip(("case_6", "case_7"), values, strict=True)
        for region in ("WT", "TC", "ET")
    ]
    table = pd.DataFrame(rows).assign(iou=0.5, hd95=2.0, tp=1, fp=1, fn=1)
    table = table.assign(model_version="m", receiver_version="r")
    table.to_parquet(folder / "evaluation.parquet", index=False)


def test_the_report_compares_every_set_with_the_full_one(decided, tmp_path):
    dice = {"all": (0.5, 0.7), "worst_1": (0.6, 0.8), "worst_2": (0.5, 0.7), "worst_cluster": (0.4, 0.4)}
    dice |= dict.fromkeys(set(decided.removal_sets) - set(dice), (0.9, 0.9))
    study = copied(decided, tmp_path)
    for name, values in dice.items():
        pretend(study, "reduced_model", name)
        pretend(study, "reduced_evaluation", name, partial(write_evaluation, name, values))
    make(study, "reduction_report")
    rows, folder = read_table(study.folder.database, "evaluation"), study.path("reduction_report")
    assert set(rows["plan_version"]) == {study.version("removal_plan")}
    assert set(rows["removal_set"]) == set(study.removal_sets)
    change = pd.read_csv(folder / "median_change.csv").set_index("removal_set")
    assert change["cases_left"].to_dict() == {"all": 6, "worst_1": 5, "worst_2": 4, "worst_cluster": 5}
    expected = [0.0, 0.1, 0.0, -0.2]
    np.testing.assert_allclose(change["difference_of_medians"], expected, atol=ROUND_OFF)
    np.testing.assert_allclose(change["median_of_differences"], expected, atol=ROUND_OFF)
    for name in ("figure_3_6a", "figure_3_6b", "median_change"):
        assert b"<svg" in (folder / f"{name}.svg").read_bytes()
        assert (folder / f"{name}.pdf").read_bytes().startswith(b"%PDF")


def test_the_plan_is_readable_json(decided):
    stored = json.loads((decided.path("removal_plan") / "plan.json").read_text())
    removed = {name: one["removed"] for name, one in stored.items()}
    assert removed == load_plan(decided.path("removal_plan")).removed
    assert (stored["random_2_r01"]["kind"], stored["random_2_r01"]["size"]) == ("random", 2)
