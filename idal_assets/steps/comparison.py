"""The candidates for the baseline side by side, and which of them is the best."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from idal_assets.analysis.scores import MEAN
from idal_assets.imaging.brain_tumour import REGIONS
from idal_assets.plots.curves import PSEUDO_DICE, compared_losses, compared_metrics
from idal_assets.plots.style import png_bytes
from idal_assets.settings import CANDIDATES, Loss
from idal_assets.steps.cells import read_scores
from idal_assets.study.graph import COMPARISON_FILE
from idal_assets.study.study import Study

HELD_OUT_FILE = "held_out.parquet"
TABLE_FILE = "comparison.csv"


class ComparisonError(ValueError):
    """Candidates that cannot be compared; the message says which and why."""


@dataclass(frozen=True)
class Comparison:
    """The candidates side by side.

    Attributes:
        table: One row a candidate: `candidate`, `configuration`, `loss`, `epochs`, `iterations`, `pseudo_dice`
            (mean of the labels in the last epoch), `dice` (mean scalar of the held-out cases), `dice_REGION` (mean
            over the held-out cases in which it is defined), `seconds`.
        best_2d: The 2D candidate with the highest `dice`; None where no candidate is 2D.
        held_out: The cases that all of them were judged on.
        cascade: Whether nnU-Net's planner offered a cascade, in words.
    """

    table: pd.DataFrame
    best_2d: str | None
    held_out: list[str]
    cascade: str


def load_held_out(study: Study, name: str) -> pd.DataFrame:
    """Reads how a candidate segmented the held-out cases, one row a case and region, with the scalar."""
    file = study.path("baseline_candidate", name) / HELD_OUT_FILE
    return read_scores(file, study.profile.similarity.scalar)


def compare_candidates(study: Study, folder: Path) -> None:
    """Writes `comparison.json`, and for candidates their table and the figures 3.1 and 3.2 of the thesis.

    Raises:
        ComparisonError: Candidates were judged on different cases.
    """
    names = study.candidates
    if not names:
        (folder / COMPARISON_FILE).write_text(json.dumps({"candidates": []}))
        return
    # imported here, because the report reads a comparison without PyTorch
    from idal_assets.nnunet.model_folder import load_history
    from idal_assets.nnunet.plans import Plans

    scores = {name: load_held_out(study, name) for name in names}
    histories = {name: load_history(study.path("baseline_candidate", name)) for name in names}
    held_out = _common_cases(scores)
    table = pd.DataFrame([_row(study, name, histories[name], scores[name]) for name in names])
    true_dice = table.set_index("candidate")["dice"]
    in_2d = true_dice[[CANDIDATES[name].is_2d for name in names]]
    said = {
        "candidates": names,
        "best_2d": str(in_2d.idxmax()) if len(in_2d) else None,
        "held_out": held_out,
        "cascade": Plans.load(study.path("baseline_candidate", names[0])).cascade,
    }
    (folder / COMPARISON_FILE).write_text(json.dumps(said, indent=1))
    table.to_csv(folder / TABLE_FILE, index=False)
    (folder / "figure_3_1.png").write_bytes(png_bytes(compared_losses(histories)))
    (folder / "figure_3_2.png").write_bytes(png_bytes(compared_metrics(histories, true_dice.to_dict())))


def load_comparison(folder: Path) -> Comparison | None:
    """Reads what `compare_candidates` wrote; None where there are no candidates."""
    said = json.loads((folder / COMPARISON_FILE).read_text())
    if not said["candidates"]:
        return None
    return Comparison(pd.read_csv(folder / TABLE_FILE), said["best_2d"], said["held_out"], said["cascade"])


def best_loss(study: Study) -> Loss:
    """Loss of the best 2D candidate."""
    best = json.loads((study.path("baseline_comparison") / COMPARISON_FILE).read_text())["best_2d"]
    return CANDIDATES[best].loss


def _common_cases(scores: dict[str, pd.DataFrame]) -> list[str]:
    """The held-out cases, which are the same for all candidates unless one was made before cases came or went."""
    (first, rows), *others = scores.items()
    cases = sorted(rows["case_id"].unique())
    for name, found in others:
        if sorted(found["case_id"].unique()) != cases:
            raise ComparisonError(
                f"The candidates {first} and {name} were judged on different cases, since cases came or went "
                f"between their trainings; materialize baseline_candidate of {first} and of {name} again"
            )
    return cases


def _row(study: Study, name: str, history: pd.DataFrame, scores: pd.DataFrame) -> dict[str, object]:
    record = study.provenance("baseline_candidate", name)
    dice = scores.groupby("region")["dice"].mean()
    pseudo_dice = history.filter(like=PSEUDO_DICE)
    return {
        "candidate": name,
        "configuration": CANDIDATES[name].configuration,
        "loss": CANDIDATES[name].loss,
        "epochs": _epochs(record.inputs.settings),
        "iterations": len(history),
        "pseudo_dice": float(pseudo_dice.iloc[-1].mean()),
        "dice": float(dice[MEAN]),
        **{f"dice_{region}": float(dice[region]) for region in REGIONS},
        "seconds": record.seconds,
    }


def _epochs(settings: Mapping[str, Any]) -> int:
    """What the candidate was made with, which may not be what the profile says now."""
    return next(
        values["epochs"] for values in settings.values() if isinstance(values, dict) and "epochs" in values
    )
