"""What can be made now, of all assets at once: chains of artifacts whose sources are settled.

An artifact is settled when it is current or lost: lost is one that failed, and what needs it. Who makes artifacts
side by side asks here what is next, and says what became of it.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from idal_assets.study.currency import sources
from idal_assets.study.graph import GRAPH, SOURCES, Node, upstream_of
from idal_assets.study.selectors import Selector, same_key
from idal_assets.study.study import NotMadeError, StillStudy, Study
from idal_assets.study.tables import Artifact


@dataclass(frozen=True)
class Chain:
    """Artifacts of one partition, each made from those before it, that one worker makes one after the other.

    Attributes:
        assets: Their assets.
        key: The partition.
        made_from: For each of them, a hash of what it is made from beside the chain itself: another host makes it
            once it sees the same.
    """

    assets: tuple[str, ...]
    key: str | None
    made_from: tuple[str, ...]

    @property
    def accelerated(self) -> bool:
        """Whether a card is needed, where there are any."""
        return any(GRAPH[name].accelerated for name in self.assets)


class Order:
    """What is next.

    Args:
        study: The study. What is settled is taken not to change any more.
        wanted: Names of the assets that are made; what is before them is taken as it is.

    Attributes:
        lost: Artifacts that cannot be made: they failed, or need one that did.
    """

    def __init__(self, study: Study, wanted: Collection[str]) -> None:
        self._study = StillStudy(study)
        self._nodes = {name: node for name, node in GRAPH.items() if name in wanted}
        self._naming = {name: [*self._who_names(name)] for name in self._nodes}
        self._open: dict[str, dict[str | None, None]] = {}
        self._unseen: dict[str, dict[str | None, None]] = {}
        self._keys: dict[str, list[str | None]] = {}
        self._due: dict[Artifact, tuple[int, ...]] = {}
        self.lost: set[Artifact] = set()
        self._learn_partitions()

    @property
    def known(self) -> int:
        """How many artifacts there are, as far as the partitions are known."""
        return sum(map(len, self._keys.values()))

    @property
    def due(self) -> int:
        """How many chains at most could be handed out now."""
        return len(self._due)

    def ready(self) -> list[Artifact]:
        """Artifacts that are now to be looked at, since their sources are settled; each is named once.

        The caller says of each that it is settled, or due.
        """
        found: list[Artifact] = []
        for name, unseen in self._unseen.items():
            node = self._nodes[name]
            if unseen and all(self._is_settled(above) for above in self._above(node, direct=False)):
                own = self._above(node, direct=True)
                keys = [key for key in unseen if not any(key in self._open.get(above, ()) for above in own)]
                found += [(name, key) for key in keys]
                for key in keys:
                    del unseen[key]
        return found

    def call_due(self, asset: str, key: str | None) -> None:
        """Has an artifact be made, once somebody is free."""
        keys = self._keys[asset]
        # long trainings, of which there are few, come before the many short ones
        self._due[asset, key] = (len(keys), [*GRAPH].index(asset), keys.index(key))

    def settle(self, asset: str, key: str | None, lost: bool = False) -> None:
        """Says that an artifact is current, or lost."""
        self._open[asset].pop(key, None)
        self._unseen[asset].pop(key, None)
        if lost:
            self.lost.add((asset, key))
        if self._nodes[asset].names_partitions:
            self._learn_partitions()

    def give_back(self, asset: str, key: str | None) -> None:
        """Says that an artifact of a chain was not tried, because one before it failed."""
        self._unseen[asset][key] = None

    def why_lost(self, asset: str, key: str | None) -> str | None:
        """Why an artifact cannot be made although its sources are settled; None where it can.

        Returns:
            A sentence; an empty one where something that it needs is lost, of which that was said.
        """
        if self._needs_lost_partitions(asset):
            return ""
        try:
            inputs = self._nodes[asset].inputs(self._study, key)
        except NotMadeError as error:
            return "" if self.lost else str(error)
        return "" if self.lost.intersection(sources(inputs, key)) else None

    def next_chain(self, is_free: Callable[[bool], bool]) -> Chain | None:
        """Takes the chain that is to be made next.

        Args:
            is_free: Whether somebody is free to make one, told whether it needs a card.

        Returns:
            A chain; None where there is none for those who are free.
        """
        for asset, key in sorted(self._due, key=lambda place: self._due[place]):
            members = list(self._members(asset, key))
            if is_free(any(node.accelerated for node in members)):
                return self._take(members, key)
        return None

    def _take(self, members: list[Node], key: str | None) -> Chain:
        names: list[str] = []
        hashes: list[str] = []
        for node in members:
            found = self._made_from(node, key, names)
            if found is None:
                continue
            names.append(node.name)
            hashes.append(found)
            self._unseen[node.name].pop(key, None)
            self._due.pop((node.name, key), None)
        return Chain(tuple(names), key, tuple(hashes))

    def _made_from(self, node: Node, key: str | None, chain: Sequence[str]) -> str | None:
        """Hash of what an artifact is made from beside the chain; None where that is not all there."""
        if (node.name, key) not in self._due and not self._follows(node, key, chain):
            return None
        try:
            inputs = node.inputs(self._study, key, without={*chain, *SOURCES})
        except NotMadeError:
            return None
        is_lost = self.lost.intersection(sources(inputs, key)) or self._needs_lost_partitions(node.name)
        return None if is_lost else inputs.hash()

    def _members(self, asset: str, key: str | None) -> Iterator[Node]:
        """The artifact, those that are made from it one after the other, and others of the partition that are due.

        What branches off is left for another chain: it would only keep waiting what needs this one.
        """
        first = self._nodes[asset]
        names = [asset]
        yield first
        of_partition = [node for node in self._nodes.values() if node.partition == first.partition is not None]
        for node in of_partition[of_partition.index(first) + 1 :] if of_partition else ():
            if (node.name, key) in self._due or self._follows(node, key, names):
                names.append(node.name)
                yield node

    def _follows(self, node: Node, key: str | None, chain: Sequence[str]) -> bool:
        """Whether an artifact is made from the last of a chain, and else from that chain and what is settled."""
        direct, others = (self._above(node, direct) for direct in (True, False))
        return (
            key in self._unseen.get(node.name, ())
            and chain[-1] in direct
            and all(name in chain or key not in self._open.get(name, ()) for name in direct)
            and all(self._is_settled(name) for name in others)
        )

    def _above(self, node: Node, direct: bool) -> list[str]:
        """What an artifact is made from: of the same partition alone, or of any."""
        edges = node.made_from.items()
        return [name for name, select in edges if name in self._nodes and direct == _is_direct(node, name, select)]

    def _is_settled(self, asset: str) -> bool:
        return asset in self._open and not self._open[asset]

    def _learn_partitions(self) -> None:
        """Lists the artifacts of assets whose partitions are known by now."""
        for name, node in self._nodes.items():
            if name not in self._open and all(self._is_settled(above) for above in self._naming[name]):
                keys = [] if self._needs_lost_partitions(name) and node.partition else node.keys(self._study)
                self._open[name], self._unseen[name] = dict.fromkeys(keys), dict.fromkeys(keys)
                self._keys[name] = keys

    def _needs_lost_partitions(self, asset: str) -> bool:
        return any((name, None) in self.lost for name in self._naming[asset])

    def _who_names(self, asset: str) -> Iterator[str]:
        """Assets that decide which artifacts this one has or is made from."""
        above = upstream_of(asset) - {asset}
        return (name for name in self._nodes if name in above and GRAPH[name].names_partitions)


def _is_direct(node: Node, upstream: str, select: Selector) -> bool:
    return select is same_key and GRAPH[upstream].partition == node.partition is not None
