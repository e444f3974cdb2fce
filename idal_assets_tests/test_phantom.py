"""The phantom is reproducible, valid, and exactly as wrong as its truth says."""

import gzip
import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import get_args

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from idal_assets.anatomy import Anatomy
from idal_assets.imaging.case_table import read_case_table
from idal_assets.imaging.inspection import inspect_folder
from idal_assets.imaging.phantom import _make_case, plan_cases, write_phantom
from idal_assets.imaging.phantom_brain import NO_ENHANCING, RING_ENHANCING, SCANNERS
from idal_assets.imaging.phantom_faults import BRAIN_FAULTS, ORGAN_FAULTS, UNGRADED
from idal_assets.imaging.phantom_organ import SHORT_POSTERIOR, WHOLE
from idal_assets.profile import load_profile
from idal_assets.settings import USUAL_FAULTS, FaultKind, PhantomSettings

pytestmark = pytest.mark.unit

SMALL = PhantomSettings(train_cases=8, test_cases=2, faults=5, shape=(40, 48, 8), spacing=(4.0, 4.0, 12.0))
"""One fault of each usual kind."""

SMALL_BYTES = "abce1946a3105c0fb3986c172be164fe74a600ff677ad1021ed906fe361d5293"
"""SHA-256 of the uncompressed images and labels of `SMALL`; a phantom stays the same from version to version."""

ORGAN_BYTES = {
    "MRI": "386a4e0a78d14e63ece64d69508203acbbaab002085831a4a058eb07c4abd094",
    "CT": "4f870df079fa5d68588f7b868ef8a5e0ec257fce7660a6639d01522d52065e28",
}
"""The same of `ORGAN` by channel."""

ORGAN = PhantomSettings(
    kind="organ", train_cases=8, test_cases=2, faults=4, rare=0.2, shape=(32, 40, 16), spacing=(1.0, 1.0, 1.0)
)
"""An organ with one fault of each usual kind."""


def read(folder: Path, case_id: str) -> tuple[NDArray, NDArray]:
    image = nib.load(folder / "imagesTr" / f"{case_id}.nii.gz")
    label = nib.load(folder / "labelsTr" / f"{case_id}.nii.gz")
    return np.asanyarray(image.dataobj), np.asanyarray(label.dataobj)


def read_truth(folder: Path) -> dict[str, dict[str, str | None]]:
    return json.loads((folder / "truth.json").read_text())["cases"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def content_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.nii.gz")):
        digest.update(path.name.encode() + gzip.decompress(path.read_bytes()))
    return digest.hexdigest()


def dice(one: NDArray, other: NDArray) -> float:
    return 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


def write(folder: Path, settings: PhantomSettings) -> Path:
    write_phantom(folder, settings)
    return folder


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("phantom") / "small", SMALL)


@pytest.fixture(scope="module")
def faultless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("faultless") / "small", SMALL.model_copy(update={"faults": 0}))


@pytest.fixture
def pair(phantom: Path, faultless: Path, request: pytest.FixtureRequest) -> tuple[NDArray, ...]:
    """Image and label with the requested fault, then image and label of the same case without it."""
    (case_id,) = [name for name, truth in read_truth(phantom).items() if truth["fault"] == request.param]
    return *read(phantom, case_id), *read(faultless, case_id)


