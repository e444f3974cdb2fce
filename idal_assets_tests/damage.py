"""Damage as disks, cables and people do it, and what must not have changed after it was mended."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pandas as pd

CLOCK = ("seconds", "cpu_seconds", "gpu_seconds", "written", "recorded")
"""What no two runs have in common."""


def flip_bit(path: Path, draw: random.Random) -> None:
    """Flips one bit of a file, whose size and time stay as they were."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def flips(path: Path, count: int, seed: str) -> Iterator[None]:
    """Has one bit of a file flipped at a time, each time another one, and puts the file back at the end."""
    whole, draw = path.read_bytes(), random.Random(seed)
    for _ in range(count):
        path.write_bytes(whole)
        flip_bit(path, draw)
        yield
    path.write_bytes(whole)


def everything(database: Path, *, clock: bool = True) -> dict[str, pd.DataFrame]:
    """All rows of all tables, with their history, in one order.

    Args:
        database: The DuckDB file.
        clock: Whether columns that tell the time are among them.
    """
    with duckdb.connect(str(database), read_only=True) as connection:
        listed = "SELECT schema_name, table_name FROM duckdb_tables() UNION SELECT schema_name, view_name FROM "
        names = connection.execute(f"{listed} duckdb_views() WHERE NOT internal ORDER BY ALL").fetchall()
        found = {f"{schema}.{name}": connection.table(f"{schema}.{name}") for schema, name in names}
        rows = {name: table.order("ALL").df() for name, table in found.items()}
    if clock:
        return rows
    return {name: table.drop(columns=list(CLOCK), errors="ignore") for name, table in rows.items()}


def assert_same(found: Path, expected: Path, *, clock: bool = True) -> None:
    """Two databases hold the same, bit for bit."""
    one, other = everything(found, clock=clock), everything(expected, clock=clock)
    assert one.keys() == other.keys()
    for name, table in other.items():
        order = list(table.columns)
        pd.testing.assert_frame_equal(
            in_order(one[name], order), in_order(table, order), check_exact=True, obj=name
        )


def in_order(table: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Rows in an order of their own, since without the columns of the clock the database's order says nothing."""
    keyed = table[columns].assign(_key=[repr(row) for row in table[columns].itertuples(index=False)])
    return keyed.sort_values("_key", ignore_index=True).drop(columns="_key")
