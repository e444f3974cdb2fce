"""The partitions, all dynamic because data and profile decide what they are."""

import dagster as dg

from idal_assets.study.graph import GRAPH, PARTITIONS, Node
from idal_assets.study.selectors import Selector, same_key
from idal_assets.study.study import NotMadeError, Study


def partitions_def(node: Node) -> dg.DynamicPartitionsDefinition | None:
    """Dagster's definition of an asset's partitions; None where it has none."""
    return dg.DynamicPartitionsDefinition(name=node.partition) if node.partition else None


def register_partitions(study: Study, instance: dg.DagsterInstance) -> None:
    """Makes the instance's partitions those of the cohort, of the profile and of the list of patients.

    Where the cohort has not been made, what depends on it stays as it is.
    """
    for name, partition in PARTITIONS.items():
        try:
            keys = partition.keys(study)
        except NotMadeError:
            continue
        present = set(instance.get_dynamic_partitions(name))
        instance.add_dynamic_partitions(name, [key for key in keys if key not in present])
        for gone in sorted(present - set(keys)):
            instance.delete_dynamic_partition(name, gone)


def dependency(upstream: str, node: Node, select: Selector) -> dg.AssetDep:
    """The Dagster dependency that corresponds to an edge of the graph."""
    if GRAPH[upstream].partition is None or node.partition is None:
        return dg.AssetDep(upstream)
    mapping = dg.IdentityPartitionMapping() if select is same_key else dg.AllPartitionMapping()
    return dg.AssetDep(upstream, partition_mapping=mapping)
