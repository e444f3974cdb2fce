"""What the answer cost: seconds of every artifact, as their records say."""

from pathlib import Path

import pandas as pd

from idal_assets.plots.cost import cost_by_asset
from idal_assets.plots.style import png_bytes
from idal_assets.store.artifacts import COMPUTE_FILE, Provenance
from idal_assets.study.graph import GRAPH, version_in_the_making
from idal_assets.study.study import Study

COST_FILE = "cost.parquet"


def make_cost(study: Study, folder: Path) -> pd.DataFrame:
    """Lists what every artifact above took; writes `cost.parquet` and a picture.

    Returns:
        The rows of the database's table `cost`, one for each artifact.
    """
    rows = [
        _row(study, study.provenance(name, key))
        for name in GRAPH["cost"].made_from
        for key in GRAPH[name].keys(study)
    ]
    table = pd.DataFrame(rows)
    table.to_parquet(folder / COST_FILE, index=False)
    (folder / "cost.png").write_bytes(png_bytes(cost_by_asset(cost_of_assets(table))))
    return table.assign(cost_version=version_in_the_making(study, "cost"))


def cost_of_assets(table: pd.DataFrame) -> pd.DataFrame:
    """Sums over the partitions, the dearest asset first: `asset`, `partitions` and the three kinds of seconds."""
    seconds = ["seconds", "cpu_seconds", "gpu_seconds"]
    summed = table.groupby("asset", as_index=False)[seconds].sum()
    summed.insert(1, "partitions", summed["asset"].map(table["asset"].value_counts()))
    return summed.sort_values("seconds", ascending=False, ignore_index=True)


def load_cost(study: Study) -> pd.DataFrame:
    """Reads what `make_cost` wrote."""
    return pd.read_parquet(study.path("cost") / COST_FILE)


def _row(study: Study, record: Provenance) -> dict[str, object]:
    computed_on = study.path(record.asset, record.key) / COMPUTE_FILE
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
