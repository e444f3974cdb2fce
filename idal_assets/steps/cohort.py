"""The raw folder and the cohort: what is there, who takes part, and the tables that say so."""

import json
from pathlib import Path

import pandas as pd

from idal_assets.imaging.brain_tumour import LABELS
from idal_assets.imaging.inspection import CaseFacts, inspect_folder
from idal_assets.imaging.phantom import write_phantom
from idal_assets.imaging.truth import TRUTH_FILE
from idal_assets.profile import ProfileError
from idal_assets.progress import Track
from idal_assets.steps.download import download_brain_tumour
from idal_assets.study.cohort import COHORT_FILE, Cohort, choose_cohort, read_cohort, save_cohort
from idal_assets.study.study import Study


def ensure_raw_folder(study: Study, track: Track) -> None:
    """Makes the raw folder where none is given: downloads it if the profile says so, else writes the phantom.

    What is there is left alone; a phantom of other settings is written anew.

    Raises:
        ProfileError: No raw folder is given and the profile has neither.
        DownloadError: The download failed.
    """
    download = study.profile.download
    if download is not None and download.automatic and study.raw == study.folder.brain_tumour:
        download_brain_tumour(study, track)
        return
    if study.raw != study.folder.phantom:
        return
    settings = study.profile.phantom
    if settings is None:
        way_on = "; or download the cases first (idal download brain-tumour)" if download else ""
        raise ProfileError(
            f"The profile {study.profile.name} has no phantom; give the folder with your cases "
            f"(idal run --raw DIR, or raw: DIR in the profile){way_on}"
        )
    truth = study.raw / TRUTH_FILE
    written = json.loads(truth.read_text())["settings"] if truth.is_file() else None
    if written != settings.model_dump(mode="json"):
        write_phantom(study.raw, settings, track)


def make_cohort(study: Study, folder: Path, track: Track) -> Cohort:
    """Verifies the raw folder and gives the cases their roles.

    What is known from the cohort before is taken over for files that did not change.

    Raises:
        CaseError: The folder is unreadable.
        CohortError: Cases are refused or too few.
    """
    before = study.path("cohort")
    known = read_cohort(before).known if (before / COHORT_FILE).is_file() else {}
    report = inspect_folder(study.raw, known, track)
    profile = study.profile
    chosen = choose_cohort(report, profile.cohort, profile.removal.sizes, profile.out_of_fold.folds)
    save_cohort(chosen, folder)
    return chosen


def label_millilitres(facts: CaseFacts) -> dict[str, float]:
    """Volume of each label in ml, by its name."""
    voxel = facts.spacing[0] * facts.spacing[1] * facts.spacing[2] / 1000
    return {name: round(facts.label_voxels.get(str(value), 0) * voxel, 2) for value, name in LABELS.items()}


def cohort_table(cohort: Cohort) -> pd.DataFrame:
    """The cases for a person to read: role, shape, spacing, label volumes in ml, warnings."""
    rows = [
        {
            "case_id": case.case_id,
            "role": case.role,
            "shape": " × ".join(map(str, case.facts.shape)),
            "spacing (mm)": " × ".join(f"{size:g}" for size in case.facts.spacing),
            **{f"{name} (ml)": volume for name, volume in label_millilitres(case.facts).items()},
            "warnings": "; ".join(case.facts.warnings),
        }
        for case in cohort.cases
    ]
    return pd.DataFrame(rows)


def cohort_rows(cohort: Cohort) -> pd.DataFrame:
    """The rows of the database's table `cohort`; refused cases and cases without a role are rows with a reason."""
    rows = [_facts_row(case.case_id, case.role, case.facts, "") for case in cohort.cases]
    rows += [
        _facts_row(case, "left over", cohort.known[case], "not needed by the profile") for case in cohort.left_over
    ]
    rows += [
        {"case_id": case, "role": "refused", "layout": cohort.layout, "reason": " ".join(reasons)}
        for case, reasons in cohort.refused.items()
    ]
    return pd.DataFrame(rows).assign(cohort_version=cohort.version)


def _facts_row(case_id: str, role: str, facts: CaseFacts, reason: str) -> dict[str, object]:
    shape = {f"shape_{axis}": size for axis, size in zip("xyz", facts.shape, strict=True)}
    spacing = {f"spacing_{axis}": size for axis, size in zip("xyz", facts.spacing, strict=True)}
    columns = ("oedema_voxels", "non_enhancing_voxels", "enhancing_voxels")
    voxels = {name: facts.label_voxels.get(str(value), 0) for name, value in zip(columns, LABELS, strict=True)}
    return {
        "case_id": case_id,
        "role": role,
        "content_hash": facts.content_hash,
        "layout": facts.layout,
        **shape,
        **spacing,
        **voxels,
        "reason": reason,
    }
