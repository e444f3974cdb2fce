"""Image, compose file and workflows run elsewhere: what they name is here, and what they call is understood."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from idal_assets.cli import main
from idal_assets.profile import load_profile

pytestmark = pytest.mark.unit

tomllib = pytest.importorskip("tomllib", reason="Python 3.11 or later reads pyproject.toml")

ROOT = Path(__file__).parents[1]
COMPOSE = ROOT / "docs" / "compose"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def instructions() -> list[tuple[str, str]]:
    """Name and text of every instruction of the Dockerfile."""
    lines = (line for line in (ROOT / "Dockerfile").read_text("utf-8").splitlines() if not line.startswith("#"))
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(name, text.strip()) for name, _, text in (line.partition(" ") for line in joined.split("\n") if line)]


def compose() -> dict[str, Any]:
    return yaml.safe_load((COMPOSE / "compose.yaml").read_text("utf-8"))


# --- the image ---


def test_the_image_copies_what_is_there_and_is_sent() -> None:
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [source for name, text in instructions() if name == "COPY" for source in text.split()[:-1]]
    assert set(copied) == set(sent)
    assert all((ROOT / source).exists() for source in copied)
    assert {PROJECT["readme"], *PROJECT["license-files"]} <= set(copied)


@pytest.mark.parametrize(
    ("arguments", "installed"),
    [
        ({}, ["."]),
        ({"TORCH_WHEELS": "https://wheels"}, ["--extra-index-url", "https://wheels", "."]),
        ({"EXTRAS": "cluster,postgres"}, [".[cluster,postgres]"]),
    ],
)
def test_the_image_installs_what_it_is_asked_for(arguments: Mapping[str, str], installed: list[str]) -> None:
    declared = {text.partition("=")[0] for name, text in instructions() if name == "ARG"}
    assert arguments.keys() <= declared
    (called,) = [text for name, text in instructions() if name == "RUN" and "pip" in text]
    shown = f'python() {{ printf "%s\\n" "$@"; }}; {called}'
    done = subprocess.run(["sh", "-euc", shown], env=dict.fromkeys(declared, "") | arguments, capture_output=True)
    words = done.stdout.decode().split()
    assert words[words.index("constraints.txt") + 1 :] == installed, done.stderr


def test_the_image_starts_the_command() -> None:
    (started,) = [text for name, text in instructions() if name == "ENTRYPOINT"]
    assert set(yaml.safe_load(started)) == set(PROJECT["scripts"])


# --- compose ---


def test_services_of_idal_call_what_it_understands() -> None:
    called = {name: service["command"] for name, service in compose()["services"].items() if "build" in service}
    assert called.keys() == {"ui", "worker", "run"}
    for name, *words in called.values():
        main.commands[name].make_context(name, words)


def test_services_are_built_and_given_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    service = compose()["services"]["worker"]
    assert (COMPOSE / service["build"]["context"]).resolve() == ROOT
    declared = {text.partition("=")[0] for name, text in instructions() if name == "ARG"}
    assert service["build"]["args"].keys() <= declared
    assert set(service["build"]["args"]["EXTRAS"].split(",")) <= PROJECT["optional-dependencies"].keys()
    places = dict(volume.split(":")[:2] for volume in service["volumes"])
    assert all((COMPOSE / place).is_file() for place in places if place.startswith("."))
    assert set(compose()["volumes"]) >= {place for place in places if not place.startswith(".")}
    environment = service["environment"]
    assert environment["IDAL_PROFILE"] == places["./profile.yaml"]
    assert places["./dagster.yaml"] == f"{environment['IDAL_DATA_DIR']}/dagster_home/dagster.yaml"


def test_the_profile_of_the_services_waits_for_their_workers() -> None:
    assert load_profile(str(COMPOSE / "profile.yaml")).cluster.engine == "wait"


def test_the_services_meet_at_the_database() -> None:
    services = compose()["services"]
    records = yaml.safe_load((COMPOSE / "dagster.yaml").read_text())["storage"]["postgres"]["postgres_db"]
    server = services["postgres"]["environment"]
    assert (records["username"], records["db_name"]) == (server["POSTGRES_USER"], server["POSTGRES_DB"])
    assert records["password"]["env"] in services["ui"]["environment"]
    assert records["hostname"] in services["postgres"]["command"]


# --- workflows ---


def jobs(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from yaml.safe_load(file.read_text("utf-8"))["jobs"].items()


def steps() -> list[dict[str, Any]]:
    return [step for file in WORKFLOWS for _, job in jobs(file) for step in job.get("steps", [])]


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_a_workflow_needs_and_uses_what_is_there(file: Path) -> None:
    known = dict(jobs(file))
    for job in known.values():
        needed = job.get("needs", [])
        assert ({needed} if isinstance(needed, str) else set(needed)) <= known.keys()
        if "uses" in job:
            called = yaml.safe_load((ROOT / job["uses"]).read_text("utf-8"))
            # what YAML reads of `on`
            assert "workflow_call" in called[True]


def test_workflows_pin_a_version_of_every_action() -> None:
    used = [step["uses"] for step in steps() if "uses" in step]
    assert used
    assert all(re.fullmatch(r"[\w-]+/[\w.-]+@[\w./]+", action) for action in used)


def test_workflows_call_programs_that_are_here() -> None:
    called = {shlex.split(step["run"])[0] for step in steps() if "run" in step}
    scripts = {name for name in called if "/" in name}
    assert scripts == {".ci/run"}
    assert all(os.access(ROOT / script, os.X_OK) for script in scripts)


def test_what_must_hold_calls_targets_that_there_are() -> None:
    called = re.findall(r"^make (.+)$", (ROOT / ".ci" / "run").read_text("utf-8"), re.MULTILINE)
    assert called
    for target in called:
        subprocess.run(["make", "-n", *target.split()], cwd=ROOT, capture_output=True, check=True)


def test_workflows_know_the_oldest_python() -> None:
    (check,) = [job for _, job in jobs(ROOT / ".github" / "workflows" / "ci.yml")]
    assert f">={check['strategy']['matrix']['python'][0]}" == PROJECT["requires-python"]


@pytest.mark.parametrize(("tag", "code"), [(f"v{PROJECT['version']}", 0), ("v99.0.0", 1)])
def test_a_release_has_the_tag_of_its_version(tag: str, code: int, tmp_path: Path) -> None:
    (check,) = [step["run"] for step in steps() if step.get("name") == "The tag is the version"]
    (tmp_path / "python").symlink_to(sys.executable)
    found = {"GITHUB_REF_NAME": tag, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert subprocess.run(["bash", "-c", check], cwd=ROOT, env={**os.environ, **found}).returncode == code
