import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgba
from matplotlib.legend import Legend
from matplotlib.text import Annotation

from idal_assets.plots import cost, detection, evidence, style

pytestmark = pytest.mark.unit


def effects_table(**changes) -> pd.DataFrame:
    columns = {
        "removal_set": ["worst_5", "worst_7", "worst_cluster"],
        "removed": [5, 7, 3],
        "mean_difference": [0.012, 0.048, -0.052],
        "low": [-0.003, 0.02, -0.08],
        "high": [0.027, 0.081, -0.02],
        "controls": [20, 20, 20],
        "holm_better_p": [0.2143, 0.0476, 1.0],
        "holm_worse_p": [0.8, 1.0, 0.0476],
        "smallest_p": [1 / 21] * 3,
        "gain": [False, True, False],
        "harm": [False, False, True],
    }
    return pd.DataFrame(columns | changes)


def controls_table(rows) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["control", "removed", "mean_difference"])


def subgroups_table(rows) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["removal_set", "kind", "subgroup", "cases", "mean_difference"])


def ranked(count: int, faults: dict[int, str] | None = None, rare: tuple[int, ...] = ()):
    """Donors whose scores rise with their rank, and what is true of them; faults and rare cases by rank."""
    ranks = np.arange(1, count + 1)
    ids = [f"case_{rank:03d}" for rank in ranks]
    scores = pd.DataFrame({"case_id": ids, "score": ranks / count - 0.5, "rank": ranks})
    truth = pd.DataFrame(
        {
            "case_id": ids,
            "fault": [(faults or {}).get(rank) for rank in ranks],
            "subtype": ["no_enhancing" if rank in rare else "ring_enhancing" for rank in ranks],
        }
    )
    return scores.sample(frac=1, random_state=0), truth


def tick_labels(axis) -> list[str]:
    return [x.get_text() for x in axis.get_ticklabels()]


def columns_of_text(axes) -> dict[str, list[str]]:
    """Texts at the right of the rows by heading, from the top."""
    headings = {x.xy[0]: x.get_text() for x in axes.texts if isinstance(x, Annotation)}
    written = [(*x.get_position(), x.get_text()) for x in axes.texts if not isinstance(x, Annotation)]
    return {headings[place]: [text for x, _, text in sorted(written) if x == place] for place in headings}


def points(axes) -> list[tuple[float, float, str]]:
    """Place and colour of every point that is drawn."""
    found = []
    for group in axes.collections:
        offsets, colours = np.ma.filled(group.get_offsets(), np.nan), group.get_facecolor()
        if len(offsets) and group.get_paths()[0].codes is not None:
            colours = np.resize(colours, (len(offsets), 4))
            found += [(x, y, to_hex(c)) for (x, y), c in zip(offsets, colours, strict=True) if np.isfinite(x)]
    return found


def fits_the_page(figure) -> bool:
    figure.draw_without_rendering()
    drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    return min(drawn.x0, drawn.y0) >= -0.02 and drawn.x1 <= width + 0.02 and drawn.y1 <= height + 0.02


def test_forest_colours_only_what_is_claimed():
    axes, beside = evidence.forest_plot(effects_table()).axes
    assert tick_labels(axes.yaxis) == ["worst_5 · 5 removed", "worst_7 · 7 removed", "worst_cluster · 3 removed"]
    lines, dots = axes.collections
    assert [x[:, 0].tolist() for x in lines.get_segments()] == [[-0.003, 0.027], [0.02, 0.081], [-0.08, -0.02]]
    assert dots.get_offsets().tolist() == [[0.012, 0], [0.048, 1], [-0.052, 2]]
    grey, better, worse = dots.get_facecolor()
    assert tuple(grey) == to_rgba(style.MUTED)
    # red is bad
    assert better[2] > better[0] + 0.3
    assert worse[0] > worse[2] + 0.3
    assert columns_of_text(beside) == {
        "change (interval)": [
            "+0.012 (−0.003 to +0.027)",
            "+0.048 (+0.020 to +0.081)",
            "−0.052 (−0.080 to −0.020)",
        ],
        "against random removal": ["better, p = 0.21", "better, p = 0.048 · gain", "worse, p = 0.048 · harm"],
    }
    assert axes.get_ylim() == beside.get_ylim() == (2.5, -0.5)
    assert axes.get_xlim()[0] == -axes.get_xlim()[1]
    assert axes.get_xlim()[1] > 0.081


