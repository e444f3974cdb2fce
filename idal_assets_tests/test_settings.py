"""Profiles: the shipped ones load, a mistake in one is named by its dotted key."""

import re
from collections import Counter
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from idal_assets.imaging.phantom import plan_cases
from idal_assets.profile import PROFILE_FOLDER, ProfileError, load_profile, profile_names, profile_schema
from idal_assets.study.roles import choose_roles

pytestmark = pytest.mark.unit

TRAINING = {"epochs": 1}
SMALLEST = {"baseline": TRAINING, "case_model": TRAINING, "reduced": TRAINING}


def write_profile(folder, values, name="own.yaml"):
    path = folder / name
    path.write_text(yaml.safe_dump(values))
    return path


def test_seven_profiles_are_shipped():
    assert profile_names() == ["demo", "mini", "organ", "organ_phantom", "thesis", "thesis_small", "tiny"]


@pytest.mark.parametrize("name", profile_names())
def test_a_shipped_profile_loads_by_name_and_by_file(name):
    profile = load_profile(name)
    assert profile.name == name
    assert profile.description
    assert load_profile(PROFILE_FOLDER / f"{name}.yaml") == profile


def test_thesis_has_the_numbers_of_the_thesis():
    thesis = load_profile("thesis")
    assert (thesis.cohort.donors, thesis.cohort.test) == (100, 100)
    assert thesis.similarity.mode == "thesis"
    assert (thesis.baseline.epochs, thesis.baseline.iterations_per_epoch) == (30, 250)
    assert (thesis.case_model.epochs, thesis.case_model.iterations_per_epoch) == (100, 250)
    assert thesis.case_model.iterations == 25_000
    assert thesis.candidates.names == ("2d_dice_ce", "2d_ce", "3d_dice_ce")
    assert [thesis.candidates.training(name).epochs for name in thesis.candidates.names] == [30, 30, 16]
    assert [thesis.candidates.training(name).loss for name in thesis.candidates.names] == [
        "dice_ce",
        "ce",
        "dice_ce",
    ]
    of_baseline = thesis.baseline.model_dump(exclude={"weights"})
    assert thesis.candidates.training("2d_dice_ce").model_dump() == of_baseline
    assert thesis.candidates.best_becomes_baseline
    assert thesis.out_of_fold.training == thesis.confirmation.training
    assert thesis.confirmation.training.model_dump() == of_baseline
    assert thesis.reduced.model_dump(exclude={"start"}) == of_baseline
    assert thesis.reduced.start == "scratch"
    assert (thesis.removal.sizes, thesis.removal.order) == ((5, 7, 9), "leaves")
    assert thesis.variants.count == 5
    assert thesis.similarity.distance == "rows"
    assert thesis.raw is None
    assert thesis.phantom is None


def test_the_other_profiles_choose_robustly_and_the_large_ones_have_validation_cases():
    modes = {name: load_profile(name).similarity.mode for name in profile_names()}
    assert modes == {name: "thesis" if name == "thesis" else "robust" for name in profile_names()}
    cohorts = {name: load_profile(name).cohort for name in profile_names()}
    validation = {name: cohort.validation for name, cohort in cohorts.items() if cohort.validation != 0}
    assert validation == {"thesis_small": 30, "organ": None}
    assert cohorts["organ"].validation_share == 0.1
    demo = load_profile("demo")
    found = choose_roles(sorted(plan_cases(demo.phantom)), demo.cohort, Path("raw"))
    assert Counter(found.values()) == {"donor": 20, "test": 32, "validation": 16, "pretraining": 8}
    assert all(("test" in name) == (role != "donor") for name, role in found.items())


@pytest.mark.parametrize("name", ["demo", "mini", "organ_phantom", "tiny"])
def test_other_profiles_train_no_candidates(name):
    profile = load_profile(name)
    assert profile.candidates.names == ()
    assert not profile.candidates.best_becomes_baseline


