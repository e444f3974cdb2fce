"""Making one artifact: what its work is handed, how it is called, and that its tables are kept and recorded.

This is the only door to an artifact. The Dagster assets, `idal run`, tests and benchmarks all call `make`, and
workers its first half, `make_files`, since one host alone writes to the database; none of it needs Dagster. What a
row of the graph does not name, its work cannot read: a `Task` hands out nothing else.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pandas as pd

from idal_assets.progress import Track, silently
from idal_assets.settings import CaseModelSettings, ComputeSettings
from idal_assets.store.artifacts import Inputs, Provenance, build, find_damage, read_provenance
from idal_assets.study.currency import is_kept
from idal_assets.study.graph import GRAPH, PATIENTS_FOLDER, RAW_FOLDER, Node, keys_of, upstream_of
from idal_assets.study.selectors import SHORTENED, Parts, own_content, own_patient, whole, whole_with_reviews
from idal_assets.study.study import Study

if TYPE_CHECKING:
    from idal_assets.anatomy import Legend
    from idal_assets.imaging.case import Case
    from idal_assets.imaging.inspection import CaseFacts
    from idal_assets.study.cohort import Cohort


CHECKS = "idal_assets.steps.checks"
"""Module with a function for each check."""


class UndeclaredError(LookupError):
    """A step asked for something that its row in the graph does not name; the message says what."""


@dataclass(frozen=True)
class Outcome:
    """What a step made beside its files.

    Attributes:
        version: Version of the artifact where its content decides it; None where its inputs do.
        tables: Rows of the database, by name of the table: one version each.
    """

    version: str | None = None
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        problems: Why the artifact must not be used; with none of them it passes.
        warnings: What a person should look at, although the artifact can be used.
        facts: Numbers that were looked at, by name.
    """

    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    facts: Mapping[str, str | int | float] = field(default_factory=dict)


