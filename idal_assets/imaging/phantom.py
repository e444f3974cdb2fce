"""A procedural brain-tumour dataset whose truth is known: every subtype, scanner and planted fault.

It serves the tests and a first run on any computer, without data that anybody has to download or agree to.
Here are the plan of the dataset, the anatomy, the four contrasts and the writing; the faults are in
`phantom_faults`.

Lengths are in half sizes of the image: along each axis the volume runs from -1 to 1, so the brain fills the
image at every shape.
"""

import gzip
import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, pairwise
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from idal_assets.imaging import phantom_faults
from idal_assets.imaging.brain_tumour import CHANNELS, ENHANCING, LABELS, NON_ENHANCING, OEDEMA
from idal_assets.imaging.truth import CASE_TABLE, TRUTH_FILE, CaseTruth
from idal_assets.settings import PhantomSettings

ENTRIES = {"dataset.json", "imagesTr", "labelsTr", CASE_TABLE, TRUTH_FILE}
"""What a phantom folder holds, and nothing else."""

RING_ENHANCING, NO_ENHANCING = "ring_enhancing", "no_enhancing"

RARE_FROM = 5
"""From this many cases on, a split has a case of the rare subtype, however small its share."""


@dataclass(frozen=True)
class Scanner:
    """How a scanner renders the contrasts.

    Attributes:
        gain: Intensity per channel that a signal of 1 gets.
        gamma: Exponent of the signal; below 1 it flattens the contrast.
        noise: Standard deviation of the noise in each part of the complex signal.
        bias: Standard deviation of the logarithm of the bias field.
        blur: Standard deviation of the blur in voxels within the axial plane.
    """

    gain: tuple[float, float, float, float]
    gamma: float
    noise: float
    bias: float
    blur: float


SCANNERS = {
    "A": Scanner(gain=(700, 800, 900, 600), gamma=1.0, noise=0.07, bias=0.08, blur=0.5),
    "B": Scanner(gain=(420, 1500, 1300, 1100), gamma=0.8, noise=0.10, bias=0.15, blur=0.75),
}

OUTSIDE, CSF, GREY, WHITE, LESION, VESSEL, TUMOUR_OEDEMA, NECROSIS, SOLID, RIM = range(10)
"""Tissues; `LESION` is a harmless bright spot of ageing white matter, `SOLID` a core that is not necrotic."""

SIGNAL = np.array(
    # FLAIR, T1w, T1gd, T2w; the outside blurs into the brain's edge like the fluid that surrounds it
    [
        (0.30, 0.38, 0.40, 1.80),
        (0.30, 0.38, 0.40, 1.80),
        (0.88, 0.74, 0.79, 1.02),
        (0.70, 1.00, 1.05, 0.72),
        (1.15, 0.85, 0.90, 1.20),
        (0.60, 0.65, 1.60, 0.60),
        (1.30, 0.76, 0.80, 1.40),
        (1.05, 0.50, 0.50, 1.75),
        (1.45, 0.62, 0.64, 1.60),
        (1.20, 0.74, 1.75, 1.25),
    ]
)
"""Relative signal, shape (tissues, channels)."""

SIGNAL_SPREAD = 0.06
"""Standard deviation of the logarithm of a tissue's signal from case to case."""

BRAIN_AXES = (0.88, 0.90, 1.20)
"""Half axes of the brain; its top and bottom lie outside the image, so that every slice holds brain."""