def test_forest_says_where_random_removals_are_too_few():
    table = effects_table(
        controls=[3, 1, 0],
        holm_better_p=[0.25, 0.5, np.nan],
        holm_worse_p=[1.0, 1.0, np.nan],
        smallest_p=[0.25, 0.5, np.nan],
        gain=False,
        harm=False,
    )
    _, beside = evidence.forest_plot(table).axes
    assert columns_of_text(beside)["against random removal"] == [
        "3 random removals: cannot tell",
        "1 random removal: cannot tell",
        "no random removals: cannot tell",
    ]
    _, beside = evidence.forest_plot(table, significance=0.3).axes
    assert columns_of_text(beside)["against random removal"][0] == "better, p = 0.25"


def test_forest_says_what_is_not_defined():
    table = effects_table(
        mean_difference=[0.012, np.nan, -0.0001],
        low=[np.nan, np.nan, -0.001],
        holm_better_p=[0.0004, np.nan, 1.0],
        holm_worse_p=[1.0, np.nan, 1.0],
    )
    figure = evidence.forest_plot(table)
    texts = columns_of_text(figure.axes[1])
    assert texts["change (interval)"] == ["+0.012 (no interval)", "not defined", "+0.000 (−0.001 to −0.020)"]
    assert [x.split(" · ")[0] for x in texts["against random removal"]] == [
        "better, p < 0.001",
        "20 random removals: cannot tell",
        "better, p = 1.00",
    ]
    assert fits_the_page(figure)


def test_random_removals_stand_in_the_row_of_every_set_of_about_their_size():
    rows = [("r7", 7, 0.01), ("r8", 8, 0.06), ("r2", 2, 0.0), ("r40", 40, 0.02)]
    figure = evidence.control_distribution(controls_table(rows), effects_table())
    axes, beside = figure.axes
    *random, chosen = axes.collections
    assert chosen.get_offsets().tolist() == [[0.012, 0], [0.048, 1], [-0.052, 2]]
    drawn = sorted((round(y), x) for group in random for x, y in group.get_offsets())
    # 5 is held against 7 and 8, 7 against 7 and 8, 3 against 2; 40 against none
    assert drawn == [(0, 0.01), (0, 0.06), (1, 0.01), (1, 0.06), (2, 0.0)]
    assert min(chosen.get_sizes()) > 3 * max(random[0].get_sizes())
    assert columns_of_text(beside) == {"above random removals": ["1 of 2", "1 of 2", "0 of 1"]}
    legend = next(x for x in figure.get_children() if isinstance(x, Legend))
    assert [x.get_text() for x in legend.get_texts()] == ["chosen set", "random removal"]


def test_random_removals_that_are_alike_stay_apart_the_same_way_each_time():
    table = controls_table([(f"r{i}", 14, 0.01) for i in range(20)])
    heights = [
        evidence.control_distribution(table, effects_table()).axes[0].collections[1].get_offsets()[:, 1]
        for _ in range(2)
    ]
    np.testing.assert_array_equal(*heights)
    assert np.diff(np.sort(heights[0])).min() > 0.01
    assert np.abs(heights[0] - 1).max() <= 0.25


def test_random_removal_that_is_not_defined_is_counted_and_not_drawn():
    table = controls_table([("a", 5, np.nan), ("b", 5, 0.0)])
    axes, beside = evidence.control_distribution(table, effects_table()).axes
    assert len(axes.collections[0].get_offsets()) == 1
    assert columns_of_text(beside)["above random removals"][0] == "1 of 2 (1 undefined)"


