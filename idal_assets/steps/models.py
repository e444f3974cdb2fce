"""Training and scoring: baseline and its candidates, variants, case models, rows of the matrix, reduced models."""

import shutil
import tempfile
from collections.abc import Collection, Iterable
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from idal_assets.analysis.quality import label_quality
from idal_assets.analysis.scores import SCALAR_REGIONS, confusion, score_table
from idal_assets.analysis.surfaces import hd95_of_regions
from idal_assets.artifacts import COMPUTE_FILE
from idal_assets.imaging.case import Case
from idal_assets.nnunet.compute import Compute, taken
from idal_assets.nnunet.model_folder import earlier_model, load_history, load_weights, save_model
from idal_assets.nnunet.plans import CASCADE, CONFIGURATION, Plans
from idal_assets.nnunet.prediction import Predictor
from idal_assets.nnunet.slices import SlicesOnDisk, load_slices, preprocess, truth_spacing
from idal_assets.nnunet.training import Weights, train
from idal_assets.nnunet.variants import make_variants
from idal_assets.nnunet.volumes import volume_predictor, workers
from idal_assets.plots.cases import axial_slice, most_tumour_slice, variants_figure
from idal_assets.plots.curves import training_curves
from idal_assets.plots.quality import label_quality_figure
from idal_assets.plots.style import png_bytes
from idal_assets.progress import Track
from idal_assets.seeds import derived_seed
from idal_assets.settings import CANDIDATES, ProfileError, TrainingSettings
from idal_assets.steps.cells import EVALUATION_FILE, ROW_FILE, Cells, find_cells, rows_before
from idal_assets.steps.comparison import HELD_OUT_FILE, best_loss
from idal_assets.steps.convergence import EARLY_COLUMNS, EARLY_FILE, early_iterations
from idal_assets.steps.prepare import as_case
from idal_assets.steps.quality import LABELS_FILE, SCORE_COLUMNS, SCORES_FILE
from idal_assets.steps.reductions import load_training_set, training_seed
from idal_assets.study import NotMadeError, Study

SEGMENTATIONS = "segmentations"


def train_candidate(study: Study, name: str, folder: Path, track: Track) -> None:
    """Trains a candidate for the baseline without the held-out cases, and segments these whole.

    Writes `held_out.parquet` with one row a held-out case and region: `case_id`, `region`, `dice`, `tp`, `fp`,
    `fn`.

    Raises:
        ProfileError: The candidate is of a kind that nnU-Net did not plan for these cases, or a cascade.
    """
    configuration = _planned_configuration(study, name)
    settings = study.profile.candidates
    held_out = study.cohort.held_out(settings.held_out_share, study.profile.seed)
    learned_from = [case for case in study.cohort.baseline_cases if case not in held_out]
    training = settings.training(name)
    seed = derived_seed(study.profile.seed, "baseline_candidate")
    if configuration == CONFIGURATION:
        cases = _slices(study, learned_from)
        _train_into(study, folder, cases, training, seed, track, name)
        segmented = _segment(study, folder, held_out, folder, track, f"segment with {name}")
    else:
        plans = Plans.load(study.path("nnunet_plans")).of(configuration)
        with tempfile.TemporaryDirectory(dir=folder) as volumes:
            cases = _preprocessed_volumes(study, learned_from, plans, Path(volumes), track)
            _train_into(study, folder, cases, training, seed, track, name, plans=plans)
        segmented = _segment_volumes(study, folder, plans, held_out, track, f"segment with {name}")
    scores = [table.assign(case_id=case) for case, table, _ in segmented]
    pd.concat(scores, ignore_index=True).to_parquet(folder / HELD_OUT_FILE, index=False)


def _planned_configuration(study: Study, name: str) -> str:
    plans = Plans.load(study.path("nnunet_plans"))
    configuration = CANDIDATES[name].configuration
    if configuration == CASCADE:
        raise ProfileError(f"candidates.names asks for {name}: {plans.cascade}; take it out of the profile")
    if configuration not in plans.configurations:
        raise ProfileError(
            f"candidates.names asks for {name}, and nnU-Net planned only {', '.join(plans.configurations)} for "
            "these cases; take it out of the profile"
        )
    return configuration


def _preprocessed_volumes(
    study: Study, names: list[str], plans: Plans, folder: Path, track: Track
) -> SlicesOnDisk:
    """Preprocesses cases in 3D, which may resample between the slices; the files last as long as the training."""
    folders = {name: folder / name for name in names}
    for name in track(names, "preprocess in 3D"):
        folders[name].mkdir()
        preprocess(study.read_case(name), plans).save(folders[name])
    settings = study.profile.compute
    return SlicesOnDisk(folders, settings.slices_memory_gb / max(1, workers(Compute.choose(settings))))


