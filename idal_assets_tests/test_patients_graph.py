"""A small study with patients from the raw folder to their segmentations: the contract, leaks, and the command."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from filelock import FileLock

from idal_assets.cli import main
from idal_assets.imaging.phantom import write_phantom
from idal_assets.nnunet.opinions import KEPT_OPINIONS_FILE, KEPT_SIGNS_FILE, load_labels
from idal_assets.profile import load_profile
from idal_assets.report.html import ReportSection
from idal_assets.steps.adaptation import ARMS_FILE, CHOICES_FILE, RULE_FILE, load_arms, load_choices
from idal_assets.steps.donor_choice import CLASSIFIER_FILE
from idal_assets.steps.opinions import OPINIONS_FILE
from idal_assets.steps.patient_network import (
    DOUBT_FILE,
    SEGMENTATION_FILE,
    load_decision,
    load_patient,
    patient_sections,
)
from idal_assets.study.graph import GRAPH
from idal_assets.study.making import Task, make, make_all, shown
from idal_assets.study.study import Study
from idal_assets_tests.conftest import made_once
from idal_assets_tests.studies import as_written, changed, with_settings

PATIENTS = ["phantom_patient_01", "phantom_patient_02"]
TESTS = ["phantom_test_01", "phantom_test_02"]
CHANGES: dict[str, Any] = {
    "cohort.test_cases": tuple(TESTS),
    "cohort.test": None,
    "adaptation.counts": (1, 2),
    "adaptation.compared": ("merged", "ensemble", "tuned"),
    "adaptation.random_draws": 2,
    "inference.surface_distances": False,
}


def open_study(root: Path) -> Study:
    return Study(
        changed(load_profile("tiny"), CHANGES), root / "data", root / "raw", "tiny", root / "raw" / "imagesTs"
    )


def make_world(root: Path) -> None:
    phantom = load_profile("tiny").phantom
    assert phantom is not None
    settings = phantom.model_copy(update={"train_cases": 6, "patients": 2})
    write_phantom(root / "raw", settings)
    study = open_study(root)
    for asset in ("adaptation_evidence", "patient_segmentation"):
        make_all(study, asset)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "patients", make_world)


@pytest.fixture(scope="module")
def study(root: Path) -> Study:
    return open_study(root)


@pytest.fixture
def own(root: Path, tmp_path: Path) -> Study:
    """The same in a place where it may be changed."""
    shutil.copytree(root, tmp_path / "own", copy_function=shutil.copy2)
    return open_study(tmp_path / "own")


class TestPatients:
    @pytest.mark.parametrize("patient", PATIENTS)
    def test_the_segmentation_lies_where_the_image_does(self, study: Study, patient: str):
        folder = study.path("patient_segmentation", patient)
        image = nib.load(study.raw / "imagesTs" / f"{patient}.nii.gz")
        for name in (SEGMENTATION_FILE, DOUBT_FILE):
            found = nib.load(folder / name)
            assert found.shape == image.shape[:3]
            np.testing.assert_array_equal(found.affine, image.affine)
        labels, doubt = (
            np.asanyarray(nib.load(folder / name).dataobj) for name in (SEGMENTATION_FILE, DOUBT_FILE)
        )
        assert set(np.unique(labels)) <= {0, *study.cohort.anatomy.labels}
        assert 0 <= doubt.min() <= doubt.max() <= 1

    @pytest.mark.parametrize("patient", PATIENTS)
    def test_what_is_said_keeps_the_contract(self, study: Study, patient: str):
        said = load_patient(study.path("patient_segmentation", patient))
        assert said["case_id"] == patient
        assert said["adapted"] is bool(said["donors"])
        assert said["light"] in ("believe", "look", "by_hand")
        assert said["mode"] == ("merged" if said["adapted"] else "baseline")
        for donor in said["donors"]:
            assert donor.keys() == {"donor", "weight", "predicted_dice"}
            assert donor["donor"] in study.cohort.donors
        for region, quality in said["quality"].items():
            assert region in study.cohort.anatomy.regions
            assert 0 <= quality["low"] <= quality["predicted"] <= quality["high"] <= 1
        assert said["versions"]["segmentation"] == study.version("patient_segmentation", patient)
        assert said["versions"]["adapted_model"] == study.version("adapted_model", patient)

    def test_pages(self, study: Study):
        for asset in ("patient_opinions", "adapted_model", "patient_segmentation"):
            assert shown(study, asset, PATIENTS[0])
        for asset in ("similarity_classifier", "adaptation_rule", "adaptation_evidence"):
            assert shown(study, asset)

    def test_the_report_names_each_patient(self, study: Study):
        class Report:
            def keys(self, asset: str) -> list[str]:
                return PATIENTS

            def path(self, asset: str, key: str) -> Path:
                return study.path(asset, key)

        (section,) = patient_sections(Report())  # type: ignore[arg-type]
        assert isinstance(section, ReportSection)
        assert [row[0] for row in section.tables[0].rows] == PATIENTS
        assert len(section.pictures) == len(PATIENTS)


def adapting(rule: dict[str, Any]) -> dict[str, Any]:
    """The rule of cases that gained a lot, whoever the donors were."""
    for gain in rule["gains"].values():
        gain.update(intercept=0.2, slope=0.0, spread=0.001, cases=30)
    return rule


@pytest.mark.parametrize("mode", ["merged", "ensemble", "tuned", "scratch"])
def test_every_mode_makes_a_network_that_segments(own: Study, mode: str):
    file = own.path("adaptation_rule") / RULE_FILE
    file.write_text(json.dumps(adapting(json.loads(file.read_text()))))
    as_written(file.parent)
    changes = {"mode": mode, "compared": tuple({"merged", mode})}
    other = Study(
        changed(own.profile, {f"adaptation.{name}": value for name, value in changes.items()}),
        *(own.folder.root, own.raw, own.profile_source, own.given_patients),
    )
    (patient, *_) = PATIENTS
    shutil.rmtree(other.path("adapted_model", patient))
    make(other, "adapted_model", patient)
    make(other, "patient_segmentation", patient)
    found = load_decision(other.path("adapted_model", patient))
    assert (found["adapted"], found["mode"]) == (True, mode)
    assert sum(one["weight"] for one in found["donors"]) == pytest.approx(1)
    for folder in found["folders"]:
        assert (other.folder.root / folder / "fold_all" / "checkpoint_final.pth").is_file()
        assert (other.folder.root / folder / "plans.json").is_file()
    assert load_patient(other.path("patient_segmentation", patient))["adapted"]


class TestPlaying:
    def test_no_case_is_played_with_its_own_network(self, study: Study):
        for donor in study.cohort.donors:
            opinions = pd.read_parquet(study.path("case_opinions", donor) / OPINIONS_FILE)
            assert donor not in set(opinions["model"])
            assert donor not in load_choices(study.path("played_case", donor))["advantages"]

    def test_the_arms_of_a_test_case(self, study: Study):
        arms = load_arms(study.path("played_case", TESTS[0]))
        found = set(arms[["arm", "mode", "count", "draw"]].itertuples(index=False, name=None))
        expected = {("baseline", "merged", 0, 0)}
        for mode in ("merged", "ensemble", "tuned"):
            for count in (1, 2):
                names = ("classifier", "best", "agreement", "image", "oracle")
                expected |= {(name, mode, count, 0) for name in names}
                expected |= {("random", mode, count, draw) for draw in (1, 2)}
        everyone = len(study.cohort.donors)
        expected |= {("all", "merged", everyone, 0), ("all", "ensemble", everyone, 0)}
        assert found == expected

    def test_a_donor_is_played_with_the_choice_alone(self, study: Study):
        arms = load_arms(study.path("played_case", study.cohort.donors[0]))
        assert set(arms["arm"]) == {"baseline", "classifier"}

    def test_the_best_by_true_dice_is_the_one_with_the_highest(self, study: Study):
        rows = pd.concat(
            [pd.read_parquet(study.path("dice_row", name) / "row.parquet") for name in study.cohort.donors]
        )
        regions = study.cohort.anatomy.scored("regions")
        own = rows[(rows["receiver"] == TESTS[0]) & rows["region"].isin(regions) & (rows["tp"] + rows["fn"] > 0)]
        best = own.groupby("donor")["dice"].mean().idxmax()
        arms = load_choices(study.path("played_case", TESTS[0]))["arms"]
        (oracle,) = [one for one in arms if (one["name"], one["mode"], one["count"]) == ("oracle", "merged", 1)]
        assert list(oracle["donors"]) == [best]


def swap_labels(raw: Path, names: list[str]) -> None:
    one, other = (raw / "labelsTr" / f"{name}.nii.gz" for name in names)
    affines = [nib.load(path).affine for path in (one, other)]
    labels = [np.asanyarray(nib.load(path).dataobj) for path in (one, other)]
    for path, label, affine in zip((one, other), reversed(labels), affines, strict=True):
        nib.save(nib.Nifti1Image(label, affine), path)


def test_hidden_labels_change_nothing_but_scores(study: Study, own: Study):
    swap_labels(own.raw, TESTS)
    make_all(own, "adaptation_evidence")
    for name in TESTS:
        assert own.version("case_slices", name) != study.version("case_slices", name)
        before, after = (one.path("case_opinions", name) for one in (study, own))
        np.testing.assert_array_equal(load_labels(before), load_labels(after))
        tables = [pd.read_parquet(folder / OPINIONS_FILE) for folder in (before, after)]
        pd.testing.assert_frame_equal(*tables)
        before, after = (one.path("played_case", name) for one in (study, own))
        choices = [json.loads((folder / CHOICES_FILE).read_text()) for folder in (before, after)]
        assert choices[0]["advantages"] == choices[1]["advantages"]
        # only the oracle looks
        blind = [[arm for arm in one["arms"] if arm["name"] != "oracle"] for one in choices]
        assert blind[0] == blind[1]
        arms = [pd.read_parquet(folder / ARMS_FILE).query("arm != 'oracle'") for folder in (before, after)]
        known = ["agreement", "lowest", "with_others", "confidence", "turned"]
        pd.testing.assert_frame_equal(arms[0][known], arms[1][known])
        assert (arms[0]["tp"] != arms[1]["tp"]).any()
    for asset, file in (("similarity_classifier", CLASSIFIER_FILE), ("adaptation_rule", RULE_FILE)):
        assert (study.path(asset) / file).read_bytes() == (own.path(asset) / file).read_bytes()
        assert study.version(asset) == own.version(asset)


class TestOpinions:
    RECEIVER = TESTS[0]

    def ask(self, study: Study, monkeypatch: pytest.MonkeyPatch) -> tuple[int, pd.DataFrame, np.ndarray]:
        """Makes the opinions of a case: how many networks were asked, and what they say."""
        from idal_assets.nnunet.prediction import Predictor
        from idal_assets.steps.opinions import ask_about_case

        asked = []
        take = Predictor.take
        monkeypatch.setattr(Predictor, "take", lambda self, weights: asked.append(1) or take(self, weights))
        node, draft = GRAPH["case_opinions"], study.folder.root / "draft"
        draft.mkdir(exist_ok=True)
        task = Task(study, node, self.RECEIVER, node.inputs(study, self.RECEIVER), draft)
        ask_about_case(task)
        return len(asked), pd.read_parquet(task.folder / OPINIONS_FILE), load_labels(task.folder)

    @staticmethod
    def forget(study: Study, donors: list[str]) -> None:
        """As if the rows of these donors had been made before anybody wanted to play cases."""
        for donor in donors:
            folder = study.path("dice_row", donor)
            (folder / KEPT_SIGNS_FILE).unlink()
            as_written(folder)

    def expected(self, study: Study) -> tuple[pd.DataFrame, np.ndarray]:
        folder = study.path("case_opinions", self.RECEIVER)
        return pd.read_parquet(folder / OPINIONS_FILE), load_labels(folder)

    def test_what_rows_keep_is_what_asking_says(self, own: Study, monkeypatch: pytest.MonkeyPatch):
        table, labels = self.expected(own)
        shutil.rmtree(own.path("case_opinions", self.RECEIVER))
        donors = own.cohort.donors
        for forgotten, networks in ([], 1), (donors[:2], 3), (donors[2:], 1 + len(donors)):
            self.forget(own, forgotten)
            asked, found, said = self.ask(own, monkeypatch)
            assert asked == networks
            pd.testing.assert_frame_equal(found, table)
            np.testing.assert_array_equal(said, labels)

    def test_another_network_leaves_the_other_opinions_as_they_are(
        self, own: Study, monkeypatch: pytest.MonkeyPatch
    ):
        self.forget(own, own.cohort.donors)
        before, _ = self.expected(own)
        record = own.path("case_opinions", self.RECEIVER) / OPINIONS_FILE
        # as if its network were a new one
        new = before["model"] == own.cohort.donors[0]
        before.assign(model_version=before["model_version"].mask(new, "old")).to_parquet(record, index=False)
        as_written(record.parent)
        asked, found, _ = self.ask(own, monkeypatch)
        assert asked == 1
        pd.testing.assert_frame_equal(found, before)

    def test_rows_by_other_settings_are_not_read(self, own: Study, monkeypatch: pytest.MonkeyPatch):
        other = with_settings(own, {"inference.tile_step": 0.25})
        asked, _, _ = self.ask(other, monkeypatch)
        assert asked == 1 + len(own.cohort.donors)

    def test_a_row_that_is_made_anew_keeps_what_it_takes_over(self, own: Study):
        donor, raw = own.cohort.donors[0], own.raw
        folder = own.path("dice_row", donor)
        before = json.loads((folder / KEPT_SIGNS_FILE).read_text())["cases"]
        swap_labels(raw, TESTS)
        make_all(own, "case_slices")
        make(own, "dice_row", donor)
        after = json.loads((folder / KEPT_SIGNS_FILE).read_text())["cases"]
        assert after.keys() == before.keys()
        assert {name for name in before if before[name] != after[name]} == set(TESTS)
        with np.load(folder / KEPT_OPINIONS_FILE) as labels:
            assert set(labels.files) == set(own.cohort.receivers)

    def test_nothing_is_kept_where_nobody_plays(self, own: Study):
        donor = own.cohort.donors[0]
        version = own.version("dice_row", donor)
        shutil.rmtree(own.path("dice_row", donor))
        other = with_settings(own, {"adaptation.counts": ()})
        make(other, "dice_row", donor)
        assert not (other.path("dice_row", donor) / KEPT_SIGNS_FILE).exists()
        assert other.version("dice_row", donor) == version


class TestCommand:
    @staticmethod
    def run(study: Study, out: Path, *patients: Path) -> Any:
        arguments = ["segment", *map(str, patients), "--data-dir", str(study.folder.root), "--out", str(out)]
        study.remember()
        return CliRunner().invoke(main, [*arguments, "--profile", str(profile_file(study))])

    def test_it_says_the_same_as_the_study(self, own: Study, tmp_path: Path):
        (patient, *_) = PATIENTS
        alone = tmp_path / "given" / f"{patient}.nii.gz"
        alone.parent.mkdir()
        shutil.copyfile(own.raw / "imagesTs" / alone.name, alone)
        shutil.copyfile(own.raw / "dataset.json", alone.parent / "dataset.json")
        found = self.run(own, tmp_path / "out", alone)
        assert found.exit_code == 0, found.output
        assert patient in found.output
        names = {path.name for path in (tmp_path / "out" / patient).iterdir()}
        assert names == {"segmentation.nii.gz", "doubt.nii.gz", "patient.json", "patient.png", "patient.html"}
        ours = load_patient(own.path("patient_segmentation", patient))
        said = load_patient(tmp_path / "out" / patient)
        assert {name: said[name] for name in ("donors", "quality", "light")} == {
            name: ours[name] for name in ("donors", "quality", "light")
        }
        voxels = [
            np.asanyarray(nib.load(folder / SEGMENTATION_FILE).dataobj)
            for folder in (tmp_path / "out" / patient, own.path("patient_segmentation", patient))
        ]
        np.testing.assert_array_equal(*voxels)

    def test_what_a_killed_process_left_goes_and_what_another_works_in_stays(self, own: Study, tmp_path: Path):
        unfinished = own.folder.unfinished
        left, in_use = (unfinished / f"segment-{name}" for name in ("left", "used"))
        for folder in (left, in_use):
            (folder / "patient_case").mkdir(parents=True)
        with FileLock(in_use / "in_use.lock"):
            assert self.run(own, tmp_path / "out", own.raw / "imagesTs" / f"{PATIENTS[0]}.nii.gz").exit_code == 0
        assert list(unfinished.glob("segment-*")) == [in_use]

    def test_a_bad_patient_is_refused_by_name_and_the_others_go_on(self, own: Study, tmp_path: Path):
        given = tmp_path / "given"
        shutil.copytree(own.raw / "imagesTs", given)
        shutil.copyfile(own.raw / "dataset.json", given / "dataset.json")
        bad = nib.load(given / f"{PATIENTS[0]}.nii.gz")
        values = np.asanyarray(bad.dataobj).astype(np.float32)
        values[3, 3, 3] = np.nan
        nib.save(nib.Nifti1Image(values, bad.affine), given / f"{PATIENTS[0]}.nii.gz")
        found = self.run(own, tmp_path / "out", given)
        assert found.exit_code == 1
        assert "Refused" in found.output
        assert PATIENTS[0] in found.output.split("Refused", 1)[1]
        assert not (tmp_path / "out" / PATIENTS[0]).exists()
        assert (tmp_path / "out" / PATIENTS[1] / "segmentation.nii.gz").is_file()

    def test_what_another_version_of_the_package_made_is_not_read(
        self, own: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        node = GRAPH["similarity_classifier"]
        monkeypatch.setitem(GRAPH, node.name, replace(node, code="that of tomorrow"))
        found = self.run(own, tmp_path / "out", own.raw / "imagesTs")
        assert found.exit_code == 1
        assert "similarity_classifier" in found.output
        assert "made by another version of idal-assets" in found.output

    def test_without_a_study_it_says_what_to_do(self, tmp_path: Path, own: Study):
        empty = Study(own.profile, tmp_path / "empty", own.raw, "tiny")
        found = self.run(empty, tmp_path / "out", own.raw / "imagesTs")
        assert found.exit_code == 1
        assert "holds no study; run idal run there first" in found.output


def profile_file(study: Study) -> Path:
    """The study's profile as a file."""
    import yaml

    path = study.folder.root.parent / "profile.yaml"
    path.write_text(yaml.safe_dump(study.profile.model_dump(mode="json", exclude={"name"})))
    return path
