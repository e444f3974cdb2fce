"""What every network says of a case: of the study's own cases without a look at their labels, and of patients."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from idal_assets.analysis.agreement import BASELINE, agreement_table
from idal_assets.analysis.donor_choice import CaseSigns
from idal_assets.nnunet.compute import Compute, taken
from idal_assets.nnunet.model_folder import HeldWeights
from idal_assets.nnunet.opinions import (
    KeptOpinions,
    Opinion,
    image_statistics,
    kept_opinions,
    load_labels,
    opinions,
    pooled_features,
    save_labels,
)
from idal_assets.nnunet.plans import Plans
from idal_assets.nnunet.prediction import Predictor
from idal_assets.nnunet.slices import CaseSlices, load_slices
from idal_assets.nnunet.training import Weights
from idal_assets.steps.networks import held_weights
from idal_assets.store.artifacts import COMPUTE_FILE
from idal_assets.study.making import Task

OPINIONS_FILE = "opinions.parquet"
IMAGE_FILE = "image.npz"
OF_NETWORK = ["model", "model_version", "confidence", "turned"]


def ask_about_case(task: Task) -> None:
    """Lets the baseline and the networks of all other donors segment one of the study's cases.

    A network that this case trained, or a case of the same patient, is not asked. What the networks say is the
    same whatever the label is.
    """
    sessions = task.cohort.sessions_learned_from
    own = sessions.get(task.key, task.key)
    asked = [donor for donor in task.keys("case_model") if sessions.get(donor, donor) != own]
    _ask(task, "case_slices", asked, _said_in_rows(task, asked))


def ask_about_patient(task: Task) -> None:
    """Lets the baseline and the networks of all donors segment a patient."""
    _ask(task, "patient_slices", task.keys("case_model"), {})


def _ask(task: Task, slices: str, donors: Sequence[str], said_elsewhere: Mapping[str, "Said"]) -> None:
    """Writes `labels.b2nd`, `opinions.parquet` (a row a network and region) and `image.npz`.

    What a network said before, or elsewhere, is taken over where neither it nor the case has changed.
    """
    versions = {BASELINE: task.upstream_version("baseline_weights")}
    versions |= {donor: task.upstream_version("case_model", donor) for donor in donors}
    baseline = task.path("baseline_weights")
    folders = {BASELINE: baseline, **{donor: task.path("case_model", donor) for donor in donors}}
    case = load_slices(task.path(slices, task.key), task.key)
    before = {**_before(task, slices), **said_elsewhere}
    known = {name: said for name, said in before.items() if versions.get(name) == said[0]["model_version"]}
    plans, weights = Plans.load(baseline), NetworksOnDisk(folders, held_weights(task.compute.weights_memory_gb))
    missing = [name for name in versions if name not in known]
    with taken(task.compute) as compute:
        (task.folder / COMPUTE_FILE).write_text(str(compute))
        known |= dict(_said(task, missing, weights, case, plans, compute, versions))
        pooled = pooled_features(weights[BASELINE], plans, case, compute)
    labels = np.stack([known[name][1] for name in versions])
    save_labels(task.folder, labels)
    anatomy = task.cohort.anatomy
    table = agreement_table(list(versions), labels, anatomy.regions, anatomy.size)
    of_network = pd.DataFrame([known[name][0] for name in versions])
    table.merge(of_network, on="model").to_parquet(task.folder / OPINIONS_FILE, index=False)
    np.savez(task.folder / IMAGE_FILE, statistics=image_statistics(case), pooled=pooled)


Said = tuple[dict[str, Any], NDArray[np.uint8]]


def _said(
    task: Task,
    names: Sequence[str],
    weights: "NetworksOnDisk",
    case: CaseSlices,
    plans: Plans,
    compute: Compute,
    versions: Mapping[str, str],
) -> Iterator[tuple[str, Said]]:
    if not names:
        return
    inference = task.setting("inference")
    predictor = Predictor(weights[BASELINE], plans, inference, task.compute, compute)
    step = task.setting("adaptation.turned_step")
    asked = weights.only(task.track(names, f"opinions on {task.key}"))
    for name, one in opinions(asked, case, predictor, step):
        yield name, _said_by(name, versions[name], one)


def _said_by(name: str, version: str, one: Opinion) -> "Said":
    signs = {"confidence": one.confidence, "turned": one.turned}
    return {"model": name, "model_version": version, **signs}, one.labels


def _before(task: Task, slices: str) -> dict[str, Said]:
    """What networks said of the same slices before."""
    folder, version = task.before_alike, task.upstream_version(slices, task.key)
    if folder is None or task.version_before(slices) != version:
        return {}
    rows = pd.read_parquet(folder / OPINIONS_FILE)[OF_NETWORK].drop_duplicates("model")
    records: list[dict[str, Any]] = rows.to_dict("records")
    return {row["model"]: (row, said) for row, said in zip(records, load_labels(folder), strict=True)}


def _said_in_rows(task: Task, donors: Sequence[str]) -> dict[str, Said]:
    """What was kept of the networks of some donors when their rows of the matrix were made."""
    case = {task.key: task.upstream_version("case_slices", task.key)}
    step = task.setting("adaptation.turned_step")
    found = {}
    for donor in donors:
        if task.is_alike("dice_row", donor):
            version = task.upstream_version("case_model", donor)
            for _, one in kept_opinions(task.path("dice_row", donor), version, case, step):
                found[donor] = _said_by(donor, version, one)
    return found


@contextmanager
def keep_opinions(
    task: Task, network: str, cases: Mapping[str, str], taken_over: Sequence[str]
) -> Iterator[KeptOpinions | None]:
    """Keeps what one network says of cases beside the cells that are made of it.

    Args:
        task: The row in the making.
        network: Version of the network.
        cases: Version of the slices of every case of the row.
        taken_over: Cases whose cells are taken over from the row before; what that one kept is, too.

    Yields:
        What keeps it; None where no case is played as a patient.
    """
    step = task.turned_step
    if step is None:
        yield None
        return
    with KeptOpinions(task.folder, network, cases, step) as kept:
        if before := task.before_alike:
            again = {name: cases[name] for name in taken_over}
            for name, one in kept_opinions(before, network, again, step):
                kept.add(name, one)
        yield kept


class NetworksOnDisk(Mapping[str, Weights]):
    """Networks by name, whose weights are read when they are asked for.

    Args:
        folders: Model folders by name.
        held: What of them stays in memory.
    """

    def __init__(self, folders: Mapping[str, Path], held: HeldWeights) -> None:
        self._folders, self._held = folders, held
        self._names: Any = folders

    def only(self, names: Any) -> "NetworksOnDisk":
        """The same networks, of which these are iterated over."""
        chosen = NetworksOnDisk(self._folders, self._held)
        chosen._names = names
        return chosen

    def __getitem__(self, name: str) -> Weights:
        return self._held[self._folders[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._folders)


def load_signs(folder: Path) -> CaseSigns:
    """What is known of a case without its label."""
    with np.load(folder / IMAGE_FILE, allow_pickle=False) as image:
        return CaseSigns(pd.read_parquet(folder / OPINIONS_FILE), image["statistics"], image["pooled"])


def show_opinions(task: Task) -> Mapping[str, Any]:
    """How far the networks agree on the case."""
    rows = pd.read_parquet(task.folder / OPINIONS_FILE)
    donors = rows[rows["model"] != BASELINE]
    means = donors.groupby("region", sort=False)[
        ["with_baseline", "with_majority", "with_others", "volume"]
    ].mean()
    return {
        "networks": rows["model"].nunique(),
        "mean_agreement": float(donors["with_others"].mean()),
        "by_region": means.reset_index(),
    }
