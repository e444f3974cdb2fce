"""The graph: its shape, and that a change is seen by exactly those artifacts that it concerns."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from idal_assets.profile import PROFILE_FOLDER
from idal_assets.store.artifacts import content_hash
from idal_assets.store.files import without_seal
from idal_assets.study.currency import all_states, inputs_unless_incomplete, other_training_cases
from idal_assets.study.graph import GRAPH, SOURCES
from idal_assets.study.making import make
from idal_assets.study.study import NotMadeError, Study
from idal_assets_tests.raw_folders import make_case, rewrite_same_content, save, write_msd
from idal_assets_tests.studies import (
    READ_BY_THE_GRAPH,
    as_written,
    changed,
    copied,
    give_new_version,
    make_study,
    pretend,
    pretend_all,
    with_settings,
)

pytestmark = pytest.mark.unit

CONTRACT = {
    "cohort": {"cohort": None, "raw_case": "case"},
    "prepare": {"nnunet_plans": None, "case_slices": "case"},
    "patients": {
        "patient_list": None,
        "patient_case": "patient",
        "patient_slices": "patient",
        "case_opinions": "receiver",
        "similarity_classifier": None,
        "played_case": "receiver",
        "adaptation_rule": None,
        "adaptation_evidence": None,
        "patient_opinions": "patient",
        "adapted_model": "patient",
        "patient_segmentation": "patient",
    },
    "baseline": {"baseline_candidate": "candidate", "baseline_comparison": None, "baseline_weights": None},
    "donors": {"augmented_case": "donor", "case_model": "donor"},
    "quality": {"fold_model": "fold", "label_quality": None, "donor_signals": None},
    "similarity": {
        "dice_row": "donor",
        "dice_matrix": None,
        "contest": None,
        "settled_row": "donor",
        "dendrogram": None,
        "case_ranking": None,
    },
    "reduction": {
        "removal_plan": None,
        "training_set": "removal_set",
        "reduced_model": "removal_set",
        "reduced_evaluation": "removal_set",
        "reduction_report": None,
    },
    "evidence": {
        "evidence": None,
        "case_effect": None,
        "confirmed_model": "confirmation",
        "confirmed_evaluation": "confirmation",
        "confirmation": None,
        "early_row": "donor",
        "repeated_row": "donor",
        "convergence": None,
        "cost": None,
    },
    "validation": {"fault_detection": None},
    "report": {"case_view": "case", "experiment_report": None},
}

DONORS = ("case_0", "case_1", "case_2", "case_3")
TESTS = ("case_5", "case_6")
FOLDS = {"fold_1": ("case_1", "case_2"), "fold_2": ("case_0", "case_3")}
CHOSEN = ("all", "worst_1", "worst_2", "worst_cluster")
SETS = (*CHOSEN, "random_1_r01", "random_2_r01", *(f"half_r0{draw}" for draw in range(1, 5)))
CONFIRMATIONS = ("all", "chosen")
LISTS = {"cohort.donor_cases": DONORS, "cohort.test_cases": TESTS}
"""`case_4` trains the baseline in some tests; `case_7` has no role."""


def every(asset, keys=(None,)):
    return {(asset, key) for key in keys}


def hashes(study):
    """What every artifact would be made from now; None where something that it needs is not there."""
    found = {}
    for node in GRAPH.values():
        for key in node.keys(study):
            inputs = inputs_unless_incomplete(study, node, key)
            found[node.name, key] = inputs.hash() if inputs else None
    return found


def differences(before, after):
    return {
        place
        for place in before.keys() | after.keys()
        if before.get(place, "absent") != after.get(place, "absent")
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Everything made; tests of it only look."""
    study = make_study(tmp_path_factory.mktemp("made"), LISTS)
    pretend_all(study)
    return study


@pytest.fixture
def study(made, tmp_path):
    """Everything made; tests of it may change it."""
    return copied(made, tmp_path)


CONFIRMING = every("confirmed_model", CONFIRMATIONS) | every("confirmed_evaluation", CONFIRMATIONS)


# --- shape ---


def test_names_groups_and_partitions():
    found = {}
    for node in GRAPH.values():
        found.setdefault(node.group, {})[node.name] = node.partition
    assert found == CONTRACT


