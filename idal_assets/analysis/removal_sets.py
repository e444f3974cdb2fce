"""The removal sets: which there are, what their names say, and what each is compared with.

A set names the donors that a retraining does without. Every set is trained once for each seed; the trainings after
the first are sets of their own, with the same donors and the ending `_s2`, `_s3`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from idal_assets.settings import ControlSettings, RemovalSettings

FULL_SET = "all"
"""The removal set that takes nothing away."""

WORST_CLUSTER = "worst_cluster"
"""The removal set that takes the worst cluster of the dendrogram away; nothing where there is none."""

Kind = Literal["all", "worst", "cluster", "random", "matched"]
CONTROLS: tuple[Kind, ...] = ("random", "matched")


@dataclass(frozen=True)
class RemovalSet:
    """A removal set.

    Attributes:
        name: Its name, which is also its partition: `worst_5`, `random_5_r03`, `worst_5_s2`.
        kind: `all` removes nothing, `worst` the worst of the ranking, `cluster` the worst cluster; `random` and
            `matched` are controls.
        base: Its name without the seed.
        replicate: Which of the seeds trains it, from 1.
        size: How many donors it removes; None where the cluster decides.
        controls: The chosen set that it is a control of, which has the same size; None for a chosen set.
        draw: Which of the draws of a control it is, from 1.
    """

    name: str
    kind: Kind
    base: str
    replicate: int = 1
    size: int | None = None
    controls: str | None = None
    draw: int | None = None

    @property
    def is_control(self) -> bool:
        """Whether it was drawn instead of chosen."""
        return self.kind in CONTROLS


def removal_sets(removal: RemovalSettings, controls: ControlSettings) -> dict[str, RemovalSet]:
    """All removal sets that a profile asks for.

    Args:
        removal: Sizes of the chosen sets.
        controls: How many controls each has, and how many seeds train each set.

    Returns:
        Sets by name: the chosen ones from small to large, their controls, then the same for the other seeds.
    """
    chosen = [
        RemovalSet(FULL_SET, "all", FULL_SET, size=0),
        *(RemovalSet(name, "worst", name, size=size) for size in removal.sizes for name in [f"worst_{size}"]),
        RemovalSet(WORST_CLUSTER, "cluster", WORST_CLUSTER),
    ]
    drawn = [control for one in chosen[1:] for control in _controls_of(one, controls)]
    first = [*chosen, *drawn]
    others = [
        replace(one, name=f"{one.base}_s{replicate}", replicate=replicate)
        for replicate in range(2, controls.seeds + 1)
        for one in first
    ]
    return {one.name: one for one in [*first, *others]}


def _controls_of(chosen: RemovalSet, settings: ControlSettings) -> Iterable[RemovalSet]:
    counts: Mapping[Kind, int] = {"random": settings.random, "matched": settings.matched}
    what = chosen.name.removeprefix("worst_")
    for kind, count in counts.items():
        for draw in range(1, count + 1):
            name = f"{kind}_{what}_r{draw:02}"
            yield RemovalSet(name, kind, name, size=chosen.size, controls=chosen.name, draw=draw)
