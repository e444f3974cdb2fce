import io
import subprocess
import sys
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from PIL import Image
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import pdist

from idal_assets.anatomy import Anatomy
from idal_assets.imaging.brain_tumour import BRAIN_TUMOUR, ENHANCING, NON_ENHANCING, OEDEMA
from idal_assets.imaging.case import Case
from idal_assets.plots import cases, curves, reduction, similarity, style
from idal_assets_tests.small_models import ANATOMIES, as_other

pytestmark = pytest.mark.unit


def make_case(label_slice: int | None = 3) -> Case:
    image = np.random.default_rng(0).uniform(1, 100, (4, 10, 12, 6)).astype(np.float32)
    label = np.zeros((10, 12, 6), np.uint8)
    if label_slice is not None:
        label[2:5, 3:6, label_slice] = OEDEMA
        label[3, 4, label_slice - 1] = ENHANCING
    return Case("TCGA-02-0006", image, label, np.diag([-1.0, -1.0, 1.0, 1.0]), (1.0, 2.0, 5.0))


def dice_matrix(n: int) -> pd.DataFrame:
    ids = [f"case_{i:03d}" for i in range(n)]
    return pd.DataFrame(np.random.default_rng(n).uniform(0, 1, (n, n)), ids, ids)


def tick_labels(axis) -> list[str]:
    return [x.get_text() for x in axis.get_ticklabels()]


def matrix_axes(figure):
    return next(x for x in figure.axes if x.images)


def as_a_deuteranope_sees(colour):
    """Machado et al. 2009, without any green cone."""
    seen = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])
    return np.clip(seen @ to_rgba(colour)[:3], 0, 1)


def test_labels_of_a_tumour_stay_apart_for_colour_blind_readers():
    colours = [as_a_deuteranope_sees(BRAIN_TUMOUR.colours[value]) for value in (OEDEMA, NON_ENHANCING, ENHANCING)]
    distances = [np.abs(one - other).max() for one, other in combinations(colours, 2)]
    assert min(distances) > 0.3


def test_marks_can_be_seen_on_white():
    for colour in (style.ACCENT, style.ALERT, style.NEUTRAL, style.MUTED):
        channels = np.array(to_rgba(colour)[:3])
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        assert 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05) >= 3, colour


def test_slice_with_most_labels_and_the_middle_without_any():
    assert cases.largest_slice(make_case(3).label, BRAIN_TUMOUR) == 3
    assert cases.largest_slice(make_case(None).label, BRAIN_TUMOUR) == 3
    assert cases.largest_slice(make_case(5).label, BRAIN_TUMOUR) == 5


@pytest.mark.parametrize("signs", [(1, 1), (-1, 1), (1, -1), (-1, -1)])
def test_slices_show_the_front_on_top_and_the_patients_right_at_the_left(signs):
    volume = np.zeros((4, 6, 1))
    x, y = (0 if sign < 0 else -1 for sign in signs)
    volume[x, y, 0] = 1  # the voxel furthest to the patient's right and front
    picture = cases.axial_slice(volume, 0, np.diag([*signs, 1.0, 1.0]))
    assert picture.shape == (6, 4)
    assert picture[0, 0] == 1


def test_window_ignores_background_and_outliers():
    image = np.concatenate([np.zeros(500), np.linspace(100, 200, 1000), [1e6]])
    low, high = cases.robust_window(image)
    assert 100 <= low < 105
    assert 195 < high <= 200
    assert cases.robust_window(np.zeros((3, 3))) == (0.0, 1.0)


def test_case_overview_draws_channels_then_the_label():
    case = make_case()
    figure = cases.case_overview(case, BRAIN_TUMOUR)
    assert [x.get_title() for x in figure.axes] == ["FLAIR", "T1w", "T1gd", "T2w", "FLAIR + label"]
    assert "TCGA-02-0006" in figure.get_suptitle()
    for axes, channel in zip(figure.axes, case.image, strict=False):
        np.testing.assert_array_equal(axes.images[0].get_array(), cases.axial_slice(channel, 3, case.affine))
    # the outline of the label, closed, and the image below it stays to be seen
    (line,) = figure.axes[4].lines
    assert line.get_color() == BRAIN_TUMOUR.colours[OEDEMA]
    assert tuple(line.get_xydata()[0]) == tuple(line.get_xydata()[-1])
    assert np.ptp(line.get_xydata(), axis=0).tolist() == [3, 3]


