"""The phantom of an organ: one channel, an elongated bent organ of two parts in soft tissue, as MRI or CT.

The organ is like a hippocampus: thicker in front, bent towards one side, its parts told apart by their place and
by a slight difference in brightness. Unlike a brain it is in the midst of tissue, so that no background is zero.
Lengths are in half sizes of the image, see `phantom_parts`.
"""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from idal_assets.imaging.phantom_faults import AIR_FLOOR, ORGAN_FAULTS
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

ANTERIOR, POSTERIOR = 1, 2
LABELS = {ANTERIOR: "Anterior", POSTERIOR: "Posterior"}

WHOLE, SHORT_POSTERIOR, DARK = "whole", "short_posterior", "dark"
"""Subtypes; of the rare one the posterior part ends early, the unknown one is darker than what surrounds it."""

CT = "CT"
"""Name of the channel whose intensities are Hounsfield units."""


@dataclass(frozen=True)
class Scanner:
    """How a scanner renders the tissues.

    Attributes:
        gain: Intensity of MRI that a signal of 1 gets.
        gamma: Exponent of the signal of MRI; below 1 it flattens the contrast.
        noise: Standard deviation of the noise in each part of the complex signal of MRI.
        bias: Standard deviation of the logarithm of the bias field of MRI.
        offset: What is added to the Hounsfield units of CT.
        grain: Standard deviation of the noise of CT in Hounsfield units.
        blur: Standard deviation of the blur in voxels within the axial plane.
    """

    gain: float
    gamma: float
    noise: float
    bias: float
    offset: float
    grain: float
    blur: float


SCANNERS = {
    "A": Scanner(gain=700, gamma=1.0, noise=0.06, bias=0.06, offset=0, grain=8, blur=0.5),
    "B": Scanner(gain=1300, gamma=0.8, noise=0.09, bias=0.12, offset=6, grain=12, blur=0.75),
}

SITES = {
    "border_behind": Site(
        gamma=(1.0,),
        blur=0.0,
        grain=0.0,
        conventions=(Convention((POSTERIOR,), (ANTERIOR,), becomes=ANTERIOR, share=0.4),),
    ),
    "border_in_front": Site(
        gamma=(1.15,),
        blur=0.15,
        grain=0.6,
        conventions=(Convention((ANTERIOR,), (POSTERIOR,), becomes=POSTERIOR, share=0.4),),
    ),
    "core_only": Site(
        gamma=(0.9,),
        blur=0.3,
        grain=1.0,
        conventions=(Convention((ANTERIOR, POSTERIOR), (0,), becomes=0, share=0.4),),
    ),
    "usual": Site(gamma=(1.0,), blur=0.45, grain=1.5),
}
"""Sites by name, in the order in which a phantom takes them; the last one has but a look of its own."""

SOFT, ANTERIOR_PART, POSTERIOR_PART, FLUID, VESSEL, AIR = range(6)
"""Tissues; the two parts of the organ have the values of their labels."""

SIGNAL = np.array([0.60, 1.05, 0.88, 0.25, 1.30, 0.0])
"""Relative signal of MRI by tissue."""

HOUNSFIELD = np.array([35.0, 95.0, 75.0, 5.0, 120.0, -1000.0])
"""Hounsfield units of CT by tissue."""

BODY_RADIUS = 1.2
"""Of the body in the axial plane of a CT; the air around it is seen in the corners."""

CONTRAST = (0.8, 1.2)
"""Range of the factor by which organ, fluid and vessels stand out from soft tissue, from case to case."""

TEXTURE = 0.10
"""Standard deviation of the texture of tissue, as share of the signal of soft tissue."""


def organ_phantom(channel: str) -> PhantomKind:
    """The kind of phantom, with a channel of that name; `CT` has Hounsfield units."""
    return PhantomKind(
        name="Organ_phantom",
        description="Procedural organs of two parts; not patients",
        channels=(channel,),
        labels=LABELS,
        common=WHOLE,
        rare=SHORT_POSTERIOR,
        unknown=DARK,
        scanners=tuple(SCANNERS),
        sites=tuple(SITES),
        faults=ORGAN_FAULTS,
        make_case=partial(make_case, channel.upper() == CT),
    )


def make_case(
    is_ct: bool, case_id: str, subtype: str, scanner: str, site: str | None, settings: PhantomSettings
) -> tuple[Image, Label]:
    """Return image, shape (1, X, Y, Z), and label, shape (X, Y, Z), of a case without fault."""
    points = warped_points(settings.shape, stream(settings.seed, case_id, "warp"))
    label = _grow_organ(points, subtype, stream(settings.seed, case_id, "organ"))
    tissue = _surround(points, label, stream(settings.seed, case_id, "surroundings"))
    if is_ct:
        tissue[np.hypot(points[0], points[1]) > BODY_RADIUS] = AIR
    values = (HOUNSFIELD if is_ct else SIGNAL).copy()
    if subtype == DARK:
        values[[*LABELS]] = 2 * values[SOFT] - values[[*LABELS]]
    scan = _scan_ct if is_ct else _scan_mri
    rng = stream(settings.seed, case_id, "scan")
    if site is None:
        return scan(tissue, values, SCANNERS[scanner], 0.0, rng)[np.newaxis], label
    look = SITES[site]
    (gamma,) = look.gamma
    scanner_there = replace(SCANNERS[scanner], blur=SCANNERS[scanner].blur + look.blur)
    values = values[SOFT] + gamma * (values - values[SOFT]) if is_ct else values**gamma
    image = scan(tissue, values, scanner_there, look.grain, rng)[np.newaxis]
    return image, drawn_by(look, label, settings.site_strength, stream(settings.seed, case_id, "convention"))


