"""Variants of one case: mirroring and mild elastic deformation of the preprocessed slices.

nnU-Net could not train on a single case, so the original experiment turned one case into five with
batchgenerators (Ustsinau 2020, section 3.3); this is the same with its successor batchgeneratorsv2.
"""

import numpy as np
import torch
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform

from idal_assets.nnunet.slices import OUTSIDE, CaseSlices, foreground_places
from idal_assets.settings import VariantSettings


def make_variants(case: CaseSlices, settings: VariantSettings, seed: int) -> list[CaseSlices]:
    """Makes the variants of a case.

    Args:
        case: The preprocessed case.
        settings: How many variants and how strong.
        seed: Seed of this case's variants.

    Returns:
        The variants, named `CASE_v1`, `CASE_v2` and so on, with the shape of the case.
    """
    np.random.seed(seed)  # noqa: NPY002 - batchgeneratorsv2 draws from the global generators
    torch.manual_seed(seed)
    deform = SpatialTransform(
        patch_size=case.image.shape[2:],
        patch_center_dist_from_border=0,
        random_crop=False,
        p_elastic_deform=settings.deformation_probability,
        elastic_deform_scale=settings.deformation_scale,
        elastic_deform_magnitude=settings.deformation_pixels,
        mode_seg="bilinear",
        border_mode_seg="constant",
        padding_value_seg=OUTSIDE,
    )
    return [_variant(case, number, settings, deform) for number in range(1, settings.count + 1)]


def _variant(case: CaseSlices, number: int, settings: VariantSettings, deform: SpatialTransform) -> CaseSlices:
    channels, slices, rows, columns = case.image.shape
    # One deformation of the plane for all slices and channels: the network sees single slices.
    moved = deform(
        image=torch.from_numpy(case.image).reshape(channels * slices, rows, columns),
        segmentation=torch.from_numpy(case.require_label()),
    )
    image = moved["image"].reshape(channels, slices, rows, columns).numpy()
    label = moved["segmentation"].numpy().astype(np.int8)
    axes = [axis for axis in (1, 2, 3) if np.random.uniform() < settings.mirror_probability]  # noqa: NPY002
    image = np.ascontiguousarray(np.flip(image, tuple(axes)))
    label = np.ascontiguousarray(np.flip(label, tuple(axis - 1 for axis in axes)))
    return CaseSlices(
        case_id=f"{case.case_id}_v{number}",
        image=image,
        label=label,
        foreground=foreground_places(label, list(case.foreground)),
        properties=case.properties,
        truth=None,
    )