def test_sets_without_any_random_removal_are_drawn_alone():
    figure = evidence.control_distribution(controls_table([]), effects_table().iloc[:1])
    axes, beside = figure.axes
    assert [[0.012, 0]] in [x.get_offsets().tolist() for x in axes.collections]
    assert columns_of_text(beside) == {"above random removals": ["none to compare"]}
    assert fits_the_page(figure)


def test_effects_of_cases_colour_only_what_is_told():
    table = pd.DataFrame(
        {
            "case_id": ["a", "b", "c", "d"],
            "effect": [-0.02, 0.001, 0.03, np.nan],
            "low": [-0.03, -0.01, 0.01, np.nan],
            "high": [-0.01, 0.012, 0.05, np.nan],
            "verdict": ["harms", "cannot be said", "helps", "cannot be said"],
        }
    )
    figure = evidence.case_effects(table)
    axes, beside = figure.axes
    assert tick_labels(axes.yaxis) == ["a", "b", "c", "d"]
    assert [colour for _, _, colour in points(axes)] == [evidence.WORSE, style.MUTED, evidence.BETTER]
    assert columns_of_text(beside)["with it minus without"][0] == "−0.020 (−0.030 to −0.010)"
    assert columns_of_text(beside)["with it minus without"][3] == "not defined"
    assert fits_the_page(figure)


def test_subgroups_are_rows_under_what_divides_them():
    table = subgroups_table(
        [
            ("worst_5", "size", "small", 12, 0.01),
            ("worst_5", "size", "large", 1, -0.04),
            ("worst_5", "scanner", "A", 13, np.nan),
            ("worst_7", "scanner", "A", 11, 0.02),
            ("worst_7", "size", "large", 1, 0.0),
        ]
    )
    size, scanner, bar = evidence.subgroup_changes(table).axes
    assert [size.get_title("left"), scanner.get_title("left")] == ["size", "scanner"]
    assert tick_labels(size.yaxis) == ["small · 12 cases", "large · 1 case"]
    assert tick_labels(scanner.yaxis) == ["A · 11–13 cases"]
    assert tick_labels(scanner.xaxis) == ["worst_5", "worst_7"]
    pictures = [axes.images[0] for axes in (size, scanner)]
    drawn = [x.get_array().filled(np.nan).tolist() for x in pictures]
    np.testing.assert_array_equal(drawn[0], [[0.01, np.nan], [-0.04, 0.0]])
    np.testing.assert_array_equal(drawn[1], [[np.nan, 0.02]])
    assert {x.get_clim() for x in pictures} == {(-style.SMALL_CHANGE, style.SMALL_CHANGE)}
    assert "change" in bar.get_ylabel()


def test_subgroups_without_any_value_are_hatched():
    figure = evidence.subgroup_changes(subgroups_table([("worst_5", "size", "small", 1, np.nan)]))
    assert figure.axes[0].patch.get_hatch()
    assert figure.axes[0].images[0].get_array().mask.all()
    assert fits_the_page(figure)


