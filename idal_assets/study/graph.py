"""The graph: which artifacts there are, what each is made from, and which function makes it.

One row says everything of an asset that is not work, and this sheet is the only place that says so: the Dagster
assets are generated from it, `making` makes an artifact by it, and an artifact's data version is the hash of what
its row names. To add an asset, add a row here and a function in the module of its part under `steps`. Nothing here
imports Dagster, and no work is imported before it is done.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from idal_assets.store.artifacts import Inputs
from idal_assets.study.selectors import (
    SHORTENED,
    PartsWhere,
    Selector,
    Settings,
    SettingsWhere,
    Where,
    all_settings,
    baseline_as_start,
    best_candidate,
    chosen_removal,
    confirmed_cases,
    deciding_cells,
    folder_signature,
    for_played_tests,
    for_training,
    has_patients,
    in_own_dimensions,
    kept_cases,
    of_baseline_cases_in_2d,
    of_baseline_cases_in_3d,
    of_candidates,
    of_cases,
    of_cases_that_train_the_baseline,
    of_confirmations,
    of_deciding_cases,
    of_donors,
    of_donors_and_tests,
    of_donors_that_spare_work,
    of_folds,
    of_full_set_for_tests,
    of_learning_cases,
    of_one_training,
    of_own_donor,
    of_own_fold,
    of_own_receiver,
    of_patients,
    of_receivers,
    of_removal_sets,
    of_repeated_receivers,
    of_repeats_for_tests,
    of_tests,
    of_the_cohort,
    outside_fold,
    own_configuration,
    own_content,
    own_patient,
    own_place,
    parts,
    patients_signature,
    place_is_open,
    plays_cases,
    same_key,
    stops_early,
    whole,
    whole_with_reviews,
    with_confirming_replicate,
    with_given_weights,
    with_replicate,
    without_full_share,
)
from idal_assets.study.study import Study

RAW_FOLDER = "raw folder"
"""The cohort's source, which is no asset."""

PATIENTS_FOLDER = "patients folder"
"""The source of the list of patients, which is no asset either."""

GROUPS = (
    *("cohort", "prepare", "baseline", "donors", "quality", "similarity", "reduction", "evidence"),
    *("validation", "patients", "report"),
)
"""Groups of assets in the order of the experiment."""

SOURCES = frozenset({RAW_FOLDER, PATIENTS_FOLDER})
"""What all is made from in the end; it changes without anybody making anything."""


@dataclass(frozen=True)
class Partition:
    """A kind of thing that an asset has one artifact for.

    Attributes:
        name: Its name.
        keys: Which of them there are; raises `NotMadeError` where the cohort decides and has not been made.
    """

    name: str
    keys: Callable[[Study], list[str]]


PARTITIONS: Mapping[str, Partition] = {
    partition.name: partition
    for partition in (
        Partition("case", lambda study: [case.case_id for case in study.cohort.cases]),
        Partition("candidate", lambda study: study.candidates),
        Partition("donor", lambda study: study.cohort.donors),
        Partition("fold", lambda study: study.profile.out_of_fold.names),
        Partition("receiver", lambda study: study.cohort.receivers if study.profile.adaptation.counts else []),
        Partition("removal_set", lambda study: list(study.removal_sets)),
        Partition("confirmation", lambda study: list(study.confirmations)),
        Partition("patient", lambda study: study.patients),
    )
}
"""All kinds of partitions by name."""


@dataclass(frozen=True)
class Check:
    """What must be true of an artifact before anything is made from it.

    Attributes:
        name: Function in `steps.checks` that looks at it.
        says: What it verifies.
        refuses: Whether an artifact that fails is damaged and must be made anew.
        told_anew: Whether it is said again whenever something that the artifact is made from is made.
    """

    name: str
    says: str
    refuses: bool = True
    told_anew: bool = False


TRAINED_WELL = Check(
    "trained_well",
    "Weights and losses are finite, the training has its full length, the loss went down (else a warning).",
)


