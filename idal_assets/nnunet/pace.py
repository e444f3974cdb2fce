"""How fast this machine reads, trains and segments, measured in seconds on a few cases before a study is made."""

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from idal_assets.anatomy import Anatomy
from idal_assets.imaging.raw_folder import CaseFiles
from idal_assets.imaging.readers import read_case
from idal_assets.nnunet.compute import Compute, taken
from idal_assets.nnunet.network import build_network
from idal_assets.nnunet.plans import Plans, fingerprint, make_plans
from idal_assets.nnunet.prediction import Predictor
from idal_assets.nnunet.slices import SlicesOnDisk, preprocess
from idal_assets.nnunet.training import train
from idal_assets.settings import ComputeSettings, InferenceSettings, PlansSettings, TrainingSettings

T = TypeVar("T")

SECONDS_OF_TRAINING = 10.0
"""A training is watched for so long, or for `FEWEST` iterations where these take longer."""

FEWEST, MOST = 3, 60
"""Iterations that are watched."""

SKIPPED = 2
"""Iterations that do not count: the first ones prepare operators and memory."""


@dataclass(frozen=True)
class Pace:
    """What single pieces of work take here.

    Attributes:
        read: Seconds to read a case and plan with it.
        prepare: Seconds to preprocess a case and to save it.
        iteration: Seconds of a training iteration.
        segment: Seconds to segment a case, without mirroring.
        bytes_of_case: Size of a preprocessed case on disk.
        bytes_of_network: Size of the weights of a network.
        where: Device, precision and threads.
        own_share: Processor time as a share of what the threads of a CPU could have had meanwhile, 0 to 1; little
            where other processes work too.
    """

    read: float
    prepare: float
    iteration: float
    segment: float
    bytes_of_case: float
    bytes_of_network: float
    where: str
    own_share: float


class Watch:
    """Lets a training run for some seconds, and knows how long an iteration took.

    Args:
        device: Where it computes.
        seconds: How long it is watched after the first iterations, and for `FEWEST` more at least.
        at_first: Called before the first iteration that counts.
        skipped: Iterations that do not count.
        most: Iterations after which it ends, though the time is not over.

    Attributes:
        iteration: Mean seconds of an iteration, once the training has ended.
    """

    def __init__(
        self,
        device: torch.device,
        seconds: float = SECONDS_OF_TRAINING,
        at_first: Callable[[], Any] = lambda: None,
        skipped: int = SKIPPED,
        most: float = math.inf,
    ) -> None:
        self._device, self._seconds, self._at_first = device, seconds, at_first
        self._skipped, self._most = skipped, most
        self.iteration = math.nan

    def __call__(self, items: Sequence[T], description: str) -> Iterator[T]:
        """Yields the items until the time is over."""
        started, counted = math.nan, 0
        for number, item in enumerate(items):
            if number == self._skipped:
                self._at_first()
                started = self._now()
            if number >= self._skipped:
                over = counted >= FEWEST and time.perf_counter() - started > self._seconds
                if over or counted >= self._most:
                    break
                counted += 1
            yield item
        self.iteration = (self._now() - started) / counted

    def _now(self) -> float:
        """The time when the device has done all it was given; in between nobody waits for it, as in training."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def measure(
    cases: Sequence[CaseFiles],
    of_all: int,
    anatomy: Anatomy,
    plans_settings: PlansSettings,
    training: TrainingSettings,
    inference: InferenceSettings,
    settings: ComputeSettings,
) -> Pace:
    """Plans, preprocesses, trains and segments for some seconds, in a temporary folder.

    Args:
        cases: A few cases, with labels.
        of_all: How many cases networks will learn from; nnU-Net bounds its batch by that.
        anatomy: Channels and labels.
        plans_settings: As the study will plan.
        training: As it will train; of its length nothing matters.
        inference: As it will segment.
        settings: Where to compute.

    Raises:
        CaseError: A case is unreadable or has no label.
    """
    begun, busy = time.perf_counter(), time.process_time()
    started = begun
    found = [read_case(files) for files in cases]
    plans = make_plans(fingerprint(found, len(found), anatomy), of_all, plans_settings, anatomy)
    read = (time.perf_counter() - started) / len(found)
    with tempfile.TemporaryDirectory() as place:
        started = time.perf_counter()
        folders = {case.case_id: Path(place) / f"case_{number}" for number, case in enumerate(found)}
        for case in found:
            folders[case.case_id].mkdir()
            preprocess(case, plans).save(folders[case.case_id])
        prepare = (time.perf_counter() - started) / len(found)
        slices = SlicesOnDisk(folders, settings.slices_memory_gb)
        with taken(settings) as compute:
            iteration = _seconds_of_iteration(slices, plans, training, compute)
            segment, network = _seconds_of_case(slices, plans, inference, settings, compute)
        size = sum(file.stat().st_size for file in Path(place).rglob("*") if file.is_file())
    own = (time.process_time() - busy) / (time.perf_counter() - begun) / compute.threads
    return Pace(read, prepare, iteration, segment, size / len(found), network, str(compute), min(1.0, own))


def _seconds_of_iteration(
    cases: SlicesOnDisk, plans: Plans, training: TrainingSettings, compute: Compute
) -> float:
    watch = Watch(compute.device, most=MOST)
    # not shorter than it will be, as a long training is compiled on a card
    length = max(training.iterations, SKIPPED + MOST)
    watched = training.model_copy(update={"epochs": 1, "iterations_per_epoch": length})
    train(cases, plans, watched, compute, seed=0, track=watch)
    return watch.iteration


def _seconds_of_case(
    cases: SlicesOnDisk, plans: Plans, inference: InferenceSettings, settings: ComputeSettings, compute: Compute
) -> tuple[float, float]:
    """Seconds to segment a case, and bytes of a network."""
    weights = build_network(plans, deep_supervision=True).state_dict()
    predictor = Predictor(weights, plans, inference, settings, compute)
    for _ in predictor.segment(cases, cases.names[:1]):
        pass
    started = time.perf_counter()
    for _ in predictor.segment(cases, cases.names):
        pass
    seconds = (time.perf_counter() - started) / len(cases.names)
    return seconds, float(sum(value.numel() * value.element_size() for value in weights.values()))
