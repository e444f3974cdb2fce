"""Pictures of cases: channels, labels, predictions and made-up variants, one axial slice each."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from idal_assets.anatomy import Legend
from idal_assets.imaging.case import Case
from idal_assets.plots.outlines import outline_points
from idal_assets.plots.style import INK, MUTED, NEUTRAL, PAGE_WIDTH, new_figure, short_labels, text_inches

Variant = tuple[NDArray[np.floating], NDArray[np.uint8]]
"""Image and label of shape (rows, columns)."""


LEGEND_PATCH = 0.4
"""Room in inches that the colour beside a name takes in a legend."""

LEGEND_ROW = 0.2
"""Height in inches of a row of a legend."""

WIDEST_PANEL = PAGE_WIDTH / 5
"""Width in inches of a channel."""


def largest_slice(label: NDArray[np.uint8], legend: Legend) -> int:
    """Find the axial slice (last axis) with most labelled voxels; the middle one where there are none.

    Args:
        label: Label values, shape (X, Y, Z).
        legend: Says which values are labels.
    """
    labelled = np.isin(label, list(legend.labels)).sum(axis=(0, 1))
    return int(labelled.argmax()) if labelled.any() else label.shape[2] // 2


def axial_slice(volume: NDArray[Any], z: int, affine: NDArray[np.float64]) -> NDArray[Any]:
    """Cut an axial slice and turn it as radiologists look at it: front up, the patient's right at the left.

    Args:
        volume: Voxels, shape (X, Y, Z).
        z: Index along the last axis.
        affine: Voxel to world transform in mm, shape (4, 4); it says which way X and Y run.

    Returns:
        The slice, shape (Y, X).
    """
    towards_x, towards_y, _ = nib.orientations.aff2axcodes(affine)
    picture = np.rot90(volume[:, :, z])
    if towards_x == "R":
        picture = picture[:, ::-1]
    if towards_y == "P":
        picture = picture[::-1]
    return picture


def largest_labelled_slice(case: Case, legend: Legend) -> "Variant":
    """First channel and label on the axial slice with most labelled voxels, as they are drawn."""
    label = case.require_label()
    place = largest_slice(label, legend)
    return axial_slice(case.image[0], place, case.affine), axial_slice(label, place, case.affine)


def robust_window(image: NDArray[Any]) -> tuple[float, float]:
    """Darkest and brightest intensity to show: percentiles 1 and 99.5 of what is not background.

    Background is zero; in a CT, where air is the least of all, it is that.
    """
    inside = image[(image != 0) & (image != image.min())]
    if not inside.size:
        return 0.0, 1.0
    low, high = np.percentile(inside, (1, 99.5))
    return float(low), float(max(high, low + 1e-6))


def draw_outlines(axes: Axes, label: NDArray[np.uint8], legend: Legend) -> None:
    """Draw the borders of the labels of a slice, so that the image below stays to be seen.

    Args:
        axes: Where the slice is drawn.
        label: Label values, shape (rows, columns).
        legend: Colours of the labels; voxels that nobody labelled are grey.
    """
    colours = dict(legend.colours) if legend.ignore is None else {**legend.colours, legend.ignore: NEUTRAL}
    for value in (*legend.labels, *(() if legend.ignore is None else (legend.ignore,))):
        for points in outline_points(label == value):
            axes.plot(*points.T, color=colours[value], linewidth=1.3, solid_joinstyle="round")


def case_overview(case: Case, legend: Legend) -> Figure:
    """Draw the channels, and the label where there is one, on the axial slice with most of it."""
    depth = case.image.shape[3]
    z = depth // 2 if case.label is None else largest_slice(case.label, legend)
    count = len(legend.channels) + (case.label is not None)
    width = min(max(count, 3) * WIDEST_PANEL, PAGE_WIDTH)
    height = 2.75 + (_legend_inches(legend, width) if case.label is not None else 0)
    figure = new_figure(width, height, f"{case.case_id} · slice {z + 1} of {depth}")
    panels = figure.subplots(1, count, squeeze=False)[0]
    aspect = case.spacing[1] / case.spacing[0]
    slices = [axial_slice(channel, z, case.affine) for channel in case.image]
    for axes, name, picture, channel in zip(panels, legend.channels, slices, case.image, strict=False):
        _draw_slice(axes, picture, robust_window(channel), name, aspect)
    if case.label is not None:
        window, title = robust_window(case.image[0]), f"{legend.channels[0]} + label"
        _draw_slice(panels[-1], slices[0], window, title, aspect)
        draw_outlines(panels[-1], axial_slice(case.label, z, case.affine), legend)
        _label_legend(figure, legend)
    return figure


def variants_figure(original: Variant, variants: Sequence[Variant], title: str, legend: Legend) -> Figure:
    """Draw a case beside the variants made from it, each with its label; arrays are drawn as they come."""
    columns = min(6, len(variants) + 1)
    rows = math.ceil((len(variants) + 1) / columns)
    panel = min(2.2, PAGE_WIDTH / columns)
    width = max(columns * panel, 5)
    figure = new_figure(width, rows * (panel + 0.25) + 0.75 + _legend_inches(legend, width), title)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    names = ["original", *(f"variant {i + 1}" for i in range(len(variants)))]
    window = robust_window(original[0])
    for axes in panels:
        axes.axis("off")
    for axes, name, (image, label) in zip(panels, names, [original, *variants], strict=False):
        _draw_slice(axes, image, window, name)
        draw_outlines(axes, label, legend)
    _label_legend(figure, legend)
    return figure


def patient_figure(
    title: str,
    image: NDArray[Any],
    segmentation: NDArray[np.uint8],
    doubt: NDArray[np.float32],
    donors: Mapping[str, Variant],
    legend: Legend,
) -> Figure:
    """Draw a patient, its segmentation and where networks differ, then the donors that suit with their labels.

    Args:
        title: What is said of the patient.
        image: A slice, drawn as it comes.
        segmentation: Label values of the slice.
        doubt: Share of the networks that say something else, 0 to 1, of the slice.
        donors: A slice and its label, by donor.
        legend: Names and colours of the labels.
    """
    count = 3 + len(donors)
    panel = min(WIDEST_PANEL, PAGE_WIDTH / max(count, 4))
    width = max(panel * count, 5)
    figure = new_figure(width, panel + 0.9 + _legend_inches(legend, width), title)
    panels = figure.subplots(1, count, squeeze=False)[0]
    window = robust_window(image)
    for axes, name in zip(panels, ("patient", "segmentation", "doubt"), strict=False):
        _draw_slice(axes, image, window, name)
    draw_outlines(panels[1], segmentation, legend)
    shown = np.ma.masked_less_equal(doubt, 0)
    panels[2].imshow(shown, cmap="inferno", vmin=0, vmax=1, alpha=0.75, interpolation="nearest")
    for axes, (name, (picture, label)) in zip(panels[3:], donors.items(), strict=True):
        _draw_slice(axes, picture, robust_window(picture), short_labels([name])[0])
        draw_outlines(axes, label, legend)
    _label_legend(figure, legend)
    return figure


def _draw_slice(
    axes: Axes, picture: NDArray[Any], window: tuple[float, float], title: str, aspect: float = 1.0
) -> None:
    low, high = window
    axes.imshow(picture, cmap="gray", vmin=low, vmax=high, aspect=aspect, interpolation="nearest")
    axes.set_title(title, fontsize=8.5, color=MUTED, pad=3, y=1.0)
    axes.axis("off")


def _label_legend(figure: Figure, legend: Legend) -> None:
    colours = _named_colours(legend)
    figure.legend(
        handles=[Patch(color=colour, label=name) for name, colour in colours.items()],
        loc="outside lower left",
        ncols=_legend_columns(legend, figure.get_figwidth()),
        fontsize=8.5,
        frameon=False,
        labelcolor=INK,
        handlelength=1,
        handleheight=1,
    )


def _named_colours(legend: Legend) -> dict[str, str]:
    colours = {name: legend.colours[value] for value, name in legend.labels.items()}
    return colours if legend.ignore is None else {**colours, "not labelled": NEUTRAL}


def _legend_columns(legend: Legend, width: float) -> int:
    """As many as fit side by side into a width in inches: all names, or columns as wide as the longest."""
    names = list(_named_colours(legend))
    if sum(text_inches([name]) + LEGEND_PATCH for name in names) <= width:
        return len(names)
    return max(1, int(width / (text_inches(names) + LEGEND_PATCH)))


def _legend_inches(legend: Legend, width: float) -> float:
    """Room that the rows of a legend after the first take."""
    return LEGEND_ROW * (math.ceil(len(_named_colours(legend)) / _legend_columns(legend, width)) - 1)
