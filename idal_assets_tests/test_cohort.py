"""Who takes part: roles that can be repeated, refusals that tell everything, files that may not change."""

import itertools
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from idal_assets.anatomy import AnatomyError
from idal_assets.imaging.case import CaseError
from idal_assets.imaging.inspection import inspect_folder
from idal_assets.profile import ProfileError, load_profile
from idal_assets.progress import silently
from idal_assets.settings import CohortSettings
from idal_assets.steps.cohort import cohort_rows, cohort_table, ensure_raw_folder, label_rows
from idal_assets.store.database import read_table, record
from idal_assets.study.cohort import (
    choose_cohort,
    label_millilitres,
    read_cohort,
    read_facts,
    read_unchanged_case,
    save_cohort,
)
from idal_assets.study.making import make
from idal_assets.study.roles import CohortError, choose_roles, draw_held_out
from idal_assets.study.study import Study
from idal_assets_tests.raw_folders import (
    AFFINE,
    make_cases,
    rewrite_same_content,
    save,
    write_brats_2023,
    write_msd,
    write_nnunet,
)
from idal_assets_tests.studies import make_study, task_of, with_settings

pytestmark = pytest.mark.unit

NAMES = [f"c{number:02d}" for number in range(40)]
RAW = Path("raw")


def roles(names=NAMES, **settings):
    return choose_roles(names, CohortSettings(**settings), RAW)


def with_role(found, role):
    return sorted(name for name in found if found[name] == role)


def choose(raw, removal_sizes=(1, 2), **settings):
    report = inspect_folder(raw)
    return choose_cohort(report, CohortSettings(**settings), report.anatomy, removal_sizes)


# --- the draw ---


def test_the_same_seed_draws_the_same_roles_and_another_others():
    found = roles(seed=1, test=10, pretraining=5, donors=20)
    assert Counter(found.values()) == {"test": 10, "pretraining": 5, "donor": 20}
    assert roles(NAMES[::-1], seed=1, test=10, pretraining=5, donors=20) == found
    assert with_role(roles(seed=2, test=10), "test") != with_role(found, "test")


def test_counts_that_are_not_given_follow_from_the_rest():
    assert Counter(roles().values()) == {"test": 10, "donor": 30}
    assert Counter(roles(test_share=0.1, pretraining=6).values()) == {"test": 4, "pretraining": 6, "donor": 30}
    assert Counter(roles(NAMES[:5], test_share=0.1).values()) == {"test": 2, "donor": 3}


@pytest.mark.parametrize("added", [f"new_{number}" for number in range(8)])
def test_a_case_that_is_added_moves_at_most_one_other_out_of_each_role(added):
    settings = {"seed": 3, "test": 10, "pretraining": 5, "donors": 15}
    before, after = roles(**settings), roles([*NAMES, added], **settings)
    # it pushes the last of its own role into the next, and so on down the roles
    moved = [name for name in NAMES if before.get(name) != after.get(name)]
    assert len(moved) <= 3
    for role, other in itertools.product(("test", "pretraining", "donor"), repeat=2):
        assert len([name for name in moved if (before.get(name), after.get(name)) == (role, other)]) <= 1
    donors_only = {"seed": 3, "test": 10}
    before, after = roles(**donors_only), roles([*NAMES, added], **donors_only)
    assert len([name for name in NAMES if before[name] != after[name]]) <= 1


def test_a_case_that_goes_moves_at_most_one_other():
    before = roles(seed=3, test=10)
    for gone in NAMES:
        after = roles([name for name in NAMES if name != gone], seed=3, test=10)
        assert len([name for name in after if before[name] != after[name]]) <= 1


def test_the_draw_of_held_out_cases_follows_seed_and_names():
    draws = {seed: draw_held_out(NAMES[:5], 0.2, seed) for seed in range(20)}
    assert all(len(draw) == 1 and set(draw) <= set(NAMES[:5]) for draw in draws.values())
    assert len({tuple(draw) for draw in draws.values()}) > 1
    assert draw_held_out(NAMES[:5], 0.01, 0) == draws[0]
    assert set(draws[0]) < set(draw_held_out(NAMES[:5], 0.5, 0))
    with pytest.raises(CohortError, match=r"5 training cases, and candidates\.held_out_share 0\.95 would"):
        draw_held_out(NAMES[:5], 0.95, 0)


