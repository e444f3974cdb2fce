"""nnU-Net's fingerprint and plans, made in this process from cases in memory.

nnU-Net's planner finds its folders in the environment, so it is given temporary ones; what it decides is its own.
"""

import contextlib
import io
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from numpy.typing import NDArray

from idal_assets.imaging.brain_tumour import CHANNELS, LABELS
from idal_assets.imaging.case import Case
from idal_assets.settings import PlansSettings
from idal_assets.store.artifacts import content_hash

CONFIGURATION = "2d"
"""The configuration of everything but the baseline's 3D candidates."""

CASCADE = "3d_cascade_fullres"
DATASET_NAME = "Dataset001_IDAL"
FOREGROUND_SAMPLES = 1_000_000
"""Voxels for the intensity statistics over all cases. nnU-Net takes a hundred times more, but MR images are
normalised case by case, so nothing depends on these statistics."""

NOT_DETERMINING = ("median_image_size_in_voxels", "data_identifier")
"""Fields of a configuration that only describe the dataset: preprocessing and network do not use them."""


class Plans:
    """nnU-Net's plans, and one of the configurations that they hold.

    Attributes:
        values: Content of `plans.json`.
        dataset: Content of `dataset.json`.
        name: Name of the configuration.
        manager: nnU-Net's reader of the plans.
        configuration: The configuration.
        labels: nnU-Net's label manager.
    """

    def __init__(self, values: dict[str, Any], dataset: dict[str, Any], name: str = CONFIGURATION) -> None:
        self.values = values
        self.dataset = dataset
        self.name = name
        self.manager = PlansManager(values)
        self.configuration: ConfigurationManager = self.manager.get_configuration(name)
        self.labels: LabelManager = self.manager.get_label_manager(dataset)

    def of(self, name: str) -> "Plans":
        """The same plans with another of their configurations."""
        return Plans(self.values, self.dataset, name)

    @property
    def configurations(self) -> list[str]:
        """Names of all configurations that nnU-Net planned."""
        return list(self.values["configurations"])

    @property
    def cascade(self) -> str:
        """Whether nnU-Net offers a cascade for these cases, in words."""
        if CASCADE in self.configurations:
            return "nnU-Net's planner offers a cascade for these cases; it is not among what can be trained here"
        return (
            "nnU-Net's planner offers no cascade for these cases: a patch of its 3D network covers enough of one"
        )

    @property
    def patch_size(self) -> tuple[int, ...]:
        """Rows and columns of a patch, after its slices in 3D."""
        return tuple(int(size) for size in self.configuration.patch_size)

    @property
    def is_3d(self) -> bool:
        """Whether patches are volumes."""
        return len(self.patch_size) == 3

    @property
    def version(self) -> str:
        """Hash of what determines preprocessing and network, without the dataset's statistics."""
        configuration = {
            name: value
            for name, value in self.values["configurations"][self.name].items()
            if name not in NOT_DETERMINING
        }
        deciding = {
            "configuration": configuration,
            "transpose": self.values["transpose_forward"],
            "dataset": {key: self.dataset[key] for key in ("channel_names", "labels")},
        }
        return content_hash(deciding)

    def save(self, folder: Path) -> None:
        """Writes `plans.json` and `dataset.json`."""
        (folder / "plans.json").write_text(json.dumps(self.values, indent=1))
        (folder / "dataset.json").write_text(json.dumps(self.dataset, indent=1))

    @classmethod
    def load(cls, folder: Path) -> "Plans":
        """Reads `plans.json` and `dataset.json` of this project or of nnU-Net."""
        values = json.loads((folder / "plans.json").read_text())
        return cls(values, json.loads((folder / "dataset.json").read_text()))


def to_nnunet(case: Case) -> tuple[NDArray[np.float32], NDArray[np.int16], dict[str, Any]]:
    """Turns a case into what nnU-Net's readers return.

    Args:
        case: The case in the voxel order of its files.

    Returns:
        Image of shape (4, Z, Y, X), label of shape (1, Z, Y, X) and properties with the spacing along Z, Y, X.
    """
    image = np.ascontiguousarray(case.image.transpose(0, 3, 2, 1))
    label = np.ascontiguousarray(case.label.transpose(2, 1, 0)[None]).astype(np.int16)
    return image, label, {"spacing": [float(size) for size in case.spacing[::-1]]}


