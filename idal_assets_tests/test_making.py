"""Making one artifact: what a step reads is what its row names, and an asset takes one row and one function."""

import ast
import shutil
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from idal_assets import steps
from idal_assets.analysis.adaptation import Gain
from idal_assets.imaging.phantom import write_phantom
from idal_assets.orchestration.assets import build_assets, group_of
from idal_assets.orchestration.definitions import build_definitions
from idal_assets.orchestration.resources import StepProgress, StudyResource
from idal_assets.profile import load_profile
from idal_assets.progress import silently
from idal_assets.steps import checks, convergence
from idal_assets.store.database import TABLES, read_table
from idal_assets.study import making
from idal_assets.study.currency import all_states
from idal_assets.study.graph import GRAPH, Node
from idal_assets.study.making import Outcome, Task, UndeclaredError, function_of, make, make_all, shown
from idal_assets.study.selectors import Parts
from idal_assets.study.study import Study
from idal_assets_tests.studies import changed, copied, make_study, pretend_all, task_of, with_settings
from idal_assets_tests.toy import TOY, TOY_TABLE

pytestmark = pytest.mark.usefixtures("blank_pictures")

LITTLE = {"epochs": 1, "iterations_per_epoch": 2, "optimizer": "adam", "learning_rate": 0.003}
EVERY_WAY = {
    **dict.fromkeys(("baseline", "case_model", "reduced", "out_of_fold.training"), LITTLE),
    # a 2D and a 3D candidate read different cases, and the best one decides the baseline's loss
    "candidates.names": ("2d_ce", "3d_dice_ce"),
    "candidates.held_out_share": 0.4,
    "candidates.training_2d": LITTLE,
    "candidates.training_3d": LITTLE,
    "candidates.best_becomes_baseline": True,
    "removal.sizes": (1,),
    "variants.count": 1,
    "phantom.train_cases": 5,
    "cohort.pretraining": 2,
    "cohort.minimum_donors": 3,
    "case_model.seeds": 2,
    "early_stop.share": 0.5,
    "early_stop.level": 0.999,
    "reduced.start": "pretraining",
    "compute.precision": "fp32",
    "adaptation.counts": (1,),
    "adaptation.mode": "tuned",
    "adaptation.compared": ("merged", "ensemble", "tuned"),
    "adaptation.random_draws": 1,
}
"""Changes to the profile `tiny` under which every step goes every way that its row provides for."""


# --- declared is read, and nothing else is ---


class Noting(Task):
    """A task that is remembered with what it handed out."""

    made: "list[Noting]"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.made.append(self)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Mapping[str, Collection[str]]]:
    """A study that was made without Dagster, and what all partitions of each asset read together."""
    folder = tmp_path_factory.mktemp("made")
    Noting.made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(making, "Task", Noting)
        # after so little training nothing is sure to be gained, and a patient would get the baseline
        patch.setattr(Gain, "lower", lambda gain, advantage, level: 1.0)
        profile = changed(load_profile("tiny"), EVERY_WAY)
        # phantoms of another seed are patients once their labels are gone
        write_phantom(folder / "patients", profile.phantom.model_copy(update={"seed": 9}), silently)
        shutil.rmtree(folder / "patients" / "labelsTr")
        study = Study(profile, folder / "data", None, "tiny", folder / "patients")
        make_all(study, "experiment_report")
    read: dict[str, set[str]] = defaultdict(set)
    for task in Noting.made:
        read[task.asset] |= task.reads
    return study, read


@pytest.mark.graph
@pytest.mark.parametrize("node", GRAPH.values(), ids=list(GRAPH))
def test_what_a_row_names_is_read_and_nothing_else(
    made: tuple[Study, Mapping[str, Collection[str]]], node: Node
) -> None:
    read = made[1][node.name]
    selector = node.made_from.get("cohort")
    of_cohort = {f"cohort.{name}" for name in selector.names} if isinstance(selector, Parts) else set()
    settings = {declared for declared in node.settings if any(is_within(path, declared) for path in read)}
    assert settings == set(node.settings)
    assert {path for path in read if not any(is_within(path, declared) for declared in node.settings)} == {
        *node.made_from,
        *of_cohort,
    }


def is_within(path: str, section: str) -> bool:
    return path == section or path.startswith(f"{section}.")


@pytest.mark.graph
def test_every_artifact_can_be_shown_from_what_its_row_names(
    made: tuple[Study, Mapping[str, Collection[str]]],
) -> None:
    study, _ = made
    for node in GRAPH.values():
        for key in node.keys(study):
            assert bool(shown(study, node.name, key)) is bool(node.shows), (node.name, key)


