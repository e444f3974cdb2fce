"""The DuckDB file: one writer at a time, whole tables in one transaction, readers read-only.

Values never become part of an SQL text; table and column names are the constants below.
"""

import time
from pathlib import Path

import duckdb
import pandas as pd
from filelock import FileLock

SECONDS_TO_WAIT = 120.0
"""How long to wait for another process, such as a person's DuckDB shell, to let go of the file."""

TABLES = {
    "cohort": """case_id VARCHAR PRIMARY KEY, role VARCHAR, content_hash VARCHAR, layout VARCHAR,
        shape_x INTEGER, shape_y INTEGER, shape_z INTEGER, spacing_x DOUBLE, spacing_y DOUBLE, spacing_z DOUBLE,
        oedema_voxels BIGINT, non_enhancing_voxels BIGINT, enhancing_voxels BIGINT, reason VARCHAR""",
    "dice": """donor VARCHAR, receiver VARCHAR, region VARCHAR, dice DOUBLE, tp BIGINT, fp BIGINT, fn BIGINT,
        receiver_role VARCHAR, model_version VARCHAR, receiver_version VARCHAR,
        PRIMARY KEY (donor, receiver, region)""",
    "case_score": """case_id VARCHAR PRIMARY KEY, donor_mean DOUBLE, receiver_mean DOUBLE, score DOUBLE,
        rank INTEGER, cluster INTEGER""",
    "training_set": """removal_set VARCHAR, case_id VARCHAR, kept BOOLEAN, rank INTEGER, score DOUBLE,
        reason VARCHAR, PRIMARY KEY (removal_set, case_id)""",
    "evaluation": """removal_set VARCHAR, case_id VARCHAR, region VARCHAR, dice DOUBLE, tp BIGINT, fp BIGINT,
        fn BIGINT, model_version VARCHAR, PRIMARY KEY (removal_set, case_id, region)""",
}


def replace_table(database: Path, table: str, rows: pd.DataFrame, lock: Path) -> None:
    """Replaces the content of a table; a reader sees the old or the new one, never a part.

    Args:
        database: The DuckDB file; it is made if it is not there.
        table: A name in `TABLES`.
        rows: The new content; its columns are the table's, in any order.
        lock: Lock file of all writers of this project.

    Raises:
        duckdb.IOException: The file is damaged, or another program kept it open for too long.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock), _connect(database) as connection:
        connection.begin()
        # A table of another version of this project may have other columns.
        connection.execute(f"DROP TABLE IF EXISTS {table}")
        connection.execute(f"CREATE TABLE {table} ({TABLES[table]})")
        connection.register("new_rows", rows)
        connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM new_rows")  # noqa: S608 - a constant
        connection.commit()


def read_table(database: Path, table: str) -> pd.DataFrame:
    """Reads a whole table.

    Args:
        database: The DuckDB file.
        table: A name in `TABLES`.

    Raises:
        duckdb.IOException: The file is not there, or another program kept it open for too long.
    """
    with _connect(database, read_only=True) as connection:
        return connection.table(table).df()


def _connect(database: Path, read_only: bool = False) -> duckdb.DuckDBPyConnection:
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
