"""Which score finds planted faults, of which kind and how bad, and how sure that is.

Makes phantoms of several seeds whose donors have faults of all kinds in turn and whose severities take turns, runs
the graph on each up to `fault_detection`, and compares all scores: AUROC with an interval over the phantoms, how
far the ranking is ahead on the same phantoms, precision at k (the number of faults), rare but valid cases taken
for faults; then the AUROC of the main scores by kind of fault. The networks of the folds get as many iterations in
all as the case models, so that no score is ahead by its budget. The winner is named, whichever it is.

    python benchmarks/planted_faults.py --quick --jobs 2 --results runs.jsonl
    python benchmarks/planted_faults.py --quick --kinds structure_forgotten --severities 1 --phantoms 4
    python benchmarks/planted_faults.py --profile demo --phantoms 5 --severities 1
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import cycle
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

FROM_SCRATCH = {
    **{"epochs": 1, "iterations_per_epoch": 150, "optimizer": "adam", "learning_rate": 0.01},
    "foreground_share": 2 / 3,
}
QUICK: Mapping[str, Mapping[str, Any]] = {
    "phantom": {
        **{"train_cases": 20, "test_cases": 3, "faults": 4, "rare": 0.12},
        **{"shape": [32, 40, 8], "spacing": [5.0, 5.0, 12.0]},
    },
    "cohort": {"test_cases": ["phantom_test_01"], "validation_cases": ["phantom_test_0[23]"]},
    "baseline": FROM_SCRATCH,
    "case_model": {**FROM_SCRATCH, "iterations_per_epoch": 12, "learning_rate": 3e-3},
    # of the few iterations that all folds have together, two can make networks that segment
    "out_of_fold": {"folds": 2, "training": FROM_SCRATCH},
    "early_stop": {"share": 1},
    "variants": {"count": 2},
    "convergence": {"shares": []},
    "inference": {"surface_distances": False},
    "similarity": {"permutations": 199, "stability_resamples": 20},
}
"""What differs from the profile: a cohort of its own of small volumes, and trainings that are short but enough.

