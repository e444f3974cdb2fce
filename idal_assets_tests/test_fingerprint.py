"""Images that are nearly alike: one patient under two names is found, two patients are told apart."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, rotate, zoom

from idal_assets.imaging.fingerprint import TWINS, find_twins, fingerprint
from idal_assets.imaging.inspection import inspect_folder
from idal_assets.imaging.phantom import write_phantom
from idal_assets.profile import load_profile
from idal_assets.settings import CohortSettings
from idal_assets.study.cohort import choose_cohort
from idal_assets.study.roles import CohortError
from idal_assets_tests.raw_folders import make_cases, real_data, save, write_msd

SHAPE = (60, 72, 48)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def brain(seed: int, channels: int = 4) -> np.ndarray:
    """An ellipsoid with structures of its own, the same in all channels with other contrasts; 0 around it."""
    rng = np.random.default_rng(seed)
    places = np.stack(np.meshgrid(*[np.linspace(-1.2, 1.2, size) for size in SHAPE], indexing="ij"))
    inside = (places**2).sum(axis=0) < 1
    tissue = gaussian_filter(rng.normal(size=SHAPE), 4)
    tissue /= tissue.std()
    image = [
        300 + 60 * tissue * (1 if channel % 2 else -1) + rng.normal(0, 5, SHAPE) for channel in range(channels)
    ]
    return (np.stack(image) * inside).astype(np.float32)


def in_tissue(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda image: np.where(image != 0, change(image), 0)


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "the same": lambda image: image,
    "mirrored": lambda image: image[:, ::-1, :, ::-1],
    "shifted": lambda image: np.roll(image, (2, -1), (1, 2)),
    "padded": lambda image: np.pad(image, ((0, 0), (5, 0), (0, 3), (2, 2))),
    "cropped": lambda image: image[:, 6:-6, 7:-7, 5:-5],
    "rescaled": lambda image: np.round(image / 3),
    "raised to a power": in_tissue(lambda image: np.sqrt(np.abs(image))),
    "standardised": in_tissue(lambda image: (image - image[image != 0].mean()) / image[image != 0].std()),
    "multiplied by a ramp": lambda image: image * np.linspace(0.9, 1.1, image.shape[2])[:, None],
    "noisy": in_tissue(lambda image: image + np.random.default_rng(0).normal(0, 6, image.shape)),
    "stretched": lambda image: zoom(image, (1, 1.1, 0.95, 1), order=1),
    "turned by 3 degrees": lambda image: rotate(image, 3, axes=(1, 2), reshape=False, order=1),
    "one channel of another": lambda image: np.concatenate([brain(99, 1), image[1:]]),
    "one channel constant": lambda image: np.concatenate([np.zeros_like(image[:1]), image[1:]]),
}


@pytest.mark.unit
@pytest.mark.parametrize("change", CHANGES)
def test_the_same_image_is_found_under_another_name(change: str) -> None:
    images = {"A": brain(1), "B": brain(2), "C": CHANGES[change](brain(1))}
    (twins,) = find_twins({name: fingerprint(image, LPS) for name, image in images.items()})
    assert twins.cases == ("A", "C")
    assert twins.channels == ((1, 2, 3) if change.startswith("one channel") else (0, 1, 2, 3))
    assert TWINS <= twins.correlation <= 1.0001
    assert twins.mirrored == ((0, 2) if change == "mirrored" else ())


@pytest.mark.unit
def test_other_axes_of_the_same_image_are_no_mirror() -> None:
    image = nib.Nifti1Image(np.moveaxis(brain(1), 0, 3), LPS)
    turned = image.as_reoriented(nib.orientations.axcodes2ornt("SLP"))
    other = np.moveaxis(np.asarray(turned.dataobj), 3, 0)
    prints = {"A": fingerprint(brain(1), LPS), "B": fingerprint(other, turned.affine)}
    (twins,) = find_twins(prints)
    assert twins.mirrored == ()
    assert twins.correlation == pytest.approx(1)
    assert twins.alike(("FLAIR", "T1", "T1c", "T2")) == "FLAIR, T1, T1c, T2 (correlation 1.00)"


@pytest.mark.unit
def test_different_images_are_no_twins() -> None:
    assert find_twins({str(seed): fingerprint(brain(seed), LPS) for seed in range(20)}) == []
    assert find_twins({"A": fingerprint(brain(1), LPS)}) == find_twins({}) == []
    nothing = np.zeros((2, 5, 4, 3), np.float32)
    assert find_twins(dict.fromkeys("AB", fingerprint(nothing, LPS))) == []


@pytest.mark.unit
def test_half_of_the_channels_make_twins_and_fewer_do_not() -> None:
    def with_others(number: int) -> tuple[str, ...]:
        return fingerprint(np.concatenate([brain(99)[:number], brain(1)[number:]]), LPS)

    assert find_twins({"A": with_others(0), "B": with_others(2)})[0].channels == (2, 3)
    assert find_twins({"A": with_others(0), "B": with_others(3)}) == []


@pytest.mark.unit
@pytest.mark.parametrize("profile", ["tiny", "demo", "organ_phantom"])
def test_no_two_phantoms_are_taken_for_one(tmp_path: Path, profile: str) -> None:
    settings = load_profile(profile).phantom
    assert settings is not None
    write_phantom(tmp_path / "raw", settings)
    assert inspect_folder(tmp_path / "raw").twins == ()


@pytest.mark.real
@pytest.mark.parametrize("name", ["hippocampus", "brats_mini", "brats_full"])
def test_no_two_real_cases_are_taken_for_one(name: str) -> None:
    assert inspect_folder(real_data(name)).twins == ()


# --- what follows ---


@pytest.fixture
def with_twin(tmp_path: Path) -> Path:
    """Cases A to G, and H, which is A mirrored with other intensities."""
    cases = make_cases(*"ABCDEFGH")
    raw = write_msd(tmp_path, cases)
    data = np.moveaxis(cases[0].image, 0, 3)[:, ::-1] * 2 + 1
    save(raw / "imagesTr" / "H.nii.gz", data.astype(np.int16))
    return raw


def choose(raw: Path, **settings: object) -> list[str]:
    report = inspect_folder(raw)
    return choose_cohort(report, CohortSettings.model_validate(settings), report.anatomy, (1,)).donors


@pytest.mark.unit
def test_twins_are_a_warning_that_names_both(with_twin: Path) -> None:
    report = inspect_folder(with_twin)
    assert len(report.facts) == 8
    found = {warning.case_id: warning for warning in report.warnings}
    assert set(found) == {"A", "H"}
    alike = "FLAIR, T1w, T1gd, T2w (correlation 1.00, mirrored "
    assert found["A"].what.startswith(f"image is nearly that of H: {alike}")
    assert found["H"].what.startswith(f"image is nearly that of A: {alike}")
    assert {warning.kind for warning in found.values()} == {"nearly the same image"}
    assert [line[0] for line in report.lines() if "nearly that of" in line] == ["A", "H"]


@pytest.mark.unit
@pytest.mark.parametrize("role", ["test", "validation", "pretraining"])
def test_twins_in_two_roles_are_refused_with_what_to_do(with_twin: Path, role: str) -> None:
    settings = {f"{role}_cases": ["H"], "donor_cases": ["[A-E]"]}
    message = rf"nearly the same image(.|\n)* A \(donor\) and H \({role}\): FLAIR, (.|\n)*the same patient"
    with pytest.raises(CohortError, match=message):
        choose(with_twin, **settings)
    # one patient may have both, and a twin that takes no part does no harm
    assert choose(with_twin, donor_cases=["[A-E]", "H"]) == [*"ABCDEH"]
    assert choose(with_twin, donor_cases=["[A-E]"], test_cases=["F", "G"]) == [*"ABCDE"]


@pytest.mark.unit
def test_twins_of_one_patient_get_one_role(with_twin: Path) -> None:
    (with_twin / "cases.csv").write_text("case_id,patient\nA,P\nH,P\n")
    for seed in range(10):
        assert len({"A", "H"} & set(choose(with_twin, seed=seed))) in (0, 2)
    with pytest.raises(CohortError, match=r"patient P are listed in different roles \(A as donor, H as test\)"):
        choose(with_twin, test_cases=["H"], donor_cases=["[A-E]"])
