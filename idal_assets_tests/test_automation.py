"""What reruns when the data, a setting or the code change: exactly what must, once, and by itself."""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
import yaml
from rich.progress import Progress as Bars

from idal_assets.imaging.case import CaseError
from idal_assets.orchestration.automation import REASON_TAG, conditions_are_on
from idal_assets.orchestration.definitions import build_definitions
from idal_assets.orchestration.instance import open_instance
from idal_assets.orchestration.resources import StudyResource
from idal_assets.orchestration.runner import Runner
from idal_assets.profile import PROFILE_FOLDER
from idal_assets.settings import AutomationSettings
from idal_assets.store.artifacts import Provenance
from idal_assets.study.currency import all_states, due, other_training_cases, survey
from idal_assets.study.graph import GRAPH
from idal_assets.study.making import make
from idal_assets_tests.conftest import idal
from idal_assets_tests.raw_folders import make_case, rewrite_same_content, save, write_msd
from idal_assets_tests.studies import make_study, pretend, pretend_all, with_settings
from idal_assets_tests.worlds import (
    DONORS,
    NEW,
    SETS,
    TESTS,
    World,
    after_edited_test_case,
    finished_world,
    once,
)

pytestmark = [pytest.mark.graph, pytest.mark.usefixtures("blank_pictures")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_world(tmp_path_factory)


@pytest.fixture
def world(finished: Path, tmp_path: Path) -> Iterator[World]:
    """A finished study whose conditions have seen it once."""
    shutil.copytree(finished, tmp_path / "world", copy_function=shutil.copy2)
    world = World(tmp_path / "world")
    # The sensor only sees to the cohort where the conditions are on; here they are, in the profile.
    world.change_profile(automation={"conditions": "running"})
    world.reload()
    world.study.remember()
    with world.instance:
        assert world.requested() == []
        yield world


# --- what happens, and what reruns ---


OF_PATIENT = ("patient_case", "patient_slices", "patient_opinions", "adapted_model", "patient_segmentation")


def test_a_touched_file_leads_to_nothing_but_the_look(world: World) -> None:
    before = world.materializations()
    rewrite_same_content(world.raw / "imagesTr" / f"{DONORS[1]}.nii.gz")
    world.look()
    assert world.requested() == []
    assert world.materializations() - before == once("cohort")
    assert world.all_current()


def test_an_edited_test_case_trains_and_decides_nothing(world: World) -> None:
    before = world.materializations()
    world.edit_label(TESTS[0])
    world.look()
    world.settle()
    assert world.materializations() - before == after_edited_test_case(TESTS[0], DONORS)
    assert world.cells_computed("dice_row") == dict.fromkeys(DONORS, 1)
    assert world.cells_computed("reduced_evaluation") == dict.fromkeys(SETS, 1)
    assert world.all_current()


def test_a_case_that_comes_or_goes_is_a_partition_and_requested(world: World) -> None:
    world.add_case(NEW, like=DONORS[0])
    world.look()
    assert NEW in world.instance.get_dynamic_partitions("donor")
    # of a donor whose place is settled there is nothing to make, so it waits for nothing
    assert world.requested() == [("raw_case", NEW), ("settled_row", NEW)]
    world.remove_case(NEW)
    world.look()
    assert NEW not in world.instance.get_dynamic_partitions("donor")
    assert world.requested() == []
    assert world.all_current()


def test_patients_that_come_change_and_go_make_nothing_of_the_study_but_the_report(world: World) -> None:
    one, other = (world.add_patient(name, like) for name, like in (("P1", DONORS[0]), ("P2", TESTS[0])))
    before = world.materializations()
    world.change_profile(cohort={"patients": str(one.parent)})
    world.settle()
    world.look()
    # the conditions notice that there is a folder now, before anybody looks into it
    listed = once("patient_list", "experiment_report")
    assert world.materializations() - before == listed + once(*OF_PATIENT, keys=["P1", "P2"])
    assert world.all_current()
    before = world.materializations()
    world.add_patient("P1", like=DONORS[1])
    other.unlink()
    world.look()
    assert world.instance.get_dynamic_partitions("patient") == ["P1"]
    world.settle()
    assert world.materializations() - before == listed + once(*OF_PATIENT, keys=["P1"])
    assert world.all_current()
    before = world.materializations()
    world.add_patient("P3", like=DONORS[2])
    made = Runner(world.study, world.instance, Bars(disable=True)).run()
    assert made.made == dict.fromkeys(("patient_list", *OF_PATIENT, "experiment_report"), 1)
    assert world.all_current()


def test_another_scalar_reruns_the_matrix_but_no_row(world: World) -> None:
    world.change_profile(similarity={"scalar": "WT"})
    # the cohort, to see that the dataset has such a region
    assert world.requested() == [("cohort", None)]
    world.materialize("cohort", by_itself=True)
    assert world.requested() == [("baseline_comparison", None), ("dice_matrix", None)]


def test_another_colour_or_switch_reruns_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from idal_assets.plots import style

    for name, colour in vars(style).items():
        if name.isupper() and isinstance(colour, str) and colour.startswith("#"):
            monkeypatch.setattr(style, name, "#123456")
    world.change_profile(automation={"raw_folder": "running", "seconds_between_looks": 5})
    before = world.materializations()
    world.settle()
    assert world.materializations() == before


def test_a_risen_code_version_reruns_its_asset_and_what_follows(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A node is frozen, and its asset holds on to it.
    monkeypatch.setitem(vars(GRAPH["reduction_report"]), "code", "next")
    before = world.materializations()
    world.settle()
    assert world.materializations() - before == once("reduction_report", "experiment_report")


def test_a_failed_run_is_not_repeated_before_something_changes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from idal_assets.steps import donors

    def fail(*arguments: Any) -> None:
        raise ValueError("not enough memory")

    world.change_profile(case_model={"iterations_per_epoch": 3})
    with monkeypatch.context() as patch:
        patch.setattr(donors, "train_case_model", fail)
        asked = world.requested()
        places = [place for place in asked if place[0] == "case_model"]
        assert places == [("case_model", donor) for donor in DONORS]
        assert not any(world.materialize(*place, by_itself=True) for place in places)
        # what trains them once more does not need the models
        assert all(world.materialize(*place, by_itself=True) for place in asked if place not in places)
        assert world.requested() == []
        assert world.requested() == []
    world.change_profile(case_model={"iterations_per_epoch": 4})
    assert world.requested() == asked


def test_what_the_instance_lost_is_recorded_again_but_not_made(world: World) -> None:
    asset = dg.AssetKey("case_slices")
    world.instance.wipe_assets([asset])
    before = world.made()
    world.settle()
    assert len(world.instance.fetch_materializations(asset, limit=100).records) == len(DONORS + TESTS)
    assert world.made() == before


# --- plans and baseline: pinned or follow ---

BASELINE = "baseline_weights"


def test_pinned_baseline_stays_until_someone_materializes_it(world: World) -> None:
    version = world.study.version(BASELINE)
    world.edit_label(DONORS[0])
    world.look()
    world.materialize("raw_case", DONORS[0])
    world.materialize("case_slices", DONORS[0])
    assert other_training_cases(world.study) == {"nnunet_plans": [DONORS[0]], BASELINE: [DONORS[0]]}
    assert all_states(world.study)[BASELINE] == {None: "current"}
    assert (BASELINE, None) not in world.requested()
    status = idal("status", "--data-dir", world.study.folder.root).stdout
    assert "baseline_weights is pinned and was made before 1 of its training cases" in status
    assert Runner(world.study, world.instance, Bars(disable=True)).run({"nnunet_plans", BASELINE}).made == {}
    assert world.materialize(BASELINE, by_itself=True)
    assert world.study.version(BASELINE) == version
    assert world.materialize(BASELINE)
    assert world.study.version(BASELINE) != version
    assert BASELINE not in other_training_cases(world.study)
    assert ("case_model", DONORS[1]) in world.requested()


def test_a_setting_of_their_own_reruns_pinned_plans_and_baseline(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    pretend_all(study)
    assert due(survey(study)) == {}
    assert list(due(survey(with_settings(study, {"plans.memory_gb": 2.0})))) == ["nnunet_plans"]
    assert list(due(survey(with_settings(study, {"baseline.epochs": 3})))) == [BASELINE]


@pytest.mark.parametrize(("policy", "concerned"), [("pinned", set()), ("follow", {"nnunet_plans"})])
def test_the_policy_decides_whether_training_cases_matter(tmp_path: Path, policy: str, concerned: set) -> None:
    study = make_study(tmp_path, {"automation.plans_and_baseline": policy})
    pretend_all(study)
    donor, test = study.cohort.donors[0], study.cohort.tests[0]
    for case in (donor, test):
        label = make_case(case, seed=7).label
        label[5, 4, 3] = 3
        save(study.raw / "labelsTr" / f"{case}.nii.gz", label)
    make(study, "cohort")
    pretend(study, "raw_case", test)
    assert not concerned & due(survey(study)).keys(), "no network learns from a test case"
    pretend(study, "raw_case", donor)
    assert due(survey(study)).keys() & {"nnunet_plans"} == concerned


def test_a_following_baseline_is_made_anew(tmp_path: Path) -> None:
    study = make_study(tmp_path, {"automation.plans_and_baseline": "follow"})
    pretend_all(study)
    donor = study.cohort.donors[0]
    record = study.path("case_slices", donor) / "provenance.json"
    found = Provenance.model_validate_json(record.read_bytes()).model_copy(update={"version": "edited"})
    record.unlink()
    record.write_text(found.model_dump_json())
    assert BASELINE in due(survey(study))
    pinned = with_settings(study, {"automation.plans_and_baseline": "pinned"})
    assert BASELINE not in due(survey(pinned))
    assert other_training_cases(study) == {}
    assert other_training_cases(pinned) == {BASELINE: [donor]}


# --- the sensor, the schedule and their switches ---


AN_HOUR_AGO = time.time() - 3600


class Watched:
    """A study of records alone, its sensor and its schedule."""

    def __init__(self, folder: Path, patients: Path | None = None, **automation: Any) -> None:
        tiny = yaml.safe_load((PROFILE_FOLDER / "tiny.yaml").read_text())
        profile = folder / "own.yaml"
        own = {
            "automation": {"settle_seconds": 0, **automation},
            "cohort": {**tiny["cohort"], "patients": str(patients) if patients else None},
        }
        profile.write_text(yaml.safe_dump({**tiny, **own}))
        study = make_study(folder)
        self.resource = StudyResource(data_dir=str(study.folder.root), profile=str(profile), raw=str(study.raw))
        self.study = self.resource.open()
        self.study.remember()
        for file in (file for file in self.study.raw.rglob("*") if file.is_file()):
            os.utime(file, (AN_HOUR_AGO, AN_HOUR_AGO))
        pretend_all(self.study)
        self.instance = open_instance(self.study.folder)
        self.definitions = build_definitions(self.resource)
        self.cursor: str | None = None

    def tick(self) -> dg.SensorResult:
        sensor = self.definitions.resolve_sensor_def("raw_folder")
        found = sensor(dg.build_sensor_context(instance=self.instance, cursor=self.cursor))
        self.cursor = found.cursor or self.cursor
        return found

    def night(self) -> dg.RunRequest | dg.SkipReason:
        schedule = self.definitions.resolve_schedule_def("nightly")
        return schedule(dg.build_schedule_context(instance=self.instance))

    def edit(self, case: str = "case_1") -> None:
        label = make_case(case, seed=1).label
        label[5, 4, 3] = 3
        save(self.study.raw / "labelsTr" / f"{case}.nii.gz", label)

    def run_of(self, request: dg.RunRequest, status: dg.DagsterRunStatus) -> dg.DagsterRun:
        job = self.definitions.resolve_job_def(request.job_name)
        return self.instance.create_run_for_job(job, tags=request.tags, status=status)


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def why(found: dg.SensorResult) -> str:
    assert not found.run_requests
    return found.skip_reason.skip_message


def test_the_sensor_is_silent_while_nothing_changes(watched: Watched) -> None:
    assert why(watched.tick()) == "Everything is current"
    assert watched.night().skip_message == "Everything is current"


def test_a_change_is_requested_once_two_looks_are_alike(watched: Watched) -> None:
    watched.edit()
    assert "changed" in why(watched.tick())
    watched.edit("case_2")
    assert "changed" in why(watched.tick())
    (request,) = watched.tick().run_requests
    assert request.job_name == "full_experiment"
    assert request.run_key == request.tags[REASON_TAG]


def test_a_file_written_a_moment_ago_is_left_alone(tmp_path: Path) -> None:
    watched = Watched(tmp_path, settle_seconds=60)
    watched.edit()
    watched.tick()
    assert "still being written: labelsTr/case_1.nii.gz" in why(watched.tick())
    assert "still being written" in watched.night().skip_message
    earlier = time.time() - 61
    os.utime(watched.study.raw / "labelsTr" / "case_1.nii.gz", (earlier, earlier))
    watched.tick()
    assert len(watched.tick().run_requests) == 1
    assert isinstance(watched.night(), dg.RunRequest)


@pytest.mark.parametrize("fate", ["away", "empty"])
def test_a_folder_that_is_away_is_an_error_and_no_case_is_removed(watched: Watched, fate: str) -> None:
    watched.study.raw.rename(watched.study.raw.with_name("elsewhere"))
    if fate == "empty":
        watched.study.raw.mkdir()
    for _ in range(2):
        with pytest.raises(CaseError, match=str(watched.study.raw)):
            watched.tick()
    with pytest.raises(CaseError, match=str(watched.study.raw)):
        watched.night()


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED])
def test_requests_do_not_pile_up(watched: Watched, status: dg.DagsterRunStatus) -> None:
    watched.edit()
    watched.tick()
    (request,) = watched.tick().run_requests
    running = watched.run_of(request, status)
    assert running.run_id in why(watched.tick())
    assert running.run_id in watched.night().skip_message
    watched.edit("case_2")
    watched.tick()
    assert running.run_id in why(watched.tick())


def test_what_failed_is_not_requested_again_before_something_changes(watched: Watched) -> None:
    watched.edit()
    watched.tick()
    (request,) = watched.tick().run_requests
    failed = watched.run_of(request, dg.DagsterRunStatus.FAILURE)
    assert failed.run_id in why(watched.tick())
    watched.edit("case_2")
    watched.tick()
    (again,) = watched.tick().run_requests
    assert again.run_key != request.run_key


def test_a_changed_setting_is_noticed_without_a_changed_file(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    profile = Path(watched.study.profile_source)
    values = yaml.safe_load(profile.read_text())
    profile.write_text(yaml.safe_dump({**values, "similarity": {"scalar": "WT"}}))
    (request,) = watched.tick().run_requests
    assert request.job_name == "full_experiment"
    assert isinstance(watched.night(), dg.RunRequest)


def test_where_the_conditions_are_on_the_sensor_sees_to_the_cohort_alone(tmp_path: Path) -> None:
    watched = Watched(tmp_path, conditions="running")
    assert why(watched.tick()) == "The folders are as they were"
    watched.edit()
    watched.tick()
    (request,) = watched.tick().run_requests
    assert request.job_name == "look_at_raw_folder"


def test_patients_are_watched_beside_the_cases(tmp_path: Path) -> None:
    patients = tmp_path / "patients"
    write_msd(patients, [make_case("P1", seed=90)])
    shutil.rmtree(patients / "labelsTr")
    watched = Watched(tmp_path, conditions="running", patients=patients)
    assert why(watched.tick()) == "The folders are as they were"
    save(patients / "imagesTr" / "P2.nii.gz", np.moveaxis(make_case("P2", seed=91).image, 0, 3))
    assert why(watched.tick()).startswith("The folder of the patients changed")
    (request,) = watched.tick().run_requests
    assert request.job_name == "look_at_patients"
    assert isinstance(watched.night(), dg.RunRequest)
    make(watched.study, "patient_list")
    assert why(watched.tick()) == "The folders are as they were"
    patients.rename(tmp_path / "away")
    with pytest.raises(CaseError, match=str(patients)):
        watched.tick()
    assert watched.study.patients == ["P1", "P2"]


@pytest.mark.parametrize("delivered", ["stopped", "running"])
def test_the_profile_says_how_the_switches_are_delivered(tmp_path: Path, delivered: str) -> None:
    switches = dict.fromkeys(("raw_folder", "conditions", "nightly"), delivered)
    times = {"seconds_between_looks": 7, "nightly_at": "03:05", "timezone": "Europe/Prague"}
    definitions = Watched(tmp_path, **switches, **times).definitions
    sensors = [definitions.resolve_sensor_def(name) for name in ("raw_folder", "conditions")]
    schedule = definitions.resolve_schedule_def("nightly")
    assert {part.default_status.name for part in (*sensors, schedule)} == {delivered.upper()}
    assert {sensor.minimum_interval_seconds for sensor in sensors} == {7}
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("5 3 * * *", "Europe/Prague")


def test_one_run_brings_everything_up_to_date(world: World) -> None:
    before = world.materializations()
    world.change_profile(automation={"conditions": "stopped"}, evidence={"resamples": 200})
    world.reload()
    world.look()
    assert world.materializations() - before == once("evidence", "confirmation", "experiment_report")
    assert world.all_current()
    world.look()
    assert world.materializations() - before == once("evidence", "confirmation", "experiment_report")


def test_the_switch_in_the_ui_counts_before_the_profile(watched: Watched) -> None:
    running = AutomationSettings(conditions="running")
    assert not conditions_are_on(watched.instance, AutomationSettings())
    assert conditions_are_on(watched.instance, running)
