"""Which score finds planted faults best, and what it is worth to remove what it finds.

Makes phantoms of several seeds and numbers of faults, runs the graph on each up to `fault_detection`, and compares
all scores: AUROC, precision and recall at k (the number of faults), rare but valid cases taken for faults. Then it
trains the network anew without the k worst cases of each score, without the faults themselves and with all, and
says which share of the Dice that the faults cost each score regains. The winner is named, whichever it is.

    python benchmarks/planted_faults.py --jobs 2
    python benchmarks/planted_faults.py --seeds 3 --rates 0.05 0.1 0.2 --no-retraining
"""

import argparse
import json
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from measuring import CONSOLE, print_table, side_by_side
from workload import write_profile

from idal_assets.analysis.detection import best_scores, given_cases, offered_score
from idal_assets.analysis.scores import MEAN, confusion, score_table, with_scalar
from idal_assets.nnunet.compute import taken
from idal_assets.nnunet.plans import Plans
from idal_assets.nnunet.prediction import Predictor
from idal_assets.nnunet.slices import SlicesOnDisk
from idal_assets.nnunet.training import train
from idal_assets.profile import load_profile
from idal_assets.seeds import derived_seed
from idal_assets.settings import PhantomSettings
from idal_assets.steps.detection import load_detection, load_scores, statement
from idal_assets.study.making import make_all
from idal_assets.study.study import Study

NOTHING, ORACLE = "nothing", "the planted faults"
MEASURES = ("auroc", "precision_at_k", "recall_at_k")


@dataclass
class Found:
    """What one phantom showed.

    Attributes:
        said: One line for people.
        table: Table of the asset `fault_detection`.
        medians: Median Dice of the test cases by what was removed; empty without retraining.
    """

    said: str
    table: pd.DataFrame
    medians: Mapping[str, float] = field(default_factory=dict)


def run_once(profile: str, seed: int, faults: int, retrain: bool, folder: Path) -> Found:
    """Makes a phantom, runs the graph on it and retrains.

    Args:
        profile: The profile that everything else comes from.
        seed: Seed of the phantom and of the experiment.
        faults: How many faults are planted.
        retrain: Whether to measure the Dice that is regained.
        folder: An empty folder.
    """
    file = folder / "profile.yaml"
    changes = {"phantom": {"seed": seed, "faults": faults}, "compute": {"threads": 1}}
    write_profile(file, profile, changes, seed=seed)
    study = Study.open(folder / "data", file)
    started = time.perf_counter()
    make_all(study, "fault_detection")
    seconds = time.perf_counter() - started
    table = load_detection(study.path("fault_detection"))
    said = f"seed {seed}, {faults} faults, {seconds:.0f} s: {statement(table, unknown=[])}"
    return Found(said, table, _medians(study) if retrain else {})


def _medians(study: Study) -> dict[str, float]:
    """Median Dice of the test cases by what was removed; what is the same set is trained once."""
    candidates = load_scores(study.path("fault_detection")).set_index("case_id")
    faulty = list(candidates.index[candidates["fault"].notna()])
    removed = {NOTHING: [], ORACLE: faulty}
    for name in candidates.columns.drop(["fault", "subtype"]):
        if candidates[name].notna().any():
            removed[name] = given_cases(candidates[name], len(faulty))
    by_set: dict[frozenset[str], float] = {}
    for cases in map(frozenset, removed.values()):
        if cases not in by_set:
            by_set[cases] = _median_without(study, cases)
    return {name: by_set[frozenset(cases)] for name, cases in removed.items()}


def _median_without(study: Study, removed: Collection[str]) -> float:
    """Trains from scratch without some donors, once a seed as the removal sets do; segments the test cases."""
    profile, tests = study.profile, study.cohort.tests
    plans = Plans.load(study.path("nnunet_plans"))
    kept = _slices(study, [case for case in study.cohort.donors if case not in removed])
    unseen, anatomy = _slices(study, tests), study.cohort.anatomy
    found = []
    with taken(profile.compute) as compute:
        for replicate in range(1, profile.controls.seeds + 1):
            seed = derived_seed(profile.seed, "reduced_model", replicate)
            trained = train(kept, plans, profile.reduced, compute, seed)
            predictor = Predictor(trained.weights, plans, profile.inference, profile.compute, compute)
            for case, predicted in predictor.segment(unseen, tests):
                scores = score_table(confusion(case.require_truth(), predicted, anatomy), anatomy.regions)
                found.append(scores.assign(case_id=case.case_id, replicate=replicate))
    rows = with_scalar(
        pd.concat(found, ignore_index=True),
        ["case_id", "replicate"],
        anatomy.scored(profile.similarity.scalar),
    )
    return float(rows[rows["region"] == MEAN].groupby("case_id")["dice"].mean().median())