def test_ranking_marks_faults_and_rare_cases_by_colour_and_words():
    scores, truth = ranked(10, {1: "label_shifted", 4: "heavy_noise"}, rare=(2,))
    figure = detection.ranking_with_truth(scores, truth)
    (axes,) = figure.axes
    assert figure.get_suptitle() == "1 of 2 planted faults among the 2 worst"
    assert tick_labels(axes.yaxis)[:2] == ["case_001\u20021", "case_002\u20022"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    dots = axes.collections[0]
    np.testing.assert_allclose(dots.get_offsets()[:, 0], np.arange(1, 11) / 10 - 0.5)
    np.testing.assert_array_equal(dots.get_offsets()[:, 1], np.arange(10))
    colours = [to_hex(x) for x in dots.get_facecolor()]
    assert colours[:4] == [style.ALERT, style.ACCENT, style.NEUTRAL, style.ALERT]
    assert set(colours[4:]) == {style.NEUTRAL}
    notes = {x.xy[1]: x.get_text() for x in axes.texts}
    assert notes == {0: "label shifted", 1: "rare: no enhancing", 3: "heavy noise"}
    assert axes.lines[0].get_ydata()[0] == 1.5


def test_label_quality_stands_in_the_rows_of_the_ranking():
    scores, truth = ranked(4, {1: "heavy_noise"})
    scores["label_quality"] = 1 - scores["rank"] / 10
    scores.loc[scores["rank"] == 3, "label_quality"] = np.nan
    left, right = detection.ranking_with_truth(scores, truth).axes
    assert [(round(x, 3), y) for x, y, _ in points(right)] == [(0.9, 0), (0.8, 1), (0.6, 3)]
    assert left.get_ylim() == right.get_ylim()


def test_large_ranking_counts_the_cases_that_it_leaves_out():
    scores, truth = ranked(100, {2: "heavy_noise", 60: "label_shifted"}, rare=(61, 100))
    (axes,) = detection.ranking_with_truth(scores, truth).axes
    places = dict(zip(tick_labels(axes.yaxis), axes.get_yticks(), strict=True))
    assert [places[f"case_{rank:03d}\u2002{rank}"] for rank in (1, 30, 60, 61, 100)] == [0, 29, 31, 32, 34]
    assert (places["29 others"], places["38 others"]) == (30, 33)
    assert len(places) == 35
    scores, truth = ranked(31)
    (axes,) = detection.ranking_with_truth(scores, truth).axes
    assert tick_labels(axes.yaxis)[-1] == "1 other"


def test_ranking_with_more_faults_than_rows_puts_its_line_where_the_rank_is():
    scores, truth = ranked(100, dict.fromkeys(range(61, 96), "heavy_noise"))
    figure = detection.ranking_with_truth(scores, truth)
    (axes,) = figure.axes
    assert figure.get_suptitle() == "0 of 35 planted faults among the 35 worst"
    places = dict(zip(tick_labels(axes.yaxis), axes.get_yticks(), strict=True))
    assert places["case_030\u200230"] < axes.lines[0].get_ydata()[0] < places["case_061\u200261"]


@pytest.mark.parametrize("subtype", ["ring_enhancing", None])
def test_ranking_of_one_sound_case(subtype):
    scores, truth = ranked(1)
    figure = detection.ranking_with_truth(scores, truth.assign(subtype=subtype))
    assert figure.get_suptitle() == "No planted fault among the donors"
    assert not figure.axes[0].texts
    assert fits_the_page(figure)


def test_ranking_without_the_truth_of_a_donor_is_refused():
    scores, truth = ranked(3)
    with pytest.raises(ValueError, match="case_002"):
        detection.ranking_with_truth(scores, truth[truth["case_id"] != "case_002"])


def test_best_detector_is_first_and_emphasised():
    table = pd.DataFrame(
        {
            "score": ["donor mean", "unknown", "label quality", "coin"],
            "auroc": [0.91, np.nan, 0.99, 0.4],
            "low": [0.8, np.nan, 0.97, 0.2],
            "high": [0.95, np.nan, 1.0, 0.6],
            "precision_at_k": [0.5, np.nan, 0.75, 0.0],
            "recall_at_k": [0.25, np.nan, 1.0, 0.0],
            "decoys_removed": [3, np.nan, 0, 1],
        }
    )
    axes, beside = detection.detection_scores(table).axes
    assert tick_labels(axes.yaxis) == ["label quality", "donor mean", "coin", "unknown"]
    assert points(axes) == [
        (0.99, 0, style.ACCENT),
        (0.91, 1, style.NEUTRAL),
        (0.4, 2, style.NEUTRAL),
    ]
    assert axes.get_xlim()[0] < 0.4
    bold = {x.get_position()[1] for x in beside.texts if x.get_fontweight() == "bold"}
    assert bold == {0}
    assert columns_of_text(beside) == {
        "AUROC": ["0.99", "0.91", "0.40", "–"],
        "precision": ["0.75", "0.50", "0.00", "–"],
        "recall": ["1.00", "0.25", "0.00", "–"],
        "rare lost": ["0", "3", "1", "–"],
    }


def test_detectors_without_any_auroc_are_listed_without_a_winner():
    table = pd.DataFrame(
        {"score": ["a"], "auroc": [np.nan], "low": [np.nan], "high": [np.nan]}
        | {"precision_at_k": [0.5], "recall_at_k": [0.5], "decoys_removed": [0]}
    )
    figure = detection.detection_scores(table)
    assert not points(figure.axes[0])
    assert not [x for x in figure.axes[1].texts if x.get_fontweight() == "bold"]
    assert fits_the_page(figure)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "< 0.1 s"),
        (0.94, "0.9 s"),
        (12.3, "12 s"),
        (59.4, "59 s"),
        (59.7, "1.0 min"),
        (90, "1.5 min"),
        (3599.7, "1.0 h"),
        (7200, "2.0 h"),
        (360000, "100 h"),
        (np.nan, "–"),
    ],
)
def test_times_are_written_as_people_say_them(seconds, words):
    assert cost.human_time(seconds) == words


