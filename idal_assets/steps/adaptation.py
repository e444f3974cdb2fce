"""Stage 2: the networks that are made for a patient, played on the study's own cases, and the rule of it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from idal_assets.analysis.adaptation import (
    CHOSEN,
    Gain,
    advantage_of,
    chosen_donors,
    decide,
    fit_gain,
)
from idal_assets.analysis.agreement import BASELINE, segmentation_agreement
from idal_assets.analysis.donor_choice import CaseSigns
from idal_assets.analysis.scores import MEAN, held_by_truth, with_scalar
from idal_assets.analysis.segmentation_quality import Quality, fit_quality
from idal_assets.nnunet.compute import Compute, taken
from idal_assets.nnunet.ensemble import ensembles
from idal_assets.nnunet.merging import merged_weights
from idal_assets.nnunet.opinions import Both, load_labels
from idal_assets.nnunet.plans import Plans
from idal_assets.nnunet.prediction import Predictor
from idal_assets.nnunet.slices import CaseSlices, load_slices
from idal_assets.nnunet.training import Weights, train
from idal_assets.seeds import derived_seed, shuffled
from idal_assets.settings import AdaptationMode
from idal_assets.steps.cells import ROW_FILE
from idal_assets.steps.convergence import REPEATED_FILE
from idal_assets.steps.donor_choice import NOT_PLAYED, donor_scores, line_of, predictions_for
from idal_assets.steps.networks import held_weights, scores_of, variants_of
from idal_assets.steps.opinions import NetworksOnDisk, load_signs
from idal_assets.study.making import Task

ARMS_FILE = "arms.parquet"
CHOICES_FILE = "choices.json"
RULE_FILE = "rule.json"
RULE_ROWS_FILE = "played.parquet"
ALL, BEST, AGREEMENT, IMAGE, RANDOM, ORACLE = "all", "best", "agreement", "image", "random", "oracle"
ARM_NAMES = {
    BASELINE: "the baseline",
    CHOSEN: "donors by the classifier",
    BEST: "donors that are best on average",
    AGREEMENT: "donors by agreement alone",
    IMAGE: "donors by image statistics alone",
    RANDOM: "random donors",
    ALL: "all donors",
    ORACLE: "donors by their true Dice (the ceiling)",
}
"""Who chooses the donors, in words."""
SCORE_OF = {CHOSEN: "advantage", BEST: "donor_mean", AGREEMENT: "with_majority", IMAGE: "image_distance"}
"""The column of the predictions by which an arm orders donors."""


@dataclass(frozen=True)
class Arm:
    """A way to make a network for a case.

    Attributes:
        name: Who chooses the donors; one of `ARM_NAMES`.
        mode: What is made of them.
        count: How many donors.
        draw: Which draw of random donors, from 1; 0 for others.
        donors: Weight by donor.
    """

    name: str
    mode: AdaptationMode
    count: int
    draw: int
    donors: Mapping[str, float]

    @property
    def place(self) -> str:
        """A name of its own."""
        return f"{self.name} {self.draw} {self.mode} {self.count}"


# --- playing a case as a patient ---


def play_case(task: Task) -> None:
    """Makes networks for one of the study's cases as if it were a patient, and then looks at its label.

    A donor or validation case is played with the donors that the classifier chooses, so that a rule can be made of
    what that gains; a test case with those of all rivals. Writes `arms.parquet`, a row an arm and region, with its
    Dice and what of it can be known without the label, and `choices.json`: the donors of each arm.
    """
    case = load_slices(task.path("case_slices", task.key), task.key)
    signs = load_signs(task.path("case_opinions", task.key))
    predicted = predictions_for(task.path("similarity_classifier"), task.key, signs)
    arms = _arms(task, predicted)
    labels = load_labels(task.path("case_opinions", task.key))
    plans, anatomy = Plans.load(task.path("baseline_weights")), task.cohort.anatomy
    said = said_by_donors(signs)
    tables = []
    for arm, segmentation in _segmented(task, arms, case, plans):
        scores = scores_of(case, segmentation, plans, anatomy)
        known = quality_signs(segmentation, labels, said, anatomy.regions)
        place = {"case_id": task.key, "arm": arm.name, "mode": arm.mode, "count": arm.count, "draw": arm.draw}
        tables.append(scores.merge(known, on="region").assign(**place))
    pd.concat(tables, ignore_index=True).to_parquet(task.folder / ARMS_FILE, index=False)
    chosen = [{**asdict(arm), "donors": dict(arm.donors)} for arm in arms]
    advantages = donor_scores(predicted, anatomy, task.setting("similarity.scalar"))
    crossed = bool(task.keys("repeated_row"))
    found = {"advantages": advantages.to_dict(), "arms": chosen, "crossed_oracle": crossed}
    (task.folder / CHOICES_FILE).write_text(json.dumps(found, indent=1))


def _arms(task: Task, predicted: pd.DataFrame) -> list[Arm]:
    """The baseline, and the arms that a case is played with."""
    settings, anatomy = task.setting("adaptation"), task.cohort.anatomy
    scalar = task.setting("similarity.scalar")
    arms = [Arm(BASELINE, settings.mode, 0, 0, {})]
    scores = {name: donor_scores(predicted, anatomy, scalar, column) for name, column in SCORE_OF.items()}
    if task.key not in task.cohort.tests:
        return arms + _chosen(CHOSEN, [settings.mode], settings.counts, scores[CHOSEN])
    for name, found in (*scores.items(), (ORACLE, _true_scores(task))):
        arms += _chosen(name, settings.compared, settings.counts, found)
    donors = list(scores[CHOSEN].index)
    everyone = {name: 1 / len(donors) for name in donors}
    # whatever is compared, these cost no training, and the ensemble of all is what a choice has to beat
    arms += [Arm(ALL, mode, len(donors), 0, everyone) for mode in FREE]
    for draw in range(1, settings.random_draws + 1):
        order = shuffled(donors, task.setting("seed"), "random donors", task.key, draw)
        arms += [
            Arm(RANDOM, mode, len(order[:count]), draw, dict.fromkeys(order[:count], 1 / len(order[:count])))
            for mode in settings.compared
            for count in settings.counts
        ]
    return arms


FREE: tuple[AdaptationMode, ...] = ("merged", "ensemble")
"""Modes that need no training."""


def _chosen(name: str, modes: Sequence[AdaptationMode], counts: Sequence[int], scores: pd.Series) -> list[Arm]:
    return [Arm(name, mode, count, 0, chosen_donors(scores, count)) for mode in modes for count in counts]


def _true_scores(task: Task) -> pd.Series:
    """True Dice of each donor on a test case, by networks of another seed where there are some.

    Networks that are chosen by the very Dice that they are then judged by would seem better than they are.
    """
    first = {donor: task.path("dice_row", donor) / ROW_FILE for donor in task.keys("dice_row")}
    repeated = {donor: task.path("repeated_row", donor) / REPEATED_FILE for donor in task.keys("repeated_row")}
    rows = pd.concat([pd.read_parquet(file) for file in (repeated or first).values()])
    own = rows[rows["receiver"] == task.key]
    regions = task.cohort.anatomy.scored(task.setting("similarity.scalar"))
    counted = own[own["region"].isin(regions) & held_by_truth(own)]
    return counted.groupby("donor")["dice"].mean()


def _segmented(
    task: Task, arms: Sequence[Arm], case: CaseSlices, plans: Plans
) -> list[tuple[Arm, NDArray[np.uint8]]]:
    """The segmentation of each arm in the original geometry."""
    networks = networks_of(task)
    with taken(task.compute) as compute:
        predictor = Predictor(networks[BASELINE], plans, task.setting("inference"), task.compute, compute)
        together = {arm.place: dict(arm.donors) for arm in arms if arm.mode == "ensemble" and arm.count}
        voted = ensembles(networks, together, case, plans, predictor, compute.threads)
        found = []
        for arm in task.track(arms, f"networks for {task.key}"):
            if arm.place in voted:
                found.append((arm, voted[arm.place]))
                continue
            predictor.take(network_for(task, networks, arm.mode, arm.donors, plans, compute))
            ((_, segmentation),) = predictor.segment(Both({case.case_id: case}), [case.case_id])
            found.append((arm, segmentation))
    return found


def networks_of(task: Task) -> NetworksOnDisk:
    """The baseline and the donors' networks that an artifact is made from."""
    donors = {name: task.path("case_model", name) for name in task.keys("case_model")}
    return NetworksOnDisk(
        {BASELINE: task.path("baseline_weights"), **donors}, held_weights(task.compute.weights_memory_gb)
    )


