"""Rivals without a training of their own: intensities, and what a network's loss says of a case."""

import numpy as np
import pandas as pd
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from scipy import ndimage

from idal_assets.analysis.intensities import intensity_features, intensity_scores
from idal_assets.analysis.scores import found_regions, scalar_of, without_absent
from idal_assets.analysis.similarity import donor_medians
from idal_assets.imaging.phantom import _make_case, plan_cases
from idal_assets.nnunet.case_loss import CaseLoss, losses_and_alignment
from idal_assets.nnunet.network import build_network
from idal_assets.nnunet.patches import trainer_stand_in
from idal_assets.nnunet.slices import load_slices
from idal_assets.settings import PhantomSettings
from idal_assets_tests.matrices import square
from idal_assets_tests.small_models import (
    ANATOMIES,
    FP32,
    as_other,
    noise_weights,
    phantom_files,
    plan,
    read_cases,
    slices_on_disk,
)

pytestmark = pytest.mark.unit


# --- intensities ---


def test_the_features_worked_by_hand():
    label = np.array([[[-1, 0, 0, 0], [0, 1, 1, 0], [0, 1, 2, 0], [0, 0, 0, 0]]], np.int8)
    image = np.where(label == 1, 3.0, np.where(label == 2, 5.0, 1.0)).astype(np.float32)[None]
    found = intensity_features(image, label, (1, 2, 3))
    assert found["mean_1 of 0"] == 3
    assert found["mean_2 of 0"] == 5
    assert np.isnan(found["mean_3 of 0"])
    assert found["edge of 0"] == pytest.approx(3.5 - 1)
    inside = np.abs(ndimage.laplace(image[0, 0], mode="nearest"))[label[0] >= 0]
    assert found["noise of 0"] == np.median(inside)


def test_a_case_is_judged_by_what_it_has():
    features = [pd.Series({"a": value, "b": value, "c": np.nan}) for value in (1.0, 2.0, 3.0, 4.0)]
    features += [pd.Series({"a": 50.0, "b": 2.5, "c": np.nan}), pd.Series({"a": 2.5, "b": np.nan, "c": np.nan})]
    scores = intensity_scores(features)
    assert scores.argmin() == 4
    assert scores[4] == pytest.approx(-(10 + 0) / 2)  # the one is cut off, the other is the median
    assert scores[5] > scores[0]


def test_gross_faults_of_a_label_are_seen_without_a_network():
    settings = PhantomSettings(train_cases=14, test_cases=0, faults=3, rare=0.0, shape=(40, 48, 8), seed=2)
    settings = settings.model_copy(
        update={"fault_kinds": ("labels_permuted", "label_of_another", "label_mirrored")}
    )
    truths = plan_cases(settings)
    features = []
    for name, truth in truths.items():
        image, label = _make_case(name, truth, settings)
        brain = image.any(axis=0)
        scaled = [(channel - channel[brain].mean()) / channel[brain].std() for channel in image.astype(np.float32)]
        features.append(
            intensity_features(np.stack(scaled), np.where(brain, label, -1).astype(np.int8), (1, 2, 3))
        )
    worst = np.argsort(intensity_scores(features))[:3]
    assert {number for number, truth in enumerate(truths.values()) if truth.fault} == set(worst)


# --- masks and medians ---


def test_a_region_that_a_case_does_not_have_is_left_out_of_other_segmentations_too():
    counts = {"a": (5, 0, 0), "b": (0, 0, 0), "c": (0, 9, 0)}  # c: unlabelled, and found by the models
    rows = [
        {"donor": donor, "receiver": case, "region": region, "tp": tp, "fp": fp, "fn": fn}
        for donor in counts
        for case, rim in counts.items()
        for region, (tp, fp, fn) in (("whole", (10, 0, 0)), ("rim", rim))
    ]
    found = found_regions(pd.DataFrame(rows), 0.05)
    scores = pd.DataFrame(
        [(case, region, 0.5 if region == "whole" else 0.0) for case in counts for region in ("whole", "rim")],
        columns=["case_id", "region", "dice"],
    )
    held = scalar_of(without_absent(scores, found), "case_id", ("whole", "rim"))
    assert held.to_dict() == {"a": 0.25, "b": 0.5, "c": 0.25}
    assert scalar_of(scores, "case_id", ("whole", "rim")).to_dict() == {"a": 0.25, "b": 0.25, "c": 0.25}


