"""From the rows to the matrix, the dendrogram and the ranking."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from idal_assets.analysis.similarity import Dendrogram, cluster, rank_donors, worst_cluster
from idal_assets.analysis.similarity import dice_matrix as arrange
from idal_assets.graph import version_in_the_making
from idal_assets.imaging.cohort import Cohort
from idal_assets.plots.similarity import dendrogram_figure, heat_map, ranking_figure
from idal_assets.plots.style import png_bytes
from idal_assets.steps.cells import ROW_FILE, read_scores
from idal_assets.steps.quality import load_label_quality
from idal_assets.study import Study


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


def draw_heat_maps(matrix: pd.DataFrame, cohort: Cohort, folder: Path) -> None:
    """Draws donors by donors and donors by test cases (thesis figures 3.4a and 3.4b)."""
    for name, receivers, title in (
        ("donors", cohort.donors, "Dice of every case model on every donor"),
        ("tests", cohort.tests, "Dice of every case model on every test case"),
    ):
        (folder / f"{name}.png").write_bytes(png_bytes(heat_map(matrix[receivers], title)))


def load_matrix(study: Study) -> pd.DataFrame:
    """The matrix of scalars, donors by receivers."""
    return pd.read_parquet(study.path("dice_matrix") / "matrix.parquet")


def donor_matrix(study: Study) -> pd.DataFrame:
    """The part of the matrix that decides: donors by donors. Test cases never take part in a decision."""
    return load_matrix(study)[study.cohort.donors]


def make_dendrogram(study: Study, folder: Path) -> None:
    """Clusters the donors; writes `linkage.npy`, `dendrogram.json` and the picture."""
    matrix = donor_matrix(study)
    found = cluster(matrix, study.profile.similarity.distance)
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
    """Ranks the donors and cuts the dendrogram; writes `case_score.parquet`, `worst_cluster.json` and the picture.

    Returns:
        The rows of the database's table `case_score`.
    """
    matrix = donor_matrix(study)
    scores = rank_donors(matrix)
    tree = load_dendrogram(study.path("dendrogram"))
    members, clusters = worst_cluster(tree, list(matrix.index), scores, study.profile.similarity)
    scores["cluster"] = scores["case_id"].map(clusters)
    scores = scores.merge(_rivals(study), on="case_id", how="left")
    scores.to_parquet(folder / "case_score.parquet", index=False)
    (folder / "worst_cluster.json").write_text(json.dumps(members))
    worst = set(scores["case_id"].head(max(study.profile.removal.sizes)))
    (folder / "ranking.png").write_bytes(png_bytes(ranking_figure(scores, worst)))
    return scores.assign(
        ranking_version=version_in_the_making(study, "case_ranking"), matrix_version=study.version("dice_matrix")
    )


def _rivals(study: Study) -> pd.DataFrame:
    """What the networks of the folds say of each donor; it stands beside the score and has no part in it."""
    labels = load_label_quality(study.path("label_quality"), study.profile.similarity.scalar)
    return labels[["case_id", "out_of_fold_dice", "label_quality"]]


def load_ranking(study: Study) -> pd.DataFrame:
    """The ranking, the worst donor first."""
    return pd.read_parquet(study.path("case_ranking") / "case_score.parquet")
