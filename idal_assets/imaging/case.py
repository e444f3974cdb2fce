"""One case in memory: its channels, its label if it has one, and their geometry."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Case:
    """A case with the channels and label values of its anatomy, in the voxel order of its files.

    Attributes:
        case_id: Name of the case, unique within its cohort.
        image: Intensities, shape (channels, X, Y, Z), channels in the order of the anatomy.
        label: Label values of the anatomy, 0 for the background, shape (X, Y, Z); None where the case has none.
        affine: Voxel to world transform in mm, shape (4, 4).
        spacing: Voxel size in mm along X, Y and Z.
    """

    case_id: str
    image: NDArray[np.float32]
    label: NDArray[np.uint8] | None
    affine: NDArray[np.float64]
    spacing: tuple[float, float, float]

    def require_label(self) -> NDArray[np.uint8]:
        """The label of a case that cannot do without, shape (X, Y, Z).

        Raises:
            CaseError: The case has none.
        """
        if self.label is None:
            raise CaseError(
                f"{self.case_id} has no label; scoring needs one, as does training: label it or leave it out"
            )
        return self.label


class CaseError(ValueError):
    """A case or file that cannot be used; the message names it, what is wrong and the remedy."""