def train_baseline(study: Study, folder: Path, track: Track) -> None:
    """Trains the baseline on the donors, or on the pretraining cases if there are any.

    The loss is the profile's, or that of the best 2D candidate where the profile leaves it to the comparison.
    """
    cases = _slices(study, study.cohort.baseline_cases)
    settings = study.profile.baseline
    if study.profile.candidates.best_becomes_baseline:
        settings = settings.model_copy(update={"loss": best_loss(study)})
    seed = derived_seed(study.profile.seed, "baseline_weights")
    _train_into(study, folder, cases, settings, seed, track, "baseline")


def make_donor_variants(study: Study, donor: str, folder: Path) -> None:
    """Writes the variants of a donor, one folder each, and a picture of them."""
    case = load_slices(study.path("case_slices", donor), donor)
    variants = make_variants(
        case, study.profile.variants, derived_seed(study.profile.seed, "augmented_case", donor)
    )
    for variant in variants:
        target = folder / variant.case_id
        target.mkdir()
        variant.save(target)
    original, *drawn = (_most_tumour(as_case(study, donor, slices)) for slices in (case, *variants))
    figure = variants_figure(original, drawn, f"{donor}: original and variants (FLAIR)")
    (folder / "variants.png").write_bytes(png_bytes(figure))


def train_case_model(study: Study, donor: str, folder: Path, track: Track) -> None:
    """Fine-tunes the baseline on the variants of one donor.

    Every donor's training draws with the same seed, so that models differ by their case and not by their luck.
    """
    variants = study.path("augmented_case", donor)
    folders = {place.name: place for place in sorted(variants.iterdir()) if place.is_dir()}
    cases = SlicesOnDisk(folders, study.profile.compute.slices_memory_gb)
    initial = load_weights(study.path("baseline_weights"))
    seed = derived_seed(study.profile.seed, "case_model")
    keep_after = early_iterations(study).values()
    _train_into(study, folder, cases, study.profile.case_model, seed, track, donor, initial, keep_after=keep_after)


def train_fold_model(study: Study, fold: str, folder: Path, track: Track) -> None:
    """Trains from scratch on the donors that are not in a fold, with the same seed for every fold."""
    inside = study.folds[fold]
    cases = _slices(study, [donor for donor in study.cohort.donors if donor not in inside])
    seed = derived_seed(study.profile.seed, "fold_model")
    _train_into(study, folder, cases, study.profile.out_of_fold.training, seed, track, fold)


def train_reduced_model(study: Study, removal_set: str, folder: Path, track: Track) -> None:
    """Trains from scratch on the cases that a removal set keeps.

    All sets share their seeds and the number of iterations and train on all their cases: nnU-Net's five folds
    would be drawn anew when cases leave, which would hide what the removal did.
    """
    rows = load_training_set(study.path("training_set", removal_set))
    cases = _slices(study, sorted(rows.loc[rows["kept"], "case_id"]))
    seed = training_seed(study, removal_set)
    _train_into(study, folder, cases, study.profile.reduced, seed, track, removal_set)


def score_case_model(study: Study, donor: str, folder: Path, track: Track) -> None:
    """Segments with one donor's model every receiver that the row before has no cell of.

    Writes `row.parquet` with one row a receiver and region: `donor`, `receiver`, `region`, `dice`, `iou`, `hd95`,
    `tp`, `fp`, `fn`, `model_version`, `receiver_version`. The scalar and the receivers' roles are not in it:
    profile and cohort say what they are when the rows are read. `hd95` is NaN for donors: among them it would
    decide nothing and take time.
    """
    before = rows_before(study, "dice_row", donor, ROW_FILE)
    # The versions are read before the files, so that a case that changes meanwhile is not taken for the new one.
    cells = _cells(study, before, "receiver", study.version("case_model", donor), study.cohort.receivers)
    model = study.path("case_model", donor)
    segmented = _segment(study, model, cells.missing, folder, track, f"segment with {donor}")
    computed = [scores.assign(receiver=name) for name, scores, _ in segmented]
    cells.complete(computed, folder).assign(donor=donor).to_parquet(folder / ROW_FILE, index=False)