def test_every_asset_comes_after_what_it_is_made_from():
    seen = []
    for name, node in GRAPH.items():
        assert name == node.name
        assert set(node.made_from) <= {*seen, *SOURCES}, f"{name} comes before something that it is made from"
        seen.append(name)


def test_every_asset_leads_to_the_report():
    needed = {"experiment_report"}
    for node in reversed(GRAPH.values()):
        if node.name in needed:
            needed |= set(node.made_from)
    assert needed == {*GRAPH, *SOURCES}


def test_partitions_follow_from_cohort_and_profile(made):
    keys = {name: node.keys(made) for name, node in GRAPH.items()}
    assert keys["case_slices"] == [*DONORS, *TESTS]
    assert keys["dice_row"] == list(DONORS)
    assert keys["baseline_candidate"] == []
    assert keys["fold_model"] == list(FOLDS)
    assert {fold: tuple(donors) for fold, donors in made.folds.items()} == FOLDS
    assert keys["reduced_model"] == list(SETS)
    assert keys["dice_matrix"] == [None]


@pytest.mark.parametrize(
    "module",
    [
        *("profile", "store.artifacts", "study.study", "study.graph", "study.currency", "study.making"),
        *("steps.evidence", "steps.reduction", "steps.similarity"),
    ],
)
def test_looking_at_a_study_needs_neither_torch_nor_dagster(module):
    code = (
        f"import sys, idal_assets.{module}; print(*sorted({{'torch', 'dagster', 'nnunetv2'}} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


# --- a setting concerns exactly the assets that it determines ---


@pytest.mark.parametrize(
    ("setting", "value", "assets"),
    [
        ("cohort.seed", 5, "cohort"),
        ("cohort.go_on_without_refused", True, "cohort"),
        ("plans.memory_gb", 2.0, "nnunet_plans"),
        ("baseline.epochs", 3, "baseline_weights"),
        ("variants.count", 3, "augmented_case experiment_report"),
        ("case_model.learning_rate", 0.5, "case_model repeated_row"),
        ("case_model.seeds", 2, "repeated_row"),
        ("early_stop.faster", 2.0, ""),
        ("convergence.shares", (0.25, 0.5), "case_model"),
        ("inference.surface_distances", False, "dice_row reduced_evaluation confirmed_evaluation"),
        ("inference.mirror_retrained", True, "reduced_evaluation confirmed_evaluation"),
        ("cohort.validation", 1, "cohort"),
        ("similarity.mode", "thesis", "dendrogram case_ranking convergence fault_detection experiment_report"),
        (
            "similarity.absent_share",
            0.1,
            "dendrogram case_ranking convergence fault_detection experiment_report",
        ),
        ("similarity.level", 0.9, "case_ranking fault_detection"),
        ("similarity.linkage", "single", "dendrogram case_ranking fault_detection experiment_report"),
        ("similarity.smallest_cluster", 2, "case_ranking fault_detection"),
        ("candidates.held_out_share", 0.5, ""),
        (
            "inference.tile_step",
            0.25,
            "dice_row label_quality donor_signals reduced_evaluation confirmed_evaluation early_row repeated_row "
            "case_view",
        ),
        ("out_of_fold.training.epochs", 3, "fold_model"),
        (
            "similarity.scalar",
            "WT",
            "cohort baseline_comparison dice_matrix dendrogram case_ranking reduction_report evidence convergence "
            "case_effect confirmation fault_detection experiment_report",
        ),
        ("similarity.distance", "symmetric", "dendrogram case_ranking fault_detection"),
        ("similarity.largest_cluster", 0.5, "case_ranking fault_detection"),
        ("similarity.stability_resamples", 10, "case_ranking"),
        ("removal.order", "leaves", "removal_plan"),
        ("reduced.loss", "ce", "reduced_model"),
        ("confirmation.training.epochs", 3, "confirmed_model"),
        ("evidence.level", 0.9, "evidence case_effect confirmation"),
        ("evidence.rare_share", 0.5, "evidence"),
        (
            "seed",
            1,
            "baseline_weights augmented_case case_model fold_model label_quality case_ranking removal_plan "
            "reduced_model evidence confirmed_model repeated_row fault_detection experiment_report",
        ),
        (
            "compute.precision",
            "fp32",
            "baseline_weights case_model dice_row fold_model label_quality donor_signals reduced_model "
            "reduced_evaluation confirmed_model confirmed_evaluation early_row repeated_row case_view",
        ),
        ("compute.device", "cpu", ""),
        ("compute.threads", 3, ""),
        ("compute.slices_memory_gb", 1.0, ""),
        ("compute.inference_megapixels", 1.0, ""),
        ("compute.models_per_card", 2, ""),
        ("compute.compile", "off", ""),
        ("phantom.seed", 1, ""),
        ("report.cards", 3, "experiment_report"),
        ("name", "other", "experiment_report"),
        ("description", "other", "experiment_report"),
    ],
)
def test_a_setting_concerns_exactly(made, setting, value, assets):
    expected = set().union(*(every(asset, GRAPH[asset].keys(made)) for asset in assets.split()))
    other = with_settings(made, {setting: value})
    assert differences(hashes(made), hashes(other)) == expected | views_of_moved_donors(made, other)


def test_larger_steps_concern_case_models_that_stop_early(made):
    early = with_settings(made, {"early_stop.share": 0.5})
    faster = with_settings(early, {"early_stop.faster": 2.0})
    expected = every("case_model", DONORS) | every("repeated_row", DONORS) | every("contest")
    assert differences(hashes(early), hashes(faster)) == expected


def views_of_moved_donors(made, other):
    """A donor is looked at with the network of its fold."""
    one, two = (
        {donor: fold for fold, donors in study.folds.items() for donor in donors} for study in (made, other)
    )
    return every("case_view", [donor for donor in DONORS if one.get(donor) != two.get(donor)])


def test_other_sizes_concern_what_they_decide_and_add_their_sets(made):
    fewer = with_settings(made, {"removal.sizes": (1,)})
    concerned = {name for name, key in differences(hashes(made), hashes(fewer)) if key is None}
    assert concerned == {
        "cohort",
        "case_ranking",
        "removal_plan",
        "reduction_report",
        "evidence",
        "cost",
        "case_effect",
        "experiment_report",
    }
    more = hashes(with_settings(made, {"removal.sizes": (1, 2, 3)}))
    new = of_sets("worst_3", "random_3_r01")
    assert differences(hashes(made), more) == {(name, None) for name in concerned} | new
    assert more["reduced_model", "worst_3"] is None
    assert more["reduction_report", None] is None


def of_sets(*names):
    return set().union(*(every(asset, names) for asset in ("training_set", "reduced_model", "reduced_evaluation")))


@pytest.mark.parametrize(
    ("setting", "value", "new"),
    [
        ("controls.random", 2, ("random_1_r02", "random_2_r02")),
        ("controls.halves", 6, ("half_r05", "half_r06")),
        ("removal.best", (2,), ("best_2",)),
        ("controls.seeds", 2, tuple(f"{name}_s2" for name in SETS)),
    ],
)
def test_more_controls_or_seeds_add_their_sets_and_train_no_other_again(made, setting, value, new):
    gathered = {(name, None) for name in ("removal_plan", "reduction_report", "evidence", "case_effect", "cost")}
    more = hashes(with_settings(made, {setting: value}))
    assert differences(hashes(made), more) == gathered | of_sets(*new)


def test_other_folds_concern_their_models_and_what_gathers_them(made):
    other = with_settings(made, {"out_of_fold.folds": 4})
    concerned = every("cohort") | every("label_quality") | every("cost")
    concerned |= every("fold_model", GRAPH["fold_model"].keys(other))
    assert differences(hashes(made), hashes(other)) == concerned | views_of_moved_donors(made, other)
    none = with_settings(made, {"out_of_fold.folds": 0})
    assert GRAPH["fold_model"].keys(none) == []
    without = concerned - every("fold_model", ["fold_3", "fold_4"])
    assert differences(hashes(made), hashes(none)) == without | every("case_view", DONORS)
    assert hashes(none)["label_quality", None]


# --- a new version concerns exactly the assets made from it ---


@pytest.mark.parametrize(
    ("asset", "key", "expected"),
    [
        ("cohort", None, every("dice_matrix") | every("experiment_report")),
        (
            "raw_case",
            "case_1",
            every("nnunet_plans")
            | every("case_slices", ["case_1"])
            | every("evidence")
            | every("case_view", ["case_1"]),
        ),
        (
            "raw_case",
            "case_5",
            every("case_slices", ["case_5"]) | every("evidence") | every("case_view", ["case_5"]),
        ),
        (
            "nnunet_plans",
            None,
            every("case_slices", DONORS + TESTS)
            | every("augmented_case", DONORS)
            | every("baseline_weights")
            | every("fold_model", FOLDS)
            | every("reduced_model", SETS)
            | every("confirmed_model", CONFIRMATIONS),
        ),
        (
            "case_slices",
            "case_1",
            every("baseline_weights")
            | every("augmented_case", ["case_1"])
            | every("dice_row", DONORS)
            | every("early_row", DONORS)
            | every("repeated_row", DONORS)
            | every("fold_model", ["fold_2"])
            | every("label_quality")
            | every("donor_signals")
            | every("training_set", SETS)
            | every("reduced_model", SETS)
            | every("confirmed_model", CONFIRMATIONS)
            | every("case_view", ["case_1"]),
        ),
        (
            "case_slices",
            "case_5",
            every("dice_row", DONORS)
            | every("reduced_evaluation", SETS)
            | every("confirmed_evaluation", CONFIRMATIONS)
            | every("case_view", ["case_5"]),
        ),
        ("baseline_comparison", None, every("experiment_report")),
        (
            "baseline_weights",
            None,
            every("case_model", DONORS)
            | every("repeated_row", DONORS)
            | every("donor_signals")
            | every("cost")
            | every("case_view", DONORS + TESTS)
            | every("experiment_report"),
        ),
        (
            "augmented_case",
            "case_1",
            every("case_model", ["case_1"]) | every("repeated_row", ["case_1"]) | every("experiment_report"),
        ),
        (
            "case_model",
            "case_1",
            every("dice_row", ["case_1"])
            | every("early_row", ["case_1"])
            | every("convergence")
            | every("cost")
            | every("case_view", ["case_1"])
            | every("experiment_report"),
        ),
        (
            "dice_row",
            "case_1",
            every("dice_matrix")
            | every("dendrogram")
            | every("case_ranking")
            | every("convergence")
            | every("fault_detection")
            | every("cost"),
        ),
        ("dice_matrix", None, every("evidence") | every("experiment_report")),
        (
            "fold_model",
            "fold_1",
            every("label_quality") | every("cost") | every("case_view", FOLDS["fold_1"]),
        ),
        (
            "reduced_evaluation",
            "all",
            every("reduction_report")
            | every("evidence")
            | every("case_effect")
            | every("cost")
            | every("case_view", TESTS),
        ),
        ("case_view", "case_1", every("experiment_report")),
        ("label_quality", None, every("case_ranking") | every("cost")),
        ("donor_signals", None, every("case_ranking") | every("cost")),
        ("dendrogram", None, every("case_ranking") | every("removal_plan") | every("experiment_report")),
        (
            "case_ranking",
            None,
            every("removal_plan")
            | every("evidence")
            | every("convergence")
            | every("fault_detection")
            | every("experiment_report"),
        ),
        (
            "removal_plan",
            None,
            every("training_set", SETS)
            | every("reduction_report")
            | every("evidence")
            | every("case_effect")
            | every("experiment_report"),
        ),
        ("training_set", "worst_1", every("reduced_model", ["worst_1"])),
        ("reduced_model", "worst_1", every("reduced_evaluation", ["worst_1"]) | every("cost")),
        (
            "reduced_evaluation",
            "worst_1",
            every("reduction_report") | every("evidence") | every("case_effect") | every("cost"),
        ),
        ("reduction_report", None, every("experiment_report")),
        ("evidence", None, every("confirmation") | every("experiment_report")),
        ("case_effect", None, every("experiment_report")),
        ("confirmed_model", "all", every("confirmed_evaluation", ["all"]) | every("cost")),
        ("confirmed_evaluation", "all", every("confirmation") | every("cost")),
        ("confirmation", None, every("experiment_report")),
        ("early_row", "case_1", every("convergence") | every("cost")),
        ("repeated_row", "case_1", every("convergence") | every("cost")),
        ("convergence", None, every("experiment_report")),
        ("cost", None, every("experiment_report")),
        ("fault_detection", None, every("experiment_report")),
        ("experiment_report", None, set()),
    ],
)
def test_a_new_version_concerns_exactly(study, asset, key, expected):
    before = hashes(study)
    give_new_version(study, asset, key)
    assert differences(before, hashes(study)) == expected


def test_a_case_that_a_set_removed_does_not_concern_its_network(study):
    (study.path("training_set", "worst_1") / "kept.json").write_text(json.dumps(DONORS[1:]))
    as_written(study.path("training_set", "worst_1"))
    before = hashes(study)
    give_new_version(study, "case_slices", DONORS[0])
    concerned = {key for asset, key in differences(before, hashes(study)) if asset == "reduced_model"}
    assert concerned == set(SETS) - {"worst_1"}


# --- candidates for the baseline ---

IN_2D, IN_3D = ("2d_dice_ce", "2d_ce"), ("3d_dice_ce",)
ALL_CANDIDATES = every("baseline_candidate", IN_2D + IN_3D)


@pytest.fixture(scope="module")
def made_with_candidates(tmp_path_factory):
    study = make_study(tmp_path_factory.mktemp("candidates"), {**LISTS, "candidates.names": IN_2D + IN_3D})
    pretend_all(study)
    return study


@pytest.fixture
def with_candidates(made_with_candidates, tmp_path):
    return copied(made_with_candidates, tmp_path)


def rewrite(study, asset, **content):
    """Changes a file of an artifact that the graph reads, with the version that it has."""
    name, before = READ_BY_THE_GRAPH[asset]
    (study.path(asset) / name).write_text(json.dumps({**before(study), **content}))
    as_written(study.path(asset))


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("candidates.held_out_share", 0.5, ALL_CANDIDATES),
        ("candidates.training_2d.epochs", 3, every("baseline_candidate", IN_2D)),
        ("candidates.training_3d.epochs", 3, every("baseline_candidate", IN_3D)),
        ("baseline.loss", "ce", every("baseline_weights")),
        (
            "inference.surface_distances",
            False,
            every("dice_row", DONORS)
            | every("reduced_evaluation", SETS)
            | every("confirmed_evaluation", CONFIRMATIONS),
        ),
        ("candidates.names", IN_2D, every("baseline_candidate", IN_3D) | every("baseline_comparison")),
        ("candidates.best_becomes_baseline", True, every("baseline_weights") | every("experiment_report")),
    ],
)
def test_a_setting_of_candidates_concerns_exactly(with_candidates, setting, value, expected):
    study = with_candidates
    assert differences(hashes(study), hashes(with_settings(study, {setting: value}))) == expected


