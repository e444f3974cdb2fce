"""What a card makes of the experiment: the same numbers as a CPU, how fast, and the hours that the thesis takes.

Runs within eight minutes on a machine that has nothing but PyTorch, NumPy, SciPy and a card. It needs no Dagster
and no installation of this package: a copy of the repository and the wheels of `on_a_card.txt` (29 MB; what
nnU-Net imports for its readers and charts is left out).

    pip wheel --no-deps --constraint constraints.txt --requirement benchmarks/on_a_card.txt --wheel-dir wheels
    pip install --no-deps --no-index --target site wheels/*.whl
    PYTHONPATH=site python benchmarks/on_a_card.py

Three brains with every fifth slice stand for whole ones, as writing these would take longer than all the rest.
`--device cpu --profile tiny --shape 64 80 16` shows on any machine that it runs.
"""

import argparse
import importlib.abc
import importlib.machinery
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

UNUSED = ("SimpleITK", "cc3d", "httpx", "matplotlib", "seaborn", "skimage", "sklearn", "tifffile")
"""What nnU-Net and blosc2 import for readers, charts, splits and addresses; here nothing of it is called."""


class _Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds modules of `UNUSED` that are not installed: each is empty, and has every name."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> Any:
        if name.split(".")[0] not in UNUSED:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = MagicMock(name=spec.name)
        module.__path__ = []
        return module

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing to execute."""


# last, so that what is installed is found first
sys.meta_path.append(_Absent())

import torch  # noqa: E402
from limit import matrix_rate, operations  # noqa: E402
from measuring import CONSOLE, print_table, processor  # noqa: E402
from torch import nn  # noqa: E402

from idal_assets.analysis.scores import confusion, score_table  # noqa: E402
from idal_assets.analysis.words import human_time  # noqa: E402
from idal_assets.imaging.brain_tumour import BRAIN_TUMOUR  # noqa: E402
from idal_assets.imaging.phantom import write_phantom  # noqa: E402
from idal_assets.imaging.readers import read_case, scan_raw_folder  # noqa: E402
from idal_assets.nnunet.compute import Compute  # noqa: E402
from idal_assets.nnunet.network import accelerate, build_network, compiled, memory_format  # noqa: E402
from idal_assets.nnunet.pace import Pace, Watch  # noqa: E402
from idal_assets.nnunet.patches import PatchSource  # noqa: E402
from idal_assets.nnunet.plans import Plans, fingerprint, make_plans  # noqa: E402
from idal_assets.nnunet.prediction import Predictor  # noqa: E402
from idal_assets.nnunet.slices import SlicesOnDisk, preprocess  # noqa: E402
from idal_assets.nnunet.training import Weights, train  # noqa: E402
from idal_assets.profile import Profile, load_profile  # noqa: E402
from idal_assets.settings import EarlyStopSettings, PhantomSettings  # noqa: E402
from idal_assets.study.graph import GRAPH  # noqa: E402
from idal_assets.study.outlook import WORK, Numbers, Work  # noqa: E402
from idal_assets.study.study import Study  # noqa: E402

CASES = 3
DATASET = 484
"""Cases of MSD Task01_BrainTumour, which nnU-Net's planner and the thesis's experiment are told of."""

CHECKED = "demo"
"""Profile whose small networks a CPU trains in seconds."""

BASELINE_ITERATIONS = 100
"""Of the network that the checked donor starts from."""

SAME_WEIGHTS = {"fp32": 0.002, "bfloat16": 0.01}
"""How far a Dice of the same weights may be from the CPU's: a card rounds otherwise, and multiplies in TF32."""

SAME_TRAINING = 0.03
"""How far the mean Dice of a row may be that the card has trained itself; another seed is further off."""

AS_CLOSE, SAME_ROUNDING = 1.5, 1e-3
"""A compiled network may be so many times further from fp32 than it is uncompiled, or so far at least."""

SKIPPED = 3
"""Iterations that do not count: the first ones compile and prepare memory."""

