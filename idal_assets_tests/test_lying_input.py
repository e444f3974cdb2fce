"""Input that reads well and means something else: read where that is safe, refused or warned of where not."""

import dataclasses
import gzip
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from idal_assets.imaging.brain_tumour import BRAIN_TUMOUR, POST_TREATMENT
from idal_assets.imaging.brats_labels import CONVENTIONS
from idal_assets.imaging.case import CaseError
from idal_assets.imaging.inspection import are_there, folder_signature, inspect_folder
from idal_assets.imaging.raw_folder import Layout
from idal_assets.imaging.readers import find_case, read_case, scan_raw_folder
from idal_assets.store.layout import DataFolder
from idal_assets_tests.raw_folders import (
    AFFINE,
    SHAPE,
    SPACING,
    make_case,
    make_cases,
    read_json,
    save,
    write_brats_2018,
    write_brats_2023,
    write_json,
    write_msd,
    write_nnunet,
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


# whose label values they are

CHILDREN = CONVENTIONS["BraTS 2024, children"]
CHILDREN_2023 = CONVENTIONS["BraTS 2023, all challenges"]


def write_values(folder, case_id, values):
    """A case in names of 2023; oedema, non-enhancing and enhancing tumour have these values in its label."""
    case = make_case(case_id)
    write_brats_2023(folder, [case])
    path = folder / case_id / f"{case_id}-seg.nii.gz"
    save(path, np.array([0, *values], np.uint8)[case.label])
    return case


def voxels(case):
    return [int((case.label == value).sum()) for value in (1, 2, 3)]


@pytest.mark.parametrize("name", ["BraTS-PED-00001-000", "brats_peds_0001", "BraTS2024-PED-0001-000"])
def test_values_of_children_are_asked_for(tmp_path, name):
    write_values(tmp_path, name, (2, 3, 1))
    with pytest.raises(CaseError, match=r"of children.*say which are meant: write a dataset\.json") as caught:
        scan_raw_folder(tmp_path)
    assert "remove" not in str(caught.value)
    assert json.dumps({"labels": CHILDREN}) in str(caught.value)


@pytest.mark.parametrize(("stated", "values"), [(CHILDREN, (4, 3, 1)), (CHILDREN_2023, (2, 1, 3))])
def test_values_of_children_are_read_as_their_owner_says(tmp_path, stated, values):
    case = write_values(tmp_path, "BraTS-PED-00001-000", values)
    write_json(tmp_path, {"labels": stated})
    scanned = scan_raw_folder(tmp_path)
    assert (scanned.layout, scanned.anatomy, scanned.problems) == (Layout.BRATS_2023, BRAIN_TUMOUR, ())
    np.testing.assert_array_equal(read_only(tmp_path).label, case.label)


def test_children_and_adults_are_not_read_by_one_convention(tmp_path):
    write_values(tmp_path, "BraTS-PED-00001-000", (4, 3, 1))
    write_values(tmp_path, "BraTS-GLI-00001-000", (2, 1, 3))
    write_json(tmp_path, {"labels": CHILDREN})
    with pytest.raises(CaseError, match="a raw folder of its own"):
        scan_raw_folder(tmp_path)
    write_json(tmp_path, {"labels": CHILDREN_2023})
    assert scan_raw_folder(tmp_path).anatomy == BRAIN_TUMOUR


def test_stated_labels_that_are_none_of_a_brain_tumour(tmp_path):
    write_values(tmp_path, "A", (2, 1, 3))
    write_json(tmp_path, {"labels": {"liver": 1}})
    with pytest.raises(CaseError, match=r"dataset\.json: 'labels' are not those of a brain tumour"):
        scan_raw_folder(tmp_path)


def test_children_with_the_values_of_adults_in_a_described_folder_are_a_warning(tmp_path):
    labels = {"background": 0, "NCR": 1, "ED": 2, "ET": 3}
    write_nnunet(tmp_path, make_cases("BraTS-PED-00001-000"), labels=labels)
    (problem,) = scan_raw_folder(tmp_path).problems
    assert (problem.severity, problem.kind) == ("warning", "assumed label values")


def test_adults_after_treatment_have_a_label_for_the_cavity(tmp_path):
    case = write_values(tmp_path, "BraTS-GLI-00005-100", (2, 1, 3))
    values = np.array([0, 2, 1, 3], np.uint8)[case.label]
    values[5, 4, :3] = 4
    save(tmp_path / case.case_id / f"{case.case_id}-seg.nii.gz", values)
    scanned = scan_raw_folder(tmp_path)
    assert (scanned.anatomy, scanned.problems) == (POST_TREATMENT, ())
    read = read_only(tmp_path)
    assert voxels(read) == [6, 4, 2]
    assert (read.label == 4).sum() == 3
    assert POST_TREATMENT.regions["WT"] == (1, 2, 3)
    POST_TREATMENT._ensure_sound()


@pytest.mark.parametrize(("challenge", "warned"), [("GLI", 0), ("MET", 1), ("SSA", 1), ("MEN", 1)])
def test_a_reading_that_rests_on_the_name_is_a_warning(tmp_path, challenge, warned):
    write_values(tmp_path, f"BraTS-{challenge}-00001-000", (2, 1, 3))
    report = inspect_folder(tmp_path)
    assert [warning.kind for warning in report.warnings] == warned * ["assumed label values"]
    assert len(report.facts) == 1


@pytest.mark.parametrize(
    ("write", "odd", "unnamed"), [(write_brats_2023, (2, 1, 4), "B"), (write_brats_2018, (2, 1, 3), "B")]
)
def test_values_of_another_convention_put_the_whole_folder_in_doubt(tmp_path, write, odd, unnamed):
    cases = make_cases("A", unnamed)
    write(tmp_path, cases)
    (path,) = (tmp_path / unnamed).glob("*seg*")
    save(path, np.array([0, *odd], np.uint8)[cases[1].label])
    report = inspect_folder(tmp_path)
    (refused,) = report.refused[unnamed]
    (of_folder,) = [problem for problem in report.problems if problem.case_id is None]
    assert (of_folder.severity, of_folder.kind) == ("error", "label values of another convention")
    assert "1 of 2 cases (B)" in of_folder.what
    assert "dataset.json" in of_folder.remedy
    assert not any("remove" in problem.remedy for problem in (refused, of_folder))


def test_a_value_of_no_convention_concerns_its_case_only(tmp_path):
    cases = make_cases("A", "B")
    write_brats_2023(tmp_path, cases)
    save(tmp_path / "B" / "B-seg.nii.gz", np.full(SHAPE, 9, np.uint8))
    assert {problem.case_id for problem in inspect_folder(tmp_path).problems} == {"B"}


# words for what does not enhance

WITHOUT = [
    *(
        "non-contrast-enhancing tumor",
        "Non-Contrast-Enhancing Tumor Core",
        "not enhancing tumor",
        "unenhanced tumor",
    ),
    *(
        "tumor without enhancement",
        "tumour without any contrast enhancement",
        "non-gadolinium-enhancing",
        "NonEnh",
    ),
    *(f"non{dash}enhancing" for dash in "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"),
    *("cystic component", "no contrast enhancement", "enhancement-negative tumor"),
]


@pytest.mark.parametrize("word", WITHOUT)
def test_words_for_what_does_not_enhance(tmp_path, word):
    four = {"background": 0, "necrosis": 1, "edema": 2, word: 3, "contrast-enhancing tumor": 4}
    write_nnunet(tmp_path / "four", [make_case("A")], labels=four)
    assert scan_raw_folder(tmp_path / "four").cases[0].label_values == {0: 0, 1: 2, 2: 1, 3: 2, 4: 3}
    three = {"background": 0, "SNFH": 1, word: 2, "Enhanced tumor": 3}
    write_nnunet(tmp_path / "three", [make_case("A")], labels=three)
    assert scan_raw_folder(tmp_path / "three").cases[0].label_values == {0: 0, 1: 1, 2: 2, 3: 3}


@pytest.mark.parametrize("word", ["enhancing and non-enhancing tumor", "non-enhancing edema"])
def test_a_word_that_could_be_two_labels_is_no_guess(tmp_path, word):
    write_nnunet(tmp_path, [make_case("A")], labels={"background": 0, "necrosis": 1, "edema": 2, word: 3})
    assert scan_raw_folder(tmp_path).anatomy != BRAIN_TUMOUR


def test_a_flair_hyperintensity_that_does_not_enhance_is_oedema(tmp_path):
    oedema = "Surrounding Non-enhancing FLAIR Hyperintensity"
    labels = {"background": 0, "NETC": 1, oedema: 2, "ET": 3, "RC": 4}
    write_nnunet(tmp_path, [make_case("A")], labels=labels)
    scanned = scan_raw_folder(tmp_path)
    assert (scanned.anatomy, scanned.cases[0].label_values) == (POST_TREATMENT, {0: 0, 1: 2, 2: 1, 3: 3, 4: 4})


# folders


@pytest.mark.parametrize("file", ["MANIFEST.tsv", "x.zip", "x-t1n.nii.gz.crdownload", "x.mha", "dicom/1.dcm"])
def test_a_case_folder_without_an_image_is_refused(tmp_path, file):
    write_brats_2023(tmp_path, make_cases("X-001-000", "X-002-000"))
    path = tmp_path / "X-003-000" / file
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no nifti")
    report = inspect_folder(tmp_path)
    assert list(report.refused) == ["X-003-000"]
    (problem,) = report.refused["X-003-000"]
    assert f"only {Path(file).parts[0]}" in problem.what
    assert "download it again" in problem.remedy


def test_a_folder_that_is_no_case_is_left_out_with_a_warning(tmp_path):
    write_brats_2023(tmp_path / "train", make_cases("X-001-000"))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "readme.txt").write_text("about the data")
    (problem,) = scan_raw_folder(tmp_path).problems
    assert (problem.severity, problem.case_id, problem.file) == ("warning", None, tmp_path / "docs")


