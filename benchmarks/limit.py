"""How far training and inference are from what the machine can multiply.

Counts the multiplications that the network needs, measures the rate at which this machine multiplies matrices, and
says which share of that rate the engine reaches, all of its work included, and where the time goes.

    python benchmarks/limit.py
    python benchmarks/limit.py --shape 64 80 16 --base-features 8 --batch-size 8
"""

import argparse
import math
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from measuring import CONSOLE, median_seconds, print_table, processor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from idal_assets.analysis.scores import confusion
from idal_assets.imaging.brain_tumour import BRAIN_TUMOUR
from idal_assets.imaging.phantom import write_phantom
from idal_assets.imaging.readers import read_case, scan_raw_folder
from idal_assets.nnunet.compute import Compute, multiplies_bfloat16
from idal_assets.nnunet.network import build_network
from idal_assets.nnunet.pace import SKIPPED, Watch
from idal_assets.nnunet.patches import PatchSource
from idal_assets.nnunet.plans import Plans, fingerprint, make_plans
from idal_assets.nnunet.prediction import Predictor
from idal_assets.nnunet.slices import SlicesOnDisk, preprocess
from idal_assets.nnunet.training import train
from idal_assets.settings import (
    ComputeSettings,
    InferenceSettings,
    PhantomSettings,
    PlansSettings,
    TrainingSettings,
)

CASES = 4
PARTS = {
    "convolution": ("conv",),
    "normalisation": ("group_norm", "batch_norm", "ChannelsLastNorm"),
    "activation": ("leaky_relu",),
    "optimiser": ("_fused_", "vector_norm"),
}


def matrix_rate(precision: torch.dtype, device: torch.device, repeats: int = 5) -> float:
    """Best rate of square matrix products, in multiplications and additions a second."""
    rates = []
    for size in (4096, 8192) if device.type == "cuda" else (1024, 2048):
        one, other = (torch.randn(size, size, dtype=precision, device=device) for _ in range(2))
        result = torch.empty_like(one)

        def multiply(one: torch.Tensor = one, other: torch.Tensor = other, out: torch.Tensor = result) -> None:
            torch.mm(one, other, out=out)
            if device.type == "cuda":
                torch.cuda.synchronize()

        rates.append(2 * size**3 / median_seconds(multiply, repeats))
    return max(rates)


def operations(plans: Plans, training: bool, batch: int) -> float:
    """Multiplications and additions of the network on a batch, forwards and in training backwards."""
    network = build_network(plans, deep_supervision=training)
    image = torch.zeros(batch, 4, *plans.patch_size)
    with FlopCounterMode(display=False) as counter:
        outputs = network(image)
        if training:
            sum(output.mean() for output in outputs).backward()
    return float(counter.get_total_flops())


def time_training(cases: SlicesOnDisk, plans: Plans, compute: Compute, iterations: int) -> float:
    """Seconds of an iteration of `train`, with its batch, its loss, its optimiser and its history."""
    watch = Watch(compute.device, seconds=math.inf)
    settings = TrainingSettings(epochs=1, iterations_per_epoch=iterations + SKIPPED)
    train(cases, plans, settings, compute, seed=0, track=watch)
    return watch.iteration


def time_inference(cases: SlicesOnDisk, plans: Plans, compute: Compute, repeats: int) -> float:
    """Seconds to segment and score all cases."""
    predictor = _predictor(plans, compute)
    return median_seconds(lambda: _segment(predictor, cases), repeats)


def _predictor(plans: Plans, compute: Compute) -> Predictor:
    weights = build_network(plans, deep_supervision=True).state_dict()
    return Predictor(weights, plans, InferenceSettings(), ComputeSettings(), compute)


def _segment(predictor: Predictor, cases: SlicesOnDisk) -> None:
    for case, labels in predictor.segment(cases, cases.names):
        assert case.truth is not None
        confusion(case.truth, labels, BRAIN_TUMOUR)


def shares_of_operators(table: Iterable) -> Mapping[str, float]:
    """Seconds of the operators that a profile recorded, by part of the network."""
    seconds = dict.fromkeys([*PARTS, "other operators"], 0.0)
    for event in table:
        part = next(
            (name for name, words in PARTS.items() if any(word in event.key for word in words)), "other operators"
        )
        seconds[part] += event.self_cpu_time_total / 1e6
    return seconds


def breakdown_of_training(cases: SlicesOnDisk, plans: Plans, compute: Compute, seconds: float) -> list[list[str]]:
    """Where the time of an iteration goes."""
    iterations = 5
    settings = TrainingSettings(epochs=1, iterations_per_epoch=iterations + SKIPPED)
    profiler = profile(activities=[ProfilerActivity.CPU])
    watch = Watch(compute.device, seconds=math.inf, at_first=profiler.start)
    train(cases, plans, settings, compute, seed=0, track=watch)
    profiler.stop()
    operators = shares_of_operators(profiler.key_averages())
    parts = {name: total / iterations for name, total in operators.items()}
    source = PatchSource(cases, plans, settings.foreground_share, 0, compute.device)
    torch.set_num_threads(1)
    numbers = iter(range(1000))
    data = median_seconds(lambda: source.batch(next(numbers)), 9)
    parts["data, while the network computes" if compute.overlaps else "data"] = data
    return _as_rows(parts, seconds)


