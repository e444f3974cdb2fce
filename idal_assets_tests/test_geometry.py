"""Axes turn to nnU-Net, back to the file and to a picture, also where the plans exchange them."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from idal_assets.imaging.brain_tumour import BRAIN_TUMOUR
from idal_assets.imaging.case import Case
from idal_assets.nnunet.geometry import as_case, as_in_file, to_nnunet, truth_spacing
from idal_assets.nnunet.plans import Plans
from idal_assets.nnunet.slices import load_slices, preprocess
from idal_assets.nnunet.variants import make_variants
from idal_assets.plots.cases import axial_slice, largest_slice
from idal_assets.settings import VariantSettings
from idal_assets_tests.small_models import changed, phantom_files, plan, read_cases, with_margin

pytestmark = pytest.mark.unit

SHAPES = {"axial": ((40, 48, 8), (4.0, 4.0, 12.0)), "sagittal": ((8, 48, 40), (12.0, 4.0, 4.0))}
MARGIN = ((1, 2), (2, 5), (4, 3))


@pytest.fixture(scope="module", params=SHAPES)
def cases(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    folder, (shape, spacing) = tmp_path_factory.mktemp("raw"), SHAPES[request.param]
    return read_cases(with_margin(phantom_files(folder / "inner", 2, shape, spacing), folder / "raw", MARGIN))


@pytest.fixture(scope="module")
def plans(cases: list[Case]) -> Plans:
    return plan(cases)


def test_only_the_sagittal_plans_exchange_axes(cases: list[Case], plans: Plans):
    """Otherwise the tests below would not show what they are meant to."""
    expected = [2, 0, 1] if cases[0].spacing[0] == 12 else [0, 1, 2]
    assert plans.values["transpose_forward"] == expected


def test_nnunet_is_given_z_y_x_with_spacing_and_affine(cases: list[Case]):
    (case, *_) = cases
    image, label, properties = to_nnunet(case)
    assert label is not None
    assert case.label is not None
    for x, y, z in ((3, 5, 2), (6, 1, 7)):
        np.testing.assert_array_equal(image[:, z, y, x], case.image[:, x, y, z])
        assert label[0, z, y, x] == case.label[x, y, z]
    assert properties["spacing"] == list(reversed(case.spacing))
    np.testing.assert_array_equal(properties["affine"], case.affine)


def test_truth_goes_back_to_the_file(cases: list[Case], plans: Plans):
    for case in cases:
        slices = preprocess(case, plans)
        assert slices.truth is not None
        np.testing.assert_array_equal(as_in_file(slices.truth, plans), case.label)
        spacing = dict(zip(slices.truth.shape, truth_spacing(slices, plans), strict=True))
        assert case.label is not None
        assert spacing == pytest.approx(dict(zip(case.label.shape, case.spacing, strict=True)))


def test_slices_are_the_case_again_but_for_crop_and_normalisation(cases: list[Case], plans: Plans):
    (case, *_) = cases
    assert case.label is not None
    drawn = as_case(preprocess(case, plans), plans)
    start = nib.affines.apply_affine(np.linalg.inv(case.affine), drawn.affine[:3, 3]).round().astype(int)
    # the head leaves more of the volume than the margin did
    assert all(low >= before > 0 for low, (before, _) in zip(start, MARGIN, strict=True))
    box = tuple(slice(low, low + size) for low, size in zip(start, drawn.image.shape[1:], strict=True))
    np.testing.assert_array_equal(drawn.label, case.label[box])
    assert drawn.spacing == pytest.approx(case.spacing)
    for channel, original in zip(drawn.image, case.image, strict=True):
        head = original[box] > 0
        assert np.corrcoef(channel[head], original[box][head])[0, 1] > 0.999


def test_pictures_show_the_same_anatomy_where_voxels_are_resampled(cases: list[Case], plans: Plans):
    """Twice as fine within the slices: each voxel becomes four, which the picture's aspect makes up for."""
    (case, *_) = cases
    assert case.label is not None
    finer = changed(plans, spacing=[2.0, 2.0])
    drawn = as_case(preprocess(case, finer), finer)
    plain = as_case(preprocess(case, plans), plans)
    assert plain.label is not None
    assert drawn.label is not None
    factors = np.divide(drawn.image.shape[1:], plain.image.shape[1:])
    np.testing.assert_allclose(np.multiply(drawn.spacing, factors), plain.spacing)
    assert sorted(drawn.spacing) == pytest.approx([2, 2, 12])
    place = largest_slice(plain.label, BRAIN_TUMOUR)
    expected = axial_slice(plain.label, place, plain.affine)
    found = axial_slice(drawn.label, int((place + 0.5) * factors[2]), drawn.affine)
    for axis, factor in enumerate((factors[1], factors[0])):
        expected = expected.repeat(int(factor), axis)
    # borders are resampled, too
    assert ((found > 0) == (expected > 0)).mean() > 0.97
    # the corner of the volume stays where it is in the world
    corners = [nib.affines.apply_affine(one.affine, [-0.5, -0.5, -0.5]) for one in (drawn, plain)]
    np.testing.assert_allclose(*corners, atol=1e-4)


def test_files_and_variants_are_drawn_the_same_way(cases: list[Case], plans: Plans, tmp_path: Path):
    slices = preprocess(cases[0], plans)
    slices.save(tmp_path)
    drawn, loaded = (as_case(one, plans) for one in (slices, load_slices(tmp_path, slices.case_id)))
    np.testing.assert_array_equal(drawn.image, loaded.image)
    np.testing.assert_array_equal(drawn.affine, loaded.affine)
    (variant,) = make_variants(slices, VariantSettings(count=1), seed=0)
    assert as_case(variant, plans).image.shape == drawn.image.shape
