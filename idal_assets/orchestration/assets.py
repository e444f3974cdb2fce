"""The Dagster assets: one for each row of the graph, all made here in one loop.

An asset makes its artifact and shows what came of it. What it is made from, its partitions, settings,
check and words are those of its row.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from idal_assets.orchestration.checks import tell_anew
from idal_assets.orchestration.instance import AUTOMATIC_TAG
from idal_assets.orchestration.launchpad import config_schema, given_settings
from idal_assets.orchestration.metadata import as_metadata, metadata_of
from idal_assets.orchestration.partitions import dependency, partitions_def, register_partitions
from idal_assets.orchestration.resources import StepProgress, StudyResource
from idal_assets.orchestration.retries import tried_again
from idal_assets.profile import Profile
from idal_assets.study.graph import GRAPH, GROUPS, Node, drawn_edges
from idal_assets.study.making import make, shown
from idal_assets.study.study import named

ACCELERATOR = "accelerator"
"""Pool of the card, or of the cores where there is none: whatever trains or segments takes a place in it."""


def build_assets(profile: Profile) -> list[dg.AssetsDefinition]:
    """All assets of the graph, whose launchpads show the settings of a profile."""
    return [_asset(node, profile) for node in GRAPH.values()]


def group_of(node: Node) -> str:
    """Name of an asset's group, by which the UI shows the groups in the order of the experiment."""
    return f"{GROUPS.index(node.group) + 1:02}_{node.group}"


def _asset(node: Node, profile: Profile) -> dg.AssetsDefinition:
    @dg.asset(
        name=node.name,
        # the UI sorts groups by name
        group_name=group_of(node),
        description=node.says,
        kinds=set(node.kinds),
        code_version=node.code,
        partitions_def=partitions_def(node),
        deps=[dependency(name, node, node.made_from[name]) for name in drawn_edges(node.name)],
        config_schema=config_schema(node, profile),
        pool=ACCELERATOR if node.accelerated else None,
    )
    def asset(
        context: dg.AssetExecutionContext,
        study: StudyResource,
        progress: dg.ResourceParam[StepProgress],
    ) -> dg.MaterializeResult:
        opened = study.open().with_settings(given_settings(context.run.run_config, node))
        key = context.partition_key if node.partition else None
        by_itself = AUTOMATIC_TAG in context.run.tags
        with tried_again(), _explained(context):
            record, made_now = make(opened, node.name, key, progress.of(context.log.info), by_itself)
        if not made_now:
            context.log.info(f"{named(node.name, key)} is current; delete its folder to have it made anew")
        if node.names_partitions:
            register_partitions(opened, context.instance)
        tell_anew(opened, context.instance, node.name)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(record.version),
            metadata=metadata_of(shown(opened, node.name, key), opened.path(node.name, key), record, made_now),
        )

    return asset


@contextmanager
def _explained(context: dg.AssetExecutionContext) -> Iterator[None]:
    """Shows what an error has to show on the asset's own page, beyond the failed run."""
    try:
        yield
    except Exception as error:
        if shows := getattr(error, "shows", None):
            context.log_event(dg.AssetObservation(context.asset_key, metadata=as_metadata(shows)))
        raise
