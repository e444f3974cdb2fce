"""The networks of the folds, and what they say of the labels that they have not learned from."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from idal_assets.analysis.quality import label_quality
from idal_assets.analysis.scores import confusion, score_table
from idal_assets.imaging.brain_tumour import BRAIN_TUMOUR
from idal_assets.nnunet.compute import taken
from idal_assets.plots.quality import label_quality_figure
from idal_assets.plots.style import png_bytes
from idal_assets.progress import Track
from idal_assets.seeds import derived_seed
from idal_assets.steps.networks import predictor_of, slices_of, train_into
from idal_assets.steps.quality import LABELS_FILE, SCORE_COLUMNS, SCORES_FILE
from idal_assets.study.study import NotMadeError, Study


def train_fold_model(study: Study, fold: str, folder: Path, track: Track) -> None:
    """Trains from scratch on the donors that are not in a fold, with the same seed for every fold."""
    inside = study.folds[fold]
    cases = slices_of(study, [donor for donor in study.cohort.donors if donor not in inside])
    seed = derived_seed(study.profile.seed, "fold_model")
    train_into(study, folder, cases, study.profile.out_of_fold.training, seed, track, fold)


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
        figure = label_quality_figure(labels, scores, BRAIN_TUMOUR.composites)
        (folder / "label_quality.png").write_bytes(png_bytes(figure))
    labels.to_parquet(folder / LABELS_FILE, index=False)
    scores.to_parquet(folder / SCORES_FILE, index=False)


def _judged(study: Study, track: Track) -> tuple[pd.DataFrame, pd.DataFrame]:
    for fold, donors in study.folds.items():
        _ensure_unseen(study, fold, donors)
    # The versions are read before the files, so that a case that changes meanwhile is not taken for the new one.
    versions = {donor: study.version("case_slices", donor) for donor in study.cohort.donors}
    cases = slices_of(study, versions)
    labels, scores = [], []
    with taken(study.profile.compute) as compute:
        for fold, donors in study.folds.items():
            version = study.version("fold_model", fold)
            predictor = predictor_of(study, study.path("fold_model", fold), compute)
            judged = predictor.segment_with_probabilities(cases, donors)
            for donor, (case, predicted, found) in zip(track(donors, f"judge {fold}"), judged, strict=True):
                assert case.truth is not None
                place = {"case_id": donor, "fold": fold}
                labels.append({**place, "label_quality": label_quality(case.needed_label(), found, BRAIN_TUMOUR)})
                counted = score_table(confusion(case.truth, predicted, BRAIN_TUMOUR), BRAIN_TUMOUR.regions)
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
