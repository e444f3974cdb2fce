"""The part `report`, its cases: what networks see in one case, beside its label.

Nobody is asked to believe a score: here is what a person looks at to judge it.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from idal_assets.analysis.scores import confusion, score_table
from idal_assets.anatomy import Anatomy, Legend
from idal_assets.imaging.case import Case
from idal_assets.nnunet.compute import taken
from idal_assets.nnunet.geometry import as_in_file
from idal_assets.nnunet.opinions import load_labels
from idal_assets.nnunet.plans import Plans
from idal_assets.plots.cases import axial_slice, largest_slice, robust_window
from idal_assets.plots.outlines import box_around, grey_png, outline, outlines
from idal_assets.steps.networks import predictor_of, slices_of
from idal_assets.steps.retraining import SEGMENTATIONS
from idal_assets.store.artifacts import COMPUTE_FILE
from idal_assets.study.making import Task

VIEW_FILE = "view.json"

LABEL, FOLD, OTHERS, BASELINE, OWN, FULL = "label", "fold", "others", "baseline", "own", "full"

SOURCE_NAMES: Mapping[str, str] = {
    LABEL: "label",
    FOLD: "network out of fold",
    OTHERS: "networks of the other donors",
    BASELINE: "baseline",
    OWN: "its own model",
    FULL: "network of all donors",
}
"""Who segmented the case, in words and in the order in which they are shown."""

IMPARTIAL = (OTHERS, FOLD, FULL)
"""Those that have not learned from the case's own label, the best witness first."""

Volume = NDArray[np.uint8]


@dataclass(frozen=True)
class _Seen:
    """What there is to look at, all in (x, y, z) of the file.

    Attributes:
        case: The case.
        label: Its label.
        segmentations: What each source says, the label not among them.
        witness: The source that judges the label; None where all have learned from it.
    """

    case: Case
    label: Volume
    segmentations: Mapping[str, Volume]
    witness: str | None


def view_case(task: Task) -> None:
    """Segments a case with the networks that have something to say of it, and draws their outlines.

    Writes `view.json` and the slices as PNG: that with most of the label, and that on which the label and networks
    that have not learned from it differ most. `view.json` says of each source its Dice by region and the volume of
    each label in ml, and outlines what the witness sees that the label lacks, and the other way round.
    """
    anatomy, legend = task.cohort.anatomy, task.legend
    case = task.read_case(task.facts(task.key))
    found = dict(_segmentations(task))
    said = {name: found[name] for name in SOURCE_NAMES if name in found}
    witness = next((name for name in IMPARTIAL if name in said), None)
    seen = _Seen(case, case.require_label(), said, witness)
    view = {
        "case_id": task.key,
        "witness": witness,
        "sources": _sources(seen, anatomy),
        "slices": [_slice(seen, place, why, legend, task.folder) for place, why in _places(seen, legend).items()],
    }
    (task.folder / VIEW_FILE).write_text(json.dumps(view, indent=1))


def _segmentations(task: Task) -> Iterator[tuple[str, Volume]]:
    """Who says what of the case, as the file has it."""
    models = {BASELINE: task.path("baseline_weights")}
    for source, asset in ((OWN, "case_model"), (FOLD, "fold_model")):
        for name in task.keys(asset):
            models[source] = task.path(asset, name)
    cases = slices_of(task, [task.key])
    with taken(task.compute) as compute:
        (task.folder / COMPUTE_FILE).write_text(str(compute))
        for name, model in models.items():
            plans = Plans.load(model)
            ((_, said),) = predictor_of(task, model, plans, compute).segment(cases, [task.key])
            yield name, as_in_file(said, plans)
    for name in task.keys("case_opinions"):
        # the first one is the baseline's
        yield OTHERS, as_in_file(_most_said(load_labels(task.path("case_opinions", name))[1:]), plans)
    for name in task.keys("reduced_evaluation"):
        file = task.path("reduced_evaluation", name) / SEGMENTATIONS / f"{task.key}.nii.gz"
        yield FULL, np.asarray(nib.Nifti1Image.from_filename(file).dataobj).astype(np.uint8)


