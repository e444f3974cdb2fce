"""Which channel and label of the convention is meant by the names in a dataset.json; by name, never by a guess."""

import json
import re
from pathlib import Path
from typing import Any

from idal_assets.imaging.brain_tumour import CHANNELS, ENHANCING, NON_ENHANCING, OEDEMA
from idal_assets.imaging.case import CaseError

CHANNEL_SYNONYMS = {
    "FLAIR": ("flair", "t2f", "t2flair"),
    "T1w": ("t1", "t1w", "t1n"),
    "T1gd": ("t1gd", "t1ce", "t1c"),
    "T2w": ("t2", "t2w"),
}
"""Accepted names of each channel, in lower case and without separators."""

LABEL_PATTERNS = {
    OEDEMA: re.compile(r"edema|peritumou?ral|\bsnfh\b|^ed$"),
    NON_ENHANCING: re.compile(r"necro|\bncr\b|\bnetc?\b|non ?enhanc"),
    ENHANCING: re.compile(r"(?<!non)(?<!non )enhanc|^et$"),
}
"""What the name of a label must contain, in lower case and with spaces as separators."""

REGION_NAMES = {
    "WT": ("whole tumor", "whole tumour", "wt"),
    "TC": ("tumor core", "tumour core", "tc"),
    "ET": ("enhancing tumor", "enhancing tumour", "enhancing", "et"),
}


def channel_order(path: Path, names: object, key: str) -> tuple[int, ...]:
    """Return which channel of the file is each of `CHANNELS`, by name.

    Args:
        path: The dataset.json, for the message.
        names: What it gives as number -> name.
        key: The key it gives them under.

    Raises:
        CaseError: A name is not recognised, or there is not exactly one name for each channel.
    """
    example = json.dumps({str(index): name for index, name in enumerate(CHANNELS)})
    remedy = f'write "{key}": {example} in the order of the files'
    if not isinstance(names, dict):
        raise CaseError(f"{path}: no channel names; {remedy}")
    by_channel = {}
    for index, name in names.items():
        channel = _channel_of(str(name))
        if channel is None:
            raise CaseError(f"{path}: channel {index} has the unknown name {name!r}; {remedy}")
        by_channel[channel] = index
    if sorted(names) != ["0", "1", "2", "3"] or set(by_channel) != set(CHANNELS):
        raise CaseError(f"{path}: channels {names} are not the four, numbered 0 to 3; {remedy}")
    return tuple(int(by_channel[channel]) for channel in CHANNELS)


def _channel_of(name: str) -> str | None:
    """Return the channel that a name stands for, None if it is not known."""
    plain = re.sub(r"[\s_-]+", "", name.lower())
    return next((channel for channel, known in CHANNEL_SYNONYMS.items() if plain in known), None)


def label_values(path: Path, labels: object) -> dict[int, int]:
    """Return file value -> convention value from the 'labels' of a dataset.json, by name.

    MSD writes value -> name, nnU-Net name -> value, or name -> values where labels are defined as regions.

    Raises:
        CaseError: The labels are missing, not recognised or contradict one another.
    """
    if not isinstance(labels, dict) or not labels:
        raise _label_error(path, "no 'labels'")
    if all(key.isdecimal() for key in labels):
        pairs = [(str(name), int(value)) for value, name in labels.items()]
    elif any(isinstance(value, list) for value in labels.values()):
        return _values_of_regions(path, labels)
    else:
        pairs = list(labels.items())
    values = {0: 0}
    for name, value in pairs:
        target = _label_of(name)
        if target is None or type(value) is not int:
            raise _label_error(path, f"label {name!r}: {value!r} is not recognised")
        if (target == 0) != (value == 0) or (value in values and value != 0):
            raise _label_error(path, f"label {name!r} cannot have the value {value}")
        values[value] = target
    if set(values.values()) != {0, OEDEMA, NON_ENHANCING, ENHANCING}:
        raise _label_error(path, f"labels {labels} lack one of the three")
    return values


def _label_of(name: str) -> int | None:
    """Return the label of the convention that a name stands for, None if it is none or could be several."""
    plain = re.sub(r"[\s_-]+", " ", name.lower()).strip()
    if plain == "background":
        return 0
    matches = [label for label, pattern in LABEL_PATTERNS.items() if pattern.search(plain)]
    return matches[0] if len(matches) == 1 else None


def _values_of_regions(path: Path, labels: dict[str, Any]) -> dict[int, int]:
    """Return file value -> convention value from nested regions, as nnU-Net's BraTS conversion writes them.

    Oedema is what the whole tumour has and the core has not, non-enhancing what the core has beyond the enhancing
    tumour. For nnU-Net's own conversion (1 oedema, 2 necrotic, 3 enhancing) this is the identity.
    """
    regions: dict[str, set[int]] = {}
    for name, value in labels.items():
        plain = re.sub(r"[\s_-]+", " ", name.lower()).strip()
        region = next((region for region, known in REGION_NAMES.items() if plain in known), None)
        members = value if isinstance(value, list) else [value]
        if plain == "background" and members == [0]:
            continue
        if region is None or not all(type(member) is int and member > 0 for member in members):
            raise _label_error(path, f"region {name!r}: {value!r} is not recognised")
        regions[region] = set(members)
    if set(regions) != set(REGION_NAMES) or not regions["ET"] < regions["TC"] < regions["WT"]:
        raise _label_error(path, f"regions {labels} are not the whole tumour, its core and the enhancing tumour")
    parts = {
        OEDEMA: regions["WT"] - regions["TC"],
        NON_ENHANCING: regions["TC"] - regions["ET"],
        ENHANCING: regions["ET"],
    }
    return {0: 0} | {value: label for label, members in parts.items() for value in sorted(members)}


def _label_error(path: Path, what: str) -> CaseError:
    return CaseError(
        f"{path}: {what}; write 'labels' with the values of the label files, MSD:"
        ' {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumor"}, nnU-Net:'
        ' {"background": 0, "edema": 1, "non-enhancing tumor": 2, "enhancing tumor": 3}, or as regions:'
        ' {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": [3]}'
    )
