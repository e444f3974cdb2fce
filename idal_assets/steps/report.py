"""The report of the experiment: what it says first, and the order of its sections."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from idal_assets.analysis.removal_sets import FULL_SET
from idal_assets.anatomy import Anatomy
from idal_assets.report.html import ReportContent, render_report
from idal_assets.steps.adaptation_evidence import adaptation_sections
from idal_assets.steps.baseline import baseline_sections
from idal_assets.steps.cohort import cohort_section
from idal_assets.steps.confirmation import confirmation_sections
from idal_assets.steps.cost import cost_section
from idal_assets.steps.detection import truth_sections
from idal_assets.steps.donors import training_section
from idal_assets.steps.effects_of_cases import case_effect_sections
from idal_assets.steps.evidence import Evidence, evidence_section, load_evidence
from idal_assets.steps.patient_network import patient_sections
from idal_assets.steps.retraining import load_median_change, overlay_section, reduction_section
from idal_assets.steps.similarity import load_ranking, matrix_section, ranking_section
from idal_assets.store.artifacts import COMPUTE_FILE
from idal_assets.study.making import Task

REPORT_FILE = "report.html"
MODE_NAMES = {
    "robust": "robust: regions that both cases have, and what removal does to validation cases",
    "thesis": "thesis: all regions, donors alone",
}


def make_report(task: Task) -> None:
    """Writes the page."""
    (task.folder / REPORT_FILE).write_text(render_report(_content(task)), encoding="utf-8")


def show_report(task: Task) -> Mapping[str, Any]:
    """Where the page is."""
    page = task.folder / REPORT_FILE
    return {"page": page, "megabytes": round(page.stat().st_size / 1e6, 2)}


def _content(task: Task) -> ReportContent:
    """Gathers the report of a finished study."""
    change = load_median_change(task.path("reduction_report"))
    found = load_evidence(task.path("evidence"))
    words = task.cohort.anatomy.in_words(task.setting("similarity.scalar"))
    return ReportContent(
        title=f"Which cases help, which harm: {task.setting('name')}",
        summary=summary(found, load_ranking(task.path("case_ranking")), words),
        facts=_facts(task, words),
        sections=[
            evidence_section(task, found),
            *case_effect_sections(task),
            *confirmation_sections(task),
            *adaptation_sections(task),
            *patient_sections(task),
            reduction_section(task, change),
            ranking_section(task),
            *truth_sections(task),
            matrix_section(task),
            *baseline_sections(task),
            training_section(task),
            overlay_section(task),
            cost_section(task),
            cohort_section(task.cohort),
        ],
    )


def summary(found: Evidence, scores: pd.DataFrame, scalar: str) -> str:
    """Says in plain words what follows, and no more than that.

    Args:
        found: What the retrainings prove.
        scores: The ranking.
        scalar: What the scalar of a cell averages, in words.
    """
    full = found.effects.set_index("removal_set").loc[FULL_SET]
    judged = found.judged
    largest = judged.loc[judged["mean_difference"].abs().idxmax(), "sentence"]
    worst = ", ".join(scores["case_id"].head(3))
    return (
        f"{_verdict(judged)} With all {len(scores)} donors the mean Dice of the test cases "
        f"({scalar}, as far as the label holds them) is {full['mean_dice']:.3f}; {largest}. "
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


def _facts(task: Task, scalar: str) -> list[tuple[str, str]]:
    cohort, made = task.cohort, task.upstream("baseline_weights")
    anatomy: Anatomy = cohort.anatomy
    return [
        ("Profile", f"{task.setting('name')}: {task.setting('description')}"),
        ("Raw folder", f"{cohort.raw} ({cohort.layout})"),
        ("Channels", ", ".join(anatomy.channels)),
        ("Labels", ", ".join(anatomy.labels.values())),
        ("Donors", str(len(cohort.donors))),
        ("Test cases", str(len(cohort.tests))),
        ("Validation cases", str(len(cohort.validation)) if cohort.validation else "none"),
        ("Pretraining cases", str(len(cohort.pretraining)) if cohort.pretraining else "none: the donors train it"),
        ("Scalar of a cell", scalar),
        ("Bad cases chosen by", MODE_NAMES[task.setting("similarity.mode")]),
        ("Seed", str(task.setting("seed"))),
        ("Baseline trained on", (task.path("baseline_weights") / COMPUTE_FILE).read_text()),
        ("Baseline made", made.written),
        ("Software", ", ".join(f"{name} {version}" for name, version in made.software.items())),
    ]
