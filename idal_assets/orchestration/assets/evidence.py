"""Assets of the group `evidence`: whether removal is really better, for whom, and what the answer cost."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from idal_assets.orchestration.assembly import sentences, study_asset, table
from idal_assets.orchestration.pools import ACCELERATOR
from idal_assets.progress import Track
from idal_assets.study.study import Study

EFFECT_COLUMNS = (
    "removal_set",
    "removed",
    "difference_of_medians",
    "low",
    "high",
    "holm_p",
    "control_p",
    "gain",
    "harm",
)
"""What the UI has room for; the table of the database has all columns."""


def _describe_evidence(study: Study, key: None, folder: Path) -> Mapping[str, Any]:
    from idal_assets.steps.evidence import load_evidence

    found = load_evidence(study)
    return {
        "in_words": sentences(found.sentences),
        "warnings": sentences(found.warnings),
        "effect": table(found.effects[list(EFFECT_COLUMNS)]),
        "control": table(found.controls),
        "subgroup": table(found.subgroups),
    }


@study_asset(kinds={"scipy", "duckdb", "matplotlib"}, describe=_describe_evidence)
def evidence(study: Study, key: None, folder: Path, track: Track) -> None:
    """Whether removing these cases is really better, and for whom (tables `effect`, `control`, `subgroup`).

    Intervals over cases and seeds, tests against chance and against random removal of as many, subgroups.
    """
    from idal_assets.steps.evidence import make_evidence
    from idal_assets.store.database import record

    for name, rows in make_evidence(study, folder).items():
        record(study.folder.database, name, rows, study.folder.database_lock)


def _describe_early_row(study: Study, donor: str, folder: Path) -> Mapping[str, Any]:
    from idal_assets.steps.convergence import EARLY_FILE

    rows = pd.read_parquet(folder / EARLY_FILE)
    means = rows.groupby(["share", "region"])["dice"].mean().unstack()
    return {"mean_dice_by_share": table(means.reset_index())}


@study_asset(kinds={"pytorch", "parquet"}, describe=_describe_early_row, pool=ACCELERATOR)
def early_row(study: Study, donor: str, folder: Path, track: Track) -> None:
    """One row of the matrix as it was after a part of this donor's training."""
    from idal_assets.steps.models import score_early_models

    score_early_models(study, donor, folder, track)


def _describe_convergence(study: Study, key: None, folder: Path) -> Mapping[str, Any]:
    from idal_assets.steps.convergence import load_convergence

    return {"rank_correlations": table(load_convergence(study))}


@study_asset(kinds={"scipy", "duckdb", "matplotlib"}, describe=_describe_convergence)
def convergence(study: Study, key: None, folder: Path, track: Track) -> None:
    """What shorter trainings of the case models would have told: rank correlations (table `convergence`)."""
    from idal_assets.steps.convergence import make_convergence
    from idal_assets.store.database import record

    record(study.folder.database, "convergence", make_convergence(study, folder), study.folder.database_lock)


def _describe_cost(study: Study, key: None, folder: Path) -> Mapping[str, Any]:
    from idal_assets.steps.cost import cost_of_assets, load_cost

    costs = load_cost(study)
    sums = {f"total_{name}": float(costs[name].sum()) for name in ("seconds", "cpu_seconds", "gpu_seconds")}
    return {**sums, "by_asset": table(cost_of_assets(costs))}


@study_asset(kinds={"duckdb", "matplotlib"}, describe=_describe_cost)
def cost(study: Study, key: None, folder: Path, track: Track) -> None:
    """What the answer cost: seconds, and of processor and card, for each artifact (table `cost`)."""
    from idal_assets.steps.cost import make_cost
    from idal_assets.store.database import record

    record(study.folder.database, "cost", make_cost(study, folder), study.folder.database_lock)
