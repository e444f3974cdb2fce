"""A study with its instance in the smallest experiment that shows every rerun, and what each change must rerun."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import dagster as dg
import nibabel as nib
import numpy as np
import pytest
import yaml
from rich.progress import Progress as Bars

from idal_assets.imaging.phantom import write_phantom
from idal_assets.orchestration.definitions import build_definitions
from idal_assets.orchestration.instance import AUTOMATIC_TAG, open_instance
from idal_assets.orchestration.resources import StepProgress, StudyResource
from idal_assets.orchestration.runner import Runner
from idal_assets.profile import PROFILE_FOLDER
from idal_assets.progress import silently
from idal_assets.settings import PhantomSettings
from idal_assets.study.currency import all_states, survey
from idal_assets.study.graph import GRAPH, PARTITIONS
from idal_assets.study.making import make
from idal_assets.study.study import Study
from idal_assets_tests.conftest import made_once, nothing_drawn
from idal_assets_tests.raw_folders import msd_entry

DONORS = tuple(f"phantom_train_{number:02}" for number in range(1, 5))
TESTS = ("phantom_test_01", "phantom_test_02")
SETS = ("all", "worst_1", "worst_cluster")
NEW = "phantom_train_99"
Places = Counter[tuple[str, str | None]]
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}

LITTLE = {"epochs": 1, "iterations_per_epoch": 2, "optimizer": "adam", "learning_rate": 0.003}
CHANGES: dict[str, Any] = {
    "baseline": LITTLE,
    "case_model": LITTLE,
    "reduced": LITTLE,
    "out_of_fold": {"folds": 2, "training": LITTLE},
    "variants": {"count": 1},
    "cohort": {"test_cases": ["phantom_test_*"], "minimum_donors": 3},
    "removal": {"sizes": [1]},
    "controls": {"random": 0},
    "confirmation": {"seeds": 0},
    "automation": {"settle_seconds": 0},
}

MATRIX = ("dice_matrix",)
DECISION = ("dendrogram", "case_ranking", "convergence", "fault_detection", "removal_plan")
REPORTS = ("reduction_report", "evidence", "case_effect", "confirmation", "experiment_report")
COST = ("cost",)


def once(*assets: str, keys: Sequence[str | None] = (None,)) -> Places:
    return Counter({(asset, key): 1 for asset in assets for key in keys})


# --- what each change must rerun ---


def after_edited_donor(
    world: "World", donor: str, donors: Sequence[str], refolded: Sequence[str], retrained: Sequence[str]
) -> Places:
    """Also after one has arrived; `refolded` and `retrained` are folds and sets whose training cases changed."""
    return views(world, refolded, donor) | (
        once("raw_case", "case_slices", "augmented_case", "case_model", keys=[donor])
        + once("fold_model", keys=refolded)
        + once("label_quality", "donor_signals")
        + after_other_rows(donors, retrained)
    )


def after_removed_case(
    world: "World", donors_left: Sequence[str], refolded: Sequence[str], retrained: Sequence[str]
) -> Places:
    return views(world, refolded) | (
        once("label_quality", "donor_signals")
        + once("fold_model", keys=refolded)
        + after_other_rows(donors_left, retrained)
    )


def after_edited_test_case(case: str, donors: Sequence[str]) -> Places:
    return (
        once("cohort")
        + once("raw_case", "case_slices", keys=[case])
        + once("dice_row", keys=donors)
        + once("reduced_evaluation", keys=SETS)
        + once("case_view", keys=TESTS)
        + once(*MATRIX, "convergence", *REPORTS, *COST)
    )


def views(world: "World", refolded: Sequence[str], *edited: str) -> Places:
    """Donors are looked at with the networks of their folds."""
    judged = [donor for fold in refolded for donor in world.study.folds[fold]]
    return Counter(dict.fromkeys((("case_view", case) for case in (*edited, *judged)), 1))


def after_other_rows(donors: Sequence[str], retrained: Sequence[str]) -> Places:
    rows = once("dice_row", "early_row", "repeated_row", keys=donors)
    return rows + once(*MATRIX) + (after_other_distance(retrained) | once(*COST))


def after_other_distance(retrained: Sequence[str]) -> Places:
    return (
        once(*DECISION)
        + once("training_set", keys=SETS)
        + once("reduced_model", "reduced_evaluation", keys=retrained)
        # test cases are looked at with the network of all donors
        + once("case_view", keys=TESTS if "all" in retrained else ())
        + once(*REPORTS, *(COST if retrained else ()))
    )


# --- the study ---


def new_world(root: Path) -> "World":
    """A study of which there is only the raw folder and the profile."""
    tiny = yaml.safe_load((PROFILE_FOLDER / "tiny.yaml").read_text())
    write_phantom(root / "raw", PhantomSettings(**{**tiny["phantom"], "train_cases": len(DONORS)}), silently)
    (root / "own.yaml").write_text(yaml.safe_dump({**tiny, **CHANGES}))
    return World(root)


def finished_world(factory: pytest.TempPathFactory) -> Path:
    """A finished run of little training, once for the tests of all processes; they copy it."""

    def run(root: Path) -> None:
        world = new_world(root / "world")
        with world.instance, nothing_drawn():
            Runner(world.study, world.instance, Bars(disable=True), silently).run()

    return made_once(factory, "world", run) / "world"


def rerun(study: Study) -> Places:
    """Makes what is due until nothing is, without Dagster; says what was made, and how often."""
    found: Places = Counter()
    make(study, "cohort")
    while places := [
        (asset, key)
        for asset, standings in survey(study).items()
        for key, standing in standings.items()
        if standing.due
    ]:
        for asset, key in places:
            make(study, asset, key, by_itself=True)
        found.update(places)
    return found


class World:
    """A study with its instance, driven as the daemon drives it: looks, conditions, runs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.raw = root / "raw"
        self.profile = root / "own.yaml"
        self.resource = StudyResource(data_dir=str(root / "data"), profile=str(self.profile), raw=str(self.raw))
        self.instance = open_instance(self.study.folder)
        self.reload()
        self._cursor: Any = None
        self._look: str | None = None

    @property
    def study(self) -> Study:
        return self.resource.open()

    def reload(self) -> None:
        """Loads the code location again, which reads how the switches are delivered."""
        self.definitions = build_definitions(self.resource, StepProgress(silently))
        self._job = self.definitions.resolve_implicit_global_asset_job_def()

    def change_profile(self, **sections: dict[str, Any]) -> None:
        values = yaml.safe_load(self.profile.read_text())
        for name, changes in sections.items():
            values[name] = {**values.get(name, {}), **changes}
        self.profile.write_text(yaml.safe_dump(values))

    # --- what a tick does ---

    def tick(self) -> dg.SensorResult:
        """One look of the raw folder's sensor."""
        sensor = self.definitions.resolve_sensor_def("raw_folder")
        found = sensor(dg.build_sensor_context(instance=self.instance, cursor=self._look))
        self._look = found.cursor or self._look
        return found

    def look(self) -> None:
        """Two looks alike, and the run that they request."""
        self.tick()
        for request in self.tick().run_requests or []:
            done = self.definitions.resolve_job_def(request.job_name).execute_in_process(
                instance=self.instance, tags=request.tags, run_config={**QUIET}
            )
            assert done.success

    def requested(self) -> list[tuple[str, str | None]]:
        """What the conditions request at one tick, in dependency order."""
        keys = {name: self.instance.get_dynamic_partitions(name) for name in PARTITIONS}
        # Outside of a daemon each evaluation would read the partitions some thousand times from the database.
        with mock.patch.object(
            self.instance, "get_dynamic_partitions", lambda partitions_def_name: keys[partitions_def_name]
        ):
            found = dg.evaluate_automation_conditions(self.definitions, self.instance, cursor=self._cursor)
        self._cursor = found.cursor
        return [
            (name, key)
            for name in GRAPH
            for key in sorted(found.get_requested_partitions(dg.AssetKey(name)), key=str)
        ]

    def materialize(self, name: str, key: str | None = None, by_itself: bool = False) -> bool:
        return self._job.execute_in_process(
            instance=self.instance,
            partition_key=key,
            asset_selection=[dg.AssetKey(name)],
            run_config=QUIET,
            tags={AUTOMATIC_TAG: "true"} if by_itself else {},
            raise_on_error=False,
        ).success

    def settle(self) -> None:
        """Ticks, and runs what is requested, until nothing is."""
        for _ in range(30):
            places = self.requested()
            if not places:
                return
            for name, key in places:
                assert self.materialize(name, key, by_itself=True)
        raise AssertionError("the conditions never come to rest")

    # --- what happened ---

    def materializations(self) -> Places:
        return Counter(place for place, _ in self._events())

    def made(self) -> Places:
        """Artifacts that were made and not found to be current."""
        return Counter(place for place, reused in self._events() if not reused)

    def _events(self) -> Iterator[tuple[tuple[str, str | None], bool]]:
        for name in GRAPH:
            for record in self.instance.fetch_materializations(dg.AssetKey(name), limit=1000).records:
                event = record.asset_materialization
                yield (name, record.partition_key), bool(event.metadata["reused"].value)

    def cells_computed(self, asset: str) -> dict[str, int]:
        """Cells that the last run of each partition computed instead of taking them over."""
        records = self.instance.fetch_materializations(dg.AssetKey(asset), limit=1000).records
        newest_last = sorted(records, key=lambda record: record.storage_id)
        return {
            record.partition_key: record.asset_materialization.metadata["cells_computed"].value
            for record in newest_last
        }

    def all_current(self) -> bool:
        return {state for states in all_states(self.study).values() for state in states.values()} == {"current"}

    # --- what a person does ---

    def edit_label(self, case: str) -> None:
        path = self.raw / "labelsTr" / f"{case}.nii.gz"
        image = nib.load(path)
        label = np.asarray(image.dataobj).copy()
        places = np.flatnonzero(label == 1)[:40]
        label.flat[places] = 2
        nib.save(nib.Nifti1Image(label, image.affine, image.header), path)

    def move(self, case: str) -> None:
        """Another place in the scanner is another content, which teaches a network the same."""
        for folder in ("imagesTr", "labelsTr"):
            path = self.raw / folder / f"{case}.nii.gz"
            image = nib.load(path)
            moved = np.asarray(image.dataobj).copy(), image.affine + np.outer([1, 1, 1, 0], [0, 0, 0, 1])
            nib.save(nib.Nifti1Image(*moved), path)

    def add_case(self, case: str, like: str) -> None:
        for folder in ("imagesTr", "labelsTr"):
            image = nib.load(self.raw / folder / f"{like}.nii.gz")
            turned = np.flip(np.asarray(image.dataobj), axis=0)
            nib.save(nib.Nifti1Image(turned, image.affine, image.header), self.raw / folder / f"{case}.nii.gz")
        self._list(lambda entries: [*entries, msd_entry(case)])

    def add_patient(self, patient: str, like: str) -> Path:
        """A patient whose image is that of a case upside down, in the folder that the profile is given."""
        folder = self.root / "patients"
        folder.mkdir(exist_ok=True)
        image = nib.load(self.raw / "imagesTr" / f"{like}.nii.gz")
        path = folder / f"{patient}.nii.gz"
        nib.save(nib.Nifti1Image(np.flip(np.asarray(image.dataobj), axis=1), image.affine, image.header), path)
        return path

    def remove_case(self, case: str) -> None:
        for folder in ("imagesTr", "labelsTr"):
            (self.raw / folder / f"{case}.nii.gz").unlink()
        self._list(lambda entries: [entry for entry in entries if case not in entry["image"]])

    def _list(self, change) -> None:
        path = self.raw / "dataset.json"
        values = json.loads(path.read_text())
        values["training"] = change(values["training"])
        path.write_text(json.dumps(values))


def changed_sets(world: World, versions: dict[str, str]) -> list[str]:
    return [name for name in SETS if world.study.version("training_set", name) != versions[name]]


def training_sets(world: World) -> dict[str, str]:
    return {name: world.study.version("training_set", name) for name in SETS}


def folds(world: World) -> dict[str, set[str]]:
    """Donors that the network of each fold is to learn from."""
    donors = set(world.study.cohort.donors)
    return {fold: donors - set(inside) for fold, inside in world.study.folds.items()}


def refolded(world: World, before: dict[str, set[str]], edited: str | None = None) -> list[str]:
    """Folds whose training cases changed."""
    return [fold for fold, donors in folds(world).items() if donors != before[fold] or edited in donors]
