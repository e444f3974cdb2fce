"""The code location: what Dagster sees before anything has run."""

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from idal_assets.definitions import defs
from idal_assets.orchestration.assets import group_of
from idal_assets.study.graph import GRAPH, GROUPS, SOURCES

pytestmark = pytest.mark.unit


def test_definitions_load_without_data_torch_or_nnunet(tmp_path: Path) -> None:
    program = (
        "import sys, idal_assets.definitions; "
        "print([name for name in ('torch', 'nnunetv2', 'matplotlib') if name in sys.modules])"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert loaded.stdout.strip() == "[]"
    assert not any(tmp_path.iterdir())


def test_assets_have_the_names_of_the_graph() -> None:
    assert {key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()} == set(GRAPH)


@pytest.mark.parametrize("name", GRAPH)
def test_every_asset_says_what_it_is(name: str) -> None:
    spec = defs.resolve_asset_graph().get(dg.AssetKey(name))
    assert spec.group_name == group_of(GRAPH[name])
    assert spec.description == GRAPH[name].says
    assert spec.kinds == set(GRAPH[name].kinds)
    assert spec.code_version == GRAPH[name].code


def test_dagster_dependencies_are_those_of_the_graph() -> None:
    graph = defs.resolve_asset_graph()
    for node in GRAPH.values():
        direct = {parent.to_user_string() for parent in graph.get(dg.AssetKey(node.name)).parent_keys}
        declared = set(node.made_from) - SOURCES
        assert direct <= declared
        # what is not drawn is waited for all the same
        assert declared <= direct.union(*(above(graph, parent) for parent in direct))


def above(graph, name: str) -> set[str]:
    """Everything that Dagster makes before an asset."""
    parents = {parent.to_user_string() for parent in graph.get(dg.AssetKey(name)).parent_keys}
    return parents.union(*(above(graph, parent) for parent in parents))


def test_groups_sort_in_the_order_of_the_experiment() -> None:
    assert {node.group for node in GRAPH.values()} == set(GROUPS)
    names = sorted({group_of(node) for node in GRAPH.values()})
    assert [name[3:] for name in names] == list(GROUPS)


@pytest.mark.parametrize(
    ("asset", "upstream", "mapping"),
    [
        ("case_slices", "raw_case", dg.IdentityPartitionMapping),
        ("patient_slices", "patient_case", dg.IdentityPartitionMapping),
        ("baseline_candidate", "raw_case", dg.AllPartitionMapping),
        ("baseline_candidate", "case_slices", dg.AllPartitionMapping),
        ("augmented_case", "case_slices", dg.IdentityPartitionMapping),
        ("case_model", "augmented_case", dg.IdentityPartitionMapping),
        ("dice_row", "case_model", dg.IdentityPartitionMapping),
        ("dice_row", "case_slices", dg.AllPartitionMapping),
        ("fold_model", "case_slices", dg.AllPartitionMapping),
        ("training_set", "case_slices", dg.AllPartitionMapping),
        ("reduced_model", "training_set", dg.IdentityPartitionMapping),
        ("reduced_evaluation", "case_slices", dg.AllPartitionMapping),
        ("early_row", "case_model", dg.IdentityPartitionMapping),
        ("early_row", "case_slices", dg.AllPartitionMapping),
    ],
)
def test_partitions_map_as_the_graph_says(asset: str, upstream: str, mapping: type) -> None:
    found = defs.resolve_asset_graph().get(dg.AssetKey(asset)).partition_mappings[dg.AssetKey(upstream)]
    assert isinstance(found, mapping)
