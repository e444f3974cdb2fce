"""Which artifacts are current, outdated, missing or due to be made, told from their records alone."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from idal_assets.store.artifacts import Inputs, Provenance, content_hash, read_provenance
from idal_assets.study.graph import GRAPH, SOURCES, Node, keys_of
from idal_assets.study.study import NotMadeError, StillStudy, Study

State = Literal["current", "outdated", "missing"]
States = Mapping[str, Mapping[str | None, State]]


@dataclass(frozen=True)
class Standing:
    """How an artifact stands.

    Attributes:
        state: Current, outdated or missing.
        due: Where it has to be made and everything above it is current: a hash of what it would be made from and
            of what it would replace; else None.
    """

    state: State
    due: str | None = None


Survey = Mapping[str, Mapping[str | None, Standing]]


def inputs_unless_incomplete(
    study: Study, node: Node, key: str | None, without: Collection[str] = ()
) -> Inputs | None:
    """What determines an artifact, or None where something upstream has not been made."""
    try:
        return node.inputs(study, key, without)
    except NotMadeError:
        return None


def is_kept(study: Study, node: Node, key: str | None) -> bool:
    """Whether the artifact on disk was made from what is there now, as far as the profile's policy asks."""
    present = read_provenance(study.path(node.name, key))
    if present is None:
        return False
    inputs = inputs_unless_incomplete(study, node, key, node.pinned(study))
    return inputs is not None and _was_made_from(present, inputs, node.pinned(study))


def survey(study: Study, look_at_folders: bool = True) -> Survey:
    """How every artifact of the study stands.

    An artifact is current if it was made from what is there now and all that is current too; a change far upstream
    therefore shows on everything below it, although a rerun may end earlier where the content stays the same.
    While plans and baseline are pinned, other training cases do not make them outdated.

    Args:
        study: The study.
        look_at_folders: Whether a raw folder, or one of patients, that looks other than it did makes outdated what
            is made from it.

    Returns:
        Standings by asset and partition; an asset whose partitions are not known yet has none.
    """
    study = StillStudy(study)
    unseen = () if look_at_folders else SOURCES
    found: dict[str, dict[str | None, Standing]] = {}
    for node in GRAPH.values():
        found[node.name] = {key: _standing(study, node, key, unseen, found) for key in _known_keys(study, node)}
    return found


def due(found: Survey) -> dict[str, str]:
    """What is due, by asset and partition in one name."""
    return {
        _named(asset, key): standing.due
        for asset, standings in found.items()
        for key, standing in standings.items()
        if standing.due
    }


def all_states(study: Study) -> States:
    """State of every artifact of the study, by asset and partition."""
    return {
        asset: {key: standing.state for key, standing in standings.items()}
        for asset, standings in survey(study).items()
    }


def other_training_cases(study: Study) -> dict[str, list[str]]:
    """Pinned artifacts that were made from other training cases than there are now.

    Returns:
        By asset, the cases that came, went or changed since it was made.
    """
    study = StillStudy(study)
    found = {}
    for node in GRAPH.values():
        sources = node.pinned(study)
        for key in _known_keys(study, node) if sources else ():
            present = read_provenance(study.path(node.name, key))
            inputs = inputs_unless_incomplete(study, node, key)
            if present and inputs:
                found[_named(node.name, key)] = _differing(present.inputs, inputs, sources)
    return {asset: cases for asset, cases in found.items() if cases}


def _named(asset: str, key: str | None) -> str:
    return asset if key is None else f"{asset} of {key}"


def _differing(before: Inputs, now: Inputs, sources: Collection[str]) -> list[str]:
    versions = [
        {
            (source, case, version)
            for source in sources
            for case, version in _by_case(inputs.made_from.get(source, {})).items()
        }
        for inputs in (before, now)
    ]
    return sorted({case for _, case, _ in versions[0] ^ versions[1]})


def _by_case(versions: str | Mapping[str, str]) -> Mapping[str, str]:
    return {} if isinstance(versions, str) else versions


def _known_keys(study: Study, node: Node) -> list[str | None]:
    try:
        return node.keys(study)
    except NotMadeError:
        return []


def _standing(study: Study, node: Node, key: str | None, unseen: Collection[str], above: Survey) -> Standing:
    present = read_provenance(study.path(node.name, key))
    # What is missing is compared with nothing: the raw folder need not be there yet.
    without = {*node.pinned(study), *unseen} if present else SOURCES
    inputs = inputs_unless_incomplete(study, node, key, without)
    state: State = "outdated" if present else "missing"
    if inputs is None:
        return Standing(state)
    is_ready = all(_is_current(above, *source) for source in sources(inputs, key))
    if present and _was_made_from(present, inputs, without):
        return Standing("current" if is_ready else "outdated")
    due = content_hash([inputs.hash(), present.written if present else None])
    return Standing(state, due if is_ready else None)


def _is_current(above: Survey, asset: str, key: str | None) -> bool:
    """Whether an upstream artifact is current; one of a case that left may still lie there, and is not."""
    standing = above[asset].get(key)
    return standing is not None and standing.state == "current"


def _was_made_from(present: Provenance, inputs: Inputs, without: Collection[str]) -> bool:
    before = present.inputs.without(without).hash() if without else present.inputs_hash
    return before == inputs.hash()


def sources(inputs: Inputs, key: str | None) -> list[tuple[str, str | None]]:
    """The places of all upstream artifacts that some inputs name; a folder is no asset."""
    assets = inputs.made_from.keys() & GRAPH.keys()
    return [(asset, place) for asset in assets for place in keys_of(asset, inputs.made_from[asset], key)]
