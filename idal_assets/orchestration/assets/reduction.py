"""Assets of the group `reduction`: what is removed, what is retrained, and what that changed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from idal_assets.analysis.scores import MEAN
from idal_assets.imaging.brain_tumour import REGIONS
from idal_assets.orchestration.assembly import study_asset, table
from idal_assets.orchestration.assets.baseline import describe_training
from idal_assets.orchestration.pools import ACCELERATOR
from idal_assets.progress import Track
from idal_assets.study.study import Study


def _describe_plan(study: Study, key: None, folder: Path) -> Mapping[str, Any]:
    from idal_assets.steps.reductions import load_plan

    plan = load_plan(folder)
    rows = [
        {"removal_set": name, "removed": len(cases), "cases": ", ".join(cases)} for name, cases in plan.items()
    ]
    return {"removal_sets": table(pd.DataFrame(rows))}


@study_asset(kinds={"duckdb"}, describe=_describe_plan)
def removal_plan(study: Study, key: None, folder: Path, track: Track) -> None:
    """Which donors each removal set takes away (table `removal_plan`).

    `all` takes none, `worst_N` the worst N, `worst_cluster` a cluster of the dendrogram; their controls take as
    many at random (`random_N_r01`) or matched to these (`matched_N_r01`). `_s2` is the same for another seed.
    """
    from idal_assets.steps.reductions import make_plan
    from idal_assets.store.database import record

    record(study.folder.database, "removal_plan", make_plan(study, folder), study.folder.database_lock)


def _describe_training_set(study: Study, removal_set: str, folder: Path) -> Mapping[str, Any]:
    from idal_assets.steps.reductions import load_training_set

    rows = load_training_set(folder)
    lost = rows[~rows["kept"]]
    places = ["case_id", "rank", "score", "reason"]
    return {
        "kept": int(rows["kept"].sum()),
        "removed": len(lost),
        "removed_cases": ", ".join(lost["case_id"]) or "none",
        "difference_to_all": table(lost[places]),
        "cases": table(rows[["case_id", "kept", *places[1:]]]),
        **_versions(rows, "training_set_version", "plan_version", "ranking_version", "matrix_version"),
    }


def _versions(rows: pd.DataFrame, *columns: str) -> Mapping[str, str]:
    return {name: str(rows[name].iloc[0]) for name in columns}


@study_asset(kinds={"parquet", "duckdb"}, describe=_describe_training_set)
def training_set(study: Study, removal_set: str, folder: Path, track: Track) -> str:
    """Exactly which cases this retraining keeps and which it lost, with rank and reason (table `training_set`).

    The version is the content of the kept cases: a change to a removed case reruns nothing.
    """
    from idal_assets.steps.reductions import make_training_set
    from idal_assets.store.database import record

    version, rows = make_training_set(study, removal_set, folder)
    record(study.folder.database, "training_set", rows, study.folder.database_lock)
    return version


def _describe_model(study: Study, removal_set: str, folder: Path) -> Mapping[str, Any]:
    from idal_assets.steps.reductions import training_seed

    return {
        "replicate": study.removal_sets[removal_set].replicate,
        "seed": training_seed(study, removal_set),
        "model_version": study.version("reduced_model", removal_set),
        "training_set_version": study.provenance("reduced_model", removal_set).inputs.made_from["training_set"],
        **describe_training(study, removal_set, folder),
    }


@study_asset(kinds={"pytorch", "duckdb"}, describe=_describe_model, pool=ACCELERATOR)
def reduced_model(study: Study, removal_set: str, folder: Path, track: Track) -> None:
    """A network trained like the baseline, from scratch, on the cases that this set keeps (table `model`)."""
    from idal_assets.steps.models import train_reduced_model
    from idal_assets.steps.reductions import model_row
    from idal_assets.store.database import record

    row = model_row(study, removal_set)
    train_reduced_model(study, removal_set, folder, track)
    record(study.folder.database, "model", row, study.folder.database_lock)


def _describe_evaluation(study: Study, removal_set: str, folder: Path) -> Mapping[str, Any]:
    from idal_assets.steps.reductions import load_evaluation

    rows = load_evaluation(study, removal_set)
    by_case = rows.pivot(index=["case_id", "receiver_version"], columns="region", values="dice")
    return {
        **_versions(rows, "model_version"),
        "test_cases": len(by_case),
        "median_dice": float(by_case[MEAN].median()),
        **_median_distance(rows),
        "dice_by_case": table(by_case.reset_index()[["case_id", MEAN, *REGIONS, "receiver_version"]]),
    }


def _median_distance(rows: pd.DataFrame) -> Mapping[str, float]:
    """Nothing where no distance was measured."""
    distances = rows.loc[rows["region"] == "WT", "hd95"]
    return {"median_hd95_wt_mm": float(distances.median())} if distances.notna().any() else {}


@study_asset(kinds={"parquet", "nifti"}, describe=_describe_evaluation, pool=ACCELERATOR)
def reduced_evaluation(study: Study, removal_set: str, folder: Path, track: Track) -> None:
    """This retrained network on every test case: scores per label and region, and the segmentations as NIfTI.

    What network and test case leave unchanged is taken over from the evaluation before.
    """
    from idal_assets.steps.models import evaluate_reduced_model

    evaluate_reduced_model(study, removal_set, folder, track)


def _describe_report(study: Study, key: None, folder: Path) -> Mapping[str, Any]:
    return {"table_3_3": table(pd.read_csv(folder / "median_change.csv"))}


@study_asset(kinds={"duckdb", "matplotlib"}, describe=_describe_report)
def reduction_report(study: Study, key: None, folder: Path, track: Track) -> None:
    """What removal did to the test cases (table `evaluation`): figures 3.6a, 3.6b and table 3.3 of the thesis."""
    from idal_assets.steps.reductions import make_reduction_report
    from idal_assets.store.database import record

    evaluation = make_reduction_report(study, folder)
    record(study.folder.database, "evaluation", evaluation, study.folder.database_lock)
