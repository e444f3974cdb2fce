"""The DuckDB file: one writer at a time, each writing in one transaction, readers read-only.

Every table is a history: the schema `history` holds what each version of an artifact said, with the time at which
it was first recorded. The views with the simple names (`training_set`) show what is current: what was recorded
last. Nothing is decided from here; the artifacts in the data folder decide, and each keeps the rows that it gave,
so that a lost file is made again from them. `history.artifact` says of which artifacts the rows are here.

Values never become part of an SQL text; table and column names are the constants below.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import duckdb
import pandas as pd

from idal_assets.store.files import DamagedError, held

SECONDS_TO_WAIT = 120.0
"""How long to wait for another process, such as a person's DuckDB shell, to let go of the file."""

INTERRUPTED = "Query interrupted"
"""What DuckDB says where SIGINT arrives in a query."""


class RecordError(ValueError):
    """Rows that cannot be one version of a table; the message says why."""


@dataclass(frozen=True)
class TableSchema:
    """A table of the history.

    Attributes:
        columns: Names and types; `recorded` (UTC) and `latest` are added to them.
        version: Columns that say which version the rows are; all rows that are recorded at once share them.
        key: Columns that tell the rows of one version apart.
        by_set: Whether every removal set has a latest version of its own.
        may_be_empty: Whether a version without rows says something: that there is nothing of the kind any more.
    """

    columns: Mapping[str, str]
    version: tuple[str, ...]
    key: tuple[str, ...]
    by_set: bool = False
    may_be_empty: bool = False


_SCORES = {"dice": "DOUBLE", "iou": "DOUBLE", "hd95": "DOUBLE", "tp": "BIGINT", "fp": "BIGINT", "fn": "BIGINT"}
_DECIDED_FROM = {"ranking_version": "VARCHAR", "matrix_version": "VARCHAR"}
_EVIDENCE = {"plan_version": "VARCHAR", "evidence_version": "VARCHAR"}

