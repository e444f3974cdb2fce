"""Assets of the group `donors`: one model for each donor."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from idal_assets.orchestration.assembly import study_asset
from idal_assets.orchestration.assets.baseline import describe_training
from idal_assets.orchestration.pools import ACCELERATOR
from idal_assets.progress import Track
from idal_assets.study.study import Study


@study_asset(kinds={"numpy"})
def augmented_case(study: Study, donor: str, folder: Path, track: Track) -> None:
    """Variants of one donor: mirrored and mildly deformed, as the original experiment made five of each case."""
    from idal_assets.steps.models import make_donor_variants

    make_donor_variants(study, donor, folder)


def _describe_model(study: Study, donor: str, folder: Path) -> Mapping[str, Any]:
    record = study.provenance("case_model", donor)
    return {
        "model_version": record.version,
        "baseline_version": record.inputs.made_from["baseline_weights"],
        "variants_version": record.inputs.made_from["augmented_case"],
        **describe_training(study, donor, folder),
    }


@study_asset(kinds={"pytorch"}, describe=_describe_model, pool=ACCELERATOR)
def case_model(study: Study, donor: str, folder: Path, track: Track) -> None:
    """The baseline fine-tuned on one donor alone, from all baseline weights, segmentation heads too."""
    from idal_assets.steps.models import train_case_model

    train_case_model(study, donor, folder, track)
