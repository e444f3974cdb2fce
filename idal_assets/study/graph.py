"""The graph: which artifact is made from which, and which settings determine it.

This table is the only place that says so. The Dagster assets take their dependencies from it, and an artifact's
data version is the hash of what its node names. Nothing here imports Dagster.
"""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from idal_assets.settings import CANDIDATES
from idal_assets.store.artifacts import Inputs, content_hash
from idal_assets.study.study import NotMadeError, Study

Partition = Literal["case", "candidate", "donor", "fold", "removal_set"]
Versions = str | dict[str, str]
Selector = Callable[[Study, str, str | None], Versions]


def whole(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifact, which has no partitions."""
    return study.version(asset)


def same_key(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifact of the same partition."""
    return study.version(asset, key)


def of_donors(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifacts of all donors."""
    return {case: study.version(asset, case) for case in study.cohort.donors}


def of_learning_cases(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifacts of all cases that a network ever learns from: donors and pretraining cases."""
    cohort = study.cohort
    return {case: study.version(asset, case) for case in (*cohort.donors, *cohort.pretraining)}


def of_baseline_cases(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifacts of the cases that train the baseline."""
    return {case: study.version(asset, case) for case in study.cohort.baseline_cases}


def of_baseline_cases_in_2d(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifacts of the cases that train the baseline, for a candidate that is 2D; else none."""
    return of_baseline_cases(study, asset, key) if CANDIDATES[str(key)].is_2d else {}


def of_baseline_cases_in_3d(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifacts of the cases that train the baseline, for a candidate that is 3D; else none."""
    return {} if CANDIDATES[str(key)].is_2d else of_baseline_cases(study, asset, key)


def own_configuration(study: Study, asset: str, key: str | None) -> Versions:
    """Only a candidate's configuration of nnU-Net's plans; the plans' own version is that of 2D."""
    version = study.version(asset)
    configuration = CANDIDATES[str(key)].configuration
    if configuration == "2d":
        return version
    planned = json.loads((study.path(asset) / CONFIGURATIONS_FILE).read_text())
    return planned.get(configuration, "not planned")


def of_candidates(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifacts of all candidates for the baseline."""
    return {name: study.version(asset, name) for name in study.candidates}


def best_candidate(study: Study, asset: str, key: str | None) -> Versions:
    """Only the name of the best 2D candidate, where it becomes the baseline; else nothing of the comparison."""
    if not study.profile.candidates.best_becomes_baseline:
        return {}
    study.version(asset)
    return json.loads((study.path(asset) / COMPARISON_FILE).read_text())["best_2d"]


def of_receivers(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifacts of the cases that every model segments: donors, validation and test cases."""
    return {case: study.version(asset, case) for case in study.cohort.receivers}


def names_of_tests(study: Study, asset: str, key: str | None) -> Versions:
    """Only which cases are test cases, for what is measured on these alone."""
    return content_hash(study.cohort.tests)


def outside_fold(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifacts of the donors that are not in this fold."""
    inside = study.folds[str(key)]
    return {case: study.version(asset, case) for case in study.cohort.donors if case not in inside}


def of_folds(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifacts of all folds."""
    return {fold: study.version(asset, fold) for fold in study.profile.out_of_fold.names}


def of_deciding_cases(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifacts of the cases that decide: donors and validation cases."""
    return {case: study.version(asset, case) for case in study.cohort.deciding}


def of_tests(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifacts of the test cases."""
    return {case: study.version(asset, case) for case in study.cohort.tests}


def of_removal_sets(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifacts of all removal sets."""
    return {name: study.version(asset, name) for name in study.removal_sets}


def scanners(study: Study, asset: str, key: str | None) -> Versions:
    """Which scanner each case comes from, as far as it is known; it changes no image."""
    return content_hash(dict(study.cohort.scanners))


def planted_faults(study: Study, asset: str, key: str | None) -> Versions:
    """What is known to be true of the donors, where their dataset was made; it changes no image."""
    cohort = study.cohort
    known = {case: cohort.truth[case] for case in cohort.donors if case in cohort.truth}
    return content_hash({case: [truth.fault, truth.subtype] for case, truth in known.items()})


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


def own_content(study: Study, asset: str, key: str | None) -> Versions:
    """Only this case's content in the cohort, so that another case can come or go without a rerun."""
    return study.cohort.case(str(key)).facts.content_hash


CONFIGURATIONS_FILE = "configurations.json"
"""Which configurations nnU-Net planned, each with its version."""

COMPARISON_FILE = "comparison.json"
"""Which candidate for the baseline is the best."""

RAW_FOLDER = "raw folder"
"""The cohort's source, which is no asset."""


def raw_folder(study: Study) -> str:
    """What the raw folder looks like: names, sizes and times of its files."""
    from idal_assets.imaging.inspection import folder_signature

    return folder_signature(study.raw)


def training_in_other_dimensions(key: str | None) -> Collection[str]:
    """The settings that do not concern a candidate: how those of the other dimensions are trained."""
    return ("candidates.training_3d",) if CANDIDATES[str(key)].is_2d else ("candidates.training_2d",)


def nothing(key: str | None) -> Collection[str]:
    """No setting: all concern every partition."""
    return ()


@dataclass(frozen=True)
class Node:
    """An asset of the graph.

    Attributes:
        name: Name of the asset.
        group: The part of the experiment it belongs to.
        partition: What it has one artifact for; None where it has only one.
        made_from: Upstream assets, each with the function that says which of its artifacts matter.
        settings: Sections of the profile (`section` or `section.setting`) that determine it.
        settings_apart: Those of them that do not determine a partition.
        learned_from: Those upstream assets that hold its training cases; while plans and baseline are pinned, a
            change there calls for no rerun.
        code: Raised by hand when the code changes what it makes; never for a plot's colour.
        seeded_by_key: Whether the removal set says which seed it is trained with.
    """

    name: str
    group: str
    partition: Partition | None
    made_from: Mapping[str, Selector]
    settings: tuple[str, ...] = ()
    settings_apart: Callable[[str | None], Collection[str]] = nothing
    learned_from: tuple[str, ...] = ()
    code: str = "1"
    seeded_by_key: bool = False

    def inputs(self, study: Study, key: str | None = None, without: Collection[str] = ()) -> Inputs:
        """What determines an artifact, as things are now; an upstream asset of which nothing matters is left out.

        Args:
            study: The study.
            key: The partition.
            without: Sources that are not looked at.

        Raises:
            NotMadeError: Something upstream has not been made.
        """
        chosen = {
            asset: select(study, asset, key) for asset, select in self.made_from.items() if asset not in without
        }
        made_from = {asset: versions for asset, versions in chosen.items() if versions}
        if self.name == "cohort" and RAW_FOLDER not in without:
            made_from[RAW_FOLDER] = raw_folder(study)
        apart = self.settings_apart(key)
        settings = {path: _setting(study.settings, path) for path in self.settings if path not in apart}
        if self.seeded_by_key:
            settings["replicate"] = study.removal_sets[str(key)].replicate
        return Inputs(code=self.code, settings=settings, made_from=made_from)

    def pinned(self, study: Study) -> tuple[str, ...]:
        """The upstream assets whose change calls for no rerun under the profile's policy."""
        return self.learned_from if study.profile.automation.plans_and_baseline == "pinned" else ()

    def keys(self, study: Study) -> list[str | None]:
        """Partitions of this asset; `[None]` where it has none.

        Raises:
            NotMadeError: They depend on the cohort, which has not been made.
        """
        if self.partition == "case":
            return [case.case_id for case in study.cohort.cases]
        if self.partition == "candidate":
            return [*study.candidates]
        if self.partition == "donor":
            return list(study.cohort.donors)
        if self.partition == "fold":
            return [*study.profile.out_of_fold.names]
        if self.partition == "removal_set":
            return [*study.removal_sets]
        return [None]


def _setting(settings: dict, path: str) -> object:
    for part in path.split("."):
        settings = settings[part]
    return settings


_NODES = (
    Node("cohort", "cohort", None, {}, ("cohort", "out_of_fold.folds", "removal.sizes"), code="3"),
    Node("raw_case", "cohort", "case", {"cohort": own_content}),
    Node(
        "nnunet_plans",
        "prepare",
        None,
        {"raw_case": of_learning_cases},
        ("plans",),
        learned_from=("raw_case",),
        code="2",
    ),
    Node("case_slices", "prepare", "case", {"raw_case": same_key, "nnunet_plans": whole}),
    Node(
        "baseline_candidate",
        "baseline",
        "candidate",
        {
            "nnunet_plans": own_configuration,
            "case_slices": of_baseline_cases_in_2d,
            "raw_case": of_baseline_cases_in_3d,
        },
        (
            "candidates.held_out_share",
            "candidates.training_2d",
            "candidates.training_3d",
            "inference.tile_step",
            "seed",
            "compute.precision",
        ),
        settings_apart=training_in_other_dimensions,
        learned_from=("case_slices", "raw_case"),
    ),
    Node("baseline_comparison", "baseline", None, {"baseline_candidate": of_candidates}, ("similarity.scalar",)),
    Node(
        "baseline_weights",
        "baseline",
        None,
        {"nnunet_plans": whole, "baseline_comparison": best_candidate, "case_slices": of_baseline_cases},
        ("baseline", "seed", "compute.precision"),
        learned_from=("case_slices",),
        code="2",
    ),
    Node("augmented_case", "donors", "donor", {"case_slices": same_key}, ("variants", "seed")),
    Node(
        "case_model",
        "donors",
        "donor",
        {"baseline_weights": whole, "augmented_case": same_key},
        ("case_model", "convergence.shares", "seed", "compute.precision"),
        code="2",
    ),
    Node(
        "dice_row",
        "similarity",
        "donor",
        {"cohort": names_of_tests, "case_model": same_key, "case_slices": of_receivers},
        ("inference", "compute.precision"),
        code="3",
    ),
    Node(
        "dice_matrix",
        "similarity",
        None,
        {"cohort": whole, "dice_row": of_donors},
        ("similarity.scalar",),
        code="2",
    ),
    Node(
        "dendrogram",
        "similarity",
        None,
        {"dice_matrix": deciding_cells},
        ("similarity.mode", "similarity.scalar", "similarity.distance", "similarity.linkage"),
        code="2",
    ),
    Node(
        "fold_model",
        "quality",
        "fold",
        {"nnunet_plans": whole, "case_slices": outside_fold},
        ("out_of_fold.training", "seed", "compute.precision"),
    ),
    Node(
        "label_quality",
        "quality",
        None,
        {"fold_model": of_folds, "case_slices": of_donors},
        ("inference.tile_step", "compute.precision"),
    ),
    Node(
        "case_ranking",
        "similarity",
        None,
        {"dice_matrix": deciding_cells, "dendrogram": whole, "label_quality": whole},
        ("similarity", "removal.sizes", "seed"),
        code="2",
    ),
    Node(
        "removal_plan",
        "reduction",
        None,
        {"case_ranking": whole, "dendrogram": whole, "raw_case": of_donors},
        ("removal", "controls", "seed"),
        code="3",
    ),
    Node("training_set", "reduction", "removal_set", {"removal_plan": whole, "case_slices": of_donors}, code="2"),
    Node(
        "reduced_model",
        "reduction",
        "removal_set",
        {"training_set": same_key, "nnunet_plans": whole},
        ("reduced", "seed", "compute.precision"),
        code="3",
        seeded_by_key=True,
    ),
    Node(
        "reduced_evaluation",
        "reduction",
        "removal_set",
        {"reduced_model": same_key, "case_slices": of_tests},
        ("inference", "compute.precision"),
        code="3",
    ),
    Node(
        "reduction_report",
        "reduction",
        None,
        {"removal_plan": whole, "training_set": of_removal_sets, "reduced_evaluation": of_removal_sets},
        ("similarity.scalar",),
    ),
    Node(
        "evidence",
        "evidence",
        None,
        {
            "cohort": scanners,
            "removal_plan": whole,
            "case_ranking": whole,
            "dice_matrix": whole,
            "reduced_evaluation": of_removal_sets,
        },
        ("similarity.scalar", "evidence", "seed"),
    ),
    Node(
        "early_row",
        "evidence",
        "donor",
        {"case_model": same_key, "case_slices": of_deciding_cases},
        ("inference.tile_step", "compute.precision"),
    ),
    Node(
        "convergence",
        "evidence",
        None,
        {"early_row": of_donors, "case_ranking": whole},
        ("similarity.mode", "similarity.scalar"),
    ),
    Node(
        "cost",
        "evidence",
        None,
        {
            "baseline_weights": whole,
            "case_model": of_donors,
            "dice_row": of_donors,
            "fold_model": of_folds,
            "label_quality": whole,
            "reduced_model": of_removal_sets,
            "reduced_evaluation": of_removal_sets,
            "early_row": of_donors,
        },
    ),
    Node(
        "fault_detection",
        "validation",
        None,
        {"cohort": planted_faults, "dice_matrix": deciding_cells, "case_ranking": whole},
        (
            "similarity.mode",
            "similarity.scalar",
            "similarity.distance",
            "similarity.linkage",
            "similarity.smallest_cluster",
            "similarity.largest_cluster",
        ),
    ),
    Node(
        "experiment_report",
        "report",
        None,
        {
            "cohort": whole,
            "nnunet_plans": whole,
            "baseline_comparison": whole,
            "baseline_weights": whole,
            "dice_matrix": whole,
            "dendrogram": whole,
            "case_ranking": whole,
            "removal_plan": whole,
            "reduction_report": whole,
            "evidence": whole,
            "convergence": whole,
            "cost": whole,
            "fault_detection": whole,
        },
        code="3",
    ),
)

GRAPH: Mapping[str, Node] = {node.name: node for node in _NODES}
"""All assets by name, in dependency order."""


def upstream_of(asset: str) -> frozenset[str]:
    """An asset and everything that it is made from, directly or not."""
    above = (upstream_of(name) for name in GRAPH[asset].made_from)
    return frozenset({asset}).union(*above)


def version_in_the_making(study: Study, asset: str, key: str | None = None) -> str:
    """Version of the artifact that is being made now, for an asset whose inputs and not its content decide it."""
    return GRAPH[asset].inputs(study, key).hash()
