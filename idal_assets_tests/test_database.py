"""The database: a history of whole versions, one writer at a time, nobody kept out for long."""

import multiprocessing
import os
import signal
import threading
import time

import duckdb
import pandas as pd
import pytest

from idal_assets.store import database
from idal_assets.store.database import TABLES, RecordError, read_table, record

pytestmark = pytest.mark.unit

SPAWN = multiprocessing.get_context("spawn")
PATIENCE = 60.0  # seconds; far more than the processes need, so that only a hang fails
HOSTILE = "x'; DROP TABLE dice; --"


def dice_rows(count, value=0.5, first="a", version=None):
    return pd.DataFrame(
        {
            "donor": first,
            "receiver": [f"r{number:03d}" for number in range(count)],
            "region": "mean",
            "dice": value,
            "iou": value / (2 - value),
            "hd95": 1.5,
            "tp": pd.array([None] * count, dtype="Int64"),
            "fp": 1,
            "fn": 2,
            "receiver_role": "donor",
            "model_version": "m",
            "receiver_version": "v",
            "matrix_version": version or f"of {count} {value} {first}",
        }
    )


def score_rows(*cases, version=None):
    filled = {"BOOLEAN": True, "VARCHAR": "m", "DOUBLE": 0.5, "INTEGER": 1}
    columns = {name: filled[kind] for name, kind in TABLES["case_score"].columns.items()}
    table = pd.DataFrame({**columns, "case_id": list(cases)}, columns=list(columns))
    return table.assign(rank=range(1, len(cases) + 1), ranking_version=version or "".join(cases))


def plan_rows(version, **removed):
    table = pd.DataFrame({"removal_set": list(removed), "removed": list(removed.values())})
    return table.assign(plan_version=version, ranking_version=f"r-{version}", matrix_version=f"m-{version}")


def set_rows(removal_set, removed, plan, content):
    cases = ["a", "b", "c"]
    table = pd.DataFrame({"case_id": cases, "kept": [case not in removed for case in cases], "rank": [1, 2, 3]})
    return table.assign(
        removal_set=removal_set,
        score=0.5,
        reason="because",
        training_set_version=content,
        plan_version=plan,
        ranking_version=f"r-{plan}",
        matrix_version=f"m-{plan}",
    )


def query(file, text, *values):
    with duckdb.connect(str(file), read_only=True) as connection:
        return connection.execute(text, values).fetchall()


@pytest.fixture
def place(tmp_path):
    return tmp_path / "idal.duckdb", tmp_path / ".locks" / "idal.duckdb.lock"


def test_the_simple_name_shows_the_last_version_as_a_whole(place):
    file, lock = place
    record(file, "case_score", score_rows("a", "b", "c"), lock)
    record(file, "case_score", score_rows("d"), lock)
    found = read_table(file, "case_score")
    assert found["case_id"].tolist() == ["d"]
    assert found.iloc[0].to_dict() == score_rows("d").iloc[0].to_dict()


def test_earlier_versions_stay(place):
    file, lock = place
    record(file, "case_score", score_rows("a", "b", "c"), lock)
    record(file, "case_score", score_rows("d"), lock)
    history = (
        "SELECT ranking_version, count(*), any_value(latest) FROM history.case_score GROUP BY ALL ORDER BY ALL"
    )
    assert query(file, history) == [("abc", 3, False), ("d", 1, True)]
    ((first, second),) = query(
        file, "SELECT min(recorded), max(recorded) FROM history.case_score WHERE ranking_version IN ('abc', 'd')"
    )
    assert first < second


def test_a_version_that_comes_again_leaves_no_duplicates_and_is_current(place):
    file, lock = place
    record(file, "case_score", score_rows("a", "b"), lock)
    ((recorded,),) = query(file, "SELECT DISTINCT recorded FROM history.case_score")
    record(file, "case_score", score_rows("d"), lock)
    record(file, "case_score", score_rows("a", "b"), lock)
    assert read_table(file, "case_score")["case_id"].tolist() == ["a", "b"]
    assert query(file, "SELECT count(*), count(*) FILTER (latest) FROM history.case_score") == [(3, 2)]
    assert query(file, "SELECT DISTINCT recorded FROM history.case_score WHERE latest") == [(recorded,)]


def test_a_version_that_comes_again_has_the_numbers_of_the_last_time(place):
    """Otherwise the database would contradict an artifact that was lost and made again on another card."""
    file, lock = place
    record(file, "case_score", score_rows("a"), lock)
    record(file, "case_score", score_rows("a").assign(score=-1.25), lock)
    assert read_table(file, "case_score")["score"].tolist() == [-1.25]