TABLES: Mapping[str, TableSchema] = {
    "cohort": TableSchema(
        {"case_id": "VARCHAR", "patient": "VARCHAR", "role": "VARCHAR"}
        | {"content_hash": "VARCHAR", "layout": "VARCHAR"}
        | {f"shape_{axis}": "INTEGER" for axis in "xyz"}
        | {f"spacing_{axis}": "DOUBLE" for axis in "xyz"}
        | {"reason": "VARCHAR", "review": "VARCHAR", "cohort_version": "VARCHAR"},
        version=("cohort_version",),
        key=("case_id",),
    ),
    "case_label": TableSchema(
        {"case_id": "VARCHAR", "label": "VARCHAR", "value": "INTEGER", "voxels": "BIGINT"}
        | {"cohort_version": "VARCHAR"},
        version=("cohort_version",),
        key=("case_id", "label"),
    ),
    "dice": TableSchema(
        {"donor": "VARCHAR", "receiver": "VARCHAR", "region": "VARCHAR", **_SCORES, "receiver_role": "VARCHAR"}
        | {"model_version": "VARCHAR", "receiver_version": "VARCHAR", "matrix_version": "VARCHAR"},
        version=("matrix_version",),
        key=("donor", "receiver", "region"),
    ),
    "case_score": TableSchema(
        {"case_id": "VARCHAR", "donor_mean": "DOUBLE", "receiver_mean": "DOUBLE", "score": "DOUBLE"}
        | {
            "rank": "INTEGER",
            "settled": "BOOLEAN",
            "cluster": "INTEGER",
            "stability": "DOUBLE",
            "outlier_p": "DOUBLE",
        }
        | {"contradiction": "VARCHAR"}
        | {"donor_median": "DOUBLE", "out_of_fold_dice": "DOUBLE", "out_of_fold_dice_held": "DOUBLE"}
        | {"label_quality": "DOUBLE", "baseline_dice": "DOUBLE", "baseline_dice_held": "DOUBLE"}
        | {"baseline_loss": "DOUBLE", "gradient_alignment": "DOUBLE", "intensity_score": "DOUBLE"}
        | _DECIDED_FROM,
        version=("ranking_version",),
        key=("case_id",),
    ),
    "removal_plan": TableSchema(
        {"removal_set": "VARCHAR", "kind": "VARCHAR", "base_set": "VARCHAR", "replicate": "INTEGER"}
        | {"removed": "VARCHAR[]", "plan_version": "VARCHAR", **_DECIDED_FROM},
        version=("plan_version",),
        key=("removal_set",),
    ),
    "training_set": TableSchema(
        {"removal_set": "VARCHAR", "case_id": "VARCHAR", "kept": "BOOLEAN", "rank": "INTEGER", "score": "DOUBLE"}
        | {"reason": "VARCHAR", "training_set_version": "VARCHAR", "plan_version": "VARCHAR", **_DECIDED_FROM},
        version=("removal_set", "plan_version", "training_set_version"),
        key=("case_id",),
        by_set=True,
    ),
    "model": TableSchema(
        {"removal_set": "VARCHAR", "replicate": "INTEGER", "seed": "BIGINT", "model_version": "VARCHAR"}
        | {"training_set_version": "VARCHAR", "plan_version": "VARCHAR"},
        version=("removal_set", "plan_version", "model_version"),
        key=("model_version",),
        by_set=True,
    ),
    "evaluation": TableSchema(
        {"removal_set": "VARCHAR", "base_set": "VARCHAR", "replicate": "INTEGER"}
        | {"case_id": "VARCHAR", "region": "VARCHAR", **_SCORES}
        | {"model_version": "VARCHAR", "receiver_version": "VARCHAR", "plan_version": "VARCHAR"}
        | {"report_version": "VARCHAR"},
        version=("report_version",),
        key=("removal_set", "case_id", "region"),
    ),
    "effect": TableSchema(
        {"removal_set": "VARCHAR", "removed": "INTEGER", "replicates": "INTEGER", "cases": "INTEGER"}
        | {"mean_dice": "DOUBLE", "mean_difference": "DOUBLE", "low": "DOUBLE", "high": "DOUBLE"}
        | {"controls": "INTEGER", "expected_difference": "DOUBLE"}
        | {f"{corrected}{side}_p": "DOUBLE" for corrected in ("", "holm_") for side in ("better", "worse")}
        | {"smallest_p": "DOUBLE", "seed_p": "DOUBLE", "median_dice": "DOUBLE"}
        | {f"difference_of_medians{end}": "DOUBLE" for end in ("", "_low", "_high")}
        | {f"median_of_differences{end}": "DOUBLE" for end in ("", "_low", "_high")}
        | {"wilcoxon_p": "DOUBLE", "level": "DOUBLE", "worst_tenth_cases": "INTEGER"}
        | {f"worst_tenth_difference{end}": "DOUBLE" for end in ("", "_low", "_high")}
        | {"gain": "BOOLEAN", "harm": "BOOLEAN", "sentence": "VARCHAR", **_EVIDENCE},
        version=("evidence_version",),
        key=("removal_set",),
    ),
    "control": TableSchema(
        {"control": "VARCHAR", "removed": "INTEGER", "mean_difference": "DOUBLE", **_EVIDENCE},
        version=("evidence_version",),
        key=("control",),
        may_be_empty=True,
    ),
    "subgroup": TableSchema(
        {"removal_set": "VARCHAR", "kind": "VARCHAR", "subgroup": "VARCHAR", "cases": "INTEGER"}
        | {"mean_difference": "DOUBLE", "low": "DOUBLE", "high": "DOUBLE", "worst_difference": "DOUBLE"}
        | _EVIDENCE,
        version=("evidence_version",),
        key=("removal_set", "kind", "subgroup"),
    ),
    "false_volume": TableSchema(
        {"removal_set": "VARCHAR", "region": "VARCHAR", "cases": "INTEGER", "segmented": "DOUBLE"}
        | {"millilitres": "DOUBLE", **_EVIDENCE},
        version=("evidence_version",),
        key=("removal_set", "region"),
        may_be_empty=True,
    ),
    "case_effect": TableSchema(
        {"case_id": "VARCHAR", "effect": "DOUBLE", "standard_error": "DOUBLE", "low": "DOUBLE", "high": "DOUBLE"}
        | {
            "pairs": "INTEGER",
            "p": "DOUBLE",
            "corrected_p": "DOUBLE",
            "verdict": "VARCHAR",
            "plan_version": "VARCHAR",
            "effect_version": "VARCHAR",
        },
        version=("effect_version",),
        key=("case_id",),
    ),
    "confirmation": TableSchema(
        {"removal_set": "VARCHAR", "removed": "VARCHAR[]", "replicates": "INTEGER", "cases": "INTEGER"}
        | {"mean_dice": "DOUBLE", "mean_difference": "DOUBLE", "low": "DOUBLE", "high": "DOUBLE"}
        | {"sentence": "VARCHAR", "confirmation_version": "VARCHAR"},
        version=("confirmation_version",),
        key=("removal_set",),
        may_be_empty=True,
    ),
    "adaptation": TableSchema(
        {"arm": "VARCHAR", "mode": "VARCHAR", "count": "INTEGER", "patients": "INTEGER", "mean_dice": "DOUBLE"}
        | {"mean_difference": "DOUBLE", "low": "DOUBLE", "high": "DOUBLE", "gap_share": "DOUBLE"}
        | {"gap_low": "DOUBLE", "gap_high": "DOUBLE", "lose_share": "DOUBLE", "adaptation_version": "VARCHAR"},
        version=("adaptation_version",),
        key=("arm", "mode", "count"),
        may_be_empty=True,
    ),
    "played_patient": TableSchema(
        {"case_id": "VARCHAR", "donors": "INTEGER", "expected_gain": "DOUBLE", "region": "VARCHAR"}
        | {"predicted": "DOUBLE", "low": "DOUBLE", "high": "DOUBLE", "dice": "DOUBLE"}
        | {"baseline_dice": "DOUBLE", "adaptation_version": "VARCHAR"},
        version=("adaptation_version",),
        key=("case_id", "region"),
        may_be_empty=True,
    ),
    "convergence": TableSchema(
        {"share": "DOUBLE", "correlation": "DOUBLE", "seconds": "DOUBLE", "convergence_version": "VARCHAR"},
        version=("convergence_version",),
        key=("share",),
    ),
    "reliability": TableSchema(
        {"measure": "VARCHAR", "seeds": "INTEGER", "icc": "DOUBLE", "spearman": "DOUBLE"}
        | {"convergence_version": "VARCHAR"},
        version=("convergence_version",),
        key=("measure",),
        may_be_empty=True,
    ),
    "detection": TableSchema(
        {"score": "VARCHAR", "auroc": "DOUBLE", "low": "DOUBLE", "high": "DOUBLE", "k": "INTEGER"}
        | {"precision_at_k": "DOUBLE"}
        | {"recall_at_k": "DOUBLE", "decoys_removed": "INTEGER", "decoys": "INTEGER", "faults": "INTEGER"}
        | {"cases": "INTEGER", "offered": "BOOLEAN", "best": "BOOLEAN", "ranking_version": "VARCHAR"}
        | {"detection_version": "VARCHAR"},
        version=("detection_version",),
        key=("score",),
        may_be_empty=True,
    ),
    "cost": TableSchema(
        {"asset": "VARCHAR", "key": "VARCHAR", "seconds": "DOUBLE", "cpu_seconds": "DOUBLE"}
        | {"gpu_seconds": "DOUBLE", "device": "VARCHAR", "artifact_version": "VARCHAR", "written": "VARCHAR"}
        | {"cost_version": "VARCHAR"},
        version=("cost_version",),
        key=("asset", "key"),
    ),
}


