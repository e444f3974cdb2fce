"""Judging the retrainings: effects, controls, subgroups, and what follows in plain words."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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
from idal_assets.imaging.brain_tumour import BRAIN_TUMOUR
from idal_assets.plots.evidence import control_distribution, forest_plot
from idal_assets.plots.evidence import subgroup_changes as subgroup_figure
from idal_assets.plots.style import png_bytes
from idal_assets.seeds import derived_seed
from idal_assets.steps.cohort import label_millilitres
from idal_assets.steps.matrix import load_matrix, load_ranking
from idal_assets.steps.reductions import chosen_sets, load_evaluations, load_plan
from idal_assets.study.graph import version_in_the_making
from idal_assets.study.study import Study

TABLES = ("effect", "control", "subgroup")
WARNINGS_FILE = "warnings.json"


@dataclass(frozen=True)
class Evidence:
    """What the retrainings prove.

    Attributes:
        effects: One row a chosen set: table of `effects.effects` and its `sentence`.
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


def make_evidence(study: Study, folder: Path) -> Mapping[str, pd.DataFrame]:
    """Judges every chosen set; writes a table each of effects, controls and subgroups, warnings and pictures.

    Returns:
        The rows of the database's tables `effect`, `control` and `subgroup`.
    """
    scalars = replicate_scalars(load_evaluations(study), study.removal_sets)
    plan = load_plan(study.path("removal_plan"))
    dice = mean_dice(scalars).loc[chosen_sets(study)]
    subgroups = _subgroups(study)
    changes = subgroup_changes(dice, subgroups)
    found = Evidence(
        _effects(study, scalars, plan, dice),
        _controls(study, scalars),
        changes,
        _warnings(study, plan, subgroups, changes),
    )
    tables = dict(zip(TABLES, (found.effects, found.controls, found.subgroups), strict=True))
    for name, table in tables.items():
        table.to_parquet(folder / f"{name}.parquet", index=False)
    (folder / WARNINGS_FILE).write_text(json.dumps(found.warnings, indent=1))
    figures = {
        "forest": forest_plot(found.judged, significance(study.profile.evidence.level)),
        "controls": control_distribution(
            found.controls[found.controls["removal_set"].isin(found.judged["removal_set"])], found.judged
        ),
        "subgroups": subgroup_figure(found.subgroups),
    }
    for name, figure in figures.items():
        (folder / f"{name}.png").write_bytes(png_bytes(figure))
    versions = {
        "plan_version": study.version("removal_plan"),
        "evidence_version": version_in_the_making(study, "evidence"),
    }
    return {name: table.assign(**versions) for name, table in tables.items()}


def load_evidence(study: Study) -> Evidence:
    """Reads what `make_evidence` wrote."""
    folder = study.path("evidence")
    effect, control, subgroup = (pd.read_parquet(folder / f"{name}.parquet") for name in TABLES)
    return Evidence(effect, control, subgroup, json.loads((folder / WARNINGS_FILE).read_text()))


def _effects(
    study: Study, scalars: pd.DataFrame, plan: Mapping[str, list[str]], dice: pd.DataFrame
) -> pd.DataFrame:
    settings = study.profile.evidence
    random_controls = {name: _controls_of(study, name, "random") for name in chosen_sets(study)}
    table = effects(
        scalars,
        {name: plan[name] for name in chosen_sets(study)},
        random_controls,
        level=settings.level,
        resamples=settings.resamples,
        seed=derived_seed(study.profile.seed, "evidence"),
    )
    worst_tenth = worst_tenth_changes(dice).set_index("removal_set")["difference"]
    table["worst_tenth_difference"] = table["removal_set"].map(worst_tenth)
    return table.assign(sentence=[sentence(row) for _, row in table.iterrows()])


def _controls_of(study: Study, chosen: str, kind: str) -> list[str]:
    sets = study.removal_sets.values()
    return [one.name for one in sets if one.name == one.base and (one.controls, one.kind) == (chosen, kind)]


def _controls(study: Study, scalars: pd.DataFrame) -> pd.DataFrame:
    dice = dice_by_set(scalars)
    rows = [
        {
            "removal_set": one.controls,
            "control": one.name,
            "kind": one.kind,
            "difference_of_medians": difference_of_medians(dice[one.name], dice[FULL_SET]),
        }
        for one in study.removal_sets.values()
        if one.is_control and one.name == one.base
    ]
    return pd.DataFrame(rows, columns=["removal_set", "control", "kind", "difference_of_medians"])


def _subgroups(study: Study) -> pd.DataFrame:
    """Subgroups of donors and test cases."""
    cohort = study.cohort
    names = cohort.donors + cohort.tests
    facts = [cohort.case(name).facts for name in names]
    clusters = _clusters(study)
    return subgroups_of(
        pd.DataFrame(
            {
                "case_id": names,
                "foreground_ml": [sum(label_millilitres(of_case).values()) for of_case in facts],
                **{
                    label: [of_case.label_voxels.get(str(value), 0) for of_case in facts]
                    for value, label in BRAIN_TUMOUR.labels.items()
                },
                "scanner": [cohort.scanners.get(name) for name in names],
                "cluster": [clusters[name] for name in names],
            }
        ),
        BRAIN_TUMOUR,
    )


def _warnings(
    study: Study, plan: Mapping[str, list[str]], subgroups: pd.DataFrame, changes: pd.DataFrame
) -> list[str]:
    settings = study.profile.evidence
    said = (
        rare_subtype_warning(
            name,
            plan[name],
            study.cohort.donors,
            subgroups,
            changes,
            settings.rare_share,
            significance(settings.level),
        )
        for name in chosen_sets(study)
    )
    return [warning for warning in said if warning]


def _clusters(study: Study) -> pd.Series:
    """Cluster of every case: a donor's own, and for another case the one whose models segment it best."""
    donors = load_ranking(study).set_index("case_id")["cluster"]
    means = load_matrix(study).groupby(donors).mean()
    return pd.concat([means.fillna(-1.0).idxmax(), donors]).groupby(level=0).last()
