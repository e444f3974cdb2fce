"""Damage after the fact is noticed before anything is made from it, and mended by the next run."""

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st

from idal_assets.cli import main
from idal_assets.profile import ProfileError
from idal_assets.store import artifacts
from idal_assets.store.artifacts import (
    Inputs,
    build,
    find_damage,
    read_provenance,
)
from idal_assets.store.database import recorded_sources
from idal_assets.store.files import DamagedError, FileMark, with_seal, without_seal
from idal_assets.study.currency import all_states
from idal_assets.study.graph import GRAPH
from idal_assets.study.making import make
from idal_assets.study.soundness import damaged_artifacts, damaged_database, take_back_damaged, without_hashes
from idal_assets.study.study import NotMadeError, Study
from idal_assets.study.tables import artifacts_on_disk, record_tables, without_tables
from idal_assets_tests.conftest import FinishedRun, idal
from idal_assets_tests.damage import assert_same, everything, flip_bit, flips
from idal_assets_tests.studies import make_study, task_of

FLIPS = 200


@pytest.fixture(autouse=True)
def _a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    forget(monkeypatch)


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process knows of files it looked at, a new one does not."""
    monkeypatch.setattr(artifacts, "_intact", set())
    monkeypatch.setattr(artifacts, "_altered", {})
    monkeypatch.setattr(artifacts, "_said", set())
    artifacts._parse_provenance.cache_clear()


def built(root: Path, content: bytes = b"content", name: str = "result.bin", code: str = "1") -> Path:
    def work(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)

    inputs = Inputs(code=code, settings={"section": {"number": 1.5}}, made_from={"upstream": {"A": "v1"}})
    build(root / "asset", "asset", None, inputs, work, root / "unfinished", root / "locks")
    return root / "asset"


# --- one artifact ---


@pytest.mark.unit
class TestArtifact:
    def test_the_record_lists_size_and_hash_of_every_file(self, tmp_path: Path) -> None:
        record = read_provenance(built(tmp_path, b"abc", "deep/down/file"))
        sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        assert record is not None
        assert record.files == {"deep/down/file": FileMark(3, sha256)}

    def test_a_file_that_is_gone_or_of_another_size_is_noticed_at_a_look(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        folder = built(tmp_path)
        assert read_provenance(folder)
        (folder / "result.bin").write_bytes(b"longer content")
        assert read_provenance(folder) is None
        assert read_provenance(folder) is None
        assert [record.getMessage() for record in caplog.records] == [
            f"{folder} is damaged: result.bin has 14 bytes instead of 7. It counts as missing and is made again."
        ]
        (folder / "result.bin").unlink()
        assert read_provenance(folder) is None
        assert "result.bin is gone" in caplog.text
        (folder / "result.bin").write_bytes(b"content")
        assert read_provenance(folder), "who puts the file back has mended it"

    def test_another_content_is_noticed_before_it_is_used(self, tmp_path: Path) -> None:
        folder = built(tmp_path)
        artifacts._intact.clear()
        (folder / "result.bin").write_bytes(b"contend")
        assert read_provenance(folder), "a look reads no file"
        assert find_damage(folder) == "result.bin is not as it was written"
        assert read_provenance(folder) is None

    def test_what_was_read_once_is_not_read_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = built(tmp_path)
        monkeypatch.setattr(artifacts, "difference_of_content", lambda *_: pytest.fail("read again"))
        assert find_damage(folder) is None, "what this process wrote"
        forget(monkeypatch)
        monkeypatch.setattr(artifacts, "difference_of_content", lambda *_: None)
        assert find_damage(folder) is None
        monkeypatch.setattr(artifacts, "difference_of_content", lambda *_: pytest.fail("read again"))
        assert find_damage(folder) is None, "what this process read"

    @pytest.mark.parametrize("look", [read_provenance, find_damage])
    @pytest.mark.parametrize("compared", ["difference_of_sizes", "difference_of_content"])
    def test_an_artifact_that_is_replaced_during_a_look_is_not_damaged(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look: Callable[[Path], object], compared: str
    ) -> None:
        folder = built(tmp_path)
        forget(monkeypatch)
        real = getattr(artifacts, compared)

        def replaced_meanwhile(*arguments: Any) -> str:
            monkeypatch.setattr(artifacts, compared, real)
            built(tmp_path, code="2")
            return "result.bin is gone"

        monkeypatch.setattr(artifacts, compared, replaced_meanwhile)
        look(folder)
        record = read_provenance(folder)
        assert record is not None
        assert find_damage(folder) is None

    def test_every_bit_of_a_record_counts(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = built(tmp_path)
        whole = read_provenance(folder)
        noticed = 0
        for _ in flips(folder / "provenance.json", FLIPS, "record"):
            artifacts._parse_provenance.cache_clear()
            found = read_provenance(folder)
            # a flip in the key of the seal leaves a record without one that says the same
            assert found in (None, whole)
            noticed += found is None
        assert noticed > 0.9 * FLIPS

    @pytest.mark.parametrize("content", [b"", b"{}", b"\x00" * 900, b'{"asset": "asset"', b"[1]", b"\xff"])
    def test_a_record_that_a_power_cut_left_is_none(self, tmp_path: Path, content: bytes) -> None:
        folder = built(tmp_path)
        (folder / "provenance.json").write_bytes(content)
        assert read_provenance(folder) is None
        built(tmp_path)
        assert read_provenance(folder)

    def test_a_record_from_before_there_were_hashes_is_believed(self, tmp_path: Path) -> None:
        folder = built(tmp_path)
        record = read_provenance(folder)
        assert record is not None
        before = record.model_copy(update={"files": None}).model_dump_json(indent=1, exclude={"files"})
        (folder / "provenance.json").write_text(before)
        (folder / "result.bin").write_bytes(b"other")
        assert read_provenance(folder) == record.model_copy(update={"files": None})
        assert find_damage(folder) is None

    def test_files_and_folders_are_on_disk_before_the_artifact_has_its_name(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        flushed: list[Path] = []
        real = os.fsync

        def spy(opened: int) -> None:
            assert not (tmp_path / "asset").exists()
            flushed.append(Path(f"/proc/self/fd/{opened}").resolve())
            real(opened)

        monkeypatch.setattr(os, "fsync", spy)
        built(tmp_path, name="deep/file")
        (file,) = {path for path in flushed if path.name == "file"}
        assert {file.parent, file.parent.parent} <= set(flushed)
        assert file.parent.parent.parent == tmp_path / "unfinished"
        assert [path for path in flushed if path.name.startswith(".provenance.json")]


NAMES = st.text(st.characters(exclude_characters="/\x00", exclude_categories=("Cs",)), min_size=1, max_size=40)


@pytest.mark.unit
class TestNames:
    @given(NAMES.filter(lambda name: name not in (".", "..", "provenance.json") and len(name.encode()) < 200))
    @example(" ")
    @example("%2e%2e")
    @example("-rf")
    @example("a\nb")
    @example('"quoted", with commas')
    @example("Größe–✓.nii.gz")
    def test_a_file_of_any_name_is_compared(self, tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
        folder = built(tmp_path_factory.mktemp("names"), b"abc", name)
        assert read_provenance(folder)
        artifacts._intact.clear()
        (folder / name).write_bytes(b"abd")
        assert find_damage(folder) == f"{name} is not as it was written"

    @given(st.dictionaries(NAMES, st.none() | st.text(max_size=20) | st.integers() | st.booleans(), min_size=1))
    def test_a_seal_gives_back_what_was_sealed(self, values: dict) -> None:
        text = json.dumps(values, indent=1)
        sealed = with_seal(text)
        assert without_seal(sealed.encode()) == text.encode()
        assert {**json.loads(sealed), "seal": None} == {**values, "seal": None}
        with pytest.raises(DamagedError):
            without_seal(sealed.replace("{", "{ ", 1).encode())


# --- what an artifact is made from ---


@pytest.fixture
def study(tmp_path: Path) -> Study:
    found = make_study(tmp_path)
    make(found, "cohort")
    return found


@pytest.mark.unit
class TestStudy:
    def test_nothing_is_made_from_a_damaged_artifact(self, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
        case = study.cohort.donors[0]
        make(study, "raw_case", case)
        task = task_of(study, "raw_case", case)
        forget(monkeypatch)
        flip_bit(study.path("cohort") / "cohort.json", random.Random(1))
        assert all_states(study)["raw_case"] == {}, "the cohort says which cases there are"
        with pytest.raises(NotMadeError, match="cohort"):
            _ = study.cohort
        assert task.key == case
        record, made_now = make(study, "cohort")
        assert made_now
        assert record.version == study.version("cohort")
        assert all_states(study)["raw_case"][case] == "current"

    def test_cells_of_a_damaged_row_are_not_taken_over(
        self, study: Study, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        case = study.cohort.donors[0]
        make(study, "raw_case", case)
        task = task_of(study, "raw_case", case)
        assert task.before == study.path("raw_case", case)
        forget(monkeypatch)
        flip_bit(study.path("raw_case", case) / "facts.json", random.Random(2))
        find_damage(study.path("raw_case", case))
        assert task.before is None

    def test_a_damaged_artifact_is_taken_back_and_made_again(
        self, study: Study, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        case = study.cohort.donors[0]
        before, _ = make(study, "raw_case", case)
        forget(monkeypatch)
        assert take_back_damaged(study) == []
        forget(monkeypatch)
        (file, *_) = sorted(study.path("raw_case", case).glob("*.png"))
        flip_bit(file, random.Random(3))
        assert [str(damage) for damage in take_back_damaged(study)] == [
            f"raw_case of {case} is damaged: {file.name} is not as it was written"
        ]
        assert all_states(study)["raw_case"][case] == "missing"
        after, made_now = make(study, "raw_case", case)
        assert made_now
        assert (after.version, after.files) == (before.version, before.files)

    def test_the_database_comes_back_from_the_artifacts(self, study: Study, tmp_path: Path) -> None:
        database = study.folder.database
        shutil.copy(database, tmp_path / "before.duckdb")
        assert record_tables(study) == []
        for damage in (Path.unlink, truncate, scribble):
            damage(database)
            assert record_tables(study) == [("cohort", None)]
            assert_same(database, tmp_path / "before.duckdb")
            assert damaged_database(study) is None

    def test_a_table_is_recorded_when_its_artifact_is_looked_at(self, study: Study) -> None:
        study.folder.database.unlink()
        assert not make(study, "cohort")[1]
        assert {source.asset for source in recorded_sources(study.folder.database)} == {"cohort"}

    def test_a_damaged_study_file_is_a_sentence(self, study: Study) -> None:
        study.remember()
        whole = json.loads(without_seal(study.folder.study_file.read_bytes()))
        for _ in flips(study.folder.study_file, FLIPS, "study"):
            try:
                again = Study.open(study.folder.root)
            except ProfileError as error:
                assert "--profile and --raw" in str(error)
            else:
                assert (again.profile_source, str(again.raw)) == (whole["profile"], whole["raw"])
        assert Study.open(study.folder.root).raw == study.raw


def truncate(path: Path) -> None:
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size // 2)


def scribble(path: Path) -> None:
    path.write_bytes(b"this is no database" * 1000)


# --- a whole study ---


def kinds(study: Study) -> Iterator[tuple[str, str, str | None, str]]:
    """For each kind of file that artifacts hold, the smallest one: its kind, asset, key and name."""
    found: dict[str, tuple[int, str, str | None, str]] = {}
    for asset, key in artifacts_on_disk(study):
        for name, (size, _) in (study.provenance(asset, key).files or {}).items():
            kind = Path(name).suffix
            if size and (kind not in found or size < found[kind][0]):
                found[kind] = (size, asset, key, name)
    return ((kind, asset, key, name) for kind, (_, asset, key, name) in sorted(found.items()))


@pytest.mark.graph
def test_not_one_of_200_flipped_bits_in_any_kind_of_file_is_silent(
    finished_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = finished_run.study()
    looked_at = set()
    for kind, asset, key, name in kinds(study):
        folder = tmp_path / kind / "artifact"
        shutil.copytree(study.path(asset, key), folder)
        for _ in flips(folder / name, FLIPS, kind):
            forget(monkeypatch)
            assert find_damage(folder) == f"{name} is not as it was written"
        forget(monkeypatch)
        assert find_damage(folder) is None
        looked_at.add(kind)
    assert {".b2nd", ".csv", ".gz", ".html", ".json", ".npy", ".npz", ".parquet", ".png", ".pth"} <= looked_at


@pytest.mark.graph
def test_a_flipped_bit_of_the_database_is_noticed_or_harmless(finished_run: FinishedRun, tmp_path: Path) -> None:
    count = 20
    assert flipped_databases(finished_run, tmp_path, count) > count / 2


@pytest.mark.live
def test_not_one_of_200_flipped_bits_of_the_database_is_silent(finished_run: FinishedRun, tmp_path: Path) -> None:
    assert flipped_databases(finished_run, tmp_path, FLIPS) > FLIPS / 2


def flipped_databases(run: FinishedRun, folder: Path, count: int) -> int:
    """Flips a bit at a time; returns how often that was noticed. Otherwise every row must be what it was."""
    database = folder / "idal.duckdb"
    shutil.copy(run.study().folder.database, database)
    noticed = 0
    for _ in flips(database, count, "database"):
        try:
            recorded_sources(database, read_all=True)
        except DamagedError:
            noticed += 1
        else:
            assert_same(database, run.study().folder.database)
    return noticed


@pytest.mark.graph
def test_one_run_mends_everything_with_the_same_numbers(
    finished_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bit in every kind of file, a file that is gone, a cut record and a lost database."""
    copied = finished_run.copied_to(tmp_path)
    study, draw = copied.study(), random.Random(5)
    donor = study.cohort.donors[0]
    damaged = {(asset, key) for _, asset, key, name in kinds(study)}
    for _, asset, key, name in kinds(study):
        flip_bit(study.path(asset, key) / name, draw)
    (study.path("experiment_report") / "report.html").unlink()
    truncate(study.path("dendrogram") / "provenance.json")
    flip_bit(study.path("case_model", donor) / "fold_all" / "checkpoint_final.pth", draw)
    damaged |= {("experiment_report", None), ("dendrogram", None), ("case_model", donor)}
    study.folder.database.unlink()
    forget(monkeypatch)
    assert damaged_artifacts(study).keys() == damaged

    mended = idal("run", "--data-dir", copied.data_dir)
    assert mended.returncode == 0, mended.stdout + mended.stderr
    assert "Traceback" not in mended.stdout + mended.stderr
    for name in (asset if key is None else f"{asset} of {key}" for asset, key in damaged):
        assert f"{name} is damaged" in mended.stdout
    forget(monkeypatch)
    assert {state for states in all_states(study).values() for state in states.values()} == {"current"}
    assert damaged_artifacts(study) == {}
    assert_same(study.folder.database, finished_run.study().folder.database, clock=False)


