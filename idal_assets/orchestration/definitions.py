"""Puts assets and resources together; tests and the command line hand in their own resources."""

import dagster as dg

from idal_assets.orchestration.assets import ALL_ASSETS
from idal_assets.orchestration.checks import ALL_CHECKS
from idal_assets.orchestration.jobs import ALL_JOBS
from idal_assets.orchestration.resources import Progress, StudyResource


def build_definitions(study: StudyResource | None = None, progress: Progress | None = None) -> dg.Definitions:
    """Builds the code location.

    Args:
        study: The experiment; by default the environment and the data folder decide.
        progress: How steps show their progress; by default in Dagster's log.

    Raises:
        ProfileError: The profile cannot be used; the launchpad shows its values.
    """
    study = study or StudyResource()
    profile = study.open().profile
    return dg.Definitions(
        assets=[asset(profile) for asset in ALL_ASSETS],
        asset_checks=ALL_CHECKS,
        jobs=ALL_JOBS,
        resources={"study": study, "progress": progress or Progress()},
        # A process for each step would load PyTorch each time and compete for cores and card.
        executor=dg.in_process_executor,
    )
