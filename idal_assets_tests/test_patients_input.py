"""Patients without a label: how they are found, what refuses them, and that the study does not notice them."""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

from idal_assets.cli import main
from idal_assets.imaging.case import Case, CaseError
from idal_assets.imaging.inspection import FolderReport, inspect_folder
from idal_assets.imaging.raw_folder import RawFolder
from idal_assets.imaging.readers import read_case
from idal_assets.profile import ProfileError
from idal_assets.settings import AnatomySettings
from idal_assets.steps.checks import sound_patient_slices, verified_patient
from idal_assets.store.files import without_seal
from idal_assets.study.currency import all_states
from idal_assets.study.graph import GRAPH
from idal_assets.study.making import UndeclaredError, make, make_all, shown
from idal_assets.study.patient_list import PatientList, Reference
from idal_assets.study.study import Study
from idal_assets_tests.raw_folders import (
    AFFINE,
    make_case,
    make_cases,
    make_organ,
    real_data,
    rewrite_same_content,
    save,
    write_brats_2018,
    write_brats_2023,
    write_dataset,
    write_json,
    write_msd,
    write_nnunet,
)
from idal_assets_tests.studies import CASES, copied, make_study, pretend_all, task_of, with_settings
from idal_assets_tests.test_graph import differences, hashes

IN_THE_ORDER_OF_THE_STUDY = ("Flair", "T1", "T1ce", "T2")


def patient(name: str = "P", seed: int = 50) -> Case:
    return dataclasses.replace(make_case(name, seed), label=None)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_msd(tmp_path_factory.mktemp("study") / "raw", make_cases("A", "B", "C", "D"))


@pytest.fixture(scope="module")
def study_cases(raw: Path) -> Reference:
    return Reference.of_folder(inspect_folder(raw), AnatomySettings())


def against(raw: Path, **settings: Any) -> Reference:
    return Reference.of_folder(inspect_folder(raw), AnatomySettings(**settings))


def only(found: RawFolder) -> Case:
    assert [problem for problem in found.problems if problem.severity == "error"] == []
    (files,) = found.cases
    return read_case(files)


def refusals(report: FolderReport) -> dict[str, str]:
    return {case: " ".join(map(str, problems)) for case, problems in report.refused.items()}


# --- how they are found ---


def numbered(folder: Path, case: Case, names: Sequence[str] = IN_THE_ORDER_OF_THE_STUDY) -> Path:
    """The channels as nnU-Net's predictor takes them, without a word about what they are."""
    write_nnunet(folder / "made", [dataclasses.replace(case, label=make_case("x").label)], names)
    for file in (folder / "made" / "imagesTr").iterdir():
        file.rename(folder / file.name)
    shutil.rmtree(folder / "made")
    return folder


def as_nnunet_dataset(folder: Path, case: Case) -> Sequence[Path]:
    write_nnunet(folder, [dataclasses.replace(case, label=make_case("x").label)])
    (folder / "imagesTr").rename(folder / "imagesTs")
    shutil.rmtree(folder / "labelsTr")
    return [folder]


def as_images_of_nnunet(folder: Path, case: Case) -> Sequence[Path]:
    return [as_nnunet_dataset(folder, case)[0] / "imagesTs"]


def as_dataset_with_training_cases(folder: Path, case: Case) -> Sequence[Path]:
    write_msd(folder, make_cases("A", "B"), order=(2, 1, 0, 3))
    save(folder / "imagesTs" / f"{case.case_id}.nii.gz", np.moveaxis(case.image[[2, 1, 0, 3]], 0, 3), case.affine)
    return [folder]


def as_images_of_msd(folder: Path, case: Case) -> Sequence[Path]:
    return [as_dataset_with_training_cases(folder, case)[0] / "imagesTs"]


def as_plain_file(folder: Path, case: Case) -> Sequence[Path]:
    return [save(folder / f"{case.case_id}.nii.gz", np.moveaxis(case.image, 0, 3), case.affine)]


