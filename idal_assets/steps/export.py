"""The hand-over: a dataset without what a set removes, in the form that nnU-Net's own commands take."""

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from idal_assets.analysis.removal_sets import FULL_SET
from idal_assets.imaging.case import CaseError
from idal_assets.imaging.raw_folder import CaseFiles
from idal_assets.imaging.readers import read_case, scan_raw_folder
from idal_assets.nnunet.plans import dataset_json
from idal_assets.progress import Track, silently
from idal_assets.steps.removal import RemovalPlan
from idal_assets.study.cohort import Cohort
from idal_assets.study.roles import draw_folds

DATASET_NAME = re.compile(r"Dataset\d{3}_\w+")
EXCLUDED_FILE, SPLITS_FILE = "excluded_cases.csv", "splits_final.json"
FOLDS = 5
"""As many as nnU-Net trains."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        training: Cases to train on.
        tests: Test cases.
        excluded: Reason by case that was left out.
    """

    training: Sequence[str]
    tests: Sequence[str]
    excluded: Mapping[str, str]


def export_dataset(
    cohort: Cohort,
    plan: RemovalPlan,
    ranking: pd.DataFrame,
    removal_set: str,
    target: Path,
    seed: int = 0,
    track: Track = silently,
) -> Exported:
    """Writes an nnU-Net v2 raw dataset of all verified cases but those that a set removes or a person took out.

    Test cases are in `imagesTs` and `labelsTs`, all others in `imagesTr` and `labelsTr`: links where the files are
    as nnU-Net wants them, else new ones. `splits_final.json` divides the training cases into five folds, all cases
    of a patient into one; its place is the dataset's folder in nnUNet_preprocessed. `excluded_cases.csv` says who
    was left out, and why.

    Args:
        cohort: The cohort.
        plan: What the sets remove.
        ranking: One row a donor.
        removal_set: Name of the set, without a seed.
        target: The folder, `DatasetNNN_NAME` as nnU-Net wants it; it must be new or empty.
        seed: Seed of the folds.
        track: Shows the progress.

    Raises:
        CaseError: There is no such set, the folder cannot be taken, or a case cannot be read.
    """
    _ensure_usable(plan, removal_set, target)
    excluded = _excluded(cohort, plan, ranking, removal_set)
    files = {found.case_id: found for found in scan_raw_folder(cohort.raw).cases}
    tests = [case for case in cohort.tests if case not in excluded]
    training = sorted(case for case in cohort.known if case not in excluded and case not in tests)
    for places, cases in ((("imagesTr", "labelsTr"), training), (("imagesTs", "labelsTs"), tests)):
        for place in places:
            (target / place).mkdir(parents=True)
        for case in track(cases, f"write {places[0]}"):
            if case not in files:
                raise CaseError(f"{case} is not in {cohort.raw} any more; run `idal run` again")
            _write_case(files[case], cohort, target, *places)
    description = dataset_json(cohort.anatomy, len(training))
    (target / "dataset.json").write_text(json.dumps(description, indent=1))
    (target / SPLITS_FILE).write_text(json.dumps(_splits(training, cohort, seed), indent=1))
    with (target / EXCLUDED_FILE).open("w", newline="", encoding="utf-8") as lines:
        csv.writer(lines).writerows([("case_id", "reason"), *excluded.items()])
    return Exported(training, tests, excluded)


def _ensure_usable(plan: RemovalPlan, removal_set: str, target: Path) -> None:
    if removal_set not in plan.of_base:
        raise CaseError(f"There is no set {removal_set}; take one of {', '.join(plan.chosen)}")
    if not DATASET_NAME.fullmatch(target.name):
        raise CaseError(f"nnU-Net knows datasets by names such as Dataset501_Clean; {target.name} is none")
    if target.exists() and any(target.iterdir()):
        raise CaseError(f"{target} is not empty; give another folder")


def _excluded(cohort: Cohort, plan: RemovalPlan, ranking: pd.DataFrame, removal_set: str) -> dict[str, str]:
    rows = ranking.set_index("case_id")
    removed = {
        case: f"{removal_set}: rank {rows.loc[case, 'rank']} of {len(rows)}, score {rows.loc[case, 'score']:.3f}"
        for case in plan.of_base[removal_set]
    }
    reviewed = {case: f"reviewed: {cohort.reviews[case]}" for case in cohort.taken_out}
    refused = {case: " ".join(reasons) for case, reasons in cohort.refused.items()}
    return dict(sorted({**refused, **removed, **reviewed}.items()))


def _write_case(files: CaseFiles, cohort: Cohort, target: Path, images: str, labels: str) -> None:
    numbers = range(len(cohort.anatomy.channels))
    channels = [target / images / f"{files.case_id}_{number:04}.nii.gz" for number in numbers]
    label = target / labels / f"{files.case_id}.nii.gz"
    if _fits(files, len(channels)):
        for link, file in zip([*channels, label], [*files.images, files.label], strict=True):
            link.symlink_to(Path(str(file)).resolve())
        return
    case = read_case(files)
    for path, channel in zip(channels, case.image, strict=True):
        nib.save(nib.Nifti1Image(channel, case.affine), path)
    nib.save(nib.Nifti1Image(case.require_label(), case.affine), label)


def _fits(files: CaseFiles, channels: int) -> bool:
    """Whether nnU-Net can take the files as they are: one 3D file a channel, label values of the anatomy."""
    all_files = [*files.images, files.label]
    as_they_are = all(str(file).endswith(".nii.gz") for file in all_files)
    same_values = all(value == other for value, other in files.label_values.items())
    if not (as_they_are and same_values and len(files.images) == channels):
        return False
    # a channel of a file of its own may still have a fourth axis
    flat = all(len(nib.Nifti1Image.from_filename(file).shape) == 3 for file in files.images)
    return flat and files.label is not None and _whole(files.label)


def _whole(label: Path) -> bool:
    """Whether a label is stored as whole numbers, without a scale."""
    image = nib.Nifti1Image.from_filename(label)
    return np.issubdtype(image.get_data_dtype(), np.integer) and image.header.get_slope_inter()[0] in (None, 1)


def _splits(training: Sequence[str], cohort: Cohort, seed: int) -> list[dict[str, list[str]]]:
    """Folds as nnU-Net reads them, all cases of a patient on one side of each."""
    patients = {case: cohort.patients.get(case, case) for case in training}
    parts = draw_folds(training, min(FOLDS, len(set(patients.values()))), seed, patients)
    return [{"train": sorted(set(training) - set(part)), "val": part} for part in parts]


def in_words(found: Exported, removal_set: str, target: Path) -> Iterator[str]:
    """What was written, for whoever asked, and a sentence for a paper."""
    yield (
        f"{len(found.training)} training and {len(found.tests)} test cases in {target}; {len(found.excluded)} "
        f"left out, see {EXCLUDED_FILE}."
    )
    yield (
        f"Next: nnUNetv2_plan_and_preprocess -d {target.name[7:10]} --verify_dataset_integrity, then copy "
        f"{SPLITS_FILE} to nnUNet_preprocessed/{target.name}."
    )
    if removal_set != FULL_SET:
        yield (
            f"For a paper: {len(found.excluded)} cases were left out before training ({removal_set}), as networks "
            "trained on them segmented other cases badly and were bad at them in turn; reasons are listed by case."
        )
