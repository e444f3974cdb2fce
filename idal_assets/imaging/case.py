"""One case in memory: four channels, a label and their geometry."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Case:
    """A case in the project's convention, in the voxel order of its files.

    Attributes:
        case_id: Name of the case, unique within its cohort.
        image: Intensities, shape (4, X, Y, Z), channels in the order of `conventions.CHANNELS`.
        label: Label values, shape (X, Y, Z); None where nobody labelled the case.
        affine: Voxel to world transform in mm, shape (4, 4).
        spacing: Voxel size in mm along X, Y and Z.
    """

    case_id: str
    image: NDArray[np.float32]
    label: NDArray[np.uint8] | None
    affine: NDArray[np.float64]
    spacing: tuple[float, float, float]


class CaseError(ValueError):
    """A case or file that cannot be used; the message names it, what is wrong and the remedy."""
