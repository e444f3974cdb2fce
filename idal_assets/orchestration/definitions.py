"""Puts assets and resources together; tests and the command line hand in their own resources."""

import dagster as dg

from idal_assets.orchestration.assets import ALL_ASSETS
from idal_assets.orchestration.automation import (
    automation_settings,
    bring_up_to_date,
    conditions_sensor,
    look_at_raw_folder,
    nightly_schedule,
    raw_folder_sensor,
    with_conditions,
)
from idal_assets.orchestration.resources import Progress, StudyResource


def build_definitions(study: StudyResource | None = None, progress: Progress | None = None) -> dg.Definitions:
    """Builds the code location.

    Args:
        study: The experiment; by default the environment and the data folder decide.
        progress: How steps show their progress; by default in Dagster's log.
    """
    study = study or StudyResource()
    settings = automation_settings(study)
    return dg.Definitions(
        assets=with_conditions(ALL_ASSETS, study),
        jobs=[bring_up_to_date, look_at_raw_folder],
        sensors=[raw_folder_sensor(study, settings), conditions_sensor(settings)],
        schedules=[nightly_schedule(study, settings)],
        resources={"study": study, "progress": progress or Progress()},
        # A process for each step would load PyTorch each time and compete for cores and card.
        executor=dg.in_process_executor,
    )