@pytest.mark.parametrize("name", ["__MACOSX", "lost+found", "$RECYCLE.BIN", "System Volume Information", "@eaDir"])
def test_folders_of_the_system_are_no_data(tmp_path, name):
    write_brats_2018(tmp_path, make_cases("A"))
    before = folder_signature(tmp_path)
    write_brats_2018(tmp_path / name, make_cases("A"))
    scanned = scan_raw_folder(tmp_path)
    assert (len(scanned.cases), scanned.problems) == (1, ())
    assert folder_signature(tmp_path) == before


def test_a_data_folder_inside_the_raw_folder_is_left_out(tmp_path):
    write_brats_2018(tmp_path, make_cases("A"))
    before = folder_signature(tmp_path)
    own = DataFolder(tmp_path / "data")
    own.dagster_home.mkdir(parents=True)
    own.study_file.write_text("{}")
    save(own.artifact("reduced_evaluation", "all") / "segmentations" / "A.nii.gz", np.ones(SHAPE, np.uint8))
    scanned = scan_raw_folder(tmp_path)
    assert (len(scanned.cases), scanned.problems) == (1, ())
    assert folder_signature(tmp_path) == before


def move_into_folders_of_their_names(files):
    """As 7-Zip does: CASE_flair.nii becomes a folder, with the file under another name."""
    for number, file in enumerate(files):
        content = gzip.decompress(file.read_bytes())
        file.unlink()
        folder = file.with_suffix("")
        folder.mkdir()
        (folder / f"{number:08d}_brain.nii").write_bytes(content)


