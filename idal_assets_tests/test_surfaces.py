"""HD95 against SimpleITK, against every pair of surface voxels, and against cases worked by hand."""

import itertools
import math
import operator
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from idal_assets.analysis.surfaces import hd95_of_regions, without_ignored
from idal_assets.nnunet.geometry import as_in_file, truth_spacing
from idal_assets.nnunet.slices import preprocess
from idal_assets.store.database import read_table
from idal_assets_tests.conftest import FinishedRun
from idal_assets_tests.raw_folders import real_data
from idal_assets_tests.small_models import phantom_files, plan, raw_files, read_cases

pytestmark = pytest.mark.graph

REGION_LABELS = {"WT": (1, 2, 3), "TC": (2, 3), "ET": (3,), "L1": (1,), "L2": (2,), "L3": (3,)}
SINGLE = 1e-6
"""Relative round-off of single precision, in which both libraries give their distances."""


def simpleitks(truth: NDArray, predicted: NDArray, spacing: Sequence[float]) -> float:
    """HD95 of two masks by SimpleITK: its contours and its distance map."""

    def image(mask: NDArray) -> sitk.Image:
        # SimpleITK counts axes from the last, and its contours leave the edge of an image out
        made = sitk.GetImageFromArray(np.pad(mask, 1).astype(np.uint8))
        made.SetSpacing([float(size) for size in spacing[::-1]])
        return sitk.LabelContour(made)

    def directed(one: sitk.Image, other: sitk.Image) -> float:
        to_other = sitk.SignedMaurerDistanceMap(other, squaredDistance=False, useImageSpacing=True)
        distances = sitk.GetArrayFromImage(to_other)[sitk.GetArrayFromImage(one) > 0]
        return float(np.percentile(np.abs(distances), 95))

    contours = image(truth), image(predicted)
    return max(directed(*contours), directed(*contours[::-1]))


def pairwise(truth: NDArray, predicted: NDArray, spacing: Sequence[float]) -> float:
    """HD95 of two masks from the distances between all pairs of their surface voxels."""

    def surface(mask: NDArray) -> list[tuple[int, ...]]:
        inside = {place for place in itertools.product(*map(range, mask.shape)) if mask[place]}
        steps = [tuple(sign * (axis == other) for other in range(3)) for axis in range(3) for sign in (-1, 1)]
        return [p for p in inside if any(tuple(np.add(p, step)) not in inside for step in steps)]

    def directed(one: list, other: list) -> float:
        nearest = [min(math.dist(np.multiply(p, spacing), np.multiply(q, spacing)) for q in other) for p in one]
        return float(np.percentile(nearest, 95))

    surfaces = surface(truth), surface(predicted)
    return max(directed(*surfaces), directed(*surfaces[::-1]))


def of_mask(truth: NDArray, predicted: NDArray, spacing: Sequence[float] = (1, 1, 1)) -> float:
    """HD95 of two masks, as enhancing tumour."""
    return hd95_of_regions(3 * truth.astype(np.uint8), 3 * predicted.astype(np.uint8), spacing, REGION_LABELS)[
        "ET"
    ]


def assert_as_by_simpleitk(
    truth: NDArray, predicted: NDArray, spacing: Sequence[float], tolerance: float = SINGLE
) -> None:
    found = hd95_of_regions(truth, predicted, spacing, REGION_LABELS)
    assert list(found) == list(REGION_LABELS)
    for region, labels in REGION_LABELS.items():
        there, said = np.isin(truth, labels), np.isin(predicted, labels)
        assert there.any()
        assert said.any()
        assert found[region] == pytest.approx(simpleitks(there, said, spacing), rel=SINGLE, abs=tolerance), region


# --- worked by hand ---


def box(shape: Sequence[int], low: Sequence[int], high: Sequence[int]) -> NDArray[np.bool_]:
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(itertools.starmap(slice, zip(low, high, strict=True)))] = True
    return mask


@pytest.mark.parametrize(
    ("spacing", "expected"), [((1, 1, 1), 3.0), ((2, 1, 1), math.sqrt(12)), ((1, 1, 0.5), math.sqrt(6))]
)
def test_two_single_voxels(spacing, expected):
    one, other = box((4, 5, 6), (1, 1, 1), (2, 2, 2)), box((4, 5, 6), (2, 3, 3), (3, 4, 4))
    assert of_mask(one, other, spacing) == pytest.approx(expected, rel=SINGLE)


