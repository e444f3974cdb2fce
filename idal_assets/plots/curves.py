"""Curves of one training: the loss and the pseudo Dice that nnU-Net measures on random patches."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from idal_assets.plots.style import ACCENT, GRID, MUTED, PAGE_WIDTH, SERIES, new_figure, tidy

PSEUDO_DICE = "pseudo_dice"


def training_curves(history: pd.DataFrame) -> Figure:
    """Draw the loss, raw and smoothed, beside the pseudo Dice.

    Args:
        history: Columns `iteration` and `loss`, and any columns that start with `pseudo_dice`; values that
            were not measured at an iteration are NaN.
    """
    figure = new_figure(PAGE_WIDTH, 3.2)
    left, right = figure.subplots(1, 2)
    _draw_loss(left, history[["iteration", "loss"]].dropna())
    _draw_pseudo_dice(right, history)
    for axes in (left, right):
        axes.set_xlabel("iteration")
        axes.grid(color=GRID, linewidth=0.8)
    tidy(left, "Loss")
    tidy(right, "Pseudo Dice (random patches, not whole cases)")
    return figure


def _draw_loss(axes: Axes, measured: pd.DataFrame) -> None:
    window = max(1, len(measured) // 20)
    smooth = measured["loss"].rolling(window, center=True, min_periods=1).mean()
    axes.plot(measured["iteration"], measured["loss"], color=ACCENT, alpha=0.25, linewidth=0.8, label="raw")
    label = f"mean of {window} values" if window > 1 else "smoothed"
    axes.plot(measured["iteration"], smooth, color=ACCENT, linewidth=1.8, label=label)
    axes.legend(fontsize=8, frameon=False)


def _draw_pseudo_dice(axes: Axes, history: pd.DataFrame) -> None:
    columns = [x for x in history if x.startswith(PSEUDO_DICE) and history[x].notna().any()]
    for column, colour in zip(columns, SERIES * (1 + len(columns) // len(SERIES)), strict=False):
        measured = history[["iteration", column]].dropna()
        marker = "o" if len(measured) <= 40 else ""
        label = column.removeprefix(PSEUDO_DICE).strip("_") or "mean"
        axes.plot(
            measured["iteration"],
            measured[column],
            color=colour,
            linewidth=1.5,
            marker=marker,
            markersize=3.5,
            label=label,
        )
    axes.set_ylim(-0.02, 1.02)
    if columns:
        axes.legend(fontsize=8, frameon=False, ncols=2, loc="best")
    else:
        axes.text(0.5, 0.5, "none measured", ha="center", color=MUTED, transform=axes.transAxes)
