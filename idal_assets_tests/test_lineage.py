"""Which case was removed from which retraining: graph, metadata and database say the same, and go on saying it."""

import re
import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pandas as pd
import pytest
import yaml

from idal_assets.profile import PROFILE_FOLDER
from idal_assets.steps.removal import load_plan
from idal_assets.store.artifacts import content_hash
from idal_assets.store.database import read_table
from idal_assets.study.study import Study
from idal_assets_tests.conftest import FinishedRun, idal

pytestmark = pytest.mark.graph

ROOT = Path(__file__).parents[1]


def query(data_dir: Path, text: str, *values: Any) -> list[tuple]:
    with duckdb.connect(str(data_dir / "idal.duckdb"), read_only=True) as connection:
        return connection.execute(text, values).fetchall()


def metadata(run: FinishedRun, asset: str, key: str) -> dict[str, Any]:
    """Metadata of the last materialization of a partition."""
    with run.instance() as instance:
        records = instance.fetch_materializations(
            dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[key]), limit=1
        ).records
    return {name: value.value for name, value in records[0].asset_materialization.metadata.items()}


def rows_of(shown: dg.TableMetadataValue | Any) -> list[dict[str, Any]]:
    records = shown.records if hasattr(shown, "records") else shown
    return [dict(record.data) for record in records]


def made_from(study: Study, asset: str, upstream: str, key: str | None = None) -> str:
    version = study.provenance(asset, key).inputs.made_from[upstream]
    assert isinstance(version, str)
    return version


def documented_query() -> str:
    """The query that the page on tables shows, as a person would paste it."""
    section = (ROOT / "docs" / "tables.md").read_text().split("Which model was trained without this case?")[1]
    (text,) = re.findall(r"```sql\n(.*?)```", section.split("\n## ")[0], re.DOTALL)
    return text


# --- three ways ---


def removed_by_graph(study: Study, name: str) -> set[str]:
    """Follows the records from the model to the plan, and takes what the plan says."""
    assert made_from(study, "reduced_model", "training_set", name) == study.version("training_set", name)
    assert made_from(study, "training_set", "removal_plan", name) == study.version("removal_plan")
    sets = pd.read_parquet(study.path("removal_plan") / "training_sets.parquet")
    rows = sets[sets["removal_set"] == name]
    kept = rows.loc[rows["kept"], "case_id"]
    # the version is that of exactly these cases
    contents = {case: study.version("case_slices", case) for case in kept}
    assert study.version("training_set", name) == content_hash(
        {"kept": contents, "donors": sorted(study.cohort.donors)}
    )
    return set(study.cohort.donors) - set(kept)


def removed_by_metadata(run: FinishedRun, name: str) -> set[str]:
    shown = metadata(run, "training_set", name)
    cases = {row["case_id"]: row for row in rows_of(shown["cases"])}
    assert set(cases) == set(run.study().cohort.donors)
    assert all(set(row) == {"case_id", "kept", "rank", "score", "reason"} for row in cases.values())
    removed = {case for case, row in cases.items() if not row["kept"]}
    assert {row["case_id"] for row in rows_of(shown["difference_to_all"])} == removed
    assert all("rank" in cases[case]["reason"] for case in removed)
    assert shown["removed"] == len(removed)
    return removed


def removed_by_database(run: FinishedRun, name: str) -> set[str]:
    found = query(
        run.data_dir,
        "SELECT case_id FROM training_set JOIN model USING (removal_set, training_set_version) "
        "WHERE removal_set = ? AND NOT kept",
        name,
    )
    return {case for (case,) in found}


@pytest.mark.parametrize("name", ["all", "worst_1", "worst_2", "worst_cluster", "random_2_r01"])
def test_graph_metadata_and_database_agree_on_the_cases(finished_run: FinishedRun, name: str) -> None:
    removed = removed_by_graph(finished_run.study(), name)
    assert removed_by_metadata(finished_run, name) == removed
    assert removed_by_database(finished_run, name) == removed
    assert removed == set(load_plan(finished_run.study().path("removal_plan")).removed[name])
    assert len(removed) == {"all": 0, "worst_1": 1, "worst_2": 2, "random_2_r01": 2}.get(name, len(removed))


@pytest.mark.parametrize("name", ["all", "worst_1", "worst_2", "worst_cluster", "random_2_r01"])
def test_graph_metadata_and_database_agree_on_the_versions(finished_run: FinishedRun, name: str) -> None:
    study = finished_run.study()
    expected = {
        "training_set_version": study.version("training_set", name),
        "plan_version": study.version("removal_plan"),
        "ranking_version": made_from(study, "removal_plan", "case_ranking"),
        "matrix_version": study.version("dice_matrix"),
    }
    shown = metadata(finished_run, "training_set", name)
    assert {column: shown[column] for column in expected} == expected
    found = query(
        finished_run.data_dir,
        "SELECT DISTINCT training_set_version, plan_version, ranking_version, matrix_version FROM training_set "
        "WHERE removal_set = ?",
        name,
    )
    assert found == [tuple(expected.values())]
    model = metadata(finished_run, "reduced_model", name)
    assert model["model_version"] == study.version("reduced_model", name)
    assert model["training_set_version"] == expected["training_set_version"]
    recorded = query(finished_run.data_dir, "SELECT model_version FROM model WHERE removal_set = ?", name)
    assert recorded == [(model["model_version"],)]


