"""Figures of how well a ranking finds the planted faults, where the truth is known."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from idal_assets.plots.rows import row_figure, row_ticks
from idal_assets.plots.style import ACCENT, ALERT, GRID, MUTED, NEUTRAL, PAGE_WIDTH, new_figure, short_labels, tidy

RANKED_ROWS = 30


def ranking_with_truth(scores: pd.DataFrame, truth: pd.DataFrame) -> Figure:
    """Draw the ranked donors, worst first: planted faults red with their kind, rare but valid cases blue.

    A line lies below as many ranks as there are faults; a perfect ranking has them all above it. Of a large
    cohort only the first ranks are drawn, and all that are faulty or rare; the others are counted in between.

    Args:
        scores: One row a donor: `case_id`; `score` (low is bad, NaN is not drawn); `rank` (1 is the worst); and
            `label_quality` (0 to 1 or NaN, low is bad) if it shall be drawn beside the score.
        truth: One row a case: `case_id`; `fault`, the kind of the planted fault or None; `subtype`, of which the
            most frequent among the donors is the common one and every other one is rare. Cases that are not
            donors are left out.

    Raises:
        ValueError: The truth of a donor is missing.
    """
    ranked = _with_truth(scores.sort_values("rank", ignore_index=True), truth)
    shown = ranked[(ranked.index < RANKED_ROWS) | (ranked["colour"] != NEUTRAL)]
    rows, gaps = _rows_and_gaps(shown.index.to_numpy(), len(ranked))
    bottom = max([*rows, *gaps]) + 0.6
    faulty = ranked["colour"] == ALERT
    cut = rows[(shown.index < faulty.sum()).sum() - 1] + 0.5
    figure = new_figure(PAGE_WIDTH, 0.2 * bottom + 1.2, _headline(faulty))
    measures = {"score": "score (low: harms and is hard)", "label_quality": "label quality"}
    drawn = [x for x in measures if x in ranked]
    panels = figure.subplots(1, len(drawn), sharey=True, squeeze=False, width_ratios=[2.4, 1][: len(drawn)])[0]
    for axes, measure in zip(panels, drawn, strict=True):
        axes.scatter(shown[measure], rows, s=34, color=shown["colour"], zorder=3)
        axes.hlines(rows, 0, 1, transform=axes.get_yaxis_transform(), color=GRID, linewidth=0.8, zorder=1)
        axes.set_xlabel(measures[measure])
        if 0 < faulty.sum() < len(ranked):
            axes.axhline(cut, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=2)
        tidy(axes)
        row_ticks(axes)
    _write_notes(panels[0], shown, rows)
    _label_ranks(panels[0], shown, rows, gaps)
    if "label_quality" in drawn:
        panels[1].set_xlim(-0.04, 1.04)
    panels[0].set_ylim(bottom, -0.6)
    return figure


def detection_scores(table: pd.DataFrame) -> Figure:
    """Draw how well each score tells planted faults from sound cases, the best first and in colour.

    Args:
        table: One row a score: `score`, its name; `auroc` (0 to 1, 0.5 is chance, or NaN) and the ends of its
            interval, `low` and `high`; `precision_at_k` and
            `recall_at_k` (0 to 1 or NaN), of the k cases that it ranks worst; `decoys_removed`, how many of these
            are rare but valid.
    """
    ranked = table.sort_values("auroc", ascending=False, kind="stable", na_position="last", ignore_index=True)
    best = ranked["auroc"] == ranked["auroc"].max()
    columns = {
        "AUROC": [_decimals(x) for x in ranked["auroc"]],
        "precision": [_decimals(x) for x in ranked["precision_at_k"]],
        "recall": [_decimals(x) for x in ranked["recall_at_k"]],
        "rare lost": ["–" if pd.isna(x) else f"{x:.0f}" for x in ranked["decoys_removed"]],
    }
    emphasis = {int(row): ACCENT for row in np.flatnonzero(best)}
    figure, axes = row_figure(
        short_labels(list(ranked["score"])), columns, pitch=0.34, align="right", emphasis=emphasis
    )
    rows = np.arange(len(ranked))
    axes.hlines(
        rows, ranked["low"], ranked["high"], color=np.where(best, ACCENT, NEUTRAL), linewidth=1.5, zorder=1
    )
    axes.scatter(
        ranked["auroc"],
        rows,
        s=np.where(best, 110, 52),
        color=np.where(best, ACCENT, NEUTRAL),
        zorder=3,
    )
    axes.axvline(0.5, color=MUTED, linewidth=1, zorder=2)
    axes.annotate(
        "chance",
        (0.5, 1),
        xytext=(0, 3),
        xycoords=axes.get_xaxis_transform(),
        textcoords="offset points",
        ha="center",
        fontsize=8.5,
        color=MUTED,
    )
    axes.set_xlim(min(0.45, ranked["low"].min() - 0.05), 1.02)
    axes.set_xlabel("AUROC of the planted faults")
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    tidy(axes)
    row_ticks(axes)
    return figure


def _with_truth(ranked: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Add `colour` and `note`, what is true of each case."""
    unknown = sorted(set(ranked["case_id"]) - set(truth["case_id"]))
    if unknown:
        raise ValueError(f"The truth of {', '.join(unknown)} is missing; pass the truth of every donor")
    known = truth.set_index("case_id").loc[ranked["case_id"]]
    faulty = known["fault"].notna()
    common = known["subtype"].value_counts().index[:1]
    rare = known["subtype"].notna() & ~known["subtype"].isin(common)
    faults = known["fault"].where(faulty, "")
    subtypes = ("rare: " + known["subtype"]).where(rare, "")
    notes = [" · ".join(filter(None, pair)).replace("_", " ") for pair in zip(faults, subtypes, strict=True)]
    return ranked.assign(colour=np.select([faulty, rare], [ALERT, ACCENT], NEUTRAL), note=notes)


