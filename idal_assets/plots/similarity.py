"""Figures of the Dice matrix: the matrix itself, its dendrogram and the ranking of the donors."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray
from scipy.cluster.hierarchy import dendrogram

from idal_assets.plots.style import (
    ACCENT,
    ALERT,
    BAR_WIDTH,
    DICE_COLOURS,
    GRID,
    INK,
    MUTED,
    PAGE_WIDTH,
    case_ticks,
    draw_cells,
    draw_colour_bar,
    label_inches,
    new_figure,
    short_labels,
    tidy,
)

DONOR = "donor (model trained on)"
RECEIVER = "receiver (case segmented)"

RANKED_BARS = 30


def heat_map(matrix: pd.DataFrame, title: str) -> Figure:
    """Draw a Dice matrix, deep blue for 1, white for 0, hatched grey where Dice is not defined.

    Args:
        matrix: Dice 0 to 1 or NaN; index: donors, columns: receivers.
        title: Heading of the figure.
    """
    height, width = (_side(n) for n in matrix.shape)
    extra_height, extra_width = label_inches(matrix.columns) + 0.9, label_inches(matrix.index) + 1.4
    figure = new_figure(width + extra_width, height + extra_height, title)
    axes, bar = figure.subplots(1, 2, width_ratios=[width, BAR_WIDTH])
    draw_colour_bar(bar, _draw_dice(axes, matrix, width, height), "Dice")
    return figure


def dendrogram_figure(linkage: NDArray[np.float64], matrix: pd.DataFrame, cophenetic: float) -> Figure:
    """Draw the dendrogram of the donors above their Dice matrix, whose rows and columns follow its leaves.

    Args:
        linkage: Merges as scipy writes them, shape (donors - 1, 4).
        matrix: Dice 0 to 1 or NaN, donors by donors, both in the order that the linkage counts in.
        cophenetic: Cophenetic correlation of the linkage.
    """
    tree = dendrogram(linkage, no_plot=True)
    ordered = matrix.iloc[tree["leaves"], tree["leaves"]]
    side, labels = _side(len(matrix)), label_inches(matrix.index)
    title = f"Donors in the order of the dendrogram · cophenetic correlation {cophenetic:.3f}"
    figure = new_figure(side + labels + 1.4, side + labels + 2.9, title)
    grid = figure.add_gridspec(2, 2, height_ratios=[1.6, side], width_ratios=[side, BAR_WIDTH])
    below = figure.add_subplot(grid[1, 0])
    above = figure.add_subplot(grid[0, 0], sharex=below)
    draw_colour_bar(figure.add_subplot(grid[1, 1]), _draw_dice(below, ordered, side, side), "Dice")
    _draw_tree(above, tree["icoord"], tree["dcoord"])
    return figure


def ranking_figure(scores: pd.DataFrame, worst: set[str]) -> Figure:
    """Draw the donors by their two means, and the scores in order of rank beside them.

    The worst cases carry their rank in both panels. Of a large cohort the bars show the first ranks only,
    and all the worst.

    Args:
        scores: Columns `case_id`, `donor_mean`, `receiver_mean`, `score` (low is bad) and `rank` (1 is the
            worst).
        worst: Ids of the cases to mark.
    """
    ranked = scores.sort_values("rank", ignore_index=True)
    marked = ranked["case_id"].isin(worst)
    shown = (ranked.index < RANKED_BARS) | marked
    height = min(max(4.2, 0.2 * shown.sum() + 1.1), 9.5)
    figure = new_figure(PAGE_WIDTH + 1, height)
    left, right = figure.subplots(1, 2, width_ratios=[1.1, 1])
    _draw_means(left, ranked, marked)
    _draw_scores(right, ranked[shown], marked[shown], height - 1)
    part = "" if shown.all() else f" ({shown.sum()} of {len(ranked)} cases)"
    tidy(left, "Donor mean and receiver mean")
    tidy(right, f"Score, worst first{part}")
    return figure


def _side(cells: int) -> float:
    """Length in inches of a matrix side: cells large enough to write in, as long as the page allows."""
    return min(max(0.42 * cells, 2.4), 6.8)


def _draw_dice(axes: Axes, matrix: pd.DataFrame, width: float, height: float) -> AxesImage:
    picture = draw_cells(axes, matrix.to_numpy(float), DICE_COLOURS, Normalize(0, 1), ".2f")
    case_ticks(axes.xaxis, _names(matrix.columns), width)
    case_ticks(axes.yaxis, _names(matrix.index), height)
    axes.set_xlabel(RECEIVER, fontsize=9, color=INK)
    axes.set_ylabel(DONOR, fontsize=9, color=INK)
    return picture


def _names(labels: pd.Index) -> list[str]:
    return [str(x) for x in labels]


def _draw_tree(axes: Axes, across: Sequence[Sequence[float]], up: Sequence[Sequence[float]]) -> None:
    # scipy puts the leaves at 5, 15, 25, ...; the matrix has them at 0, 1, 2, ...
    x = (np.array(across) - 5) / 10
    axes.add_collection(LineCollection(list(np.stack([x, up], axis=-1)), colors=INK, linewidths=1))
    axes.set_ylim(0, 1.05 * np.max(up) or 1)
    axes.set_ylabel("distance", fontsize=9, color=INK)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.tick_params(labelsize=8, color=MUTED, labelcolor=INK)
    axes.tick_params(axis="x", which="both", length=0, labelbottom=False)


def _draw_means(axes: Axes, ranked: pd.DataFrame, marked: pd.Series) -> None:
    rest, worst = ranked[~marked], ranked[marked]
    axes.axvline(ranked["donor_mean"].mean(), color=GRID, linewidth=1.2, zorder=0)
    axes.axhline(ranked["receiver_mean"].mean(), color=GRID, linewidth=1.2, zorder=0)
    axes.scatter(rest["donor_mean"], rest["receiver_mean"], s=28, color=ACCENT, alpha=0.55, linewidth=0)
    axes.scatter(worst["donor_mean"], worst["receiver_mean"], s=150, color=ALERT, alpha=0.9, linewidth=0)
    for _, row in worst.iterrows():
        axes.annotate(
            str(row["rank"]),
            (row["donor_mean"], row["receiver_mean"]),
            ha="center",
            va="center_baseline",
            fontsize=7.5,
            fontweight="bold",
            color="white",
        )
    axes.set_xlabel("donor mean: Dice of its model on the others")
    axes.set_ylabel("receiver mean: Dice of the others' models on it")
    axes.margins(0.08)


def _draw_scores(axes: Axes, shown: pd.DataFrame, marked: pd.Series, inches: float) -> None:
    colours = np.where(marked, ALERT, ACCENT)
    names = short_labels(_names(shown["case_id"]))
    labels = [f"{name}  {rank}" for name, rank in zip(names, shown["rank"], strict=True)]
    rows = range(len(shown))
    axes.barh(rows, shown["score"], color=colours, alpha=0.85, height=0.72)
    axes.axvline(0, color=MUTED, linewidth=0.8)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    size = min(8.5, 0.8 * inches * 72 / len(shown))
    axes.set_yticks(rows, labels, fontsize=size)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel("score (low: harms and is hard)")
