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
from nnunetv2.preprocessing.normalization.map_channel_name_to_normalization import get_normalization_scheme
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from numpy.typing import NDArray

from idal_assets.anatomy import BACKGROUND, IGNORE, Anatomy
from idal_assets.imaging.case import Case, CaseError
from idal_assets.nnunet.geometry import to_nnunet
from idal_assets.settings import PlansSettings
from idal_assets.store.artifacts import content_hash

CONFIGURATION = "2d"
"""The configuration of everything but the baseline's 3D candidates."""

CASCADE = "3d_cascade_fullres"
DATASET_NAME = "Dataset001_IDAL"
FOREGROUND_SAMPLES = 100_000_000
"""Voxels for the intensity statistics over all cases, as many as nnU-Net takes."""

FEWER_SAMPLES = 1_000_000
"""The same where every channel is normalised case by case, as MR is, so that nothing depends on the statistics."""

SCHEMES_WITH_STATISTICS = ("CTNormalization",)
"""nnU-Net's normalisations that use the intensity statistics of all cases."""

USED_STATISTICS = ("mean", "std", "percentile_00_5", "percentile_99_5")
"""What they use of them."""

DATASET_KEYS = ("channel_names", "labels", "regions_class_order")
"""What slices, networks and segmentations depend on in `dataset.json`."""

Label = int | tuple[int, ...]
"""A label value or, where networks are trained on regions, the values of one."""

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
    def channels(self) -> int:
        """How many channels an image has."""
        return len(self.dataset["channel_names"])

    @property
    def learned(self) -> dict[str, Label]:
        """What networks learn to tell from background, by name: a label value, or those of a region."""
        named = {name: of for name, of in self.labels.label_dict.items() if name not in (BACKGROUND, IGNORE)}
        if self.labels.has_regions:
            return {name: tuple(of) if isinstance(of, list) else of for name, of in named.items()}
        # a list of one value is a label to nnU-Net where no list has more
        return {name: int(np.ravel(of)[0]) for name, of in named.items()}

    @property
    def version(self) -> str:
        """Hash of what determines preprocessing, network and segmentations.

        The dataset's statistics are in it only as far as a normalisation uses them.
        """
        configuration = {
            name: value
            for name, value in self.values["configurations"][self.name].items()
            if name not in NOT_DETERMINING
        }
        deciding = {
            "configuration": configuration,
            "transpose": self.values["transpose_forward"],
            "dataset": {key: self.dataset[key] for key in DATASET_KEYS if key in self.dataset},
        }
        statistics = self.statistics
        return content_hash({**deciding, "statistics": statistics} if statistics else deciding)

    @property
    def statistics(self) -> dict[str, dict[str, float]]:
        """The intensity statistics that normalisation uses, by channel."""
        of_channel = self.values["foreground_intensity_properties_per_channel"]
        return {
            str(channel): {name: of_channel[str(channel)][name] for name in USED_STATISTICS}
            for channel, scheme in enumerate(self.configuration.normalization_schemes)
            if scheme in SCHEMES_WITH_STATISTICS
        }

    def save(self, folder: Path) -> None:
        """Writes `plans.json` and `dataset.json`."""
        (folder / "plans.json").write_text(json.dumps(self.values, indent=1))
        (folder / "dataset.json").write_text(json.dumps(self.dataset, indent=1))

    @classmethod
    def load(cls, folder: Path) -> "Plans":
        """Reads `plans.json` and `dataset.json` of this project or of nnU-Net."""
        values = json.loads((folder / "plans.json").read_text())
        return cls(values, json.loads((folder / "dataset.json").read_text()))


def dataset_json(anatomy: Anatomy, number_of_cases: int) -> dict[str, Any]:
    """Content of nnU-Net's `dataset.json`: channels, labels or regions, and the voxels to ignore.

    Args:
        anatomy: Channels and labels; with a `class_order` the labels are its regions.
        number_of_cases: Cases that training will use.
    """
    labels: dict[str, int | list[int]] = {BACKGROUND: 0}
    if anatomy.class_order:
        labels |= {name: list(anatomy.regions[name]) for name in anatomy.trained}
    else:
        labels |= {name: value for value, name in anatomy.labels.items()}
    if anatomy.ignore is not None:
        labels[IGNORE] = anatomy.ignore
    return {
        "channel_names": {str(index): name for index, name in enumerate(anatomy.channels)},
        "labels": labels,
        **({"regions_class_order": list(anatomy.class_order)} if anatomy.class_order else {}),
        "numTraining": number_of_cases,
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "NibabelIO",
    }


def fingerprint(cases: Iterable[Case], number_of_cases: int, anatomy: Anatomy) -> dict[str, Any]:
    """Extracts nnU-Net's dataset fingerprint.

    Args:
        cases: The cases that training will use; one is in memory at a time.
        number_of_cases: How many they are.
        anatomy: Their channels.

    Returns:
        Content of nnU-Net's `dataset_fingerprint.json`.

    Raises:
        CaseError: A case has no label.
    """
    samples = FOREGROUND_SAMPLES if _uses_statistics(anatomy) else FEWER_SAMPLES
    shapes, spacings, kept_shares, intensities = [], [], [], []
    for case in cases:
        image, label, properties = to_nnunet(case)
        if label is None:
            raise CaseError(f"{case.case_id} has no label; networks are planned on cases that have one")
        cropped, cropped_label, _ = crop_to_nonzero(image, label)
        sampled, _ = DatasetFingerprintExtractor.collect_foreground_intensities(
            cropped_label, cropped, num_samples=samples // number_of_cases
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
            str(channel): _intensity_properties(values) for channel, values in enumerate(pooled)
        },
        "median_relative_size_after_cropping": float(np.median(kept_shares)),
    }


def _uses_statistics(anatomy: Anatomy) -> bool:
    return any(get_normalization_scheme(name).__name__ in SCHEMES_WITH_STATISTICS for name in anatomy.channels)


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


def make_plans(found: dict[str, Any], number_of_cases: int, settings: PlansSettings, anatomy: Anatomy) -> Plans:
    """Lets nnU-Net plan its configurations.

    Args:
        found: The fingerprint.
        number_of_cases: Cases that training will use; nnU-Net bounds its batch by the size of the dataset.
        settings: Memory target, width of the network and batch size.
        anatomy: Channels, labels and regions.

    Returns:
        The plans; with `settings.batch_size`, that batch size.
    """
    dataset = dataset_json(anatomy, number_of_cases)
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