# --- lists ---


def test_lists_come_before_the_draw_and_may_hold_wildcards():
    found = roles(test_cases=("c0?", "c39"), pretraining_cases=("c1[0-4]",), donor_cases=("c2*", "c30"))
    assert with_role(found, "test") == [*NAMES[:10], "c39"]
    assert with_role(found, "pretraining") == NAMES[10:15]
    assert with_role(found, "donor") == NAMES[20:31]
    assert len(found) == 11 + 5 + 11


def test_a_role_that_is_not_listed_is_drawn_from_the_rest():
    found = roles(test_cases=("c0*",), pretraining=4)
    assert with_role(found, "test") == NAMES[:10]
    assert Counter(found.values()) == {"test": 10, "pretraining": 4, "donor": 26}


def test_a_list_is_case_sensitive_and_must_name_a_case():
    with pytest.raises(CohortError, match=r"no case is called 'C0\*', which cohort\.test_cases lists"):
        roles(test_cases=("c01", "C0*"))
    with pytest.raises(CohortError, match=r"'absent', which cohort\.donor_cases lists"):
        roles(donor_cases=("absent",))


def test_validation_cases_are_drawn_after_the_test_cases_and_before_the_donors():
    without = roles(seed=1, test=10, pretraining=5)
    found = roles(seed=1, test=10, pretraining=5, validation=6)
    assert Counter(found.values()) == {"test": 10, "pretraining": 5, "validation": 6, "donor": 19}
    for role in ("test", "pretraining"):
        assert with_role(found, role) == with_role(without, role)
    assert set(with_role(found, "donor")) | set(with_role(found, "validation")) == set(with_role(without, "donor"))
    more = roles(seed=1, test=10, pretraining=5, validation=7)
    assert set(with_role(found, "validation")) < set(with_role(more, "validation"))


def test_no_validation_cases_leave_the_draws_as_they_are():
    assert roles(seed=4, test=8, donors=20, validation=0) == roles(seed=4, test=8, donors=20)
    assert "validation" not in set(roles(seed=4).values())


def test_validation_cases_by_name_are_not_drawn():
    found = roles(validation_cases=("c1[0-3]",), test=4, validation=30)
    assert with_role(found, "validation") == NAMES[10:14]
    with pytest.raises(CohortError, match=r"no case is called 'x\*', which cohort\.validation_cases lists"):
        roles(validation_cases=("x*",))
    with pytest.raises(CohortError, match=r"35 validation cases are asked for and only 30 .* cohort\.validation "):
        roles(test=10, validation=35)


def test_a_case_has_one_role():
    with pytest.raises(CohortError, match="c05 is listed as test and as donor"):
        roles(test_cases=("c05",), donor_cases=("c0*",))
    assert roles(test_cases=("c05", "c0*", "c05"))["c05"] == "test"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"test": 41}, r"41 test cases are asked for and only 40 of 40 .* lower cohort\.test "),
        ({"test": 30, "pretraining": 11}, r"11 pretraining .* only 10 of 40 .* cohort\.pretraining "),
        ({"test": 30, "donors": 12}, r"12 donor cases .* only 10 of 40 .* cohort\.donors "),
    ],
)
def test_too_few_cases_for_the_counts(settings, message):
    with pytest.raises(CohortError, match=message):
        roles(**settings)


# --- the whole cohort ---


def test_a_cohort_lists_everybody(tmp_path):
    raw = write_msd(tmp_path, make_cases(*"ABCDEFGH"))
    found = choose(raw, donors=4, test_cases=("G", "H"), donor_cases=())
    assert found.tests == ["G", "H"]
    assert len(found.donors) == 4
    assert sorted([*found.donors, *found.left_over]) == list("ABCDEF")
    assert found.receivers == [*found.donors, "G", "H"]
    assert found.deciding == found.donors
    validated = choose(raw, test_cases=("G",), validation_cases=("H", "A"))
    assert validated.validation == ["A", "H"]
    assert validated.deciding == [*validated.donors, "A", "H"]
    assert validated.receivers == [*validated.deciding, "G"]
    assert not {"A", "H"} & set(validated.baseline_cases)
    assert found.baseline_cases == found.donors
    assert (found.raw, found.layout, found.refused) == (raw, "MSD", {})
    assert found.case("G").facts.label_voxels == {"1": 6, "2": 4, "3": 2}
    with pytest.raises(CaseError, match=f"{found.left_over[0]} is not in the cohort"):
        found.case(found.left_over[0])


