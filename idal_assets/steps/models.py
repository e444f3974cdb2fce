"""Training and scoring: baseline, variants, case models, rows of the matrix, reduced models."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from idal_assets.imaging.brain_tumour import BRAIN_TUMOUR
from idal_assets.imaging.case import Case
from idal_assets.nnunet.geometry import as_case, as_in_file
from idal_assets.nnunet.model_folder import earlier_model, load_weights
from idal_assets.nnunet.plans import Plans
from idal_assets.nnunet.slices import SlicesOnDisk, load_slices
from idal_assets.nnunet.variants import make_variants
from idal_assets.plots.cases import axial_slice, largest_slice, variants_figure
from idal_assets.plots.style import png_bytes
from idal_assets.progress import Track
from idal_assets.seeds import derived_seed
from idal_assets.steps.cells import EVALUATION_FILE, ROW_FILE, Cells, find_cells, rows_before
from idal_assets.steps.comparison import best_loss
from idal_assets.steps.convergence import EARLY_COLUMNS, EARLY_FILE, early_iterations
from idal_assets.steps.networks import measured_cases, segment, slices_of, train_into
from idal_assets.steps.reductions import load_training_set, training_seed
from idal_assets.study.study import Study

SEGMENTATIONS = "segmentations"


def train_baseline(study: Study, folder: Path, track: Track) -> None:
    """Trains the baseline on the donors, or on the pretraining cases if there are any.

    The loss is the profile's, or that of the best 2D candidate where the profile leaves it to the comparison.
    """
    cases = slices_of(study, study.cohort.baseline_cases)
    settings = study.profile.baseline
    if study.profile.candidates.best_becomes_baseline:
        settings = settings.model_copy(update={"loss": best_loss(study)})
    seed = derived_seed(study.profile.seed, "baseline_weights")
    train_into(study, folder, cases, settings, seed, track, "baseline")


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
    plans = Plans.load(study.path("nnunet_plans"))
    original, *drawn = (_most_tumour(as_case(slices, plans)) for slices in (case, *variants))
    figure = variants_figure(original, drawn, f"{donor}: original and variants (FLAIR)", BRAIN_TUMOUR)
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
    train_into(study, folder, cases, study.profile.case_model, seed, track, donor, initial, keep_after=keep_after)


def train_reduced_model(study: Study, removal_set: str, folder: Path, track: Track) -> None:
    """Trains from scratch on the cases that a removal set keeps.

    All sets share their seeds and the number of iterations and train on all their cases: nnU-Net's five folds
    would be drawn anew when cases leave, which would hide what the removal did.
    """
    rows = load_training_set(study.path("training_set", removal_set))
    cases = slices_of(study, sorted(rows.loc[rows["kept"], "case_id"]))
    seed = training_seed(study, removal_set)
    train_into(study, folder, cases, study.profile.reduced, seed, track, removal_set)


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
    segmented = segment(study, model, cells.missing, folder, track, f"segment with {donor}")
    computed = [scores.assign(receiver=name) for name, scores, _ in segmented]
    cells.complete(computed, folder).assign(donor=donor).to_parquet(folder / ROW_FILE, index=False)


def score_early_models(study: Study, donor: str, folder: Path, track: Track) -> None:
    """Segments the cases that decide with what one donor's model was earlier in its training.

    Writes `early_row.parquet` with one row a share of the iterations, receiver and region: `share`, `donor`,
    `receiver`, `region`, `dice`, `tp`, `fp`, `fn`; no row where the profile asks for no share.
    """
    receivers = study.cohort.deciding
    tables = [pd.DataFrame(columns=EARLY_COLUMNS)]
    for share, iterations in early_iterations(study).items():
        model = earlier_model(study.path("case_model", donor), iterations)
        segmented = segment(study, model, receivers, folder, track, f"segment with {donor} at {share:.0%}")
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
    segmented = segment(study, model, cells.missing, folder, track, f"segment with {removal_set}")
    for name, scores, predicted in segmented:
        computed.append(scores.assign(case_id=name))
        affine = np.asarray(study.cohort.case(name).facts.affine)
        nib.save(nib.Nifti1Image(as_in_file(predicted, plans), affine), target / f"{name}.nii.gz")
    rows = cells.complete(computed, folder).assign(removal_set=removal_set)
    rows.to_parquet(folder / EVALUATION_FILE, index=False)


def _cells(
    study: Study, before: pd.DataFrame | None, case_column: str, model_version: str, names: Iterable[str]
) -> Cells:
    versions = {name: study.version("case_slices", name) for name in names}
    return find_cells(before, case_column, model_version, versions, measured_cases(study))


def _most_tumour(case: Case) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """FLAIR and label on the slice with most tumour, as they are drawn."""
    assert case.label is not None
    place = largest_slice(case.label, BRAIN_TUMOUR)
    return axial_slice(case.image[0], place, case.affine), axial_slice(case.label, place, case.affine)
