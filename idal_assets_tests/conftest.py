"""Fixtures that several test modules share: above all one finished run of the whole graph."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

from idal_assets.orchestration.instance import open_instance
from idal_assets.study.study import Study

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
    output: str

    def study(self) -> Study:
        return Study.open(self.data_dir)

    def instance(self) -> dg.DagsterInstance:
        return open_instance(self.study().folder)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IDAL_PROFILE", "IDAL_DATA_DIR", "DAGSTER_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """`idal run --profile tiny`, once for all tests; they must not change it."""
    data_dir = tmp_path_factory.mktemp("tiny") / "data"
    done = idal("run", "--profile", "tiny", "--data-dir", data_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    return FinishedRun(data_dir, done.stdout)
