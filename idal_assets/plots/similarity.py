"""Figures of the Dice matrix: the matrix itself, its dendrogram and the ranking of the donors."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize, to_rgb
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
    LABELLED_TICKS,
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

STRIP = 0.16
"""Height in inches of a strip of marks."""

NAME_PITCH = 0.12
"""Room in inches that the name of an accused donor takes."""

CLUSTER_COLOURS = ("#3a5a78", "#9fb8cf", "#66727f", "#c9d2da")
"""Of clusters side by side, none of them red."""


def heat_map(matrix: pd.DataFrame) -> Figure:
    """Draw a Dice matrix, deep blue for 1, white for 0, hatched grey where Dice is not defined.

    Args:
        matrix: Dice 0 to 1 or NaN; index: donors, columns: receivers.
    """
    height, width = (_side(n) for n in matrix.shape)
    extra_height, extra_width = label_inches(matrix.columns) + 0.9, label_inches(matrix.index) + 1.4
    figure = new_figure(width + extra_width, height + extra_height)
    axes, bar = figure.subplots(1, 2, width_ratios=[width, BAR_WIDTH])
    draw_colour_bar(bar, _draw_dice(axes, matrix, width, height), "Dice")
    return figure


@dataclass(frozen=True)
class Marks:
    """What a person looks for among the donors.

    Attributes:
        clusters: Cluster of each donor, at the cut.
        worst: Members of the worst cluster.
        removed: Donors that the largest set of the worst removes.
    """

    clusters: Mapping[str, int]
    worst: Collection[str]
    removed: Collection[str]

    @property
    def accused(self) -> set[str]:
        """Donors that are marked by either."""
        return {*self.worst, *self.removed}


def dendrogram_figure(
    linkage: NDArray[np.float64], matrix: pd.DataFrame, cophenetic: float, marks: Marks | None = None
) -> Figure:
    """Draw the dendrogram of the donors above their Dice matrix, whose rows and columns follow its leaves.

    Args:
        linkage: Merges as scipy writes them, shape (donors - 1, 4).
        matrix: Dice 0 to 1 or NaN, donors by donors, both in the order that the linkage counts in.
        cophenetic: Cophenetic correlation of the linkage.
        marks: Clusters, worst cluster and removed donors, drawn as strips between tree and matrix, with the cut.
            Of many donors only those that are accused have their names then.
    """
    tree = dendrogram(linkage, no_plot=True)
    ordered = matrix.iloc[tree["leaves"], tree["leaves"]]
    side, labels = _side(len(matrix)), label_inches(matrix.index)
    strips = {} if marks is None else _strips(ordered.index, marks)
    strip = STRIP * len(strips)
    figure = new_figure(side + labels + 1.4, side + labels + 2.9 + strip)
    grid = figure.add_gridspec(
        3, 2, height_ratios=[1.6, max(strip, 0.01), side], width_ratios=[side, BAR_WIDTH], hspace=0.01
    )
    below = figure.add_subplot(grid[2, 0])
    above = figure.add_subplot(grid[0, 0], sharex=below)
    draw_colour_bar(figure.add_subplot(grid[2, 1]), _draw_dice(below, ordered, side, side), "Dice")
    _draw_tree(above, tree["icoord"], tree["dcoord"])
    above.set_title(f"cophenetic correlation {cophenetic:.3f}", loc="left", fontsize=9, color=MUTED)
    if marks is not None:
        _draw_strips(figure.add_subplot(grid[1, 0], sharex=below), strips)
        _draw_cut(above, linkage, len(set(marks.clusters.values())))
        _name_accused(below, ordered.index, marks.accused)
    return figure


def _strips(leaves: pd.Index, marks: Marks) -> dict[str, list[str]]:
    """Colours of the leaves in each strip, by its name; neighbouring clusters differ."""
    numbers = list(dict.fromkeys(marks.clusters[str(leaf)] for leaf in leaves))
    colours = {number: CLUSTER_COLOURS[place % len(CLUSTER_COLOURS)] for place, number in enumerate(numbers)}
    return {
        "cluster": [colours[marks.clusters[str(leaf)]] for leaf in leaves],
        "worst cluster": [ALERT if leaf in marks.worst else "white" for leaf in leaves],
        "removed": [ALERT if leaf in marks.removed else "white" for leaf in leaves],
    }


def _draw_strips(axes: Axes, strips: Mapping[str, Sequence[str]]) -> None:
    axes.imshow(
        [[to_rgb(colour) for colour in row] for row in strips.values()], aspect="auto", interpolation="none"
    )
    axes.set_yticks(range(len(strips)), list(strips), fontsize=8)
    axes.set_yticks(np.arange(len(strips) + 1) - 0.5, minor=True)
    axes.grid(which="minor", axis="y", color=GRID, linewidth=0.8)
    axes.spines[:].set_visible(False)
    axes.tick_params(which="both", length=0, labelbottom=False, labelcolor=INK)


def _draw_cut(axes: Axes, linkage: NDArray[np.float64], clusters: int) -> None:
    """The height at which the tree falls into so many clusters."""
    heights = linkage[:, 2]
    if 1 < clusters <= len(heights):
        height = heights[-clusters : len(heights) - clusters + 2].mean()
        axes.axhline(height, color=ALERT, linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate(
            f"cut into {clusters}",
            (1, height),
            xycoords=axes.get_yaxis_transform(),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=ALERT,
        )


def _name_accused(axes: Axes, leaves: pd.Index, accused: Collection[str]) -> None:
    names = [str(leaf) for leaf in leaves]
    if len(names) > LABELLED_TICKS:
        places = [place for place, name in enumerate(names) if name in accused]
        _names_apart(axes, places, short_labels([names[place] for place in places]), len(names))
        return
    for axis in (axes.xaxis, axes.yaxis):
        for place, label in zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True):
            if names[round(place)] in accused:
                label.set(color=ALERT, fontweight="bold")


def _names_apart(axes: Axes, places: Sequence[int], names: Sequence[str], cells: int) -> None:
    """Write names of some of many rows and columns, moved apart where they would overlap."""
    pitch = NAME_PITCH * cells / _side(cells)
    axes.set(xticks=places, yticks=places, xticklabels=[], yticklabels=[])
    style: dict[str, Any] = {"fontsize": 7, "color": ALERT, "fontweight": "bold", "annotation_clip": False}
    line = {"arrowstyle": "-", "color": ALERT, "linewidth": 0.6}
    for place, written, name in zip(places, apart(places, pitch, cells), names, strict=True):
        axes.annotate(
            name, (-0.5, place), (-0.5 - 2 * pitch, written), ha="right", va="center", arrowprops=line, **style
        )
        axes.annotate(
            name,
            (place, cells - 0.5),
            (written, cells - 0.5 + 2 * pitch),
            ha="center",
            va="top",
            rotation=90,
            arrowprops=line,
            **style,
        )


def apart(places: Sequence[float], pitch: float, cells: int) -> list[float]:
    """Move rising places on a line of cells so far from each other that each has its room.

    Args:
        places: Where the things are.
        pitch: Least distance, in cells.
        cells: Length of the line.
    """
    found: list[float] = []
    for place in places:
        found.append(max(place, found[-1] + pitch) if found else float(place))
    limit = float(cells - 1)
    for number in reversed(range(len(found))):
        found[number] = min(found[number], limit)
        limit = found[number] - pitch
    return found


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
    labels = [f"{name}\u2002{rank}" for name, rank in zip(names, shown["rank"], strict=True)]
    rows = range(len(shown))
    axes.barh(rows, shown["score"], color=colours, alpha=0.85, height=0.72)
    axes.axvline(0, color=MUTED, linewidth=0.8)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    size = min(8.5, 0.8 * inches * 72 / len(shown))
    axes.set_yticks(rows, labels, fontsize=size)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel("score (low: harms and is hard)")
