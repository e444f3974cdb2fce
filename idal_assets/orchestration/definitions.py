"""Puts assets and resources together; tests and the command line hand in their own resources."""

import dagster as dg

from idal_assets.orchestration.assets import ALL_ASSETS
from idal_assets.orchestration.resources import Progress, StudyResource


def build_definitions(study: StudyResource | None = None, progress: Progress | None = None) -> dg.Definitions:
    """Builds the code location.

    Args:
        study: The experiment; by default the environment and the data folder decide.
        progress: How steps show their progress; by default in Dagster's log.
    """
    return dg.Definitions(
        assets=ALL_ASSETS,
        resources={"study": study or StudyResource(), "progress": progress or Progress()},
        # A process for each step would load PyTorch each time and compete for cores and card.
        executor=dg.in_process_executor,
    )