@pytest.mark.parametrize(("axis", "expected"), [(0, 6.0), (1, 2.0), (2, 1.0)])
def test_a_shifted_cube_is_as_far_as_the_shift(axis, expected):
    """A face is more than 5 % of the surface, so the percentile is the shift in mm."""
    cube = box((12, 12, 12), (3, 3, 3), (8, 8, 8))
    assert of_mask(cube, np.roll(cube, 2, axis), (3, 1, 0.5)) == pytest.approx(expected, rel=SINGLE)


def test_the_percentile_is_interpolated_and_the_larger_direction_counts():
    line, with_outlier = box((1, 1, 25), (0, 0, 0), (1, 1, 10)), box((1, 1, 25), (0, 0, 0), (1, 1, 10))
    with_outlier[0, 0, 19] = True
    # ten distances of 0 and one of 10 voxels: rank 9.5 lies half way between 0 and 10; the other way all are zero
    for pair in ((line, with_outlier), (with_outlier, line)):
        assert of_mask(*pair, (1, 1, 2)) == pytest.approx(10.0, rel=SINGLE)


def test_one_voxel_of_many_does_not_count():
    cube = box((20, 20, 20), (2, 2, 2), (8, 8, 8))
    with_outlier = cube.copy()
    with_outlier[18, 18, 18] = True
    assert of_mask(cube, with_outlier) == 0


def test_a_hole_has_a_surface_too():
    cube = box((9, 9, 9), (1, 1, 1), (8, 8, 8))
    hollow = cube & ~box((9, 9, 9), (3, 3, 3), (6, 6, 6))
    # 54 of 272 surface voxels line the hole, one voxel below the outer surface
    assert of_mask(cube, hollow, (2, 2, 2)) == pytest.approx(2.0, rel=SINGLE)


def test_the_edge_of_the_volume_is_surface():
    one, other = box((5, 6, 7), (0, 0, 0), (5, 6, 3)), box((5, 6, 7), (0, 0, 0), (5, 6, 7))
    inner = [np.pad(mask, 4) for mask in (one, other)]
    assert of_mask(one, other) == of_mask(*inner) > 0


# --- empty masks ---


def test_where_both_are_empty_it_is_undefined():
    empty = np.zeros((3, 4, 5), np.uint8)
    assert all(math.isnan(value) for value in hd95_of_regions(empty, empty, (1, 1, 1), REGION_LABELS).values())
    oedema = box((3, 4, 5), (0, 0, 0), (2, 2, 2)).astype(np.uint8)
    found = hd95_of_regions(oedema, oedema, (1, 1, 1), REGION_LABELS)
    assert {region for region, value in found.items() if math.isnan(value)} == {"TC", "ET", "L2", "L3"}
    assert found["WT"] == found["L1"] == 0


def test_where_one_is_empty_it_is_the_diagonal_of_the_whole_volume():
    there, empty = box((3, 4, 5), (1, 1, 1), (2, 2, 2)), np.zeros((3, 4, 5), bool)
    diagonal = math.sqrt(6**2 + 4**2 + 10**2)
    for pair in ((there, empty), (empty, there)):
        assert of_mask(*pair, (2, 1, 2)) == pytest.approx(diagonal, rel=1e-15)


def test_the_diagonal_of_a_brats_volume():
    there, empty = box((155, 240, 240), (9, 9, 9), (10, 10, 10)), np.zeros((155, 240, 240), bool)
    assert of_mask(there, empty) == pytest.approx(373.13, abs=0.005)


def test_shapes_and_spacing_must_fit():
    one = np.ones((2, 3, 4), np.uint8)
    with pytest.raises(ValueError, match=r"\(2, 3, 4\).*\(4, 3, 2\)"):
        hd95_of_regions(one, one.T, (1, 1, 1), REGION_LABELS)
    with pytest.raises(ValueError, match="one voxel size for each axis"):
        hd95_of_regions(one, one, (1, 1), REGION_LABELS)


# --- against other implementations ---


