"""The part `cohort`: what is in the raw folder, who takes part, and the tables that say so."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from idal_assets.analysis.reach import forecast
from idal_assets.anatomy import Anatomy
from idal_assets.imaging.inspection import CaseFacts, inspect_folder
from idal_assets.imaging.phantom import write_phantom
from idal_assets.imaging.problems import Problem, by_kind
from idal_assets.imaging.truth import TRUTH_FILE
from idal_assets.plots.cases import case_overview
from idal_assets.plots.style import png_bytes
from idal_assets.profile import ProfileError
from idal_assets.progress import Track
from idal_assets.report.html import ReportSection, ReportTable
from idal_assets.settings import PhantomSettings
from idal_assets.steps.download import download_brain_tumour
from idal_assets.study.cohort import (
    COHORT_FILE,
    FACTS_FILE,
    Cohort,
    choose_cohort,
    label_millilitres,
    read_cohort,
    save_cohort,
)
from idal_assets.study.making import Outcome, Task
from idal_assets.study.patients import in_words
from idal_assets.study.reviews import Review
from idal_assets.study.study import NotMadeError, Study

# --- raw folder ---


def begin(study: Study, track: Track) -> None:
    """Notes which study the data folder holds, and makes the raw folder where none is given."""
    study.remember()
    ensure_raw_folder(study, track)


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
    if written is None or PhantomSettings(**written) != settings:
        write_phantom(study.raw, settings, track)


# --- cohort ---


def make_cohort(task: Task) -> Outcome:
    """Verifies the raw folder and gives the cases their roles.

    What is known from the cohort before is taken over for files that did not change. The version is the content of
    the cases; the rows of the tables `cohort` and `case_label`.

    Raises:
        CaseError: The folder is unreadable.
        CohortError: Cases are refused or too few.
        AnatomyError: The profile names channels, labels or regions that there are not.
    """
    report = inspect_folder(task.raw_folder, _known(task.before), task.track)
    anatomy = report.anatomy.with_settings(task.setting("anatomy"))
    anatomy.scored(task.setting("similarity.scalar"))
    folds, sizes = task.setting("out_of_fold.folds"), task.setting("removal.sizes")
    chosen = choose_cohort(report, task.setting("cohort"), anatomy, sizes, folds, _reviews(task))
    save_cohort(chosen, task.folder)
    return Outcome(chosen.version, {"cohort": cohort_rows(chosen), "case_label": label_rows(chosen)})


def _reviews(task: Task) -> dict[str, Review]:
    """What a person decided, as it was when the inputs of this cohort were looked at."""
    decided = task.inputs.settings["cohort"].get("reviewed", {})
    return {case: Review(**review) for case, review in decided.items()}


def _known(before: Path | None) -> Mapping[str, CaseFacts]:
    """Facts of the cohort before; one of an older version is made anew from the files."""
    if before is None or not (before / COHORT_FILE).is_file():
        return {}
    with suppress(NotMadeError):
        return read_cohort(before).known
    return {}


def show_cohort(task: Task) -> Mapping[str, Any]:
    """Roles and facts of all cases, and what was refused."""
    found = read_cohort(task.folder)
    anatomy = found.anatomy
    return {
        "raw_folder": str(found.raw),
        "layout": found.layout,
        "channels": ", ".join(anatomy.channels),
        "labels": ", ".join(anatomy.labels.values()),
        "regions": ", ".join(anatomy.regions),
        "patients": in_words(found.patients),
        "donors": len(found.donors),
        "test_cases": len(found.tests),
        "validation_cases": len(found.validation),
        "pretraining_cases": len(found.pretraining),
        "forecast": forecast(task.setting, len(found.donors), found.test_patients),
        "cases": cohort_table(found),
        "refused": refused_table(found.refused),
        "reviewed": review_table(found),
        "warnings": warning_table(found.warnings),
    }


def cohort_table(cohort: Cohort) -> pd.DataFrame:
    """The cases for a person to read: role, patient, shape, spacing, label volumes in ml, warnings."""
    warnings = defaultdict(list)
    for warning in cohort.warnings:
        warnings[warning.case_id].append(warning.what)
    rows = [
        {
            "case_id": case.case_id,
            "patient": cohort.patients[case.case_id],
            "role": case.role,
            "shape": " × ".join(map(str, case.facts.shape)),
            "spacing (mm)": " × ".join(f"{size:g}" for size in case.facts.spacing),
            **{f"{name} (ml)": volume for name, volume in _volumes(case.facts, cohort.anatomy).items()},
            "warnings": "; ".join(warnings[case.case_id]),
        }
        for case in cohort.cases
    ]
    return pd.DataFrame(rows)


def _volumes(facts: CaseFacts, anatomy: Anatomy) -> dict[str, float]:
    """Volume of each label in ml, by its name."""
    volumes = label_millilitres(facts)
    return {name: volumes.get(value, 0.0) for value, name in anatomy.labels.items()}


def cohort_rows(cohort: Cohort) -> pd.DataFrame:
    """The rows of the table `cohort`; refused cases and cases without a role are rows with a reason."""
    rows = [
        {**_facts_row(case.case_id, case.role, case.facts, ""), "patient": cohort.patients[case.case_id]}
        for case in cohort.cases
    ]
    rows += [
        _facts_row(case, "left over", cohort.known[case], "not needed by the profile") for case in cohort.left_over
    ]
    rows += [
        _facts_row(case, "taken out", cohort.known[case], str(cohort.reviews[case])) for case in cohort.taken_out
    ]
    rows += [
        {"case_id": case, "role": "refused", "layout": cohort.layout, "reason": " ".join(reasons)}
        for case, reasons in cohort.refused.items()
    ]
    decided = {case: review.decision for case, review in cohort.reviews.items()}
    table = pd.DataFrame(rows)
    return table.assign(review=table["case_id"].map(decided).astype(object), cohort_version=cohort.version)


def _facts_row(case_id: str, role: str, facts: CaseFacts, reason: str) -> dict[str, object]:
    shape = {f"shape_{axis}": size for axis, size in zip("xyz", facts.shape, strict=True)}
    spacing = {f"spacing_{axis}": size for axis, size in zip("xyz", facts.spacing, strict=True)}
    return {
        "case_id": case_id,
        "role": role,
        "content_hash": facts.content_hash,
        "layout": facts.layout,
        **shape,
        **spacing,
        "reason": reason,
    }


def label_rows(cohort: Cohort) -> pd.DataFrame:
    """The rows of the table `case_label`: voxels of each label of every verified case."""
    rows = [
        {"case_id": case_id, "label": name, "value": value, "voxels": facts.label_voxels.get(str(value), 0)}
        for case_id, facts in cohort.known.items()
        for value, name in cohort.anatomy.labels.items()
    ]
    return pd.DataFrame(rows).assign(cohort_version=cohort.version)


def review_table(cohort: Cohort) -> pd.DataFrame:
    """One row a case that a person decided on, and what follows."""
    rows = [
        {
            "case_id": case,
            "decision": review.decision,
            "note": review.note,
            "takes part": "no" if review.takes_out else cohort.roles.get(case, "no"),
        }
        for case, review in cohort.reviews.items()
    ]
    return pd.DataFrame(rows, columns=["case_id", "decision", "note", "takes part"])


def refused_table(refused: Mapping[str, tuple[str, ...]]) -> pd.DataFrame:
    """One row a refused case and reason."""
    rows = [{"case_id": case, "reason": reason} for case, reasons in refused.items() for reason in reasons]
    return pd.DataFrame(rows, columns=["case_id", "reason"])


def warning_table(warnings: Iterable[Problem]) -> pd.DataFrame:
    """One row a kind of warning, with the cases that have it and what is said of the first."""
    rows = [
        {
            "warning": kind,
            "cases": len({warning.case_id for warning in alike if warning.case_id}),
            "which": ", ".join(dict.fromkeys(warning.case_id for warning in alike if warning.case_id)),
            "for example": alike[0].sentence,
        }
        for kind, alike in by_kind(warnings).items()
    ]
    return pd.DataFrame(rows, columns=["warning", "cases", "which", "for example"])


# --- one case ---


def describe_case(task: Task) -> Outcome:
    """Writes the facts of a case and a picture of it; the version is its content."""
    facts = task.cohort.case(task.key).facts
    (task.folder / FACTS_FILE).write_text(facts.model_dump_json(indent=1))
    picture = case_overview(task.read_case(facts), task.legend)
    (task.folder / "overview.png").write_bytes(png_bytes(picture))
    return Outcome(facts.content_hash)


def show_case(task: Task) -> Mapping[str, Any]:
    """Role, geometry and label volumes."""
    case = task.cohort.case(task.key)
    volumes = label_millilitres(case.facts)
    labels = {task.legend.labels[value]: volume for value, volume in volumes.items()}
    return {
        "role": case.role,
        **geometry(case.facts),
        "content_hash": case.facts.content_hash,
        "label_volumes": pd.DataFrame({"label": list(labels), "millilitres": list(labels.values())}),
        "warnings": "; ".join(warning.what for warning in case.facts.warnings) or "none",
    }


def geometry(facts: CaseFacts) -> dict[str, str]:
    """Shape, voxel size and orientation in words."""
    return {
        "shape": " × ".join(map(str, facts.shape)),
        "spacing_mm": " × ".join(f"{size:g}" for size in facts.spacing),
        "orientation": facts.orientation,
    }


# --- section of the report ---


def cohort_section(cohort: Cohort) -> ReportSection:
    """Which case has which role, and which were refused."""
    cases = cohort_table(cohort)
    tables = [ReportTable("Cases", list(cases.columns), cases.to_numpy().tolist())]
    if cohort.refused:
        rows = [[case, reason] for case, reasons in cohort.refused.items() for reason in reasons]
        tables.append(ReportTable("Refused cases", ["case", "reason"], rows))
    if cohort.reviews:
        reviewed = review_table(cohort)
        tables.append(ReportTable("Decisions of a person", list(reviewed.columns), reviewed.to_numpy().tolist()))
    if cohort.warnings:
        warnings = warning_table(cohort.warnings)
        tables.append(ReportTable("Warnings", list(warnings.columns), warnings.to_numpy().tolist()))
    if cohort.left_over:
        rows = [[case] for case in cohort.left_over]
        tables.append(ReportTable("Cases that the profile did not need", ["case"], rows))
    return ReportSection("Cohort", "cohort", f"{in_words(cohort.patients)}.", tables, [])