@pytest.mark.parametrize("kind", ["two labels", "CT", "regions, ignored"])
def test_case_overview_has_a_panel_for_each_channel_and_a_legend_of_the_labels(kind):
    case, anatomy = as_other(make_case(), kind), ANATOMIES[kind]
    figure = cases.case_overview(case, anatomy)
    assert [x.get_title() for x in figure.axes] == [*anatomy.channels, f"{anatomy.channels[0]} + label"]
    (legend,) = figure.legends
    unlabelled = ["not labelled"] if anatomy.ignore else []
    assert [x.get_text() for x in legend.get_texts()] == [*anatomy.labels.values(), *unlabelled]
    style.png_bytes(figure)


@pytest.mark.parametrize("kind", ["two labels", "regions, ignored"])
def test_case_overview_without_a_label_shows_the_channels_alone(kind):
    case, anatomy = replace(as_other(make_case(), kind), label=None), ANATOMIES[kind]
    figure = cases.case_overview(case, anatomy)
    assert [x.get_title() for x in figure.axes] == list(anatomy.channels)
    assert all(len(x.images) == 1 for x in figure.axes)
    assert not figure.legends
    assert "slice 4 of 6" in figure.get_suptitle()


def test_what_nobody_labelled_is_grey_and_does_not_choose_the_slice():
    anatomy = ANATOMIES["ignored"]
    label = make_case(2).label
    label[..., 5] = anatomy.ignore
    assert cases.largest_slice(label, anatomy) == 2
    axes = style.new_figure(1, 1).subplots()
    cases.draw_outlines(axes, label[..., 5], anatomy)
    assert {line.get_color() for line in axes.lines} == {style.NEUTRAL}


def test_window_ignores_the_air_of_a_ct():
    image = np.concatenate([np.full(5000, -1000.0), np.linspace(-50, 150, 1000)])
    low, high = cases.robust_window(image)
    assert -50 <= low < -45
    assert 145 < high <= 150


def test_a_legend_of_many_labels_takes_rows_of_its_own():
    names = {value: f"a long name of organ {value}" for value in range(1, 14)}
    anatomy = Anatomy.of(("CT",), names)
    tall = cases.case_overview(as_other(make_case(), "CT"), anatomy).get_figheight()
    assert tall > cases.case_overview(as_other(make_case(), "CT"), ANATOMIES["CT"]).get_figheight() + 0.5


def test_variants_follow_the_original_in_one_window():
    label = np.zeros((5, 5), np.uint8)
    images = [np.arange(25.0).reshape(5, 5) * scale for scale in (1, 2, 3)]
    figure = cases.variants_figure((images[0], label), [(x, label) for x in images[1:]], "title", BRAIN_TUMOUR)
    assert [x.get_title() for x in figure.axes] == ["original", "variant 1", "variant 2"]
    for axes, image in zip(figure.axes, images, strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), image)
        assert axes.images[0].get_clim() == figure.axes[0].images[0].get_clim()


def test_curves_skip_what_was_not_measured():
    history = pd.DataFrame(
        {
            "iteration": range(100),
            "loss": np.r_[np.nan, np.linspace(1, 0, 99)],
            "pseudo_dice_WT": [0.5 if i % 10 == 0 else np.nan for i in range(100)],
            "pseudo_dice_ET": np.nan,
        }
    )
    left, right = curves.training_curves(history).axes
    raw, smooth = left.lines
    assert len(raw.get_xdata()) == 99
    assert np.abs(np.diff(smooth.get_ydata(), 2)).max() < 0.01
    assert [x.get_label() for x in right.lines] == ["WT"]
    assert list(right.lines[0].get_xdata()) == list(range(0, 100, 10))


def test_a_curve_of_few_values_is_one_line_over_whole_iterations():
    history = pd.DataFrame({"iteration": range(1, 6), "loss": 1.0, "pseudo_dice_WT": [np.nan] * 4 + [0.5]})
    figure = curves.training_curves(history)
    figure.draw_without_rendering()
    left, right = figure.axes
    assert len(left.lines) == 1
    for axes in (left, right):
        shown = [tick for tick in axes.get_xticks() if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]
        assert shown
        assert all(tick == int(tick) for tick in shown)


def test_smoothed_loss_is_quieter_and_unshifted():
    noise = np.random.default_rng(0).normal(size=1000)
    history = pd.DataFrame({"iteration": range(1000), "loss": 5 + noise})
    left, right = curves.training_curves(history).axes
    smooth = left.lines[1].get_ydata()
    assert smooth.std() < noise.std() / 4
    assert smooth.mean() == pytest.approx(left.lines[0].get_ydata().mean(), abs=0.05)
    assert [x.get_text() for x in right.texts] == ["none measured"]


