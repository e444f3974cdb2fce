"""What is made with several workers: everything once, nothing too early, no more lost than must be."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from idal_assets.orchestration.coordinator import Coordinator
from idal_assets.orchestration.reports import Failure, Outcome, Report
from idal_assets.study.currency import all_states, sources
from idal_assets.study.graph import GRAPH
from idal_assets.study.making import make, prepare
from idal_assets.study.order import Chain
from idal_assets.study.study import Study, named
from idal_assets_tests.studies import CASES, copied, give_new_version, make_study, pretend

pytestmark = pytest.mark.unit

Place = tuple[str, str | None]


class Pretenders:
    """Workers who finish in the order in which they began, and pretend to make what they were handed."""

    def __init__(self, study: Study, workers: int, fails: Callable[[str, str | None], bool]) -> None:
        self.study, self.fails, self._workers = study, fails, workers
        self._chains: deque[Chain] = deque()
        self.handed: list[Chain] = []
        self.together: set[frozenset[str]] = set()
        self.made: list[Place] = []

    @property
    def busy(self) -> int:
        return len(self._chains)

    def is_free(self, accelerated: bool) -> bool:
        return self.busy < self._workers

    def ask_for(self, chains: int) -> None:
        assert chains >= self.busy

    def hand(self, chain: Chain) -> None:
        self._chains.append(chain)
        self.handed.append(chain)
        self.together.add(frozenset(asset for one in self._chains for asset in one.assets))

    def finished(self, seconds: float) -> list[Report]:
        if not self._chains:
            return []
        chain, outcomes = self._chains.popleft(), []
        for asset in chain.assets:
            outcomes.append(self.make(asset, chain.key))
            if outcomes[-1].failure:
                break
        return [Report(chain, outcomes)]

    def make(self, asset: str, key: str | None) -> Outcome:
        if self.fails(asset, key):
            return Outcome(asset, failure=Failure(f"{named(asset, key)} failed.\nbad data"))
        node = GRAPH[asset]
        for place in sources(node.inputs(self.study, key), key):
            assert self.study.provenance(*place)
        if node.names_partitions:
            record, made_now = make(self.study, asset, key)
        else:
            record, made_now = pretend(self.study, asset, key), True
        self.made.append((asset, key))
        return Outcome(asset, record, made_now)


class Memory:
    """Books that are kept nowhere."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self.written: list[Place] = []
        self.passed_over: list[Place] = []
        self.done: set[Place] = set()

    def is_done(self, asset: str, key: str | None) -> bool:
        return (asset, key) in self.done

    def write(self, report: Report) -> None:
        self.written += [(outcome.asset, report.chain.key) for outcome in report.outcomes if not outcome.failure]

    def pass_over(self, asset: str, key: str | None) -> None:
        self.passed_over.append((asset, key))


def nobody(asset: str, key: str | None) -> bool:
    return False


def make_with(
    study: Study, workers: int, fails: Callable[[str, str | None], bool] = nobody, books: Memory | None = None
) -> tuple[Pretenders, Memory, Coordinator]:
    crew, books = Pretenders(study, workers, fails), books or Memory(study)

    @contextmanager
    def gather() -> Iterator[Pretenders]:
        yield crew

    for name in GRAPH:
        prepare(study, name)
    coordinator = Coordinator(study, GRAPH, gather, books, lambda line: None)
    coordinator.run()
    return crew, books, coordinator


def all_places(study: Study) -> list[Place]:
    return [(node.name, key) for node in GRAPH.values() for key in node.keys(study)]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return make_study(tmp_path_factory.mktemp("order"))


@pytest.fixture
def study(raw: Study, tmp_path: Path) -> Study:
    return copied(raw, tmp_path / "study")


def test_everything_is_made_once_after_what_it_is_made_from(study: Study) -> None:
    crew, books, coordinator = make_with(study, 3)
    assert sorted(crew.made, key=str) == sorted(all_places(study), key=str)
    # what a worker makes is written down before what another one makes from it
    assert len(books.written) == len(set(books.written)) == len(crew.made)
    for asset, key in crew.made:
        above = sources(study.provenance(asset, key).inputs, key)
        assert all(books.written.index(place) < books.written.index((asset, key)) for place in above)
    assert not coordinator.failures
    assert {state for states in all_states(study).values() for state in states.values()} == {"current"}


