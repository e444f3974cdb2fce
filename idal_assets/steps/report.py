"""The report of the experiment: what it says first, and the order of its sections."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from idal_assets.anatomy import Anatomy
from idal_assets.report.cards import CaseCard, sheet
from idal_assets.report.files import take_away
from idal_assets.report.html import ReportContent, ReportSection, render_case, render_report
from idal_assets.steps.adaptation_evidence import adaptation_sections
from idal_assets.steps.baseline import baseline_sections
from idal_assets.steps.cards import CARD_FOLDER, case_cards, case_pages, cases_section
from idal_assets.steps.cohort import cohort_section
from idal_assets.steps.confirmation import confirmation_sections
from idal_assets.steps.cost import cost_section
from idal_assets.steps.detection import truth_sections
from idal_assets.steps.donors import training_section
from idal_assets.steps.effects_of_cases import case_effect_sections
from idal_assets.steps.evidence import Evidence, evidence_section, load_evidence, verdict
from idal_assets.steps.methods import METHODS_FILE, methods
from idal_assets.steps.patient_network import patient_sections
from idal_assets.steps.reduction import load_median_change, reduction_section
from idal_assets.steps.removal import load_plan
from idal_assets.steps.similarity import load_decision, load_ranking, matrix_section, ranking_section
from idal_assets.store.artifacts import COMPUTE_FILE
from idal_assets.study.making import Task

REPORT_FILE = "report.html"
SHEET_FILE = "worst_donors.svg"
SHOWN_AT_ONCE = 4
"""Worst donors whose slices are shown side by side."""
MODE_NAMES = {
    "robust": "robust: regions that both cases have, and what removal does to validation cases",
    "thesis": "thesis: all regions, donors alone",
}


def make_report(task: Task) -> None:
    """Writes the page, the pages of the cases beside it, and what a person may want to take away.

    `report.html`; `cases/CASE.html`; `figures` as SVG and PDF; `tables` as CSV and LaTeX; `methods.md`, a
    paragraph for a paper.
    """
    pages = case_pages(task)
    cards = list(case_cards(task))
    (task.folder / CARD_FOLDER).mkdir()
    within = {name: f"{name}.html" for name in pages}
    for card in cards:
        (task.folder / CARD_FOLDER / f"{card.case_id}.html").write_text(
            render_case(card, within), encoding="utf-8"
        )
    (task.folder / SHEET_FILE).write_bytes(sheet(cards[:SHOWN_AT_ONCE]))
    content = take_away(_content(task, cards, pages), task.folder)
    (task.folder / METHODS_FILE).write_text(methods(task), encoding="utf-8")
    (task.folder / REPORT_FILE).write_text(render_report(content), encoding="utf-8")


def show_report(task: Task) -> Mapping[str, Any]:
    """The answer, the worst cases, and where the page is."""
    page = task.folder / REPORT_FILE
    ranking, found = load_ranking(task.path("case_ranking")), load_evidence(task.path("evidence"))
    return {
        "answer": [verdict(found, task.setting("report").learned_dice), *found.warnings],
        "worst_cases": worst_cases(task, ranking),
        "page": page,
        "megabytes": round(sum(file.stat().st_size for file in task.folder.rglob("*")) / 1e6, 2),
    }


def worst_cases(task: Task, ranking: pd.DataFrame) -> pd.DataFrame:
    """The worst donors, which sets lost them, and what speaks against them."""
    plan = load_plan(task.path("removal_plan"))
    worst = ranking.head(max(task.setting("removal.sizes")))
    lost = [", ".join(name for name in plan.chosen if case in plan.of_base[name]) for case in worst["case_id"]]
    return pd.DataFrame(
        {
            "rank": worst["rank"],
            "case_id": worst["case_id"],
            "lost_by": lost,
            "label_contradicted": worst["contradiction"],
        }
    )


def _content(task: Task, cards: Sequence[CaseCard], pages: Mapping[str, str]) -> ReportContent:
    """Gathers the report of a finished study: the answer, the cases, the proof, then what it was made of."""
    change = load_median_change(task.path("reduction_report"))
    found = load_evidence(task.path("evidence"))
    words = task.cohort.anatomy.in_words(task.setting("similarity.scalar"))
    learned_dice = task.setting("report").learned_dice
    worst_cluster = load_decision(task.path("case_ranking"))["worst_cluster"]
    return ReportContent(
        title=f"Which cases help, which harm: {task.setting('name')}",
        verdict=verdict(found, learned_dice),
        summary=summary(found, load_ranking(task.path("case_ranking")), words),
        cautions=cautions(found, learned_dice),
        case_pages=pages,
        sections=[
            cases_section(task, cards, worst_cluster),
            evidence_section(task, found),
            *case_effect_sections(task),
            *confirmation_sections(task),
            reduction_section(task, change),
            ranking_section(task),
            matrix_section(task),
            *truth_sections(task),
            *adaptation_sections(task),
            *patient_sections(task),
            *baseline_sections(task),
            training_section(task),
            cost_section(task),
            cohort_section(task.cohort),
            ReportSection("Data and software", "facts", facts=_facts(task, words)),
        ],
    )


def summary(found: Evidence, scores: pd.DataFrame, scalar: str) -> str:
    """Says in plain words what follows, and no more than that.

    Args:
        found: What the retrainings prove.
        scores: The ranking.
        scalar: What the scalar of a cell averages, in words.
    """
    judged = found.judged
    largest = judged.loc[judged["mean_difference"].abs().idxmax(), "sentence"]
    worst = ", ".join(scores["case_id"].head(3))
    return (
        f"With all {len(scores)} donors the mean Dice of the test cases "
        f"({scalar}, as far as the label holds them) is {found.full_dice:.3f}; {largest}. "
        f"The donors with the lowest scores are {worst}."
    )


def cautions(found: Evidence, learned_dice: float) -> list[str]:
    """What a reader must know before believing the answer.

    Args:
        found: What the retrainings prove.
        learned_dice: Mean Dice below which nothing was learned.
    """
    said = [f"Beware: {warning.split(':')[0]}." for warning in found.warnings]
    if not found.learned(learned_dice):
        said.insert(
            0,
            f"The networks have not learned to segment: with all donors the mean Dice of the test cases is "
            f"{found.full_dice:.2f}, below {learned_dice:.2f}. Whatever follows compares bad networks; train "
            "longer, or with more cases.",
        )
    return said


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