def write_phantom(
    folder: Path,
    settings: PhantomSettings,
    track: Callable[[Sequence[str], str], Iterable[str]] = lambda case_ids, description: case_ids,
) -> None:
    """Write the dataset in the layout of the Medical Segmentation Decathlon, with its truth beside it.

    The folder holds `dataset.json`, `imagesTr`, `labelsTr`, `cases.csv` (scanners) and `truth.json`, and appears
    complete or not at all. The same settings give the same bytes.

    Args:
        folder: Where to write; may be missing, empty or an older phantom, which is replaced.
        settings: Size, shape and seed.
        track: Wraps the case ids and a description to show progress.

    Raises:
        FileExistsError: The folder holds something else than a phantom.
        ValueError: More faults than train cases of the common subtype.
    """
    _refuse_foreign(folder)
    truths = plan_cases(settings)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        new = Path(scratch) / "new"
        for name in ("imagesTr", "labelsTr"):
            (new / name).mkdir(parents=True)
        for case_id in track(list(truths), "Phantom cases"):
            image, label = _make_case(case_id, truths[case_id], settings)
            _write_nifti(new / "imagesTr" / f"{case_id}.nii.gz", np.moveaxis(image, 0, -1), settings.spacing)
            _write_nifti(new / "labelsTr" / f"{case_id}.nii.gz", label, settings.spacing)
        _write_json(new / "dataset.json", _dataset_description(list(truths)))
        _write_case_table(new / CASE_TABLE, truths)
        cases = {case_id: asdict(truth) for case_id, truth in truths.items()}
        _write_json(new / TRUTH_FILE, {"cases": cases, "settings": settings.model_dump(mode="json")})
        if folder.exists():
            folder.rename(Path(scratch) / "old")
        new.rename(folder)


def plan_cases(settings: PhantomSettings) -> dict[str, CaseTruth]:
    """Decide subtype, scanner and fault of every case.

    Subtype and scanner of a case stay the same when cases are added; faults move, as they are spread over all.

    Returns:
        The truth by case id, train cases first.

    Raises:
        ValueError: More faults than train cases of the common subtype.
    """
    digits = 3 if settings.train_cases + settings.test_cases >= 100 else 2
    subtypes = {
        f"phantom_{split}_{number:0{digits}}": subtype
        for split, count in (("train", settings.train_cases), ("test", settings.test_cases))
        for number, subtype in enumerate(_spread_subtypes(count, settings.rare), start=1)
    }
    common = [
        case_id
        for case_id, subtype in subtypes.items()
        if case_id.startswith("phantom_train_") and subtype == RING_ENHANCING
    ]
    faults = _assign_faults(common, settings)
    return {
        case_id: CaseTruth(subtype, _pick_scanner(case_id, settings.seed), faults.get(case_id))
        for case_id, subtype in subtypes.items()
    }


def _spread_subtypes(count: int, rare: float) -> list[str]:
    """Spread the rare subtype evenly; the first cases get the same subtypes whatever the count."""
    rare_among_first = [
        max(math.floor(number * rare + 0.5), int(rare > 0 and number >= RARE_FROM)) for number in range(count + 1)
    ]
    return [NO_ENHANCING if after > before else RING_ENHANCING for before, after in pairwise(rare_among_first)]


def _pick_scanner(case_id: str, seed: int) -> str:
    return str(_stream(seed, case_id, "scanner").choice(list(SCANNERS)))


def _assign_faults(case_ids: list[str], settings: PhantomSettings) -> dict[str, str]:
    if settings.faults > len(case_ids):
        raise ValueError(
            f"phantom: {settings.faults} faults do not fit into {len(case_ids)} train cases of the common "
            "subtype; lower faults or rare, or raise train_cases"
        )
    shuffled = sorted(case_ids, key=lambda case_id: _stream(settings.seed, case_id, "fault order").random())
    kinds = _stream(settings.seed, "fault kinds").permutation(phantom_faults.FAULTS).tolist()
    return dict(zip(shuffled[: settings.faults], cycle(kinds), strict=False))


