"""The layout of the data folder: the one place that knows where a file is."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class DataFolder:
    """Paths below one data folder.

    Every artifact is a folder: `ASSET/` for an asset without partitions, `ASSET/KEY/` for one partition.
    """

    root: Path

    @property
    def study_file(self) -> Path:
        """Which profile and raw folder this data folder was made with."""
        return self.root / "study.json"

    @property
    def reviewed(self) -> Path:
        """What a person decided of cases, where a command was given it."""
        return self.root / "reviewed.csv"

    @property
    def database(self) -> Path:
        """The DuckDB file with all tables."""
        return self.root / "idal.duckdb"

    @property
    def database_lock(self) -> Path:
        """Lock of everything here that writes to the database."""
        return self.locks / "idal.duckdb.lock"

    @property
    def dagster_home(self) -> Path:
        """Home of the Dagster instance."""
        return self.root / "dagster_home"

    @property
    def phantom(self) -> Path:
        """The phantom, where the profile has one and no raw folder is given."""
        return self.root / "phantom"

    @property
    def brain_tumour_archive(self) -> Path:
        """The downloaded archive of MSD Task01_BrainTumour; what is unfinished or refused is beside it."""
        return self.root / "downloads" / "Task01_BrainTumour.tar"

    @property
    def brain_tumour(self) -> Path:
        """The raw folder that was extracted from that archive."""
        return self.root / "raw" / "Task01_BrainTumour"

    @property
    def unfinished(self) -> Path:
        """Artifacts that are being written; nothing here is ever read back."""
        return self.root / ".unfinished"

    @property
    def locks(self) -> Path:
        """One lock file for each artifact in the making, and one for the database."""
        return self.root / ".locks"

    @property
    def cluster(self) -> Path:
        """Address and key of the run that workers work for, and what jobs say; for this user alone."""
        return self.root / ".cluster"

    def artifact(self, asset: str, key: str | None = None) -> Path:
        """Folder of an artifact.

        Args:
            asset: Name of the asset.
            key: Its partition: a case id or the name of a candidate, fold or removal set.
        """
        return self.root / asset / key if key is not None else self.root / asset