class Task:
    """One artifact in the making, or one that is to be shown: what its step may read, and where it writes.

    Attributes:
        asset: Name of the asset.
        key: Its partition; empty where there is none.
        folder: Where its files belong.
        track: Shows the progress.
        version: Hash of its inputs: its version, unless its content decides that.
        reads: Assets, parts of the cohort (`cohort.tests`) and settings that were handed out so far.
    """

    def __init__(
        self,
        study: Study,
        node: Node,
        key: str | None,
        inputs: Inputs,
        folder: Path,
        track: Track = silently,
        shown_with: tuple[str, ...] = (),
    ) -> None:
        self._study = study
        self._node = node
        self._key = key
        self._inputs = inputs
        self._settings = (*inputs.settings, *shown_with)
        self.asset = node.name
        self.key = key or ""
        self.folder = folder
        self.track = track
        self.version = inputs.hash()
        self.reads: set[str] = set()

    # --- upstream artifacts ---

    def keys(self, asset: str) -> list[str]:
        """Keys of the upstream artifacts that this one is made from, in order; none where nothing matters."""
        versions = self._versions(asset)
        return list(versions) if isinstance(versions, Mapping) else []

    def path(self, asset: str, key: str | None = None) -> Path:
        """Folder of an upstream artifact, whose files are those that were written.

        Raises:
            UndeclaredError: This artifact is not made from that one.
            NotMadeError: That one is damaged.
        """
        self._ensure_declared(asset, key)
        return self._study.intact(asset, key)

    def upstream_version(self, asset: str, key: str | None = None) -> str:
        """Version of an upstream artifact as it is now."""
        return self.upstream(asset, key).version

    def upstream(self, asset: str, key: str | None = None) -> Provenance:
        """Record of an upstream artifact."""
        self._ensure_declared(asset, key)
        return self._study.provenance(asset, key)

    def is_alike(self, asset: str, key: str | None = None) -> bool:
        """Whether today's code made an upstream artifact, with the settings that this one has too."""
        before, own = self.upstream(asset, key).inputs, self._inputs.settings
        shared = before.settings.keys() & own.keys()
        return before.code == GRAPH[asset].code and all(before.settings[path] == own[path] for path in shared)

    def _versions(self, asset: str) -> str | Mapping[str, str]:
        if asset not in self._node.made_from:
            raise UndeclaredError(f"{self.asset} reads {asset}, which its row in the graph does not name")
        self.reads.add(asset)
        return self._inputs.made_from.get(asset, {})

    def _ensure_declared(self, asset: str, key: str | None) -> None:
        versions = self._versions(asset)
        select = self._node.made_from[asset]
        if isinstance(select, Parts) or select in (own_content, own_patient):
            raise UndeclaredError(f"{self.asset} reads all of {asset}, of which its row names only a part")
        if not versions or key not in keys_of(asset, versions, self._key):
            raise UndeclaredError(f"{self.asset} of {self._key} is not made from {asset} of {key}")

    # --- the cohort and its cases ---

    @property
    def cohort(self) -> "Cohort":
        """The cohort, of which only the declared parts can be read.

        Raises:
            UndeclaredError: Nothing of it is declared.
        """
        self._versions("cohort")
        select = self._node.made_from["cohort"]
        if select in (whole, whole_with_reviews):
            return self._study.cohort
        if select is own_content:
            return cast("Cohort", _OwnCase(self._study.cohort, self.key))
        assert isinstance(select, Parts)
        return cast("Cohort", _CohortParts(self, self._study.cohort, select.names))

    def facts(self, case_id: str) -> "CaseFacts":
        """What verification found of a case whose `raw_case` this artifact is made from."""
        from idal_assets.study.cohort import read_facts

        return read_facts(self.path("raw_case", case_id))

    def read_case(self, facts: "CaseFacts") -> "Case":
        """Reads a case whose files still hold what was verified.

        Args:
            facts: What the task was handed of the case; its files may have been written anew since, with the same
                content.

        Raises:
            CaseError: The files are gone, unreadable or hold something else since.
        """
        from idal_assets.study.cohort import read_unchanged_case

        now = self._study.cohort.case(facts.case_id).facts
        return read_unchanged_case(self._study.raw, now if now.content_hash == facts.content_hash else facts)

    @property
    def raw_folder(self) -> Path:
        """The raw folder, for the step that verifies it."""
        self._versions(RAW_FOLDER)
        return self._study.raw

    # --- patients ---

    @property
    def patient_paths(self) -> tuple[Path, ...]:
        """Folders and files with patients, for the step that verifies them; none where nobody named any."""
        self._versions(PATIENTS_FOLDER)
        return self._study.patient_paths

    @property
    def listed_patient(self) -> "CaseFacts":
        """What the list says of the patient that this artifact is of."""
        self._versions("patient_list")
        return self._study.patient_list.patient(self.key).facts

    def patient_facts(self, patient: str) -> "CaseFacts":
        """What verification found of a patient whose `patient_case` this artifact is made from."""
        from idal_assets.study.cohort import read_facts

        return read_facts(self.path("patient_case", patient))

    def read_patient(self, facts: "CaseFacts") -> "Case":
        """Reads a patient whose content is still that which was verified.

        Args:
            facts: What the task was handed of the patient.

        Raises:
            CaseError: The files are gone, unreadable or hold something else since.
        """
        return self._study.read_patient(facts)

    @property
    def legend(self) -> "Legend":
        """Names and colours for pictures and words; it determines no number, so no row names it."""
        return self._study.cohort.anatomy.legend

    # --- settings ---

    def setting(self, path: str) -> Any:
        """A section of the profile, or one setting of it.

        Args:
            path: `section` or `section.setting`.

        Returns:
            The value. Of a section of which the row names only some settings, others cannot be read.

        Raises:
            UndeclaredError: The row does not name it.
        """
        value: Any = self._study.profile
        for part in path.split("."):
            value = getattr(value, part)
        if any(path == declared or path.startswith(f"{declared}.") for declared in self._settings):
            self.reads.add(path)
            return value
        if any(declared.startswith(f"{path}.") for declared in self._settings):
            return _SomeSettings(self, path)
        raise UndeclaredError(f"{self.asset} reads the setting {path}, which its row does not name")

    @property
    def replicate(self) -> int:
        """Which of the seeds a removal set is trained with, from 1."""
        return self._inputs.settings["replicate"]

    @property
    def case_model_training(self) -> CaseModelSettings:
        """How a case model is trained: to the end, or as trainings that stop early are."""
        settings = self._inputs.settings
        self.reads |= set(SHORTENED)
        share, faster = (settings.get(path, 1) for path in SHORTENED)
        return self.setting("case_model").shortened(share, faster)

    @property
    def compute(self) -> ComputeSettings:
        """Where and how to compute; nothing there but the precision, which is declared, determines a number."""
        self.setting("compute.precision")
        return self._study.profile.compute

    @property
    def turned_step(self) -> int | None:
        """Every how manieth slice is looked at turned by half, where cases are played as patients; else None.

        It determines no artifact that asks here: what is kept for those that need it is not part of it, and they
        find it anew where it was not kept.
        """
        adaptation = self._study.profile.adaptation
        return adaptation.turned_step if adaptation.counts else None

    # --- the artifact itself ---

    @property
    def inputs(self) -> Inputs:
        """What determines this artifact."""
        return self._inputs

    @property
    def before(self) -> Path | None:
        """Folder of the finished artifact that is replaced; None where there is none, or a damaged one."""
        folder = self._study.path(self.asset, self._key)
        return folder if read_provenance(folder) and not find_damage(folder) else None

    @property
    def before_alike(self) -> Path | None:
        """The same, where the same code and settings made it; None where others did."""
        record, now = read_provenance(self._study.path(self.asset, self._key)), self._inputs
        alike = record and (record.inputs.code, record.inputs.settings) == (now.code, now.settings)
        return self.before if alike else None

    def version_before(self, asset: str) -> object:
        """Version, or versions by key, of an upstream asset that the artifact which is replaced was made from."""
        self._versions(asset)
        record = read_provenance(self._study.path(self.asset, self._key))
        return record.inputs.made_from.get(asset) if record else None

    def twin(self) -> Path | None:
        """Folder of a finished artifact of this asset that has the same inputs under another key, if there is one.

        What it holds is what this one would hold, so nothing need be computed again.
        """
        inputs_hash = self._inputs.hash()
        for key in self._node.keys(self._study):
            folder = self._study.path(self.asset, key)
            record = read_provenance(folder) if key != self._key else None
            if record is not None and record.inputs_hash == inputs_hash and not find_damage(folder):
                return folder
        return None