def test_candidates_are_made_from_the_plans_and_cases_of_their_dimension(with_candidates):
    study = with_candidates
    before = hashes(study)
    rewrite(study, "nnunet_plans", **{"3d_fullres": "3d-2"})
    assert differences(before, hashes(study)) == every("baseline_candidate", IN_3D)
    for asset, key, expected in (
        ("raw_case", "case_1", every("baseline_candidate", IN_3D)),
        ("case_slices", "case_1", every("baseline_candidate", IN_2D)),
        ("raw_case", "case_5", set()),
        ("case_slices", "case_5", set()),
    ):
        before = hashes(study)
        give_new_version(study, asset, key)
        found = {place for place in differences(before, hashes(study)) if place[0] == "baseline_candidate"}
        assert found == expected, (asset, key)


def test_a_named_baseline_does_not_depend_on_the_comparison(with_candidates):
    study = with_candidates
    assert "baseline_comparison" not in GRAPH["baseline_weights"].inputs(study).made_from
    before = hashes(study)
    rewrite(study, "baseline_comparison", best_2d="2d_dice_ce")
    give_new_version(study, "baseline_candidate", "2d_ce")
    give_new_version(study, "baseline_comparison")
    assert differences(before, hashes(study)) == every("baseline_comparison") | every("experiment_report")
    (study.path("baseline_comparison") / "provenance.json").unlink()
    assert all_states(study)["baseline_weights"] == {None: "current"}


