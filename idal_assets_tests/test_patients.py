"""Several sessions of one patient: told by table, pattern or name, and never apart in roles, folds or halves."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from idal_assets.cli import main
from idal_assets.imaging.inspection import inspect_folder
from idal_assets.profile import ProfileError, load_profile
from idal_assets.seeds import in_drawing_order
from idal_assets.settings import CohortSettings
from idal_assets.steps.cohort import cohort_rows, cohort_table
from idal_assets.study.cohort import Cohort, choose_cohort
from idal_assets.study.currency import all_states
from idal_assets.study.making import make, shown
from idal_assets.study.patients import divide_whole, draw_whole, patients_of, sessions, waiting_line
from idal_assets.study.roles import (
    ROLES,
    CohortError,
    choose_roles,
    draw_folds,
    draw_held_out,
    ensure_enough_donors,
    needed_cases,
)
from idal_assets.study.study import Study
from idal_assets_tests.raw_folders import make_case, make_cases, write_brats_2023, write_msd
from idal_assets_tests.studies import changed, make_study, pretend_all, with_settings

pytestmark = pytest.mark.unit

RAW = Path("raw")
SEVERAL = {f"P{number:03d}": 2 if number < 100 else 1 for number in range(200)}
"""200 patients, the first 100 with two sessions: 300 cases."""


def cases_of(counts: Mapping[str, int]) -> dict[str, str]:
    """Patient by case."""
    return {f"{patient}_{session}": patient for patient, count in counts.items() for session in range(count)}


def apart(patients: Mapping[str, str], roles: Mapping[str, str]) -> list[str]:
    """Patients whose cases are in several roles."""
    found = [{roles[case] for case in own if case in roles} for own in sessions(patients, patients).values()]
    return [
        patient
        for patient, of_patient in zip(sessions(patients, patients), found, strict=True)
        if len(of_patient) > 1
    ]


# --- who is whose ---


@pytest.mark.parametrize(
    ("case", "patient"),
    [
        ("BraTS-GLI-00000-000", "BraTS-GLI-00000"),
        ("BraTS-GLI-00000-001", "BraTS-GLI-00000"),
        ("BraTS-GLI-02405-100", "BraTS-GLI-02405"),
        ("BraTS-PED-00030-000", "BraTS-PED-00030"),
        ("BraTS-MET-00086-000", "BraTS-MET-00086"),
        ("BraTS-SSA-00002-000", "BraTS-SSA-00002"),
        ("BraTS-MEN-00004-001", "BraTS-MEN-00004"),
        ("BraTS-MEN-RT-0003-1", "BraTS-MEN-RT-0003"),
        ("BRATS_GLI_00000_001", "BRATS_GLI_00000"),
        ("Dataset137_BraTS-GLI-00000-001", "Dataset137_BraTS-GLI-00000"),
        # these tell no session
        ("BraTS-GoAT-00000", "BraTS-GoAT-00000"),
        ("BraTS2021_00042", "BraTS2021_00042"),
        ("BraTS20_Training_001", "BraTS20_Training_001"),
        ("Brats18_2013_10_1", "Brats18_2013_10_1"),
        ("BRATS_001", "BRATS_001"),
        ("hippocampus_001", "hippocampus_001"),
    ],
)
def test_ids_of_brats_tell_the_patient(case: str, patient: str) -> None:
    assert patients_of([case], None) == {case: patient}


def test_the_table_goes_before_the_pattern_and_the_pattern_before_the_name() -> None:
    cases = ["BraTS-GLI-00001-000", "BraTS-GLI-00002-000", "X7_late", "other"]
    table = {"BraTS-GLI-00001-000": "Anna", "other": "Anna"}
    assert patients_of(cases, r"^X(\d)|GLI-(?:0000)2", table) == {
        "BraTS-GLI-00001-000": "Anna",
        # the pattern is found, but not its group
        "BraTS-GLI-00002-000": "BraTS-GLI-00002",
        "X7_late": "7",
        "other": "Anna",
    }


def test_a_case_that_the_table_leaves_out_stays_with_its_patient() -> None:
    cases = ["BraTS-GLI-00001-000", "BraTS-GLI-00001-001", "BraTS-GLI-00002-000"]
    found = patients_of(cases, None, {"BraTS-GLI-00001-001": "Anna"})
    assert found == {cases[0]: "Anna", cases[1]: "Anna", cases[2]: "BraTS-GLI-00002"}


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("(", "no regular expression"), ("P.*", "has 0 groups; put the patient"), ("(P)(.)", "has 2 groups")],
)
def test_a_pattern_is_a_regular_expression_with_one_group(pattern: str, message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        Study.open(profile="tiny").with_settings({"cohort": {"patient_pattern": pattern}})
    assert CohortSettings(patient_pattern="(P.*)").patient_pattern == "(P.*)"


# --- roles ---


def as_without_patients(names: Sequence[str], settings: CohortSettings) -> dict[str, str]:
    """Consecutive parts of the drawing order, as roles were drawn before there were patients."""
    roles: dict[str, str] = {}
    waiting = in_drawing_order(names, settings.seed)
    for role in ROLES:
        count = role.wanted(settings, len(names))
        taken, waiting = (waiting, []) if count is None else (waiting[:count], waiting[count:])
        roles.update(dict.fromkeys(taken, role.name))
    return roles


@pytest.mark.parametrize("seed", range(5))
def test_where_each_case_is_its_own_patient_nothing_changes(seed: int) -> None:
    # one session each, so that the patient has another name than the case
    names = [f"BraTS-GLI-{number:05d}-000" for number in range(60)]
    for given_counts in ({}, {"test": 20, "pretraining": 5, "validation": 7, "donors": 20}, {"donor_share": 0.3}):
        settings = CohortSettings(seed=seed, **given_counts)
        expected = as_without_patients(names, settings)
        for patients in ({}, patients_of(names, None)):
            assert [*choose_roles(names, settings, RAW, patients).items()] == [*expected.items()]
    for patients in ({}, patients_of(names, None)):
        order = in_drawing_order(names, seed)
        ends = [number * 60 // 7 for number in range(8)]
        assert draw_folds(names, 7, seed, patients) == [sorted(order[a:b]) for a, b in pairwise(ends)]
        assert draw_held_out(names, 0.2, seed, patients) == sorted(order[:12])


@pytest.mark.parametrize("seed", range(10))
def test_sessions_of_200_patients_share_their_roles(seed: int) -> None:
    patients = cases_of(SEVERAL)
    counts = {"test": 100, "validation": 50, "donors": 100}
    roles = choose_roles(sorted(patients), CohortSettings(seed=seed, **counts), RAW, patients)
    assert apart(patients, roles) == []
    assert Counter(roles.values()) == {"test": 100, "validation": 50, "donor": 100}
    # whoever draws by case has the same patients on both sides
    assert apart(patients, choose_roles(sorted(patients), CohortSettings(seed=seed, **counts), RAW))


def test_patients_of_several_sessions_are_drawn_as_often_as_others() -> None:
    patients = cases_of(SEVERAL)
    tested: Counter[int] = Counter()
    for seed in range(40):
        roles = choose_roles(sorted(patients), CohortSettings(seed=seed, test=90), RAW, patients)
        tested.update(SEVERAL[patient] for patient in {patients[case] for case in roles if roles[case] == "test"})
    assert tested[2] / tested[1] == pytest.approx(1, abs=0.15)


def test_a_later_session_moves_nobody() -> None:
    patients = {f"P{number:02d}_0": f"P{number:02d}" for number in range(40)}
    settings = CohortSettings(seed=2, test=10)
    before = choose_roles(sorted(patients), settings, RAW, patients)
    donor = next(case for case in before if before[case] == "donor")
    more = {**patients, f"{patients[donor]}_1": patients[donor]}
    after = choose_roles(sorted(more), settings, RAW, more)
    assert after == {**before, f"{patients[donor]}_1": "donor"}


@given(st.lists(st.integers(1, 4), max_size=12), st.integers(0, 30))
def test_a_draw_comes_as_near_as_whole_patients_allow(sizes: list[int], count: int) -> None:
    waiting = [[f"{number}_{session}" for session in range(size)] for number, size in enumerate(sizes)]
    drawn = draw_whole(waiting, count)
    left_out = [own for own in waiting if own not in drawn]
    total = sum(map(len, drawn))
    if total > count:
        assert len(drawn) == 1
        assert len(drawn[0]) == min(sizes)
    else:
        assert all(total + len(own) > count for own in left_out)
    assert bool(drawn) == (count > 0 and bool(sizes))


def test_a_role_has_one_patient_at_least() -> None:
    patients = cases_of(dict.fromkeys("ABCD", 3))
    roles = choose_roles(sorted(patients), CohortSettings(test=1, validation=4), RAW, patients)
    assert Counter(roles.values()) == {"test": 3, "validation": 3, "donor": 6}
    with pytest.raises(CohortError, match="7 validation cases are asked for and only 6 of 12 are left"):
        choose_roles(sorted(patients), CohortSettings(test=6, validation=7), RAW, patients)


def test_lists_that_split_a_patient_are_refused_by_name() -> None:
    patients = cases_of(dict.fromkeys("ABCDE", 2))
    message = r"cases of patient B are listed in different roles \(B_0 as donor, B_1 as test\); list all in one"
    with pytest.raises(CohortError, match=message):
        choose_roles(sorted(patients), CohortSettings(test_cases=("?_1",), donor_cases=("B_0",)), RAW, patients)


def test_what_a_list_leaves_out_of_its_patients_takes_no_part() -> None:
    patients = cases_of(dict.fromkeys("ABCDE", 2))
    roles = choose_roles(sorted(patients), CohortSettings(test_cases=("A_0", "B_?")), RAW, patients)
    assert {case for case in roles if roles[case] == "test"} == {"A_0", "B_0", "B_1"}
    assert {case for case in roles if roles[case] == "donor"} == {case for case in patients if case[0] in "CDE"}


def test_a_download_takes_all_cases_where_patients_have_several() -> None:
    settings = CohortSettings(test=5, donors=6, patient_pattern="^(P..)")
    several = sorted(cases_of({f"P{number:02d}": 1 + number % 2 for number in range(20)}))
    assert needed_cases(several, settings, RAW) == several
    one_each = [f"P{number:02d}" for number in range(20)]
    needed = needed_cases(one_each, settings, RAW)
    assert len(needed) == 11
    assert choose_roles(needed, settings, RAW) == choose_roles(one_each, settings, RAW)


# --- folds and held-out cases ---


@given(st.lists(st.integers(1, 5), min_size=1, max_size=15), st.integers(1, 8), st.integers(0, 3))
def test_folds_hold_whole_patients_and_none_is_empty(sizes: list[int], count: int, seed: int) -> None:
    patients = cases_of({f"P{number}": size for number, size in enumerate(sizes)})
    folds = draw_folds(sorted(patients), count, seed, patients)
    assert len(folds) == count
    assert sorted(case for fold in folds for case in fold) == sorted(patients)
    assert apart(patients, {case: str(number) for number, fold in enumerate(folds) for case in fold}) == []
    assert sum(map(bool, folds)) == min(count, len(sizes))


def test_folds_are_about_as_large() -> None:
    patients = cases_of(SEVERAL)
    for seed in range(5):
        assert {len(fold) for fold in draw_folds(sorted(patients), 5, seed, patients)} <= {59, 60, 61}
    assert draw_folds(sorted(patients), 0, 0, patients) == divide_whole(waiting_line([], {}, 0), 0) == []


def test_held_out_cases_are_those_of_whole_patients() -> None:
    patients = cases_of(SEVERAL)
    for seed in range(5):
        drawn = draw_held_out(sorted(patients), 0.2, seed, patients)
        assert len(drawn) == 60
        assert apart(patients, {case: str(case in drawn) for case in patients}) == []
    with pytest.raises(CohortError, match=r"2 training cases, and .* would leave none"):
        draw_held_out(["A_0", "A_1"], 0.5, 0, {"A_0": "A", "A_1": "A"})


def test_folds_need_a_patient_each() -> None:
    patients = cases_of(dict.fromkeys("ABC", 2))
    roles = dict.fromkeys(patients, "donor")
    ensure_enough_donors(roles, patients, CohortSettings(), (1,), 3, RAW)
    with pytest.raises(CohortError, match="6 donors of 3 patients cannot be divided into 4 folds"):
        ensure_enough_donors(roles, patients, CohortSettings(), (1,), 4, RAW)


# --- a whole cohort ---


def write_sessions(folder: Path, names: Iterable[str]) -> Path:
    """Two sessions of each patient, the second with a structure of its own."""
    cases = [
        make_case(f"{name}-{session:03d}", 10 * number + session)
        for number, name in enumerate(names)
        for session in (0, 1)
    ]
    return write_brats_2023(folder, cases)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Four patients of two sessions each, under the profile `tiny`."""
    raw = write_sessions(tmp_path / "raw", (f"BraTS-GLI-{number:05d}" for number in range(4)))
    return Study(load_profile("tiny"), tmp_path / "data", raw, "tiny")


