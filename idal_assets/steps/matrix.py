"""From the rows to the matrix, the dendrogram and the ranking."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from idal_assets.analysis.clusters import stability, worst_cluster
from idal_assets.analysis.scores import MEAN
from idal_assets.analysis.similarity import Dendrogram, cluster, deciding_matrix, rank_donors
from idal_assets.analysis.similarity import dice_matrix as arrange
from idal_assets.imaging.brain_tumour import BRAIN_TUMOUR
from idal_assets.plots.similarity import dendrogram_figure, heat_map, ranking_figure
from idal_assets.plots.style import png_bytes
from idal_assets.seeds import derived_seed
from idal_assets.steps.cells import ROW_FILE, read_scores
from idal_assets.steps.quality import load_label_quality
from idal_assets.study.cohort import Cohort
from idal_assets.study.graph import version_in_the_making
from idal_assets.study.study import Study

DECIDING_FILE = "deciding_cells.parquet"
DECISION_FILE = "decision.json"


def collect_rows(study: Study) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Reads all rows, takes the scalar that the profile asks for now, and checks that no cell is missing.

    Returns:
        The rows of the database's table `dice`, and the matrix of scalars, donors by receivers.

    Raises:
        IncompleteMatrixError: A cell is missing or not between 0 and 1.
    """
    cohort = study.cohort
    scalar = study.profile.similarity.scalar
    rows = pd.concat(
        [read_scores(study.path("dice_row", donor) / ROW_FILE, scalar) for donor in cohort.donors],
        ignore_index=True,
    )
    rows["receiver_role"] = rows["receiver"].map({case.case_id: case.role for case in cohort.cases})
    rows["matrix_version"] = version_in_the_making(study, "dice_matrix")
    return rows, arrange(rows, cohort.donors, cohort.receivers)


def make_matrix(study: Study, folder: Path) -> pd.DataFrame:
    """Writes `matrix.parquet`, `deciding_cells.parquet` and the heat maps.

    Returns:
        The rows of the database's table `dice`.

    Raises:
        IncompleteMatrixError: A cell is missing or not between 0 and 1.
    """
    rows, matrix = collect_rows(study)
    matrix.to_parquet(folder / "matrix.parquet")
    _save_deciding_cells(rows, study.cohort, folder)
    _draw_heat_maps(matrix, study.cohort, folder)
    return rows


def _draw_heat_maps(matrix: pd.DataFrame, cohort: Cohort, folder: Path) -> None:
    """Draws donors by donors and donors by test cases (thesis figures 3.4a and 3.4b)."""
    for name, receivers, title in (
        ("donors", cohort.donors, "Dice of every case model on every donor"),
        ("tests", cohort.tests, "Dice of every case model on every test case"),
    ):
        (folder / f"{name}.png").write_bytes(png_bytes(heat_map(matrix[receivers], title)))


def load_matrix(study: Study) -> pd.DataFrame:
    """The matrix of scalars, donors by receivers."""
    return pd.read_parquet(study.path("dice_matrix") / "matrix.parquet")


def _save_deciding_cells(rows: pd.DataFrame, cohort: Cohort, folder: Path) -> None:
    """Writes the cells that decide, those of donors and validation cases; test cases decide nothing."""
    columns = ["donor", "receiver", "region", "dice", "tp", "fp", "fn"]
    cells = rows.loc[rows["receiver"].isin(cohort.deciding) & (rows["region"] != MEAN), columns]
    cells.to_parquet(folder / DECIDING_FILE, index=False)


def load_deciding_matrix(study: Study) -> pd.DataFrame:
    """The scalars that decide in the profile's mode: donors by donors and then validation cases."""
    cells = pd.read_parquet(study.path("dice_matrix") / DECIDING_FILE)
    cohort, similarity = study.cohort, study.profile.similarity
    scored = BRAIN_TUMOUR.scored(similarity.scalar)
    return deciding_matrix(cells, cohort.donors, cohort.deciding, similarity.mode, scored)


def make_dendrogram(study: Study, folder: Path) -> None:
    """Clusters the donors; writes `linkage.npy`, `dendrogram.json` and the picture."""
    matrix = load_deciding_matrix(study)[study.cohort.donors]
    found = cluster(matrix, study.profile.similarity)
    np.save(folder / "linkage.npy", found.linkage, allow_pickle=False)
    facts = {"cophenetic": found.cophenetic, "leaves": found.leaves, "donors": list(matrix.index)}
    (folder / "dendrogram.json").write_text(json.dumps(facts, indent=1))
    figure = dendrogram_figure(found.linkage, matrix, found.cophenetic)
    (folder / "dendrogram.png").write_bytes(png_bytes(figure))


def load_dendrogram(folder: Path) -> Dendrogram:
    """Reads what `make_dendrogram` wrote."""
    facts = json.loads((folder / "dendrogram.json").read_text())
    tree = np.load(folder / "linkage.npy", allow_pickle=False)
    return Dendrogram(tree, facts["cophenetic"], facts["leaves"])


def make_ranking(study: Study, folder: Path) -> pd.DataFrame:
    """Ranks the donors and cuts the dendrogram; writes `case_score.parquet`, `decision.json` and the picture.

    `stability` in the ranking is the share of draws of other receivers in which a donor is in the worst cluster.

    Returns:
        The rows of the database's table `case_score`.
    """
    # read before the files, so that a matrix that changes meanwhile is not taken for the one that decided
    matrix_version = study.version("dice_matrix")
    settings = study.profile.similarity
    matrix = load_deciding_matrix(study)
    scores = rank_donors(matrix[study.cohort.donors])
    tree = load_dendrogram(study.path("dendrogram")).linkage
    found = worst_cluster(tree, matrix, scores, settings)
    seed = derived_seed(study.profile.seed, "stability")
    stays = stability(tree, matrix, found, settings, seed)
    scores["cluster"] = scores["case_id"].map(found.clusters)
    scores["stability"] = scores["case_id"].map(stays.in_worst_cluster)
    scores = scores.merge(_rivals(study), on="case_id", how="left")
    scores.to_parquet(folder / "case_score.parquet", index=False)
    decision = {
        "worst_cluster": found.members,
        "reason": found.reason,
        "gain": found.gain,
        "clusters_at_the_cut": found.count,
        "resamples": stays.resamples,
        "adjusted_rand_index": stays.clusters,
        "rank_correlation": stays.ranking,
        "matrix_version": matrix_version,
    }
    (folder / DECISION_FILE).write_text(json.dumps(decision, indent=1))
    worst = set(scores["case_id"].head(max(study.profile.removal.sizes)))
    (folder / "ranking.png").write_bytes(png_bytes(ranking_figure(scores, worst)))
    return scores.assign(
        ranking_version=version_in_the_making(study, "case_ranking"), matrix_version=matrix_version
    )


def load_decision(folder: Path) -> dict[str, Any]:
    """Reads what `make_ranking` wrote on the worst cluster, on stability, and which matrix decided."""
    return json.loads((folder / DECISION_FILE).read_text())


def _rivals(study: Study) -> pd.DataFrame:
    """What the networks of the folds say of each donor; it stands beside the score and has no part in it."""
    labels = load_label_quality(study.path("label_quality"), study.profile.similarity.scalar)
    return labels[["case_id", "out_of_fold_dice", "label_quality"]]


def load_ranking(study: Study) -> pd.DataFrame:
    """The ranking, the worst donor first."""
    return pd.read_parquet(study.path("case_ranking") / "case_score.parquet")
