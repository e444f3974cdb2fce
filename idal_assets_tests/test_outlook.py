"""What is told before a run: how much there is to make, how long it takes and on how much disk."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from idal_assets.cli import main
from idal_assets.nnunet.pace import Pace, Watch
from idal_assets.profile import load_profile
from idal_assets.study.graph import GRAPH
from idal_assets.study.outlook import WORK, Numbers, Work, look_ahead, outlook, to_make
from idal_assets.study.study import Study

from .conftest import FinishedRun

PACE = Pace(
    read=1, prepare=2, iteration=0.5, segment=0.25, bytes_of_case=10, bytes_of_network=7, where="", own_share=1
)


def numbers(profile: str, **counts: int) -> Numbers:
    """Numbers of a study, none but those that are given."""
    none = dict.fromkeys(("donors", "validation", "tests", "pretraining", "patients", "test_patients"), 0)
    return Numbers(load_profile(profile), **{**none, **counts})


@pytest.mark.unit
@pytest.mark.parametrize(
    ("seconds", "most", "expected"),
    # the first two do not count; three are watched though the time is over at once
    [(0, 100, 2 + 3), (1000, 7, 2 + 7), (1000, 100, 20)],
)
def test_a_training_is_watched_until_the_time_is_over_or_enough_is_seen(seconds: float, most: int, expected: int):
    begun = []
    watch = Watch(torch.device("cpu"), seconds, at_first=lambda: begun.append(len(done)), most=most)
    done = []
    for number in watch(range(20), "training"):
        time.sleep(0.01)
        done.append(number)
    assert done == list(range(expected))
    assert begun == [2]
    # at least what it slept; how much longer depends on who else works here
    assert 0.01 <= watch.iteration < 1


@pytest.mark.unit
class TestWork:
    def test_it_is_known_of_all_that_trains_or_segments(self) -> None:
        heavy = {name for name, node in GRAPH.items() if node.accelerated}
        assert heavy <= WORK.keys() <= GRAPH.keys()

    def test_a_row_and_its_model_worked_by_hand(self) -> None:
        of = numbers("tiny", donors=3, tests=2, validation=1)
        # 5 iterations, and the weights after half of them are kept too
        model = WORK["case_model"](of)
        assert model == Work(iterations=5, networks=2)
        assert model.seconds(PACE) == pytest.approx(5 * 0.5 + 0.6)
        assert model.bytes(PACE) == 14
        assert WORK["dice_row"](of).seconds(PACE) == pytest.approx(6 * 0.25 + 0.6)

    def test_mirroring_takes_four_passes(self) -> None:
        of = numbers("demo", tests=32)
        assert WORK["reduced_evaluation"](of).segmented == 32
        mirrored = of.profile.inference.model_copy(update={"mirror_retrained": True})
        of = replace(of, profile=of.profile.model_copy(update={"inference": mirrored}))
        assert WORK["reduced_evaluation"](of).segmented == 4 * 32

    def test_a_test_case_is_played_with_all_rivals_and_others_with_the_chosen_donors(self) -> None:
        of = numbers("demo", donors=20, tests=5)
        settings = of.profile.adaptation
        assert settings.compared == ("merged", "ensemble")
        counts = len(settings.counts)
        test, donor = (5 + settings.random_draws) * counts + 20, counts
        assert WORK["played_case"](of).segmented == pytest.approx(1 + (5 * test + 20 * donor) / 25)


@pytest.mark.graph
def test_what_is_told_before_is_what_there_is_afterwards(finished_run: FinishedRun, tmp_path: Path) -> None:
    """As many artifacts as the run then made, and none of them is to be made again."""
    before = look_ahead(Study.open(tmp_path / "data", "tiny"), workers=2)
    states = {line.asset: line.artifacts for line in before.lines}
    study = finished_run.study()
    there = {name: len(node.keys(study)) for name, node in GRAPH.items()}
    assert states == {name: count for name, count in there.items() if count}
    assert before.seconds == pytest.approx(sum(line.seconds for line in before.lines) / 2)
    assert not (tmp_path / "data").exists()
    assert to_make(study, Numbers.of_study(study)) == {}
    assert outlook(study, Numbers.of_study(study), PACE) == []


@pytest.mark.graph
def test_the_command_says_it_to_people_and_scripts(finished_run: FinishedRun) -> None:
    asked = ["plan", "--data-dir", str(finished_run.data_dir), "--json"]
    told = json.loads(CliRunner().invoke(main, asked, catch_exceptions=False).output)
    assert told["assets"] == [] and told["seconds"] == 0 and told["pace"]["iteration"] > 0
