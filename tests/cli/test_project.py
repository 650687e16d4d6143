"""``init``, ``stack``, ``doctor``, ``version`` and the help."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

import tailrace
from tailrace.cli.doctor import PACKAGES

from .conftest import Cli, Invoke, environment

ROOT = Path(__file__).parents[2]

BROKEN = """
active_stack: prodd
stacks:
  prod:
    artifact_store: {type: local, paht: x}
    orchestrator: {type: inlin}
"""

# --- init -------------------------------------------------------------------------------------------------------------


def test_what_init_writes_is_sound_and_runs(cli: Cli, project: Path) -> None:
    done = cli("init")
    assert done.returncode == 0
    assert sorted(str(path.relative_to(project)) for path in project.rglob("*") if path.is_file()) == [
        ".tailrace/tailrace.schema.json",
        "flows/hello.py",
        "tailrace.yaml",
    ]
    assert cli("stack", "validate").returncode == 0
    first = (project / "tailrace.yaml").read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=.tailrace/tailrace.schema.json"
    assert json.loads((project / ".tailrace/tailrace.schema.json").read_text())["title"] == "tailrace.yaml"
    assert cli("explain", "hello").returncode == 0
    ran = cli("run", "hello", "--orchestrator", "inline", "-p", "days=3")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "project" in ran.stdout, "the folder's name is the project's"


def test_init_uncommented_is_sound_too(invoke: Invoke, project: Path) -> None:
    invoke("init")
    file = project / "tailrace.yaml"
    file.write_text(re.sub(r"^    # ", "    ", file.read_text(), flags=re.MULTILINE))
    assert invoke("stack", "validate") == "tailrace.yaml is sound.\n"
    assert "mlflow" in invoke("stack", "show")


def test_init_replaces_nothing_unless_forced(invoke: Invoke, project: Path) -> None:
    (project / "tailrace.yaml").write_text("mine")
    assert "tailrace.yaml" in invoke("init", code=2)
    assert (project / "tailrace.yaml").read_text() == "mine"
    assert not (project / "flows").exists(), "nothing is written half"
    invoke("init", "--force")
    assert (project / "tailrace.yaml").read_text() != "mine"


def test_init_in_another_folder_names_the_project_for_it(invoke: Invoke) -> None:
    assert "cd deep/wéird: name && tailrace run hello" in invoke("init", "deep/wéird: name")
    assert "wéird: name" in invoke("stack", "show", "--config", "deep/wéird: name/tailrace.yaml")


# --- stack ------------------------------------------------------------------------------------------------------------


def test_stacks_are_listed_with_the_active_one_and_why(
    invoke: Invoke, mill: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = json.loads(invoke("stack", "list", "--json"))
    assert [(row["name"], row["active"]) for row in listed] == [("dev", True), ("other", False), ("local", False)]
    assert "* dev" in invoke("stack", "list")
    invoke("stack", "set", "other")
    assert "* other" in invoke("stack", "list")
    assert "elsewhere" in invoke("stack", "show")
    monkeypatch.setenv("TAILRACE_STACK", "local")
    assert "TAILRACE_STACK" in invoke("stack", "list")


def test_a_stack_that_does_not_exist_cannot_be_chosen(invoke: Invoke, mill: Path) -> None:
    assert "Did you mean 'other'?" in invoke("stack", "set", "othr", code=2)
    assert "* dev" in invoke("stack", "list")


def test_without_a_configuration_everything_is_built_in(invoke: Invoke) -> None:
    assert "* local" in invoke("stack", "list")
    assert json.loads(invoke("stack", "show", "--json"))["name"] == "local"
    assert "nothing to check" in invoke("stack", "validate")


def test_every_problem_is_told_with_file_and_key(cli: Cli, invoke: Invoke, project: Path) -> None:
    (project / "tailrace.yaml").write_text(BROKEN)
    done = cli("stack", "validate")
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert any(
        line.startswith("tailrace.yaml @ stacks.prod.artifact_store.paht (line 5): Unknown key") for line in lines
    )
    assert any("Did you mean 'inline'" in line for line in lines)
    assert any("Did you mean 'prod'" in line for line in lines)
    assert "Traceback" not in done.stderr


def test_problems_as_json(cli: Cli, project: Path) -> None:
    (project / "tailrace.yaml").write_text(BROKEN)
    done = cli("stack", "validate", "--json")
    assert done.returncode == 2
    assert {"message", "place"} == set(json.loads(done.stdout)[0])


def test_passwords_are_not_shown(invoke: Invoke, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    (project / "tailrace.yaml").write_text(
        "catalog: {url: 'postgresql://me:${SECRET}@host/db'}\n"
        "plugins:\n  experiment_tracker: {type: mlflow, tracking_uri: 'http://me:hunter2@127.0.0.1:1'}\n"
    )
    for command in (("stack", "show"), ("stack", "show", "--json")):
        assert "hunter2" not in invoke(*command)
    told = invoke("doctor", "--json", code=1) + invoke("doctor", code=1)
    assert "hunter2" not in told


def test_the_schema_is_that_of_the_configuration(invoke: Invoke) -> None:
    assert set(json.loads(invoke("stack", "schema"))["properties"]) >= {"stacks", "plugins", "active_stack", "project"}


# --- doctor -----------------------------------------------------------------------------------------------------------


def test_the_doctor_finds_a_sound_stack(cli: Cli, mill: Path, project: Path) -> None:
    done = cli("doctor", "--json")
    checks = json.loads(done.stdout)
    assert done.returncode == 0
    assert all(set(check) == {"group", "name", "state", "detail"} for check in checks)
    stores = [check["state"] for check in checks if check["group"] == "Store"]
    assert stores == ["ok", "ok"]
    assert "The stack can run." in cli("doctor").stdout


def _check(text: str, group: str) -> dict[str, str]:
    return next(check for check in json.loads(text) if check["group"] == group and check["state"] != "ok")


def _doctor(cli: Cli, config: str, project: Path) -> str:
    (project / "tailrace.yaml").write_text(config)
    done = cli("doctor", "--json")
    assert done.returncode == 1
    assert done.stderr == ""
    return done.stdout


def test_the_doctor_finds_a_store_that_cannot_be_written(cli: Cli, project: Path) -> None:
    (project / "file").write_text("no folder")
    found = _doctor(cli, "plugins: {artifact_store: {type: local, path: file/below}}", project)
    assert "file/below" in _check(found, "Store")["detail"]


def test_the_doctor_finds_a_tracker_that_does_not_answer(cli: Cli, project: Path) -> None:
    config = "plugins: {experiment_tracker: {type: mlflow, tracking_uri: 'http://127.0.0.1:9'}}"
    assert _check(_doctor(cli, config, project), "MLflow")["name"] == "tracker"


def test_the_doctor_tells_what_is_wrong_with_the_configuration(cli: Cli, project: Path) -> None:
    assert "Unknown key 'plugin'" in _check(_doctor(cli, "plugin: {}", project), "Stack")["detail"]


def test_the_doctor_says_which_airflow_is_there_and_whether_the_stack_needs_it(cli: Cli, project: Path) -> None:
    (project / "tailrace.yaml").write_text("plugins: {orchestrator: {type: airflow}}")
    there = find_spec("airflow") is not None
    done = cli("doctor", "--json")
    assert done.returncode == (0 if there else 1)
    extra, needed = (check for check in json.loads(done.stdout) if "airflow" in check["name"])
    advice = "pip install 'tailrace[airflow]'"
    assert extra["detail"].startswith("apache-airflow 3." if there else advice)
    assert (needed["name"], needed["detail"]) == ("orchestrator: airflow", "apache-airflow" if there else advice)


def test_the_doctor_asks_the_prefect_server_that_is_set(cli: Cli, project: Path) -> None:
    done = cli("doctor", "--json", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert done.returncode == 1
    assert _check(done.stdout, "Prefect")["state"] == "failed"


def test_the_doctor_s_packages_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    name = re.compile(r"^[A-Za-z0-9_.-]+")

    def names(requirements: list[str]) -> set[str]:
        return {match[0].lower() for text in requirements if (match := name.match(text))} - {"tailrace"}

    assert names(list(PACKAGES[""])) == names(project["dependencies"])
    for extra, requirements in project["optional-dependencies"].items():
        if extra not in {"all", "celery", "dev", "docs", "frameworks"}:
            assert names(list(PACKAGES[extra])) <= names(requirements), extra


# --- the command itself -----------------------------------------------------------------------------------------------


def test_alone_it_prints_its_help(cli: Cli) -> None:
    done = cli()
    assert done.returncode == 0
    commands = "run explain dags runs artifacts lineage stack catalog init doctor version"
    for command in commands.split():
        assert f" {command} " in done.stdout


@pytest.mark.parametrize("arguments", [("version",), ("--version",)])
def test_the_version(invoke: Invoke, arguments: tuple[str, ...]) -> None:
    assert invoke(*arguments).startswith(f"tailrace {tailrace.__version__}, Python 3.")


@pytest.mark.parametrize("arguments", [("nope",), ("run",), ("run", "x", "--nope"), ("runs", "ls", "--limit", "0")])
def test_what_the_command_does_not_understand_is_a_usage_error(invoke: Invoke, arguments: tuple[str, ...]) -> None:
    assert "Usage:" in invoke(*arguments, code=2)


def test_the_help_needs_none_of_what_the_commands_import() -> None:
    code = (
        "import sys; from tailrace.cli.app import app; app(['--help'], standalone_mode=False);"
        "heavy = {'prefect', 'mlflow', 'numpy', 'pandas', 'sqlalchemy', 'pydantic', 'yaml', 'orjson'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_reader_that_stops_early_is_no_error(mill: Path) -> None:
    command = f"{sys.executable} -m tailrace.cli stack schema | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment())
    assert (done.stdout, done.stderr) == ("{\n", "")