@pytest.mark.parametrize("name", ["mini", "organ_phantom", "tiny"])
def test_small_profiles_remove_no_more_than_six_cases_allow(name):
    profile = load_profile(name)
    assert profile.cohort.test == 2
    assert profile.cohort.donors is None
    assert max(profile.removal.sizes) + 2 <= 4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"coohrt": {}}, "coohrt: unknown key"),
        ({"cohort": {"donorz": 3}}, "cohort.donorz: unknown key; did you mean donors"),
        ({"baseline": {"epochs": 1, "optimiser": "sgd"}}, "baseline.optimiser: unknown key"),
        ({"baseline": {"epochs": 0}}, "baseline.epochs: .*greater than or equal to 1 .*found 0"),
        ({"baseline": {"epochs": 2.5}}, "baseline.epochs: .*integer.*found 2.5"),
        ({"baseline": {}}, "baseline.epochs: must be given"),
        ({"removal": {"sizes": [5, "many"]}}, "removal.sizes.1: .*found 'many'"),
        ({"removal": {"sizes": [7, 5]}}, r"removal.sizes: .*rise strictly, not \[7, 5\]"),
        ({"removal": {"sizes": [5, 5]}}, "removal.sizes: .*rise strictly"),
        ({"removal": {"sizes": [0, 5]}}, "removal.sizes: .*positive"),
        ({"removal": {"best": [3, 3]}}, "removal.best: .*rise strictly"),
        ({"controls": {"halves": 3}}, "controls: .*come in pairs.*not 3"),
        ({"controls": {"seeds": 2, "random_seeds": 3}}, "controls: .*must not exceed seeds"),
        ({"reduced": {"epochs": 1, "start": "pretraining"}}, "no case pretrains"),
        ({"similarity": {"mode": "thesis"}, "cohort": {"validation": 3}}, "decides without validation cases"),
        ({"out_of_fold": {"folds": 1}}, "out_of_fold.folds: .*take 2 or more, or 0.*found 1"),
        ({"out_of_fold": {"folds": -1}}, "out_of_fold.folds: .*greater than or equal to 0 .*found -1"),
        ({"out_of_fold": None}, "out_of_fold: .*found None"),
        ({"removal": {"sizes": []}}, "removal.sizes: .*at least 1 item"),
        (
            {"phantom": {"train_cases": 3, "faults": 4}},
            r"phantom: .*faults \(4\) must not exceed train_cases \(3\)",
        ),
        ({"candidates": {"names": ["4d"]}}, r"candidates.names.0: .*found '4d'"),
        ({"candidates": {"names": ["2d_ce", "2d_ce"]}}, "candidates: .*names must differ"),
        ({"candidates": {"training_2d": {"epochs": 1, "loss": "ce"}}}, "candidates.training_2d.loss: unknown key"),
        (
            {"candidates": {"names": ["3d_dice_ce"], "best_becomes_baseline": True}},
            "candidates: .*best_becomes_baseline needs a 2D candidate",
        ),
        ({"plans": {"memory_gb": float("inf")}}, "plans.memory_gb: .*finite"),
        ({"plans": {"memory_gb": float("nan")}}, "plans.memory_gb: .*finite"),
        ({"plans": None}, "plans: .*found None"),
    ],
)
def test_a_mistake_is_named_by_its_dotted_key(tmp_path, values, message):
    path = write_profile(tmp_path, {**SMALLEST, **values})
    with pytest.raises(ProfileError, match=message) as error:
        load_profile(path)
    assert str(path) in str(error.value)


def test_all_mistakes_are_told_at_once(tmp_path):
    values = {**SMALLEST, "typo": 1, "cohort": {"test": 0}, "compute": {"device": "tpu"}}
    with pytest.raises(ProfileError) as error:
        load_profile(write_profile(tmp_path, values))
    keys = re.findall(r"^  ([\w.]+):", str(error.value), re.MULTILINE)
    assert sorted(keys) == ["cohort.test", "compute.device", "typo"]


