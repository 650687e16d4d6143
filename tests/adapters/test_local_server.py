"""The Prefect server of a run in this process: started beside the imports, ended with the process, never in the way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.xdist_group("prefect"),
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are looked up in /proc"),
]

PIPELINE = """
import os, sys, time
from tailrace import pipeline, step
from tailrace.adapters.prefect import server

@step
def one() -> int:
    return 1

@pipeline
def small() -> None:
    one()

def mine():
    return server._private and server._private._process.pid
"""
RUN = PIPELINE + "state = small.run().state\nprint(state, mine())\n"

MANY = (
    PIPELINE
    + """
@pipeline
def large() -> None:
    for _ in range(150):
        one()

print(large.run().state)
"""
)

Script = Callable[..., "subprocess.CompletedProcess[str]"]


def using(home: Path) -> set[int]:
    """The processes whose Prefect home this is."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"PREFECT_HOME={home}\0".encode() in path.read_bytes():
                found.add(int(path.parent.name))
        except OSError:
            continue
    return found


def until(true: Callable[[], object], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(true())


def environment(home: Path, **changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {**kept, "PREFECT_HOME": str(home), "PREFECT_LOGGING_LEVEL": "CRITICAL", **changes}


def run(home: Path, code: str, *, cwd: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=cwd, env=environment(home, **changes), capture_output=True, text=True, timeout=120
    )


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that was used once: to make its database takes longer than all that is tried here."""
    home = tmp_path_factory.mktemp("first") / "not" / "there" / "yet"
    done = run(home, RUN, cwd=home.parents[2])
    assert done.stdout.startswith("completed"), done.stderr
    assert done.stderr == "", "nothing is said about a home that is not there yet"
    return home


@pytest.fixture
def home(migrated: Path, tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "prefect"
    shutil.copytree(migrated, place)
    yield place
    assert until(lambda: not using(place)), f"still there: {using(place)}"


@pytest.fixture
def script(home: Path, project: Path) -> Script:
    def call(code: str, **changes: str) -> subprocess.CompletedProcess[str]:
        return run(home, code, cwd=project, **changes)

    return call


@pytest.fixture
def background(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A server in the background of the home; its state file."""
    from tailrace.adapters.prefect import background

    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_HOME", str(home))
    background.start()
    yield background.state_file()
    background.stop()


def task_runs(database: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute("select name, state_type from task_run").fetchall()


def test_the_server_ends_with_the_process_and_leaves_what_was_done_in_prefects_database(
    script: Script, home: Path
) -> None:
    done = script(RUN)
    state, pid = done.stdout.split()
    assert (state, done.stderr) == ("completed", "")
    assert not Path("/proc", pid).exists()
    assert {path.name for path in home.iterdir()} <= {"prefect.db", "memo_store.toml"}, "both are Prefect's"
    assert task_runs(home / "prefect.db") == [("one", "COMPLETED")] * 2, "with the run that made the database"


def test_the_server_ends_when_the_process_is_killed_though_a_child_of_it_lives_on(home: Path, project: Path) -> None:
    code = PIPELINE + "small.run()\nchild = os.fork()\nif child: print(mine(), child, flush=True)\ntime.sleep(60)\n"
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=project,
        env=environment(home),
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        server, child = map(int, process.stdout.readline().split())
        try:
            assert server in using(home)
            assert os.getsid(server) == server, "Ctrl-C in the terminal is not for it"
            process.kill()
            assert until(lambda: server not in using(home))
            assert child in using(home)
        finally:
            os.kill(child, signal.SIGKILL)


def test_all_that_was_done_is_in_prefects_database_when_the_process_has_ended(script: Script, home: Path) -> None:
    before = task_runs(home / "prefect.db")
    done = script(MANY)
    assert (done.stdout, done.stderr) == ("completed\n", "")
    after = task_runs(home / "prefect.db")
    assert len(after) == len(before) + 150
    assert {state for _, state in after} == {"COMPLETED"}


def test_a_run_in_a_step_of_another_is_on_the_same_server_and_the_next_one_too(script: Script, home: Path) -> None:
    code = """
@step
def outer() -> str:
    return small.run().state

@pipeline
def nested() -> None:
    outer()

first = nested.run(), mine()
print(first[0].outputs["outer"], small.run().state, first[1] == mine())
"""
    assert script(PIPELINE + code).stdout == "completed completed True\n"


def test_a_server_that_settings_name_is_used_and_no_other_is_started(background: Path, script: Script) -> None:
    url = json.loads(background.read_text())["url"]
    background.rename(background.with_suffix(".hidden"))
    by_environment = script(RUN, PREFECT_API_URL=url)
    profiles = background.with_name("profiles.toml")
    profiles.write_text(f'active = "mine"\n[profiles.mine]\nPREFECT_API_URL = "{url}"\n')
    by_profile = script(RUN)
    background.with_suffix(".hidden").rename(background)
    assert [by_environment.stdout, by_profile.stdout] == ["completed None\n"] * 2
    assert by_environment.stderr + by_profile.stderr == ""


def test_a_server_in_the_background_is_used_while_it_is_sound(background: Path, script: Script) -> None:
    done = script(RUN)
    assert (done.stdout, done.stderr) == ("completed None\n", "")

    os.kill(json.loads(background.read_text())["pid"], signal.SIGKILL)
    done = script(RUN)
    assert done.stdout.startswith("completed ")
    assert "None" not in done.stdout, "it has a server of its own"
    assert "has ended; this run has one of its own. Forget it by `tailrace server stop`" in done.stderr
    assert done.stderr.count("\n") == 1, "one line"


def test_a_server_in_the_background_of_another_version_or_database_is_told_and_not_used(
    background: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from tailrace.adapters.prefect.background import usable

    facts = json.loads(background.read_text())
    assert usable("sqlite:///other.db") is None
    background.write_text(json.dumps(facts | {"version": "3.0.0"}))
    assert usable(facts["database"]) is None
    background.write_text(json.dumps(facts))
    found = usable(facts["database"])
    assert found is not None
    assert found.url == facts["url"]
    first, second = caplog.messages
    assert f"has the database {facts['database']}, and not sqlite:///other.db" in first
    assert f"is of Prefect 3.0.0, and this is {facts['version']}" in second


def test_settings_that_a_program_has_made_are_those_of_the_server(script: Script, home: Path, project: Path) -> None:
    database = Path(shutil.copy(home / "prefect.db", project / "other.db"))
    code = (
        "from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL as URL, temporary_settings\n"
        f"with temporary_settings({{URL: 'sqlite+aiosqlite:///{database}'}}):\n    print(small.run().state)\n"
    )
    assert script(PIPELINE + code).stdout == "completed\n"
    assert (len(task_runs(database)), len(task_runs(home / "prefect.db"))) == (2, 1)
