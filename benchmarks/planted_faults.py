"""Which score finds planted faults, of which kind and how bad, and how sure that is.

Makes phantoms of several seeds whose donors have faults of all kinds in turn, at each severity the same number,
runs the graph on each up to `fault_detection`, and compares all scores: AUROC with an interval over the phantoms,
precision at k (the number of faults), rare but valid cases taken for faults; then the AUROC of the main scores by
kind of fault. The networks of the folds get as many iterations in all as the case models, so that no score is
ahead by its budget. The winner is named, whichever it is.

    python benchmarks/planted_faults.py --quick --jobs 2
    python benchmarks/planted_faults.py --profile demo --phantoms 5 --severities 1 --usual
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from measuring import CONSOLE, print_table, side_by_side
from workload import write_profile

from idal_assets.analysis.detection import LEVEL, RESAMPLES, auroc, best_scores, offered_score
from idal_assets.imaging.phantom import kind_of
from idal_assets.profile import Profile, load_profile
from idal_assets.settings import PhantomSettings
from idal_assets.steps.detection import load_detection, load_scores
from idal_assets.study.making import make_all
from idal_assets.study.study import Study

FROM_SCRATCH = {"epochs": 4, "iterations_per_epoch": 50, "optimizer": "adam", "learning_rate": 3e-3}
QUICK: Mapping[str, Mapping[str, Any]] = {
    "phantom": {"shape": [40, 48, 8], "spacing": [4.0, 4.0, 12.0], "test_cases": 5},
    "cohort": {"test_cases": ["phantom_test_01"], "validation_cases": ["phantom_test_0[2-5]"]},
    "baseline": FROM_SCRATCH,
    "case_model": {"epochs": 1, "iterations_per_epoch": 20},
    "variants": {"count": 2},
    "convergence": {"shares": []},
    "inference": {"surface_distances": False},
    "similarity": {"permutations": 199, "stability_resamples": 20},
}
"""What differs from the profile: small volumes, few test cases and short trainings."""

BY_KIND = (
    *("both means (robust)", "both means (thesis)", "donor mean (robust)", "receiver mean (robust)"),
    *("baseline's Dice, regions held", "out-of-fold Dice, regions held", "intensities"),
)
"""Scores that are compared by kind of fault."""


def run_once(profile: str, quick: bool, usual: bool, severity: float, seed: int, folder: Path) -> dict[str, Any]:
    """Makes a phantom and runs the graph on it.

    Args:
        profile: The profile that everything else comes from.
        quick: Whether its volumes and trainings are made small.
        usual: Whether only the usual kinds of faults take turns, and not all.
        severity: How bad the faults are.
        seed: Seed of the phantom and of the experiment.
        folder: An empty folder.

    Returns:
        `severity`, `seed`, `seconds`, `found` (table of the asset `fault_detection`) and `scores` (a row a donor).
    """
    file, base = folder / "profile.yaml", load_profile(profile)
    changes = {name: dict(values) for name, values in (QUICK if quick else {}).items()}
    kinds = () if usual else tuple(kind_of(_phantom(base)).faults)
    changes["phantom"] = {**changes.get("phantom", {}), "seed": seed, "severity": severity, "fault_kinds": kinds}
    # the baseline learns from the donors, whose labels its Dice then judges for nothing
    alone = {"donor_cases": ["phantom_train_*"], "pretraining_cases": [], "pretraining": 0}
    changes["cohort"] = {**changes.get("cohort", {}), **alone}
    changes["reduced"] = {"start": "scratch"}
    changes["compute"] = {"threads": 1}
    changes["out_of_fold"] = {"training": _same_budget(base, changes)}
    write_profile(file, profile, changes, seed=seed)
    study = Study.open(folder / "data", file)
    started = time.perf_counter()
    make_all(study, "fault_detection")
    made = study.path("fault_detection")
    found, scores = load_detection(made), load_scores(made)
    return {
        "severity": severity,
        "seed": seed,
        "seconds": time.perf_counter() - started,
        "found": found.astype(object).where(found.notna(), None).to_dict("records"),
        "scores": scores.astype(object).where(scores.notna(), None).to_dict("records"),
    }


def _phantom(profile: Profile) -> PhantomSettings:
    if profile.phantom is None:
        raise SystemExit(f"the profile {profile.name} has no phantom; take demo")
    return profile.phantom


def _same_budget(profile: Profile, changes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Training of a fold, so that all folds take as many iterations as the models of all donors."""
    of_case = profile.case_model.model_copy(update=changes.get("case_model", {}))
    training = profile.out_of_fold.training.model_dump(mode="json")
    iterations = _phantom(profile).train_cases * of_case.iterations // profile.out_of_fold.folds
    return {**training, "epochs": 1, "iterations_per_epoch": iterations}