@pytest.mark.parametrize("seed", range(4))
def test_four_patients_of_two_sessions_stay_on_one_side(study: Study, seed: int) -> None:
    study = with_settings(study, {"cohort.seed": seed, "seed": seed})
    make(study, "cohort")
    cohort = study.cohort
    assert (len(cohort.donors), len(cohort.tests)) == (6, 2)
    assert {cohort.patients[case] for case in cohort.tests}.isdisjoint(
        cohort.patients[case] for case in cohort.donors
    )
    assert cohort.patients == {case.case_id: case.case_id[:15] for case in cohort.cases}
    assert cohort.sessions_learned_from == {case: case[:15] for case in cohort.donors}
    of_folds = {case: fold for fold, inside in study.folds.items() for case in inside}
    assert sorted(of_folds) == cohort.donors
    assert apart(cohort.patients, of_folds) == []


def test_the_page_and_the_table_say_whose_a_case_is(study: Study) -> None:
    make(study, "cohort")
    said = shown(study, "cohort")["patients"]
    assert said == "8 cases of 4 patients, 4 of whom have several; all of a patient get the same role"
    cohort = study.cohort
    for table in (cohort_table(cohort), cohort_rows(cohort)):
        assert dict(zip(table["case_id"], table["patient"], strict=True)) == cohort.patients