PATIENCE = 120.0
"""Seconds that trainings at once wait for each other."""

BRAIN = (160, 192, 155)
"""Millimetres, and slices of 1 mm, of a brain of BraTS without what is around it."""

EARLY = EarlyStopSettings(share=0.25, contested=0)


@dataclass(frozen=True)
class Material:
    """Cases, ready to train on.

    Attributes:
        folder: Where they, the plans and nothing else are.
        cases: The preprocessed cases.
        plans: The plans.
        read: Seconds to read a brain and plan with it.
        prepare: Seconds to preprocess a brain and to save it.
        bytes_of_case: Size of a preprocessed brain on disk.
    """

    folder: Path
    cases: SlicesOnDisk
    plans: Plans
    read: float
    prepare: float
    bytes_of_case: float

    @property
    def slices(self) -> int:
        """Slices of all cases."""
        return sum(self.cases[name].image.shape[1] for name in self.cases.names)


def prepare(profile: Profile, shape: Sequence[int], folder: Path) -> Material:
    """Writes phantoms of a shape, plans as the profile does for a whole dataset, and preprocesses them.

    Returns:
        The phantoms; seconds and bytes are those of a brain with all its slices, as measured on fewer of them.
    """
    spacing = tuple(extent / voxels for extent, voxels in zip(BRAIN, shape, strict=True))
    few = {"train_cases": CASES, "test_cases": 0, "faults": 0, "rare": 0, "shape": shape, "spacing": spacing}
    write_phantom(folder / "phantom", PhantomSettings(**few))
    started = time.perf_counter()
    found = [read_case(files) for files in scan_raw_folder(folder / "phantom").cases]
    plans = make_plans(fingerprint(found, len(found), BRAIN_TUMOUR), DATASET, profile.plans, BRAIN_TUMOUR)
    read = time.perf_counter() - started
    started = time.perf_counter()
    plans.save(folder)
    for case in found:
        (folder / "slices" / case.case_id).mkdir(parents=True)
        preprocess(case, plans).save(folder / "slices" / case.case_id)
    spent = time.perf_counter() - started
    size = sum(file.stat().st_size for file in (folder / "slices").rglob("*") if file.is_file())
    whole = BRAIN[2] / shape[2] / CASES
    return Material(folder, _slices(folder), plans, read * whole, spent * whole, size * whole)


def _slices(folder: Path) -> SlicesOnDisk:
    return SlicesOnDisk({path.name: path for path in sorted((folder / "slices").iterdir())}, memory_gb=16)


def check_numbers(material: Material, profile: Profile, card: Compute) -> bool:
    """Prints a row of the matrix by the CPU and by the card, and says whether they agree."""
    cpu = replace(card, device=torch.device("cpu"), mixed=None, compiles=False)
    fp32, mixed = replace(card, mixed=None, compiles=False), replace(card, compiles=False)
    shorter = profile.baseline.model_copy(update={"epochs": 1, "iterations_per_epoch": BASELINE_ITERATIONS})
    baseline = train(material.cases, material.plans, shorter, cpu, seed=0).weights
    weights = _fine_tuned(material, profile, cpu, baseline, seed=0)
    truth = _row(material, profile, cpu, weights)
    rows, agree = [["trained and segmented by the CPU", f"{truth.mean():.4f}", "", ""]], True
    for compute in (fp32, mixed) if mixed.mixed else (fp32,):
        name = str(compute.mixed or "fp32").removeprefix("torch.")
        found = _row(material, profile, compute, weights)
        furthest = float((found - truth).abs().max())
        agree &= furthest <= SAME_WEIGHTS[name]
        rows.append([f"the same weights, {name}", *_compared(found, furthest, SAME_WEIGHTS[name])])
        own = _row(material, profile, compute, _fine_tuned(material, profile, compute, baseline, seed=0))
        away = abs(float(own.mean() - truth.mean()))
        agree &= away <= SAME_TRAINING
        rows.append([f"trained by the card, {name}", *_compared(own, away, SAME_TRAINING)])
    other = _row(material, profile, cpu, _fine_tuned(material, profile, cpu, baseline, seed=1))
    away = abs(float(other.mean() - truth.mean()))
    rows.append(["another seed, by the CPU", f"{other.mean():.4f}", f"{away:.4f}", ""])
    print_table("A row of the matrix", ("", "mean Dice", "away from the CPU's", "allowed"), rows)
    return agree


