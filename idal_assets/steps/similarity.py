"""The part `similarity`: every model on every case, and what the matrix says."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from idal_assets.analysis.chance import chance_of_outliers
from idal_assets.analysis.clusters import stability, worst_cluster
from idal_assets.analysis.reliability import reliability_sentence
from idal_assets.analysis.scores import MEAN, found_regions, scalar_of, without_absent
from idal_assets.analysis.settling import settled
from idal_assets.analysis.similarity import Dendrogram, cluster, deciding_matrix, donor_medians, rank_donors
from idal_assets.analysis.similarity import dice_matrix as arrange
from idal_assets.plots.similarity import Marks, dendrogram_figure, heat_map, ranking_figure
from idal_assets.plots.style import chart, save_chart
from idal_assets.report.html import MatrixCells, Picture, ReportSection, ReportTable, picture_of
from idal_assets.seeds import derived_seed
from idal_assets.steps.cells import ROW_FILE, find_cells, read_scores, rows_before
from idal_assets.steps.settling import load_contest, load_settled_row
from idal_assets.study.making import Outcome, Task

if TYPE_CHECKING:
    from idal_assets.anatomy import Anatomy
    from idal_assets.study.cohort import Cohort

MATRIX_FILE = "matrix.parquet"
DECIDING_FILE = "deciding_cells.parquet"
RANKING_FILE = "case_score.parquet"
DECISION_FILE = "decision.json"
FOUND_FILE = "found_regions.parquet"
RIVAL_COLUMNS = (
    *("donor_median", "out_of_fold_dice", "out_of_fold_dice_held", "label_quality", "baseline_dice"),
    *("baseline_dice_held", "baseline_loss", "gradient_alignment", "intensity_score"),
)
"""What stands beside the score in the ranking."""

LINKAGE_NAMES = {
    "average": "average linkage (UPGMA)",
    "single": "single linkage",
    "complete": "complete linkage",
    "weighted": "weighted average linkage (WPGMA)",
}


# --- rows ---


def score_case_model(task: Task) -> None:
    """Segments with one donor's model every receiver that the row before has no cell of.

    Writes `row.parquet` with one row a receiver and region: `donor`, `receiver`, `region`, `dice`, `iou`, `hd95`,
    `tp`, `fp`, `fn`, `model_version`, `receiver_version`. The scalar and the receivers' roles are not in it:
    profile and cohort say what they are when the rows are read. `hd95` is NaN for donors: among them it would
    decide nothing and take time.

    Where cases are played as patients, what the model says of each is kept beside it, so that `case_opinions` need
    not ask again.
    """
    from idal_assets.steps.networks import segment_and_score
    from idal_assets.steps.opinions import keep_opinions

    donor, anatomy = task.key, task.cohort.anatomy
    measured = task.cohort.tests if task.setting("inference.surface_distances") else ()
    # The versions are read before the files, so that a case that changes meanwhile is not taken for the new one.
    versions = {name: task.upstream_version("case_slices", name) for name in task.keys("case_slices")}
    before = rows_before(task, ROW_FILE, anatomy)
    model_version = task.upstream_version("case_model", donor)
    cells = find_cells(before, "receiver", model_version, versions, anatomy.version, measured)
    model = task.path("case_model", donor)
    with keep_opinions(task, model_version, versions, cells.present) as kept:
        segmented = segment_and_score(
            task, model, cells.missing, anatomy, f"segment with {donor}", measured, kept=kept
        )
        computed = [scores.assign(receiver=name) for name, scores, _ in segmented]
    cells.complete(computed, task.folder).assign(donor=donor).to_parquet(task.folder / ROW_FILE, index=False)


def show_row(task: Task) -> Mapping[str, Any]:
    """The cells of the row."""
    anatomy = task.cohort.anatomy
    averaged = anatomy.scored(task.setting("similarity.scalar"))
    rows = read_scores(task.folder / ROW_FILE, averaged)
    scalars = rows[rows["region"] == MEAN].set_index("receiver")["dice"]
    by_receiver = rows.pivot(index=["receiver", "receiver_version"], columns="region", values="dice")
    return {
        "model_version": rows["model_version"].iloc[0],
        "cells": len(scalars),
        "mean_dice_of_others": float(scalars.drop(task.key).mean()),
        "dice_of_itself": float(scalars[task.key]),
        "cells_by_receiver": by_receiver.reset_index()[["receiver", MEAN, *averaged, "receiver_version"]],
    }


# --- matrix ---


def make_matrix(task: Task) -> Outcome:
    """Reads all rows, takes the scalar that the profile asks for now, and checks that no cell is missing.

    Writes `matrix.parquet`, `deciding_cells.parquet` and the heat maps; the rows of the table `dice`.

    Raises:
        IncompleteMatrixError: A cell is missing or not between 0 and 1.
    """
    cohort = task.cohort
    regions = cohort.anatomy.scored(task.setting("similarity.scalar"))
    files = [task.path("dice_row", donor) / ROW_FILE for donor in cohort.donors]
    rows = pd.concat([read_scores(file, regions) for file in files], ignore_index=True)
    rows["receiver_role"] = rows["receiver"].map({case.case_id: case.role for case in cohort.cases})
    rows["matrix_version"] = task.version
    matrix = arrange(rows, cohort.donors, cohort.receivers)
    matrix.to_parquet(task.folder / MATRIX_FILE)
    _save_deciding_cells(rows, cohort, task.folder)
    _draw_heat_maps(matrix, cohort, task.folder)
    return Outcome(tables={"dice": rows})


def _draw_heat_maps(matrix: pd.DataFrame, cohort: "Cohort", folder: Path) -> None:
    """Draws donors by donors and donors by test cases (thesis figures 3.4a and 3.4b)."""
    for name, receivers in (("donors", cohort.donors), ("tests", cohort.tests)):
        save_chart(heat_map(matrix[receivers]), folder / name)


def _save_deciding_cells(rows: pd.DataFrame, cohort: "Cohort", folder: Path) -> None:
    """Writes the cells that decide, those of donors and validation cases; test cases decide nothing."""
    columns = ["donor", "receiver", "region", "dice", "tp", "fp", "fn"]
    cells = rows.loc[rows["receiver"].isin(cohort.deciding) & (rows["region"] != MEAN), columns]
    cells.to_parquet(folder / DECIDING_FILE, index=False)


def load_matrix(folder: Path) -> pd.DataFrame:
    """The matrix of scalars, donors by receivers."""
    return pd.read_parquet(folder / MATRIX_FILE)


def load_deciding_cells(folder: Path) -> pd.DataFrame:
    """The cells that decide, one row a donor, receiver and region, without scalars."""
    return pd.read_parquet(folder / DECIDING_FILE)


def show_matrix(task: Task) -> Mapping[str, Any]:
    """Size of the matrix, and its mean."""
    matrix = load_matrix(task.folder)
    return {
        "rows": matrix.shape[0],
        "columns": matrix.shape[1],
        "undefined_cells": int(matrix.isna().to_numpy().sum()),
        "mean_dice": float(matrix.mean(axis=None)),
    }


def _deciding_matrix(task: Task) -> pd.DataFrame:
    """The scalars that decide in the profile's mode: donors by donors and then validation cases."""
    cohort = task.cohort
    return deciding_matrix(
        load_deciding_cells(task.path("dice_matrix")),
        cohort.donors,
        cohort.deciding,
        task.setting("similarity"),
        cohort.anatomy.scored(task.setting("similarity.scalar")),
    )


