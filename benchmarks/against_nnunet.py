"""How much faster than nnU-Net's own trainer and predictor a row of the matrix is, side by side.

A row is one donor's fine-tuning and its score on all receivers. Both sides start from the same baseline and train
on the same variants with the same plans, batch, patch, number of iterations, optimiser and rate; both sides take
turns, several times. nnU-Net runs as its commands do: one process trains, one segments, anew for each donor, so
that a few donors tell what all cost. This project makes the rows of all donors with a worker for each core, as
`idal run --workers` does, and their start counts. nnU-Net does the same work both ways: its donors one after the
other on all cores, as somebody types its commands, and as many at once as this project has workers.

Times are those of the machine: where rows are made side by side, that of one is divided by how many there are.

    python benchmarks/against_nnunet.py
    python benchmarks/against_nnunet.py --profile mini --raw FOLDER --base-features 32
"""

import argparse
import json
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from measuring import CONSOLE, in_fresh_process, print_table, processor
from workload import (
    LEARNING_RATE,
    NnunetFolders,
    like_nnunet,
    prepare_study,
    write_for_nnunet,
    write_profile,
)

from idal_assets.analysis.scores import confusion, score_table
from idal_assets.cores import usable_cores
from idal_assets.nnunet.model_folder import CHECKPOINT
from idal_assets.nnunet.plans import Plans
from idal_assets.nnunet.slices import load_slices
from idal_assets.profile import load_profile
from idal_assets.study.study import Study


@dataclass(frozen=True)
class Row:
    """What one row took of the machine.

    Attributes:
        donor: Whose row it is.
        iteration_seconds: Seconds of one training iteration with its batch; of this project a fine-tuning's by
            their number.
        training_seconds: Fine-tuning, without the start of a process.
        segmenting_seconds: Segmenting and scoring all receivers, without the start of a process.
        row_seconds: Everything, with the start of processes.
        peak_memory_gb: Of all processes together, those of other rows at the same time too.
        dice: Of the first region (the whole tumour of a brain), mean over the receivers.
    """

    donor: str
    iteration_seconds: float
    training_seconds: float
    segmenting_seconds: float
    row_seconds: float
    peak_memory_gb: float
    dice: float


