"""Pictures of cases that were played as patients: what is predicted of them, and what each choice gives."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from idal_assets.analysis.words import signed, typeset
from idal_assets.anatomy import Legend
from idal_assets.plots.rows import row_figure, row_ticks
from idal_assets.plots.style import ACCENT, GRID, INK, MARKERS, MUTED, NEUTRAL, SERIES, new_figure, tidy

MOST_DRAWN_DOTS = 1000
"""More dots are an image within the chart: as shapes they would make megabytes of it."""

FEATURE_NAMES = {
    "donor_mean": "donor: mean on other cases",
    "donor_agreement": "donor: usual agreement",
    "with_baseline": "agreement with the baseline",
    "with_majority": "agreement with the majority",
    "with_others": "agreement with the other networks",
    "volume_ratio": "volume unlike the others'",
    "extent_ratio": "extent unlike the others'",
    "confidence": "confidence",
    "turned": "the same of a turned image",
    "image_distance": "image statistics",
    "feature_distance": "features of the encoder",
    "foreseen": "donors that suit such images",
}


def classifier_figure(
    predicted: pd.DataFrame, regions: Sequence[str], importance: pd.Series, legend: Legend
) -> Figure:
    """Draw predicted against true Dice of all pairs, and what the prediction is made from.

    Args:
        predicted: One row a pair and region: `region`, `dice` (predicted) and `truth`, 0 to 1 or NaN.
        regions: Regions to draw.
        importance: By feature, how much it counts.
        legend: Names of the regions.
    """
    figure = new_figure(9.6, 4.2)
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.15])
    for number, region in enumerate(regions):
        rows = predicted[predicted["region"] == region]
        _dots(left, rows["dice"], rows["truth"], number, legend.title(region))
    _diagonal(left)
    left.set_xlabel("predicted Dice, the label hidden")
    left.set_ylabel("true Dice")
    left.legend(fontsize=8, frameon=False, labelcolor=INK)
    tidy(left, "Every donor's network on every case")
    ordered = importance.sort_values()
    right.barh([FEATURE_NAMES[str(name)] for name in ordered.index], ordered, color=ACCENT, height=0.62)
    right.set_xlabel("weight of the standardised feature")
    right.grid(axis="x", color=GRID, linewidth=0.8)
    tidy(right, "What tells a donor that suits")
    row_ticks(right)
    return figure


def _dots(axes: Axes, predicted: pd.Series, truth: pd.Series, number: int, label: str) -> None:
    axes.scatter(
        predicted,
        truth,
        s=12,
        alpha=0.5,
        linewidth=0,
        color=SERIES[number % len(SERIES)],
        marker=MARKERS[number % len(MARKERS)],
        label=label,
        rasterized=len(predicted) > MOST_DRAWN_DOTS,
    )


def _diagonal(axes: Axes) -> None:
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, zorder=1)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)


def arms_figure(arms: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """Draw the difference of each choice of donors to the baseline, with its interval.

    Args:
        arms: One row a choice: `arm`, `mode`, `count`, `mean_difference`, `low`, `high`.
        names: Choices in words.
    """
    shown = arms[arms["arm"] != "baseline"]
    shown = shown.assign(order=shown["arm"].map({name: place for place, name in enumerate(names)}))
    shown = shown.sort_values(["mode", "order", "count"], kind="stable")
    labels = [
        _arm_label(row.arm, int(row.count_), names)
        for row in shown.rename(columns={"count": "count_"}).itertuples()
    ]
    columns = {
        "mode": list(shown["mode"]),
        "difference": [typeset(signed(value)) for value in shown["mean_difference"]],
    }
    offered = {row: ACCENT for row, arm in enumerate(shown["arm"]) if arm == "offered"}
    figure, axes = row_figure(labels, columns, pitch=0.24, emphasis=offered)
    rows = np.arange(len(shown))
    colours = [
        {"offered": ACCENT, "classifier": ACCENT, "oracle": MUTED}.get(arm, NEUTRAL) for arm in shown["arm"]
    ]
    axes.hlines(rows, shown["low"], shown["high"], color=colours, linewidth=2, zorder=2)
    axes.scatter(shown["mean_difference"], rows, s=26, color=colours, edgecolor="white", zorder=3)
    axes.axvline(0, color=MUTED, linewidth=1, zorder=1)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_xlabel("mean Dice of the patients, minus that of the baseline")
    tidy(axes)
    row_ticks(axes)
    return figure


def _arm_label(arm: str, count: int, names: Mapping[str, str]) -> str:
    return names[arm] if arm in ("offered", "all") else f"{names[arm]} · {count}"


def quality_figure(patients: pd.DataFrame, kept: pd.DataFrame) -> Figure:
    """Draw predicted against true Dice of what patients get, and what leaving out the least sure brings.

    Args:
        patients: One row a case and region: `region`, `predicted` with `low` and `high`, and `dice`, 0 to 1.
        kept: `coverage` and `mean_dice`.
    """
    figure = new_figure(9.6, 4.0)
    left, right = figure.subplots(1, 2)
    for number, (region, rows) in enumerate(patients.groupby("region", sort=False)):
        colour = SERIES[number % len(SERIES)]
        left.hlines(rows["dice"], rows["low"], rows["high"], color=colour, linewidth=0.8, alpha=0.35)
        left.scatter(rows["predicted"], rows["dice"], s=18, color=colour, edgecolor="white", label=str(region))
    _diagonal(left)
    left.set_xlabel("predicted without a label, with its interval")
    left.set_ylabel("true Dice")
    left.legend(fontsize=8, frameon=False, labelcolor=INK)
    tidy(left, "Test cases that were played as patients")
    right.plot(100 * kept["coverage"], kept["mean_dice"], color=ACCENT, linewidth=2)
    right.set_xlabel("patients kept, those with the lowest predicted Dice left out [%]")
    right.set_ylabel("mean Dice")
    right.grid(color=GRID, linewidth=0.8)
    tidy(right, "Leaving out the least sure")
    return figure
