"""Which artifacts of an upstream asset an artifact is made from, and what of them matters.

A selector is given the study, the upstream asset and the key of the artifact that is to be made. It returns the
version that counts, or versions by key where several artifacts do; nothing where none matters. The graph names one
for each of its edges; a `Task` hands out what its selectors chose, and nothing else.
"""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from idal_assets.settings import CANDIDATES
from idal_assets.store.artifacts import content_hash
from idal_assets.study.study import NotMadeError, Study

Versions = str | dict[str, str]
Selector = Callable[[Study, str, str | None], Versions]

CONFIGURATIONS_FILE = "configurations.json"
"""Which configurations nnU-Net planned, each with its version."""

COMPARISON_FILE = "comparison.json"
"""Which candidate for the baseline is the best."""

KEPT_FILE = "kept.json"
"""Which cases a training set keeps."""

CONTEST_FILE = "contest.json"
"""Of the asset `contest`: `contested`, the donors that are trained to the end."""

CHOICE_FILE = "choice.json"
"""Which of the chosen sets is the best, and the donors that it removes."""


def whole(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifact, which has no partitions."""
    return study.version(asset)


def same_key(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifact of the same partition."""
    return study.version(asset, key)


def folder_signature(study: Study, asset: str, key: str | None) -> Versions:
    """What the raw folder looks like: names, sizes and times of its files, those of patients aside."""
    from idal_assets.imaging.inspection import folder_signature as signature_of

    return signature_of(study.raw, study.patients_folder)


def patients_signature(study: Study, asset: str, key: str | None) -> Versions:
    """What the places of the patients look like; nothing where there are none."""
    from idal_assets.imaging.inspection import folder_signature as signature_of

    folders = [path if path.is_dir() else path.parent for path in study.patient_paths]
    signatures = [signature_of(folder) for folder in folders]
    if not signatures:
        return {}
    # of one folder it is what the sensor compares
    return signatures[0] if len(signatures) == 1 else content_hash(signatures)


# --- where something holds ---

Condition = Callable[[Study, str | None], bool]
"""Whether something holds in a study, for a partition."""


def has_patients(study: Study, key: str | None) -> bool:
    """Whether somebody named a folder of patients."""
    return study.patients_folder is not None


def plays_cases(study: Study, key: str | None) -> bool:
    """Whether the profile has cases played as patients."""
    return bool(study.profile.adaptation.counts)


def stops_early(study: Study, key: str | None) -> bool:
    """Whether the trainings of the case models stop early."""
    return study.profile.early_stop.share < 1


def place_is_open(study: Study, key: str | None) -> bool:
    """Whether the place of a donor is open after trainings that stopped early."""
    study.version("contest")
    return key in json.loads((study.intact("contest") / CONTEST_FILE).read_text())["contested"]


@dataclass(frozen=True)
class Where:
    """What another selector chooses, and nothing where a condition does not hold.

    Attributes:
        holds: The condition.
        select: The other selector.
    """

    holds: Condition
    select: Selector

    def __call__(self, study: Study, asset: str, key: str | None) -> Versions:
        """What the other one chooses, where the condition holds."""
        return self.select(study, asset, key) if self.holds(study, key) else {}


# --- parts of the cohort ---


@dataclass(frozen=True)
class Parts:
    """Only some of what the cohort says, so that the rest of it can change without a rerun.

    Attributes:
        names: Names of attributes of `Cohort`.
    """

    names: tuple[str, ...]

    def __call__(self, study: Study, asset: str, key: str | None) -> Versions:
        """Hash of these parts."""
        cohort = study.cohort
        return content_hash({name: _plain(getattr(cohort, name)) for name in self.names})


def parts(*names: str) -> Parts:
    """Only these attributes of the cohort."""
    return Parts(names)


@dataclass(frozen=True)
class PartsWhere(Parts):
    """Only some of what the cohort says, and nothing of it where a condition does not hold.

    Attributes:
        holds: The condition.
    """

    holds: Condition

    def __call__(self, study: Study, asset: str, key: str | None) -> Versions:
        """Hash of these parts, where the condition holds."""
        return super().__call__(study, asset, key) if self.holds(study, key) else {}


def own_content(study: Study, asset: str, key: str | None) -> Versions:
    """Only this case's content in the cohort, so that another case can come or go without a rerun."""
    return study.cohort.case(str(key)).facts.content_hash


def own_patient(study: Study, asset: str, key: str | None) -> Versions:
    """Only this patient's content in the list, so that another one can come or go without a rerun."""
    return study.patient_list.patient(str(key)).facts.content_hash


def _plain(value: Any) -> Any:
    """What JSON can hold; an anatomy counts by what determines numbers."""
    if hasattr(value, "version"):
        return value.version
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return {key: _plain(part) for key, part in value.items()} if isinstance(value, Mapping) else value


def whole_with_reviews(study: Study, asset: str, key: str | None) -> Versions:
    """The whole cohort, with decisions of a person that take nobody out and so are not in its version."""
    version, reviews = study.version(asset), study.cohort.reviews
    return content_hash([version, _plain(reviews)]) if reviews else version


# --- artifacts by the roles of their cases ---


def of_donors(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifacts of all donors."""
    return _of(study, asset, study.cohort.donors)


def of_donors_that_spare_work(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifacts of all donors, whose version does not count: what they hold would be found again."""
    return dict.fromkeys(_of(study, asset, study.cohort.donors), "spares work")


def of_learning_cases(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifacts of all cases that a network ever learns from: donors and pretraining cases."""
    return _of(study, asset, [*study.cohort.donors, *study.cohort.pretraining])


def of_baseline_cases(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifacts of the cases that train the baseline."""
    return _of(study, asset, study.cohort.baseline_cases)


def of_baseline_cases_in_2d(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifacts of the cases that train the baseline, for a candidate that is 2D; else none."""
    return of_baseline_cases(study, asset, key) if CANDIDATES[str(key)].is_2d else {}


def of_baseline_cases_in_3d(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifacts of the cases that train the baseline, for a candidate that is 3D; else none."""
    return {} if CANDIDATES[str(key)].is_2d else of_baseline_cases(study, asset, key)


def of_receivers(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifacts of the cases that every model segments: donors, validation and test cases."""
    return _of(study, asset, study.cohort.receivers)


def of_deciding_cases(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifacts of the cases that decide: donors and validation cases."""
    return _of(study, asset, study.cohort.deciding)


def of_tests(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifacts of the test cases."""
    return _of(study, asset, study.cohort.tests)


def of_donors_and_tests(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifacts of donors and test cases."""
    return _of(study, asset, [*study.cohort.donors, *study.cohort.tests])


def of_cases(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifacts of all cases that take part."""
    return _of(study, asset, [case.case_id for case in study.cohort.cases])


def of_own_donor(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifact of the same case, where it is a donor."""
    return _of(study, asset, [case for case in study.cohort.donors if case == key])


def of_own_fold(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifact of the fold that holds this case; none where there are no folds."""
    if not study.profile.out_of_fold.folds:
        return {}
    return _of(study, asset, [fold for fold, inside in study.folds.items() if key in inside])


def of_own_receiver(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifact of the same case, where every model segments it."""
    return _of(study, asset, [case for case in study.cohort.receivers if case == key])


def of_full_set_for_tests(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifact of the set that removes nothing, for a test case; none for another case."""
    return of_full_set(study, asset, key) if key in study.cohort.tests else {}


def outside_fold(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifacts of the donors that are not in this fold."""
    inside = study.folds[str(key)]
    return _of(study, asset, [case for case in study.cohort.donors if case not in inside])


def kept_cases(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifacts of the cases that the training set of the same removal set keeps."""
    study.version("training_set", key)
    kept = json.loads((study.intact("training_set", key) / KEPT_FILE).read_text())
    return _of(study, asset, kept)


def _of(study: Study, asset: str, keys: Collection[str]) -> dict[str, str]:
    return {key: study.version(asset, key) for key in keys}


# --- artifacts by what the profile asks for ---


def of_candidates(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifacts of all candidates for the baseline."""
    return _of(study, asset, study.candidates)


def of_folds(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifacts of all folds."""
    return _of(study, asset, study.profile.out_of_fold.names)


def of_removal_sets(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifacts of all removal sets."""
    return _of(study, asset, study.removal_sets)


def of_full_set(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifact of the set that removes nothing."""
    from idal_assets.analysis.removal_sets import FULL_SET

    return _of(study, asset, [FULL_SET])


# --- artifacts of cases that are played as patients ---


def for_played_tests(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifacts of all donors for a test case that is played; none for another case."""
    return of_donors(study, asset, key) if key in study.cohort.tests else {}


def of_repeats_for_tests(study: Study, asset: str, key: str | None) -> Versions:
    """The same, where case models are trained with several seeds."""
    return for_played_tests(study, asset, key) if study.profile.case_model.seeds > 1 else {}


def of_repeated_receivers(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifacts of the cases that decide, and with other seeds also of the tests that are played."""
    deciding = study.cohort.deciding
    played = study.profile.case_model.seeds > 1 and study.profile.adaptation.counts
    return _of(study, asset, [*deciding, *(study.cohort.tests if played else ())])


def of_patients(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifacts of all patients that can be used."""
    return _of(study, asset, study.patients)


def for_training(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifacts of all donors, where a network for a patient is trained on some; else none."""
    adaptation = study.profile.adaptation
    trains = {"tuned", "scratch"} & {adaptation.mode, *adaptation.compared}
    return of_donors(study, asset, key) if trains else {}


# --- donors whose place is open ---


def own_place(study: Study, asset: str, key: str | None) -> Versions:
    """Whether the place of this donor is open; a change that concerns others is none."""
    return "open" if place_is_open(study, key) else "settled"


# --- something of one artifact ---


def own_configuration(study: Study, asset: str, key: str | None) -> Versions:
    """Only a candidate's configuration of nnU-Net's plans; the plans' own version is that of 2D."""
    version = study.version(asset)
    configuration = CANDIDATES[str(key)].configuration
    if configuration == "2d":
        return version
    planned = json.loads((study.intact(asset) / CONFIGURATIONS_FILE).read_text())
    return planned.get(configuration, "not planned")


def of_cases_that_train_the_baseline(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifacts of the cases that train the baseline; none where a trained network is given."""
    return {} if study.profile.baseline.weights else of_baseline_cases(study, asset, key)


def best_candidate(study: Study, asset: str, key: str | None) -> Versions:
    """Only the name of the best 2D candidate, where it becomes the baseline; else nothing of the comparison."""
    if not study.profile.candidates.best_becomes_baseline:
        return {}
    study.version(asset)
    return json.loads((study.intact(asset) / COMPARISON_FILE).read_text())["best_2d"]


def baseline_as_start(study: Study, asset: str, key: str | None) -> Versions:
    """The baseline, where retrainings start from it; else nothing."""
    return study.version(asset) if study.profile.reduced.start == "pretraining" else {}


def chosen_removal(study: Study, asset: str, key: str | None) -> Versions:
    """Only the donors that the best set removes, for the training that confirms it; none for the full set."""
    study.version(asset)
    return content_hash(_removed_by_choice(study) if _is_chosen(study, key) else [])


def confirmed_cases(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifacts of all donors, for the chosen set without those that it removes."""
    removed = _removed_by_choice(study) if _is_chosen(study, key) else []
    return _of(study, asset, [case for case in study.cohort.donors if case not in removed])


def _is_chosen(study: Study, key: str | None) -> bool:
    return study.confirmations[str(key)].kind == "chosen"


def _removed_by_choice(study: Study) -> list[str]:
    study.version("evidence")
    return sorted(json.loads((study.intact("evidence") / CHOICE_FILE).read_text())["removed"])


def of_confirmations(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifacts of all trainings that confirm."""
    return _of(study, asset, study.confirmations)


def deciding_cells(study: Study, asset: str, key: str | None) -> Versions:
    """The cells of the matrix that decide, those of donors and validation cases: a hash of what determines them.

    An edited test case makes another matrix, but not another decision. The records of the rows tell what the cells
    were computed from, where the matrix was made from those very rows; of another row only its version is known
    until the matrix is made again.

    Raises:
        NotMadeError: There is no matrix, or it has no row of a donor.
    """
    rows = study.provenance(asset).inputs.made_from["dice_row"]
    assert isinstance(rows, Mapping)
    cohort = study.cohort
    receivers = cohort.deciding
    cells: dict[str, object] = {}
    for donor in cohort.donors:
        if donor not in rows:
            raise NotMadeError(f"{asset} has no row of {donor}; materialize {asset} again")
        cells[donor] = _cells_of_row(study, donor, rows[donor], receivers)
    return content_hash({"cells": cells, "validation": cohort.validation})


def _cells_of_row(study: Study, donor: str, version: str, receivers: Collection[str]) -> object:
    try:
        row = study.provenance("dice_row", donor)
    except NotMadeError:
        return version
    cases = row.inputs.made_from["case_slices"]
    assert isinstance(cases, Mapping)
    if row.version != version or not cases.keys() >= set(receivers):
        return version
    made_with = [row.inputs.code, row.inputs.settings, row.inputs.made_from["case_model"]]
    return [*made_with, [cases[name] for name in receivers]]


# --- settings of one partition ---

Settings = dict[str, Any]


def all_settings(study: Study, key: str | None, settings: Settings) -> Settings:
    """The settings that the asset declares, whatever the partition."""
    return settings


def in_own_dimensions(study: Study, key: str | None, settings: Settings) -> Settings:
    """Those that concern a candidate; how candidates of other dimensions are trained does not."""
    others = "candidates.training_3d" if CANDIDATES[str(key)].is_2d else "candidates.training_2d"
    return {path: value for path, value in settings.items() if path != others}


def with_replicate(study: Study, key: str | None, settings: Settings) -> Settings:
    """Those of the asset, and which of the seeds the removal set is trained with."""
    return {**settings, "replicate": study.removal_sets[str(key)].replicate}


def with_confirming_replicate(study: Study, key: str | None, settings: Settings) -> Settings:
    """The same for a training that confirms."""
    return {**settings, "replicate": study.confirmations[str(key)].replicate}


@dataclass(frozen=True)
class SettingsWhere:
    """Those of the asset that another function chooses, and none where a condition does not hold.

    Attributes:
        holds: The condition.
        choose: The other function.
    """

    holds: Condition
    choose: Callable[[Study, str | None, Settings], Settings] = all_settings

    def __call__(self, study: Study, key: str | None, settings: Settings) -> Settings:
        """What the other one chooses, where the condition holds."""
        return self.choose(study, key, settings) if self.holds(study, key) else {}


def of_the_cohort(study: Study, key: str | None, settings: Settings) -> Settings:
    """Those of the asset without where the patients are, from whom nothing of the study is made.

    What was decided of cases counts, and not the name of the file that says it.
    """
    from idal_assets.study.reviews import read_reviews

    named = {"patients", "reviewed"}
    cohort = {name: value for name, value in settings["cohort"].items() if name not in named}
    if file := study.reviewed_file:
        cohort["reviewed"] = {case: review.model_dump() for case, review in read_reviews(file).items()}
    return {**settings, "cohort": cohort}


def with_given_weights(study: Study, key: str | None, settings: Settings) -> Settings:
    """Those of the asset; of a network that is given its content counts, and not where it lies."""
    baseline = {name: value for name, value in settings["baseline"].items() if name != "weights"}
    if given := study.profile.baseline.weights:
        from idal_assets.nnunet.given_folder import given_version

        baseline["weights"] = given_version(Path(given))
    return {**settings, "baseline": baseline}


def of_one_training(study: Study, key: str | None, settings: Settings) -> Settings:
    """Those of the asset without how often the case models are trained, which is no part of a single training."""
    once = {name: value for name, value in settings["case_model"].items() if name != "seeds"}
    return without_full_share(study, key, {**settings, "case_model": once})


SHORTENED = ("early_stop.share", "early_stop.faster")
"""Settings of how a training that stops early differs from the whole of it."""


def without_full_share(study: Study, key: str | None, settings: Settings) -> Settings:
    """Those of the asset without how trainings stop early, where none does."""
    if stops_early(study, key):
        return settings
    return {path: value for path, value in settings.items() if path not in SHORTENED}
