"""Where and how precisely networks are computed, with how many threads, and what becomes of their memory."""

import ctypes
import os
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch.utils._triton import has_triton

from idal_assets.cores import usable_cores
from idal_assets.settings import ComputeSettings

THREADS_FOR_OVERLAP = 6
"""Threads from which on a CPU trains faster if augmentation has one of them to itself, instead of taking turns."""

BATCHES_AHEAD = 3
"""Batches prepared while the network computes; enough to bridge the slowest augmentation."""

SECONDS_BETWEEN_TRIES = 0.5
"""How often a process that waits for a card looks whether one is free."""

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of glibc's `mallopt`."""

DEFAULT_TRIM_THRESHOLD, DEFAULT_MMAP_MAX = 128 * 1024, 65536
"""What glibc documents as their defaults."""


@dataclass(frozen=True)
class Compute:
    """A device and a precision, chosen for this machine.

    Attributes:
        device: Where tensors live.
        mixed: Type of mixed precision, or None for fp32.
        threads: CPU threads to use.
        compiles: Whether networks of long trainings are compiled.
    """

    device: torch.device
    mixed: torch.dtype | None
    threads: int
    compiles: bool = False

    @classmethod
    def choose(cls, settings: ComputeSettings) -> "Compute":
        """Takes CUDA where there is a card and mixed precision where it is native, or what the settings say.

        Raises:
            RuntimeError: CUDA is asked for and there is none.
        """
        if settings.device == "cuda" and not torch.cuda.is_available():
            raise RuntimeError(
                "compute.device is cuda, but this machine has no usable card; set it to auto or cpu"
            )
        kind = "cuda" if settings.device != "cpu" and torch.cuda.is_available() else "cpu"
        mixed = settings.precision == "mixed" or (settings.precision == "auto" and multiplies_bfloat16(kind))
        return cls(
            torch.device(kind),
            torch.bfloat16 if mixed else None,
            settings.threads or usable_cores(),
            compiles=kind == "cuda" and settings.compile == "auto" and has_triton(),
        )

    @property
    def overlaps(self) -> bool:
        """Whether batches are prepared while the network computes, or in turn with it.

        With few cores it is in turn: the threads of a network wait for each other, so one that lost its core to
        augmentation would stop them all.
        """
        return self.device.type == "cuda" or self.threads >= THREADS_FOR_OVERLAP

    @property
    def batches_ahead(self) -> int:
        """How many batches are prepared before the network asks for them."""
        return BATCHES_AHEAD if self.overlaps else 0

    @property
    def training_threads(self) -> int:
        """CPU threads of a network in training."""
        return max(1, self.threads - 1) if self.overlaps else self.threads

    def autocast(self) -> AbstractContextManager:
        """Context in which networks run."""
        return torch.autocast(self.device.type, self.mixed) if self.mixed else nullcontext()

    def __str__(self) -> str:
        """Device and precision in words, such as `cpu, bfloat16, 2 threads`."""
        name = torch.cuda.get_device_name() if self.device.type == "cuda" else "cpu"
        precision = str(self.mixed).removeprefix("torch.") if self.mixed else "fp32"
        return f"{name}, {precision}, {self.threads} thread{'s' * (self.threads != 1)}"


def use_threads(count: int) -> None:
    """Sets how many threads operators that this thread calls may take.

    PyTorch gives a thread the last number that any thread has set, at its first parallel operator. Asking for the
    number counts as one; without it, the thread that augments would take all threads but one from a network that
    has not begun.
    """
    torch.set_num_threads(count)
    torch.get_num_threads()


def on_device_of(tensor: torch.Tensor, array: NDArray) -> torch.Tensor:
    """An array of the CPU as a tensor there, for which the CPU does not wait."""
    found = torch.from_numpy(array)
    return found.pin_memory().to(tensor.device, non_blocking=True) if tensor.is_cuda else found.to(tensor.device)


def multiplies_bfloat16(kind: str) -> bool:
    """Whether the hardware does it itself; float16, which older cards have, would need scaled gradients."""
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(found.get("amx_bf16") or found.get("avx512_bf16"))


@contextmanager
def taken(settings: ComputeSettings) -> Iterator[Compute]:
    """Takes a free card for as long as the context lasts, or else the CPU, and keeps memory meanwhile.

    Several processes on a machine with several cards each get one of their own, or share them as the settings
    allow; one that finds no place waits.

    Args:
        settings: Device, precision and threads.

    Yields:
        What to compute on.

    Raises:
        RuntimeError: CUDA is asked for and there is none.
    """
    compute = Compute.choose(settings)
    if compute.device.type != "cuda":
        with kept_memory():
            yield compute
        return
    cards = [str(torch.cuda.get_device_properties(number).uuid) for number in range(torch.cuda.device_count())]
    with _free_one(cards, own_folder(), settings.models_per_card) as number, kept_memory():
        yield replace(compute, device=torch.device("cuda", number))


def own_folder() -> Path:
    """Folder of the locks of cards, which belongs to this user: in the temporary directory, else at home.

    On a machine that several share, another user may have made one of that name; locks there would not be ours.

    Raises:
        RuntimeError: There is no place for one.
    """
    tried = [Path(tempfile.gettempdir()), Path("~/.cache").expanduser()]
    for parent in tried:
        folder = parent / f"idal-cards-{os.getuid()}"
        with suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if _is_own(folder):
                return folder
    places = " and ".join(str(parent) for parent in tried)
    raise RuntimeError(f"No folder of your own can be made in {places}; set TMPDIR to a folder that is yours")


def _is_own(folder: Path) -> bool:
    """Whether it is a folder, no link to one, that nobody else may write to."""
    found = folder.lstat()
    is_private = not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and is_private


@contextmanager
def _free_one(cards: Sequence[str], locks: Path, models_per_card: int = 1) -> Iterator[int]:
    """Takes a place on the card that has most of them free; a killed process lets go of its own by dying."""
    locks.mkdir(parents=True, exist_ok=True)
    while True:
        for place, (number, card) in product(range(models_per_card), enumerate(cards)):
            lock = FileLock(locks / f"{card}-{place}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            try:
                yield number
            finally:
                lock.release()
            return
        time.sleep(SECONDS_BETWEEN_TRIES)


_keepers: list[None] = []
"""One for each context of `kept_memory` that is open."""


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keeps what PyTorch frees for its next tensors; the system gets it back when the outermost context ends.

    glibc returns large blocks to the system at once, so every iteration would have all its memory cleared page by
    page anew, a fifth of its time, and every network that segments a small case a third. Elsewhere than under
    glibc nothing is changed.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "mallopt"):
        yield
        return
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, -1)
    _keepers.append(None)
    try:
        yield
    finally:
        _keepers.pop()
        if not _keepers:
            libc.mallopt(M_MMAP_MAX, DEFAULT_MMAP_MAX)
            libc.mallopt(M_TRIM_THRESHOLD, DEFAULT_TRIM_THRESHOLD)
            libc.malloc_trim(0)