# --- dendrogram ---


def make_dendrogram(task: Task) -> None:
    """Clusters the donors; writes `linkage.npy`, `dendrogram.json` and the picture."""
    matrix = _deciding_matrix(task)[task.cohort.donors]
    found = cluster(matrix, task.setting("similarity"))
    np.save(task.folder / "linkage.npy", found.linkage, allow_pickle=False)
    facts = {"cophenetic": found.cophenetic, "leaves": found.leaves, "donors": list(matrix.index)}
    (task.folder / "dendrogram.json").write_text(json.dumps(facts, indent=1))
    figure = dendrogram_figure(found.linkage, matrix, found.cophenetic)
    save_chart(figure, task.folder / "dendrogram")


def load_dendrogram(folder: Path) -> Dendrogram:
    """Reads what `make_dendrogram` wrote."""
    facts = json.loads((folder / "dendrogram.json").read_text())
    tree = np.load(folder / "linkage.npy", allow_pickle=False)
    return Dendrogram(tree, facts["cophenetic"], facts["leaves"])


def show_dendrogram(task: Task) -> Mapping[str, Any]:
    """Order of the leaves, and how well the tree keeps the distances."""
    found = load_dendrogram(task.folder)
    return {"cophenetic_correlation": found.cophenetic, "leaf_order": ", ".join(found.leaves)}


# --- ranking ---