def test_pretraining_cases_train_the_baseline_and_are_not_segmented(tmp_path):
    raw = write_msd(tmp_path, make_cases(*"ABCDEFGH"))
    found = choose(raw, pretraining_cases=("A", "B"), test_cases=("H",))
    assert found.baseline_cases == found.pretraining == ["A", "B"]
    assert found.receivers == list("CDEFGH")


@pytest.mark.parametrize("name", ["mini", "tiny"])
def test_small_profiles_take_six_cases_and_not_five(tmp_path, name):
    profile = load_profile(name)
    report = inspect_folder(write_msd(tmp_path / "six", make_cases(*"ABCDEF")))
    six = choose_cohort(report, profile.cohort, report.anatomy, profile.removal.sizes)
    assert (len(six.donors), len(six.tests)) == (4, 2)
    five = inspect_folder(write_msd(tmp_path / "five", make_cases(*"ABCDE")))
    with pytest.raises(CohortError, match=r"3 donors are too few .* needs 4 \(it removes up to 2\)"):
        choose_cohort(five, profile.cohort, five.anatomy, profile.removal.sizes)


def test_removal_needs_two_donors_more_than_it_takes(tmp_path):
    raw = write_msd(tmp_path, make_cases(*"ABCDEFG"))
    assert len(choose(raw, (1, 4), test=1).donors) == 6
    with pytest.raises(
        CohortError, match=r"6 donors are too few .* needs 7 \(it removes up to 5\).*removal\.sizes"
    ):
        choose(raw, (1, 5), test=1)
    with pytest.raises(CohortError, match="needs 9"):
        choose(raw, (1,), test=1, minimum_donors=9)


def write_with_refused(folder):
    """B and C have two faults each, D one; the other six cases are good."""
    cases = make_cases(*"ABCDEFGHI")
    cases[1].label[:] = 0
    write_msd(folder, cases)
    broken = np.moveaxis(cases[1].image, 0, 3).astype(np.float32)
    broken[0, 0, 0, 2] = np.nan
    save(folder / "imagesTr" / "B.nii.gz", broken)
    moved = AFFINE.copy()
    moved[2, 3] += 50
    bad_label = cases[2].label.copy()
    bad_label[0, 0, 0] = 9
    save(folder / "labelsTr" / "C.nii.gz", bad_label, moved)
    (folder / "labelsTr" / "D.nii.gz").write_bytes(b"not an image")
    return folder


def test_refused_cases_stop_the_run_with_every_reason(tmp_path):
    raw = write_with_refused(tmp_path)
    report = inspect_folder(raw)
    reasons = [str(problem) for problem in report.problems if problem.severity == "error"]
    assert set(report.refused) == set("BCD")
    assert len(reasons) >= 4
    with pytest.raises(CohortError) as error:
        choose(raw)
    message = str(error.value)
    for reason in reasons:
        assert f"  {reason}\n" in message
    for words in (
        "3 cases are refused",
        "label is empty",
        "1 NaN",
        "Nothing was trained",
        "go_on_without_refused",
    ):
        assert words in message


def test_the_run_may_go_on_without_refused_cases(tmp_path):
    found = choose(write_with_refused(tmp_path), go_on_without_refused=True, test=2)
    assert sorted([*found.donors, *found.tests]) == list("AEFGHI")
    assert set(found.refused) == set("BCD")
    reasons = " ".join(found.refused["B"])
    assert "label is empty" in reasons
    assert "1 NaN" in reasons
    rows = cohort_rows(found).set_index("case_id")
    assert rows.loc["B", "role"] == "refused"
    assert rows.loc["B", "reason"] == reasons


