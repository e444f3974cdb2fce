"""Curves of trainings: the loss and the pseudo Dice that nnU-Net measures on random patches."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from idal_assets.plots.style import ACCENT, GRID, INK, MUTED, PAGE_WIDTH, SERIES, new_figure, tidy

PSEUDO_DICE = "pseudo_dice"

FEW = 20
"""Up to as many values are drawn as points too."""


def training_curves(history: pd.DataFrame) -> Figure:
    """Draw the loss, where there are many values also smoothed, beside the pseudo Dice.

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
        # whole iterations, also where there is one value
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(color=GRID, linewidth=0.8)
    tidy(left, "Loss")
    tidy(right, "Pseudo Dice (random patches, not whole cases)")
    return figure


def compared_losses(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw the losses of several trainings, raw and smoothed.

    Args:
        histories: By name, columns `iteration` and `loss`.
    """
    figure = new_figure(PAGE_WIDTH, 3.6)
    axes = figure.subplots()
    for (name, history), colour in zip(histories.items(), SERIES, strict=False):
        axes.plot(history["iteration"], history["loss"], color=colour, alpha=0.3, linewidth=0.7)
        axes.plot(history["iteration"], _smoothed(history)[1], color=colour, linewidth=1.8, label=name)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_xlabel("iteration")
    axes.set_ylabel("loss")
    tidy(axes)
    axes.legend(fontsize=8.5, frameon=False)
    return figure


def compared_metrics(histories: Mapping[str, pd.DataFrame], true_dice: Mapping[str, float]) -> Figure:
    """Draw the pseudo Dice of several trainings, and at the end of each the true Dice on cases it has not seen.

    Args:
        histories: By name, columns `iteration` and those that start with `pseudo_dice`, whose mean is drawn.
        true_dice: By name, the mean Dice over whole held-out cases.
    """
    figure = new_figure(PAGE_WIDTH, 3.6)
    axes = figure.subplots()
    for (name, history), colour in zip(histories.items(), SERIES, strict=False):
        mean = history.filter(like=PSEUDO_DICE).mean(axis=1)
        measured = pd.DataFrame({"iteration": history["iteration"], "mean": mean}).dropna()
        axes.plot(measured["iteration"], measured["mean"], color=colour, linewidth=1.6, marker="o", markersize=3)
        axes.plot(
            history["iteration"].iloc[-1],
            true_dice[name],
            color=colour,
            linestyle="",
            marker="D",
            markersize=7,
            markerfacecolor="white",
            markeredgewidth=1.8,
            zorder=4,
            clip_on=False,
        )
        axes.plot([], [], color=colour, linewidth=1.6, label=f"{name}: true {true_dice[name]:.3f}")
    axes.plot(
        [], [], color=MUTED, linewidth=1.6, marker="o", markersize=3, label="pseudo Dice of training patches"
    )
    axes.plot(
        [], [], color=MUTED, linestyle="", marker="D", markerfacecolor="white", label="true Dice of held-out cases"
    )
    axes.set_xlim(left=0)
    axes.set_ylim(-0.02, 1.02)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_xlabel("iteration")
    axes.set_ylabel("Dice")
    tidy(axes)
    figure.legend(loc="outside right center", fontsize=8.5, frameon=False, labelcolor=INK)
    return figure


def _smoothed(measured: pd.DataFrame) -> tuple[int, pd.Series]:
    window = max(1, len(measured) // 20)
    return window, measured["loss"].rolling(window, center=True, min_periods=1).mean()


def _draw_loss(axes: Axes, measured: pd.DataFrame) -> None:
    window, smooth = _smoothed(measured)
    if window == 1:
        # a line through one value is none
        marker = "o" if len(measured) <= FEW else ""
        axes.plot(
            measured["iteration"], measured["loss"], color=ACCENT, linewidth=1.8, marker=marker, markersize=3.5
        )
        return
    axes.plot(measured["iteration"], measured["loss"], color=ACCENT, alpha=0.4, linewidth=0.9, label="raw")
    axes.plot(measured["iteration"], smooth, color=ACCENT, linewidth=1.8, label=f"mean of {window} values")
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
