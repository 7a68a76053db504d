"""Opens the SQL database, SQLite or PostgreSQL, and brings its tables up to date.

``with engine.begin() as connection`` is a transaction that may write: on SQLite it takes the write
lock at its start, so that what it has read is still true when it writes. ``with
reading(engine) as connection`` never waits for a writer, cannot write, and stops a query that takes too
long, if the engine has a limit. If the database cannot be reached, both raise
`UnavailableError`; no other module needs to know the drivers' exceptions.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

import psycopg
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import ExceptionContext

from lightcurves.errors import ConfigurationError, UnavailableError
from store.tables import classifications
from store.urls import mask_password

MIGRATIONS: Final = Path(__file__).parent / "migrations"
CONNECT_TIMEOUT_S: Final = 10
MIGRATION_LOCK: Final = 0x6E6F6374756C65  # any number: "noctule"; PostgreSQL's locks are numbers

_RETRY_S: Final = 0.02
_READING: Final = "noctule_reading"
_LIMIT_S: Final = "noctule_query_timeout_s"
_STEPS: Final = 10_000
"""SQLite looks at the clock every this many instructions of its virtual machine, well under a millisecond."""
_ALEMBIC: Final = threading.Lock()  # Alembic keeps the migration at work in a global

_BUSY: Final = "another process is writing: wait, or raise store.busy_timeout_s"
_ADVICE: Final = {
    sqlite3.SQLITE_BUSY: _BUSY,
    sqlite3.SQLITE_READONLY: "make the file and its folder writable, or choose another store.url",
    sqlite3.SQLITE_CANTOPEN: "make its folder writable, or choose another store.url",
    sqlite3.SQLITE_FULL: "make room on the disk",
    sqlite3.SQLITE_IOERR: "check the disk for errors",
    sqlite3.SQLITE_CORRUPT: "restore it from a backup",
    sqlite3.SQLITE_NOTADB: "move that file away, or choose another store.url",
}
"""What to do, by SQLite's primary result code; other codes are bugs in the program."""

_ADVICE_POSTGRESQL: Final = (
    "see that it runs, and that store.url has the right host, port, user, password and database"
)
_CONTENTION: Final = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
)


class QueryTimeoutError(UnavailableError):
    """A query took longer than the limit."""


def open_database(
    url: str, *, busy_timeout_s: float = 30.0, query_timeout_s: float | None = None
) -> sa.Engine:
    """Return a pool of connections; opens none yet, but makes the folder of a SQLite file.

    Parameters
    ----------
    url
        ``sqlite:///relative.sqlite``, ``sqlite:////absolute.sqlite`` or
        ``postgresql://user:password@host:port/name``.
    busy_timeout_s
        How long a statement waits for another writer's lock before it fails.
    query_timeout_s
        How long a statement within :func:`reading` may take; None sets no limit.

    Raises
    ------
    UnavailableError
        The folder cannot be made; later, from any use of the engine: the database is unavailable,
        locked or not writable, or refuses the password. The message never contains the password.
    QueryTimeoutError
        From a statement within :func:`reading`: it took longer than the limit.
    ConfigurationError
        No such kind of database.
    """
    parsed = _parsed(url)
    if parsed.get_backend_name() == "sqlite":
        _make_folder(parsed)
        engine = _open_sqlite(parsed, busy_timeout_s)
    else:
        engine = _open_postgresql(parsed, busy_timeout_s)
    sa.event.listen(engine, "handle_error", _translate)
    if query_timeout_s is not None:
        engine.update_execution_options(**{_LIMIT_S: query_timeout_s})
    return engine


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (sa.exc.ArgumentError, ValueError):  # which may contain a part of the password
        raise ConfigurationError(f"store.url {mask_password(url)!r} is not a URL") from None
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        return parsed.set(drivername="sqlite+pysqlite")
    if backend in {"postgresql", "postgres"}:
        return parsed.set(drivername="postgresql+psycopg")
    raise ConfigurationError(f"store.url is for {backend!r}: use sqlite:/// or postgresql://")


def _make_folder(url: URL) -> None:
    if url.database in {None, "", ":memory:"} or str(url.database).startswith("file:"):
        return
    folder = Path(str(url.database)).absolute().parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        hint = f"cannot make the folder {folder} ({error.strerror}): choose another store.url"
        raise UnavailableError("database", hint) from error


def _open_sqlite(url: URL, busy_timeout_s: float) -> sa.Engine:
    # sqlite3 does not begin transactions by itself (isolation_level None): _begin_sqlite does.
    engine = sa.create_engine(
        url, connect_args={"timeout": busy_timeout_s, "isolation_level": None}
    )
    sa.event.listen(engine, "connect", lambda raw, _: _prepare_sqlite(raw, busy_timeout_s))
    sa.event.listen(engine, "begin", _begin_sqlite)
    sa.event.listen(engine, "before_cursor_execute", _limit_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, busy_timeout_s: float) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
    deadline = time.monotonic() + busy_timeout_s
    while not _turn_wal_on(connection):
        if time.monotonic() > deadline:
            raise UnavailableError("database", _BUSY)
        time.sleep(_RETRY_S)


