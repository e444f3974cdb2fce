"""Assets of the group `reduction`: what is removed, what is retrained, and what that changed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from idal_assets.orchestration.assembly import study_asset, table
from idal_assets.orchestration.assets.baseline import describe_training
from idal_assets.orchestration.pools import ACCELERATOR
from idal_assets.progress import Track
from idal_assets.study import Study


def _describe_plan(study: Study, key: None, folder: Path) -> Mapping[str, Any]:
    from idal_assets.steps.reductions import load_plan

    plan = load_plan(folder)
    rows = [
        {"removal_set": name, "removed": len(cases), "cases": ", ".join(cases)} for name, cases in plan.items()
    ]
    return {"removal_sets": table(pd.DataFrame(rows))}


@study_asset(kinds={"duckdb"}, describe=_describe_plan)
def removal_plan(study: Study, key: None, folder: Path, track: Track) -> None:
    """Which donors each removal set takes away (table `training_set`): `all` none, `worst_N`, `worst_cluster`."""
    from idal_assets.analysis.database import replace_table
    from idal_assets.steps.reductions import make_plan

    training_sets = make_plan(study, folder)
    replace_table(study.folder.database, "training_set", training_sets, study.folder.database_lock)


def _describe_training_set(study: Study, removal_set: str, folder: Path) -> Mapping[str, Any]:
    rows = pd.read_parquet(folder / "training_set.parquet")
    lost = rows.loc[~rows["kept"], "case_id"]
    return {
        "kept": int(rows["kept"].sum()),
        "removed": len(lost),
        "removed_cases": ", ".join(lost) or "none",
        "cases": table(rows),
    }


@study_asset(kinds={"parquet"}, describe=_describe_training_set)
def training_set(study: Study, removal_set: str, folder: Path, track: Track) -> str:
    """Exactly which cases this retraining keeps and which it lost, with rank and reason.

    The version is the content of the kept cases: a change to a removed case reruns nothing.
    """
    from idal_assets.steps.reductions import make_training_set

    return make_training_set(study, removal_set, folder)


@study_asset(kinds={"pytorch"}, describe=describe_training, pool=ACCELERATOR)
def reduced_model(study: Study, removal_set: str, folder: Path, track: Track) -> None:
    """A network trained from scratch, like the baseline, on the cases that this removal set keeps."""
    from idal_assets.steps.models import train_reduced_model

    train_reduced_model(study, removal_set, folder, track)


def _describe_evaluation(study: Study, removal_set: str, folder: Path) -> Mapping[str, Any]:
    rows = pd.read_parquet(folder / "evaluation.parquet")
    by_case = rows.pivot(index="case_id", columns="region", values="dice")
    return {
        "test_cases": len(by_case),
        "median_dice": float(by_case["mean"].median()),
        "dice_by_case": table(by_case.reset_index()),
    }


@study_asset(kinds={"parquet", "nifti"}, describe=_describe_evaluation, pool=ACCELERATOR)
def reduced_evaluation(study: Study, removal_set: str, folder: Path, track: Track) -> None:
    """This retrained network on every test case: Dice per label and region, and the segmentations as NIfTI."""
    from idal_assets.steps.models import evaluate_reduced_model

    evaluate_reduced_model(study, removal_set, folder, track)


def _describe_report(study: Study, key: None, folder: Path) -> Mapping[str, Any]:
    return {"table_3_3": table(pd.read_csv(folder / "median_change.csv"))}


@study_asset(kinds={"duckdb", "matplotlib"}, describe=_describe_report)
def reduction_report(study: Study, key: None, folder: Path, track: Track) -> None:
    """What removal did to the test cases (table `evaluation`): figures 3.6a, 3.6b and table 3.3 of the thesis."""
    from idal_assets.analysis.database import replace_table
    from idal_assets.steps.reductions import make_reduction_report

    evaluation = make_reduction_report(study, folder)
    replace_table(study.folder.database, "evaluation", evaluation, study.folder.database_lock)
