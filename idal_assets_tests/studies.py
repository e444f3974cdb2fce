"""Studies on small raw folders, and artifacts that exist only as records, for tests of what depends on what."""

import json
import shutil
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import reduce
from pathlib import Path
from typing import Any

from idal_assets.profile import Profile, load_profile
from idal_assets.store.artifacts import PROVENANCE_FILE, Provenance, build, write_record
from idal_assets.store.files import mark_files, without_seal
from idal_assets.study.graph import GRAPH
from idal_assets.study.making import Task, make
from idal_assets.study.selectors import CHOICE_FILE, COMPARISON_FILE, CONFIGURATIONS_FILE, CONTEST_FILE, KEPT_FILE
from idal_assets.study.study import Study
from idal_assets_tests.raw_folders import make_cases, write_msd

CASES = tuple(f"case_{number}" for number in range(8))


def changed(profile: Profile, changes: dict[str, Any]) -> Profile:
    """The profile with other values at dotted keys, validated anew."""
    values = profile.model_dump()
    for path, value in changes.items():
        *sections, key = path.split(".")
        # a value may stand at several keys, and a later change is of one of them
        reduce(dict.__getitem__, sections, values)[key] = deepcopy(value)
    return Profile.model_validate(values)


def make_study(folder: Path, changes: dict[str, Any] | None = None, cases: Sequence[str] = CASES) -> Study:
    """A study of the profile `tiny` on a raw folder of small cases."""
    raw = folder / "raw"
    if not raw.exists():
        write_msd(raw, make_cases(*cases))
    return Study(changed(load_profile("tiny"), changes or {}), folder / "data", raw, "tiny")


def with_settings(study: Study, changes: dict[str, Any]) -> Study:
    """The same data folder under other settings, given by dotted keys."""
    return Study(changed(study.profile, changes), study.folder.root, study.raw, study.profile_source)


def copied(study: Study, folder: Path, changes: dict[str, Any] | None = None) -> Study:
    """The study of `make_study` with all that was made, in a place where it may be changed."""
    shutil.copytree(study.raw.parent, folder, copy_function=shutil.copy2, dirs_exist_ok=True)
    return Study(changed(study.profile, changes or {}), folder / "data", folder / "raw", study.profile_source)


READ_BY_THE_GRAPH: dict[str, tuple[str, Callable[[Study], Any]]] = {
    "nnunet_plans": (CONFIGURATIONS_FILE, lambda study: {"2d": "2d-1", "3d_fullres": "3d-1"}),
    "baseline_comparison": (COMPARISON_FILE, lambda study: {"candidates": ["2d_ce"], "best_2d": "2d_ce"}),
    "contest": (CONTEST_FILE, lambda study: {"contested": []}),
    "training_set": (KEPT_FILE, lambda study: study.cohort.donors),
    "evidence": (CHOICE_FILE, lambda study: {"removal_set": "worst_1", "removed": study.cohort.donors[:1]}),
}
"""Files that decide what other artifacts are made from, beside the records."""


def pretend(
    study: Study, asset: str, key: str | None = None, write: Callable[[Path], None] | None = None
) -> Provenance:
    """Makes an artifact that holds nothing but the record of what it is made from now, and what `write` writes."""

    def work(folder: Path) -> None:
        if asset in READ_BY_THE_GRAPH:
            name, content = READ_BY_THE_GRAPH[asset]
            (folder / name).write_text(json.dumps(content(study)))
        if write:
            write(folder)

    inputs = GRAPH[asset].inputs(study, key)
    folder = study.path(asset, key)
    return build(folder, asset, key, inputs, work, study.folder.unfinished, study.folder.locks)[0]


def pretend_all(study: Study) -> None:
    """Makes the real cohort and list of patients, and pretends everything that follows from them."""
    for node in GRAPH.values():
        for key in node.keys(study):
            if node.names_partitions:
                make(study, node.name, key)
            else:
                pretend(study, node.name, key)


def task_of(study: Study, asset: str, key: str | None = None) -> Task:
    """What the step of a finished artifact was given, and what shows it is given."""
    inputs = study.provenance(asset, key).inputs
    return Task(study, GRAPH[asset], key, inputs, study.path(asset, key))


def give_new_version(study: Study, asset: str, key: str | None = None) -> None:
    """Replaces an artifact by one of another version, with the files that it has."""
    as_written(study.path(asset, key), version="another version")


def as_written(folder: Path, **changes: Any) -> None:
    """Has the record of an artifact list its files as they are now, as if its step had written them so.

    Args:
        folder: The artifact's folder.
        changes: Other values for fields of the record.
    """
    record = Provenance.model_validate_json(without_seal((folder / PROVENANCE_FILE).read_bytes()))
    marks = {name: mark for name, mark in mark_files(folder).items() if name != PROVENANCE_FILE}
    write_record(folder, record.model_copy(update={"files": marks, **changes}))