def mean_with_interval(values: pd.Series, seed: int = 0) -> tuple[float, float, float]:
    """Mean over the phantoms, and its interval by drawing phantoms anew (percentiles)."""
    known = values.dropna().to_numpy(float)
    if not len(known):
        return (float("nan"),) * 3
    drawn = known[np.random.default_rng(seed).integers(len(known), size=(RESAMPLES, len(known)))].mean(axis=1)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(known.mean()), float(low), float(high)


def summarise(tables: pd.DataFrame) -> pd.DataFrame:
    """One row a score: means over the phantoms.

    Args:
        tables: Tables of `fault_detection`, one below the other.

    Returns:
        `score`; `auroc`, `low` and `high`; `worst`, the lowest AUROC; means of `precision_at_k` and `recall_at_k`;
        sums of `decoys_removed` and `decoys`.
    """
    rows = []
    for score, of_score in tables.groupby("score", sort=False):
        mean, low, high = mean_with_interval(of_score["auroc"])
        rows.append(
            {"score": score, "auroc": mean, "low": low, "high": high, "worst": of_score["auroc"].min()}
            | {name: of_score[name].astype(float).mean() for name in ("precision_at_k", "recall_at_k")}
            | {name: of_score[name].astype(float).sum() for name in ("decoys_removed", "decoys")}
        )
    return pd.DataFrame(rows)


def by_kind(runs: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """AUROC of the main scores by kind of fault and severity: each fault against the sound cases of its phantom.

    Returns:
        One row a fault: `severity`, `fault` and a column for each score.
    """
    rows = []
    for run in runs:
        scores = pd.DataFrame(run["scores"])
        faulty = scores["fault"].notna()
        for place in scores.index[faulty]:
            compared = scores.loc[~faulty | (scores.index == place)]
            found = {name: auroc(compared[name].astype(float), compared["fault"].notna()) for name in BY_KIND}
            rows.append({"severity": run["severity"], "fault": scores.loc[place, "fault"], **found})
    return pd.DataFrame(rows)


def _print(runs: Sequence[Mapping[str, Any]], mode: str) -> None:
    for severity in sorted({run["severity"] for run in runs}):
        of_severity = [pd.DataFrame(run["found"]) for run in runs if run["severity"] == severity]
        table = summarise(pd.concat(of_severity, ignore_index=True)).sort_values("auroc", ascending=False)
        rows = [
            [
                *(row.score, f"{row.auroc:.3f}", f"{row.low:.3f} to {row.high:.3f}", f"{row.worst:.3f}"),
                *(f"{row.precision_at_k:.2f}", f"{row.decoys_removed:.0f} of {row.decoys:.0f}"),
            ]
            for row in table.itertuples()
        ]
        columns = ("score", "AUROC", "95 % over phantoms", "worst", "precision", "rare removed")
        print_table(f"Severity {severity:g}, {len(of_severity)} phantoms", columns, rows)
        print(f"offered: {offered_score(mode)}; winner: {' and '.join(best_scores(table))}")
    faults = by_kind(runs)
    means = (
        faults.groupby(["fault", "severity"])[list(BY_KIND)]
        .mean()
        .assign(faults=faults.value_counts(["fault", "severity"]))
    )
    rows = [
        [fault, f"{severity:g}", f"{row['faults']:.0f}", *(f"{row[name]:.2f}" for name in BY_KIND)]
        for (fault, severity), row in means.iterrows()
    ]
    print_table("AUROC by kind of fault", ("fault", "severity", "faults", *BY_KIND), rows)


def main() -> None:
    """Reads the command line and measures."""
    if sys.argv[1:2] == ["--one"]:
        name, quick, usual, severity, seed, folder = sys.argv[2:]
        found = run_once(name, bool(int(quick)), bool(int(usual)), float(severity), int(seed), Path(folder))
        print(json.dumps(found))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="demo", help="one with a phantom")
    parser.add_argument("--quick", action="store_true", help="small volumes and short trainings")
    parser.add_argument("--usual", action="store_true", help="only the faults that profiles take by default")
    parser.add_argument("--phantoms", type=int, default=20, help="how many at each severity")
    parser.add_argument("--severities", type=float, nargs="+", default=[0.25, 0.5, 1.0])
    parser.add_argument("--jobs", type=int, default=1, help="phantoms at once, each on one thread")
    parser.add_argument("--results", type=Path, help="a file to add every run to, one JSON object a line")
    arguments = parser.parse_args()
    profile = load_profile(arguments.profile)
    _phantom(profile)
    works = [
        (arguments.profile, int(arguments.quick), int(arguments.usual), severity, seed)
        for seed in range(arguments.phantoms)
        for severity in arguments.severities
    ]
    runs = []
    for found in side_by_side("planted_faults.py", works, arguments.jobs):
        CONSOLE.print(f"seed {found['seed']}, severity {found['severity']:g}, {found['seconds']:.0f} s")
        runs.append(found)
        if arguments.results:
            with arguments.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(found) + "\n")
    _print(runs, profile.similarity.mode)


if __name__ == "__main__":
    main()
