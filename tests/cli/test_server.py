"""``tailrace server``: one in the background for each home of Prefect, whoever starts it, until it is ended."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tailrace import TailraceError
from tailrace.adapters.prefect import background

from .conftest import Cli

pytestmark = [
    pytest.mark.xdist_group("prefect"),
    pytest.mark.skipif(sys.platform == "win32", reason="there it is for Prefect's own command"),
]

PIPELINE = (
    "from tailrace import pipeline, step\n\n@step\ndef one() -> int:\n    return 1\n\n@pipeline\ndef p():\n    one()\n"
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of Prefect that is not there yet; its server is ended."""
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    place = tmp_path / "not" / "there"
    monkeypatch.setenv("PREFECT_HOME", str(place))
    yield place
    background.stop()


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of Prefect that is made already, which takes longer than what is tried with it."""
    place = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(place))
        background.start()
        background.stop()
    return place / "prefect.db"


@pytest.fixture
def used_home(home: Path, database: Path) -> Path:
    home.mkdir(parents=True)
    shutil.copy(database, home)
    return home


def until(true: Callable[[], object], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(true())


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_is_started_once_serves_runs_says_how_it_is_and_is_ended(cli: Cli, home: Path, project: Path) -> None:
    (project / "small.py").write_text(PIPELINE)
    first = cli("server", "start")
    assert (first.returncode, first.stderr) == (0, "")
    assert "Local runs use this server now." in first.stdout
    assert str(home / "tailrace-server.log") in first.stdout

    second = json.loads(cli("server", "start", "--json").stdout)
    assert (second["started"], second["runs"], second["home"]) == (False, 0, str(home))
    assert second["url"] in first.stdout
    assert os.getsid(second["pid"]) == second["pid"], "no terminal is its own"

    done = cli("run", "small", "--orchestrator", "local")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(cli("server", "status", "--json").stdout)
    assert told == {**{key: second[key] for key in told if key in second}, "state": "running", "runs": 1}
    assert told["database"] == f"sqlite+aiosqlite:///{home}/prefect.db"
    assert {"State", "Pages", "Since", "Prefect", "Runs"} <= set(cli("server", "status").stdout.split())
    checked = json.loads(cli("doctor", "--json").stdout)[-1]
    assert (checked["state"], checked["detail"]) == ("ok", f"{told['ui']} answers, Prefect {told['version']}")
    told_of_other = cli("server", "start", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert "PREFECT_API_URL=http://127.0.0.1:9/api is stronger" in told_of_other.stdout

    ended = cli("server", "stop")
    assert ended.stdout == f"The server at {told['ui']} has ended.\n"
    assert until(lambda: not lives(told["pid"]), 2), "its lock is free, so it is ended already"
    assert not (home / "tailrace-server.json").exists()
    assert cli("server", "stop").stdout == "No server runs.\n"
    assert json.loads(cli("doctor", "--json").stdout)[-1]["detail"].startswith("none runs: each run starts a server")
    status = cli("server", "status", "--json")
    assert (status.returncode, json.loads(status.stdout)) == (1, {"state": "stopped"})


def test_of_two_that_start_at_once_one_does(used_home: Path, project: Path) -> None:
    command = [sys.executable, "-m", "tailrace.cli", "server", "start", "--json"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [json.loads(one.communicate(timeout=120)[0]) for one in both]
    assert said[0]["pid"] == said[1]["pid"]
    assert sorted(one["started"] for one in said) == [False, True]


def test_it_ends_when_nobody_has_asked_for_anything_in_a_while(cli: Cli, used_home: Path) -> None:
    started = json.loads(cli("server", "start", "--idle", "0.01", "--json").stdout)
    assert until(lambda: not lives(started["pid"]))
    assert not (used_home / "tailrace-server.json").exists()


def test_one_of_another_prefect_is_refused_and_can_be_ended(cli: Cli, used_home: Path) -> None:
    assert cli("server", "start").returncode == 0
    state = background.state_file()
    state.write_text(json.dumps(json.loads(state.read_text()) | {"version": "3.0.0"}))
    refused = cli("server", "start")
    assert refused.returncode == 1
    assert refused.stderr.startswith("A server of Prefect 3.0.0 runs at http://127.0.0.1:")
    assert "`tailrace server stop`" in refused.stderr
    assert "has ended" in cli("server", "stop").stdout


def test_a_home_that_prefect_cannot_use_and_a_port_that_is_taken_are_told(cli: Cli, home: Path) -> None:
    import socket

    home.mkdir(parents=True)
    (home / "prefect.db").write_text("a database of another version")
    failed = cli("server", "start")
    assert failed.returncode == 1
    assert f"its home is '{home}'" in failed.stderr
    assert "file is not a database" in (home / "tailrace-server.log").read_text()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        failed = cli("server", "start", "--port", str(taken.getsockname()[1]))
    assert failed.returncode == 1
    assert "Address already in use" in failed.stderr
    assert background.find() is None


def test_a_process_that_got_the_id_of_one_that_is_gone_is_not_ended(used_home: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        said = {"pid": other.pid, "born": "1", "since": "2026-11-21T12:00:00+00:00", "url": "http://127.0.0.1:9/api"}
        background.state_file().write_text(json.dumps(said))
        assert background.stop() is None, "nobody holds the lock"
        assert not background.state_file().exists()
        background.state_file().write_text(json.dumps(said))
        with background._locked(), pytest.raises(TailraceError, match="cannot be ended"):
            background.stop(timeout=0.2)
        assert other.poll() is None
        assert other.stdin is not None
        other.stdin.close()
