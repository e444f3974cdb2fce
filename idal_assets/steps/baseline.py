"""The part `baseline`: the network that all case models start from, and the candidates that it is chosen from."""

import json
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from idal_assets.analysis.scores import MEAN
from idal_assets.nnunet.compute import Compute, taken
from idal_assets.nnunet.given import given_weights
from idal_assets.nnunet.in_3d import volume_predictor, workers
from idal_assets.nnunet.model_folder import load_history, load_weights, save_model
from idal_assets.nnunet.plans import CASCADE, CONFIGURATION, Plans
from idal_assets.nnunet.slices import SlicesOnDisk, preprocess
from idal_assets.nnunet.training import Trained
from idal_assets.plots.curves import PSEUDO_DICE, compared_losses, compared_metrics
from idal_assets.plots.style import save_chart
from idal_assets.profile import ProfileError
from idal_assets.report.html import ReportSection, ReportTable, picture_of
from idal_assets.seeds import derived_seed
from idal_assets.settings import CANDIDATES, Loss, TrainingSettings
from idal_assets.steps.cells import read_scores
from idal_assets.steps.networks import scores_of, segment_and_score, show_training, slices_of, train_into
from idal_assets.store.artifacts import COMPUTE_FILE
from idal_assets.study.making import Task
from idal_assets.study.roles import draw_held_out
from idal_assets.study.selectors import COMPARISON_FILE

HELD_OUT_FILE = "held_out.parquet"
TABLE_FILE = "comparison.csv"


# --- candidates ---


def train_candidate(task: Task) -> None:
    """Trains a candidate for the baseline without the held-out cases, and segments these whole.

    Writes `held_out.parquet` with one row a held-out case and region: `case_id`, `region`, `dice`, `iou`, `hd95`
    (not measured here), `tp`, `fp`, `fn`.

    Raises:
        ProfileError: The candidate is of a kind that nnU-Net did not plan for these cases, or a cascade.
    """
    plans = _planned(Plans.load(task.path("nnunet_plans")), task.key)
    source = "raw_case" if plans.is_3d else "case_slices"
    names = task.keys(source)
    seed = task.setting("seed")
    share, patients = task.setting("candidates.held_out_share"), task.cohort.sessions_learned_from
    held_out = draw_held_out(names, share, seed, patients)
    learned_from = [case for case in names if case not in held_out]
    training, seed = _training(task), derived_seed(seed, "baseline_candidate")
    if plans.is_3d:
        with tempfile.TemporaryDirectory(dir=task.folder) as volumes:
            train_into(task, _preprocessed(task, learned_from, plans, Path(volumes)), plans, training, seed)
        tables = list(_judged_in_3d(task, plans, held_out))
    else:
        train_into(task, slices_of(task, learned_from), plans, training, seed)
        description = f"segment with {task.key}"
        segmented = segment_and_score(task, task.folder, held_out, task.cohort.anatomy, description)
        tables = [scores.assign(case_id=name) for name, scores, _ in segmented]
    pd.concat(tables, ignore_index=True).to_parquet(task.folder / HELD_OUT_FILE, index=False)


def _training(task: Task) -> TrainingSettings:
    candidate = CANDIDATES[task.key]
    schedule = task.setting(f"candidates.training_{'2d' if candidate.is_2d else '3d'}")
    return TrainingSettings(**schedule.model_dump(), loss=candidate.loss)


def _planned(plans: Plans, name: str) -> Plans:
    configuration = CANDIDATES[name].configuration
    if configuration == CASCADE:
        raise ProfileError(f"candidates.names asks for {name}: {plans.cascade}; take it out of the profile")
    if configuration not in plans.configurations:
        raise ProfileError(
            f"candidates.names asks for {name}, and nnU-Net planned only {', '.join(plans.configurations)} for "
            "these cases; take it out of the profile"
        )
    return plans if configuration == CONFIGURATION else plans.of(configuration)


