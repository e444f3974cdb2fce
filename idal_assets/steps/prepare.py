"""nnU-Net's plans and preprocessing of the cohort's cases."""

import json
from pathlib import Path

import numpy as np

from idal_assets.imaging.case import Case
from idal_assets.nnunet.plans import Plans, fingerprint, make_plans
from idal_assets.nnunet.slices import CaseSlices, preprocess
from idal_assets.plots.cases import case_overview
from idal_assets.plots.style import png_bytes
from idal_assets.progress import Track
from idal_assets.study.graph import CONFIGURATIONS_FILE
from idal_assets.study.study import Study


def plan_network(study: Study, folder: Path, track: Track) -> str:
    """Writes fingerprint and plans of the cases that networks learn from.

    Returns:
        Version of the 2D plans: a hash of what determines preprocessing and network. The versions of all
        configurations are in `configurations.json`.
    """
    cohort = study.cohort
    names = [*cohort.donors, *cohort.pretraining]
    found = fingerprint((study.read_case(name) for name in track(names, "fingerprint")), len(names))
    plans = make_plans(found, len(names), study.profile.plans)
    plans.save(folder)
    (folder / "dataset_fingerprint.json").write_text(json.dumps(found, indent=1))
    versions = {name: plans.of(name).version for name in plans.configurations}
    (folder / CONFIGURATIONS_FILE).write_text(json.dumps(versions, indent=1))
    return plans.version


def preprocess_case(study: Study, case_id: str, folder: Path) -> None:
    """Writes the preprocessed slices of a case and a picture of them."""
    slices = preprocess(study.read_case(case_id), Plans.load(study.path("nnunet_plans")))
    slices.save(folder)
    (folder / "slices.png").write_bytes(png_bytes(case_overview(as_case(study, case_id, slices))))


def as_case(study: Study, case_id: str, slices: CaseSlices) -> Case:
    """Turns preprocessed slices, or those of a variant, into a case that the pictures can draw: (x, y, z) again.

    Args:
        study: The study.
        case_id: The case that the slices come from.
        slices: Slices as nnU-Net keeps them, (z, y, x).
    """
    facts = study.cohort.case(case_id).facts
    return Case(
        case_id=slices.case_id,
        image=slices.image.transpose(0, 3, 2, 1),
        label=slices.label.clip(0).transpose(2, 1, 0).astype(np.uint8),
        affine=np.asarray(facts.affine),
        spacing=facts.spacing,
    )
