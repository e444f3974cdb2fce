"""The network that suits a patient, its segmentation, and how good that probably is."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from idal_assets.analysis.adaptation import Decision, decide
from idal_assets.analysis.agreement import BASELINE, doubt
from idal_assets.analysis.segmentation_quality import Light, light_of, worst_region
from idal_assets.nnunet.compute import taken
from idal_assets.nnunet.ensemble import ensembles
from idal_assets.nnunet.geometry import as_case, as_in_file
from idal_assets.nnunet.model_folder import load_weights, save_model
from idal_assets.nnunet.opinions import Both, load_labels
from idal_assets.nnunet.plans import Plans
from idal_assets.nnunet.prediction import Predictor
from idal_assets.nnunet.slices import CaseSlices, load_slices
from idal_assets.nnunet.training import Trained
from idal_assets.plots.cases import axial_slice, largest_labelled_slice, largest_slice, patient_figure
from idal_assets.plots.style import png_bytes
from idal_assets.report.html import ReportContent, ReportSection, ReportTable, picture_of, render_report
from idal_assets.steps.adaptation import (
    load_rule,
    network_for,
    networks_of,
    quality_signs,
    said_by_donors,
)
from idal_assets.steps.donor_choice import donor_scores, load_classifier
from idal_assets.steps.opinions import load_signs
from idal_assets.store.artifacts import COMPUTE_FILE
from idal_assets.study.making import Task

DECISION_FILE = "decision.json"
PATIENT_FILE = "patient.json"
SEGMENTATION_FILE, DOUBT_FILE, PICTURE = "segmentation.nii.gz", "doubt.nii.gz", "patient.png"
PAGE = "patient.html"
LIGHTS: Mapping[Light, str] = {
    "believe": "may be believed",
    "look": "look at it before you use it",
    "by_hand": "segment by hand",
}
"""What a person should do, in words."""


# --- the network ---


def adapt(task: Task) -> None:
    """Decides which donors make the network of a patient, and makes it.

    Writes `decision.json`: `mode`, `donors` (weight and predicted Dice of each, none for the baseline), expected
    gain and its lower bound, and `folders`, the model folders below the data folder that segment the patient: this
    one, the baseline's, or those of an ensemble's donors. A merged or trained network is an nnU-Net model folder
    here.
    """
    mode = task.setting("adaptation").mode
    predicted, decision = _decide(task)
    plans = Plans.load(task.path("baseline_weights"))
    folders = ["baseline_weights"]
    if decision.count and mode == "ensemble":
        folders = [f"case_model/{donor}" for donor in decision.donors]
    elif decision.count:
        with taken(task.compute) as compute:
            (task.folder / COMPUTE_FILE).write_text(str(compute))
            weights = network_for(task, networks_of(task), mode, decision.donors, plans, compute)
        save_model(task.folder, Trained(weights, pd.DataFrame(), {}), plans)
        folders = [f"{task.asset}/{task.key}"]
    dice = predicted.groupby("donor")["dice"].mean() if len(predicted) else pd.Series(dtype=float)
    found = {
        "adapted": decision.count > 0,
        "mode": mode if decision.count else BASELINE,
        "donors": [
            {"donor": name, "weight": weight, "predicted_dice": float(dice[name])}
            for name, weight in decision.donors.items()
        ],
        "expected_gain": decision.expected,
        "lower_bound": decision.lower if np.isfinite(decision.lower) else None,
        "folders": folders,
    }
    (task.folder / DECISION_FILE).write_text(json.dumps(found, indent=1))


def _decide(task: Task) -> tuple[pd.DataFrame, Decision]:
    """Predictions for every donor in the regions that count, and what follows."""
    rule = load_rule(task.path("adaptation_rule"))
    if rule is None:
        return pd.DataFrame(), Decision(0, {}, 0.0, float("nan"))
    anatomy, scalar = task.cohort.anatomy, task.setting("similarity.scalar")
    classifier = load_classifier(task.path("similarity_classifier"))
    predicted = classifier.predict({task.key: load_signs(task.path("patient_opinions", task.key))})
    scores = donor_scores(predicted, anatomy, scalar)
    decision = decide(scores, rule.gains, task.setting("adaptation").gain_level)
    return predicted[predicted["region"].isin(anatomy.scored(scalar))], decision


def load_decision(folder: Path) -> dict[str, Any]:
    """Reads what was decided for a patient."""
    return json.loads((folder / DECISION_FILE).read_text())


def show_network(task: Task) -> Mapping[str, Any]:
    """Which donors suit the patient, and what that is expected to gain."""
    found = load_decision(task.folder)
    donors = pd.DataFrame(found["donors"], columns=["donor", "weight", "predicted_dice"])
    return {
        "in_words": [_in_words(found)],
        "mode": found["mode"],
        "expected_gain": found["expected_gain"],
        "donors": donors,
    }


def _in_words(found: Mapping[str, Any]) -> str:
    if not found["adapted"]:
        return "No gain can be foreseen for this patient, so the baseline segments it."
    names = ", ".join(one["donor"] for one in found["donors"])
    return (
        f"The network ({found['mode']}) is made of {names}; a gain of {found['expected_gain']:+.3f} is expected."
    )


# --- the segmentation ---


def segment_patient(task: Task) -> None:
    """Segments a patient with its network, and says how good that probably is.

    Writes `segmentation.nii.gz` and `doubt.nii.gz` (share of the donors' networks that say something else, 0 to 1)
    in the geometry of the patient's file, `patient.json` and `patient.png`.
    """
    case = load_slices(task.path("patient_slices", task.key), task.key)
    network, opinions = (task.path(asset, task.key) for asset in ("adapted_model", "patient_opinions"))
    plans, decision = Plans.load(task.path("baseline_weights")), load_decision(network)
    segmentation = _segmented(task, case, plans, decision, network)
    labels = load_labels(opinions)
    map_of_doubt = doubt(segmentation, labels[1:])
    affine = np.asarray(case.properties["affine"])
    nib.save(nib.Nifti1Image(as_in_file(segmentation, plans), affine), task.folder / SEGMENTATION_FILE)
    nib.save(nib.Nifti1Image(as_in_file(map_of_doubt, plans), affine), task.folder / DOUBT_FILE)
    quality = _quality(task, segmentation, labels)
    settings, anatomy = task.setting("adaptation"), task.cohort.anatomy
    regions = anatomy.scored(task.setting("similarity.scalar"))
    light = light_of(quality, regions, settings.believe, settings.by_hand)
    found = {
        "case_id": task.key,
        **{name: decision[name] for name in ("adapted", "mode", "donors", "expected_gain")},
        "quality": quality.round(4).to_dict("index"),
        "light": light,
        "worst_region": worst_region(quality, regions),
        "versions": {
            "segmentation": task.version,
            **{
                asset: task.upstream_version(asset, task.key)
                for asset in ("patient_slices", "patient_opinions", "adapted_model")
            },
            **{
                asset: task.upstream_version(asset)
                for asset in ("baseline_weights", "similarity_classifier", "adaptation_rule")
            },
        },
    }
    (task.folder / PATIENT_FILE).write_text(json.dumps(found, indent=1))
    (task.folder / PICTURE).write_bytes(_picture(task, case, segmentation, map_of_doubt, found, plans))


def _segmented(
    task: Task, case: CaseSlices, plans: Plans, decision: Mapping[str, Any], network: Path
) -> NDArray[np.uint8]:
    shares = {one["donor"]: one["weight"] for one in decision["donors"]}
    networks = networks_of(task)
    with taken(task.compute) as compute:
        (task.folder / COMPUTE_FILE).write_text(str(compute))
        predictor = Predictor(networks[BASELINE], plans, task.setting("inference"), task.compute, compute)
        if decision["mode"] == "ensemble":
            return ensembles(networks, {"": shares}, case, plans, predictor, compute.threads)[""]
        if decision["adapted"]:
            predictor.take(load_weights(network))
        ((_, segmentation),) = predictor.segment(Both({case.case_id: case}), [case.case_id])
    return segmentation


def _quality(task: Task, segmentation: NDArray[np.uint8], labels: NDArray[np.uint8]) -> pd.DataFrame:
    """Predicted Dice of the regions that the segmentation or a donor's network finds; none without a rule."""
    rule, anatomy = load_rule(task.path("adaptation_rule")), task.cohort.anatomy
    if rule is None:
        return pd.DataFrame(columns=["predicted", "low", "high"])
    signs = load_signs(task.path("patient_opinions", task.key))
    known = quality_signs(segmentation, labels, said_by_donors(signs), anatomy.regions)
    found = {
        region
        for region, values in anatomy.regions.items()
        if np.isin(segmentation, values).any() or np.isin(labels, values).any()
    }
    return rule.quality.predict(known[known["region"].isin(found)])


def _picture(
    task: Task,
    case: CaseSlices,
    segmentation: NDArray[np.uint8],
    map_of_doubt: NDArray[np.float32],
    found: Mapping[str, Any],
    plans: Plans,
) -> bytes:
    """The slice of the patient with most labelled voxels, beside those of the chosen donors."""
    legend = task.legend
    as_drawn = as_case(case, plans)
    labels, doubts = (_on_slices(volume, case, plans) for volume in (segmentation, map_of_doubt))
    place = largest_slice(labels, legend)
    donors = [one["donor"] for one in found["donors"]][:DONORS_SHOWN]
    shown = {name: as_case(load_slices(task.path("case_slices", name), name), plans) for name in donors}
    image, segmented, doubted = (
        axial_slice(volume, place, as_drawn.affine) for volume in (as_drawn.image[0], labels, doubts)
    )
    figure = patient_figure(
        f"{task.key}: {LIGHTS[found['light']]}",
        image,
        segmented,
        doubted,
        donors={name: largest_labelled_slice(donor, legend) for name, donor in shown.items()},
        legend=legend,
    )
    return png_bytes(figure)


DONORS_SHOWN = 3
"""Chosen donors whose pictures stand beside the patient's."""


def _on_slices(volume: NDArray, case: CaseSlices, plans: Plans) -> NDArray:
    """A volume of the original geometry on the voxels of the preprocessed case, in (x, y, z)."""
    box = tuple(slice(low, high) for low, high in case.properties["bbox_used_for_cropping"])
    cut = volume[box]
    # where preprocessing resampled, the nearest voxel is good enough for a picture
    places = [
        np.linspace(0, old - 1, new).round().astype(int)
        for old, new in zip(cut.shape, case.image.shape[1:], strict=True)
    ]
    return as_in_file(cut[np.ix_(*places)], plans)


def load_patient(folder: Path) -> dict[str, Any]:
    """Reads what is said of a patient."""
    return json.loads((folder / PATIENT_FILE).read_text())


def show_patient(task: Task) -> Mapping[str, Any]:
    """What to do with the segmentation, and how good it probably is."""
    found = load_patient(task.folder)
    quality = pd.DataFrame.from_dict(found["quality"], orient="index").rename_axis("region").reset_index()
    return {
        "in_words": [f"{LIGHTS[found['light']]}. {_in_words(found)}"],
        "light": found["light"],
        "quality": quality,
        "segmentation": task.folder / SEGMENTATION_FILE,
    }


# --- pages ---

PICTURED = 12
"""Patients whose pictures the report of the study shows."""


def patient_sections(task: Task) -> list[ReportSection]:
    """The patients of a study, what is said of each; nothing where there are none."""
    folders = {name: task.path("patient_segmentation", name) for name in task.keys("patient_segmentation")}
    if not folders:
        return []
    found = {name: load_patient(folder) for name, folder in folders.items()}
    rows = [
        [
            *(name, LIGHTS[said["light"]], _lowest(said)),
            *(
                ", ".join(one["donor"] for one in said["donors"]) or "the baseline",
                f"{said['expected_gain']:+.3f}",
            ),
        ]
        for name, said in found.items()
    ]
    table = ReportTable(
        "Patients",
        ["patient", "what to do", "predicted Dice of the worst region", "network made of", "expected gain"],
        rows,
        "Nobody labelled them: the Dice is predicted from how far the networks agree.",
    )
    pictures = [picture_of(folder / PICTURE, name, _in_words(found[name])) for name, folder in folders.items()]
    return [ReportSection("Patients", "patients", "", [table], pictures[:PICTURED])]


def _lowest(said: Mapping[str, Any]) -> str:
    """The predicted Dice by which the light is given."""
    region = said["worst_region"]
    if region is None:
        return "not known"
    one = said["quality"][region]
    return f"{region} {one['predicted']:.2f} ({one['low']:.2f} to {one['high']:.2f})"


def patient_page(folder: Path) -> str:
    """A page on one patient, for whoever is handed its segmentation."""
    said = load_patient(folder)
    donors = ReportTable(
        "Donors",
        ["donor", "weight", "predicted Dice"],
        [[one["donor"], one["weight"], one["predicted_dice"]] for one in said["donors"]],
        "The predicted Dice of a donor's own network on this patient, mean of the regions that count.",
    )
    quality = ReportTable(
        "Predicted Dice",
        ["region", "predicted", "low", "high"],
        [[region, one["predicted"], one["low"], one["high"]] for region, one in said["quality"].items()],
        "Of regions that the segmentation or a donor's network finds.",
    )
    section = ReportSection(
        "Segmentation",
        "segmentation",
        f"{SEGMENTATION_FILE} holds the labels, {DOUBT_FILE} the share of the networks that say something else.",
        [quality, *([donors] if said["donors"] else [])],
        [
            picture_of(
                folder / PICTURE, said["case_id"], "Its slice with most labelled voxels, and donors that suit."
            )
        ],
    )
    facts = [("Patient", said["case_id"]), ("Network", said["mode"])]
    facts += [(name.replace("_", " "), version) for name, version in said["versions"].items()]
    light = LIGHTS[said["light"]]
    made_with = ReportSection("Made with", "facts", facts=facts)
    return render_report(
        ReportContent(
            f"Patient {said['case_id']}",
            f"{light[0].upper()}{light[1:]}.",
            _in_words(said),
            [section, made_with],
        )
    )


def hand_out(folder: Path, target: Path) -> None:
    """Copies what is made for a patient to where a person wants it, with a page.

    Args:
        folder: Folder of the finished segmentation.
        target: A folder, which may be there; what it holds of an earlier segmentation is replaced.
    """
    target.mkdir(parents=True, exist_ok=True)
    for name in (SEGMENTATION_FILE, DOUBT_FILE, PATIENT_FILE, PICTURE):
        shutil.copyfile(folder / name, target / name)
    (target / PAGE).write_text(patient_page(folder), encoding="utf-8")


def light_in_words(folder: Path) -> str:
    """What to do with a segmentation, its worst region, and what segmented it."""
    said = load_patient(folder)
    return f"{LIGHTS[said['light']]}; predicted Dice of the worst region: {_lowest(said)}. {_in_words(said)}"
