"""The best of the chosen sets, trained once more from scratch beside the full set, with other seeds."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from idal_assets.analysis.reduction import replicate_scalars
from idal_assets.analysis.removal_sets import CHOSEN_SET, FULL_SET, confirmations
from idal_assets.analysis.statistics import (
    dice_by_set,
    differences_by_set,
    mean_difference,
    mean_interval,
    seed_spread,
)
from idal_assets.analysis.words import interval, signed
from idal_assets.report.html import ReportSection
from idal_assets.seeds import derived_seed
from idal_assets.steps.reduction import load_evaluations
from idal_assets.steps.retraining import evaluate, train_on_kept
from idal_assets.study.making import Outcome, Task
from idal_assets.study.selectors import CHOICE_FILE

CONFIRMATION_FILE = "confirmation.parquet"
COLUMNS = (
    *("removal_set", "removed", "replicates", "cases", "mean_dice", "mean_difference", "low", "high"),
    "sentence",
)


def train_confirming_model(task: Task) -> None:
    """Trains from scratch on all donors or on those that the best set keeps, with seeds of its own.

    Of the best set `choice.json` goes with the network, which says what it did without.
    """
    if task.key.startswith(CHOSEN_SET):
        shutil.copyfile(task.path("evidence") / CHOICE_FILE, task.folder / CHOICE_FILE)
    seed = derived_seed(task.setting("seed"), "confirmed_model", task.replicate)
    train_on_kept(task, task.setting("confirmation.training"), seed, pool=task.cohort.donors)


def evaluate_confirming_model(task: Task) -> None:
    """Segments the test cases with a network that confirms."""
    evaluate(task, "confirmed_model")


def confirm(task: Task) -> Outcome:
    """Compares the two; writes `confirmation.parquet`, without a row where nothing was confirmed.

    The rows of the table `confirmation`.
    """
    choice = json.loads((task.path("evidence") / CHOICE_FILE).read_text())
    names = task.keys("confirmed_evaluation")
    rows = [_confirmed(task, choice)] if names and choice["removed"] else []
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    table.to_parquet(task.folder / CONFIRMATION_FILE, index=False)
    return Outcome(tables={"confirmation": table.assign(confirmation_version=task.version)})


def _confirmed(task: Task, choice: Mapping[str, Any]) -> dict[str, Any]:
    evaluation = load_evaluations(task, "confirmed_evaluation")
    sets = confirmations(len(task.keys("confirmed_evaluation")) // 2)
    scalars = replicate_scalars(evaluation, sets, task.cohort.patients)
    difference = differences_by_set(scalars, FULL_SET)[CHOSEN_SET]
    level = task.setting("evidence.level")
    low, high = mean_interval(difference, seed_spread([difference]), level)
    found = {
        "removal_set": choice["removal_set"],
        "removed": choice["removed"],
        "replicates": len(difference),
        "cases": difference.shape[1],
        "mean_dice": float(dice_by_set(scalars)[CHOSEN_SET].mean()),
        "mean_difference": mean_difference(difference),
        "low": low,
        "high": high,
    }
    return {**found, "sentence": sentence(found, level)}


def sentence(found: Mapping[str, Any], level: float) -> str:
    """Says what the trainings from scratch say of the best set."""
    once = found["replicates"] == 1
    times = "once" if once else f"{found['replicates']} times"
    without_seed = ", without the spread of the seed" if once else ""
    said = (
        f"trained from scratch {times}, removing {len(found['removed'])} ({found['removal_set']}) changes the "
        f"mean Dice of {found['cases']} test patients by {signed(found['mean_difference'])} ({100 * level:g} % "
        f"interval {interval(found['low'], found['high'])}{without_seed})"
    )
    if not once and found["low"] > 0:
        return f"{said}: the gain is there from scratch too"
    if not once and found["high"] < 0:
        return f"{said}: from scratch it harms"
    return f"{said}: so few trainings from scratch neither confirm nor refute it"


def load_confirmation(folder: Path) -> pd.DataFrame:
    """Reads what `confirm` wrote."""
    return pd.read_parquet(folder / CONFIRMATION_FILE)


def show_confirmation(task: Task) -> Mapping[str, Any]:
    """What it says in words, and the numbers."""
    table = load_confirmation(task.folder)
    return {"in_words": list(table["sentence"]), "confirmation": table.drop(columns=["sentence", "removed"])}


def confirmation_sections(task: Task) -> list[ReportSection]:
    """What trainings from scratch say; nothing where the profile asks for none."""
    said = list(load_confirmation(task.path("confirmation"))["sentence"])
    if not said:
        return []
    return [ReportSection("From scratch", "confirmation", f"{said[0][0].upper()}{said[0][1:]}.", [], [])]
