"""The example of the documentation's page `architecture`: a new asset takes one row and one function."""

# --8<-- [start:functions]
from collections.abc import Mapping
from typing import Any

import pandas as pd

from idal_assets.seeds import stream
from idal_assets.store.database import TableSchema
from idal_assets.study.graph import Node
from idal_assets.study.making import Outcome, Task
from idal_assets.study.selectors import same_key


def draw_slice(task: Task) -> Outcome:
    """Draws a slice of the case; writes `toy.csv`, the rows of the table `toy`."""
    seed, depth = task.setting("seed"), task.facts(task.key).shape[2]
    drawn = int(stream(seed, "toy", task.key).integers(depth))
    rows = pd.DataFrame({"case_id": [task.key], "seed": seed, "slice": drawn, "toy_version": task.version})
    rows.to_csv(task.folder / "toy.csv", index=False)
    return Outcome(tables={"toy": rows})


def show_slice(task: Task) -> Mapping[str, Any]:
    """The table, and a list of sentences."""
    rows = pd.read_csv(task.folder / "toy.csv")
    return {"rows": rows, "says": [f"Look at slice {number}." for number in rows["slice"]]}


# --8<-- [end:functions]

# --8<-- [start:row]
TOY = Node(
    "toy",
    "cohort",
    "A slice of one case, drawn for a person to review.",
    "idal_assets_tests.toy:draw_slice",  # in the package: f"{STEPS}.cohort:draw_slice"
    {"raw_case": same_key},
    partition="case",
    settings=("seed",),
    shows="idal_assets_tests.toy:show_slice",
    tables=("toy",),
)
# --8<-- [end:row]

# --8<-- [start:table]
TOY_TABLE = TableSchema(
    {"case_id": "VARCHAR", "seed": "INTEGER", "slice": "INTEGER", "toy_version": "VARCHAR"},
    version=("toy_version",),
    key=("case_id",),
)
# --8<-- [end:table]