def _slices(study: Study, names: Sequence[str]) -> SlicesOnDisk:
    folders = {name: study.path("case_slices", name) for name in names}
    return SlicesOnDisk(folders, study.profile.compute.slices_memory_gb)


def summarise(runs: list[Found]) -> pd.DataFrame:
    """Means over all runs, one row a score.

    Returns:
        `score`; the means of `auroc`, `precision_at_k` and `recall_at_k`, the worst AUROC as `worst`; sums of
        `decoys_removed` and `decoys`; and `regained`, the mean gain of the median Dice as a share of the mean gain
        from removing the faults themselves (NaN without retraining, or where that is no gain).
    """
    rows = pd.concat([run.table for run in runs], ignore_index=True)
    by_score = rows.groupby("score", sort=False)
    table = by_score[list(MEASURES)].mean()
    table["worst"] = by_score["auroc"].min()
    table[["decoys_removed", "decoys"]] = by_score[["decoys_removed", "decoys"]].sum()
    oracle = _mean_gain(runs, ORACLE)
    table["regained"] = [_mean_gain(runs, name) / oracle if oracle > 0 else np.nan for name in table.index]
    return table.reset_index()


def _mean_gain(runs: list[Found], name: str) -> float:
    gains = [run.medians.get(name, np.nan) - run.medians.get(NOTHING, np.nan) for run in runs]
    return float(np.mean(gains))


def _print(runs: list[Found], mode: str) -> None:
    table = summarise(runs)
    rows = [
        [
            row.score,
            *(f"{value:.3f}" for value in (row.auroc, row.worst, row.precision_at_k, row.recall_at_k)),
            f"{row.decoys_removed:.0f} of {row.decoys:.0f}",
            "-" if np.isnan(row.regained) else f"{row.regained:.0%}",
        ]
        for row in table.sort_values("auroc", ascending=False, kind="stable").itertuples()
    ]
    columns = ("score", "AUROC", "worst", "precision", "recall", "rare removed", "Dice regained")
    print_table(f"Planted faults, {len(runs)} phantoms", columns, rows)
    if runs[0].medians:
        medians = {name: np.mean([run.medians[name] for run in runs]) for name in (NOTHING, ORACLE)}
        CONSOLE.print(
            f"mean of the median Dice: {medians[NOTHING]:.4f} with all donors, {medians[ORACLE]:.4f} without the "
            "planted faults"
        )
    offered = table.set_index("score").loc[offered_score(mode)]
    print(
        f"offered ranking: AUROC {offered['auroc']:.3f} (worst {offered['worst']:.3f}), precision at k "
        f"{offered['precision_at_k']:.3f}, decoys removed {offered['decoys_removed']:.0f} of "
        f"{offered['decoys']:.0f}; winner: {' and '.join(best_scores(table))}"
    )


def _numbers_of_faults(phantom: PhantomSettings, rates: list[float] | None) -> list[int]:
    if rates is None:
        return [phantom.faults]
    return [max(1, round(rate * phantom.train_cases)) for rate in rates]


def main() -> None:
    """Reads the command line and measures."""
    if sys.argv[1:2] == ["--one"]:
        name, seed, faults, retrain, folder = sys.argv[2:]
        found = run_once(name, int(seed), int(faults), bool(int(retrain)), Path(folder))
        print(json.dumps({**asdict(found), "table": found.table.to_dict("records")}))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="demo", help="one with a phantom")
    parser.add_argument("--seeds", type=int, default=5, help="how many phantoms for each number of faults")
    parser.add_argument(
        "--rates", type=float, nargs="+", help="shares of faulty donors; else the profile's number"
    )
    parser.add_argument("--no-retraining", action="store_true", help="leave out the Dice that is regained")
    parser.add_argument("--jobs", type=int, default=1, help="phantoms at once, each on one thread")
    arguments = parser.parse_args()
    profile = load_profile(arguments.profile)
    if profile.phantom is None:
        parser.error(f"the profile {profile.name} has no phantom")
    works = [
        (arguments.profile, seed, faults, int(not arguments.no_retraining))
        for faults in _numbers_of_faults(profile.phantom, arguments.rates)
        for seed in range(arguments.seeds)
    ]
    runs = []
    for found in side_by_side("planted_faults.py", works, arguments.jobs):
        CONSOLE.print(found["said"])
        runs.append(Found(found["said"], pd.DataFrame(found["table"]), found["medians"]))
    _print(runs, profile.similarity.mode)


if __name__ == "__main__":
    main()
