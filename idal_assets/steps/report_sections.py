"""The sections of the experiment's report: one function for each, from the artifacts that it shows."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from idal_assets.analysis.removal_sets import FULL_SET, WORST_CLUSTER
from idal_assets.analysis.scores import MEAN
from idal_assets.imaging.brain_tumour import BRAIN_TUMOUR
from idal_assets.plots.cases import axial_slice, largest_slice, segmentation_overlays
from idal_assets.plots.cost import human_time
from idal_assets.plots.style import png_bytes
from idal_assets.report.html import KEPT, REMOVED, Picture, ReportSection, Table
from idal_assets.steps.cohort import cohort_table
from idal_assets.steps.comparison import load_comparison
from idal_assets.steps.convergence import load_convergence
from idal_assets.steps.cost import load_cost
from idal_assets.steps.detection import load_detection, statement
from idal_assets.steps.evidence import Evidence
from idal_assets.steps.matrix import load_decision, load_matrix, load_ranking
from idal_assets.steps.reductions import chosen_sets, load_evaluation, load_plan
from idal_assets.study.cohort import Cohort
from idal_assets.study.study import Study

OVERLAY_CASES = 6
"""Test cases whose segmentations are shown: the best, the worst and some between."""

LINKAGE_NAMES = {
    "average": "average linkage (UPGMA)",
    "single": "single linkage",
    "complete": "complete linkage",
    "weighted": "weighted average linkage (WPGMA)",
}
SCALAR_NAMES = {"regions": "mean of WT, TC and ET", "labels": "mean of the three labels", "WT": "whole tumour"}


def evidence_section(study: Study, found: Evidence) -> ReportSection:
    """What the retrainings prove."""
    folder = study.path("evidence")
    effects = Table(
        "Change of the median Dice, and what it is worth",
        [
            *("removal set", "removed", "seeds", "change", "interval", "p (Holm)"),
            *("controls", "p (controls)", "P (false)", "worst tenth"),
        ],
        [
            [
                *(row.removal_set, row.removed, row.replicates, f"{row.difference_of_medians:+.3f}"),
                *(f"{row.low:+.3f} to {row.high:+.3f}", row.holm_p),
                *(row.controls, row.control_p, row.probability_false, f"{row.worst_tenth_difference:+.3f}"),
            ]
            for row in found.judged.itertuples()
        ],
        "Change: difference of the medians. The interval holds the spread of the test cases and, with two seeds "
        "or more, that of the seeds. p (Holm): Wilcoxon's, corrected for the number of sets. p (controls): share "
        "of removals of as many donors at random that do as well. P (false): probability that the true change is "
        "zero or less, given the spread between seeds. Worst tenth: change of the mean of the worst segmented "
        "tenth.",
    )
    sentences = [f"{said[0].upper()}{said[1:]}." for said in found.sentences]
    warnings = [f"Warning: {line}." for said in found.warnings for line in said.splitlines()]
    return ReportSection(
        "Evidence",
        "evidence",
        "\n\n".join([*sentences, *warnings]),
        [effects],
        [
            _picture(
                folder / "forest.png", "Change of the median Dice", "With bootstrap intervals; zero is all donors."
            ),
            _picture(
                folder / "controls.png", "Against removals at random", "Each dot a removal of as many donors."
            ),
            _picture(folder / "subgroups.png", "Who pays", "Median change in each subgroup of the test cases."),
        ],
    )


def reduction_section(study: Study, change: pd.DataFrame) -> ReportSection:
    """The retrainings on reduced sets, as the thesis shows them."""
    removed = load_plan(study.path("removal_plan"))
    plan = {name: removed[name] for name in chosen_sets(study)}
    folder = study.path("reduction_report")
    changes = Table(
        "Change of the median Dice (thesis table 3.3)",
        ["removal set", "removed", "cases left", "median Dice", "difference of medians", "median of differences"],
        [
            [
                row.removal_set,
                row.removed,
                row.cases_left,
                float(row.median_dice),
                f"{row.difference_of_medians:+.4f}",
                f"{row.median_of_differences:+.4f}",
            ]
            for row in change.itertuples()
        ],
        "Differences are new minus old: above zero is better than with all cases.",
    )
    return ReportSection(
        "Reductions",
        "reductions",
        "Each set of donors was used to train a network from scratch, which then segmented the test cases.",
        [changes, _removed_cases(study, plan)],
        [
            _picture(
                folder / "median_change.png", "Change of the median", "One dot a removal set; zero is all cases."
            ),
            _picture(
                folder / "figure_3_6a.png", "Dice of the test cases", "Thesis figure 3.6a: a dot a retraining."
            ),
            _picture(
                folder / "figure_3_6b.png",
                "Difference to the full set",
                "Thesis figure 3.6b: red better, white the same, blue worse than with all cases.",
            ),
        ],
    )


def _removed_cases(study: Study, plan: dict[str, list[str]]) -> Table:
    scores = load_ranking(study)
    rows = [
        [row.rank, row.case_id, *(REMOVED if row.case_id in plan[name] else KEPT for name in plan)]
        for row in scores.itertuples()
        if any(row.case_id in removed for removed in plan.values())
    ]
    return Table(
        "Which case was removed from which set",
        ["rank", "case", *plan],
        rows,
        f"Every other donor is in all sets. {WORST_CLUSTER} comes from the dendrogram, the rest from the ranking.",
    )


def ranking_section(study: Study) -> ReportSection:
    """The donors by their scores, and the worst cluster."""
    scores = load_ranking(study)
    table = Table(
        "Donors, the worst first",
        [
            *("rank", "case", "score", "donor mean", "receiver mean", "cluster", "in worst cluster"),
            *("out-of-fold Dice", "label quality"),
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
            ]
            for row in scores.itertuples()
        ],
        "The score adds the z-scores of both means: low where a case teaches badly and is also badly segmented. "
        "In the worst cluster: the share of draws of other receivers in which it is. Beside it stand cheap rivals "
        "of the score, from networks that have not learned from the case: their Dice on it and cleanlab's softmin "
        "over its voxels; both are low where the label is doubtful.",
    )
    return ReportSection(
        "Ranking",
        "ranking",
        "The donor mean says how well the model of a case segments the other donors; the receiver mean how well "
        f"the models of the other donors segment that case. {_regions_sentence(study)}\n\n"
        f"{decision_sentences(load_decision(study.path('case_ranking')))}",
        [table],
        [_picture(study.path("case_ranking") / "ranking.png", "Ranking", "Marked: the cases of the largest set.")],
    )


def _regions_sentence(study: Study) -> str:
    if study.profile.similarity.mode == "thesis":
        return "A cell averages every region that is defined."
    return "A cell averages only regions that the labels of both its cases hold."


def decision_sentences(decision: dict[str, Any]) -> str:
    """Says which cluster is the worst and why, and how far the outcome depends on the receivers that there are."""
    members = ", ".join(decision["worst_cluster"]) or "none"
    agreement = decision["adjusted_rand_index"]
    clusters = "" if agreement is None else f"the clusters agree by an adjusted Rand index of {agreement:.2f} and "
    return (
        f"Worst cluster: {members} ({decision['reason']}). Where the receivers are drawn anew "
        f"{decision['resamples']} times, {clusters}rankings correlate by {decision['rank_correlation']:.2f} "
        "on average (Spearman); 1 is the same."
    )


def matrix_section(study: Study, cohort: Cohort) -> ReportSection:
    """The Dice matrix and its dendrogram."""
    matrix = load_matrix(study)
    folder = study.path("dice_matrix")
    return ReportSection(
        "Similarity",
        "similarity",
        f"{matrix.shape[0]} models segmented {matrix.shape[1]} cases each: {len(cohort.donors)} donors"
        f"{f', {len(cohort.validation)} validation cases' if cohort.validation else ''} and "
        f"{len(cohort.tests)} test cases.",
        [],
        [
            _picture(
                folder / "donors.png", "Donors by donors", "Thesis figure 3.4a. The diagonal is training data."
            ),
            _picture(folder / "tests.png", "Donors by test cases", "Thesis figure 3.4b."),
            _picture(
                study.path("dendrogram") / "dendrogram.png",
                "Dendrogram",
                f"Thesis figure 3.5: {LINKAGE_NAMES[study.profile.similarity.linkage]}, and the matrix that "
                "decided, in its leaf order.",
            ),
        ],
    )


def truth_sections(study: Study) -> list[ReportSection]:
    """How well the planted faults are found, where it is known which donors have one."""
    found = load_detection(study)
    if found.empty:
        return []
    folder = study.path("fault_detection")
    table = Table(
        "Scores by how well they find planted faults",
        ["score", "AUROC", "k", "precision at k", "recall at k", "rare but valid removed"],
        [
            [
                row.score,
                *(float(row.auroc), int(row.k) if pd.notna(row.k) else None),
                *(float(row.precision_at_k), float(row.recall_at_k)),
                f"{row.decoys_removed} of {row.decoys}" if pd.notna(row.decoys_removed) else None,
            ]
            for row in found.sort_values("auroc", ascending=False, kind="stable").itertuples()
        ],
        "Of each score the k worst cases are looked at, k being the number of faults; a worst cluster has a size "
        "of its own. An AUROC of 0.5 is chance.",
    )
    return [
        ReportSection(
            "Known truth",
            "truth",
            f"{statement(study, found)}\n\nThis dataset was made: it is known which labels are false and which "
            "cases are only rare. Nothing here was known when the ranking was made.",
            [table],
            [
                _picture(folder / "scores.png", "Scores compared", "AUROC of the planted faults; 0.5 is chance."),
                _picture(
                    folder / "ranking.png",
                    "The ranking and the truth",
                    "Red: a planted fault. Blue: rare but valid. The line: as many ranks as there are faults.",
                ),
            ],
        )
    ]


def baseline_sections(study: Study) -> list[ReportSection]:
    """The comparison of candidates for the baseline, where there are any."""
    folder = study.path("baseline_comparison")
    found = load_comparison(folder)
    if found is None:
        return []
    columns = {
        "candidate": "candidate",
        "epochs": "epochs",
        "iterations": "iterations",
        "pseudo_dice": "pseudo Dice",
        **{f"dice_{region}": f"Dice {region}" for region in ("WT", "TC", "ET")},
        "dice": "mean Dice",
        "seconds": "seconds",
    }
    table = Table(
        "Candidates for the baseline (thesis table 3.2)",
        list(columns.values()),
        found.table[list(columns)].to_numpy(object).tolist(),
        "The pseudo Dice is nnU-Net's measure over random patches, in the last epoch and here of training cases. "
        "The other Dice are means over whole held-out cases, which no candidate was trained on; the mean Dice is "
        f"that of the scalar ({SCALAR_NAMES[study.profile.similarity.scalar]}).",
    )
    chosen = study.profile.candidates.best_becomes_baseline
    return [
        ReportSection(
            "Baselines compared",
            "baselines",
            f"Each candidate was trained once and judged on {len(found.held_out)} held-out cases: "
            f"{', '.join(found.held_out)}. The best 2D candidate is {found.best_2d or 'none of these'}; "
            + ("its loss trains the baseline. " if chosen else "the loss of the baseline is the profile's. ")
            + f"{found.cascade}.",
            [table],
            [
                _picture(
                    folder / "figure_3_1.png", "Losses", "Thesis figure 3.1. Only losses of one kind compare."
                ),
                _picture(
                    folder / "figure_3_2.png",
                    "Pseudo Dice, and the true Dice at its end",
                    "Thesis figure 3.2; mean of the labels for the curves, the scalar of a cell for the diamonds.",
                ),
            ],
        )
    ]


def training_section(study: Study) -> ReportSection:
    """Curves of some trainings, and the variants of a case."""
    pictures = [
        _picture(
            study.path("baseline_weights") / "curves.png",
            "Baseline",
            "Loss and pseudo-Dice over the training patches of each epoch.",
        )
    ]
    worst, best = load_ranking(study)["case_id"].iloc[[0, -1]]
    for donor, place in ((worst, "lowest"), (best, "highest")):
        pictures.append(
            _picture(
                study.path("case_model", donor) / "curves.png", f"Case model of {donor}", f"The {place} score."
            )
        )
    pictures.append(
        _picture(
            study.path("augmented_case", worst) / "variants.png",
            f"Variants of {worst}",
            f"One case made {study.profile.variants.count}: mirrored and mildly deformed.",
        )
    )
    return ReportSection("Training", "training", "", [], pictures)


def overlay_section(study: Study, cohort: Cohort) -> ReportSection:
    """Segmentations of test cases."""
    evaluation = load_evaluation(study, FULL_SET)
    scalars = evaluation[evaluation["region"] == MEAN].set_index("case_id")["dice"].sort_values()
    chosen = scalars.iloc[np.unique(np.linspace(0, len(scalars) - 1, OVERLAY_CASES).round().astype(int))]
    items = [_overlay(study, cohort, str(name), float(dice)) for name, dice in chosen.items()]
    picture = Picture(
        "Segmentations of test cases",
        png_bytes(segmentation_overlays(items, BRAIN_TUMOUR)),
        "Network trained on all donors; blue oedema, green non-enhancing, red enhancing tumour.",
    )
    return ReportSection("Overlays", "overlays", "", [], [picture])


def _overlay(
    study: Study, cohort: Cohort, name: str, dice: float
) -> tuple[str, np.ndarray, np.ndarray, np.ndarray, float]:
    case = study.read_case(name)
    file = study.path("reduced_evaluation", FULL_SET) / "segmentations" / f"{name}.nii.gz"
    predicted = np.asarray(nib.Nifti1Image.from_filename(file).dataobj)
    assert case.label is not None
    place = largest_slice(case.label, BRAIN_TUMOUR)
    background, truth, segmentation = (
        axial_slice(volume, place, case.affine) for volume in (case.image[0], case.label, predicted)
    )
    return name, background, truth, segmentation, dice


def cost_section(study: Study) -> ReportSection:
    """What the answer cost, and what shorter trainings would have told."""
    costs = load_cost(study)
    devices = ", ".join(sorted(set(costs["device"])))
    return ReportSection(
        "Cost",
        "cost",
        f"The answer took {human_time(costs['seconds'].sum())} on {devices}, and "
        f"{human_time(costs['cpu_seconds'].sum())} of processor time. {_convergence_sentence(study)}",
        [],
        [
            _picture(
                study.path("cost") / "cost.png", "Cost of the assets", "Elapsed time, summed over partitions."
            ),
            _picture(
                study.path("convergence") / "convergence.png",
                "Would shorter trainings have told the same?",
                "Rank correlation of the donors' scores after a part of each case model's training with the final "
                "ones, and the time of trainings and matrix until then.",
            ),
        ],
    )


def _convergence_sentence(study: Study) -> str:
    early = load_convergence(study).iloc[:-1]
    if early.empty:
        return ""
    told = ", ".join(f"{row.correlation:.2f} after {row.share:.0%}" for row in early.itertuples())
    return f"Rank correlation with the final ranking: {told} of the case models' iterations."


def cohort_section(study: Study, cohort: Cohort) -> ReportSection:
    """Which case has which role, and which were refused."""
    cases = cohort_table(cohort)
    tables = [Table("Cases", list(cases.columns), cases.to_numpy().tolist())]
    if cohort.refused:
        rows = [[case, reason] for case, reasons in cohort.refused.items() for reason in reasons]
        tables.append(Table("Refused cases", ["case", "reason"], rows))
    if cohort.left_over:
        rows = [[case] for case in cohort.left_over]
        tables.append(Table("Cases that the profile did not need", ["case"], rows))
    return ReportSection("Cohort", "cohort", "", tables, [])


def _picture(path: Path, title: str, caption: str) -> Picture:
    return Picture(title, path.read_bytes(), caption)