def test_an_unknown_profile_lists_the_known_ones():
    with pytest.raises(ProfileError, match=f"no profile 'thesiss'.* {', '.join(profile_names())} "):
        load_profile("thesiss")


def test_a_missing_profile_file_is_named(tmp_path):
    with pytest.raises(ProfileError, match=r"no profile file .*absent\.yaml"):
        load_profile(tmp_path / "absent.yaml")


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words"])
def test_a_file_without_settings_is_refused(tmp_path, text):
    path = tmp_path / "own.yml"
    path.write_text(text)
    with pytest.raises(ProfileError, match=r"own\.yml holds no settings"):
        load_profile(path)


def test_a_file_that_is_not_yaml_is_refused(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("baseline: [1, 2")
    with pytest.raises(ProfileError, match=r"own\.yaml is not valid YAML"):
        load_profile(path)


def test_an_own_file_gets_its_name_and_the_defaults(tmp_path):
    path = tmp_path / "my-study.yaml"
    # YAML reads 1e-3, without a point, as text
    path.write_text(
        "raw: /somewhere/cases\n"
        "baseline: &training {epochs: 3, iterations_per_epoch: 7, learning_rate: 1e-3}\n"
        "case_model: *training\n"
        "reduced: *training\n"
    )
    profile = load_profile(path)
    assert profile.name == "my-study"
    assert profile.raw is not None
    assert profile.raw.as_posix() == "/somewhere/cases"
    assert profile.baseline.learning_rate == 0.001
    assert profile.baseline.iterations == 21
    of_baseline = profile.baseline.model_dump(exclude={"weights"})
    assert profile.confirmation.training.model_dump() == of_baseline
    assert profile.case_model.iterations == 21
    assert profile.reduced.iterations == 21
    assert profile.out_of_fold.training.model_dump() == of_baseline
    assert profile.out_of_fold.names == ["fold_1", "fold_2", "fold_3", "fold_4", "fold_5"]
    assert profile.removal.sizes == (5, 7, 9)
    assert profile.cohort.minimum_donors == 4


def test_a_loaded_profile_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        load_profile("tiny").baseline.epochs = 5


# --- the schema for editors ---


def test_every_setting_is_described() -> None:
    sections = profile_schema()["$defs"].items()
    silent = [
        f"{section}.{name}"
        for section, schema in sections
        for name, setting in schema["properties"].items()
        if not setting.get("description")
    ]
    assert silent == []


@pytest.mark.parametrize("name", profile_names())
def test_the_schema_takes_the_shipped_profiles(name):
    assert (
        list(misfits(yaml.safe_load((PROFILE_FOLDER / f"{name}.yaml").read_text()), profile_schema(), name)) == []
    )


def test_the_schema_asks_for_what_loading_asks_for(tmp_path):
    assert sorted(profile_schema()["required"]) == sorted(SMALLEST)
    load_profile(write_profile(tmp_path, SMALLEST))
    assert list(misfits({"baseline": {"epoch": 1}}, profile_schema(), "own")) == [
        "own: case_model is absent",
        "own: reduced is absent",
        "own.baseline: epochs is absent",
        "own.baseline: epoch is unknown",
    ]


def misfits(values, schema, place, whole=None):
    """Keys that are unknown or absent by a JSON schema of objects in objects."""
    whole = whole or schema
    known = schema["properties"]
    yield from (f"{place}: {key} is absent" for key in schema.get("required", ()) if key not in values)
    for key, value in values.items():
        if key not in known:
            yield f"{place}: {key} is unknown"
            continue
        choices = [known[key], *known[key].get("anyOf", [])]
        for section in [choice["$ref"] for choice in choices if "$ref" in choice]:
            yield from misfits(value, whole["$defs"][section.rpartition("/")[2]], f"{place}.{key}", whole)
