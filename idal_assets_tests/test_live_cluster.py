"""What the docs say of Slurm and of Postgres, on real ones on loopback, where they are installed."""

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.progress import Progress as Bars

import idal_assets
from idal_assets.orchestration.instance import CONFIGURATION, open_instance, recorded_versions
from idal_assets.orchestration.runner import Runner
from idal_assets.progress import silently
from idal_assets.study.graph import GRAPH
from idal_assets_tests.conftest import IDAL, FinishedRun, idal
from idal_assets_tests.live_ui import free_port, wait_until
from idal_assets_tests.test_run import assert_same_numbers

pytestmark = pytest.mark.live

DOCS = Path(idal_assets.__file__).parents[1] / "docs" / "clusters.md"

SLURM = """\
ClusterName=loopback
SlurmctldHost=localhost(127.0.0.1)
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser=root
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 CPUs=16 RealMemory=64000
PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def example(first_line: str) -> str:
    """The block of the docs that has a line."""
    blocks = re.findall(r"```yaml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    (found,) = [block for block in blocks if first_line in block.splitlines()]
    return found


# --- Slurm ---


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which a Slurm of one node on loopback answers."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    commands = {name: shutil.which(name, path=path) for name in ("slurmctld", "slurmd", "sbatch")}
    if missing := [name for name, found in commands.items() if found is None]:
        pytest.skip(
            f"no Slurm on this machine ({', '.join(missing)} not found); Debian: slurmctld, slurmd, slurm-client"
        )
    if os.geteuid() != 0:
        pytest.skip("a Slurm for a test runs as root only")
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    configuration = folder / "slurm.conf"
    configuration.write_text(SLURM.format(controller=free_port(), node=free_port(), folder=folder))
    environment = {**os.environ, "SLURM_CONF": str(configuration), "DASK_JOBQUEUE__SLURM__INTERFACE": "lo"}
    started = [
        subprocess.Popen([str(commands[name]), "-D", *more], env=environment, stderr=subprocess.DEVNULL)
        for name, more in (("slurmctld", ()), ("slurmd", ("-N", "n1")))
    ]
    try:
        wait_until(lambda: "idle" in said(["sinfo", "--noheader"], environment), 60)
        yield environment
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(30)


def said(command: list[str], environment: dict[str, str]) -> str:
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout


def jobs(environment: dict[str, str]) -> list[str]:
    return said(["squeue", "--noheader", "--states=RUNNING", "--format=%A"], environment).split()


def test_a_cancelled_job_of_slurm_costs_nothing_but_its_time(
    slurm: dict[str, str], finished_run: FinishedRun, tmp_path: Path
) -> None:
    cluster, data_dir = tmp_path / "slurm.yaml", tmp_path / "data"
    cluster.write_text(example("# slurm.yaml"))
    command = [*IDAL, "run", "--profile", "tiny", "--data-dir", data_dir, "--cluster", cluster, "--workers", "2"]
    with (tmp_path / "said.txt").open("w") as out:
        running = subprocess.Popen([str(part) for part in command], env=slurm, stdout=out, stderr=out)
        try:
            unfinished = data_dir / ".unfinished"
            wait_until(lambda: list(unfinished.glob("case_model--*")), 300, (tmp_path / "said.txt").read_text)
            cancelled = jobs(slurm)[0]
            subprocess.run(["scancel", cancelled], env=slurm, check=True)
            assert running.wait(500) == 0, (tmp_path / "said.txt").read_text()
        finally:
            running.kill()
    assert_same_numbers(finished_run.data_dir, data_dir)
    wait_until(lambda: not jobs(slurm), 60)


def test_a_job_that_slurm_refuses_ends_the_run_in_its_own_words(slurm: dict[str, str], tmp_path: Path) -> None:
    settings = yaml.safe_load(example("# slurm.yaml"))
    settings["slurm"]["queue"] = "nowhere"
    (tmp_path / "slurm.yaml").write_text(yaml.safe_dump(settings))
    started = time.monotonic()
    done = idal(
        *("run", "--profile", "tiny", "--data-dir", tmp_path / "data", "--cluster", tmp_path / "slurm.yaml"),
        environment=slurm,
    )
    assert done.returncode == 1
    assert "invalid partition specified: nowhere" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert time.monotonic() - started < 60


# --- Postgres ---


@pytest.fixture
def postgres(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a Postgres on loopback that has the user and the database of the docs."""
    pytest.importorskip("dagster_postgres", reason="the extra `postgres` is not installed")
    initdb, server = shutil.which("initdb"), shutil.which("postgres")
    if initdb is None or server is None:
        pytest.skip("no Postgres on this machine (initdb and postgres not found); Debian: postgresql")
    user: dict[str, Any] = {}
    folder = Path(tempfile.mkdtemp(prefix="idal-postgres-"))
    if os.geteuid() == 0:
        # Postgres refuses to run as root
        shutil.chown(folder, "postgres")
        user = {"user": "postgres"}
    monkeypatch.setenv("IDAL_POSTGRES_PASSWORD", "for-a-test")
    (folder / "password").write_text("for-a-test")
    (folder / "password").chmod(0o644)
    make = [initdb, "--pgdata", folder / "data", "--username=dagster", "--auth=scram-sha-256"]
    port = free_port()
    serve = [server, "-D", folder / "data", "-p", str(port), "-h", "127.0.0.1", "-k", folder]
    process = None
    try:
        subprocess.run([*make, "--pwfile", folder / "password"], **user, check=True, capture_output=True)
        process = subprocess.Popen(serve, **user, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        wait_until(lambda: made_database(port), 60)
        yield port
    finally:
        if process:
            process.terminate()
            process.wait(30)
        shutil.rmtree(folder)


def made_database(port: int) -> bool:
    import psycopg2

    try:
        connection = psycopg2.connect(
            host="127.0.0.1", port=port, user="dagster", password="for-a-test", dbname="postgres"
        )
    except psycopg2.OperationalError:
        return False
    connection.autocommit = True
    connection.cursor().execute("CREATE DATABASE dagster")
    connection.close()
    return True


def test_dagster_records_in_the_postgres_of_the_docs(
    postgres: int, finished_run: FinishedRun, tmp_path: Path
) -> None:
    study = finished_run.copied_to(tmp_path).study()
    shutil.rmtree(study.folder.dagster_home)
    study.folder.dagster_home.mkdir()
    storage = yaml.safe_load(example("storage:"))
    storage["storage"]["postgres"]["postgres_db"]["port"] = postgres
    settings = yaml.safe_load(CONFIGURATION) | storage
    (study.folder.dagster_home / "dagster.yaml").write_text(yaml.safe_dump(settings))
    wanted = ("cohort", "raw_case")
    with open_instance(study.folder) as instance:
        Runner(study, instance, Bars(disable=True), silently).run(wanted)
    with open_instance(study.folder) as instance:
        for name in wanted:
            expected = {key: study.version(name, key) for key in GRAPH[name].keys(study)}
            assert recorded_versions(instance, GRAPH[name]) == expected
        assert not Runner(study, instance, Bars(disable=True), silently).run(wanted).made
    assert not list(study.folder.dagster_home.rglob("*.db"))
