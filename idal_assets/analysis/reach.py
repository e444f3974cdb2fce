"""What an experiment costs and what it can tell, said before anything is trained."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np
from scipy import stats

from idal_assets.analysis.effects import significance
from idal_assets.analysis.removal_sets import removal_sets
from idal_assets.analysis.statistics import (
    Removal,
    about_as_large,
    against_random,
    pooled_degrees,
    smallest_random_p,
)
from idal_assets.settings import EvidenceSettings, shortened_length

EFFECTS = (0.01, 0.02, 0.05)
"""Mean differences of Dice whose chance to be found is told."""

EXPERIMENTS = 1000
"""Simulated experiments; a power of a half is told to within 3 percent."""


def forecast(setting: Callable[[str], Any], donors: int, test_cases: int) -> list[str]:
    """Says what will be trained, and which claims that can reach, a sentence each.

    Args:
        setting: Gives a section of the profile by its name.
        donors: How many donors there are.
        test_cases: How many test patients.
    """
    return [_cost(setting, donors), *reach(_design(setting, donors, test_cases), setting("evidence"))]


def _cost(setting: Callable[[str], Any], donors: int) -> str:
    candidates, folds, confirmation = setting("candidates"), setting("out_of_fold"), setting("confirmation")
    retrainings = len(removal_sets(setting("removal"), setting("controls")))
    models = setting("case_model")
    length = shortened_length(models.iterations, setting("early_stop").share)
    to_the_end = setting("early_stop").most_contested(donors)
    compared = [candidates.training(name).iterations for name in candidates.names]
    trainings = {
        "baseline": (1, setting("baseline").iterations),
        "its candidates": (len(compared), sum(compared)),
        "case models": (donors * models.seeds, donors * models.seeds * length),
        "case models to the end": (to_the_end, to_the_end * models.iterations),
        "networks of folds": (folds.folds, folds.folds * folds.training.iterations),
        "retrainings": (retrainings, retrainings * setting("reduced").iterations),
        "confirmations": (2 * confirmation.seeds, 2 * confirmation.seeds * confirmation.training.iterations),
    }
    parts = [f"{count} {name} {iterations:,}" for name, (count, iterations) in trainings.items() if count]
    counts, iterations = zip(*trainings.values(), strict=True)
    return f"Up to {sum(counts)} trainings of {sum(iterations):,} iterations: {', '.join(parts)}."


def _design(setting: Callable[[str], Any], donors: int, test_cases: int) -> "Design":
    removal, controls = setting("removal"), setting("controls")
    random: dict[str, int] = {}
    for size in sorted({*removal.sizes, *removal.best}):
        chosen = (size in removal.sizes) + (size in removal.best)
        different = max(0, comb(donors, size) - chosen)
        random |= {f"random_{size}_r{draw:02}": size for draw in range(1, min(controls.random, different) + 1)}
    return Design(
        sizes=removal.sizes,
        random=random,
        seeds=controls.seeds,
        random_seeds=controls.random_seeds or controls.seeds,
        test_cases=test_cases,
    )


@dataclass(frozen=True)
class Design:
    """What will be trained and tested.

    Attributes:
        sizes: How many donors each set removes that is thought bad. The worst cluster, whose size is not known
            beforehand, is one more where it is tested.
        random: How many donors each random removal does, by name.
        seeds: How often a chosen set and the full set are trained.
        random_seeds: How often a random removal is trained.
        test_cases: How many test patients there are.
    """

    sizes: tuple[int, ...]
    random: Mapping[str, int]
    seeds: int
    random_seeds: int
    test_cases: int


def reach(design: Design, settings: EvidenceSettings) -> list[str]:
    """Says which claims the design can reach, a sentence each.

    Args:
        design: What will be trained and tested.
        settings: Level, and the spreads to expect.
    """
    limit = significance(settings.level)
    if not design.sizes:
        return ["No set removes a donor, so nothing is compared."]
    sets = len(design.sizes) + 1
    pools = [about_as_large(size, design.random) for size in design.sizes]
    smallest = min(smallest_random_p(len(pool)) * sets if pool else 1.0 for pool in pools)
    said = [
        f"{len(design.sizes)} set{'s' * (len(design.sizes) > 1)} of the worst and the worst cluster, "
        f"{len(design.random)} different random removals, {design.seeds} training{'s' * (design.seeds != 1)} of a "
        f"set, {design.test_cases} test patients."
    ]
    said += [
        f"No random removal is about as large as the set of {size}, so nothing can be claimed of it."
        for size, pool in zip(design.sizes, pools, strict=True)
        if not pool
    ]
    if design.seeds == 1:
        said.append("With one training of a set neither a gain nor a harm can be claimed; raise controls.seeds.")
    if not smallest < limit:
        fewest = int(np.floor(sets / limit))
        said.append(
            f"No claim can be made whatever the data: the smallest p against random removals, corrected for "
            f"{sets} sets, is {min(smallest, 1):.2g}, and it must be below {limit:g}. It takes {fewest} of about "
            "the size of a set (controls.random)."
        )
    if design.seeds == 1 or not smallest < limit:
        return said
    found = ", ".join(f"{effect:+.2f} in {_power(effect, design, pools, settings):.0%}" for effect in EFFECTS)
    return [
        *said,
        f"The smallest p against random removals, corrected for {sets} sets, is {smallest:.2g}.",
        f"If differences spread by {settings.expected_seed_sd:g} between seeds, {settings.expected_case_sd:g} "
        f"between test cases and {settings.expected_removal_sd:g} between random removals, an effect is claimed "
        f"in so many experiments: {found}.",
    ]


def _power(effect: float, design: Design, pools: list[list[str]], settings: EvidenceSettings) -> float:
    """Chance of a claim for the set with the most random removals, if no other set has an effect."""
    place = max(range(len(pools)), key=lambda number: len(pools[number]))
    size, count = design.sizes[place], len(pools[place])
    draws = np.random.default_rng(0)
    removal, seed = settings.expected_removal_sd, settings.expected_seed_sd
    of_cases, of_seeds = settings.expected_case_sd**2 / design.test_cases, seed**2 / design.seeds
    of_random = removal**2 + of_cases + seed**2 / design.random_seeds
    chosen = draws.normal(effect, np.sqrt(removal**2 + of_cases + of_seeds), EXPERIMENTS)
    random = draws.normal(0, np.sqrt(of_random), (EXPERIMENTS, count))
    repeated = len(design.sizes) + (len(design.random) if design.random_seeds > 1 else 0)
    degrees = (of_cases + of_seeds) ** 2 / (
        of_cases**2 / max(1, design.test_cases - 1) + of_seeds**2 / pooled_degrees(repeated, design.seeds)
    )
    half_width = stats.t.ppf((1 + settings.level) / 2, degrees) * np.sqrt(of_cases + of_seeds)
    limit = significance(settings.level) / (len(design.sizes) + 1)
    claimed = [
        own > half_width
        and against_random(Removal(size, own), [Removal(size, value) for value in others]).better_p < limit
        for own, others in zip(chosen, random, strict=True)
    ]
    return float(np.mean(claimed))
