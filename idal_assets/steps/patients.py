"""The part `patients`: cases without a label, verified and preprocessed as the cases of the study."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from idal_assets.plots.cases import case_overview
from idal_assets.plots.style import png_bytes
from idal_assets.steps.cohort import geometry, refused_table, warning_table
from idal_assets.steps.prepare import write_slices
from idal_assets.study.cohort import FACTS_FILE
from idal_assets.study.making import Outcome, Task
from idal_assets.study.patient_list import (
    PatientList,
    Reference,
    known_before,
    list_of,
    read_patient_list,
    save_patient_list,
)


def list_patients(task: Task) -> Outcome:
    """Verifies the folder of the patients; without a folder the list is empty.

    What is known from the list before is taken over for files that did not change. Bad patients are in the list
    with the reasons, and stop nobody. The version is the content of the patients.

    Raises:
        CaseError: The folder cannot be listed, or its dataset.json not be read.
    """
    listed = PatientList()
    if task.patient_paths:
        against = Reference.of_cohort(task.cohort)
        found = against.find(*task.patient_paths)
        listed = list_of(found, against.verify(found, known_before(task.before), task.track))
    save_patient_list(listed, task.folder)
    return Outcome(listed.version)


def show_patient_list(task: Task) -> Mapping[str, Any]:
    """The patients that can be used, and who was refused."""
    listed = read_patient_list(task.folder)
    if listed.anatomy is None:
        return {"patients": "no patients: nobody named a folder (idal run --patients DIR)"}
    return {
        "patients": len(listed.patients),
        "problems": list(listed.problems),
        "usable": pd.DataFrame(
            [{"patient": patient, **geometry(facts)} for patient, facts in listed.known.items()]
        ),
        "refused": refused_table(listed.refused),
        "warnings": warning_table(listed.warnings),
    }


def describe_patient(task: Task) -> Outcome:
    """Writes the facts of a patient and a picture of the channels; the version is the content."""
    facts = task.listed_patient
    (task.folder / FACTS_FILE).write_text(facts.model_dump_json(indent=1))
    picture = case_overview(task.read_patient(facts), task.legend)
    (task.folder / "overview.png").write_bytes(png_bytes(picture))
    return Outcome(facts.content_hash)


def show_patient(task: Task) -> Mapping[str, Any]:
    """Geometry of the patient, and what is odd."""
    facts = task.listed_patient
    warnings = "; ".join(warning.what for warning in facts.warnings) or "none"
    return {**geometry(facts), "content_hash": facts.content_hash, "warnings": warnings}


def preprocess_patient(task: Task) -> None:
    """Writes the preprocessed slices of a patient and a picture of them."""
    write_slices(task, task.read_patient(task.patient_facts(task.key)))