def faulty(kind: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("pair", [kind], indirect=True)


class TestFiles:
    def test_same_settings_give_the_same_bytes(self, phantom: Path, tmp_path: Path):
        assert contents(write(tmp_path / "again", SMALL)) == contents(phantom)

    def test_the_brain_phantom_is_what_it_always_was(self, phantom: Path):
        assert content_digest(phantom) == SMALL_BYTES

    def test_another_seed_gives_other_images(self, phantom: Path, tmp_path: Path):
        other = contents(write(tmp_path / "other", SMALL.model_copy(update={"seed": 1})))
        images = [name for name in other if name.startswith("imagesTr")]
        assert all(other[name] != contents(phantom)[name] for name in images)

    def test_added_cases_leave_the_others_unchanged(self, faultless: Path, tmp_path: Path):
        more = SMALL.model_copy(update={"train_cases": 11, "test_cases": 3, "faults": 0})
        before, after = contents(faultless), contents(write(tmp_path / "more", more))
        assert all(after[name] == content for name, content in before.items() if name.endswith(".nii.gz"))
        assert read_truth(faultless).items() <= read_truth(tmp_path / "more").items()

    def test_dataset_description_is_that_of_a_decathlon_task(self, phantom: Path):
        description = json.loads((phantom / "dataset.json").read_text())
        assert description["modality"] == {"0": "FLAIR", "1": "T1w", "2": "T1gd", "3": "T2w"}
        assert list(description["labels"]) == ["0", "1", "2", "3"]
        assert description["numTraining"] == len(description["training"]) == 10
        for entry in description["training"]:
            assert (phantom / entry["image"]).is_file()
            assert (phantom / entry["label"]).is_file()

    def test_truth_holds_the_settings_and_every_case(self, phantom: Path):
        truth = json.loads((phantom / "truth.json").read_text())
        assert PhantomSettings(**truth["settings"]) == SMALL
        assert {path.name.removesuffix(".nii.gz") for path in (phantom / "imagesTr").iterdir()} == set(
            truth["cases"]
        )

    def test_the_table_of_cases_tells_the_scanners_and_nothing_of_the_faults(self, phantom: Path):
        expected = {case: truth["scanner"] for case, truth in read_truth(phantom).items()}
        assert len(set(expected.values())) > 1
        assert read_case_table(phantom, expected).scanners == expected
        assert (phantom / "cases.csv").read_text().splitlines()[0] == "case_id,scanner"

    def test_progress_sees_every_case(self, tmp_path: Path):
        seen = []

        def track(case_ids, description):
            for case_id in case_ids:
                seen.append(case_id)
                yield case_id

        settings = PhantomSettings(train_cases=1, test_cases=1, faults=0, shape=(40, 48, 8))
        write_phantom(tmp_path / "phantom", settings, track)
        assert seen == ["phantom_train_01", "phantom_test_01"]


class TestFolder:
    TINY = PhantomSettings(train_cases=1, test_cases=0, faults=0, shape=(40, 48, 8))

    def test_an_older_phantom_is_replaced(self, tmp_path: Path):
        write_phantom(tmp_path / "phantom", self.TINY.model_copy(update={"train_cases": 2}))
        write_phantom(tmp_path / "phantom", self.TINY)
        assert list(read_truth(tmp_path / "phantom")) == ["phantom_train_01"]
        assert [path.name for path in (tmp_path / "phantom" / "imagesTr").iterdir()] == ["phantom_train_01.nii.gz"]

    def test_a_foreign_folder_is_refused_and_kept(self, tmp_path: Path):
        for name in ("imagesTr", "labelsTr"):
            (tmp_path / "patients" / name).mkdir(parents=True)
        (tmp_path / "patients" / "dataset.json").write_text("{}")
        with pytest.raises(FileExistsError, match="not a phantom"):
            write_phantom(tmp_path / "patients", self.TINY)
        assert (tmp_path / "patients" / "dataset.json").read_text() == "{}"

    def test_an_empty_folder_is_filled(self, tmp_path: Path):
        (tmp_path / "empty").mkdir()
        write_phantom(tmp_path / "empty", self.TINY)
        assert (tmp_path / "empty" / "truth.json").is_file()

    def test_an_interrupted_run_leaves_nothing(self, tmp_path: Path):
        def interrupt(case_ids, description):
            yield case_ids[0]
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write_phantom(tmp_path / "phantom", self.TINY, interrupt)
        assert list(tmp_path.iterdir()) == []


class TestPlan:
    def test_the_default_dataset(self):
        truths = plan_cases(PhantomSettings())
        assert [name for name in truths if "train" in name] == [f"phantom_train_{n:02}" for n in range(1, 21)]
        assert [name for name in truths if "test" in name] == [f"phantom_test_{n:02}" for n in range(1, 9)]
        assert Counter(truth.subtype for truth in truths.values()) == {RING_ENHANCING: 25, NO_ENHANCING: 3}
        assert {truth.scanner for truth in truths.values()} == set(SCANNERS)

    @pytest.mark.parametrize("faults", [0, 1, 5, 12])
    def test_faults_take_turns_among_common_train_cases(self, faults: int):
        truths = plan_cases(PhantomSettings(faults=faults, seed=3))
        planted = {name: truth for name, truth in truths.items() if truth.fault}
        kinds = Counter(truth.fault for truth in planted.values())
        assert len(planted) == faults
        assert all("train" in name and truth.subtype == RING_ENHANCING for name, truth in planted.items())
        assert len(kinds) == min(faults, len(USUAL_FAULTS))
        assert max(kinds.values(), default=0) <= -(-faults // len(USUAL_FAULTS))

    @pytest.mark.parametrize(
        ("train_cases", "rare", "expected"),
        [(4, 0.1, 0), (5, 0.01, 1), (20, 0.12, 2), (10, 0.0, 0), (6, 1.0, 6)],
    )
    def test_share_of_the_rare_subtype(self, train_cases: int, rare: float, expected: int):
        truths = plan_cases(PhantomSettings(train_cases=train_cases, test_cases=0, faults=0, rare=rare))
        assert sum(truth.subtype == NO_ENHANCING for truth in truths.values()) == expected

    def test_more_faults_than_common_cases_are_refused(self):
        with pytest.raises(ValueError, match="6 faults do not fit into 5 train cases"):
            plan_cases(PhantomSettings(train_cases=6, faults=6))

    def test_a_hundred_cases_get_three_digits(self):
        truths = plan_cases(PhantomSettings(train_cases=95, test_cases=5))
        assert "phantom_train_001" in truths
        assert "phantom_test_005" in truths


class TestCases:
    def test_every_case_is_valid(self, phantom: Path):
        for case_id in read_truth(phantom):
            image, label = read(phantom, case_id)
            brain = image.all(axis=-1)
            assert image.shape == (40, 48, 8, 4)
            assert image.dtype == np.int16
            assert label.shape == (40, 48, 8)
            assert label.dtype == np.uint8
            assert label.any()
            assert label.max() <= 3
            assert image.min() == 0
            assert np.array_equal(brain, image.any(axis=-1)), "a brain voxel is zero in some channel only"
            assert 0.3 < brain.mean() < 0.7
            assert not label[~brain].any()

    def test_geometry_is_that_of_the_settings(self, phantom: Path):
        for name in ("imagesTr", "labelsTr"):
            file = nib.load(phantom / name / "phantom_train_01.nii.gz")
            assert file.header.get_zooms()[:3] == SMALL.spacing
            assert file.header.get_xyzt_units()[0] == "mm"
            assert nib.aff2axcodes(file.affine) == ("R", "A", "S")
            assert np.allclose(file.affine @ [19.5, 23.5, 3.5, 1], [0, 0, 0, 1])

    @pytest.mark.parametrize("shape", [(64, 80, 16), (40, 48, 8), (32, 40, 8)])
    @pytest.mark.parametrize("seed", [0, 1])
    def test_a_subtype_has_all_of_its_labels(self, tmp_path: Path, shape: tuple[int, int, int], seed: int):
        settings = PhantomSettings(train_cases=5, test_cases=0, faults=0, shape=shape, seed=seed)
        write_phantom(tmp_path / "phantom", settings)
        for case_id, truth in read_truth(tmp_path / "phantom").items():
            _, label = read(tmp_path / "phantom", case_id)
            expected = [0, 1, 2] if truth["subtype"] == NO_ENHANCING else [0, 1, 2, 3]
            assert np.unique(label).tolist() == expected

    def test_contrasts_are_those_of_a_glioma(self, faultless: Path):
        for case_id, truth in read_truth(faultless).items():
            image, label = read(faultless, case_id)
            tissues = [image[(label == value) & image.any(axis=-1)] for value in range(4)]
            healthy, oedema, core, enhancing = (
                np.median(voxels, axis=0) if len(voxels) else None for voxels in tissues
            )
            assert oedema[0] > 1.2 * healthy[0], "oedema is bright in FLAIR"
            assert oedema[3] > healthy[3], "oedema is bright in T2w"
            assert core[1] < 0.9 * healthy[1], "the core is dark in T1w"
            if truth["subtype"] == RING_ENHANCING:
                assert enhancing[2] > 1.3 * healthy[2], "the rim enhances in T1gd"

    def test_scanners_differ(self, faultless: Path):
        ratios = {name: [] for name in SCANNERS}
        for case_id, truth in read_truth(faultless).items():
            image, _ = read(faultless, case_id)
            flair, t1w = np.median(image[image.any(axis=-1)], axis=0)[:2]
            ratios[truth["scanner"]].append(t1w / flair)
        assert max(ratios["A"]) < min(ratios["B"])


class TestFaults:
    def test_cases_without_a_fault_are_untouched(self, phantom: Path, faultless: Path):
        with_faults, without = contents(phantom), contents(faultless)
        for case_id, truth in read_truth(phantom).items():
            names = [f"{part}/{case_id}.nii.gz" for part in ("imagesTr", "labelsTr")]
            changed = [name for name in names if with_faults[name] != without[name]]
            assert len(changed) == (truth["fault"] is not None), f"{case_id}: {truth['fault']}"

    def test_test_cases_have_no_fault(self, phantom: Path):
        faults = {name: truth["fault"] for name, truth in read_truth(phantom).items()}
        assert all(fault is None for name, fault in faults.items() if "test" in name)
        assert {fault for fault in faults.values() if fault} == set(USUAL_FAULTS)

    @faulty("label_shifted")
    def test_shifted_label_keeps_its_form_off_the_tumour(self, pair: tuple[NDArray, ...]):
        _, label, _, original = pair
        assert np.array_equal(np.bincount(label.ravel()), np.bincount(original.ravel()))
        assert dice(label > 0, original > 0) < 0.6
        step = np.argwhere(label)[0] - np.argwhere(original)[0]
        assert step[2] == 0
        assert np.array_equal(np.roll(original, step, axis=(0, 1, 2)), label)

    @faulty("labels_permuted")
    def test_permuted_labels_change_places(self, pair: tuple[NDArray, ...]):
        _, label, _, original = pair
        for before, after in ((0, 0), (1, 2), (2, 3), (3, 1)):
            assert np.array_equal(label == after, original == before)

    @faulty("channels_swapped")
    def test_swapped_channels_change_places(self, pair: tuple[NDArray, ...]):
        image, _, original, _ = pair
        assert np.array_equal(image[..., [1, 0, 3, 2]], original)

    @faulty("label_partly_missing")
    def test_more_than_half_of_the_label_is_missing(self, pair: tuple[NDArray, ...]):
        _, label, _, original = pair
        assert np.array_equal(label[label > 0], original[label > 0])
        assert 0.3 < np.count_nonzero(label) / np.count_nonzero(original) < 0.5

    @faulty("heavy_noise")
    def test_heavy_noise_hides_the_tumour(self, pair: tuple[NDArray, ...]):
        image, label, original, _ = pair
        brain, tumour = original.any(axis=-1), label > 0

        def visibility(flair: NDArray) -> float:
            healthy = flair[brain & ~tumour]
            return (flair[tumour].mean() - healthy.mean()) / healthy.std()

        assert np.array_equal(image.any(axis=-1), brain)
        assert visibility(original[..., 0]) > 1
        assert abs(visibility(image[..., 0])) < 0.3


@pytest.fixture(scope="module", params=["MRI", "CT"])
def organ(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = ORGAN.model_copy(update={"channel": request.param})
    return write(tmp_path_factory.mktemp("organ") / request.param, settings)


@pytest.fixture(scope="module", params=["MRI", "CT"])
def organ_pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A phantom with faults and the same without."""
    folder = tmp_path_factory.mktemp("organ_pair")
    settings = ORGAN.model_copy(update={"channel": request.param})
    return write(folder / "with", settings), write(folder / "without", settings.model_copy(update={"faults": 0}))


def with_fault(pair: tuple[Path, Path], fault: str) -> tuple[NDArray, ...]:
    """Image and label with a fault, then image and label of the same case without it."""
    (case_id,) = [name for name, truth in read_truth(pair[0]).items() if truth["fault"] == fault]
    return *read(pair[0], case_id), *read(pair[1], case_id)


class TestOrgan:
    def test_it_is_a_dataset_of_one_channel_and_two_labels(self, organ: Path):
        report = inspect_folder(organ)
        assert report.anatomy == Anatomy.of([organ.name], {1: "Anterior", 2: "Posterior"})
        assert (report.problems, set(report.facts)) == ((), set(read_truth(organ)))
        assert not any(facts.warnings for facts in report.facts.values())
        assert json.loads((organ / "dataset.json").read_text())["tensorImageSize"] == "3D"

    def test_same_settings_give_the_same_bytes(self, organ: Path, tmp_path: Path):
        again = write(tmp_path / "again", ORGAN.model_copy(update={"channel": organ.name}))
        assert contents(again) == contents(organ)

    def test_it_is_what_it_always_was(self, organ: Path):
        assert content_digest(organ) == ORGAN_BYTES[organ.name]

    def test_subtypes_scanners_and_faults_are_its_own(self, organ: Path):
        truths = read_truth(organ).values()
        assert Counter(truth["subtype"] for truth in truths) == {WHOLE: 8, SHORT_POSTERIOR: 2}
        assert {truth["scanner"] for truth in truths} == {"A", "B"}
        assert {truth["fault"] for truth in truths} == {None, *USUAL_FAULTS} - {"channels_swapped"}
        assert "channels_swapped" not in ORGAN_FAULTS

    @pytest.mark.parametrize("shape", [(32, 40, 16), (16, 20, 8), (40, 64, 24)])
    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_every_case_has_both_parts_and_is_one_piece(self, tmp_path: Path, shape: tuple, seed: int):
        settings = PhantomSettings(kind="organ", train_cases=8, test_cases=0, faults=0, shape=shape, seed=seed)
        for case_id in read_truth(write(tmp_path / "phantom", settings)):
            image, label = read(tmp_path / "phantom", case_id)
            assert (image.shape, image.dtype, label.dtype) == (shape, np.int16, np.uint8)
            assert np.unique(label).tolist() == [0, 1, 2]
            pieces, _ = ndimage.label(label > 0)
            assert np.bincount(pieces.ravel())[1:].max() > 0.95 * np.count_nonzero(label)
            assert 0.01 < (label > 0).mean() < 0.2

    def test_the_posterior_part_of_the_rare_subtype_is_short(self, organ_pair: tuple[Path, Path]):
        shares = {WHOLE: [], SHORT_POSTERIOR: []}
        for case_id, truth in read_truth(organ_pair[1]).items():
            _, label = read(organ_pair[1], case_id)
            shares[truth["subtype"]].append(np.count_nonzero(label == 2) / np.count_nonzero(label))
        assert max(shares[SHORT_POSTERIOR]) < min(shares[WHOLE])

    def test_a_ct_has_air_outside_and_a_mri_no_zero(self, organ_pair: tuple[Path, Path]):
        for case_id in read_truth(organ_pair[1]):
            image, label = read(organ_pair[1], case_id)
            anterior, posterior = (np.median(image[label == value]) for value in (1, 2))
            if image.min() < 0:
                body = image > -500
                assert 0.005 < 1 - body.mean() < 0.3
                assert body[label > 0].all()
                assert 0 < np.median(image[body & (label == 0)]) < posterior < anterior < 150
            else:
                assert image.min() > 0
                assert np.median(image[label == 0]) < posterior < anterior

    def test_cases_without_a_fault_are_untouched(self, organ_pair: tuple[Path, Path]):
        faulty, without = contents(organ_pair[0]), contents(organ_pair[1])
        for case_id, truth in read_truth(organ_pair[0]).items():
            names = [f"{part}/{case_id}.nii.gz" for part in ("imagesTr", "labelsTr")]
            assert sum(faulty[name] != without[name] for name in names) == (truth["fault"] is not None)

    def test_shifted_label_keeps_its_form_off_the_organ(self, organ_pair: tuple[Path, Path]):
        _, label, _, original = with_fault(organ_pair, "label_shifted")
        assert np.array_equal(np.bincount(label.ravel()), np.bincount(original.ravel()))
        assert dice(label > 0, original > 0) < 0.6

    def test_permuted_labels_change_places(self, organ_pair: tuple[Path, Path]):
        _, label, _, original = with_fault(organ_pair, "labels_permuted")
        assert np.array_equal(label, np.array([0, 2, 1])[original])

    def test_more_than_half_of_the_label_is_missing(self, organ_pair: tuple[Path, Path]):
        _, label, _, original = with_fault(organ_pair, "label_partly_missing")
        assert np.array_equal(label[label > 0], original[label > 0])
        assert 0.3 < np.count_nonzero(label) / np.count_nonzero(original) < 0.5

    def test_heavy_noise_hides_the_organ(self, organ_pair: tuple[Path, Path]):
        image, label, original, _ = with_fault(organ_pair, "heavy_noise")
        tissue = (original > -150) & (label == 0)

        def visibility(voxels: NDArray) -> float:
            return (voxels[label > 0].mean() - voxels[tissue].mean()) / voxels[tissue].std()

        assert visibility(original) > 1
        assert visibility(image) < 0.6

    def test_the_profile_writes_one(self, tmp_path: Path):
        settings = load_profile("organ_phantom").phantom
        truths = read_truth(write(tmp_path / "phantom", settings))
        assert len(truths) == settings.train_cases + settings.test_cases
        assert inspect_folder(tmp_path / "phantom").anatomy.singles == ("Anterior", "Posterior")


KINDS = {"brain": SMALL, "organ": ORGAN, "CT": ORGAN.model_copy(update={"channel": "CT"})}


def planted(kind: str, fault: str, severity: float = 1.0) -> list[tuple[NDArray, ...]]:
    """Image and label with a fault, then image and label without it, of four cases."""
    settings = KINDS[kind].model_copy(update={"faults": 4, "fault_kinds": (fault,), "severity": severity})
    sound = settings.model_copy(update={"faults": 0})
    cases, without = plan_cases(settings), plan_cases(sound)
    return [
        (*_make_case(name, truth, settings), *_make_case(name, without[name], sound))
        for name, truth in cases.items()
        if truth.fault
    ]


@pytest.mark.parametrize("kind", list(KINDS))
class TestLabelFaults:
    @pytest.mark.parametrize("severity", [0.01, 0.4, 1.0])
    @pytest.mark.parametrize("fault", [*BRAIN_FAULTS])
    def test_every_fault_leaves_valid_files_that_differ(self, kind: str, fault: str, severity: float):
        if fault not in (BRAIN_FAULTS if kind == "brain" else ORGAN_FAULTS):
            pytest.skip("an organ has no such fault")
        for image, label, sound_image, sound_label in planted(kind, fault, severity):
            assert (image.dtype, label.dtype) == (np.int16, np.uint8)
            assert label.any()
            assert set(np.unique(label)) <= set(np.unique(sound_label)) | {0}
            of_image = fault in ("heavy_noise", "channels_swapped")
            assert np.array_equal(image, sound_image) is not of_image
            assert np.array_equal(label, sound_label) is of_image
            if kind == "brain":
                assert not label[~image.any(axis=0)].any()

    @pytest.mark.parametrize("fault", [name for name in BRAIN_FAULTS if name not in (*UNGRADED, "heavy_noise")])
    def test_the_severity_scales_what_is_wrong(self, kind: str, fault: str):
        def wrong(severity: float) -> float:
            return float(
                np.mean([np.mean(label != sound) for _, label, _, sound in planted(kind, fault, severity)])
            )

        assert 0 < wrong(0.1) < wrong(0.5) < wrong(1.0)

    @pytest.mark.parametrize("fault", UNGRADED)
    def test_some_faults_have_no_degrees(self, kind: str, fault: str):
        if fault not in (BRAIN_FAULTS if kind == "brain" else ORGAN_FAULTS):
            pytest.skip("an organ has no such fault")
        for weak, full in zip(planted(kind, fault, 0.1), planted(kind, fault), strict=True):
            assert all(np.array_equal(one, other) for one, other in zip(weak, full, strict=True))

    def test_a_forgotten_structure_is_background(self, kind: str):
        for _, label, _, sound in planted(kind, "structure_forgotten"):
            (forgotten,) = set(np.unique(sound)) - set(np.unique(label))
            assert np.array_equal(label, np.where(sound == forgotten, 0, sound))

    def test_a_merged_structure_is_drawn_as_another(self, kind: str):
        for _, label, _, sound in planted(kind, "structures_merged"):
            (merged,) = set(np.unique(sound)) - set(np.unique(label))
            (other,) = np.unique(label[sound == merged])
            assert other not in (0, merged)
            assert np.array_equal(label, np.where(sound == merged, other, sound))

    def test_a_row_of_slices_loses_its_label(self, kind: str):
        for _, label, _, sound in planted(kind, "slices_unlabelled"):
            before, after = (np.flatnonzero(part.any(axis=(0, 1))) for part in (sound, label))
            lost = np.setdiff1d(before, after)
            assert len(lost) == max(1, round(0.6 * len(before)))
            assert np.array_equal(lost, np.arange(lost[0], lost[-1] + 1))
            assert np.array_equal(label[..., after], sound[..., after])

    def test_a_label_is_resized_within_its_slices(self, kind: str):
        disc = np.hypot(*np.mgrid[-3:4, -3:4])[..., None] <= 3
        for image, label, _, sound in planted(kind, "label_dilated"):
            expected = ndimage.binary_dilation(sound > 0, disc)
            inside = image.any(axis=0) if kind == "brain" else np.ones(label.shape, bool)
            assert np.array_equal(label > 0, expected & inside)
            assert np.array_equal(label[sound > 0], sound[sound > 0])
        for _, label, _, sound in planted(kind, "label_eroded", severity=0.3):
            cross = np.hypot(*np.mgrid[-1:2, -1:2])[..., None] <= 1
            eroded = ndimage.binary_erosion(sound > 0, cross, border_value=1)
            assert np.array_equal(label, np.where(eroded, sound, 0))

    def test_left_and_right_are_swapped(self, kind: str):
        for image, label, _, sound in planted(kind, "label_mirrored"):
            inside = image.any(axis=0) if kind == "brain" else np.ones(label.shape, bool)
            assert np.array_equal(label, np.where(inside, sound[::-1], 0))

    def test_the_label_of_another_fits_no_case_of_the_dataset(self, kind: str):
        labels = [label for _, label, _, _ in planted(kind, "label_of_another")]
        sound = [original for *_, original in planted(kind, "label_of_another")]
        assert len({label.tobytes() for label in (*labels, *sound)}) == 2 * len(labels)


class TestSettings:
    def test_kinds_that_are_named_take_turns_and_truth_knows_the_severity(self, tmp_path: Path):
        settings = SMALL.model_copy(update={"fault_kinds": ("label_eroded", "label_mirrored"), "severity": 0.5})
        truths = read_truth(write(tmp_path / "phantom", settings)).values()
        assert Counter(truth["fault"] for truth in truths if truth["fault"]) in (
            {"label_eroded": 3, "label_mirrored": 2},
            {"label_eroded": 2, "label_mirrored": 3},
        )
        assert {(truth["fault"] is None, truth["severity"]) for truth in truths} == {(True, None), (False, 0.5)}

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"fault_kinds": ["label_lost"]}, "fault_kinds"),
            ({"fault_kinds": ["label_eroded", "label_eroded"]}, "fault_kinds must differ"),
            ({"kind": "organ", "fault_kinds": ["channels_swapped"]}, "an organ has one channel"),
            ({"severity": 0.0}, "severity"),
            ({"severity": 1.5}, "severity"),
            ({"sites": 5}, "sites"),
            ({"sites": 2, "site_strength": 1.5}, "site_strength"),
            ({"site_strength": 0.5}, "one site has no other to differ from"),
            ({"patients": 1, "unknown_patients": 2}, "must not exceed patients"),
        ],
    )
    def test_what_cannot_be_planted_is_refused(self, changes: dict, message: str):
        with pytest.raises(ValueError, match=message):
            PhantomSettings(**changes)

    def test_every_kind_of_fault_can_be_named(self):
        assert set(get_args(FaultKind)) == set(BRAIN_FAULTS) == {*ORGAN_FAULTS, "channels_swapped"}