def test_the_best_candidate_outdates_the_baseline_only_when_it_is_another_one(with_candidates):
    study = with_settings(with_candidates, {"candidates.best_becomes_baseline": True})
    pretend_all(study)
    assert GRAPH["baseline_weights"].inputs(study).made_from["baseline_comparison"] == "2d_ce"
    before = hashes(study)
    give_new_version(study, "baseline_comparison")
    assert differences(before, hashes(study)) == every("experiment_report")
    rewrite(study, "baseline_comparison", best_2d="2d_dice_ce")
    assert differences(before, hashes(study)) == every("experiment_report") | every("baseline_weights")
    (study.path("baseline_comparison") / "provenance.json").unlink()
    assert all_states(study)["baseline_weights"] == {None: "outdated"}


def test_pinned_candidates_stay_and_say_so(with_candidates):
    study = with_candidates
    give_new_version(study, "raw_case", "case_1")
    pinned = {"nnunet_plans", "baseline_candidate of 3d_dice_ce"}
    assert other_training_cases(study) == {name: ["case_1"] for name in pinned}
    assert all_states(study)["baseline_candidate"] == dict.fromkeys(IN_2D + IN_3D, "current")
    follow = with_settings(study, {"automation.plans_and_baseline": "follow"})
    assert other_training_cases(follow) == {}
    assert all_states(follow)["baseline_candidate"]["3d_dice_ce"] == "outdated"