@dataclass(frozen=True)
class Node:
    """An asset of the graph.

    Attributes:
        name: Name of the asset.
        group: The part of the experiment it belongs to.
        says: What it is, for UI, README and docs.
        work: What makes it, `module:function`; the function is given a `Task`.
        made_from: Upstream assets, each with the function that says which of its artifacts matter.
        partition: What it has one artifact for; None where it has only one.
        settings: Sections of the profile (`section` or `section.setting`) that determine it.
        settings_of_key: Makes of these the settings that determine one partition.
        learned_from: Those upstream assets that hold its training cases; while plans and baseline are pinned, a
            change there calls for no rerun.
        shows: What a person wants to see of it, `module:function`; the function is given a `Task`.
        shown_with: Settings that only this needs; they do not determine the artifact.
        kinds: What it is made with or holds, which the UI shows as icons.
        accelerated: Whether it trains or segments, and so needs a card or all cores.
        check: What must be true of it.
        tables: Tables of the database that it fills.
        before: What has to be there before its inputs are looked at, `module:function` of study and track.
        names_partitions: Whether it decides which partitions there are.
        code: Raised by hand when the code changes what it makes; never for a plot's colour.
    """

    name: str
    group: str
    says: str
    work: str
    made_from: Mapping[str, Selector]
    partition: str | None = None
    settings: tuple[str, ...] = ()
    settings_of_key: Callable[[Study, str | None, Settings], Settings] = all_settings
    learned_from: tuple[str, ...] = ()
    shows: str | None = None
    shown_with: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    accelerated: bool = False
    check: Check | None = None
    tables: tuple[str, ...] = ()
    before: str | None = None
    names_partitions: bool = False
    code: str = "1"

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
        declared = {path: _setting(study.settings, path) for path in self.settings}
        return Inputs(
            code=self.code,
            settings=self.settings_of_key(study, key, declared),
            made_from={asset: versions for asset, versions in chosen.items() if versions},
        )

    def pinned(self, study: Study) -> tuple[str, ...]:
        """The upstream assets whose change calls for no rerun under the profile's policy."""
        return self.learned_from if study.profile.automation.plans_and_baseline == "pinned" else ()

    def keys(self, study: Study) -> list[str | None]:
        """Partitions of this asset; `[None]` where it has none.

        Raises:
            NotMadeError: They depend on the cohort, which has not been made.
        """
        return [None] if self.partition is None else [*PARTITIONS[self.partition].keys(study)]


def _setting(settings: Mapping[str, Any], path: str) -> object:
    for part in path.split("."):
        settings = settings[part]
    return settings


STEPS = "idal_assets.steps"
SCORED = ("similarity.scalar",)
DECIDED = ("similarity.mode", "similarity.absent_share", "similarity.scalar")
FORECAST = (
    *("baseline", "candidates", "case_model", "early_stop", "out_of_fold", "removal", "controls", "reduced"),
    *("confirmation", "evidence"),
)
CLUSTERED = (*DECIDED, "similarity.distance", "similarity.linkage")

