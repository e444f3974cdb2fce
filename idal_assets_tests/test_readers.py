"""Every layout gives the same case; every bad input is named with its remedy and leaves the other cases alone."""

import copy
import dataclasses
import gzip
import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from idal_assets.anatomy import Anatomy
from idal_assets.imaging.brain_tumour import BRAIN_TUMOUR
from idal_assets.imaging.case import CaseError
from idal_assets.imaging.problems import CaseProblems
from idal_assets.imaging.raw_folder import Layout
from idal_assets.imaging.readers import read_case, scan_raw_folder
from idal_assets_tests.raw_folders import (
    AFFINE,
    NNUNET_LABELS,
    SHAPE,
    SPACING,
    WRITERS,
    make_case,
    make_cases,
    make_organ,
    msd_entry,
    read_json,
    real_data,
    save,
    write_brats_2018,
    write_brats_2023,
    write_dataset,
    write_json,
    write_msd,
    write_nnunet,
)

pytestmark = pytest.mark.unit


def ids(folder):
    return [case.case_id for case in folder.cases]


def only_problem(folder, case_id):
    """The one problem of a case, which is refused."""
    problems = [problem for problem in folder.problems if problem.case_id == case_id]
    assert len(problems) == 1, problems
    assert problems[0].severity == "error"
    assert case_id not in ids(folder)
    return problems[0]


def read_only(folder):
    scanned = scan_raw_folder(folder)
    assert scanned.problems == ()
    (files,) = scanned.cases
    return read_case(files)


def refusal(folder, case_id="A"):
    """What reading a case says, checked to name the case."""
    (files,) = [case for case in scan_raw_folder(folder).cases if case.case_id == case_id]
    with pytest.raises(CaseProblems) as caught:
        read_case(files)
    assert all(problem.case_id == case_id and problem.remedy for problem in caught.value.problems)
    return caught.value


# the four layouts


@pytest.mark.parametrize("layout", WRITERS)
def test_every_layout_gives_the_same_case(tmp_path, layout):
    expected = make_case("case-A.1_x")
    scanned = scan_raw_folder(WRITERS[layout](tmp_path, [expected]))
    assert (scanned.layout.value, scanned.problems) == (layout, ())
    case = read_case(scanned.cases[0])
    assert case.case_id == "case-A.1_x"
    assert case.image.dtype == np.float32
    assert case.label.dtype == np.uint8
    np.testing.assert_array_equal(case.image, expected.image)
    np.testing.assert_array_equal(case.label, expected.label)
    np.testing.assert_allclose(case.affine, AFFINE, atol=1e-5)
    assert case.spacing == pytest.approx(SPACING)


@pytest.mark.parametrize(
    ("write", "by_hand"),
    [
        (write_brats_2018, {"1": 4, "2": 6, "4": 2}),
        (write_brats_2023, {"1": 4, "2": 6, "3": 2}),
    ],
)
def test_brats_labels_are_mapped_by_meaning(tmp_path, write, by_hand):
    """Of the 12 labelled voxels 6 are oedema (BraTS 2), 4 necrotic (BraTS 1) and 2 enhancing (BraTS 4 or 3)."""
    write(tmp_path, [make_case("A")])
    (label_file,) = tmp_path.glob("A/*seg*")
    on_disk = np.asarray(nib.load(label_file).dataobj)
    assert {str(value): int((on_disk == value).sum()) for value in np.unique(on_disk) if value} == by_hand
    label = read_only(tmp_path).label
    assert [int((label == value).sum()) for value in (1, 2, 3)] == [6, 4, 2]


def test_cases_are_sorted_and_the_files_of_a_layout_are_named(tmp_path):
    scanned = scan_raw_folder(write_nnunet(tmp_path, make_cases("B", "A")))
    assert ids(scanned) == ["A", "B"]
    # by default the files are T1, T1ce, T2, Flair
    names = [path.name for path in scanned.cases[0].images]
    assert names == ["A_0003.nii.gz", "A_0000.nii.gz", "A_0001.nii.gz", "A_0002.nii.gz"]


def test_msd_channels_go_by_name(tmp_path):
    expected = make_case("A")
    scanned = scan_raw_folder(write_msd(tmp_path, [expected], order=(2, 0, 3, 1)))
    # the file holds T1gd, FLAIR, T2w, T1w
    assert scanned.cases[0].channel_order == (1, 3, 0, 2)
    np.testing.assert_array_equal(read_case(scanned.cases[0]).image, expected.image)


@pytest.mark.parametrize(
    "names",
    [("FLAIR", "T1w", "T1gd", "T2w"), ("T2-FLAIR", "t1", "T1-Gd", "t2"), ("t2f", "t1n", "t1c", "t2w")],
)
def test_channel_synonyms(tmp_path, names):
    expected = make_case("A")
    write_msd(tmp_path, [expected])
    write_json(tmp_path, read_json(tmp_path) | {"modality": {str(i): name for i, name in enumerate(names)}})
    np.testing.assert_array_equal(read_only(tmp_path).image, expected.image)


def test_nnunet_with_modality_instead_of_channel_names(tmp_path):
    expected = make_case("A")
    meta = read_json(write_nnunet(tmp_path, [expected]))
    meta["modality"] = meta.pop("channel_names")
    write_json(tmp_path, meta)
    np.testing.assert_array_equal(read_only(tmp_path).image, expected.image)


