"""Trainings that stop early: whose place is open, and how full trainings settle it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from idal_assets.analysis.settling import chances_of_removal, open_places, settled
from idal_assets.analysis.similarity import rank_donors
from idal_assets.nnunet.model_folder import load_history
from idal_assets.profile import load_profile
from idal_assets.settings import EarlyStopSettings
from idal_assets.steps.settling import load_contest, load_settled_row
from idal_assets.steps.similarity import load_ranking
from idal_assets.study.making import make_all
from idal_assets.study.study import Study
from idal_assets_tests.studies import changed

DONORS = list("abcdef")


def matrix(quality: list[float], noise: float = 0.0) -> pd.DataFrame:
    """Donors by donors, where a cell is the mean of both cases' qualities."""
    values = np.add.outer(quality, quality) / 2 + np.random.default_rng(0).normal(0, noise, (6, 6))
    return pd.DataFrame(values, DONORS, DONORS)


@pytest.mark.unit
class TestOpenPlaces:
    def test_a_place_far_from_the_others_is_settled(self) -> None:
        found = chances_of_removal(matrix([0.1, 0.2, 0.7, 0.7, 0.8, 0.9]), [2], 200, np.random.default_rng(0))
        assert list(found[2]) == [1, 1, 0, 0, 0, 0]
        assert open_places(found, EarlyStopSettings(share=0.5)) == []

    def test_two_that_noise_alone_tells_apart_are_open(self) -> None:
        noisy = matrix([0.1, 0.7, 0.7, 0.9, 0.9, 0.9], noise=0.1)
        found = chances_of_removal(noisy, [2], 500, np.random.default_rng(0))
        assert set(open_places(found, EarlyStopSettings(share=0.5))) == {"b", "c"}

    def test_each_draw_has_as_many_removed_as_the_set(self) -> None:
        found = chances_of_removal(matrix([0.5] * 6, noise=0.1), [1, 3], 100, np.random.default_rng(0))
        assert found.sum().to_numpy() == pytest.approx([1, 3])

    def test_the_nearest_to_a_toss_of_a_coin_are_trained_to_the_end_and_no_more_than_allowed(self) -> None:
        chances = pd.DataFrame({2: [0.9, 0.52, 0.6, 0.3, 0.02, 0.0]}, index=DONORS)
        assert open_places(chances, EarlyStopSettings(share=0.5, contested=0.5)) == ["b", "c", "d"]
        assert open_places(chances, EarlyStopSettings(share=0.5, contested=0.01)) == ["b", "c"]
        assert open_places(chances, EarlyStopSettings(share=0.5, contested=0)) == []

    def test_one_alone_has_nobody_to_change_places_with(self) -> None:
        chances = pd.DataFrame({2: [1, 0.6, 0.99, 0, 0, 0]}, index=DONORS)
        assert open_places(chances, EarlyStopSettings(share=0.5)) == []


@pytest.mark.unit
class TestSettled:
    def test_the_contested_change_places_among_themselves_alone(self) -> None:
        ranking = rank_donors(matrix([0.1, 0.5, 0.52, 0.8, 0.85, 0.9]))
        assert list(ranking["case_id"]) == DONORS
        means = ranking.set_index("case_id")["donor_mean"]
        # a third, of which nothing is asked, stays where it is although it lies between
        full = pd.Series({"b": means["b"] + 0.3, "d": means["d"] - 0.3})
        found = settled(ranking, ["b", "d"], full)
        assert list(found["case_id"]) == ["a", "d", "c", "b", "e", "f"]
        assert list(found["rank"]) == [1, 2, 3, 4, 5, 6]
        assert dict(zip(found["case_id"], found["score"], strict=True)) == dict(
            zip(ranking["case_id"], ranking["score"], strict=True)
        )

    def test_where_all_lose_alike_by_longer_trainings_nothing_changes(self) -> None:
        ranking = rank_donors(matrix([0.1, 0.5, 0.52, 0.8, 0.85, 0.9]))
        full = ranking.set_index("case_id")["donor_mean"].loc[["b", "c"]] - 0.2
        pd.testing.assert_frame_equal(settled(ranking, ["b", "c"], full), ranking)

    def test_without_contested_donors_nothing_changes(self) -> None:
        ranking = rank_donors(matrix([0.1, 0.5, 0.52, 0.8, 0.85, 0.9]))
        assert settled(ranking, [], pd.Series(dtype=float)) is ranking


@pytest.mark.unit
def test_a_shortened_training_has_fewer_and_larger_steps() -> None:
    training = load_profile("demo").case_model
    short = training.shortened(0.15, 3)
    assert (training.iterations, short.iterations) == (60, 9)
    assert short.learning_rate == pytest.approx(3 * training.learning_rate)
    assert (short.optimizer, short.seeds) == (training.optimizer, training.seeds)
    assert training.shortened(1, 3) is training
    assert training.shortened(0.001, 3).iterations == 1


@pytest.mark.graph
def test_only_open_places_are_trained_to_the_end(tmp_path: Path) -> None:
    stopped = {"early_stop.share": 0.4, "early_stop.contested": 0.4, "early_stop.level": 0.999}
    changes = {**stopped, "removal.sizes": (2,), "convergence.shares": (0.5,)}
    study = Study(changed(load_profile("tiny"), changes), tmp_path / "data", None, "tiny")
    make_all(study, "convergence")
    contested, donors = load_contest(study.path("contest")), study.cohort.donors
    assert len(contested) == 2
    for donor in donors:
        assert len(load_history(study.path("case_model", donor))) == 2
        row = load_settled_row(study.path("settled_row", donor))
        assert set(row["receiver"]) == (set(study.cohort.deciding) if donor in contested else set())
        versions = study.provenance("settled_row", donor).inputs.made_from
        assert ("baseline_weights" in versions) == (donor in contested)
    ranking = load_ranking(study.path("case_ranking"))
    assert set(ranking.loc[ranking["settled"], "case_id"]) == set(contested)
    assert list(ranking["rank"]) == list(range(1, len(donors) + 1))
