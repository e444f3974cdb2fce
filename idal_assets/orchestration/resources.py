"""What the assets are handed: the study, and a way to show progress."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from idal_assets.progress import Track, log_lines
from idal_assets.study.study import Study


class StudyResource(dg.ConfigurableResource):
    """The experiment that a code location or a command works on.

    Attributes:
        data_dir: Data folder; empty takes `IDAL_DATA_DIR`, then `data`.
        profile: Name or file of the profile; empty takes `IDAL_PROFILE`, then the data folder's last one.
        raw: Raw folder; empty takes the profile's.
        patients: Folder of patients; empty takes the data folder's, then the profile's.
    """

    data_dir: str = Field(default="", description="Data folder; empty takes the one that this UI was opened on.")
    profile: str = Field(
        default="", description="Name or file of the profile; empty takes that of the data folder."
    )
    raw: str = Field(default="", description="Raw folder; empty takes the profile's.")
    patients: str = Field(default="", description="Folder of patients; empty takes that of the data folder.")

    def open(self) -> Study:
        """Opens the study as it is on disk now."""
        raw, patients = (Path(given) if given else None for given in (self.raw, self.patients))
        return Study.open(self.data_dir or None, self.profile or None, raw, patients=patients)


class StepProgress:
    """Shows the progress of a step, by default as lines in Dagster's log.

    Args:
        track: Shows it in another way, such as bars in the terminal.
    """

    def __init__(self, track: Track | None = None) -> None:
        self._track = track

    def of(self, log: Callable[[str], Any]) -> Track:
        """How the step whose log is given shows its progress."""
        return self._track or log_lines(log)