def test_costs_start_with_the_longest():
    table = pd.DataFrame(
        {
            "asset": ["cohort", "case_model", "report"],
            "partitions": [1, 20, 1],
            "seconds": [2.0, 200.0, np.nan],
            "cpu_seconds": [1.0, 390.0, np.nan],
        }
    )
    axes, beside = cost.cost_by_asset(table).axes
    assert tick_labels(axes.yaxis) == ["case_model × 20", "cohort", "report"]
    assert [x.get_width() for x in axes.patches][:2] == [200, 2]
    assert axes.get_xlim()[0] == 0
    assert columns_of_text(beside) == {
        "time": ["3.3 min", "2.0 s", "–"],
        "each": ["10 s", "2.0 s", "–"],
        "CPU time": ["6.5 min", "1.0 s", "–"],
    }
    assert axes.get_title("left") == "3.4 min of work"


def test_convergence_writes_correlation_and_time_at_each_share():
    table = pd.DataFrame({"share": [1.0, 0.25, 0.5], "correlation": [1.0, 0.1, np.nan], "seconds": [190, 52, 98]})
    axes = cost.convergence(table).axes[0]
    line = axes.lines[1]
    assert list(line.get_xdata()) == [0.25, 0.5, 1]
    np.testing.assert_array_equal(line.get_ydata(), [0.1, np.nan, 1])
    assert {x.xy: x.get_text() for x in axes.texts} == {(0.25, 0.1): "0.10\n52 s", (1.0, 1.0): "1.00\n3.2 min"}
    axes.figure.draw_without_rendering()
    assert tick_labels(axes.xaxis) == ["25 %", "50 %", "100 %"]
    assert axes.get_ylim()[0] == 0


def test_convergence_shows_a_negative_correlation():
    table = pd.DataFrame({"share": [0.5, 1.0], "correlation": [-0.3, 1.0], "seconds": [np.nan, 1.0]})
    axes = cost.convergence(table).axes[0]
    assert axes.get_ylim()[0] < -0.3


@pytest.mark.parametrize("sets", [1, 8])
def test_rows_of_any_number_fit_the_page(sets):
    names = [f"worst_{size}" for size in range(sets)]
    table = pd.concat([effects_table().iloc[[0]]] * sets).assign(removal_set=names)
    assert fits_the_page(evidence.forest_plot(table))
    rows = [(name, "kind", f"subgroup {i}", 3, 0.01 * i) for name in names for i in range(4)]
    assert fits_the_page(evidence.subgroup_changes(subgroups_table(rows)))
