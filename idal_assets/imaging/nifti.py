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

SHEAR_TOLERANCE = 5e-3
"""Largest cosine between two axes of voxels that counts as a right angle; float32 leaves 1e-7.

It makes distances wrong by a quarter of a percent at most.
"""

UNITS = {1: ("metres", 1e3), 2: ("millimetres", 1.0), 3: ("microns", 1e-3)}
"""Unit of length and its millimetres by its code in a header; any other code names none, and mm are meant."""

PLAUSIBLE_EDGE_MM = (1.0, 5000.0)
"""Shortest and longest that the longest edge of a volume may be. What lies outside was written in another unit:
a head in metres without saying so has an edge of 0.2, one in microns of 200 000.
"""

_GZIP_MAGIC = b"\x1f\x8b"

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
        step: Distance of two values that the file can hold next to each other, where it scales whole numbers; 0
            where it does not.
    """

    data: NDArray[Any]
    affine: NDArray[np.float64]
    spacing: tuple[float, float, float]
    step: float = 0.0


def read_volume(case_id: str, path: Path, *, channels: int, dtype: type | None = np.float32) -> Volume:
    """Read a NIfTI file as data of shape (channels, X, Y, Z); the only place where another unit becomes mm.

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
        affine = _affine_mm(image)
        problem = _header_problem(image, affine)
        # a value beyond float32 becomes infinite, which is reported as such by the inspection
        with np.errstate(all="ignore"):
            data = np.zeros(0) if problem else np.asanyarray(image.dataobj, dtype=dtype)
    except _UNREADABLE as error:
        raise CaseProblems([_unreadable(case_id, path, error)]) from error
    if problem:
        raise CaseProblems([Problem(case_id, path, *problem, kind="unusable header")])
    if data.ndim == 3:
        data = data[..., np.newaxis]
    if data.ndim != 4 or data.shape[3] != channels or 0 in data.shape:
        wanted = "(X, Y, Z)" if channels == 1 else f"(X, Y, Z, {channels})"
        what = f"wrong number of channels: shape {image.shape}, not {wanted}"
        remedy = "correct the file or remove the case"
        raise CaseProblems([Problem(case_id, path, what, remedy, kind="wrong number of channels")])
    data = np.ascontiguousarray(np.moveaxis(data, 3, 0))
    return Volume(data, affine, _voxel_size(affine), _step(image))


def _unreadable(case_id: str, path: Path, error: Exception) -> Problem:
    """Say whether the file is damaged, or whole and kept from being read by its permissions or its disk."""
    if isinstance(error, OSError) and error.errno is not None:
        what = f"cannot be opened ({error.strerror}), which says nothing of its content"
        remedy = "give yourself the right to read it, or bring its disk back"
        return Problem(case_id, path, what, remedy, kind="file that cannot be opened")
    what = f"cannot be read, truncated or damaged ({type(error).__name__}: {error})"
    return Problem(case_id, path, what, "download or copy it again", kind="damaged file")


def _open_nifti(path: Path) -> nib.Nifti1Image:
    """Open a NIfTI-1 or NIfTI-2 file from memory, compressed or not, whatever its name says.

    nibabel stops at the last voxel and so never compares the checksum at the end of a compressed file;
    decompressing the whole file does.

    Raises:
        EOFError: The file is shorter than its header says.
        Exception: Another of `_UNREADABLE`.
    """
    content = path.read_bytes()
    # browsers unpack a .nii.gz and keep its name, or pack it once more
    for _ in range(2):
        if content.startswith(_GZIP_MAGIC):
            content = gzip.decompress(content)
    header_size = content[:4]
    is_nifti2 = 540 in (int.from_bytes(header_size, "little"), int.from_bytes(header_size, "big"))
    image = (nib.Nifti2Image if is_nifti2 else nib.Nifti1Image).from_bytes(content)
    promised = math.prod(image.shape) * image.get_data_dtype().itemsize
    # nibabel would first ask for the memory, and a damaged header may promise more than the machine has
    if promised > len(content):
        raise EOFError(f"{promised} bytes of voxels promised, {len(content)} bytes in all")
    return image


def _unit(image: nib.Nifti1Image) -> tuple[str, float]:
    """Return the header's unit of length and how many mm it has; the code shares its byte with that of time."""
    return UNITS.get(int(image.header["xyzt_units"]) & 7, ("no unit, so millimetres", 1.0))


def _affine_mm(image: nib.Nifti1Image) -> NDArray[np.float64]:
    affine = np.array(image.affine, np.float64)
    affine[:3] *= _unit(image)[1]
    return affine


def _voxel_size(affine: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the voxel size in mm along the first three axes; the header holds it as float32."""
    x, y, z = (round(float(size), 6) for size in nib.affines.voxel_sizes(affine))
    return x, y, z


def _step(image: nib.Nifti1Image) -> float:
    slope = getattr(image.dataobj, "slope", 1.0)
    return abs(float(slope)) if slope != 1 and image.get_data_dtype().kind in "iu" else 0.0


def _header_problem(image: nib.Nifti1Image, affine: NDArray[np.float64]) -> tuple[str, str] | None:
    """Return (what, remedy) if the type of the voxels or the geometry is unusable."""
    dtype = image.get_data_dtype()
    if dtype.kind not in "iuf":
        return f"voxels of type {dtype} are no intensities or labels", "convert it to a numeric type"
    spacing = _voxel_size(affine)
    if not np.all(np.isfinite(affine)) or min(spacing) == 0:
        return "affine is not finite or not invertible", "correct qform and sform of its header"
    axes = affine[:3, :3] / nib.affines.voxel_sizes(affine)
    cosine = float(np.abs(axes.T @ axes - np.eye(3)).max())
    if cosine > 1 - SHEAR_TOLERANCE:
        return "affine is not finite or not invertible", "correct qform and sform of its header"
    if cosine > SHEAR_TOLERANCE:
        degrees = 90 - math.degrees(math.acos(cosine))
        what = f"axes of its voxels are sheared by {degrees:.2g} degrees, so no distance would be in millimetres"
        return what, "resample it onto axes at right angles, or write the rigid part of the affine into its header"
    return _unit_problem(image, spacing) or _pixdim_problem(image, spacing)


def _unit_problem(image: nib.Nifti1Image, spacing: tuple[float, ...]) -> tuple[str, str] | None:
    """Return (what, remedy) if no body part is as small or as large as the header says."""
    longest = max(size * count for size, count in zip(spacing, image.shape[:3], strict=False))
    if PLAUSIBLE_EDGE_MM[0] <= longest <= PLAUSIBLE_EDGE_MM[1]:
        return None
    what = f"longest edge of the volume would be {longest:g} mm: its header names {_unit(image)[0]}"
    return what, "correct xyzt_units, or pixdim, qform and sform, of its header"


def _pixdim_problem(image: nib.Nifti1Image, spacing: tuple[float, ...]) -> tuple[str, str] | None:
    pixdim = np.asarray(image.header.get_zooms()[:3]) * _unit(image)[1]
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
        remedy = "resample it onto the image or remove the case"
        return [Problem(case_id, file, what, remedy, kind="another geometry than the image")]
    difference = float(np.abs(other.affine - reference.affine).max())
    if difference > GEOMETRY_TOLERANCE_MM:
        what = f"affine differs from that of the first image file by up to {difference:.3g} mm"
        remedy = "resample it onto the image or correct its header"
        return [Problem(case_id, file, what, remedy, kind="another geometry than the image")]
    return []