def test_two_of_the_same_image_are_both_refused(tmp_path):
    cases = make_cases(*"ABCDEFGH")
    cases[7].image[:] = cases[0].image
    write_msd(tmp_path, cases)
    with pytest.raises(CohortError, match=r"A, .*identical to that of H(.|\n)*H, .*identical to that of A"):
        choose(tmp_path)
    found = choose(tmp_path, go_on_without_refused=True)
    assert {case.case_id for case in found.cases} == set("BCDEFG")


def test_a_cohort_is_the_same_after_it_was_written_and_read(tmp_path):
    found = choose(write_with_refused(tmp_path / "raw"), go_on_without_refused=True, donors=4, test=1)
    save_cohort(found, tmp_path)
    again = read_cohort(tmp_path)
    assert again == found
    assert again.version == found.version


# --- the version ---


def test_the_version_depends_on_content_and_roles_and_not_on_the_files(tmp_path):
    cases = make_cases(*"ABCDEFG")
    settings = {"test_cases": ("A", "B")}
    versions = [
        choose(write(tmp_path / str(number), cases), **settings).version
        for number, write in enumerate((write_msd, write_nnunet, write_brats_2023, write_msd))
    ]
    assert len(set(versions)) == 1
    assert choose(tmp_path / "0", test_cases=("A", "C")).version != versions[0]
    cases[3].label[0, 0, 0] = 2
    assert choose(write_msd(tmp_path / "other", cases), **settings).version != versions[0]
    # a case without a role does not count
    write_msd(tmp_path / "more", make_cases(*"ABCDEFGH"))
    assert choose(tmp_path / "more", donor_cases=("[C-G]",), **settings).version == versions[0]


# --- files after the cohort was made ---


@pytest.fixture
def made(tmp_path):
    raw = write_msd(tmp_path / "raw", make_cases(*"ABCDEFG"))
    return choose(raw, donor_cases=("[A-E]",), test_cases=("F",))


def read_again(cohort, case_id):
    return read_unchanged_case(cohort.raw, cohort.case(case_id).facts)


def test_an_unchanged_case_is_read(made):
    np.testing.assert_array_equal(read_again(made, "A").label, make_cases("A")[0].label)


def test_an_edited_case_is_not_read(made):
    label = make_cases("A")[0].label
    label[5, 4, 3] = 3
    save(made.raw / "labelsTr" / "A.nii.gz", label)
    with pytest.raises(CaseError, match=r"A: its files .* changed or went away .* materialize cohort again"):
        read_again(made, "A")
    read_again(made, "B")


def test_a_case_of_another_time_is_not_read(made):
    path = made.raw / "imagesTr" / "A.nii.gz"
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1))
    with pytest.raises(CaseError, match="changed or went away"):
        read_again(made, "A")


def test_a_case_that_went_away_is_not_read(made):
    for name in ("imagesTr", "labelsTr"):
        (made.raw / name / "A.nii.gz").unlink()
    with pytest.raises(CaseError, match=r"A: its files .* changed or went away"):
        read_again(made, "A")


def test_a_case_without_a_role_is_not_read(made):
    with pytest.raises(CaseError, match="G is not in the cohort"):
        read_again(made, "G")


def test_a_raw_folder_may_move(tmp_path):
    study = make_study(tmp_path)
    made_from = make(study, "cohort")[0].inputs_hash
    new = tmp_path / "elsewhere" / "raw"
    shutil.copytree(study.raw, new)
    shutil.rmtree(study.raw)
    moved = Study(study.profile, study.folder.root, new, "tiny")
    # nothing says that the cohort is to be made again, so reading must not ask for it
    assert make(moved, "cohort")[0].inputs_hash == made_from
    assert moved.read_case("case_0").label.sum() == make_cases("case_0")[0].label.sum()
    assert moved.cohort.raw == new
    with pytest.raises(CaseError):
        study.read_case("case_0")


# --- the step ---


def test_cases_that_did_not_change_are_not_read_again(tmp_path):
    study = make_study(tmp_path)
    version = make(study, "cohort")[0].version
    for path in study.raw.glob("imagesTr/*"):
        before = path.stat()
        path.write_bytes(bytes(before.st_size))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    other = with_settings(study, {"cohort.minimum_donors": 3})
    record, made_now = make(other, "cohort")
    assert made_now
    assert record.version == version