def network_for(
    task: Task,
    networks: NetworksOnDisk,
    mode: AdaptationMode,
    donors: Mapping[str, float],
    plans: Plans,
    compute: Compute,
) -> Weights:
    """The weights of the network that is made of some donors; the baseline where there are none.

    Args:
        task: The artifact in the making.
        networks: Those of `networks_of`.
        mode: `merged`, `tuned` or `scratch`.
        donors: Weight by donor.
        plans: The plans of all networks.
        compute: Device and precision.
    """
    if not donors:
        return networks[BASELINE]
    if mode == "merged":
        return merged_weights(networks[BASELINE], networks, donors)
    seed = derived_seed(task.setting("seed"), "adapted_model")
    initial = networks[BASELINE] if mode == "tuned" else None
    settings = task.setting("adaptation").training
    cases = variants_of(task, list(donors))
    return train(cases, plans, settings, compute, seed, initial, task.track, f"adapt to {task.key}").weights


def said_by_donors(signs: CaseSigns) -> pd.DataFrame:
    """What the donors' networks say of a case on average, whatever its segmentation; indexed by region."""
    donors = signs.networks[signs.networks["model"] != BASELINE]
    return donors.groupby("region", sort=False)[["with_others", "confidence", "turned"]].mean()


def quality_signs(
    segmentation: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    said: pd.DataFrame,
    regions: Mapping[str, Sequence[int]],
) -> pd.DataFrame:
    """What can be known of a segmentation without a label: `region` and the features of its quality.

    Args:
        segmentation: Shape (Z, Y, X).
        labels: What the networks say, the baseline first, shape (networks, Z, Y, X).
        said: That of `said_by_donors`.
        regions: Label values of each region, by name.
    """
    agreed = segmentation_agreement(segmentation, labels[1:], regions)
    return agreed.join(said, how="inner").reset_index()


