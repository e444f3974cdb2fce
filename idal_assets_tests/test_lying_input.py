"""Input that reads well and means something else: read where that is safe, refused or warned of where not."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from idal_assets.imaging.inspection import inspect_folder
from idal_assets.imaging.readers import read_case, scan_raw_folder
from idal_assets_tests.raw_folders import (
    AFFINE,
    SHAPE,
    SPACING,
    make_case,
    make_cases,
    write_brats_2018,
    write_msd,
)

pytestmark = pytest.mark.unit


def read_only(folder):
    (files,) = scan_raw_folder(folder).cases
    return read_case(files)


def only_refusal(folder, case_id="A"):
    (problem,) = inspect_folder(folder).refused[case_id]
    assert problem.remedy
    return problem


def rewrite(path, change):
    """Write a file anew after `change` did something to its image, which it may return."""
    image = nib.Nifti1Image.from_bytes(gzip.decompress(path.read_bytes()))
    nib.save(change(image) or image, path)


def of_msd(folder):
    return [folder / part / "A.nii.gz" for part in ("imagesTr", "labelsTr")]


# units and axes


def in_unit(unit, factor):
    def change(image):
        affine = np.diag([factor, factor, factor, 1]) @ image.affine
        other = nib.Nifti1Image(np.asarray(image.dataobj), affine)
        other.header.set_xyzt_units(unit)
        return other

    return change


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1e-3), ("micron", 1e3), ("mm", 1), ("unknown", 1)])
def test_the_unit_of_a_header_becomes_millimetres(tmp_path, unit, factor):
    write_msd(tmp_path, [make_case("A")])
    for path in of_msd(tmp_path):
        rewrite(path, in_unit(unit, factor))
    case = read_only(tmp_path)
    assert case.spacing == pytest.approx(SPACING)
    np.testing.assert_allclose(case.affine, AFFINE, atol=1e-4)


def test_a_unit_code_that_there_is_not_means_millimetres(tmp_path):
    write_msd(tmp_path, [make_case("A")])
    for path in of_msd(tmp_path):
        rewrite(path, lambda image: image.header.__setitem__("xyzt_units", 7))
    assert read_only(tmp_path).spacing == pytest.approx(SPACING)


@pytest.mark.parametrize(
    ("unit", "factor", "names"),
    [("unknown", 1e-3, "no unit"), ("unknown", 1e3, "no unit"), ("meter", 1, "metres"), ("micron", 1, "microns")],
)
def test_a_unit_that_cannot_be_is_refused(tmp_path, unit, factor, names):
    write_msd(tmp_path, [make_case("A")])
    for path in of_msd(tmp_path):
        rewrite(path, in_unit(unit, factor))
    problem, _ = inspect_folder(tmp_path).refused["A"]
    assert f"header names {names}" in problem.what
    assert "xyzt_units" in problem.remedy


def sheared(degrees):
    lean = np.eye(4)
    lean[:2, 1] = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))

    def change(image):
        other = nib.Nifti1Image(np.asarray(image.dataobj), None)
        other.set_sform(np.diag([1, 1, 3, 1]) @ lean, 1)
        other.set_qform(None, 0)
        other.header.set_zooms((1, 1, 3, 1)[: len(image.shape)])
        return other

    return change


@pytest.mark.parametrize(("degrees", "refused"), [(0.1, False), (1, True), (29, True), (-29, True)])
def test_axes_that_are_not_at_right_angles_are_refused(tmp_path, degrees, refused):
    write_msd(tmp_path, [make_case("A")])
    for path in of_msd(tmp_path):
        rewrite(path, sheared(degrees))
    problems = inspect_folder(tmp_path).refused.get("A", [])
    assert bool(problems) == refused
    assert all(f"sheared by {abs(degrees)} degrees" in problem.what for problem in problems)


# compression, permissions


@pytest.mark.parametrize("times", [0, 2])
def test_content_decides_how_often_a_file_is_compressed(tmp_path, times):
    expected = make_case("A")
    write_msd(tmp_path, [expected])
    for path in of_msd(tmp_path):
        once = path.read_bytes()
        path.write_bytes(gzip.compress(once) if times else gzip.decompress(once))
    np.testing.assert_array_equal(read_only(tmp_path).image, expected.image)


def test_a_compressed_file_named_as_if_it_were_not_is_read(tmp_path):
    expected = make_case("A")
    write_brats_2018(tmp_path, [expected])
    for path in list((tmp_path / "A").iterdir()):
        path.rename(path.with_suffix(""))
    np.testing.assert_array_equal(read_only(tmp_path).image, expected.image)


@pytest.mark.parametrize(
    ("error", "says"), [(PermissionError(13, "Permission denied"), "right to read"), (OSError(5, "I/O"), "disk")]
)
def test_a_file_that_cannot_be_opened_is_not_called_damaged(tmp_path, monkeypatch, error, says):
    write_msd(tmp_path, make_cases("A", "B"))
    read_bytes = Path.read_bytes

    def read(path):
        if path.name == "A.nii.gz" and path.parent.name == "labelsTr":
            raise error
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    problem = only_refusal(tmp_path)
    assert "cannot be opened" in problem.what
    assert "damaged" not in problem.what
    assert says in problem.remedy


# label values


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16])
@pytest.mark.parametrize("write", [write_msd, write_brats_2018])
def test_a_label_with_a_scale_factor_is_read(tmp_path, write, dtype):
    """Values 0, 1, 2 and 4 in eight bits are 63.75 steps apart, so that 1 comes back as 1.004."""
    expected = make_case("A")
    write(tmp_path, [expected])
    (path,) = [file for file in tmp_path.rglob("*.nii.gz") if "seg" in file.name or "labels" in str(file)]
    values = nib.load(path).get_fdata()
    nib.save(nib.Nifti1Image(values, AFFINE), path, dtype=dtype)
    assert nib.load(path).dataobj.slope != 1
    np.testing.assert_array_equal(read_only(tmp_path).label, expected.label)


def test_an_interpolated_label_is_still_refused(tmp_path):
    case = make_case("A")
    write_msd(tmp_path, [case])
    smooth = np.clip(case.label + np.linspace(0, 0.4, case.label.size).reshape(SHAPE), 0, 3)
    nib.save(nib.Nifti1Image(smooth, AFFINE), tmp_path / "labelsTr" / "A.nii.gz", dtype=np.uint8)
    assert "no whole numbers" in only_refusal(tmp_path).what
