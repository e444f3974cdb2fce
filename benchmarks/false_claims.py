"""How often a gain is claimed where there is none: the whole experiment on phantoms without any fault.

Every seed has a phantom of its own, all of whose cases are valid, and runs the graph up to the evidence, with
twenty random removals for each set. Removing donors can gain nothing but by chance, so at a level of 95 % a claim
should come in about one of twenty seeds at most. Networks are small and trainings short: what is looked at is the
judgement, not the Dice.

    python benchmarks/false_claims.py --jobs 2
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from measuring import CONSOLE, in_fresh_process
from workload import run_graph, write_profile

from idal_assets.steps.evidence import load_evidence
from idal_assets.study import Study

TRAINING = {"epochs": 4, "iterations_per_epoch": 25, "optimizer": "adam", "learning_rate": 3e-3}
PROFILE: Mapping[str, Mapping[str, Any]] = {
    "phantom": {"train_cases": 12, "test_cases": 10, "faults": 0, "rare": 0.15},
    "cohort": {"test_cases": ["phantom_test_*"], "test": None},
    "baseline": TRAINING,
    "case_model": {**TRAINING, "epochs": 1, "iterations_per_epoch": 10},
    "inference": {"surface_distances": False},
    "out_of_fold": {"folds": 0},
    "removal": {"sizes": [2]},
    # With twenty random removals the smallest p is 1/21, just below 5 percent.
    "controls": {"random": 20, "matched": 0, "seeds": 2},
    "reduced": TRAINING,
    "compute": {"threads": 1},
}
"""What differs from the profile `tiny`."""


def run_once(seed: int, folder: Path) -> dict[str, Any]:
    """Runs the experiment of one seed in this process and says what it claims."""
    profile = folder / "profile.yaml"
    phantom = {**PROFILE["phantom"], "seed": seed}
    write_profile(profile, "tiny", {**PROFILE, "phantom": phantom}, seed=seed)
    study = Study.open(folder / "data", profile)
    started = time.perf_counter()
    run_graph(study, "evidence")
    found = load_evidence(study)
    return {
        "seed": seed,
        "gains": list(found.judged.loc[found.judged["gain"], "removal_set"]),
        "harms": list(found.judged.loc[found.judged["harm"], "removal_set"]),
        "sentences": found.sentences,
        "median_dice": float(found.effects["median_dice"].iloc[0]),
        "seconds": time.perf_counter() - started,
    }


def _measure(seed: int) -> dict[str, Any]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        return in_fresh_process("false_claims.py", "--one", seed, folder, environment=environment)


def main() -> None:
    """Reads the command line and measures."""
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(run_once(int(sys.argv[2]), Path(sys.argv[3]))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=1, help="seeds at once, each on one thread")
    arguments = parser.parse_args()
    claims = 0
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for found in pool.map(_measure, range(arguments.seeds)):
            claims += bool(found["gains"])
            verdict = f"CLAIMS A GAIN ({', '.join(found['gains'])})" if found["gains"] else "no gain"
            CONSOLE.print(
                f"seed {found['seed']}, {found['seconds']:.0f} s, median Dice {found['median_dice']:.3f}: "
                f"{verdict}. "
                f"{' | '.join(found['sentences'])}"
            )
    print(f"claims of a gain: {claims} of {arguments.seeds}")


if __name__ == "__main__":
    main()
