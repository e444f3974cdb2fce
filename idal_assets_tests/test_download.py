"""The download of MSD Task01_BrainTumour, from a server on loopback that can do what servers do."""

import hashlib
import io
import json
import re
import shutil
import tarfile
import threading
from collections import namedtuple
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from idal_assets import progress
from idal_assets.cli import main
from idal_assets.imaging.archive import extract_cases, read_extraction
from idal_assets.imaging.download import MEGABYTE, DownloadError, fetch_archive
from idal_assets.imaging.inspection import inspect_folder
from idal_assets.orchestration.definitions import build_definitions
from idal_assets.orchestration.instance import open_instance
from idal_assets.orchestration.resources import StepProgress, StudyResource
from idal_assets.orchestration.runner import Runner
from idal_assets.profile import PROFILE_FOLDER, ProfileError, load_profile
from idal_assets.progress import silently, terminal_bars
from idal_assets.settings import CohortSettings
from idal_assets.steps.cohort import ensure_raw_folder
from idal_assets.study.roles import choose_roles, needed_cases
from idal_assets.study.study import Study
from idal_assets_tests.raw_folders import make_cases, msd_entry, read_json, write_json, write_msd

pytestmark = pytest.mark.unit

CASES = tuple(f"BRATS_{number:03}" for number in range(1, 10))
NAME = "Task01_BrainTumour"


class Server(ThreadingHTTPServer):
    """Serves one file at every path.

    Attributes:
        content: The file.
        knows_ranges: Whether it answers a range with that range; otherwise it sends the whole file.
        says_length: Whether it says how long the file is.
        cut_after: It drops the connection after so many bytes of an answer.
        asked: The range of each request.
        sent: The bytes sent in answer to each request.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = b""
        self.knows_ranges = self.says_length = True
        self.cut_after: int | None = None
        self.asked: list[str | None] = []
        self.sent: list[int] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/{NAME}.tar"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        content, start = self.server.content, 0
        self.server.asked.append(asked)
        if self.path.startswith("/absent"):
            self.send_error(404)
            return
        if asked and self.server.knows_ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if self.server.says_length:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:][: self.server.cut_after]
        self.wfile.write(body)
        self.server.sent.append(len(body))

    def log_message(self, *message: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine labelled cases, an unlabelled one of three megabytes, and what macOS adds for every file."""
    folder = write_msd(tmp_path_factory.mktemp("msd") / NAME, make_cases(*CASES))
    unlabelled = folder / "imagesTs" / "BRATS_999.nii.gz"
    unlabelled.parent.mkdir()
    unlabelled.write_bytes(np.random.default_rng(0).bytes(3 * MEGABYTE))
    for file in [file for file in folder.rglob("*") if file.is_file()]:
        file.with_name(f"._{file.name}").write_bytes(b"Mac OS X")
    path = folder.parent / f"{NAME}.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(folder, NAME)
    return path


@pytest.fixture
def serving(server: Server, archive: Path) -> Server:
    server.content = archive.read_bytes()
    return server


def md5(content: bytes) -> str:
    return f"md5:{hashlib.md5(content).hexdigest()}"


