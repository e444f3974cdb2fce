"""The frame of figures with one row a thing: its name at the left, a picture, its numbers at the right."""

from collections.abc import Mapping, Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from idal_assets.plots.style import INK, MUTED, PAGE_WIDTH, new_figure, text_inches

SIZE = 8.5
COLUMN_GAP = 0.25
"""Room in inches between two columns of text."""


def row_figure(
    labels: Sequence[str],
    columns: Mapping[str, Sequence[str]],
    *,
    pitch: float = 0.42,
    align: Literal["left", "right"] = "left",
    emphasis: Mapping[int, str] | None = None,
) -> tuple[Figure, Axes]:
    """Make a figure that fills the page, with labelled rows 0, 1, ... from the top.

    Args:
        labels: One a row.
        columns: Texts to write at the right of the picture by heading, one a row.
        pitch: Height of a row in inches.
        align: Side of a column that its texts keep to; numbers keep to the right.
        emphasis: Rows whose words are bold, and the colour of their texts at the right.

    Returns:
        The figure and the axes to draw the rows in; the texts are in axes of their own.
    """
    figure = new_figure(PAGE_WIDTH, pitch * len(labels) + 1.05)
    widths = [text_inches([heading, *texts]) + COLUMN_GAP for heading, texts in columns.items()]
    picture = PAGE_WIDTH - text_inches(labels) - sum(widths) - 0.4
    axes, beside = figure.subplots(1, 2, sharey=True, width_ratios=[max(picture, 2.5), max(sum(widths), 0.01)])
    beside.set_axis_off()
    beside.set_xlim(0, sum(widths) or 1)
    edge = 0.0
    for width, (heading, texts) in zip(widths, columns.items(), strict=True):
        x = edge + (width if align == "right" else COLUMN_GAP)
        _write_column(beside, x, align, heading, texts, emphasis or {})
        edge += width
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_yticks(range(len(labels)), labels)
    for row in emphasis or {}:
        axes.get_yticklabels()[row].set_fontweight("bold")
    return figure, axes


def row_ticks(axes: Axes) -> None:
    """Give the row labels their size and no tick marks; to be called after `tidy`."""
    axes.tick_params(axis="y", length=0, labelsize=SIZE)
    axes.spines["left"].set_visible(False)


def _write_column(
    axes: Axes, x: float, align: str, heading: str, texts: Sequence[str], emphasis: Mapping[int, str]
) -> None:
    axes.annotate(
        heading,
        (x, 1),
        xytext=(0, 3),
        xycoords=axes.get_xaxis_transform(),
        textcoords="offset points",
        ha=align,
        va="bottom",
        fontsize=SIZE,
        color=MUTED,
    )
    for row, text in enumerate(texts):
        axes.text(
            x,
            row,
            text,
            ha=align,
            va="center_baseline",
            fontsize=SIZE,
            color=emphasis.get(row, INK),
            fontweight="bold" if row in emphasis else "normal",
        )