def test_check_says_how_many_patients_there_are(study: Study, tmp_path: Path) -> None:
    output = CliRunner().invoke(main, ["check", str(study.raw)]).output
    assert "8 cases of 4 patients, 4 of whom have several" in output
    as_json = json.loads(CliRunner().invoke(main, ["check", str(study.raw), "--json"]).output)
    assert set(as_json["patients"].values()) == {f"BraTS-GLI-{number:05d}" for number in range(4)}
    msd = write_msd(tmp_path / "msd", make_cases("P1_a", "P1_b", "P2_a"))
    assert "3 cases, each taken for a patient of its own. Ids such as those of MSD" in (
        CliRunner().invoke(main, ["check", str(msd)]).output
    )
    profile = tmp_path / "own.yaml"
    tiny = load_profile("tiny")
    profile.write_text(changed(tiny, {"cohort.patient_pattern": "^(P.)_"}).model_dump_json())
    output = CliRunner().invoke(main, ["check", str(msd), "--profile", str(profile)]).output
    assert "3 cases of 2 patients, 1 of whom have several" in output


def test_a_pattern_that_fits_no_case_is_refused(tmp_path: Path) -> None:
    study = make_study(tmp_path, {"cohort.patient_pattern": "^(P.)_"})
    with pytest.raises(CohortError, match=r"'\^\(P\.\)_' is found in the name of no case, such as case_0"):
        make(study, "cohort")


