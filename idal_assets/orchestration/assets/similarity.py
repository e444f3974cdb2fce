"""Assets of the group `similarity`: every model on every case, and what the matrix says."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from idal_assets.analysis.scores import MEAN
from idal_assets.imaging.brain_tumour import REGIONS
from idal_assets.orchestration.assembly import study_asset, table
from idal_assets.orchestration.pools import ACCELERATOR
from idal_assets.progress import Track
from idal_assets.study.study import Study


def _describe_row(study: Study, donor: str, folder: Path) -> Mapping[str, Any]:
    from idal_assets.steps.cells import ROW_FILE, read_scores

    rows = read_scores(folder / ROW_FILE, study.profile.similarity.scalar)
    scalars = rows[rows["region"] == MEAN].set_index("receiver")["dice"]
    by_receiver = rows.pivot(index=["receiver", "receiver_version"], columns="region", values="dice")
    return {
        "model_version": rows["model_version"].iloc[0],
        "cells": len(scalars),
        "mean_dice_of_others": float(scalars.drop(donor).mean()),
        "dice_of_itself": float(scalars[donor]),
        "cells_by_receiver": table(by_receiver.reset_index()[["receiver", MEAN, *REGIONS, "receiver_version"]]),
    }


@study_asset(kinds={"pytorch", "parquet"}, describe=_describe_row, pool=ACCELERATOR)
def dice_row(study: Study, donor: str, folder: Path, track: Track) -> None:
    """One row of the matrix: this donor's model on every receiver, scored in the original geometry.

    Receivers are the donors, the validation cases and the test cases.
    A cell whose model and receiver are those of the row before is taken over from it.
    """
    from idal_assets.steps.models import score_case_model

    score_case_model(study, donor, folder, track)


def _describe_matrix(study: Study, key: None, folder: Path) -> Mapping[str, Any]:
    matrix = pd.read_parquet(folder / "matrix.parquet")
    return {
        "rows": matrix.shape[0],
        "columns": matrix.shape[1],
        "undefined_cells": int(matrix.isna().to_numpy().sum()),
        "mean_dice": float(matrix.mean(axis=None)),
    }


@study_asset(kinds={"duckdb", "matplotlib"}, describe=_describe_matrix)
def dice_matrix(study: Study, key: None, folder: Path, track: Track) -> None:
    """All rows in DuckDB (table `dice`), checked for completeness, with heat maps of donors and of test cases."""
    from idal_assets.steps.matrix import make_matrix
    from idal_assets.store.database import record

    record(study.folder.database, "dice", make_matrix(study, folder), study.folder.database_lock)


def _describe_dendrogram(study: Study, key: None, folder: Path) -> Mapping[str, Any]:
    from idal_assets.steps.matrix import load_dendrogram

    found = load_dendrogram(folder)
    return {"cophenetic_correlation": found.cophenetic, "leaf_order": ", ".join(found.leaves)}


@study_asset(kinds={"scipy", "matplotlib"}, describe=_describe_dendrogram)
def dendrogram(study: Study, key: None, folder: Path, track: Track) -> None:
    """Clustering of the donors (UPGMA): linkage, cophenetic correlation, picture with the matrix in leaf order."""
    from idal_assets.steps.matrix import make_dendrogram

    make_dendrogram(study, folder)


def _describe_ranking(study: Study, key: None, folder: Path) -> Mapping[str, Any]:
    from idal_assets.steps.matrix import load_decision

    scores = pd.read_parquet(folder / "case_score.parquet")
    decision = load_decision(folder)
    return {
        "worst": ", ".join(scores["case_id"].head(5)),
        "worst_cluster": ", ".join(decision.pop("worst_cluster")) or "none",
        "scores": table(scores),
        **{name: value for name, value in decision.items() if value is not None},
    }


@study_asset(kinds={"duckdb", "matplotlib"}, describe=_describe_ranking)
def case_ranking(study: Study, key: None, folder: Path, track: Track) -> None:
    """Donors from worst to best (table `case_score`): both means, score, rank, cluster and its stability.

    Beside the score stand its rivals out of fold, Dice and label quality; they have no part in the order.
    """
    from idal_assets.steps.matrix import make_ranking
    from idal_assets.store.database import record

    scores = make_ranking(study, folder)
    record(study.folder.database, "case_score", scores, study.folder.database_lock)
