"""The partitions, all dynamic because data and profile decide what they are."""

import dagster as dg

from idal_assets.study.graph import GRAPH, Partition, Selector, same_key
from idal_assets.study.study import Study

PARTITIONS: dict[Partition, dg.DynamicPartitionsDefinition] = {
    "case": dg.DynamicPartitionsDefinition(name="case"),
    "candidate": dg.DynamicPartitionsDefinition(name="candidate"),
    "donor": dg.DynamicPartitionsDefinition(name="donor"),
    "fold": dg.DynamicPartitionsDefinition(name="fold"),
    "removal_set": dg.DynamicPartitionsDefinition(name="removal_set"),
}


def register_partitions(study: Study, instance: dg.DagsterInstance) -> None:
    """Makes the instance's partitions those of the cohort and of the profile."""
    cohort = study.cohort
    wanted: dict[Partition, list[str]] = {
        "case": [case.case_id for case in cohort.cases],
        "candidate": study.candidates,
        "donor": cohort.donors,
        "fold": study.profile.out_of_fold.names,
        "removal_set": list(study.removal_sets),
    }
    for name, keys in wanted.items():
        present = set(instance.get_dynamic_partitions(name))
        instance.add_dynamic_partitions(name, [key for key in keys if key not in present])
        for gone in sorted(present - set(keys)):
            instance.delete_dynamic_partition(name, gone)


def dependency(upstream: str, partition: Partition | None, selector: Selector) -> dg.AssetDep:
    """The Dagster dependency that corresponds to an edge of the graph."""
    upstream_partition = GRAPH[upstream].partition
    if upstream_partition is None or partition is None:
        return dg.AssetDep(upstream)
    mapping = dg.IdentityPartitionMapping() if selector is same_key else dg.AllPartitionMapping()
    return dg.AssetDep(upstream, partition_mapping=mapping)
