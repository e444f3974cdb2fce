"""A procedural dataset whose truth is known: every subtype, scanner and planted fault.

It serves the tests and a first run on any computer, without data that anybody has to download or agree to.
Here are the plan of a dataset and its writing. What a case looks like is the business of its kind, `phantom_brain`
or `phantom_organ`; the faults are in `phantom_faults`, and what all have in common in `phantom_parts`.
"""

import gzip
import json
import math
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from itertools import cycle, pairwise
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from idal_assets.cores import usable_cores
from idal_assets.imaging.case_table import CASE_TABLE
from idal_assets.imaging.phantom_brain import BRAIN_PHANTOM
from idal_assets.imaging.phantom_organ import organ_phantom
from idal_assets.imaging.phantom_parts import Image, Label, PhantomKind, Planting
from idal_assets.imaging.truth import TRUTH_FILE, CaseTruth
from idal_assets.seeds import stream
from idal_assets.settings import USUAL_FAULTS, PhantomSettings

ENTRIES = {"dataset.json", "imagesTr", "labelsTr", "imagesTs", CASE_TABLE, TRUTH_FILE}
"""What a phantom folder holds, and nothing else."""

CASES_AT_ONCE = 2
"""How many cases are drawn side by side at most; one of full size takes 1.3 GB meanwhile."""

RARE_FROM = 5
"""From this many cases on, a split has a case of the rare subtype, however small its share."""


def write_phantom(
    folder: Path,
    settings: PhantomSettings,
    track: Callable[[Sequence[str], str], Iterable[str]] = lambda case_ids, description: case_ids,
) -> None:
    """Write the dataset in the layout of the Medical Segmentation Decathlon, with its truth beside it.

    The folder holds `dataset.json`, `imagesTr`, `labelsTr`, `cases.csv` (scanners) and `truth.json`, where there
    are patients also `imagesTs`, and appears complete or not at all. The same settings give the same bytes.
    Nothing but `truth.json` tells sites; the labels of the patients are nowhere, see `hidden_label`.

    Args:
        folder: Where to write; may be missing, empty or an older phantom, which is replaced.
        settings: Kind, size, shape and seed.
        track: Wraps the case ids and a description to show progress.

    Raises:
        FileExistsError: The folder holds something else than a phantom.
        ValueError: More faults than train cases of the common subtype.
    """
    _refuse_foreign(folder)
    truths, patients = plan_cases(settings), plan_patients(settings)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        new = Path(scratch) / "new"
        for name in ("imagesTr", "labelsTr", *(["imagesTs"] if patients else [])):
            (new / name).mkdir(parents=True)
        write = partial(_write_case, new, settings, truths, patients)
        case_ids = [*truths, *patients]
        # what takes time there, smoothing and compression, lets other threads run
        threads = ThreadPoolExecutor(min(CASES_AT_ONCE, usable_cores()))
        try:
            for _ in zip(track(case_ids, "Phantom cases"), threads.map(write, case_ids), strict=True):
                pass
        finally:
            threads.shutdown(cancel_futures=True)
        _write_json(new / "dataset.json", _dataset_description(kind_of(settings), [*truths], [*patients]))
        _write_case_table(new / CASE_TABLE, truths)
        truth = {
            "cases": {case_id: asdict(of_case) for case_id, of_case in truths.items()},
            "patients": {case_id: asdict(of_patient) for case_id, of_patient in patients.items()},
            "settings": settings.model_dump(mode="json"),
        }
        _write_json(new / TRUTH_FILE, truth)
        if folder.exists():
            folder.rename(Path(scratch) / "old")
        new.rename(folder)


def kind_of(settings: PhantomSettings) -> PhantomKind:
    """What the settings say the phantom shows."""
    return BRAIN_PHANTOM if settings.kind == "brain_tumour" else organ_phantom(settings.channel)


def plan_cases(settings: PhantomSettings) -> dict[str, CaseTruth]:
    """Decide subtype, scanner, site and fault of every case.

    Subtype, scanner and site of a case stay the same when cases are added; faults move, as they are spread over
    all.

    Returns:
        The truth by case id, train cases first.

    Raises:
        ValueError: More faults than train cases of the common subtype.
    """
    kind = kind_of(settings)
    digits = 3 if settings.train_cases + settings.test_cases >= 100 else 2
    subtypes = {
        f"phantom_{split}_{number:0{digits}}": kind.rare if rare else kind.common
        for split, count in (("train", settings.train_cases), ("test", settings.test_cases))
        for number, rare in enumerate(_spread_rare(count, settings.rare), start=1)
    }
    common = [
        case_id
        for case_id, subtype in subtypes.items()
        if case_id.startswith("phantom_train_") and subtype == kind.common
    ]
    faults = _assign_faults(common, kind, settings)
    sites = _take_turns("train", settings.train_cases, settings) + _take_turns(
        "test", settings.test_cases, settings
    )
    return {
        case_id: CaseTruth(
            subtype,
            _pick_scanner(case_id, kind, settings.seed),
            faults.get(case_id),
            settings.severity if case_id in faults else None,
            site,
        )
        for (case_id, subtype), site in zip(subtypes.items(), sites, strict=True)
    }