def _compared(row: torch.Tensor, away: float, allowed: float) -> list[str]:
    return [f"{row.mean():.4f}", f"{away:.4f}", f"{allowed}"]


def _fine_tuned(material: Material, profile: Profile, compute: Compute, baseline: Weights, seed: int) -> Weights:
    """Weights after a training on the first case, which is the donor."""
    name = material.cases.names[0]
    donor = SlicesOnDisk({name: material.folder / "slices" / name}, memory_gb=1)
    return train(donor, material.plans, profile.case_model, compute, seed, initial=baseline).weights


def _row(material: Material, profile: Profile, compute: Compute, weights: Weights) -> torch.Tensor:
    """Dice of every region of every case."""
    predictor = Predictor(weights, material.plans, profile.inference, profile.compute, compute)
    cells = []
    for case, labels in predictor.segment(material.cases, material.cases.names):
        table = score_table(confusion(case.require_truth(), labels, BRAIN_TUMOUR), BRAIN_TUMOUR.regions)
        cells += list(table["dice"])
    return torch.tensor(cells, dtype=torch.float64)


def _share(name: str, seconds: float, operations_of_slice: float, limit: float) -> list[str]:
    """A line of a table: seconds of a slice, and which share of the rate of matrix products that is."""
    rate = operations_of_slice / seconds
    return [name, f"{1e3 * seconds:.2f} ms", f"{1 / seconds:.0f}", f"{rate / 1e12:.3g}", f"{rate / limit:.0%}"]


def check_compiled(material: Material, profile: Profile, compute: Compute) -> bool:
    """Says whether a compiled network is as close to fp32 as it is uncompiled, outputs and gradients."""
    share = profile.case_model.foreground_share
    batch = PatchSource(material.cases, material.plans, share, 0, compute.device).batch(0)
    image = batch.image.contiguous(memory_format=memory_format(material.plans, compute))
    torch.manual_seed(0)
    network = accelerate(build_network(material.plans, deep_supervision=True), material.plans, compute).train()
    # in parts, as fp32 takes twice the memory that the plans were made for
    truth = _answer(network, network, image.split(8), replace(compute, mixed=None))
    usual = _away(_answer(network, network, [image], compute), truth)
    fast = compiled(network, compute, profile.case_model.iterations)
    away = _away(_answer(network, fast, [image], compute), truth)
    CONSOLE.print(f"outputs and gradients are {away:.2%} away from fp32 where compiled, {usual:.2%} where not")
    return away <= max(AS_CLOSE * usual, SAME_ROUNDING)


def _answer(
    network: nn.Module, forward: Callable[[torch.Tensor], Any], images: Sequence[torch.Tensor], compute: Compute
) -> list[torch.Tensor]:
    """The outputs at full resolution, and all gradients for the sum of the squares of all outputs."""
    network.zero_grad(set_to_none=True)
    first = []
    for image in images:
        with compute.autocast():
            outputs = [output.float() for output in forward(image)]
        torch.stack([output.square().sum() for output in outputs]).sum().backward()
        first.append(outputs[0].detach())
    gradients = [value.grad.flatten() for value in network.parameters() if value.grad is not None]
    return [torch.cat(first), torch.cat(gradients)]


def _away(found: Sequence[torch.Tensor], truth: Sequence[torch.Tensor]) -> float:
    return max(float((one - other).norm() / other.norm()) for one, other in zip(found, truth, strict=True))


