"""Which artifacts are current, outdated or missing, told from their records alone."""

from collections.abc import Mapping
from typing import Literal

from idal_assets.artifacts import Inputs, read_provenance
from idal_assets.graph import GRAPH, Node
from idal_assets.study import NotMadeError, Study

State = Literal["current", "outdated", "missing"]
States = Mapping[str, Mapping[str | None, State]]


def inputs_unless_incomplete(study: Study, node: Node, key: str | None) -> Inputs | None:
    """What determines an artifact, or None where something upstream has not been made."""
    try:
        return node.inputs(study, key)
    except NotMadeError:
        return None


def is_made_from(study: Study, node: Node, key: str | None, inputs: Inputs | None) -> bool:
    """Whether the artifact on disk was made from exactly these inputs."""
    present = read_provenance(study.path(node.name, key))
    return present is not None and inputs is not None and present.inputs_hash == inputs.hash()


def all_states(study: Study) -> States:
    """State of every artifact of the study.

    An artifact is current if it was made from what is there now and all that is current too; a change far upstream
    therefore shows on everything below it, although a rerun may end earlier where the content stays the same.

    Returns:
        States by asset and partition; an asset whose partitions are not known yet has none.
    """
    states: dict[str, dict[str | None, State]] = {}
    for node in GRAPH.values():
        states[node.name] = {key: _state(study, node, key, states) for key in _known_keys(study, node)}
    return states


def _known_keys(study: Study, node: Node) -> list[str | None]:
    try:
        return node.keys(study)
    except NotMadeError:
        return []


def _state(study: Study, node: Node, key: str | None, upstream: States) -> State:
    if read_provenance(study.path(node.name, key)) is None:
        return "missing"
    inputs = inputs_unless_incomplete(study, node, key)
    if inputs is None or not is_made_from(study, node, key, inputs):
        return "outdated"
    sources = [
        source for asset, made_from in inputs.made_from.items() for source in _sources(asset, made_from, key)
    ]
    return "current" if all(upstream[asset].get(place) == "current" for asset, place in sources) else "outdated"


def _sources(asset: str, made_from: str | Mapping[str, str], key: str | None) -> list[tuple[str, str | None]]:
    if asset not in GRAPH:
        return []
    if isinstance(made_from, Mapping):
        return [(asset, place) for place in made_from]
    return [(asset, key if GRAPH[asset].partition else None)]
