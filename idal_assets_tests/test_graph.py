"""The graph: its shape, and that a change is seen by exactly those artifacts that it concerns."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from idal_assets.artifacts import content_hash
from idal_assets.currency import all_states, inputs_unless_incomplete
from idal_assets.graph import GRAPH
from idal_assets.settings import PROFILE_FOLDER
from idal_assets.study import NotMadeError, Study
from idal_assets_tests.raw_folders import make_case, rewrite_same_content, save, write_msd
from idal_assets_tests.studies import (
    changed,
    give_new_version,
    make_study,
    make_the_cohort,
    pretend,
    pretend_all,
    with_settings,
)

CONTRACT = {
    "cohort": {"cohort": None, "raw_case": "case"},
    "prepare": {"nnunet_plans": None, "case_slices": "case"},
    "baseline": {"baseline_weights": None},
    "donors": {"augmented_case": "donor", "case_model": "donor"},
    "similarity": {"dice_row": "donor", "dice_matrix": None, "dendrogram": None, "case_ranking": None},
    "reduction": {
        "removal_plan": None,
        "training_set": "removal_set",
        "reduced_model": "removal_set",
        "reduced_evaluation": "removal_set",
        "reduction_report": None,
    },
    "report": {"experiment_report": None},
}

DONORS = ("case_0", "case_1", "case_2", "case_3")
TESTS = ("case_5", "case_6")
SETS = ("all", "worst_1", "worst_2", "worst_cluster")
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
def study(tmp_path):
    """Everything made; tests of it may change it."""
    study = make_study(tmp_path, LISTS)
    pretend_all(study)
    return study


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
        assert set(node.made_from) <= set(seen), f"{name} comes before something that it is made from"
        seen.append(name)


def test_every_asset_leads_to_the_report():
    needed = {"experiment_report"}
    for node in reversed(GRAPH.values()):
        if node.name in needed:
            needed |= set(node.made_from)
    assert needed == set(GRAPH)


def test_partitions_follow_from_cohort_and_profile(made):
    keys = {name: node.keys(made) for name, node in GRAPH.items()}
    assert keys["case_slices"] == [*DONORS, *TESTS]
    assert keys["dice_row"] == list(DONORS)
    assert keys["reduced_model"] == list(SETS)
    assert keys["dice_matrix"] == [None]


@pytest.mark.parametrize("module", ["settings", "layout", "artifacts", "study", "graph", "currency", "progress"])
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
        ("variants.count", 3, "augmented_case"),
        ("case_model.learning_rate", 0.5, "case_model"),
        ("inference.tile_step", 0.25, "dice_row reduced_evaluation"),
        ("inference.surface_distances", False, "dice_row reduced_evaluation"),
        ("similarity.scalar", "WT", "dice_matrix reduction_report"),
        ("similarity.distance", "symmetric", "dendrogram"),
        ("similarity.largest_cluster", 0.5, "case_ranking"),
        ("removal.order", "leaves", "removal_plan"),
        ("reduced.loss", "ce", "reduced_model"),
        ("seed", 1, "baseline_weights augmented_case case_model reduced_model"),
        ("compute.precision", "fp32", "baseline_weights case_model dice_row reduced_model reduced_evaluation"),
        ("compute.device", "cpu", ""),
        ("compute.threads", 1, ""),
        ("compute.slices_memory_gb", 1.0, ""),
        ("compute.inference_megapixels", 1.0, ""),
        ("phantom.seed", 1, ""),
        ("name", "other", ""),
        ("description", "other", ""),
    ],
)
def test_a_setting_concerns_exactly(made, setting, value, assets):
    expected = set().union(*(every(asset, GRAPH[asset].keys(made)) for asset in assets.split()))
    assert differences(hashes(made), hashes(with_settings(made, {setting: value}))) == expected


def test_other_sizes_concern_what_they_decide_and_add_their_sets(made):
    fewer = with_settings(made, {"removal.sizes": (1,)})
    concerned = {name for name, key in differences(hashes(made), hashes(fewer)) if key is None}
    assert concerned == {"cohort", "case_ranking", "removal_plan", "reduction_report"}
    more = hashes(with_settings(made, {"removal.sizes": (1, 2, 3)}))
    new = {(asset, "worst_3") for asset in ("training_set", "reduced_model", "reduced_evaluation")}
    assert differences(hashes(made), more) == {(name, None) for name in concerned} | new
    assert more["reduced_model", "worst_3"] is None
    assert more["reduction_report", None] is None


# --- a new version concerns exactly the assets made from it ---


@pytest.mark.parametrize(
    ("asset", "key", "expected"),
    [
        ("cohort", None, every("dice_matrix") | every("experiment_report")),
        ("raw_case", "case_1", every("nnunet_plans") | every("case_slices", ["case_1"])),
        ("raw_case", "case_5", every("case_slices", ["case_5"])),
        (
            "nnunet_plans",
            None,
            every("case_slices", DONORS + TESTS)
            | every("baseline_weights")
            | every("reduced_model", SETS)
            | every("experiment_report"),
        ),
        (
            "case_slices",
            "case_1",
            every("baseline_weights")
            | every("augmented_case", ["case_1"])
            | every("dice_row", DONORS)
            | every("training_set", SETS),
        ),
        ("case_slices", "case_5", every("dice_row", DONORS) | every("reduced_evaluation", SETS)),
        ("baseline_weights", None, every("case_model", DONORS) | every("experiment_report")),
        ("augmented_case", "case_1", every("case_model", ["case_1"])),
        ("case_model", "case_1", every("dice_row", ["case_1"])),
        ("dice_row", "case_1", every("dice_matrix")),
        ("dice_matrix", None, every("dendrogram") | every("case_ranking") | every("experiment_report")),
        ("dendrogram", None, every("case_ranking") | every("removal_plan") | every("experiment_report")),
        ("case_ranking", None, every("removal_plan") | every("experiment_report")),
        (
            "removal_plan",
            None,
            every("training_set", SETS) | every("reduction_report") | every("experiment_report"),
        ),
        ("training_set", "worst_1", every("reduced_model", ["worst_1"]) | every("reduction_report")),
        ("reduced_model", "worst_1", every("reduced_evaluation", ["worst_1"])),
        ("reduced_evaluation", "worst_1", every("reduction_report")),
        ("reduction_report", None, every("experiment_report")),
        ("experiment_report", None, set()),
    ],
)
def test_a_new_version_concerns_exactly(study, asset, key, expected):
    before = hashes(study)
    give_new_version(study, asset, key)
    assert differences(before, hashes(study)) == expected


def test_pretraining_cases_stand_between_the_donors_and_the_baseline(tmp_path):
    study = make_study(tmp_path, {**LISTS, "cohort.pretraining_cases": ("case_4",)})
    pretend_all(study)
    before = hashes(study)
    give_new_version(study, "case_slices", "case_4")
    assert differences(before, hashes(study)) == every("baseline_weights")
    before = hashes(study)
    give_new_version(study, "case_slices", "case_1")
    assert ("baseline_weights", None) not in differences(before, hashes(study))
    before = hashes(study)
    give_new_version(study, "raw_case", "case_4")
    assert differences(before, hashes(study)) == every("nnunet_plans") | every("case_slices", ["case_4"])


def test_nothing_can_be_made_before_what_it_is_made_from(tmp_path):
    study = make_study(tmp_path, LISTS)
    with pytest.raises(NotMadeError, match="cohort has not been made yet; materialize cohort first"):
        GRAPH["raw_case"].keys(study)
    make_the_cohort(study)
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
    assert make_the_cohort(study).version == version
    assert all_current(study)


def test_an_edited_case_concerns_itself_alone(study):
    before = hashes(study)
    label = make_case("case_1", seed=1).label
    label[5, 4, 3] = 3
    save(study.raw / "labelsTr" / "case_1.nii.gz", label)
    make_the_cohort(study)
    concerned = differences(before, hashes(study))
    assert {place for place in concerned if place[0] == "raw_case"} == {("raw_case", "case_1")}


def test_a_case_that_is_added_leaves_the_others_as_they_are(study):
    before = hashes(study)
    added = [make_case(f"case_{number}", seed=number) for number in (*range(8), 9)]
    write_msd(study.raw, added)
    more = with_settings(study, {"cohort.donor_cases": (*DONORS, "case_9")})
    make_the_cohort(more)
    after = hashes(more)
    assert after["case_slices", "case_9"] is None
    for asset, keys in (("raw_case", DONORS + TESTS), ("augmented_case", DONORS), ("case_model", DONORS)):
        assert all(after[asset, key] == before[asset, key] for key in keys)


def test_a_test_case_that_becomes_a_donor_concerns_every_row(study):
    before = hashes(study)
    donors = (*DONORS, TESTS[1])
    other = with_settings(study, {"cohort.donor_cases": donors, "cohort.test_cases": TESTS[:1]})
    make_the_cohort(other)
    assert other.cohort.receivers == [*donors, TESTS[0]]
    # all receivers and their slices are as before, but surface distances are asked for one case less
    concerned = differences(before, hashes(other))
    assert {place for place in concerned if place[0] == "dice_row"} == every("dice_row", donors)


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
    make_the_cohort(study)
    assert all_states(study)["cohort"] == {None: "current"}
    assert all_states(study)["case_model"] == dict.fromkeys(DONORS, "missing")


def test_all_is_current_once_all_is_made(made):
    assert all_current(made)


def test_everything_below_a_change_is_outdated_and_nothing_else(study):
    give_new_version(study, "case_model", "case_1")
    below = {"dice_matrix", "dendrogram", "case_ranking", "removal_plan", "reduction_report", "experiment_report"}
    assert outdated(study) == (
        every("dice_row", ["case_1"])
        | {(name, None) for name in below}
        | {(name, key) for name in ("training_set", "reduced_model", "reduced_evaluation") for key in SETS}
    )


def test_a_rerun_that_ends_in_the_same_version_makes_all_below_current(study):
    other = with_settings(study, {"plans.memory_gb": 2.0})
    assert ("experiment_report", None) in outdated(other)
    version = study.version("nnunet_plans")
    pretend(other, "nnunet_plans")
    assert not all_current(other)
    give_version(other, "nnunet_plans", version)
    assert all_current(other)


def give_version(study, asset, version):
    path = study.path(asset) / "provenance.json"
    record = json.loads(path.read_text()) | {"version": version}
    path.with_name("new").write_text(json.dumps(record))
    path.with_name("new").replace(path)


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
    assert study.removal_sets == ["all", "worst_2", "worst_4", "worst_6", "worst_cluster"]
    study.remember()
    assert json.loads(study.folder.study_file.read_text()) == {"profile": "demo", "raw": None}


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
