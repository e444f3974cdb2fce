"""Puts the code location together; tests and the command line hand in their own resources."""

import dagster as dg

from idal_assets.orchestration.assets import build_assets
from idal_assets.orchestration.automation import (
    conditions_sensor,
    look_at_patients,
    look_at_raw_folder,
    nightly_schedule,
    raw_folder_sensor,
    with_conditions,
)
from idal_assets.orchestration.checks import build_checks
from idal_assets.orchestration.jobs import ALL_JOBS
from idal_assets.orchestration.resources import StepProgress, StudyResource


def build_definitions(study: StudyResource | None = None, progress: StepProgress | None = None) -> dg.Definitions:
    """Builds the code location.

    Args:
        study: The experiment; by default the environment and the data folder decide.
        progress: How steps show their progress; by default in Dagster's log.

    Raises:
        ProfileError: The profile cannot be used; the launchpad shows its values.
    """
    study = study or StudyResource()
    profile = study.open().profile
    settings = profile.automation
    return dg.Definitions(
        assets=with_conditions(build_assets(profile), study),
        asset_checks=build_checks(),
        jobs=[*ALL_JOBS, look_at_raw_folder, look_at_patients],
        sensors=[raw_folder_sensor(study, settings), conditions_sensor(settings)],
        schedules=[nightly_schedule(study, settings)],
        resources={"study": study, "progress": progress or StepProgress()},
        # A process for each step would load PyTorch each time and compete for cores and card.
        executor=dg.in_process_executor,
    )