def test_nifti_without_compression_is_read(tmp_path):
    expected = make_case("A")
    write_brats_2018(tmp_path, [expected], ending=".nii")
    np.testing.assert_array_equal(read_only(tmp_path).image, expected.image)


def test_nifti_2_and_a_label_with_a_fourth_axis_of_one_are_read(tmp_path):
    expected = make_case("A")
    write_msd(tmp_path, [expected])
    label = nib.Nifti2Image(expected.label[..., np.newaxis], AFFINE)
    nib.save(label, tmp_path / "labelsTr" / "A.nii.gz")
    np.testing.assert_array_equal(read_only(tmp_path).label, expected.label)


def test_scaled_and_float_files_are_read(tmp_path):
    expected = make_case("A")
    write_brats_2018(tmp_path, [expected])
    scaled = nib.Nifti1Image((expected.image[0] * 2 + 10).astype(np.float32), AFFINE)
    scaled.header.set_slope_inter(1, 0)
    nib.save(scaled, tmp_path / "A" / "A_flair.nii.gz")
    save(tmp_path / "A" / "A_seg.nii.gz", np.array([0, 2, 1, 4])[expected.label].astype(np.float64))
    case = read_only(tmp_path)
    np.testing.assert_array_equal(case.image[0], expected.image[0] * 2 + 10)
    np.testing.assert_array_equal(case.label, expected.label)


def test_brats_cases_may_be_nested_and_linked(tmp_path):
    write_brats_2018(tmp_path / "raw" / "HGG", make_cases("A"))
    write_brats_2018(tmp_path / "raw" / "LGG", make_cases("B"))
    write_brats_2018(tmp_path / "elsewhere", make_cases("C"))
    (tmp_path / "raw" / "LGG" / "C").symlink_to(tmp_path / "elsewhere" / "C")
    (tmp_path / "raw" / "LGG" / "loop").symlink_to(tmp_path / "raw")
    (tmp_path / "raw" / "name_mapping.csv").write_text("no image")
    scanned = scan_raw_folder(tmp_path / "raw")
    assert (ids(scanned), scanned.problems) == (["A", "B", "C"], ())


