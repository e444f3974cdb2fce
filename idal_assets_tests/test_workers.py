"""What a worker does and refuses, what is said of it, what flags give it; and how this machine's are started."""

import json
import os
import stat
import sys
from collections.abc import Collection, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
import torch
from rich.progress import Progress as Bars

distributed = pytest.importorskip("distributed", reason="the extra `cluster` is not installed")

from idal_assets.orchestration import cluster, runner, worker  # noqa: E402
from idal_assets.orchestration.cluster import ClusterError, Shown  # noqa: E402
from idal_assets.orchestration.instance import open_instance, recorded_versions  # noqa: E402
from idal_assets.orchestration.reports import Outcome, attempt  # noqa: E402
from idal_assets.orchestration.runner import Runner, StepFailedError  # noqa: E402
from idal_assets.profile import ProfileError, cluster_settings  # noqa: E402
from idal_assets.progress import silently  # noqa: E402
from idal_assets.settings import ClusterSettings, ComputeSettings  # noqa: E402
from idal_assets.steps import cohort as cohort_steps  # noqa: E402
from idal_assets.store.database import read_table  # noqa: E402
from idal_assets.store.layout import DataFolder  # noqa: E402
from idal_assets.study import passing  # noqa: E402
from idal_assets.study.graph import GRAPH, SOURCES, Node  # noqa: E402
from idal_assets.study.making import make  # noqa: E402
from idal_assets.study.order import Chain  # noqa: E402
from idal_assets.study.study import Study  # noqa: E402
from idal_assets_tests.studies import copied, make_study, with_settings  # noqa: E402
from idal_assets_tests.test_order import Pretenders  # noqa: E402

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def with_cohort(tmp_path_factory: pytest.TempPathFactory) -> Study:
    study = make_study(tmp_path_factory.mktemp("workers"))
    make(study, "cohort")
    return study


@pytest.fixture
def study(with_cohort: Study, tmp_path: Path) -> Study:
    return copied(with_cohort, tmp_path / "study")


def chain_of(study: Study, key: str, *assets: str) -> Chain:
    seen = [
        GRAPH[asset].inputs(study, key, {*assets[:place], *SOURCES}).hash() for place, asset in enumerate(assets)
    ]
    return Chain(assets, key, tuple(seen))


def made_by_a_worker(
    monkeypatch: pytest.MonkeyPatch, study: Study, chain: Chain, latency: float = 0.0, **versions: str
) -> list[Outcome]:
    equipment = worker.Equipment(study, {**worker.versions_here(), **versions}, latency)
    told = SimpleNamespace(
        plugins={worker.PLUGIN: equipment}, address="tls://worker", log_event=lambda *said: None
    )
    monkeypatch.setattr(worker, "get_worker", lambda: told)
    monkeypatch.setattr(worker, "SECONDS_BETWEEN_LOOKS", 0.01)
    monkeypatch.setattr(passing, "SECONDS_TO_WAIT", 0)
    return worker.make_chain(chain)


def test_a_worker_makes_and_checks_and_leaves_the_database_alone(
    monkeypatch: pytest.MonkeyPatch, study: Study
) -> None:
    case = study.cohort.donors[0]
    (outcome,) = made_by_a_worker(monkeypatch, study, chain_of(study, case, "raw_case"))
    assert outcome.record == study.provenance("raw_case", case)
    assert outcome.made_now
    assert outcome.finding is not None
    assert not outcome.finding.problems
    (again,) = made_by_a_worker(monkeypatch, study, chain_of(study, case, "raw_case"))
    assert (again.record, again.made_now) == (outcome.record, False)


def test_bad_data_are_reported_with_their_reason_and_not_raised(
    monkeypatch: pytest.MonkeyPatch, study: Study
) -> None:
    case = study.cohort.donors[0]
    chain = chain_of(study, case, "raw_case")
    for path in study.raw.rglob(f"{case}.nii.gz"):
        path.write_bytes(path.read_bytes()[:100])
    (outcome,) = made_by_a_worker(monkeypatch, study, chain)
    assert outcome.failure is not None
    assert outcome.failure.message.startswith(f"raw_case of {case} failed.\nCaseError: ")
    assert "Traceback" in outcome.failure.trace
    assert not study.path("raw_case", case).exists()


