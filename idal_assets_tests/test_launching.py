"""What a person can start from the UI: jobs, settings of one run, the pool, and what is tried again."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
import torch

from idal_assets.analysis.similarity import IncompleteMatrixError
from idal_assets.imaging.case import CaseError
from idal_assets.orchestration.assets import ACCELERATOR
from idal_assets.orchestration.definitions import build_definitions
from idal_assets.orchestration.instance import close_abandoned_runs, ensure_home, open_instance, process_tag
from idal_assets.orchestration.jobs import COST_TAG, PURPOSES
from idal_assets.orchestration.launchpad import FIXED
from idal_assets.orchestration.resources import StudyResource
from idal_assets.profile import PROFILE_FOLDER, ProfileError, load_profile, with_changes
from idal_assets.steps import similarity
from idal_assets.study import passing
from idal_assets.study.currency import all_states
from idal_assets.study.graph import GRAPH
from idal_assets.study.making import Task
from idal_assets.study.passing import may_pass
from idal_assets.study.roles import CohortError
from idal_assets.study.study import Study
from idal_assets_tests.conftest import FinishedRun

pytestmark = [pytest.mark.graph, pytest.mark.usefixtures("blank_pictures")]


def definitions(finished: FinishedRun) -> dg.Definitions:
    return build_definitions(StudyResource(data_dir=str(finished.data_dir)))


def materialize(
    finished: FinishedRun,
    instance: dg.DagsterInstance,
    asset: str,
    settings: dict[str, Any] | None = None,
    key: str | None = None,
) -> dg.ExecuteInProcessResult:
    return (
        definitions(finished)
        .resolve_implicit_global_asset_job_def()
        .execute_in_process(
            run_config={"ops": {asset: {"config": settings}}} if settings else None,
            asset_selection=[dg.AssetKey(asset)],
            partition_key=key,
            instance=instance,
            raise_on_error=False,
        )
    )


def error_of(result: dg.ExecuteInProcessResult) -> str:
    (failure,) = (event for event in result.all_events if event.is_step_failure)
    return failure.step_failure_data.error.to_string()


# --- jobs ---


def test_every_job_says_what_it_costs_and_what_it_is_for() -> None:
    defs = build_definitions(StudyResource(profile="tiny"))
    assert set(PURPOSES) == {"full_experiment", "refresh_matrix", "retrain_reduced", "refresh_patients"}
    for name, purpose in PURPOSES.items():
        job = defs.resolve_job_def(name)
        assert "GPU" in job.tags[COST_TAG]
        assert "training" in job.tags[COST_TAG]
        assert purpose.description in (job.description or "")


def test_jobs_make_their_part_of_the_graph_and_no_other() -> None:
    assert PURPOSES["full_experiment"].assets == set(GRAPH)
    assert {"cohort", "case_model", "dice_row", "case_ranking"} <= PURPOSES["refresh_matrix"].assets
    assert not {"removal_plan", "reduced_model"} & PURPOSES["refresh_matrix"].assets
    parts = [PURPOSES[name].assets for name in ("refresh_matrix", "retrain_reduced", "refresh_patients")]
    assert sorted(asset for part in parts for asset in part) == sorted(GRAPH)


def test_a_job_makes_what_is_missing_in_its_part_and_leaves_the_rest(
    copied: FinishedRun, instance: dg.DagsterInstance
) -> None:
    study = copied.study()
    donor = study.cohort.donors[0]
    shutil.rmtree(study.path("dice_row", donor))
    shutil.rmtree(study.path("reduced_evaluation", "all"))
    job = definitions(copied).resolve_job_def("refresh_matrix")
    result = job.execute_in_process(instance=instance)
    assert result.success
    (output,) = (event for event in result.all_events if event.is_successful_output)
    assert output.step_output_data.metadata["made"].value == {"dice_row": 1}
    states = all_states(study)
    assert states["dice_row"][donor] == "current"
    assert states["reduced_evaluation"]["all"] == "missing"

    assert definitions(copied).resolve_job_def("retrain_reduced").execute_in_process(instance=instance).success
    assert all_states(study)["reduced_evaluation"]["all"] == "current"


def test_retraining_without_a_ranking_says_what_is_missing(
    copied: FinishedRun, instance: dg.DagsterInstance
) -> None:
    shutil.rmtree(copied.study().path("case_ranking"))
    job = definitions(copied).resolve_job_def("retrain_reduced")
    result = job.execute_in_process(instance=instance, raise_on_error=False)
    assert not result.success
    assert "case_ranking has not been made yet" in error_of(result)


# --- settings of one run ---


@pytest.mark.parametrize("profile", ["tiny", "demo", "thesis"])
def test_the_launchpad_of_an_asset_shows_its_settings_with_the_values_of_the_profile(profile: str) -> None:
    assets = build_definitions(StudyResource(profile=profile)).resolve_asset_graph().assets_defs
    values = load_profile(profile).model_dump(mode="json")
    for asset in assets:
        if not asset.keys:
            continue
        node = GRAPH[asset.key.to_user_string()]
        schema = asset.op.config_schema.config_type
        shown = _defaults(schema)
        for path in node.settings:
            if path in FIXED:
                continue
            *sections, last = path.split(".")
            expected, found = values, shown
            for section in sections:
                expected, found = expected[section], found[section]
            wanted = expected[last]
            if isinstance(wanted, dict):
                wanted = {name: value for name, value in wanted.items() if f"{path}.{name}" not in FIXED}
            assert found[last] == wanted, (node.name, path)


def _defaults(config_type: Any) -> Any:
    return {
        name: _defaults(field.config_type) if hasattr(field.config_type, "fields") else field.default_value
        for name, field in config_type.fields.items()
    }


def test_a_setting_of_one_run_becomes_part_of_the_version_and_the_profile_calls_it_outdated(
    copied: FinishedRun, instance: dg.DagsterInstance
) -> None:
    study = copied.study()
    donor = study.cohort.donors[0]
    version = study.version("case_model", donor)
    assert materialize(copied, instance, "case_model", {"case_model": {"epochs": 2}}, donor).success
    made = study.provenance("case_model", donor)
    assert made.inputs.settings["case_model"]["epochs"] == 2
    assert made.inputs.settings["case_model"]["iterations_per_epoch"] == 5
    assert made.version != version
    assert all_states(study)["case_model"][donor] == "outdated"

    assert materialize(copied, instance, "case_model", None, donor).success
    assert study.version("case_model", donor) == version


def test_the_values_of_the_profile_said_aloud_change_nothing(
    copied: FinishedRun, instance: dg.DagsterInstance
) -> None:
    study = copied.study()
    before = study.provenance("dendrogram")
    distance = study.profile.similarity.distance
    assert materialize(copied, instance, "dendrogram", {"similarity": {"distance": distance}}).success
    assert study.provenance("dendrogram") == before


def test_a_changed_profile_counts_for_a_run_without_settings_of_its_own(
    copied: FinishedRun, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """The launchpad's values are those of the day when the code location was loaded."""
    text = (PROFILE_FOLDER / "tiny.yaml").read_text()
    profile = tmp_path / "mine.yaml"
    profile.write_text(text)
    resource = StudyResource(data_dir=str(copied.data_dir), profile=str(profile))
    job = build_definitions(resource).resolve_implicit_global_asset_job_def()
    profile.write_text(text + "similarity: {distance: symmetric}\n")
    assert job.execute_in_process(asset_selection=[dg.AssetKey("dendrogram")], instance=instance).success
    assert copied.study().provenance("dendrogram").inputs.settings["similarity.distance"] == "symmetric"


