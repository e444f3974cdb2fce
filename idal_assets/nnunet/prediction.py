"""Segmenting preprocessed cases in batches across cases, and scoring them in their original geometry.

The same steps as nnU-Net's predictor: pad to the patch, tile with Gaussian weights where a slice is larger,
average over mirror images where they are asked for, resample the logits back, take the largest, or the probable
ones where networks are trained on regions. Only the order differs: all slices of all cases form one stream that is
cut into batches.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window
from numpy.typing import NDArray
from torch import nn

from idal_assets.nnunet.compute import Compute, kept_memory, use_threads
from idal_assets.nnunet.network import accelerate, build_network, memory_format, segmented
from idal_assets.nnunet.plans import Plans
from idal_assets.nnunet.slices import CaseSlices, SlicesOnDisk
from idal_assets.nnunet.training import Weights
from idal_assets.settings import ComputeSettings, InferenceSettings

MIRRORINGS = ((2,), (3,), (2, 3))
"""Axes of a batch of slices, rows and columns, in all combinations; in training patches are mirrored in both."""


MEGAPIXELS = {"cpu": 0.12, "cuda": 2.4}
"""Pixels per batch by device. With more, what one layer hands to the next no longer stays in the cache of a CPU,
which makes a network with 8 features slower by a third, one with 16 or 32 by a tenth. With less, a card waits for
the CPU to start its operators."""


@dataclass
class _Canvas:
    """A case on which the answers for its tiles are collected.

    Attributes:
        case: The case.
        image: Padded slices, shape (Z, channels, rows, columns).
        inside: Where the unpadded slices are, along Z, rows and columns.
        tiles: Top left corners (row, column), the same for every slice.
        labels: Labels of the padded slices, shape (Z, rows, columns), where each slice is one tile and keeps its
            resolution and nobody asks for logits; else None.
        logits: Summed logits of the padded slices, shape (Z, heads, rows, columns), in all other cases.
        waiting: Tiles that are still to come.
    """

    case: CaseSlices
    image: torch.Tensor
    inside: tuple[slice, ...]
    tiles: list[tuple[int, int]]
    labels: torch.Tensor | None
    logits: torch.Tensor | None
    waiting: int


class Predictor:
    """A trained network, ready to segment.

    Args:
        weights: The network's state.
        plans: The plans it was trained with.
        inference: Step between tiles.
        settings: Size of a batch.
        compute: Device and precision.
        mirror: Average the logits of every slice and its three mirror images, as nnU-Net does by default.

    Attributes:
        plans: The plans it was trained with.
    """

    def __init__(
        self,
        weights: Weights,
        plans: Plans,
        inference: InferenceSettings,
        settings: ComputeSettings,
        compute: Compute,
        mirror: bool = False,
    ) -> None:
        self._mirrorings = MIRRORINGS if mirror else ()
        self.plans = plans
        self._compute = compute
        self._tile_step = inference.tile_step
        self._network = _ready(weights, plans, compute)
        self._state = _without_repetition(self._network.state_dict())
        self._order = memory_format(plans, compute)
        rows, columns = plans.patch_size
        megapixels = settings.inference_megapixels or MEGAPIXELS[compute.device.type]
        self._tiles_per_batch = max(1, int(megapixels * 1e6 / (rows * columns)))
        self._gaussian = compute_gaussian(plans.patch_size, dtype=torch.float32, device=compute.device)

    def take(self, weights: Weights) -> None:
        """Becomes the predictor of another network of the same plans, which is faster than a new one."""
        for name, value in self._state.items():
            value.copy_(weights[name].view_as(value))

    def segment(self, cases: SlicesOnDisk, names: Sequence[str]) -> Iterator[tuple[CaseSlices, NDArray[np.uint8]]]:
        """Segments cases.

        Args:
            cases: Where the cases are.
            names: Which of them.

        Yields:
            Each case in order with its segmentation in the original geometry, transposed as nnU-Net does, shape
            (Z, Y, X) like the case's `truth`, whether it has one or not.
        """
        with kept_memory():
            for canvas in self._stream(cases, names, keep_logits=False):
                yield canvas.case, self._segmentation(canvas)

    def segment_with_probabilities(
        self, cases: SlicesOnDisk, names: Sequence[str]
    ) -> Iterator[tuple[CaseSlices, NDArray[np.uint8], NDArray[np.float32]]]:
        """Segments cases and says how probable each label is, or each region that the network is trained on.

        Args:
            cases: Where the cases are.
            names: Which of them.

        Yields:
            Each case in order with its segmentation as `segment` yields it, and the softmax of the logits, for
            regions their sigmoid, in the geometry of the case's `image`, which is cropped and resampled: shape
            (heads, Z, Y, X), 0 to 1.
        """
        with kept_memory():
            for canvas in self._stream(cases, names, keep_logits=True):
                yield canvas.case, self._segmentation(canvas), self._probabilities(canvas)

    def _stream(self, cases: SlicesOnDisk, names: Sequence[str], keep_logits: bool) -> Iterator[_Canvas]:
        use_threads(self._compute.threads)
        pending: list[tuple[_Canvas, int, tuple[int, int]]] = []
        open_canvases: list[_Canvas] = []
        for name in names:
            canvas = self._canvas(cases[name], keep_logits)
            open_canvases.append(canvas)
            pending += [(canvas, z, tile) for z in range(canvas.image.shape[0]) for tile in canvas.tiles]
            while len(pending) >= self._tiles_per_batch:
                self._predict(pending[: self._tiles_per_batch])
                del pending[: self._tiles_per_batch]
            while open_canvases and open_canvases[0].waiting == 0:
                yield open_canvases.pop(0)
        if pending:
            self._predict(pending)
        yield from open_canvases

    def _canvas(self, case: CaseSlices, keep_logits: bool) -> _Canvas:
        image, inside = pad_nd_image(
            torch.from_numpy(case.image), self.plans.patch_size, "constant", {"value": 0}, True, None
        )
        image = image.transpose(0, 1).to(self._compute.device, non_blocking=True)
        count, _, rows, columns = image.shape
        row_steps, column_steps = compute_steps_for_sliding_window(
            (rows, columns), self.plans.patch_size, self._tile_step
        )
        tiles = [(row, column) for row in row_steps for column in column_steps]
        labels = logits = None
        if len(tiles) == 1 and not _is_resampled(case) and not keep_logits:
            labels = torch.empty((count, rows, columns), dtype=torch.uint8, device=image.device)
        else:
            heads = self.plans.labels.num_segmentation_heads
            logits = torch.zeros((count, heads, rows, columns), device=image.device)
        return _Canvas(case, image, inside[1:], tiles, labels, logits, len(tiles) * count)

    @torch.inference_mode()
    def _predict(self, batch: Sequence[tuple[_Canvas, int, tuple[int, int]]]) -> None:
        rows, columns = self.plans.patch_size
        places = [(slice(top, top + rows), slice(left, left + columns)) for _, _, (top, left) in batch]
        tiles = [canvas.image[z][(..., *place)] for (canvas, z, _), place in zip(batch, places, strict=True)]
        logits = self._answers(torch.stack(tiles))
        labels = segmented(logits, self.plans.labels)
        for number, ((canvas, z, _), place) in enumerate(zip(batch, places, strict=True)):
            if canvas.labels is not None:
                canvas.labels[z] = labels[number]
            elif canvas.logits is not None:
                # A single tile needs no weights; several overlap and are averaged with nnU-Net's Gaussian.
                tile = logits[number].float()
                canvas.logits[z][(..., *place)] += tile * self._gaussian if len(canvas.tiles) > 1 else tile
            canvas.waiting -= 1

    def _answers(self, tiles: torch.Tensor) -> torch.Tensor:
        """Logits of tiles; with mirroring the mean over their images, each turned back."""
        with self._compute.autocast():
            logits = self._network(tiles.contiguous(memory_format=self._order))
            for axes in self._mirrorings:
                mirrored = tiles.flip(axes).contiguous(memory_format=self._order)
                logits = logits + self._network(mirrored).flip(axes)
        return logits / (len(self._mirrorings) + 1) if self._mirrorings else logits

    def _segmentation(self, canvas: _Canvas) -> NDArray[np.uint8]:
        if canvas.labels is not None:
            return _uncropped(canvas.labels[canvas.inside], canvas.case)
        logits = self._logits(canvas)
        if not _is_resampled(canvas.case):
            return _uncropped(segmented(logits, self.plans.labels), canvas.case)
        return self._resampled(logits.transpose(0, 1), canvas.case)

    def _probabilities(self, canvas: _Canvas) -> NDArray[np.float32]:
        logits = self._logits(canvas)
        probable = torch.sigmoid(logits) if self.plans.labels.has_regions else torch.softmax(logits, 1)
        return probable.transpose(0, 1).cpu().numpy()

    def _logits(self, canvas: _Canvas) -> torch.Tensor:
        """Logits without the padding, shape (Z, heads, Y, X); where tiles overlap, their weighted mean."""
        assert canvas.logits is not None
        logits = canvas.logits
        if len(canvas.tiles) > 1:
            logits = logits / self._summed_weights(canvas)
        depth, rows, columns = canvas.inside
        return logits[depth, :, rows, columns]

    def _summed_weights(self, canvas: _Canvas) -> torch.Tensor:
        rows, columns = self.plans.patch_size
        summed = torch.zeros(canvas.image.shape[2:], device=self._compute.device)
        for top, left in canvas.tiles:
            summed[top : top + rows, left : left + columns] += self._gaussian
        return summed

    def _resampled(self, logits: torch.Tensor, case: CaseSlices) -> NDArray[np.uint8]:
        """Undoes resampling and crop; nnU-Net's transposition stays, as in `CaseSlices.truth`."""
        segmentation = convert_predicted_logits_to_segmentation_with_correct_shape(
            logits.cpu(),
            self.plans.manager,
            self.plans.configuration,
            self.plans.labels,
            dict(case.properties),
            num_threads_torch=self._compute.threads,
        )
        return segmentation.transpose(self.plans.manager.transpose_forward)


def _is_resampled(case: CaseSlices) -> bool:
    return list(case.image.shape[1:]) != list(case.properties["shape_after_cropping_and_before_resampling"])


def _uncropped(labels: torch.Tensor, case: CaseSlices) -> NDArray[np.uint8]:
    """Puts labels of a case that was not resampled where its crop was taken from."""
    whole = np.zeros(tuple(case.properties["shape_before_cropping"]), dtype=np.uint8)
    box = tuple(slice(low, high) for low, high in case.properties["bbox_used_for_cropping"])
    whole[box] = labels.cpu().numpy()
    return whole


def _without_repetition(state: Weights) -> Weights:
    """The state of a network without the other names under which nnU-Net's modules hold the same tensors."""
    return dict({value.data_ptr(): (name, value) for name, value in state.items()}.values())


def _ready(weights: Weights, plans: Plans, compute: Compute) -> nn.Module:
    network = build_network(plans, deep_supervision=False)
    network.load_state_dict(weights)
    return accelerate(network, plans, compute).eval()
