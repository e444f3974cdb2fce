"""What the answer cost: seconds of every artifact, as their records say."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from idal_assets.analysis.words import human_time
from idal_assets.plots.cost import cost_by_asset
from idal_assets.plots.style import save_chart
from idal_assets.report.html import ReportSection, picture_of
from idal_assets.steps.convergence import load_convergence
from idal_assets.store.artifacts import COMPUTE_FILE, Provenance
from idal_assets.study.making import Outcome, Task

COST_FILE = "cost.parquet"


def make_cost(task: Task) -> Outcome:
    """Lists what every artifact above took; writes `cost.parquet` and a picture.

    The rows of the table `cost`, one for each artifact.
    """
    places = [(asset, key or None) for asset in task.inputs.made_from for key in (task.keys(asset) or [""])]
    table = pd.DataFrame([_row(task.upstream(*place), task.path(*place)) for place in places])
    table.to_parquet(task.folder / COST_FILE, index=False)
    save_chart(cost_by_asset(cost_of_assets(table)), task.folder / "cost")
    return Outcome(tables={"cost": table.assign(cost_version=task.version)})


def cost_of_assets(table: pd.DataFrame) -> pd.DataFrame:
    """Sums over the partitions, the dearest asset first: `asset`, `partitions` and the three kinds of seconds."""
    seconds = ["seconds", "cpu_seconds", "gpu_seconds"]
    summed = table.groupby("asset", as_index=False)[seconds].sum()
    summed.insert(1, "partitions", summed["asset"].map(table["asset"].value_counts()))
    return summed.sort_values("seconds", ascending=False, ignore_index=True)


def load_cost(folder: Path) -> pd.DataFrame:
    """Reads what `make_cost` wrote."""
    return pd.read_parquet(folder / COST_FILE)


def show_cost(task: Task) -> Mapping[str, Any]:
    """Sums over all artifacts and by asset."""
    costs = load_cost(task.folder)
    sums = {f"total_{name}": float(costs[name].sum()) for name in ("seconds", "cpu_seconds", "gpu_seconds")}
    return {**sums, "by_asset": cost_of_assets(costs)}


def _row(record: Provenance, folder: Path) -> dict[str, object]:
    computed_on = folder / COMPUTE_FILE
    device = computed_on.read_text() if computed_on.is_file() else "cpu"
    return {
        "asset": record.asset,
        "key": record.key,
        "seconds": record.seconds,
        "cpu_seconds": record.cpu_seconds,
        "gpu_seconds": 0.0 if device.startswith("cpu") else record.seconds,
        "device": device,
        "artifact_version": record.version,
        "written": record.written,
    }


def cost_section(task: Task) -> ReportSection:
    """What the answer cost, and what shorter trainings would have told."""
    costs = load_cost(task.path("cost"))
    devices = _devices(costs["device"])
    return ReportSection(
        "Cost",
        "cost",
        f"The answer took {human_time(costs['seconds'].sum())} on {devices}, and "
        f"{human_time(costs['cpu_seconds'].sum())} of processor time. "
        f"{_convergence_sentence(load_convergence(task.path('convergence')))}",
        [],
        [
            picture_of(task.path("cost") / "cost", "Cost of the assets", "Elapsed time, summed over partitions."),
            picture_of(
                task.path("convergence") / "convergence",
                "Would shorter trainings have told the same?",
                "Rank correlation of the donors' scores after a part of each case model's training with the final "
                "ones, and the time of trainings and matrix until then.",
            ),
        ],
    )


def _devices(said: pd.Series) -> str:
    """What networks ran on; where none ran, nobody noted more than the processor."""
    networks = sorted(set(said) - {"cpu"})
    return " and ".join(networks) or "cpu"


def _convergence_sentence(table: pd.DataFrame) -> str:
    early = table.iloc[:-1]
    if early.empty:
        return ""
    told = ", ".join(f"{row.correlation:.2f} after {row.share:.0%}" for row in early.itertuples())
    return f"Rank correlation with the final ranking: {told} of the case models' iterations."
