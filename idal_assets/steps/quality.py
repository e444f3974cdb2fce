"""The labels' quality out of fold: its files, and how they are read."""

from pathlib import Path

import pandas as pd

from idal_assets.analysis.scores import MEAN
from idal_assets.steps.cells import read_scores

LABELS_FILE = "label_quality.parquet"
SCORES_FILE = "out_of_fold.parquet"
SCORE_COLUMNS = ("case_id", "fold", "region", "dice", "tp", "fp", "fn", "model_version", "receiver_version")


def load_label_quality(folder: Path, scalar: str) -> pd.DataFrame:
    """Reads what `steps.folds.score_labels` wrote.

    Args:
        folder: Folder of the artifact.
        scalar: Which regions the Dice averages.

    Returns:
        One row a donor: `case_id`, `fold`, `out_of_fold_dice`, `label_quality`; without folds the last three are
        undefined.
    """
    labels = pd.read_parquet(folder / LABELS_FILE)
    scores = read_scores(folder / SCORES_FILE, scalar)
    dice = scores[scores["region"] == MEAN].set_index("case_id")["dice"]
    labels["out_of_fold_dice"] = labels["case_id"].map(dice).astype(float)
    return labels[["case_id", "fold", "out_of_fold_dice", "label_quality"]]
