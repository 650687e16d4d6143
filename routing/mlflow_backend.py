"""How the tracker and the registry reach an MLflow: its address, its first database, and errors that name the place.

Nothing here touches MLflow's global state (``set_tracking_uri``, ``set_experiment``, its environment variables): the
user's own MLflow code in the same process goes where the user sends it. Nor does it touch MLflow's telemetry, which
starts with the import and writes to the home folder: ``MLFLOW_DISABLE_TELEMETRY=true`` is how users switch that off.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from ..core.errors import DestinationError, TailraceError

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["DEFAULT_URI", "MlflowBackend", "masked", "quiet"]

DEFAULT_URI = "sqlite:///.tailrace/mlflow.db"

_PATIENCE = 15.0  # seconds; MLflow's own client retries for minutes, and only then says that nobody answers
_ANSWER = 5.0  # seconds for one answer
_WAIT = "?timeout=60"  # seconds that a process waits while others write to a SQLite file; 5 is the default
_CHATTY = (
    "alembic.runtime.migration",
    "alembic.runtime.plugins",
    "mlflow.store.db.utils",
    "mlflow.store.model_registry.abstract_store",
)
_CREDENTIALS = re.compile(r"(?<=://)([^/@:\s]*):[^/\s]*@")


def masked(text: str) -> str:
    """The text with the password of every URI in it replaced by ``***``."""
    return _CREDENTIALS.sub(r"\1:***@", text)


class MlflowBackend:
    """One MLflow, as one stack names it.

    The tracking URI defaults to a SQLite file in ``.tailrace``, the registry's to the tracker's; relative SQLite paths
    are relative to ``root``. Making one opens nothing. The first use imports MLflow (about a second), and makes the
    database if it is a SQLite file that does not exist yet (about another).
    """

    def __init__(self, tracking_uri: str | None, registry_uri: str | None, root: Path) -> None:
        self.configured = masked(tracking_uri or DEFAULT_URI)
        self.root = root
        self._uris = (tracking_uri or DEFAULT_URI, registry_uri or tracking_uri or DEFAULT_URI)
        self._lock = threading.Lock()

    @cached_property
    def tracking_uri(self) -> str:
        """The tracker's URI, absolute. It may hold a password: show it only :func:`masked`."""
        return _absolute(self._uris[0], self.root)

    @cached_property
    def registry_uri(self) -> str:
        """The registry's URI, absolute; likewise."""
        return _absolute(self._uris[1], self.root)

    @property
    def is_database(self) -> bool:
        """Whether this process writes to the tracker's database itself, so that no server knows where files go."""
        return _is_database(self.tracking_uri)

    @property
    def artifacts(self) -> Path:
        """Where new experiments of a database keep what users log by themselves; MLflow would take ``./mlruns``."""
        file = _sqlite_file(self.tracking_uri)
        return (file.parent if file else self.root / ".tailrace") / "mlartifacts"

    @contextmanager
    def client(self, doing: str) -> Iterator[MlflowClient]:
        """A client, and whatever MLflow raises inside the block as a :class:`~tailrace.DestinationError`.

        ``doing`` completes the error's sentence "MLflow at ... failed while ...". A server that does not answer is an
        error within 15 s.
        """
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield self._open()
        except TailraceError:
            raise
        except (MlflowException, SQLAlchemyError, OSError) as error:
            message = f"MLflow at {self.shown} failed while {doing}: {error}"
            safe = masked(message)
            raise DestinationError(
                f"{safe} Correct that and run again with the same run id: what is done is not repeated."
            ) from (error if safe == message else None)

    @property
    def shown(self) -> str:
        """Where this is, for people: passwords are masked."""
        uris = dict.fromkeys([self.tracking_uri, self.registry_uri])
        return " and ".join(masked(uri).removesuffix(_WAIT) for uri in uris)

    def _open(self) -> MlflowClient:
        for uri in dict.fromkeys([self.tracking_uri, self.registry_uri]):
            if uri.startswith(("http://", "https://")):
                _await_server(uri)
        with self._lock:
            return self._client

    @cached_property
    def _client(self) -> MlflowClient:
        from mlflow import MlflowClient

        for uri in dict.fromkeys([self.tracking_uri, self.registry_uri]):
            if urlsplit(uri).scheme in {"", "file"} and uri not in {"databricks", "databricks-uc", "uc"}:
                raise DestinationError(
                    f"MLflow no longer writes to folders such as {uri!r}. Use a server or a database ({DEFAULT_URI}); "
                    "`mlflow migrate-filestore` moves what the folder holds."
                )
            if _is_database(uri):
                self._prepare(uri)
        return MlflowClient(tracking_uri=self.tracking_uri, registry_uri=self.registry_uri)

    def _prepare(self, uri: str) -> None:
        """Make the database if it is a SQLite file yet to be. Connect once: MLflow would retry that for 100 s."""
        from sqlalchemy import NullPool, create_engine

        file = _sqlite_file(uri)
        if file and not file.exists():
            _create_database(file, self.artifacts)
        create_engine(uri, poolclass=NullPool).connect().close()


