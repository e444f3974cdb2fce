"""Artifacts are whole or absent, whoever is killed when, and are made once for the same inputs."""

import errno
import hashlib
import json
import multiprocessing
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from idal_assets.store import artifacts
from idal_assets.store.artifacts import Inputs, build, content_hash, read_provenance, write_atomically
from idal_assets.store.processes import host_mark

pytestmark = pytest.mark.unit

SPAWN = multiprocessing.get_context("spawn")
PATIENCE = 30.0  # seconds; far more than starting a process takes, so that only a hang fails


def inputs(code="1"):
    return Inputs(code=code, settings={"section": {"number": 1}}, made_from={"upstream": {"A": "v1"}})


def writing(text, version=None):
    def work(folder):
        (folder / "result.txt").write_text(text)
        return version

    return work


@dataclass(frozen=True)
class Place:
    root: Path

    @property
    def folder(self):
        return self.root / "asset" / "key"

    def build(self, work, code="1"):
        unfinished, locks = self.root / "unfinished", self.root / "locks"
        return build(self.folder, "asset", "key", inputs(code), work, unfinished, locks)

    def content(self):
        return {path.name: path.read_text() for path in self.folder.iterdir() if path.name != "provenance.json"}


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def wait_for(*paths):
    deadline = time.monotonic() + PATIENCE
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline, f"waited too long for {paths}"
        time.sleep(0.005)


def fail(folder):
    raise AssertionError("the work was done again")


def test_an_artifact_holds_its_files_and_its_record(place):
    record, made_now = place.build(writing("new"))
    assert made_now
    assert place.content() == {"result.txt": "new"}
    assert read_provenance(place.folder) == record
    assert (record.asset, record.key) == ("asset", "key")
    assert record.version == record.inputs_hash == inputs().hash()
    assert record.inputs == inputs()
    assert record.software["nnunetv2"].startswith("2.")
    assert list((place.root / "unfinished").iterdir()) == []


def test_same_inputs_are_not_done_again(place):
    first, _ = place.build(writing("new"))
    assert place.build(fail) == (first, False)


def test_other_inputs_replace_the_whole_artifact(place):
    def work(folder):
        (folder / "only_before.txt").write_text("old")

    before, _ = place.build(work, code="1")
    after, made_now = place.build(writing("new"), code="2")
    assert made_now
    assert place.content() == {"result.txt": "new"}
    assert after.version != before.version
    assert read_provenance(place.folder) == after
    assert list((place.root / "unfinished").iterdir()) == []


def test_going_back_and_forth_always_shows_the_last(place):
    # quickly, so that a record remembered by the time of its file would be mistaken for the one before
    for code in "1212121212":
        place.build(writing(code), code)
        assert read_provenance(place.folder).inputs.code == code
        assert place.content() == {"result.txt": code}


def test_work_may_give_its_own_version(place):
    first, _ = place.build(writing("a", version="content"), code="1")
    second, made_now = place.build(writing("b", version="content"), code="2")
    assert made_now
    assert first.version == second.version == "content"
    assert first.inputs_hash != second.inputs_hash


def test_failed_work_leaves_nothing_to_believe(place):
    def work(folder):
        (folder / "result.txt").write_text("half")
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        place.build(work)
    assert read_provenance(place.folder) is None
    assert not place.folder.exists()
    assert place.build(writing("whole"))[1]
    assert place.content() == {"result.txt": "whole"}


def test_failed_work_leaves_the_old_artifact_as_it_was(place):
    before, _ = place.build(writing("old"), code="1")

    def work(folder):
        (folder / "result.txt").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        place.build(work, code="2")
    assert read_provenance(place.folder) == before
    assert place.content() == {"result.txt": "old"}
    assert place.build(fail, code="1") == (before, False)


@pytest.mark.parametrize("mark", ["", f".{host_mark()}.{2**22 + 1}", f".{host_mark()}.{2**22 + 1}.outdated"])
def test_leftovers_of_a_killed_process_do_not_get_into_the_artifact(place, mark):
    leftover = place.root / "unfinished" / f"asset--key{mark}"
    leftover.mkdir(parents=True)
    (leftover / "half.txt").write_text("half")
    (leftover / "provenance.json").write_text("{}")
    place.build(writing("whole"))
    assert place.content() == {"result.txt": "whole"}
    assert not leftover.exists()


def test_drafts_of_others_are_left_alone(place):
    # of a process that lives, of another host, and of another partition whose name begins alike
    others = [f"asset--key.{host_mark()}.{os.getppid()}", "asset--key.00000000.1", "asset--key.2.00000000.1"]
    for name in others:
        (place.root / "unfinished" / name).mkdir(parents=True)
    place.build(writing("whole"))
    assert sorted(path.name for path in (place.root / "unfinished").iterdir()) == sorted(others)


def test_who_comes_second_on_a_disk_without_locks_takes_what_is_there(place, monkeypatch):
    def no_locks(lock):
        raise NotImplementedError

    def be_late(folder):
        assert place.build(writing("first"))[1]
        (folder / "result.txt").write_text("second")

    marks = iter(["host.1", "host.2"])
    monkeypatch.setattr(artifacts, "process_mark", lambda: next(marks))
    monkeypatch.setattr(FileLock, "acquire", no_locks)
    record, made_now = place.build(be_late)
    assert not made_now
    assert record == read_provenance(place.folder)
    assert place.content() == {"result.txt": "first"}
    assert list((place.root / "unfinished").iterdir()) == []