def _rows_and_gaps(places: NDArray[np.int_], cases: int) -> tuple[NDArray[np.int_], dict[int, int]]:
    """Find the rows of the cases at these places of the ranking, and how many cases are left out at which row."""
    left_out = np.diff([-1, *places, cases]) - 1
    rows = np.arange(len(places)) + np.cumsum(left_out[:-1] > 0)
    after = np.flatnonzero(left_out)
    return rows, {int(rows[x - 1]) + 1 if x else 0: int(left_out[x]) for x in after}


def _headline(faulty: pd.Series) -> str:
    faults = int(faulty.sum())
    if not faults:
        return "No planted fault among the donors"
    found = int(faulty.iloc[:faults].sum())
    return f"{found} of {faults} planted fault{'s' * (faults != 1)} among the {faults} worst"


def _write_notes(axes: Axes, shown: pd.DataFrame, rows: NDArray[np.int_]) -> None:
    """Write what is true of a case beside its point, on the side where there is more room."""
    middle = (shown["score"].min() + shown["score"].max()) / 2
    noted = shown.assign(row=rows)[(shown["note"] != "") & shown["score"].notna()]
    for case in noted.itertuples():
        right = case.score <= middle
        axes.annotate(
            case.note,
            (case.score, case.row),
            xytext=(7 if right else -7, 0),
            textcoords="offset points",
            ha="left" if right else "right",
            va="center",
            fontsize=8,
            color=case.colour,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )


def _label_ranks(axes: Axes, shown: pd.DataFrame, rows: NDArray[np.int_], gaps: Mapping[int, int]) -> None:
    names = short_labels([str(x) for x in shown["case_id"]])
    labels = [f"{name}\u2002{rank}" for name, rank in zip(names, shown["rank"], strict=True)]
    axes.set_yticks([*rows, *gaps], [*labels, *(f"{n} other{'s' * (n != 1)}" for n in gaps.values())], fontsize=8)
    for tick in axes.get_yticklabels()[len(rows) :]:
        tick.set_color(MUTED)


def _decimals(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.2f}"
