"""Judging the retrainings: effects, controls, subgroups, and what follows in plain words."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from idal_assets.analysis.effects import effects, sentence, significance
from idal_assets.analysis.reduction import false_volumes, replicate_scalars
from idal_assets.analysis.removal_sets import FULL_SET, RemovalSet
from idal_assets.analysis.statistics import differences_by_set, mean_dice, mean_difference, seed_spread
from idal_assets.analysis.subgroups import (
    rare_subtype_warning,
    subgroup_changes,
    subgroups_of,
    worst_tenth_changes,
)
from idal_assets.analysis.words import interval, signed
from idal_assets.anatomy import Anatomy
from idal_assets.imaging.inspection import CaseFacts
from idal_assets.plots.evidence import control_distribution, forest_plot
from idal_assets.plots.evidence import subgroup_changes as subgroup_figure
from idal_assets.plots.style import save_chart
from idal_assets.report.html import ReportSection, ReportTable, picture_of
from idal_assets.seeds import derived_seed
from idal_assets.steps.reduction import load_evaluations
from idal_assets.steps.removal import RemovalPlan, load_plan
from idal_assets.steps.similarity import load_matrix, load_ranking
from idal_assets.study.cohort import label_millilitres, voxel_millilitres
from idal_assets.study.making import Outcome, Task
from idal_assets.study.selectors import CHOICE_FILE

TABLES = ("effect", "control", "subgroup", "false_volume")
WARNINGS_FILE = "warnings.json"
SHOWN_COLUMNS = (
    *("removal_set", "removed", "mean_difference", "low", "high", "expected_difference"),
    *("holm_better_p", "holm_worse_p", "gain", "harm"),
)
"""What the UI has room for; the table of the database has all columns."""


@dataclass(frozen=True)
class Evidence:
    """What the retrainings prove.

    Attributes:
        effects: One row a chosen set: table of `effects.effects`, its worst tenth and its `sentence`.
        controls: One row a random removal: `control`, how many donors it has `removed`, `mean_difference`.
        subgroups: One row a chosen set and subgroup: table of `subgroups.subgroup_changes`.
        false_volumes: Table of `reduction.false_volumes`.
        warnings: Sets that take away a rare subtype whose like among the test cases pays for it.
    """

    effects: pd.DataFrame
    controls: pd.DataFrame
    subgroups: pd.DataFrame
    false_volumes: pd.DataFrame
    warnings: list[str]

    @property
    def sentences(self) -> list[str]:
        """What follows, a sentence for each set that removes a donor."""
        return list(self.judged["sentence"])

    @property
    def full_dice(self) -> float:
        """Mean Dice of the test cases with all donors."""
        return float(self.effects.set_index("removal_set").loc[FULL_SET, "mean_dice"])

    def learned(self, least: float) -> bool:
        """Whether the networks have learned to segment.

        Args:
            least: Mean Dice of the test cases, with all donors, from which on they have.
        """
        return self.full_dice >= least

    @property
    def judged(self) -> pd.DataFrame:
        """Effects of the sets that remove a donor; a worst cluster may be empty."""
        return self.effects[self.effects["removed"] > 0]


def make_evidence(task: Task) -> Outcome:
    """Judges every chosen set; writes a table of each kind in `TABLES`, warnings and pictures.

    `choice.json` names the best of the chosen sets and the donors that it removes. The rows of the tables
    `effect`, `control`, `subgroup` and `false_volume`.
    """
    plan = load_plan(task.path("removal_plan"))
    settings = task.setting("evidence")
    evaluation = load_evaluations(task)
    scalars = replicate_scalars(evaluation, plan.sets)
    of_patients = replicate_scalars(evaluation, plan.sets, task.cohort.patients)
    by_set = {
        name: pd.DataFrame(values, columns=sorted(scalars["case_id"].unique()))
        for name, values in differences_by_set(scalars, FULL_SET).items()
    }
    spread = seed_spread(values.to_numpy() for values in by_set.values())
    subgroups = _subgroups(task)
    changes = subgroup_changes(
        {name: by_set[name] for name in plan.chosen if plan.of_base[name]},
        subgroups,
        spread,
        settings.level,
        settings.fewest_cases,
    )
    found = Evidence(
        _effects(task, of_patients, plan),
        _controls(plan, by_set),
        changes,
        false_volumes(
            evaluation, plan.sets, {name: voxel_millilitres(task.facts(name)) for name in task.cohort.tests}
        ),
        _warnings(task, plan, subgroups, changes),
    )
    tables = dict(zip(TABLES, (found.effects, found.controls, found.subgroups, found.false_volumes), strict=True))
    for name, table in tables.items():
        table.to_parquet(task.folder / f"{name}.parquet", index=False)
    (task.folder / WARNINGS_FILE).write_text(json.dumps(found.warnings, indent=1))
    best = best_set(found.effects, plan.sets)
    choice = {"removal_set": best, "removed": list(plan.of_base[best]) if best else []}
    (task.folder / CHOICE_FILE).write_text(json.dumps(choice, indent=1))
    figures = {
        "forest": forest_plot(found.judged, significance(settings.level)),
        "controls": control_distribution(found.controls, found.judged),
        "subgroups": subgroup_figure(found.subgroups),
    }
    for name, figure in figures.items():
        save_chart(figure, task.folder / f"{name}")
    versions = {"plan_version": task.upstream_version("removal_plan"), "evidence_version": task.version}
    return Outcome(tables={name: table.assign(**versions) for name, table in tables.items()})


def best_set(effects: pd.DataFrame, sets: Mapping[str, RemovalSet]) -> str | None:
    """The set that is worth a confirmation: of worst sets and worst cluster the furthest above random removal.

    Args:
        effects: Table of `effects.effects`.
        sets: The trainings on removal sets, by name.

    Returns:
        Its name; None where none of them removes a donor.
    """
    kinds = {one.base: one.kind for one in sets.values()}
    removing = effects[(effects["removed"] > 0) & effects["removal_set"].map(kinds).isin(["worst", "cluster"])]
    if removing.empty:
        return None
    above = removing["mean_difference"] - removing["expected_difference"].fillna(0)
    return str(removing.loc[above.fillna(-1).idxmax(), "removal_set"])


def load_evidence(folder: Path) -> Evidence:
    """Reads what `make_evidence` wrote."""
    effect, control, subgroup, false_volume = (pd.read_parquet(folder / f"{name}.parquet") for name in TABLES)
    return Evidence(effect, control, subgroup, false_volume, json.loads((folder / WARNINGS_FILE).read_text()))


def verdict(found: Evidence, learned_dice: float) -> str:
    """The answer in one sentence, and no more than is shown.

    Args:
        found: What the retrainings prove.
        learned_dice: Mean Dice below which nothing was learned.
    """
    judged = found.judged
    gains, harms = (list(judged.loc[judged[claim], "removal_set"]) for claim in ("gain", "harm"))
    if not found.learned(learned_dice):
        return f"Nothing follows: the networks have not learned to segment (mean Dice {found.full_dice:.2f})."
    if gains:
        return f"Removing donors helps: {', '.join(gains)}."
    if harms:
        return f"No removal is shown to help, and {', '.join(harms)} {'does' if len(harms) == 1 else 'do'} harm."
    return "No removal is shown to help."


def show_evidence(task: Task) -> Mapping[str, Any]:
    """What follows in words, and the tables behind it."""
    found = load_evidence(task.folder)
    return {
        "in_words": found.sentences,
        "warnings": found.warnings,
        "effect": found.effects[list(SHOWN_COLUMNS)],
        "control": found.controls,
        "subgroup": found.subgroups,
        "false_volume": found.false_volumes,
    }


def _effects(task: Task, scalars: pd.DataFrame, plan: RemovalPlan) -> pd.DataFrame:
    settings = task.setting("evidence")
    seed = derived_seed(task.setting("seed"), "evidence")
    table = effects(
        scalars,
        {name: plan.of_base[name] for name in plan.chosen},
        plan.random,
        good=[one.base for one in plan.sets.values() if one.kind == "best"],
        level=settings.level,
        resamples=settings.resamples,
        seed=seed,
    )
    chosen = scalars[scalars["removal_set"].isin(plan.chosen)]
    random = np.random.default_rng(seed)
    tenth = worst_tenth_changes(
        mean_dice(chosen), random, settings.level, settings.resamples, settings.fewest_cases
    ).set_index("removal_set")
    for column, name in (
        ("worst_tenth_cases", "cases"),
        ("worst_tenth_difference", "difference"),
        ("worst_tenth_difference_low", "low"),
        ("worst_tenth_difference_high", "high"),
    ):
        table[column] = table["removal_set"].map(tenth[name])
    table["worst_tenth_cases"] = table["worst_tenth_cases"].astype("Int64")
    return table.assign(sentence=[sentence(row) for _, row in table.iterrows()])


def _controls(plan: RemovalPlan, by_set: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    rows = [
        {"control": name, "removed": len(removed), "mean_difference": mean_difference(by_set[name].to_numpy())}
        for name, removed in plan.random.items()
    ]
    return pd.DataFrame(rows, columns=["control", "removed", "mean_difference"])


def _subgroups(task: Task) -> pd.DataFrame:
    """Subgroups of donors and test cases."""
    cohort = task.cohort
    names = cohort.donors + cohort.tests
    facts = [task.facts(name) for name in names]
    clusters = _clusters(task)
    cases = described_cases(facts, cohort.anatomy, cohort.scanners)
    return subgroups_of(cases.assign(cluster=[clusters[name] for name in names]), cohort.anatomy)


def described_cases(facts: Sequence[CaseFacts], anatomy: Anatomy, scanners: Mapping[str, str]) -> pd.DataFrame:
    """What divides cases into subgroups: the table that `subgroups_of` takes, without clusters."""
    return pd.DataFrame(
        {
            "case_id": [of_case.case_id for of_case in facts],
            "foreground_ml": [sum(label_millilitres(of_case).values()) for of_case in facts],
            "scanner": [scanners.get(of_case.case_id) for of_case in facts],
            **{
                label: [of_case.label_voxels.get(str(value), 0) for of_case in facts]
                for value, label in anatomy.labels.items()
            },
        }
    )


def _warnings(task: Task, plan: RemovalPlan, subgroups: pd.DataFrame, changes: pd.DataFrame) -> list[str]:
    settings = task.setting("evidence")
    said = (
        rare_subtype_warning(
            name,
            plan.of_base[name],
            task.cohort.donors,
            subgroups,
            changes,
            settings.rare_share,
            significance(settings.level),
        )
        for name in plan.chosen
    )
    return [warning for warning in said if warning]


def _clusters(task: Task) -> pd.Series:
    """Cluster of every case: a donor's own, and for another case the one whose models segment it best."""
    donors = load_ranking(task.path("case_ranking")).set_index("case_id")["cluster"]
    means = load_matrix(task.path("dice_matrix")).groupby(donors).mean()
    return pd.concat([means.fillna(-1.0).idxmax(), donors]).groupby(level=0).last()


