"""The phantom of a brain tumour: anatomy, the four contrasts of BraTS, subtypes, two scanners and the sites.

Lengths are in half sizes of the image, see `phantom_parts`.
"""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from idal_assets.imaging import phantom_faults
from idal_assets.imaging.brain_tumour import CHANNELS, ENHANCING, LABELS, NON_ENHANCING, OEDEMA
from idal_assets.imaging.phantom_parts import (
    Image,
    Label,
    PhantomKind,
    radius,
    smooth_noise,
    warped_points,
)
from idal_assets.imaging.phantom_sites import Convention, Site, drawn_by, grained
from idal_assets.seeds import stream
from idal_assets.settings import PhantomSettings

RING_ENHANCING, NO_ENHANCING, INVERTED_LESIONS = "ring_enhancing", "no_enhancing", "inverted_lesions"
"""Subtypes: the usual one, the rare one, and the unknown one of several lesions, bright where tumours are dark."""


@dataclass(frozen=True)
class Scanner:
    """How a scanner renders the contrasts.

    Attributes:
        gain: Intensity per channel that a signal of 1 gets.
        gamma: Exponent of the signal; below 1 it flattens the contrast.
        noise: Standard deviation of the noise in each part of the complex signal.
        bias: Standard deviation of the logarithm of the bias field.
        blur: Standard deviation of the blur in voxels within the axial plane.
    """

    gain: tuple[float, float, float, float]
    gamma: float
    noise: float
    bias: float
    blur: float


SCANNERS = {
    "A": Scanner(gain=(700, 800, 900, 600), gamma=1.0, noise=0.07, bias=0.08, blur=0.5),
    "B": Scanner(gain=(420, 1500, 1300, 1100), gamma=0.8, noise=0.10, bias=0.15, blur=0.75),
}

SITES = {
    "core_alone": Site(
        gamma=(1.0, 1.0, 1.25, 1.0),
        blur=0.0,
        grain=0.0,
        conventions=(Convention((OEDEMA,), (0,), becomes=0, share=0.8),),
    ),
    "oedema_enhancing": Site(
        gamma=(1.25, 0.8, 1.0, 1.0),
        blur=0.15,
        grain=0.6,
        conventions=(Convention((OEDEMA,), (ENHANCING,), becomes=ENHANCING, share=0.8),),
    ),
    "necrosis_enhancing": Site(
        gamma=(0.8, 1.0, 0.9, 1.25),
        blur=0.3,
        grain=1.0,
        conventions=(
            Convention((NON_ENHANCING,), (ENHANCING,), becomes=ENHANCING, share=0.8),
            Convention((ENHANCING,), (OEDEMA,), becomes=OEDEMA, share=0.6),
        ),
    ),
    "usual": Site(gamma=(1.0, 1.25, 1.0, 0.8), blur=0.45, grain=1.5),
}
"""Sites by name, in the order in which a phantom takes them; the last one has but a look of its own."""

OUTSIDE, CSF, GREY, WHITE, LESION, VESSEL, TUMOUR_OEDEMA, NECROSIS, SOLID, RIM = range(10)
"""Tissues; `LESION` is a harmless bright spot of ageing white matter, `SOLID` a core that is not necrotic."""

SIGNAL = np.array(
    # FLAIR, T1w, T1gd, T2w; the outside blurs into the brain's edge like the fluid that surrounds it
    [
        (0.30, 0.38, 0.40, 1.80),
        (0.30, 0.38, 0.40, 1.80),
        (0.88, 0.74, 0.79, 1.02),
        (0.70, 1.00, 1.05, 0.72),
        (1.15, 0.85, 0.90, 1.20),
        (0.60, 0.65, 1.60, 0.60),
        (1.30, 0.76, 0.80, 1.40),
        (1.05, 0.50, 0.50, 1.75),
        (1.45, 0.62, 0.64, 1.60),
        (1.20, 0.74, 1.75, 1.25),
    ]
)
"""Relative signal, shape (tissues, channels)."""