@dataclass(frozen=True)
class Source:
    """An artifact that rows come from.

    Attributes:
        asset: Name of the asset.
        key: Its partition; empty where there is none.
        version: Its version.
        written: When it was finished, UTC, ISO 8601.
    """

    asset: str
    key: str
    version: str
    written: str


Tables = Mapping[str, pd.DataFrame]
"""Rows by name of the table: one version each."""


def record(database: Path, table: str, rows: pd.DataFrame, lock: Path) -> None:
    """Adds one version to a table's history and makes it the current one, as of now; see `record_all`."""
    with _writing(database, lock) as connection:
        _write(connection, table, rows, datetime.now(timezone.utc))


def record_all(database: Path, found: Iterable[tuple[Source, Tables]], lock: Path) -> None:
    """Adds what artifacts hold to the history and makes it current; a reader sees all of it or nothing.

    A version that is there already is replaced by itself, so recording twice leaves no duplicates. Other versions
    stay as they are. Without rows a table that may be empty is empty now, and its history stays.

    Args:
        database: The DuckDB file; it is made if it is not there.
        found: Artifacts and their rows, the earlier ones first; columns of the rows are the table's, in any order.
        lock: Lock file of all writers of this project.

    Raises:
        RecordError: The rows are not one version, or a row appears twice.
        duckdb.IOException: The file is damaged, or another program kept it open for too long.
    """
    with _writing(database, lock) as connection:
        for source, tables in found:
            written = datetime.fromisoformat(source.written)
            for table, rows in tables.items():
                _write(connection, table, rows, written)
            place = [source.asset, source.key]
            connection.execute("DELETE FROM history.artifact WHERE asset = ? AND key = ?", place)
            values = [*place, source.version, source.written]
            connection.execute("INSERT INTO history.artifact VALUES (?, ?, ?, ?)", values)


