"""What must be true of a finished artifact before anything is made from it.

Each check looks at one artifact on disk, given by study, asset and partition, and says what it found; none changes
anything. PyTorch and nnU-Net are imported where they are needed: a raw case or the matrix is checked without them.
"""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from idal_assets.analysis.scores import COUNTS, MEASURES, dice, iou
from idal_assets.anatomy import Anatomy
from idal_assets.imaging.inspection import CaseFacts, are_there, inspect_case
from idal_assets.imaging.problems import CaseProblems
from idal_assets.imaging.raw_folder import CaseFiles
from idal_assets.imaging.readers import find_case
from idal_assets.settings import shortened_length
from idal_assets.study.cohort import read_facts
from idal_assets.study.making import Finding
from idal_assets.study.study import NotMadeError, Study

if TYPE_CHECKING:
    from torch import Tensor

    from idal_assets.nnunet.plans import Label
    from idal_assets.nnunet.slices import CaseSlices

ITERATIONS_TO_JUDGE = 20
"""A shorter training is not judged by its loss: a quarter of it is fewer than five batches, which is noise."""

UNREADABLE = (FileNotFoundError, ValueError, KeyError, RuntimeError, EOFError, BadZipFile, UnpicklingError)
"""What readers say of a file that is damaged or gone. A disk or network that is away says something else."""


def verified_content(study: Study, asset: str, case_id: str) -> Finding:
    """The case's files still read, and hold voxel for voxel what the cohort verified.

    Raises:
        CaseError: The raw folder as a whole cannot be read, which says nothing about this case.
    """
    expected = study.cohort.case(case_id).facts
    try:
        recorded = read_facts(study.path(asset, case_id))
    except UNREADABLE as error:
        return Finding((f"facts.json cannot be read ({error}); materialize raw_case again",))
    files = find_case(study.raw, case_id, are_there)
    if files is None:
        return Finding((f"its files are no longer in {study.raw}; bring them back or materialize cohort again",))
    return _as_verified(files, study.raw, expected, recorded, "the cohort verified", ("cohort", "raw_case"))


def verified_patient(study: Study, asset: str, patient: str) -> Finding:
    """The patient's files still read, and hold voxel for voxel what was verified."""
    folder, listed = study.patients_folder, study.patient_list
    expected = listed.patient(patient).facts
    try:
        recorded = read_facts(study.path(asset, patient))
    except UNREADABLE as error:
        return Finding((f"facts.json cannot be read ({error}); materialize patient_case again",))
    if folder is None or not are_there(files := listed.files(patient, folder)):
        return Finding(
            (f"its files are no longer in {folder}; bring them back or materialize patient_list again",)
        )
    return _as_verified(files, folder, expected, recorded, "were verified", ("patient_list", "patient_case"))


def _as_verified(
    files: CaseFiles, folder: Path, expected: CaseFacts, recorded: CaseFacts, those: str, assets: tuple[str, str]
) -> Finding:
    """Whether files hold what was verified, and the record of the case is of that.

    Args:
        files: The files as they are now.
        folder: Where they are.
        expected: What was verified.
        recorded: What the artifact says.
        those: Which contents are expected, after the word `that`.
        assets: What to materialize again where the files, or else the record, are not what they were.
    """
    try:
        found = inspect_case(files, folder)
    except CaseProblems as error:
        return Finding(tuple(str(problem) for problem in error.problems))
    verifies, describes = assets
    problems = []
    if found.content_hash != expected.content_hash:
        problems.append(f"its voxels are no longer those that {those}; materialize {verifies} again")
    if recorded.content_hash != expected.content_hash:
        problems.append(f"facts.json is that of another content; materialize {describes} again")
    return Finding(tuple(problems), facts={"content_hash": found.content_hash})


def sound_patient_slices(study: Study, asset: str, patient: str) -> Finding:
    """Channels and shape are right and intensities finite; there is no label."""
    from idal_assets.nnunet.slices import load_slices

    try:
        slices = load_slices(study.path(asset, patient), patient)
    except UNREADABLE as error:
        return Finding((f"its files cannot be read ({error}); materialize patient_slices again",))
    problems = _image_problems(slices, study.cohort.anatomy)
    return Finding(tuple(problems), facts=_intensities(slices) if not problems else {})


def sound_slices(study: Study, asset: str, case_id: str) -> Finding:
    """Channels and shapes are right, intensities finite, label values allowed, and there is something to learn."""
    from idal_assets.nnunet.plans import Plans
    from idal_assets.nnunet.slices import load_slices

    try:
        slices = load_slices(study.path(asset, case_id), case_id)
    except UNREADABLE as error:
        return Finding((f"its files cannot be read ({error}); materialize case_slices again",))
    anatomy = study.cohort.anatomy
    if slices.label is None or slices.truth is None:
        return Finding(("its label is missing, after preprocessing or in the original geometry",))
    learned = Plans.load(study.intact("nnunet_plans")).learned.values()
    problems = [*_image_problems(slices, anatomy), *_label_problems(slices, anatomy, learned)]
    facts = {
        "labelled_voxels": int(np.isin(slices.label, list(anatomy.labels)).sum()),
        **_intensities(slices),
    }
    return Finding(tuple(problems), facts=facts if not problems else {})