def load_arms(folder: Path) -> pd.DataFrame:
    """Reads what `play_case` wrote of every arm."""
    return pd.read_parquet(folder / ARMS_FILE)


def load_choices(folder: Path) -> dict[str, Any]:
    """Reads which donors each arm has, what the classifier predicts of every donor, and how the oracle chose."""
    return json.loads((folder / CHOICES_FILE).read_text())


def show_play(task: Task) -> Mapping[str, Any]:
    """Dice of each arm."""
    regions = task.cohort.anatomy.scored(task.setting("similarity.scalar"))
    scalars = arm_scalars(load_arms(task.folder), regions)
    return {"arms": scalars.drop(columns="case_id").sort_values("dice", ascending=False)}


PLACE = ["case_id", "arm", "mode", "count", "draw"]


def arm_scalars(arms: pd.DataFrame, regions: Sequence[str]) -> pd.DataFrame:
    """The scalar of each arm on each case, over the regions that the label holds."""
    rows = with_scalar(arms[[*PLACE, "region", "dice", "tp", "fp", "fn"]], PLACE, regions, held_only=True)
    return rows.loc[rows["region"] == MEAN, [*PLACE, "dice"]].reset_index(drop=True)


# --- the rule ---


@dataclass(frozen=True)
class Rule:
    """By what a patient gets a network of its own, and how good its segmentation is said to be.

    Attributes:
        gains: What each number of donors gains.
        quality: What predicts the Dice.
        judges: The cases that judged.
    """

    gains: Mapping[int, Gain]
    quality: Quality
    judges: Sequence[str]


