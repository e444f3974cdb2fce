"""All assets, one module for each part of the experiment."""

from idal_assets.orchestration.assets.baseline import baseline_candidate, baseline_comparison, baseline_weights
from idal_assets.orchestration.assets.cohort import cohort, raw_case
from idal_assets.orchestration.assets.donors import augmented_case, case_model
from idal_assets.orchestration.assets.evidence import convergence, cost, early_row, evidence
from idal_assets.orchestration.assets.prepare import case_slices, nnunet_plans
from idal_assets.orchestration.assets.quality import fold_model, label_quality
from idal_assets.orchestration.assets.reduction import (
    reduced_evaluation,
    reduced_model,
    reduction_report,
    removal_plan,
    training_set,
)
from idal_assets.orchestration.assets.report import experiment_report
from idal_assets.orchestration.assets.similarity import case_ranking, dendrogram, dice_matrix, dice_row
from idal_assets.orchestration.assets.validation import fault_detection

ALL_ASSETS = [
    cohort,
    raw_case,
    nnunet_plans,
    case_slices,
    baseline_candidate,
    baseline_comparison,
    baseline_weights,
    augmented_case,
    case_model,
    dice_row,
    fold_model,
    label_quality,
    dice_matrix,
    dendrogram,
    case_ranking,
    removal_plan,
    training_set,
    reduced_model,
    reduced_evaluation,
    reduction_report,
    evidence,
    early_row,
    convergence,
    cost,
    fault_detection,
    experiment_report,
]
