"""The graph: which artifact is made from which, and which settings determine it.

This table is the only place that says so. The Dagster assets take their dependencies from it, and an artifact's
data version is the hash of what its node names. Nothing here imports Dagster.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from idal_assets.artifacts import Inputs
from idal_assets.study import Study

Partition = Literal["case", "donor", "fold", "removal_set"]
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


def of_receivers(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifacts of the cases that every model segments: donors and test cases."""
    return {case: study.version(asset, case) for case in study.cohort.receivers}


def outside_fold(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifacts of the donors that are not in this fold."""
    inside = study.folds[str(key)]
    return {case: study.version(asset, case) for case in study.cohort.donors if case not in inside}


def of_folds(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifacts of all folds."""
    return {fold: study.version(asset, fold) for fold in study.profile.out_of_fold.names}


def of_tests(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifacts of the test cases."""
    return {case: study.version(asset, case) for case in study.cohort.tests}


def of_removal_sets(study: Study, asset: str, key: str | None) -> Versions:
    """The upstream artifacts of all removal sets."""
    return {name: study.version(asset, name) for name in study.removal_sets}


def own_content(study: Study, asset: str, key: str | None) -> Versions:
    """Only this case's content in the cohort, so that another case can come or go without a rerun."""
    return study.cohort.case(str(key)).facts.content_hash


RAW_FOLDER = "raw folder"
"""The cohort's source, which is no asset."""


def raw_folder(study: Study) -> str:
    """What the raw folder looks like: names, sizes and times of its files."""
    from idal_assets.imaging.inspection import folder_signature

    return folder_signature(study.raw)


@dataclass(frozen=True)
class Node:
    """An asset of the graph.

    Attributes:
        name: Name of the asset.
        group: The part of the experiment it belongs to.
        partition: What it has one artifact for; None where it has only one.
        made_from: Upstream assets, each with the function that says which of its artifacts matter.
        settings: Sections of the profile (`section` or `section.setting`) that determine it.
        learned_from: Those upstream assets that hold its training cases; while plans and baseline are pinned, a
            change there calls for no rerun.
        code: Raised by hand when the code changes what it makes; never for a plot's colour.
    """

    name: str
    group: str
    partition: Partition | None
    made_from: Mapping[str, Selector]
    settings: tuple[str, ...] = ()
    learned_from: tuple[str, ...] = ()
    code: str = "1"

    def inputs(self, study: Study, key: str | None = None, without: Collection[str] = ()) -> Inputs:
        """What determines an artifact, as things are now.

        Args:
            study: The study.
            key: The partition.
            without: Sources that are not looked at.

        Raises:
            NotMadeError: Something upstream has not been made.
        """
        made_from: dict[str, Versions] = {
            asset: select(study, asset, key) for asset, select in self.made_from.items() if asset not in without
        }
        if self.name == "cohort" and RAW_FOLDER not in without:
            made_from[RAW_FOLDER] = raw_folder(study)
        return Inputs(
            code=self.code,
            settings={path: _setting(study.settings, path) for path in self.settings},
            made_from=made_from,
        )

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
    Node("cohort", "cohort", None, {}, ("cohort", "out_of_fold.folds", "removal.sizes")),
    Node("raw_case", "cohort", "case", {"cohort": own_content}),
    Node("nnunet_plans", "prepare", None, {"raw_case": of_learning_cases}, ("plans",), learned_from=("raw_case",)),
    Node("case_slices", "prepare", "case", {"raw_case": same_key, "nnunet_plans": whole}),
    Node(
        "baseline_weights",
        "baseline",
        None,
        {"nnunet_plans": whole, "case_slices": of_baseline_cases},
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
        ("case_model", "seed", "compute.precision"),
        code="2",
    ),
    Node(
        "dice_row",
        "similarity",
        "donor",
        {"case_model": same_key, "case_slices": of_receivers},
        ("inference", "compute.precision"),
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
        ("inference", "compute.precision"),
    ),
    Node("dice_matrix", "similarity", None, {"cohort": whole, "dice_row": of_donors}, ("similarity.scalar",)),
    Node("dendrogram", "similarity", None, {"dice_matrix": whole}, ("similarity.distance",)),
    Node(
        "case_ranking",
        "similarity",
        None,
        {"dice_matrix": whole, "dendrogram": whole, "label_quality": whole},
        ("similarity.scalar", "similarity.largest_cluster", "removal.sizes"),
    ),
    Node("removal_plan", "reduction", None, {"case_ranking": whole, "dendrogram": whole}, ("removal",), code="2"),
    Node("training_set", "reduction", "removal_set", {"removal_plan": whole, "case_slices": of_donors}, code="2"),
    Node(
        "reduced_model",
        "reduction",
        "removal_set",
        {"training_set": same_key, "nnunet_plans": whole},
        ("reduced", "seed", "compute.precision"),
        code="2",
    ),
    Node(
        "reduced_evaluation",
        "reduction",
        "removal_set",
        {"reduced_model": same_key, "case_slices": of_tests},
        ("inference", "compute.precision"),
        code="2",
    ),
    Node(
        "reduction_report",
        "reduction",
        None,
        {"removal_plan": whole, "training_set": of_removal_sets, "reduced_evaluation": of_removal_sets},
        ("similarity.scalar",),
    ),
    Node(
        "experiment_report",
        "report",
        None,
        {
            "cohort": whole,
            "nnunet_plans": whole,
            "baseline_weights": whole,
            "dice_matrix": whole,
            "dendrogram": whole,
            "case_ranking": whole,
            "removal_plan": whole,
            "reduction_report": whole,
        },
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
