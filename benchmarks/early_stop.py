"""What trainings that stop early save, and how often they decide the same.

On each phantom, or on a folder of real cases, the case models are trained to the end by two seeds and, by the
first of them, for a share of the length with the open places settled. Same worst set: the donors that the
profile's largest set removes. The full run with the other seed is the ceiling: what another draw of the same
trainings would have decided.

    python benchmarks/early_stop.py --iterations 240 --jobs 2 --out runs.jsonl
    python benchmarks/early_stop.py --raw FOLDER --profile thesis_small
"""

import argparse
import json
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from measuring import CONSOLE, print_table, side_by_side
from planted_faults import QUICK
from scipy.stats import spearmanr
from workload import write_profile

from idal_assets.analysis.settling import chances_of_removal, open_places, settled
from idal_assets.analysis.similarity import deciding_matrix, rank_donors
from idal_assets.nnunet.compute import Compute
from idal_assets.nnunet.model_folder import load_weights
from idal_assets.nnunet.plans import Plans
from idal_assets.nnunet.prediction import Predictor
from idal_assets.nnunet.slices import SlicesOnDisk
from idal_assets.nnunet.training import train
from idal_assets.profile import load_profile
from idal_assets.seeds import derived_seed, stream
from idal_assets.settings import TrainingSettings
from idal_assets.steps.networks import scores_of
from idal_assets.study.making import make, make_all
from idal_assets.study.study import Study

CASES: Mapping[str, Mapping[str, Any]] = {
    "phantom": {**QUICK["phantom"], "test_cases": 5},
    "cohort": {
        **{"donor_cases": ["phantom_train_*"], "pretraining_cases": [], "pretraining": 0},
        **{"test_cases": ["phantom_test_01"], "validation_cases": ["phantom_test_0[2345]"]},
    },
    "baseline": QUICK["baseline"],
    "variants": QUICK["variants"],
    "reduced": {"start": "scratch"},
}
"""What differs from the profile: a cohort of its own of small volumes. Case models keep their length."""


class Matrices:
    """Matrices of a study by trainings of any length and seed.

    Args:
        study: A study, of which the baseline and the variants of the donors are made.
    """

    def __init__(self, study: Study) -> None:
        make_all(study, "baseline_weights")
        for donor in study.cohort.donors:
            make(study, "augmented_case", donor)
        self.study, self.cohort = study, study.cohort
        self._weights = load_weights(study.path("baseline_weights"))
        self._plans = Plans.load(study.path("baseline_weights"))
        self._compute = Compute.choose(study.profile.compute)
        profile = study.profile
        self._predictor = Predictor(self._weights, self._plans, profile.inference, profile.compute, self._compute)
        folders = {name: study.path("case_slices", name) for name in self.cohort.deciding}
        self._receivers = SlicesOnDisk(folders, profile.compute.slices_memory_gb)

    def cells(self, donors: Collection[str], training: TrainingSettings, seed: int) -> pd.DataFrame:
        """Cells of some donors' rows."""
        rows = [table for donor in donors for table in self._row(donor, training, seed)]
        return pd.concat(rows, ignore_index=True)

    def matrix(self, cells: pd.DataFrame) -> pd.DataFrame:
        """Donors by donors, as the profile decides."""
        settings, anatomy = self.study.profile.similarity, self.cohort.anatomy
        donors, regions = self.cohort.donors, anatomy.scored(settings.scalar)
        return deciding_matrix(cells, donors, self.cohort.deciding, settings, regions)[donors]

    def _row(self, donor: str, training: TrainingSettings, seed: int) -> Iterator[pd.DataFrame]:
        places = [place for place in sorted(self.study.path("augmented_case", donor).iterdir()) if place.is_dir()]
        variants = SlicesOnDisk({place.name: place for place in places}, 1)
        drawn = derived_seed(self.study.profile.seed, "case_model", seed)
        trained = train(variants, self._plans, training, self._compute, drawn, initial=self._weights)
        self._predictor.take(trained.weights)
        for case, predicted in self._predictor.segment(self._receivers, self.cohort.deciding):
            scores = scores_of(case, predicted, self._plans, self.cohort.anatomy)
            yield scores.assign(donor=donor, receiver=case.case_id)


def run_once(profile: Path, raw: Path | None, folder: Path, shares: Sequence[float]) -> dict[str, Any]:
    """Trains all case models three ways on one dataset.

    Args:
        profile: The profile.
        raw: Folder of the cases; None for a phantom.
        folder: Where all is made.
        shares: Of the donors, that may be trained to the end where their place is open.

    Returns:
        `early`, by share, and `other_seed`, each held against the full run: `iterations` (as a share of those of
        full trainings), `contested` (donors trained to the end), by size of the set `shared` (donors that are in
        both), and `spearman` of both rankings.
    """
    study = Study.open(folder / "data", profile, raw)
    made, settings = Matrices(study), study.profile.early_stop
    donors, sizes = made.cohort.donors, study.profile.removal.sizes
    whole = study.profile.case_model
    short = whole.shortened(settings.share, settings.faster)
    whole_cells, other_cells = (made.cells(donors, whole, seed) for seed in (1, 2))
    cells = made.cells(donors, short, 1)
    full, ranking = (rank_donors(made.matrix(of)) for of in (whole_cells, cells))
    chances = chances_of_removal(
        made.matrix(cells), sizes, settings.resamples, stream(study.profile.seed, "contest")
    )
    early = {}
    for share in shares:
        contested = open_places(chances, settings.model_copy(update={"contested": share}))
        decided = ranking
        if contested:
            # what they would be trained to again, bit for bit
            ends = whole_cells[whole_cells["donor"].isin(contested)]
            completed = made.matrix(pd.concat([cells[~cells["donor"].isin(contested)], ends]))
            decided = settled(ranking, contested, rank_donors(completed).set_index("case_id")["donor_mean"])
        spent = len(donors) * short.iterations + len(contested) * whole.iterations
        part = {"iterations": spent / (len(donors) * whole.iterations), "contested": len(contested)}
        early[str(share)] = {**part, **_held_against(full, decided, sizes)}
    return {"early": early, "other_seed": _held_against(full, rank_donors(made.matrix(other_cells)), sizes)}


