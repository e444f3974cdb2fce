"""The similarity classifier on made-up studies whose truth is known."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from idal_assets.analysis.agreement import BASELINE
from idal_assets.analysis.donor_choice import (
    PAIR_FEATURES,
    PENALTIES,
    CaseSigns,
    Played,
    correlation_by_patient,
    fit_classifier,
    fit_linear,
    predictions_out_of_fold,
)

pytestmark = pytest.mark.unit

REGIONS = ("whole", "core")
DONORS = tuple(f"donor_{number}" for number in range(12))
VALIDATION = tuple(f"validation_{number}" for number in range(14))
PATIENTS = tuple(f"patient_{number}" for number in range(30))


def world(interaction: float, seed: int = 0) -> tuple[Played, pd.DataFrame]:
    """A study in which agreement shows the interaction of donor and patient, and nothing else does.

    Returns:
        What was played, and the truth of the patients: `patient`, `donor`, `truth`.
    """
    rng = np.random.default_rng(seed)
    cases = [*DONORS, *VALIDATION, *PATIENTS]
    quality = {donor: rng.normal(0, 0.03) for donor in DONORS}
    level = {case: rng.normal(0.7, 0.05) for case in cases}
    suits = {(donor, case): rng.normal(0, interaction) for donor in DONORS for case in cases}
    signs, cells = {}, []
    for case in cases:
        rows = []
        for donor in (BASELINE, *(one for one in DONORS if one != case)):
            shown = suits.get((donor, case), 0.0) + rng.normal(0, 0.01)
            for region in REGIONS:
                rows.append(
                    {
                        **{"model": donor, "region": region, "volume": 100 + rng.integers(20), "extent": 1.0},
                        **dict.fromkeys(("with_baseline", "with_majority", "with_others"), level[case] + shown),
                        **{"confidence": rng.uniform(0.8, 0.9), "turned": rng.uniform(0.9, 1)},
                    }
                )
                if donor != BASELINE:
                    truth = level[case] + quality[donor] + suits[donor, case] + rng.normal(0, 0.005)
                    cells.append({"donor": donor, "receiver": case, "region": region, "dice": truth})
        signs[case] = CaseSigns(pd.DataFrame(rows), rng.normal(size=7), rng.normal(size=4))
    table = pd.DataFrame(cells)
    truth = table.groupby(["receiver", "donor"])["dice"].mean().rename("truth").reset_index()
    played = Played(signs, table, {donor: signs[donor] for donor in DONORS}, groups={})
    return played, truth.rename(columns={"receiver": "patient"})


LEARNED_FROM = [*DONORS, *VALIDATION]


def predicted_scalars(played: Played) -> pd.DataFrame:
    classifier = fit_classifier(played, LEARNED_FROM)
    found = classifier.predict({name: played.signs[name] for name in PATIENTS})
    return found.groupby(["patient", "donor"])[["advantage", "dice", "donor_mean"]].mean().reset_index()


def test_it_knows_which_donors_suit_where_some_do():
    played, truth = world(interaction=0.06)
    found = predicted_scalars(played)
    by_classifier = correlation_by_patient(found, "advantage", truth)
    by_mean = correlation_by_patient(found, "donor_mean", truth)
    assert by_classifier.median() > 0.9
    assert by_classifier.median() > by_mean.median() + 0.3


def test_it_learns_which_differences_of_images_matter():
    """Donors suit patients of their own site, which one of many numbers of the image tells, and no agreement."""
    played, _ = world(interaction=0.0)
    rng = np.random.default_rng(1)
    sites = {name: number % 2 for number, name in enumerate(played.signs)}
    signs = {
        name: CaseSigns(
            found.networks, np.append(rng.normal(size=9), sites[name] + rng.normal(0, 0.1)), found.pooled
        )
        for name, found in played.signs.items()
    }
    same = played.cells["donor"].map(sites) == played.cells["receiver"].map(sites)
    cells = played.cells.assign(dice=played.cells["dice"] + np.where(same, 0.05, -0.05))
    played = Played(signs, cells, {donor: signs[donor] for donor in DONORS}, groups={})
    classifier = fit_classifier(played, LEARNED_FROM)
    predicted = classifier.predict({name: signs[name] for name in PATIENTS})
    for name, found in predicted.groupby("patient"):
        best = found.groupby("donor")["advantage"].mean().nlargest(4).index
        assert {sites[donor] for donor in best} == {sites[name]}


def test_without_an_interaction_it_falls_back_to_the_donors_own_quality():
    played, truth = world(interaction=0.0)
    found = predicted_scalars(played)
    difference = correlation_by_patient(found, "advantage", truth) - correlation_by_patient(
        found, "donor_mean", truth
    )
    assert abs(difference.mean()) < 0.1


def test_the_predicted_dice_is_near_the_true_one():
    played, truth = world(interaction=0.03)
    found = predicted_scalars(played).merge(truth, on=["patient", "donor"])
    # agreement shows the level with a noise of .01 / sqrt(12), and the rest with .01
    assert (found["dice"] - found["truth"]).abs().mean() < 0.02


def test_labels_of_a_patient_that_is_predicted_are_not_looked_at():
    played, _ = world(interaction=0.03)
    hidden = played.cells["receiver"].isin(PATIENTS)
    shuffled = played.cells.assign(dice=played.cells["dice"].where(~hidden, 0.123))
    other = Played(played.signs, shuffled, played.images, {})
    pd.testing.assert_frame_equal(predicted_scalars(played), predicted_scalars(other))


def test_a_case_is_predicted_by_classifiers_that_have_not_seen_its_patient():
    played, _ = world(interaction=0.03)
    groups = {"validation_0": "one", "validation_1": "one"}
    played = Played(played.signs, played.cells, played.images, groups)
    before = predictions_out_of_fold(played, LEARNED_FROM)
    changed = played.cells.copy()
    changed.loc[changed["receiver"].isin(groups), "dice"] = 0.0
    after = predictions_out_of_fold(Played(played.signs, changed, played.images, groups), LEARNED_FROM)
    own = before["patient"].isin(groups)
    pd.testing.assert_frame_equal(before[own], after[own])
    assert (before.loc[~own, "dice"] != after.loc[~own, "dice"]).any()


def test_no_case_is_predicted_for_its_own_network():
    played, _ = world(interaction=0.03)
    found = predictions_out_of_fold(played, LEARNED_FROM)
    assert not (found["donor"] == found["patient"]).any()
    assert len(found) == len(REGIONS) * (len(DONORS) * (len(DONORS) - 1) + len(VALIDATION) * len(DONORS))


def test_advantages_are_relative_to_the_other_donors():
    played, _ = world(interaction=0.03)
    found = predictions_out_of_fold(played, LEARNED_FROM)
    means = found.groupby(["patient", "region"])[["advantage", *PAIR_FEATURES]].mean()
    np.testing.assert_allclose(means, 0, atol=1e-9)


def test_the_regression_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(50, 3)), columns=list("abc")).assign(constant=2.0)
    table["y"] = table["a"] - 2 * table["b"] + rng.normal(0, 0.1, 50)
    features = ["a", "b", "c", "constant"]
    pipeline = make_pipeline(StandardScaler(), RidgeCV(alphas=PENALTIES)).fit(
        table[features].to_numpy(), table["y"]
    )
    new = pd.DataFrame(rng.normal(size=(9, 4)), columns=features)
    np.testing.assert_allclose(fit_linear(table, features, "y").predict(new), pipeline.predict(new.to_numpy()))


def test_one_case_is_too_few():
    played, _ = world(interaction=0.03)
    with pytest.raises(ValueError, match="needs two cases"):
        fit_classifier(played, LEARNED_FROM[:1])