def dataset_json(number_of_cases: int) -> dict[str, Any]:
    """Content of nnU-Net's `dataset.json` for this project's channels and labels."""
    return {
        "channel_names": {str(index): name for index, name in enumerate(CHANNELS)},
        "labels": {"background": 0, **{name: value for value, name in LABELS.items()}},
        "numTraining": number_of_cases,
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "NibabelIO",
    }


def fingerprint(cases: Iterable[Case], number_of_cases: int) -> dict[str, Any]:
    """Extracts nnU-Net's dataset fingerprint.

    Args:
        cases: The cases that training will use; one is in memory at a time.
        number_of_cases: How many they are.

    Returns:
        Content of nnU-Net's `dataset_fingerprint.json`.
    """
    shapes, spacings, kept_shares, intensities = [], [], [], []
    for case in cases:
        image, label, properties = to_nnunet(case)
        cropped, cropped_label, _ = crop_to_nonzero(image, label)
        sampled, _ = DatasetFingerprintExtractor.collect_foreground_intensities(
            cropped_label, cropped, num_samples=FOREGROUND_SAMPLES // number_of_cases
        )
        shapes.append([int(size) for size in cropped.shape[1:]])
        spacings.append(properties["spacing"])
        kept_shares.append(cropped[0].size / image[0].size)
        intensities.append(np.asarray(sampled, dtype=np.float32))
    pooled = np.concatenate(intensities, axis=1)
    return {
        "spacings": spacings,
        "shapes_after_crop": shapes,
        "foreground_intensity_properties_per_channel": {
            str(channel): _intensity_properties(pooled[channel]) for channel in range(len(CHANNELS))
        },
        "median_relative_size_after_cropping": float(np.median(kept_shares)),
    }


def _intensity_properties(values: NDArray[np.float32]) -> dict[str, float]:
    low, median, high = np.percentile(values, (0.5, 50.0, 99.5))
    return {
        "mean": float(values.mean()),
        "median": float(median),
        "std": float(values.std()),
        "min": float(values.min()),
        "max": float(values.max()),
        "percentile_99_5": float(high),
        "percentile_00_5": float(low),
    }


def make_plans(found: dict[str, Any], number_of_cases: int, settings: PlansSettings) -> Plans:
    """Lets nnU-Net plan its configurations.

    Args:
        found: The fingerprint.
        number_of_cases: Cases that training will use; nnU-Net bounds its batch by the size of the dataset.
        settings: Memory target, width of the network and batch size.

    Returns:
        The plans; with `settings.batch_size`, that batch size.
    """
    dataset = dataset_json(number_of_cases)
    with _nnunet_folders() as folder, contextlib.redirect_stdout(io.StringIO()):
        listed = {"any": {"images": ["any_0000.nii.gz"], "label": "any.nii.gz"}}
        raw, preprocessed = folder / "raw" / DATASET_NAME, folder / "preprocessed" / DATASET_NAME
        raw.mkdir(parents=True)
        preprocessed.mkdir(parents=True)
        (raw / "dataset.json").write_text(json.dumps({**dataset, "dataset": listed}))
        (preprocessed / "dataset_fingerprint.json").write_text(json.dumps(found))
        planner = ExperimentPlanner(DATASET_NAME, gpu_memory_target_in_gb=settings.memory_gb)
        planner.UNet_base_num_features = settings.base_features
        planner.plan_experiment()
        values = json.loads((preprocessed / "nnUNetPlans.json").read_text())
    if settings.batch_size is not None:
        values["configurations"][CONFIGURATION]["batch_size"] = settings.batch_size
    return Plans(values, dataset)


@contextlib.contextmanager
def _nnunet_folders() -> Iterator[Path]:
    """Temporary folders in the environment variables that nnU-Net looks its own up in."""
    names = {"nnUNet_raw": "raw", "nnUNet_preprocessed": "preprocessed"}
    before = {name: os.environ.get(name) for name in names}
    with tempfile.TemporaryDirectory() as temporary:
        os.environ.update({name: str(Path(temporary) / folder) for name, folder in names.items()})
        try:
            yield Path(temporary)
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
