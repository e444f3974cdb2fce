"""What all figures share: colours, sizes, tick labels, matrix cells and the way to PNG.

Nothing here knows what a figure is about.
"""

import base64
import io
import math
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import FixedLocator
from numpy.typing import NDArray
from PIL import Image

INK, MUTED, GRID, MISSING = "#1f2933", "#66727f", "#e2e6ea", "#e9ecef"
ACCENT, ALERT, NEUTRAL = "#0b5fa5", "#c8401f", "#7c8894"
"""What is looked at, what is bad, and all the rest; each has a contrast of 3 with white at least."""

BETTER, WORSE = ACCENT, ALERT
"""Red is bad in every figure but 3.6b of the thesis."""

SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f5aa8", "#5c6670")
"""Colours of lines and points, after Okabe and Ito, so that they stay apart for colour-blind readers."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""Shapes of points; as many of them as colours less one, so that pairs repeat only after 56 series."""

DICE_COLOURS = LinearSegmentedColormap.from_list(
    "dice",
    [(0, "#ffffff"), (0.3, "#dfecf7"), (0.5, "#b3d3ea"), (0.65, "#78b1d8"), (0.8, "#3a82be"), (1, "#07295c")],
)
"""White at 0 to deep blue at 1, with most of the contrast above 0.5, where scores lie."""

DIFFERENCE_COLOURS = LinearSegmentedColormap.from_list(
    "difference", ["#7a0414", "#d6453d", "#f6b5a2", "#ffffff", "#a6cbe6", "#2c7fb8", "#08306b"]
)
"""Red for worse, white for the same, blue for better."""

THESIS_COLOURS = DIFFERENCE_COLOURS.reversed("thesis")
"""Those of figure 3.6b of the thesis, and of no other: blue for worse, red for better."""

SMALL_CHANGE = 0.05
"""Where a map of changes has its full colours at the earliest, so that a small change does not look large."""

BAR_WIDTH = 0.2
"""Width in inches of a colour bar."""

PAGE_WIDTH = 9.6
"""Width in inches of a figure that fills the report."""

CELLS = "cells"
"""Name of the area of a matrix in an SVG."""

LABELLED_TICKS = 40
ANNOTATED_CELLS = 12
LABEL_CHARACTERS = 24

NEGATIVE_ZERO = re.compile(r"-(?=[0.]+$)")

GAP = "\u2003\u2003"
"""Between the parts of a label; of several blanks an SVG keeps one."""


def new_figure(width: float, height: float, title: str = "") -> Figure:
    """Make an empty figure that lays itself out.

    Args:
        width: Width in inches.
        height: Height in inches.
        title: Heading at the top left, wrapped to the width; none if empty.
    """
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    if title:
        lines = textwrap.fill(title, max(20, int(width * 10.5)))
        figure.suptitle(lines, x=0.01, ha="left", fontsize=11.5, fontweight="bold", color=INK)
    return figure


