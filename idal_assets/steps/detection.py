"""Known truth: how well the ranking and its rivals find planted faults, where the dataset was made."""

from pathlib import Path

import pandas as pd

from idal_assets.analysis.detection import (
    COLUMNS,
    best_scores,
    detection_table,
    matrix_scores,
    offered_score,
)
from idal_assets.imaging.brain_tumour import BRAIN_TUMOUR
from idal_assets.plots.detection import detection_scores, ranking_with_truth
from idal_assets.plots.style import png_bytes
from idal_assets.steps.matrix import DECIDING_FILE, load_ranking
from idal_assets.study.graph import version_in_the_making
from idal_assets.study.study import Study

DETECTION_FILE = "detection.parquet"
CANDIDATES_FILE = "candidates.parquet"
RIVALS = {"out_of_fold_dice": "out-of-fold Dice", "label_quality": "label quality"}


def make_detection(study: Study, folder: Path) -> pd.DataFrame:
    """Compares all scores by how well they find the planted faults of the donors.

    Writes `detection.parquet`, one row a score, `candidates.parquet` with the scores and the truth of every donor,
    and two pictures. Where nothing is known of the donors both tables are empty and there are no pictures.

    Returns:
        The rows of the database's table `detection`.
    """
    truth = known_truth(study)
    scores = candidate_scores(study).loc[truth["case_id"]]
    table = pd.DataFrame(columns=list(COLUMNS))
    if len(truth):
        table = detection_table(scores, truth)
        best = best_scores(table)
        offered = table["score"] == offered_score(study.profile.similarity.mode)
        table = table.assign(offered=offered, best=table["score"].isin(best))
        _draw(study, table, truth, folder)
    table.to_parquet(folder / DETECTION_FILE, index=False)
    truth.merge(scores, left_on="case_id", right_index=True).to_parquet(folder / CANDIDATES_FILE, index=False)
    return table.assign(
        ranking_version=study.version("case_ranking"),
        detection_version=version_in_the_making(study, "fault_detection"),
    )


def known_truth(study: Study) -> pd.DataFrame:
    """What is true of the donors, one row a known one: `case_id`, `fault` (None without one) and `subtype`."""
    known = study.cohort.truth
    rows = [(case, known[case].fault, known[case].subtype) for case in study.cohort.donors if case in known]
    return pd.DataFrame(rows, columns=["case_id", "fault", "subtype"], dtype=object)


def candidate_scores(study: Study) -> pd.DataFrame:
    """Every score that could find bad cases, one row a donor, indexed by case id; low is bad."""
    cohort = study.cohort
    cells = pd.read_parquet(study.path("dice_matrix") / DECIDING_FILE)
    similarity = study.profile.similarity
    scored = BRAIN_TUMOUR.scored(similarity.scalar)
    scores = matrix_scores(cells, cohort.donors, cohort.deciding, similarity, scored)
    rivals = load_ranking(study).set_index("case_id")[list(RIVALS)]
    return scores.join(rivals.rename(columns=RIVALS))


def load_detection(study: Study) -> pd.DataFrame:
    """Reads what `make_detection` wrote; no row where nothing is known."""
    return pd.read_parquet(study.path("fault_detection") / DETECTION_FILE)


def load_candidates(study: Study) -> pd.DataFrame:
    """The scores that were compared: `case_id`, `fault`, `subtype` and a column for each score."""
    return pd.read_parquet(study.path("fault_detection") / CANDIDATES_FILE)


def unknown_donors(study: Study) -> list[str]:
    """Donors of which nothing is known, which are left out of the comparison."""
    return [case for case in study.cohort.donors if case not in study.cohort.truth]


def statement(study: Study, table: pd.DataFrame) -> str:
    """Says in plain words which score finds the planted faults best, whichever it is.

    Args:
        study: The study.
        table: Table of `load_detection`.
    """
    if table.empty:
        return "Nothing is known of the donors: the raw folder has no truth.json."
    unknown = unknown_donors(study)
    aside = f" Left out, since nothing is known of them: {', '.join(unknown)}." if unknown else ""
    faults, cases = int(table["faults"].iloc[0]), int(table["cases"].iloc[0])
    if not table["best"].any():
        return f"{faults} of {cases} donors have a planted fault, so no score can be said to find them.{aside}"
    best = table[table["best"]]
    offered = table[table["offered"]].iloc[0]
    figures = "" if offered["best"] else f" ({_found(offered)})"
    return (
        f"{faults} of {cases} donors have a planted fault. "
        f"Best at finding them: {', '.join(best['score'])} ({_found(best.iloc[0])}). "
        f"The ranking goes by {offered['score']}{figures}.{aside}"
    )


def _found(row: pd.Series) -> str:
    return (
        f"AUROC {row['auroc']:.3f}, {row['recall_at_k']:.0%} of the faults among the {row['k']} worst, "
        f"{row['decoys_removed']} of {row['decoys']} rare but valid cases taken for faults"
    )


def _draw(study: Study, table: pd.DataFrame, truth: pd.DataFrame, folder: Path) -> None:
    ranked = load_ranking(study)
    ranked = ranked[ranked["case_id"].isin(truth["case_id"])].dropna(axis="columns", how="all")
    figures = {"scores": detection_scores(table), "ranking": ranking_with_truth(ranked, truth)}
    for name, figure in figures.items():
        (folder / f"{name}.png").write_bytes(png_bytes(figure))
