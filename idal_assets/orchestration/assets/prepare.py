"""Assets of the group `prepare`: nnU-Net's plans and preprocessing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from idal_assets.orchestration.assembly import study_asset
from idal_assets.progress import Track
from idal_assets.study.study import Study


def _describe_plans(study: Study, key: None, folder: Path) -> Mapping[str, Any]:
    import dagster as dg

    from idal_assets.nnunet.plans import CONFIGURATION, Plans

    plans = Plans.load(folder)
    chosen = plans.values["configurations"][CONFIGURATION]
    return {
        "patch_size": " × ".join(map(str, plans.patch_size)),
        "batch_size": plans.configuration.batch_size,
        "spacing_mm": " × ".join(f"{size:g}" for size in plans.configuration.spacing),
        "features_per_stage": str(chosen["architecture"]["arch_kwargs"]["features_per_stage"]),
        "normalization": ", ".join(chosen["normalization_schemes"]),
        "configurations": ", ".join(plans.configurations),
        "cascade": plans.cascade,
        "plans": dg.MetadataValue.json(chosen),
    }


@study_asset(kinds={"json"}, describe=_describe_plans)
def nnunet_plans(study: Study, key: None, folder: Path, track: Track) -> str:
    """nnU-Net's fingerprint of the cases that networks learn from, and its plans of all configurations.

    The version comes from the fields that determine preprocessing and network in 2D, not from statistics of the
    data. Each 3D configuration has a version of its own, which only its candidates depend on.
    """
    from idal_assets.steps.prepare import plan_network

    return plan_network(study, folder, track)


def _describe_slices(study: Study, case_id: str, folder: Path) -> Mapping[str, Any]:
    import json

    shape = json.loads((folder / "properties.json").read_text())["shape_after_cropping_and_before_resampling"]
    size = sum(path.stat().st_size for path in folder.iterdir())
    return {"slices": shape[0], "cropped_shape": " × ".join(map(str, shape)), "megabytes": round(size / 1e6, 2)}


@study_asset(kinds={"numpy"}, describe=_describe_slices)
def case_slices(study: Study, case_id: str, folder: Path, track: Track) -> None:
    """One case after nnU-Net's own preprocessing: transposed, cropped, normalised, resampled."""
    from idal_assets.steps.prepare import preprocess_case

    preprocess_case(study, case_id, folder)