def plan_patients(settings: PhantomSettings) -> dict[str, CaseTruth]:
    """Decide subtype, scanner and site of every patient; the last ones are of a kind that no case is of.

    Scanners take turns, the rare subtype is spread as among the cases.

    Returns:
        The truth by patient.
    """
    kind, count = kind_of(settings), settings.patients
    known = count - settings.unknown_patients
    subtypes = [kind.rare if rare else kind.common for rare in _spread_rare(known, settings.rare)]
    subtypes += [kind.unknown] * settings.unknown_patients
    sites = _take_turns("patient", count, settings)
    digits = 3 if count >= 100 else 2
    return {
        f"phantom_patient_{number:0{digits}}": CaseTruth(subtype, scanner, None, None, site)
        for number, subtype, scanner, site in zip(
            range(1, count + 1), subtypes, cycle(kind.scanners), sites, strict=False
        )
    }


def hidden_label(settings: PhantomSettings, patient_id: str) -> Label:
    """The label of a patient, which no file holds, shape (X, Y, Z), drawn as its site does.

    Raises:
        KeyError: The phantom has no such patient.
    """
    return _make_case(patient_id, plan_patients(settings)[patient_id], settings)[1]


def _spread_rare(count: int, share: float) -> list[bool]:
    """Tell which cases are of the rare subtype, evenly; the first ones are the same whatever the count."""
    rare_among_first = [
        max(math.floor(number * share + 0.5), int(share > 0 and number >= RARE_FROM))
        for number in range(count + 1)
    ]
    return [after > before for before, after in pairwise(rare_among_first)]


def _pick_scanner(case_id: str, kind: PhantomKind, seed: int) -> str:
    return str(stream(seed, case_id, "scanner").choice(list(kind.scanners)))


def _take_turns(split: str, count: int, settings: PhantomSettings) -> list[str | None]:
    """Return the sites of the cases of a split: all sites in turns, each turn in an order of its own."""
    if settings.sites == 1:
        return [None] * count
    sites = kind_of(settings).sites[: settings.sites]
    turns = [
        stream(settings.seed, split, f"turn {turn}", "sites").permutation(sites).tolist()
        for turn in range(-(-count // len(sites)))
    ]
    return [site for turn in turns for site in turn][:count]


def _assign_faults(case_ids: list[str], kind: PhantomKind, settings: PhantomSettings) -> dict[str, str]:
    if settings.faults > len(case_ids):
        raise ValueError(
            f"phantom: {settings.faults} faults do not fit into {len(case_ids)} train cases of the common "
            "subtype; lower faults or rare, or raise train_cases"
        )
    shuffled = sorted(case_ids, key=lambda case_id: stream(settings.seed, case_id, "fault order").random())
    taking_turns = settings.fault_kinds or [name for name in USUAL_FAULTS if name in kind.faults]
    kinds = stream(settings.seed, "fault kinds").permutation(list(taking_turns)).tolist()
    return dict(zip(shuffled[: settings.faults], cycle(kinds), strict=False))


def _make_case(case_id: str, truth: CaseTruth, settings: PhantomSettings) -> tuple[Image, Label]:
    """Return image and label of a case with its fault, if it has one."""
    kind = kind_of(settings)
    image, label = kind.make_case(case_id, truth.subtype, truth.scanner, truth.site, settings)
    if truth.fault is None:
        return image, label
    another = f"another instead of {case_id}"
    planting = Planting(
        rng=stream(settings.seed, case_id, "fault"),
        severity=settings.severity,
        label_of_another=lambda: kind.make_case(another, truth.subtype, truth.scanner, truth.site, settings)[1],
    )
    return kind.faults[truth.fault](image, label, planting)


def _write_case(
    folder: Path,
    settings: PhantomSettings,
    truths: Mapping[str, CaseTruth],
    patients: Mapping[str, CaseTruth],
    case_id: str,
) -> None:
    image, label = _make_case(case_id, {**truths, **patients}[case_id], settings)
    images = "imagesTs" if case_id in patients else "imagesTr"
    voxels = np.moveaxis(image, 0, -1) if len(image) > 1 else image[0]
    _write_nifti(folder / images / f"{case_id}.nii.gz", voxels, settings.spacing)
    if case_id in truths:
        _write_nifti(folder / "labelsTr" / f"{case_id}.nii.gz", label, settings.spacing)


def _refuse_foreign(folder: Path) -> None:
    found = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
    if found and not {TRUTH_FILE} <= found <= ENTRIES:
        raise FileExistsError(
            f"{folder} is not empty and not a phantom (it holds {', '.join(sorted(found)[:5])}); "
            "choose another folder or empty it"
        )


def _dataset_description(kind: PhantomKind, case_ids: list[str], patients: list[str]) -> dict[str, object]:
    return {
        "name": kind.name,
        "description": kind.description,
        "licence": "CC0-1.0",
        "release": "1.0",
        "tensorImageSize": "4D" if len(kind.channels) > 1 else "3D",
        "modality": {str(channel): name for channel, name in enumerate(kind.channels)},
        "labels": {"0": "background", **{str(value): name for value, name in kind.labels.items()}},
        "numTraining": len(case_ids),
        "numTest": len(patients),
        "training": [
            {"image": f"./imagesTr/{case_id}.nii.gz", "label": f"./labelsTr/{case_id}.nii.gz"}
            for case_id in case_ids
        ],
        "test": [f"./imagesTs/{patient}.nii.gz" for patient in patients],
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


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