def _intensities(slices: "CaseSlices") -> dict[str, float]:
    return {"lowest_intensity": float(slices.image.min()), "highest_intensity": float(slices.image.max())}


def _image_problems(slices: "CaseSlices", anatomy: Anatomy) -> list[str]:
    channels = anatomy.channels
    shape = slices.image.shape[1:] if slices.label is None else slices.label.shape
    problems = []
    if slices.image.shape != (len(channels), *shape):
        problems.append(
            f"the image has shape {slices.image.shape}; {len(channels)} channels ({', '.join(channels)}) "
            f"of the label's shape {shape} are needed"
        )
    bad = slices.image.size - int(np.isfinite(slices.image).sum())
    if bad:
        problems.append(f"{bad} of {slices.image.size} intensities are NaN or infinite")
    return problems


def _label_problems(slices: "CaseSlices", anatomy: Anatomy, learned: "Iterable[Label]") -> list[str]:
    from idal_assets.nnunet.slices import OUTSIDE

    problems = []
    label = slices.require_label()
    known = {0, *anatomy.labels} | ({anatomy.ignore} if anatomy.ignore else set())
    volumes: dict[str, tuple[np.ndarray, set[int]]] = {
        "label": (label, {OUTSIDE, *known}),
        "truth": (slices.require_truth(), known),
    }
    for name, (volume, allowed) in volumes.items():
        unknown = sorted(set(np.unique(volume).tolist()) - allowed)
        if unknown:
            problems.append(f"{name} holds the values {unknown}; allowed are {sorted(allowed)}")
        if not np.isin(volume, list(anatomy.labels)).any():
            problems.append(f"{name} has no voxel of the {anatomy.foreground}{_way_on(slices, name)}")
    for values in learned:
        if np.isin(label, values).any() and not len(slices.foreground.get(values, ())):
            problems.append(f"label {values} has voxels but no places that a patch could be centred on")
    return problems


def _way_on(slices: "CaseSlices", name: str) -> str:
    """Why a label that the cohort verified may have nothing after preprocessing, and what to do."""
    lesion = int((slices.require_truth() > 0).sum())
    if name == "truth" or not lesion:
        return ""
    spacing = " x ".join(f"{size:g}" for size in reversed(slices.properties["spacing"]))
    return (
        f" although its file has {lesion} voxels of {spacing} mm: they vanished in resampling or lie where all"
        f" channels are 0; correct the label of {slices.case_id}, or move the case out of the raw folder"
    )


