"""Figures of the retrained reductions: Dice by test case, its change, and the change of the median."""

from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from idal_assets.plots.style import (
    ACCENT,
    BAR_WIDTH,
    GAP,
    GRID,
    INK,
    MARKERS,
    MUTED,
    PAGE_WIDTH,
    SERIES,
    SMALL_CHANGE,
    THESIS_COLOURS,
    case_ticks,
    draw_cells,
    draw_colour_bar,
    label_inches,
    new_figure,
    row_wise,
    tidy,
)

LEGEND_COLUMNS = 4

APART = 0.13
"""Distance of a mark from the middle of its row, as a share of the row."""


def dice_by_set(evaluation: pd.DataFrame) -> Figure:
    """Draw the Dice of each test case after each training; cases in the order of their first set's Dice.

    Args:
        evaluation: Columns `removal_set`, `case_id` and `dice` (0 to 1 or NaN), one row a set and case. The
            first set is the reference and drawn as a line.
    """
    table = evaluation.pivot(index="case_id", columns="removal_set", values="dice")
    table = table[list(evaluation["removal_set"].unique())]
    table = table.sort_values(table.columns[0])
    cases = [str(x) for x in table.index]
    figure = new_figure(PAGE_WIDTH, 3.6 + label_inches(cases))
    axes = figure.subplots()
    x = np.arange(len(table))
    axes.vlines(x, table.min(axis=1), table.max(axis=1), color=GRID, linewidth=3, zorder=1)
    axes.plot(x, table.iloc[:, 0], color=INK, linewidth=1.2, marker=".", label=str(table.columns[0]), zorder=2)
    size = 26 if len(table) <= 40 else 14
    for name, colour, marker in zip(table.columns[1:], cycle(SERIES), cycle(MARKERS), strict=False):
        axes.scatter(
            x,
            table[name],
            s=size,
            color=colour,
            marker=marker,
            alpha=0.85,
            linewidth=0,
            label=str(name),
            zorder=3,
        )
    axes.set_xlim(-0.7, len(table) - 0.3)
    axes.set_ylim(*_range_of(table.to_numpy(float)))
    axes.set_ylabel("Dice")
    axes.set_xlabel("test case, ordered by the Dice of the first set")
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    tidy(axes)
    case_ticks(axes.xaxis, cases, PAGE_WIDTH - 0.8)
    entries = row_wise(list(zip(*axes.get_legend_handles_labels(), strict=True)), LEGEND_COLUMNS)
    handles, labels = zip(*entries, strict=True)
    figure.legend(
        handles,
        labels,
        loc="outside upper left",
        ncols=LEGEND_COLUMNS,
        fontsize=8.5,
        frameon=False,
        labelcolor=INK,
    )
    return figure


def _range_of(dice: NDArray[np.float64]) -> tuple[float, float]:
    """The part of 0 to 1 that the values use, in steps of a tenth."""
    low, high = np.nanmin(dice, initial=1.0), np.nanmax(dice, initial=0.0)
    if low > high:
        return -0.02, 1.02
    return max(-0.02, np.floor(10 * low - 0.2) / 10), min(1.02, np.ceil(10 * high + 0.2) / 10)


def difference_map(differences: pd.DataFrame) -> Figure:
    """Draw how Dice changed, in the colours of the thesis: red better, white the same, blue worse.

    Hatched grey where it is not defined.

    Args:
        differences: Dice new minus old; index: removal sets, columns: test cases.
    """
    cases, sets = [str(x) for x in differences.columns], [str(x) for x in differences.index]
    values = differences.to_numpy(float)
    height = max(1.2, 0.34 * len(sets))
    figure = new_figure(PAGE_WIDTH, height + label_inches(cases) + 0.9)
    width = PAGE_WIDTH - label_inches(sets) - 1.3
    axes, bar = figure.subplots(1, 2, width_ratios=[width, BAR_WIDTH])
    largest = max(np.nanmax(np.abs(values), initial=0.0), SMALL_CHANGE)
    picture = draw_cells(axes, values, THESIS_COLOURS, Normalize(-largest, largest), "+.2f")
    case_ticks(axes.xaxis, cases, width)
    case_ticks(axes.yaxis, sets, height)
    axes.set_xlabel("test case", fontsize=9, color=INK)
    axes.set_ylabel("removal set", fontsize=9, color=INK)
    draw_colour_bar(bar, picture, "Dice, new minus old")
    return figure


def median_change(table: pd.DataFrame) -> Figure:
    """Draw how the median Dice changed with each removal set.

    Args:
        table: Columns `removal_set`, `cases_left`, `median_dice`, `difference_of_medians` and
            `median_of_differences`, one row a set.
    """
    figure = new_figure(PAGE_WIDTH * 0.8, 1.3 + 0.42 * len(table))
    axes = figure.subplots()
    rows = np.arange(len(table))
    axes.axvline(0, color=MUTED, linewidth=1)
    # one above the other, as equal values would hide each other
    axes.scatter(
        table["difference_of_medians"],
        rows - APART,
        s=52,
        color=ACCENT,
        label="difference of the medians",
        zorder=3,
    )
    axes.scatter(
        table["median_of_differences"],
        rows + APART,
        s=42,
        marker="D",
        facecolor="white",
        edgecolor=INK,
        linewidth=1.6,
        label="median of the differences",
        zorder=4,
    )
    changes = table[["difference_of_medians", "median_of_differences"]].to_numpy(float)
    reach = max(1.15 * np.nanmax(np.abs(changes), initial=0.0), 0.005)
    axes.set_xlim(-reach, reach)
    axes.set_ylim(len(table) - 0.5, -0.5)
    axes.set_xlabel(f"← worse{GAP}change of the median Dice, new minus old{GAP}better →")
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    tidy(axes)
    axes.set_yticks(
        rows, [f"{r.removal_set} · {r.cases_left} cases left" for r in table.itertuples()], fontsize=8.5
    )
    medians = axes.secondary_yaxis("right")
    medians.set_yticks(rows, [f"median {x:.3f}" for x in table["median_dice"]], fontsize=8.5, color=MUTED)
    medians.tick_params(length=0)
    medians.spines["right"].set_visible(False)
    figure.legend(loc="outside upper left", ncols=2, fontsize=8.5, frameon=False, labelcolor=INK)
    return figure
