"""Whether two data folders say the same: every current table of their databases, number by number.

Versions and times are left out, as they differ between runs and releases; everything else must be equal to the
last bit. Run both studies with `compute.precision: fp32`, the same number of threads and on the same machine.

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
        views = connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
        return {name: connection.table(name).df() for (name,) in views}


def _difference(before: pd.DataFrame | None, after: pd.DataFrame | None) -> str:
    if before is None or after is None:
        return "only after" if before is None else "only before"
    if len(before) != len(after):
        return f"{len(before)} rows before, {len(after)} after"
    shared = [name for name in before if name in after and not name.endswith(NOT_COMPARED)]
    one, other = (table[shared].astype(str).sort_values(shared, ignore_index=True) for table in (before, after))
    said = [f"differs in {name}" for name in shared if not one[name].equals(other[name])]
    said += [f"{name} only before" for name in before if name not in after]
    said += [f"{name} only after" for name in after if name not in before]
    return ", ".join(said)


if __name__ == "__main__":
    main()
