"""Sites of a phantom draw by conventions of their own and look like their own; its patients have no label."""

import json
from collections import Counter
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from idal_assets.imaging.case_table import read_case_table
from idal_assets.imaging.inspection import inspect_folder
from idal_assets.imaging.phantom import _make_case, hidden_label, kind_of, plan_cases, plan_patients, write_phantom
from idal_assets.imaging.phantom_sites import Convention, Site, drawn_by
from idal_assets.imaging.truth import read_truth
from idal_assets.imaging.unlabelled import find_patients
from idal_assets.settings import PhantomSettings

pytestmark = pytest.mark.unit

BRAIN = PhantomSettings(
    **{"train_cases": 8, "test_cases": 4, "faults": 0, "sites": 4, "site_strength": 1.0},
    **{"patients": 6, "unknown_patients": 2, "shape": (40, 48, 8), "spacing": (4.0, 4.0, 12.0)},
)
ORGAN = BRAIN.model_copy(update={"kind": "organ", "shape": (32, 40, 16), "spacing": (1.0, 1.0, 1.0)})
KINDS = {"brain": BRAIN, "organ": ORGAN, "CT": ORGAN.model_copy(update={"channel": "CT"})}

by_kind = pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)


def changed(settings: PhantomSettings, **changes: object) -> PhantomSettings:
    return settings.model_copy(update=changes)


@cache
def cases(settings: PhantomSettings) -> dict[str, tuple[NDArray, NDArray]]:
    return {name: _make_case(name, truth, settings) for name, truth in plan_cases(settings).items()}


Written = tuple[Path, PhantomSettings]
"""Folder of a phantom, and what it was written with."""


@pytest.fixture(scope="module", params=KINDS.values(), ids=KINDS)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("sites") / "phantom"
    write_phantom(folder, request.param)
    return folder, request.param


class TestConventions:
    LABEL = np.zeros((21, 21, 1), np.uint8)
    LABEL[1:20, 1:20], LABEL[5:16, 5:16] = 1, 2

    def drawn(self, *conventions: Convention, strength: float = 1.0) -> NDArray:
        site = Site(gamma=(1.0,), blur=0.0, grain=0.0, conventions=conventions)
        return drawn_by(site, self.LABEL, strength, np.random.default_rng(0))

    @pytest.mark.parametrize("strength", [0.0, 0.25, 0.5, 1.0])
    def test_the_strength_is_a_share_of_the_structure(self, strength: float):
        drawn = self.drawn(Convention((1,), (0,), becomes=0, share=1 / 3), strength=strength)
        lost = np.count_nonzero((self.LABEL == 1) & (drawn == 0))
        assert lost == round(strength / 3 * np.count_nonzero(self.LABEL == 1))
        assert np.array_equal(drawn[drawn > 0], self.LABEL[drawn > 0])

    def test_the_part_beside_the_neighbours_is_drawn_otherwise(self):
        drawn = self.drawn(Convention((1,), (2,), becomes=2, share=0.2))
        became = (self.LABEL == 1) & (drawn == 2)
        distance = ndimage.distance_transform_edt(self.LABEL != 2)
        assert distance[became].max() <= 2
        assert distance[(self.LABEL == 1) & ~became].min() > distance[became].min()

    def test_conventions_look_at_what_is_there_and_not_at_each_other(self):
        outer, inner = Convention((1,), (0,), 0, 0.2), Convention((1,), (2,), 2, 0.2)
        assert np.array_equal(self.drawn(outer, inner), self.drawn(inner, outer))

    def test_without_the_neighbours_nothing_changes(self):
        assert np.array_equal(self.drawn(Convention((1,), (3,), becomes=3, share=0.5)), self.LABEL)


