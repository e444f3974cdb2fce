"""Cutting patches out of cases: in the memory of the host or, where all cases fit, in that of the card.

Both give the same numbers. A card computes a batch in less time than the host needs to copy one together.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from idal_assets.nnunet.compute import on_device_of
from idal_assets.nnunet.plans import Label
from idal_assets.nnunet.slices import OUTSIDE, SlicesOnDisk

SHARE_OF_CARD = 0.25
"""Of the memory that is free on a card, what cases may take; the rest is for the network."""


class Place(NamedTuple):
    """Where a patch is in its case: its slice, and its first row and column, which may be off the image."""

    slice: int
    row: int
    column: int


@dataclass(frozen=True)
class Outline:
    """What has to be known of a case to choose a place in it.

    Attributes:
        shape: Slices, rows and columns.
        foreground: Voxels that patches may be centred on, as `CaseSlices.foreground`.
    """

    shape: tuple[int, ...]
    foreground: Mapping[Label, NDArray[np.int32]]


Choice = Callable[[int, str, Outline], Place]
"""Chooses the place of a patch: by its number, the name of its case and the outline of that."""


class Cutter(Protocol):
    """Holds cases that patches are cut from."""

    def cut(self, names: Sequence[str], choose: Choice) -> tuple[torch.Tensor, torch.Tensor]:
        """Cuts patches out.

        Args:
            names: The case of each patch.
            choose: Chooses the places, one patch after the other.

        Returns:
            Images of shape (patches, channels, rows, columns), zero where there is none, and labels of shape
            (patches, 1, rows, columns), int16, `OUTSIDE` where there is no image; on the device.

        Raises:
            CaseError: Nobody labelled a case.
        """


def cutter_of(cases: SlicesOnDisk, channels: int, size: Sequence[int], device: torch.device) -> Cutter:
    """Holds cases where patches of a size are cut out of them soonest.

    Args:
        cases: The cases.
        channels: Channels of their images.
        size: Rows and columns of a patch.
        device: Where patches are wanted.
    """
    if device.type != "cuda":
        return HostCutter(cases, channels, size, device)
    taken = cases.voxels() * (4 * channels + 1)
    cutter = CardCutter if taken <= SHARE_OF_CARD * _free_memory(device) else HostCutter
    return cutter(cases, channels, size, device)


def _free_memory(device: torch.device) -> int:
    """Bytes that this process can still take on a card, with those that PyTorch keeps and does not use."""
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


class HostCutter:
    """Cuts in the memory of the host, which holds as many cases as its bound allows, and sends patches on."""

    def __init__(self, cases: SlicesOnDisk, channels: int, size: Sequence[int], device: torch.device) -> None:
        self._cases, self._channels, self._size, self._device = cases, channels, tuple(size), device

    def cut(self, names: Sequence[str], choose: Choice) -> tuple[torch.Tensor, torch.Tensor]:
        """As `Cutter.cut`."""
        # pinned, so that it is copied to a card without anybody waiting
        pinned = self._device.type == "cuda"
        image = torch.zeros((len(names), self._channels, *self._size), pin_memory=pinned)
        label = torch.full((len(names), 1, *self._size), OUTSIDE, dtype=torch.int16, pin_memory=pinned)
        for number, name in enumerate(names):
            # once, as a case past the bound is read each time
            case = self._cases[name]
            case_label = case.require_label()
            place = choose(number, name, Outline(case_label.shape, case.foreground))
            rows, into_rows = _overlap(place.row, self._size[0], case_label.shape[1])
            columns, into_columns = _overlap(place.column, self._size[1], case_label.shape[2])
            image[number, :, into_rows, into_columns] = torch.from_numpy(case.image[:, place.slice, rows, columns])
            label[number, 0, into_rows, into_columns] = torch.from_numpy(case_label[place.slice, rows, columns])
        return image.to(self._device, non_blocking=True), label.to(self._device, non_blocking=True)


def _overlap(first: int, length: int, extent: int) -> tuple[slice, slice]:
    """Which pixels of a line of an image a line of a patch shows, and where."""
    start = max(first, 0)
    end = max(start, min(first + length, extent))
    return slice(start, end), slice(start - first, end - first)


@dataclass(frozen=True)
class _Shelf:
    """A case that is held: how many voxels those before it have, and its outline."""

    begin: int
    outline: Outline


class CardCutter:
    """Holds all cases on a device and cuts all patches of a batch at once there."""

    def __init__(self, cases: SlicesOnDisk, channels: int, size: Sequence[int], device: torch.device) -> None:
        self._rows, self._columns = (torch.arange(length, device=device) for length in size)
        self._channels = torch.arange(channels, device=device)[:, None, None]
        voxels = cases.voxels()
        self._images = torch.empty(voxels * channels, device=device)
        self._labels = torch.empty(voxels, dtype=torch.int8, device=device)
        self._shelves: dict[str, _Shelf] = {}
        begin = 0
        for name in cases.names:
            case = cases[name]
            label = case.require_label()
            end = begin + label.size
            self._images[channels * begin : channels * end] = torch.from_numpy(case.image).flatten()
            self._labels[begin:end] = torch.from_numpy(label).flatten()
            self._shelves[name] = _Shelf(begin, Outline(label.shape, case.foreground))
            begin = end

    def cut(self, names: Sequence[str], choose: Choice) -> tuple[torch.Tensor, torch.Tensor]:
        """As `Cutter.cut`."""
        shelves = [self._shelves[name] for name in names]
        places = [
            choose(number, name, shelf.outline)
            for number, (name, shelf) in enumerate(zip(names, shelves, strict=True))
        ]
        table = np.array([_address(shelf, place) for shelf, place in zip(shelves, places, strict=True)])
        addresses = on_device_of(self._images, table).T[:, :, None, None]
        begin, before, voxels, rows, columns, row, column = addresses
        row, column = row + self._rows[:, None], column + self._columns
        inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
        pixel = before + torch.where(inside, row * columns + column, 0)
        label = torch.where(inside, self._labels[begin + pixel], OUTSIDE).to(torch.int16)
        image = self._images[(len(self._channels) * begin + pixel)[:, None] + self._channels * voxels[:, None]]
        return torch.where(inside[:, None], image, 0), label[:, None]


def _address(shelf: _Shelf, place: Place) -> tuple[int, ...]:
    """Voxels before the case, of it before the slice, and in all of it; size of the slice; the place in it."""
    slices, rows, columns = shelf.outline.shape
    before = place.slice * rows * columns
    return (shelf.begin, before, slices * rows * columns, rows, columns, place.row, place.column)
