"""nnU-Net's plans and preprocessing of the cohort's cases."""

import json
from pathlib import Path

from idal_assets.imaging.brain_tumour import BRAIN_TUMOUR
from idal_assets.nnunet.geometry import as_case
from idal_assets.nnunet.plans import Plans, fingerprint, make_plans
from idal_assets.nnunet.slices import preprocess
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
    found = fingerprint((study.read_case(name) for name in track(names, "fingerprint")), len(names), BRAIN_TUMOUR)
    plans = make_plans(found, len(names), study.profile.plans, BRAIN_TUMOUR)
    plans.save(folder)
    (folder / "dataset_fingerprint.json").write_text(json.dumps(found, indent=1))
    versions = {name: plans.of(name).version for name in plans.configurations}
    (folder / CONFIGURATIONS_FILE).write_text(json.dumps(versions, indent=1))
    return plans.version


def preprocess_case(study: Study, case_id: str, folder: Path) -> None:
    """Writes the preprocessed slices of a case and a picture of them."""
    plans = Plans.load(study.path("nnunet_plans"))
    slices = preprocess(study.read_case(case_id), plans)
    slices.save(folder)
    (folder / "slices.png").write_bytes(png_bytes(case_overview(as_case(slices, plans), BRAIN_TUMOUR)))
