"""How early in the training of the case models the ranking was settled."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import spearmanr

from idal_assets.analysis.similarity import deciding_matrix, rank_donors
from idal_assets.nnunet.model_folder import earlier_model
from idal_assets.plots.cost import convergence as convergence_figure
from idal_assets.plots.style import png_bytes
from idal_assets.steps.networks import segment_and_score
from idal_assets.steps.similarity import load_ranking
from idal_assets.study.making import Outcome, Task

EARLY_FILE = "early_row.parquet"
EARLY_COLUMNS = ["share", "donor", "receiver", "region", "dice", "tp", "fp", "fn"]
CONVERGENCE_FILE = "convergence.parquet"


def early_iterations(iterations: int, shares: Sequence[float]) -> dict[float, int]:
    """Iterations of a case model after each share of all of them."""
    return {share: max(1, round(share * iterations)) for share in shares}


def score_early_models(task: Task) -> None:
    """Segments the cases that decide with what one donor's model was earlier in its training.

    Writes `early_row.parquet` with one row a share of the iterations, receiver and region: `share`, `donor`,
    `receiver`, `region`, `dice`, `tp`, `fp`, `fn`; no row where the profile asks for no share.
    """
    donor, anatomy = task.key, task.cohort.anatomy
    receivers = task.keys("case_slices")
    # what the model was made with, which may not be what the profile says now
    made_with = task.upstream("case_model", donor).inputs.settings
    training = made_with["case_model"]
    early = early_iterations(
        training["epochs"] * training["iterations_per_epoch"], made_with["convergence.shares"]
    )
    tables = [pd.DataFrame(columns=EARLY_COLUMNS)]
    for share, done in early.items():
        model = earlier_model(task.path("case_model", donor), done)
        description = f"segment with {donor} at {share:.0%}"
        segmented = segment_and_score(task, model, receivers, anatomy, description)
        tables += [scores.assign(share=share, donor=donor, receiver=name) for name, scores, _ in segmented]
    rows = pd.concat(tables[1:] or tables, ignore_index=True)[EARLY_COLUMNS]
    rows.to_parquet(task.folder / EARLY_FILE, index=False)


def show_early_row(task: Task) -> Mapping[str, Any]:
    """Mean Dice after each share."""
    rows = pd.read_parquet(task.folder / EARLY_FILE)
    means = rows.groupby(["share", "region"])["dice"].mean().unstack()
    return {"mean_dice_by_share": means.reset_index()}


def make_convergence(task: Task) -> Outcome:
    """Ranks the donors by the models of each share; writes `convergence.parquet` and a picture.

    The rows of the table `convergence`: `share`, `correlation` (Spearman's, with the final ranking; 1 at the end
    by definition), `seconds` (trainings up to that share, and one matrix).
    """
    cohort = task.cohort
    donors = cohort.donors
    regions = cohort.anatomy.scored(task.setting("similarity.scalar"))
    rows = pd.concat([pd.read_parquet(task.path("early_row", donor) / EARLY_FILE) for donor in donors])
    final = load_ranking(task.path("case_ranking")).set_index("case_id")["rank"]
    training, scoring = (
        sum(task.upstream(asset, donor).seconds for donor in donors) for asset in ("case_model", "dice_row")
    )
    found = []
    for share, cells in rows.groupby("share"):
        matrix = deciding_matrix(cells, donors, cohort.deciding, task.setting("similarity"), regions)
        ranks = rank_donors(matrix[donors]).set_index("case_id")["rank"]
        found.append((float(share), float(spearmanr(ranks[final.index], final).statistic)))
    table = pd.DataFrame([*found, (1.0, 1.0)], columns=["share", "correlation"])
    table["seconds"] = training * table["share"] + scoring
    table.to_parquet(task.folder / CONVERGENCE_FILE, index=False)
    (task.folder / "convergence.png").write_bytes(png_bytes(convergence_figure(table)))
    return Outcome(tables={"convergence": table.assign(convergence_version=task.version)})


def load_convergence(folder: Path) -> pd.DataFrame:
    """Reads what `make_convergence` wrote."""
    return pd.read_parquet(folder / CONVERGENCE_FILE)


def show_convergence(task: Task) -> Mapping[str, Any]:
    """How rankings after a part of the training agree with the final one."""
    return {"rank_correlations": load_convergence(task.folder)}