def test_pretraining_cases_stand_between_the_donors_and_the_baseline(tmp_path):
    study = make_study(tmp_path, {**LISTS, "cohort.pretraining_cases": ("case_4",)})
    pretend_all(study)
    before = hashes(study)
    give_new_version(study, "case_slices", "case_4")
    assert differences(before, hashes(study)) == every("baseline_weights") | every("case_view", ["case_4"])
    before = hashes(study)
    give_new_version(study, "case_slices", "case_1")
    assert ("baseline_weights", None) not in differences(before, hashes(study))
    before = hashes(study)
    give_new_version(study, "raw_case", "case_4")
    own = every("case_slices", ["case_4"]) | every("case_view", ["case_4"])
    assert differences(before, hashes(study)) == every("nnunet_plans") | own


def rows_again(study):
    for donor in DONORS:
        pretend(study, "dice_row", donor)


@pytest.mark.parametrize(("case", "decides"), [("case_5", False), ("case_4", True), ("case_1", True)])
def test_donors_and_validation_cases_decide_and_test_cases_do_not(tmp_path, case, decides):
    study = make_study(tmp_path, {**LISTS, "cohort.validation_cases": ("case_4",)})
    pretend_all(study)
    before = hashes(study)
    give_new_version(study, "case_slices", case)
    rows_again(study)
    pretend(study, "dice_matrix")
    after = differences(before, hashes(study))
    assert ("experiment_report", None) in after
    decisions = every("dendrogram") | every("case_ranking")
    assert after & decisions == (decisions if decides else set())