def time_training(material: Material, profile: Profile, compute: Compute, watch: Watch) -> float:
    """Seconds of an iteration of a case model."""
    train(material.cases, material.plans, profile.case_model, compute, seed=0, track=watch)
    return watch.iteration


def time_segmenting(material: Material, profile: Profile, compute: Compute, seconds: float) -> float:
    """Seconds to segment a slice of a case that is in memory."""
    weights = build_network(material.plans, deep_supervision=True).state_dict()
    predictor = Predictor(weights, material.plans, profile.inference, profile.compute, compute)
    taken: list[float] = []
    while len(taken) < 2 or sum(taken) < seconds:
        started = time.perf_counter()
        for _ in predictor.segment(material.cases, material.cases.names):
            pass
        taken.append(time.perf_counter() - started)
    return min(taken[1:]) / material.slices


def time_side_by_side(count: int, arguments: argparse.Namespace, folder: Path, compiles: bool) -> float:
    """Iterations a second of some trainings at once on one card, all together."""
    ready = folder / f"ready_{count}"
    ready.mkdir()
    command = [sys.executable, __file__, "--device", arguments.device, "--profile", arguments.profile]
    command += ["--seconds", str(arguments.seconds), *(["--compiled"] if compiles else [])]
    runs = [
        subprocess.Popen(
            [*command, "--one", str(folder), str(number), str(count)], stdout=subprocess.PIPE, text=True
        )
        for number in range(count)
    ]
    rates = [1 / json.loads(run.communicate()[0].splitlines()[-1]) for run in runs]
    return sum(rates)


def _watch(compute: Compute, arguments: argparse.Namespace, at_first: Callable[[], Any] = lambda: None) -> Watch:
    return Watch(compute.device, arguments.seconds, at_first, SKIPPED)


def _meet(own: Path, all_of_them: Sequence[Path]) -> None:
    """Waits until the trainings beside this one have begun too, each of which says so by a file."""
    own.touch()
    deadline = time.monotonic() + PATIENCE
    while not all(path.exists() for path in all_of_them):
        if time.monotonic() > deadline:
            raise TimeoutError("a training beside this one did not begin")
        time.sleep(0.01)


def _one_of_several(arguments: argparse.Namespace, profile: Profile, compute: Compute) -> None:
    place, number, count = Path(arguments.one[0]), int(arguments.one[1]), int(arguments.one[2])
    plans = Plans.load(place)
    material = Material(place, _slices(place), plans, 0, 0, 0)
    ready = [place / f"ready_{count}" / str(other) for other in range(count)]
    watch = _watch(compute, arguments, at_first=lambda: _meet(ready[number], ready))
    compute = replace(compute, compiles=arguments.compiled)
    print(json.dumps(time_training(material, profile, compute, watch)))


def hours(profile: Profile, pace: Pace) -> float:
    """Hours that the experiment of a profile takes one worker, from reading the cases to the report."""
    with tempfile.TemporaryDirectory() as nowhere:
        study = Study(profile, Path(nowhere), raw=None, profile_source=profile.name)
        names = [f"BRATS_{number:03d}" for number in range(1, DATASET + 1)]
        numbers = Numbers.of_names(study, names, patients=0)
    seconds = 0.0
    for name, node in GRAPH.items():
        work = WORK[name](numbers) if name in WORK else Work()
        seconds += numbers.artifacts(node.partition) * work.seconds(pace)
    return seconds / 3600