def test_a_bad_setting_of_one_run_is_refused_with_its_name(
    copied: FinishedRun, instance: dg.DagsterInstance
) -> None:
    donor = copied.study().cohort.donors[0]
    out_of_range = materialize(copied, instance, "case_model", {"case_model": {"epochs": 0}}, donor)
    assert "case_model.epochs" in error_of(out_of_range)
    # The launchpad itself refuses what it does not know, before a run begins.
    with pytest.raises(dg.DagsterInvalidConfigError, match="epoch"):
        materialize(copied, instance, "case_model", {"case_model": {"epoch": 1}}, donor)


def test_settings_are_laid_over_a_profile_and_validated() -> None:
    profile = load_profile("tiny")
    changed = with_changes(profile, {"case_model": {"epochs": 7}, "seed": 3})
    assert (changed.case_model.epochs, changed.seed) == (7, 3)
    assert changed.case_model.optimizer == profile.case_model.optimizer
    assert with_changes(profile, {}) == profile
    with pytest.raises(ProfileError, match=r"case_model\.epoch: unknown key"):
        with_changes(profile, {"case_model": {"epoch": 7}})


# --- the pool ---


def test_what_trains_or_segments_takes_the_pool_and_nothing_else_does() -> None:
    graph = build_definitions(StudyResource(profile="tiny")).resolve_asset_graph()
    pooled = {asset.key.to_user_string() for asset in graph.assets_defs if asset.keys and asset.op.pool}
    assert pooled == {
        *("baseline_candidate", "baseline_weights", "case_model", "fold_model", "reduced_model"),
        *("dice_row", "label_quality", "reduced_evaluation", "early_row", "donor_signals", "repeated_row"),
        *("confirmed_model", "confirmed_evaluation", "case_opinions", "played_case"),
        *("patient_opinions", "adapted_model", "patient_segmentation", "settled_row", "case_view"),
    }