def test_another_role_of_a_receiver_decides_too(tmp_path):
    study = make_study(tmp_path, {**LISTS, "cohort.validation_cases": ("case_4",)})
    pretend_all(study)
    before = hashes(study)
    other = with_settings(study, {"cohort.test_cases": (*TESTS, "case_4"), "cohort.validation_cases": ("case_7",)})
    make(other, "cohort")
    pretend(other, "raw_case", "case_7")
    pretend(other, "case_slices", "case_7")
    rows_again(other)
    pretend(other, "dice_matrix")
    assert every("dendrogram") <= differences(before, hashes(other))


def test_a_decision_from_a_matrix_that_is_behind_its_rows_does_not_pass_for_a_later_one(study):
    def hash_now():
        return GRAPH["dendrogram"].inputs(study).hash()

    found = [hash_now()]
    give_new_version(study, "case_slices", "case_1")
    rows_again(study)
    found.append(hash_now())
    pretend(study, "dice_matrix")
    found.append(hash_now())
    assert len(set(found)) == 3


def test_nothing_can_be_made_before_what_it_is_made_from(tmp_path):
    study = make_study(tmp_path, LISTS)
    with pytest.raises(NotMadeError, match="cohort has not been made yet; materialize cohort first"):
        GRAPH["raw_case"].keys(study)
    make(study, "cohort")
    with pytest.raises(NotMadeError, match="raw_case of case_2 has not been made yet; materialize raw_case first"):
        GRAPH["case_slices"].inputs(study, "case_2")
    pretend(study, "raw_case", "case_2")
    with pytest.raises(NotMadeError, match="nnunet_plans has not been made yet"):
        GRAPH["case_slices"].inputs(study, "case_2")