def test_every_removal_set_has_its_own_current_version(place):
    file, lock = place
    record(file, "removal_plan", plan_rows("p1", all=[], worst_1=["a"], worst_2=["a", "b"]), lock)
    for name, removed in {"all": "", "worst_1": "a", "worst_2": "ab"}.items():
        record(file, "training_set", set_rows(name, removed, "p1", f"{name}-1"), lock)
    record(file, "removal_plan", plan_rows("p2", all=[], worst_1=["c"]), lock)
    record(file, "training_set", set_rows("worst_1", "c", "p2", "worst_1-2"), lock)
    lost = "SELECT removal_set, case_id, plan_version FROM {} WHERE NOT kept ORDER BY ALL"
    # worst_2 is in the plan no longer
    assert query(file, lost.format("training_set")) == [("worst_1", "c", "p2")]
    assert set(read_table(file, "training_set")["removal_set"]) == {"all", "worst_1"}
    assert query(file, lost.format("history.training_set")) == [
        ("worst_1", "a", "p1"),
        ("worst_1", "c", "p2"),
        ("worst_2", "a", "p1"),
        ("worst_2", "b", "p1"),
    ]
    record(file, "removal_plan", plan_rows("p1", all=[], worst_1=["a"], worst_2=["a", "b"]), lock)
    assert set(read_table(file, "training_set")["removal_set"]) == {"all", "worst_1", "worst_2"}


def test_a_plan_alone_tells_which_cases_it_removed(place):
    file, lock = place
    record(file, "removal_plan", plan_rows("p1", all=[], worst_2=["b", HOSTILE]), lock)
    record(file, "removal_plan", plan_rows("p2", all=[]), lock)
    found = "SELECT removal_set, matrix_version FROM history.removal_plan WHERE list_contains(removed, ?)"
    assert query(file, found, HOSTILE) == [("worst_2", "m-p1")]
    assert query(file, "SELECT removal_set, removed FROM removal_plan") == [("all", [])]


def test_without_controls_the_earlier_ones_are_history(place):
    file, lock = place
    rows = pd.DataFrame({"control": ["random_1_r01"], "removed": 1, "mean_difference": 0.25})
    rows = rows.assign(plan_version="p1", evidence_version="e1")
    record(file, "control", rows, lock)
    record(file, "control", rows[:0], lock)
    assert read_table(file, "control").empty
    assert query(file, "SELECT control, latest FROM history.control") == [("random_1_r01", False)]


def test_the_order_of_columns_does_not_matter(place):
    file, lock = place
    rows = dice_rows(3, value=0.75)
    record(file, "dice", rows[sorted(rows.columns, reverse=True)], lock)
    found = read_table(file, "dice")
    assert list(found.columns) == list(TABLES["dice"].columns)
    assert found["dice"].tolist() == [0.75] * 3
    assert found["tp"].isna().all()
    assert (found["fp"].tolist(), found["fn"].tolist()) == ([1] * 3, [2] * 3)


def test_tables_do_not_touch_each_other(place):
    file, lock = place
    record(file, "dice", dice_rows(2), lock)
    record(file, "case_score", score_rows("a"), lock)
    record(file, "dice", dice_rows(5), lock)
    assert len(read_table(file, "dice")) == 5
    assert len(read_table(file, "case_score")) == 1


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        (score_rows("a", "a"), RecordError),
        (pd.concat([score_rows("a"), score_rows("b")]), RecordError),
        (score_rows("a").assign(ranking_version=None), RecordError),
        (score_rows("a")[:0], RecordError),
        (score_rows("a").assign(unknown=1), duckdb.BinderException),
        (score_rows("a").assign(rank="worst"), duckdb.ConversionException),
    ],
)
def test_bad_rows_leave_the_old_content(place, rows, error):
    file, lock = place
    record(file, "case_score", score_rows("x", "y"), lock)
    with pytest.raises(error):
        record(file, "case_score", rows, lock)
    assert read_table(file, "case_score")["case_id"].tolist() == ["x", "y"]
    assert query(file, "SELECT count(*) FROM history.case_score") == [(2,)]


def test_tables_from_before_the_history_give_way_one_by_one(place):
    file, lock = place
    with duckdb.connect(str(file)) as connection:
        connection.execute("CREATE TABLE case_score (case_id VARCHAR PRIMARY KEY, old_column INTEGER)")
        connection.execute("CREATE TABLE evaluation AS SELECT 'all' AS removal_set")
    record(file, "case_score", score_rows("a"), lock)
    assert list(read_table(file, "case_score").columns) == list(TABLES["case_score"].columns)
    # until it is made again
    assert read_table(file, "evaluation")["removal_set"].tolist() == ["all"]
    assert read_table(file, "dice").empty


def test_a_history_without_a_column_that_came_later_is_kept(place):
    file, lock = place
    record(file, "case_score", score_rows("a"), lock)
    with duckdb.connect(str(file)) as connection:
        connection.execute("ALTER TABLE history.case_score DROP COLUMN cluster")
    record(file, "case_score", score_rows("b"), lock)
    found = query(file, "SELECT case_id, cluster FROM history.case_score ORDER BY case_id")
    assert found == [("a", None), ("b", 1)]
    assert read_table(file, "case_score")["cluster"].tolist() == [1]


