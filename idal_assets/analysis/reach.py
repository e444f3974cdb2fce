"""What a design can tell, said before anything is trained: smallest p values, and the power of its claims."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from idal_assets.analysis.effects import significance
from idal_assets.analysis.statistics import Removal, about_as_large, against_random, smallest_random_p
from idal_assets.settings import EvidenceSettings

EFFECTS = (0.01, 0.02, 0.05)
"""Mean differences of Dice whose chance to be found is told."""

EXPERIMENTS = 1000
"""Simulated experiments; a power of a half is told to within 3 percent."""


@dataclass(frozen=True)
class Design:
    """What will be trained and tested.

    Attributes:
        sizes: How many donors each chosen set removes that removes any, as far as it is known.
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
    sets = len(design.sizes)
    if not sets:
        return ["No set removes a donor, so nothing is compared."]
    pools = [about_as_large(size, design.random) for size in design.sizes]
    smallest = min(smallest_random_p(len(pool)) * sets if pool else 1.0 for pool in pools)
    said = [
        f"{sets} chosen set{'s' * (sets != 1)}, {len(design.random)} different random removals, {design.seeds} "
        f"training{'s' * (design.seeds != 1)} of a set, {design.test_cases} test cases."
    ]
    said += [
        f"No random removal is about as large as the set of {size}, so nothing can be claimed of it."
        for size, pool in zip(design.sizes, pools, strict=True)
        if not pool
    ]
    if design.seeds == 1:
        said.append(
            "With one training of a set neither a gain nor a harm can be claimed; set controls.seeds to 2."
        )
    if not smallest < limit:
        fewest = int(np.floor(sets / limit))
        said.append(
            f"No claim can be made whatever the data: the smallest corrected p against random removals is "
            f"{min(smallest, 1):.2g}, and it must be below {limit:g}. It takes {fewest} of about the size of a "
            f"set (controls.random)."
        )
    if design.seeds == 1 or not smallest < limit:
        return said
    found = ", ".join(f"{effect:+.2f} in {_power(effect, design, pools, settings):.0%}" for effect in EFFECTS)
    return [
        *said,
        f"The smallest corrected p against random removals is {smallest:.2g}.",
        f"With a spread of {settings.expected_seed_sd:g} between seeds, {settings.expected_case_sd:g} between "
        f"test cases and {settings.expected_removal_sd:g} between random removals, an effect is claimed in so "
        f"many experiments: {found}.",
    ]


def _power(effect: float, design: Design, pools: list[list[str]], settings: EvidenceSettings) -> float:
    """Chance of a claim for the set with the most random removals, if no other set has an effect."""
    place = max(range(len(pools)), key=lambda number: len(pools[number]))
    size, count = design.sizes[place], len(pools[place])
    draws = np.random.default_rng(0)
    between_removals, seed = settings.expected_removal_sd, settings.expected_seed_sd
    of_chosen = draws.normal(effect, np.hypot(between_removals, seed / np.sqrt(design.seeds)), EXPERIMENTS)
    spread = np.hypot(between_removals, seed / np.sqrt(design.random_seeds))
    of_random = draws.normal(0, spread, (EXPERIMENTS, count))
    of_cases = settings.expected_case_sd**2 / design.test_cases
    of_seeds = seed**2 / design.seeds
    degrees = (of_cases + of_seeds) ** 2 / (
        of_cases**2 / max(1, design.test_cases - 1) + of_seeds**2 / (design.seeds - 1)
    )
    half_width = stats.t.ppf((1 + settings.level) / 2, degrees) * np.sqrt(of_cases + of_seeds)
    sampled = of_chosen + draws.normal(0, np.sqrt(of_cases), EXPERIMENTS)
    limit = significance(settings.level) / len(design.sizes)
    claimed = [
        low > 0 and against_random(Removal(size, own), [Removal(size, value) for value in others]).better_p < limit
        for low, own, others in zip(sampled - half_width, of_chosen, of_random, strict=True)
    ]
    return float(np.mean(claimed))
