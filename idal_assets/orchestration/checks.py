"""Asset checks: what the science says of a finished artifact, shown in the UI and blocking what follows.

A check runs after its asset in the same run, in the UI as in `idal run`. To check one partition again, materialize
it again: what is current is not made anew, only looked at. An artifact that fails loses its record, so that no run
after it uses it either, and its asset makes it anew.
"""

import warnings
from typing import Any

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,
)

from idal_assets.orchestration.partitions import partitions_def
from idal_assets.orchestration.resources import StudyResource
from idal_assets.orchestration.retries import tried_again
from idal_assets.study.graph import GRAPH, Check, Node
from idal_assets.study.making import Finding, judge, look
from idal_assets.study.study import NotMadeError, Study


def build_checks() -> list[dg.AssetChecksDefinition]:
    """The checks of all assets that have one; each blocks what follows."""
    return [_definition(node, node.check) for node in GRAPH.values() if node.check]


def _definition(node: Node, check: Check) -> dg.AssetChecksDefinition:
    def checked(context: dg.AssetCheckExecutionContext, study: StudyResource) -> dg.AssetCheckResult:
        key = context.op_execution_context.partition_key if node.partition else None
        with tried_again():
            finding = judge(study.open(), node.name, key)
        return dg.AssetCheckResult(**outcome_of(finding))

    with warnings.catch_warnings():
        # Dagster still calls the partitions of a check a preview; a new minor release is taken only after a test.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return dg.asset_check(
            asset=node.name,
            name=check.name,
            description=check.says,
            blocking=True,
            partitions_def=partitions_def(node),
        )(checked)


def outcome_of(finding: Finding) -> dict[str, Any]:
    """What was found, as Dagster says whether a check passed."""
    said = finding.problems or finding.warnings
    return {
        "passed": not said,
        "severity": dg.AssetCheckSeverity.ERROR if finding.problems else dg.AssetCheckSeverity.WARN,
        "description": "; ".join(said) or None,
        "metadata": dict(finding.facts),
    }


def check_of(asset: str) -> dg.AssetCheckKey | None:
    """The check of an asset, if it has one."""
    check = GRAPH[asset].check
    return dg.AssetCheckKey(dg.AssetKey(asset), check.name) if check else None


def tell_anew(study: Study, instance: dg.DagsterInstance, made: str) -> None:
    """Says anew what is to be said whenever an asset is made: whether what was made from it is still current."""
    for node in GRAPH.values():
        if node.check and node.check.told_anew and made in node.made_from:
            _tell(study, instance, node.name, node.check)


def _tell(study: Study, instance: dg.DagsterInstance, asset: str, check: Check) -> None:
    made = instance.fetch_materializations(dg.AssetKey(asset), limit=1).records
    if not made:
        return
    try:
        finding = look(study, asset)
    except NotMadeError:
        return
    target = AssetCheckEvaluationTargetMaterializationData(
        storage_id=made[0].storage_id, run_id=made[0].run_id, timestamp=made[0].timestamp
    )
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey(asset),
            check_name=check.name,
            target_materialization_data=target,
            **outcome_of(finding),
        )
    )
