"""The effect of each single donor, from the trainings on random halves."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from idal_assets.analysis.case_effects import case_effects
from idal_assets.analysis.reduction import replicate_scalars
from idal_assets.analysis.words import interval, signed
from idal_assets.plots.evidence import case_effects as case_effects_figure
from idal_assets.plots.style import save_chart
from idal_assets.report.html import ReportSection, ReportTable, picture_of
from idal_assets.steps.reduction import load_evaluations
from idal_assets.steps.removal import load_plan
from idal_assets.steps.similarity import load_ranking
from idal_assets.study.making import Outcome, Task

EFFECTS_FILE = "case_effects.parquet"
PICTURE = "case_effects"


def make_case_effects(task: Task) -> Outcome:
    """Estimates what each donor does; writes `case_effects.parquet`, and a picture where there are halves.

    The rows of the table `case_effect`.
    """
    plan = load_plan(task.path("removal_plan"))
    halves = [name for name, one in plan.sets.items() if one.kind == "half"]
    # a pair shares its seed, and with it what the seed does to every network
    halves.sort(key=lambda name: (plan.sets[name].replicate, plan.sets[name].draw or 0))
    evaluation = load_evaluations(task)
    scalars = replicate_scalars(evaluation, plan.sets, task.cohort.patients)
    means = scalars.groupby(["removal_set", "replicate"])["dice"].mean()
    table = case_effects(
        {name: float(means[plan.sets[name].base, plan.sets[name].replicate]) for name in halves},
        {name: plan.removed[name] for name in halves},
        task.cohort.donors,
        task.setting("evidence.level"),
    )
    table.to_parquet(task.folder / EFFECTS_FILE, index=False)
    if halves:
        save_chart(case_effects_figure(table), task.folder / PICTURE)
    plan_version = task.upstream_version("removal_plan")
    return Outcome(tables={"case_effect": table.assign(plan_version=plan_version, effect_version=task.version)})


def load_case_effects(folder: Path) -> pd.DataFrame:
    """Reads what `make_case_effects` wrote."""
    return pd.read_parquet(folder / EFFECTS_FILE)


def show_case_effects(task: Task) -> Mapping[str, Any]:
    """Which donors help, which harm, and the numbers."""
    table = load_case_effects(task.folder)
    return {**_named(table), "effects": table}


def _named(table: pd.DataFrame) -> dict[str, str]:
    by_verdict = {
        verdict: list(table.loc[table["verdict"] == verdict, "case_id"])
        for verdict in ("harms", "helps", "cannot be said")
    }
    return {
        "harm": ", ".join(by_verdict["harms"]) or "none",
        "help": ", ".join(reversed(by_verdict["helps"])) or "none",
        "cannot_be_said": f"{len(by_verdict['cannot be said'])} of {len(table)}",
    }


def case_effect_sections(task: Task) -> list[ReportSection]:
    """Which cases help and which harm; nothing where the profile trains no halves."""
    folder = task.path("case_effect")
    table = load_case_effects(folder)
    if table["effect"].isna().all():
        return []
    named, ranks = _named(table), load_ranking(task.path("case_ranking")).set_index("case_id")["rank"]
    rows = [
        [
            *(row.case_id, int(ranks[row.case_id]), signed(row.effect, 4)),
            *(interval(row.low, row.high, 4), row.verdict),
        ]
        for row in table.itertuples()
    ]
    text = (
        f"Networks were trained on {2 * int(table['pairs'].iloc[0])} random halves of the donors. The effect of a "
        "case is the mean Dice of the test cases with it minus without it. Shown to harm: "
        f"{named['harm']}. Shown to help: {named['help']}. Of {named['cannot_be_said']} nothing can be said."
    )
    effects = ReportTable(
        "What each donor does to the test cases",
        ["case", "rank", "effect", "interval", "verdict"],
        rows,
        "Each interval stands for itself: of many cases without any effect a few leave zero out by chance, so a "
        "verdict goes by a p that is corrected for all of them (Benjamini and Hochberg). Test cases are taken as "
        "they are.",
    )
    picture = picture_of(folder / PICTURE, "Effect of each donor", "With intervals; the most harmful first.")
    return [ReportSection("Which cases help", "case-effects", text, [effects], [picture])]
