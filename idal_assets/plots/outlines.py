"""Outlines of labels as paths of a drawing that keeps sharp at any size, and slices as small grey pictures.

A drawing has the pixels of its slice as units, the first row at the top.
"""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from contourpy import LineType, contour_generator
from numpy.typing import NDArray
from PIL import Image

GREYS = 64
"""Shades of a slice; the eye tells no more apart on a screen, and the file is half as large."""

Box = tuple[slice, slice]
"""Rows and columns of a slice."""


def outline(mask: NDArray[np.bool_]) -> str:
    """The border of a region as an SVG path, holes included.

    Args:
        mask: Pixels that belong to it, shape (rows, columns).

    Returns:
        Closed lines halfway between the pixels inside and outside; empty where no pixel is inside.
    """
    # pixels of a drawing begin at their corner, those of a figure lie around their centre
    return "".join(_path(points + 0.5) for points in outline_points(mask))


def _path(points: NDArray[np.float64]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points[:-1].round(1)) + "Z"


def outline_points(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """The borders of a region as closed lines through points (column, row), halfway between in and outside.

    Args:
        mask: Pixels that belong to it, shape (rows, columns).
    """
    if not mask.any():
        return []
    # a border of background closes what touches the edge
    padded = np.pad(mask, 1).astype(float)
    lines = contour_generator(z=padded, line_type=LineType.Separate).lines(0.5)
    return [np.asarray(line) - 1 for line in lines]


def outlines(labels: NDArray[np.uint8], values: Mapping[int, Any]) -> dict[str, str]:
    """Outlines of the labels of a slice, by value as text; labels without a pixel are left out.

    Args:
        labels: Label values, shape (rows, columns).
        values: The values that are labels.
    """
    found = {str(value): outline(labels == value) for value in values}
    return {value: path for value, path in found.items() if path}


def grey_png(picture: NDArray[Any], window: tuple[float, float]) -> bytes:
    """Draws a slice in shades of grey.

    Args:
        picture: Intensities, shape (rows, columns).
        window: Darkest and brightest intensity.
    """
    low, high = window
    share = np.clip((np.nan_to_num(picture, nan=low) - low) / (high - low), 0, 1)
    grey = (np.round(share * (GREYS - 1)) * (255 / (GREYS - 1))).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def box_around(inside: NDArray[np.bool_], margin: int = 4) -> Box:
    """The smallest part of a slice that holds what is inside, with a margin; all of it where nothing is.

    Args:
        inside: Pixels to show, shape (rows, columns).
        margin: Pixels around them.
    """
    if not inside.any():
        return slice(0, inside.shape[0]), slice(0, inside.shape[1])
    ends = [np.flatnonzero(inside.any(axis=1 - axis))[[0, -1]] for axis in (0, 1)]
    rows, columns = (
        slice(max(0, int(first) - margin), min(size, int(last) + 1 + margin))
        for (first, last), size in zip(ends, inside.shape, strict=True)
    )
    return rows, columns