def compared_histories() -> dict[str, pd.DataFrame]:
    """Two trainings of different length, each with two labels that are measured every tenth iteration."""
    histories = {}
    for name, length in (("2d_ce", 100), ("3d_dice_ce", 40)):
        measured = [(i + 1) % 10 == 0 for i in range(length)]
        histories[name] = pd.DataFrame(
            {
                "iteration": range(1, length + 1),
                "loss": np.linspace(1, 0, length),
                "pseudo_dice_oedema": np.where(measured, 0.4, np.nan),
                "pseudo_dice_enhancing": np.where(measured, 0.8, np.nan),
            }
        )
    return histories


def test_compared_losses_are_one_colour_a_candidate():
    (axes,) = curves.compared_losses(compared_histories()).axes
    raw, smooth, other_raw, other_smooth = axes.lines
    assert [smooth.get_label(), other_smooth.get_label()] == ["2d_ce", "3d_dice_ce"]
    assert raw.get_color() == smooth.get_color() != other_raw.get_color() == other_smooth.get_color()
    assert [len(line.get_xdata()) for line in axes.lines] == [100, 100, 40, 40]


def test_compared_metrics_end_in_the_true_dice():
    figure = curves.compared_metrics(compared_histories(), {"2d_ce": 0.5, "3d_dice_ce": 0.7})
    (axes,) = figure.axes
    curve, true, _, other_curve, other_true, _ = axes.lines[:6]
    assert list(curve.get_xdata()) == list(range(10, 101, 10))
    assert curve.get_ydata() == pytest.approx(np.full(10, 0.6))
    assert list(other_curve.get_xdata()) == [10, 20, 30, 40]
    assert [*true.get_xdata(), *true.get_ydata()] == [100, 0.5]
    assert [*other_true.get_xdata(), *other_true.get_ydata()] == [40, 0.7]
    assert [text.get_text() for text in figure.legends[0].get_texts()][:2] == [
        "2d_ce: true 0.500",
        "3d_dice_ce: true 0.700",
    ]


def test_heat_map_has_donors_as_rows_and_a_scale_from_0_to_1():
    matrix = dice_matrix(6).iloc[:4]
    matrix.iloc[1, 2] = np.nan
    axes = matrix_axes(similarity.heat_map(matrix))
    drawn = axes.images[0].get_array()
    np.testing.assert_array_equal(drawn.filled(np.nan), matrix)
    assert axes.images[0].get_clim() == (0, 1)
    assert "donor" in axes.get_ylabel()
    assert "receiver" in axes.get_xlabel()
    assert tick_labels(axes.yaxis) == list(matrix.index)
    assert tick_labels(axes.xaxis) == list(matrix.columns)
    assert len(axes.texts) == 23
    assert axes.patch.get_hatch()
    assert axes.images[0].to_rgba(drawn)[1, 2, 3] == 0  # the hatch shows through


def test_deeper_blue_is_more_similar():
    colours = style.DICE_COLOURS(np.linspace(0, 1, 20))
    luminance = colours[:, :3] @ [0.299, 0.587, 0.114]
    assert (np.diff(luminance) < 0).all()
    assert colours[-1, 2] > 2 * colours[-1, 0]


@pytest.mark.parametrize("count", [40, 41, 100])
def test_ticks_are_thinned_where_there_are_too_many(count):
    axes = matrix_axes(similarity.heat_map(dice_matrix(count)))
    shown = tick_labels(axes.xaxis)
    assert 20 <= len(shown) <= 40
    assert all(label == f"case_{int(x):03d}" for x, label in zip(axes.get_xticks(), shown, strict=True))


def test_matrix_below_the_dendrogram_follows_its_leaves():
    matrix = dice_matrix(12)
    tree = linkage(pdist(matrix), "average", optimal_ordering=True)
    figure = similarity.dendrogram_figure(tree, matrix, 0.8125)
    axes = matrix_axes(figure)
    order = leaves_list(tree)
    assert list(order) != list(range(12))
    np.testing.assert_array_equal(axes.images[0].get_array(), matrix.iloc[order, order])
    assert tick_labels(axes.xaxis) == tick_labels(axes.yaxis) == list(matrix.index[order])
    assert any("0.812" in axes.get_title("left") for axes in figure.axes)