def tidy(axes: Axes, title: str = "") -> None:
    """Give axes the common look: no box, quiet ticks, a small title at the left."""
    # its place is said, since finding it costs as much as drawing the axes
    axes.set_title(title, loc="left", fontsize=10, color=INK, y=1.0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(labelsize=8, color=MUTED, labelcolor=INK)
    axes.xaxis.label.set(fontsize=9, color=INK)
    axes.yaxis.label.set(fontsize=9, color=INK)
    axes.set_axisbelow(True)


def short_labels(labels: Sequence[str]) -> list[str]:
    """Cut the middle out of long labels, unless that makes two of them equal."""
    tail = LABEL_CHARACTERS // 2
    head = LABEL_CHARACTERS - tail - 1
    short = [x if len(x) <= LABEL_CHARACTERS else f"{x[:head]}…{x[-tail:]}" for x in labels]
    return short if len(set(short)) == len(set(labels)) else list(labels)


def text_inches(texts: Sequence[str]) -> float:
    """Estimate the room in inches that the longest text takes in the size of tick labels."""
    return 0.068 * max((len(x) for x in texts), default=0)


def label_inches(labels: Sequence[str]) -> float:
    """Estimate the room in inches that the longest tick label takes, after `short_labels`."""
    return text_inches(short_labels(labels))


def case_ticks(axis: Axis, labels: Sequence[str], inches: float) -> None:
    """Label positions 0, 1, ... of an axis, every n-th of them where there are too many to read.

    Args:
        axis: The x or the y axis.
        labels: One label a position.
        inches: Length of the axis, from which the size of the letters follows.
    """
    step = math.ceil(len(labels) / LABELLED_TICKS)
    pitch = inches * 72 / len(labels) * step
    size = min(8.5, max(5.5, 0.8 * pitch))
    shown = short_labels(labels)[::step]
    axis.set_ticks(range(0, len(labels), step), shown, fontsize=size)
    if isinstance(axis, XAxis) and 0.62 * size * max(map(len, shown)) > pitch:
        axis.set_tick_params(rotation=90)


def draw_cells(
    axes: Axes, values: NDArray[np.float64], colours: Colormap, norm: Normalize, number: str
) -> AxesImage:
    """Draw a matrix as coloured cells; cells that are not a number stay grey and hatched.

    Args:
        axes: Where to draw.
        values: Cells, shape (rows, columns).
        colours: Colour map.
        norm: Maps values to 0 to 1.
        number: Format of the values, written into the cells of a small matrix.
    """
    # by this name a page finds the cell that somebody points at
    axes.patch.set(facecolor=MISSING, hatch="////", edgecolor="#cdd3d9", gid=CELLS)
    picture = axes.imshow(
        np.ma.masked_invalid(values), cmap=colours, norm=norm, aspect="auto", interpolation="none"
    )
    axes.spines[:].set_visible(False)
    axes.tick_params(length=2, color=MUTED, labelcolor=INK)
    if max(values.shape) <= LABELLED_TICKS:
        _separate_cells(axes, values.shape)
    if values.shape[1] <= ANNOTATED_CELLS and values.shape[0] <= ANNOTATED_CELLS:
        _write_cells(axes, values, picture, number)
    return picture


def _separate_cells(axes: Axes, shape: tuple[int, ...]) -> None:
    axes.yaxis.set_minor_locator(FixedLocator([x - 0.5 for x in range(1, shape[0])]))
    axes.xaxis.set_minor_locator(FixedLocator([x - 0.5 for x in range(1, shape[1])]))
    axes.grid(which="minor", color="white", linewidth=0.8)
    axes.tick_params(which="minor", length=0)


def _write_cells(axes: Axes, values: NDArray[np.float64], picture: AxesImage, number: str) -> None:
    for row, column in np.argwhere(np.isfinite(values)):
        value = values[row, column]
        red, green, blue, _ = picture.to_rgba(value)
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
        axes.text(
            column,
            row,
            # without a minus before a rounded zero
            NEGATIVE_ZERO.sub("+", format(value, number)).replace("-", "−"),
            ha="center",
            va="center",
            fontsize=7.5,
            color="white" if dark else INK,
        )


def draw_colour_bar(axes: Axes, picture: AxesImage, label: str) -> None:
    """Fill narrow axes with the colours of a matrix."""
    bar = axes.figure.colorbar(picture, cax=axes)
    bar.outline.set_visible(False)
    axes.tick_params(labelsize=8, color=MUTED, labelcolor=INK)
    bar.set_label(label, fontsize=9, color=INK)


def png_bytes(figure: Figure, dpi: int = 110) -> bytes:
    """Render a figure as PNG of at most 256 colours, a third of the size of one with all of them."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    picture = Image.open(buffer).convert("RGB")
    small = io.BytesIO()
    # Maximum coverage keeps rare colours (a legend, a small label); the median cut would dull them.
    picture = picture.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    picture.save(small, format="png", optimize=True)
    return small.getvalue()


def save_chart(figure: Figure, path: Path, for_print: bool = True) -> None:
    """Write a chart as SVG, whose letters can be searched and copied, and as PDF.

    Args:
        figure: The figure.
        path: File without its ending.
        for_print: Whether there shall be a PDF beside it.
    """
    for kind in ("svg", "pdf") if for_print else ("svg",):
        path.with_suffix(f".{kind}").write_bytes(chart(figure, kind))


IMAGE_DPI = 200
"""Of what is an image within a chart."""


def chart(figure: Figure, kind: str) -> bytes:
    """Render a chart; the same figure is the same file, without a date and random names.

    Args:
        figure: The figure.
        kind: `svg` or `pdf`.
    """
    fixed: Any = {"svg.fonttype": "none", "svg.hashsalt": "idal"}
    date = {"svg": "Date", "pdf": "CreationDate"}[kind]
    buffer = io.BytesIO()
    with rc_context(fixed):
        figure.savefig(buffer, format=kind, metadata={date: None}, dpi=IMAGE_DPI)
    # laid out once, it stays as it is for the next file
    figure.set_layout_engine("none")
    return buffer.getvalue()


def row_wise(entries: Sequence[Any], columns: int) -> list[Any]:
    """Order the entries of a legend, which fills its columns one after the other, so that they read row by row."""
    rows = math.ceil(len(entries) / columns)
    # the first columns are the longer ones
    full = len(entries) - columns * (rows - 1)
    lengths = [rows if column < full else rows - 1 for column in range(columns)]
    return [entries[row * columns + column] for column, length in enumerate(lengths) for row in range(length)]


def data_uri(png: bytes) -> str:
    """Write a PNG as an address that holds the picture itself."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