def make_ranking(task: Task) -> Outcome:
    """Ranks the donors and cuts the dendrogram; writes `case_score.parquet`, `decision.json` and the picture.

    `stability` in the ranking is the share of draws of other receivers in which a donor is in the worst cluster,
    `outlier_p` how often chance alone has a donor score as low, and `contradiction` what a label lacks although
    the other models find it. `found_regions.parquet` has the volumes behind that, of validation cases too. The
    rows of the table `case_score`.
    """
    # read before the files, so that a matrix that changes meanwhile is not taken for the one that decided
    matrix_version = task.upstream_version("dice_matrix")
    settings = task.setting("similarity")
    matrix = _deciding_matrix(task)
    scores = rank_donors(matrix[task.cohort.donors])
    contested = load_contest(task.path("contest"))
    scores = settled(scores, contested, _full_means(task, contested))
    scores["settled"] = scores["case_id"].isin(contested)
    tree = load_dendrogram(task.path("dendrogram")).linkage
    chance = derived_seed(task.setting("seed"), "chance")
    found = worst_cluster(tree, matrix, scores, settings, chance)
    scores["outlier_p"] = chance_of_outliers(scores["score"].to_numpy(), settings.permutations, chance)
    stays = stability(tree, matrix, found, settings, derived_seed(task.setting("seed"), "stability"))
    scores["cluster"] = scores["case_id"].map(found.clusters)
    scores["stability"] = scores["case_id"].map(stays.in_worst_cluster)
    scores["donor_median"] = scores["case_id"].map(donor_medians(matrix[task.cohort.donors]))
    regions = found_regions(load_deciding_cells(task.path("dice_matrix")), settings.absent_share)
    found_labels = _found_labels(task, regions)
    found_labels.to_parquet(task.folder / FOUND_FILE, index=False)
    scores["contradiction"] = (
        scores["case_id"].map(_contradictions(found_labels, task.cohort.anatomy)).astype(object)
    )
    scores = scores.merge(_rivals(task, regions), on="case_id", how="left")
    scores.to_parquet(task.folder / RANKING_FILE, index=False)
    decision = {
        "settled": contested,
        "worst_cluster": found.members,
        "reason": found.reason,
        "deficit": found.deficit,
        "p": found.p,
        "outliers": list(scores.loc[scores["outlier_p"] <= 1 - settings.level, "case_id"]),
        "clusters_at_the_cut": found.count,
        "resamples": stays.resamples,
        "adjusted_rand_index": stays.clusters,
        "rank_correlation": stays.ranking,
        "matrix_version": matrix_version,
    }
    (task.folder / DECISION_FILE).write_text(json.dumps(decision, indent=1))
    worst = set(scores["case_id"].head(max(task.setting("removal.sizes"))))
    save_chart(ranking_figure(scores, worst), task.folder / "ranking")
    rows = scores.assign(ranking_version=task.version, matrix_version=matrix_version)
    return Outcome(tables={"case_score": rows})


def _full_means(task: Task, contested: Sequence[str]) -> pd.Series:
    """Donor means of those that were trained to the end, by the cells of the others that decide as they are."""
    if not contested:
        return pd.Series(dtype=float)
    cohort, cells = task.cohort, load_deciding_cells(task.path("dice_matrix"))
    full = [load_settled_row(task.path("settled_row", donor)) for donor in contested]
    others = cells[~cells["donor"].isin(contested)]
    settings, regions = task.setting("similarity"), cohort.anatomy.scored(task.setting("similarity.scalar"))
    matrix = deciding_matrix(pd.concat([others, *full]), cohort.donors, cohort.deciding, settings, regions)
    return rank_donors(matrix[cohort.donors]).set_index("case_id")["donor_mean"]


def _found_labels(task: Task, regions: pd.DataFrame) -> pd.DataFrame:
    """How much of each label a case has, and how much of it the models of the other donors find.

    Args:
        task: The ranking in the making.
        regions: Table of `found_regions`.

    Returns:
        One row a case that decides and single label: `case_id`, `region`, `labelled_ml`, `found_ml` (median over
        the models), `models`, `absent`, `contradicted`.
    """
    table = regions.reset_index()
    table = table[table["region"].isin(task.cohort.anatomy.singles)].rename(columns={"receiver": "case_id"})
    voxel = table["case_id"].map(task.cohort.voxel_millilitres)
    volumes = {f"{name}_ml": table[name] * voxel for name in ("labelled", "found")}
    table = table.assign(**volumes)
    return table[["case_id", "region", "labelled_ml", "found_ml", "models", "absent", "contradicted"]]


def _contradictions(found_labels: pd.DataFrame, anatomy: "Anatomy") -> dict[str, str]:
    """By case, what its label lacks although the other models find it, in words; no other cases."""
    said: dict[str, list[str]] = {}
    for row in found_labels[found_labels["contradicted"]].itertuples():
        volume = float(f"{row.found_ml:.2g}")
        words = f"no {anatomy.title(row.region)}; {row.models} models see {volume:g} ml"
        said.setdefault(row.case_id, []).append(words)
    return {case: ", ".join(parts) for case, parts in said.items()}


