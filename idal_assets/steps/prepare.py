"""The part `prepare`: nnU-Net's plans and its preprocessing of the cohort's cases."""

import json
from collections.abc import Mapping
from typing import Any

from idal_assets.imaging.case import Case
from idal_assets.nnunet.geometry import as_case
from idal_assets.nnunet.plans import CONFIGURATION, Plans, fingerprint, make_plans
from idal_assets.nnunet.slices import preprocess
from idal_assets.plots.cases import case_overview
from idal_assets.plots.style import png_bytes
from idal_assets.study.making import Outcome, Task
from idal_assets.study.selectors import CONFIGURATIONS_FILE


def plan_network(task: Task) -> Outcome:
    """Writes fingerprint and plans of the cases that networks learn from.

    The version is that of the 2D plans, a hash of what determines preprocessing and network; those of all
    configurations are in `configurations.json`.
    """
    names, anatomy = task.keys("raw_case"), task.cohort.anatomy
    cases = (task.read_case(task.facts(name)) for name in task.track(names, "fingerprint"))
    found = fingerprint(cases, len(names), anatomy)
    plans = make_plans(found, len(names), task.setting("plans"), anatomy)
    plans.save(task.folder)
    (task.folder / "dataset_fingerprint.json").write_text(json.dumps(found, indent=1))
    versions = {name: plans.of(name).version for name in plans.configurations}
    (task.folder / CONFIGURATIONS_FILE).write_text(json.dumps(versions, indent=1))
    return Outcome(plans.version)


def show_plans(task: Task) -> Mapping[str, Any]:
    """What nnU-Net planned in 2D."""
    plans = Plans.load(task.folder)
    chosen = plans.values["configurations"][CONFIGURATION]
    return {
        "patch_size": " × ".join(map(str, plans.patch_size)),
        "batch_size": plans.configuration.batch_size,
        "spacing_mm": " × ".join(f"{size:g}" for size in plans.configuration.spacing),
        "features_per_stage": str(chosen["architecture"]["arch_kwargs"]["features_per_stage"]),
        "normalization": ", ".join(chosen["normalization_schemes"]),
        "configurations": ", ".join(plans.configurations),
        "cascade": plans.cascade,
        "plans": chosen,
    }


def preprocess_case(task: Task) -> None:
    """Writes the preprocessed slices of a case and a picture of them."""
    write_slices(task, task.read_case(task.facts(task.key)))


def write_slices(task: Task, case: Case) -> None:
    """Preprocesses a case, with or without a label, and draws it."""
    plans = Plans.load(task.path("nnunet_plans"))
    slices = preprocess(case, plans)
    slices.save(task.folder)
    picture = case_overview(as_case(slices, plans), task.legend)
    (task.folder / "slices.png").write_bytes(png_bytes(picture))


def show_slices(task: Task) -> Mapping[str, Any]:
    """Size of the preprocessed case, in voxels and on disk."""
    properties = json.loads((task.folder / "properties.json").read_text())
    shape = properties["shape_after_cropping_and_before_resampling"]
    size = sum(path.stat().st_size for path in task.folder.iterdir())
    return {"slices": shape[0], "cropped_shape": " × ".join(map(str, shape)), "megabytes": round(size / 1e6, 2)}