def cohort_of(raw: Path, **settings: object) -> Cohort:
    report = inspect_folder(raw)
    return choose_cohort(report, CohortSettings.model_validate(settings), report.anatomy, (1,))


def test_a_table_of_patients_makes_another_cohort_only_where_it_says_something(tmp_path: Path) -> None:
    raw = write_msd(tmp_path, make_cases(*"ABCDEFGH"))
    settings = {"donor_cases": [*"ABCDE"], "test_cases": [*"FGH"]}
    before = cohort_of(raw, **settings)
    assert before.sessions_learned_from == {}
    (raw / "cases.csv").write_text("case_id,patient\nA,A\nB,B\n")
    assert cohort_of(raw, **settings).version == before.version
    (raw / "cases.csv").write_text("case_id,patient\nF,P\nG,P\n")
    of_tests = cohort_of(raw, **settings)
    assert of_tests.version != before.version
    assert of_tests.patients == {**before.patients, "F": "P", "G": "P"}
    # no network learns from these, so nothing that is drawn among donors changes
    assert of_tests.sessions_learned_from == {}
    (raw / "cases.csv").write_text("case_id,patient\nA,P\nB,P\nF,Q\nG,Q\n")
    assert cohort_of(raw, **settings).sessions_learned_from == {"A": "P", "B": "P"}


def test_what_is_drawn_among_donors_is_outdated_by_their_patients_alone(tmp_path: Path) -> None:
    changes = {
        "cohort.donor_cases": [f"case_{number}" for number in range(6)],
        "cohort.test_cases": ["case_6", "case_7"],
        "out_of_fold.folds": 2,
        "candidates.names": ["2d_ce"],
    }
    study = make_study(tmp_path, changes)
    pretend_all(study)
    assert set(all_states(study)["baseline_candidate"].values()) == {"current"}
    table = study.raw / "cases.csv"
    for written, states in (("case_6,P\ncase_7,P\n", {"current"}), ("case_0,P\ncase_1,P\n", {"outdated"})):
        table.write_text(f"case_id,patient\n{written}")
        assert all_states(study)["cohort"] == {None: "outdated"}
        make(study, "cohort")
        found = all_states(study)
        assert set(found["baseline_candidate"].values()) == states
        assert set(found["label_quality"].values()) == states
        assert set(found["case_model"].values()) == {"current"}