@pytest.mark.graph
def test_verify_lists_what_is_damaged_and_changes_nothing(finished_run: FinishedRun, tmp_path: Path) -> None:
    copied = finished_run.copied_to(tmp_path)
    study = copied.study()
    code, said = called("verify", copied)
    assert (code, said.strip()) == (0, "Nothing is damaged.")
    flip_bit(study.path("dendrogram") / "linkage.npy", random.Random(7))
    truncate(study.folder.database)
    artifacts._intact.clear()
    code, said = called("verify", copied)
    assert code == 1
    first, second, last = said.strip().splitlines()
    assert first == "dendrogram is damaged: linkage.npy is not as it was written"
    assert second.startswith("idal.duckdb is damaged: ")
    assert last == "2 damaged; `idal run` makes them again."
    found = json.loads(called("verify", copied, "--json")[1])
    assert [entry["what"] for entry in found["damaged"]] == ["dendrogram", "idal.duckdb"]
    assert found["without_hashes"] == []
    assert (study.path("dendrogram") / "provenance.json").is_file()


def called(command: str, run: FinishedRun, *options: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, [command, "--data-dir", str(run.data_dir), *options])
    return done.exit_code, done.stdout


@pytest.mark.live
def test_a_damaged_instance_is_made_again_and_nothing_else(finished_run: FinishedRun, tmp_path: Path) -> None:
    copied = finished_run.copied_to(tmp_path)
    scribble(copied.study().folder.dagster_home / "history" / "runs.db")
    before = {place: copied.study().provenance(*place) for place in artifacts_on_disk(copied.study())}
    done = idal("run", "--data-dir", copied.data_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Dagster's database was damaged" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert {place: copied.study().provenance(*place) for place in before} == before
    again = idal("run", "--data-dir", copied.data_dir)
    assert f"0 artifacts made, {len(before)} were current" in again.stdout


@pytest.mark.graph
def test_a_lost_database_gives_what_it_gave(finished_run: FinishedRun, tmp_path: Path) -> None:
    copied = finished_run.copied_to(tmp_path)
    study = copied.study()
    assert without_tables(study) == []
    assert without_hashes(study) == []
    assert damaged_artifacts(study) == {}
    study.folder.database.unlink()
    filled = {table for node in GRAPH.values() for table in node.tables}
    assert {asset for asset, _ in record_tables(study)} == {node.name for node in GRAPH.values() if node.tables}
    assert_same(study.folder.database, finished_run.study().folder.database)
    assert {name.removeprefix("main.") for name in everything(study.folder.database)} >= filled