@pytest.mark.graph
def test_an_early_row_reads_the_weights_of_the_model_that_there_is(
    made: tuple[Study, Mapping[str, Collection[str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, _ = made
    study = copied_run(study, tmp_path)
    donor = study.cohort.donors[0]
    longer = study.with_settings({"case_model": {"iterations_per_epoch": 16}, "convergence": {"shares": [0.25]}})
    make(longer, "case_model", donor)
    segmented_with = []

    def spy(task: Task, model: Path, *arguments: Any) -> Any:
        segmented_with.append(model.name)
        return real(task, model, *arguments)

    real = convergence.segment_and_score
    monkeypatch.setattr(convergence, "segment_and_score", spy)
    make(study, "early_row", donor)
    assert segmented_with == ["after_2_iterations"]
    rows = pd.read_parquet(study.path("early_row", donor) / "early_row.parquet")
    assert set(rows["share"]) == {0.25}


def copied_run(study: Study, folder: Path) -> Study:
    shutil.copytree(study.folder.root, folder / "data", copy_function=shutil.copy2)
    return Study(study.profile, folder / "data", None, study.profile_source)


# --- what a row does not name cannot be read ---


@pytest.fixture(scope="module")
def pretended(tmp_path_factory: pytest.TempPathFactory) -> Study:
    study = make_study(tmp_path_factory.mktemp("pretended"))
    pretend_all(study)
    return study


@pytest.mark.unit
@pytest.mark.parametrize(
    ("asset", "read", "names"),
    [
        ("dendrogram", lambda task, other: task.path("raw_case", other), "dendrogram reads raw_case"),
        ("dendrogram", lambda task, other: task.upstream_version("case_ranking"), "dendrogram reads case_ranking"),
        ("dendrogram", lambda task, other: task.raw_folder, "dendrogram reads raw folder"),
        ("augmented_case", lambda task, other: task.cohort, "augmented_case reads cohort"),
        ("augmented_case", lambda task, other: task.keys("raw_case"), "augmented_case reads raw_case"),
        (
            "dice_row",
            lambda task, other: task.path("case_model", other),
            "dice_row of {own} .* case_model of {other}",
        ),
        ("dice_row", lambda task, other: task.path("case_model"), "dice_row of {own} .* case_model of None"),
        ("dice_row", lambda task, other: task.path("cohort"), "dice_row reads all of cohort"),
        ("raw_case", lambda task, other: task.upstream("cohort"), "raw_case reads all of cohort"),
        ("dice_row", lambda task, other: task.cohort.donors, "dice_row reads donors of the cohort"),
        ("raw_case", lambda task, other: task.cohort.case(other), "only {own} is declared, not {other}"),
        ("case_slices", lambda task, other: task.facts(other), "case_slices of {own} .* raw_case of {other}"),
        ("dice_matrix", lambda task, other: task.setting("similarity.mode"), "dice_matrix .* similarity.mode"),
        ("dice_matrix", lambda task, other: task.setting("similarity").mode, "dice_matrix .* similarity.mode"),
        ("dice_matrix", lambda task, other: task.setting("seed"), "dice_matrix reads the setting seed"),
        ("dice_matrix", lambda task, other: task.compute, "dice_matrix reads the setting compute.precision"),
        ("baseline_weights", lambda task, other: task.path("baseline_comparison"), "not made from baseline_comp"),
    ],
)
def test_what_a_row_does_not_name_is_refused_by_name(
    pretended: Study, asset: str, read: Callable[[Task, str], object], names: str
) -> None:
    own, other = pretended.cohort.donors[:2]
    task = task_of(pretended, asset, own if GRAPH[asset].partition else None)
    with pytest.raises(UndeclaredError, match=names.format(own=own, other=other)):
        read(task, other)
    assert not {"seed", "similarity.mode", "compute.precision", "cohort.donors"} & task.reads


@pytest.mark.unit
def test_of_a_section_what_the_row_names_can_be_read(pretended: Study) -> None:
    task = task_of(pretended, "dice_matrix")
    assert task.setting("similarity").scalar == pretended.profile.similarity.scalar
    assert task.reads == {"similarity.scalar"}
    donor = pretended.cohort.donors[0]
    task = task_of(pretended, "dice_row", donor)
    assert task.path("case_model", donor) == pretended.path("case_model", donor)
    assert task.keys("case_slices") == pretended.cohort.receivers
    assert task.cohort.tests == pretended.cohort.tests
    assert task.reads == {"case_model", "case_slices", "cohort", "cohort.tests"}


@pytest.mark.unit
@pytest.mark.parametrize("file", sorted(Path(steps.__path__[0]).glob("*.py")), ids=lambda file: file.stem)
def test_steps_are_handed_a_task_and_know_neither_study_nor_dagster(file: Path) -> None:
    imports = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)]
    modules = {node.module or "" for node in imports}
    assert not [module for module in modules if module.startswith(("dagster", "idal_assets.orchestration"))]
    taken = {name.name for node in imports if node.module == "idal_assets.study.study" for name in node.names}
    # what verifies, downloads or checks is no step with a row of its own
    assert "Study" not in taken or file.stem in ("cohort", "download", "checks")


@pytest.mark.unit
def test_every_address_check_and_table_of_the_graph_is_there() -> None:
    for node in GRAPH.values():
        for address in filter(None, (node.work, node.shows, node.before)):
            assert callable(function_of(address)), address
        assert node.check is None or callable(getattr(checks, node.check.name))
    filled = [table for node in GRAPH.values() for table in node.tables]
    assert sorted(filled) == sorted(TABLES)


# --- a new asset takes one row and one function ---


def make_what_it_does_not_say(task: Task) -> Outcome:
    return Outcome(tables={"another": pd.DataFrame()})


@pytest.fixture
def with_toy(pretended: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setitem(GRAPH, "toy", TOY)
    monkeypatch.setitem(TABLES, "toy", TOY_TABLE)
    study = copied(pretended, tmp_path)
    # its step reads what verification found of the case
    case = study.cohort.donors[0]
    shutil.rmtree(study.path("raw_case", case))
    make(study, "raw_case", case)
    return study


@pytest.mark.unit
def test_an_asset_of_one_row_and_one_function_is_made_like_any_other(with_toy: Study) -> None:
    study, case = with_toy, with_toy.cohort.donors[0]
    assert set(all_states(study)["toy"].values()) == {"missing"}
    # --8<-- [start:toy]
    record, made_now = make(study, "toy", case)
    assert made_now
    assert make(study, "toy", case) == (record, False)
    assert shown(study, "toy", case)["rows"]["case_id"].tolist() == [case]
    # --8<-- [end:toy]
    assert record.inputs.settings == {"seed": study.profile.seed}
    assert record.inputs.made_from == {"raw_case": study.version("raw_case", case)}
    assert read_table(study.folder.database, "toy")["toy_version"].tolist() == [record.version]
    assert all_states(study)["toy"][case] == "current"
    assert all_states(with_settings(study, {"seed": 1}))["toy"][case] == "outdated"


@pytest.mark.unit
def test_an_asset_of_one_row_and_one_function_is_a_dagster_asset(with_toy: Study) -> None:
    (toy,) = (asset for asset in build_assets(with_toy.profile) if asset.key == dg.AssetKey("toy"))
    (spec,) = toy.specs
    assert (spec.group_name, spec.description) == (group_of(TOY), TOY.says)
    assert {dependency.asset_key.to_user_string() for dependency in spec.deps} == {"raw_case"}
    resource = StudyResource(data_dir=str(with_toy.folder.root), profile="tiny", raw=str(with_toy.raw))
    case = with_toy.cohort.donors[0]
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("case", [case])
        done = (
            build_definitions(resource, StepProgress(silently))
            .resolve_implicit_global_asset_job_def()
            .execute_in_process(
                instance=instance,
                partition_key=case,
                asset_selection=[dg.AssetKey("toy")],
                run_config={"ops": {"toy": {"config": {"seed": 7}}}},
            )
        )
        assert done.success
        (record,) = instance.fetch_materializations(dg.AssetKey("toy"), limit=1).records
    metadata = record.asset_materialization.metadata
    (row,) = metadata["rows"].records
    assert row.data["seed"] == 7
    assert metadata["says"].value == f"- Look at slice {row.data['slice']}."
    assert read_table(with_toy.folder.database, "toy")["seed"].tolist() == [7]


@pytest.mark.unit
def test_a_table_that_a_row_does_not_name_is_not_filled(with_toy: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vars(TOY), "work", f"{__name__}:make_what_it_does_not_say")
    case = with_toy.cohort.donors[0]
    with pytest.raises(UndeclaredError, match=r"toy filled \['another'\]; its row names \['toy'\]"):
        make(with_toy, "toy", case)
    assert not with_toy.path("toy", case).exists()


@pytest.mark.unit
def test_parts_of_the_cohort_are_named_as_attributes(pretended: Study) -> None:
    for node in GRAPH.values():
        select = node.made_from.get("cohort")
        for name in select.names if isinstance(select, Parts) else ():
            assert hasattr(pretended.cohort, name), (node.name, name)
