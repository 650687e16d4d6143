"""A real Prefect on this machine: a server with SQLite or PostgreSQL, and a worker that runs flows as processes.

    with Prefect(folder) as prefect:
        prefect.cli("deploy", "--all", cwd=project)
        run = prefect.trigger("example/d", {"size": 3})
        assert prefect.wait(run) == "COMPLETED"

Everything listens on loopback or on a socket in the folder, and nothing of it is left running after the block.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx

from ..stores.servers import free_port

T = TypeVar("T")

# How soon things happen, not what does.
SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_WORKER_QUERY_SECONDS": "0.5",
    "PREFECT_RUNNER_POLL_FREQUENCY": "1",
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_CLI_COLORS": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
POOL = "p"
FINISHED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


class PrefectError(Exception):
    """A service that died, a command that failed, or something that did not happen in time."""


class Service:
    """One command, its output in a file, in a session of its own."""

    def __init__(self, name: str, command: Sequence[str], env: Mapping[str, str], folder: Path) -> None:
        self.name, self.log = name, folder / f"{name}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env=dict(env), stdout=log, stderr=log, start_new_session=True
            )

    def kill(self, *, descendants: bool = True) -> None:
        """SIGKILL, to what it has started as well unless told otherwise. Nothing happens the second time."""
        with suppress(ProcessLookupError):
            if descendants:
                os.killpg(self.process.pid, signal.SIGKILL)
            elif self.process.poll() is None:
                self.process.kill()
        self.process.wait()

    def check(self) -> None:
        if self.process.poll() is not None:
            raise PrefectError(f"The {self.name} has ended ({self.process.returncode}). {self.tail()}")

    def output(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def tail(self) -> str:
        return "\n".join([f"The end of {self.log}:", *self.output().splitlines()[-60:]])


class Prefect:
    """A deployment of its own in `folder`, and what its users do with it, by the command line and the public API."""

    def __init__(self, folder: Path, *, database: str = "sqlite", env: Mapping[str, str] | None = None) -> None:
        self.folder, self.database = folder.resolve(), database
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.services: dict[str, Service] = {}
        self._started: list[Service] = []  # those that were killed as well: what they had started may live on
        self._given = dict(env or {})
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        try:
            (self.folder / "home").mkdir(parents=True)
            self.api = self._stack.enter_context(httpx.Client(base_url=self.url, timeout=60, trust_env=False))
            others = ("PREFECT_", "TAILRACE_", "PYTHONDONTWRITEBYTECODE")
            inherited = {name: value for name, value in os.environ.items() if not name.startswith(others)}
            own = {"PREFECT_HOME": str(self.folder / "home"), "PREFECT_API_URL": self.url}
            if self.database == "postgresql":
                own["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = self._postgresql()
            self.env = {**inherited, **SETTINGS, **own, **self._given}
            self.start_server()
            self.cli("work-pool", "create", "--type", "process", POOL)
            self.start_worker()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends everything, at once and with no goodbyes."""
        for service in reversed(self._started):
            service.kill()
        self._stack.close()

    # Services

    def start_server(self) -> None:
        self._start("server", "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port))
        self.until("the server answers", self._answers, 120)

    def start_worker(self) -> None:
        self._start("worker", "-m", "prefect", "worker", "start", "--pool", POOL)

    def kill(self, name: str, *, descendants: bool = True) -> None:
        self.services.pop(name).kill(descendants=descendants)

    def start(self, name: str, script: Path) -> Service:
        """Run a script, in its folder, beside the others until the end."""
        return self._start(name, str(script), folder=script.parent)

    def _start(self, name: str, *arguments: str, folder: Path | None = None) -> Service:
        service = self.services[name] = Service(name, [sys.executable, *arguments], self.env, folder or self.folder)
        self._started.append(service)
        return service

    def _answers(self) -> bool:
        try:
            return self.api.get("/health").is_success
        except httpx.TransportError:
            return False

    def _postgresql(self) -> str:
        """One of the system: that of the package index lacks `pg_trgm`, without which Prefect does not start."""
        programs = Path(shutil.which("postgres") or "").resolve().parent
        data = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="tailrace-postgresql-")))
        user = "postgres" if os.geteuid() == 0 else None  # root may not run it
        if user:
            shutil.chown(data, user)
        port = str(free_port())
        make = [str(part) for part in (programs / "initdb", "-D", data / "db", "-U", "prefect", "-A", "trust")]
        subprocess.run(make, user=user, cwd=data, check=True, capture_output=True)
        run = [
            str(part)
            for part in (programs / "postgres", "-D", data / "db", "-k", data, "-h", "127.0.0.1", "-p", port, "-F")
        ]
        service = subprocess.Popen(run, user=user, cwd=data, stderr=subprocess.DEVNULL)
        self._stack.callback(service.wait)
        self._stack.callback(service.send_signal, signal.SIGINT)
        ask = [str(part) for part in (programs / "pg_isready", "--quiet", "-h", "127.0.0.1", "-p", port)]
        self.until("PostgreSQL answers", lambda: subprocess.run(ask, check=False).returncode == 0)
        return f"postgresql+asyncpg://prefect@127.0.0.1:{port}/postgres"

    # What users do

    def cli(self, *arguments: str, cwd: Path | None = None, check: bool = True) -> str:
        """`prefect ...`, in a process; what it printed. PrefectError unless it ends well."""
        done = subprocess.run(
            [sys.executable, "-m", "prefect", "--no-prompt", *arguments],
            cwd=cwd or self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if check and done.returncode:
            raise PrefectError(f"`prefect {' '.join(arguments)}` failed.\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        return done.stdout + done.stderr

    def call(self, method: str, path: str, **body: Any) -> Any:
        """The answer to a request; made again, as Prefect's own client does, while SQLite is locked (503)."""
        deadline = time.monotonic() + 30
        while (answer := self.api.request(method, path, json=body or None)).status_code == 503:
            if time.monotonic() > deadline:
                break
            time.sleep(0.5)
        if not answer.is_success:
            raise PrefectError(f"{method} {path}: {answer.status_code} {answer.text[:2000]}")
        return answer.json() if answer.content else None

    def deployment(self, name: str) -> Any:
        return self.call("GET", f"/deployments/name/{name}")

    def trigger(self, deployment: str, parameters: Mapping[str, Any] | None = None) -> str:
        """Run it now; the flow run's id."""
        path = f"/deployments/{self.deployment(deployment)['id']}/create_flow_run"
        return str(self.call("POST", path, parameters=dict(parameters or {}), state={"type": "SCHEDULED"})["id"])

    def retry(self, run: str) -> None:
        """What the button "Retry" of a flow run's page does."""
        state = {"type": "SCHEDULED", "name": "AwaitingRetry"}
        answer = self.call("POST", f"/flow_runs/{run}/set_state", state=state)
        assert answer["status"] == "ACCEPT", answer

    def run(self, run: str) -> Any:
        return self.call("GET", f"/flow_runs/{run}")

    def states(self, run: str) -> list[str]:
        """The names of its states so far."""
        return [state["name"] for state in self.api.get("/flow_run_states/", params={"flow_run_id": run}).json()]

    def wait(self, run: str, timeout: float = 120) -> str:
        """The type of the state that it ends in, once that is so for good."""
        return self.until(f"the flow run {run} has ended", lambda: self._ended(run), timeout)

    def _ended(self, run: str) -> str:
        state = self.run(run)["state"]["type"]
        return state if state in FINISHED else ""

    def logs(self, run: str) -> str:
        found = self.call("POST", "/logs/filter", logs={"flow_run_id": {"any_": [run]}}, sort="TIMESTAMP_ASC")
        return "\n".join(entry["message"] for entry in found)

    def until(self, what: str, ask: Callable[[], T], timeout: float = 60) -> T:
        """The first true answer; PrefectError when a service has died or there is none in time."""
        deadline = time.monotonic() + timeout
        while not (found := ask()):
            for service in self.services.values():
                service.check()
            if time.monotonic() > deadline:
                tails = "\n".join(service.tail() for service in self.services.values())
                raise PrefectError(f"It did not happen in {timeout} s that {what}.\n{tails}")
            time.sleep(0.05)
        return found
