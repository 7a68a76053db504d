from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from lightcurves.errors import ConfigurationError, UnavailableError
from store.database import QueryTimeoutError, is_current, migrate, open_database, reading
from store.labels import report_label
from store.registry import promote, record_trial, register_model
from store.requests import ask
from store.tables import METADATA, classifications, labels, promotions, request_events, trials
from tests.manifests import manifest
from tests.postgres import PASSWORD, PostgresServer
from tests.store.conftest import request

REPOSITORY = Path(__file__).parents[2]


def test_the_migrated_tables_are_those_of_the_code(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []


def test_the_migrated_keys_are_those_of_the_code(engine: sa.Engine) -> None:
    """Alembic's comparison passes over primary keys."""
    inspector = sa.inspect(engine)
    for table in METADATA.sorted_tables:
        key = inspector.get_pk_constraint(table.name)
        assert key["constrained_columns"] == [column.name for column in table.primary_key]


def test_migrating_again_only_looks(engine: sa.Engine) -> None:
    statements: list[str] = []
    sa.event.listen(
        engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2])
    )
    migrate(engine)
    assert "SELECT version_num FROM alembic_version" in statements
    looks = ("BEGIN", "SELECT", "PRAGMA")
    assert all(text.strip().startswith(looks) for text in statements)
    assert len([text for text in statements if "BEGIN" not in text]) <= 4


def test_a_new_field_of_the_record_becomes_a_column(engine: sa.Engine) -> None:
    """A database of the release before: its rows stay, and are null there."""
    column = "raw_entropy"
    row = dict.fromkeys(classifications.c.keys()) | {
        "survey": "lsst",
        "dia_source_id": 2**61 + 1,
        **dict.fromkeys(("topic", "run_id"), "x"),
        **dict.fromkeys(
            ("kafka_partition", "kafka_offset", "batch_id", "arrival_ms", "processed_ms"), 0
        ),
        "t_mjd_tai": 61000.0,
    }
    with engine.begin() as connection:
        connection.execute(sa.insert(classifications), [row])
        connection.execute(sa.text(f"ALTER TABLE classifications DROP COLUMN {column}"))
    assert not is_current(engine)
    migrate(engine)
    assert is_current(engine)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
        there = connection.execute(sa.select(classifications)).mappings().one()
    assert there["dia_source_id"] == 2**61 + 1
    assert there[column] is None


