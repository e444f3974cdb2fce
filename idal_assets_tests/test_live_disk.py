"""Disks that are full, read-only or limited, and kills at random moments: one sentence, and nothing is lost.

A small disk is a tmpfs in a mount namespace of its own; where the system does not allow one, these tests skip.
"""

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from idal_assets.study.currency import all_states
from idal_assets.study.tables import artifacts_on_disk
from idal_assets_tests.conftest import IDAL, FinishedRun, idal
from idal_assets_tests.damage import assert_same

pytestmark = pytest.mark.live

KILLS = 20
PLACES = 20
"""At how many fillings of the disk a run is stopped by it."""

ROOM = """
set -u
place=$1; mount -t tmpfs -o size=64k tmpfs "$place" || exit 77
shift
for size in $SIZES; do
  mount -o remount,size=${size}k "$place" || exit 77
  "$@" > "$LOGS/$size.txt" 2>&1; echo $? > "$LOGS/$size.rc"
done
cp -r "$place/data" "$LOGS/data"
"""
"""Grows a disk step by step, calls a command at each size, and keeps what is on it at last."""


def in_namespace(script: str, *arguments: str, **environment: str) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare, for a disk of its own")
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", *arguments]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if done.returncode == 77 or "Operation not permitted" in done.stderr:
        pytest.skip(f"no mount of its own: {done.stderr}")
    assert done.returncode == 0, done.stderr


def test_a_disk_that_is_full_at_many_places_costs_nothing(finished_run: FinishedRun, tmp_path: Path) -> None:
    whole = sum(path.stat().st_size for path in finished_run.data_dir.rglob("*") if path.is_file()) // 1024
    disk, logs = tmp_path / "disk", tmp_path / "logs"
    disk.mkdir()
    logs.mkdir()
    sizes = [128 + place * whole // PLACES for place in range(PLACES)]
    in_namespace(
        ROOM,
        str(disk),
        *IDAL,
        *("run", "--profile", "tiny", "--data-dir", str(disk / "data")),
        SIZES=" ".join(map(str, [*sizes, 4 * whole])),
        LOGS=str(logs),
    )
    codes = [int((logs / f"{size}.rc").read_text()) for size in (*sizes, 4 * whole)]
    said = {size: (logs / f"{size}.txt").read_text() for size in sizes}
    assert codes == [1] * PLACES + [0], said
    for size, text in said.items():
        assert "Traceback" not in text, (size, text)
        assert "The disk is full" in text, (size, text)
    found = FinishedRun(logs / "data").study()
    assert_same(found.folder.database, finished_run.study().folder.database, clock=False)


def test_a_limit_on_the_size_of_files_is_a_sentence(tmp_path: Path) -> None:
    for kilobytes in (1, 16, 64, 256):
        limited = ["sh", "-c", f'ulimit -f {2 * kilobytes}; exec "$@"', "sh", *IDAL]
        command = [*limited, "run", "--profile", "tiny", "--data-dir", str(tmp_path / "data")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1, done.stdout
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        assert "ulimit -f" in done.stderr, done.stderr


def test_a_read_only_folder_can_be_looked_at(finished_run: FinishedRun, tmp_path: Path) -> None:
    """`status`, `verify` and a run with nothing to do; one that has something to do says so."""
    copied = finished_run.copied_to(tmp_path)
    script = """
        mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" || exit 77
        shift
        for command in "status --json" verify run "run --profile demo"; do
          "$@" $command --data-dir "$PLACE" > "$LOGS/$(echo $command | tr ' ' _)" 2>&1; echo $? >> "$LOGS/codes"
        done
    """
    in_namespace(script, str(tmp_path / "data"), *IDAL, PLACE=str(copied.data_dir), LOGS=str(tmp_path))
    assert (tmp_path / "codes").read_text().split() == ["0", "0", "0", "1"]
    assert "Nothing is damaged" in (tmp_path / "verify").read_text()
    assert "0 artifacts made" in (tmp_path / "run").read_text()
    refused = (tmp_path / "run_--profile_demo").read_text()
    assert "is read-only" in refused
    assert "Traceback" not in refused


def test_20_kills_in_a_row_leave_the_same_numbers(finished_run: FinishedRun, tmp_path: Path) -> None:
    data_dir, draw = tmp_path / "data", random.Random(20)
    study = finished_run.study()
    seconds = sum(study.provenance(*place).seconds for place in artifacts_on_disk(study))
    command = [*IDAL, "run", "--profile", "tiny", "--data-dir", str(data_dir)]
    for _ in range(KILLS):
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert running.stdout is not None
        assert running.stdout.readline().startswith("Profile"), "it has begun"
        time.sleep(draw.uniform(0, 2 * seconds / KILLS))
        running.send_signal(signal.SIGKILL)
        said = running.communicate()[0]
        assert "Traceback" not in said, said
    done = idal("run", "--data-dir", data_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same(data_dir / "idal.duckdb", finished_run.data_dir / "idal.duckdb", clock=False)
    states = all_states(FinishedRun(data_dir).study())
    assert {state for of_asset in states.values() for state in of_asset.values()} == {"current"}
    assert idal("verify", "--data-dir", data_dir).returncode == 0


def test_a_second_run_waits_for_the_first(finished_run: FinishedRun, tmp_path: Path) -> None:
    copied = finished_run.copied_to(tmp_path)
    shutil.rmtree(copied.study().path("dendrogram"))
    command = [*IDAL, "run", "--data-dir", str(copied.data_dir)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in "ab"]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum("this one waits" in text for text in said) == 1, said
    assert sorted(text.count("0 artifacts made") for text in said) == [0, 1], said
