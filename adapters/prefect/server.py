"""Prefect's server for runs in this process: the one that is set up, one in the background, or one of our own.

A server takes three seconds to start, most of them imports. So one of our own is started in its process before anything
else is imported, Prefect's client and the user's pipeline among them; it ends with this process, however that ends.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import IO

from . import background
from .serving import database_of

__all__ = ["PrivateServer", "begin", "settle"]

_PRIVATE = {
    "PREFECT__SERVER_EPHEMERAL": "1",  # no scheduler, no clean-up of late runs: what is for deployments alone
    "PREFECT__SERVER_FINAL": "1",
    "PREFECT_UI_ENABLED": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",  # a transaction for each state is slower than a run
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "3600",  # the rest is written when it stops
}


class PrivateServer:
    """A server in a process of its own, for this process alone. It writes nothing but Prefect's database.

    It reads a pipe from this process: when that is closed, by :meth:`stop` or because this process has died, it ends.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.owner = os.getpid()
        self.used = False
        self._facts: dict[str, str] | None = None
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            background.command(private=True),
            env={**environment, **_PRIVATE},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for this process, which still has something to tell its server then
        )
        if hasattr(os, "register_at_fork"):  # a forked child would hold the pipe open
            os.register_at_fork(after_in_child=_opened(self._process.stdin).close)
        atexit.register(self.stop)

    def ready(self, timeout: float) -> dict[str, str]:
        """Where it serves, once it does; nothing if it ended, or was not ready in time, and was ended."""
        with self._lock:
            if self._facts is None:
                patience = threading.Timer(timeout, self._process.kill)
                patience.daemon = True
                patience.start()
                line = _opened(self._process.stdout).readline()
                patience.cancel()
                self._facts = json.loads(line) if line else {}
            return self._facts

    @property
    def running(self) -> bool:
        """Whether its process runs, and is this process's own."""
        return self.owner == os.getpid() and self._process.poll() is None

    def stop(self) -> None:
        """End it, and wait until it has. Nothing on the second call."""
        if self.owner != os.getpid():
            return
        atexit.unregister(self.stop)
        _opened(self._process.stdin).close()
        try:
            self._process.wait(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _opened(self._process.stdout).close()


def _opened(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None  # noqa: S101
    return pipe


# --- the one of this process ------------------------------------------------------------------------------------------

_PATIENCE = 60.0
"""Seconds at least for a server of our own to start: a cold disk and a new database take a while."""

_private: PrivateServer | None = None
_choosing = threading.RLock()


def begin() -> None:
    """Start a server of our own if the next run will probably need one. Nothing on the second call.

    Prefect is not imported for this: where its profile names a server, the one that was started here ends by itself.
    """
    if os.environ.get("PREFECT_API_URL") or "prefect.settings" in sys.modules:
        return
    with suppress(OSError):  # Prefect makes its home, too, but not the folders above it
        background.home().mkdir(parents=True, exist_ok=True)
    if background.find() is None:
        _ensure(os.environ)


def settle() -> tuple[str, bool]:
    """The API's URL that a run must set, and whether that is a private server's; no URL where Prefect has one, or none.

    A server that Prefect's settings name is always the one. Then comes one in the background, if it is sound; else a
    private one is started, and ends with this process. Raises :class:`~tailrace.TailraceError` if it does not start.
    """
    global _private
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    if settings.api.url or not settings.server.ephemeral.enabled:
        _drop()
        return "", settings.api.url is not None and settings.api.url == _used_url()  # in a step of another run
    wanted = database_of(settings)
    found = background.usable(wanted)
    if found is not None:
        _drop()
        return found.url, False
    timeout = max(_PATIENCE, settings.server.ephemeral.startup_timeout_seconds)
    with _choosing:
        if _private is not None and _private.running and _private.ready(timeout).get("database", wanted) != wanted:
            _drop()  # it was started before somebody changed the settings
            _private = None
        server = _ensure({**os.environ, **settings.to_environment_variables(exclude_unset=True)})
        facts = server.ready(timeout)
        if not facts:
            _drop()
            raise background.not_started(settings.home)
        server.used = True
    return facts["url"], True


def _ensure(environment: Mapping[str, str]) -> PrivateServer:
    global _private
    with _choosing:
        if _private is None or not _private.running:
            _private = PrivateServer(environment)
        return _private


def _drop() -> None:
    """Have no server of our own. One that a run was given serves on until this process ends."""
    global _private
    with _choosing:
        if _private is None or (_private.used and _private.running):
            return
        _private.stop()
        _private = None


def _used_url() -> str:
    with _choosing:
        return _private.ready(_PATIENCE).get("url", "") if _private is not None and _private.used else ""