@pytest.mark.parametrize("times", [1, 4])
def test_what_passes_by_itself_is_tried_again_three_times(
    monkeypatch: pytest.MonkeyPatch, study: Study, times: int
) -> None:
    tried, real = [], cohort_steps.describe_case

    def busy(task: Any) -> Any:
        tried.append(task)
        if len(tried) <= times:
            raise BlockingIOError(11, "busy")
        return real(task)

    monkeypatch.setattr(cohort_steps, "describe_case", busy)
    case = study.cohort.donors[0]
    (outcome,) = made_by_a_worker(monkeypatch, study, chain_of(study, case, "raw_case"))
    assert len(tried) == min(times + 1, 4)
    assert (outcome.failure is None) == (times == 1)


def test_a_worker_waits_until_it_sees_what_the_coordinator_sees(
    monkeypatch: pytest.MonkeyPatch, study: Study
) -> None:
    case = study.cohort.donors[0]
    chain = replace(chain_of(study, case, "raw_case"), made_from=("what is on its way",))
    (outcome,) = made_by_a_worker(monkeypatch, study, chain, latency=0.05)
    assert outcome.failure is not None
    assert "cluster.latency_seconds" in outcome.failure.message
    node, real, looks = GRAPH["raw_case"], type(GRAPH["raw_case"]).inputs, []

    def late(asset: Node, of: Study, key: str | None = None, without: Collection[str] = ()) -> Any:
        looks.append(asset.name)
        return SimpleNamespace(hash=lambda: "not yet") if len(looks) == 1 else real(asset, of, key, without)

    expected = chain_of(study, case, "raw_case")
    monkeypatch.setattr(type(node), "inputs", late)
    (outcome,) = made_by_a_worker(monkeypatch, study, expected, latency=5)
    assert outcome.failure is None
    assert len(looks) > 1


def test_a_worker_with_other_versions_makes_nothing(monkeypatch: pytest.MonkeyPatch, study: Study) -> None:
    chain = chain_of(study, study.cohort.donors[0], "raw_case")
    with pytest.raises(distributed.Reschedule):
        made_by_a_worker(monkeypatch, study, chain, torch="1.0")
    said = worker.differences({"torch": "2.9", "Python": "3.11"}, {"torch": "2.8", "Python": "3.11"})
    assert said == ["torch is 2.8 instead of 2.9"]
    assert not worker.differences(worker.versions_here(), worker.identity().versions)


class Inside(Pretenders):
    """Workers in this process, who make what they are handed."""

    def make(self, asset: str, key: str | None) -> Outcome:
        if self.fails(asset, key):
            return super().make(asset, key)
        return attempt(self.study, asset, key, silently)


def test_what_workers_report_is_recorded_as_if_it_were_made_here(
    monkeypatch: pytest.MonkeyPatch, study: Study
) -> None:
    wanted = ("cohort", "raw_case")
    study = with_settings(study, {"cluster.engine": "local"})
    bad, *others = study.cohort.donors
    crew = Inside(study, 2, lambda asset, key: (asset, key) == ("raw_case", bad))
    monkeypatch.setattr(runner, "gathered", lambda *given: nullcontext(crew))
    with open_instance(study.folder, shows_output=True) as instance:
        with pytest.raises(StepFailedError, match=rf"raw_case of {bad} failed.\nbad data"):
            Runner(study, instance, Bars(disable=True), silently).run(wanted)
        recorded = recorded_versions(instance, GRAPH["raw_case"])
        assert recorded == {case: study.version("raw_case", case) for case in {*others, *study.cohort.tests}}
        (failed,) = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
        assert failed.job_name == "full_experiment"
        assert len(read_table(study.folder.database, "cohort")) == len(study.cohort.cases)
        crew = Inside(study, 2, lambda asset, key: False)
        again = Runner(study, instance, Bars(disable=True), silently).run(wanted)
        assert (again.made, again.kept) == ({"raw_case": 1}, len(study.cohort.cases))


