"""One report holds all that is wrong; what is known of unchanged files is not read again."""

import dataclasses
import json
import os

import numpy as np
import pytest

from idal_assets.anatomy import Anatomy
from idal_assets.imaging.inspection import CaseFacts, folder_signature, inspect_case, inspect_folder
from idal_assets.imaging.problems import CaseProblems
from idal_assets.imaging.readers import scan_raw_folder
from idal_assets_tests.raw_folders import (
    AFFINE,
    SHAPE,
    WRITERS,
    make_case,
    make_cases,
    make_organ,
    read_json,
    real_data,
    rewrite_same_content,
    save,
    write_brats_2018,
    write_dataset,
    write_json,
    write_msd,
    write_nnunet,
)

pytestmark = pytest.mark.unit

ORGAN_LABELS = {"0": "background", "1": "head", "2": "tail", "3": "end"}


ORGAN_LABELS = {"0": "background", "1": "head", "2": "tail", "3": "end"}


def overwrite_unseen(path):
    """Destroy the content of a file, but leave its size and times as they are."""
    before = path.stat()
    path.write_bytes(bytes(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def touch(path):
    later = path.stat().st_mtime_ns + 5_000_000_000
    os.utime(path, ns=(later, later))


def test_facts_of_a_case(tmp_path):
    report = inspect_folder(write_msd(tmp_path, [make_case("A")]))
    facts = report.facts["A"]
    assert facts.layout == "MSD"
    assert facts.files == ("imagesTr/A.nii.gz", "labelsTr/A.nii.gz")
    assert facts.shape == SHAPE
    assert facts.spacing == pytest.approx((1, 2, 3))
    np.testing.assert_allclose(facts.affine, AFFINE, atol=1e-5)
    assert facts.orientation == "LAS"
    assert facts.label_voxels == {"1": 6, "2": 4, "3": 2}
    assert facts.warnings == ()
    assert CaseFacts.model_validate_json(facts.model_dump_json()) == facts
    assert report.lines() == ["A  ok (6 x 5 x 4 voxels, 1 x 2 x 3 mm, LAS)"]


def test_content_hash_does_not_depend_on_layout_or_compression(tmp_path):
    facts = [
        inspect_folder(write(tmp_path / str(number), [make_case("A")])).facts["A"]
        for number, write in enumerate(WRITERS.values())
    ]
    write_brats_2018(tmp_path / "plain", [make_case("A")], ending=".nii")
    facts.append(inspect_folder(tmp_path / "plain").facts["A"])
    assert len({fact.content_hash for fact in facts}) == 1
    assert len({fact.image_hash for fact in facts}) == 1
    assert len({fact.signature for fact in facts}) == 5


@pytest.mark.parametrize("change", ["image", "label", "affine"])
def test_content_hash_changes_with_the_content(tmp_path, change):
    case = make_case("A")
    before = inspect_folder(write_msd(tmp_path / "1", [case])).facts["A"]
    if change == "affine":
        moved = AFFINE.copy()
        moved[0, 3] += 1
        case = dataclasses.replace(case, affine=moved)
    else:
        array = getattr(case, change)
        array.flat[-1] = 1 if change == "label" else array.flat[-1] + 1
    after = inspect_folder(write_msd(tmp_path / "2", [case])).facts["A"]
    assert after.content_hash != before.content_hash
    assert (after.image_hash != before.image_hash) == (change == "image")


def test_all_problems_of_a_folder_in_one_report(tmp_path):
    cases = make_cases("A", "B", "C", "D", "E")
    cases[1].label[:] = 0
    write_brats_2018(tmp_path, cases)
    cases[1].image[2, :2, 0, 0] = np.nan
    cases[1].image[2, 2, 0, 0] = -np.inf
    save(tmp_path / "B" / "B_t1ce.nii.gz", cases[1].image[2])
    (tmp_path / "C" / "C_seg.nii.gz").unlink()
    (tmp_path / "D" / "D_t1.nii.gz").write_bytes(b"no nifti")
    save(tmp_path / "D" / "D_seg.nii.gz", np.full(SHAPE, 9, np.uint8))
    save(tmp_path / "E" / "E_t2.nii.gz", np.full(SHAPE, 7, np.int16))
    save(tmp_path / "stray_t1.nii.gz", np.ones(SHAPE, np.int16))

    report = inspect_folder(tmp_path)

    assert list(report.facts) == ["A", "E"]
    assert list(report.refused) == ["B", "C", "D"]
    nan, empty = report.refused["B"]
    assert nan.file.name == "B_t1ce.nii.gz"
    assert nan.what == "channel T1gd has 2 NaN and 1 infinite voxels of 120"
    assert (empty.file.name, empty.what) == ("B_seg.nii.gz", "label is empty")
    assert [problem.file.name for problem in report.refused["D"]] == ["D_t1.nii.gz", "D_seg.nii.gz"]
    (warning,) = report.facts["E"].warnings
    assert (warning.case_id, warning.what, warning.kind) == ("E", "channel T2w is constant", "constant channel")
    assert report.warnings == (warning,)
    lines = report.lines()
    assert lines[0].startswith("ERROR ")
    assert "stray_t1.nii.gz" in lines[0]
    assert [line.split()[0] for line in lines[1:]] == ["A", "B", "C", "D", "E"]
    assert lines[2].startswith("B  REFUSED: ")
    assert "NaN" in lines[2]
    assert "label is empty" in lines[2]
    assert "warning: channel T2w is constant; export it again" in lines[5]
    assert not any("\n" in line for line in lines)


def test_an_image_of_nothing_but_nan_does_not_stop_the_report(tmp_path):
    write_msd(tmp_path, make_cases("A", "B"))
    save(tmp_path / "imagesTr" / "B.nii.gz", np.full((*SHAPE, 4), np.nan, np.float32))
    report = inspect_folder(tmp_path)
    assert len(report.refused["B"]) == 4
    assert list(report.facts) == ["A"]


def test_a_value_beyond_float32_is_infinite(tmp_path):
    write_nnunet(tmp_path, make_cases("A"))
    save(tmp_path / "imagesTr" / "A_0000.nii.gz", np.full(SHAPE, 1e300))
    assert "120 infinite" in inspect_folder(tmp_path).refused["A"][0].what


def test_inspect_case_raises_all_that_is_wrong(tmp_path):
    case = make_case("A")
    write_msd(tmp_path, [case])
    image = np.moveaxis(case.image, 0, 3).copy()
    image[0, 0, 0] = np.nan
    save(tmp_path / "imagesTr" / "A.nii.gz", image)
    save(tmp_path / "labelsTr" / "A.nii.gz", np.zeros((6, 5, 3), np.uint8))
    (files,) = scan_raw_folder(tmp_path).cases
    with pytest.raises(CaseProblems) as caught:
        inspect_case(files, tmp_path)
    # NaN in each of the four channels, an empty label, and a label of another shape
    assert len(caught.value.problems) == 6


def test_two_cases_with_the_same_image_name_each_other(tmp_path):
    first, twin, other = make_case("A", 1), make_case("B", 1), make_case("C", 2)
    twin.label[0, 0, 0] = 3
    report = inspect_folder(write_msd(tmp_path, [first, twin, other]))
    assert list(report.facts) == ["C"]
    assert "identical to that of B" in report.refused["A"][0].what
    assert "identical to that of A" in report.refused["B"][0].what


def test_warnings_of_the_folder_stand_with_their_case(tmp_path):
    write_brats_2018(tmp_path, make_cases("A"))
    save(tmp_path / "A" / "A_brainmask.nii.gz", np.ones(SHAPE, np.uint8))
    (line,) = inspect_folder(tmp_path).lines()
    assert line.startswith("A  ok")
    assert "A_brainmask.nii.gz" in line


def test_unchanged_files_are_not_read_again(tmp_path):
    write_msd(tmp_path, make_cases("A", "B"))
    known = inspect_folder(tmp_path).facts
    overwrite_unseen(tmp_path / "imagesTr" / "A.nii.gz")
    assert inspect_folder(tmp_path, known).facts == known
    assert list(inspect_folder(tmp_path).refused) == ["A"]


def test_touched_files_are_read_again_and_keep_their_content_hash(tmp_path):
    write_msd(tmp_path, make_cases("A", "B"))
    known = inspect_folder(tmp_path).facts
    rewrite_same_content(tmp_path / "imagesTr" / "A.nii.gz")
    touch(tmp_path / "labelsTr" / "B.nii.gz")
    now = inspect_folder(tmp_path, known).facts
    for case_id in known:
        assert now[case_id].signature != known[case_id].signature
        assert now[case_id].content_hash == known[case_id].content_hash


def test_another_name_for_a_channel_is_noticed_though_no_image_changed(tmp_path):
    write_msd(tmp_path, make_cases("A"))
    known = inspect_folder(tmp_path).facts
    names = {"0": "T1w", "1": "FLAIR", "2": "T1gd", "3": "T2w"}
    write_json(tmp_path, read_json(tmp_path) | {"modality": names})
    assert inspect_folder(tmp_path, known).facts["A"].content_hash != known["A"].content_hash


def test_same_images_are_found_among_known_cases(tmp_path):
    write_msd(tmp_path, [make_case("A", 1), make_case("B", 2)])
    known = inspect_folder(tmp_path).facts
    write_msd(tmp_path, [make_case("A", 1), make_case("B", 1)])
    touch(tmp_path / "imagesTr" / "B.nii.gz")
    assert list(inspect_folder(tmp_path, known).refused) == ["A", "B"]


def test_progress_sees_every_case(tmp_path):
    seen = []

    def track(items, description):
        for item in items:
            seen.append((description, item.case_id))
            yield item

    inspect_folder(write_msd(tmp_path, make_cases("A", "B")), track=track)
    assert seen == [("verifying cases", "A"), ("verifying cases", "B")]


def test_folder_signature_sees_files_but_not_hidden_ones(tmp_path):
    write_msd(tmp_path, make_cases("A"))
    before = folder_signature(tmp_path)
    (tmp_path / ".DS_Store").write_text("hidden")
    (tmp_path / "imagesTr" / "._A.nii.gz").write_text("hidden")
    assert folder_signature(tmp_path) == before
    signatures = {before}
    touch(tmp_path / "imagesTr" / "A.nii.gz")
    signatures.add(folder_signature(tmp_path))
    (tmp_path / "imagesTr" / "A.nii.gz").rename(tmp_path / "imagesTr" / "B.nii.gz")
    signatures.add(folder_signature(tmp_path))
    (tmp_path / "imagesTr" / "gone.nii.gz").symlink_to(tmp_path / "nowhere")
    signatures.add(folder_signature(tmp_path))
    assert len(signatures) == 4


# other anatomies, and cases without a label


def test_facts_of_a_case_of_another_anatomy(tmp_path):
    report = inspect_folder(write_dataset(tmp_path, [make_organ("A")], ORGAN_LABELS))
    assert report.anatomy.singles == ("head", "tail", "end")
    assert report.facts["A"].label_voxels == {"1": 6, "2": 4, "3": 0}
    assert report.facts["A"].shape == SHAPE


def test_problems_name_the_channel_of_the_dataset(tmp_path):
    broken = make_organ("B")
    broken.image[0, 0, 0, 0] = np.nan
    write_dataset(tmp_path, [make_organ("B", 1)], ORGAN_LABELS, ("CT",))
    save(tmp_path / "imagesTr" / "B.nii.gz", broken.image[0])
    report = inspect_folder(tmp_path)
    assert report.refused["B"][0].what == "channel CT has 1 NaN and 0 infinite voxels of 120"


@pytest.mark.parametrize("value", [0, 4])
def test_a_label_of_nothing_but_ignored_voxels_is_empty(tmp_path, value):
    case = make_organ("A")
    case.label[:] = value
    labels = {"background": 0, "head": 1, "tail": 2, "end": 3, "ignore": 4}
    (problem,) = inspect_folder(write_dataset(tmp_path, [case], labels, nnunet=True)).refused["A"]
    assert (problem.what, problem.remedy) == ("label is empty", "label the labelled volume or remove the case")


def test_ignored_voxels_count_for_the_content_and_for_no_label(tmp_path):
    case = make_organ("A")
    labels = {"background": 0, "head": 1, "tail": 2, "ignore": 3}
    before = inspect_folder(write_dataset(tmp_path / "1", [case], labels, nnunet=True)).facts["A"]
    case.label[5, 4, 3] = 3
    after = inspect_folder(write_dataset(tmp_path / "2", [case], labels, nnunet=True)).facts["A"]
    assert after.label_voxels == before.label_voxels == {"1": 6, "2": 4}
    assert after.content_hash != before.content_hash


@pytest.mark.parametrize(
    "change",
    [{"labels": {"0": "background", "1": "head", "2": "tail", "3": "ignore"}}, {"modality": {"0": "CT"}}],
)
def test_another_meaning_is_noticed_though_no_file_of_a_case_changed(tmp_path, change):
    write_dataset(tmp_path, [make_organ("A")], ORGAN_LABELS)
    known = inspect_folder(tmp_path).facts
    write_json(tmp_path, read_json(tmp_path) | change)
    now = inspect_folder(tmp_path, known).facts["A"]
    assert now.signature != known["A"].signature
    assert now.content_hash == known["A"].content_hash


@pytest.mark.real
def test_real_cases_of_another_anatomy_are_verified():
    report = inspect_folder(real_data("hippocampus"))
    assert report.anatomy == Anatomy.of(["MRI"], {1: "Anterior", 2: "Posterior"})
    assert (report.problems, len(report.facts)) == ((), 200)
    for facts in report.facts.values():
        assert min(facts.label_voxels["1"], facts.label_voxels["2"]) > 500
        assert (facts.spacing, facts.warnings) == ((1.0, 1.0, 1.0), ())


@pytest.mark.real
def test_real_cases_are_verified():
    folder = real_data("brats_mini")
    provenance = json.loads((folder / "PROVENANCE.json").read_text())["provenance"]
    report = inspect_folder(folder)
    assert (report.problems, set(report.facts)) == ((), set(provenance))
    for case_id, facts in report.facts.items():
        expected = provenance[case_id]["label_voxels"]
        assert facts.label_voxels == {value: expected.get(value, 0) for value in "123"}
        assert facts.warnings == ()
    assert inspect_folder(folder, report.facts).facts == report.facts