def test_brats_files_in_folders_of_their_names_are_read(tmp_path):
    expected = make_case("A")
    write_brats_2018(tmp_path, [expected])
    move_into_folders_of_their_names(sorted((tmp_path / "A").iterdir()))
    assert scan_raw_folder(tmp_path).problems == ()
    case = read_only(tmp_path)
    np.testing.assert_array_equal(case.image, expected.image)
    np.testing.assert_array_equal(case.label, expected.label)
    assert list(inspect_folder(tmp_path).facts) == ["A"]


def test_nnunet_files_in_folders_of_their_names_are_read(tmp_path):
    expected = make_case("A")
    write_nnunet(tmp_path, [expected])
    move_into_folders_of_their_names(sorted(tmp_path.glob("*Tr/*.nii.gz")))
    assert scan_raw_folder(tmp_path).problems == ()
    case = read_only(tmp_path)
    np.testing.assert_array_equal(case.image, expected.image)
    np.testing.assert_array_equal(case.label, expected.label)


@pytest.mark.parametrize("more", [{}, {"file_ending": ".nii.gz"}])
def test_nnunet_v1_is_read_as_nnunet(tmp_path, more):
    expected = make_case("A")
    write_nnunet(tmp_path, [expected])
    training = [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in "AB"]
    modality = {"0": "T1", "1": "T1ce", "2": "T2", "3": "FLAIR"}
    labels = {"0": "background", "1": "edema", "2": "non-enhancing", "3": "enhancing"}
    write_json(tmp_path, {"modality": modality, "labels": labels, "training": training, "numTraining": 1, **more})
    scanned = scan_raw_folder(tmp_path)
    assert scanned.layout is Layout.NNUNET
    np.testing.assert_array_equal(read_only(tmp_path).image, expected.image)
    (problem,) = scanned.problems
    assert (problem.case_id, problem.severity) == ("B", "error")
    assert "none of its files is there" in problem.what