@pytest.mark.parametrize("seed", range(8))
def test_random_volumes_as_by_pairs_and_by_simpleitk(seed):
    rng = np.random.default_rng(seed)
    shape, spacing = tuple(rng.integers(4, 8, 3)), rng.uniform(0.3, 3, 3)
    truth, predicted = (rng.choice(4, shape, p=(0.7, 0.1, 0.1, 0.1)).astype(np.uint8) for _ in range(2))
    assert_as_by_simpleitk(truth, predicted, spacing)
    for region in ("WT", "L2"):
        masks = [np.isin(volume, REGION_LABELS[region]) for volume in (truth, predicted)]
        found = hd95_of_regions(truth, predicted, spacing, REGION_LABELS)[region]
        assert found == pytest.approx(pairwise(*masks, spacing), rel=SINGLE)


@pytest.mark.real
@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.7, 1.3, 5)], ids=["isotropic", "anisotropic"])
def test_real_labels_as_by_simpleitk(spacing):
    (files,) = raw_files(real_data("brats_mini"), ("BraTS2021_00006",))
    one = voxels(files.label)
    shifted = np.roll(one, (3, -2, 1), (0, 1, 2))
    dilated = one.copy()
    dilated[binary_dilation(one > 0, iterations=2) & (one == 0)] = 1
    dilated[binary_dilation(one == 3)] = 3
    for predicted in (shifted, dilated, np.flip(one, 0)):
        # the percentile lies between two of ten thousand voxels, in single precision to a thousandth of their gap
        assert_as_by_simpleitk(one, predicted, spacing, tolerance=1e-3)


def voxels(path: Path) -> NDArray[np.uint8]:
    return np.asarray(nib.load(path).dataobj).astype(np.uint8)


# --- the voxel sizes of a case ---


@pytest.mark.parametrize(
    ("shape", "spacing", "transposed"),
    [((32, 40, 12), (4.0, 3.0, 8.0), [0, 1, 2]), ((12, 40, 32), (8.0, 3.0, 4.0), [2, 0, 1])],
    ids=["axial", "sagittal"],
)
def test_voxel_sizes_follow_the_axes_of_the_truth(tmp_path, shape, spacing, transposed):
    files = phantom_files(tmp_path, 2, shape=shape, spacing=spacing)
    cases = read_cases(files)
    plans = plan(cases)
    assert plans.values["transpose_forward"] == transposed
    slices = preprocess(cases[0], plans)
    label = voxels(files[0].label)
    sizes = nib.load(files[0].label).header.get_zooms()
    for axis in range(3):
        # so far along one axis alone that another voxel size would be seen
        predicted = np.roll(slices.truth, 2, axis)
        raw = as_in_file(predicted, plans)
        found = hd95_of_regions(slices.truth, predicted, truth_spacing(slices, plans), REGION_LABELS)
        assert found["WT"] == pytest.approx(simpleitks(label > 0, raw > 0, sizes), rel=SINGLE)


def test_an_evaluated_distance_is_that_of_the_segmentation_on_disk(finished_run: FinishedRun) -> None:
    study = finished_run.study()
    rows = read_table(study.folder.database, "evaluation").set_index(["removal_set", "case_id", "region"])
    compared = 0
    for removal_set, name in itertools.product(study.removal_sets, study.cohort.tests):
        predicted = study.path("reduced_evaluation", removal_set) / "segmentations" / f"{name}.nii.gz"
        truth = nib.load(study.raw / "labelsTr" / f"{name}.nii.gz")
        masks = voxels(study.raw / "labelsTr" / f"{name}.nii.gz") > 0, voxels(predicted) > 0
        found = rows.loc[(removal_set, name, "WT"), "hd95"]
        if masks[1].any():
            compared += 1
            assert found == pytest.approx(simpleitks(*masks, truth.header.get_zooms()), rel=SINGLE, abs=SINGLE)
        else:
            assert found == pytest.approx(np.linalg.norm(np.multiply(truth.shape, truth.header.get_zooms())))
    assert compared


def test_what_nobody_labelled_is_background_in_both():
    truth, predicted = np.zeros((2, 6, 6, 6), np.uint8)
    truth[1:3, 1:3, 1:3] = predicted[1:3, 1:3, 1:3] = 1
    predicted[5] = 1
    assert hd95_of_regions(truth, predicted, (1, 1, 1), {"organ": (1,)})["organ"] > 2
    truth[5] = 2
    known, found = without_ignored(truth, predicted, 2)
    assert (known.dtype, found.dtype) == (np.uint8, np.uint8)
    assert hd95_of_regions(known, found, (1, 1, 1), {"organ": (1,)}) == {"organ": 0}
    assert all(map(operator.is_, without_ignored(truth, predicted, None), (truth, predicted)))
