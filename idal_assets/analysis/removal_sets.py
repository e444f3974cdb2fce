"""The removal sets: which there are and what their names say.

A set names the donors that a retraining does without. Some are chosen, others drawn at random. A set is trained
once for each of its seeds; the trainings of one set have the same donors, and those of another seed than the first
end in `_s2`, `_s3`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from idal_assets.settings import ControlSettings, RemovalSettings

FULL_SET = "all"
"""The removal set that takes nothing away."""

WORST_CLUSTER = "worst_cluster"
"""The removal set that takes the worst cluster of the dendrogram away; nothing where there is none."""

CHOSEN_SET = "chosen"
"""What the best of the chosen sets is called among the trainings that confirm it."""

Kind = Literal["all", "worst", "best", "cluster", "random", "half", "chosen"]
DRAWN: tuple[Kind, ...] = ("random", "half")


@dataclass(frozen=True)
class RemovalSet:
    """One training of a removal set.

    Attributes:
        name: Its name, which is also its partition: `worst_5`, `random_5_r03`, `worst_5_s2`.
        kind: `all` removes nothing, `worst` and `best` the ends of the ranking, `cluster` the worst cluster;
            `random` and `half` are drawn.
        base: The name without the seed, which all trainings of the set share.
        replicate: Which of the seeds trains it, from 1.
        size: How many donors it removes; None where the cluster decides or half of them leave.
        draw: Which of the draws of its kind and size it is, from 1.
    """

    name: str
    kind: Kind
    base: str
    replicate: int = 1
    size: int | None = None
    draw: int | None = None

    @property
    def is_drawn(self) -> bool:
        """Whether it was drawn instead of chosen."""
        return self.kind in DRAWN


def removal_sets(removal: RemovalSettings, controls: ControlSettings) -> dict[str, RemovalSet]:
    """All trainings on removal sets that a profile asks for.

    Args:
        removal: Sizes of the chosen sets.
        controls: How many are drawn, and how many seeds train each set.

    Returns:
        Trainings by name, seed by seed: the chosen sets from small to large, then those that are drawn. A set that
        is drawn has `random_seeds` of the seeds, which take turns, so that none has more of the random removals
        than another.
    """
    chosen, drawn = list(_chosen(removal)), list(_drawn(removal, controls))
    of_drawn = controls.random_seeds or controls.seeds
    trained = [(one, replicate) for replicate in range(1, controls.seeds + 1) for one in chosen]
    trained += [(one, (_turn(one) + more) % controls.seeds + 1) for one in drawn for more in range(of_drawn)]
    return _named(sorted(trained, key=lambda training: training[1]))


def _turn(one: RemovalSet) -> int:
    """Which seed is first for a set that is drawn; the two halves of a pair share theirs."""
    draw = (one.draw or 1) - 1
    return draw // 2 if one.kind == "half" else draw


def confirmations(seeds: int) -> dict[str, RemovalSet]:
    """The trainings that confirm the best of the chosen sets: of the full set and of it, for every seed.

    Args:
        seeds: How often each is trained; with 0 there are none.
    """
    sets = (RemovalSet(FULL_SET, "all", FULL_SET, size=0), RemovalSet(CHOSEN_SET, "chosen", CHOSEN_SET))
    return _named([(one, replicate) for replicate in range(1, seeds + 1) for one in sets])


def _named(trained: Iterable[tuple[RemovalSet, int]]) -> dict[str, RemovalSet]:
    named = [
        replace(one, replicate=replicate, name=one.base if replicate == 1 else f"{one.base}_s{replicate}")
        for one, replicate in trained
    ]
    return {one.name: one for one in named}


def _chosen(removal: RemovalSettings) -> Iterator[RemovalSet]:
    yield RemovalSet(FULL_SET, "all", FULL_SET, size=0)
    kinds: dict[Kind, Iterable[int]] = {"worst": removal.sizes, "best": removal.best}
    for kind, sizes in kinds.items():
        for size in sizes:
            yield RemovalSet(f"{kind}_{size}", kind, f"{kind}_{size}", size=size)
    yield RemovalSet(WORST_CLUSTER, "cluster", WORST_CLUSTER)


def _drawn(removal: RemovalSettings, controls: ControlSettings) -> Iterator[RemovalSet]:
    for size in sorted({*removal.sizes, *removal.best}):
        for draw in range(1, controls.random + 1):
            name = f"random_{size}_r{draw:02}"
            yield RemovalSet(name, "random", name, size=size, draw=draw)
    for draw in range(1, controls.halves + 1):
        name = f"half_r{draw:02}"
        yield RemovalSet(name, "half", name, draw=draw)