def test_text_that_looks_like_sql_is_only_text(place):
    file, lock = place
    record(file, "dice", dice_rows(2), lock)
    record(file, "case_score", score_rows(HOSTILE, 'y"z', "Größe %s ?"), lock)
    assert read_table(file, "case_score")["case_id"].tolist() == [HOSTILE, 'y"z', "Größe %s ?"]
    assert len(read_table(file, "dice")) == 2


def test_reading_does_not_write(place):
    file, lock = place
    record(file, "dice", dice_rows(1), lock)
    before = file.read_bytes(), file.stat().st_mtime_ns
    read_table(file, "dice")
    with duckdb.connect(str(file), read_only=True) as connection, pytest.raises(duckdb.InvalidInputException):
        connection.execute("DROP TABLE dice")
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before


def write_rounds(file, lock, table, first, rounds):
    for number in range(1, rounds + 1):
        rows = (
            dice_rows(50, value=number / 100, first=first) if table == "dice" else score_rows(first, str(number))
        )
        record(file, table, rows, lock)


def test_processes_that_write_and_read_at_once_all_succeed(place):
    file, lock = place
    record(file, "dice", dice_rows(50, value=0.0, first="before"), lock)
    jobs = [("dice", "a"), ("dice", "b"), ("case_score", "c")]
    writers = [SPAWN.Process(target=write_rounds, args=(file, lock, *job, 4)) for job in jobs]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        rows = read_table(file, "dice")
        # of one writer and one round, never a mixture
        assert len(rows) == 50
        assert len(set(zip(rows["donor"], rows["dice"], strict=True))) == 1
        seen.add((rows["donor"].iloc[0], rows["dice"].iloc[0]))
        time.sleep(0.02)
    for writer in writers:
        writer.join(PATIENCE)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert len(seen) > 1
    last = read_table(file, "dice")
    assert set(last["dice"]) == {0.04}
    assert read_table(file, "case_score")["case_id"].tolist() == ["c", "4"]
    # and nothing that anyone wrote is lost
    written = query(file, "SELECT count(*), count(DISTINCT matrix_version) FROM history.dice")
    assert written == [(50 * (1 + 2 * 4), 1 + 2 * 4)]
    assert query(file, "SELECT count(*) FROM history.case_score") == [(2 * 4,)]


def hold_open(file, opened, seconds):
    with duckdb.connect(str(file)):
        opened.set()
        time.sleep(seconds)
        file.with_name("letting_go").touch()


@pytest.fixture
def held_open(place):
    """Another program has the file open, without our lock, for the given time."""
    processes = []

    def hold(seconds):
        opened = SPAWN.Event()
        processes.append(SPAWN.Process(target=hold_open, args=(place[0], opened, seconds)))
        processes[-1].start()
        assert opened.wait(PATIENCE)

    yield hold
    for process in processes:
        process.kill()
        process.join()


def test_writer_and_reader_wait_for_another_program(place, held_open):
    file, lock = place
    record(file, "dice", dice_rows(2), lock)
    held_open(0.6)
    record(file, "dice", dice_rows(3), lock)
    assert file.with_name("letting_go").exists()
    held_open(0.6)
    file.with_name("letting_go").unlink(missing_ok=True)
    assert len(read_table(file, "dice")) == 3
    assert file.with_name("letting_go").exists()


def test_waiting_ends(place, held_open, monkeypatch):
    file, lock = place
    monkeypatch.setattr(database, "SECONDS_TO_WAIT", 0.3)
    record(file, "dice", dice_rows(2), lock)
    held_open(PATIENCE)
    with pytest.raises(duckdb.IOException, match="lock"):
        record(file, "dice", dice_rows(3), lock)


def test_a_damaged_file_is_not_waited_for(place, monkeypatch):
    file, lock = place
    file.write_bytes(b"this is no database" * 1000)
    monkeypatch.setattr(database.time, "sleep", lambda seconds: pytest.fail("waited for a damaged file"))
    with pytest.raises(duckdb.IOException, match="not a valid DuckDB"):
        record(file, "dice", dice_rows(1), lock)
    with pytest.raises(duckdb.IOException, match="does not exist"):
        read_table(file.with_name("absent.duckdb"), "dice")


def test_stopping_in_a_query_is_stopping(place):
    file, lock = place
    record(file, "dice", dice_rows(2), lock)
    kept = signal.signal(signal.SIGINT, signal.default_int_handler)
    stop = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    long = "SELECT sum(range % 7) FROM range(10000000000)"
    try:
        with pytest.raises(KeyboardInterrupt), database._connect(file) as connection:
            # else another thread may have all the work while this one waits and hears of nothing
            connection.execute("SET threads = 1")
            stop.start()
            connection.execute(long)
    finally:
        signal.signal(signal.SIGINT, kept)
    assert len(read_table(file, "dice")) == 2
