"""Whether the names in a dataset.json mean the brain tumour of BraTS: by name, never by a guess.

A dataset whose channels or labels are not recognised here has an anatomy of its own, see `dataset_names`.
"""

import re
from collections.abc import Mapping
from typing import Any

from idal_assets.anatomy import Anatomy
from idal_assets.imaging.brain_tumour import (
    BRAIN_TUMOUR,
    CAVITY,
    CHANNELS,
    ENHANCING,
    NON_ENHANCING,
    OEDEMA,
    POST_TREATMENT,
)
from idal_assets.imaging.raw_folder import Meaning

CHANNEL_SYNONYMS = {
    "FLAIR": ("flair", "t2f", "t2flair"),
    "T1w": ("t1", "t1w", "t1n"),
    "T1gd": ("t1gd", "t1ce", "t1c"),
    "T2w": ("t2", "t2w"),
}
"""Accepted names of each channel, in lower case and without separators."""

LABEL_PATTERNS = {
    OEDEMA: re.compile(r"edema|peritumou?ral|^(surrounding )?(t2 )?flair hyperintens|\bsnfh\b|^ed$"),
    NON_ENHANCING: re.compile(r"necro|cyst|^cc$|\bncr\b|\bnetc?\b|nonenhanc"),
    ENHANCING: re.compile(r"(?<!non)enhanc|^et$"),
    CAVITY: re.compile(r"resection|\brc\b"),
}
"""What the name of a label must contain, as `_plain` writes it."""

_SEPARATORS = re.compile(r"[\s_/\u00ad\u2010-\u2015\u2212\ufe58\ufe63\uff0d-]+")
"""Blanks, underscores and slashes, and whatever looks like a hyphen."""

_SNFH = re.compile(r"(surrounding )?non ?enhancing (t2 )?flair hyperintensit(y|ies)")

_WITHOUT_ENHANCEMENT = re.compile(
    # up to two words, such as 'any contrast', may stand between 'without' and 'enhancement'
    r"\b(non|not|no|without|lack\w*|absen\w+)( \w+){0,2}? enh\w*"
    r"|\b(non|un)enh\w*"
    r"|\benhanc\w* (absent|negative)\b"
)

REGION_NAMES = {
    "WT": ("whole tumor", "whole tumour", "wt"),
    "TC": ("tumor core", "tumour core", "tc"),
    "ET": ("enhancing tumor", "enhancing tumour", "enhancing", "et"),
}


def recognise(channels: dict[str, Any], labels: dict[str, Any]) -> Meaning | None:
    """Return what the channels and label values of a dataset mean as a brain tumour.

    Args:
        channels: Number -> name, as in a dataset.json.
        labels: As in a dataset.json: value -> name (MSD), name -> value or name -> values (nnU-Net).

    Returns:
        The preset, with the order of the channels and the label values; None unless all four channels and all
        labels are recognised.
    """
    order = _channel_order(channels)
    found = recognise_labels(labels)
    return Meaning(found[0], order, found[1]) if order and found else None


def recognise_labels(labels: dict[str, Any]) -> tuple[Anatomy, Mapping[int, int]] | None:
    """Return the preset that labels mean, and value in a file -> value of the preset.

    Args:
        labels: As of `recognise`.

    Returns:
        None unless oedema, non-enhancing and enhancing tumour, and no other label but a resection cavity, are
        recognised.
    """
    values = _label_values(labels)
    presets = {frozenset((0, *preset.labels)): preset for preset in (BRAIN_TUMOUR, POST_TREATMENT)}
    preset = presets.get(frozenset(values.values())) if values else None
    return (preset, values) if preset and values else None


def _channel_order(names: dict[str, Any]) -> tuple[int, ...] | None:
    """Return which channel of the file is each of `CHANNELS`."""
    by_channel = {channel_of(str(name)): index for index, name in names.items()}
    if sorted(names) != ["0", "1", "2", "3"] or set(by_channel) != set(CHANNELS):
        return None
    return tuple(int(by_channel[channel]) for channel in CHANNELS)


def channel_of(name: str) -> str | None:
    """Return the channel that a name stands for, None if it is not known."""
    plain = _SEPARATORS.sub("", name.lower())
    return next((channel for channel, known in CHANNEL_SYNONYMS.items() if plain in known), None)


def _label_values(labels: dict[str, Any]) -> dict[int, int] | None:
    """Return file value -> value of the preset."""
    if all(key.isdecimal() for key in labels):
        pairs = [(str(name), int(value)) for value, name in labels.items()]
    elif any(isinstance(value, list) for value in labels.values()):
        return _values_of_regions(labels)
    else:
        pairs = list(labels.items())
    values = {0: 0}
    for name, value in pairs:
        target = _label_of(name)
        if target is None or type(value) is not int:
            return None
        if (target == 0) != (value == 0) or (value in values and value != 0):
            return None
        values[value] = target
    return values


def _label_of(name: str) -> int | None:
    """Return the label of the preset that a name stands for, None if it is none or could be several."""
    plain = _plain(name)
    if plain == "background":
        return 0
    matches = [label for label, pattern in LABEL_PATTERNS.items() if pattern.search(plain)]
    return matches[0] if len(matches) == 1 else None


def _plain(name: str) -> str:
    """Return a name in lower case, with blanks as separators and one word for what does not enhance."""
    spaced = _SEPARATORS.sub(" ", name.lower()).strip()
    return _WITHOUT_ENHANCEMENT.sub("nonenhancing", _SNFH.sub("snfh", spaced))


def _values_of_regions(labels: dict[str, Any]) -> dict[int, int] | None:
    """Return file value -> value of the preset from nested regions, as nnU-Net's BraTS conversion writes them.

    Oedema is what the whole tumour has and the core has not, non-enhancing what the core has beyond the enhancing
    tumour. For nnU-Net's own conversion (1 oedema, 2 necrotic, 3 enhancing) this is the identity.
    """
    regions: dict[str, set[int]] = {}
    for name, value in labels.items():
        plain = _plain(name)
        region = next((region for region, known in REGION_NAMES.items() if plain in known), None)
        members = value if isinstance(value, list) else [value]
        if plain == "background" and members == [0]:
            continue
        if region is None or not all(type(member) is int and member > 0 for member in members):
            return None
        regions[region] = set(members)
    if set(regions) != set(REGION_NAMES) or not regions["ET"] < regions["TC"] < regions["WT"]:
        return None
    parts = {
        OEDEMA: regions["WT"] - regions["TC"],
        NON_ENHANCING: regions["TC"] - regions["ET"],
        ENHANCING: regions["ET"],
    }
    return {0: 0} | {value: label for label, members in parts.items() for value in sorted(members)}
