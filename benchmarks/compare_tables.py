"""Whether two data folders say the same: every current table of their databases, number by number.

Versions, times and addresses are left out, as they differ between runs and releases; everything else must be equal
to the last bit. Run both studies with `compute.precision: fp32`, the same number of threads and on the same machine.

    python benchmarks/compare_tables.py data/before data/after
"""

import argparse
import sys
from pathlib import Path

import duckdb
import pandas as pd

NOT_COMPARED = ("version", "seconds", "written", "device", "recorded")
"""Columns whose name ends in one of these."""


def main() -> None:
    """Prints a line for each table; exits with 1 where one differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs=2)
    before, after = (_tables(folder) for folder in parser.parse_args().folders)
    differences = {name: _difference(before.get(name), after.get(name)) for name in sorted({*before, *after})}
    for name, difference in differences.items():
        print(f"{name:<16} {difference or f'the same ({len(before[name])} rows)'}")
    sys.exit(any(differences.values()))


def _tables(folder: Path) -> dict[str, pd.DataFrame]:
    with duckdb.connect(str(folder / "idal.duckdb"), read_only=True) as connection:
        names = [
            name
            for (name,) in connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
        ]
        return {name: connection.table(name).df() for name in names}


def _difference(before: pd.DataFrame | None, after: pd.DataFrame | None) -> str:
    if before is None or after is None:
        return "only after" if before is None else "only before"
    one, other = (_compared(table) for table in (before, after))
    if list(one.columns) != list(other.columns):
        return f"other columns: {', '.join(sorted(set(one.columns) ^ set(other.columns)))}"
    if len(one) != len(other):
        return f"{len(one)} rows before, {len(other)} after"
    differing = [name for name in one.columns if not one[name].equals(other[name])]
    return f"differs in {', '.join(differing)}" if differing else ""


def _compared(table: pd.DataFrame) -> pd.DataFrame:
    kept = [name for name in sorted(table.columns) if not name.endswith(NOT_COMPARED)]
    return (
        table[kept]
        .astype({name: str for name in kept if table[name].dtype == object})
        .sort_values([name for name in kept if table[name].dtype == object] or kept, ignore_index=True)
    )


if __name__ == "__main__":
    main()
