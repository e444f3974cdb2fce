"""How early in the training of the case models the ranking was settled, and whether other trainings give it."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import spearmanr

from idal_assets.analysis.reliability import reliability, reliability_sentence
from idal_assets.analysis.similarity import deciding_matrix, rank_donors
from idal_assets.nnunet.model_folder import earlier_model
from idal_assets.plots.cost import convergence as convergence_figure
from idal_assets.plots.style import save_chart
from idal_assets.seeds import derived_seed
from idal_assets.settings import shortened_length
from idal_assets.steps.cells import ROW_FILE
from idal_assets.steps.networks import fine_tune, segment_and_score
from idal_assets.steps.similarity import load_ranking
from idal_assets.study.making import Outcome, Task

RELIABILITY_FILE = "reliability.parquet"
REPEATED_FILE = "repeated_row.parquet"
REPEATED_COLUMNS = ["replicate", "donor", "receiver", "region", "dice", "tp", "fp", "fn"]
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
    whole = training["epochs"] * training["iterations_per_epoch"]
    trained = shortened_length(whole, made_with.get("early_stop.share", 1))
    early = early_iterations(trained, made_with["convergence.shares"])
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


def score_repeated_models(task: Task) -> None:
    """Trains one donor's model anew with other seeds, and segments the cases that decide.

    The models are not kept. Variants of the donor stay as they are; what differs is the order of the batches and
    their augmentation. Writes `repeated_row.parquet` with one row a replicate (from 2; the first is `case_model`),
    receiver and region: `replicate`, `donor`, `receiver`, `region`, `dice`, `tp`, `fp`, `fn`; no row where the
    profile asks for one seed.
    """
    tables = [pd.DataFrame(columns=REPEATED_COLUMNS)]
    settings = task.case_model_training
    for replicate in range(2, settings.seeds + 1):
        with tempfile.TemporaryDirectory(dir=task.folder) as place:
            seed = derived_seed(task.setting("seed"), "case_model", replicate)
            fine_tune(task, settings, seed, f"train {task.key}, seed {replicate}", Path(place))
            description = f"segment with {task.key}, seed {replicate}"
            names = task.keys("case_slices")
            segmented = segment_and_score(task, Path(place), names, task.cohort.anatomy, description)
            tables += [scores.assign(replicate=replicate, receiver=name) for name, scores, _ in segmented]
    rows = pd.concat(tables[1:] or tables, ignore_index=True).assign(donor=task.key)
    rows[REPEATED_COLUMNS].to_parquet(task.folder / REPEATED_FILE, index=False)


def show_repeated_row(task: Task) -> Mapping[str, Any]:
    """Mean Dice by seed."""
    rows = pd.read_parquet(task.folder / REPEATED_FILE)
    means = rows.groupby(["replicate", "region"])["dice"].mean().unstack()
    return {"mean_dice_by_replicate": means.reset_index()}


def _repeated_matrices(task: Task) -> list[pd.DataFrame]:
    """The matrix that decides, donors by donors, as each seed of the case models gives it, the first one first."""
    cohort, donors = task.cohort, task.cohort.donors
    regions = cohort.anatomy.scored(task.setting("similarity.scalar"))
    first = pd.concat([pd.read_parquet(task.path("dice_row", donor) / ROW_FILE) for donor in donors])
    others = pd.concat([pd.read_parquet(task.path("repeated_row", donor) / REPEATED_FILE) for donor in donors])
    by_seed = [
        first[first["receiver"].isin(cohort.deciding)],
        *(cells for _, cells in others.groupby("replicate")),
    ]
    settings = task.setting("similarity")
    return [deciding_matrix(cells, donors, cohort.deciding, settings, regions)[donors] for cells in by_seed]


def make_convergence(task: Task) -> Outcome:
    """Ranks the donors by the models of each share and of each seed; writes two tables and a picture.

    `convergence.parquet` has the rows of the table `convergence`: `share`, `correlation` (Spearman's, with the
    final ranking; 1 at the end by definition), `seconds` (trainings up to that share, and one matrix).
    `reliability.parquet` has those of the table `reliability`, none where there is one seed.
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
    save_chart(convergence_figure(table), task.folder / "convergence")
    repeats = reliability(_repeated_matrices(task))
    repeats.to_parquet(task.folder / RELIABILITY_FILE, index=False)
    found_tables = {"convergence": table, "reliability": repeats}
    return Outcome(
        tables={name: rows.assign(convergence_version=task.version) for name, rows in found_tables.items()}
    )


def load_convergence(folder: Path) -> pd.DataFrame:
    """Reads what `make_convergence` wrote."""
    return pd.read_parquet(folder / CONVERGENCE_FILE)


def load_reliability(folder: Path) -> pd.DataFrame:
    """Reads how far other seeds say the same; no row where it was not measured."""
    return pd.read_parquet(folder / RELIABILITY_FILE)


def show_convergence(task: Task) -> Mapping[str, Any]:
    """How rankings after a part of the training, and with other seeds, agree with the final one."""
    repeats = load_reliability(task.folder)
    return {
        "rank_correlations": load_convergence(task.folder),
        "in_words": [reliability_sentence(repeats)],
        **({"reliability": repeats} if len(repeats) else {}),
    }