class Sides:
    """Both sides, ready to make rows of the same study.

    Args:
        study: A study up to the variants of the donors.
        profile: Its profile's file.
        donors: The donors whose rows nnU-Net makes.
        root: Folder for what nnU-Net reads and writes.
        iterations: Iterations of a fine-tuning.
        workers: How many of this project's rows are made at once.
    """

    def __init__(
        self, study: Study, profile: Path, donors: list[str], root: Path, iterations: int, workers: int
    ) -> None:
        self.study, self._profile, self._donors, self._iterations = study, profile, donors, iterations
        self._workers = workers
        self._folders: NnunetFolders = write_for_nnunet(study, donors, root)
        self._receivers = root / "receivers.json"
        channels = {name: self._folders.images(name) for name in study.cohort.receivers}
        self._receivers.write_text(json.dumps(channels))

    def ours(self) -> list[Row]:
        """Rows of this project, of all donors."""
        for asset in ("case_model", "dice_row"):
            shutil.rmtree(self.study.path(asset), ignore_errors=True)
        study = self.study
        found = in_fresh_process(
            *("our_rows.py", study.folder.root, self._profile, study.raw, self._workers), environment=os.environ
        )
        return [self._our_row(row, found) for row in found["rows"]]

    def _our_row(self, row: dict[str, Any], process: dict[str, Any]) -> Row:
        return Row(
            iteration_seconds=row["train_seconds"] / self._iterations / self._workers,
            training_seconds=row["train_seconds"] / self._workers,
            segmenting_seconds=row["segment_seconds"] / self._workers,
            row_seconds=process["process_seconds"] / len(process["rows"]),
            peak_memory_gb=process["together_gb"],
            dice=float(np.nanmean(list(row["dice"].values()))),
            donor=row["donor"],
        )

    def nnunets(self, lean: bool, at_once: int = 1) -> list[Row]:
        """Rows of nnU-Net, each in two processes of its own."""
        with ThreadPoolExecutor(at_once) as pool:
            return list(pool.map(lambda donor: self._nnunets_row(donor, lean, at_once), self._donors))

    def _nnunets_row(self, donor: str, lean: bool, at_once: int) -> Row:
        threads = max(1, usable_cores() // at_once)
        # nnU-Net's validation exports with eight processes unless told how many there shall be.
        processes = {"nnUNet_def_n_proc": str(usable_cores())}
        environment = {**os.environ, **processes, **self._folders.environment(donor)}
        if at_once > 1:
            environment["OMP_NUM_THREADS"] = str(threads)
        if lean:
            # batches in turn with the network: on few cores faster than in a process that takes a core away
            environment["nnUNet_n_proc_DA"] = "0"
        switches = [f"--threads={threads}", *(["--lean"] if lean else [])]
        shutil.rmtree(environment["nnUNet_results"], ignore_errors=True)
        trained = in_fresh_process(
            "nnunet_row.py",
            *switches,
            "train",
            f"--iterations={self._iterations}",
            f"--learning-rate={LEARNING_RATE}",
            f"--initial={self.study.path('baseline_weights') / CHECKPOINT}",
            environment=environment,
        )
        output = Path(environment["nnUNet_results"]) / "segmentations"
        segmented = in_fresh_process(
            "nnunet_row.py",
            *switches,
            "predict",
            f"--model={trained['model']}",
            f"--receivers={self._receivers}",
            f"--output={output}",
            environment=environment,
        )
        return Row(
            iteration_seconds=trained["iteration_seconds"] / at_once,
            training_seconds=(trained["train_seconds"] + trained["validation_seconds"]) / at_once,
            segmenting_seconds=segmented["segment_seconds"] / at_once,
            row_seconds=(trained["process_seconds"] + segmented["process_seconds"]) / at_once,
            peak_memory_gb=max(trained["together_gb"], segmented["together_gb"]) * at_once,
            dice=float(np.nanmean([self._dice(name, output) for name in self.study.cohort.receivers])),
            donor=donor,
        )

    def _dice(self, name: str, output: Path) -> float:
        truth = np.asanyarray(nib.load(self._folders.label(name)).dataobj).astype(np.uint8)
        predicted = np.asanyarray(nib.load(output / f"{name}.nii.gz").dataobj).astype(np.uint8)
        anatomy = self.study.cohort.anatomy
        table = score_table(confusion(truth, predicted, anatomy), anatomy.regions).set_index("region")
        return float(table.loc[anatomy.composites[0], "dice"])


def median_of(rows: list[Row], name: str) -> float:
    """Median of an attribute of some rows."""
    return float(np.median([getattr(row, name) for row in rows]))


def compare(title: str, ours: list[Row], theirs: list[Row], slices: int, cells: int) -> float:
    """Prints a table of both sides and returns how many times faster a row is."""
    lines = []
    for label, name, scale, unit in (
        # this project's with all that a fine-tuning reads, prepares and writes, as it is not watched from outside
        ("one training iteration", "iteration_seconds", 1e3, "ms"),
        ("fine-tuning", "training_seconds", 1, "s"),
        ("segmenting and scoring all receivers", "segmenting_seconds", 1, "s"),
        ("complete row, with the start of processes", "row_seconds", 1, "s"),
    ):
        one, other = median_of(ours, name), median_of(theirs, name)
        lines.append((label, f"{one * scale:.1f} {unit}", f"{other * scale:.1f} {unit}", f"{other / one:.1f}"))
    rates = [slices / median_of(rows, "segmenting_seconds") for rows in (ours, theirs)]
    lines.append(("slices per second", *(f"{rate:.1f}" for rate in rates), f"{rates[0] / rates[1]:.1f}"))
    per_cell = [median_of(rows, "row_seconds") / cells for rows in (ours, theirs)]
    lines.append(
        ("per cell of the row", *(f"{one:.2f} s" for one in per_cell), f"{per_cell[1] / per_cell[0]:.1f}")
    )
    memory = [max(row.peak_memory_gb for row in rows) for rows in (ours, theirs)]
    lines.append(
        ("peak memory of all processes", *(f"{one:.2f} GB" for one in memory), f"{memory[1] / memory[0]:.1f}")
    )
    timed = {row.donor for row in theirs}
    dice = [[row.dice for row in rows if row.donor in timed] for rows in (ours, theirs)]
    shown = [f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})" for values in dice]
    lines.append(("mean Dice of a row, first region (range)", *shown, ""))
    print_table(title, ("", "IDAL Assets", "nnU-Net", "times"), lines)
    return median_of(theirs, "row_seconds") / median_of(ours, "row_seconds")


