"""The database that holds the index: opened, kept at this version, and replaced when it is damaged."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, insert, inspect, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from ..core.errors import MissingExtra
from .schema import SCHEMA, meta, metadata

__all__ = ["Database", "damaged", "log"]

log = logging.getLogger("tailrace.catalog")

_WAIT = 60.0  # seconds that a process waits for another one's transaction
_WRITE = "tailrace_write"


class Database:
    """A database by SQLAlchemy URL. Nothing is opened, and no file made, before the first use."""

    def __init__(self, url: str | URL) -> None:
        self.url = make_url(url)
        self._engine: Engine | None = None
        self._file: int | None = None

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that sees one state of the index."""
        with self._opened().begin() as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction; on SQLite the only one that writes, from its start."""
        with self._opened().execution_options(**{_WRITE: True}).begin() as connection:
            yield connection

    def replace(self, reason: BaseException) -> None:
        """Remove a damaged SQLite file, unless another process has put a new one in its place."""
        self.close()
        what = str(reason).partition("\n")[0]
        log.warning("The index %s is damaged (%s). It is made anew from the stores.", self.url, what)
        if self._identity() == self._file:
            for suffix in ("", "-wal", "-shm", "-journal"):
                Path(f"{self.url.database}{suffix}").unlink(missing_ok=True)

    def _identity(self) -> int | None:
        try:
            return os.stat(self.url.database or "").st_ino
        except OSError:
            return None

    def close(self) -> None:
        """Close all connections. The next use opens them again."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    def _opened(self) -> Engine:
        """The engine of a database that has this version's tables."""
        if self._engine is None:
            engine = _engine(self.url)
            self._file = self._identity()
            try:
                self._prepare(engine)
            except BaseException:
                engine.dispose()
                raise
            self._engine = engine
        return self._engine

    def _prepare(self, engine: Engine) -> None:
        """Make the tables, anew where they are of another version."""
        with engine.begin() as connection:
            found = _version(connection)
        if found == SCHEMA:
            return
        if found is not None:
            log.warning("The index %s has version %s, this is version %s. It is made anew.", self.url, found, SCHEMA)
        try:
            with engine.execution_options(**{_WRITE: True}).begin() as connection:
                if _version(connection) != SCHEMA:
                    metadata.drop_all(connection)
                    metadata.create_all(connection)
                    connection.execute(insert(meta).values(name="schema", value=SCHEMA))
        except DBAPIError:  # where the making of tables is not exclusive, another process may have made them
            with engine.begin() as connection:
                if _version(connection) != SCHEMA:
                    raise


def damaged(error: DBAPIError) -> bool:
    """Whether the error says that an SQLite file is no index: torn, overwritten, or without our tables."""
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is None:
        return False
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or "no such" in str(error.orig)


def _engine(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        return _server(url)
    if url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": _WAIT})

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the transactions are begun below
        # Another process may be setting this; a damaged file is noticed by the first query, which says so better.
        with contextlib.suppress(sqlite3.DatabaseError):
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that reads and then writes would fail where another wrote in between, however long it waits.
        writes = connection.get_execution_options().get(_WRITE)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _server(url: URL) -> Engine:
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    try:
        return create_engine(url)
    except ModuleNotFoundError as error:
        if error.name != "psycopg":
            raise
        raise MissingExtra("The index in PostgreSQL", "postgres", "psycopg") from error


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(meta.name):
        return None
    return connection.scalar(select(meta.c.value).where(meta.c.name == "schema"))