_NODES = (
    Node(
        "cohort",
        "cohort",
        "Which cases take part, and in which role. The whole raw folder is verified first; bad cases are refused "
        "before anything is trained.",
        f"{STEPS}.cohort:make_cohort",
        {RAW_FOLDER: folder_signature},
        settings=("anatomy", "cohort", "out_of_fold.folds", "removal.sizes", *SCORED),
        settings_of_key=of_the_cohort,
        shows=f"{STEPS}.cohort:show_cohort",
        shown_with=FORECAST,
        kinds=("nifti", "duckdb"),
        tables=("cohort", "case_label"),
        before=f"{STEPS}.cohort:begin",
        names_partitions=True,
        code="7",
    ),
    Node(
        "raw_case",
        "cohort",
        "One verified case: geometry, label volumes and a picture of its channels with the label.",
        f"{STEPS}.cohort:describe_case",
        {"cohort": own_content},
        partition="case",
        shows=f"{STEPS}.cohort:show_case",
        kinds=("nifti",),
        check=Check("verified_content", "The files still hold, voxel for voxel, what the cohort verified."),
        code="4",
    ),
    Node(
        "nnunet_plans",
        "prepare",
        "nnU-Net's fingerprint of the cases that networks learn from, and its plans of all configurations. The "
        "version comes from what determines preprocessing and network in 2D.",
        f"{STEPS}.prepare:plan_network",
        {"cohort": parts("anatomy"), "raw_case": of_learning_cases},
        settings=("plans",),
        learned_from=("raw_case",),
        shows=f"{STEPS}.prepare:show_plans",
        kinds=("json",),
        code="3",
    ),
    Node(
        "case_slices",
        "prepare",
        "One case after nnU-Net's own preprocessing: transposed, cropped, normalised, resampled.",
        f"{STEPS}.prepare:preprocess_case",
        {"raw_case": same_key, "nnunet_plans": whole},
        partition="case",
        shows=f"{STEPS}.prepare:show_slices",
        kinds=("numpy",),
        check=Check(
            "sound_slices",
            "Channels, shapes and label values are right, intensities finite, and there is something to learn.",
        ),
        code="2",
    ),
    Node(
        "patient_list",
        "patients",
        "Which patients, cases without a label, can be used. Their folder is verified beside the cohort's cases; "
        "bad patients are refused by name and the others go on. Without a folder there are none.",
        f"{STEPS}.patients:list_patients",
        {
            PATIENTS_FOLDER: patients_signature,
            "cohort": PartsWhere(("anatomy", "images", "roles", "channel_names", "channel_order"), has_patients),
        },
        shows=f"{STEPS}.patients:show_patient_list",
        kinds=("nifti", "json"),
        names_partitions=True,
    ),
    Node(
        "patient_case",
        "patients",
        "One verified patient: geometry and a picture of the channels.",
        f"{STEPS}.patients:describe_patient",
        {"patient_list": own_patient},
        partition="patient",
        shows=f"{STEPS}.patients:show_patient",
        kinds=("nifti",),
        check=Check("verified_patient", "The files still hold, voxel for voxel, what was verified."),
    ),
    Node(
        "patient_slices",
        "patients",
        "One patient after nnU-Net's own preprocessing, as the cases of the study.",
        f"{STEPS}.patients:preprocess_patient",
        {"patient_case": same_key, "nnunet_plans": whole},
        partition="patient",
        shows=f"{STEPS}.prepare:show_slices",
        kinds=("numpy",),
        check=Check("sound_patient_slices", "Channels and shape are right and intensities finite."),
    ),
    Node(
        "baseline_candidate",
        "baseline",
        "A network that could be the baseline, 2D or 3D, trained without some of the baseline's cases and judged "
        "on these. Test cases never take part.",
        f"{STEPS}.baseline:train_candidate",
        {
            "cohort": parts("sessions_learned_from", "anatomy"),
            "nnunet_plans": own_configuration,
            "case_slices": of_baseline_cases_in_2d,
            "raw_case": of_baseline_cases_in_3d,
        },
        partition="candidate",
        settings=(
            "candidates.held_out_share",
            "candidates.training_2d",
            "candidates.training_3d",
            "inference.tile_step",
            "seed",
            "compute.precision",
        ),
        settings_of_key=in_own_dimensions,
        learned_from=("case_slices", "raw_case"),
        shows=f"{STEPS}.baseline:show_candidate",
        shown_with=SCORED,
        kinds=("pytorch",),
        accelerated=True,
        check=TRAINED_WELL,
    ),
    Node(
        "baseline_comparison",
        "baseline",
        "The candidates side by side (table 3.2, figures 3.1 and 3.2 of the thesis), and which 2D one is the "
        "best. It becomes the baseline where the profile says so.",
        f"{STEPS}.baseline:compare_candidates",
        {"cohort": parts("anatomy"), "baseline_candidate": of_candidates},
        settings=SCORED,
        shows=f"{STEPS}.baseline:show_comparison",
        kinds=("matplotlib",),
    ),
    Node(
        "baseline_weights",
        "baseline",
        "The 2D nnU-Net that all case models start from: trained on donors or on pretraining cases, or given.",
        f"{STEPS}.baseline:train_baseline",
        {
            "nnunet_plans": whole,
            "baseline_comparison": best_candidate,
            "case_slices": of_cases_that_train_the_baseline,
        },
        settings=("baseline", "candidates.best_becomes_baseline", "seed", "compute.precision"),
        settings_of_key=with_given_weights,
        learned_from=("case_slices",),
        shows=f"{STEPS}.networks:show_training",
        kinds=("pytorch",),
        accelerated=True,
        check=TRAINED_WELL,
        code="2",
    ),
    Node(
        "augmented_case",
        "donors",
        "Variants of one donor: mirrored and mildly deformed, as the original experiment made five of each case.",
        f"{STEPS}.donors:make_donor_variants",
        {"nnunet_plans": whole, "case_slices": same_key},
        partition="donor",
        settings=("variants", "seed"),
        kinds=("numpy",),
    ),
    Node(
        "case_model",
        "donors",
        "The baseline fine-tuned on one donor alone, from all baseline weights, segmentation heads too.",
        f"{STEPS}.donors:train_case_model",
        {"baseline_weights": whole, "augmented_case": same_key},
        partition="donor",
        settings=("case_model", *SHORTENED, "convergence.shares", "seed", "compute.precision"),
        settings_of_key=of_one_training,
        shows=f"{STEPS}.donors:show_case_model",
        kinds=("pytorch",),
        accelerated=True,
        check=TRAINED_WELL,
        code="2",
    ),
    Node(
        "dice_row",
        "similarity",
        "One row of the matrix: this donor's model on every donor, validation and test case, scored in the "
        "original geometry. Cells that are still true are taken over from the row before.",
        f"{STEPS}.similarity:score_case_model",
        {"cohort": parts("tests", "anatomy"), "case_model": same_key, "case_slices": of_receivers},
        partition="donor",
        settings=("inference.tile_step", "inference.surface_distances", "compute.precision"),
        shows=f"{STEPS}.similarity:show_row",
        shown_with=SCORED,
        kinds=("pytorch", "parquet"),
        accelerated=True,
        check=Check("complete_row", "Every receiver and region once, in range or undefined, as counted."),
        code="3",
    ),
    Node(
        "dice_matrix",
        "similarity",
        "All rows, checked for completeness, with heat maps of donors and of test cases.",
        f"{STEPS}.similarity:make_matrix",
        {"cohort": whole, "dice_row": of_donors},
        settings=SCORED,
        shows=f"{STEPS}.similarity:show_matrix",
        kinds=("duckdb", "matplotlib"),
        check=Check(
            "current_matrix",
            "The matrix was made from the rows that are there now. Said anew whenever a row or the cohort is "
            "made, however many rows there are: the UI's own mark gives up at 100.",
            refuses=False,
            told_anew=True,
        ),
        tables=("dice",),
        code="2",
    ),
    Node(
        "contest",
        "similarity",
        "Whose place among the removed is open after trainings that stopped early. Their models are trained "
        "to the end too.",
        f"{STEPS}.settling:hold_contest",
        {
            "cohort": PartsWhere(("donors", "deciding", "anatomy"), stops_early),
            "dice_matrix": Where(stops_early, deciding_cells),
        },
        settings=(*DECIDED, "early_stop", "removal.sizes", "seed"),
        settings_of_key=SettingsWhere(stops_early),
        shows=f"{STEPS}.settling:show_contest",
        kinds=("json",),
    ),
    Node(
        "settled_row",
        "similarity",
        "One row of the matrix after the full training, where this donor's place was open; empty for the others.",
        f"{STEPS}.settling:train_to_the_end",
        {
            "contest": own_place,
            "cohort": PartsWhere(("anatomy",), stops_early),
            "baseline_weights": Where(place_is_open, whole),
            "augmented_case": Where(place_is_open, same_key),
            "case_slices": Where(place_is_open, of_deciding_cases),
        },
        partition="donor",
        settings=("case_model", "inference.tile_step", "seed", "compute.precision"),
        settings_of_key=SettingsWhere(place_is_open, of_one_training),
        shows=f"{STEPS}.settling:show_settled_row",
        kinds=("pytorch", "parquet"),
        accelerated=True,
    ),
    Node(
        "dendrogram",
        "similarity",
        "Clustering of the donors (UPGMA): linkage, cophenetic correlation, a picture with the matrix in leaf "
        "order.",
        f"{STEPS}.similarity:make_dendrogram",
        {"cohort": parts("donors", "deciding", "anatomy"), "dice_matrix": deciding_cells},
        settings=CLUSTERED,
        shows=f"{STEPS}.similarity:show_dendrogram",
        kinds=("scipy", "matplotlib"),
        code="3",
    ),
    Node(
        "fold_model",
        "quality",
        "A network trained from scratch on the donors that are not in this fold, to segment those that are.",
        f"{STEPS}.quality:train_fold_model",
        {"nnunet_plans": whole, "case_slices": outside_fold},
        partition="fold",
        settings=("out_of_fold.training", "seed", "compute.precision"),
        shows=f"{STEPS}.quality:show_fold_model",
        kinds=("pytorch",),
        accelerated=True,
        check=TRAINED_WELL,
    ),
    Node(
        "label_quality",
        "quality",
        "How well the label of each donor agrees with the network of its fold: Dice out of fold, cleanlab's "
        "softmin. The cheap rivals of the matrix's score; without folds it says nothing.",
        f"{STEPS}.quality:score_labels",
        {
            "cohort": parts("donors", "sessions_learned_from", "anatomy"),
            "fold_model": of_folds,
            "case_slices": of_donors,
        },
        settings=("out_of_fold.folds", "inference.tile_step", "seed", "compute.precision"),
        shows=f"{STEPS}.quality:show_quality",
        shown_with=SCORED,
        kinds=("pytorch", "parquet"),
        accelerated=True,
    ),
    Node(
        "donor_signals",
        "quality",
        "What costs no training of its own: Dice and loss of the baseline on each donor, whether its gradient "
        "points where those of the others do, and how unusual the intensities under its label are.",
        f"{STEPS}.quality:judge_by_baseline",
        {"cohort": parts("anatomy"), "baseline_weights": whole, "case_slices": of_donors},
        settings=("inference.tile_step", "compute.precision"),
        shows=f"{STEPS}.quality:show_signals",
        kinds=("pytorch", "parquet"),
        accelerated=True,
    ),
    Node(
        "case_ranking",
        "similarity",
        "Donors from worst to best: both means, score, rank, cluster and its stability. Beside the score stand "
        "its cheaper rivals; they have no part in the order.",
        f"{STEPS}.similarity:make_ranking",
        {
            "cohort": parts("donors", "deciding", "voxel_millilitres", "anatomy"),
            "dice_matrix": deciding_cells,
            "contest": whole,
            "settled_row": of_donors,
            "dendrogram": whole,
            "label_quality": whole,
            "donor_signals": whole,
        },
        settings=("similarity", "removal.sizes", "seed"),
        shows=f"{STEPS}.similarity:show_ranking",
        kinds=("duckdb", "matplotlib"),
        tables=("case_score",),
        code="4",
    ),
    Node(
        "removal_plan",
        "reduction",
        "Which donors each removal set takes away: none, the worst or the best N, the worst cluster, as many at "
        "random, and random halves; `_s2` is the same for another seed.",
        f"{STEPS}.removal:make_plan",
        {"case_ranking": whole, "dendrogram": whole},
        settings=("removal", "controls", "seed"),
        shows=f"{STEPS}.removal:show_plan",
        kinds=("duckdb",),
        tables=("removal_plan",),
        code="5",
    ),
    Node(
        "training_set",
        "reduction",
        "Exactly which cases this retraining keeps and which it lost, with rank and reason. The version is the "
        "content of the kept cases: a change to a removed case reruns nothing.",
        f"{STEPS}.removal:make_training_set",
        {"removal_plan": whole, "case_slices": of_donors},
        partition="removal_set",
        shows=f"{STEPS}.removal:show_training_set",
        kinds=("parquet", "duckdb"),
        tables=("training_set",),
        code="4",
    ),
    Node(
        "reduced_model",
        "reduction",
        "A network trained on the cases that this set keeps, from scratch or from a baseline that has seen none "
        "of them.",
        f"{STEPS}.retraining:train_reduced_model",
        {
            "training_set": same_key,
            "nnunet_plans": whole,
            "baseline_weights": baseline_as_start,
            "case_slices": kept_cases,
        },
        partition="removal_set",
        settings=("reduced", "seed", "compute.precision"),
        settings_of_key=with_replicate,
        shows=f"{STEPS}.retraining:show_reduced_model",
        kinds=("pytorch", "duckdb"),
        accelerated=True,
        check=TRAINED_WELL,
        tables=("model",),
        code="4",
    ),
    Node(
        "reduced_evaluation",
        "reduction",
        "This retrained network on every test case: scores per label and region, and the segmentations as NIfTI. "
        "What network and test case leave unchanged is taken over from the evaluation before.",
        f"{STEPS}.retraining:evaluate_reduced_model",
        {"cohort": parts("anatomy"), "reduced_model": same_key, "case_slices": of_tests},
        partition="removal_set",
        settings=("inference", "compute.precision"),
        shows=f"{STEPS}.reduction:show_evaluation",
        shown_with=SCORED,
        kinds=("parquet", "nifti"),
        accelerated=True,
        code="4",
    ),
    Node(
        "reduction_report",
        "reduction",
        "What removal did to the test cases: figures 3.6a, 3.6b and table 3.3 of the thesis.",
        f"{STEPS}.reduction:make_reduction_report",
        {"cohort": parts("donors", "anatomy"), "removal_plan": whole, "reduced_evaluation": of_removal_sets},
        settings=SCORED,
        shows=f"{STEPS}.reduction:show_reduction_report",
        kinds=("duckdb", "matplotlib"),
        tables=("evaluation",),
    ),
    Node(
        "evidence",
        "evidence",
        "Whether removing these cases is really better, and for whom: mean difference with its interval over "
        "cases and seeds, a test against random removal of as many, subgroups.",
        f"{STEPS}.evidence:make_evidence",
        {
            "cohort": parts("donors", "tests", "patients", "scanners", "anatomy"),
            "raw_case": of_donors_and_tests,
            "removal_plan": whole,
            "case_ranking": whole,
            "dice_matrix": whole,
            "reduced_evaluation": of_removal_sets,
        },
        settings=(*SCORED, "evidence", "seed"),
        shows=f"{STEPS}.evidence:show_evidence",
        kinds=("scipy", "duckdb", "matplotlib"),
        tables=("effect", "control", "subgroup", "false_volume"),
        code="3",
    ),
    Node(
        "case_effect",
        "evidence",
        "What each single donor does to the test cases, from trainings on random halves of the donors: which "
        "help, which harm, and of which nothing can be said.",
        f"{STEPS}.effects_of_cases:make_case_effects",
        {
            "cohort": parts("donors", "patients", "anatomy"),
            "removal_plan": whole,
            "reduced_evaluation": of_removal_sets,
        },
        settings=(*SCORED, "evidence.level"),
        shows=f"{STEPS}.effects_of_cases:show_case_effects",
        kinds=("scipy", "duckdb", "matplotlib"),
        tables=("case_effect",),
        code="2",
    ),
    Node(
        "confirmed_model",
        "evidence",
        "The best of the chosen sets and the full set once more: networks trained from scratch, with other seeds.",
        f"{STEPS}.confirmation:train_confirming_model",
        {
            "evidence": chosen_removal,
            "cohort": parts("donors"),
            "nnunet_plans": whole,
            "case_slices": confirmed_cases,
        },
        partition="confirmation",
        settings=("confirmation.training", "seed", "compute.precision"),
        settings_of_key=with_confirming_replicate,
        shows=f"{STEPS}.networks:show_training",
        kinds=("pytorch",),
        accelerated=True,
        check=TRAINED_WELL,
    ),
    Node(
        "confirmed_evaluation",
        "evidence",
        "A network that confirms on every test case.",
        f"{STEPS}.confirmation:evaluate_confirming_model",
        {"cohort": parts("anatomy"), "confirmed_model": same_key, "case_slices": of_tests},
        partition="confirmation",
        settings=("inference", "compute.precision"),
        shows=f"{STEPS}.reduction:show_evaluation",
        shown_with=SCORED,
        kinds=("parquet", "nifti"),
        accelerated=True,
    ),
    Node(
        "confirmation",
        "evidence",
        "Whether what the best of the chosen sets gained is gained from scratch too.",
        f"{STEPS}.confirmation:confirm",
        {"cohort": parts("patients", "anatomy"), "evidence": whole, "confirmed_evaluation": of_confirmations},
        settings=(*SCORED, "evidence.level"),
        shows=f"{STEPS}.confirmation:show_confirmation",
        kinds=("scipy", "duckdb"),
        tables=("confirmation",),
    ),
    Node(
        "early_row",
        "evidence",
        "One row of the matrix as it was after a part of this donor's training.",
        f"{STEPS}.convergence:score_early_models",
        {"cohort": parts("anatomy"), "case_model": same_key, "case_slices": of_deciding_cases},
        partition="donor",
        settings=("inference.tile_step", "compute.precision"),
        shows=f"{STEPS}.convergence:show_early_row",
        kinds=("pytorch", "parquet"),
        accelerated=True,
    ),
    Node(
        "repeated_row",
        "evidence",
        "One row of the matrix as other seeds of this donor's training give it; empty where the profile asks for "
        "one seed.",
        f"{STEPS}.convergence:score_repeated_models",
        {
            "cohort": parts("anatomy"),
            "baseline_weights": whole,
            "augmented_case": same_key,
            "case_slices": of_repeated_receivers,
        },
        partition="donor",
        settings=("case_model", *SHORTENED, "inference.tile_step", "seed", "compute.precision"),
        settings_of_key=without_full_share,
        shows=f"{STEPS}.convergence:show_repeated_row",
        kinds=("pytorch", "parquet"),
        accelerated=True,
    ),
    Node(
        "convergence",
        "evidence",
        "What shorter trainings of the case models would have told, and other ones: rank correlations with the "
        "time they take, and how reliable means and scores are between seeds.",
        f"{STEPS}.convergence:make_convergence",
        {
            "cohort": parts("donors", "deciding", "anatomy"),
            "case_model": of_donors,
            "dice_row": of_donors,
            "early_row": of_donors,
            "repeated_row": of_donors,
            "case_ranking": whole,
        },
        settings=DECIDED,
        shows=f"{STEPS}.convergence:show_convergence",
        kinds=("scipy", "duckdb", "matplotlib"),
        tables=("convergence", "reliability"),
        code="2",
    ),
    Node(
        "cost",
        "evidence",
        "What the answer cost: seconds, and of processor and card, for each artifact.",
        f"{STEPS}.cost:make_cost",
        {
            "baseline_weights": whole,
            "case_model": of_donors,
            "dice_row": of_donors,
            "settled_row": of_donors,
            "fold_model": of_folds,
            "label_quality": whole,
            "donor_signals": whole,
            "reduced_model": of_removal_sets,
            "reduced_evaluation": of_removal_sets,
            "confirmed_model": of_confirmations,
            "confirmed_evaluation": of_confirmations,
            "early_row": of_donors,
            "repeated_row": of_donors,
        },
        shows=f"{STEPS}.cost:show_cost",
        kinds=("duckdb", "matplotlib"),
        tables=("cost",),
    ),
    Node(
        "fault_detection",
        "validation",
        "How well each score finds the planted faults of a phantom: AUROC, precision, recall. For a raw folder "
        "without truth.json it says nothing.",
        f"{STEPS}.detection:make_detection",
        {
            "cohort": parts("donors", "deciding", "planted", "anatomy"),
            "dice_matrix": deciding_cells,
            "case_ranking": whole,
        },
        settings=(
            *(*CLUSTERED, "similarity.smallest_cluster", "similarity.largest_cluster"),
            *("similarity.level", "similarity.permutations", "seed"),
        ),
        shows=f"{STEPS}.detection:show_detection",
        kinds=("scipy", "duckdb", "matplotlib"),
        tables=("detection",),
        code="2",
    ),
    Node(
        "case_opinions",
        "patients",
        "What the baseline and every other donor's network say of one case, without a look at its label: their "
        "segmentations, how far they agree, how sure they are.",
        f"{STEPS}.opinions:ask_about_case",
        {
            "cohort": parts("sessions_learned_from", "anatomy"),
            "baseline_weights": whole,
            "case_model": of_donors,
            "case_slices": same_key,
            "dice_row": of_donors_that_spare_work,
        },
        partition="receiver",
        settings=("adaptation.turned_step", "inference.tile_step", "compute.precision"),
        shows=f"{STEPS}.opinions:show_opinions",
        kinds=("pytorch", "parquet"),
        accelerated=True,
        code="2",
    ),
    Node(
        "similarity_classifier",
        "patients",
        "Predicts how well each donor's network will segment a patient without a label; learned from donors and "
        "validation cases that are played as patients.",
        f"{STEPS}.donor_choice:make_classifier",
        {
            "cohort": PartsWhere(("donors", "sessions_learned_from", "anatomy"), plays_cases),
            "dice_matrix": Where(plays_cases, deciding_cells),
            "case_opinions": Where(plays_cases, of_deciding_cases),
        },
        settings=SCORED,
        settings_of_key=SettingsWhere(plays_cases),
        shows=f"{STEPS}.donor_choice:show_classifier",
        code="2",
        kinds=("scikitlearn",),
    ),
    Node(
        "played_case",
        "patients",
        "One case played as a patient: networks are made for it of chosen donors, and only then is its label "
        "looked at. A test case is played with the donors of all rivals.",
        f"{STEPS}.adaptation:play_case",
        {
            "cohort": parts("tests", "anatomy"),
            "baseline_weights": whole,
            "case_model": of_donors,
            "augmented_case": for_training,
            "case_slices": same_key,
            "case_opinions": same_key,
            "similarity_classifier": whole,
            "dice_row": for_played_tests,
            "repeated_row": of_repeats_for_tests,
        },
        partition="receiver",
        settings=(
            *("adaptation.counts", "adaptation.mode", "adaptation.compared", "adaptation.random_draws"),
            *("adaptation.training", "inference.tile_step", "compute.precision", "seed", *SCORED),
        ),
        shows=f"{STEPS}.adaptation:show_play",
        kinds=("pytorch", "parquet"),
        accelerated=True,
    ),
    Node(
        "adaptation_rule",
        "patients",
        "By what a patient gets a network of its own, and how good its segmentation is said to be: from the "
        "donors and validation cases that were played.",
        f"{STEPS}.adaptation:make_rule",
        {
            "cohort": PartsWhere(("validation", "sessions_learned_from", "anatomy"), plays_cases),
            "played_case": Where(plays_cases, of_deciding_cases),
        },
        settings=(
            *("adaptation.fewest_judges", "adaptation.gain_level", "adaptation.quality_level"),
            *SCORED,
        ),
        settings_of_key=SettingsWhere(plays_cases),
        shows=f"{STEPS}.adaptation:show_rule",
        code="2",
        kinds=("scikitlearn",),
    ),
    Node(
        "adaptation_evidence",
        "patients",
        "Whether a choice of donors for each patient is better than one network for all: every test case was "
        "played with the donors of all rivals.",
        f"{STEPS}.adaptation_evidence:make_evidence",
        {
            "cohort": PartsWhere(("patients", "scanners", "anatomy"), plays_cases),
            "raw_case": Where(plays_cases, of_tests),
            "played_case": Where(plays_cases, of_tests),
            "adaptation_rule": Where(plays_cases, whole),
        },
        settings=(
            *("adaptation.mode", "adaptation.gain_level"),
            *("evidence.level", "evidence.resamples", "evidence.fewest_cases", "seed", *SCORED),
        ),
        settings_of_key=SettingsWhere(plays_cases),
        shows=f"{STEPS}.adaptation_evidence:show_evidence",
        kinds=("scipy", "duckdb", "matplotlib"),
        tables=("adaptation", "played_patient"),
    ),
    Node(
        "patient_opinions",
        "patients",
        "What the baseline and every donor's network say of one patient.",
        f"{STEPS}.opinions:ask_about_patient",
        {
            "cohort": parts("anatomy"),
            "baseline_weights": whole,
            "case_model": of_donors,
            "patient_slices": same_key,
        },
        partition="patient",
        settings=("adaptation.turned_step", "inference.tile_step", "compute.precision"),
        shows=f"{STEPS}.opinions:show_opinions",
        kinds=("pytorch", "parquet"),
        accelerated=True,
        code="2",
    ),
    Node(
        "adapted_model",
        "patients",
        "The network that suits one patient: made of the donors that the classifier chooses, or the baseline "
        "where no gain can be foreseen.",
        f"{STEPS}.patient_network:adapt",
        {
            "cohort": parts("anatomy"),
            "baseline_weights": whole,
            "case_model": of_donors,
            "augmented_case": for_training,
            "patient_opinions": same_key,
            "similarity_classifier": whole,
            "adaptation_rule": whole,
        },
        partition="patient",
        settings=(
            *("adaptation.mode", "adaptation.gain_level", "adaptation.training"),
            *("compute.precision", "seed", *SCORED),
        ),
        shows=f"{STEPS}.patient_network:show_network",
        kinds=("pytorch",),
        accelerated=True,
    ),
    Node(
        "patient_segmentation",
        "patients",
        "The segmentation of one patient, where it may be wrong, and how good it probably is.",
        f"{STEPS}.patient_network:segment_patient",
        {
            "cohort": parts("anatomy"),
            "baseline_weights": whole,
            "case_model": of_donors,
            "case_slices": of_donors,
            "patient_slices": same_key,
            "patient_opinions": same_key,
            "similarity_classifier": whole,
            "adaptation_rule": whole,
            "adapted_model": same_key,
        },
        partition="patient",
        settings=(
            *("adaptation.believe", "adaptation.by_hand", "inference.tile_step", "compute.precision"),
            *SCORED,
        ),
        shows=f"{STEPS}.patient_network:show_patient",
        kinds=("nifti", "pytorch"),
        accelerated=True,
    ),
    Node(
        "case_view",
        "report",
        "What networks see in one case, beside its label: outlines on two slices, Dice and volumes, for the card "
        "that the report has of it.",
        f"{STEPS}.views:view_case",
        {
            "cohort": parts("anatomy"),
            "raw_case": same_key,
            "case_slices": same_key,
            "baseline_weights": whole,
            "case_model": of_own_donor,
            "fold_model": of_own_fold,
            "case_opinions": Where(plays_cases, of_own_receiver),
            "reduced_evaluation": of_full_set_for_tests,
        },
        partition="case",
        settings=("inference.tile_step", "compute.precision"),
        shows=f"{STEPS}.views:show_view",
        kinds=("pytorch", "nifti"),
        accelerated=True,
    ),
    Node(
        "experiment_report",
        "report",
        "The answer, and what it rests on: one HTML page with a card of each case beside it, charts and tables to "
        "take away, and a paragraph on the methods.",
        f"{STEPS}.report:make_report",
        {
            "cohort": whole_with_reviews,
            "case_view": of_cases,
            "baseline_comparison": whole,
            "baseline_weights": whole,
            "augmented_case": of_donors,
            "case_model": of_donors,
            "dice_matrix": whole,
            "dendrogram": whole,
            "case_ranking": whole,
            "removal_plan": whole,
            "reduction_report": whole,
            "evidence": whole,
            "case_effect": whole,
            "confirmation": whole,
            "convergence": whole,
            "cost": whole,
            "fault_detection": whole,
            "similarity_classifier": whole,
            "adaptation_evidence": whole,
            "patient_segmentation": of_patients,
        },
        settings=(
            *("name", "description", "seed", "candidates.best_becomes_baseline", "variants.count"),
            *("reduced.start", "report", "removal.sizes"),
            *("similarity.mode", "similarity.absent_share", *SCORED, "similarity.linkage"),
        ),
        shows=f"{STEPS}.report:show_report",
        kinds=("html",),
        code="5",
    ),
)