def main() -> None:
    """Reads the command line, runs both sides in turn and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="demo", help="profile whose plans and lengths are taken")
    parser.add_argument("--raw", type=Path, help="folder with raw cases; without it the profile's phantom")
    parser.add_argument("--base-features", type=int, help="width of the network instead of the profile's")
    parser.add_argument("--iterations", type=int, help="iterations of a fine-tuning instead of the profile's")
    parser.add_argument("--baseline-iterations", type=int, default=100)
    parser.add_argument("--donors", type=int, default=2, help="rows that nnU-Net makes in a round")
    parser.add_argument("--workers", type=int, default=usable_cores(), help="rows that are made side by side")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--same-work-only", action="store_true", help="leave out the second table")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _benchmark(arguments, Path(folder))


def _benchmark(arguments: argparse.Namespace, folder: Path) -> None:
    profile = folder / "benchmark.yaml"
    _write_profile(arguments, profile)
    CONSOLE.print("Preparing: cohort, plans, slices, baseline and variants")
    study = prepare_study(folder / "data", profile, arguments.raw)
    workers = arguments.workers
    # as many as make whole groups side by side
    donors = study.cohort.donors[: -(-arguments.donors // workers) * workers]
    iterations = study.profile.case_model.iterations
    sides = Sides(study, profile, donors, folder / "nnunet", iterations, workers)
    ours: list[Row] = []
    lean: dict[int, list[Row]] = {at_once: [] for at_once in sorted({1, workers})}
    default: list[Row] = []
    for number in range(arguments.rounds):
        CONSOLE.print(f"Round {number + 1} of {arguments.rounds}")
        ours += sides.ours()
        for at_once, rows in lean.items():
            rows += sides.nnunets(lean=True, at_once=at_once)
        if not arguments.same_work_only:
            default += sides.nnunets(lean=False)
    receivers = study.cohort.receivers
    shapes = [load_slices(study.path("case_slices", name), name).require_label().shape for name in receivers]
    slices = sum(shape[0] for shape in shapes)
    _print_work(study, iterations, slices)
    times = {
        at_once: compare(f"Same work, {at_once} of nnU-Net's at once", ours, rows, slices, len(receivers))
        for at_once, rows in lean.items()
    }
    same = f"same work: {times[1]:.1f} times faster"
    if workers > 1:
        same += f" ({times[workers]:.1f} than {workers} of nnU-Net's at once)"
    if arguments.same_work_only:
        CONSOLE.print(same)
        return
    usual = compare("Default against default", ours, default, slices, len(receivers))
    CONSOLE.print(f"{same}; default against default: {usual:.1f} times faster")


def _write_profile(arguments: argparse.Namespace, path: Path) -> None:
    base = load_profile(arguments.profile)
    iterations = arguments.iterations or base.case_model.iterations
    plans = {"base_features": arguments.base_features} if arguments.base_features else {}
    baseline = {"epochs": 1, "iterations_per_epoch": arguments.baseline_iterations}
    # nnU-Net scores what it segmented by voxel counts alone
    inference = {"surface_distances": False}
    sections = {
        "case_model": like_nnunet(iterations),
        "plans": plans,
        "baseline": baseline,
        "inference": inference,
        # no opinions of cases that are played as patients
        "adaptation": {"counts": []},
        "early_stop": {"share": 1},
    }
    write_profile(path, arguments.profile, sections)


def _print_work(study: Study, iterations: int, slices: int) -> None:
    compute = (study.path("case_model", study.cohort.donors[0]) / "compute.txt").read_text()
    plans = Plans.load(study.path("nnunet_plans"))
    CONSOLE.print(
        f"{processor()}; this project: {compute}\n"
        f"patch {plans.patch_size}, batch {plans.configuration.batch_size}, "
        f"{study.profile.plans.base_features} features, {iterations} iterations, "
        f"{len(study.cohort.receivers)} receivers with {slices} slices"
    )


if __name__ == "__main__":
    main()