def test_a_rise_of_the_code_version_concerns_its_asset(made):
    node = GRAPH["dendrogram"]
    assert replace(node, code=f"{node.code}+").inputs(made).hash() != node.inputs(made).hash()


# --- the raw folder ---


def test_files_of_the_same_content_concern_only_the_cohort(study):
    before = hashes(study)
    rewrite_same_content(study.raw / "imagesTr" / "case_1.nii.gz")
    assert differences(before, hashes(study)) == every("cohort")
    version = study.version("cohort")
    assert make(study, "cohort")[0].version == version
    assert all_current(study)


def test_an_edited_case_concerns_itself_alone(study):
    before = hashes(study)
    label = make_case("case_1", seed=1).label
    label[5, 4, 3] = 3
    save(study.raw / "labelsTr" / "case_1.nii.gz", label)
    make(study, "cohort")
    concerned = differences(before, hashes(study))
    assert {place for place in concerned if place[0] == "raw_case"} == {("raw_case", "case_1")}


def test_a_known_scanner_concerns_the_evidence_alone(study):
    before = hashes(study)
    (study.raw / "cases.csv").write_text("case_id,scanner\ncase_1,A\n")
    assert differences(before, hashes(study)) == every("cohort")
    make(study, "cohort")
    assert differences(before, hashes(study)) == every("cohort") | every("evidence")
    # what confirms may turn out to be current once the evidence is there
    below = every("evidence") | every("confirmation") | every("cost") | every("experiment_report")
    assert outdated(study) == below | CONFIRMING


def test_a_case_that_is_added_leaves_the_others_as_they_are(study):
    before = hashes(study)
    added = [make_case(f"case_{number}", seed=number) for number in (*range(8), 9)]
    write_msd(study.raw, added)
    more = with_settings(study, {"cohort.donor_cases": (*DONORS, "case_9")})
    make(more, "cohort")
    after = hashes(more)
    assert after["case_slices", "case_9"] is None
    for asset, keys in (("raw_case", DONORS + TESTS), ("augmented_case", DONORS), ("case_model", DONORS)):
        assert all(after[asset, key] == before[asset, key] for key in keys)


def test_a_donor_that_left_outdates_what_still_names_it(study):
    other = with_settings(study, {"cohort.donor_cases": (*DONORS[1:], "case_4")})
    make(other, "cohort")
    states = all_states(other)
    assert set(states["reduced_model"].values()) == {"outdated"}
    assert DONORS[0] not in states["case_slices"]
    # the training set of before names it as long as there is no other plan
    assert DONORS[0] in GRAPH["reduced_model"].inputs(other, "all").made_from["case_slices"]


def test_a_donor_that_becomes_a_test_case_concerns_every_row(tmp_path):
    donors = (*DONORS, "case_4")
    study = make_study(tmp_path, {**LISTS, "cohort.donor_cases": donors})
    pretend_all(study)
    before = hashes(study)
    fewer = with_settings(study, {"cohort.donor_cases": DONORS, "cohort.test_cases": (*TESTS, "case_4")})
    make(fewer, "cohort")
    # the receivers and their slices are the same as before, but surface distances are asked for one case more
    concerned = differences(before, hashes(fewer))
    assert {place for place in concerned if place[0] == "dice_row"} == every("dice_row", donors)
    assert {place for place in concerned if place[0] == "reduced_evaluation"} == every("reduced_evaluation", SETS)


# --- what the records say of the state ---


def all_current(study):
    return {state for states in all_states(study).values() for state in states.values()} == {"current"}


def outdated(study):
    return {
        (asset, key)
        for asset, states in all_states(study).items()
        for key, state in states.items()
        if state == "outdated"
    }


def test_states_of_a_new_study(tmp_path):
    study = make_study(tmp_path, LISTS)
    states = all_states(study)
    assert states["cohort"] == {None: "missing"}
    assert states["case_model"] == {}
    assert states["training_set"] == dict.fromkeys(SETS, "missing")
    make(study, "cohort")
    assert all_states(study)["cohort"] == {None: "current"}
    assert all_states(study)["case_model"] == dict.fromkeys(DONORS, "missing")


def test_all_is_current_once_all_is_made(made):
    assert all_current(made)


