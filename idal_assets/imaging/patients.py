"""Verification of patients, cases without a label: each by itself, then beside the cases of the study."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from idal_assets.imaging.case_table import CaseTable
from idal_assets.imaging.comparison import compare_patients
from idal_assets.imaging.content import CONSTANT
from idal_assets.imaging.fingerprint import find_twins
from idal_assets.imaging.inspection import CaseFacts, FolderReport, inspect_cases
from idal_assets.imaging.problems import Problem
from idal_assets.imaging.raw_folder import RawFolder
from idal_assets.progress import Track, silently

KNOWN_CASE = "patient that is a case of the study"
"""Kind of the problem that a patient is no new one."""


def inspect_patients(
    found: RawFolder,
    cases: Mapping[str, CaseFacts],
    roles: Mapping[str, str],
    known: Mapping[str, CaseFacts] | None = None,
    track: Track = silently,
) -> FolderReport:
    """Verify patients.

    A constant channel refuses a patient, of whom all channels are needed; a case that networks learn from is only
    warned of. A patient that is a case of the study under any name is said and used.

    Args:
        found: Where they are, see `unlabelled.find_patients`.
        cases: Facts of the cases that take part in the study, by id.
        roles: Their roles.
        known: Facts of patients from an earlier look, see `inspection.inspect_folder`.
        track: Iterates over the patients and shows how far it got.

    Returns:
        The report; bad patients are in it, they raise nothing.
    """
    facts, problems = inspect_cases(found, known or {}, track)
    among = [*_constant(facts.values()), *compare_patients(facts, cases, found.path)]
    refused = {problem.case_id for problem in among if problem.severity == "error"}
    usable = {patient: fact for patient, fact in facts.items() if patient not in refused}
    all_problems = (*found.problems, *problems, *among, *_known_cases(usable, cases, roles, found))
    return FolderReport(found.path, found.layout, found.anatomy, usable, all_problems, CaseTable())


def _constant(facts: Iterable[CaseFacts]) -> Iterator[Problem]:
    for fact in facts:
        for warning in fact.warnings:
            if warning.kind == CONSTANT:
                yield replace(warning, severity="error")


def _known_cases(
    patients: Mapping[str, CaseFacts], cases: Mapping[str, CaseFacts], roles: Mapping[str, str], found: RawFolder
) -> Iterator[Problem]:
    """Warn of patients who are cases of the study, which networks may know, or one another."""
    easier = "it is easier than a new patient where networks have learned from it; judge by others"
    for patient in patients.keys() & cases.keys():
        what = f"the {roles[patient]} {patient} of the study has its name"
        yield Problem(patient, None, what, f"{easier}, or rename it if it is another", "warning", KNOWN_CASE)
    by_image = {fact.image_hash: case for case, fact in cases.items()}
    same = {patient: by_image.get(fact.image_hash) for patient, fact in patients.items()}
    for patient, case in same.items():
        if case is not None:
            yield Problem(
                patient, None, f"image is that of the {roles[case]} {case}", easier, "warning", KNOWN_CASE
            )
    # a patient may have the name of a case
    everybody = {(False, case): fact for case, fact in cases.items()}
    everybody |= {(True, patient): fact for patient, fact in patients.items() if same[patient] is None}
    names = {f"{int(is_patient)} {name}": (is_patient, name) for is_patient, name in everybody}
    for pair in find_twins({text: everybody[place].fingerprint for text, place in names.items()}):
        (first, one), (second, other) = (names[text] for text in pair.cases)
        alike = pair.alike(found.anatomy.channels)
        if first and second:
            for patient, twin in ((one, other), (other, one)):
                what = f"image is nearly that of the patient {twin}: {alike}"
                yield Problem(patient, None, what, "give each patient once", "warning", "two patients alike")
        elif second:
            what = f"image is nearly that of the {roles[one]} {one}: {alike}"
            yield Problem(other, None, what, easier, "warning", KNOWN_CASE)