def _most_said(labels: Volume) -> Volume:
    """What most networks say of each voxel; of as many the lower value. Shape (networks, Z, Y, X) to (Z, Y, X)."""
    votes = [
        sum((said == value for said in labels), np.zeros(labels.shape[1:], np.uint16))
        for value in range(int(labels.max()) + 1)
    ]
    return np.argmax(votes, axis=0).astype(np.uint8)


def _sources(seen: _Seen, anatomy: Anatomy) -> list[dict[str, Any]]:
    """By source its Dice with the label in each region, None where it is not defined, and its volumes in ml."""
    voxel = float(np.prod(seen.case.spacing)) / 1000
    rows = []
    for name, said in {LABEL: seen.label, **seen.segmentations}.items():
        table = score_table(confusion(seen.label, said, anatomy), anatomy.regions).set_index("region")["dice"]
        dice = {region: None if pd.isna(value) else round(float(value), 4) for region, value in table.items()}
        volumes = {label: float((said == value).sum()) * voxel for value, label in anatomy.labels.items()}
        rows.append({"source": name, "dice": {} if name == LABEL else dice, "millilitres": volumes})
    return rows


def _places(seen: _Seen, legend: Legend) -> dict[int, str]:
    """The slices to look at, by place along z, and why."""
    places = {largest_slice(seen.label, legend): "most of the label"}
    if seen.witness:
        # what nobody labelled is neither right nor wrong
        known = seen.label != legend.ignore
        differing = ((seen.segmentations[seen.witness] != seen.label) & known).sum(axis=(0, 1))
        if differing.any():
            places.setdefault(int(differing.argmax()), "label and networks differ most")
    return places


def _slice(seen: _Seen, place: int, why: str, legend: Legend, folder: Path) -> dict[str, Any]:
    """Writes a slice of each channel and says what is drawn over it."""
    case = seen.case

    def cut(volume: NDArray[Any]) -> NDArray[Any]:
        return axial_slice(volume, place, case.affine)

    channels = [cut(channel) for channel in case.image]
    label, said = cut(seen.label), {name: cut(volume) for name, volume in seen.segmentations.items()}
    shown = np.any([channel != channel.min() for channel in channels], axis=0) | (label > 0)
    box = box_around(shown)
    files = []
    for number, (channel, volume) in enumerate(zip(channels, case.image, strict=True)):
        files.append(f"slice_{place}_channel_{number}.png")
        (folder / files[-1]).write_bytes(grey_png(channel[box], robust_window(volume)))
    sources = {name: outlines(labels[box], legend.labels) for name, labels in {LABEL: label, **said}.items()}
    rows, columns = label[box].shape
    return {
        "place": place + 1,
        "of": case.image.shape[3],
        "why": why,
        "rows": rows,
        "columns": columns,
        "aspect": case.spacing[1] / case.spacing[0],
        "channels": files,
        "outlines": sources,
        **_differences(label[box], said[seen.witness][box] if seen.witness else None, legend),
    }


def _differences(label: Volume, said: Volume | None, legend: Legend) -> dict[str, str]:
    """What a source sees that the label lacks, and what the label has that it does not see, as outlines."""
    if said is None:
        return {"lacking": "", "unseen": ""}
    known = label != legend.ignore
    return {
        "lacking": outline((said > 0) & (said != label) & known),
        "unseen": outline((label > 0) & (said == 0) & known),
    }


def load_view(folder: Path) -> dict[str, Any]:
    """Reads what `view_case` wrote."""
    return json.loads((folder / VIEW_FILE).read_text())


def show_view(task: Task) -> Mapping[str, Any]:
    """What each source says: Dice with the label by region, and volumes."""
    rows = [
        {
            "source": SOURCE_NAMES[one["source"]],
            **one["dice"],
            **{f"{label} (ml)": volume for label, volume in one["millilitres"].items()},
        }
        for one in load_view(task.folder)["sources"]
    ]
    return {"sources": pd.DataFrame(rows)}