def recorded_sources(database: Path, read_all: bool = False) -> set[Source]:
    """The artifacts whose rows are in the database.

    Args:
        database: The DuckDB file.
        read_all: Whether to read every row of every table, so that damage anywhere shows.

    Returns:
        An empty set where there is no file, or one from before artifacts were noted.

    Raises:
        duckdb.IOException: Another program kept it open for too long.
        DamagedError: The file cannot be read.
    """
    if not database.is_file():
        return set()
    try:
        with _connect(database, read_only=True) as connection:
            listed = "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'history'"
            tables = {name for (name,) in connection.execute(listed).fetchall()} & {*TABLES, "artifact"}
            for table in tables if read_all else ():
                # a block's checksum is compared when it is read
                connection.execute(f"SELECT bit_xor(hash(row)) FROM history.{table} AS row").fetchall()  # noqa: S608
            if "artifact" not in tables:
                return set()
            rows = connection.execute("SELECT asset, key, artifact_version, written FROM history.artifact")
            return {Source(*row) for row in rows.fetchall()}
    except duckdb.Error as error:
        if is_held_by_another(error):
            raise
        raise DamagedError(f"{database} is damaged: {error}") from error


def put_aside(database: Path) -> Path:
    """Renames a damaged file, so that a new one can be made; what it still holds can be looked for there.

    Returns:
        Where it is now; one that was there before is gone.
    """
    aside = database.with_name(f"{database.name}.damaged")
    database.replace(aside)
    return aside


def read_table(database: Path, table: str) -> pd.DataFrame:
    """Reads what is current of a table.

    Args:
        database: The DuckDB file.
        table: A name in `TABLES`.

    Raises:
        duckdb.IOException: The file is not there, or another program kept it open for too long.
    """
    with _connect(database, read_only=True) as connection:
        return connection.table(table).df()


def _version_of(table: str, rows: pd.DataFrame) -> dict[str, str]:
    described = TABLES[table]
    if rows.empty and described.may_be_empty:
        return {}
    versions = rows[list(described.version)].drop_duplicates()
    if len(versions) != 1 or versions.isna().any(axis=None):
        raise RecordError(f"Rows of {table} must be of one version, not of {len(versions)}")
    repeated = rows.duplicated(list(described.key))
    if repeated.any():
        first = " ".join(str(value) for value in rows.loc[repeated, list(described.key)].iloc[0])
        raise RecordError(f"A row of {table} appears twice: {first}")
    return versions.iloc[0].to_dict()


# S608: the names in the texts below are constants of this module; every value is a parameter.


