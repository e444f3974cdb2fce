"""The rows that artifacts give to the database: each artifact keeps its own, and the database is made from them.

A step hands over rows; `making` keeps them as Parquet files in the artifact, in the folder `tables`. They are
copied into the database once the artifact is finished, and again whenever it turns out not to have them.
"""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from idal_assets.store.artifacts import find_damage, read_provenance
from idal_assets.store.database import Source, put_aside, record_all, recorded_sources
from idal_assets.store.files import DamagedError
from idal_assets.study.graph import GRAPH
from idal_assets.study.study import Study

LOGGER = logging.getLogger(__name__)

TABLES_FOLDER = "tables"
Artifact = tuple[str, str | None]
"""An asset and its partition."""


def keep_tables(tables: Mapping[str, pd.DataFrame], folder: Path) -> None:
    """Writes the rows that an artifact gives into its folder."""
    for name, rows in tables.items():
        (folder / TABLES_FOLDER).mkdir(exist_ok=True)
        rows.to_parquet(folder / TABLES_FOLDER / f"{name}.parquet", index=False)


def artifacts_on_disk(study: Study) -> Iterator[Artifact]:
    """Everything that has a record, in dependency order: also what the study has no use for at present."""
    for node in GRAPH.values():
        folder = study.path(node.name)
        if node.partition is None:
            yield node.name, None
        elif folder.is_dir():
            yield from ((node.name, path.name) for path in sorted(folder.iterdir()) if path.is_dir())


def record_tables(study: Study, of: Artifact | None = None) -> list[Artifact]:
    """Brings the database to what the artifacts hold.

    Args:
        study: The study.
        of: The artifact that may be missing there. None compares all of them and reads the whole database, and so
            does a database that is gone or damaged: it is made again, with what was damaged beside it.

    Returns:
        The artifacts whose rows were written.

    Raises:
        duckdb.IOException: Another program kept the file open for too long.
    """
    database = study.folder.database
    compared = [of] if of and database.is_file() else None
    try:
        there = recorded_sources(database, read_all=compared is None)
    except DamagedError as error:
        LOGGER.warning("%s. It is made again from the artifacts; what it was is %s.", error, put_aside(database))
        compared, there = None, set()
    known = [artifact for artifact in compared or artifacts_on_disk(study) if _gives_tables(study, *artifact)]
    missing = [artifact for artifact in known if _source(study, *artifact) not in there]
    if missing:
        found = ((_source(study, *artifact), _tables(study, *artifact)) for artifact in missing)
        record_all(database, found, study.folder.database_lock)
    return missing


def without_tables(study: Study) -> list[Artifact]:
    """Finished artifacts from before rows were kept in them: what the database has of them is all there is."""
    return [
        (asset, key)
        for asset, key in artifacts_on_disk(study)
        if GRAPH[asset].tables and read_provenance(study.path(asset, key)) and not _has_tables(study, asset, key)
    ]


def _gives_tables(study: Study, asset: str, key: str | None) -> bool:
    folder = study.path(asset, key)
    # the report has a folder of this name with tables to take away
    return (
        bool(GRAPH[asset].tables)
        and _has_tables(study, asset, key)
        and not find_damage(folder)
        and read_provenance(folder) is not None
    )


def _has_tables(study: Study, asset: str, key: str | None) -> bool:
    return (study.path(asset, key) / TABLES_FOLDER).is_dir()


def _source(study: Study, asset: str, key: str | None) -> Source:
    record = study.provenance(asset, key)
    return Source(asset, key or "", record.version, record.written)


def _tables(study: Study, asset: str, key: str | None) -> dict[str, pd.DataFrame]:
    folder = study.intact(asset, key) / TABLES_FOLDER
    return {name: pd.read_parquet(folder / f"{name}.parquet") for name in GRAPH[asset].tables}
