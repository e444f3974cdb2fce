"""Seeds: every random draw has one of its own, derived from a seed and from what is drawn."""

import hashlib
from collections.abc import Iterable

import numpy as np


def derived_seed(*parts: object) -> int:
    """Derives a seed of 32 bits from anything that prints, such as (profile seed, asset, case id)."""
    return int.from_bytes(_digest(repr(parts))[:4], "big")


def stream(seed: int, *names: str) -> np.random.Generator:
    """A random stream of its own for these names, so that no draw elsewhere changes it."""
    return np.random.default_rng(int.from_bytes(_digest("/".join((str(seed), *names))), "big"))


def shuffled(cases: Iterable[str], *parts: object) -> list[str]:
    """A random order in which a case that comes or goes changes nothing about the others."""
    return sorted(cases, key=lambda case: _digest(repr((*parts, case))))


def in_drawing_order(cases: Iterable[str], seed: int) -> list[str]:
    """The order in which cases are drawn for roles and folds, as stable as `shuffled`."""
    return sorted(cases, key=lambda case: _digest(f"{seed}:{case}"))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
