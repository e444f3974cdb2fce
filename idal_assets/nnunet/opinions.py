"""What networks say of cases: their segmentations, how sure they are, and what they say of a case turned.

One network is in memory at a time, so that a study of a hundred donors needs no more memory than one of ten. What
a network says of a case while its row of the matrix is made is kept, so that nobody need ask it again.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, cast
from zipfile import ZIP_DEFLATED, ZipFile

import blosc2
import numpy as np
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from numpy.typing import NDArray
from scipy.stats import skew
from torch import nn

from idal_assets.nnunet.compute import Compute, use_threads
from idal_assets.nnunet.network import accelerate, build_network
from idal_assets.nnunet.plans import Plans
from idal_assets.nnunet.prediction import Predictor
from idal_assets.nnunet.slices import CaseSlices, SlicesOnDisk
from idal_assets.nnunet.training import Weights

LABELS_FILE = "labels.b2nd"
KEPT_OPINIONS_FILE = "opinions.npz"
KEPT_SIGNS_FILE = "opinions.json"
DIGITS = 4
"""Of a confidence. The last bits of a probability depend on how many slices a batch has, and so on which cases are
segmented together; an opinion shall not."""


@dataclass(frozen=True)
class Opinion:
    """What one network says of a case.

    Attributes:
        labels: Its segmentation in the original geometry, shape (Z, Y, X) as `CaseSlices.truth`.
        confidence: Mean probability of what it says over the voxels where it sees anything, 0 to 1, four digits;
            NaN where it sees nothing.
        turned: Dice of everything it sees and what it sees in the slices turned by half, on some of them; 1
            where it sees nothing in either.
    """

    labels: NDArray[np.uint8]
    confidence: float
    turned: float


def opinions(
    models: Mapping[str, Weights], case: CaseSlices, predictor: Predictor, turned_step: int
) -> Iterator[tuple[str, Opinion]]:
    """Asks networks for their opinion of a case.

    Args:
        models: Weights by name; they are asked for one after the other.
        case: The case.
        predictor: A predictor of their plans, which takes the weights of each.
        turned_step: Every how manieth slice is looked at turned by half.

    Yields:
        Name and opinion, in order.
    """
    alone = Both({case.case_id: case})
    for name in models:
        predictor.take(models[name])
        ((_, opinion),) = opinions_on(predictor, alone, [case.case_id], turned_step)
        yield name, opinion


def opinions_on(
    predictor: Predictor, cases: SlicesOnDisk, names: Sequence[str], turned_step: int
) -> Iterator[tuple[CaseSlices, Opinion]]:
    """Asks one network for its opinion of cases.

    Args:
        predictor: The network.
        cases: Where the cases are.
        names: Which of them.
        turned_step: Every how manieth slice is looked at turned by half.

    Yields:
        Each case and the opinion of it, in order.
    """
    both = _WithTurned(cases, turned_step)
    said = predictor.segment_with_probabilities(both, [one for name in names for one in (name, TURNED + name)])
    for (case, labels, probable), (_, _, of_turned) in zip(said, said, strict=True):
        seen = _seen(probable, predictor.plans)
        again = _seen(of_turned, predictor.plans)[:, ::-1, ::-1]
        sure = probable.max(axis=0)[seen]
        confidence = round(float(sure.mean(dtype=np.float64)), DIGITS) if sure.size else float("nan")
        yield case, Opinion(labels, confidence, _overlap(seen[::turned_step], again))


class Both(SlicesOnDisk):
    """Cases in memory that a predictor reads as if they were on disk."""

    def __init__(self, cases: Mapping[str, CaseSlices]) -> None:
        super().__init__({}, 0)
        self.cases = cases

    def __getitem__(self, case_id: str) -> CaseSlices:
        return self.cases[case_id]


TURNED = "turned/"
"""Comes before the name of a case that is turned; no case has a slash in its own."""


class _WithTurned(SlicesOnDisk):
    """Cases, and some slices of each turned by half."""

    def __init__(self, cases: SlicesOnDisk, step: int) -> None:
        super().__init__({}, 0)
        self._cases, self._step = cases, step

    def __getitem__(self, case_id: str) -> CaseSlices:
        case = self._cases[case_id.removeprefix(TURNED)]
        return _turned(case, self._step) if case_id.startswith(TURNED) else case


def _turned(case: CaseSlices, step: int) -> CaseSlices:
    """Some slices of a case, turned by half in their plane; only their probabilities are asked for."""
    image = np.ascontiguousarray(case.image[:, ::step, ::-1, ::-1])
    shape = list(image.shape[1:])
    properties = {
        **case.properties,
        "shape_before_cropping": shape,
        "shape_after_cropping_and_before_resampling": shape,
        "bbox_used_for_cropping": [[0, size] for size in shape],
    }
    return CaseSlices(f"{case.case_id} turned", image, None, {}, properties, None)


def _seen(probable: NDArray[np.float32], plans: Plans) -> NDArray[np.bool_]:
    """Where a network sees any label; shape (Z, Y, X)."""
    if plans.labels.has_regions:
        return probable.max(axis=0) > 0.5
    return probable.argmax(axis=0) > 0


def _overlap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    total = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / total if total else 1.0


class KeptOpinions:
    """Keeps what one network says of cases in the folder of an artifact: `opinions.npz` and `opinions.json`.

    Args:
        folder: The folder.
        network: Version of the network.
        cases: Version of the slices of every case that it may be asked about.
        turned_step: Every how manieth slice is looked at turned by half.
    """

    def __init__(self, folder: Path, network: str, cases: Mapping[str, str], turned_step: int) -> None:
        self._folder, self._cases, self.turned_step = folder, cases, turned_step
        self._signs: dict[str, Any] = {}
        self._noted = {"network": network, "turned_step": turned_step, "cases": self._signs}

    def __enter__(self) -> "KeptOpinions":
        self._file = ZipFile(self._folder / KEPT_OPINIONS_FILE, "w", ZIP_DEFLATED, compresslevel=1)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, where: TracebackType | None) -> None:
        self._file.close()
        (self._folder / KEPT_SIGNS_FILE).write_text(json.dumps(self._noted, indent=1))

    def add(self, case_id: str, opinion: Opinion) -> None:
        """Keeps one opinion."""
        with self._file.open(f"{case_id}.npy", "w") as entry:
            np.lib.format.write_array(entry, opinion.labels, allow_pickle=False)
        signs = {"confidence": opinion.confidence, "turned": opinion.turned}
        self._signs[case_id] = {"version": self._cases[case_id], **signs}


def kept_opinions(
    folder: Path, network: str, cases: Mapping[str, str], turned_step: int
) -> Iterator[tuple[str, Opinion]]:
    """Reads what was kept of a network's opinions and would be found again.

    Args:
        folder: Folder of the artifact that keeps them; it may keep none.
        network: Version of the network now.
        cases: Version of the slices of every case that is asked about.
        turned_step: Every how manieth slice would be looked at turned by half.

    Yields:
        Name of the case and opinion, for as many of the cases as there is one of.
    """
    noted: dict[str, Any] = {}
    with suppress(FileNotFoundError):
        noted = json.loads((folder / KEPT_SIGNS_FILE).read_text())
    if (noted.get("network"), noted.get("turned_step")) != (network, turned_step):
        return
    known = {name: noted["cases"].get(name) for name in cases}
    same = {name: one for name, one in known.items() if one and one["version"] == cases[name]}
    if not same:
        return
    with np.load(folder / KEPT_OPINIONS_FILE, allow_pickle=False) as labels:
        for name, one in same.items():
            yield name, Opinion(labels[name], one["confidence"], one["turned"])


def save_labels(folder: Path, labels: NDArray[np.uint8]) -> None:
    """Writes the segmentations of all networks, shape (networks, Z, Y, X)."""
    blosc2.asarray(
        np.ascontiguousarray(labels),
        chunks=(1, *labels.shape[1:]),
        urlpath=str(folder / LABELS_FILE),
        mode="w",
        cparams={"codec": blosc2.Codec.ZSTD, "clevel": 5},
    )


def load_labels(folder: Path) -> NDArray[np.uint8]:
    """Reads what `save_labels` wrote."""
    return blosc2.open(str(folder / LABELS_FILE), mode="r")[:]


@torch.inference_mode()
def pooled_features(weights: Weights, plans: Plans, case: CaseSlices, compute: Compute) -> NDArray[np.float64]:
    """What a network's encoder makes of a case: mean and spread of the channels of its deepest stage.

    Args:
        weights: The network's state.
        plans: The plans it was trained with.
        case: The case.
        compute: Device and precision.

    Returns:
        Shape (2 * channels,): over all slices and places the means, then the standard deviations.
    """
    use_threads(compute.threads)
    network = build_network(plans, deep_supervision=False)
    network.load_state_dict(weights)
    encoder = cast("nn.Module", accelerate(network, plans, compute).eval().encoder)
    image = torch.from_numpy(case.image).transpose(0, 1)
    deepest = []
    for part in image.split(plans.configuration.batch_size):
        padded, _ = pad_nd_image(part, None, "constant", {"value": 0}, True, _divisor(plans))
        with compute.autocast():
            deepest.append(encoder(padded.to(compute.device))[-1].float().cpu())
    stages = torch.cat([one.transpose(0, 1).flatten(1) for one in deepest], dim=1).double()
    return torch.cat([stages.mean(1), stages.std(1)]).numpy()


def _divisor(plans: Plans) -> list[int]:
    """What rows and columns must be multiples of for the strides of the network."""
    strides = np.prod(plans.configuration.network_arch_init_kwargs["strides"], axis=0)
    return [int(step) for step in np.atleast_1d(strides)]


def image_statistics(case: CaseSlices) -> NDArray[np.float64]:
    """The classical description of an image: quantiles and moments of the normalised intensities of each channel.

    Returns:
        Shape (channels * 7,): the quantiles .05, .25, .5, .75 and .95, standard deviation and skewness of each
        channel, over the voxels that preprocessing left.
    """
    found = []
    for channel in case.image:
        values = channel.ravel()[:: max(1, channel.size // 200_000)].astype(float)
        found += [*np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95)), values.std(), float(skew(values))]
    return np.nan_to_num(np.asarray(found))