def test_hidden_files_and_test_images_are_left_out(tmp_path):
    write_msd(tmp_path, [make_case("A")])
    for name in ("imagesTr/._A.nii.gz", "labelsTr/._A.nii.gz", "imagesTs/T.nii.gz", "._dataset.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"no nifti")
    scanned = scan_raw_folder(tmp_path)
    assert (ids(scanned), scanned.problems) == (["A"], ())


# label names


@pytest.mark.parametrize(
    "labels",
    [
        NNUNET_LABELS,
        {"background": 0, "peritumoral tissue": 1, "NCR": 2, "GD-enhancing tumour": 3},
        {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": 3},
    ],
)
def test_nnunet_labels_in_the_order_of_the_convention(tmp_path, labels):
    scanned = scan_raw_folder(write_nnunet(tmp_path, [make_case("A")], labels=labels))
    assert scanned.cases[0].label_values == {0: 0, 1: 1, 2: 2, 3: 3}


@pytest.mark.parametrize(
    "labels",
    [
        {"background": 0, "necrotic and non-enhancing": 1, "oedema": 2, "enhancing": 3},
        {"background": 0, "WT": [1, 2, 3], "TC": [1, 3], "ET": [3]},
        {"0": "background", "1": "necrosis", "2": "edema", "3": "enhancing tumor"},
    ],
)
def test_labels_go_by_name(tmp_path, labels):
    case = make_case("A")
    write_nnunet(tmp_path, [case], labels=labels)
    save(tmp_path / "labelsTr" / "A.nii.gz", np.array([0, 2, 1, 3], np.uint8)[case.label])
    np.testing.assert_array_equal(read_only(tmp_path).label, case.label)


def test_necrotic_and_non_enhancing_may_be_two_values(tmp_path):
    labels = {"background": 0, "necrosis": 1, "edema": 2, "non enhancing": 3, "enhancing": 4}
    scanned = scan_raw_folder(write_nnunet(tmp_path, [make_case("A")], labels=labels))
    assert scanned.cases[0].label_values == {0: 0, 1: 2, 2: 1, 3: 2, 4: 3}


@pytest.mark.parametrize(
    "labels",
    [
        {},
        {"background": 0, "edema": 1, "necrosis": 1, "enhancing": 3},
        {"background": 0, "edema": 1, "enhancing": 3},
        {"background": 1, "edema": 0, "necrosis": 2, "enhancing": 3},
        {"background": 0, "edema": "1", "necrosis": 2, "enhancing": 3},
        {"background": 0, "whole tumor": [1, 2, 3], "something": [2, 3], "enhancing tumor": 3},
        {"background": 0, "whole tumor": [1, 2], "tumor core": [2, 3], "enhancing tumor": 3},
    ],
)
def test_labels_that_contradict_themselves_are_refused_with_what_to_write(tmp_path, labels):
    write_nnunet(tmp_path, [make_case("A")], labels=labels)
    with pytest.raises(CaseError, match=r"dataset\.json.*write 'labels'.*non-enhancing tumor"):
        scan_raw_folder(tmp_path)


# other anatomies than that of BraTS

ORGAN_LABELS = {"0": "background", "1": "head", "2": "tail"}
ORGAN_REGIONS = {"background": 0, "organ": [1, 2], "tail": [2]}


def by_name(labels):
    return {name: int(value) for value, name in labels.items()}


@pytest.mark.parametrize("nnunet", [False, True])
def test_a_dataset_of_one_channel_is_read_as_it_is(tmp_path, nnunet):
    expected = make_organ("A")
    labels = by_name(ORGAN_LABELS) if nnunet else ORGAN_LABELS
    write_dataset(tmp_path, [expected], labels, nnunet=nnunet)
    scanned = scan_raw_folder(tmp_path)
    assert scanned.problems == ()
    assert scanned.anatomy == Anatomy.of(["MRI"], {1: "head", 2: "tail"})
    (files,) = scanned.cases
    assert (files.anatomy, files.channel_order, files.label_values) == (scanned.anatomy, (0,), {0: 0, 1: 1, 2: 2})
    assert [path.name for path in files.images] == ["A_0000.nii.gz" if nnunet else "A.nii.gz"]
    case = read_case(files)
    assert case.image.dtype == np.float32
    np.testing.assert_array_equal(case.image, expected.image)
    np.testing.assert_array_equal(case.label, expected.label)
    assert case.require_label() is case.label


@pytest.mark.parametrize("nnunet", [False, True])
def test_a_dataset_of_several_channels_keeps_their_order(tmp_path, nnunet):
    case = make_case("A")
    expected = dataclasses.replace(case, image=case.image[:3])
    labels = by_name(ORGAN_LABELS) | {"part 3": 3} if nnunet else ORGAN_LABELS | {"3": "part 3"}
    write_dataset(tmp_path, [expected], labels, ("T2", "ADC", "DWI"), nnunet)
    scanned = scan_raw_folder(tmp_path)
    assert scanned.anatomy.channels == ("T2", "ADC", "DWI")
    np.testing.assert_array_equal(read_only(tmp_path).image, expected.image)


@pytest.mark.parametrize("shape", [(*SHAPE, 2), SHAPE[:2]])
def test_an_image_of_another_number_of_channels_than_one(tmp_path, shape):
    write_dataset(tmp_path, [make_organ("A")], ORGAN_LABELS)
    save(tmp_path / "imagesTr" / "A.nii.gz", np.ones(shape, np.int16))
    (problem,) = refusal(tmp_path).problems
    assert "not (X, Y, Z)" in problem.what


@pytest.mark.parametrize(
    ("channels", "labels"),
    [
        (("FLAIR", "T1w", "T1gd", "T2w"), {"background": 0, "tumour": 1, "edema": 2, "enhancing": 3}),
        (("FLAIR", "T1w", "T1gd", "T2w"), {"background": 0, "edema": 1, "necrosis with rim enhancing": 2, "c": 3}),
        (("FLAIR", "T1w", "T1gd", "T2w"), NNUNET_LABELS | {"ignore": 4}),
        (("MRI", "T1", "T1ce", "T2"), NNUNET_LABELS),
        (("T1", "T1w", "T1ce", "T2"), NNUNET_LABELS),
        (("FLAIR", "T1", "T1ce"), NNUNET_LABELS),
    ],
)
@pytest.mark.parametrize("nnunet", [False, True])
def test_half_a_brain_tumour_is_an_anatomy_of_its_own(tmp_path, channels, labels, nnunet):
    case = make_case("A")
    case = dataclasses.replace(case, image=case.image[: len(channels)])
    by_value = {str(value): name for name, value in labels.items()}
    write_dataset(tmp_path, [case], labels if nnunet else by_value, channels, nnunet)
    anatomy = scan_raw_folder(tmp_path).anatomy
    assert anatomy.channels == channels
    assert by_value | {str(value): name for value, name in anatomy.labels.items()} == by_value
    assert (anatomy.ignore, anatomy.size) == (labels.get("ignore"), 4)
    np.testing.assert_array_equal(read_only(tmp_path).label, case.label)


@pytest.mark.parametrize("layout", WRITERS)
def test_the_brain_tumour_of_every_layout_is_the_preset(tmp_path, layout):
    scanned = scan_raw_folder(WRITERS[layout](tmp_path, make_cases("A")))
    assert scanned.anatomy == scanned.cases[0].anatomy == BRAIN_TUMOUR


def test_regions_are_trained_and_give_their_names_to_labels(tmp_path):
    labels = {"background": [0], "organ": [1, 2, 3], "end": [2, 3], "tail": [3], "ignore": 4}
    write_dataset(tmp_path, [make_organ("A")], labels, nnunet=True, regions_class_order=[1, 2, 3])
    anatomy = scan_raw_folder(tmp_path).anatomy
    assert dict(anatomy.labels) == {1: "label 1", 2: "label 2", 3: "tail"}
    assert anatomy.composites == anatomy.trained == ("organ", "end", "tail")
    assert anatomy.singles == ("label 1", "label 2", "tail")
    assert (anatomy.class_order, anatomy.ignore) == ((1, 2, 3), 4)


def test_lists_of_one_value_are_labels(tmp_path):
    write_dataset(tmp_path, [make_organ("A")], {"background": 0, "head": [1], "tail": [2]}, nnunet=True)
    assert scan_raw_folder(tmp_path).anatomy == Anatomy.of(["MRI"], {1: "head", 2: "tail"})


def test_ignored_voxels_keep_their_value(tmp_path):
    case = make_organ("A")
    case.label[5, 4, 3] = 3
    write_dataset(tmp_path, [case], by_name(ORGAN_LABELS) | {"ignore": 3}, nnunet=True)
    assert scan_raw_folder(tmp_path).anatomy.ignore == 3
    np.testing.assert_array_equal(read_only(tmp_path).label, case.label)


@pytest.mark.parametrize(
    ("labels", "what"),
    [
        (None, "no 'labels'"),
        ({}, "no 'labels'"),
        (["background", "head"], "no 'labels'"),
        ({"background": 0}, r"label values are \[\]"),
        ({"background": 0, "head": 1, "tail": 3}, r"label values are \[1, 3\].*without a gap"),
        ({"background": 0, "head": 1, "tail": 1}, "labels 'head' and 'tail' have the same value 1"),
        ({"background": 0, "head": 1, "tail": 2.0}, "label 'tail' has the value 2.0, which is no whole number"),
        ({"background": 0, "head": True}, "label 'head' has the value True"),
        ({"background": 0, "head": "1"}, "label 'head' has the value '1'"),
        ({"background": 0, "head": -1}, "label 'head' has the value -1"),
        ({"background": 0, "head": 128}, "label 'head' has the value 128; values up to 127"),
        ({"background": 1, "head": 0}, "label 'background' cannot have the value 1: 0 is the background"),
        ({"head": 0, "tail": 1}, "label 'head' cannot have the value 0"),
        ({"background": 0, "mean": 1}, "'mean' is the name of the scalar"),
        ({"background": 0, "head": 1, "ignore": 3}, "ignore has the value 3; it must be 2, the highest"),
        ({"background": 0, "ignore": 1, "head": 2}, r"label values are \[2\]"),
        ({"background": 0, "head": 1, "ignore": [1, 2]}, "label 'ignore' cannot have the value"),
        (ORGAN_REGIONS, "'regions_class_order' is None and labels are regions"),
        (ORGAN_REGIONS | {"head": 2}, "'regions_class_order' is None"),
    ],
)
def test_labels_that_cannot_be_meant_are_refused_by_name(tmp_path, labels, what):
    write_dataset(tmp_path, [make_organ("A")], labels, nnunet=True)
    with pytest.raises(CaseError, match=rf"dataset\.json: .*{what}.*; write 'labels' with"):
        scan_raw_folder(tmp_path)


@pytest.mark.parametrize(
    ("labels", "order", "what"),
    [
        (ORGAN_REGIONS, [1], "needs one label value for each of organ, tail"),
        (ORGAN_REGIONS, [1, 2, 3], "needs one label value for each of organ, tail"),
        (ORGAN_REGIONS, [1, "2"], "'regions_class_order' is"),
        (ORGAN_REGIONS, [2, 1], "'tail' would write 1"),
        (ORGAN_REGIONS | {"end": 2}, [1, 2, 2], "labels 'tail' and 'end' have the same value 2"),
        ({"background": 0, "organ": [1, 1]}, [1], r"region 'organ' holds the values \[1, 1\]"),
        ({"background": 0, "organ": [0, 1]}, [1], "label 'organ' has the value 0"),
        ({"background": 0, "organ": []}, [1], r"region 'organ' holds the values \[\]"),
        ({"background": 0, "organ": [1, 3], "end": [3]}, [1, 3], r"label values are \[1, 3\]"),
        (
            {"background": 0, "label 1": [1, 2], "end": [2]},
            [1, 2],
            "'label 1' is the name of a label and of another",
        ),
    ],
)
def test_regions_that_cannot_be_meant_are_refused_by_name(tmp_path, labels, order, what):
    write_dataset(tmp_path, [make_organ("A")], labels, nnunet=True, regions_class_order=order)
    with pytest.raises(CaseError, match=rf"dataset\.json: .*{what}.*; write 'labels' with"):
        scan_raw_folder(tmp_path)


@pytest.mark.parametrize(
    ("labels", "what"),
    [
        ({"0": "background", "1": "head", "2": "head"}, "label name 'head' is there twice"),
        ({"0": "background", "1": "head", "01": "tail"}, "labels 'head' and 'tail' have the same value 1"),
        ({"0": "background", "1": 1}, "label 1 has the name 1, which is no text"),
        ({"0": "organ", "1": "head"}, "label 'organ' cannot have the value 0"),
        ({"0": "background", "1": "head", "3": "tail"}, "without a gap"),
    ],
)
def test_msd_labels_that_cannot_be_meant_are_refused_by_name(tmp_path, labels, what):
    write_dataset(tmp_path, [make_organ("A")], labels)
    with pytest.raises(CaseError, match=rf"dataset\.json: .*{what}.*; write 'labels' with"):
        scan_raw_folder(tmp_path)


def test_nnunet_files_of_a_single_channel_that_are_named_wrongly(tmp_path):
    write_dataset(tmp_path, [make_organ(name) for name in "ABC"], by_name(ORGAN_LABELS), nnunet=True)
    (tmp_path / "imagesTr" / "B_0000.nii.gz").rename(tmp_path / "imagesTr" / "B.nii.gz")
    save(tmp_path / "imagesTr" / "C_0001.nii.gz", np.ones(SHAPE, np.int16))
    scanned = scan_raw_folder(tmp_path)
    assert ids(scanned) == ["A"]
    remedies = [problem.remedy for problem in scanned.problems]
    assert "name it CASE_0000 by its channel" in remedies
    assert "remove it: channels are numbered 0000" in remedies


# folders that are refused as a whole


@pytest.mark.parametrize(
    "names",
    [
        {"1": "FLAIR", "2": "T1", "3": "T1ce", "4": "T2"},
        {"0": "FLAIR", "1": "T1", "3": "T1ce"},
        {"0": "FLAIR", "01": "T1"},
        {"0": "MRI", "1": "MRI"},
        {"0": "MRI", "1": " "},
        {"0": "MRI", "1": 2},
        {"0": "MRI", "1": "label"},
        {},
        None,
        ["FLAIR", "T1", "T1ce", "T2"],
    ],
)
@pytest.mark.parametrize(("write", "key"), [(write_msd, "modality"), (write_nnunet, "channel_names")])
def test_channels_that_contradict_themselves_are_refused_with_what_to_write(tmp_path, names, write, key):
    write(tmp_path, [make_case("A")])
    write_json(tmp_path, read_json(tmp_path) | {key: names})
    with pytest.raises(CaseError, match=rf'dataset\.json.*write "{key}": .*"2": "T1gd"'):
        scan_raw_folder(tmp_path)


def test_a_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(CaseError, match=r"nowhere: no such folder"):
        scan_raw_folder(tmp_path / "nowhere")


def test_a_folder_without_a_known_layout_is_refused_with_the_known_ones(tmp_path):
    save(tmp_path / "case" / "scan.nii.gz", np.ones(SHAPE, np.int16))
    with pytest.raises(CaseError) as caught:
        scan_raw_folder(tmp_path)
    assert all(layout.value in str(caught.value) for layout in Layout)


def test_imagestr_without_dataset_json_is_refused_with_what_to_write(tmp_path):
    write_nnunet(tmp_path, [make_case("A")])
    (tmp_path / "dataset.json").unlink()
    with pytest.raises(CaseError, match=r"without dataset\.json.*write one with 'channel_names'"):
        scan_raw_folder(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", '{"name": "x"}', '{"dataset": {}, "channel_names": {}}'])
def test_a_dataset_json_that_says_nothing_is_refused(tmp_path, content):
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(CaseError, match=r"dataset\.json"):
        scan_raw_folder(tmp_path)


def test_another_file_ending_is_refused(tmp_path):
    meta = read_json(write_nnunet(tmp_path, [make_case("A")]))
    write_json(tmp_path, meta | {"file_ending": ".nrrd"})
    with pytest.raises(CaseError, match=r"\.nrrd.*convert to \.nii\.gz"):
        scan_raw_folder(tmp_path)


@pytest.mark.parametrize("write", [write_msd, write_nnunet])
def test_a_folder_without_cases_says_so(tmp_path, write):
    scanned = scan_raw_folder(write(tmp_path, []))
    assert "without a case" in str(scanned.problems[0])


# single cases that are refused by name, A stays


@pytest.mark.parametrize("part", ["imagesTr", "labelsTr"])
def test_msd_file_listed_but_absent(tmp_path, part):
    write_msd(tmp_path, make_cases("A", "B"))
    (tmp_path / part / "B.nii.gz").unlink()
    scanned = scan_raw_folder(tmp_path)
    problem = only_problem(scanned, "B")
    assert ids(scanned) == ["A"]
    assert problem.file == tmp_path / part / "B.nii.gz"
    assert "absent" in problem.what
    assert str(problem) == f"B, {problem.file}: {problem.what}; {problem.remedy}"


def test_msd_case_present_but_not_listed(tmp_path):
    write_msd(tmp_path, make_cases("A", "B"))
    write_json(tmp_path, read_json(tmp_path) | {"training": [msd_entry("A")]})
    scanned = scan_raw_folder(tmp_path)
    assert ids(scanned) == ["A"]
    assert [(problem.case_id, problem.file.parent.name) for problem in scanned.problems] == [
        ("B", "imagesTr"),
        ("B", "labelsTr"),
    ]
    assert all("not listed" in problem.what and "training" in problem.remedy for problem in scanned.problems)


def test_msd_case_listed_twice(tmp_path):
    write_msd(tmp_path, make_cases("A", "B"))
    write_json(tmp_path, read_json(tmp_path) | {"training": [msd_entry(name) for name in "ABB"]})
    scanned = scan_raw_folder(tmp_path)
    assert "2 times" in only_problem(scanned, "B").what
    assert ids(scanned) == ["A"]


def test_msd_label_used_for_two_cases(tmp_path):
    write_msd(tmp_path, make_cases("A", "B", "C"))
    entries = [msd_entry("A"), msd_entry("B"), msd_entry("C") | {"label": "./labelsTr/B.nii.gz"}]
    write_json(tmp_path, read_json(tmp_path) | {"training": entries})
    scanned = scan_raw_folder(tmp_path)
    assert ids(scanned) == ["A"]
    assert "several cases" in only_problem(scanned, "B").what


def test_msd_case_compressed_and_not_is_a_duplicate(tmp_path):
    write_msd(tmp_path, make_cases("A", "B"))
    shutil.copy(tmp_path / "imagesTr" / "B.nii.gz", tmp_path / "imagesTr" / "B.nii")
    scanned = scan_raw_folder(tmp_path)
    assert only_problem(scanned, "B").file.name == "B.nii"
    assert ids(scanned) == ["A"]


@pytest.mark.parametrize("path", ["../../etc/B.nii.gz", "imagesTr/../../B.nii.gz", "/etc/B.nii.gz"])
def test_msd_path_must_not_leave_the_folder(tmp_path, path):
    write_msd(tmp_path, make_cases("A"))
    entries = [msd_entry("A"), {"image": path, "label": "./labelsTr/A.nii.gz"}]
    write_json(tmp_path, read_json(tmp_path) | {"training": entries})
    scanned = scan_raw_folder(tmp_path)
    problem = only_problem(scanned, "B")
    assert "outside" in problem.what
    assert "inside its folder" in problem.remedy
    assert ids(scanned) == ["A"]


@pytest.mark.parametrize("entry", ["./imagesTr/B.nii.gz", {"image": "./imagesTr/B.nii.gz"}, None, 3])
def test_msd_entry_that_is_no_pair(tmp_path, entry):
    write_msd(tmp_path, make_cases("A"))
    write_json(tmp_path, read_json(tmp_path) | {"training": [entry, msd_entry("A")]})
    scanned = scan_raw_folder(tmp_path)
    (problem,) = scanned.problems
    assert "entry 0 of 'training'" in problem.what
    assert problem.file == tmp_path / "dataset.json"
    assert ids(scanned) == ["A"]


def test_msd_entry_that_is_no_nifti(tmp_path):
    write_msd(tmp_path, make_cases("A"))
    entries = [msd_entry("A"), {"image": "imagesTr/B.mha", "label": "labelsTr/B.mha"}]
    write_json(tmp_path, read_json(tmp_path) | {"training": entries})
    scanned = scan_raw_folder(tmp_path)
    assert "B.mha: image is not a NIfTI file" in str(scanned.problems[0])
    assert ids(scanned) == ["A"]


@pytest.mark.parametrize(("name", "role"), [("imagesTr/B_0001.nii.gz", "T1gd"), ("labelsTr/B.nii.gz", "label")])
def test_nnunet_file_missing(tmp_path, name, role):
    write_nnunet(tmp_path, make_cases("A", "B"))
    (tmp_path / name).unlink()
    scanned = scan_raw_folder(tmp_path)
    problem = only_problem(scanned, "B")
    assert (problem.file, problem.what) == (tmp_path / name, f"{role} is missing")
    assert "add the file" in problem.remedy
    assert ids(scanned) == ["A"]


def test_nnunet_label_without_images(tmp_path):
    write_nnunet(tmp_path, make_cases("A"))
    save(tmp_path / "labelsTr" / "B.nii.gz", make_case("B").label)
    scanned = scan_raw_folder(tmp_path)
    assert ids(scanned) == ["A"]
    assert [problem.case_id for problem in scanned.problems if problem.severity == "error"] == 4 * ["B"]


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("imagesTr/B_0004.nii.gz", "extra channel"),
        ("imagesTr/B.nii.gz", "without a channel number"),
        ("imagesTr/B_0000.nii", "more than once"),
        ("labelsTr/B.nii", "more than once"),
    ],
)
def test_nnunet_file_too_many(tmp_path, name, what):
    write_nnunet(tmp_path, make_cases("A", "B"))
    save(tmp_path / name, np.ones(SHAPE, np.int16))
    scanned = scan_raw_folder(tmp_path)
    problem = only_problem(scanned, "B")
    assert problem.file.name in (name.split("/")[1], name.split("/")[1] + ".gz")
    assert what in problem.what
    assert ids(scanned) == ["A"]


def test_other_files_beside_the_images_are_a_warning(tmp_path):
    write_nnunet(tmp_path, make_cases("A"))
    (tmp_path / "imagesTr" / "notes.txt").write_text("no image")
    (tmp_path / "labelsTr" / "old").mkdir()
    scanned = scan_raw_folder(tmp_path)
    assert [problem.severity for problem in scanned.problems] == ["warning", "warning"]
    assert ids(scanned) == ["A"]


@pytest.mark.parametrize("layout", WRITERS)
def test_link_that_leads_nowhere(tmp_path, layout):
    WRITERS[layout](tmp_path, make_cases("A", "B"))
    label = next(path for path in tmp_path.rglob("B*") if "seg" in path.name or path.parent.name == "labelsTr")
    label.unlink()
    label.symlink_to(tmp_path / "gone.nii.gz")
    scanned = scan_raw_folder(tmp_path)
    problem = only_problem(scanned, "B")
    assert problem.file == label
    assert "absent" in problem.what
    assert ids(scanned) == ["A"]


@pytest.mark.parametrize(
    ("write", "name", "role"),
    [(write_brats_2018, "B_t1ce.nii.gz", "T1gd"), (write_brats_2023, "B-seg.nii.gz", "label")],
)
def test_brats_file_missing(tmp_path, write, name, role):
    write(tmp_path, make_cases("A", "B"))
    (tmp_path / "B" / name).unlink()
    scanned = scan_raw_folder(tmp_path)
    problem = only_problem(scanned, "B")
    assert (problem.file, problem.what) == (tmp_path / "B" / name, f"{role} is missing")
    assert ids(scanned) == ["A"]


def test_brats_label_of_another_name_is_read_with_a_warning(tmp_path):
    """BraTS 2020 was handed out with the label of case 355 as W39_1998.09.19_Segm.nii."""
    write_brats_2018(tmp_path, make_cases("A", "B"))
    renamed = (tmp_path / "B" / "B_seg.nii.gz").rename(tmp_path / "B" / "W39_1998.09.19_Segm.nii.gz")
    scanned = scan_raw_folder(tmp_path)
    (problem,) = scanned.problems
    assert (problem.severity, problem.case_id, problem.file) == ("warning", "B", renamed)
    assert [case.label for case in scanned.cases] == [tmp_path / "A" / "A_seg.nii.gz", renamed]


@pytest.mark.parametrize("names", [("brainmask",), ("x_segm", "y_segm"), ("B-seg",)])
def test_brats_label_is_missing_where_no_single_file_is_called_a_segmentation(tmp_path, names):
    write_brats_2018(tmp_path, make_cases("A", "B"))
    (tmp_path / "B" / "B_seg.nii.gz").unlink()
    for name in names:
        shutil.copy(tmp_path / "A" / "A_seg.nii.gz", tmp_path / "B" / f"{name}.nii.gz")
    scanned = scan_raw_folder(tmp_path)
    assert [case.case_id for case in scanned.cases] == ["A"]
    assert "label is missing" in [problem.what for problem in scanned.problems if problem.case_id == "B"]


def test_brats_case_in_two_places(tmp_path):
    write_brats_2018(tmp_path / "HGG", make_cases("A", "B"))
    write_brats_2018(tmp_path / "LGG", make_cases("B"))
    scanned = scan_raw_folder(tmp_path)
    problem = only_problem(scanned, "B")
    assert "HGG" in problem.what
    assert "LGG" in problem.what
    assert ids(scanned) == ["A"]


def test_brats_file_twice_or_of_another_case(tmp_path):
    write_brats_2018(tmp_path, make_cases("A", "B", "C"))
    save(tmp_path / "B" / "B_t1.nii", np.ones(SHAPE, np.int16))
    shutil.copy(tmp_path / "A" / "A_t1.nii.gz", tmp_path / "C" / "A_t1.nii.gz")
    scanned = scan_raw_folder(tmp_path)
    assert "more than once" in only_problem(scanned, "B").what
    assert "another case (A)" in only_problem(scanned, "C").what
    assert ids(scanned) == ["A"]


def test_brats_cases_that_would_vanish_are_reported(tmp_path):
    """An empty folder, one with the names of the other generation, and files outside any folder."""
    write_brats_2018(tmp_path, make_cases("A", "D"))
    (tmp_path / "B").mkdir()
    write_brats_2023(tmp_path, make_cases("C"))
    save(tmp_path / "E_t1.nii.gz", np.ones(SHAPE, np.int16))
    scanned = scan_raw_folder(tmp_path)
    assert (scanned.layout, ids(scanned)) == (Layout.BRATS_2018, ["A", "D"])
    errors = [problem for problem in scanned.problems if problem.severity == "error"]
    assert [problem.case_id for problem in errors] == [None, "B"] + 5 * ["C"]
    assert "no NIfTI file in its folder" in errors[1].what
    assert "outside a folder of its own" in errors[0].what


@pytest.mark.parametrize("case_id", ["B 1", "B..1", "-B", "Bä"])
@pytest.mark.parametrize("layout", WRITERS)
def test_case_id_that_is_no_safe_folder_name(tmp_path, layout, case_id):
    scanned = scan_raw_folder(WRITERS[layout](tmp_path, make_cases("A", case_id)))
    problem = only_problem(scanned, case_id)
    assert "not safe" in problem.what
    assert "rename" in problem.remedy
    assert ids(scanned) == ["A"]


# files whose content cannot be used


def truncate(path):
    path.write_bytes(path.read_bytes()[:-40])


def fill_with_noise(path):
    path.write_bytes(np.random.default_rng(0).bytes(500))


def empty(path):
    path.write_bytes(b"")


def shorten_voxels(path):
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-20]))


