"""The program of a Prefect server that Tailrace starts, for one process or in the background.

It is run by its path, with a JSON document of what is asked for, and imports nothing of Tailrace: so it is the same
whatever is importable where the command was typed. It says where it serves on standard output, or in a file.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import socket
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

__all__ = ["born", "database_of"]

_GRACE = 5
"""Seconds for requests that are under way, and for what was not written to the database yet."""


def born(pid: int) -> str:
    """When a process started, as its kernel counts; empty where that is not told. Two processes of one id differ."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def database_of(settings: Any) -> str:
    """The URL of the database that Prefect's settings name, without user, password and options."""
    url = settings.server.database.connection_url.get_secret_value()
    return re.sub(r"//[^/?#]*@", "//", url).partition("?")[0]


def main(asked: dict[str, Any]) -> None:
    """Serve until the parent's pipe is closed (``private``), until nobody asked for ``idle`` seconds, or until SIGTERM.

    A ``state`` file, if asked for, says from the start which process it is, and once it is ready where it serves.
    """
    state = Path(asked["state"]) if asked.get("state") else None
    facts = {"pid": os.getpid(), "born": born(os.getpid()), "since": datetime.now(UTC).isoformat(timespec="seconds")}
    if state:
        _write(state, facts)
    serving: list[Any] = []
    if asked.get("private"):
        threading.Thread(target=_follow_parent, args=(serving,), daemon=True).start()
    bound = socket.create_server(("127.0.0.1", asked.get("port", 0)))
    address = f"http://127.0.0.1:{bound.getsockname()[1]}"
    if not asked.get("private"):
        os.environ.setdefault("PREFECT_UI_API_URL", f"{address}/api")  # read below
    gc.disable()  # nothing of what is imported can be thrown away
    app, about = _application(asked)
    gc.enable()
    gc.freeze()
    _serve(app, bound, {**facts, "url": f"{address}/api", **about}, state, serving, asked.get("idle"))


def _application(asked: dict[str, Any]) -> tuple[Any, dict[str, str]]:
    """Prefect's server, and what it is. A private one is not needed where Prefect is set up with another, or none."""
    import prefect
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    if asked.get("private") and (settings.api.url or not settings.server.ephemeral.enabled):
        os._exit(0)
    settings.home.mkdir(parents=True, exist_ok=True)
    from prefect.server.api.server import create_app

    about = {"version": prefect.__version__, "database": database_of(settings), "home": str(settings.home)}
    return create_app(), about


def _serve(
    app: Any, bound: socket.socket, facts: dict[str, Any], state: Path | None, serving: list[Any], idle: float | None
) -> None:
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if state and self.started:
                _write(state, facts)
            elif self.started:
                print(json.dumps(facts), flush=True)
                os.dup2(2, 1)  # nobody reads on

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            await _recorded()
            await super().shutdown(sockets)

        async def serve(self, sockets: list[socket.socket] | None = None) -> None:
            await super().serve(sockets)
            if self.started:
                await _end(state)

    busy = _Busy(app)
    config = uvicorn.Config(busy, log_level="error", lifespan="on", timeout_graceful_shutdown=_GRACE)
    server = Server(config)
    serving.append(server)
    if idle:
        threading.Thread(target=_end_idle, args=(server, busy, idle), daemon=True).start()
    server.run(sockets=[bound])
    sys.exit(3)  # it did not start


async def _recorded() -> None:
    """Wait until the events that came are in the database: Prefect's services would drop the rest when they stop."""
    from prefect.server.utilities.messaging.memory import METRICS

    events, seen, since = METRICS["events"], -1, time.monotonic()
    while events["consumed"] < events["published"] and time.monotonic() - since < _GRACE:
        if events["consumed"] != seen:
            seen, since = events["consumed"], time.monotonic()
        await asyncio.sleep(0.02)


async def _end(state: Path | None) -> None:
    """End now that all services have stopped, and the database is closed: the loop would wait for tasks left behind."""
    with suppress(TimeoutError):
        await asyncio.wait_for(asyncio.get_running_loop().shutdown_asyncgens(), _GRACE)
    if state:
        state.unlink(missing_ok=True)
    os._exit(0)


class _Busy:
    """An application that knows when it was last asked for something."""

    def __init__(self, app: Any) -> None:
        self.app, self.open, self.last = app, 0, time.monotonic()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        counted = scope["type"] != "lifespan"
        self.open += counted
        try:
            await self.app(scope, receive, send)
        finally:
            self.open, self.last = self.open - counted, time.monotonic()


def _end_idle(server: Any, busy: _Busy, idle: float) -> None:
    while busy.open or time.monotonic() - busy.last < idle:
        time.sleep(min(idle, 1.0))
    server.should_exit = True


def _follow_parent(serving: list[Any]) -> None:
    """End when the parent has closed its pipe, or has died: at once before anything is served, orderly after."""
    sys.stdin.buffer.read(1)
    if not serving or not serving[0].started:
        os._exit(0)
    serving[0].should_exit = True
    time.sleep(_GRACE + 2)
    os._exit(1)


def _write(path: Path, facts: dict[str, Any]) -> None:
    aside = path.with_suffix(".new")
    aside.write_text(json.dumps(facts), encoding="utf-8")
    aside.replace(path)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
