"""Stage 1: the similarity classifier, fitted on the study's own cases that are played as patients."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from idal_assets.analysis.adaptation import scalar_scores
from idal_assets.analysis.donor_choice import (
    PAIR_FEATURES,
    CaseSigns,
    Classifier,
    Foresight,
    Linear,
    Played,
    Standardised,
    correlation_by_patient,
    fit_classifier,
    predictions_out_of_fold,
)
from idal_assets.analysis.scores import held_by_truth
from idal_assets.anatomy import Anatomy
from idal_assets.plots.patients import classifier_figure
from idal_assets.plots.style import save_chart
from idal_assets.report.html import ReportSection, ReportTable, picture_of
from idal_assets.steps.opinions import load_signs
from idal_assets.steps.similarity import load_deciding_cells
from idal_assets.study.making import Task

CLASSIFIER_FILE = "classifier.json"
PREDICTIONS_FILE = "predictions.parquet"
FACTS_FILE = "facts.json"
PICTURE = "classifier"
NOT_PLAYED = "The profile asks for no adaptation to patients (adaptation.counts)."
"""What is shown of an artifact that is empty because no case is played as a patient."""
RIVALS = {
    "advantage": "classifier",
    "with_majority": "agreement with the majority",
    "with_baseline": "agreement with the baseline",
    "donor_mean": "mean of the donor on other cases",
    "image_distance": "image statistics",
    "feature_distance": "features of the encoder",
}
"""What orders donors for a patient, and its name in words."""


def make_classifier(task: Task) -> None:
    """Fits the classifier on donors and validation cases.

    Writes `classifier.json`; `predictions.parquet`, what classifiers without the patient predict of each pair,
    with the truth; `facts.json`; and a picture. Nothing but an empty `facts.json` where the profile leaves
    patients out.
    """
    names = task.keys("case_opinions")
    if not names:
        (task.folder / FACTS_FILE).write_text("{}")
        return
    cohort, anatomy = task.cohort, task.cohort.anatomy
    signs = {name: load_signs(task.path("case_opinions", name)) for name in names}
    cells = true_cells(load_deciding_cells(task.path("dice_matrix")))
    played = Played(
        signs, cells, {name: signs[name] for name in cohort.donors}, groups=cohort.sessions_learned_from
    )
    classifier = fit_classifier(played, names)
    predicted = predictions_out_of_fold(played, names)
    truth = cells.rename(columns={"receiver": "patient", "dice": "truth"})
    predicted = predicted.merge(truth, on=["patient", "donor", "region"], how="left")
    predicted.to_parquet(task.folder / PREDICTIONS_FILE, index=False)
    (task.folder / CLASSIFIER_FILE).write_text(json.dumps(_as_json(classifier), indent=1))
    regions = anatomy.scored(task.setting("similarity.scalar"))
    facts = {"cases": len(names), "donors": len(cohort.donors), **_facts(predicted, regions)}
    (task.folder / FACTS_FILE).write_text(json.dumps(facts, indent=1))
    importance = _importance(classifier, regions)
    save_chart(classifier_figure(predicted, regions, importance, anatomy), task.folder / PICTURE)


def true_cells(cells: pd.DataFrame) -> pd.DataFrame:
    """Cells as far as the label holds the region: `donor`, `receiver`, `region`, `dice`."""
    return cells.loc[held_by_truth(cells), ["donor", "receiver", "region", "dice"]]


def scalar_truth(cells: pd.DataFrame, regions: Sequence[str]) -> pd.DataFrame:
    """True Dice of every network on every case, the mean of the regions that its label holds.

    Args:
        cells: Rows with `donor`, a column `patient`, `region` and `truth`.
        regions: Which regions count.
    """
    counted = cells[cells["region"].isin(list(regions))]
    return counted.groupby(["patient", "donor"])["truth"].mean().reset_index()


def _facts(predicted: pd.DataFrame, regions: Sequence[str]) -> dict[str, Any]:
    """Rank correlations with the truth, median over the patients, and the mean absolute error."""
    counted = predicted[predicted["region"].isin(list(regions))]
    scores = counted.groupby(["patient", "donor"])[list(RIVALS)].mean().reset_index()
    truth = scalar_truth(counted, regions)
    known = counted.dropna(subset=["truth"])
    return {
        "rank_correlation": {name: float(correlation_by_patient(scores, name, truth).median()) for name in RIVALS},
        "mean_absolute_error": float((known["dice"] - known["truth"]).abs().mean()),
    }


def _importance(classifier: Classifier, regions: Sequence[str]) -> pd.Series:
    """Mean size of the standardised weights of a feature, over the regions that count."""
    weights = pd.DataFrame(
        {
            region: dict(zip(line.features, line.weights, strict=True))
            for region, line in classifier.advantage.items()
        }
    )
    counted = [region for region in weights if region in regions]
    return weights[counted].abs().mean(axis=1).loc[list(PAIR_FEATURES)]


def _as_json(classifier: Classifier) -> dict[str, Any]:
    return {
        "advantage": {name: asdict(line) for name, line in classifier.advantage.items()},
        "level": {name: asdict(line) for name, line in classifier.level.items()},
        "donors": classifier.donors.to_dict("records"),
        "foresight": {
            name: {"weights": found.weights.T.to_dict("list"), "intercept": found.intercept.to_dict()}
            for name, found in classifier.foresight.items()
        },
        **{
            name: {**vars(images), "donors": images.donors.T.to_dict("list")}
            for name, images in (("images", classifier.images), ("pooled", classifier.pooled))
        },
    }


def load_classifier(folder: Path) -> Classifier:
    """Reads what `make_classifier` wrote."""
    values = json.loads((folder / CLASSIFIER_FILE).read_text())
    return Classifier(
        advantage=_lines(values["advantage"]),
        level=_lines(values["level"]),
        donors=pd.DataFrame(values["donors"]),
        foresight={
            name: Foresight(pd.DataFrame(found["weights"]).T, pd.Series(found["intercept"]))
            for name, found in values["foresight"].items()
        },
        **{
            name: Standardised(**{**values[name], "donors": pd.DataFrame(values[name]["donors"]).T})
            for name in ("images", "pooled")
        },
    )


def _lines(values: Mapping[str, Mapping[str, Any]]) -> dict[str, Linear]:
    return {name: line_of(found) for name, found in values.items()}


def line_of(values: Mapping[str, Any]) -> Linear:
    """A regression as `asdict` wrote it."""
    features, mean, scale, weights = (tuple(values[name]) for name in ("features", "mean", "scale", "weights"))
    return Linear(features, mean, scale, weights, values["intercept"])


def load_facts(folder: Path) -> dict[str, Any]:
    """How well the classifier predicts; empty where there is none."""
    return json.loads((folder / FACTS_FILE).read_text())


def load_predictions(folder: Path) -> pd.DataFrame:
    """What classifiers without the patient predict of each pair of the cases that it learned from."""
    return pd.read_parquet(folder / PREDICTIONS_FILE)


def predictions_for(folder: Path, case: str, signs: CaseSigns) -> pd.DataFrame:
    """What the classifier predicts for a case, without having learned from it where it could have.

    Args:
        folder: The classifier's.
        case: Its name.
        signs: What is known of it.
    """
    learned_from = load_predictions(folder)
    own = learned_from[learned_from["patient"] == case]
    return own if len(own) else load_classifier(folder).predict({case: signs})


def donor_scores(predicted: pd.DataFrame, anatomy: Anatomy, scalar: str, column: str = "advantage") -> pd.Series:
    """One score a donor, from which donors are chosen."""
    return scalar_scores(predicted, column, anatomy.scored(scalar))


def show_classifier(task: Task) -> Mapping[str, Any]:
    """How well donors are ordered for a patient whose label is hidden."""
    facts = load_facts(task.folder)
    if not facts:
        return {"in_words": [NOT_PLAYED]}
    return {
        "cases": facts["cases"],
        "mean_absolute_error": facts["mean_absolute_error"],
        "rank_correlations": _correlations(facts),
    }


def _correlations(facts: Mapping[str, Any]) -> pd.DataFrame:
    rows = [(RIVALS[name], value) for name, value in facts["rank_correlation"].items()]
    return pd.DataFrame(rows, columns=["donors_ordered_by", "rank_correlation"])


def classifier_section(task: Task) -> ReportSection:
    """How well the classifier knows which donors suit a patient."""
    folder = task.path("similarity_classifier")
    facts = load_facts(folder)
    text = (
        f"Each of {facts['cases']} donors and validation cases was played as a patient whose label is hidden: a "
        "classifier that had not seen it predicted the Dice of every other donor's network on it, from what the "
        "networks say of each other and from the images. The predicted Dice is wrong by "
        f"{facts['mean_absolute_error']:.3f} on average."
    )
    table = ReportTable(
        "How well donors are ordered for a patient",
        ["donors ordered by", "rank correlation"],
        [list(row) for row in _correlations(facts).itertuples(index=False)],
        "Spearman's, with the true Dice of the donors' networks; the median over the patients.",
    )
    picture = picture_of(folder / PICTURE, "The classifier", "Predicted and true Dice, and what it looks at.")
    return ReportSection("Which donors suit a patient", "donor-choice", text, [table], [picture])