GRAPH: dict[str, Node] = {node.name: node for node in _NODES}
"""All assets by name, in dependency order."""


def keys_of(asset: str, versions: str | Mapping[str, str], key: str | None) -> list[str | None]:
    """Keys of the upstream artifacts that some versions are of.

    Args:
        asset: The upstream asset.
        versions: What a selector chose of it.
        key: The partition of the artifact that is made from them.
    """
    if isinstance(versions, Mapping):
        return [*versions]
    return [key if GRAPH[asset].partition else None]


def drawn_edges(asset: str) -> list[str]:
    """Upstream assets of which a picture of the graph need show the edge: those that no other edge implies.

    Where both have partitions, an edge stays: it says which ones, and others do not.
    """
    node = GRAPH[asset]
    direct = [name for name in node.made_from if name in GRAPH]
    implied = {
        name
        for name in direct
        if node.partition is None or GRAPH[name].partition is None
        if any(name in _surely_above(other) for other in direct if other != name)
    }
    return [name for name in direct if name not in implied]


NEVER_EMPTY = (None, "case", "donor", "removal_set")
"""Partitions of which there are always some; what leads through others may lead through nothing."""


def _surely_above(asset: str) -> frozenset[str]:
    """Everything that an asset waits for, whatever the profile leaves out."""
    if GRAPH[asset].partition not in NEVER_EMPTY:
        return frozenset()
    direct = [name for name in GRAPH[asset].made_from if name in GRAPH]
    return frozenset(direct).union(*(_surely_above(name) for name in direct))


def upstream_of(asset: str) -> frozenset[str]:
    """An asset and everything that it is made from, directly or not."""
    above = (upstream_of(name) for name in GRAPH[asset].made_from if name in GRAPH)
    return frozenset({asset}).union(*above)