def test_four_processes_migrate_at_once(url: str) -> None:
    program = (
        "import sys; from store.database import migrate, open_database; "
        "print('ready', flush=True); sys.stdin.readline(); migrate(open_database(sys.argv[1]))"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", program, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        )
        for _ in range(4)
    ]
    for racer in racers:
        assert racer.stdout is not None
        racer.stdout.readline()
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    said = [racer.communicate()[1] for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * 4, said


def test_four_threads_migrate_at_once(empty: sa.Engine) -> None:
    threads = [threading.Thread(target=migrate, args=[empty]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()  # an error in a thread is a warning, and so fails the test
    assert set(METADATA.tables) < set(sa.inspect(empty).get_table_names())


def test_first_starts_at_once_do_not_collide(tmp_path: Path) -> None:
    """Two that turn SQLite's write-ahead log on at once: one was told "database is locked"."""
    racers = 8
    for attempt in range(20):
        url = f"sqlite:///{tmp_path}/{attempt}.sqlite"
        barrier = threading.Barrier(racers)
        with ThreadPoolExecutor(racers) as pool:
            list(pool.map(lambda _, url=url, barrier=barrier: start(url, barrier), range(racers)))


def start(url: str, barrier: threading.Barrier) -> None:
    engine = open_database(url)
    barrier.wait()
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE IF NOT EXISTS made (a)"))
    engine.dispose()


def test_tables_of_a_newer_noctule_are_refused(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigurationError, match=r"newer noctule .*9999.*upgrade this one"):
        migrate(engine)


def test_tables_are_made_in_one_transaction(empty: sa.Engine) -> None:
    """Without care, SQLite commits every CREATE TABLE by itself."""
    with empty.connect() as connection:
        METADATA.create_all(connection)
        connection.rollback()
    assert sa.inspect(empty).get_table_names() == []


def fill_ledgers(connection: sa.Connection) -> None:
    ask(connection, [request(2)])
    report_label(connection, survey="lsst", object_id=1, class_id=111, reporter="me", now_ms=1)
    register_model(connection, manifest("m1"), Path("models/m1"), now_ms=1)
    promote(connection, "champion", "m1", reason="first", now_ms=1)
    record_trial(
        connection,
        champion_version="m1",
        challenger_version="m2",
        n_labels=1,
        promoted=False,
        gate={},
        now_ms=1,
    )


@pytest.mark.parametrize(
    "table", [labels, promotions, request_events, trials], ids=lambda table: str(table.name)
)
@pytest.mark.parametrize("change", ["DELETE FROM {table}", "UPDATE {table} SET {key} = 7"])
def test_a_ledger_refuses_changes(engine: sa.Engine, table: sa.Table, change: str) -> None:
    with engine.begin() as connection:
        fill_ledgers(connection)
    (key,) = table.primary_key
    statement = sa.text(change.format(table=table.name, key=key.name))
    with pytest.raises(sa.exc.IntegrityError, match="append-only"), engine.begin() as connection:
        connection.execute(statement)
    with reading(engine) as connection:
        assert connection.scalars(sa.select(key)).all() == [1]


def test_a_ledger_refuses_to_be_replaced_or_emptied(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        fill_ledgers(connection)
    for table in ("labels", "request_events"):
        statement = {
            "sqlite": f"REPLACE INTO {table} SELECT * FROM {table}",  # noqa: S608 - a test's
            "postgresql": f"TRUNCATE {table}",
        }[engine.dialect.name]
        with pytest.raises(sa.exc.IntegrityError, match="append-only"):  # noqa: SIM117
            with engine.begin() as connection:
                connection.execute(sa.text(statement))


def test_foreign_keys_hold(engine: sa.Engine) -> None:
    row = promotions.insert().values(alias="a", model_version="no", promoted_ms=1, reason="")
    with pytest.raises(sa.exc.IntegrityError), engine.begin() as connection:
        connection.execute(row)


def test_a_missing_json_value_is_null(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        fill_ledgers(connection)
        missing = sa.select(promotions.c.alias).where(promotions.c.gate.is_(None))
        assert connection.scalars(missing).all() == ["champion"]


def test_what_a_writer_has_read_stays_true(tmp_path: Path) -> None:
    """BEGIN IMMEDIATE: a second writer waits from the start, not with a stale read in hand."""
    engine = open_database(f"sqlite:///{tmp_path}/a.sqlite", busy_timeout_s=0.05)
    migrate(engine)
    with engine.begin() as first:
        first.execute(sa.select(labels))
        with pytest.raises(UnavailableError, match="another process is writing"):
            engine.begin().__enter__()
    engine.dispose()


def test_reading_does_not_wait_for_a_writer(engine: sa.Engine) -> None:
    with engine.begin() as writer, reading(engine) as reader:
        fill_ledgers(writer)
        assert reader.execute(sa.select(labels)).all() == []


def test_reading_sees_one_state(engine: sa.Engine) -> None:
    with reading(engine) as reader:
        assert reader.execute(sa.select(labels)).all() == []
        with engine.begin() as writer:
            fill_ledgers(writer)
        assert reader.execute(sa.select(labels)).all() == []


def test_the_engine_writes_after_it_has_read(engine: sa.Engine) -> None:
    """The options of a reading transaction do not stay with the pooled connection."""
    with reading(engine) as reader:
        reader.execute(sa.select(labels))
    with engine.begin() as connection:
        fill_ledgers(connection)


def test_reading_writes_nothing(engine: sa.Engine) -> None:
    refusal = {
        "sqlite": (UnavailableError, "readonly database"),
        "postgresql": (sa.exc.InternalError, "read-only"),
    }
    error, words = refusal[engine.dialect.name]
    with pytest.raises(error, match=words), reading(engine) as connection:
        fill_ledgers(connection)
    with engine.begin() as connection:
        fill_ledgers(connection)


COUNT = """
    WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {last})
    SELECT COUNT(*) FROM numbers"""
"""Takes as long as one likes, and no table."""


def test_a_query_that_takes_too_long_is_ended(url: str) -> None:
    engine = open_database(url, query_timeout_s=0.2)
    migrate(engine)
    begin = time.monotonic()
    endless = sa.text(COUNT.format(last=10**12))
    for _ in range(2):  # the limit stays with the engine, whichever connection of it
        with pytest.raises(QueryTimeoutError) as error, reading(engine) as connection:
            connection.execute(endless).all()
        assert "store.query_timeout_s" in one_line(error)
    assert time.monotonic() - begin < 5
    with reading(engine) as connection:
        for _ in range(4):  # the limit is a statement's
            connection.execute(sa.text(COUNT.format(last=3))).all()
            time.sleep(0.1)
    engine.dispose()


def test_who_writes_has_no_limit(url: str) -> None:
    limited, free = open_database(url, query_timeout_s=0.01), open_database(url)
    migrate(limited)
    query = sa.text(COUNT.format(last=400_000))
    with limited.begin() as connection:
        assert connection.execute(query).scalar() == 400_000
    with reading(free) as connection:
        assert connection.execute(query).scalar() == 400_000
    with pytest.raises(QueryTimeoutError), reading(limited) as connection:
        connection.execute(query).all()
    with limited.begin() as connection:  # on the connection that was cut off
        fill_ledgers(connection)
    for engine in (limited, free):
        engine.dispose()


def one_line(error: pytest.ExceptionInfo[UnavailableError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert PASSWORD not in text
    assert error.value.service == "database"
    return text


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnavailableError) as error:
        open_database(f"sqlite:///{tmp_path}/file/noctule.sqlite")
    assert "cannot make the folder" in one_line(error)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "noctule.sqlite").write_text("no database" * 100)
    with pytest.raises(UnavailableError) as error:
        migrate(open_database(f"sqlite:///{tmp_path}/noctule.sqlite"))
    assert "file is not a database; move that file away" in one_line(error)


def test_a_database_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError) as error:
        migrate(open_database(f"sqlite:///{tmp_path}"))
    assert "unable to open database file; make its folder writable" in one_line(error)


def test_a_database_that_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "noctule.sqlite"
    migrate(open_database(f"sqlite:///{file}"))
    read_only = open_database(f"sqlite:///file:{file}?mode=ro&uri=true")
    with pytest.raises(UnavailableError) as error, read_only.begin() as connection:
        connection.execute(sa.text("DELETE FROM models"))
    assert "readonly database; make the file and its folder writable" in one_line(error)


def test_a_fault_of_the_program_is_no_unavailability(engine: sa.Engine) -> None:
    with (
        pytest.raises((sa.exc.OperationalError, sa.exc.ProgrammingError)),
        engine.begin() as connection,
    ):
        connection.execute(sa.text("SELECT * FROM no_such_table"))


@pytest.mark.parametrize(
    "url", ["mysql://u:hunter2@host/n", "nothing", "postgresql://u:hunter2@host:port/n"]
)
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"store\.url") as error:
        open_database(url)
    assert "hunter2" not in str(error.value)


def test_a_postgresql_that_is_away() -> None:
    with pytest.raises(UnavailableError) as error:
        migrate(open_database("postgresql://noctule:hunter2%40home@127.0.0.1:1/noctule"))
    assert "postgresql+psycopg://noctule:***@127.0.0.1:1/noctule" in one_line(error)
    assert "see that it runs" in str(error.value)


def test_a_wrong_password(postgres: PostgresServer) -> None:
    with pytest.raises(UnavailableError) as error:
        migrate(open_database(postgres.url().replace("hunter2", "hunter3")))
    assert "password authentication failed" in one_line(error)
    assert "hunter3" not in str(error.value)


def test_a_lock_that_another_holds(postgres: PostgresServer) -> None:
    engine = open_database(postgres.new_database(), busy_timeout_s=0.05)
    migrate(engine)
    lock = sa.text("LOCK TABLE promotions IN SHARE ROW EXCLUSIVE MODE")
    with engine.begin() as first, engine.connect() as second:
        first.execute(lock)
        with pytest.raises(UnavailableError) as error:
            second.execute(lock)
    assert "another process is writing" in one_line(error)
    engine.dispose()


def test_a_server_that_is_restarted(postgres: PostgresServer) -> None:
    engine = open_database(postgres.new_database())
    migrate(engine)
    postgres.stop()
    with pytest.raises(UnavailableError):
        migrate(engine)
    postgres.start()
    migrate(engine)
    engine.dispose()


def test_a_server_that_stops_in_the_middle(postgres: PostgresServer) -> None:
    engine = open_database(postgres.new_database())
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
        postgres.stop()
        with pytest.raises(UnavailableError) as error:
            connection.execute(sa.text("SELECT 1"))
        postgres.start()
    assert "see that it runs" in one_line(error)
    engine.dispose()


def test_sqlite_has_the_settings_that_are_promised(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/a.sqlite", busy_timeout_s=7)
    with engine.begin() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {"journal_mode": "wal", "foreign_keys": 1, "busy_timeout": 7000}
    engine.dispose()