def breakdown_of_inference(cases: SlicesOnDisk, plans: Plans, compute: Compute, seconds: float) -> list[list[str]]:
    """Where the time of segmenting all cases goes."""
    predictor = _predictor(plans, compute)
    _segment(predictor, cases)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        _segment(predictor, cases)
    parts = dict(shares_of_operators(profiled.key_averages()))
    truths = [cases[name].truth for name in cases.names]
    parts["Dice"] = median_seconds(
        lambda: [confusion(truth, truth, BRAIN_TUMOUR) for truth in truths if truth is not None], 5
    )
    return _as_rows(parts, seconds)


def _as_rows(parts: Mapping[str, float], seconds: float) -> list[list[str]]:
    rows = [[name, f"{1e3 * part:.1f} ms", f"{100 * part / seconds:.0f} %"] for name, part in parts.items()]
    return [*rows, ["all, without the profiler", f"{1e3 * seconds:.1f} ms", "100 %"]]


def _prepare(arguments: argparse.Namespace, folder: Path) -> tuple[SlicesOnDisk, Plans]:
    raw = arguments.raw
    if raw is None:
        raw = folder / "phantom"
        x, y, _ = arguments.shape
        settings = PhantomSettings(
            train_cases=CASES,
            test_cases=0,
            faults=0,
            rare=0,
            shape=arguments.shape,
            spacing=(160 / x, 192 / y, 5.0),
        )
        write_phantom(raw, settings)
    cases = [read_case(found) for found in scan_raw_folder(raw).cases[:CASES]]
    settings_of_plans = PlansSettings(
        memory_gb=arguments.memory_gb, base_features=arguments.base_features, batch_size=arguments.batch_size
    )
    plans = make_plans(fingerprint(cases, len(cases), BRAIN_TUMOUR), len(cases), settings_of_plans, BRAIN_TUMOUR)
    folders = {case.case_id: folder / case.case_id for case in cases}
    for case in cases:
        folders[case.case_id].mkdir()
        preprocess(case, plans).save(folders[case.case_id])
    return SlicesOnDisk(folders, memory_gb=8), plans


def main() -> None:
    """Reads the command line, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw", type=Path, help="folder with raw cases; without it a phantom")
    parser.add_argument("--shape", type=int, nargs=3, default=(160, 192, 24), help="of the phantom")
    parser.add_argument("--base-features", type=int, default=32, help="nnU-Net's default is 32")
    parser.add_argument("--memory-gb", type=float, default=1.0, help="target of nnU-Net's planner")
    parser.add_argument("--batch-size", type=int, help="instead of the planner's")
    parser.add_argument("--precision", choices=("auto", "fp32", "mixed"), default="auto")
    parser.add_argument("--iterations", type=int, default=12)
    arguments = parser.parse_args()
    compute = Compute.choose(ComputeSettings(precision=arguments.precision))
    with tempfile.TemporaryDirectory() as folder:
        cases, plans = _prepare(arguments, Path(folder))
        _measure(cases, plans, compute, arguments.iterations)


def _measure(cases: SlicesOnDisk, plans: Plans, compute: Compute, iterations: int) -> None:
    torch.set_num_threads(compute.threads)
    precisions = {"bf16": torch.bfloat16, "fp32": torch.float32}
    if not multiplies_bfloat16(compute.device.type):
        # a processor that has to emulate it would take minutes to say how slow that is
        del precisions["bf16"]
    rates = {name: matrix_rate(precision, compute.device) for name, precision in precisions.items()}
    batch = plans.configuration.batch_size
    per_iteration = time_training(cases, plans, compute, iterations)
    per_pass = time_inference(cases, plans, compute, 3)
    slices = sum(cases[name].image.shape[1] for name in cases.names)
    products = ", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in rates.items())
    CONSOLE.print(
        f"{processor()}; {compute}; matrix products: {products}\n"
        f"patch {plans.patch_size}, batch {batch}, {slices} slices"
    )
    reached = {
        "training": operations(plans, True, batch) / per_iteration,
        "inference with Dice": slices * operations(plans, False, 1) / per_pass,
    }
    times = {"training": per_iteration / batch, "inference with Dice": per_pass / slices}
    rows = [
        [
            name,
            f"{1e3 * times[name]:.1f} ms",
            f"{rate / 1e9:.0f}",
            *(f"{100 * rate / limit:.0f} %" for limit in rates.values()),
        ]
        for name, rate in reached.items()
    ]
    of_limits = (f"of {name}" for name in rates)
    print_table("Share of the limit", ("", "a slice", "GFLOP/s", *of_limits), rows)
    columns = ("part", "time", "share")
    print_table("One training iteration", columns, breakdown_of_training(cases, plans, compute, per_iteration))
    print_table("Segmenting all slices", columns, breakdown_of_inference(cases, plans, compute, per_pass))


if __name__ == "__main__":
    main()