class TestSites:
    @by_kind
    def test_all_sites_take_turns(self, settings: PhantomSettings):
        truths = plan_cases(settings)
        names = kind_of(settings).sites
        assert Counter(truth.site for truth in truths.values()) == dict.fromkeys(names, 3)
        assert Counter(truth.site for name, truth in truths.items() if "train" in name) == dict.fromkeys(names, 2)

    @by_kind
    def test_added_cases_leave_sites_scanners_and_subtypes_of_the_others(self, settings: PhantomSettings):
        more = plan_cases(changed(settings, train_cases=11, test_cases=7, patients=9))
        assert plan_cases(settings).items() <= more.items()

    @by_kind
    def test_one_site_is_none_and_nothing_of_it(self, settings: PhantomSettings):
        assert {truth.site for truth in plan_cases(changed(settings, sites=1)).values()} == {None}

    @by_kind
    def test_at_strength_0_a_case_is_drawn_as_it_is(self, settings: PhantomSettings):
        plain, sites = cases(changed(settings, sites=1)), cases(changed(settings, site_strength=0.0))
        for name, (image, label) in plain.items():
            assert np.array_equal(sites[name][1], label)
            assert image.shape == sites[name][0].shape

    @by_kind
    def test_images_are_the_same_at_every_strength(self, settings: PhantomSettings):
        weak, full = cases(changed(settings, site_strength=0.0)), cases(settings)
        assert all(np.array_equal(weak[name][0], full[name][0]) for name in full)

    @by_kind
    def test_the_strength_scales_what_a_site_draws_otherwise(self, settings: PhantomSettings):
        truths, usual = plan_cases(settings), kind_of(settings).sites[-1]
        sound = cases(changed(settings, site_strength=0.0))
        share: dict[str, list[float]] = {name: [] for name in kind_of(settings).sites}
        for strength in (0.5, 1.0):
            drawn = cases(changed(settings, site_strength=strength))
            for site, shares in share.items():
                names = [name for name in truths if truths[name].site == site]
                shares.append(float(np.mean([np.mean(drawn[name][1] != sound[name][1]) for name in names])))
        assert share.pop(usual) == [0, 0]
        for half, full in share.values():
            assert full > 0
            assert half == pytest.approx(full / 2, rel=0.05), "voxels are counted, so a share is rounded"

    @by_kind
    def test_a_site_leaves_valid_labels(self, settings: PhantomSettings):
        sound = cases(changed(settings, site_strength=0.0))
        for name, (image, label) in cases(settings).items():
            assert set(np.unique(label)) == set(np.unique(sound[name][1]))
            assert (image.dtype, label.dtype) == (np.int16, np.uint8)
            if settings.kind == "brain_tumour":
                assert not label[~image.any(axis=0)].any()
                assert np.array_equal(image.all(axis=0), image.any(axis=0))

    @by_kind
    def test_the_site_can_be_told_from_the_image_whatever_its_intensities(self, settings: PhantomSettings):
        """By the grain of the noise and the form of the intensities; the site whose other cases are nearest."""
        truths = plan_cases(changed(settings, train_cases=20))
        found = cases(changed(settings, train_cases=20, site_strength=0.0))
        features = {name: signature(image) for name, (image, _) in found.items()}
        spread = np.std([*features.values()], axis=0)
        right = 0
        for name, own in features.items():
            centres = {
                site: np.mean(
                    [features[other] for other in truths if other != name and truths[other].site == site], axis=0
                )
                for site in kind_of(settings).sites
            }
            nearest = min(centres, key=lambda site: float(np.linalg.norm((own - centres[site]) / spread)))
            right += nearest == truths[name].site
        assert right / len(features) > 0.75, "by chance it would be a quarter"

    def test_only_the_truth_tells_the_site(self, written: Written):
        folder, settings = written
        truths = read_truth(folder)
        assert {truth.site for truth in truths.values()} == set(kind_of(settings).sites)
        for file in ("cases.csv", "dataset.json"):
            assert not any(name in (folder / file).read_text() for name in kind_of(settings).sites)
        assert read_case_table(folder, truths).scanners == {name: truths[name].scanner for name in truths}


def signature(image: NDArray) -> NDArray:
    """By channel: how alike neighbours are in what a filter leaves, how much that is, skewness of intensities."""
    values = []
    for channel in image.astype(float):
        inside = channel > np.percentile(channel[channel > max(0, channel.min())], 30)
        scaled = (channel - channel[inside].mean()) / channel[inside].std()
        rough = scaled - ndimage.median_filter(scaled, (5, 5, 1))
        for step in (1, 2):
            both = inside[step:] & inside[:-step]
            values.append(np.corrcoef(rough[step:][both], rough[:-step][both])[0, 1])
        values += [rough[inside].std(), np.mean(scaled[inside] ** 3)]
    return np.array(values)


