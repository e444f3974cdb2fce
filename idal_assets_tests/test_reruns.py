"""What is made again when a donor is edited, comes or goes: exactly what must, once; with networks that train."""

import shutil
from collections.abc import Collection
from pathlib import Path

import pytest

from idal_assets.steps.cells import cell_counts
from idal_assets_tests.worlds import (
    DONORS,
    NEW,
    SETS,
    TESTS,
    World,
    after_edited_donor,
    after_removed_case,
    changed_sets,
    finished_world,
    folds,
    once,
    refolded,
    rerun,
    training_sets,
)

pytestmark = [pytest.mark.graph, pytest.mark.usefixtures("blank_pictures")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_world(tmp_path_factory)


@pytest.fixture
def world(finished: Path, tmp_path: Path) -> World:
    shutil.copytree(finished, tmp_path / "world", copy_function=shutil.copy2)
    return World(tmp_path / "world")


def cells_computed(world: World, donors: Collection[str]) -> dict[str, int]:
    rows = {donor: world.study.path("dice_row", donor) for donor in donors}
    return {donor: cell_counts(folder, made_now=True)["cells_computed"] for donor, folder in rows.items()}


def test_an_edited_donor_reruns_its_chain_and_what_fans_in(world: World) -> None:
    versions, donor = training_sets(world), DONORS[2]
    world.edit_label(donor)
    made = rerun(world.study)
    retrained = changed_sets(world, versions)
    assert "all" in retrained
    assert made == after_edited_donor(world, donor, DONORS, refolded(world, folds(world), donor), retrained)
    assert cells_computed(world, DONORS) == {**dict.fromkeys(DONORS, 1), donor: len(DONORS + TESTS)}
    assert world.all_current()


def test_a_new_case_runs_its_chain_and_what_fans_in(world: World) -> None:
    learned_from, donors = folds(world), [*DONORS, NEW]
    world.add_case(NEW, like=DONORS[0])
    made = rerun(world.study)
    expected = after_edited_donor(world, NEW, donors, refolded(world, learned_from), SETS)
    assert made == expected + once("settled_row", keys=[NEW])
    assert cells_computed(world, donors) == {**dict.fromkeys(DONORS, 1), NEW: len([*donors, *TESTS])}
    assert world.all_current()


def test_a_case_whose_label_is_decided_wrong_leaves_as_if_it_were_removed(world: World) -> None:
    versions, learned_from = training_sets(world), folds(world)
    world.study.folder.reviewed.write_text(f"case_id,decision\n{DONORS[3]},label wrong\n")
    made = rerun(world.study)
    assert world.study.cohort.taken_out == [DONORS[3]]
    left = DONORS[:3]
    assert made == after_removed_case(world, left, refolded(world, learned_from), changed_sets(world, versions))
    assert world.all_current()


def test_a_removed_case_trains_no_other_case_model(world: World) -> None:
    versions, learned_from, left = training_sets(world), folds(world), DONORS[:3]
    world.remove_case(DONORS[3])
    made = rerun(world.study)
    assert made == after_removed_case(world, left, refolded(world, learned_from), changed_sets(world, versions))
    assert cells_computed(world, left) == dict.fromkeys(left, 0)
    assert world.all_current()
