"""How early in the training of the case models the ranking was settled."""

from pathlib import Path

import pandas as pd
from scipy.stats import spearmanr

from idal_assets.analysis.similarity import deciding_matrix, rank_donors
from idal_assets.imaging.brain_tumour import BRAIN_TUMOUR
from idal_assets.plots.cost import convergence as convergence_figure
from idal_assets.plots.style import png_bytes
from idal_assets.steps.matrix import load_ranking
from idal_assets.study.graph import version_in_the_making
from idal_assets.study.study import Study

EARLY_FILE = "early_row.parquet"
EARLY_COLUMNS = ["share", "donor", "receiver", "region", "dice", "tp", "fp", "fn"]
CONVERGENCE_FILE = "convergence.parquet"


def early_iterations(study: Study) -> dict[float, int]:
    """Iterations of a case model after each share that the profile asks for."""
    iterations = study.profile.case_model.iterations
    return {share: max(1, round(share * iterations)) for share in study.profile.convergence.shares}


def make_convergence(study: Study, folder: Path) -> pd.DataFrame:
    """Ranks the donors by the models of each share; writes `convergence.parquet` and a picture.

    Returns:
        The rows of the database's table `convergence`: `share`, `correlation` (Spearman's, with the final
        ranking; 1 at the end by definition), `seconds` (trainings up to that share, and one matrix).
    """
    donors = study.cohort.donors
    rows = pd.concat([pd.read_parquet(study.path("early_row", donor) / EARLY_FILE) for donor in donors])
    final = load_ranking(study).set_index("case_id")["rank"]
    training, scoring = (
        sum(study.provenance(asset, donor).seconds for donor in donors) for asset in ("case_model", "dice_row")
    )
    found, similarity = [], study.profile.similarity
    for share, cells in rows.groupby("share"):
        matrix = deciding_matrix(
            cells, donors, study.cohort.deciding, similarity.mode, BRAIN_TUMOUR.scored(similarity.scalar)
        )
        ranks = rank_donors(matrix[donors]).set_index("case_id")["rank"]
        found.append((float(share), float(spearmanr(ranks[final.index], final).statistic)))
    table = pd.DataFrame([*found, (1.0, 1.0)], columns=["share", "correlation"])
    table["seconds"] = training * table["share"] + scoring
    table.to_parquet(folder / CONVERGENCE_FILE, index=False)
    (folder / "convergence.png").write_bytes(png_bytes(convergence_figure(table)))
    return table.assign(convergence_version=version_in_the_making(study, "convergence"))


def load_convergence(study: Study) -> pd.DataFrame:
    """Reads what `make_convergence` wrote."""
    return pd.read_parquet(study.path("convergence") / CONVERGENCE_FILE)