def flip_checksum(path):
    content = bytearray(path.read_bytes())
    content[-8] ^= 255
    path.write_bytes(bytes(content))


def damage_stream(path):
    content = bytearray(path.read_bytes())
    content[30:60] = bytes(30)
    path.write_bytes(bytes(content))


def claim_a_huge_shape(path):
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[42:50] = np.array([30000, 30000, 30000, 4], "<i2").tobytes()
    content[40:42] = np.array([4], "<i2").tobytes()
    path.write_bytes(gzip.compress(bytes(content)))


DAMAGES = [truncate, fill_with_noise, empty, shorten_voxels, flip_checksum, damage_stream, claim_a_huge_shape]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("part", ["imagesTr", "labelsTr"])
def test_damaged_file(tmp_path, damage, part):
    write_msd(tmp_path, make_cases("A", "B"))
    path = tmp_path / part / "A.nii.gz"
    damage(path)
    (problem,) = refusal(tmp_path).problems
    assert problem.file == path
    assert "cannot be read" in problem.what
    assert "again" in problem.remedy
    assert "\n" not in str(problem)
    assert read_case(scan_raw_folder(tmp_path).cases[1]).case_id == "B"


def test_all_damaged_files_of_a_case_are_named(tmp_path):
    write_brats_2018(tmp_path, make_cases("A"))
    for name in ("A_flair.nii.gz", "A_t2.nii.gz", "A_seg.nii.gz"):
        truncate(tmp_path / "A" / name)
    names = [problem.file.name for problem in refusal(tmp_path).problems]
    assert names == ["A_flair.nii.gz", "A_t2.nii.gz", "A_seg.nii.gz"]