def test_progress_is_shown_of_each_worker_until_it_is_gone() -> None:
    shown: dict[str, list[int]] = {}

    def track(items: Any, description: str) -> Any:
        for item in items:
            shown.setdefault(description, []).append(item)
            yield item
        shown[description].append(-1)

    workers = Shown(track)
    workers.tell("a", "model", 0, 4)
    workers.tell("a", "model", 2, 4)
    workers.tell("b", "row", 1, 2)
    assert shown == {"model": [0, 1, 2], "row": [0, 1]}
    workers.tell("a", "row of a", 0, 1)
    assert shown["model"] == [0, 1, 2, 3, -1]
    workers.forget("b")
    assert shown["row"] == [0, 1, -1]


def test_the_key_of_a_run_is_for_its_user_alone_and_goes_with_it(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    with cluster._security(ClusterSettings(engine="wait"), folder) as security:
        assert security.require_encryption
        assert stat.S_IMODE(folder.cluster.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in folder.cluster.iterdir()} == {0o600}
        assert "PRIVATE KEY" in (folder.cluster / cluster.KEY_FILE).read_text()
    assert not list(folder.cluster.iterdir())


def test_a_worker_for_whom_no_run_waits_says_so(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="idal run --cluster wait"):
        cluster.work(DataFolder(tmp_path), 0)


def test_workers_of_one_machine_share_its_cores_and_memory() -> None:
    settings = ClusterSettings(engine="local", workers=2)
    shared = cluster._share_of(settings, ComputeSettings(slices_memory_gb=8, threads=None))
    assert shared.slices_memory_gb == 4
    assert shared.threads is not None
    assert cluster._share_of(settings, ComputeSettings(threads=3)).threads == 3
    assert cluster._share_of(ClusterSettings(engine="wait"), ComputeSettings()) == ComputeSettings()


@pytest.mark.skipif(sys.platform != "linux", reason="only there workers are forked")
def test_workers_of_one_machine_have_imported_before_they_begin(two_workers: distributed.Client) -> None:
    assert set(two_workers.run(_has_imported, "nnunetv2").values()) == {True}
    parents = two_workers.run(os.getppid).values()
    assert len(set(parents)) == 1
    assert os.getpid() not in parents


def test_nobody_samples_the_stacks_of_workers(two_workers: distributed.Client) -> None:
    assert set(two_workers.run(_does_periodically, "profile").values()) == {False}
    assert set(two_workers.run(_does_periodically, "heartbeat").values()) == {True}


@pytest.fixture
def two_workers(study: Study) -> Iterator[distributed.Client]:
    of_two = with_settings(study, {"cluster.engine": "local", "cluster.workers": 2})
    with cluster.gathered(of_two, silently, print) as crew:
        assert isinstance(crew, cluster.DaskCrew)
        crew._client.wait_for_workers(2)
        yield crew._client


def _has_imported(name: str) -> bool:
    return name in sys.modules


def _does_periodically(name: str, dask_worker: distributed.Worker) -> bool:
    return name in dask_worker.periodic_callbacks


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere PyTorch is asked")
def test_pytorch_is_asked_for_cards_only_where_there_may_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(cluster, "DEVICES_OF_CARDS", ("no-such-device*",))
    assert cluster._cards(ComputeSettings()) == 0
    monkeypatch.setattr(cluster, "DEVICES_OF_CARDS", ("nul*",))
    assert cluster._cards(ComputeSettings()) == 2
    assert cluster._cards(ComputeSettings(device="cpu")) == 0


def test_what_slurm_said_is_handed_on_without_the_rest() -> None:
    said = (
        "Command exited with non-zero exit code.\nExit code: 1\nCommand:\nsbatch /tmp/x.sh\nstdout:\n\nstderr:\n"
        "sbatch: error: invalid partition specified: nowhere\n\n"
    )
    assert cluster._last_words(said) == "sbatch: error: invalid partition specified: nowhere"


def test_flags_say_where_artifacts_are_made(tmp_path: Path) -> None:
    file = tmp_path / "gpu.yaml"
    file.write_text(json.dumps({"engine": "slurm", "workers": 8}))
    assert cluster_settings(None, None) == {}
    assert cluster_settings(4, None) == {"engine": "local", "workers": 4}
    assert cluster_settings(None, "wait") == {"engine": "wait"}
    assert cluster_settings(2, str(file)) == {"engine": "slurm", "workers": 2}
    file.write_text("slurm")
    for wrong in (str(file), str(tmp_path / "absent.yaml")):
        with pytest.raises(ProfileError, match=Path(wrong).name):
            cluster_settings(None, wrong)
