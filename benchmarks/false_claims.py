"""How often a gain is claimed where there is none: the whole experiment on phantoms without any fault.

Every seed has a phantom of its own, all of whose cases are valid, and runs the graph up to the evidence, with
forty random removals of its size. Removing donors can gain nothing but by chance, so at a level of 95 % a claim
should come in about one of twenty seeds at most. Networks are small and trainings short: what is looked at is the
judgement, not the Dice. Each artifact is made with its record but without Dagster, which would take longer than
trainings as short as these.

    python benchmarks/false_claims.py --jobs 2
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from measuring import CONSOLE, side_by_side
from workload import write_profile

from idal_assets.steps.evidence import load_evidence
from idal_assets.study.making import make_all
from idal_assets.study.study import Study

# Enough for a median Dice of the whole tumour of about 0.6.
TRAINING = {"epochs": 2, "iterations_per_epoch": 30, "optimizer": "adam", "learning_rate": 3e-3}
PROFILE: Mapping[str, Mapping[str, Any]] = {
    "phantom": {"train_cases": 12, "test_cases": 10, "faults": 0, "rare": 0.15},
    "cohort": {"test_cases": ["phantom_test_*"], "test": None},
    "plans": {"base_features": 8},
    "baseline": TRAINING,
    "case_model": {**TRAINING, "epochs": 1, "iterations_per_epoch": 10},
    "inference": {"surface_distances": False},
    "out_of_fold": {"folds": 0},
    "removal": {"sizes": [2]},
    # With forty random removals the smallest p, corrected for the set and the cluster, is 2/41.
    "controls": {"random": 40, "halves": 0, "seeds": 2, "random_seeds": 1},
    "confirmation": {"seeds": 0},
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
    make_all(study, "evidence")
    found = load_evidence(study.path("evidence"))
    return {
        "seed": seed,
        "gains": list(found.judged.loc[found.judged["gain"], "removal_set"]),
        "harms": list(found.judged.loc[found.judged["harm"], "removal_set"]),
        "sentences": found.sentences,
        "mean_dice": float(found.effects["mean_dice"].iloc[0]),
        "seconds": time.perf_counter() - started,
    }


def main() -> None:
    """Reads the command line and measures."""
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(run_once(int(sys.argv[2]), Path(sys.argv[3]))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=1, help="seeds at once, each on one thread")
    arguments = parser.parse_args()
    gains = harms = 0
    for found in side_by_side("false_claims.py", ((seed,) for seed in range(arguments.seeds)), arguments.jobs):
        gains += bool(found["gains"])
        harms += bool(found["harms"])
        claimed = ", ".join(f"a {kind} of {name}" for kind in ("gain", "harm") for name in found[f"{kind}s"])
        CONSOLE.print(
            f"seed {found['seed']}, {found['seconds']:.0f} s, mean Dice {found['mean_dice']:.3f}: "
            f"{claimed or 'nothing claimed'}. {' | '.join(found['sentences'])}"
        )
    # to remove a valid donor may do harm, so that such a claim may be true
    print(f"claims of a gain: {gains} of {arguments.seeds}; of a harm: {harms} of {arguments.seeds}")


if __name__ == "__main__":
    main()
