"""NIfTI files read as voxels with their geometry; damaged or contradictory files are refused with a remedy."""

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from idal_assets.imaging.problems import CaseProblems, Problem

GEOMETRY_TOLERANCE_MM = 1e-3
"""Largest difference between two entries of an affine, or two voxel sizes, that counts as equal.

Writing the same affine as a float32 matrix or as a quaternion changes its entries, by about as much in the worst
case (measured on random rotations near a half turn). Over the 240 voxels of a BraTS volume the tolerance moves a
voxel by at most a quarter of a millimetre, less than any mismatch that matters.
"""

_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    OverflowError,
    zlib.error,
    ImageFileError,
    HeaderDataError,
    WrapStructError,
)


@dataclass(frozen=True)
class Volume:
    """Voxels and geometry as read from the file or files of one case.

    Attributes:
        data: Voxels, shape (X, Y, Z), with the channels (or channel) as a first axis where it is an image.
        affine: Voxel to world transform in mm, shape (4, 4).
        spacing: Voxel size in mm along X, Y and Z.
    """

    data: NDArray[Any]
    affine: NDArray[np.float64]
    spacing: tuple[float, float, float]


def read_volume(case_id: str, path: Path, *, channels: int, dtype: type | None = np.float32) -> Volume:
    """Read a NIfTI file as data of shape (channels, X, Y, Z).

    Args:
        case_id: The case, for the message.
        path: The file.
        channels: How many a 4D file must have; 1 for a 3D file, or a 4D file with one volume.
        dtype: Type to convert the voxels to, None to keep that of the file.

    Raises:
        CaseProblems: The file cannot be read or has another shape, or its geometry is unusable.
    """
    try:
        image = _open_nifti(path)
        problem = _header_problem(image)
        # a value beyond float32 becomes infinite, which is reported as such by the inspection
        with np.errstate(all="ignore"):
            data = np.zeros(0) if problem else np.asanyarray(image.dataobj, dtype=dtype)
    except _UNREADABLE as error:
        what = f"cannot be read, truncated or damaged ({type(error).__name__}: {error})"
        raise CaseProblems([Problem(case_id, path, what, "download or copy it again")]) from error
    if problem:
        raise CaseProblems([Problem(case_id, path, *problem)])
    if data.ndim == 3:
        data = data[..., np.newaxis]
    if data.ndim != 4 or data.shape[3] != channels or 0 in data.shape:
        wanted = "(X, Y, Z)" if channels == 1 else f"(X, Y, Z, {channels})"
        what = f"wrong number of channels: shape {image.shape}, not {wanted}"
        raise CaseProblems([Problem(case_id, path, what, "correct the file or remove the case")])
    data = np.ascontiguousarray(np.moveaxis(data, 3, 0))
    return Volume(data, np.asarray(image.affine, np.float64), _spacing(image))


def _open_nifti(path: Path) -> nib.Nifti1Image:
    """Open a NIfTI-1 or NIfTI-2 file from memory.

    nibabel stops at the last voxel and so never compares the checksum at the end of a compressed file;
    decompressing the whole file does.

    Raises:
        EOFError: The file is shorter than its header says.
        Exception: Another of `_UNREADABLE`.
    """
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    header_size = content[:4]
    is_nifti2 = 540 in (int.from_bytes(header_size, "little"), int.from_bytes(header_size, "big"))
    image = (nib.Nifti2Image if is_nifti2 else nib.Nifti1Image).from_bytes(content)
    promised = math.prod(image.shape) * image.get_data_dtype().itemsize
    # nibabel would first ask for the memory, and a damaged header may promise more than the machine has
    if promised > len(content):
        raise EOFError(f"{promised} bytes of voxels promised, {len(content)} bytes in all")
    return image


def _spacing(image: nib.Nifti1Image) -> tuple[float, float, float]:
    """Return the voxel size in mm along the first three axes; the header holds it as float32."""
    x, y, z = (round(float(size), 6) for size in nib.affines.voxel_sizes(image.affine))
    return x, y, z


def _header_problem(image: nib.Nifti1Image) -> tuple[str, str] | None:
    """Return (what, remedy) if the type of the voxels or the geometry is unusable."""
    dtype = image.get_data_dtype()
    if dtype.kind not in "iuf":
        return f"voxels of type {dtype} are no intensities or labels", "convert it to a numeric type"
    affine = image.affine
    if not np.all(np.isfinite(affine)) or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        return "affine is not finite or not invertible", "correct qform and sform of its header"
    pixdim, spacing = np.asarray(image.header.get_zooms()[:3]), _spacing(image)
    # other programs take the voxel size from pixdim, so a file that contradicts itself is not used
    if pixdim.shape == (3,) and not np.allclose(pixdim, spacing, rtol=0, atol=GEOMETRY_TOLERANCE_MM):
        what = f"voxel size {pixdim.tolist()} of the header contradicts {spacing} of the affine"
        return what, "correct pixdim, qform or sform of its header"
    return None


def mismatches(case_id: str, reference: Volume, other: Volume, file: Path) -> list[Problem]:
    """Compare shape and affine of two volumes of one case.

    Args:
        case_id: The case.
        reference: Volume of the first image file.
        other: Volume of another file.
        file: That other file.
    """
    shape, expected = other.data.shape[-3:], reference.data.shape[-3:]
    if shape != expected:
        what = f"shape {shape} differs from {expected} of the first image file"
        return [Problem(case_id, file, what, "resample it onto the image or remove the case")]
    difference = float(np.abs(other.affine - reference.affine).max())
    if difference > GEOMETRY_TOLERANCE_MM:
        what = f"affine differs from that of the first image file by up to {difference:.3g} mm"
        return [Problem(case_id, file, what, "resample it onto the image or correct its header")]
    return []
