"""The README says what there is: every asset in the words of its row, every profile, every table."""

from pathlib import Path

import pytest

from idal_assets.profile import profile_names
from idal_assets.store.database import TABLES
from idal_assets.study.graph import GRAPH

pytestmark = pytest.mark.unit

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("node", GRAPH.values(), ids=list(GRAPH))
def test_every_asset_is_described_as_its_row_does(node) -> None:
    kind = (node.partition or "").replace("_", " ")
    assert f"| {node.group} | `{node.name}` | {kind} | {node.says} |" in README


def test_every_profile_and_table_is_named() -> None:
    assert [name for name in profile_names() if f"`{name}`" not in README] == []
    listed = README.split("idal.duckdb                      tables ")[1].split(";")[0]
    assert {name.strip() for name in listed.split(",")} == set(TABLES)