def test_the_configuration_of_an_instance_limits_the_pool_and_is_never_overwritten(tmp_path: Path) -> None:
    folder = Study.open(tmp_path / "data", "tiny").folder
    with open_instance(folder) as instance:
        assert instance.event_log_storage.get_pool_config().default_pool_limit == 1
        assert instance.event_log_storage.get_pool_config().pool_granularity.value == "op"
        assert instance.run_retries_enabled
        assert not instance.run_retries_retry_on_asset_or_op_failure
    configuration = ensure_home(folder) / "dagster.yaml"
    configuration.write_text("telemetry: {enabled: false}\n")
    with open_instance(folder) as instance:
        assert instance.event_log_storage.get_pool_config().default_pool_limit is None
    assert configuration.read_text() == "telemetry: {enabled: false}\n"


@pytest.mark.parametrize("noticed", [True, False], ids=["gone", "its parent has not noticed"])
def test_the_place_of_a_killed_run_becomes_free(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, noticed: bool
) -> None:
    storage = instance.event_log_storage
    dead = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, dead.pid, os.WEXITED | (0 if noticed else os.WNOWAIT))
    run = instance.create_run_for_job(
        build_definitions(StudyResource(profile="tiny")).resolve_job_def("refresh_matrix"),
        status=dg.DagsterRunStatus.STARTED,
    )
    monkeypatch.setattr(os, "getpid", lambda: dead.pid)
    instance.add_run_tags(run.run_id, process_tag())
    storage.initialize_concurrency_limit_to_default(ACCELERATOR)
    assert storage.claim_concurrency_slot(ACCELERATOR, run.run_id, "case_model").is_claimed
    assert not storage.claim_concurrency_slot(ACCELERATOR, "another run", "case_model").is_claimed
    assert close_abandoned_runs(instance) == 1
    assert instance.get_run_by_id(run.run_id).is_finished
    assert storage.claim_concurrency_slot(ACCELERATOR, "another run", "case_model").is_claimed


# --- retries ---

LOCKED = duckdb.IOException("IO Error: Could not set lock on file: Conflicting lock is held in another process")


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (LOCKED, True),
        (duckdb.IOException("IO Error: The file is not a valid DuckDB database file!"), False),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (OSError(errno.EIO, "Input/output error"), True),
        (OSError(errno.ESTALE, "Stale file handle"), True),
        (FileNotFoundError(errno.ENOENT, "No such file"), False),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (PermissionError(errno.EACCES, "Permission denied"), False),
        (CaseError("bad"), False),
        (CohortError("bad", {}), False),
        (ProfileError("bad"), False),
        (IncompleteMatrixError("bad"), False),
        (FloatingPointError("The loss is not finite"), False),
        (MemoryError(), False),
    ],
)
def test_only_what_can_pass_by_itself_is_tried_again(error: Exception, passes: bool) -> None:
    assert may_pass(error) is passes
    outer = RuntimeError("while reading")
    outer.__cause__ = error
    assert may_pass(outer) is passes


@pytest.mark.parametrize(
    ("error", "failures", "succeeds", "tries"),
    [
        (LOCKED, 2, True, 3),
        (LOCKED, 9, False, 4),
        (IncompleteMatrixError("a cell is missing"), 1, False, 1),
    ],
)
def test_a_run_tries_again_what_can_pass(
    copied: FinishedRun,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    failures: int,
    succeeds: bool,
    tries: int,
) -> None:
    tried = []

    def fail_at_first(task: Task) -> None:
        tried.append(task)
        if len(tried) <= failures:
            raise error
        real(task)

    real = similarity.make_dendrogram
    monkeypatch.setattr(similarity, "make_dendrogram", fail_at_first)
    monkeypatch.setattr(passing, "SECONDS_TO_WAIT", 0)
    shutil.rmtree(copied.study().path("dendrogram"))
    result = materialize(copied, instance, "dendrogram")
    assert result.success is succeeds
    assert len(tried) == tries
    if not succeeds:
        assert str(error) in error_of(result)


# --- the matrix's own mark ---


def test_the_matrix_is_marked_as_soon_as_a_row_is_made_anew(
    copied: FinishedRun, instance: dg.DagsterInstance
) -> None:
    def mark() -> tuple[bool, str]:
        key = dg.AssetCheckKey(dg.AssetKey("dice_matrix"), "current_matrix")
        (record,) = instance.event_log_storage.get_latest_asset_check_execution_by_key([key]).values()
        evaluation = record.event.dagster_event.asset_check_evaluation_data
        return evaluation.passed, evaluation.description or ""

    study = copied.study()
    donor = study.cohort.donors[2]
    assert mark() == (True, "")
    assert materialize(copied, instance, "dice_row", {"inference": {"tile_step": 0.25}}, donor).success
    passed, description = mark()
    assert not passed
    assert donor in description
    assert materialize(copied, instance, "dice_row", None, donor).success
    assert mark() == (True, "")