def test_accused_donors_are_named_and_marked_among_a_hundred():
    matrix = dice_matrix(100)
    tree = linkage(pdist(matrix), "average")
    donors = list(matrix.index)
    clusters = dict.fromkeys(donors, 1) | dict.fromkeys(donors[:5], 2)
    figure = similarity.dendrogram_figure(tree, matrix, 0.5, similarity.Marks(clusters, donors[:2], donors[1:4]))
    below = next(axes for axes in figure.axes if axes.get_ylabel() == similarity.DONOR)
    named = [text.get_text() for text in below.texts]
    assert sorted(set(named)) == donors[:4]
    assert len(named) == 8
    strips = next(axes for axes in figure.axes if len(axes.get_yticklabels()) == 3 and axes.images)
    red = np.array(to_rgba(style.ALERT)[:3])
    is_red = np.isclose(np.asarray(strips.images[0].get_array(), float), red, atol=0.01).all(axis=-1)
    assert is_red.sum(axis=1).tolist() == [0, 2, 3]
    order = leaves_list(tree)
    assert {donors[order[place]] for place in np.flatnonzero(is_red[2])} == set(donors[1:4])


def test_names_side_by_side_are_moved_apart_within_their_line():
    placed = similarity.apart([3, 4, 97, 98, 99], 2.0, 100)
    assert placed == [3, 5, 95, 97, 99]


def test_leaves_stand_above_their_columns():
    matrix = dice_matrix(9)
    tree = linkage(pdist(matrix), "average")
    figure = similarity.dendrogram_figure(tree, matrix, 0.5)
    figure.draw_without_rendering()
    above = next(x for x in figure.axes if x.collections and not x.images and x.get_ylabel() == "distance")
    points = np.concatenate(above.collections[0].get_segments())
    assert sorted(set(points[points[:, 1] == 0, 0])) == list(range(9))
    below = matrix_axes(figure)
    assert above.get_xlim() == below.get_xlim()
    assert above.get_position().x0 == pytest.approx(below.get_position().x0)
    assert above.get_position().x1 == pytest.approx(below.get_position().x1)


def ranking(n: int) -> pd.DataFrame:
    rng = np.random.default_rng(n)
    means = pd.DataFrame({"donor_mean": rng.uniform(size=n), "receiver_mean": rng.uniform(size=n)})
    means["case_id"] = [f"case_{i:03d}" for i in range(n)]
    means["score"] = means["donor_mean"] + means["receiver_mean"]
    means["rank"] = means["score"].rank().astype(int)
    return means


def test_ranking_starts_with_the_worst_and_marks_it():
    scores = ranking(10)
    worst = set(scores.loc[scores["rank"] <= 2, "case_id"])
    left, right = similarity.ranking_figure(scores, worst).axes
    bottom, top = right.get_ylim()
    assert bottom > top  # row 0 is drawn at the top
    assert [float(x.get_width()) for x in right.patches] == sorted(scores["score"])
    red = [x.get_facecolor()[0] > x.get_facecolor()[2] for x in right.patches]
    assert red == [True, True] + [False] * 8
    assert [x.get_text() for x in left.texts] == ["1", "2"]
    first = scores.set_index("rank").loc[1]
    assert left.texts[0].xy == (first["donor_mean"], first["receiver_mean"])


def test_large_ranking_keeps_a_marked_case_of_any_rank():
    scores = ranking(100)
    late = scores.loc[scores["rank"] == 90, "case_id"].item()
    _, right = similarity.ranking_figure(scores, {late}).axes
    labels = tick_labels(right.yaxis)
    assert len(labels) == 31
    assert labels[-1] == f"{late}\u200290"


def test_dice_by_set_keeps_the_reference_first_and_sorts_by_it():
    evaluation = pd.DataFrame(
        [("full", "a", 0.9), ("full", "b", 0.3), ("all but 5", "a", 0.8), ("all but 5", "b", 0.5)],
        columns=["removal_set", "case_id", "dice"],
    )
    axes = reduction.dice_by_set(evaluation).axes[0]
    assert tick_labels(axes.xaxis) == ["b", "a"]
    assert axes.lines[0].get_label() == "full"
    assert list(axes.lines[0].get_ydata()) == [0.3, 0.9]
    points = next(x for x in axes.collections if x.get_label() == "all but 5")
    assert points.get_offsets().tolist() == [[0, 0.5], [1, 0.8]]


