"""The database: whole tables, one writer at a time, nobody kept out for long."""

import multiprocessing
import time

import duckdb
import pandas as pd
import pytest

from idal_assets.analysis import database
from idal_assets.analysis.database import TABLES, read_table, replace_table

SPAWN = multiprocessing.get_context("spawn")
PATIENCE = 60.0  # seconds; far more than the processes need, so that only a hang fails
HOSTILE = "x'; DROP TABLE dice; --"


def dice_rows(count, value=0.5, first="a"):
    return pd.DataFrame(
        {
            "donor": first,
            "receiver": [f"r{number:03d}" for number in range(count)],
            "region": "mean",
            "dice": value,
            "tp": pd.array([None] * count, dtype="Int64"),
            "fp": 1,
            "fn": 2,
            "receiver_role": "donor",
            "model_version": "m",
            "receiver_version": "v",
        }
    )


def score_rows(*cases):
    table = pd.DataFrame({"case_id": list(cases), "donor_mean": 0.5, "receiver_mean": 0.25, "score": -1.5})
    return table.assign(rank=range(1, len(cases) + 1), cluster=1)


@pytest.fixture
def place(tmp_path):
    return tmp_path / "idal.duckdb", tmp_path / ".locks" / "idal.duckdb.lock"


def test_a_table_is_replaced_as_a_whole(place):
    file, lock = place
    replace_table(file, "case_score", score_rows("a", "b", "c"), lock)
    replace_table(file, "case_score", score_rows("d"), lock)
    found = read_table(file, "case_score")
    assert found["case_id"].tolist() == ["d"]
    assert found.iloc[0].to_dict() == {**score_rows("d").iloc[0].to_dict(), "case_id": "d"}


def test_the_order_of_columns_does_not_matter(place):
    file, lock = place
    rows = dice_rows(3, value=0.75)
    replace_table(file, "dice", rows[sorted(rows.columns, reverse=True)], lock)
    found = read_table(file, "dice")
    assert list(found.columns) == [part.split()[0] for part in TABLES["dice"].split("PRIMARY")[0].split(",")[:-1]]
    assert found["dice"].tolist() == [0.75] * 3
    assert found["tp"].isna().all()
    assert (found["fp"].tolist(), found["fn"].tolist()) == ([1] * 3, [2] * 3)


def test_tables_do_not_touch_each_other(place):
    file, lock = place
    replace_table(file, "dice", dice_rows(2), lock)
    replace_table(file, "case_score", score_rows("a"), lock)
    replace_table(file, "dice", dice_rows(5), lock)
    assert len(read_table(file, "dice")) == 5
    assert len(read_table(file, "case_score")) == 1


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        (score_rows("a", "a"), duckdb.ConstraintException),
        (score_rows("a").assign(unknown=1), duckdb.BinderException),
        (score_rows("a").assign(rank="worst"), duckdb.ConversionException),
    ],
)
def test_bad_rows_leave_the_old_content(place, rows, error):
    file, lock = place
    replace_table(file, "case_score", score_rows("x", "y"), lock)
    with pytest.raises(error):
        replace_table(file, "case_score", rows, lock)
    assert read_table(file, "case_score")["case_id"].tolist() == ["x", "y"]


def test_a_table_of_an_older_version_gets_the_columns_of_this_one(place):
    file, lock = place
    with duckdb.connect(str(file)) as connection:
        connection.execute("CREATE TABLE case_score (case_id VARCHAR, old_column INTEGER)")
    replace_table(file, "case_score", score_rows("a"), lock)
    assert "old_column" not in read_table(file, "case_score")


def test_text_that_looks_like_sql_is_only_text(place):
    file, lock = place
    replace_table(file, "dice", dice_rows(2), lock)
    replace_table(file, "case_score", score_rows(HOSTILE, 'y"z', "Größe %s ?"), lock)
    assert read_table(file, "case_score")["case_id"].tolist() == [HOSTILE, 'y"z', "Größe %s ?"]
    assert len(read_table(file, "dice")) == 2


def test_reading_does_not_write(place):
    file, lock = place
    replace_table(file, "dice", dice_rows(1), lock)
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
        replace_table(file, table, rows, lock)


def test_processes_that_write_and_read_at_once_all_succeed(place):
    file, lock = place
    replace_table(file, "dice", dice_rows(50, value=0.0, first="before"), lock)
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
    replace_table(file, "dice", dice_rows(2), lock)
    held_open(0.6)
    replace_table(file, "dice", dice_rows(3), lock)
    assert file.with_name("letting_go").exists()
    held_open(0.6)
    file.with_name("letting_go").unlink(missing_ok=True)
    assert len(read_table(file, "dice")) == 3
    assert file.with_name("letting_go").exists()


def test_waiting_ends(place, held_open, monkeypatch):
    file, lock = place
    monkeypatch.setattr(database, "SECONDS_TO_WAIT", 0.3)
    replace_table(file, "dice", dice_rows(2), lock)
    held_open(PATIENCE)
    with pytest.raises(duckdb.IOException, match="lock"):
        replace_table(file, "dice", dice_rows(3), lock)


def test_a_damaged_file_is_not_waited_for(place, monkeypatch):
    file, lock = place
    file.write_bytes(b"this is no database" * 1000)
    monkeypatch.setattr(database.time, "sleep", lambda seconds: pytest.fail("waited for a damaged file"))
    with pytest.raises(duckdb.IOException, match="not a valid DuckDB"):
        replace_table(file, "dice", dice_rows(1), lock)
    with pytest.raises(duckdb.IOException, match="does not exist"):
        read_table(file.with_name("absent.duckdb"), "dice")