INVERTED_SIGNAL = np.where(
    np.arange(len(SIGNAL))[:, None] >= TUMOUR_OEDEMA, (2 * SIGNAL[WHITE] - SIGNAL).clip(0.1), SIGNAL
)
"""Relative signal where a tumour is darker than white matter by as much as it usually is brighter."""

SIGNAL_SPREAD = 0.06
"""Standard deviation of the logarithm of a tissue's signal from case to case."""

BRAIN_AXES = (0.88, 0.90, 1.20)
"""Half axes of the brain; its top and bottom lie outside the image, so that every slice holds brain."""


def make_case(
    case_id: str, subtype: str, scanner: str, site: str | None, settings: PhantomSettings
) -> tuple[Image, Label]:
    """Return image, shape (4, X, Y, Z), and label, shape (X, Y, Z), of a case without fault."""
    points = warped_points(settings.shape, stream(settings.seed, case_id, "warp"))
    tissue = _healthy_tissue(points, stream(settings.seed, case_id, "brain"))
    grow = _grow_lesions if subtype == INVERTED_LESIONS else partial(_grow_tumour, subtype)
    label = grow(points, tissue, stream(settings.seed, case_id, "tumour"))
    core = SOLID if subtype == NO_ENHANCING else NECROSIS
    for value, tumour_tissue in ((OEDEMA, TUMOUR_OEDEMA), (NON_ENHANCING, core), (ENHANCING, RIM)):
        tissue[label == value] = tumour_tissue
    signal = INVERTED_SIGNAL if subtype == INVERTED_LESIONS else SIGNAL
    rng = stream(settings.seed, case_id, "scan")
    if site is None:
        return _scan(tissue, signal, SCANNERS[scanner], 0.0, rng), label
    look = SITES[site]
    scanner_there = replace(SCANNERS[scanner], blur=SCANNERS[scanner].blur + look.blur)
    image = _scan(tissue, signal ** np.array(look.gamma), scanner_there, look.grain, rng)
    return image, drawn_by(look, label, settings.site_strength, stream(settings.seed, case_id, "convention"))


