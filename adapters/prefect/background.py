"""A Prefect server in the background, one for each home of Prefect: started by hand, found by runs in this process.

Its log is locked for as long as it lives, by itself: so there is never a second one, and what its state file says is
believed only while the lock is held. A process that got the id of one that is gone is never taken for it.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from ...core.errors import TailraceError
from .serving import born

__all__ = ["Server", "command", "find", "home", "not_started", "start", "stop", "usable"]

log = logging.getLogger("tailrace.server")

_PATIENCE = 120.0
"""Seconds for a server to start, on a cold disk and with a new database."""

_TICK = 0.05


@dataclass(frozen=True)
class Server:
    """A server that runs; ``url`` and what follows are empty while it starts."""

    pid: int
    born: str
    since: str
    url: str = ""
    version: str = ""
    database: str = ""
    home: str = ""

    @property
    def ui(self) -> str:
        """The address for a browser."""
        return self.url.removesuffix("/api")


def home() -> Path:
    """Prefect's home, as the environment says."""
    return Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()


def command(**asked: Any) -> list[str]:
    """The command line of a server; it imports nothing from the working directory."""
    return [sys.executable, "-P", str(Path(__file__).with_name("serving.py")), json.dumps(asked)]


def state_file() -> Path:
    """What a server in the background says of itself."""
    return home() / "tailrace-server.json"


def log_file() -> Path:
    """What it prints; locked as long as it lives."""
    return home() / "tailrace-server.log"


def find() -> Server | None:
    """The server of this home that runs, or is starting. Nothing is asked of it."""
    return _read() if state_file().exists() and _is_locked() else None


def _read() -> Server | None:
    try:
        said = json.loads(state_file().read_text(encoding="utf-8"))
        return Server(**{field.name: said[field.name] for field in fields(Server) if field.name in said})
    except (OSError, ValueError, TypeError):
        return None


# --- for a run --------------------------------------------------------------------------------------------------------


def usable(database: str) -> Server | None:
    """The server of this home, if it is there and sound: answers, of this Prefect's version, on this database.

    Where there should be one that is not sound, a warning says so, and what to do.
    """
    if not state_file().exists():
        return None
    found = _when_ready()
    if found is None:
        gone = _read()
        fault = "has ended" if gone else "is not known: its state file cannot be read"
    else:
        gone, fault = found, _fault(found, database)
    if not fault:
        return found
    where = f"at {gone.ui} " if gone and gone.url else ""
    what = "Forget it by `tailrace server stop`, or start it again by `tailrace server start`"
    log.warning("The Prefect server in the background %s%s; this run has one of its own. %s.", where, fault, what)
    return None


def _when_ready() -> Server | None:
    deadline = time.monotonic() + _PATIENCE
    while (found := find()) and not found.url and time.monotonic() < deadline:
        time.sleep(_TICK)
    return found


def _fault(server: Server, database: str) -> str:
    if not server.url:
        return "does not get ready"
    if server.version != metadata.version("prefect"):
        return f"is of Prefect {server.version}, and this is {metadata.version('prefect')}"
    if server.database != database:
        return f"has the database {server.database}, and not {database}"
    return "" if answers(server) else "does not answer"


def answers(server: Server, timeout: float = 2.0) -> bool:
    """Whether the server is well."""
    return ask(server, "GET", "health", timeout=timeout) is True


def ask(server: Server, method: str, path: str, *, timeout: float = 2.0) -> Any:
    """What the server answers to a request without content; None if it does not."""
    from http.client import HTTPConnection, HTTPException

    connection = HTTPConnection(server.ui.removeprefix("http://"), timeout=timeout)
    try:
        connection.request(method, f"/api/{path}", "{}", {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return json.loads(answer.read()) if answer.status == 200 else None
    except (OSError, HTTPException, ValueError):
        return None
    finally:
        connection.close()


# --- start and stop ---------------------------------------------------------------------------------------------------


def start(*, port: int = 0, idle: float | None = None, timeout: float = _PATIENCE) -> tuple[Server, bool]:
    """A server that is ready, and whether it was started now: there is one for each home, whoever starts it.

    ``idle``: seconds without a request after which it ends. Raises :class:`~tailrace.TailraceError` when it does not
    start, or the one that runs is of another Prefect version.
    """
    home().mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout
    while True:
        with _locked() as file:
            if file is not None:
                return _started(file, port, idle, deadline), True
        found = find()
        if found is not None and found.url:
            installed = metadata.version("prefect")
            if found.version != installed:
                raise TailraceError(
                    f"A server of Prefect {found.version} runs at {found.ui}, and this is Prefect {installed}. End it "
                    "by `tailrace server stop`, or set PREFECT_HOME to another folder."
                )
            return found, False
        if time.monotonic() > deadline:
            raise not_started(home())
        time.sleep(_TICK)


def _started(file: IO[bytes], port: int, idle: float | None, deadline: float) -> Server:
    """Start it, with the log and its lock, and wait until it serves."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        raise TailraceError(f"The server cannot have port {port}: {error.strerror}. Choose another.") from error
    state_file().unlink(missing_ok=True)
    file.truncate(0)
    process = subprocess.Popen(
        command(state=str(state_file()), port=port, idle=idle),
        env={"PREFECT_SERVER_ANALYTICS_ENABLED": "false", **os.environ},
        stdin=subprocess.DEVNULL,
        stdout=file,
        stderr=file,
        start_new_session=True,  # the terminal's end is not its own
    )
    while process.poll() is None and time.monotonic() < deadline:
        found = _read()
        if found is not None and found.url:
            process.returncode = 0  # it outlives this process, and no warning is due
            return found
        time.sleep(_TICK)
    process.kill()
    process.wait()
    state_file().unlink(missing_ok=True)
    raise not_started(home(), f" What it printed is in {log_file()}")


def not_started(place: Path, more: str = "") -> TailraceError:
    """The error of a server that ended before it was ready, or took too long."""
    return TailraceError(
        f"Prefect's server did not start; its home is {str(place)!r}. A newer Prefect may have used that home: its "
        "database cannot be read by this one. Set PREFECT_HOME to another folder, or PREFECT_API_URL to a server that "
        f"runs.{more}"
    )


def stop(timeout: float = 10.0) -> Server | None:
    """End the server of this home: asked to, and after ``timeout`` seconds made to. Returns what ended, if anything."""
    found = None
    deadline = time.monotonic() + timeout
    while _is_locked():
        late = time.monotonic() > deadline
        server = _read()
        if server is not None and born(server.pid) == server.born and (late or server != found):
            found = server
            os.kill(server.pid, signal.SIGKILL if late else signal.SIGTERM)
        if late and time.monotonic() > deadline + timeout:
            raise TailraceError(f"The server, process {found.pid if found else '?'}, cannot be ended.")
        time.sleep(_TICK)
    state_file().unlink(missing_ok=True)
    return found


# --- the lock ---------------------------------------------------------------------------------------------------------


@contextmanager
def _locked(*, shared: bool = False) -> Iterator[IO[bytes] | None]:
    """The log, locked; None if a server has it. A process that is started with the file keeps the lock."""
    try:
        import fcntl
    except ImportError as error:
        raise TailraceError("Use `prefect server start` on this system, and set PREFECT_API_URL.") from error
    with log_file().open("ab") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield file


def _is_locked() -> bool:
    if not log_file().exists():
        return False
    with _locked(shared=True) as file:  # two that look at once must not take each other for the server
        return file is None
