"""What the experiment's report says: facts, tables and pictures, gathered from the finished artifacts."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from idal_assets.analysis.scores import MEAN
from idal_assets.imaging.cohort import Cohort
from idal_assets.plots.cases import axial_slice, most_tumour_slice, segmentation_overlays
from idal_assets.plots.style import png_bytes
from idal_assets.report.html import KEPT, REMOVED, Picture, ReportContent, ReportSection, Table
from idal_assets.settings import FULL_SET, WORST_CLUSTER, Profile
from idal_assets.steps.cohort import cohort_table
from idal_assets.steps.matrix import load_matrix, load_ranking
from idal_assets.steps.reductions import load_evaluation, load_plan
from idal_assets.study import Study

OVERLAY_CASES = 6
"""Test cases whose segmentations are shown: the best, the worst and some between."""

SCALAR_NAMES = {"regions": "mean of WT, TC and ET", "labels": "mean of the three labels", "WT": "whole tumour"}


def experiment_content(study: Study) -> ReportContent:
    """Gathers the report of a finished study."""
    cohort = study.cohort
    change = load_median_change(study)
    return ReportContent(
        title=f"Which cases help, which harm: {study.profile.name}",
        summary=summary_sentence(change, load_ranking(study), study.profile),
        facts=_facts(study, cohort),
        sections=[
            _reduction_section(study, change),
            _ranking_section(study),
            _matrix_section(study, cohort),
            _training_section(study),
            _overlay_section(study, cohort),
            _cohort_section(study, cohort),
        ],
    )


def load_median_change(study: Study) -> pd.DataFrame:
    """Table 3.3 of this run."""
    return pd.read_csv(study.path("reduction_report") / "median_change.csv")


def summary_sentence(change: pd.DataFrame, scores: pd.DataFrame, profile: Profile) -> str:
    """Says in plain words what came out, and no more than that."""
    reduced = change[change["removal_set"] != FULL_SET]
    largest = reduced.loc[reduced["difference_of_medians"].abs().idxmax()]
    full = change.set_index("removal_set").loc[FULL_SET]
    worst = ", ".join(scores["case_id"].head(3))
    return (
        f"With all {int(full['cases_left'])} donors the median Dice of the test cases "
        f"({SCALAR_NAMES[profile.similarity.scalar]}) is {full['median_dice']:.3f}. The largest change is "
        f"{largest['difference_of_medians']:+.3f}, after removing {int(largest['removed'])} of them "
        f"({largest['removal_set']}). The donors with the lowest scores are {worst}. Each set was retrained once, "
        "so such a change can be luck: it takes random removals of the same size and several seeds to tell."
    )


def _facts(study: Study, cohort: Cohort) -> list[tuple[str, str]]:
    made = study.provenance("baseline_weights")
    return [
        ("Profile", f"{study.profile.name}: {study.profile.description}"),
        ("Raw folder", f"{cohort.raw} ({cohort.layout})"),
        ("Donors", str(len(cohort.donors))),
        ("Test cases", str(len(cohort.tests))),
        ("Pretraining cases", str(len(cohort.pretraining)) if cohort.pretraining else "none: the donors train it"),
        ("Scalar of a cell", SCALAR_NAMES[study.profile.similarity.scalar]),
        ("Seed", str(study.profile.seed)),
        ("Baseline trained on", (study.path("baseline_weights") / "compute.txt").read_text()),
        ("Baseline made", made.written),
        ("Software", ", ".join(f"{name} {version}" for name, version in made.software.items())),
    ]


def _reduction_section(study: Study, change: pd.DataFrame) -> ReportSection:
    plan = load_plan(study.path("removal_plan"))
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


def _ranking_section(study: Study) -> ReportSection:
    scores = load_ranking(study)
    table = Table(
        "Donors, the worst first",
        ["rank", "case", "score", "donor mean", "receiver mean", "cluster", "out-of-fold Dice", "label quality"],
        [
            [
                row.rank,
                row.case_id,
                float(row.score),
                float(row.donor_mean),
                float(row.receiver_mean),
                row.cluster,
                float(row.out_of_fold_dice),
                float(row.label_quality),
            ]
            for row in scores.itertuples()
        ],
        "The score adds the z-scores of both means: low where a case teaches badly and is also badly segmented. "
        "Beside it stand its cheap rivals, from networks that have not learned from the case: their Dice on it "
        "and cleanlab's softmin over its voxels; both are low where the label is doubtful.",
    )
    return ReportSection(
        "Ranking",
        "ranking",
        "The donor mean says how well the model of a case segments the other donors; the receiver mean how well "
        "the models of the other donors segment that case.",
        [table],
        [_picture(study.path("case_ranking") / "ranking.png", "Ranking", "Marked: the cases of the largest set.")],
    )


def _matrix_section(study: Study, cohort: Cohort) -> ReportSection:
    matrix = load_matrix(study)
    folder = study.path("dice_matrix")
    return ReportSection(
        "Similarity",
        "similarity",
        f"{matrix.shape[0]} models segmented {matrix.shape[1]} cases each: {len(cohort.donors)} donors and "
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
                "Thesis figure 3.5: average linkage (UPGMA), and the matrix in its leaf order.",
            ),
        ],
    )


def _training_section(study: Study) -> ReportSection:
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


def _overlay_section(study: Study, cohort: Cohort) -> ReportSection:
    evaluation = load_evaluation(study, FULL_SET)
    scalars = evaluation[evaluation["region"] == MEAN].set_index("case_id")["dice"].sort_values()
    chosen = scalars.iloc[np.unique(np.linspace(0, len(scalars) - 1, OVERLAY_CASES).round().astype(int))]
    items = [_overlay(study, cohort, str(name), float(dice)) for name, dice in chosen.items()]
    picture = Picture(
        "Segmentations of test cases",
        png_bytes(segmentation_overlays(items)),
        "Network trained on all donors; blue oedema, green non-enhancing, red enhancing tumour.",
    )
    return ReportSection("Overlays", "overlays", "", [], [picture])


def _overlay(
    study: Study, cohort: Cohort, name: str, dice: float
) -> tuple[str, np.ndarray, np.ndarray, np.ndarray, float]:
    case = study.read_case(name)
    file = study.path("reduced_evaluation", FULL_SET) / "segmentations" / f"{name}.nii.gz"
    predicted = np.asarray(nib.Nifti1Image.from_filename(file).dataobj)
    place = most_tumour_slice(case.label)
    background, truth, segmentation = (
        axial_slice(volume, place, case.affine) for volume in (case.image[0], case.label, predicted)
    )
    return name, background, truth, segmentation, dice


def _cohort_section(study: Study, cohort: Cohort) -> ReportSection:
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