def main() -> None:
    """Reads the command line, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="thesis", help="whose plans and lengths are taken")
    parser.add_argument("--shape", type=int, nargs=3, default=(160, 192, 31), help="voxels of a phantom")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--seconds", type=float, default=15, help="how long each thing is watched")
    parser.add_argument("--most", type=int, default=3, help="models at once on the card, at most")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--compiled", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    profile = load_profile(arguments.profile)
    compute = Compute.choose(profile.compute.model_copy(update={"device": arguments.device}))
    if arguments.one:
        _one_of_several(arguments, profile, compute)
        return
    CONSOLE.print(f"{processor()}; {compute}; PyTorch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        checked = load_profile(CHECKED)
        small = prepare(checked, (64, 80, 16), Path(folder) / "small")
        agree = check_numbers(small, checked, compute)
        whole = prepare(profile, arguments.shape, Path(folder) / "whole")
        agree &= measure(whole, profile, compute, arguments)
    if not agree:
        CONSOLE.print("[bold red]The card's numbers are not those of the CPU.[/]")
        sys.exit(1)


def measure(material: Material, profile: Profile, compute: Compute, arguments: argparse.Namespace) -> bool:
    """Times training and inference, alone and several at once, and says what the experiment takes.

    Returns:
        Whether the compiled network computes what the other one does.
    """
    agree = True
    plans, batch = material.plans, material.plans.configuration.batch_size
    CONSOLE.print(
        f"patch {plans.patch_size}, batch {batch}, {profile.plans.base_features} features, "
        f"{material.slices} slices"
    )
    limit = matrix_rate(compute.mixed or torch.float32, compute.device)
    per_slice = {"training": operations(plans, True, 1), "segmenting": operations(plans, False, 1)}
    eager = replace(compute, compiles=False)
    iterations = {"": time_training(material, profile, eager, _watch(compute, arguments))}
    if compute.compiles:
        agree = check_compiled(material, profile, compute)
        watch = _watch(compute, arguments)
        iterations[", compiled"] = time_training(material, profile, compute, watch)
    best = min(iterations, key=lambda name: iterations[name])
    segment = time_segmenting(material, profile, eager, arguments.seconds)
    rows = [
        _share(f"training{name}", seconds / batch, per_slice["training"], limit)
        for name, seconds in iterations.items()
    ]
    rows.append(_share("segmenting", segment, per_slice["segmenting"], limit))
    columns = ("", "a slice", "slices a second", "TFLOP/s", f"of {limit / 1e12:.3g} TFLOP/s")
    print_table("Alone", columns, rows)
    if compute.device.type == "cuda":
        CONSOLE.print(f"most memory of the card: {torch.cuda.max_memory_allocated() / 1e9:.1f} GB")
    rates = {1: 1 / iterations[best]}
    for count in range(2, arguments.most + 1):
        rates[count] = time_side_by_side(count, arguments, material.folder, bool(best))
    rows = [[str(count), f"{rate:.2f}", f"{rate / rates[1]:.2f}"] for count, rate in rates.items()]
    print_table("Models at once on the card", ("models", "iterations a second", "times"), rows)
    network = sum(value.numel() * 4 for value in build_network(plans, deep_supervision=True).parameters())
    pace = Pace(
        read=material.read,
        prepare=material.prepare,
        iteration=iterations[best],
        segment=segment * BRAIN[2],
        bytes_of_case=material.bytes_of_case,
        bytes_of_network=network,
        where=str(compute),
        own_share=1,
    )
    print_hours(profile, pace, max(rates.values()) / rates[1])
    return agree


def print_hours(profile: Profile, pace: Pace, times: float) -> None:
    """Says what the experiment takes, with full trainings and with those that stop early.

    Args:
        profile: The experiment.
        pace: Of one model alone.
        times: How many times more iterations a second several models at once make.
    """
    early = profile.model_copy(update={"early_stop": EARLY})
    several = replace(pace, iteration=pace.iteration / times)
    rows = [
        [name, *(f"{hours(chosen, one):.1f} h" for one in (pace, several))]
        for name, chosen in (("full trainings", profile), ("case models that stop early", early))
    ]
    print_table(f"The experiment {profile.name!r}", ("", "one model at a time", "several at once"), rows)
    full, stopped = hours(profile, several), hours(early, several)
    CONSOLE.print(
        f"a card: {human_time(1000 * pace.iteration)} for 1000 iterations; the experiment {full:.1f} hours, "
        f"with early stop {stopped:.1f} hours"
    )


if __name__ == "__main__":
    main()