def as_plain_folder(folder: Path, case: Case) -> Sequence[Path]:
    return [as_plain_file(folder, case)[0].parent]


def as_numbered_files(folder: Path, case: Case) -> Sequence[Path]:
    return sorted(numbered(folder, case).iterdir())


def as_brats(write: Callable) -> Callable[[Path, Case], Sequence[Path]]:
    def written(folder: Path, case: Case) -> Sequence[Path]:
        write(folder, [dataclasses.replace(case, label=make_case("x").label)])
        next((folder / case.case_id).glob("*seg*")).unlink()
        return [folder]

    return written


def as_case_folder(folder: Path, case: Case) -> Sequence[Path]:
    return [as_brats(write_brats_2023)(folder, case)[0] / case.case_id]


def as_case_files(folder: Path, case: Case) -> Sequence[Path]:
    return sorted(as_case_folder(folder, case)[0].iterdir())


@pytest.mark.unit
@pytest.mark.parametrize(
    "write",
    [
        as_nnunet_dataset,
        as_images_of_nnunet,
        as_dataset_with_training_cases,
        as_images_of_msd,
        as_plain_file,
        as_plain_folder,
        as_numbered_files,
        as_brats(write_brats_2018),
        as_brats(write_brats_2023),
        as_case_folder,
        as_case_files,
    ],
)
def test_a_patient_reads_alike_in_every_layout(
    tmp_path: Path, study_cases: Reference, write: Callable[[Path, Case], Sequence[Path]]
) -> None:
    case = patient()
    found = study_cases.find(*write(tmp_path, case))
    read = only(found)
    assert read.case_id == "P"
    np.testing.assert_array_equal(read.image, case.image)
    with pytest.raises(CaseError, match="P has no label; scoring needs one"):
        read.require_label()
    facts = study_cases.verify(found).facts["P"]
    assert (len(facts.files), facts.label_voxels) == (len(found.cases[0].images), {})


@pytest.mark.unit
def test_images_with_labels_are_no_patients(tmp_path: Path, study_cases: Reference) -> None:
    write_msd(tmp_path, make_cases("A", "B"))
    found = study_cases.find(tmp_path)
    assert found.cases == ()
    assert [problem.what for problem in found.problems] == ["folder without a patient"]


@pytest.mark.unit
def test_without_any_label_imagestr_holds_patients(tmp_path: Path) -> None:
    raw = write_dataset(tmp_path / "raw", [make_organ("A"), make_organ("B", 1)], {"0": "background", "1": "x"})
    write_dataset(tmp_path / "new", [dataclasses.replace(make_organ("P", 2), label=None)], {"0": "background"})
    reference = Reference(inspect_anatomy(raw), ("MRI",), (0,), {}, {})
    np.testing.assert_array_equal(only(reference.find(tmp_path / "new")).image, make_organ("P", 2).image)


def inspect_anatomy(raw: Path) -> Any:
    return inspect_folder(raw).anatomy


@pytest.mark.unit
def test_a_path_that_is_not_there_is_an_error_and_one_given_twice_counts_once(
    tmp_path: Path, study_cases: Reference
) -> None:
    (file,) = as_plain_file(tmp_path, patient())
    assert [files.case_id for files in study_cases.find(file, file).cases] == ["P"]
    with pytest.raises(CaseError, match=r"absent\.nii\.gz: no such file or folder"):
        study_cases.find(file, tmp_path / "absent.nii.gz")


@pytest.mark.unit
def test_one_id_in_two_layouts_is_refused(tmp_path: Path, study_cases: Reference) -> None:
    as_plain_file(tmp_path / "one", patient())
    as_case_folder(tmp_path / "other", patient())
    found = study_cases.find(tmp_path)
    assert found.cases == ()
    assert "case id is there 2 times" in refusals(study_cases.verify(found))["P"]


# --- which channel is which ---

