"""The one place that knows how axes turn between a file, nnU-Net's arrays and a picture.

A file has (x, y, z). nnU-Net reads (z, y, x) and then, where its plans say so, puts the axis of the largest
spacing first; preprocessed slices and segmentations stay in that order.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from idal_assets.imaging.case import Case

if TYPE_CHECKING:
    from idal_assets.nnunet.plans import Plans
    from idal_assets.nnunet.slices import CaseSlices


def to_nnunet(case: Case) -> tuple[NDArray[np.float32], NDArray[np.int16] | None, dict[str, Any]]:
    """Turns a case into what nnU-Net's readers return.

    Args:
        case: The case in the voxel order of its files.

    Returns:
        Image of shape (channels, Z, Y, X); label of shape (1, Z, Y, X), None where the case has none; and
        properties with the spacing along Z, Y, X in mm and the affine of the file (4, 4).
    """
    image = np.ascontiguousarray(case.image.transpose(0, 3, 2, 1))
    label = None
    if case.label is not None:
        label = np.ascontiguousarray(case.label.transpose(2, 1, 0)[None]).astype(np.int16)
    spacing = [float(size) for size in case.spacing[::-1]]
    return image, label, {"spacing": spacing, "affine": np.asarray(case.affine, dtype=float).tolist()}


Volume = TypeVar("Volume", bound=np.generic)


def as_in_file(segmentation: NDArray[Volume], plans: "Plans") -> NDArray[Volume]:
    """Undoes nnU-Net's transposition and its (z, y, x): back to (x, y, z) as the raw file has it.

    Args:
        segmentation: Labels as a predictor yields them, a case's `truth`, or another volume of that geometry.
        plans: The plans that it was made with.
    """
    return segmentation.transpose(plans.manager.transpose_backward).transpose(2, 1, 0)


def truth_spacing(case: "CaseSlices", plans: "Plans") -> list[float]:
    """Voxel size in mm along the axes of `CaseSlices.truth`, which nnU-Net's transposition may have exchanged."""
    spacing = case.properties["spacing"]
    return [float(spacing[axis]) for axis in plans.manager.transpose_forward]


def as_case(slices: "CaseSlices", plans: "Plans") -> Case:
    """Turns preprocessed slices, or those of a variant, into a case that pictures can draw.

    Args:
        slices: The slices; they are cropped and resampled, and so is the case.
        plans: The plans that they were made with.

    Returns:
        The case in (x, y, z) with spacing and affine of its own voxels; voxels outside the crop mask are
        background.
    """
    backward = plans.manager.transpose_backward
    channels = [as_in_file(channel, plans) for channel in slices.image]
    kept, box = (
        [slices.properties[name][axis] for axis in reversed(backward)]
        for name in ("shape_after_cropping_and_before_resampling", "bbox_used_for_cropping")
    )
    scale = np.divide(kept, channels[0].shape)
    affine = _regridded(slices.properties["affine"], [low for low, _ in box], scale)
    label = None if slices.label is None else as_in_file(slices.label.clip(0).astype(np.uint8), plans)
    x, y, z = (float(size) for size in nib.affines.voxel_sizes(affine))
    return Case(slices.case_id, np.stack(channels), label, affine, (x, y, z))


def _regridded(
    affine: Sequence[Sequence[float]], start: Sequence[int], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Affine of voxels that are `scale` times as large and begin at voxel `start` of the file."""
    whole = np.array(affine, dtype=float)
    # the first small voxel and the first large one share their outer corner, not their centre
    offset = np.add(start, (scale - 1) / 2)
    turned = whole[:3, :3] * scale
    moved = whole[:3, 3] + whole[:3, :3] @ offset
    return np.vstack([np.column_stack([turned, moved]), whole[3]])
