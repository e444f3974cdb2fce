"""Figures of the evidence that a removal helped or harmed: its interval, its controls, its subgroups."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, to_hex
from matplotlib.figure import Figure

from idal_assets.plots.rows import row_figure, row_ticks
from idal_assets.plots.style import (
    ACCENT,
    BAR_WIDTH,
    DIFFERENCE_COLOURS,
    GRID,
    INK,
    MUTED,
    NEUTRAL,
    PAGE_WIDTH,
    draw_cells,
    draw_colour_bar,
    new_figure,
    short_labels,
    text_inches,
    tidy,
)

BETTER, WORSE = to_hex(DIFFERENCE_COLOURS(5 / 6)), to_hex(DIFFERENCE_COLOURS(1 / 6))
"""Red and blue, as in the maps of differences."""

CONTROLS = {
    "random": ("o", NEUTRAL, "none"),
    "matched": ("D", "white", INK),
}
"""Marker, face and edge of the controls by kind."""

UPRIGHT_SETS = 8
"""As many removal sets as fit side by side with their names upright."""

GOLDEN_RATIO = (5**0.5 - 1) / 2
"""Its multiples fall evenly into any interval, so that dots spread without a random number."""


def forest_plot(effects: pd.DataFrame, significance: float = 0.05) -> Figure:
    """Draw how each removal set changed the median Dice, with its interval; red a gain, blue a harm, grey neither.

    Args:
        effects: One row a set, drawn in this order: `removal_set`; `removed`, how many cases; Dice new minus old
            (-1 to 1 or NaN) as `difference_of_medians` with its bootstrap interval `low` to `high`; `controls`,
            how many random removals it was compared with; `control_p`, the p-value among these (0 to 1 or NaN);
            `smallest_control_p`, the least p-value that so many controls can give; `gain` and `harm`, whether
            the evidence is enough to claim one.
        significance: Largest p-value that counts. Controls too few to reach it are said to be so.
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
    axes.scatter(effects["difference_of_medians"], rows, s=64, color=colours, edgecolor="white", zorder=3)
    _change_axis(axes, effects[["difference_of_medians", "low", "high"]])
    return figure


def control_distribution(controls: pd.DataFrame, effects: pd.DataFrame) -> Figure:
    """Draw the change of each removal set among those of its controls, which lost as many other cases.

    Args:
        controls: One row a control: `removal_set`, the set that it controls; `control`, its name; `kind`,
            `random` or `matched`; `difference_of_medians`, Dice new minus old (-1 to 1 or NaN). A set may have
            none.
        effects: One row a set, drawn in this order: `removal_set`, `removed` (how many cases) and
            `difference_of_medians`.

    Raises:
        ValueError: A control belongs to a set that is not among the effects.
    """
    place = {name: row for row, name in enumerate(effects["removal_set"])}
    strangers = sorted(set(controls["removal_set"]) - set(place))
    if strangers:
        raise ValueError(f"Controls of {', '.join(strangers)}, of which there is no effect; leave them out")
    kinds = [kind for kind in CONTROLS if (controls["kind"] == kind).any()]
    columns = {
        f"above {kind} controls": _places(controls[controls["kind"] == kind], effects)
        for kind in kinds or ["random"]
    }
    figure, axes = row_figure(_set_labels(effects), columns, pitch=0.62)
    for kind in kinds:
        _draw_controls(axes, kind, controls[controls["kind"] == kind], place)
    axes.scatter(
        effects["difference_of_medians"],
        np.arange(len(effects)),
        s=110,
        color=ACCENT,
        edgecolor="white",
        label="chosen set",
        zorder=4,
    )
    changes = pd.concat([controls["difference_of_medians"], effects["difference_of_medians"]])
    _change_axis(axes, changes.to_frame())
    figure.legend(loc="outside upper left", ncols=3, fontsize=8.5, frameon=False, labelcolor=INK, reverse=True)
    return figure