TWO = ("T2 map", "ADC")


def two_channels(name: str, seed: int) -> Case:
    case = make_case(name, seed)
    return dataclasses.replace(case, image=case.image[:2], label=(case.label > 0).astype(np.uint8))


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two") / "raw"
    cases = [two_channels(name, seed) for seed, name in enumerate("ABC")]
    return write_dataset(folder, cases, {"background": 0, "gland": 1}, TWO, nnunet=True)


@pytest.mark.unit
@pytest.mark.parametrize("renamed", [(), ("first", "second")])
def test_another_order_is_put_right_where_names_tell(tmp_path: Path, of_two: Path, renamed: tuple) -> None:
    """Also where the profile calls the channels otherwise than the raw folder does."""
    case = two_channels("P", 9)
    save(tmp_path / "P.nii.gz", np.moveaxis(case.image[::-1], 0, 3))
    write_json(tmp_path, {"channel_names": {"0": "adc", "1": "T2 map "}})
    np.testing.assert_array_equal(only(against(of_two, channels=renamed).find(tmp_path)).image, case.image)


@pytest.mark.unit
@pytest.mark.parametrize("names", [("T2 map",), ("T2 map", "DWI"), ("T2 map", "ADC", "DWI")])
def test_other_channels_are_refused_by_name(tmp_path: Path, of_two: Path, names: tuple) -> None:
    for name in ("P", "Q"):
        for number in range(len(names)):
            save(tmp_path / f"{name}_{number:04d}.nii.gz", make_case("x").image[number])
    write_json(tmp_path, {"channel_names": dict(enumerate(names))})
    reference = against(of_two)
    found = refusals(reference.verify(reference.find(tmp_path)))
    assert set(found) == {"P", "Q"}
    assert f"channels are {', '.join(names)}, and those of the study T2 map, ADC" in found["P"]


@pytest.mark.unit
def test_channels_that_nothing_names_are_those_of_the_studys_files_and_it_is_said(
    tmp_path: Path, of_two: Path
) -> None:
    case = two_channels("P", 9)
    for number in range(2):
        save(tmp_path / f"P_{number:04d}.nii.gz", case.image[number])
    found = against(of_two).find(tmp_path)
    np.testing.assert_array_equal(only(found).image, case.image)
    (warning,) = found.problems
    assert "in the order of the study's own files: T2 map, ADC" in warning.what


@pytest.mark.unit
def test_numbers_mean_nothing_where_the_studys_files_are_named(tmp_path: Path) -> None:
    reference = against(write_brats_2023(tmp_path / "raw", make_cases("A", "B", "C")))
    numbered(tmp_path / "new", patient())
    found = refusals(reference.verify(reference.find(tmp_path / "new")))
    assert "nothing says which of its files or volumes is which channel" in found["P"]
    assert '"channel_names": {"0": "FLAIR", "1": "T1w", "2": "T1gd", "3": "T2w"}' in found["P"]


@pytest.mark.unit
def test_channels_of_brats_are_not_those_of_another_organ(tmp_path: Path, of_two: Path) -> None:
    as_case_folder(tmp_path, patient())
    reference = against(of_two)
    found = refusals(reference.verify(reference.find(tmp_path)))
    assert "channels are FLAIR, T1w, T1gd, T2w, and those of the study T2 map, ADC" in found["P"]


# --- bad patients ---


def write_three(folder: Path) -> Path:
    """P and R are good; the tests spoil Q."""
    for seed, name in enumerate("PQR"):
        as_brats(write_brats_2023)(folder, patient(name, 60 + seed))
    return folder


def spoil(
    folder: Path, channel: str, change: Callable[[np.ndarray], Any] = lambda data: None, **header: Any
) -> None:
    path = folder / "Q" / f"Q-{channel}.nii.gz"
    image = nib.load(path)
    data = np.asarray(image.dataobj, np.float32).copy()
    change(data)
    save(path, header.get("data", data), header.get("affine", image.affine))


