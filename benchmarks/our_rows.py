"""One process of this project: the rows of the matrix, each a donor's fine-tuning and its score on all receivers.

Called by `against_nnunet.py` on a study that has all that comes before; prints its measurements as JSON.
"""

import json
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
from measuring import peak_memory_gb

from idal_assets.orchestration.definitions import build_definitions
from idal_assets.orchestration.instance import open_instance
from idal_assets.orchestration.partitions import register_partitions
from idal_assets.orchestration.resources import Progress, StudyResource
from idal_assets.study.study import Study


def main(data_dir: str, profile: str, raw: str) -> None:
    """Makes the rows by materializing the assets, as `idal run` does."""
    # Loading PyTorch counts as the start of the process and not as training.
    import idal_assets.steps.models  # noqa: F401

    resource = StudyResource(data_dir=data_dir, profile=profile, raw=raw)
    job = build_definitions(resource, Progress()).resolve_implicit_global_asset_job_def()
    study = resource.open()
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    selected = [dg.AssetKey("case_model"), dg.AssetKey("dice_row")]
    with open_instance(study.folder) as instance:
        register_partitions(study, instance)
        for donor in study.cohort.donors:
            job.execute_in_process(quiet, instance, partition_key=donor, asset_selection=selected)
    rows = [_row(study, donor) for donor in study.cohort.donors]
    print(json.dumps({"rows": rows, "peak_memory_gb": peak_memory_gb()}))


def _row(study: Study, donor: str) -> dict[str, Any]:
    cells = pd.read_parquet(study.path("dice_row", donor) / "row.parquet")
    whole_tumour = cells[cells["region"] == "WT"]
    return {
        "donor": donor,
        "train_seconds": study.provenance("case_model", donor).seconds,
        "segment_seconds": study.provenance("dice_row", donor).seconds,
        "dice": dict(zip(whole_tumour["receiver"], whole_tumour["dice"], strict=True)),
    }


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], str(Path(sys.argv[3])))
