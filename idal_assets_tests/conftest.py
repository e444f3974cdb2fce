"""Fixtures that several test modules share: above all one finished run of the whole graph."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import dagster as dg
import pytest
from filelock import FileLock
from hypothesis import settings
from matplotlib.figure import Figure
from PIL import Image

import idal_assets
from idal_assets.orchestration.instance import open_instance
from idal_assets.store.artifacts import content_hash, software_versions
from idal_assets.study.study import Study

# the same examples in every run, and no limit on the time of one, as machines are slow at times
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

IDAL = [sys.executable, "-c", "from idal_assets.cli import main; main()"]


def idal(*arguments: str | Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Calls the command line in a process of its own, as a person does."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("IDAL_P", "IDAL_D"))}
    command = [*IDAL, *(str(argument) for argument in arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env={**clean, **(environment or {})}, check=False
    )


@dataclass(frozen=True)
class FinishedRun:
    """A data folder in which the whole graph ran once."""

    data_dir: Path
    output: str = ""

    def study(self) -> Study:
        return Study.open(self.data_dir)

    def instance(self) -> dg.DagsterInstance:
        return open_instance(self.study().folder)

    def copied_to(self, folder: Path) -> "FinishedRun":
        """The same in a place where it may be changed."""
        shutil.copytree(self.data_dir, folder / "data", copy_function=shutil.copy2)
        return FinishedRun(folder / "data")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IDAL_PROFILE", "IDAL_DATA_DIR", "DAGSTER_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """`idal run --profile tiny`, once for the tests of all processes; they must not change it."""

    def run(folder: Path) -> None:
        done = idal("run", "--profile", "tiny", "--data-dir", folder / "data")
        assert done.returncode == 0, done.stdout + done.stderr
        (folder / "output.txt").write_text(done.stdout)

    folder = made_once(tmp_path_factory, "tiny", run)
    return FinishedRun(folder / "data", (folder / "output.txt").read_text())


@pytest.fixture
def copied(finished_run: FinishedRun, tmp_path: Path) -> FinishedRun:
    """The finished run in a place where it may be changed."""
    return finished_run.copied_to(tmp_path)


@pytest.fixture
def instance(copied: FinishedRun) -> Iterator[dg.DagsterInstance]:
    """What Dagster knows of it."""
    with copied.instance() as opened:
        yield opened


@contextmanager
def nothing_drawn() -> Iterator[None]:
    """Figures become empty pictures, as drawing takes about as long as the networks of these tests.

    That they can be drawn is what the tests of the plots and `finished_run` are for.
    """

    def save(figure: Figure, file: BinaryIO, **options: Any) -> None:
        if options["format"] == "png":
            Image.new("RGB", (1, 1)).save(file, "png")
        else:
            file.write({"svg": b"<svg/>", "pdf": b"%PDF"}[options["format"]])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save)
        yield


@pytest.fixture(scope="module")
def blank_pictures() -> Iterator[None]:
    """The graph of the tests of this module draws nothing."""
    with nothing_drawn():
        yield


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that one of the processes of these tests fills, while the others wait; none may change it."""
    folder = _shared(factory) / f"{name}-{_package_version()}"
    done = folder / ".done"
    with FileLock(f"{folder}.lock"):
        if not done.is_file():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


def _shared(factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of one call of pytest share; `IDAL_TEST_RUNS` names one that outlives it."""
    kept = os.environ.get("IDAL_TEST_RUNS")
    own = factory.getbasetemp()
    folder = Path(kept) if kept else own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@cache
def _package_version() -> str:
    """Hash of every file of the package and of what it computes with, so that an older run is never taken."""
    root = Path(idal_assets.__file__).parent
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc")
    content = {str(path.relative_to(root)): path.read_bytes().hex() for path in files}
    return content_hash([content, software_versions()])
