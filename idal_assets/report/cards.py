"""The card of a case: what a person looks at to judge it, as a page of its own and as a part of the report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import escape

from idal_assets.plots.style import data_uri
from idal_assets.report.html import Cell, ReportTable


@dataclass(frozen=True)
class Layer:
    """What is drawn over a slice.

    Attributes:
        path: Outline, an SVG path in the pixels of the slice.
        colour: Colour of its line, `#rrggbb`.
        kind: `line`, `dashed` for a line to compare with, or `area` for a filled one.
    """

    path: str
    colour: str
    kind: str = "line"


@dataclass(frozen=True)
class Panel:
    """One slice with what somebody says of it.

    Attributes:
        title: Who says it.
        channel: Number of the channel below.
        layers: What is drawn over it.
    """

    title: str
    channel: int
    layers: Sequence[Layer]


@dataclass(frozen=True)
class CardSlice:
    """A slice of a case.

    Attributes:
        title: Which slice, and why this one.
        rows: Pixels from top to bottom.
        columns: Pixels from left to right.
        aspect: Height of a pixel over its width.
        channels: PNG files of the channels.
        panels: What is shown of it.
    """

    title: str
    rows: int
    columns: int
    aspect: float
    channels: Sequence[bytes]
    panels: Sequence[Panel]

    @property
    def height(self) -> float:
        """Height of a drawing in widths of a pixel."""
        return self.rows * self.aspect


@dataclass(frozen=True)
class Strip:
    """Where a case stands among the others.

    Attributes:
        name: What is measured.
        value: Of this case, in words.
        place: Of this case, 0 to 1 from the least to the most of all.
        others: Of all cases, likewise.
        rank: Its place in words.
    """

    name: str
    value: str
    place: float
    others: Sequence[float]
    rank: str


@dataclass(frozen=True)
class CaseCard:
    """All that is known of a case.

    Attributes:
        case_id: Its name.
        headline: What is most worth knowing, in a line.
        alarms: What speaks against it, one sentence each.
        facts: Names and values.
        legend: Names and colours of the labels.
        slices: What it looks like.
        strips: How its volumes compare with those of the cohort.
        tables: What networks say of it.
        commands: Command lines that open it elsewhere, by program.
    """

    case_id: str
    headline: str
    alarms: Sequence[str] = ()
    facts: Sequence[tuple[str, Cell]] = ()
    legend: Mapping[str, str] = field(default_factory=dict)
    slices: Sequence[CardSlice] = ()
    strips: Sequence[Strip] = ()
    tables: Sequence[ReportTable] = ()
    commands: Mapping[str, str] = field(default_factory=dict)

    @property
    def anchor(self) -> str:
        """Name of its place in a page; letters, digits and hyphens."""
        return "card-" + "".join(letter if letter.isalnum() else "-" for letter in self.case_id)


def strip(name: str, value: float, everyone: Sequence[float], unit: str) -> Strip:
    """Where a value stands among those of all cases.

    Args:
        name: What is measured.
        value: Of this case.
        everyone: Of all cases, this one among them.
        unit: Unit of the values.
    """
    low, high = min(everyone), max(everyone)
    span = high - low or 1.0
    below = sum(one < value for one in everyone)
    places = [round((one - low) / span, 3) for one in everyone]
    rank = f"{below} of {len(everyone)} cases have less"
    return Strip(name, f"{value:.3g} {unit}", round((value - low) / span, 3), places, rank)


SHEET_WIDTH = 220
"""Width of a case on a sheet of several, in pixels."""


def sheet(cards: Sequence[CaseCard]) -> bytes:
    """The first slices of some cases side by side, each with its label and with what speaks against it, as SVG.

    Args:
        cards: Their cards, each with a slice whose last panels are the label and the differences.
    """
    shown = [(card, card.slices[0]) for card in cards if card.slices]
    height = max((SHEET_WIDTH * one.height / one.columns for _, one in shown), default=0)
    parts = []
    for place, (card, one) in enumerate(shown):
        scale = SHEET_WIDTH / one.columns
        first = len(one.channels)
        for row, panel in enumerate((one.panels[first], one.panels[-1])):
            x, y = place * (SHEET_WIDTH + 8), 18 + row * (height + 8)
            layers = "".join(_drawn(layer) for layer in panel.layers)
            picture = data_uri(one.channels[panel.channel])
            parts.append(
                f'<g transform="translate({x} {y:.1f}) scale({scale:.3f})"><image width="{one.columns}" '
                f'height="{one.height}" preserveAspectRatio="none" href="{picture}"/>'
                f'<g transform="scale(1 {one.aspect})">{layers}</g></g>'
            )
        parts.append(f'<text x="{place * (SHEET_WIDTH + 8)}" y="13">{escape(card.case_id)}</text>')
    width, tall = max(1, len(shown)) * (SHEET_WIDTH + 8), 2 * height + 34
    size = f'width="{width}" height="{tall:.0f}" viewBox="0 0 {width} {tall:.0f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
    return f"{head}{''.join(parts)}</svg>".encode()


def _drawn(layer: Layer) -> str:
    area = f'fill="{layer.colour}" fill-opacity="0.55" fill-rule="evenodd"'
    filled = area if layer.kind == "area" else 'fill="none"'
    return (
        f'<path d="{layer.path}" {filled} stroke="{layer.colour}" stroke-width="1.5" '
        'vector-effect="non-scaling-stroke"/>'
    )