class _SomeSettings:
    """A section of the profile of which a row names only some settings."""

    def __init__(self, task: Task, section: str) -> None:
        self._task, self._section = task, section

    def __getattr__(self, name: str) -> Any:
        return self._task.setting(f"{self._section}.{name}")


class _CohortParts:
    """Some attributes of a cohort."""

    def __init__(self, task: Task, cohort: "Cohort", names: tuple[str, ...]) -> None:
        self._task, self._cohort, self._names = task, cohort, names

    def __getattr__(self, name: str) -> Any:
        if name not in self._names:
            raise UndeclaredError(f"{self._task.asset} reads {name} of the cohort, which its row does not name")
        self._task.reads.add(f"cohort.{name}")
        return getattr(self._cohort, name)


class _OwnCase:
    """One case of a cohort."""

    def __init__(self, cohort: "Cohort", case_id: str) -> None:
        self._cohort, self._case_id = cohort, case_id

    def case(self, case_id: str) -> Any:
        if case_id != self._case_id:
            raise UndeclaredError(f"only {self._case_id} is declared, not {case_id}")
        return self._cohort.case(case_id)


def make(
    study: Study, asset: str, key: str | None = None, track: Track = silently, by_itself: bool = False
) -> tuple[Provenance, bool]:
    """Makes one artifact, unless it is current, and has the database hold its rows.

    Args:
        study: The study.
        asset: Name of the asset.
        key: The partition; None where the asset has none.
        track: Shows the progress.
        by_itself: Whether nobody asked for this very artifact; then one that the profile's policy keeps is kept.

    Returns:
        The record of the artifact, and whether it was made now.

    Raises:
        NotMadeError: Something that it is made from has not been made.
    """
    made = make_files(study, asset, key, track, by_itself)
    record_rows(study, asset, key)
    return made


