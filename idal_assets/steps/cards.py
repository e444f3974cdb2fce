"""The part `report`, its cases: what all the study knows of a case, gathered on its card."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from idal_assets.analysis.words import interval, signed
from idal_assets.anatomy import Anatomy
from idal_assets.imaging.case import CaseError
from idal_assets.imaging.readers import find_case
from idal_assets.report.cards import CardSlice, CaseCard, Layer, Panel, Strip, strip
from idal_assets.report.html import ReportSection, ReportTable, ReviewTable
from idal_assets.steps.effects_of_cases import load_case_effects
from idal_assets.steps.patient_network import load_patient
from idal_assets.steps.removal import RemovalPlan, load_plan
from idal_assets.steps.similarity import load_contradictions, load_matrix, load_ranking
from idal_assets.steps.views import FOLD, LABEL, SOURCE_NAMES, load_view
from idal_assets.study.cohort import CohortCase, label_millilitres
from idal_assets.study.making import Task

CARD_FOLDER = "cases"

NAMED = 3
"""How many donors that suit, or receivers, are named."""

LACKING, UNSEEN = "#ff7f0e", "#17becf"
"""What networks see and the label lacks, and the other way round."""

REFERENCE = "#ffffff"


@dataclass
class _Known:
    """What is known of all cases, read once.

    Attributes:
        task: The report in the making.
    """

    task: Task

    @cached_property
    def ranking(self) -> pd.DataFrame:
        """One row a donor, by its name."""
        return load_ranking(self.task.path("case_ranking")).set_index("case_id")

    @cached_property
    def matrix(self) -> pd.DataFrame:
        """Scalars, donors by receivers."""
        return load_matrix(self.task.path("dice_matrix"))

    @cached_property
    def others(self) -> pd.DataFrame:
        """The same without what a model says of its own case."""
        own = self.matrix.index.to_numpy()[:, None] == self.matrix.columns.to_numpy()
        return self.matrix.mask(own)

    @cached_property
    def effects(self) -> pd.DataFrame:
        """What single donors do, by their names."""
        return load_case_effects(self.task.path("case_effect")).set_index("case_id")

    @cached_property
    def plan(self) -> RemovalPlan:
        """What every set removes."""
        return load_plan(self.task.path("removal_plan"))

    @cached_property
    def contradictions(self) -> Mapping[str, str]:
        """What labels lack, in words, by case."""
        return load_contradictions(self.task.path("case_ranking"), self.task.cohort.anatomy)

    @cached_property
    def volumes(self) -> pd.DataFrame:
        """Volumes in ml, cases by labels."""
        anatomy = self.task.cohort.anatomy
        rows = {case.case_id: label_millilitres(case.facts) for case in self.task.cohort.cases}
        table = pd.DataFrame.from_dict(rows, orient="index").reindex(columns=list(anatomy.labels)).fillna(0.0)
        return table.set_axis(list(anatomy.labels.values()), axis=1)

    @cached_property
    def suits(self) -> Mapping[str, list[str]]:
        """Patients whose network was made of a donor, by donor."""
        found: dict[str, list[str]] = {}
        for patient in self.task.keys("patient_segmentation"):
            for one in load_patient(self.task.path("patient_segmentation", patient))["donors"]:
                found.setdefault(one["donor"], []).append(patient)
        return found

    def sets_without(self, case: str) -> list[str]:
        """Chosen sets that remove a donor."""
        return [name for name in self.plan.chosen if case in self.plan.of_base[name]]

    def draws_without(self, case: str) -> int:
        """How many random sets remove a donor."""
        drawn = {one.base for one in self.plan.sets.values() if one.is_drawn}
        return sum(case in self.plan.of_base[name] for name in drawn)


def case_pages(task: Task) -> dict[str, str]:
    """Address of the page of each case, from the report."""
    return {name: f"{CARD_FOLDER}/{name}.html" for name in task.keys("case_view")}


def case_cards(task: Task) -> Iterator[CaseCard]:
    """The cards of all cases, those of the worst donors first."""
    known = _Known(task)
    cases = {case.case_id: case for case in task.cohort.cases}
    order = [
        *known.ranking.sort_values("rank").index,
        *(name for name in cases if name not in known.ranking.index),
    ]
    return (_card(known, cases[name]) for name in order)


def first_cards(task: Task, cards: Sequence[CaseCard], worst_cluster: Sequence[str]) -> list[CaseCard]:
    """The cards that the report shows itself: the worst donors and the worst cluster."""
    shown = task.setting("report").cards
    donors = [card.case_id for card in cards if task.cohort.roles[card.case_id] == "donor"]
    chosen = {*donors[:shown], *worst_cluster[:shown]}
    return [card for card in cards if card.case_id in chosen]


def cases_section(task: Task, cards: Sequence[CaseCard], worst_cluster: Sequence[str]) -> ReportSection:
    """The cards of the worst donors, and the form in which a person decides on all cases."""
    known, cohort = _Known(task), task.cohort
    rows = [_review_row(known, card.case_id, cohort.roles[card.case_id], len(card.alarms)) for card in cards]
    decided = {case: review.model_dump() for case, review in cohort.reviews.items()}
    review = ReviewTable(
        ["case", "role", "rank", "score", "Dice of others on it", "out-of-fold Dice", "alarms"],
        rows,
        decided,
        f"{task.setting('name')} {cohort.raw}",
    )
    shown = first_cards(task, cards, worst_cluster)
    text = (
        "Look before you believe a score. Outlines have the colours of the labels; where those of a network are "
        "drawn, the label is dashed white. Orange is what networks that have not learned from this label see and "
        "it lacks, teal what it has and they do not see. A wrong label lies where the image shows nothing; "
        "a rare but valid case looks unlike the others and is labelled where the image shows something."
    )
    return ReportSection("The cases to look at", "cases", text, cards=shown, review=review)


def _review_row(known: _Known, case: str, role: str, alarms: int) -> list[Any]:
    row = known.ranking.loc[case] if case in known.ranking.index else None
    received = known.others[case].mean() if case in known.others else float("nan")
    return [
        case,
        role,
        None if row is None else int(row["rank"]),
        None if row is None else float(row["score"]),
        float(received),
        None if row is None else float(row["out_of_fold_dice"]),
        alarms,
    ]


def _card(known: _Known, case: CohortCase) -> CaseCard:
    task, name = known.task, case.case_id
    folder = task.path("case_view", name)
    view, legend = load_view(folder), task.legend
    donor = known.ranking.loc[name] if name in known.ranking.index else None
    return CaseCard(
        case_id=name,
        headline=_headline(known, case, donor),
        alarms=_alarms(known, case, donor, view),
        facts=_facts(known, case, donor),
        legend={
            **{legend.labels[value]: legend.colours[value] for value in legend.labels},
            "networks see it, the label lacks it": LACKING,
            "the label has it, networks do not see it": UNSEEN,
        },
        slices=[_slice(task, folder, found, view["witness"]) for found in view["slices"]],
        strips=_strips(known, name),
        tables=[_source_table(task, view)],
        commands=_commands(task, name),
    )


def _headline(known: _Known, case: CohortCase, donor: pd.Series | None) -> str:
    review = known.task.cohort.reviews.get(case.case_id)
    decided = f" · decided: {review}" if review else ""
    if donor is None:
        return f"{case.role} case{decided}"
    removed = known.sets_without(case.case_id)
    by = f" · removed by {', '.join(removed)}" if removed else " · in every chosen set"
    return f"donor · rank {donor['rank']} of {len(known.ranking)}, 1 is the worst{by}{decided}"


def _alarms(known: _Known, case: CohortCase, donor: pd.Series | None, view: Mapping[str, Any]) -> list[str]:
    name, said = case.case_id, []
    if name in known.contradictions:
        said.append(f"The label may lack something: {known.contradictions[name]}.")
    if donor is not None and donor["outlier_p"] <= 0.05:
        said.append(f"Its score is lower than the spread of the others explains (p = {donor['outlier_p']:.2g}).")
    if name in known.effects.index and known.effects.loc[name, "verdict"] == "harms":
        effect = known.effects.loc[name]
        low, high = effect["low"], effect["high"]
        said.append(f"It harms the test cases: {signed(effect['effect'], 4)} ({interval(low, high, 4)}).")
    empty = [label for label, volume in known.volumes.loc[name].items() if volume == 0]
    present = known.volumes.columns[(known.volumes > 0).mean() > 0.5]
    said += [f"It has no {label}, which most cases have." for label in empty if label in present]
    said += [f"{warning.what[0].upper()}{warning.what[1:]}." for warning in case.facts.warnings]
    return said


def _facts(known: _Known, case: CohortCase, donor: pd.Series | None) -> list[tuple[str, Any]]:
    name, facts = case.case_id, case.facts
    patient = known.task.cohort.patients[name]
    found: list[tuple[str, Any]] = [
        ("shape", " × ".join(map(str, facts.shape))),
        ("voxel size (mm)", " × ".join(f"{size:g}" for size in facts.spacing)),
        *([("patient", patient)] if patient != name else []),
    ]
    if donor is not None:
        found += _donor_facts(known, name, donor)
    if name in known.others and known.others[name].notna().any():
        models = known.others[name].dropna().sort_values(ascending=False)
        found.append(("donors whose models segment it best", _with_dice(models.head(NAMED))))
        found.append(("median Dice of all other models", f"{models.median():.3f}"))
    return found


def _donor_facts(known: _Known, name: str, donor: pd.Series) -> list[tuple[str, Any]]:
    fellows = int((known.ranking["cluster"] == donor["cluster"]).sum()) - 1
    row = (known.others.loc[name] - known.others.mean()).dropna().sort_values(ascending=False)
    found: list[tuple[str, Any]] = [
        ("score", f"{donor['score']:.3f}"),
        ("as low by chance", f"p = {donor['outlier_p']:.2g}"),
        ("in the worst cluster", f"{donor['stability']:.0%} of the draws of receivers"),
        ("cluster", f"{donor['cluster']}, with {fellows} other{'s' * (fellows != 1)}"),
        ("mean Dice of its model", f"{donor['donor_mean']:.3f}"),
        ("mean Dice of others on it", f"{donor['receiver_mean']:.3f}"),
        ("label quality (cleanlab)", float(donor["label_quality"])),
        ("random sets without it", known.draws_without(name)),
        ("cases that its model suits more than others", _with_dice(known.others.loc[name, row.index[:NAMED]])),
    ]
    if name in known.effects.index and not np.isnan(known.effects.loc[name, "effect"]):
        effect = known.effects.loc[name]
        value = (
            f"{signed(effect['effect'], 4)} ({interval(effect['low'], effect['high'], 4)}): {effect['verdict']}"
        )
        found.append(("effect on the test cases", value))
    if name in known.suits:
        found.append(("patients whose network it is part of", ", ".join(known.suits[name])))
    return found


def _with_dice(dice: pd.Series) -> str:
    return ", ".join(f"{name} ({value:.2f})" for name, value in dice.items())


def _strips(known: _Known, name: str) -> list[Strip]:
    return [strip(str(label), float(values[name]), list(values), "ml") for label, values in known.volumes.items()]


def _source_table(task: Task, view: Mapping[str, Any]) -> ReportTable:
    anatomy = task.cohort.anatomy
    regions, labels = _regions(anatomy), list(anatomy.labels.values())
    rows = [
        [
            SOURCE_NAMES[one["source"]],
            *(one["dice"].get(region) for region in regions),
            *(f"{one['millilitres'][label]:.2f}" for label in labels),
        ]
        for one in view["sources"]
    ]
    return ReportTable(
        "What networks make of it",
        ["segmented by", *(f"Dice {name}" for name in regions.values()), *(f"{label} (ml)" for label in labels)],
        rows,
    )


def _regions(anatomy: Anatomy) -> dict[str, str]:
    """Regions whose Dice a card tells, each once, and their names there: single labels as they are called."""
    different: dict[frozenset[int], str] = {}
    for name, values in anatomy.regions.items():
        different.setdefault(frozenset(values), name)
    return {name: anatomy.labels[min(values)] if len(values) == 1 else name for values, name in different.items()}


def _slice(task: Task, folder: Path, found: Mapping[str, Any], witness: str | None) -> CardSlice:
    legend, outlines = task.legend, found["outlines"]
    colours = {str(value): legend.colours[value] for value in legend.labels}

    def lines(source: str) -> list[Layer]:
        return [Layer(path, colours[value]) for value, path in outlines[source].items()]

    reference = [Layer(path, REFERENCE, "dashed") for path in outlines[LABEL].values()]
    panels = [Panel(name, number, []) for number, name in enumerate(legend.channels)]
    panels.append(Panel(f"{legend.channels[0]} + label", 0, lines(LABEL)))
    others = [name for name in SOURCE_NAMES if name in outlines and name != LABEL]
    panels += [Panel(SOURCE_NAMES[name], 0, [*reference, *lines(name)]) for name in others]
    if witness:
        differing = [(found["lacking"], LACKING), (found["unseen"], UNSEEN)]
        areas = [Layer(path, colour, "area") for path, colour in differing if path]
        who = "out of fold" if witness == FOLD else SOURCE_NAMES[witness]
        panels.append(Panel(f"label against {who}", 0, areas))
    return CardSlice(
        f"Slice {found['place']} of {found['of']}: {found['why']}",
        found["rows"],
        found["columns"],
        found["aspect"],
        [(folder / file).read_bytes() for file in found["channels"]],
        panels,
    )


def _commands(task: Task, name: str) -> dict[str, str]:
    """Command lines that open the case in viewers; none where its files are away."""
    files = None
    with suppress(CaseError):
        files = find_case(task.cohort.raw, name, lambda found: found.label is not None and found.label.is_file())
    if files is None:
        return {}
    images, label = [_quoted(path) for path in files.images], _quoted(files.label)
    more = f" -o {' '.join(images[1:])}" if len(images) > 1 else ""
    return {
        "ITK-SNAP": f"itksnap -g {images[0]}{more} -s {label}",
        "napari": f"napari {' '.join(images)} {label}",
    }


def _quoted(path: Path | None) -> str:
    return shlex.quote(str(path))