def _rivals(task: Task, regions: pd.DataFrame) -> pd.DataFrame:
    """What cheaper methods say of each donor; it stands beside the score and has no part in it.

    A Dice has two columns: of all defined regions, and (`_held`) without those that the case does not have, as in
    the cells of the mode `robust`.

    Args:
        task: The ranking in the making.
        regions: Table of `found_regions`.
    """
    from idal_assets.steps.quality import load_baseline_scores, load_label_quality, load_out_of_fold, load_signals

    scalar = task.cohort.anatomy.scored(task.setting("similarity.scalar"))
    quality, signals = task.path("label_quality"), task.path("donor_signals")
    table = load_label_quality(quality, scalar)[["case_id", "out_of_fold_dice", "label_quality"]]
    segmented = {"out_of_fold": load_out_of_fold(quality), "baseline": load_baseline_scores(signals)}
    for name, scores in segmented.items():
        for column, rows in ((f"{name}_dice", scores), (f"{name}_dice_held", without_absent(scores, regions))):
            table[column] = table["case_id"].map(scalar_of(rows, "case_id", scalar)).astype(float)
    return table.merge(load_signals(signals), on="case_id", how="left")


def load_ranking(folder: Path) -> pd.DataFrame:
    """The ranking, the worst donor first."""
    return pd.read_parquet(folder / RANKING_FILE)


def load_decision(folder: Path) -> dict[str, Any]:
    """Reads what `make_ranking` wrote on the worst cluster, on stability, and which matrix decided."""
    return json.loads((folder / DECISION_FILE).read_text())


def show_ranking(task: Task) -> Mapping[str, Any]:
    """The worst donors and the worst cluster."""
    scores, decision = load_ranking(task.folder), load_decision(task.folder)
    return {
        "worst": ", ".join(scores["case_id"].head(5)),
        "worst_cluster": ", ".join(decision.pop("worst_cluster")) or "none",
        "worse_than_chance": ", ".join(decision.pop("outliers")) or "none",
        "scores": scores,
        **{name: value for name, value in decision.items() if value is not None},
    }


# --- sections of the report ---


def matrix_section(task: Task) -> ReportSection:
    """The Dice matrix and its dendrogram."""
    cohort, folder = task.cohort, task.path("dice_matrix")
    matrix = load_matrix(folder)
    validation = f", {len(cohort.validation)} validation cases" if cohort.validation else ""
    return ReportSection(
        "Similarity",
        "similarity",
        f"{matrix.shape[0]} models segmented {matrix.shape[1]} cases each: {len(cohort.donors)} donors"
        f"{validation} and {len(cohort.tests)} test cases.",
        [],
        [
            picture_of(
                folder / "donors",
                "Dice of every case model on every donor",
                "Thesis figure 3.4a. The diagonal is training data.",
                _cells(matrix[cohort.donors]),
            ),
            picture_of(
                folder / "tests",
                "Dice of every case model on every test case",
                "Thesis figure 3.4b.",
                _cells(matrix[cohort.tests]),
            ),
            _marked_dendrogram(task),
        ],
    )


def _cells(matrix: pd.DataFrame) -> MatrixCells:
    """A matrix for the page, which tells the cell that somebody points at."""
    rounded = matrix.astype(float).round(3).astype(object)
    values = rounded.where(matrix.notna(), None).to_numpy().tolist()
    return MatrixCells([str(name) for name in matrix.index], [str(name) for name in matrix.columns], values)


def _marked_dendrogram(task: Task) -> Picture:
    """The dendrogram with what was decided from it."""
    found, ranking = load_dendrogram(task.path("dendrogram")), load_ranking(task.path("case_ranking"))
    matrix = _deciding_matrix(task)[task.cohort.donors]
    removed = list(ranking["case_id"].head(max(task.setting("removal.sizes"))))
    worst = load_decision(task.path("case_ranking"))["worst_cluster"]
    marks = Marks(dict(zip(ranking["case_id"], ranking["cluster"], strict=True)), worst, removed)
    figure = dendrogram_figure(found.linkage, matrix, found.cophenetic, marks)
    return Picture(
        "Dendrogram",
        chart(figure, "svg"),
        f"Thesis figure 3.5: {LINKAGE_NAMES[task.setting('similarity.linkage')]}, and the matrix that decided, in "
        "its leaf order. Red: the worst cluster, and the donors that the largest set of the worst removes.",
        _cells(matrix.loc[found.leaves, found.leaves]),
        chart(figure, "pdf"),
        "dendrogram",
    )