@contextmanager
def _writing(database: Path, lock: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """One transaction of the one writer; nothing of it stays where it fails."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with held(lock):
        if not database.exists():
            # changes that were on their way into a file that is gone
            database.with_name(f"{database.name}.wal").unlink(missing_ok=True)
        with _connect(database) as connection:
            connection.begin()
            _prepare(connection)
            yield connection
            connection.commit()


def _write(connection: duckdb.DuckDBPyConnection, table: str, rows: pd.DataFrame, written: datetime) -> None:
    version = _version_of(table, rows)
    _fit(connection, table)
    place = f"history.{table}"
    if TABLES[table].by_set:
        outdate = f"UPDATE {place} SET latest = FALSE WHERE latest AND removal_set = ?"  # noqa: S608
        connection.execute(outdate, [version["removal_set"]])
    else:
        connection.execute(f"UPDATE {place} SET latest = FALSE WHERE latest")  # noqa: S608
    if rows.empty:
        return
    same = " AND ".join(f"{column} = ?" for column in version)
    values = list(version.values())
    known = connection.execute(f"SELECT min(recorded) FROM {place} WHERE {same}", values).fetchone()  # noqa: S608
    recorded = known[0] if known and known[0] else written.astimezone(timezone.utc).replace(tzinfo=None)
    connection.execute(f"DELETE FROM {place} WHERE {same}", values)  # noqa: S608
    connection.register("new_rows", rows)
    insert = f"INSERT INTO {place} BY NAME SELECT *, ? AS recorded, TRUE AS latest FROM new_rows"  # noqa: S608
    connection.execute(insert, [recorded])


def _prepare(connection: duckdb.DuckDBPyConnection) -> None:
    """Makes the tables that are missing."""
    connection.execute("CREATE SCHEMA IF NOT EXISTS history")
    for name, described in TABLES.items():
        _create(connection, name, {**described.columns, "recorded": "TIMESTAMP", "latest": "BOOLEAN"})
    _create(connection, "artifact", dict.fromkeys(("asset", "key", "artifact_version", "written"), "VARCHAR"))


def _create(connection: duckdb.DuckDBPyConnection, table: str, columns: Mapping[str, str]) -> None:
    listed = ", ".join(f"{column} {kind}" for column, kind in columns.items())
    connection.execute(f"CREATE TABLE IF NOT EXISTS history.{table} ({listed})")


def _fit(connection: duckdb.DuckDBPyConnection, table: str) -> None:
    """Makes what a table lacks: columns that a newer version of this project has, and views.

    Before there was a history, the simple names were tables; such a one gives way when its first version comes.
    """
    present = {row[0] for row in connection.execute(f"DESCRIBE history.{table}").fetchall()}
    for column, kind in TABLES[table].columns.items():
        if column not in present:
            connection.execute(f"ALTER TABLE history.{table} ADD COLUMN {column} {kind}")
    old = connection.execute("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'main'").fetchall()
    without_history = {row[0] for row in old}
    if table in without_history:
        connection.execute(f"DROP TABLE main.{table}")
    for name in TABLES.keys() - (without_history - {table}):
        connection.execute(f"CREATE OR REPLACE VIEW main.{name} AS {_current(name)}")


def _current(table: str) -> str:
    """What a view shows: a removal set that is in the plan no longer has no part in it."""
    text = f"SELECT * EXCLUDE (recorded, latest) FROM history.{table} WHERE latest"  # noqa: S608
    if TABLES[table].by_set:
        text += " AND removal_set IN (SELECT removal_set FROM history.removal_plan WHERE latest)"
    return text


@contextmanager
def _connect(database: Path, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to the file, as long as the context lasts.

    Raises:
        KeyboardInterrupt: Somebody stopped a query; DuckDB takes the signal and raises an error of its own.
    """
    with _opened(database, read_only) as connection:
        try:
            yield connection
        except RuntimeError as error:
            if str(error) == INTERRUPTED:
                raise KeyboardInterrupt from error
            raise


def _opened(database: Path, read_only: bool) -> duckdb.DuckDBPyConnection:
    deadline = time.monotonic() + SECONDS_TO_WAIT
    while True:
        try:
            return duckdb.connect(str(database), read_only=read_only)
        except duckdb.IOException as error:
            if not is_held_by_another(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def is_held_by_another(error: BaseException) -> bool:
    """Tells a file in use, for which waiting helps, from one that is damaged or cannot be made."""
    return any(words in str(error) for words in ("lock is held", "set lock", "another process"))