def test_everything_below_a_change_is_outdated_and_nothing_else(study):
    give_new_version(study, "case_model", "case_1")
    below = {"dice_matrix", "dendrogram", "case_ranking", "removal_plan", "reduction_report"}
    below |= {
        "evidence",
        "case_effect",
        "confirmation",
        "convergence",
        "cost",
        "fault_detection",
        "experiment_report",
    }
    assert outdated(study) == (
        every("dice_row", ["case_1"])
        | every("early_row", ["case_1"])
        | {(name, None) for name in below}
        | {(name, key) for name in ("training_set", "reduced_model", "reduced_evaluation") for key in SETS}
        | CONFIRMING
        # the case itself, and test cases with what the network of all donors says of them
        | every("case_view", ["case_1", *TESTS])
    )


def test_a_rerun_that_ends_in_the_same_version_makes_all_below_current(study):
    other = with_settings(study, {"plans.memory_gb": 2.0})
    assert ("experiment_report", None) in outdated(other)
    version = study.version("nnunet_plans")
    pretend(other, "nnunet_plans")
    assert not all_current(other)
    as_written(other.path("nnunet_plans"), version=version)
    assert all_current(other)


def test_a_missing_artifact_outdates_what_was_made_from_it(study):
    (study.path("augmented_case", "case_2") / "provenance.json").unlink()
    assert all_states(study)["augmented_case"]["case_2"] == "missing"
    states = all_states(study)["case_model"]
    assert states == {**dict.fromkeys(DONORS, "current"), "case_2": "outdated"}


# --- a study remembers what it was made with ---


@pytest.fixture
def own_profile(tmp_path, monkeypatch):
    monkeypatch.delenv("IDAL_PROFILE", raising=False)
    monkeypatch.delenv("IDAL_DATA_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.yaml").write_text((PROFILE_FOLDER / "tiny.yaml").read_text())
    return "own.yaml"


def test_a_study_is_found_again_from_any_folder(tmp_path, own_profile, monkeypatch):
    Study.open(tmp_path / "data", own_profile, tmp_path / "raw").remember()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = Study.open(tmp_path / "data")
    assert (again.profile.name, again.raw) == ("own", tmp_path / "raw")
    monkeypatch.setenv("IDAL_DATA_DIR", str(tmp_path / "data"))
    assert Study.open().profile_source == str(tmp_path / "own.yaml")


def test_another_profile_does_not_take_over_the_raw_folder(tmp_path, own_profile):
    Study.open(tmp_path / "data", own_profile, tmp_path / "raw").remember()
    assert Study.open(tmp_path / "data", "mini").raw == tmp_path / "data" / "phantom"
    assert Study.open(tmp_path / "data", "mini", tmp_path / "other").raw == tmp_path / "other"


def test_without_anything_a_study_is_the_demo_on_its_phantom(tmp_path, own_profile):
    study = Study.open()
    assert (study.profile.name, study.folder.root) == ("demo", tmp_path / "data")
    assert study.raw == tmp_path / "data" / "phantom"
    assert list(study.removal_sets)[:5] == ["all", "worst_4", "best_4", "worst_cluster", "random_4_r01"]
    study.remember()
    noted = json.loads(without_seal(study.folder.study_file.read_bytes()))
    assert noted == {"profile": "demo", "raw": None, "patients": None}


def test_the_environment_chooses_where_nothing_is_given(tmp_path, own_profile, monkeypatch):
    monkeypatch.setenv("IDAL_PROFILE", "mini")
    monkeypatch.setenv("IDAL_DATA_DIR", str(tmp_path / "there"))
    assert Study.open().profile.name == "mini"
    assert Study.open(profile="tiny").profile.name == "tiny"
    assert Study.open().folder.root == tmp_path / "there"


def test_versions_do_not_depend_on_where_the_data_folder_lies(made, tmp_path):
    other = make_study(tmp_path, LISTS)
    for path in sorted(made.raw.rglob("*")):
        if path.is_file():
            times = path.stat()
            os.utime(other.raw / path.relative_to(made.raw), ns=(times.st_atime_ns, times.st_mtime_ns))
    pretend_all(other)
    assert hashes(other) == hashes(made)
    assert changed(made.profile, {}) == made.profile
    assert content_hash(changed(made.profile, {}).model_dump(mode="json")) == content_hash(
        made.profile.model_dump(mode="json")
    )
