"""Figures of the evidence that a removal helped or harmed: its interval, its controls, its subgroups."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from idal_assets.analysis.statistics import about_as_large
from idal_assets.analysis.words import interval, signed, typeset
from idal_assets.plots.rows import row_figure, row_ticks
from idal_assets.plots.style import (
    ACCENT,
    BAR_WIDTH,
    BETTER,
    DIFFERENCE_COLOURS,
    GAP,
    GRID,
    INK,
    MUTED,
    NEUTRAL,
    PAGE_WIDTH,
    SMALL_CHANGE,
    WORSE,
    draw_cells,
    draw_colour_bar,
    new_figure,
    short_labels,
    text_inches,
    tidy,
)

UPRIGHT_SETS = 8
"""As many removal sets as fit side by side with their names upright."""

GOLDEN_RATIO = (5**0.5 - 1) / 2
"""Its multiples fall evenly into any interval, so that dots spread without a random number."""


def forest_plot(effects: pd.DataFrame, significance: float = 0.05) -> Figure:
    """Draw how each removal set changed the mean Dice, with its interval; blue a gain, red a harm, grey neither.

    Args:
        effects: One row a set, drawn in this order: `removal_set`; `removed`, how many cases; Dice new minus old
            (-1 to 1 or NaN) as `mean_difference` with its interval `low` to `high`; `controls`, how many random
            removals it was compared with; `holm_better_p` and `holm_worse_p`, the corrected p-values among these
            (0 to 1 or NaN); `smallest_p`, the least that so many can give; `gain` and `harm`, whether the evidence
            is enough to claim one.
        significance: Largest p-value that counts. Random removals too few to reach it are said to be so.
    """
    colours = [BETTER if row.gain else WORSE if row.harm else MUTED for row in effects.itertuples()]
    columns = {
        "change (interval)": [_change(row) for row in effects.itertuples()],
        "against random removal": [_verdict(row, significance) for row in effects.itertuples()],
    }
    claimed = {row: colour for row, colour in enumerate(colours) if colour != MUTED}
    figure, axes = row_figure(_set_labels(effects), columns, emphasis=claimed)
    rows = np.arange(len(effects))
    axes.hlines(rows, effects["low"], effects["high"], color=colours, linewidth=2.4, zorder=2)
    axes.scatter(effects["mean_difference"], rows, s=64, color=colours, edgecolor="white", zorder=3)
    _change_axis(axes, effects[["mean_difference", "low", "high"]])
    return figure


def control_distribution(controls: pd.DataFrame, effects: pd.DataFrame) -> Figure:
    """Draw the change of each removal set among random removals of about as many cases.

    Args:
        controls: One row a random removal: `removed`, how many cases, and `mean_difference`, Dice new minus old
            (-1 to 1 or NaN).
        effects: One row a set, drawn in this order: `removal_set`, `removed` and `mean_difference`.
    """
    sizes = controls["removed"].to_dict()
    near = {row: controls.loc[about_as_large(removed, sizes)] for row, removed in enumerate(effects["removed"])}
    changes = list(effects["mean_difference"])
    columns = {"above random removals": [_place(near[row], changes[row]) for row in near]}
    figure, axes = row_figure(_set_labels(effects), columns, pitch=0.62)
    for row, others in near.items():
        _draw_controls(axes, row, others["mean_difference"].dropna(), labelled=row == 0)
    axes.scatter(
        changes, np.arange(len(effects)), s=110, color=ACCENT, edgecolor="white", label="chosen set", zorder=4
    )
    _change_axis(axes, pd.concat([controls["mean_difference"], effects["mean_difference"]]).to_frame())
    figure.legend(loc="outside upper left", ncols=3, fontsize=8.5, frameon=False, labelcolor=INK, reverse=True)
    return figure


def case_effects(effects: pd.DataFrame) -> Figure:
    """Draw what each donor does to the mean Dice, with its interval; blue helps, red harms, grey cannot be said.

    Args:
        effects: One row a donor, drawn in this order: `case_id`, `effect` (Dice with it minus without, -1 to 1 or
            NaN) with its interval `low` to `high`, and `verdict`.
    """
    colours = [{"helps": BETTER, "harms": WORSE}.get(verdict, MUTED) for verdict in effects["verdict"]]
    claimed = {row: colour for row, colour in enumerate(colours) if colour != MUTED}
    columns = {"with it minus without": [_effect(row) for row in effects.itertuples()]}
    pitch = 0.26 if len(effects) <= 40 else 0.2
    figure, axes = row_figure(list(effects["case_id"]), columns, pitch=pitch, emphasis=claimed)
    rows = np.arange(len(effects))
    axes.hlines(rows, effects["low"], effects["high"], color=colours, linewidth=2, zorder=2)
    axes.scatter(effects["effect"], rows, s=26, color=colours, edgecolor="white", zorder=3)
    _change_axis(axes, effects[["effect", "low", "high"]], f"← harms{GAP}mean Dice with the case{GAP}helps →")
    return figure


def subgroup_changes(table: pd.DataFrame) -> Figure:
    """Draw how Dice changed in each subgroup of the test cases: blue better, white the same, red worse.

    Args:
        table: One row a removal set and subgroup, at least one, drawn in this order: `removal_set`; `kind`, what
            divides the cases; `subgroup`; `cases`, how many test cases are in it; `mean_difference`, Dice new
            minus old (-1 to 1 or NaN, which is hatched grey).
    """
    sets, kinds = list(table["removal_set"].unique()), list(table["kind"].unique())
    changes = {kind: _by_subgroup(table[table["kind"] == kind], sets) for kind in kinds}
    labels = [name for block in changes.values() for name in block.index]
    room = text_inches(labels) + 1.3
    width = min(PAGE_WIDTH - room, 0.4 + 1.1 * len(sets))
    figure = new_figure(width + room, max(0.3 * len(labels), 1.2) + 0.34 * len(kinds) + 0.5)
    grid = figure.add_gridspec(
        len(kinds), 2, width_ratios=[width, BAR_WIDTH], height_ratios=[len(x) for x in changes.values()]
    )
    largest = max(table["mean_difference"].abs().fillna(0).max(), SMALL_CHANGE)
    for row, (kind, block) in enumerate(changes.items()):
        axes = figure.add_subplot(grid[row, 0])
        picture = draw_cells(axes, block.to_numpy(float), DIFFERENCE_COLOURS, Normalize(-largest, largest), "+.3f")
        axes.set_title(kind, loc="left", fontsize=9, fontweight="bold", color=INK, pad=4)
        axes.set_yticks(range(len(block)), list(block.index))
        axes.set_xticks(range(len(sets)), short_labels(sets), rotation=90 if len(sets) > UPRIGHT_SETS else 0)
        axes.tick_params(length=0, labelsize=8.5, labelbottom=row == len(kinds) - 1)
    draw_colour_bar(figure.add_subplot(grid[:, 1]), picture, "mean change")
    return figure


def _set_labels(effects: pd.DataFrame) -> list[str]:
    names = short_labels([str(x) for x in effects["removal_set"]])
    return [f"{name} · {removed} removed" for name, removed in zip(names, effects["removed"], strict=True)]


def _change_axis(
    axes: Axes, changes: pd.DataFrame, label: str = f"← worse{GAP}change of the mean Dice{GAP}better →"
) -> None:
    """Put zero in the middle of the x axis and say which side is better."""
    reach = max(1.1 * changes.astype(float).abs().fillna(0).max(axis=None), 0.005)
    axes.set_xlim(-reach, reach)
    axes.axvline(0, color=MUTED, linewidth=1, zorder=1)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_xlabel(label)
    tidy(axes)
    row_ticks(axes)


def _change(row: Any) -> str:
    return _with_interval(row.mean_difference, row.low, row.high)


def _effect(row: Any) -> str:
    return _with_interval(row.effect, row.low, row.high)


def _with_interval(change: float, low: float, high: float) -> str:
    if np.isnan(change):
        return "not defined"
    if np.isnan(low) or np.isnan(high):
        return typeset(f"{signed(change)} (no interval)")
    return typeset(f"{signed(change)} ({interval(low, high)})")


def _verdict(row: Any, significance: float) -> str:
    if row.controls == 0:
        return "no random removals: cannot tell"
    if np.isnan(row.holm_better_p) or row.smallest_p >= significance:
        return f"{row.controls} random removal{'s' * (row.controls != 1)}: cannot tell"
    better = row.holm_better_p <= row.holm_worse_p
    p = row.holm_better_p if better else row.holm_worse_p
    said = "p < 0.001" if p < 0.001 else f"p = {p:.{2 if p >= 0.1 else 3}f}"
    verdict = " · gain" if row.gain else " · harm" if row.harm else ""
    return f"{'better' if better else 'worse'}, {said}{verdict}"


def _place(controls: pd.DataFrame, change: float) -> str:
    """Say above how many random removals of about its size a set lies."""
    changes = controls["mean_difference"]
    undefined = f" ({changes.isna().sum()} undefined)" if changes.isna().any() else ""
    return f"{(changes < change).sum()} of {len(changes)}{undefined}" if len(changes) else "none to compare"


def _draw_controls(axes: Axes, row: int, changes: pd.Series, labelled: bool) -> None:
    order = changes.rank(method="first")
    places = row + 0.44 * (order * GOLDEN_RATIO % 1 - 0.5)
    label = "random removal" if labelled else None
    axes.scatter(changes.astype(float), places.astype(float), s=20, color=NEUTRAL, label=label, zorder=3)


def _by_subgroup(table: pd.DataFrame, sets: Sequence[str]) -> pd.DataFrame:
    """Arrange the changes: one row a subgroup, with its number of cases in the label, one column a set."""
    changes = table.pivot(index="subgroup", columns="removal_set", values="mean_difference")
    changes = changes.reindex(index=table["subgroup"].unique(), columns=sets)
    counts = table.groupby("subgroup")["cases"].agg(["min", "max"]).astype(int).loc[changes.index]
    names = [
        f"{name} · {_count(low, high)}"
        for name, low, high in zip(changes.index, counts["min"], counts["max"], strict=True)
    ]
    return changes.set_axis(names)


def _count(low: int, high: int) -> str:
    if low != high:
        return f"{low}–{high} cases"
    return f"{low} case{'s' * (low != 1)}"