def test_a_file_of_the_same_content_is_read_under_the_facts_of_before(tmp_path):
    study = make_study(tmp_path)
    make(study, "cohort")
    make(study, "raw_case", "case_0")
    rewrite_same_content(study.raw / "imagesTr" / "case_0.nii.gz")
    make(study, "cohort")
    assert make(study, "raw_case", "case_0")[1] is False
    task = task_of(study, "raw_case", "case_0")
    facts = read_facts(study.path("raw_case", "case_0"))
    np.testing.assert_array_equal(task.read_case(facts).image, make_cases("case_0")[0].image)


def test_a_scalar_that_is_no_region_of_the_dataset_is_refused_with_those_that_are(tmp_path):
    study = make_study(tmp_path, {"similarity.scalar": "liver"})
    with pytest.raises(
        AnatomyError, match="no region 'liver' to score; take regions, labels or one of WT, TC, ET"
    ):
        make(study, "cohort")


def test_the_table_of_cases_is_complete(tmp_path):
    raw = write_with_refused(tmp_path / "raw")
    found = choose(raw, go_on_without_refused=True, donor_cases=("[AEFG]",), test_cases=("H",))
    database = tmp_path / "idal.duckdb"
    record(database, "cohort", cohort_rows(found), tmp_path / "lock")
    table = read_table(database, "cohort").set_index("case_id")
    assert table["role"].to_dict() == {
        **dict.fromkeys("AEFG", "donor"),
        "H": "test",
        "I": "left over",
        **dict.fromkeys("BCD", "refused"),
    }
    assert table.loc["A", ["shape_x", "shape_y", "shape_z"]].tolist() == [6, 5, 4]
    # the spacing is the length of the affine's columns
    assert table.loc["I", ["spacing_x", "spacing_y", "spacing_z"]].tolist() == pytest.approx([1, 2, 3], rel=1e-6)
    assert (table["reason"] == "").to_dict() == {case: case in "AEFGH" for case in table.index}
    assert cohort_table(found)["role"].tolist() == ["donor"] * 4 + ["test"]
    record(database, "case_label", label_rows(found), tmp_path / "lock")
    labels = read_table(database, "case_label").pivot(index="case_id", columns=["value", "label"], values="voxels")
    assert list(labels.columns) == [(1, "oedema"), (2, "non-enhancing tumour"), (3, "enhancing tumour")]
    # of every verified case, whatever its role
    assert labels.loc["A"].tolist() == labels.loc["I"].tolist() == [6, 4, 2]
    assert list(labels.index) == list("AEFGHI")


def test_label_volumes_are_in_millilitres(made):
    facts = made.case("A").facts.model_copy(update={"spacing": (10.0, 10.0, 5.0)})
    assert label_millilitres(facts) == {1: 3.0, 2: 2.0, 3: 1.0}  # of 0.5 ml voxels


def test_without_cases_and_without_a_phantom_the_profile_cannot_run(tmp_path):
    study = Study(load_profile("thesis"), tmp_path, None, "thesis")
    with pytest.raises(ProfileError, match="thesis has no phantom; give the folder with your cases"):
        ensure_raw_folder(study, silently)


def test_the_phantom_is_written_once_and_again_for_other_settings(tmp_path):
    study = Study(load_profile("tiny"), tmp_path, None, "tiny")
    smaller = with_settings(study, {"phantom.train_cases": 4, "phantom.shape": (16, 16, 4)})
    for changes, again in (({}, True), ({}, False), ({"phantom.seed": 1}, True)):
        before = study.raw.stat().st_ino if study.raw.exists() else None
        ensure_raw_folder(with_settings(smaller, changes), silently)
        assert (study.raw.stat().st_ino != before) == again
    assert len(list(study.raw.glob("imagesTr/*"))) == 6


def test_a_given_raw_folder_is_left_alone(tmp_path):
    study = Study(load_profile("tiny"), tmp_path / "data", tmp_path / "raw", "tiny")
    ensure_raw_folder(study, silently)
    assert not study.raw.exists()
    assert not study.folder.phantom.exists()
