"""Sites of a phantom: each draws some things by a convention of its own, and its images look like its own.

A convention is no fault: within a site it is the truth. But the same anatomy gets other labels at other sites, so
one model for all must compromise, and the donors of a patient's own site suit it best. That a site can be told
from the image is due to its look, which is there at every strength of the conventions. Which sites a kind of
phantom has is said in its own module; which case is of which site is decided in `phantom`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from idal_assets.imaging.phantom_parts import Label, smooth_noise

RAGGED = 0.3
"""Standard deviation, in voxels, by which a convention's border wanders, so that it does not follow the grid."""


@dataclass(frozen=True)
class Convention:
    """A part of a structure that a site draws as something else: the part that is nearest to its neighbours.

    Attributes:
        source: Label values of the structure.
        beside: Label values of the neighbours; 0 is what has no label.
        becomes: Label value that the part gets.
        share: Share of the structure's voxels that is drawn otherwise at full strength, below 1.
    """

    source: tuple[int, ...]
    beside: tuple[int, ...]
    becomes: int
    share: float


@dataclass(frozen=True)
class Site:
    """What is special about a site.

    Attributes:
        gamma: Factor of the exponent of each channel's signal; what is left of it after intensities are normalised
            are other ratios of the contrasts, as by other timing. In CT it is a factor of the contrast.
        blur: What is added to the standard deviation of the blur, in voxels within the axial plane.
        grain: Standard deviation of the filter that smooths the noise, in voxels within the axial plane; the noise
            is as strong as without.
        conventions: How it draws; empty where it draws what is there.
    """

    gamma: tuple[float, ...]
    blur: float
    grain: float
    conventions: tuple[Convention, ...] = ()


def drawn_by(site: Site, label: Label, strength: float, rng: np.random.Generator) -> Label:
    """Draw a case as its site does.

    Args:
        site: The site.
        label: What is there, shape (X, Y, Z).
        strength: How much of what is drawn otherwise at full strength, from 0 to 1.
        rng: Decides how ragged the borders are.
    """
    drawn = label.copy()
    wander = RAGGED * smooth_noise(rng, label.shape, 0.15)
    for convention in site.conventions:
        source, beside = np.isin(label, convention.source), np.isin(label, convention.beside)
        if beside.any():
            part = _nearest(source, beside, strength * convention.share, wander)
            drawn[part] = convention.becomes
    return drawn


def grained(noise: NDArray[np.float64], width: float, axes: Sequence[int]) -> NDArray[np.float64]:
    """Smooth white noise along two axes without making it weaker; a width of 0 leaves it as it is."""
    if width == 0:
        return noise
    smooth = ndimage.gaussian_filter(noise, width, axes=tuple(axes))
    return smooth * noise.std() / smooth.std()


def _nearest(
    source: NDArray[np.bool_], beside: NDArray[np.bool_], share: float, wander: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Return the share of some voxels that is nearest to others, shape (X, Y, Z)."""
    # slices are thick: two of them apart is further than any ring is wide
    distance = ndimage.distance_transform_edt(~beside, sampling=(1, 1, 3)) + wander
    order = np.argsort(distance[source])
    chosen = np.zeros(len(order), bool)
    chosen[order[: round(share * len(order))]] = True
    part = np.zeros_like(source)
    part[source] = chosen
    return part