def test_who_comes_second_with_other_inputs_replaces_what_is_there(place, monkeypatch):
    real = Path.rename

    def be_late(draft, target):
        # between the moment when the old one stepped aside and the new one takes its place
        if target == place.folder and draft.name.startswith("asset--key.") and not quicker:
            quicker.append(real(other.folder, place.folder))
        return real(draft, target)

    quicker: list[Path] = []
    other = Place(place.root / "other")
    other.build(writing("another"), code="3")
    monkeypatch.setattr(Path, "rename", be_late)
    assert place.build(writing("last"), code="2")[1]
    assert quicker
    assert place.content() == {"result.txt": "last"}


def test_a_process_killed_between_the_two_renames_costs_only_a_rerun(place):
    place.build(writing("old"), code="1")
    place.folder.rename(place.root / "unfinished" / "asset--key.outdated")
    assert read_provenance(place.folder) is None
    place.build(writing("new"), code="2")
    assert place.content() == {"result.txt": "new"}
    assert list((place.root / "unfinished").iterdir()) == []


def test_a_folder_without_a_record_is_not_believed(place):
    place.build(writing("old"))
    (place.folder / "provenance.json").unlink()
    assert place.build(writing("new"))[1]
    assert place.content() == {"result.txt": "new"}


def build_and_hang(place, code):
    def work(folder):
        (folder / "result.txt").write_text("half")
        (place.root / "working").touch()
        time.sleep(2 * PATIENCE)

    place.build(work, code)


@pytest.mark.parametrize("made_before", [False, True])
def test_a_process_killed_at_work_leaves_no_new_artifact(place, made_before):
    if made_before:
        place.build(writing("old"), code="1")
    before = read_provenance(place.folder)
    process = SPAWN.Process(target=build_and_hang, args=(place, "2"))
    process.start()
    wait_for(place.root / "working")
    os.kill(process.pid, signal.SIGKILL)
    process.join(PATIENCE)
    assert process.exitcode == -signal.SIGKILL
    assert read_provenance(place.folder) == before
    assert place.folder.exists() == made_before
    assert place.build(writing("whole"), code="2")[1]
    assert place.content() == {"result.txt": "whole"}
    assert list((place.root / "unfinished").iterdir()) == []


def build_when_all_are_ready(place, me, others, made):
    def work(folder):
        with (place.root / "work_done").open("a") as log:
            log.write(f"{me}\n")
        time.sleep(0.3)
        (folder / "result.txt").write_text(me)

    (place.root / me).touch()
    wait_for(*(place.root / other for other in others))
    made.put((me, place.build(work)[1]))


def test_two_processes_at_once_do_the_work_once(place):
    made = SPAWN.Queue()
    processes = [
        SPAWN.Process(target=build_when_all_are_ready, args=(place, me, "ab", made), name=me) for me in "ab"
    ]
    for process in processes:
        process.start()
    results = dict(made.get(timeout=PATIENCE) for _ in processes)
    for process in processes:
        process.join(PATIENCE)
        assert process.exitcode == 0
    assert sorted(results.values()) == [False, True]
    (winner,) = (place.root / "work_done").read_text().split()
    assert results[winner]
    assert place.content() == {"result.txt": winner}


def test_content_hash_is_that_of_the_canonical_json():
    expected = hashlib.sha256(b'{"a":{"x":null,"y":1.5},"b":[1,2]}').hexdigest()[:16]
    assert content_hash({"b": [1, 2], "a": {"y": 1.5, "x": None}}) == expected
    assert content_hash({"a": {"x": None, "y": 1.5}, "b": (1, 2)}) == expected


@pytest.mark.parametrize("other", [{"a": 2}, {"b": 1}, {"a": [1]}, {"a": "1"}, {"a": 1, "b": None}, [1]])
def test_other_content_has_another_hash(other):
    assert content_hash(other) != content_hash({"a": 1})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_content_hash_refuses_what_never_equals_itself(value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        content_hash({"deep": [value]})


def test_inputs_hash_the_same_after_they_were_written_and_read(place):
    before = Inputs(
        code="1", settings={"lr": 1e-3, "sizes": (5, 7)}, made_from={"a": {"y": "2", "x": "1"}, "b": "3"}
    )
    assert Inputs.model_validate_json(before.model_dump_json()).hash() == before.hash()
    reordered = Inputs(
        code="1", settings={"sizes": [5, 7], "lr": 1e-3}, made_from={"b": "3", "a": {"x": "1", "y": "2"}}
    )
    assert reordered.hash() == before.hash()
    for change in ({"code": "2"}, {"settings": {"lr": 1e-3}}, {"made_from": {"a": "3"}}):
        assert before.model_copy(update=change).hash() != before.hash()


@pytest.mark.parametrize("content", ["text é", b"\x00bytes"])
def test_a_file_is_replaced_whole(tmp_path, content):
    path = tmp_path / "deep" / "file"
    write_atomically(path, "a much longer text that was there before")
    write_atomically(path, content)
    assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert list(path.parent.iterdir()) == [path]


def test_what_a_full_disk_refuses_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, "before")

    def refuse(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(artifacts, "flush", refuse)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "after")
    assert [(found, found.read_text()) for found in tmp_path.iterdir()] == [(path, "before")]


def test_a_record_is_readable_json(place):
    record, _ = place.build(writing("x"))
    stored = json.loads((place.folder / "provenance.json").read_text())
    assert stored["inputs"]["made_from"] == {"upstream": {"A": "v1"}}
    assert stored["version"] == record.version
