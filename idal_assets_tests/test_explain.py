"""Errors of disk, system and other programs, as a person reads them: one sentence with what to do."""

import errno
import os
import resource
import sqlite3
import subprocess
import sys
from collections import namedtuple
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import duckdb
import pytest
from click.testing import CliRunner

from idal_assets.cli import main
from idal_assets.orchestration import explain
from idal_assets.orchestration.explain import BY_NUMBER, remedy
from idal_assets.orchestration.instance import InstanceError, ensure_home, mend_instance, open_instance
from idal_assets.store.layout import DataFolder
from idal_assets.study import currency
from idal_assets_tests.damage import flips

pytestmark = pytest.mark.unit


def raised_from(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("number", BY_NUMBER)
def test_an_error_of_the_system_is_explained_with_its_file(tmp_path: Path, number: int) -> None:
    error = OSError(number, os.strerror(number), "/data/file")
    assert remedy(error, tmp_path) == f"/data/file: {BY_NUMBER[number]}"
    assert (
        remedy(raised_from(RuntimeError("a step failed"), error), tmp_path) == f"/data/file: {BY_NUMBER[number]}"
    )


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (sqlite3.OperationalError("database or disk is full"), errno.ENOSPC),
        (duckdb.IOException('Could not write file "x": No space left on device'), errno.ENOSPC),
        (
            RuntimeError("PytorchStreamWriter failed writing file: [Errno 28] No space left on device"),
            errno.ENOSPC,
        ),
        (sqlite3.OperationalError("attempt to write a readonly database"), errno.EROFS),
        (OSError("[Errno 27] Error writing bytes to file. Detail: [errno 27] File too large"), errno.EFBIG),
    ],
)
def test_what_libraries_say_of_it_is_understood(tmp_path: Path, error: Exception, number: int) -> None:
    assert remedy(error, tmp_path) == BY_NUMBER[number]


def test_what_sqlite_cannot_tell_apart_the_limit_of_the_process_tells(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        with (
            closing(sqlite3.connect(tmp_path / "file")) as opened,
            pytest.raises(sqlite3.OperationalError) as refused,
        ):
            opened.execute("CREATE TABLE rows (number)")
        assert remedy(refused.value, tmp_path) == f"{tmp_path}: {BY_NUMBER[errno.EFBIG]}"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert remedy(refused.value, tmp_path) == f"{tmp_path}: {BY_NUMBER[errno.EIO]}"


def test_whatever_fails_on_a_full_disk_fails_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert remedy(RuntimeError("blosc2 could not append"), tmp_path) is None
    usage = namedtuple("usage", "total used free")(10**9, 10**9, 4096)
    monkeypatch.setattr(explain.shutil, "disk_usage", lambda place: usage)
    said = remedy(RuntimeError("blosc2 could not append"), tmp_path / "not" / "there")
    assert said == f"{tmp_path / 'not' / 'there'}: {BY_NUMBER[errno.ENOSPC]}"


def test_a_database_in_another_program_is_explained(tmp_path: Path) -> None:
    database = tmp_path / "idal.duckdb"
    hold = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", hold, str(database)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(duckdb.IOException) as refused:
            duckdb.connect(str(database))
        holder.communicate()
    assert str(remedy(refused.value, tmp_path)).startswith("Another program has the database open")


class TestCommand:
    @pytest.fixture
    def fail_with(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        def arrange(error: Exception) -> None:
            def fail(study: object) -> None:
                raise error

            monkeypatch.setattr(currency, "all_states", fail)

        return arrange

    def call(self, *arguments: str) -> Any:
        return CliRunner().invoke(main, ["status", "--profile", "tiny", *arguments])

    def test_no_error_is_a_traceback(self, tmp_path: Path, fail_with: Any) -> None:
        for error in (OSError(errno.EIO, "x", "/file"), ZeroDivisionError("by zero"), KeyError("a")):
            fail_with(error)
            done = self.call("--data-dir", str(tmp_path))
            assert done.exit_code == 1
            assert isinstance(done.exception, SystemExit)
            assert done.output.startswith("Error: ")
        assert "KeyError: 'a'" in done.output
        assert "--debug" in done.output

    def test_debug_shows_where_it_was(self, tmp_path: Path, fail_with: Any) -> None:
        fail_with(ZeroDivisionError("by zero"))
        assert isinstance(self.call("--data-dir", str(tmp_path), "--debug").exception, ZeroDivisionError)


# --- Dagster's own files ---


def test_a_damaged_instance_is_put_aside_with_its_configuration_kept(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    with open_instance(folder) as instance:
        instance.add_dynamic_partitions("case", ["a"])
    own = (folder.dagster_home / "dagster.yaml").read_text() + "# mine\n"
    (folder.dagster_home / "dagster.yaml").write_text(own)
    assert mend_instance(folder) is None
    (folder.dagster_home / "history" / "runs.db").write_bytes(b"no database" * 1000)
    aside = mend_instance(folder)
    assert aside == tmp_path / "dagster_home.damaged"
    assert (aside / "history" / "runs.db").read_bytes().startswith(b"no database")
    with open_instance(folder) as instance:
        assert not instance.get_dynamic_partitions("case")
    assert (folder.dagster_home / "dagster.yaml").read_text() == own
    assert mend_instance(folder) is None


@pytest.mark.parametrize("text", ["run_queue: [", "no_such_section: {a: 1}\n", "\x00\x01"])
def test_a_damaged_configuration_is_a_sentence(tmp_path: Path, text: str) -> None:
    folder = DataFolder(tmp_path)
    (ensure_home(folder) / "dagster.yaml").write_text(text)
    with pytest.raises(InstanceError, match=r"dagster\.yaml cannot be used: mend it, or delete it"):
        open_instance(folder)


def test_a_flipped_bit_of_the_configuration_is_no_traceback(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    for _ in flips(ensure_home(folder) / "dagster.yaml", 30, "configuration"):
        with suppress(InstanceError):
            open_instance(folder).dispose()
