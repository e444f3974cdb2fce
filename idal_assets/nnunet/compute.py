"""Where and how precisely networks are computed."""

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from idal_assets.settings import ComputeSettings


@dataclass(frozen=True)
class Compute:
    """A device and a precision, chosen for this machine.

    Attributes:
        device: Where tensors live.
        mixed: Type of mixed precision, or None for fp32.
        threads: CPU threads to use.
    """

    device: torch.device
    mixed: torch.dtype | None
    threads: int

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
        mixed = settings.precision == "mixed" or (settings.precision == "auto" and _multiplies_bfloat16(kind))
        return cls(torch.device(kind), torch.bfloat16 if mixed else None, settings.threads or _usable_cores())

    @property
    def training_threads(self) -> int:
        """CPU threads of a network in training; one is left to augmentation, which would else stop them all."""
        return max(1, self.threads - 1)

    def autocast(self) -> AbstractContextManager:
        """Context in which networks run."""
        return torch.autocast(self.device.type, self.mixed) if self.mixed else nullcontext()

    def __str__(self) -> str:
        """Device and precision in words, such as `cpu, bfloat16, 2 threads`."""
        name = torch.cuda.get_device_name() if self.device.type == "cuda" else "cpu"
        precision = str(self.mixed).removeprefix("torch.") if self.mixed else "fp32"
        return f"{name}, {precision}, {self.threads} threads"


def _usable_cores() -> int:
    """Cores that this process may use; a cluster often grants fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _multiplies_bfloat16(kind: str) -> bool:
    """Whether the hardware does it itself; float16, which older cards have, would need scaled gradients."""
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(found.get("amx_bf16") or found.get("avx512_bf16"))