def _preprocessed(task: Task, names: Sequence[str], plans: Plans, folder: Path) -> SlicesOnDisk:
    """Preprocesses cases in 3D, which may resample between the slices; the files last as long as the training."""
    folders = {name: folder / name for name in names}
    for name in task.track(names, "preprocess in 3D"):
        folders[name].mkdir()
        preprocess(task.read_case(task.facts(name)), plans).save(folders[name])
    memory_gb = task.compute.slices_memory_gb / max(1, workers(Compute.choose(task.compute)))
    return SlicesOnDisk(folders, memory_gb)


def _judged_in_3d(task: Task, plans: Plans, names: Sequence[str]) -> Iterator[pd.DataFrame]:
    anatomy = task.cohort.anatomy
    with taken(task.compute) as compute:
        segment = volume_predictor(load_weights(task.folder), plans, task.setting("inference"), compute)
        for name in task.track(names, f"segment with {task.key}"):
            case = preprocess(task.read_case(task.facts(name)), plans)
            yield scores_of(case, segment(case), plans, anatomy).assign(case_id=name)


def show_candidate(task: Task) -> Mapping[str, Any]:
    """What the candidate is, its training, and its Dice on the held-out cases."""
    scores = _load_held_out(task.folder, task.cohort.anatomy.scored(task.setting("similarity.scalar")))
    return {
        "configuration": CANDIDATES[task.key].configuration,
        "loss": CANDIDATES[task.key].loss,
        **show_training(task),
        "held_out_dice": scores.pivot(index="case_id", columns="region", values="dice").reset_index(),
    }


def _load_held_out(folder: Path, scalar_regions: Collection[str]) -> pd.DataFrame:
    """Reads how a candidate segmented the held-out cases, one row a case and region, with the scalar."""
    return read_scores(folder / HELD_OUT_FILE, scalar_regions)


# --- comparison ---


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


def compare_candidates(task: Task) -> None:
    """Writes `comparison.json`, and for candidates their table and the figures 3.1 and 3.2 of the thesis.

    Raises:
        ComparisonError: Candidates were judged on different cases.
    """
    names = task.keys("baseline_candidate")
    if not names:
        (task.folder / COMPARISON_FILE).write_text(json.dumps({"candidates": []}))
        return
    regions = task.cohort.anatomy.scored(task.setting("similarity.scalar"))
    folders = {name: task.path("baseline_candidate", name) for name in names}
    scores = {name: _load_held_out(folder, regions) for name, folder in folders.items()}
    histories = {name: load_history(folder) for name, folder in folders.items()}
    held_out = _common_cases(scores)
    table = pd.DataFrame([_row(task, name, histories[name], scores[name]) for name in names])
    true_dice = table.set_index("candidate")["dice"]
    in_2d = true_dice[[CANDIDATES[name].is_2d for name in names]]
    said = {
        "candidates": names,
        "best_2d": str(in_2d.idxmax()) if len(in_2d) else None,
        "held_out": held_out,
        "cascade": Plans.load(folders[names[0]]).cascade,
    }
    (task.folder / COMPARISON_FILE).write_text(json.dumps(said, indent=1))
    table.to_csv(task.folder / TABLE_FILE, index=False)
    save_chart(compared_losses(histories), task.folder / "figure_3_1")
    save_chart(compared_metrics(histories, true_dice.to_dict()), task.folder / "figure_3_2")


def load_comparison(folder: Path) -> Comparison | None:
    """Reads what `compare_candidates` wrote; None where there are no candidates."""
    said = json.loads((folder / COMPARISON_FILE).read_text())
    if not said["candidates"]:
        return None
    return Comparison(pd.read_csv(folder / TABLE_FILE), said["best_2d"], said["held_out"], said["cascade"])


def show_comparison(task: Task) -> Mapping[str, Any]:
    """The candidates side by side."""
    found = load_comparison(task.folder)
    if found is None:
        return {"candidates": "none: candidates.names of the profile is empty"}
    return {
        "candidates": found.table,
        "best_2d": found.best_2d or "no candidate is 2D",
        "held_out": ", ".join(found.held_out),
        "cascade": found.cascade,
    }


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