Networks that learned too little find every region everywhere, so that no region counts as absent; this baseline
reaches a mean Dice of 0.87 on sound donors.
"""

BY_KIND = {
    "both means (robust)": "robust",
    "both means (thesis)": "thesis",
    "donor mean (robust)": "rows",
    "receiver mean (robust)": "columns",
    "baseline's Dice, regions held": "baseline",
    "out-of-fold Dice, regions held": "fold",
    "intensities": "image",
}
"""Scores that are compared by kind of fault, and the headings of their columns."""

PLACE = ("profile", "quick", "kinds", "severity", "seed")
"""What tells two runs apart."""


def run_once(
    profile: str, quick: bool, kinds: Sequence[str], severity: float, seed: int, folder: Path
) -> dict[str, Any]:
    """Makes a phantom and runs the graph on it.

    Args:
        profile: The profile that everything else comes from.
        quick: Whether its volumes and trainings are made small.
        kinds: The kinds of faults that take turns.
        severity: How bad the faults are.
        seed: Seed of the phantom and of the experiment.
        folder: An empty folder.

    Returns:
        All arguments but the folder, `seconds`, `found` (table of the asset `fault_detection`) and `scores` (a row
        a donor).
    """
    file, base = folder / "profile.yaml", load_profile(profile)
    changes = {name: dict(values) for name, values in (QUICK if quick else {}).items()}
    planted = {"seed": seed, "severity": severity, "fault_kinds": list(kinds)}
    changes["phantom"] = {**changes.get("phantom", {}), **planted}
    # the baseline learns from the donors, whose labels its Dice then judges for nothing
    alone = {"donor_cases": ["phantom_train_*"], "pretraining_cases": [], "pretraining": 0}
    changes["cohort"] = {**changes.get("cohort", {}), **alone}
    changes["reduced"] = {"start": "scratch"}
    changes["compute"] = {"threads": 1}
    write_profile(file, profile, changes, seed=seed)
    changes["out_of_fold"] = {**changes.get("out_of_fold", {}), "training": _same_budget(load_profile(file))}
    write_profile(file, profile, changes, seed=seed)
    study = Study.open(folder / "data", file)
    started = time.perf_counter()
    make_all(study, "fault_detection")
    made = study.path("fault_detection")
    found, scores = load_detection(made), load_scores(made)
    return {
        **dict(zip(PLACE, (base.name, quick, list(kinds), severity, seed), strict=True)),
        "seconds": time.perf_counter() - started,
        "found": found.astype(object).where(found.notna(), None).to_dict("records"),
        "scores": scores.astype(object).where(scores.notna(), None).to_dict("records"),
    }


def _phantom(profile: Profile) -> PhantomSettings:
    if profile.phantom is None:
        raise SystemExit(f"the profile {profile.name} has no phantom; take demo")
    return profile.phantom


def _same_budget(profile: Profile) -> dict[str, Any]:
    """Training of a fold, so that all folds take as many iterations as the models of all donors."""
    training = profile.out_of_fold.training.model_dump(mode="json")
    iterations = _phantom(profile).train_cases * profile.case_model.iterations // profile.out_of_fold.folds
    return {**training, "epochs": 1, "iterations_per_epoch": iterations}


def mean_with_interval(values: pd.Series, seed: int = 0) -> tuple[float, float, float]:
    """Mean over the phantoms, and its interval by drawing phantoms anew (percentiles)."""
    known = values.dropna().to_numpy(float)
    if not len(known):
        return (float("nan"),) * 3
    drawn = known[np.random.default_rng(seed).integers(len(known), size=(RESAMPLES, len(known)))].mean(axis=1)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(known.mean()), float(low), float(high)


def summarise(tables: pd.DataFrame, offered: str) -> pd.DataFrame:
    """One row a score: means over the phantoms.

    Args:
        tables: Tables of `fault_detection`, one below the other, with the number of their `phantom`.
        offered: Name of the score that the others are compared with.

    Returns:
        `score`; `auroc`, `low` and `high`; `ahead`, by how much the offered score has the higher AUROC on the same
        phantoms, with `ahead_low` and `ahead_high`; means of `precision_at_k` and `recall_at_k`; sums of
        `decoys_removed` and `decoys`.
    """
    of_offered = tables[tables["score"] == offered].set_index("phantom")["auroc"]
    rows = []
    for score, of_score in tables.groupby("score", sort=False):
        found = mean_with_interval(of_score["auroc"])
        ahead = mean_with_interval(of_score["phantom"].map(of_offered) - of_score["auroc"])
        rows.append(
            {"score": score, **dict(zip(("auroc", "low", "high"), found, strict=True))}
            | dict(zip(("ahead", "ahead_low", "ahead_high"), ahead, strict=True))
            | {name: of_score[name].astype(float).mean() for name in ("precision_at_k", "recall_at_k")}
            | {name: of_score[name].astype(float).sum() for name in ("decoys_removed", "decoys")}
        )
    return pd.DataFrame(rows)


def by_kind(runs: Sequence[Mapping[str, Any]], offered: str) -> pd.DataFrame:
    """AUROC of the main scores by kind of fault and severity: each fault against the sound cases of its phantom.

    Args:
        runs: What `run_once` returned.
        offered: Name of the score that ranks.

    Returns:
        One row a fault: `severity`, `fault`, `worst_third`, whether it is there in the order of the offered score,
        and a column for each score.
    """
    rows = []
    for run in runs:
        scores = pd.DataFrame(run["scores"])
        faulty, ranks = scores["fault"].notna(), scores[offered].rank()
        for place in scores.index[faulty]:
            compared = scores.loc[~faulty | (scores.index == place)]
            found = {name: auroc(compared[name].astype(float), compared["fault"].notna()) for name in BY_KIND}
            worst_third = ranks[place] <= len(scores) / 3
            kind = {"severity": run["severity"], "fault": scores.loc[place, "fault"]}
            rows.append({**kind, "worst_third": worst_third, **found})
    return pd.DataFrame(rows)


def _print(runs: Sequence[Mapping[str, Any]], mode: str) -> None:
    offered = offered_score(mode)
    tables = pd.concat(
        [pd.DataFrame(run["found"]).assign(phantom=number) for number, run in enumerate(runs)], ignore_index=True
    )
    severity = tables["phantom"].map({number: run["severity"] for number, run in enumerate(runs)})
    for value in sorted(set(severity)):
        _print_scores(f"Severity {value:g}", tables[severity == value], offered)
    if severity.nunique() > 1:
        _print_scores("All severities", tables, offered)
    faults = by_kind(runs, offered)
    groups = faults.groupby(["fault", "severity"])
    rows = [
        [
            *(fault, f"{value:g}", f"{group['worst_third'].sum()} of {len(group)}"),
            *(f"{group[name].mean():.2f}" for name in BY_KIND),
        ]
        for (fault, value), group in groups
    ]
    columns = ("fault", "severity", "worst third", *BY_KIND.values())
    print_table("AUROC by kind of fault; how many are in the worst third of the ranking", columns, rows)


def _print_scores(title: str, tables: pd.DataFrame, offered: str) -> None:
    table = summarise(tables, offered).sort_values("auroc", ascending=False)
    rows = [
        [
            *(row.score, f"{row.auroc:.3f}", f"{row.low:.3f} to {row.high:.3f}"),
            f"{row.ahead:+.2f} ({row.ahead_low:+.2f} to {row.ahead_high:+.2f})",
            *(f"{row.precision_at_k:.2f}", f"{row.decoys_removed:.0f} of {row.decoys:.0f}"),
        ]
        for row in table.itertuples()
    ]
    columns = ("score", "AUROC", "over phantoms", "ranking ahead by", "precision", "rare")
    print_table(f"{title}, {tables['phantom'].nunique()} phantoms; intervals of 95 %", columns, rows)
    print(f"offered: {offered}; winner: {' and '.join(best_scores(table))}")


def main() -> None:
    """Reads the command line and measures."""
    if sys.argv[1:2] == ["--one"]:
        name, quick, kinds, severity, seed, folder = sys.argv[2:]
        found = run_once(name, bool(int(quick)), kinds.split(","), float(severity), int(seed), Path(folder))
        print(json.dumps(found))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="demo", help="one with a phantom")
    parser.add_argument("--quick", action="store_true", help="small volumes and short trainings")
    parser.add_argument("--kinds", nargs="+", help="faults that take turns; all, where none is named")
    parser.add_argument("--phantoms", type=int, default=60, help="how many; they take the severities in turn")
    parser.add_argument("--severities", type=float, nargs="+", default=[1.0, 0.6, 0.3])
    parser.add_argument("--jobs", type=int, default=1, help="phantoms at once, each on one thread")
    parser.add_argument(
        "--results", type=Path, help="a file to add every run to, one JSON object a line; what it has is not rerun"
    )
    arguments = parser.parse_args()
    profile = load_profile(arguments.profile)
    kinds = arguments.kinds or list(kind_of(_phantom(profile)).faults)
    works = [
        (profile.name, arguments.quick, kinds, severity, seed)
        for seed, severity in zip(range(arguments.phantoms), cycle(arguments.severities), strict=False)
    ]
    earlier = _earlier_runs(arguments.results)
    runs = [run for run in earlier if _place(run) in works]
    done = [_place(run) for run in runs]
    missing = [
        (arguments.profile, int(quick), ",".join(faults), severity, seed)
        for name, quick, faults, severity, seed in works
        if (name, quick, faults, severity, seed) not in done
    ]
    for found in side_by_side("planted_faults.py", missing, arguments.jobs):
        CONSOLE.print(f"seed {found['seed']}, severity {found['severity']:g}, {found['seconds']:.0f} s")
        runs.append(found)
        if arguments.results:
            with arguments.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(found) + "\n")
    _print(runs, profile.similarity.mode)


def _earlier_runs(results: Path | None) -> list[dict[str, Any]]:
    if results is None or not results.exists():
        return []
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]


def _place(run: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(run[name] for name in PLACE)


if __name__ == "__main__":
    main()