def _stream(seed: int, *names: str) -> np.random.Generator:
    """Return a random stream of its own for these names, so that no draw elsewhere changes it."""
    digest = hashlib.sha256("/".join((str(seed), *names)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


def _make_case(
    case_id: str, truth: CaseTruth, settings: PhantomSettings
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Return image, shape (4, X, Y, Z), and label, shape (X, Y, Z)."""
    points = _warped_points(settings.shape, _stream(settings.seed, case_id, "warp"))
    tissue = _healthy_tissue(points, _stream(settings.seed, case_id, "brain"))
    label = _grow_tumour(points, tissue, truth.subtype, _stream(settings.seed, case_id, "tumour"))
    core = SOLID if truth.subtype == NO_ENHANCING else NECROSIS
    for value, tumour_tissue in ((OEDEMA, TUMOUR_OEDEMA), (NON_ENHANCING, core), (ENHANCING, RIM)):
        tissue[label == value] = tumour_tissue
    image = _scan(tissue, SCANNERS[truth.scanner], _stream(settings.seed, case_id, "scan"))
    if truth.fault is None:
        return image, label
    return phantom_faults.plant(truth.fault, image, label, _stream(settings.seed, case_id, "fault"))


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], scale: float) -> NDArray[np.float64]:
    """Return noise of mean 0 and standard deviation 1 whose features are about `scale` wide."""
    sigma = [scale * size / 2 for size in shape]
    noise = ndimage.gaussian_filter(rng.normal(size=shape), sigma)
    return (noise - noise.mean()) / noise.std()


def _warped_points(shape: tuple[int, int, int], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return voxel centres, moved a little and smoothly so that every brain differs, shape (3, X, Y, Z)."""
    axes = [(np.arange(size) + 0.5) * 2 / size - 1 for size in shape]
    displacement = [0.035 * _smooth_noise(rng, shape, 0.3) for _ in shape]
    size = rng.uniform(0.94, 1.06, size=(3, 1, 1, 1))
    return np.stack(np.meshgrid(*axes, indexing="ij")) * size + displacement


def _radius(points: NDArray[np.float64], centre: ArrayLike, half_axes: ArrayLike) -> NDArray[np.float64]:
    """Return the distance from the centre, 1 on the ellipsoid with these half axes, shape (X, Y, Z)."""
    offsets = (points - np.reshape(centre, (3, 1, 1, 1))) / np.reshape(half_axes, (3, 1, 1, 1))
    return np.linalg.norm(offsets, axis=0)


def _healthy_tissue(points: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the tissue of each voxel of a brain without tumour, shape (X, Y, Z)."""
    shape = points.shape[1:]
    radius = _radius(points, (0, 0, 0), BRAIN_AXES)
    # fold the brain along the midline: what is defined once appears in both hemispheres
    folded = np.stack([np.abs(points[0]), points[1], points[2]])
    bent = np.stack([folded[0] - 0.4 * (folded[1] - 0.05) ** 2, folded[1], folded[2]])
    ventricle = _radius(bent, (0.11, 0.02, 0.05), np.array([0.085, 0.40, 0.55]) * rng.uniform(0.75, 1.3))
    nucleus = _radius(folded, (0.30, 0.08, -0.05), (0.11, 0.24, 0.35))
    folds = _smooth_noise(rng, shape, 0.07)
    spots = _smooth_noise(rng, shape, 0.06)

    tissue = np.full(shape, WHITE, dtype=np.uint8)
    tissue[spots > 2.4] = LESION
    tissue[(radius > 0.77 + 0.06 * folds) | (nucleus < 1)] = GREY
    tissue[(np.abs(folds) < 0.25) & (radius > 0.78)] = CSF
    tissue[(folded[0] < 0.025) & (np.abs(points[1]) > 0.45)] = CSF
    tissue[(ventricle < 1) | (radius > 0.95)] = CSF
    tissue[(tissue == CSF) & (radius > 0.75) & (spots > 1.5)] = VESSEL
    tissue[radius > 1] = OUTSIDE
    return tissue


def _grow_tumour(
    points: NDArray[np.float64], tissue: NDArray[np.uint8], subtype: str, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Return the label of a tumour in one hemisphere, within grey and white matter, shape (X, Y, Z).

    From the inside out it is non-enhancing, enhancing and oedema. The boundaries are quantiles of the depth, so no
    label is empty however coarse the voxels are.
    """
    side = rng.choice([-1, 1])
    eccentricity, angle = rng.uniform(0.38, 0.58), rng.uniform(-1.0, 1.0)
    centre = (
        side * BRAIN_AXES[0] * eccentricity * np.cos(angle),
        BRAIN_AXES[1] * eccentricity * np.sin(angle),
        rng.uniform(-0.35, 0.35),
    )
    half_axes = rng.uniform(0.28, 0.44) * rng.uniform((0.8, 0.9, 1.1), (1.1, 1.3, 1.6))
    depth = _radius(points, centre, half_axes) + 0.16 * _smooth_noise(rng, tissue.shape, 0.12)
    tumour = (depth < 1) & np.isin(tissue, (GREY, WHITE, LESION)) & (side * points[0] > 0)

    ring = subtype == RING_ENHANCING
    core_share = rng.uniform(0.35, 0.55) if ring else rng.uniform(0.50, 0.70)
    non_enhancing_share = core_share * (rng.uniform(0.30, 0.55) if ring else 1)
    core_depth = depth + 0.08 * _smooth_noise(rng, tissue.shape, 0.08)
    core, non_enhancing = np.quantile(core_depth[tumour], (core_share, non_enhancing_share))

    label = np.zeros(tissue.shape, dtype=np.uint8)
    label[tumour] = OEDEMA
    label[tumour & (core_depth <= core)] = ENHANCING
    label[tumour & (core_depth <= non_enhancing)] = NON_ENHANCING
    return label


def _scan(tissue: NDArray[np.uint8], scanner: Scanner, rng: np.random.Generator) -> NDArray[np.int16]:
    """Return the four contrasts of the tissues, shape (4, X, Y, Z), zero outside the brain and nowhere else."""
    signal = SIGNAL**scanner.gamma * np.exp(rng.normal(0, SIGNAL_SPREAD, SIGNAL.shape))
    blur = (scanner.blur, scanner.blur, 0.3 * scanner.blur)
    image = np.zeros((len(CHANNELS), *tissue.shape), dtype=np.int16)
    brain = tissue != OUTSIDE
    for channel, gain in enumerate(scanner.gain):
        clean = ndimage.gaussian_filter(signal[tissue, channel], blur)
        biased = clean * np.exp(scanner.bias * _smooth_noise(rng, tissue.shape, 0.6))
        real, imaginary = rng.normal(0, scanner.noise, size=(2, *tissue.shape))
        magnitude = gain * np.hypot(biased + real, imaginary)
        image[channel, brain] = magnitude[brain].clip(1, np.iinfo(np.int16).max)
    return image


def _refuse_foreign(folder: Path) -> None:
    found = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
    if found and not {TRUTH_FILE} <= found <= ENTRIES:
        raise FileExistsError(
            f"{folder} is not empty and not a phantom (it holds {', '.join(sorted(found)[:5])}); "
            "choose another folder or empty it"
        )


def _dataset_description(case_ids: list[str]) -> dict[str, object]:
    return {
        "name": "BrainTumour_phantom",
        "description": "Procedural brains with tumours; not patients",
        "licence": "CC0-1.0",
        "release": "1.0",
        "tensorImageSize": "4D",
        "modality": {str(channel): name for channel, name in enumerate(CHANNELS)},
        "labels": {"0": "background", **{str(value): name for value, name in LABELS.items()}},
        "numTraining": len(case_ids),
        "numTest": 0,
        "training": [
            {"image": f"./imagesTr/{case_id}.nii.gz", "label": f"./labelsTr/{case_id}.nii.gz"}
            for case_id in case_ids
        ],
        "test": [],
    }


def _write_case_table(path: Path, truths: Mapping[str, CaseTruth]) -> None:
    lines = ["case_id,scanner", *(f"{case_id},{truth.scanner}" for case_id, truth in truths.items())]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_nifti(path: Path, voxels: NDArray, spacing: tuple[float, float, float]) -> None:
    affine = np.diag((*spacing, 1.0))
    affine[:3, 3] = -affine[:3, :3] @ (np.array(voxels.shape[:3]) - 1) / 2
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    # nibabel would store the time of writing in the compressed file
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=6, mtime=0))


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