def _row(task: Task, name: str, history: pd.DataFrame, scores: pd.DataFrame) -> dict[str, object]:
    record = task.upstream("baseline_candidate", name)
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
        **{f"dice_{region}": float(dice[region]) for region in task.cohort.anatomy.regions},
        "seconds": record.seconds,
    }


def _epochs(settings: Mapping[str, Any]) -> int:
    """What the candidate was made with, which may not be what the profile says now."""
    return next(
        values["epochs"] for values in settings.values() if isinstance(values, dict) and "epochs" in values
    )


# --- baseline ---


def train_baseline(task: Task) -> None:
    """Trains the baseline on the donors, or on the pretraining cases if there are any.

    The loss is the profile's, or that of the best 2D candidate where the profile leaves it to the comparison.
    Where the profile names a network that is trained already, that one is taken, if it fits the plans.

    Raises:
        GivenNetworkError: It does not.
    """
    if given := task.setting("baseline").weights:
        plans = Plans.load(task.path("nnunet_plans"))
        weights = given_weights(Path(given), plans)
        save_model(task.folder, Trained(weights, pd.DataFrame({"iteration": [], "loss": []}), {}), plans)
        (task.folder / COMPUTE_FILE).write_text("given")
        return
    cases = slices_of(task, task.keys("case_slices"))
    settings = task.setting("baseline")
    if task.setting("candidates.best_becomes_baseline"):
        settings = settings.model_copy(update={"loss": best_loss(task.path("baseline_comparison"))})
    seed = derived_seed(task.setting("seed"), "baseline_weights")
    train_into(task, cases, Plans.load(task.path("nnunet_plans")), settings, seed)


def best_loss(comparison: Path) -> Loss:
    """Loss of the best 2D candidate.

    Args:
        comparison: Folder of the comparison.
    """
    best = json.loads((comparison / COMPARISON_FILE).read_text())["best_2d"]
    return CANDIDATES[best].loss


# --- section of the report ---


def baseline_sections(task: Task) -> list[ReportSection]:
    """The comparison of candidates for the baseline, where there are any."""
    folder = task.path("baseline_comparison")
    found = load_comparison(folder)
    if found is None:
        return []
    columns = {
        "candidate": "candidate",
        "epochs": "epochs",
        "iterations": "iterations",
        "pseudo_dice": "pseudo Dice",
        **{f"dice_{region}": f"Dice {region}" for region in task.cohort.anatomy.composites},
        "dice": "mean Dice",
        "seconds": "seconds",
    }
    table = ReportTable(
        "Candidates for the baseline (thesis table 3.2)",
        list(columns.values()),
        found.table[list(columns)].to_numpy(object).tolist(),
        "The pseudo Dice is nnU-Net's measure over random patches, in the last epoch and here of training cases. "
        "The other Dice are means over whole held-out cases, which no candidate was trained on; the mean Dice is "
        f"that of the scalar ({task.cohort.anatomy.in_words(task.setting('similarity.scalar'))}).",
    )
    chosen = task.setting("candidates.best_becomes_baseline")
    return [
        ReportSection(
            "Baselines compared",
            "baselines",
            f"Each candidate was trained once and judged on {len(found.held_out)} held-out cases: "
            f"{', '.join(found.held_out)}. The best 2D candidate is {found.best_2d or 'none of these'}; "
            + ("its loss trains the baseline. " if chosen else "the loss of the baseline is the profile's. ")
            + f"{found.cascade}.",
            [table],
            [
                picture_of(folder / "figure_3_1", "Losses", "Thesis figure 3.1. Only losses of one kind compare."),
                picture_of(
                    folder / "figure_3_2",
                    "Pseudo Dice, and the true Dice at its end",
                    "Thesis figure 3.2; mean of the labels for the curves, the scalar of a cell for the diamonds.",
                ),
            ],
        )
    ]
