"""Figures of the retrained reductions: Dice by test case, its change, and the change of the median."""

from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from idal_assets.plots.style import (
    ACCENT,
    ALERT,
    BAR_WIDTH,
    DIFFERENCE_COLOURS,
    GRID,
    INK,
    MARKERS,
    MUTED,
    PAGE_WIDTH,
    SERIES,
    case_ticks,
    draw_cells,
    draw_colour_bar,
    label_inches,
    new_figure,
    tidy,
)


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
    axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel("Dice")
    axes.set_xlabel("test case, ordered by the Dice of the first set")
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    tidy(axes)
    case_ticks(axes.xaxis, cases, PAGE_WIDTH - 0.8)
    figure.legend(loc="outside upper left", ncols=4, fontsize=8.5, frameon=False, labelcolor=INK)
    return figure


def difference_map(differences: pd.DataFrame) -> Figure:
    """Draw how Dice changed: red better, white the same, blue worse, hatched grey where not defined.

    Args:
        differences: Dice new minus old; index: removal sets, columns: test cases.
    """
    cases, sets = [str(x) for x in differences.columns], [str(x) for x in differences.index]
    values = differences.to_numpy(float)
    height = max(1.2, 0.34 * len(sets))
    figure = new_figure(PAGE_WIDTH, height + label_inches(cases) + 0.9)
    width = PAGE_WIDTH - label_inches(sets) - 1.3
    axes, bar = figure.subplots(1, 2, width_ratios=[width, BAR_WIDTH])
    # A floor, so that a map without any change is white and not an error.
    largest = max(np.nanmax(np.abs(values), initial=0.0), 0.01)
    picture = draw_cells(axes, values, DIFFERENCE_COLOURS, Normalize(-largest, largest), "+.2f")
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
    axes.hlines(rows, table["difference_of_medians"], table["median_of_differences"], color=GRID, linewidth=3)
    axes.scatter(
        table["difference_of_medians"], rows, s=52, color=ACCENT, label="difference of the medians", zorder=3
    )
    axes.scatter(
        table["median_of_differences"],
        rows,
        s=42,
        marker="D",
        facecolor="white",
        edgecolor=ALERT,
        linewidth=1.6,
        label="median of the differences",
        zorder=4,
    )
    changes = table[["difference_of_medians", "median_of_differences"]].to_numpy(float)
    reach = max(1.15 * np.nanmax(np.abs(changes), initial=0.0), 0.005)
    axes.set_xlim(-reach, reach)
    axes.set_ylim(len(table) - 0.5, -0.5)
    axes.set_xlabel("← worse        change of the median Dice, new minus old        better →")
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
