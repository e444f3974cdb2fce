"""Known truth: how well the ranking and its rivals find planted faults, where the dataset was made."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from idal_assets.analysis.detection import (
    COLUMNS,
    best_scores,
    detection_table,
    matrix_scores,
    offered_score,
)
from idal_assets.plots.detection import detection_scores, ranking_with_truth
from idal_assets.plots.style import save_chart
from idal_assets.report.html import ReportSection, ReportTable, picture_of
from idal_assets.seeds import derived_seed
from idal_assets.settings import SimilaritySettings
from idal_assets.steps.similarity import load_deciding_cells, load_ranking
from idal_assets.study.making import Outcome, Task

DETECTION_FILE = "detection.parquet"
SCORES_FILE = "scores.parquet"
DECIDING_SETTINGS = (
    *("mode", "absent_share", "scalar", "distance", "linkage", "smallest_cluster", "largest_cluster"),
    *("level", "permutations"),
)
RIVALS = {
    "out_of_fold_dice": "out-of-fold Dice",
    "out_of_fold_dice_held": "out-of-fold Dice, regions held",
    "label_quality": "label quality",
    "baseline_dice": "baseline's Dice",
    "baseline_dice_held": "baseline's Dice, regions held",
    "baseline_loss": "baseline's loss",
    "gradient_alignment": "gradient alignment",
    "intensity_score": "intensities",
}
"""Columns of the ranking that are no part of the score, and what they are called."""


def make_detection(task: Task) -> Outcome:
    """Compares all scores by how well they find the planted faults of the donors.

    Writes `detection.parquet`, one row a score, `scores.parquet` with the scores and the truth of every donor, and
    two pictures. Where nothing is known of the donors both tables are empty and there are no pictures. The rows of
    the table `detection`.
    """
    truth = _known_truth(task)
    scores = _all_scores(task).loc[truth["case_id"]]
    table = pd.DataFrame(columns=list(COLUMNS))
    if len(truth):
        table = detection_table(scores, truth)
        best = best_scores(table)
        offered = table["score"] == offered_score(task.setting("similarity.mode"))
        table = table.assign(offered=offered, best=table["score"].isin(best))
        _draw(task, table, truth)
    table.to_parquet(task.folder / DETECTION_FILE, index=False)
    truth.merge(scores, left_on="case_id", right_index=True).to_parquet(task.folder / SCORES_FILE, index=False)
    rows = table.assign(
        ranking_version=task.upstream_version("case_ranking"),
        detection_version=task.version,
    )
    return Outcome(tables={"detection": rows})


def _known_truth(task: Task) -> pd.DataFrame:
    """What is true of the donors, one row a known one: `case_id`, `fault` (None without one) and `subtype`."""
    rows = [(case, fault, subtype) for case, (fault, subtype) in task.cohort.planted.items()]
    return pd.DataFrame(rows, columns=["case_id", "fault", "subtype"], dtype=object)


def _all_scores(task: Task) -> pd.DataFrame:
    """Every score that could find bad cases, one row a donor, indexed by case id; low is bad."""
    cohort = task.cohort
    cells = load_deciding_cells(task.path("dice_matrix"))
    settings = SimilaritySettings(**{name: task.setting(f"similarity.{name}") for name in DECIDING_SETTINGS})
    regions = cohort.anatomy.scored(settings.scalar)
    seed = derived_seed(task.setting("seed"), "chance")
    scores = matrix_scores(cells, cohort.donors, cohort.deciding, settings, regions, seed)
    rivals = load_ranking(task.path("case_ranking")).set_index("case_id")[list(RIVALS)]
    # of all of them a loss alone is high where a case is bad
    rivals["baseline_loss"] *= -1
    return scores.join(rivals.rename(columns=RIVALS))


def load_detection(folder: Path) -> pd.DataFrame:
    """Reads what `make_detection` wrote; no row where nothing is known."""
    return pd.read_parquet(folder / DETECTION_FILE)


def load_scores(folder: Path) -> pd.DataFrame:
    """The scores that were compared: `case_id`, `fault`, `subtype` and a column for each score."""
    return pd.read_parquet(folder / SCORES_FILE)


def show_detection(task: Task) -> Mapping[str, Any]:
    """Which score finds the faults best, in words and as a table."""
    found = load_detection(task.folder)
    said = {"in_words": [statement(found, _unknown_donors(task))]}
    return {**said, "detection": found} if len(found) else said


def _unknown_donors(task: Task) -> list[str]:
    """Donors of which nothing is known, which are left out of the comparison."""
    return [case for case in task.cohort.donors if case not in task.cohort.planted]


def statement(table: pd.DataFrame, unknown: Sequence[str]) -> str:
    """Says in plain words which score finds the planted faults best, whichever it is.

    Args:
        table: Table of `load_detection`.
        unknown: Donors of which nothing is known.
    """
    if table.empty:
        return "Nothing is known of the donors: the raw folder has no truth.json."
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
        f"AUROC {row['auroc']:.3f} ({row['low']:.3f} to {row['high']:.3f}), "
        f"{row['recall_at_k']:.0%} of the faults among the {row['k']} worst, "
        f"{row['decoys_removed']} of {row['decoys']} rare but valid cases taken for faults"
    )


def _draw(task: Task, table: pd.DataFrame, truth: pd.DataFrame) -> None:
    ranked = load_ranking(task.path("case_ranking"))
    ranked = ranked[ranked["case_id"].isin(truth["case_id"])].dropna(axis="columns", how="all")
    figures = {"scores": detection_scores(table), "ranking": ranking_with_truth(ranked, truth)}
    for name, figure in figures.items():
        save_chart(figure, task.folder / f"{name}")


def truth_sections(task: Task) -> list[ReportSection]:
    """How well the planted faults are found, where it is known which donors have one."""
    found = load_detection(task.path("fault_detection"))
    if found.empty:
        return []
    folder = task.path("fault_detection")
    known = (
        f"{statement(found, _unknown_donors(task))}\n\nThis dataset was made: it is known which labels are "
        "false and which cases are only rare. Nothing here was known when the ranking was made."
    )
    if not found["best"].any():
        return [ReportSection("Known truth", "truth", known)]
    table = ReportTable(
        "Scores by how well they find planted faults",
        ["score", "AUROC", "from", "to", "k", "precision at k", "recall at k", "rare but valid removed"],
        [
            [
                row.score,
                *(float(row.auroc), float(row.low), float(row.high)),
                int(row.k) if pd.notna(row.k) else None,
                *(float(row.precision_at_k), float(row.recall_at_k)),
                f"{row.decoys_removed} of {row.decoys}" if pd.notna(row.decoys_removed) else None,
            ]
            for row in found.sort_values("auroc", ascending=False, kind="stable").itertuples()
        ],
        "Of each score the k worst cases are looked at, k being the number of faults; a worst cluster has a size "
        "of its own. An AUROC of 0.5 is chance; its 95 % interval is a bootstrap over the cases, and a point "
        "where all faults are lowest, although a few faults prove little.",
    )
    return [
        ReportSection(
            "Known truth",
            "truth",
            known,
            [table],
            [
                picture_of(folder / "scores", "Scores compared", "AUROC of the planted faults; 0.5 is chance."),
                picture_of(
                    folder / "ranking",
                    "The ranking and the truth",
                    "Red: a planted fault. Blue: rare but valid. The line: as many ranks as there are faults.",
                ),
            ],
        )
    ]
