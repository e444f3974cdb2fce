"""Turns a plain function into a Dagster asset of the graph.

The function writes an artifact's files into a folder. Dependencies, partitions and group come from the graph;
versions, atomic writing and the metadata that every artifact has are added here, once for all.
"""

import base64
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd

from idal_assets.orchestration.checks import MATRIX, tell_matrix
from idal_assets.orchestration.instance import AUTOMATIC_TAG
from idal_assets.orchestration.launchpad import config_schema, given_settings
from idal_assets.orchestration.partitions import PARTITIONS, dependency
from idal_assets.orchestration.resources import Progress, StudyResource
from idal_assets.orchestration.retries import tried_again
from idal_assets.profile import Profile
from idal_assets.progress import Track
from idal_assets.steps.cells import cell_counts
from idal_assets.store.artifacts import Provenance, build, read_provenance
from idal_assets.study.currency import is_kept
from idal_assets.study.graph import GRAPH, Node
from idal_assets.study.study import Study

Work = Callable[[Study, Any, Path, Track], str | None]
"""Writes the artifact of a partition into a folder; may return a version made from the content."""

Describe = Callable[[Study, Any, Path], Mapping[str, Any]]
"""Reads from the finished artifact what a person wants to see in the UI."""

AssetOf = Callable[[Profile], dg.AssetsDefinition]
"""Makes an asset whose launchpad shows the settings of a profile."""

LARGEST_PICTURE = 400_000
"""Bytes; a larger picture is linked instead of embedded, since Dagster stores metadata with every event."""

LONG_TABLE = 10
"""Rows; a longer table is shown below everything else."""


def study_asset(
    kinds: set[str],
    describe: Describe | None = None,
    before: Callable[[Study, Track], None] | None = None,
    after: Callable[[Study, dg.DagsterInstance], None] | None = None,
    explain: Callable[[Exception], Mapping[str, Any]] | None = None,
    pool: str | None = None,
) -> Callable[[Work], AssetOf]:
    """Makes an asset of the graph's node that has the function's name.

    Args:
        kinds: Tags that the UI shows as icons.
        describe: Adds metadata to what every artifact has.
        before: Called before the inputs are looked at.
        after: Called when the artifact is in place.
        explain: What the UI shall show of an error on the asset's own page, beyond the failed run.
        pool: What it needs that only so many runs can have at once.
    """

    def decorate(work: Work) -> AssetOf:
        node = GRAPH[work.__name__]
        return lambda profile: define(node, work, profile)

    def define(node: Node, work: Work, profile: Profile) -> dg.AssetsDefinition:
        @dg.asset(
            name=node.name,
            group_name=node.group,
            description=inspect.getdoc(work),
            kinds=kinds,
            code_version=node.code,
            partitions_def=PARTITIONS[node.partition] if node.partition else None,
            deps=[dependency(name, node.partition, select) for name, select in node.made_from.items()],
            config_schema=config_schema(node, profile),
            pool=pool,
        )
        def asset(
            context: dg.AssetExecutionContext, study: StudyResource, progress: dg.ResourceParam[Progress]
        ) -> dg.MaterializeResult:
            opened = study.open().with_settings(given_settings(context.run.run_config, node))
            key = context.partition_key if node.partition else None
            track = progress.of(context.log.info)
            by_itself = AUTOMATIC_TAG in context.run.tags
            with tried_again(), _explained(context, explain):
                if before:
                    before(opened, track)
                provenance, made_now = make(opened, node, key, work, track, by_itself)
            if after:
                after(opened, context.instance)
            if node.name in GRAPH[MATRIX].made_from:
                tell_matrix(opened, context.instance)
            folder = opened.path(node.name, key)
            described = describe(opened, key, folder) if describe else {}
            return dg.MaterializeResult(
                data_version=dg.DataVersion(provenance.version),
                metadata=in_reading_order(described, pictures(folder), _record(folder, provenance, made_now)),
            )

        return asset

    return decorate