def score_labels(study: Study, folder: Path, track: Track) -> None:
    """Segments every donor with the network of its fold and compares that with its label.

    Writes `label_quality.parquet` with one row a donor (`case_id`, `fold`, `label_quality`), `out_of_fold.parquet`
    with one row a donor and region (`case_id`, `fold`, `region`, `dice`, `tp`, `fp`, `fn`, `model_version`,
    `receiver_version`; the scalar is not in it, as in the rows of the matrix), and a picture. Without folds the
    quality of every label is undefined, and there are neither scores nor a picture.

    Raises:
        NotMadeError: A network has learned from a donor of its own fold.
    """
    labels = pd.DataFrame({"case_id": study.cohort.donors, "fold": None, "label_quality": np.nan})
    scores = pd.DataFrame(columns=list(SCORE_COLUMNS))
    if study.folds:
        labels, scores = _judged(study, track)
        figure = label_quality_figure(labels, scores, SCALAR_REGIONS["regions"])
        (folder / "label_quality.png").write_bytes(png_bytes(figure))
    labels.to_parquet(folder / LABELS_FILE, index=False)
    scores.to_parquet(folder / SCORES_FILE, index=False)


def _judged(study: Study, track: Track) -> tuple[pd.DataFrame, pd.DataFrame]:
    for fold, donors in study.folds.items():
        _ensure_unseen(study, fold, donors)
    # The versions are read before the files, so that a case that changes meanwhile is not taken for the new one.
    versions = {donor: study.version("case_slices", donor) for donor in study.cohort.donors}
    cases = _slices(study, versions)
    labels, scores = [], []
    with taken(study.profile.compute) as compute:
        for fold, donors in study.folds.items():
            version = study.version("fold_model", fold)
            predictor = _predictor(study, study.path("fold_model", fold), compute)
            judged = predictor.segment_with_probabilities(cases, donors)
            for donor, (case, predicted, found) in zip(track(donors, f"judge {fold}"), judged, strict=True):
                assert case.truth is not None
                place = {"case_id": donor, "fold": fold}
                labels.append({**place, "label_quality": label_quality(case.label, found)})
                counted = score_table(confusion(case.truth, predicted))
                scores.append(counted.assign(**place, model_version=version, receiver_version=versions[donor]))
    return pd.DataFrame(labels).sort_values("case_id", ignore_index=True), pd.concat(scores, ignore_index=True)


def _ensure_unseen(study: Study, fold: str, donors: Iterable[str]) -> None:
    """A network from before the folds changed may know a donor of its fold, which would flatter that label."""
    learned_from = study.provenance("fold_model", fold).inputs.made_from["case_slices"]
    seen = [donor for donor in donors if donor in learned_from]
    if seen:
        raise NotMadeError(
            f"fold_model of {fold} has learned from {', '.join(seen)}, now in that fold; materialize it again"
        )


def score_early_models(study: Study, donor: str, folder: Path, track: Track) -> None:
    """Segments the cases that decide with what one donor's model was earlier in its training.

    Writes `early_row.parquet` with one row a share of the iterations, receiver and region: `share`, `donor`,
    `receiver`, `region`, `dice`, `tp`, `fp`, `fn`; no row where the profile asks for no share.
    """
    receivers = study.cohort.deciding
    tables = [pd.DataFrame(columns=EARLY_COLUMNS)]
    for share, iterations in early_iterations(study).items():
        model = earlier_model(study.path("case_model", donor), iterations)
        segmented = _segment(study, model, receivers, folder, track, f"segment with {donor} at {share:.0%}")
        tables += [scores.assign(share=share, donor=donor, receiver=name) for name, scores, _ in segmented]
    rows = pd.concat(tables[1:] or tables, ignore_index=True)[EARLY_COLUMNS]
    rows.to_parquet(folder / EARLY_FILE, index=False)


def evaluate_reduced_model(study: Study, removal_set: str, folder: Path, track: Track) -> None:
    """Segments with a retrained network every test case that the evaluation before has no cell of.

    Writes the segmentations, and `evaluation.parquet` with one row a test case and region: `removal_set`,
    `case_id`, `region`, `dice`, `iou`, `hd95`, `tp`, `fp`, `fn`, `model_version`, `receiver_version`.
    """
    target = folder / SEGMENTATIONS
    target.mkdir()
    segmentations = study.path("reduced_evaluation", removal_set) / SEGMENTATIONS
    before = rows_before(study, "reduced_evaluation", removal_set, EVALUATION_FILE)
    if before is not None:
        before = before[before["case_id"].map(lambda name: (segmentations / f"{name}.nii.gz").is_file())]
    cells = _cells(study, before, "case_id", study.version("reduced_model", removal_set), study.cohort.tests)
    for name in cells.present:
        shutil.copyfile(segmentations / f"{name}.nii.gz", target / f"{name}.nii.gz")
    plans = Plans.load(study.path("nnunet_plans"))
    model = study.path("reduced_model", removal_set)
    computed = []
    segmented = _segment(study, model, cells.missing, folder, track, f"segment with {removal_set}")
    for name, scores, predicted in segmented:
        computed.append(scores.assign(case_id=name))
        affine = np.asarray(study.cohort.case(name).facts.affine)
        nib.save(nib.Nifti1Image(_as_in_file(predicted, plans), affine), target / f"{name}.nii.gz")
    rows = cells.complete(computed, folder).assign(removal_set=removal_set)
    rows.to_parquet(folder / EVALUATION_FILE, index=False)