def write_profile(folder: Path, server: Server, **changes: object) -> Path:
    """The profile `tiny` without phantom, with this server's archive."""
    values = yaml.safe_load((PROFILE_FOLDER / "tiny.yaml").read_text())
    del values["phantom"]
    values["download"] = {"address": server.address, "checksum": md5(server.content)}
    values["cohort"] = {"donors": 4, "test": 2}
    for path, value in changes.items():
        section, _, key = path.partition("__")
        values[section][key] = value
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def call(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return done.exit_code, " ".join(done.output.split())


def fetch(server: Server, target: Path, checksum: str | None = None) -> None:
    fetch_archive(server.address, checksum or md5(server.content), target)


def with_members(archive: Path, target: Path, *members: tarfile.TarInfo) -> Path:
    """The archive with more members, the last ones in it."""
    shutil.copy(archive, target)
    with tarfile.open(target, "a") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    return target


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    made.size = 4 if kind == tarfile.REGTYPE else 0
    return made


def extract(archive: Path, folder: Path, choose=lambda names: names, checksum: str = "md5:1"):
    return extract_cases(archive, checksum, folder, choose, folder.parent / "unfinished")


# --- the transfer ---


def test_a_file_is_fetched_once(tmp_path: Path, serving: Server) -> None:
    for _ in range(2):
        fetch(serving, tmp_path / "there" / "a.tar")
    assert (tmp_path / "there" / "a.tar").read_bytes() == serving.content
    assert serving.asked == [None]
    assert [file.name for file in (tmp_path / "there").iterdir()] == ["a.tar"]


def test_sha256_is_a_checksum_too(tmp_path: Path, serving: Server) -> None:
    fetch(serving, tmp_path / "a.tar", f"sha256:{hashlib.sha256(serving.content).hexdigest()}")
    assert (tmp_path / "a.tar").read_bytes() == serving.content


def test_a_transfer_that_broke_off_goes_on_where_it_was(tmp_path: Path, serving: Server) -> None:
    serving.cut_after = 2 * MEGABYTE + 1000
    with pytest.raises(DownloadError, match=r"broke off .* 2\.0 MB are here, and the next try goes on from there"):
        fetch(serving, tmp_path / "a.tar")
    assert not (tmp_path / "a.tar").exists()
    serving.cut_after = None
    fetch(serving, tmp_path / "a.tar")
    assert (tmp_path / "a.tar").read_bytes() == serving.content
    # the byte before is asked for again; whole megabytes are written
    assert serving.asked == [None, f"bytes={2 * MEGABYTE - 1}-"]
    assert serving.sent[1] == len(serving.content) - 2 * MEGABYTE + 1
    assert [file.name for file in tmp_path.iterdir()] == ["a.tar"]


def test_without_ranges_a_broken_transfer_starts_anew(tmp_path: Path, serving: Server) -> None:
    serving.knows_ranges, serving.cut_after = False, 2 * MEGABYTE + 1000
    with pytest.raises(DownloadError, match="broke off"):
        fetch(serving, tmp_path / "a.tar")
    serving.cut_after = None
    fetch(serving, tmp_path / "a.tar")
    assert (tmp_path / "a.tar").read_bytes() == serving.content
    assert serving.sent[1] == len(serving.content)


@pytest.mark.parametrize(
    ("surplus", "sent"), [(0, [1]), (7, [None])], ids=["complete and not yet checked", "longer than the file"]
)
def test_a_part_as_long_as_the_file_or_longer_ends_well(
    tmp_path: Path, serving: Server, surplus: int, sent: list[int | None]
) -> None:
    part = tmp_path / f"a.tar.{md5(serving.content)[4:12]}.part"
    part.write_bytes(serving.content + bytes(surplus))
    fetch(serving, tmp_path / "a.tar")
    assert (tmp_path / "a.tar").read_bytes() == serving.content
    assert serving.sent == [count or len(serving.content) for count in sent]


def test_the_part_of_another_file_is_not_gone_on_with(tmp_path: Path, serving: Server) -> None:
    (tmp_path / "a.tar.00000000.part").write_bytes(b"of an archive with another checksum")
    fetch(serving, tmp_path / "a.tar")
    assert serving.asked == [None]


def test_a_wrong_checksum_is_told_and_the_file_never_believed(tmp_path: Path, serving: Server) -> None:
    expected = md5(b"something else")
    for _ in range(2):
        with pytest.raises(DownloadError) as error:
            fetch(serving, tmp_path / "a.tar", expected)
        for words in ("a.tar", expected[4:], md5(serving.content)[4:], "download.checksum", "download it anew"):
            assert words in str(error.value)
        assert [file.name for file in tmp_path.iterdir()] == ["a.tar.refused"]
    # a whole new transfer each time, since nothing of the wrong file may be gone on with
    assert serving.asked == [None, None]
    # what was right after all is kept, as the message says
    (tmp_path / "a.tar.refused").rename(tmp_path / "a.tar")
    fetch(serving, tmp_path / "a.tar")
    assert len(serving.asked) == 2


def test_an_archive_that_lies_there_is_checked(tmp_path: Path, serving: Server) -> None:
    (tmp_path / "a.tar").write_bytes(serving.content[:-1] + b"!")
    with pytest.raises(DownloadError, match="was expected"):
        fetch(serving, tmp_path / "a.tar")
    assert serving.asked == []
    fetch(serving, tmp_path / "a.tar")
    assert (tmp_path / "a.tar").read_bytes() == serving.content


def test_what_the_server_does_not_give_is_told(tmp_path: Path, serving: Server) -> None:
    with pytest.raises(DownloadError, match=r"404 .*/absent.*correct download\.address"):
        fetch_archive(serving.address.replace(NAME, "absent"), "md5:1", tmp_path / "a.tar")
    serving.says_length = False
    with pytest.raises(DownloadError, match="does not say how long the file is"):
        fetch(serving, tmp_path / "a.tar")
    # nothing listens on the port of discarded data
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1:9/.*try again"):
        fetch_archive("http://127.0.0.1:9/a.tar", "md5:1", tmp_path / "a.tar")


def test_a_full_disk_is_told_before_anything_is_written(
    tmp_path: Path, serving: Server, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    needed = 2 * len(serving.content)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(0, 0, needed - 1))
    with pytest.raises(DownloadError, match=r"download and extract .* needs 6\.\d MB and 6\.\d MB are free"):
        fetch(serving, tmp_path / "a.tar")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(0, 0, needed))
    fetch(serving, tmp_path / "a.tar")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(0, 0, 1000))
    with pytest.raises(DownloadError, match="to extract the archive needs"):
        extract(archive, tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


# --- the archive ---


def test_only_the_chosen_labelled_cases_are_extracted(tmp_path: Path, archive: Path) -> None:
    chosen = ["BRATS_002", "BRATS_007"]
    made = extract(archive, tmp_path / "raw", lambda names: chosen)
    assert made.labelled == CASES
    assert made.cases == tuple(chosen)
    files = {path.relative_to(tmp_path / "raw").as_posix() for path in (tmp_path / "raw").rglob("*.*")}
    cases = {f"{folder}/{case}.nii.gz" for folder in ("imagesTr", "labelsTr") for case in chosen}
    assert files == {*cases, "dataset.json", "extraction.json"}
    report = inspect_folder(tmp_path / "raw")
    assert sorted(report.facts) == chosen
    assert report.problems == ()
    assert read_json(tmp_path / "raw")["training"] == [msd_entry(case) for case in chosen]


def test_more_cases_are_added_and_edited_ones_stay(tmp_path: Path, archive: Path) -> None:
    folder = tmp_path / "raw"
    extract(archive, folder, lambda names: names[:3])
    edited = folder / "labelsTr" / "BRATS_001.nii.gz"
    shutil.copy(folder / "labelsTr" / "BRATS_002.nii.gz", edited)
    removed = folder / "imagesTr" / "BRATS_003.nii.gz"
    removed.unlink()
    description = read_json(folder)
    write_json(folder, {**description, "training": description["training"][:2]})
    made = extract(archive, folder, lambda names: names[:5])
    assert made.cases == CASES[:5]
    assert read_extraction(folder) == made
    assert [entry["image"][-16:-7] for entry in read_json(folder)["training"]] == [*CASES[:2], *CASES[3:5]]
    assert edited.read_bytes() == (folder / "labelsTr" / "BRATS_002.nii.gz").read_bytes()
    assert not removed.exists()


def test_cases_look_the_same_however_often_they_are_extracted(tmp_path: Path, archive: Path) -> None:
    signatures = []
    for name in ("one", "other"):
        extract(archive, tmp_path / name)
        facts = inspect_folder(tmp_path / name).facts
        signatures.append([case.signature for case in facts.values()])
    assert len(signatures[0]) == len(CASES)
    assert signatures[0] == signatures[1]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (member(f"{NAME}/../../escaped.txt"), "leads out of its folder"),
        (member("/tmp/escaped.txt"), "has an absolute path"),
        (member(f"{NAME}/imagesTr/link", tarfile.SYMTYPE, "../../../escaped.txt"), "is a link to"),
        (member(f"{NAME}/imagesTr/link", tarfile.LNKTYPE, "../escaped.txt"), "is a link to"),
        (member(f"{NAME}/null", tarfile.CHRTYPE), "is neither a file nor a folder"),
        (member(f"{NAME}/pipe", tarfile.FIFOTYPE), "is neither a file nor a folder"),
    ],
    ids=lambda value: value.replace(" ", "_") if isinstance(value, str) else value.name,
)
def test_an_archive_with_a_member_that_leaves_is_refused_as_a_whole(
    tmp_path: Path, archive: Path, bad: tarfile.TarInfo, reason: str
) -> None:
    (tmp_path / "in").mkdir()
    evil = with_members(archive, tmp_path / "in" / "evil.tar", bad)
    with pytest.raises(DownloadError, match=rf"evil\.tar: the member '{re.escape(bad.name)}' {reason}") as error:
        extract(evil, tmp_path / "in" / "raw")
    assert "nothing was extracted" in str(error.value)
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "evil.tar"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "0 files dataset.json"),
        ({"a/dataset.json": "{}", "b/dataset.json": "{}"}, "2 files dataset.json"),
        ({"a/dataset.json": "{"}, "cannot be read"),
        ({"a/dataset.json": "[]"}, "no list 'training'"),
        (
            {"a/dataset.json": '{"training": ["BRATS_001.nii.gz"]}'},
            "'BRATS_001.nii.gz' in 'training' .* not a case",
        ),
    ],
)
def test_an_archive_of_another_layout_is_refused(tmp_path: Path, files: dict[str, str], message: str) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    with pytest.raises(DownloadError, match=rf"a\.tar: .*{message}"):
        extract(path, tmp_path / "raw")


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_text("<html>log in first</html>" * 100)
    with pytest.raises(DownloadError, match=r"a\.tar: no readable tar archive"):
        extract(tmp_path / "a.tar", tmp_path / "raw")


