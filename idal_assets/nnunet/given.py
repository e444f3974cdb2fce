"""A network that somebody has trained with nnU-Net v2 already, and whether it can be the baseline."""

from pathlib import Path
from typing import Any

import torch
from numpy import dtype, dtypes, float32, float64
from numpy._core.multiarray import scalar

from idal_assets.nnunet.given_folder import GivenNetworkError, given_checkpoint
from idal_assets.nnunet.network import build_network
from idal_assets.nnunet.plans import CONFIGURATION, Plans
from idal_assets.nnunet.training import Weights

NUMBERS = (scalar, dtype, float32, float64, dtypes.Float32DType, dtypes.Float64DType)
"""What nnU-Net's trainer keeps beside tensors and plain values; nothing else is unpickled."""

COMPARED = (
    "normalization_schemes",
    "use_mask_for_norm",
    "spacing",
    "architecture",
)
"""What of a configuration decides how an image is seen by the network, and what the network is."""


def given_weights(folder: Path, plans: Plans) -> Weights:
    """Reads the weights of a network that nnU-Net trained, and makes sure that they fit the study's plans.

    Args:
        folder: As in `given_checkpoint`.
        plans: The study's plans.

    Raises:
        GivenNetworkError: It is not a 2D network of these channels, labels and plans; all differences are named.
    """
    checkpoint = given_checkpoint(folder)
    beside = next((place for place in checkpoint.parents if (place / "plans.json").is_file()), None)
    if beside is None:
        raise GivenNetworkError(f"{folder} has no plans.json beside its folds, so nobody knows what it expects")
    differences = _differences(Plans.load(beside), plans)
    with torch.serialization.safe_globals(list(NUMBERS)):
        read: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True)
    if read.get("init_args", {}).get("configuration", CONFIGURATION) != CONFIGURATION:
        differences.insert(0, f"it is a {read['init_args']['configuration']} network, and this needs a 2d one")
    if differences:
        raise GivenNetworkError(
            f"{checkpoint} cannot be the baseline of this study: {'; '.join(differences)}. Set plans.memory_gb "
            "and plans.base_features as it was planned, and name the cases that it was planned on "
            "(cohort.donor_cases, cohort.pretraining_cases), or leave baseline.weights out"
        )
    weights = {name.removeprefix("module."): values for name, values in read["network_weights"].items()}
    network = build_network(plans, deep_supervision=False)
    network.load_state_dict(weights)
    return network.state_dict()


def _differences(given: Plans, plans: Plans) -> list[str]:
    """What the network was trained for and the study is not, in words."""
    found = []
    for what, of in (("channels", _channels), ("labels", _labels), ("transposition", _transposition)):
        if of(given) != of(plans):
            found.append(f"its {what} are {of(given)} and those of the study {of(plans)}")
    theirs, ours = (one.values["configurations"][CONFIGURATION] for one in (given, plans))
    for name in COMPARED:
        if theirs.get(name) != ours.get(name):
            found.append(
                f"its {name.replace('_', ' ')} is {theirs.get(name)} and that of the study {ours.get(name)}"
            )
    if given.statistics != plans.statistics:
        found.append("the intensities of its training cases are others, and its channels are normalised by them")
    return found


def _channels(plans: Plans) -> list[str]:
    return list(plans.dataset["channel_names"].values())


def _labels(plans: Plans) -> dict[str, Any]:
    return plans.learned


def _transposition(plans: Plans) -> list[int]:
    return list(plans.values["transpose_forward"])