def test_difference_is_red_for_better_blue_for_worse_and_white_for_the_same():
    differences = pd.DataFrame([[0.2, -0.05, 0.0, np.nan]], index=["worst 5"], columns=list("abcd"))
    picture = matrix_axes(reduction.difference_map(differences)).images[0]
    assert picture.norm.vmin == -picture.norm.vmax == -0.2
    better, worse, same, missing = picture.to_rgba(picture.get_array())[0]
    assert better[0] > better[2] + 0.3
    assert worse[2] > worse[0] + 0.1
    assert same[:3].min() > 0.99
    assert missing[3] == 0


def test_difference_map_without_any_change_is_white():
    picture = matrix_axes(reduction.difference_map(pd.DataFrame(np.zeros((2, 3))))).images[0]
    assert picture.to_rgba(picture.get_array())[..., :3].min() > 0.99


def test_a_small_change_does_not_look_like_a_large_one():
    picture = matrix_axes(reduction.difference_map(pd.DataFrame([[-0.01, 0.0]]))).images[0]
    # a fifth of the scale is still pale
    assert picture.to_rgba(picture.get_array())[..., :3].min() > 0.75


def test_the_axis_of_dice_uses_its_range_and_a_legend_reads_row_by_row():
    sets = [f"set {number}" for number in range(6)]
    rows = [(name, case, 0.62 + 0.01 * number) for number, name in enumerate(sets) for case in "ab"]
    figure = reduction.dice_by_set(pd.DataFrame(rows, columns=["removal_set", "case_id", "dice"]))
    low, high = figure.axes[0].get_ylim()
    assert (low, high) == pytest.approx((0.6, 0.7))
    written = [text.get_text() for text in figure.legends[0].get_texts()]
    # four columns that are filled one after the other
    assert [written[place] for place in (0, 2, 4, 5, 1, 3)] == sets


def test_median_change_has_zero_in_the_middle():
    table = pd.DataFrame(
        {
            "removal_set": ["worst 5", "worst 7"],
            "cases_left": [95, 93],
            "median_dice": [0.81, 0.86],
            "difference_of_medians": [-0.007212, 0.048353],
            "median_of_differences": [0.001, 0.02],
        }
    )
    axes = reduction.median_change(table).axes[0]
    low, high = axes.get_xlim()
    assert low == -high
    assert high > 0.048353
    assert tick_labels(axes.yaxis) == ["worst 5 · 95 cases left", "worst 7 · 93 cases left"]
    points = {x.get_label(): x.get_offsets().tolist() for x in axes.collections}
    # one above the other, so that equal values are both seen
    assert points["difference of the medians"] == [[-0.007212, -reduction.APART], [0.048353, 1 - reduction.APART]]
    assert points["median of the differences"] == [[0.001, reduction.APART], [0.02, 1 + reduction.APART]]


def test_long_labels_are_cut_only_while_they_stay_apart():
    long = ["BraTS19_TCIA_" + "x" * 20 + str(i) for i in range(3)]
    short = style.short_labels([*long, "brief"])
    assert max(map(len, short)) == style.LABEL_CHARACTERS
    assert len(set(short)) == 4
    assert short[-1] == "brief"
    twins = ["site-" + "a" * 20 + x + "b" * 20 for x in "12"]
    assert style.short_labels(twins) == twins


def test_png_has_the_size_asked_for_and_true_colours():
    figure = style.new_figure(3, 2)
    figure.patch.set_facecolor(BRAIN_TUMOUR.colours[ENHANCING])
    picture = Image.open(io.BytesIO(style.png_bytes(figure, dpi=50)))
    assert picture.format == "PNG"
    assert picture.size == (150, 100)
    drawn = np.array(picture.convert("RGB").getpixel((75, 50)))
    assert np.abs(drawn - 255 * np.array(to_rgba(BRAIN_TUMOUR.colours[ENHANCING])[:3])).max() <= 3


def test_labels_of_a_large_figure_stay_inside_it():
    ids = [f"TCGA-GBM-{i:04d}_1996.08.23_pre" for i in range(28)]
    matrix = dice_matrix(28).set_axis(ids, axis=0).set_axis(ids, axis=1)
    figure = similarity.heat_map(matrix)
    figure.draw_without_rendering()
    drawn, page = figure.get_tightbbox(), figure.get_size_inches()
    assert drawn.x0 >= 0
    assert drawn.y0 >= 0
    assert drawn.x1 <= page[0]
    assert drawn.y1 <= page[1]


def test_plots_and_report_need_neither_pyplot_nor_dagster_nor_torch():
    code = (
        "import sys; from idal_assets.plots import cases, cost, curves, detection, evidence;"
        "from idal_assets.plots import reduction, similarity;"
        "from idal_assets.report import html;"
        "print(sorted({'matplotlib.pyplot', 'dagster', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