def test_a_listed_case_without_label_is_refused_by_name(tmp_path: Path) -> None:
    folder = write_msd(tmp_path / NAME, make_cases(*CASES))
    (folder / "labelsTr" / "BRATS_004.nii.gz").unlink()
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(folder, NAME)
    extract(tmp_path / "a.tar", tmp_path / "raw")
    report = inspect_folder(tmp_path / "raw")
    assert set(report.refused) == {"BRATS_004"}
    assert len(report.facts) == len(CASES) - 1


def test_a_folder_of_another_origin_is_left_alone(tmp_path: Path, archive: Path) -> None:
    write_msd(tmp_path / "own", make_cases("A"))
    with pytest.raises(FileExistsError, match="own was not made by a download"):
        extract(archive, tmp_path / "own")
    extract(archive, tmp_path / "raw")
    with pytest.raises(FileExistsError, match=r"raw holds cases of another archive \(md5:1\)"):
        extract(archive, tmp_path / "raw", checksum="md5:2")


def test_what_a_killed_extraction_left_is_not_used(tmp_path: Path, archive: Path) -> None:
    def die(items, description):
        yield items[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract_cases(archive, "md5:1", tmp_path / "raw", list, tmp_path / "unfinished", die)
    assert not (tmp_path / "raw").exists()
    (tmp_path / "unfinished" / "raw" / "left.nii.gz").write_bytes(b"")
    extract(archive, tmp_path / "raw")
    assert not (tmp_path / "raw" / "left.nii.gz").exists()
    assert sorted(inspect_folder(tmp_path / "raw").facts) == list(CASES)


# --- which cases are needed ---


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"donors": 5, "test": 3}, 8),
        ({"donors": 5, "test": 3, "pretraining": 4}, 12),
        ({"donors": 5, "test": 3, "validation": 2, "pretraining": 4}, 14),
        ({"donor_cases": ("c0[0-5]",), "test_cases": ("c10", "c11")}, 8),
        ({"donors": 5, "test_cases": ("c1*",)}, 15),
        ({"donors": None, "test": 3}, 40),
        # a share is one of all cases
        ({"donors": 5, "test": None}, 40),
        # only the verification says who stands in for a refused case
        ({"donors": 5, "test": 3, "go_on_without_refused": True}, 40),
    ],
)
def test_needed_cases_get_the_roles_that_they_have_among_all(settings: dict, count: int) -> None:
    names = [f"c{number:02}" for number in range(40)]
    chosen = CohortSettings(**settings)
    needed = needed_cases(names, chosen, Path("raw"))
    assert len(needed) == count
    assert choose_roles(needed, chosen, Path("raw")) == choose_roles(names, chosen, Path("raw"))
    # as in a folder where another profile needed more
    more = sorted({*needed, *names[::2]})
    assert choose_roles(more, chosen, Path("raw")) == choose_roles(names, chosen, Path("raw"))