def _turn_wal_on(connection: sqlite3.Connection) -> bool:
    """Turn on the write-ahead log, once per database: then readers do not wait for the writer.

    Returns False if another process is doing it too; SQLite's own waiting does not cover this.
    """
    try:
        connection.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
            return False
        raise
    return True


def _begin_sqlite(connection: sa.Connection) -> None:
    reading_only = bool(connection.get_execution_options().get(_READING))
    raw: Any = connection.connection.driver_connection
    raw.execute(f"PRAGMA query_only = {reading_only:d}")
    raw.set_progress_handler(None, _STEPS)
    connection.exec_driver_sql("BEGIN" if reading_only else "BEGIN IMMEDIATE")


def _limit_sqlite(connection: sa.Connection, *_: object) -> None:
    """Let SQLite check the clock during the next statement, and give up when the time is over.

    SQLite finds rows while they are fetched: what the reader does between two fetches counts.
    """
    options = connection.get_execution_options()
    if options.get(_READING) and _LIMIT_S in options:
        deadline = time.monotonic() + options[_LIMIT_S]
        raw: Any = connection.connection.driver_connection
        raw.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)


def _open_postgresql(url: URL, busy_timeout_s: float) -> sa.Engine:
    return sa.create_engine(
        url,
        pool_pre_ping=True,  # a restarted server is noticed here, not in the middle of a batch
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_S,
            "application_name": "noctule",
            "options": f"-c lock_timeout={round(busy_timeout_s * 1000)}",
        },
    )


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Open a transaction that sees one snapshot of the database, does not wait for writers and cannot write.

    Raises
    ------
    QueryTimeoutError
        A statement took longer than the limit of `engine`.
    """
    options: dict[str, Any] = {_READING: True}
    limit_s = engine.get_execution_options().get(_LIMIT_S)
    on_postgresql = engine.dialect.name == "postgresql"
    if on_postgresql:
        options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with engine.connect() as connection, connection.execution_options(**options).begin():
        if on_postgresql and limit_s is not None:
            limit_ms = max(1, round(1000 * limit_s))  # 0 would be no limit
            connection.exec_driver_sql(f"SET LOCAL statement_timeout = {limit_ms}")
        yield connection


def _translate(context: ExceptionContext) -> None:
    """Raise `UnavailableError` for errors that are not bugs of the program; leave the others as they are."""
    error = context.original_exception
    if _is_late(error):
        hint = "a query took too long: ask for less, or raise store.query_timeout_s"
        raise QueryTimeoutError("database", hint) from error
    advice = _advice(error)
    if advice is None or context.is_pre_ping:
        return
    where = context.engine.url.render_as_string(hide_password=True) if context.engine else ""
    said = str(error).strip().partition("\n")[0]
    raise UnavailableError("database", mask_password(f"{where}: {said}; {advice}")) from error


def _is_late(error: BaseException) -> bool:
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_INTERRUPT
    return isinstance(error, psycopg.errors.QueryCanceled)


def _advice(error: BaseException) -> str | None:
    if isinstance(error, sqlite3.Error):
        return _ADVICE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
    if isinstance(error, _CONTENTION):
        return _BUSY
    return _ADVICE_POSTGRESQL if isinstance(error, psycopg.OperationalError) else None


def migrate(engine: sa.Engine) -> None:
    """Bring the tables to the state that this version of noctule needs.

    If they are in that state already, it only checks. Several processes may call it at
    once: one migrates, the others wait and find it done.

    Raises
    ------
    ConfigurationError
        The tables are those of a newer noctule.
    UnavailableError
        The database cannot be reached, or another process held its lock for too long.
    """
    if is_current(engine):
        return
    with _ALEMBIC, engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATION_LOCK)))
        _upgrade(connection)
        operations = Operations(MigrationContext.configure(connection))
        for column in _missing(connection):
            operations.add_column(classifications.name, column)


def is_current(engine: sa.Engine) -> bool:
    """Whether the tables are those that this version of noctule needs."""
    if _revision(engine) != _head():
        return False
    with reading(engine) as connection:
        return not _missing(connection)


def _missing(connection: sa.Connection) -> list[sa.Column[Any]]:
    """Return the columns of classifications for new fields of the record; all are nullable."""
    there = {column["name"] for column in sa.inspect(connection).get_columns(classifications.name)}
    return [
        sa.Column(column.name, column.type)
        for column in classifications.c
        if column.name not in there
    ]


def _revision(engine: sa.Engine) -> str | None:
    try:
        with reading(engine) as connection:
            query = sa.text("SELECT version_num FROM alembic_version")
            return connection.execute(query).scalar_one_or_none()
    except sa.exc.DBAPIError:  # no such table: a new database
        return None


@cache
def _head() -> str | None:
    return ScriptDirectory(MIGRATIONS).get_current_head()


def _upgrade(connection: sa.Connection) -> None:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise ConfigurationError(
            f"the database has the tables of a newer noctule ({error}): upgrade this one"
        ) from error
