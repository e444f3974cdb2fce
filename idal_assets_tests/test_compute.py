"""Which device, precision and memory are taken, on machines with and without cards."""

import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch

from idal_assets.nnunet.compute import Compute, _free_one, kept_memory, own_folder, taken
from idal_assets.settings import ComputeSettings

pytestmark = pytest.mark.unit

CARDS = ("card-a", "card-b")


class TestChoice:
    @pytest.mark.parametrize(("precision", "expected"), [("fp32", None), ("mixed", torch.bfloat16)])
    def test_precision_is_what_the_settings_say(self, precision: str, expected: torch.dtype | None):
        compute = Compute.choose(ComputeSettings(device="cpu", precision=precision, threads=3))
        assert (compute.device.type, compute.mixed, compute.threads) == ("cpu", expected, 3)

    def test_a_missing_card_is_named(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert Compute.choose(ComputeSettings()).device.type == "cpu"
        with pytest.raises(RuntimeError, match="no usable card"):
            Compute.choose(ComputeSettings(device="cuda"))

    def test_without_a_card_the_cpu_is_taken(self):
        with taken(ComputeSettings(device="cpu")) as compute:
            assert compute.device.type == "cpu"

    @pytest.mark.parametrize(
        ("kind", "threads", "expected"),
        # one thread is left to whoever prepares batches, where they overlap
        [("cpu", 1, 1), ("cpu", 2, 2), ("cpu", 6, 5), ("cuda", 1, 1), ("cuda", 2, 1), ("cuda", 8, 7)],
    )
    def test_a_training_has_a_thread_at_least(self, kind: str, threads: int, expected: int):
        assert Compute(torch.device(kind), None, threads).training_threads == expected


def hold_a_card(locks: Path, numbers: multiprocessing.Queue, until: float) -> None:
    with _free_one(CARDS, locks) as number:
        numbers.put((number, time.monotonic()))
        time.sleep(max(0.0, until - time.monotonic()))


class TestCards:
    def test_the_folder_of_locks_is_private(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        folder = own_folder()
        assert folder.parent == tmp_path / "temporary"
        assert folder.stat().st_mode & 0o777 == 0o700
        assert own_folder() == folder

    @pytest.mark.parametrize("take", ["link", "open to all", "file"])
    def test_a_folder_that_another_user_took_is_left_alone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, take: str
    ):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        taken_by_another = own_folder()
        taken_by_another.rmdir()
        if take == "link":
            taken_by_another.symlink_to(tmp_path)
        elif take == "file":
            taken_by_another.touch()
        else:
            taken_by_another.mkdir()
            taken_by_another.chmod(0o777)
        assert own_folder().parent == tmp_path / "home" / ".cache"
        monkeypatch.setenv("HOME", "/proc")
        with pytest.raises(RuntimeError, match="set TMPDIR to a folder that is yours"):
            own_folder()

    def test_each_takes_another_one(self, tmp_path: Path):
        with _free_one(CARDS, tmp_path) as first, _free_one(CARDS, tmp_path) as second:
            assert (first, second) == (0, 1)
        with _free_one(CARDS, tmp_path) as again:
            assert again == 0

    def test_models_share_a_card_once_every_card_has_one(self, tmp_path: Path):
        with (
            _free_one(CARDS, tmp_path, 2) as first,
            _free_one(CARDS, tmp_path, 2) as second,
            _free_one(CARDS, tmp_path, 2) as third,
            _free_one(CARDS, tmp_path, 2) as fourth,
        ):
            assert (first, second, third, fourth) == (0, 1, 0, 1)

    def test_an_error_gives_the_card_back(self, tmp_path: Path):
        with pytest.raises(ValueError, match="training"), _free_one(CARDS[:1], tmp_path):
            raise ValueError("training failed")
        with _free_one(CARDS[:1], tmp_path) as number:
            assert number == 0

    def test_processes_share_cards_and_the_last_one_waits(self, tmp_path: Path):
        spawn = multiprocessing.get_context("spawn")
        numbers: multiprocessing.Queue = spawn.Queue()
        with _free_one(CARDS, tmp_path) as mine:
            other = spawn.Process(target=hold_a_card, args=(tmp_path, numbers, time.monotonic() + 60))
            waiting = spawn.Process(target=hold_a_card, args=(tmp_path, numbers, 0.0))
            other.start()
            assert numbers.get(timeout=50)[0] == 1
            waiting.start()
            time.sleep(1)
            assert numbers.empty()
            released = time.monotonic()
        number, when = numbers.get(timeout=50)
        assert number == mine
        assert when >= released
        # a killed process lets go of its card
        other.kill()
        other.join()
        with _free_one(CARDS, tmp_path) as first, _free_one(CARDS, tmp_path) as second:
            assert {first, second} == {0, 1}
        waiting.join()


def test_memory_is_kept_for_a_while_only():
    """What a block of code does with memory must not outlive it, and an error in it must get out."""
    with pytest.raises(ValueError, match="inside"), kept_memory():
        torch.zeros(1000, 1000)
        raise ValueError("inside")
    with kept_memory():
        assert torch.ones(3000, 3000).sum() == 9e6


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told to keep memory")
def test_memory_is_given_back_when_the_outermost_block_ends(monkeypatch: pytest.MonkeyPatch):
    class Libc:
        """How many pages glibc then keeps depends on where the system put its heap, so nobody counts them here."""

        def __init__(self) -> None:
            self.given_back = 0

        def mallopt(self, option: int, value: int) -> None:
            pass

        def malloc_trim(self, pad: int) -> None:
            self.given_back += 1

    libc = Libc()
    monkeypatch.setattr("ctypes.CDLL", lambda name: libc)
    with kept_memory():
        with kept_memory():
            pass
        assert libc.given_back == 0
    assert libc.given_back == 1