@contextmanager
def _explained(
    context: dg.AssetExecutionContext, explain: Callable[[Exception], Mapping[str, Any]] | None
) -> Iterator[None]:
    """Shows an error on the asset's own page, if there is a way to explain it."""
    try:
        yield
    except Exception as error:
        if explain and (seen := explain(error)):
            context.log_event(dg.AssetObservation(context.asset_key, metadata=seen))
        raise


def make(
    study: Study, node: Node, key: str | None, work: Work, track: Track, by_itself: bool = False
) -> tuple[Provenance, bool]:
    """Makes one artifact, unless it is current.

    Args:
        study: The study.
        node: The asset.
        key: The partition.
        work: Writes the artifact's files.
        track: Shows the progress.
        by_itself: Whether nobody asked for this very artifact; then one that the profile's policy keeps is kept.
    """
    folder = study.path(node.name, key)
    kept = read_provenance(folder) if by_itself and is_kept(study, node, key) else None
    return build(
        folder,
        node.name,
        key,
        kept.inputs if kept else node.inputs(study, key),
        lambda folder: work(study, key, folder, track),
        study.folder.unfinished,
        study.folder.locks,
    )


def table(rows: pd.DataFrame) -> dg.TableMetadataValue:
    """A table for the UI; floats are rounded."""
    types = {"i": "int", "f": "float", "b": "bool"}
    columns = [dg.TableColumn(str(name), types.get(rows[name].dtype.kind, "string")) for name in rows.columns]
    records = [
        dg.TableRecord({str(name): _cell(value) for name, value in row.items()})
        for row in rows.to_dict(orient="records")
    ]
    return dg.MetadataValue.table(records, schema=dg.TableSchema(columns))


def _cell(value: Any) -> Any:
    if pd.isna(value):
        return None
    if hasattr(value, "item"):
        value = value.item()
    return rounded(value)


def rounded(value: Any) -> Any:
    """What people read of a number; the files and the database hold all of it."""
    return round(value, 4) if isinstance(value, float) else value


def in_reading_order(
    described: Mapping[str, Any], pictures: Mapping[str, Any], record: Mapping[str, Any]
) -> dict[str, Any]:
    """Sorts metadata as the UI shows it: words and numbers, pictures, short tables, the record, long tables."""
    tables = {name: value for name, value in described.items() if isinstance(value, dg.TableMetadataValue)}
    long = {name: value for name, value in tables.items() if len(value.records) > LONG_TABLE}
    words = {name: value for name, value in described.items() if name not in tables}
    short = {name: value for name, value in tables.items() if name not in long}
    shown = {**words, **pictures, **short, **record, **long}
    return {name: rounded(value) for name, value in shown.items()}


def sentences(lines: Sequence[str]) -> dg.MarkdownMetadataValue:
    """A list for the UI, which breaks lines of Markdown but not those of plain text."""
    return dg.MetadataValue.md("\n".join(f"- {line}" for line in lines) or "none")


def pictures(folder: Path) -> dict[str, dg.MetadataValue]:
    """Every picture of an artifact, embedded."""
    return {path.stem: _picture(path) for path in sorted(folder.glob("*.png"))}


def _picture(path: Path) -> dg.MetadataValue:
    if path.stat().st_size > LARGEST_PICTURE:
        return dg.MetadataValue.path(path)
    encoded = base64.b64encode(path.read_bytes()).decode()
    return dg.MetadataValue.md(f"![{path.stem}](data:image/png;base64,{encoded})")


def _record(folder: Path, provenance: Provenance, made_now: bool) -> dict[str, Any]:
    return {
        "path": dg.MetadataValue.path(folder),
        "seconds": provenance.seconds,
        "cpu_seconds": provenance.cpu_seconds,
        "made": provenance.written,
        "reused": not made_now,
        **cell_counts(folder, made_now),
        "made_from": dg.MetadataValue.json(provenance.inputs.model_dump(mode="json")["made_from"]),
        "settings": dg.MetadataValue.json(provenance.inputs.model_dump(mode="json")["settings"]),
        "software": dg.MetadataValue.json(provenance.software),
    }