@pytest.mark.parametrize("shape", [(*SHAPE, 3), (*SHAPE, 5), SHAPE, (*SHAPE, 1, 4), SHAPE[:2]])
def test_msd_image_with_a_wrong_number_of_channels(tmp_path, shape):
    write_msd(tmp_path, make_cases("A"))
    path = save(tmp_path / "imagesTr" / "A.nii.gz", np.ones(shape, np.int16))
    (problem,) = refusal(tmp_path).problems
    assert problem.file == path
    assert "wrong number of channels" in problem.what


def test_channel_file_or_label_with_several_volumes(tmp_path):
    write_nnunet(tmp_path, make_cases("A"))
    save(tmp_path / "imagesTr" / "A_0002.nii.gz", np.ones((*SHAPE, 2), np.int16))
    save(tmp_path / "labelsTr" / "A.nii.gz", np.ones((*SHAPE, 2), np.uint8))
    names = [problem.file.name for problem in refusal(tmp_path).problems]
    assert names == ["A_0002.nii.gz", "A.nii.gz"]


@pytest.mark.parametrize(("name", "data"), [("t1ce", np.int16), ("seg", np.uint8)])
def test_shapes_that_differ(tmp_path, name, data):
    write_brats_2018(tmp_path, make_cases("A"))
    path = save(tmp_path / "A" / f"A_{name}.nii.gz", np.ones((6, 5, 3), data))
    (problem,) = refusal(tmp_path).problems
    assert problem.file == path
    assert "shape (6, 5, 3) differs from (6, 5, 4)" in problem.what


