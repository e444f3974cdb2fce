"""Judging the retrainings: effects, controls, subgroups, and what follows in plain words."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from idal_assets.analysis.effects import effects, sentence, significance
from idal_assets.analysis.reduction import replicate_scalars
from idal_assets.analysis.removal_sets import FULL_SET
from idal_assets.analysis.statistics import dice_by_set, difference_of_medians, mean_dice
from idal_assets.analysis.subgroups import (
    rare_subtype_warning,
    subgroup_changes,
    subgroups_of,
    worst_tenth_changes,
)
from idal_assets.plots.evidence import control_distribution, forest_plot
from idal_assets.plots.evidence import subgroup_changes as subgroup_figure
from idal_assets.plots.style import png_bytes
from idal_assets.report.html import ReportSection, ReportTable, picture_of
from idal_assets.seeds import derived_seed
from idal_assets.steps.removal import RemovalPlan, load_plan
from idal_assets.steps.retraining import load_evaluations
from idal_assets.steps.similarity import load_matrix, load_ranking
from idal_assets.study.cohort import label_millilitres
from idal_assets.study.making import Outcome, Task

TABLES = ("effect", "control", "subgroup")
WARNINGS_FILE = "warnings.json"
SHOWN_COLUMNS = (
    *("removal_set", "removed", "difference_of_medians", "low", "high"),
    *("holm_p", "control_p", "gain", "harm"),
)
"""What the UI has room for; the table of the database has all columns."""


@dataclass(frozen=True)
class Evidence:
    """What the retrainings prove.

    Attributes:
        effects: One row a chosen set: table of `statistics.effects` and its `sentence`.
        controls: One row a control: `removal_set` that it controls, `control`, `kind`, `difference_of_medians`.
        subgroups: One row a chosen set and subgroup: table of `subgroups.subgroup_changes`.
        warnings: Sets that take away a rare subtype whose like among the test cases pays for it.
    """

    effects: pd.DataFrame
    controls: pd.DataFrame
    subgroups: pd.DataFrame
    warnings: list[str]

    @property
    def sentences(self) -> list[str]:
        """What follows, a sentence for each set that removes a donor."""
        return list(self.judged["sentence"])

    @property
    def judged(self) -> pd.DataFrame:
        """Effects of the sets that remove a donor; a worst cluster may be empty."""
        return self.effects[self.effects["removed"] > 0]


def make_evidence(task: Task) -> Outcome:
    """Judges every chosen set; writes a table each of effects, controls and subgroups, warnings and pictures.

    The rows of the tables `effect`, `control` and `subgroup`.
    """
    plan = load_plan(task.path("removal_plan"))
    scalars = replicate_scalars(load_evaluations(task), plan.sets)
    dice = mean_dice(scalars).loc[plan.chosen]
    subgroups = _subgroups(task)
    changes = subgroup_changes(dice, subgroups)
    found = Evidence(
        _effects(task, scalars, plan, dice),
        _controls(plan, scalars),
        changes,
        _warnings(task, plan, subgroups, changes),
    )
    tables = dict(zip(TABLES, (found.effects, found.controls, found.subgroups), strict=True))
    for name, table in tables.items():
        table.to_parquet(task.folder / f"{name}.parquet", index=False)
    (task.folder / WARNINGS_FILE).write_text(json.dumps(found.warnings, indent=1))
    figures = {
        "forest": forest_plot(found.judged, significance(task.setting("evidence.level"))),
        "controls": control_distribution(
            found.controls[found.controls["removal_set"].isin(found.judged["removal_set"])], found.judged
        ),
        "subgroups": subgroup_figure(found.subgroups),
    }
    for name, figure in figures.items():
        (task.folder / f"{name}.png").write_bytes(png_bytes(figure))
    versions = {"plan_version": task.upstream_version("removal_plan"), "evidence_version": task.version}
    return Outcome(tables={name: table.assign(**versions) for name, table in tables.items()})


def load_evidence(folder: Path) -> Evidence:
    """Reads what `make_evidence` wrote."""
    effect, control, subgroup = (pd.read_parquet(folder / f"{name}.parquet") for name in TABLES)
    return Evidence(effect, control, subgroup, json.loads((folder / WARNINGS_FILE).read_text()))


def show_evidence(task: Task) -> Mapping[str, Any]:
    """What follows in words, and the tables behind it."""
    found = load_evidence(task.folder)
    return {
        "in_words": found.sentences,
        "warnings": found.warnings,
        "effect": found.effects[list(SHOWN_COLUMNS)],
        "control": found.controls,
        "subgroup": found.subgroups,
    }


def _effects(task: Task, scalars: pd.DataFrame, plan: RemovalPlan, dice: pd.DataFrame) -> pd.DataFrame:
    settings = task.setting("evidence")
    table = effects(
        scalars,
        {name: plan.removed[name] for name in plan.chosen},
        {name: plan.controls_of(name, "random") for name in plan.chosen},
        level=settings.level,
        resamples=settings.resamples,
        seed=derived_seed(task.setting("seed"), "evidence"),
    )
    worst_tenth = worst_tenth_changes(dice).set_index("removal_set")["difference"]
    table["worst_tenth_difference"] = table["removal_set"].map(worst_tenth)
    return table.assign(sentence=[sentence(row) for _, row in table.iterrows()])


def _controls(plan: RemovalPlan, scalars: pd.DataFrame) -> pd.DataFrame:
    dice = dice_by_set(scalars)
    rows = [
        {
            "removal_set": one.controls,
            "control": one.name,
            "kind": one.kind,
            "difference_of_medians": difference_of_medians(dice[one.name], dice[FULL_SET]),
        }
        for one in plan.sets.values()
        if one.is_control and one.name == one.base
    ]
    return pd.DataFrame(rows, columns=["removal_set", "control", "kind", "difference_of_medians"])


def _subgroups(task: Task) -> pd.DataFrame:
    """Subgroups of donors and test cases."""
    cohort = task.cohort
    names = cohort.donors + cohort.tests
    facts = [task.facts(name) for name in names]
    clusters = _clusters(task)
    cases = pd.DataFrame(
        {
            "case_id": names,
            "foreground_ml": [sum(label_millilitres(of_case).values()) for of_case in facts],
            "scanner": [cohort.scanners.get(name) for name in names],
            "cluster": [clusters[name] for name in names],
            **{
                label: [of_case.label_voxels.get(str(value), 0) for of_case in facts]
                for value, label in cohort.anatomy.labels.items()
            },
        }
    )
    return subgroups_of(cases, cohort.anatomy)


def _warnings(task: Task, plan: RemovalPlan, subgroups: pd.DataFrame, changes: pd.DataFrame) -> list[str]:
    settings = task.setting("evidence")
    said = (
        rare_subtype_warning(
            name,
            plan.removed[name],
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
            picture_of(
                folder / "forest.png", "Change of the median Dice", "With bootstrap intervals; zero is all donors."
            ),
            picture_of(
                folder / "controls.png", "Against removals at random", "Each dot a removal of as many donors."
            ),
            picture_of(folder / "subgroups.png", "Who pays", "Median change in each subgroup of the test cases."),
        ],
    )