class TestPatients:
    def test_they_lie_where_a_decathlon_has_its_tests_and_have_no_label(self, written: Written):
        folder, settings = written
        names = [f"phantom_patient_{number:02}" for number in range(1, 7)]
        assert sorted(path.name for path in (folder / "imagesTs").iterdir()) == [f"{n}.nii.gz" for n in names]
        assert not [path for path in (folder / "labelsTr").iterdir() if "patient" in path.name]
        description = json.loads((folder / "dataset.json").read_text())
        assert description["test"] == [f"./imagesTs/{name}.nii.gz" for name in names]
        assert description["numTest"] == settings.patients
        assert list(json.loads((folder / "truth.json").read_text())["patients"]) == names
        assert set(read_truth(folder)) == set(plan_cases(settings))

    def test_they_are_read_apart_from_the_cases(self, written: Written):
        folder, settings = written
        report = inspect_folder(folder)
        assert report.problems == ()
        assert set(report.facts) == set(plan_cases(settings))
        patients = find_patients([folder], report.anatomy, report.anatomy.channels)
        assert patients.problems == ()
        assert {case.case_id for case in patients.cases} == set(plan_patients(settings))

    def test_the_same_settings_give_the_same_patients(self, written: Written, tmp_path: Path):
        folder, settings = written
        write_phantom(tmp_path / "again", settings)
        for file in (*folder.glob("imagesTs/*"), folder / "truth.json"):
            assert (tmp_path / "again" / file.relative_to(folder)).read_bytes() == file.read_bytes()

    @by_kind
    def test_scanners_take_turns_and_the_last_are_of_no_known_kind(self, settings: PhantomSettings):
        kind, truths = kind_of(settings), plan_patients(changed(settings, patients=12))
        assert Counter(truth.scanner for truth in truths.values()) == dict.fromkeys(kind.scanners, 6)
        assert Counter(truth.site for truth in truths.values()) == dict.fromkeys(kind.sites, 3)
        subtypes = [truth.subtype for truth in truths.values()]
        assert subtypes[-2:] == [kind.unknown] * 2
        assert Counter(subtypes[:-2]) == {kind.common: 9, kind.rare: 1}
        assert kind.unknown not in {truth.subtype for truth in plan_cases(settings).values()}
        assert all(truth.fault is None for truth in truths.values())

    def test_the_hidden_label_is_that_of_the_image_and_drawn_by_the_site(self, written: Written):
        folder, settings = written
        for patient, truth in plan_patients(settings).items():
            label = hidden_label(settings, patient)
            image = np.asanyarray(nib.load(folder / "imagesTs" / f"{patient}.nii.gz").dataobj)
            assert label.shape == image.shape[:3]
            assert label.any()
            sound = hidden_label(changed(settings, site_strength=0.0), patient)
            has_convention = truth.site != kind_of(settings).sites[-1]
            assert np.array_equal(label, sound) is not has_convention

    def test_who_is_no_patient_has_no_hidden_label(self):
        with pytest.raises(KeyError, match="phantom_patient_07"):
            hidden_label(BRAIN, "phantom_patient_07")

    def test_an_unknown_brain_has_lesions_on_both_sides_that_are_dark_in_flair(self):
        for patient in ("phantom_patient_05", "phantom_patient_06"):
            image, label = _make_case(patient, plan_patients(BRAIN)[patient], BRAIN)
            assert label[:16].any()
            assert label[24:].any()
            assert np.median(image[0][label > 0]) < np.median(image[0][image.any(axis=0) & (label == 0)])

    def test_an_unknown_organ_is_darker_than_what_surrounds_it(self):
        for settings in (ORGAN, KINDS["CT"]):
            (*_, (patient, truth)) = plan_patients(settings).items()
            image, label = _make_case(patient, truth, settings)
            assert np.median(image[0][label > 0]) < np.median(image[0][label == 0])

    def test_without_patients_there_is_no_folder(self, tmp_path: Path):
        write_phantom(tmp_path / "phantom", changed(ORGAN, patients=0, unknown_patients=0, train_cases=1))
        assert not (tmp_path / "phantom" / "imagesTs").exists()

    def test_a_phantom_with_patients_is_replaced(self, tmp_path: Path):
        write_phantom(tmp_path / "phantom", changed(ORGAN, train_cases=1, test_cases=0))
        write_phantom(tmp_path / "phantom", changed(ORGAN, train_cases=1, test_cases=0, patients=1))
        assert [path.name for path in (tmp_path / "phantom" / "imagesTs").iterdir()] == [
            "phantom_patient_01.nii.gz"
        ]
