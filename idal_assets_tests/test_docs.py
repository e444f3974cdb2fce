"""README and docs: what they say is there, and every example in them works as it stands."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from idal_assets.cli import main
from idal_assets.profile import load_profile, profile_names, with_changes
from idal_assets.store.database import TABLES, read_table
from idal_assets_tests.conftest import FinishedRun, idal

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def code(language: str, page: Path) -> list[str]:
    """Every block of code of a language on a page, indented ones too."""
    return re.findall(rf"^ *```{language}\n(.*?)^ *```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def examples(language: str) -> list[Any]:
    """Every block of a language on any page, as parameters of a test."""
    return [
        pytest.param(text, id=f"{page.name}-{number}")
        for page in PAGES
        for number, text in enumerate(code(language, page), 1)
    ]


def commands(*pages: Path) -> list[list[str]]:
    """Every line of shell that calls `idal` or `make`, in words."""
    blocks = [text.replace("\\\n", " ") for page in pages for text in code("sh", page)]
    lines = [line.strip() for text in blocks for line in text.splitlines()]
    called = dict.fromkeys(line.removeprefix(".venv/bin/").partition(" > ")[0] for line in lines)
    words = [shlex.split(line, comments=True) for line in called]
    return [line for line in words if line and line[0] in ("idal", "make")]


# --- what is said is there ---


@pytest.mark.unit
def test_the_readme_can_be_read_in_one_go() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 130


@pytest.mark.unit
def test_the_readme_links_every_page() -> None:
    linked = set(re.findall(r"\]\((\w[\w./]*\.md)[)#]", (ROOT / "README.md").read_text("utf-8")))
    pages = {str(page.relative_to(ROOT)) for page in PAGES}
    assert linked == pages - {"README.md"}


@pytest.mark.unit
def test_every_profile_is_described() -> None:
    said = (ROOT / "docs" / "settings.md").read_text("utf-8")
    assert re.findall(r"^\| `(\w+)` \|", said, re.MULTILINE) != []
    assert set(re.findall(r"^\| `(\w+)` \|", said, re.MULTILINE)) == set(profile_names())


@pytest.mark.unit
def test_every_table_and_column_is_described() -> None:
    described = yaml.safe_load((ROOT / "docs" / "tables.yaml").read_text("utf-8"))
    assert set(described["tables"]) == set(TABLES)
    columns = {column for schema in TABLES.values() for column in schema.columns}
    own = {column for table in described["tables"].values() for column in table.get("columns", {})}
    unknown = columns - set(described["columns"])
    assert {column for column in unknown if not column.endswith("_version")} == set()
    assert set(described["columns"]) - columns == set()
    assert own <= columns


@pytest.mark.unit
def test_the_report_of_the_demo_is_one_page_that_needs_nothing_else() -> None:
    page = (ROOT / "docs" / "example.html").read_text("utf-8")
    assert "phantom_train_10" in page
    assert {link[:5] for link in re.findall(r'(?:href|src)="([^"#][^"]*)"', page)} <= {"data:"}


# --- examples work as they stand ---


@pytest.mark.unit
@pytest.mark.parametrize("line", [line for line in commands(*PAGES) if line[0] == "idal"], ids=" ".join)
def test_a_command_is_understood(line: list[str], tmp_path: Path) -> None:
    # patients must exist; nothing is called
    name, *words = (str(tmp_path) if word.startswith("/data/") else word for word in line[1:])
    main.commands[name].make_context(name, words)


@pytest.mark.unit
def test_make_knows_every_target_and_calls_what_can_be_called() -> None:
    targets = {line[1] for line in commands(*PAGES) if line[0] == "make"}
    assert {"demo", "ui", "test", "lint", "docs"} <= targets
    for target in sorted(targets):
        shown = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for line in re.findall(r"^\.venv/bin/idal (.+)$", shown, re.MULTILINE):
            name, *words = shlex.split(line)
            main.commands[name].make_context(name, words)


@pytest.mark.graph
def test_the_commands_of_the_readme_work_in_their_order(finished_run: FinishedRun, tmp_path: Path) -> None:
    study = finished_run.copied_to(tmp_path)
    instead = {
        "mini": "tiny",
        "/data/BraTS2021": str(study.data_dir / "phantom"),
        "data/my-study": str(study.data_dir),
    }
    called = []
    for line in commands(ROOT / "README.md"):
        # the UI is a server, and a patient takes a profile that adapts; both have tests of their own
        if line[0] == "idal" and line[1] not in ("ui", "segment"):
            done = idal(*(instead.get(word, word) for word in line[1:]))
            assert done.returncode == 0, done.stdout + done.stderr
            called.append(line[1])
    assert called == ["check", "run"]
    assert "0 artifacts made" in done.stdout


@pytest.mark.unit
@pytest.mark.parametrize("text", examples("yaml"))
def test_a_piece_of_a_profile_is_valid(text: str) -> None:
    said = yaml.safe_load(text)
    if "storage" in said:
        return  # a piece of Dagster's own configuration, which a live test uses
    # a file for --cluster holds the settings of that section
    with_changes(load_profile("thesis"), {"cluster": said} if "engine" in said else said)


@pytest.mark.graph
@pytest.mark.parametrize("text", examples("sql"))
def test_a_query_finds_something_in_a_finished_study(text: str, finished_run: FinishedRun) -> None:
    worst = read_table(finished_run.study().folder.database, "case_score").set_index("rank").loc[1, "case_id"]
    with duckdb.connect(str(finished_run.study().folder.database), read_only=True) as database:
        assert database.execute(text.replace("BraTS2021_00042", worst)).fetchall()


@pytest.mark.graph
@pytest.mark.parametrize("text", [text for text in examples("python") if "--8<--" not in text.values[0]])
def test_a_program_runs_in_a_finished_study(
    text: str, finished_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The programs of the docs, in a folder where `data/my-study` is a finished study."""
    (tmp_path / "data").mkdir()
    finished_run.copied_to(tmp_path / "copy").data_dir.rename(tmp_path / "data" / "my-study")
    monkeypatch.chdir(tmp_path)
    exec(text, {})  # what a reader would paste
