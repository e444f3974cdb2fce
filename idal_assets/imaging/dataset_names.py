"""What the channels and label values of a dataset are, from its dataset.json.

MSD writes labels as value -> name, nnU-Net as name -> value, or name -> values where they are regions. A brain
tumour of BraTS is recognised by `brain_tumour_names`; any other dataset is taken as it describes itself, and
refused where its description contradicts itself.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from idal_assets.anatomy import BACKGROUND, IGNORE, Anatomy, AnatomyError
from idal_assets.imaging import brain_tumour_names
from idal_assets.imaging.case import CaseError
from idal_assets.imaging.raw_folder import LABEL_ROLE, Meaning

HIGHEST_VALUE = np.iinfo(np.int8).max
"""Of a label, which preprocessing keeps in a byte with a sign."""


def read_meaning(path: Path, meta: Mapping[str, Any], key: str) -> Meaning:
    """Return what the channels and label values of a dataset mean.

    Args:
        path: The dataset.json, for the message.
        meta: Its content.
        key: The key of its channel names.

    Raises:
        CaseError: Channel names or labels are missing, or contradict one another.
    """
    channels, labels = meta.get(key), meta.get("labels")
    if not isinstance(channels, dict) or not channels:
        raise _channel_error(path, key, "no channel names")
    if isinstance(labels, dict) and (meaning := brain_tumour_names.recognise(channels, labels)):
        return meaning
    names = read_channel_names(path, key, channels)
    if not isinstance(labels, dict) or not labels:
        raise _label_error(path, "no 'labels'")
    try:
        anatomy = _anatomy(names, labels, meta.get("regions_class_order"))
    except AnatomyError as error:
        raise _label_error(path, str(error)) from error
    values = [0, *anatomy.labels, *([] if anatomy.ignore is None else [anatomy.ignore])]
    return Meaning(anatomy, tuple(range(len(names))), {value: value for value in values})


def read_channel_names(path: Path, key: str, channels: dict[str, Any]) -> list[str]:
    """Return the names of the channels in the order of their numbers.

    Args:
        path: The dataset.json, for the message.
        key: The key of its channel names.
        channels: Name by number.

    Raises:
        CaseError: Numbers are missing, or names are none or the same.
    """
    if set(channels) != {str(number) for number in range(len(channels))}:
        raise _channel_error(path, key, f"channels {channels} are not numbered 0 to {len(channels) - 1}")
    names = [channels[str(number)] for number in range(len(channels))]
    for number, name in enumerate(names):
        if not isinstance(name, str) or not name.strip() or not name.isprintable() or name == LABEL_ROLE:
            raise _channel_error(path, key, f"{name!r} is no name for channel {number}")
        if names.index(name) < number:
            raise _channel_error(path, key, f"channels {names.index(name)} and {number} are both named {name!r}")
    return names


def _channel_error(path: Path, key: str, what: str) -> CaseError:
    example = json.dumps({"0": "FLAIR", "1": "T1w", "2": "T1gd", "3": "T2w"})
    return CaseError(
        f'{path}: {what}; write "{key}": {example}, or the names of your channels, in the order of the files'
    )


def _anatomy(channels: list[str], labels: dict[str, Any], class_order: object) -> Anatomy:
    """Return the anatomy of a dataset that is no brain tumour of BraTS.

    Raises:
        AnatomyError: Its labels contradict one another.
    """
    if all(key.isdecimal() for key in labels):
        pairs = [(name, int(value)) for value, name in labels.items()]
    else:
        # a list of one value is a label to nnU-Net too
        pairs = [(name, _plain_value(value)) for name, value in labels.items()]
    ignore = _take_out_special(pairs)
    for name, value in pairs:
        if not isinstance(name, str):
            raise AnatomyError(f"label {value} has the name {name!r}, which is no text")
        _ensure_whole(name, value if isinstance(value, list) else [value])
    if any(isinstance(value, list) for _, value in pairs):
        return _regional_anatomy(channels, pairs, class_order, ignore)
    return Anatomy.of(channels, _names_by_value(pairs), ignore=ignore)


def _plain_value(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _take_out_special(pairs: list[tuple[Any, Any]]) -> int | None:
    """Remove background and ignored voxels from the labels, and return the value of the latter."""
    ignore = None
    for name, value in list(pairs):
        plain = name.strip().lower() if isinstance(name, str) else name
        if (plain == BACKGROUND) != (value == 0 and type(value) is int):
            raise AnatomyError(
                f"label {name!r} cannot have the value {value}: 0 is the background and nothing else"
            )
        if plain == IGNORE:
            if type(value) is not int or ignore is not None:
                raise AnatomyError(f"label {name!r} cannot have the value {value!r}: it is one value, the highest")
            ignore = value
        if plain in (BACKGROUND, IGNORE):
            pairs.remove((name, value))
    return ignore


def _ensure_whole(name: str, values: list[Any]) -> None:
    for value in values:
        if type(value) is not int or value < 1:
            raise AnatomyError(f"label {name!r} has the value {value!r}, which is no whole number above 0")
        if value > HIGHEST_VALUE:
            raise AnatomyError(f"label {name!r} has the value {value}; values up to {HIGHEST_VALUE} can be read")
    if not values or len(set(values)) < len(values):
        raise AnatomyError(f"region {name!r} holds the values {values}; it must hold some, each of them once")


def _names_by_value(pairs: Iterable[tuple[str, int]]) -> dict[int, str]:
    names: dict[int, str] = {}
    for name, value in pairs:
        if value in names:
            raise AnatomyError(f"labels {names[value]!r} and {name!r} have the same value {value}")
        names[value] = name
    return names


def _regional_anatomy(
    channels: list[str], pairs: list[tuple[str, Any]], class_order: object, ignore: int | None
) -> Anatomy:
    """Return the anatomy of a dataset that is trained on regions, which overlap."""
    regions = {name: value if isinstance(value, list) else [value] for name, value in pairs}
    if not isinstance(class_order, list) or not all(type(value) is int for value in class_order):
        raise AnatomyError(
            f"'regions_class_order' is {class_order!r} and labels are regions; write the label value that each of "
            f"{', '.join(regions)} gets, a later one over an earlier one"
        )
    if len(class_order) != len(regions):
        raise AnatomyError(
            f"'regions_class_order' is {class_order}; it needs one label value for each of {', '.join(regions)}"
        )
    named = _names_by_value((name, values[0]) for name, values in regions.items() if len(values) == 1)
    inside = sorted({value for values in regions.values() for value in values})
    labels = {value: named.get(value, f"label {value}") for value in inside}
    return Anatomy.of(channels, labels, regions, class_order, ignore)


def _label_error(path: Path, what: str) -> CaseError:
    return CaseError(
        f"{path}: {what}; write 'labels' with the values of the label files, MSD:"
        ' {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumor"}, nnU-Net:'
        ' {"background": 0, "edema": 1, "non-enhancing tumor": 2, "enhancing tumor": 3}, or as regions:'
        ' {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": [3]},'
        ' "regions_class_order": [1, 2, 3]'
    )