def test_what_does_not_depend_on_each_other_is_made_at_the_same_time(study: Study) -> None:
    crew, _, _ = make_with(study, 8)
    at_once = set().union(*(set(together) for together in crew.together if "fold_model" in together))
    assert {"fold_model", "case_model", "baseline_weights", "donor_signals"} <= at_once


def test_a_partition_is_made_in_one_go_but_nothing_waits_for_what_branches_off(study: Study) -> None:
    crew, _, _ = make_with(study, 2)
    chains = {chain.assets for chain in crew.handed if len(chain.assets) > 1}
    assert ("augmented_case", "case_model", "dice_row") in chains
    assert ("early_row", "repeated_row") in chains
    assert ("reduced_model", "reduced_evaluation") in chains
    assert all(len({GRAPH[asset].partition for asset in assets}) == 1 for assets in chains)


def test_few_long_trainings_begin_before_many_short_ones(study: Study) -> None:
    crew, _, _ = make_with(study, 1)
    first = {chain.assets[0]: place for place, chain in reversed([*enumerate(crew.handed)])}
    assert first["fold_model"] < first["augmented_case"]


def test_bad_data_stop_what_needs_them_and_nothing_else(study: Study) -> None:
    make(study, "cohort")
    bad = study.cohort.tests[0]
    crew, books, coordinator = make_with(study, 2, lambda asset, key: (asset, key) == ("case_slices", bad))
    assert coordinator.failures == [f"case_slices of {bad} failed.\nbad data"]
    made = set(crew.made)
    donors = study.cohort.donors
    # networks never learn from a test case, and every row has a cell of it
    assert {("case_model", donor) for donor in donors} | {("fold_model", "fold_1")} <= made
    assert not {"dice_row", "case_ranking", "evidence", "experiment_report"} & {asset for asset, _ in made}
    assert made.isdisjoint({("reduced_model", name) for name in study.removal_sets})
    assert coordinator.lost == len(set(all_places(study)) - made) - 1
    assert set(books.written) == made


def test_a_lost_model_costs_its_own_partition_and_what_comes_of_all(study: Study) -> None:
    make(study, "cohort")
    bad = study.cohort.donors[1]
    crew, _, coordinator = make_with(study, 4, lambda asset, key: (asset, key) == ("case_model", bad))
    others = [donor for donor in study.cohort.donors if donor != bad]
    made = set(crew.made)
    assert ("augmented_case", bad) in made
    assert {("early_row", donor) for donor in others} | {("label_quality", None)} <= made
    assert made.isdisjoint({("dice_row", bad), ("early_row", bad), ("dice_matrix", None)})
    assert len(coordinator.failures) == 1


def test_without_a_list_of_patients_only_they_and_the_report_are_lost(study: Study) -> None:
    crew, _, coordinator = make_with(study, 2, lambda asset, key: asset == "patient_list")
    made = {asset for asset, _ in crew.made}
    assert "experiment_report" not in made
    assert {"evidence", "confirmation", "cost"} <= made
    assert coordinator.failures == ["patient_list failed.\nbad data"]


def test_what_is_done_is_passed_over_and_what_follows_a_change_is_made(study: Study) -> None:
    make_with(study, 2)
    donor = study.cohort.donors[0]
    give_new_version(study, "case_model", donor)
    books = Memory(study)
    changed = {"dice_row", "early_row"}
    books.done = {place for place in all_places(study) if place not in {(asset, donor) for asset in changed}}
    crew, books, _ = make_with(study, 2, books=books)
    assert set(crew.made) == {(asset, donor) for asset in changed}
    assert len(books.passed_over) == len(all_places(study)) - len(changed)


def test_nobody_is_gathered_where_everything_is_done(study: Study) -> None:
    make_with(study, 2)
    books = Memory(study)
    books.done = set(all_places(study))

    def gather() -> Iterator[Pretenders]:
        raise AssertionError("workers were asked for")

    Coordinator(study, GRAPH, gather, books, lambda line: None).run()
    assert len(books.passed_over) == len(all_places(study)) > len(CASES)