def evidence_section(task: Task, found: Evidence) -> ReportSection:
    """What the retrainings prove."""
    folder = task.path("evidence")
    effects = ReportTable(
        "Change of the mean Dice, and what it is worth",
        [
            *("removal set", "removed", "seeds", "change", "interval", "at random", "random removals"),
            *("p better", "p worse", "p (seeds)", "worst tenth"),
        ],
        [
            [
                *(row.removal_set, row.removed, row.replicates, signed(row.mean_difference)),
                *(interval(row.low, row.high), _at_random(row.expected_difference), row.controls),
                *(row.holm_better_p, row.holm_worse_p, row.seed_p, _worst_tenth(row)),
            ]
            for row in found.judged.itertuples()
        ],
        "Change: mean difference to the full set over the test cases, networks of the same seed. The interval "
        "holds the spread of the test cases and, with two seeds or more, that of the seeds. At random: what "
        "removing as many at random changes. p better, p worse: share of the random removals of about this size "
        "that do as well or as badly, corrected for the number of sets (Holm). p (seeds): how likely the spread "
        "between seeds alone would make such a gain. Worst tenth: change of the mean of the worst segmented tenth "
        "of the test cases.",
    )
    volumes = ReportTable(
        "Segmented where it is not",
        ["removal set", "region", "test cases without it", "of them segmented", "ml in one of them"],
        [
            [row.removal_set, row.region, row.cases, float(row.segmented), float(row.millilitres)]
            for row in found.false_volumes.itertuples()
        ],
        "A region that the label of a test case lacks is in no Dice here; this is what networks segment of it.",
    )
    sentences = [f"{said[0].upper()}{said[1:]}." for said in found.sentences]
    warnings = [f"Warning: {line}." for said in found.warnings for line in said.splitlines()]
    return ReportSection(
        "Evidence",
        "evidence",
        "\n\n".join([*sentences, *warnings]),
        [effects, *([volumes] if len(found.false_volumes) else [])],
        [
            picture_of(folder / "forest", "Change of the mean Dice", "With intervals; zero is all donors."),
            picture_of(
                folder / "controls",
                "Against removals at random",
                "Each dot a random removal of about as many donors.",
            ),
            picture_of(folder / "subgroups", "Who pays", "Mean change in each subgroup of the test cases."),
        ],
    )


def _worst_tenth(row: Any) -> str:
    if pd.isna(row.worst_tenth_difference):
        return "not defined"
    few = pd.isna(row.worst_tenth_difference_low)
    sure = "too few" if few else interval(row.worst_tenth_difference_low, row.worst_tenth_difference_high)
    return f"{signed(row.worst_tenth_difference)} ({row.worst_tenth_cases} cases, {sure})"


def _at_random(change: float) -> str:
    return "none to compare" if pd.isna(change) else signed(change)