def _held_against(full: pd.DataFrame, other: pd.DataFrame, sizes: Sequence[int]) -> dict[str, Any]:
    shared = {str(size): len(_worst(other, size) & _worst(full, size)) for size in sizes}
    return {"shared": shared, "spearman": _agreement(other, full)}


def _worst(ranking: pd.DataFrame, size: int) -> set[str]:
    return set(ranking["case_id"].head(size))


def _agreement(one: pd.DataFrame, other: pd.DataFrame) -> float:
    ranks = [ranking.set_index("case_id")["rank"].sort_index() for ranking in (one, other)]
    return float(spearmanr(*ranks).statistic)


def _write_profile(given: argparse.Namespace, seed: int, path: Path) -> None:
    changes: dict[str, Any] = {} if given.raw else {name: dict(values) for name, values in CASES.items()}
    # runs beside one another would wait for each other's threads
    changes["compute"] = {"threads": 1}
    if not given.raw:
        changes["phantom"] |= {"seed": seed, "severity": given.severity}
    if given.iterations:
        changes["case_model"] = {"epochs": 1, "iterations_per_epoch": given.iterations}
    changes["early_stop"] = {"share": given.share, "faster": given.faster}
    write_profile(path, given.profile, changes, seed=seed)


def report(runs: list[dict[str, Any]]) -> None:
    """Prints what was saved and how often the decision is the same."""
    ways = [
        (f"{float(share):.0%} to the end", [run["early"][share] for run in runs]) for share in runs[0]["early"]
    ]
    ways.append(("other seed, all", [run["other_seed"] for run in runs]))
    sizes = list(runs[0]["other_seed"]["shared"])
    rows = [
        [f"set of {size}: the same", *(f"{_same(of, size)} of {len(runs)}" for _, of in ways)] for size in sizes
    ]
    rows += [
        [f"set of {size}: shared", *(f"{np.mean([one['shared'][size] for one in of]):.1f}" for _, of in ways)]
        for size in sizes
    ]
    rows.append(["Spearman, mean", *(f"{np.mean([one['spearman'] for one in of]):.3f}" for _, of in ways)])
    used = [f"{np.mean([one['iterations'] for one in of]):.0%}" for _, of in ways[:-1]]
    print_table("Against the full run", ("", *(name for name, _ in ways)), [*rows, ["iterations", *used, "100%"]])
    first = ways[0][1]
    CONSOLE.print(
        f"early stop: {used[0]} of the iterations, same worst set in {_same(first, sizes[-1])} of {len(runs)}"
    )


def _same(found: list[dict[str, Any]], size: str) -> int:
    """In how many of the runs all donors of a set are the same."""
    return sum(one["shared"][size] == int(size) for one in found)


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="demo", help="profile whose case models are trained")
    parser.add_argument("--raw", type=Path, help="folder with real cases; without it phantoms")
    parser.add_argument("--phantoms", type=int, default=10, help="how many; or seeds on real cases")
    parser.add_argument("--iterations", type=int, help="of a whole training, instead of the profile's")
    parser.add_argument("--severity", type=float, default=1.0, help="of the planted faults")
    parser.add_argument("--share", type=float, default=0.25, help="of the iterations, that all donors are trained")
    parser.add_argument("--faster", type=float, default=3.0, help="multiplies their learning rate")
    parser.add_argument(
        "--contested", type=float, nargs="+", default=[0.0], help="shares of the donors trained to the end"
    )
    parser.add_argument("--jobs", type=int, default=1, help="phantoms at once, each on one thread")
    parser.add_argument("--out", type=Path, help="file for the results, one line a phantom; it is gone on with")
    parser.add_argument("--one", nargs=2, metavar=("SEED", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        seed, folder = int(given.one[0]), Path(given.one[1])
        _write_profile(given, seed, folder / "profile.yaml")
        print(json.dumps({"seed": seed, **run_once(folder / "profile.yaml", given.raw, folder, given.contested)}))
        return
    load_profile(given.profile)
    there = given.out and given.out.exists()
    runs = [json.loads(line) for line in given.out.read_text().splitlines()] if there else []
    done = {run["seed"] for run in runs}
    works = [[seed] for seed in range(given.phantoms) if seed not in done]
    for run in side_by_side(Path(__file__).name, works, given.jobs, sys.argv[1:]):
        runs.append(run)
        for share, found in run["early"].items():
            CONSOLE.print(f"seed {run['seed']}, {float(share):.0%} to the end: shared {found['shared']}")
        if given.out:
            with given.out.open("a") as file:
                file.write(json.dumps(run) + "\n")
    report(runs)


if __name__ == "__main__":
    main()