def trained_well(study: Study, asset: str, key: str | None) -> Finding:
    """Weights and losses are finite, the training has its full length, and the loss went down.

    Single batches are noisy, so the last quarter of all iterations is compared with the first; no fall is a
    warning, because a model that starts from good weights may have little left to learn. A training of fewer
    than 20 iterations is not judged by its loss.
    """
    from idal_assets.nnunet.model_folder import load_history, load_weights

    folder = study.path(asset, key)
    try:
        weights, losses = load_weights(folder), load_history(folder)["loss"].to_numpy(float)
    except UNREADABLE as error:
        return Finding((f"its files cannot be read ({error}); materialize {asset} again",))
    # a network that was given has no history here
    asked = 0 if _is_given(study, asset, key) else _iterations_asked(study, asset, key)
    problems = [*_weight_problems(weights), *_loss_problems(losses, asked)]
    if problems:
        return Finding(tuple(problems))
    if not asked:
        return Finding(facts={"loss": "trained elsewhere"})
    quarter = max(1, len(losses) // 4)
    first, last = float(losses[:quarter].mean()), float(losses[-quarter:].mean())
    facts = {"iterations": len(losses), "loss_first_quarter": first, "loss_last_quarter": last}
    if len(losses) < ITERATIONS_TO_JUDGE:
        return Finding(facts={**facts, "loss": f"not judged below {ITERATIONS_TO_JUDGE} iterations"})
    rose = last >= first
    warning = f"the loss did not fall: {first:.4f} in the first quarter, {last:.4f} in the last"
    return Finding((), (warning,) if rose else (), facts)


def _is_given(study: Study, asset: str, key: str | None) -> bool:
    """Whether somebody gave the network instead of having it trained."""
    return "weights" in study.provenance(asset, key).inputs.settings.get("baseline", {})


def _iterations_asked(study: Study, asset: str, key: str | None) -> int:
    """What the artifact was made with, which may not be what the profile says now."""
    settings = study.provenance(asset, key).inputs.settings
    section = next(values for values in settings.values() if isinstance(values, dict) and "epochs" in values)
    return shortened_length(
        section["epochs"] * section["iterations_per_epoch"], settings.get("early_stop.share", 1)
    )


def _weight_problems(weights: "Mapping[str, Tensor]") -> list[str]:
    bad = [name for name, values in weights.items() if not values.isfinite().all()]
    if bad:
        return [f"{len(bad)} of {len(weights)} weight tensors hold NaN or infinite values, the first is {bad[0]}"]
    return [] if weights else ["the checkpoint holds no weights"]


def _loss_problems(losses: np.ndarray, asked: int) -> list[str]:
    if len(losses) != asked:
        return [f"history.csv has {len(losses)} iterations and {asked} were asked for"]
    bad = np.flatnonzero(~np.isfinite(losses))
    return [f"the loss is not finite at iteration {bad[0] + 1}"] if len(bad) else []


def complete_row(study: Study, asset: str, donor: str) -> Finding:
    """Each receiver and region has its scores, in range and as its voxel counts say; NaN only where these are 0.

    HD95 is there for the test cases, unless the row was made without it, and for no other case.
    """
    try:
        rows = pd.read_parquet(study.path(asset, donor) / "row.parquet")
        rows = rows[["donor", "receiver", "region", *MEASURES, *COUNTS]]
    except UNREADABLE as error:
        return Finding((f"row.parquet cannot be read ({error}); materialize dice_row again",))
    cohort = study.cohort
    problems = _coverage_problems(rows, donor, cohort.receivers, cohort.anatomy.regions)
    if not problems:
        with_distances = study.provenance(asset, donor).inputs.settings["inference.surface_distances"]
        measured = rows["receiver"].isin(study.cohort.tests if with_distances else [])
        problems = [*_score_problems(rows), *_distance_problems(rows, measured)]
    facts = {"cells": int(rows["receiver"].nunique()), "undefined": int(rows["dice"].isna().sum())}
    return Finding(tuple(problems), facts=facts)


def _coverage_problems(
    rows: pd.DataFrame, donor: str, receivers: Collection[str], regions: Collection[str]
) -> list[str]:
    expected = {(donor, receiver, region) for receiver in receivers for region in regions}
    found = list(zip(rows["donor"], rows["receiver"], rows["region"], strict=True))
    problems = []
    for words, places in (
        ("missing", expected - set(found)),
        ("not expected", set(found) - expected),
    ):
        if places:
            _, receiver, region = min(places)
            problems.append(f"{len(places)} scores are {words}, the first is {region} of receiver {receiver}")
    if len(set(found)) != len(found):
        problems.append(f"{len(found) - len(set(found))} scores appear twice")
    return problems


def _score_problems(rows: pd.DataFrame) -> list[str]:
    problems = []
    counts = [rows[name] for name in COUNTS]
    for name, column, counted in (("Dice", "dice", dice(*counts)), ("IoU", "iou", iou(*counts))):
        said = rows[column]
        # Both come from the same division, so they are equal to the bit; NaN is equal to NaN here.
        differing = ~((counted == said) | (np.isnan(counted) & said.isna()))
        problems += _problem(rows, column, (said < 0) | (said > 1), f"{name} are outside 0 to 1")
        problems += _problem(rows, column, differing, f"{name} are not what their voxel counts say")
    return problems


def _distance_problems(rows: pd.DataFrame, measured: pd.Series) -> list[str]:
    said = rows["hd95"]
    defined = measured & rows["dice"].notna()
    return [
        *_problem(rows, "hd95", (said < 0) | np.isinf(said), "HD95 are negative or infinite"),
        *_problem(rows, "hd95", defined & said.isna(), "HD95 of test cases are missing"),
        *_problem(rows, "hd95", ~defined & said.notna(), "HD95 are there that are not defined or not asked for"),
    ]


def _problem(rows: pd.DataFrame, column: str, bad: pd.Series, what: str) -> list[str]:
    if not bad.any():
        return []
    place = rows[bad].iloc[0]
    first = f"the first is {place[column]} for {place['region']} of receiver {place['receiver']}"
    return [f"{int(bad.sum())} {what}, {first}"]


def current_matrix(study: Study, asset: str = "dice_matrix", key: None = None) -> Finding:
    """The matrix was made from the cohort and the rows that are there now.

    A setting that was given for one run only does not count: it is part of the matrix and of its version.
    """
    made_from = study.provenance(asset).inputs.made_from
    before = made_from["dice_row"]
    assert isinstance(before, Mapping)
    now = {donor: _version(study, "dice_row", donor) for donor in study.cohort.donors}
    differences = {
        "made again": [donor for donor in now if donor in before and now[donor] not in (None, before[donor])],
        "missing": [donor for donor, version in now.items() if version is None],
        "new": [donor for donor in now if donor not in before and now[donor] is not None],
        "gone": [donor for donor in before if donor not in now],
    }
    problems = [
        f"{len(donors)} rows are {words} since: {_some(donors)}" for words, donors in differences.items() if donors
    ]
    if made_from["cohort"] != study.version("cohort"):
        problems.append("the cohort is another one since")
    if problems:
        problems.append("materialize dice_matrix and what follows again")
    return Finding(
        tuple(problems), facts={"rows": len(before), "rows_that_differ": sum(map(len, differences.values()))}
    )


def _version(study: Study, asset: str, key: str) -> str | None:
    try:
        return study.version(asset, key)
    except NotMadeError:
        return None


def _some(names: list[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
