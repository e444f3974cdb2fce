"""Judging the adaptation: test cases that were played as patients, with the donors of all rivals."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from idal_assets.analysis.adaptation import CHOSEN, decide
from idal_assets.analysis.agreement import BASELINE
from idal_assets.analysis.patient_trials import (
    OFFERED,
    arm_table,
    compare,
    patient_means,
    risk_coverage,
    same_numbers,
    sentence,
)
from idal_assets.analysis.scores import held_by_truth
from idal_assets.analysis.statistics import ONE_SEED
from idal_assets.analysis.subgroups import subgroup_changes, subgroups_of
from idal_assets.analysis.words import interval, signed
from idal_assets.plots.patients import arms_figure, quality_figure
from idal_assets.plots.style import save_chart
from idal_assets.report.html import ReportSection, ReportTable, picture_of
from idal_assets.seeds import stream
from idal_assets.steps.adaptation import (
    ALL,
    ARM_NAMES,
    BEST,
    ORACLE,
    RANDOM,
    Rule,
    arm_scalars,
    load_arms,
    load_choices,
    load_rule,
)
from idal_assets.steps.donor_choice import NOT_PLAYED, classifier_section
from idal_assets.steps.evidence import described_cases
from idal_assets.study.making import Outcome, Task

SUMMARY_FILE = "summary.json"
ARMS_FILE, PATIENTS_FILE, SUBGROUPS_FILE = "adaptation.parquet", "played_patient.parquet", "subgroups.parquet"
ARM_COLUMNS = (
    *("arm", "mode", "count", "patients", "mean_dice", "mean_difference", "low", "high"),
    *("gap_share", "gap_low", "gap_high", "lose_share"),
)
PATIENT_COLUMNS = (
    *("case_id", "donors", "expected_gain", "region", "predicted", "low", "high", "dice", "baseline_dice"),
)


def make_evidence(task: Task) -> Outcome:
    """Compares what is offered with all rivals, and the predicted Dice with the true one.

    Writes `adaptation.parquet` and `played_patient.parquet` (the rows of the tables of these names),
    `subgroups.parquet`, `summary.json` and pictures; tables without rows where the profile leaves patients out.
    """
    names = task.keys("played_case")
    rule = load_rule(task.path("adaptation_rule")) if names else None
    if rule is None:
        arms, patients = pd.DataFrame(columns=list(ARM_COLUMNS)), pd.DataFrame(columns=list(PATIENT_COLUMNS))
        (task.folder / SUMMARY_FILE).write_text("{}")
    else:
        arms, patients = _judge(task, names, rule)
    arms.to_parquet(task.folder / ARMS_FILE, index=False)
    patients.to_parquet(task.folder / PATIENTS_FILE, index=False)
    version = {"adaptation_version": task.version}
    return Outcome(tables={"adaptation": arms.assign(**version), "played_patient": patients.assign(**version)})


def _judge(task: Task, names: list[str], rule: Rule) -> tuple[pd.DataFrame, pd.DataFrame]:
    settings, cohort = task.setting("adaptation"), task.cohort
    level, regions = task.setting("evidence.level"), cohort.anatomy.scored(task.setting("similarity.scalar"))
    played = pd.concat([load_arms(task.path("played_case", name)) for name in names], ignore_index=True)
    scalars = arm_scalars(played, regions)
    choices = {name: load_choices(task.path("played_case", name)) for name in names}
    decided = {
        name: decide(pd.Series(found["advantages"]), rule.gains, settings.gain_level)
        for name, found in choices.items()
    }
    counts = {name: decision.count for name, decision in decided.items()}
    of_patients = {case: cohort.patients[case] for case in names}

    def as_offered(arm: str) -> pd.Series:
        dice = same_numbers(scalars, arm, settings.mode, counts, BASELINE)
        return dice.groupby(pd.Series(of_patients)).mean()

    means = patient_means(scalars, of_patients)
    baseline = means.xs(BASELINE, level="arm").iloc[0]
    oracle = _ceiling(means, settings.mode)
    offered = as_offered(CHOSEN)
    everyone = means.xs((ALL, "ensemble"), level=("arm", "mode")).iloc[0]
    rivals = {BASELINE: baseline, BEST: as_offered(BEST), RANDOM: as_offered(RANDOM), ALL: everyone}
    comparisons = compare(offered, rivals, level)
    own = pd.DataFrame(
        [offered], index=pd.MultiIndex.from_tuples([(OFFERED, settings.mode, 0)], names=means.index.names)
    )
    random = stream(task.setting("seed"), "adaptation")
    table = arm_table(pd.concat([own, means]), baseline, oracle, random, level, task.setting("evidence.resamples"))
    patients = _predicted(played, rule, counts, settings.mode).assign(
        donors=lambda rows: rows["case_id"].map(counts),
        expected_gain=lambda rows: rows["case_id"].map({name: one.expected for name, one in decided.items()}),
    )[list(PATIENT_COLUMNS)]
    changes = _subgroups(task, names, scalars, counts, settings.mode)
    changes.to_parquet(task.folder / SUBGROUPS_FILE, index=False)
    summary = {
        "sentence": sentence(comparisons, sum(count > 0 for count in counts.values()), len(names), level),
        "comparisons": [asdict(one) for one in comparisons],
        "crossed_oracle": all(found["crossed_oracle"] for found in choices.values()),
        "quality": _quality_facts(patients, regions),
        "level": level,
    }
    (task.folder / SUMMARY_FILE).write_text(json.dumps(summary, indent=1))
    save_chart(arms_figure(table, {OFFERED: "as offered"} | ARM_NAMES), task.folder / "arms")
    counted = patients[patients["region"].isin(regions)]
    save_chart(quality_figure(counted, _kept(patients, regions)), task.folder / "quality")
    return table, patients


def _ceiling(means: pd.DataFrame, mode: str) -> pd.Series:
    """The number of truly best donors that is the best on average."""
    oracle = means.xs((ORACLE, mode), level=("arm", "mode"))
    return oracle.loc[oracle.mean(axis=1).idxmax()]


def _predicted(played: pd.DataFrame, rule: Rule, counts: Mapping[str, int], mode: str) -> pd.DataFrame:
    """Predicted and true Dice of the segmentation that each case would get, by region that its label holds."""
    baseline = played[played["arm"] == BASELINE].set_index(["case_id", "region"])["dice"]
    offered = played["arm"].isin([BASELINE, CHOSEN]) & (played["mode"] == mode)
    chosen = played[offered & (played["count"] == played["case_id"].map(counts))]
    tables = []
    for case, rows in chosen.groupby("case_id", sort=False):
        found = rule.quality.predict(rows).reset_index()
        held = rows[held_by_truth(rows)][["region", "dice"]]
        merged = found.merge(held, on="region").assign(case_id=case)
        tables.append(merged.assign(baseline_dice=[baseline[case, region] for region in merged["region"]]))
    return pd.concat(tables, ignore_index=True)


def _quality_facts(patients: pd.DataFrame, regions: tuple[str, ...]) -> dict[str, float]:
    """Error and coverage of the predicted Dice over the regions that the scalar averages."""
    rows = patients[patients["region"].isin(regions)].dropna(subset=["dice"])
    inside = (rows["low"] <= rows["dice"]) & (rows["dice"] <= rows["high"])
    means = _by_case(patients, regions)
    return {
        "mean_absolute_error": float((rows["predicted"] - rows["dice"]).abs().mean()),
        "coverage": float(inside.mean()),
        "rank_correlation": float(means["predicted"].corr(means["dice"], method="spearman")),
    }


def _by_case(patients: pd.DataFrame, regions: tuple[str, ...]) -> pd.DataFrame:
    """Predicted and true Dice of each case, the means of the regions that count."""
    rows = patients[patients["region"].isin(regions)].dropna(subset=["dice"])
    return rows.groupby("case_id")[["predicted", "dice"]].mean()


def _kept(patients: pd.DataFrame, regions: tuple[str, ...]) -> pd.DataFrame:
    means = _by_case(patients, regions)
    return risk_coverage(means["predicted"].to_numpy(), means["dice"].to_numpy())


def _subgroups(
    task: Task, names: list[str], scalars: pd.DataFrame, counts: Mapping[str, int], mode: str
) -> pd.DataFrame:
    """What adapting changes for subgroups of the test cases."""
    cohort = task.cohort
    cases = described_cases([task.facts(name) for name in names], cohort.anatomy, cohort.scanners)
    offered = same_numbers(scalars, CHOSEN, mode, counts, BASELINE)
    baseline = same_numbers(scalars, BASELINE, mode, dict.fromkeys(names, 0), BASELINE)
    difference = pd.DataFrame([offered - baseline])
    settings = task.setting("evidence")
    memberships = subgroups_of(cases, cohort.anatomy)
    return subgroup_changes({OFFERED: difference}, memberships, ONE_SEED, settings.level, settings.fewest_cases)


def load_summary(folder: Path) -> dict[str, Any]:
    """What follows, in words and numbers; empty where the profile leaves patients out."""
    return json.loads((folder / SUMMARY_FILE).read_text())


def show_evidence(task: Task) -> Mapping[str, Any]:
    """What follows, and the numbers."""
    summary = load_summary(task.folder)
    if not summary:
        return {"in_words": [NOT_PLAYED]}
    return {
        "in_words": [summary["sentence"], _quality_sentence(summary)],
        **summary["quality"],
        "comparisons": pd.DataFrame(summary["comparisons"]),
        "arms": pd.read_parquet(task.folder / ARMS_FILE),
    }


def _quality_sentence(summary: Mapping[str, Any]) -> str:
    found = summary["quality"]
    return (
        f"The Dice that is predicted without a label is wrong by {found['mean_absolute_error']:.3f} on average, "
        f"its intervals hold {100 * found['coverage']:.0f} % of the true values, and it orders the patients with "
        f"a rank correlation of {found['rank_correlation']:.2f}."
    )


def adaptation_sections(task: Task) -> list[ReportSection]:
    """Which donors suit, and whether a choice pays; nothing where the profile leaves patients out."""
    folder = task.path("adaptation_evidence")
    summary = load_summary(folder)
    if not summary:
        return []
    return [classifier_section(task), _evidence_section(folder, summary)]


def _evidence_section(folder: Path, summary: Mapping[str, Any]) -> ReportSection:
    comparisons = ReportTable(
        "What is offered, against its rivals",
        ["rival", "difference of the mean Dice", "interval", "p (Holm)"],
        [
            [
                *(ARM_NAMES[one["rival"]], signed(one["mean_difference"], 4)),
                *(interval(one["low"], one["high"], 4), f"{one['p']:.3f}"),
            ]
            for one in summary["comparisons"]
        ],
        "Paired by patient; each rival has the same mode and as many donors, but for the ensemble of all.",
    )
    arms = pd.read_parquet(folder / ARMS_FILE)
    ceiling = (
        ""
        if summary["crossed_oracle"]
        else (
            " The ceiling is chosen by the very networks that it is judged by, so it is flattered; with "
            "case_model.seeds above 1 it is chosen by others."
        )
    )
    every = ReportTable(
        "All choices",
        [
            "donors by",
            "mode",
            "donors",
            "mean Dice",
            "to the baseline",
            "interval",
            "share of the gap",
            "lose > 0.05",
        ],
        [
            [
                *((ARM_NAMES | {OFFERED: "as offered"})[row.arm], row.mode),
                *(row.count_ or "by patient" if row.arm == OFFERED else row.count_, float(row.mean_dice)),
                *(signed(row.mean_difference, 4), interval(row.low, row.high, 4)),
                *(
                    "" if np.isnan(row.gap_share) else f"{100 * row.gap_share:.0f} %",
                    f"{100 * row.lose_share:.0f} %",
                ),
            ]
            for row in arms.rename(columns={"count": "count_"}).itertuples()
        ],
        f"The gap lies between the baseline and the ceiling.{ceiling}",
    )
    changes = pd.read_parquet(folder / SUBGROUPS_FILE)
    pays = ReportTable(
        "Who pays",
        ["subgroup", "cases", "mean change", "interval", "worst change"],
        [
            [
                *(row.subgroup, row.cases, signed(row.mean_difference, 4)),
                "too few" if np.isnan(row.low) else interval(row.low, row.high, 4),
                signed(row.worst_difference, 4),
            ]
            for row in changes.itertuples()
        ],
        "Change of the mean Dice against the baseline.",
    )
    text = f"{summary['sentence']}\n\n{_quality_sentence(summary)}"
    return ReportSection(
        "Does the choice pay",
        "adaptation",
        text,
        [comparisons, every, pays],
        [
            picture_of(folder / "arms", "All choices", "Difference to the baseline, with intervals."),
            picture_of(
                folder / "quality",
                "Predicted without a label",
                "Predicted and true Dice of each region; and the mean Dice of what is kept if the least sure are "
                "left out.",
            ),
        ],
    )
