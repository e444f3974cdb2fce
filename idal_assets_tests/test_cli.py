"""The command line: what a person types and reads."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from idal_assets.cli import main
from idal_assets.profile import profile_names, profile_schema
from idal_assets.study.study import Study
from idal_assets_tests.raw_folders import make_cases, read_json, real_data, write_json, write_msd

pytestmark = pytest.mark.unit


def call(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return done.exit_code, done.output


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom") / "raw"
    code, output = call("phantom", folder, "--profile", "tiny")
    assert code == 0, output
    return folder


def test_phantom_writes_a_dataset_that_check_accepts(phantom: Path) -> None:
    code, output = call("check", phantom)
    assert code == 0
    assert "7 cases can be used, 0 are refused" in output
    truth = json.loads((phantom / "truth.json").read_text())["cases"]
    assert sum(case["fault"] is not None for case in truth.values()) == 1


def test_check_lists_every_bad_case_on_a_line_of_its_own(phantom: Path, tmp_path: Path) -> None:
    import shutil

    raw = tmp_path / "raw"
    shutil.copytree(phantom, raw)
    (raw / "labelsTr" / "phantom_train_01.nii.gz").unlink()
    image = raw / "imagesTr" / "phantom_train_03.nii.gz"
    image.write_bytes(image.read_bytes()[:1000])
    code, output = call("check", raw)
    assert code == 1
    lines = output.splitlines()
    for bad in ("phantom_train_01", "phantom_train_03"):
        assert len([line for line in lines if line.startswith(bad) and "REFUSED" in line]) == 1
    assert "5 cases can be used, 2 are refused" in output


def with_odd_cases(folder: Path) -> Path:
    """Two cases with a constant channel, one that is damaged, and a number of cases that does not fit."""
    names = [f"case_{number:02d}" for number in range(4)]
    cases = make_cases(*names)
    for case in cases[:2]:
        case.image[3] = 7
    write_msd(folder, cases)
    write_json(folder, read_json(folder) | {"numTraining": 12})
    (folder / "labelsTr" / "case_03.nii.gz").write_bytes(b"no nifti")
    return folder


def test_check_counts_warnings_by_kind_and_names_their_cases(tmp_path: Path) -> None:
    code, output = call("check", with_odd_cases(tmp_path))
    assert code == 1
    lines = output.splitlines()
    start = lines.index("Warnings:")
    assert lines[start + 1 : start + 3] == [
        "  number of cases: the folder",
        "  constant channel: 2 cases (case_00, case_01)",
    ]


def test_check_says_the_same_as_json(tmp_path: Path) -> None:
    code, output = call("check", "--json", with_odd_cases(tmp_path))
    found = json.loads(output)
    assert code == 1
    assert (found["layout"], found["channels"][0], found["labels"]["1"]) == ("MSD", "FLAIR", "oedema")
    assert list(found["cases"]) == ["case_00", "case_01", "case_02"]
    assert found["cases"]["case_02"]["label_voxels"] == {"1": 6, "2": 4, "3": 2}
    assert found["refused"] == ["case_03"]
    assert [(kind["kind"], kind["cases"]) for kind in found["errors"]] == [("damaged file", ["case_03"])]
    (of_folder, constant) = found["warnings"]
    assert (of_folder["kind"], of_folder["cases"]) == ("number of cases", [])
    assert (constant["kind"], constant["cases"]) == ("constant channel", ["case_00", "case_01"])
    assert set(constant["problems"][0]) == {"case", "file", "what", "remedy"}


@pytest.mark.real
def test_check_reads_real_cases() -> None:
    code, output = call("check", real_data("brats_mini"))
    assert code == 0
    assert "8 cases can be used" in output


def test_check_says_which_layouts_are_known(tmp_path: Path) -> None:
    code, output = call("check", tmp_path)
    assert code == 1
    assert "MSD" in output
    assert "BraTS" in output


def test_status_of_an_empty_data_folder_says_what_is_missing(tmp_path: Path) -> None:
    code, output = call("status", "--json", "--profile", "tiny", "--data-dir", tmp_path)
    assert code == 0
    counts = json.loads(output)
    assert counts["cohort"] == {"current": 0, "outdated": 0, "missing": 1}
    assert counts["reduced_model"]["missing"] == 10


def test_help_says_what_each_command_does_in_a_whole_sentence() -> None:
    code, output = call("--help")
    assert code == 0
    assert "..." not in output.partition("Commands:")[2]


def test_schema_prints_what_an_editor_reads() -> None:
    code, output = call("schema")
    assert code == 0
    assert json.loads(output) == profile_schema()


def test_an_unknown_profile_is_a_message_not_a_traceback(tmp_path: Path) -> None:
    code, output = call("run", "--profile", "tinny", "--data-dir", tmp_path / "data")
    assert code == 1
    assert "no profile 'tinny'" in output
    assert ", ".join(profile_names()) in output


def test_a_raw_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    code, output = call("run", "--profile", "tiny", "--raw", tmp_path / "none", "--data-dir", tmp_path / "data")
    assert code == 1
    assert "There is no folder" in output
    assert not (tmp_path / "data").exists()


def test_results_do_not_go_among_the_raw_cases(tmp_path: Path) -> None:
    raw = write_msd(tmp_path / "raw", make_cases("A"))
    code, output = call("run", "--profile", "tiny", "--raw", raw, "--data-dir", raw)
    assert code == 1
    assert "--data-dir" in output
    assert {path.name for path in raw.iterdir()} == {"dataset.json", "imagesTr", "labelsTr"}


def test_a_profile_without_phantom_asks_for_the_raw_folder(tmp_path: Path) -> None:
    code, output = call("run", "--profile", "thesis", "--data-dir", tmp_path / "data")
    assert code == 1
    assert "--raw DIR" in output


def test_environment_variables_choose_profile_and_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IDAL_PROFILE", "mini")
    monkeypatch.setenv("IDAL_DATA_DIR", str(tmp_path / "elsewhere"))
    study = Study.open()
    assert study.profile.name == "mini"
    assert study.folder.root == tmp_path / "elsewhere"


def test_the_data_folder_remembers_profile_and_raw_folder(tmp_path: Path) -> None:
    Study.open(tmp_path / "data", "mini", tmp_path / "cases").remember()
    again = Study.open(tmp_path / "data")
    assert (again.profile.name, again.raw) == ("mini", tmp_path / "cases")


def test_a_study_says_what_other_study_it_replaces(tmp_path: Path) -> None:
    first = Study.open(tmp_path / "data", "mini", tmp_path / "cases")
    assert first.replaces() is None
    first.remember()
    assert Study.open(tmp_path / "data").replaces() is None
    other = Study.open(tmp_path / "data", "tiny").replaces()
    assert other == f"profile mini, cases in {tmp_path / 'cases'}"


def test_another_profile_does_not_inherit_the_raw_folder(tmp_path: Path) -> None:
    Study.open(tmp_path / "data", "mini", tmp_path / "cases").remember()
    other = Study.open(tmp_path / "data", "demo")
    assert other.raw == tmp_path / "data" / "phantom"
