"""What an experiment is said to cost and to tell before it starts."""

from functools import partial

import pytest

from idal_assets.analysis.reach import Design, forecast, reach
from idal_assets.analysis.removal_sets import removal_sets
from idal_assets.profile import load_profile, profile_names
from idal_assets.settings import EvidenceSettings, shortened_length

pytestmark = pytest.mark.unit

SETTINGS = EvidenceSettings()


def design(sizes=(5, 7), random=20, seeds=2, random_seeds=2, test_cases=40):
    removals = {f"random_{size}_r{draw}": size for size in sizes for draw in range(random)}
    return Design(sizes, removals, seeds, random_seeds, test_cases)


def test_the_smallest_p_is_said_with_its_correction():
    said = reach(design(random=30), SETTINGS)
    assert said[0] == (
        "2 sets of the worst and the worst cluster, 60 different random removals, 2 trainings of a set, 40 test "
        "patients."
    )
    # 60 random removals about as large as either, two sets and the cluster
    assert said[1] == "The smallest p against random removals, corrected for 3 sets, is 0.049."
    assert "an effect is claimed in so many experiments: +0.01 in " in said[2]


def test_a_design_that_can_claim_nothing_says_so_and_what_it_takes():
    said = " ".join(reach(design(random=29), SETTINGS))
    assert "No claim can be made whatever the data" in said
    assert "It takes 60 of about the size of a set (controls.random)." in said
    assert "experiments" not in said
    single = " ".join(reach(design(seeds=1, random_seeds=1), SETTINGS))
    assert "With one training of a set neither a gain nor a harm can be claimed" in single
    apart = Design((1, 9), {f"r{draw}": 9 for draw in range(50)}, 2, 2, 40)
    assert "No random removal is about as large as the set of 1" in " ".join(reach(apart, SETTINGS))
    assert reach(Design((), {}, 2, 2, 40), SETTINGS) == ["No set removes a donor, so nothing is compared."]


def powers(**changes):
    said = reach(design(**changes), SETTINGS)[-1]
    return [int(part.split()[-1].rstrip("%.")) for part in said.split(": ")[1].split(", ")]


def test_power_rises_with_the_effect_the_test_cases_and_the_seeds():
    base = powers(random=40)
    assert base == sorted(base)
    assert base[-1] == 100
    assert powers(random=40, test_cases=200)[1] > base[1]
    assert powers(random=40, seeds=5, random_seeds=5)[1] > base[1]
    assert powers(random=40, test_cases=8)[1] < base[1]


@pytest.mark.parametrize("name", profile_names())
def test_the_cost_is_that_of_the_profile(name):
    profile = load_profile(name)
    setting = partial(getattr, profile)
    said = forecast(setting, donors=20, test_cases=10)[0]
    retrainings = len(removal_sets(profile.removal, profile.controls))
    assert f"{retrainings} retrainings {retrainings * profile.reduced.iterations:,}" in said
    models = 20 * profile.case_model.seeds
    length = shortened_length(profile.case_model.iterations, profile.early_stop.share)
    assert f"{models} case models {models * length:,}" in said
    to_the_end = profile.early_stop.most_contested(20)
    assert (f"{to_the_end} case models to the end" in said) == (profile.early_stop.share < 1)
    total = int(said.split(" trainings of ")[1].split(" iterations")[0].replace(",", ""))
    listed = [int(part.split()[-1].rstrip(".").replace(",", "")) for part in said.split(": ")[1].split(", ")]
    assert total == sum(listed)


def test_random_removals_that_do_not_exist_are_not_counted():
    profile = load_profile("tiny")
    changed = {"sizes": (1,), "best": ()}
    profile = profile.model_copy(
        update={
            "removal": profile.removal.model_copy(update=changed),
            "controls": profile.controls.model_copy(update={"random": 50}),
        }
    )
    said = forecast(partial(getattr, profile), donors=9, test_cases=10)
    # of nine single donors one is the worst
    assert "8 different random removals" in said[1]
