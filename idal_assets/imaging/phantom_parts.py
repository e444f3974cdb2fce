"""What every phantom is made of: what a kind of phantom provides, random streams, smooth noise and shapes.

Lengths are in half sizes of the image: along each axis the volume runs from -1 to 1, so that what is drawn fills
the image at every shape.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from idal_assets.settings import PhantomSettings

Image = NDArray[np.int16]
"""Intensities, shape (channels, X, Y, Z)."""

Label = NDArray[np.uint8]
"""Label values, shape (X, Y, Z)."""


@dataclass(frozen=True)
class Planting:
    """What a fault is planted with.

    Attributes:
        rng: What is random about it.
        severity: How bad it is, above 0 and up to 1.
        label_of_another: Makes the label of another case, of somebody who is not in the dataset.
    """

    rng: np.random.Generator
    severity: float
    label_of_another: Callable[[], Label]


Planter = Callable[[Image, Label, Planting], tuple[Image, Label]]
"""Plants a fault in a case: image and label with it, of the same shapes and types, one of the two unchanged."""


@dataclass(frozen=True)
class PhantomKind:
    """What a kind of phantom provides; `phantom` plans the cases and writes them.

    Attributes:
        name: Name of the dataset.
        description: What it shows.
        channels: Names of the channels.
        labels: Name by label value.
        common: The usual subtype.
        rare: A rare subtype, as valid as the usual one.
        unknown: A subtype that no train or test case is of, unlike both.
        scanners: Names of the scanners.
        sites: Names of the sites.
        faults: What plants a fault, by the kind of fault.
        make_case: Makes image and label from the id of a case, its subtype, its scanner, its site (None where the
            phantom is of one) and the settings.
    """

    name: str
    description: str
    channels: tuple[str, ...]
    labels: Mapping[int, str]
    common: str
    rare: str
    unknown: str
    scanners: tuple[str, ...]
    sites: tuple[str, ...]
    faults: Mapping[str, Planter]
    make_case: Callable[[str, str, str, str | None, PhantomSettings], tuple[Image, Label]]


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], scale: float) -> NDArray[np.float64]:
    """Return noise of mean 0 and standard deviation 1 whose features are about `scale` wide."""
    sigma = [scale * size / 2 for size in shape]
    noise = ndimage.gaussian_filter(rng.normal(size=shape), sigma)
    return (noise - noise.mean()) / noise.std()


def warped_points(shape: tuple[int, int, int], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return voxel centres, moved a little and smoothly so that every case differs, shape (3, X, Y, Z)."""
    axes = [(np.arange(size) + 0.5) * 2 / size - 1 for size in shape]
    displacement = [0.035 * smooth_noise(rng, shape, 0.3) for _ in shape]
    size = rng.uniform(0.94, 1.06, size=(3, 1, 1, 1))
    return np.stack(np.meshgrid(*axes, indexing="ij")) * size + displacement


def radius(points: NDArray[np.float64], centre: ArrayLike, half_axes: ArrayLike) -> NDArray[np.float64]:
    """Return the distance from the centre, 1 on the ellipsoid with these half axes, shape (X, Y, Z)."""
    offsets = (points - np.reshape(centre, (3, 1, 1, 1))) / np.reshape(half_axes, (3, 1, 1, 1))
    return np.linalg.norm(offsets, axis=0)