def with_nan(data: np.ndarray) -> None:
    data[0, 0, 0] = np.nan


def constant(data: np.ndarray) -> None:
    data[:] = 7


MOVED = AFFINE + np.outer([1, 1, 1, 0], [0, 0, 0, 1])


@pytest.mark.unit
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "Q" / "Q-t1c.nii.gz").unlink(), "T1gd is missing"),
        (lambda folder: spoil(folder, "t2w", with_nan), "channel T2w has 1 NaN"),
        (lambda folder: spoil(folder, "t2w", constant), "channel T2w is constant"),
        (lambda folder: spoil(folder, "t2w", affine=MOVED), "affine differs"),
        (lambda folder: spoil(folder, "t2w", data=np.zeros((3, 3, 3), np.float32)), "shape .* differs"),
        (lambda folder: (folder / "Q" / "Q-t2f.nii.gz").write_bytes(b"\x1f\x8b cut"), "truncated or damaged"),
        (lambda folder: shutil.rmtree(folder / "Q") or (folder / "Q").mkdir(), "no NIfTI file in its folder"),
    ],
)
def test_a_bad_patient_is_refused_by_name_and_the_others_go_on(
    tmp_path: Path, study_cases: Reference, damage: Callable[[Path], Any], reason: str
) -> None:
    damage(write_three(tmp_path))
    report = study_cases.verify(study_cases.find(tmp_path))
    assert list(report.facts) == ["P", "R"]
    with pytest.raises(AssertionError, match=f"Q.*{reason}"):
        raise AssertionError(refusals(report))
    assert set(report.refused) == {"Q"}


@pytest.mark.unit
def test_other_slice_planes_are_refused_and_mirrored_axes_are_said(tmp_path: Path) -> None:
    straight = np.diag([1.0, 2.0, 3.0, 1.0])
    cases = [dataclasses.replace(case, affine=straight) for case in make_cases("A", "B", "C")]
    reference = against(write_msd(tmp_path / "raw", cases))
    case = patient("Q", 70)
    as_plain_file(
        tmp_path / "new",
        dataclasses.replace(case, image=case.image.transpose(0, 1, 3, 2), affine=straight[:, [0, 2, 1, 3]]),
    )
    as_plain_file(tmp_path / "new", dataclasses.replace(patient("R", 71), affine=straight * [-1, 1, 1, 1]))
    report = reference.verify(reference.find(tmp_path / "new"))
    assert list(report.facts) == ["R"]
    assert "slices lie in other planes than those of the others: it is stored as RSA" in refusals(report)["Q"]
    assert "mirrored axes" in {warning.kind for warning in report.warnings if warning.case_id == "R"}


@pytest.mark.unit
def test_a_file_with_another_number_of_volumes_is_refused(tmp_path: Path, study_cases: Reference) -> None:
    save(tmp_path / "P.nii.gz", np.moveaxis(patient().image[:3], 0, 3))
    report = study_cases.verify(study_cases.find(tmp_path))
    assert "wrong number of channels" in refusals(report)["P"]


@pytest.mark.unit
def test_ids_are_as_safe_as_those_of_cases(tmp_path: Path, study_cases: Reference) -> None:
    save(tmp_path / "a b'; DROP.nii.gz", np.moveaxis(patient().image, 0, 3))
    report = study_cases.verify(study_cases.find(tmp_path))
    (reason,) = refusals(report).values()
    assert "not safe as the name of a folder" in reason


@pytest.mark.unit
def test_what_is_no_nifti_file_is_said(tmp_path: Path, study_cases: Reference) -> None:
    as_plain_file(tmp_path, patient())
    (tmp_path / "Q.mha").write_bytes(b"x")
    (tmp_path / "notes.txt").write_bytes(b"x")
    warnings = study_cases.find(tmp_path).problems
    assert [problem.file.name for problem in warnings if "left out" in problem.what] == ["Q.mha"]


