"""Seeds: every random draw has one of its own, derived from the profile's seed and from what is drawn."""

import hashlib
from collections.abc import Iterable


def derived_seed(*parts: object) -> int:
    """Derives a seed of 32 bits from anything that prints, such as (profile seed, asset, case id)."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")


def shuffled(cases: Iterable[str], *parts: object) -> list[str]:
    """A random order in which a case that comes or goes changes nothing about the others."""
    return sorted(cases, key=lambda case: hashlib.sha256(repr((*parts, case)).encode()).digest())