@pytest.mark.parametrize("write", [write_msd, write_nnunet])
def test_another_number_of_cases_than_said_is_a_warning(tmp_path, write):
    write(tmp_path, make_cases("A", "B"))
    write_json(tmp_path, read_json(tmp_path) | {"numTraining": 12})
    (problem,) = scan_raw_folder(tmp_path).problems
    assert (problem.severity, problem.kind) == ("warning", "number of cases")
    assert problem.what == "'numTraining' is 12 and 2 cases are there"
    write_json(tmp_path, read_json(tmp_path) | {"numTraining": "2"})
    assert scan_raw_folder(tmp_path).problems == ()


# intensities

BRAIN = (slice(3, 21), slice(3, 17), slice(2, 10))


def make_head(case_id, seed=0):
    """A brain in a background of 0, large enough for percentiles to mean something, with a lesion inside."""
    rng = np.random.default_rng(seed)
    image = np.zeros((4, 24, 20, 12), np.float32)
    image[(slice(None), *BRAIN)] = rng.normal(500, 60, (4, 18, 14, 8)).round()
    label = np.zeros(image.shape[1:], np.uint8)
    label[8:12, 8:12, 4:7], label[9:11, 9:11, 5], label[9, 9, 5] = 1, 2, 3
    return dataclasses.replace(make_case(case_id), image=image, label=label)


def make_heads(*case_ids):
    return [make_head(case_id, seed) for seed, case_id in enumerate(case_ids)]


def inspect_one(folder, case):
    names = ("Flair", "T1", "T1ce", "T2")
    write_nnunet(folder, [dataclasses.replace(case, image=np.zeros_like(case.image))], names)
    for place, channel in enumerate(case.image):
        save(folder / "imagesTr" / f"{case.case_id}_{place:04d}.nii.gz", channel, case.affine)
    return inspect_folder(folder)


def kinds(report, case_id="A"):
    return [warning.kind for warning in report.warnings if warning.case_id == case_id]


def test_a_sound_head_has_no_warning(tmp_path):
    report = inspect_one(tmp_path, make_head("A"))
    assert (list(report.facts), report.problems, kinds(report)) == (["A"], (), [])


@pytest.mark.parametrize("value", [1e12, 65535, -32768])
def test_a_spike_is_a_warning(tmp_path, value):
    case = make_head("A")
    case.image[0, 10, 10, 5] = value
    report = inspect_one(tmp_path, case)
    assert kinds(report) == ["spike"]
    assert "channel FLAIR has a spike" in report.warnings[0].what


@pytest.mark.parametrize("scale", [(1, 0), (2.5, 7)])
def test_a_copied_channel_is_a_warning(tmp_path, scale):
    case = make_head("A")
    case.image[2] = np.where(case.image[1] > 0, case.image[1] * scale[0] + scale[1], 0)
    report = inspect_one(tmp_path, case)
    assert [warning.what for warning in report.warnings] == ["channel T1gd is a copy of T1w"]


def test_a_channel_that_lacks_slices_is_a_warning(tmp_path):
    case = make_head("A")
    case.image[3, :, :, 6:] = 0
    report = inspect_one(tmp_path, case)
    assert [warning.what for warning in report.warnings] == ["channel T2w is 0 in 50% of the image"]


@pytest.mark.parametrize("value", [0, 7])
def test_a_case_without_any_image_is_refused(tmp_path, value):
    case = make_head("A")
    case.image[:] = value
    report = inspect_one(tmp_path, case)
    assert [problem.kind for problem in report.refused["A"]] == ["no image"]


@pytest.mark.parametrize(("shift", "refused", "warned"), [(14, True, 0), (12, False, 1), (0, False, 0)])
def test_a_label_beside_the_image(tmp_path, shift, refused, warned):
    case = make_head("A")
    case.label[:] = 0
    case.label[7 + shift : 10 + shift, 8:12, 4:7] = 1
    case.label[7, 8, 5] = 3
    report = inspect_one(tmp_path, case)
    assert [problem.kind for problem in report.refused.get("A", [])] == refused * ["label beside the image"]
    assert kinds(report) == warned * ["label beside the image"]


def test_a_hole_in_the_brain_may_be_labelled(tmp_path):
    """A necrosis may be 0 in all channels."""
    case = make_head("A")
    case.image[:, case.label > 0] = 0
    report = inspect_one(tmp_path, case)
    assert (list(report.facts), kinds(report)) == (["A"], [])