def test_models_and_rows_name_the_versions_that_they_came_from(finished_run: FinishedRun) -> None:
    study = finished_run.study()
    donor = study.cohort.donors[0]
    model = metadata(finished_run, "case_model", donor)
    assert model["model_version"] == study.version("case_model", donor)
    assert model["baseline_version"] == study.version("baseline_weights")
    assert model["variants_version"] == study.version("augmented_case", donor)
    row = metadata(finished_run, "dice_row", donor)
    assert row["model_version"] == study.version("case_model", donor)
    shown = {cell["receiver"]: cell["receiver_version"] for cell in rows_of(row["cells_by_receiver"])}
    assert shown == {case: study.version("case_slices", case) for case in study.cohort.receivers}
    read = content_hash({"tests": study.cohort.tests, "anatomy": study.cohort.anatomy.version})
    assert row["made_from"] == {"cohort": read, "case_model": row["model_version"], "case_slices": shown}
    assert (row["cells_computed"], row["cells_taken_over"]) == (len(shown), 0)


def test_the_documented_query_answers_its_question(finished_run: FinishedRun) -> None:
    study = finished_run.study()
    worst = query(finished_run.data_dir, "SELECT case_id FROM case_score WHERE rank = 1")[0][0]
    text = documented_query()
    assert text.count("'BraTS2021_00042'") == 1
    found = query(finished_run.data_dir, text.replace("'BraTS2021_00042'", "?"), worst)
    plan = {name: removed_by_graph(study, name) for name in study.removal_sets}
    expected = {
        (name, study.version("reduced_model", name), study.version("dice_matrix"))
        for name, removed in plan.items()
        if worst in removed
    }
    assert {(row[0], row[1], row[3]) for row in found} == expected
    assert len(found) == len(expected) >= 2
    assert all("rank 1 of 5" in row[2] for row in found)


# --- history ---

BY_PLAN = ("removal_plan", "training_set", "evaluation")


@pytest.fixture(scope="module")
def run_again(finished_run: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """The finished run, then another one in the same data folder with another scalar and other removal sets."""
    folder = tmp_path_factory.mktemp("again")
    shutil.copytree(finished_run.data_dir, folder / "data", copy_function=shutil.copy2)
    profile = yaml.safe_load((PROFILE_FOLDER / "tiny.yaml").read_text())
    profile |= {"similarity": {"scalar": "WT", "distance": "symmetric"}, "removal": {"sizes": [1, 3]}}
    (folder / "own.yaml").write_text(yaml.safe_dump(profile))
    done = idal("run", "--profile", folder / "own.yaml", "--data-dir", folder / "data")
    assert done.returncode == 0, done.stdout + done.stderr
    return FinishedRun(folder / "data", done.stdout)


def test_an_earlier_plan_and_its_results_can_still_be_asked_for(
    finished_run: FinishedRun, run_again: FinishedRun
) -> None:
    plan = finished_run.study().version("removal_plan")
    for table in (*BY_PLAN, "effect", "control", "subgroup"):
        rows = "SELECT * FROM {} WHERE plan_version = ? ORDER BY ALL"
        earlier = "(SELECT * EXCLUDE (recorded, latest) FROM history.{})"
        expected = query(finished_run.data_dir, rows.format(table), plan)
        assert expected
        assert same(query(run_again.data_dir, rows.format(earlier.format(table)), plan), expected)
    matrix = finished_run.study().version("dice_matrix")
    cells = "SELECT donor, receiver, region, dice FROM {} WHERE matrix_version = ? ORDER BY ALL"
    before = query(finished_run.data_dir, cells.format("dice"), matrix)
    assert same(query(run_again.data_dir, cells.format("history.dice"), matrix), before)


def same(found: list[tuple], expected: list[tuple]) -> bool:
    """An undefined Dice equals itself here."""
    return pd.DataFrame(found).equals(pd.DataFrame(expected))


def test_the_simple_names_show_the_new_plan(run_again: FinishedRun) -> None:
    study = run_again.study()
    for table in BY_PLAN:
        found = read_table(study.folder.database, table)
        assert set(found["removal_set"]) == set(study.removal_sets)
        assert set(found["plan_version"]) == {study.version("removal_plan")}
    models = dict(query(run_again.data_dir, "SELECT removal_set, model_version FROM model"))
    assert models == {name: study.version("reduced_model", name) for name in study.removal_sets}
    for name in study.removal_sets:
        removed = removed_by_graph(study, name)
        assert removed_by_metadata(run_again, name) == removed_by_database(run_again, name) == removed


def test_a_retraining_that_no_one_plans_any_more_is_still_known(
    finished_run: FinishedRun, run_again: FinishedRun
) -> None:
    assert query(run_again.data_dir, "SELECT * FROM model WHERE removal_set = 'worst_2'") == []
    known = query(run_again.data_dir, "SELECT model_version FROM history.model WHERE removal_set = 'worst_2'")
    assert known == [(finished_run.study().version("reduced_model", "worst_2"),)]


def test_another_scalar_trains_and_segments_nothing_again_that_it_leaves_unchanged(
    finished_run: FinishedRun, run_again: FinishedRun
) -> None:
    before, after = finished_run.study(), run_again.study()
    for donor in before.cohort.donors:
        assert after.provenance("dice_row", donor) == before.provenance("dice_row", donor)
    assert after.provenance("reduced_model", "all") == before.provenance("reduced_model", "all")
    assert after.provenance("reduced_evaluation", "all") == before.provenance("reduced_evaluation", "all")
    scalars = query(
        run_again.data_dir,
        "SELECT count(*) FROM evaluation m JOIN evaluation w USING (removal_set, case_id) "
        "WHERE m.region = 'mean' AND w.region = 'WT' AND m.dice IS DISTINCT FROM w.dice",
    )
    assert scalars == [(0,)]
