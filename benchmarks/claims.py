"""How often a claim is false, and how often a true effect is found: the judgement alone, on simulated Dice.

The Dice of a training is that of its test case, plus the luck of the seed, which moves all cases alike (SD 0.01)
and each case on its own (0.03), plus what the set does to each case (0.01) and, where donors are removed at
random, what that does (0.003). A share of the luck is common to all sets with the same seed, as they share their
draws. Four sets are chosen and twenty random removals of each of their sizes, all trained with as many seeds.

    python benchmarks/claims.py
"""

import argparse

import numpy as np
import pandas as pd
from measuring import CONSOLE
from rich.progress import track
from rich.table import Table

from idal_assets.analysis.effects import effects
from idal_assets.analysis.removal_sets import FULL_SET

SIZES = (4, 5, 6, 7)
DONORS = 40
RANDOM = 20
PLACE = ("removal_set", "replicate", "case_id")
SEED_SD, SEED_CASE_SD, SET_CASE_SD, REMOVAL_SD = 0.01, 0.03, 0.01, 0.003


def simulated(effect: float, tests: int, seeds: int, common: float, draws: np.random.Generator) -> pd.DataFrame:
    """The verdicts of one experiment, in which the third set has the effect.

    Args:
        effect: True change of the mean Dice by that set.
        tests: Number of test cases.
        seeds: Trainings of each set.
        common: Share of the variance of a seed's luck that all sets have in common.
        draws: Source of the draws.
    """
    sizes = {FULL_SET: 0, **{f"worst_{size}": size for size in SIZES}}
    sizes |= {f"random_{size}_r{draw:02}": size for size in SIZES for draw in range(1, RANDOM + 1)}
    of_case = draws.normal(0.8, 0.1, tests)
    shared = _luck(draws, seeds, tests, common)
    dice = {}
    for name, size in sizes.items():
        of_set = draws.normal(0, REMOVAL_SD) * (size > 0) + (effect if name == f"worst_{SIZES[2]}" else 0)
        own = _luck(draws, seeds, tests, 1 - common) + draws.normal(0, SET_CASE_SD, tests)
        dice[name] = of_case + shared + own + of_set
    index = pd.MultiIndex.from_product([dice, range(seeds), range(tests)], names=PLACE)
    scalars = pd.DataFrame({"dice": np.concatenate([*dice.values()]).ravel()}, index).reset_index()
    removed = {name: [str(donor) for donor in range(size)] for name, size in sizes.items()}
    random = {name: donors for name, donors in removed.items() if name.startswith("random")}
    chosen = {name: donors for name, donors in removed.items() if name not in random}
    return effects(scalars, chosen, random, resamples=100).set_index("removal_set")


def _luck(draws: np.random.Generator, seeds: int, tests: int, share: float) -> np.ndarray:
    """A share of the luck of each seed, shape (seeds, tests)."""
    for_all = draws.normal(0, SEED_SD * np.sqrt(share), (seeds, 1))
    return for_all + draws.normal(0, SEED_CASE_SD * np.sqrt(share), (seeds, tests))


def main() -> None:
    """Reads the command line and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=400)
    parser.add_argument("--tests", type=int, nargs="+", default=[8, 40, 100])
    parser.add_argument("--effects", type=float, nargs="+", default=[0.0, 0.01, 0.02, 0.05])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--common", type=float, default=5 / 6, help="share of a seed's variance that sets share")
    arguments = parser.parse_args()
    table = Table("test cases", "effect", "found", "any false claim", title=f"{arguments.experiments} experiments")
    for tests in arguments.tests:
        for effect in arguments.effects:
            found = false = 0
            draws = np.random.default_rng([arguments.seeds, tests, round(1000 * effect)])
            for _ in track(range(arguments.experiments), f"{tests} test cases, {effect:+.2f}", console=CONSOLE):
                verdicts = simulated(effect, tests, arguments.seeds, arguments.common, draws)
                true = [f"worst_{SIZES[2]}"] if effect else []
                found += bool(verdicts.loc[true, "gain"].any())
                false += bool(verdicts.drop(index=true)[["gain", "harm"]].any(axis=None))
            shares = (f"{count / arguments.experiments:.1%}" for count in (found, false))
            table.add_row(str(tests), f"{effect:+.2f}", *shares)
    CONSOLE.print(table)


if __name__ == "__main__":
    main()
