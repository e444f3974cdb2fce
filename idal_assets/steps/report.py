"""What the experiment's report says first, and the order of its sections."""

import pandas as pd

from idal_assets.analysis.removal_sets import FULL_SET
from idal_assets.profile import Profile
from idal_assets.report.html import ReportContent
from idal_assets.steps.evidence import Evidence, load_evidence
from idal_assets.steps.matrix import load_ranking
from idal_assets.steps.report_sections import (
    SCALAR_NAMES,
    baseline_sections,
    cohort_section,
    cost_section,
    evidence_section,
    matrix_section,
    overlay_section,
    ranking_section,
    reduction_section,
    training_section,
    truth_sections,
)
from idal_assets.store.artifacts import COMPUTE_FILE
from idal_assets.study.cohort import Cohort
from idal_assets.study.study import Study

MODE_NAMES = {
    "robust": "robust: regions that both cases hold, and what removal does to validation cases",
    "thesis": "thesis: all regions, donors alone",
}


def experiment_content(study: Study) -> ReportContent:
    """Gathers the report of a finished study."""
    cohort = study.cohort
    change = load_median_change(study)
    found = load_evidence(study)
    return ReportContent(
        title=f"Which cases help, which harm: {study.profile.name}",
        summary=summary(change, found, load_ranking(study), study.profile),
        facts=_facts(study, cohort),
        sections=[
            evidence_section(study, found),
            reduction_section(study, change),
            ranking_section(study),
            *truth_sections(study),
            matrix_section(study, cohort),
            *baseline_sections(study),
            training_section(study),
            overlay_section(study, cohort),
            cost_section(study),
            cohort_section(study, cohort),
        ],
    )


def load_median_change(study: Study) -> pd.DataFrame:
    """Table 3.3 of this run."""
    return pd.read_csv(study.path("reduction_report") / "median_change.csv")


def summary(change: pd.DataFrame, found: Evidence, scores: pd.DataFrame, profile: Profile) -> str:
    """Says in plain words what follows, and no more than that."""
    full = change.set_index("removal_set").loc[FULL_SET]
    judged = found.judged
    largest = judged.loc[judged["difference_of_medians"].abs().idxmax(), "sentence"]
    worst = ", ".join(scores["case_id"].head(3))
    return (
        f"{_verdict(judged)} With all {int(full['cases_left'])} donors the median Dice of the test cases "
        f"({SCALAR_NAMES[profile.similarity.scalar]}) is {full['median_dice']:.3f}; {largest}. "
        f"The donors with the lowest scores are {worst}.{_caution(found)}"
    )


def _caution(found: Evidence) -> str:
    if not found.warnings:
        return ""
    return f" Beware: {' '.join(warning.split(':')[0] + '.' for warning in found.warnings)}"


def _verdict(judged: pd.DataFrame) -> str:
    gains = judged.loc[judged["gain"], "removal_set"]
    if len(gains):
        return f"Removing donors helps: {', '.join(gains)}."
    harms = judged.loc[judged["harm"], "removal_set"]
    if len(harms):
        verb = "does" if len(harms) == 1 else "do"
        return f"No removal is shown to help, and {', '.join(harms)} {verb} harm."
    return "No removal is shown to help."


def _facts(study: Study, cohort: Cohort) -> list[tuple[str, str]]:
    made = study.provenance("baseline_weights")
    return [
        ("Profile", f"{study.profile.name}: {study.profile.description}"),
        ("Raw folder", f"{cohort.raw} ({cohort.layout})"),
        ("Donors", str(len(cohort.donors))),
        ("Test cases", str(len(cohort.tests))),
        ("Validation cases", str(len(cohort.validation)) if cohort.validation else "none"),
        ("Pretraining cases", str(len(cohort.pretraining)) if cohort.pretraining else "none: the donors train it"),
        ("Scalar of a cell", SCALAR_NAMES[study.profile.similarity.scalar]),
        ("Bad cases chosen by", MODE_NAMES[study.profile.similarity.mode]),
        ("Seed", str(study.profile.seed)),
        ("Baseline trained on", (study.path("baseline_weights") / COMPUTE_FILE).read_text()),
        ("Baseline made", made.written),
        ("Software", ", ".join(f"{name} {version}" for name, version in made.software.items())),
    ]
