"""This project's side: the rows of the matrix, each a donor's fine-tuning and its score on all receivers.

Called by `against_nnunet.py` on a study that has all that comes before; prints its measurements as JSON.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.progress import Progress as Bars

from idal_assets.orchestration.instance import open_instance
from idal_assets.orchestration.partitions import register_partitions
from idal_assets.orchestration.runner import Runner
from idal_assets.study.study import Study


def main(data_dir: str, profile: str, raw: str, workers: str) -> None:
    """Makes the rows as `idal run --workers WORKERS` does."""
    # Loading PyTorch counts as the start of the process and not as training.
    import idal_assets.steps.networks  # noqa: F401

    study = Study.open(data_dir, profile, Path(raw))
    if (count := int(workers)) > 1:
        study = study.with_settings({"cluster": {"engine": "local", "workers": count}})
        study.remember()
    with open_instance(study.folder) as instance, Bars(console=Console(quiet=True)) as bars:
        register_partitions(study, instance)
        Runner(study, instance, bars).run({"case_model", "dice_row"})
    rows = [_row(study, donor) for donor in study.cohort.donors]
    print(json.dumps({"rows": rows}))


def _row(study: Study, donor: str) -> dict[str, Any]:
    cells = pd.read_parquet(study.path("dice_row", donor) / "row.parquet")
    first = cells[cells["region"] == study.cohort.anatomy.composites[0]]
    return {
        "donor": donor,
        "train_seconds": study.provenance("case_model", donor).seconds,
        "segment_seconds": study.provenance("dice_row", donor).seconds,
        "dice": dict(zip(first["receiver"], first["dice"], strict=True)),
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
