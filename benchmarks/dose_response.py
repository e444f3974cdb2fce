"""Whether donors that are chosen for a patient pay, and how that rises with what sites draw otherwise.

Makes phantoms of several seeds and strengths of the sites' conventions, plays every test case as a patient, and
compares what is offered with all rivals. The ceiling chooses by networks of one seed and is judged by those of
another. At strength 0 the sites differ only in how their images look, and similarity should add nothing.

    python benchmarks/dose_response.py --seeds 5 --jobs 2
    python benchmarks/dose_response.py --seeds 1 --strengths 1 --quick
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from measuring import CONSOLE, print_table, side_by_side
from workload import write_profile

from idal_assets.analysis.patient_trials import OFFERED
from idal_assets.steps.adaptation_evidence import ARMS_FILE, load_summary
from idal_assets.study.making import make_all
from idal_assets.study.study import Study

PROFILE = "demo"
SITES = 3
CASES = {"train": 18, "test": 40, "validation": 18, "pretraining": 9}
"""Each a multiple of the sites but the tests, so that every site is in every role."""
QUICK_CASES = {"train": 12, "test": 12, "validation": 12, "pretraining": 6}


def changes_of(strength: float, seed: int, cases: dict[str, int]) -> dict[str, dict[str, Any]]:
    """What differs from the profile: small volumes at several sites, and two seeds of the case models."""
    others = sum(cases.values()) - cases["train"]
    names = [f"phantom_test_{number:0{3 if sum(cases.values()) >= 100 else 2}}" for number in range(1, others + 1)]
    ends = np.cumsum([cases["test"], cases["validation"]])
    return {
        "phantom": {
            **{"train_cases": cases["train"], "test_cases": others, "faults": 0, "rare": 0, "seed": seed},
            **{"sites": SITES, "site_strength": strength, "patients": 0, "unknown_patients": 0},
            **{"shape": [40, 48, 8], "spacing": [4.0, 4.0, 12.0]},
        },
        "cohort": {
            "donor_cases": ["phantom_train_*"],
            "test_cases": names[: ends[0]],
            "validation_cases": names[ends[0] : ends[1]],
            "pretraining_cases": names[ends[1] :],
        },
        "baseline": {"epochs": 12, "iterations_per_epoch": 50, "optimizer": "adam", "learning_rate": 3e-3},
        "case_model": {"epochs": 4, "iterations_per_epoch": 10, "seeds": 2},
        "early_stop": {"share": 1},
        "convergence": {"shares": []},
        "inference": {"surface_distances": False},
        "adaptation": {"counts": [1, 3, 5], "compared": ["merged"]},
        "compute": {"threads": 1},
    }


def run_once(strength: float, seed: int, quick: bool, folder: Path) -> dict[str, Any]:
    """Makes a phantom and the evidence of the adaptation.

    Returns:
        `strength`, `seed`, `seconds`, `summary`, and `arms`: the table of all choices.
    """
    profile = folder / "profile.yaml"
    write_profile(profile, PROFILE, changes_of(strength, seed, QUICK_CASES if quick else CASES), seed=seed)
    study = Study.open(folder / "data", profile)
    started = time.perf_counter()
    make_all(study, "adaptation_evidence")
    made = study.path("adaptation_evidence")
    return {
        **{"strength": strength, "seed": seed, "seconds": time.perf_counter() - started},
        "summary": load_summary(made),
        "arms": pd.read_parquet(made / ARMS_FILE).to_dict("records"),
    }


def summarise(runs: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """One row a strength: means over the seeds, each difference with its interval over the seeds."""
    rows = []
    for strength in sorted({run["strength"] for run in runs}):
        own = [run for run in runs if run["strength"] == strength]
        row: dict[str, Any] = {"strength": strength, "seeds": len(own)}
        row |= {"gap_share": _over_seeds([_offered(run)["gap_share"] for run in own])}
        for rival in ("baseline", "best", "random", "all"):
            row[rival] = _over_seeds([_difference(run, rival) for run in own])
        row["quality"] = float(np.mean([run["summary"]["quality"]["mean_absolute_error"] for run in own]))
        row["coverage"] = float(np.mean([run["summary"]["quality"]["coverage"] for run in own]))
        rows.append(row)
    return pd.DataFrame(rows)


def _offered(run: dict[str, Any]) -> dict[str, Any]:
    return next(arm for arm in run["arms"] if arm["arm"] == OFFERED)


def _difference(run: dict[str, Any], rival: str) -> float:
    return next(one["mean_difference"] for one in run["summary"]["comparisons"] if one["rival"] == rival)


def _over_seeds(values: Sequence[float]) -> str:
    """Mean, and the lowest and highest of the seeds."""
    known = np.asarray([value for value in values if value is not None and np.isfinite(value)])
    return f"{known.mean():+.3f} ({known.min():+.3f} to {known.max():+.3f})" if len(known) else "–"


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="phantoms of each strength")
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.0, 0.5, 1.0])
    parser.add_argument("--quick", action="store_true", help="few cases, to see that it works")
    parser.add_argument("--jobs", type=int, default=1, help="phantoms at once, each on one thread")
    parser.add_argument("--out", type=Path, help="file for the results, one line a phantom; it is gone on with")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        strength, seed, quick, folder = given.one
        print(json.dumps(run_once(float(strength), int(seed), quick == "True", Path(folder))))
        return
    runs = (
        [json.loads(line) for line in given.out.read_text().splitlines()]
        if given.out and given.out.exists()
        else []
    )
    done = {(run["strength"], run["seed"]) for run in runs}
    works = [
        (strength, seed, given.quick)
        for seed in range(given.seeds)
        for strength in given.strengths
        if (strength, seed) not in done
    ]
    for run in side_by_side(Path(__file__).name, works, given.jobs):
        runs.append(run)
        CONSOLE.print(
            f"strength {run['strength']}, seed {run['seed']}, {run['seconds']:.0f} s: {run['summary']['sentence']}"
        )
        if given.out:
            with given.out.open("a") as file:
                file.write(json.dumps(run) + "\n")
    table = summarise(runs)
    print_table(
        "What is offered minus its rivals, mean over the seeds (lowest to highest)",
        [str(name) for name in table.columns],
        [
            [f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row]
            for row in table.itertuples(index=False)
        ],
    )


if __name__ == "__main__":
    main()