def _cells(
    study: Study, before: pd.DataFrame | None, case_column: str, model_version: str, names: Iterable[str]
) -> Cells:
    versions = {name: study.version("case_slices", name) for name in names}
    return find_cells(before, case_column, model_version, versions, _measured(study))


def _measured(study: Study) -> Collection[str]:
    """Cases on which surface distances are measured."""
    return study.cohort.tests if study.profile.inference.surface_distances else ()


def _most_tumour(case: Case) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """FLAIR and label on the slice with most tumour, as they are drawn."""
    place = most_tumour_slice(case.label)
    return axial_slice(case.image[0], place, case.affine), axial_slice(case.label, place, case.affine)


def _slices(study: Study, names: Iterable[str]) -> SlicesOnDisk:
    found = tuple((name, study.path("case_slices", name), study.version("case_slices", name)) for name in names)
    return _held_slices(found, study.profile.compute.slices_memory_gb)


@lru_cache(maxsize=1)
def _held_slices(cases: tuple[tuple[str, Path, str], ...], memory_gb: float) -> SlicesOnDisk:
    """Every row of the matrix asks for the same receivers, which stay in memory as long as their versions do."""
    return SlicesOnDisk({name: folder for name, folder, _ in cases}, memory_gb)


def _train_into(
    study: Study,
    folder: Path,
    cases: SlicesOnDisk,
    settings: TrainingSettings,
    seed: int,
    track: Track,
    name: str,
    initial: Weights | None = None,
    plans: Plans | None = None,
    keep_after: Collection[int] = (),
) -> None:
    plans = plans or Plans.load(study.path("nnunet_plans"))
    with taken(study.profile.compute) as compute:
        trained = train(cases, plans, settings, compute, seed, initial, track, f"train {name}", keep_after)
    save_model(folder, trained, plans)
    (folder / COMPUTE_FILE).write_text(str(compute))
    (folder / "curves.png").write_bytes(png_bytes(training_curves(load_history(folder))))


def _segment(
    study: Study, model: Path, names: list[str], folder: Path, track: Track, description: str
) -> Iterable[tuple[str, pd.DataFrame, NDArray[np.uint8]]]:
    """Names of the cases, with the table of their scores and their segmentation as `Predictor` gives it."""
    if not names:
        return
    plans = Plans.load(study.path("nnunet_plans"))
    measured = set(_measured(study))
    with taken(study.profile.compute) as compute:
        (folder / COMPUTE_FILE).write_text(str(compute))
        predictor = _predictor(study, model, compute)
        segmented = predictor.segment(_slices(study, names), names)
        for name, (case, predicted) in zip(track(names, description), segmented, strict=True):
            assert case.truth is not None
            spacing = truth_spacing(case, plans)
            hd95 = hd95_of_regions(case.truth, predicted, spacing) if name in measured else None
            yield name, score_table(confusion(case.truth, predicted), hd95), predicted


def _segment_volumes(
    study: Study, model: Path, plans: Plans, names: list[str], track: Track, description: str
) -> Iterable[tuple[str, pd.DataFrame, NDArray[np.uint8]]]:
    with taken(study.profile.compute) as compute:
        segment = volume_predictor(load_weights(model), plans, study.profile.inference, compute)
        for name in track(names, description):
            case = preprocess(study.read_case(name), plans)
            assert case.truth is not None
            predicted = segment(case)
            yield name, score_table(confusion(case.truth, predicted)), predicted


def _predictor(study: Study, model: Path, compute: Compute) -> Predictor:
    profile = study.profile
    plans = Plans.load(study.path("nnunet_plans"))
    return Predictor(load_weights(model), plans, profile.inference, profile.compute, compute)


def _as_in_file(segmentation: NDArray[np.uint8], plans: Plans) -> NDArray[np.uint8]:
    """Undoes nnU-Net's transposition and its (z, y, x) order: back to (x, y, z) as the raw file has it."""
    return segmentation.transpose(plans.manager.transpose_backward).transpose(2, 1, 0)
