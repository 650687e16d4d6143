"""The database that holds the index: opened, kept at this version, and replaced when it is damaged."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, insert, inspect, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from .schema import SCHEMA, meta, metadata

__all__ = ["Database", "damaged", "log"]

log = logging.getLogger("tailrace.catalog")

_WAIT = 60.0  # seconds that a process waits for another one's transaction
_WRITE = "tailrace_write"


class Database:
    """A database by SQLAlchemy URL. Nothing is opened, and no file made, before the first use."""

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        self._engine: Engine | None = None

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that sees one state of the index."""
        with self.engine.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction; on SQLite it is the only one that writes, from its start."""
        with self.engine.execution_options(**{_WRITE: True}).begin() as connection:
            yield connection

    @property
    def engine(self) -> Engine:
        """The engine of a database that has this version's tables."""
        if self._engine is None:
            engine = _engine(self.url.render_as_string(hide_password=False))
            try:
                _prepare(engine)
            except DBAPIError as error:
                engine.dispose()
                if not damaged(error):
                    raise
                self._remove(error)
                engine = _engine(self.url.render_as_string(hide_password=False))
                _prepare(engine)
            self._engine = engine
        return self._engine

    def replace(self, reason: BaseException) -> None:
        """Put an empty database in the place of a damaged one."""
        self.close()
        self._remove(reason)

    def close(self) -> None:
        """Close all connections. The next use opens them again."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    def _remove(self, reason: BaseException) -> None:
        log.warning("The index %s is damaged (%s). It is made anew from the stores.", self.url, str(reason).partition("\n")[0])
        for suffix in ("", "-wal", "-shm", "-journal"):
            Path(f"{self.url.database}{suffix}").unlink(missing_ok=True)


def damaged(error: DBAPIError) -> bool:
    """Whether the error says that an SQLite file is no database of ours: torn, overwritten, or without our tables."""
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is None:
        return False
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or "no such" in str(error.orig)


def _engine(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return create_engine(url)
    if parsed.database and parsed.database != ":memory:":
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": _WAIT})

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the transactions are begun below
        with contextlib.suppress(sqlite3.DatabaseError):  # locked: another process sets it; damaged: the first query tells
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that reads and then writes would fail where another wrote in between, however long it waits.
        writes = connection.get_execution_options().get(_WRITE)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _prepare(engine: Engine) -> None:
    """Make the tables, anew where they are of another version."""
    with engine.begin() as connection:
        if _version(connection) == SCHEMA:
            return
    with engine.execution_options(**{_WRITE: True}).begin() as connection:
        found = _version(connection)
        if found == SCHEMA:  # made by another process in between
            return
        if found is not None:
            log.warning("The index %s is of version %s, this is version %s. It is made anew.", engine.url, found, SCHEMA)
        metadata.drop_all(connection)
        metadata.create_all(connection)
        connection.execute(insert(meta).values(name="schema", value=SCHEMA))


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(meta.name):
        return None
    return connection.execute(select(meta.c.value).where(meta.c.name == "schema")).scalar()