def ranking_section(task: Task) -> ReportSection:
    """The donors by their scores, and the worst cluster."""
    from idal_assets.steps.convergence import load_reliability

    folder, convergence = task.path("case_ranking"), task.path("convergence")
    table = ReportTable(
        "Donors, the worst first",
        [
            *("rank", "case", "score", "donor mean", "receiver mean", "cluster", "in worst cluster"),
            *("out-of-fold Dice", "label quality", "label contradicted"),
        ],
        [
            [
                row.rank,
                row.case_id,
                float(row.score),
                float(row.donor_mean),
                float(row.receiver_mean),
                row.cluster,
                f"{row.stability:.0%}",
                float(row.out_of_fold_dice),
                float(row.label_quality),
                row.contradiction,
            ]
            for row in load_ranking(folder).itertuples()
        ],
        "The score adds the z-scores of both means: low where a case teaches badly and is also badly segmented. "
        "In the worst cluster: the share of draws of other receivers in which it is. Beside it stand cheap rivals "
        "of the score, from networks that have not learned from the case: their Dice on it and cleanlab's softmin "
        "over its voxels; both are low where the label is doubtful.",
    )
    rivals = ReportTable(
        "What cheaper methods say of the donors",
        ["case", *(name.replace("_", " ") for name in RIVAL_COLUMNS)],
        load_ranking(folder)[["case_id", *RIVAL_COLUMNS]].to_numpy(object).tolist(),
        "Held: without the regions that a case does not have. The baseline has learned from these cases, unless "
        "others trained it. Low is doubtful, but for the loss. None of this has a part in the ranking.",
    )
    return ReportSection(
        "Ranking",
        "ranking",
        "The donor mean says how well the model of a case segments the other donors; the receiver mean how well "
        f"the models of the other donors segment that case. {_regions_sentence(task.setting('similarity.mode'))}"
        f"\n\n{decision_sentences(load_decision(folder))} {reliability_sentence(load_reliability(convergence))}"
        f"\n\n{contradiction_sentences(load_contradictions(folder, task.cohort.anatomy))}",
        [table, rivals],
        [picture_of(folder / "ranking", "Ranking", "Marked: the cases of the largest set.")],
    )


def _regions_sentence(mode: str) -> str:
    if mode == "thesis":
        return "A cell averages every region that is defined."
    return (
        "A cell averages only regions that both its cases have: those that the label holds, and those that it "
        "lacks although the models of the other donors find them."
    )


def load_contradictions(folder: Path, anatomy: "Anatomy") -> dict[str, str]:
    """What the labels of donors and validation cases lack although the other models find it, in words.

    Args:
        folder: Folder of the ranking.
        anatomy: Names the labels.
    """
    return _contradictions(pd.read_parquet(folder / FOUND_FILE), anatomy)


def contradiction_sentences(contradictions: Mapping[str, str]) -> str:
    """Says which labels to look at first, case by case."""
    if not contradictions:
        return "No label lacks what the models of the other donors find."
    cases = ". ".join(f"{case}, label: {words}" for case, words in contradictions.items())
    return f"Labels that lack what the other models find (volumes are medians over these models): {cases}."


def decision_sentences(decision: Mapping[str, Any]) -> str:
    """Says which donors and which cluster stand out, if any, and how far that depends on the receivers."""
    outliers, members = decision["outliers"], ", ".join(decision["worst_cluster"]) or "none"
    names = f" ({', '.join(outliers)})" if outliers else ""
    agreement = decision["adjusted_rand_index"]
    clusters = "" if agreement is None else f"the clusters agree by an adjusted Rand index of {agreement:.2f} and "
    return (
        f"{len(outliers)} of the donors score lower than the spread of the others explains{names}; a removal set "
        f"takes as many as it is told to. Worst cluster: {members} ({decision['reason']}). Where the receivers "
        f"are drawn anew {decision['resamples']} times, {clusters}rankings correlate by "
        f"{decision['rank_correlation']:.2f} on average (Spearman); 1 is the same. Half of the score is not drawn "
        "anew, so that pure noise has some 0.8 here: it says what depends on the receivers, not what would come "
        f"out of other trainings.{_settled_sentence(decision['settled'])}"
    )


def _settled_sentence(contested: Sequence[str]) -> str:
    if not contested:
        return ""
    return (
        f" Trainings stopped early; {', '.join(contested)}, whose places were open, were trained to the end and "
        "share out by that the places that they had."
    )