def test_air_that_is_labelled_is_a_warning_only(tmp_path):
    case = make_head("A")
    case.image[case.image == 0] = -1000
    case.label[:] = 0
    case.label[:3, :, :] = 1
    report = inspect_one(tmp_path, case)
    assert (report.refused, kinds(report)) == ({}, ["label beside the image"])


# one case among others


def test_another_background_than_in_the_others_is_a_warning(tmp_path):
    cases = make_heads(*"ABCD")
    cases[1].image[cases[1].image == 0] = -9
    report = inspect_folder(write_msd(tmp_path, cases))
    assert [(warning.case_id, warning.kind) for warning in report.warnings] == [("B", "another background")]


def reoriented(case, axes):
    image = nib.Nifti1Image(np.moveaxis(case.image, 0, 3), np.diag([-1.0, -2.0, 3.0, 1.0]))
    label = nib.Nifti1Image(case.label, image.affine)
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("LPS"), nib.orientations.axcodes2ornt(axes)
    )
    image, label = image.as_reoriented(turn), label.as_reoriented(turn)
    x, y, z = nib.affines.voxel_sizes(image.affine)
    return dataclasses.replace(
        case,
        image=np.moveaxis(np.asarray(image.dataobj), 3, 0),
        label=np.asarray(label.dataobj),
        affine=image.affine,
        spacing=(x, y, z),
    )


@pytest.mark.parametrize(("axes", "refused"), [("SLP", True), ("LSP", True), ("RAS", False), ("LAS", False)])
def test_a_case_stored_along_other_axes(tmp_path, axes, refused):
    cases = [reoriented(case, "LPS" if case.case_id != "C" else axes) for case in make_heads(*"ABCD")]
    report = inspect_folder(write_msd(tmp_path, cases))
    assert ("C" in report.refused) == refused
    (problem,) = [problem for problem in report.problems if problem.case_id == "C"]
    assert "3 of 4 cases are LPS" in problem.what
    assert "to LPS" in problem.remedy
    assert problem.kind == ("other slice planes" if refused else "mirrored axes")


def test_where_no_orientation_is_usual_nobody_is_refused(tmp_path):
    cases = [reoriented(case, axes) for case, axes in zip(make_heads(*"AB"), ("LPS", "SLP"), strict=True)]
    report = inspect_folder(write_msd(tmp_path, cases))
    assert report.refused == {}
    assert [warning.kind for warning in report.warnings] == ["several orientations"]


@pytest.mark.parametrize(("voxels", "refused", "warned"), [(1, 1, 0), (4, 0, 1), (40, 0, 0)])
def test_a_lesion_that_resampling_would_lose(tmp_path, voxels, refused, warned):
    cases = [reoriented(case, "LPS") for case in make_heads(*"ABC")]
    cases[1].label[:] = 0
    cases[1].label[5:9, 4:14, 5].flat[:voxels] = 3
    half = np.diag([0.5, 0.5, 1, 1])
    cases[1] = dataclasses.replace(cases[1], affine=cases[1].affine @ half)
    report = inspect_folder(write_msd(tmp_path, cases))
    assert [problem.kind for problem in report.refused.get("B", [])] == refused * ["lesion below a voxel"]
    assert kinds(report, "B") == warned * ["lesion below a voxel"]


# one look at the folder


def test_a_folder_is_listed_once_for_all_of_its_cases(tmp_path, monkeypatch):
    from idal_assets.imaging import readers

    looks = []
    scan = readers.scan_brats
    monkeypatch.setattr(readers, "scan_brats", lambda *given: looks.append(given) or scan(*given))
    names = [f"case_{number}" for number in range(6)]
    write_brats_2018(tmp_path, make_cases(*names))
    found = [find_case(tmp_path, name, are_there) for name in names]
    assert [files.case_id for files in found] == names
    assert len(looks) == 1
    # what came, moved or changed its meaning since is found all the same
    write_brats_2018(tmp_path, make_cases("new"))
    assert find_case(tmp_path, "new", are_there).case_id == "new"
    (tmp_path / "HGG").mkdir()
    (tmp_path / "new").rename(tmp_path / "HGG" / "new")
    assert find_case(tmp_path, "new", are_there).label == tmp_path / "HGG" / "new" / "new_seg.nii.gz"
    write_json(tmp_path, {"labels": {"necrosis": 1, "edema": 4, "enhancing": 2}})
    assert find_case(tmp_path, "new", are_there).label_values == {0: 0, 1: 2, 4: 1, 2: 3}
    assert find_case(tmp_path, "never", are_there) is None
