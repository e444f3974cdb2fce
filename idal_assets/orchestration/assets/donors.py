"""Assets of the group `donors`: one model for each donor."""

from pathlib import Path

from idal_assets.orchestration.assembly import study_asset
from idal_assets.orchestration.assets.baseline import describe_training
from idal_assets.orchestration.pools import ACCELERATOR
from idal_assets.progress import Track
from idal_assets.study import Study


@study_asset(kinds={"numpy"})
def augmented_case(study: Study, donor: str, folder: Path, track: Track) -> None:
    """Variants of one donor: mirrored and mildly deformed, as the original experiment made five of each case."""
    from idal_assets.steps.models import make_donor_variants

    make_donor_variants(study, donor, folder)


@study_asset(kinds={"pytorch"}, describe=describe_training, pool=ACCELERATOR)
def case_model(study: Study, donor: str, folder: Path, track: Track) -> None:
    """The baseline fine-tuned on one donor alone, from all baseline weights, segmentation heads too."""
    from idal_assets.steps.models import train_case_model

    train_case_model(study, donor, folder, track)