# --- the command and the asset ---


def test_the_command_downloads_and_the_cohort_is_made_of_it(tmp_path: Path, serving: Server) -> None:
    profile, data = write_profile(tmp_path, serving), tmp_path / "data"
    code, output = call("download", "brain-tumour", "--profile", profile, "--data-dir", data)
    assert code == 0, output
    assert "6 of 9 labelled cases in" in output
    assert "6 extracted now" in output
    assert f"idal run --profile {profile}" in output
    assert (data / "downloads" / f"{NAME}.tar").is_file()
    # what the command noted is enough for everything after it
    study = Study.open(data)
    assert study.profile.name == "own"
    assert study.raw == data / "raw" / NAME
    made = materialize_cohort(data)
    assert made.success
    roles = choose_roles(CASES, study.profile.cohort, data)
    assert {case.case_id: case.role for case in study.cohort.cases} == roles
    assert study.cohort.refused == {}
    assert study.cohort.left_over == ()

    code, output = call("download", "brain-tumour", "--data-dir", data)
    assert code == 0
    assert "nothing to do" in output
    # not even the archive is needed any more
    (data / "downloads" / f"{NAME}.tar").unlink()
    assert call("download", "brain-tumour", "--data-dir", data)[0] == 0
    assert len(serving.asked) == 1

    write_profile(tmp_path, serving, cohort__donors=5)
    code, output = call("download", "brain-tumour", "--data-dir", data)
    assert "7 of 9 labelled cases" in output
    assert "1 extracted now" in output