def subgroup_changes(table: pd.DataFrame) -> Figure:
    """Draw how Dice changed in each subgroup of the test cases: red better, white the same, blue worse.

    Args:
        table: One row a removal set and subgroup, at least one, drawn in this order: `removal_set`; `kind`, what
            divides the cases; `subgroup`; `cases`, how many test cases are in it; `median_of_differences`, Dice
            new minus old (-1 to 1 or NaN, which is hatched grey).
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
    # A floor, so that a picture without any change is white and not an error.
    largest = max(table["median_of_differences"].abs().fillna(0).max(), 0.01)
    for row, (kind, block) in enumerate(changes.items()):
        axes = figure.add_subplot(grid[row, 0])
        picture = draw_cells(axes, block.to_numpy(float), DIFFERENCE_COLOURS, Normalize(-largest, largest), "+.3f")
        axes.set_title(kind, loc="left", fontsize=9, fontweight="bold", color=INK, pad=4)
        axes.set_yticks(range(len(block)), list(block.index))
        axes.set_xticks(range(len(sets)), short_labels(sets), rotation=90 if len(sets) > UPRIGHT_SETS else 0)
        axes.tick_params(length=0, labelsize=8.5, labelbottom=row == len(kinds) - 1)
    draw_colour_bar(figure.add_subplot(grid[:, 1]), picture, "median change")
    return figure


def _set_labels(effects: pd.DataFrame) -> list[str]:
    names = short_labels([str(x) for x in effects["removal_set"]])
    return [f"{name} · {removed} removed" for name, removed in zip(names, effects["removed"], strict=True)]


def _change_axis(axes: Axes, changes: pd.DataFrame) -> None:
    """Put zero in the middle of the x axis and say which side is better."""
    reach = max(1.1 * changes.astype(float).abs().fillna(0).max(axis=None), 0.005)
    axes.set_xlim(-reach, reach)
    axes.axvline(0, color=MUTED, linewidth=1, zorder=1)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_xlabel("← worse      change of the median Dice      better →")
    tidy(axes)
    row_ticks(axes)


def _change(row: Any) -> str:
    if np.isnan(row.difference_of_medians):
        return "not defined"
    change = _signed(row.difference_of_medians)
    if np.isnan(row.low) or np.isnan(row.high):
        return f"{change} (no interval)"
    return f"{change} ({_signed(row.low)} to {_signed(row.high)})"


def _verdict(row: Any, significance: float) -> str:
    if row.controls == 0:
        return "no controls: cannot tell"
    if np.isnan(row.control_p) or row.smallest_control_p > significance:
        return f"{row.controls} control{'s' * (row.controls != 1)}: cannot tell"
    p = "p < 0.001" if row.control_p < 0.001 else f"p = {row.control_p:.{2 if row.control_p >= 0.1 else 3}f}"
    return p + (" · gain" if row.gain else " · harm" if row.harm else "")


def _signed(change: float) -> str:
    # Adding zero makes a plus of the minus before a rounded zero.
    return f"{round(change, 3) + 0.0:+.3f}".replace("-", "−")


def _places(controls: pd.DataFrame, effects: pd.DataFrame) -> list[str]:
    """Say above how many of its controls each set lies."""
    places = []
    for row in effects.itertuples():
        gains = controls.loc[controls["removal_set"] == row.removal_set, "difference_of_medians"]
        undefined = f" ({gains.isna().sum()} undefined)" if gains.isna().any() else ""
        below = (gains < row.difference_of_medians).sum()
        places.append(f"{below} of {len(gains)}{undefined}" if len(gains) else "none")
    return places


def _draw_controls(axes: Axes, kind: str, controls: pd.DataFrame, place: dict[str, int]) -> None:
    defined = controls.dropna(subset="difference_of_medians")
    order = defined.groupby("removal_set")["difference_of_medians"].rank(method="first")
    rows = defined["removal_set"].map(place) + 0.44 * (order * GOLDEN_RATIO % 1 - 0.5)
    marker, face, edge = CONTROLS[kind]
    axes.scatter(
        defined["difference_of_medians"].astype(float),
        rows.astype(float),
        s=20,
        marker=marker,
        facecolor=face,
        edgecolor=edge,
        linewidth=0.9,
        label=f"{kind} control",
        zorder=3,
    )


def _by_subgroup(table: pd.DataFrame, sets: Sequence[str]) -> pd.DataFrame:
    """Arrange the changes: one row a subgroup, with its number of cases in the label, one column a set."""
    changes = table.pivot(index="subgroup", columns="removal_set", values="median_of_differences")
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