# --- labels that are not read ---


def label_in_brats(folder: Path) -> Path:
    write_brats_2023(folder, [make_case("P", 50)])
    return folder / "P" / "P-seg.nii.gz"


def label_beside_numbered(folder: Path) -> Path:
    numbered(folder, patient())
    return save(folder / "P.nii.gz", make_case("P").label)


def label_beside_plain(folder: Path) -> Path:
    as_plain_file(folder, patient())
    return save(folder / "P_seg.nii.gz", make_case("P").label)


def label_in_labelsts(folder: Path) -> Path:
    as_dataset_with_training_cases(folder, patient())
    return save(folder / "labelsTs" / "P.nii.gz", make_case("P").label)


@pytest.mark.unit
@pytest.mark.parametrize("write", [label_in_brats, label_beside_numbered, label_beside_plain, label_in_labelsts])
def test_a_label_given_by_mistake_is_not_read_and_said(
    tmp_path: Path, study_cases: Reference, write: Callable[[Path], Path]
) -> None:
    label = write(tmp_path)
    label.write_bytes(b"whatever it is")
    found = study_cases.find(tmp_path)
    report = study_cases.verify(found)
    assert only(found).label is None
    (warning,) = (warning for warning in report.warnings if "it is not used" in warning.what)
    assert (warning.case_id, warning.file) == ("P", label)
    assert report.facts["P"].label_voxels == {}


# --- patients who are cases of the study ---


@pytest.mark.unit
def test_a_case_of_the_study_is_used_and_said_with_its_role(tmp_path: Path, raw: Path) -> None:
    report = inspect_folder(raw)
    roles = {"A": "donor", "B": "test", "C": "donor", "D": "donor"}
    reference = dataclasses.replace(Reference.of_folder(report, AnatomySettings()), roles=roles)
    a = make_case("A", 0)
    for case in (patient("A", 80), dataclasses.replace(make_case("B", 1), case_id="Q"), patient("R", 81)):
        as_plain_file(tmp_path, case)
    as_plain_file(tmp_path, dataclasses.replace(a, case_id="S", image=a.image[:, ::-1] * 2))
    found = reference.verify(reference.find(tmp_path))
    said = {warning.case_id: warning.what for warning in found.warnings if warning.case_id}
    assert list(found.facts) == ["A", "Q", "R", "S"]
    assert said["A"] == "the donor A of the study has its name"
    assert said["Q"] == "image is that of the test B"
    assert said["S"].startswith("image is nearly that of the donor A: FLAIR")
    assert set(said) == {"A", "Q", "S"}


# --- a study and its patients ---

LISTS = {"cohort.donor_cases": CASES[:4], "cohort.test_cases": CASES[5:7]}


