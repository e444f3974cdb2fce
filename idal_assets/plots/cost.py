"""Figures of what the experiment costs: the time of each asset, and how much training the ranking needs."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from idal_assets.analysis.words import human_time
from idal_assets.plots.rows import row_figure, row_ticks
from idal_assets.plots.style import ACCENT, GRID, INK, MUTED, PAGE_WIDTH, new_figure, tidy


def cost_by_asset(table: pd.DataFrame) -> Figure:
    """Draw how long each asset took, the longest first.

    Args:
        table: One row an asset: `asset`; `partitions`, how many were made; `seconds` and `cpu_seconds`, the sums
            over these of elapsed time and of processor time (0 or more, or NaN where it was not measured).
    """
    ranked = table.sort_values("seconds", ascending=False, kind="stable", ignore_index=True)
    columns = {
        "time": [human_time(x) for x in ranked["seconds"]],
        "each": [human_time(x) for x in ranked["seconds"] / ranked["partitions"]],
        "CPU time": [human_time(x) for x in ranked["cpu_seconds"]],
    }
    labels = [
        f"{row.asset} × {row.partitions}" if row.partitions != 1 else row.asset for row in ranked.itertuples()
    ]
    figure, axes = row_figure(labels, columns, pitch=0.27, align="right")
    axes.barh(range(len(ranked)), ranked["seconds"], color=ACCENT, alpha=0.85, height=0.66)
    tidy(axes, f"{human_time(ranked['seconds'].sum())} of work")
    row_ticks(axes)
    axes.set_xlim(left=0)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    return figure


def convergence(table: pd.DataFrame) -> Figure:
    """Draw how soon the ranking of the donors is settled, with the time that it takes until then.

    Args:
        table: One row a share: `share` of the iterations of every case model (0 to 1); `correlation`, Spearman's,
            of the ranking after that share with the final one (-1 to 1 or NaN); `seconds` of training until then.
    """
    ordered = table.sort_values("share", ignore_index=True)
    figure = new_figure(PAGE_WIDTH * 0.6, 3.4)
    axes = figure.subplots()
    axes.axhline(0, color=MUTED, linewidth=1)
    axes.plot(ordered["share"], ordered["correlation"], color=ACCENT, linewidth=1.8, marker="o", markersize=8)
    for row in ordered.dropna(subset="correlation").itertuples():
        # The points lie near the top as a rule, where the room is below them.
        below = row.correlation > 0.4
        axes.annotate(
            f"{row.correlation:.2f}\n{human_time(row.seconds)}".replace("-", "−"),
            (row.share, row.correlation),
            xytext=(0, -9 if below else 9),
            textcoords="offset points",
            ha="center",
            va="top" if below else "bottom",
            fontsize=9,
            color=INK,
        )
    axes.set_xticks(ordered["share"])
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    axes.set_xlim(0, 1.1)
    axes.set_ylim(min(0.0, ordered["correlation"].min() - 0.1), 1.05)
    axes.set_yticks([x for x in (-1, -0.5, 0, 0.5, 1) if x >= axes.get_ylim()[0]])
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_xlabel("iterations of the case models")
    tidy(axes, "Spearman correlation with the final ranking")
    return figure
