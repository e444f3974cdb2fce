"""Donors whose place among the removed is open: trained to the end where all trainings stopped early."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from idal_assets.analysis.settling import chances_of_removal, open_places
from idal_assets.analysis.similarity import deciding_matrix
from idal_assets.seeds import derived_seed, stream
from idal_assets.study.making import Task
from idal_assets.study.selectors import CONTEST_FILE

SETTLED_FILE = "settled_row.parquet"
SETTLED_COLUMNS = ["donor", "receiver", "region", "dice", "tp", "fp", "fn"]
CHANCES_FILE = "chances.parquet"


def hold_contest(task: Task) -> None:
    """Says whose place is open; nobody's where the case models were trained to the end.

    Writes `contest.json`: `contested`, the donors that are trained to the end; and `chances.parquet`, one row a
    donor: `case_id` and, by size of a removal set, the share of draws in which it is among the worst.
    """
    from idal_assets.steps.similarity import load_deciding_cells

    contested: list[str] = []
    chances = pd.DataFrame({"case_id": pd.Series(dtype=str)}).set_index("case_id")
    if task.inputs.settings:
        cohort, settings, sizes = task.cohort, task.setting("early_stop"), task.setting("removal.sizes")
        cells = load_deciding_cells(task.path("dice_matrix"))
        regions = cohort.anatomy.scored(task.setting("similarity.scalar"))
        matrix = deciding_matrix(cells, cohort.donors, cohort.deciding, task.setting("similarity"), regions)
        random = stream(task.setting("seed"), "contest")
        chances = chances_of_removal(matrix[cohort.donors], sizes, settings.resamples, random)
        contested = open_places(chances, settings)
    (task.folder / CONTEST_FILE).write_text(json.dumps({"contested": contested}, indent=1))
    table = chances.rename(columns=str).rename_axis("case_id").reset_index()
    table.to_parquet(task.folder / CHANCES_FILE, index=False)


def load_contest(folder: Path) -> list[str]:
    """Reads whose place is open."""
    return list(json.loads((folder / CONTEST_FILE).read_text())["contested"])


def show_contest(task: Task) -> Mapping[str, Any]:
    """Whose place is open, and how open."""
    chances = pd.read_parquet(task.folder / CHANCES_FILE)
    contested = load_contest(task.folder)
    return {
        "contested": contested,
        **({"chances": chances[chances["case_id"].isin(contested)]} if contested else {}),
    }


def train_to_the_end(task: Task) -> None:
    """Trains the model of a donor whose place is open for its full length, and segments the cases that decide.

    The model is not kept. Writes `settled_row.parquet` with one row a receiver and region: `donor`, `receiver`,
    `region`, `dice`, `tp`, `fp`, `fn`; no row where the place is settled.
    """
    from idal_assets.steps.networks import fine_tune, segment_and_score

    names = task.keys("case_slices")
    tables = [pd.DataFrame(columns=SETTLED_COLUMNS)]
    if task.key in load_contest(task.path("contest")):
        seed = derived_seed(task.setting("seed"), "case_model")
        with tempfile.TemporaryDirectory(dir=task.folder) as place:
            fine_tune(task, task.setting("case_model"), seed, f"train {task.key} to the end", Path(place))
            description = f"segment with {task.key}"
            segmented = segment_and_score(task, Path(place), names, task.cohort.anatomy, description)
            tables += [scores.assign(receiver=name) for name, scores, _ in segmented]
    rows = pd.concat(tables[1:] or tables, ignore_index=True).assign(donor=task.key)
    rows[SETTLED_COLUMNS].to_parquet(task.folder / SETTLED_FILE, index=False)


def load_settled_row(folder: Path) -> pd.DataFrame:
    """Reads the cells of a donor that was trained to the end."""
    return pd.read_parquet(folder / SETTLED_FILE)


def show_settled_row(task: Task) -> Mapping[str, Any]:
    """Mean Dice after the full training, by region."""
    rows = load_settled_row(task.folder)
    means = rows.groupby("region", sort=False)["dice"].mean().reset_index()
    return {"trained_to_the_end": len(rows) > 0, **({"mean_dice": means} if len(rows) else {})}