def test_the_command_goes_on_after_the_connection_broke(tmp_path: Path, serving: Server) -> None:
    profile, data = write_profile(tmp_path, serving), tmp_path / "data"
    serving.cut_after = MEGABYTE
    code, output = call("download", "brain-tumour", "--profile", profile, "--data-dir", data)
    assert code == 1
    assert "the next try goes on from there" in output
    # a study is noted when its cases are there
    assert not (data / "study.json").exists()
    serving.cut_after = None
    code, output = call("download", "brain-tumour", "--profile", profile, "--data-dir", data)
    assert code == 0, output
    assert sum(serving.sent) == len(serving.content) + 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"download__checksum": "md5:" + "0" * 32}, "0" * 32 + " was expected"),
        ({"cohort__donors": 50}, "50 donor cases are asked for and only 7 of 9 are left"),
        ({"cohort__test_cases": ["phantom_*"]}, "no case is called 'phantom_*'"),
    ],
)
def test_what_is_wrong_is_a_message_not_a_traceback(
    tmp_path: Path, serving: Server, changes: dict, message: str
) -> None:
    profile = write_profile(tmp_path, serving, **changes)
    code, output = call("download", "brain-tumour", "--profile", profile, "--data-dir", tmp_path / "data")
    assert code == 1
    assert output.startswith("Error: ")
    assert message in output
    assert not (tmp_path / "data" / "raw").exists()


def test_an_archive_that_tries_to_escape_is_refused_by_the_command(
    tmp_path: Path, server: Server, archive: Path
) -> None:
    evil = with_members(archive, tmp_path / "evil.tar", member(f"{NAME}/../../../escaped.txt"))
    server.content = evil.read_bytes()
    profile = write_profile(tmp_path, server)
    code, output = call("download", "brain-tumour", "--profile", profile, "--data-dir", tmp_path / "data")
    assert code == 1
    assert f"the member '{NAME}/../../../escaped.txt' leads out of its folder" in output
    assert not (tmp_path / "data" / "raw").exists()
    assert not list(tmp_path.rglob("escaped.txt"))