def _healthy_tissue(points: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the tissue of each voxel of a brain without tumour, shape (X, Y, Z)."""
    shape = points.shape[1:]
    depth = radius(points, (0, 0, 0), BRAIN_AXES)
    # fold the brain along the midline: what is defined once appears in both hemispheres
    folded = np.stack([np.abs(points[0]), points[1], points[2]])
    bent = np.stack([folded[0] - 0.4 * (folded[1] - 0.05) ** 2, folded[1], folded[2]])
    ventricle = radius(bent, (0.11, 0.02, 0.05), np.array([0.085, 0.40, 0.55]) * rng.uniform(0.75, 1.3))
    nucleus = radius(folded, (0.30, 0.08, -0.05), (0.11, 0.24, 0.35))
    folds = smooth_noise(rng, shape, 0.07)
    spots = smooth_noise(rng, shape, 0.06)

    tissue = np.full(shape, WHITE, dtype=np.uint8)
    tissue[spots > 2.4] = LESION
    tissue[(depth > 0.77 + 0.06 * folds) | (nucleus < 1)] = GREY
    tissue[(np.abs(folds) < 0.25) & (depth > 0.78)] = CSF
    tissue[(folded[0] < 0.025) & (np.abs(points[1]) > 0.45)] = CSF
    tissue[(ventricle < 1) | (depth > 0.95)] = CSF
    tissue[(tissue == CSF) & (depth > 0.75) & (spots > 1.5)] = VESSEL
    tissue[depth > 1] = OUTSIDE
    return tissue


def _grow_tumour(
    subtype: str, points: NDArray[np.float64], tissue: NDArray[np.uint8], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Return the label of a tumour in one hemisphere, within grey and white matter, shape (X, Y, Z).

    From the inside out it is non-enhancing, enhancing and oedema. The boundaries are quantiles of the depth, so no
    label is empty however coarse the voxels are.
    """
    side = rng.choice([-1, 1])
    eccentricity, angle = rng.uniform(0.38, 0.58), rng.uniform(-1.0, 1.0)
    centre = (
        side * BRAIN_AXES[0] * eccentricity * np.cos(angle),
        BRAIN_AXES[1] * eccentricity * np.sin(angle),
        rng.uniform(-0.35, 0.35),
    )
    half_axes = rng.uniform(0.28, 0.44) * rng.uniform((0.8, 0.9, 1.1), (1.1, 1.3, 1.6))
    depth = radius(points, centre, half_axes) + 0.16 * smooth_noise(rng, tissue.shape, 0.12)
    tumour = (depth < 1) & np.isin(tissue, (GREY, WHITE, LESION)) & (side * points[0] > 0)

    ring = subtype == RING_ENHANCING
    core_share = rng.uniform(0.35, 0.55) if ring else rng.uniform(0.50, 0.70)
    non_enhancing_share = core_share * (rng.uniform(0.30, 0.55) if ring else 1)
    core_depth = depth + 0.08 * smooth_noise(rng, tissue.shape, 0.08)
    core, non_enhancing = np.quantile(core_depth[tumour], (core_share, non_enhancing_share))

    label = np.zeros(tissue.shape, dtype=np.uint8)
    label[tumour] = OEDEMA
    label[tumour & (core_depth <= core)] = ENHANCING
    label[tumour & (core_depth <= non_enhancing)] = NON_ENHANCING
    return label


def _grow_lesions(
    points: NDArray[np.float64], tissue: NDArray[np.uint8], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Return the label of several lesions in both hemispheres, each with oedema around, shape (X, Y, Z)."""
    depth = np.full(tissue.shape, np.inf)
    for side in (-1, 1, -1, 1):
        centre = (side * rng.uniform(0.2, 0.6), rng.uniform(-0.55, 0.55), rng.uniform(-0.6, 0.6))
        depth = np.minimum(depth, radius(points, centre, rng.uniform(0.14, 0.22) * np.array([1, 1, 2])))
    inside = (depth < 1) & np.isin(tissue, (GREY, WHITE, LESION))
    core, non_enhancing = np.quantile(depth[inside], (0.5, 0.15))
    label = np.zeros(tissue.shape, dtype=np.uint8)
    label[inside] = OEDEMA
    label[inside & (depth <= core)] = ENHANCING
    label[inside & (depth <= non_enhancing)] = NON_ENHANCING
    return label


def _scan(
    tissue: NDArray[np.uint8],
    relative: NDArray[np.float64],
    scanner: Scanner,
    grain: float,
    rng: np.random.Generator,
) -> NDArray[np.int16]:
    """Return the four contrasts of the tissues, shape (4, X, Y, Z), zero outside the brain and nowhere else."""
    signal = relative**scanner.gamma * np.exp(rng.normal(0, SIGNAL_SPREAD, SIGNAL.shape))
    blur = (scanner.blur, scanner.blur, 0.3 * scanner.blur)
    image = np.zeros((len(CHANNELS), *tissue.shape), dtype=np.int16)
    brain = tissue != OUTSIDE
    for channel, gain in enumerate(scanner.gain):
        clean = ndimage.gaussian_filter(signal[tissue, channel], blur)
        biased = clean * np.exp(scanner.bias * smooth_noise(rng, tissue.shape, 0.6))
        real, imaginary = grained(rng.normal(0, scanner.noise, size=(2, *tissue.shape)), grain, (1, 2))
        magnitude = gain * np.hypot(biased + real, imaginary)
        image[channel, brain] = magnitude[brain].clip(1, np.iinfo(np.int16).max)
    return image


BRAIN_PHANTOM = PhantomKind(
    name="BrainTumour_phantom",
    description="Procedural brains with tumours; not patients",
    channels=CHANNELS,
    labels=LABELS,
    common=RING_ENHANCING,
    rare=NO_ENHANCING,
    unknown=INVERTED_LESIONS,
    scanners=tuple(SCANNERS),
    sites=tuple(SITES),
    faults=phantom_faults.BRAIN_FAULTS,
    make_case=make_case,
)