def _grow_organ(points: NDArray[np.float64], subtype: str, rng: np.random.Generator) -> Label:
    """Return the label of an organ along the second axis, shape (X, Y, Z)."""
    shape = points.shape[1:]
    centre, angle = rng.uniform(-0.1, 0.1, size=(3, 1, 1, 1)), rng.uniform(-0.3, 0.3)
    side, bend, tilt = rng.choice([-1, 1]), rng.uniform(0.15, 0.30), rng.uniform(0.1, 0.3)
    length, width, height = rng.uniform(0.85, 1.15) * np.array([0.65, 0.30, 0.48])
    cut, end = rng.uniform(-0.05, 0.15), rng.uniform(0.15, 0.28)

    x, y, z = points - centre
    across, along = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    place = along / length  # from the posterior end, -1, to the anterior one, 1
    across = across - side * bend * (place**2 - 0.4)
    thickness = np.sqrt((1 - place**2).clip(0)) * (1 + 0.2 * place)
    distance = np.hypot(across / width, (z + tilt * place) / height) + 0.1 * smooth_noise(rng, shape, 0.15)
    organ = (distance < thickness) & (np.abs(place) < 1)
    if subtype == SHORT_POSTERIOR:
        organ &= place > cut - end

    border = place + 0.06 * smooth_noise(rng, shape, 0.15)
    label = np.zeros(shape, dtype=np.uint8)
    label[organ] = POSTERIOR
    label[organ & (border > cut)] = ANTERIOR
    return label


def _surround(points: NDArray[np.float64], label: Label, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the tissue of each voxel, shape (X, Y, Z): the organ, and soft tissue with fluid and vessels."""
    side = rng.choice([-1, 1])
    centre = (side * rng.uniform(0.6, 0.8), rng.uniform(-0.3, 0.3), 0)
    cavity = radius(points, centre, rng.uniform((0.12, 0.4, 0.5), (0.2, 0.7, 0.9)))
    spots = smooth_noise(rng, label.shape, 0.07)
    tissue = np.full(label.shape, SOFT, dtype=np.uint8)
    tissue[(cavity < 1) | (spots < -2.2)] = FLUID
    tissue[spots > 2.4] = VESSEL
    tissue[label > 0] = label[label > 0]
    return tissue


def _stand_out(values: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the values of the tissues with the contrast of one case."""
    return values[SOFT] + (values - values[SOFT]) * rng.uniform(*CONTRAST)


def _blurred(voxels: NDArray[np.float64], scanner: Scanner) -> NDArray[np.float64]:
    return ndimage.gaussian_filter(voxels, (scanner.blur, scanner.blur, 0.3 * scanner.blur))


def _scan_mri(
    tissue: NDArray[np.uint8],
    values: NDArray[np.float64],
    scanner: Scanner,
    grain: float,
    rng: np.random.Generator,
) -> NDArray[np.int16]:
    """Return the magnitude of a signal, shape (X, Y, Z), nowhere zero."""
    signal = _stand_out(values, rng).clip(0) ** scanner.gamma
    texture = TEXTURE * SIGNAL[SOFT] * smooth_noise(rng, tissue.shape, 0.12)
    clean = _blurred(signal[tissue] + texture, scanner)
    biased = clean * np.exp(scanner.bias * smooth_noise(rng, tissue.shape, 0.6))
    real, imaginary = grained(rng.normal(0, scanner.noise, size=(2, *tissue.shape)), grain, (1, 2))
    magnitude = scanner.gain * np.hypot(biased + real, imaginary)
    return magnitude.clip(1, np.iinfo(np.int16).max).astype(np.int16)


def _scan_ct(
    tissue: NDArray[np.uint8],
    values: NDArray[np.float64],
    scanner: Scanner,
    grain: float,
    rng: np.random.Generator,
) -> NDArray[np.int16]:
    """Return Hounsfield units, shape (X, Y, Z)."""
    values = _stand_out(values, rng)
    values[AIR] = HOUNSFIELD[AIR]
    texture = TEXTURE * HOUNSFIELD[SOFT] * smooth_noise(rng, tissue.shape, 0.12)
    clean = _blurred(values[tissue] + np.where(tissue == AIR, 0, texture), scanner)
    noise = grained(_blurred(rng.normal(size=tissue.shape), scanner), grain, (0, 1))
    noisy = clean + scanner.offset + scanner.grain * noise / noise.std()
    return np.rint(noisy).clip(AIR_FLOOR, np.iinfo(np.int16).max).astype(np.int16)