def test_the_command_asks_for_a_profile_with_a_download(tmp_path: Path) -> None:
    Study.open(tmp_path / "data", "demo").remember()
    code, output = call("download", "brain-tumour", "--data-dir", tmp_path / "data")
    assert code == 1
    assert "The profile demo has no section download" in output
    assert "--profile thesis" in output


def test_the_thesis_names_the_archive_and_downloads_only_when_told(tmp_path: Path) -> None:
    settings = load_profile("thesis").download
    assert settings is not None
    assert settings.address.endswith(f"/{NAME}.tar")
    assert settings.checksum == "md5:240a19d752f0d9e9101544901065d872"
    assert not settings.automatic
    study = Study.open(tmp_path, default_profile="thesis")
    assert study.profile.name == "thesis"
    with pytest.raises(ProfileError, match="download the cases first"):
        ensure_raw_folder(study, silently)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("checksum", "240a19d752f0d9e9101544901065d872"),
        ("checksum", "md5:240a"),
        ("address", "file:///etc/passwd"),
    ],
)
def test_a_bad_address_or_checksum_is_named(tmp_path: Path, serving: Server, key: str, value: str) -> None:
    with pytest.raises(ProfileError, match=rf"download\.{key}: .*{re.escape(value)}"):
        load_profile(write_profile(tmp_path, serving, **{f"download__{key}": value}))


def materialize_cohort(data: Path) -> dg.ExecuteInProcessResult:
    """As the UI does: the code location on the data folder, on its instance."""
    definitions = build_definitions(StudyResource(data_dir=str(data)), StepProgress())
    job = definitions.resolve_implicit_global_asset_job_def()
    with open_instance(Study.open(data).folder) as instance:
        return job.execute_in_process(
            instance=instance, asset_selection=[dg.AssetKey("cohort")], raise_on_error=False
        )


def test_the_asset_downloads_when_the_profile_says_so(
    tmp_path: Path, serving: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LOG_LINES", 0.0)
    data = tmp_path / "data"
    monkeypatch.setenv("IDAL_PROFILE", str(write_profile(tmp_path, serving, download__automatic=True)))
    serving.cut_after = MEGABYTE
    assert not materialize_cohort(data).success
    serving.cut_after = None
    assert materialize_cohort(data).success
    logged = capfd.readouterr().err
    for words in (
        "broke off",
        "Downloading (MB): 1 of ",
        "Checking the download (MB): 2 of ",
        "Extracting files: 3",
    ):
        assert words in logged
    assert sorted(case.case_id for case in Study.open(data).cohort.cases) == list(
        read_extraction(data / "raw" / NAME).cases
    )
    requests = len(serving.asked)
    assert materialize_cohort(data).success
    assert len(serving.asked) == requests


def test_a_given_raw_folder_is_taken_instead_of_an_automatic_download(tmp_path: Path, serving: Server) -> None:
    profile = write_profile(tmp_path, serving, download__automatic=True)
    raw = write_msd(tmp_path / "own", make_cases(*CASES))
    study = Study.open(tmp_path / "data", profile, raw)
    ensure_raw_folder(study, silently)
    assert serving.asked == []
    assert Study.open(tmp_path / "data", profile).raw == tmp_path / "data" / "raw" / NAME


def test_a_run_downloads_first_when_the_profile_says_so(tmp_path: Path, serving: Server) -> None:
    study = Study.open(tmp_path / "data", write_profile(tmp_path, serving, download__automatic=True))
    with open_instance(study.folder) as instance, terminal_bars() as bars:
        made = Runner(study, instance, bars).run({"cohort"})
    assert made.made == {"cohort": 1}
    assert json.loads((study.path("cohort") / "provenance.json").read_text())["asset"] == "cohort"
    assert len(study.cohort.cases) == 6
