"""Asset checks: what the science says of a finished artifact, shown in the UI and blocking what follows.

A check runs after its asset in the same run, in the UI as in `idal run`. To check one partition again, materialize
it again: what is current is not made anew, only looked at. An artifact that fails loses its record, so that no run
after it uses it either, and its asset makes it anew.
"""

import warnings
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,
)

from idal_assets.orchestration.partitions import PARTITIONS
from idal_assets.orchestration.resources import StudyResource
from idal_assets.orchestration.retries import tried_again
from idal_assets.study.graph import GRAPH
from idal_assets.study.study import NotMadeError, Study

if TYPE_CHECKING:
    from idal_assets.steps.checks import Finding

MATRIX = "dice_matrix"
CURRENT_MATRIX = "current_matrix"
TRAINED = "Weights and losses are finite, the training has its full length, the loss went down (else a warning)."


def _check(asset: str, name: str, description: str, refuses: bool = True) -> dg.AssetChecksDefinition:
    """Makes a blocking check of an asset.

    Args:
        asset: The asset.
        name: Name of the function in `steps.checks` that looks at an artifact.
        description: What it verifies, for the UI.
        refuses: Whether an artifact that fails is damaged and must be made anew.
    """
    partition = GRAPH[asset].partition

    def check(context: dg.AssetCheckExecutionContext, study: StudyResource) -> dg.AssetCheckResult:
        opened = study.open()
        key = context.op_execution_context.partition_key if partition else None
        opened.provenance(asset, key)
        with tried_again():
            finding = _look(opened, asset, key, name)
        if finding.problems and refuses:
            opened.refuse(asset, key)
        return dg.AssetCheckResult(**_outcome(finding))

    with warnings.catch_warnings():
        # Dagster still calls the partitions of a check a preview; a new minor release is taken only after a test.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return dg.asset_check(
            asset=asset,
            name=name,
            description=description,
            blocking=True,
            partitions_def=PARTITIONS[partition] if partition else None,
        )(check)


def _look(study: Study, asset: str, key: str | None, name: str) -> "Finding":
    # imported here, because the definitions load without the science
    from idal_assets.steps import checks

    return getattr(checks, name)(study, asset, key)


def _outcome(finding: "Finding") -> dict[str, Any]:
    said = finding.problems or finding.warnings
    return {
        "passed": not said,
        "severity": dg.AssetCheckSeverity.ERROR if finding.problems else dg.AssetCheckSeverity.WARN,
        "description": "; ".join(said) or None,
        "metadata": dict(finding.facts),
    }


ALL_CHECKS = [
    _check("raw_case", "verified_content", "The files still hold, voxel for voxel, what the cohort verified."),
    _check(
        "case_slices",
        "sound_slices",
        "Channels, shapes and label values are right, intensities finite, and there is a tumour to learn.",
    ),
    _check("baseline_candidate", "trained_well", TRAINED),
    _check("baseline_weights", "trained_well", TRAINED),
    _check("case_model", "trained_well", TRAINED),
    _check("fold_model", "trained_well", TRAINED),
    _check("dice_row", "complete_row", "Every receiver and region once, in range or undefined, as counted."),
    _check(
        MATRIX,
        CURRENT_MATRIX,
        "The matrix was made from the rows that are there now. Said anew whenever a row or the cohort is made, "
        "however many rows there are: the UI's own mark gives up at 100.",
        refuses=False,
    ),
    _check("reduced_model", "trained_well", TRAINED),
]


def checks_of(asset: str) -> list[dg.AssetCheckKey]:
    """The checks of an asset."""
    return [key for check in ALL_CHECKS for key in check.check_keys if key.asset_key == dg.AssetKey(asset)]


def tell_matrix(study: Study, instance: dg.DagsterInstance) -> None:
    """Says anew whether the matrix is current; for whoever has made something that it is made from."""
    made = instance.fetch_materializations(dg.AssetKey(MATRIX), limit=1).records
    if not made:
        return
    try:
        finding = _look(study, MATRIX, None, CURRENT_MATRIX)
    except NotMadeError:
        return
    target = AssetCheckEvaluationTargetMaterializationData(
        storage_id=made[0].storage_id, run_id=made[0].run_id, timestamp=made[0].timestamp
    )
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey(MATRIX),
            check_name=CURRENT_MATRIX,
            target_materialization_data=target,
            **_outcome(finding),
        )
    )