def make_rule(task: Task) -> None:
    """Makes the rule of the cases that were played and are not tests; writes `rule.json` and `played.parquet`."""
    names = task.keys("played_case")
    if not names:
        (task.folder / RULE_FILE).write_text("{}")
        return
    cohort, settings = task.cohort, task.setting("adaptation")
    judges = cohort.validation if len(cohort.validation) >= settings.fewest_judges else names
    arms = pd.concat([load_arms(task.path("played_case", name)) for name in names], ignore_index=True)
    choices = {name: load_choices(task.path("played_case", name)) for name in names}
    regions = cohort.anatomy.scored(task.setting("similarity.scalar"))
    gains = _gains(arm_scalars(arms, regions), choices, judges)
    rows = _quality_rows(arms, choices, gains, settings.gain_level, cohort.sessions_learned_from)
    rows.to_parquet(task.folder / RULE_ROWS_FILE, index=False)
    rule = Rule(gains, fit_quality(rows, judges, settings.quality_level), judges)
    (task.folder / RULE_FILE).write_text(json.dumps(_as_json(rule), indent=1))


def _gains(
    scalars: pd.DataFrame, choices: Mapping[str, Mapping[str, Any]], judges: Sequence[str]
) -> dict[int, Gain]:
    baseline = scalars[scalars["arm"] == BASELINE].set_index("case_id")["dice"]
    chosen = scalars[scalars["arm"] == CHOSEN]
    found = {}
    for count, rows in chosen.groupby("count"):
        dice = rows.set_index("case_id")["dice"]
        gain = [float(dice[name] - baseline[name]) for name in judges]
        advantage = [_advantage(choices[name], int(str(count))) for name in judges]
        found[int(str(count))] = fit_gain(np.asarray(advantage), np.asarray(gain))
    return found


def _advantage(choices: Mapping[str, Any], count: int) -> float:
    (arm,) = [arm for arm in choices["arms"] if arm["name"] == CHOSEN and arm["count"] == count]
    return advantage_of(pd.Series(choices["advantages"]), arm["donors"])


def _quality_rows(
    arms: pd.DataFrame,
    choices: Mapping[str, Mapping[str, Any]],
    gains: Mapping[int, Gain],
    level: float,
    sessions: Mapping[str, str],
) -> pd.DataFrame:
    """Segmentations from which the quality is learned, and which of them a patient would get."""
    decided = {name: decide(pd.Series(found["advantages"]), gains, level).count for name, found in choices.items()}
    rows = arms[arms["arm"].isin([BASELINE, CHOSEN])].rename(columns={"case_id": "case"})
    return rows.assign(
        group=[sessions.get(name, name) for name in rows["case"]],
        final=rows["count"] == rows["case"].map(decided),
        dice=rows["dice"].where(held_by_truth(rows)),
    )


def _as_json(rule: Rule) -> dict[str, Any]:
    quality = rule.quality
    return {
        "gains": {str(count): asdict(gain) for count, gain in rule.gains.items()},
        "quality": {
            "regressions": {name: asdict(line) for name, line in quality.regressions.items()},
            "reach": dict(quality.reach),
            "judged": dict(quality.judged),
        },
        "judges": list(rule.judges),
    }


def load_rule(folder: Path) -> Rule | None:
    """Reads what `make_rule` wrote; None where the profile leaves patients out."""
    values = json.loads((folder / RULE_FILE).read_text())
    if not values:
        return None
    quality = values["quality"]
    return Rule(
        {int(count): Gain(**gain) for count, gain in values["gains"].items()},
        Quality(
            {name: line_of(line) for name, line in quality["regressions"].items()},
            quality["reach"],
            quality["judged"],
        ),
        values["judges"],
    )


def show_rule(task: Task) -> Mapping[str, Any]:
    """What each number of donors gained, and how sure the predicted Dice is."""
    rule = load_rule(task.folder)
    if rule is None:
        return {"in_words": [NOT_PLAYED]}
    level = task.setting("adaptation").gain_level
    gains = pd.DataFrame(
        [
            {"donors": count, "mean_gain": gain.expected(gain.mean), "lower_bound": gain.lower(gain.mean, level)}
            for count, gain in rule.gains.items()
        ]
    )
    reach = pd.DataFrame({"half_width": rule.quality.reach}).rename_axis("region").reset_index()
    return {"judging_cases": len(rule.judges), "gains": gains, "interval_of_predicted_dice": reach}