@pytest.mark.parametrize("name", ["t1ce", "seg"])
@pytest.mark.parametrize("entry", [(0, 0), (2, 3)])
def test_affines_that_differ(tmp_path, name, entry):
    write_brats_2018(tmp_path, make_cases("A"))
    path = tmp_path / "A" / f"A_{name}.nii.gz"
    data = np.asarray(nib.load(path).dataobj)
    affine = AFFINE.copy()
    affine[entry] += 5e-4
    save(path, data, affine)
    read_only(tmp_path)
    affine[entry] += 5e-3
    save(path, data, affine)
    (problem,) = refusal(tmp_path).problems
    assert problem.file == path
    assert "affine differs" in problem.what
    assert "mm" in problem.what


def test_header_that_contradicts_itself(tmp_path):
    write_msd(tmp_path, make_cases("A"))
    path = tmp_path / "imagesTr" / "A.nii.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[80:84] = np.array([1.5], "<f4").tobytes()  # pixdim[1]
    path.write_bytes(gzip.compress(bytes(content)))
    (problem,) = refusal(tmp_path).problems
    assert "contradicts" in problem.what


def test_affine_without_an_inverse(tmp_path):
    write_msd(tmp_path, make_cases("A"))
    path = tmp_path / "imagesTr" / "A.nii.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[280:296] = bytes(16)  # first row of sform
    path.write_bytes(gzip.compress(bytes(content)))
    (problem,) = refusal(tmp_path).problems
    assert "not invertible" in problem.what


