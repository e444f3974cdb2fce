"""Figure of the labels' quality out of fold."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from idal_assets.plots.style import ACCENT, GRID, PAGE_WIDTH, SERIES, new_figure, short_labels, tidy

RANKED_DOTS = 40


def label_quality_figure(labels: pd.DataFrame, scores: pd.DataFrame, regions: Sequence[str]) -> Figure:
    """Draw the donors from the lowest label quality up, and beside it their Dice out of fold.

    Of a large cohort the first ranks only are shown.

    Args:
        labels: Columns `case_id` and `label_quality` (0 to 1).
        scores: Columns `case_id`, `region` and `dice` (0 to 1 or NaN).
        regions: Regions whose Dice to draw.
    """
    ranked = labels.sort_values(["label_quality", "case_id"], ignore_index=True)
    shown = ranked.head(RANKED_DOTS)
    height = min(max(3.6, 0.2 * len(shown) + 1.1), 9.5)
    figure = new_figure(PAGE_WIDTH, height)
    left, right = figure.subplots(1, 2, sharey=True)
    left.scatter(shown["label_quality"], shown.index, s=36, color=ACCENT, linewidth=0)
    left.set_xlabel("label quality (cleanlab's softmin; low: doubtful)")
    left.set_xlim(left=0)
    _draw_dice(right, shown["case_id"], scores, regions)
    size = min(8.5, 0.8 * (height - 1) * 72 / len(shown))
    left.set_yticks(shown.index, short_labels(list(shown["case_id"])), fontsize=size)
    # a row below the last is left to the legend
    left.set_ylim(len(shown) + 0.6, -0.6)
    for axes in (left, right):
        axes.grid(color=GRID, linewidth=0.8)
    part = "" if len(shown) == len(ranked) else f" ({len(shown)} of {len(ranked)} cases)"
    tidy(left, f"Label quality, worst first{part}")
    tidy(right, "Dice of the network that has not learned from the case")
    left.tick_params(axis="y", labelsize=size)
    right.tick_params(axis="y", length=0, labelleft=False)
    return figure


def _draw_dice(axes: Axes, cases: pd.Series, scores: pd.DataFrame, regions: Sequence[str]) -> None:
    by_region = scores.pivot(index="case_id", columns="region", values="dice").loc[cases]
    for region, colour in zip(regions, SERIES, strict=False):
        axes.scatter(
            by_region[region], range(len(cases)), s=30, color=colour, alpha=0.8, linewidth=0, label=region
        )
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("Dice out of fold")
    axes.legend(fontsize=8, frameon=False, ncols=len(regions), loc="lower left")