def new_patient(folder: Path, name: str, seed: int) -> Path:
    return as_plain_file(folder, patient(name, seed))[0]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Everything pretended, with two patients; tests of it only look."""
    folder = tmp_path_factory.mktemp("made")
    for seed, name in enumerate(("P1", "P2")):
        new_patient(folder / "patients", name, 90 + seed)
    study = make_study(folder, {**LISTS, "cohort.patients": str(folder / "patients")})
    pretend_all(study)
    return study


@pytest.fixture
def study(made: Study, tmp_path: Path) -> Study:
    return copied(made, tmp_path, {"cohort.patients": str(tmp_path / "patients")})


OF_PATIENT = ("patient_case", "patient_slices", "patient_opinions", "adapted_model", "patient_segmentation")
REPORT = ("experiment_report", None)
"""It shows all patients; nothing else of the study knows them."""


def of_patients(*names: str) -> set[tuple[str, str | None]]:
    return {(asset, name) for asset in OF_PATIENT for name in names}


def describe_all(study: Study) -> None:
    """Makes in earnest what was pretended."""
    for name in study.patients:
        shutil.rmtree(study.path("patient_case", name))
        make(study, "patient_case", name)


@pytest.mark.unit
def test_patients_are_partitions_and_current(made: Study) -> None:
    assert GRAPH["patient_case"].keys(made) == ["P1", "P2"]
    assert {state for states in all_states(made).values() for state in states.values()} == {"current"}


@pytest.mark.unit
def test_a_patient_that_comes_changes_or_goes_concerns_nothing_of_the_study(study: Study) -> None:
    states = [hashes(study)]

    def look() -> set[tuple[str, str | None]]:
        before = states[-1]
        make(study, "patient_list")
        states.append(hashes(study))
        return differences(before, states[-1])

    new_patient(study.patients_folder, "P3", 93)
    assert look() == {("patient_list", None), *of_patients("P3"), REPORT}
    new_patient(study.patients_folder, "P1", 94)
    # its slices follow once the patient was described
    assert look() == {("patient_list", None), ("patient_case", "P1")}
    (study.patients_folder / "P2.nii.gz").unlink()
    # of a patient who is new nothing is there that the report could show
    assert look() == {("patient_list", None), *of_patients("P2")}
    assert study.patients == ["P1", "P3"]
    states_now = all_states(study)
    assert {asset for asset, found in states_now.items() if set(found.values()) - {"current"}} == {
        *OF_PATIENT,
        "experiment_report",
    }


@pytest.mark.unit
def test_patients_below_the_raw_folder_are_no_part_of_it(tmp_path: Path) -> None:
    study = make_study(tmp_path, {**LISTS, "cohort.patients": str(tmp_path / "raw" / "imagesTs")})
    new_patient(study.patients_folder, "P1", 90)
    pretend_all(study)
    before = hashes(study)
    new_patient(study.patients_folder, "P2", 91)
    assert differences(before, hashes(study)) == {("patient_list", None)}


@pytest.mark.unit
def test_a_folder_of_patients_around_the_raw_folder_hides_no_case(tmp_path: Path) -> None:
    study = make_study(tmp_path, {**LISTS, "cohort.patients": str(tmp_path)})
    without = with_settings(study, {"cohort.patients": None})
    assert GRAPH["cohort"].inputs(study) == GRAPH["cohort"].inputs(without)


@pytest.mark.unit
def test_nobody_is_a_patient_whom_nobody_named(tmp_path: Path) -> None:
    study = make_study(tmp_path, LISTS)
    new_patient(study.raw / "imagesTs", "P1", 90)
    make(study, "cohort")
    make(study, "patient_list")
    assert (study.patients_folder, study.patients, study.patient_list) == (None, [], PatientList())
    assert "no patients" in shown(study, "patient_list")["patients"]
    assert study.provenance("patient_list").inputs.made_from == {}


@pytest.mark.unit
def test_without_the_folder_there_are_no_patients_any_more(study: Study) -> None:
    without = with_settings(study, {"cohort.patients": None})
    assert without.patients == []
    changed = differences(hashes(study), hashes(without))
    assert changed == {("patient_list", None), *of_patients("P1", "P2"), REPORT}


@pytest.mark.unit
def test_a_bad_patient_stops_nobody_and_is_shown(study: Study) -> None:
    save(study.patients_folder / "Q.nii.gz", np.full((6, 5, 4, 4), np.nan, np.float32))
    make(study, "patient_list")
    assert study.patients == ["P1", "P2"]
    refused = shown(study, "patient_list")["refused"]
    assert set(refused["case_id"]) == {"Q"}
    assert "NaN" in " ".join(refused["reason"])
    with pytest.raises(CaseError, match=r"Q was refused: .*NaN"):
        study.patient_list.patient("Q")


@pytest.mark.unit
def test_an_edited_label_does_not_concern_the_list_and_another_case_does(study: Study) -> None:
    before = hashes(study)
    label = make_case(CASES[1], 1).label
    label[5, 4, 3] = 3
    save(study.raw / "labelsTr" / f"{CASES[1]}.nii.gz", label)
    make(study, "cohort")
    assert ("patient_list", None) not in differences(before, hashes(study))
    other = with_settings(study, {"cohort.test_cases": CASES[5:6]})
    make(other, "cohort")
    assert ("patient_list", None) in differences(before, hashes(other))


@pytest.mark.unit
def test_a_touched_file_is_read_under_the_facts_of_before(study: Study) -> None:
    describe_all(study)
    facts = study.patient_list.patient("P1").facts
    rewrite_same_content(study.patients_folder / "P1.nii.gz")
    with pytest.raises(CaseError, match=r"P1: its files .* changed or went away since they were verified"):
        study.read_patient(facts)
    make(study, "patient_list")
    assert make(study, "patient_case", "P1")[1] is False
    np.testing.assert_array_equal(study.read_patient(facts).image, patient("P1", 90).image)
    new_patient(study.patients_folder, "P1", 99)
    make(study, "patient_list")
    with pytest.raises(CaseError, match="changed or went away"):
        study.read_patient(facts)


@pytest.mark.unit
def test_unchanged_patients_are_not_read_again(study: Study) -> None:
    path = study.patients_folder / "P1.nii.gz"
    times = path.stat()
    path.write_bytes(bytes(times.st_size))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    new_patient(study.patients_folder, "P3", 93)
    make(study, "patient_list")
    assert study.patients == ["P1", "P2", "P3"]


@pytest.mark.unit
def test_a_step_reads_its_own_patient_and_no_other(made: Study) -> None:
    case, slices = task_of(made, "patient_case", "P1"), task_of(made, "patient_slices", "P1")
    assert case.listed_patient.case_id == "P1"
    with pytest.raises(UndeclaredError, match="reads all of patient_list"):
        case.path("patient_list")
    with pytest.raises(UndeclaredError, match="patient_case of P2"):
        slices.patient_facts("P2")
    with pytest.raises(UndeclaredError, match="reads patient_list"):
        _ = slices.listed_patient
    with pytest.raises(UndeclaredError, match="reads patients folder"):
        _ = task_of(made, "dendrogram").patient_paths


@pytest.mark.unit
def test_damage_of_a_patient_is_found_by_its_check(study: Study) -> None:
    describe_all(study)
    assert verified_patient(study, "patient_case", "P1").problems == ()
    shutil.copy(study.path("patient_case", "P2") / "facts.json", study.path("patient_case", "P1"))
    assert "another content" in verified_patient(study, "patient_case", "P1").problems[0]
    new_patient(study.patients_folder, "P2", 99)
    assert "no longer those that were verified" in verified_patient(study, "patient_case", "P2").problems[0]
    (study.patients_folder / "P2.nii.gz").unlink()
    assert "no longer in" in verified_patient(study, "patient_case", "P2").problems[0]


@pytest.mark.unit
def test_the_folder_of_the_patients_is_remembered_and_replaces_no_study(tmp_path: Path) -> None:
    first = Study.open(tmp_path / "data", "tiny", tmp_path / "raw")
    first.remember()
    named = Study.open(tmp_path / "data", patients=tmp_path / "new")
    assert named.replaces() is None
    named.remember()
    again = Study.open(tmp_path / "data")
    assert (again.patients_folder, again.with_settings({}).patients_folder) == (tmp_path / "new",) * 2
    assert Study.open(tmp_path / "data", "mini").patients_folder is None
    with pytest.raises(ProfileError, match="holds the patients"):
        Study.open(tmp_path / "data", patients=tmp_path / "data").remember()


@pytest.mark.unit
def test_a_study_of_before_there_were_patients_is_no_other_one(tmp_path: Path) -> None:
    study = Study.open(tmp_path / "data", "tiny", tmp_path / "raw")
    study.remember()
    noted = json.loads(without_seal(study.folder.study_file.read_bytes()))
    del noted["patients"]
    study.folder.study_file.write_text(json.dumps(noted))
    assert Study.open(tmp_path / "data").replaces() is None


# --- the command line ---


def check(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["check", *map(str, arguments)])
    return done.exit_code, done.output


@pytest.mark.unit
def test_check_holds_patients_against_a_folder_or_a_study(raw: Path, study: Study, tmp_path: Path) -> None:
    study.remember()
    new = write_three(tmp_path / "new")
    code, output = check(raw, "--patients", new)
    assert (code, "3 cases can be used, 0 are refused" in output) == (0, True)
    spoil(new, "t2w", constant)
    for of in ([raw], ["--data-dir", study.folder.root]):
        code, output = check(*of, "--patients", new)
        assert code == 1
        (line,) = (line for line in output.splitlines() if "REFUSED" in line)
        assert line.startswith("Q  REFUSED: ")
        assert "channel T2w is constant" in line
        assert "2 cases can be used, 1 are refused" in output
    found = json.loads(check(raw, "--patients", new, "--json")[1])
    assert (list(found["cases"]), found["refused"]) == (["P", "R"], ["Q"])


@pytest.mark.unit
def test_check_asks_for_what_it_needs(tmp_path: Path) -> None:
    code, output = check()
    assert code == 2
    assert "--patients DIR" in output
    code, output = check("--patients", tmp_path, "--data-dir", tmp_path / "data")
    assert code == 1
    assert "cohort has not been made yet" in output


@pytest.mark.unit
def test_run_refuses_a_folder_of_patients_that_is_not_there(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    done = CliRunner().invoke(main, ["run", "--patients", str(absent), "--data-dir", str(tmp_path / "data")])
    assert done.exit_code == 1
    assert f"There is no folder {absent}" in done.output
    assert not (tmp_path / "data").exists()


# --- made in earnest ---


@pytest.mark.graph
def test_slices_of_a_patient_are_those_of_the_case_without_its_label(tmp_path: Path) -> None:
    from idal_assets.nnunet.slices import load_slices

    study = make_study(tmp_path, {**LISTS, "cohort.patients": str(tmp_path / "patients")})
    case = make_case(CASES[0], 0)
    as_plain_file(tmp_path / "patients", dataclasses.replace(case, case_id="P"))
    make_all(study, "patient_slices")
    make(study, "case_slices", CASES[0])
    own = load_slices(study.path("patient_slices", "P"), "P")
    labelled = load_slices(study.path("case_slices", CASES[0]), CASES[0])
    np.testing.assert_array_equal(own.image, labelled.image)
    assert (own.label, own.truth) == (None, None)
    assert sound_patient_slices(study, "patient_slices", "P").problems == ()
    assert shown(study, "patient_slices", "P")["slices"] == labelled.image.shape[1]
    assert (study.path("patient_case", "P") / "overview.png").is_file()
    (study.path("patient_slices", "P") / "image.b2nd").write_bytes(b"x")
    assert "cannot be read" in sound_patient_slices(study, "patient_slices", "P").problems[0]


@pytest.mark.real
def test_real_cases_are_patients_once_their_labels_are_gone(tmp_path: Path) -> None:
    folder = real_data("brats_mini")
    report = inspect_folder(folder)
    reference = Reference.of_folder(report, AnatomySettings())
    for name in list(report.facts)[:2]:
        (tmp_path / "imagesTs").mkdir(exist_ok=True)
        for file in (folder / "imagesTr").glob(f"{name}*"):
            (tmp_path / "imagesTs" / file.name).symlink_to(file)
    shutil.copy(folder / "dataset.json", tmp_path)
    found = reference.verify(reference.find(tmp_path))
    assert list(found.facts) == list(report.facts)[:2]
    for name, facts in found.facts.items():
        assert facts.image_hash == report.facts[name].image_hash
        assert {w.kind for w in found.warnings if w.case_id == name} == {"patient that is a case of the study"}