def make_files(
    study: Study, asset: str, key: str | None = None, track: Track = silently, by_itself: bool = False
) -> tuple[Provenance, bool]:
    """As `make`, without the database: the artifact keeps its rows, which somebody else records."""
    node = GRAPH[asset]
    prepare(study, asset, track)
    folder = study.path(asset, key)
    kept = read_provenance(folder) if by_itself and is_kept(study, node, key) else None
    inputs = kept.inputs if kept else node.inputs(study, key)

    def work(draft: Path) -> str | None:
        outcome = function_of(node.work)(Task(study, node, key, inputs, draft, track)) or Outcome()
        _ensure_named(node, outcome.tables)
        if outcome.tables:
            from idal_assets.study.tables import keep_tables

            keep_tables(outcome.tables, draft)
        return outcome.version

    return build(folder, asset, key, inputs, work, study.folder.unfinished, study.folder.locks)


def record_rows(study: Study, asset: str, key: str | None = None) -> None:
    """Brings the rows that an artifact keeps into the database, unless they are there."""
    if GRAPH[asset].tables:
        from idal_assets.study.tables import record_tables

        record_tables(study, (asset, key))


def look(study: Study, asset: str, key: str | None = None) -> Finding:
    """What the check of an asset says of a finished artifact."""
    check = GRAPH[asset].check
    assert check is not None
    return function_of(f"{CHECKS}:{check.name}")(study, asset, key)


def judge(study: Study, asset: str, key: str | None = None) -> Finding:
    """The same, and an artifact that must not be used is taken back.

    Raises:
        NotMadeError: There is none.
    """
    study.provenance(asset, key)
    finding = look(study, asset, key)
    check = GRAPH[asset].check
    if finding.problems and check and check.refuses:
        study.refuse(asset, key)
    return finding


def make_all(study: Study, last: str, track: Track = silently) -> None:
    """Makes an asset and everything that it is made from, in this process and without Dagster."""
    wanted = upstream_of(last)
    for node in GRAPH.values():
        for key in node.keys(study) if node.name in wanted else ():
            make(study, node.name, key, track)


def prepare(study: Study, asset: str, track: Track = silently) -> None:
    """Makes what must be there before the inputs of an asset are looked at, such as a raw folder."""
    before = GRAPH[asset].before
    if before:
        function_of(before)(study, track)


def shown(study: Study, asset: str, key: str | None = None) -> Mapping[str, Any]:
    """What a person wants to see of a finished artifact.

    Returns:
        By name: numbers, texts, lists of sentences, tables (`DataFrame`), other values that JSON holds, and paths
        of files to open.
    """
    node = GRAPH[asset]
    if node.shows is None:
        return {}
    inputs = study.provenance(asset, key).inputs
    task = Task(study, node, key, inputs, study.intact(asset, key), shown_with=node.shown_with)
    return function_of(node.shows)(task)


def function_of(address: str) -> Callable[..., Any]:
    """The function that a row names as `module:function`; its module is loaded now and not with the graph."""
    module, _, name = address.partition(":")
    return getattr(import_module(module), name)


def _ensure_named(node: Node, tables: Mapping[str, pd.DataFrame]) -> None:
    if tables.keys() != set(node.tables):
        raise UndeclaredError(f"{node.name} filled {sorted(tables)}; its row names {sorted(node.tables)}")
