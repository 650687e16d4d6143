"""``tailrace run``: what a person sees, what a script gets, and the exit codes."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from .conftest import Cli, Invoke, environment

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def test_piped_output_is_plain_lines_one_for_each_event_and_then_the_summary(cli: Cli, mill: Path) -> None:
    done = cli("run", "mill", "--run-id", "r1")
    assert (done.returncode, done.stderr) == (0, "")
    assert not CONTROL.search(done.stdout)
    lines = [line.split() for line in done.stdout.splitlines() if line]
    assert lines[0] == ["started", "harvest"]
    assert [line[0] for line in lines].count("started") == 4
    assert ["completed", "grind[1]"] in [line[:2] for line in lines]
    assert ["grind", "completed"] in [line[:2] for line in lines], "the table of steps"
    assert next(line for line in lines if line[:2] == ["grind", "completed"])[-1] == "2", "its tasks"
    assert any("harvest/grain" in " ".join(line) and "Dataset" in line for line in lines)
    assert "tailrace runs show r1" in done.stdout
    assert re.search(r"tailrace lineage [0-9a-f]{16}$", done.stdout, re.MULTILINE)


def test_what_to_type_next_names_the_stack_where_the_run_s_was_named(invoke: Invoke, mill: Path) -> None:
    Path("tailrace.yaml").write_text(
        "active_stack: near\nstacks:\n"
        "  near: {orchestrator: {type: inline}}\n"
        "  far: {orchestrator: {type: inline}, artifact_store: {type: local, path: far}}\n"
    )
    told = invoke("run", "mill", "--run-id", "r1", "--stack", "far")
    commands = re.findall(r"tailrace (.*) --stack far$", told, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["runs", "lineage"]
    assert all("flour label" in invoke(*command.split(), "--stack", "far") for command in commands[1:])
    failed = invoke("run", "mill", "--param", "stop=true", "--run-id", "r2", "--stack", "far", code=1)
    assert failed.endswith("tailrace runs show r2 --stack far\n")


def test_json_is_the_only_thing_on_standard_output(cli: Cli, mill: Path) -> None:
    text = mill.read_text().replace(
        '    print("writing', '    __import__("os").system("echo from a child")\n    print("writing'
    )
    mill.write_text(text)
    done = cli("run", "mill", "--json")
    document = json.loads(done.stdout)
    assert "writing the label" in done.stderr
    assert "from a child" in done.stderr
    assert document["state"] == "completed"
    assert [step["name"] for step in document["steps"]] == ["harvest", "grind", "write_label"]
    assert [item["map_index"] for item in document["artifacts"] if item["step"] == "grind"] == [0, 1]
    known = {"id", "name", "type", "step", "output", "run_id", "uri", "digest", "size_bytes", "tracker", "registry"}
    assert all(known <= set(item) for item in document["artifacts"])


def test_a_failing_step_shows_its_own_traceback_first_and_then_which_step_failed(cli: Cli, mill: Path) -> None:
    done = cli("run", "mill", "--param", "stop=true", "--run-id", "bad")
    assert done.returncode == 1
    first, *_, last_but_one, last = done.stderr.splitlines()
    assert first == "Traceback (most recent call last):"
    assert f'File "{mill}"' in done.stderr
    assert "runtime.py" not in done.stderr, "our own frames"
    assert "RuntimeError: the wheel stands still" in done.stderr
    assert last_but_one == "Step 'write_label' failed, and with it run bad of 'mill'."
    assert last == "The run's record: tailrace runs show bad"
    shown = json.loads(cli("runs", "show", "bad", "--json").stdout)
    assert (shown["state"], shown["failed_step"]) == ("failed", "write_label")


def test_a_file_that_cannot_be_imported_shows_its_own_traceback(cli: Cli) -> None:
    Path("broken.py").write_text("def helper():\n    return 1 / 0\n\nhelper()\n")
    done = cli("run", "broken")
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1] == f'  File "{Path("broken.py").resolve()}", line 4, in <module>'
    assert lines[-2:] == ["ZeroDivisionError: division by zero", "broken.py cannot be imported."]


def test_the_help_names_the_orchestrators(invoke: Invoke) -> None:
    assert "local, inline or airflow" in " ".join(invoke("run", "--help").replace("│", " ").split())


@pytest.mark.skipif(find_spec("airflow") is None, reason="Airflow is not installed here")
def test_airflow_runs_it_to_the_same_artifacts(cli: Cli, mill: Path) -> None:
    found = []
    for engine in ("inline", "airflow"):
        done = cli("run", "mill", "--json", "--run-id", engine, "--orchestrator", engine)
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        assert (document["state"], document["orchestrator"]) == ("completed", engine)
        keys = ("step", "output", "map_index", "type", "digest")
        found.append([[item[key] for key in keys] for item in document["artifacts"]])
    assert found[0] == found[1]


@pytest.mark.skipif(find_spec("airflow") is not None, reason="Airflow is installed here")
def test_without_airflow_the_command_that_installs_it_is_told(cli: Cli, mill: Path) -> None:
    done = cli("run", "mill", "--orchestrator", "airflow")
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install 'tailrace[airflow]'" in done.stderr


def test_a_failed_run_is_one_json_document_too(invoke: Invoke, cli: Cli, mill: Path) -> None:
    done = cli("run", "mill", "-p", "stop=true", "--json")
    document = json.loads(done.stdout)
    assert done.returncode == 1
    assert (document["state"], document["failed_step"]) == ("failed", "write_label")
    assert len(document["artifacts"]) == 4


def test_an_output_that_cannot_be_stored_is_told_without_a_traceback_of_ours(invoke: Invoke, mill: Path) -> None:
    mill.write_text(mill.read_text().replace("return Sack(", "return lambda: ("))
    told = invoke("run", "mill", code=1)
    assert "Traceback" not in told
    assert "Step 'grind' failed" in told


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to send")
def test_ctrl_c_cancels_the_run_and_its_record_says_so(cli: Cli, mill: Path, project: Path) -> None:
    mill.write_text(
        mill.read_text().replace("    if stop:", "    print('asleep')\n    __import__('time').sleep(60)\n    if stop:")
    )
    # A background job of a shell has SIGINT ignored, and so would its children: here it is a terminal's.
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    with subprocess.Popen(
        [sys.executable, "-c", f"{heed}; from tailrace.cli import main; main()", "run", "mill", "--run-id", "c"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as run:
        assert run.stdout is not None
        while "asleep" not in run.stdout.readline():
            assert run.poll() is None
        run.send_signal(signal.SIGINT)
        _, told = run.communicate(timeout=60)
    assert run.returncode == 130
    assert told.splitlines() == ["cancelled", "The run's record: tailrace runs show c"]
    shown = json.loads(cli("runs", "show", "c", "--json").stdout)
    assert shown["state"] == "cancelled"
    assert shown["tasks"][-1]["state"] == "cancelled"
    assert shown["artifacts"] == 4, "what was made before is there"


def test_on_a_terminal_the_steps_are_a_table_that_fills(mill: Path) -> None:
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "tailrace.cli", "run", "mill", "--run-id", "t"]
    run = subprocess.Popen(command, stdout=follower, stderr=follower, env=environment(TERM="xterm-256color"))
    os.close(follower)
    seen = b""
    while True:
        try:
            chunk = os.read(leader, 65536)
        except OSError:  # the other side is closed
            break
        if not chunk:
            break
        seen += chunk
    assert run.wait(timeout=60) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    assert "✓  grind" in text
    assert "2 tasks" in text
    assert "started" not in text
    assert "writing the label" in text
    assert seen.count(b"\x1b[?25l") == seen.count(b"\x1b[?25h"), "the cursor is shown again"


@pytest.mark.xdist_group("prefect")
def test_the_local_engine_makes_the_same_artifacts_and_says_nothing_of_its_own(cli: Cli, mill: Path) -> None:
    inline = json.loads(cli("run", "mill", "--run-id", "a1", "--json").stdout)["artifacts"]
    done = cli("run", "mill", "--run-id", "a2", "--orchestrator", "local")
    assert (done.returncode, done.stderr) == (0, "")
    local = json.loads(cli("artifacts", "ls", "--run", "a2", "--json").stdout)
    key = "name", "type", "step", "output", "map_index", "digest"
    assert sorted(str([item[name] for name in key]) for item in inline) == sorted(
        str([item[name] for name in key]) for item in local
    )


# --- parameters -------------------------------------------------------------------------------------------------------


def test_parameters_are_parsed_by_their_annotations(invoke: Invoke, mill: Path) -> None:
    invoke("run", "mill", "-p", "fields=2", "--param", "shares=[1e-1, 0.2, 1]", "--run-id", "p")
    shown = json.loads(invoke("runs", "show", "p", "--json"))
    assert shown["params"] == {"fields": 2, "shares": [0.1, 0.2, 1.0], "stop": False}


def test_everything_that_is_wrong_with_the_parameters_is_told_at_once(invoke: Invoke, mill: Path) -> None:
    told = invoke("run", "mill", "-p", "fields=two", "-p", "share=[1]", "-p", "shares", code=2)
    assert "3 problems" in told
    assert "'two' is no value for 'fields'" in told
    assert "unknown parameter 'share'. Did you mean 'shares'?" in told
    assert "'shares' is no name=value" in told


def test_a_parameter_without_default_has_to_be_given(invoke: Invoke, mill: Path) -> None:
    mill.write_text(mill.read_text().replace("fields: int = 3,", "fields: int,"))
    assert "no value is given for 'fields'" in invoke("run", "mill", code=2)


# --- usage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--stack", "devv"], "There is no stack 'devv'. Did you mean 'dev'?"),
        (["--orchestrator", "inlin"], "Did you mean 'inline'?"),
        (["--config", "nope.yaml"], "There is no such file"),
    ],
)
def test_what_does_not_exist_is_a_usage_error(invoke: Invoke, mill: Path, options: list[str], told: str) -> None:
    shown = invoke("run", "mill", *options, code=2)
    assert told in shown
    assert "Traceback" not in shown


def test_a_run_id_that_is_taken_is_a_usage_error(invoke: Invoke, mill: Path) -> None:
    invoke("run", "mill", "--run-id", "one")
    assert "'one' is taken" in invoke("run", "mill", "--run-id", "one", "-p", "fields=1", code=2)


def test_debug_shows_the_traceback_of_an_error(cli: Cli, mill: Path) -> None:
    assert "Traceback" not in cli("run", "mill", "--stack", "x").stderr
    assert "Traceback" in cli("--debug", "run", "mill", "--stack", "x").stderr
    assert "Traceback" in cli("run", "mill", "--stack", "x", TAILRACE_DEBUG="1").stderr
    assert "runtime.py" in cli("--debug", "run", "mill", "-p", "stop=true").stderr, "our own frames too"


def test_a_retry_is_told(invoke: Invoke, project: Path) -> None:
    (project / "again.py").write_text(
        "from tailrace import current_run, pipeline, step\n"
        "tries = []\n"
        "@step(retries=1)\n"
        "def moody() -> int:\n"
        "    tries.append(1)\n"
        "    if len(tries) == 1:\n"
        "        raise OSError('not now')\n"
        "    return 1\n"
        "@pipeline\n"
        "def again() -> None:\n"
        "    moody()\n"
    )
    words = [line.split()[:2] for line in invoke("run", "again", "--orchestrator", "inline").splitlines() if line]
    assert words[:5] == [[kind, "moody"] for kind in ("started", "failed", "retrying", "started", "completed")]