def _absolute(uri: str, root: Path) -> str:
    """A SQLite URI with its path made absolute; any other as it is."""
    if not uri.startswith("sqlite"):
        return uri
    from sqlalchemy import make_url

    url = make_url(uri)
    if not url.database or url.database == ":memory:":
        return uri
    return _sqlite_uri(Path(os.path.abspath(root / url.database)), url.query)


def _sqlite_uri(path: Path, query: Mapping[str, Any]) -> str:
    from sqlalchemy import URL, make_url

    uri = f"sqlite:///{path.as_posix()}"
    if make_url(uri).database != path.as_posix():  # where needed only: MLflow makes the folder it spells
        uri = URL.create("sqlite", database=path.as_posix()).render_as_string()
    return uri + (f"?{urlencode(query, doseq=True)}" if query else _WAIT)


def _is_database(uri: str) -> bool:
    return re.split("[+:]", uri)[0] in {"sqlite", "postgresql", "mysql", "mssql"}


def _sqlite_file(uri: str) -> Path | None:
    if not uri.startswith("sqlite"):
        return None
    from sqlalchemy import make_url

    database = make_url(uri).database
    return Path(database) if database and database != ":memory:" else None


def _create_database(file: Path, artifacts: Path) -> None:
    """Make MLflow's database beside its place and put it there whole.

    MLflow's migrations are no transaction: two processes that open a new database at once fail in each other's tables,
    and one that is killed leaves a file that nothing can open.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tmp-mlflow-", dir=file.parent) as aside, quiet():
        fresh = Path(aside, file.name)
        uri, location = _sqlite_uri(fresh, {}), artifacts.as_uri()
        SqlAlchemyStore(uri, location).engine.dispose()  # type: ignore[no-untyped-call]  # MLflow annotates only some
        with suppress(FileExistsError):  # another process was first
            os.link(fresh, file)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the progress that MLflow and its migrations log, in this thread."""
    thread = threading.get_ident()

    def wanted(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING or record.thread != thread

    loggers = [logging.getLogger(name) for name in _CHATTY]
    for logger in loggers:
        logger.addFilter(wanted)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(wanted)


def _await_server(uri: str) -> None:
    """Return when the server answers at all; raise when it has not for 15 s."""
    import requests

    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            status = requests.get(f"{uri.rstrip('/')}/health", timeout=_ANSWER, allow_redirects=False).status_code
            if status not in {502, 503, 504}:
                return
            problem = f"it answers with status {status}"
        except requests.exceptions.SSLError:
            return  # MLflow has settings of its own for certificates
        except requests.RequestException as error:
            problem = masked(str(error))
        if time.monotonic() > deadline:
            raise DestinationError(
                f"The MLflow server at {masked(uri)} has not answered for {_PATIENCE:.0f} s: {problem}. Start it or "
                "correct its URI in the stack; then run again with the same run id, and what is done is not repeated."
            )
        time.sleep(0.5)