def test_the_median_of_a_donor_leaves_its_own_case_out():
    matrix = square([[0.9, 0.1, 0.7, 0.6], [0.2, 0.9, np.nan, 0.4], [0.1, 0.2, 0.9, 0.3], [0.5, 0.5, 0.1, 0.9]])
    assert donor_medians(matrix).tolist() == pytest.approx([0.6, 0.3, 0.2, 0.5])


# --- loss and gradient of a network ---


@pytest.mark.parametrize("kind", [None, "two labels", "regions", "ignored", "regions, ignored"])
def test_the_loss_of_a_case_is_that_of_nnunet_and_its_gradient_points_uphill(tmp_path, kind):
    cases = [
        case if kind is None else as_other(case, kind) for case in read_cases(phantom_files(tmp_path / "raw", 3))
    ]
    plans = plan(cases) if kind is None else plan(cases, anatomy=ANATOMIES[kind])
    stored = slices_on_disk(tmp_path / "slices", cases, plans)
    weights = noise_weights(plans)
    loss = CaseLoss(weights, plans, FP32)
    names = stored.names
    value, gradient = loss(stored[names[0]])
    again, same = loss(stored[names[0]])
    assert (value, True) == (again, torch.equal(gradient, same))

    # nnU-Net's own loss on the same patches, a batch at a time
    image, target = loss._patches(stored[names[0]])
    network = build_network(plans, deep_supervision=False).eval()
    network.load_state_dict(weights)
    plain = nnUNetTrainer._build_loss(trainer_stand_in(plans)).loss
    size = plans.configuration.batch_size
    with torch.no_grad():
        parts = [
            (plain(network(one), goal), len(one))
            for one, goal in zip(image.split(size), target.split(size), strict=True)
        ]
    assert value == pytest.approx(sum(float(part) * count for part, count in parts) / len(image), rel=1e-4)

    # a small step along the gradient raises the loss by as much as the gradient says
    step = 1e-4 / float(gradient.norm())
    moved, first = dict(weights), 0
    for name, parameter in network.named_parameters():
        part = gradient[first : first + parameter.numel()].reshape(parameter.shape)
        moved[name], first = weights[name] + step * part, first + parameter.numel()
    risen = CaseLoss(moved, plans, FP32)(stored[names[0]])[0] - value
    assert first == len(gradient)
    assert risen == pytest.approx(1e-4 * float(gradient.norm()), rel=0.2)

    said = list(losses_and_alignment(loss, stored, names))
    gradients = torch.stack([loss(stored[name])[1] for name in names])
    for number, (found, cosine) in enumerate(said):
        others = gradients[torch.arange(len(names)) != number].mean(0)
        assert found == pytest.approx(loss(stored[names[number]])[0])
        expected = torch.nn.functional.cosine_similarity(gradients[number], others, dim=0)
        assert cosine == pytest.approx(float(expected), abs=1e-4)


def test_patches_lie_around_the_label(tmp_path):
    cases = read_cases(phantom_files(tmp_path / "raw", 3))
    plans = plan(cases)
    stored = slices_on_disk(tmp_path / "slices", cases, plans)
    case = stored[stored.names[0]]
    image, target = CaseLoss(noise_weights(plans), plans, FP32)._patches(case)
    labelled = (case.require_label() > 0).any(axis=(1, 2))
    assert image.shape == (labelled.sum(), plans.channels, *plans.patch_size)
    assert target.shape == (labelled.sum(), 1, *plans.patch_size)
    assert (target > 0).flatten(1).any(1).all()
    assert load_slices(tmp_path / "slices" / case.case_id, case.case_id).image.dtype == np.float32