def test_voxels_that_are_no_numbers(tmp_path):
    write_msd(tmp_path, make_cases("A"))
    save(tmp_path / "imagesTr" / "A.nii.gz", np.ones((*SHAPE, 4), np.complex64))
    (problem,) = refusal(tmp_path).problems
    assert "complex64" in problem.what


@pytest.mark.parametrize(
    ("value", "dtype", "what"),
    [
        (4, np.uint8, "outside the convention (4) in 1 voxels"),
        (-1, np.int16, "outside the convention (-1)"),
        (257, np.int16, "outside the convention (257)"),
        (1.5, np.float32, "no whole numbers (1.5)"),
        (np.nan, np.float32, "no whole numbers (nan)"),
    ],
)
def test_label_value_without_a_place_in_the_convention(tmp_path, value, dtype, what):
    case = make_case("A")
    write_msd(tmp_path, [case])
    label = case.label.astype(dtype)
    label[5, 4, 3] = value
    path = save(tmp_path / "labelsTr" / "A.nii.gz", label)
    (problem,) = refusal(tmp_path).problems
    assert problem.file == path
    assert what in problem.what
    assert "MSD (0, 1, 2, 3)" in problem.remedy


def test_label_value_of_the_other_brats_generation(tmp_path):
    case = make_case("A")
    write_brats_2023(tmp_path, [case])
    save(tmp_path / "A" / "A-seg.nii.gz", np.array([0, 2, 1, 4], np.uint8)[case.label])
    assert "(4)" in refusal(tmp_path).problems[0].what


def test_problems_survive_a_copy_as_made_between_processes(tmp_path):
    write_msd(tmp_path, make_cases("A"))
    truncate(tmp_path / "labelsTr" / "A.nii.gz")
    error = refusal(tmp_path)
    assert copy.copy(error).problems == error.problems


# real cases


@pytest.mark.real
def test_real_cases_have_the_label_voxels_they_are_said_to_have():
    folder = real_data("brats_mini")
    provenance = json.loads((folder / "PROVENANCE.json").read_text())["provenance"]
    scanned = scan_raw_folder(folder)
    assert (scanned.layout, scanned.problems, set(ids(scanned))) == (Layout.MSD, (), set(provenance))
    for files in scanned.cases:
        case = read_case(files)
        expected = provenance[files.case_id]
        assert [*case.image.shape[1:], 4] == expected["shape"]
        assert {str(v): int((case.label == v).sum()) for v in range(4)} == {
            str(v): expected["label_voxels"].get(str(v), 0) for v in range(4)
        }
