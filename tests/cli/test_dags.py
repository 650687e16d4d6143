"""``tailrace dags render``: the few lines that make an Airflow DAG of a pipeline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from .conftest import Invoke, environment

needs_airflow = pytest.mark.skipif(find_spec("airflow") is None, reason="Airflow is not installed here")


def _airflow(home: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own, with an Airflow home that is new."""
    changed = environment(AIRFLOW_HOME=str(home), AIRFLOW__CORE__LOAD_EXAMPLES="False")
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, env=changed, timeout=300)


def test_the_file_is_a_few_lines_that_take_the_pipeline_from_its_own_file(invoke: Invoke, mill: Path) -> None:
    told = invoke("dags", "render", "mill", "--schedule", "0 6 * * *")
    assert told.startswith("wrote dags/mill.py\n\nNext: ")
    text = Path("dags/mill.py").read_text()
    assert len(text.splitlines()) < 15
    assert 'Path(__file__).parent / "../flows/mill.py"\n' in text
    assert 'schedule="0 6 * * *"' in text
    assert {"airflow", "dag"} <= set(text.replace(".", " ").split()), "Airflow passes over files without these words"


def test_it_goes_where_it_is_told_to_go(invoke: Invoke, mill: Path) -> None:
    invoke("dags", "render", "flows/mill.py", "--output", "far/away/grind.py")
    assert '"../../flows/mill.py"' in Path("far/away/grind.py").read_text()
    invoke("dags", "render", "mill:mill", "-o", "far")
    assert '"../flows/mill.py:mill"' in Path("far/mill.py").read_text()


def test_what_is_there_is_kept_unless_forced(invoke: Invoke, mill: Path) -> None:
    Path("dags").mkdir()
    Path("dags/mill.py").write_text("mine")
    assert "It is there already; --force replaces it @ dags/mill.py" in invoke("dags", "render", "mill", code=2)
    assert Path("dags/mill.py").read_text() == "mine"
    invoke("dags", "render", "mill", "--force")
    assert "to_dag" in Path("dags/mill.py").read_text()


def test_the_pipeline_s_own_file_is_never_replaced(invoke: Invoke, mill: Path) -> None:
    before = mill.read_text()
    told = invoke("dags", "render", "mill", "--output", "flows/mill.py", "--force", code=2)
    assert "choose another --output" in told
    assert mill.read_text() == before


def test_a_pipeline_that_wants_a_parameter_cannot_be_scheduled(invoke: Invoke, mill: Path) -> None:
    mill.write_text(mill.read_text().replace("fields: int = 3", "fields: int"))
    told = invoke("dags", "render", "mill", "--schedule", "@daily", code=2)
    assert "nobody gives the parameters fields" in told
    assert not Path("dags").exists()
    invoke("dags", "render", "mill")


def test_what_cannot_be_planned_is_said_before_anything_is_written(invoke: Invoke, mill: Path) -> None:
    mill.write_text(mill.read_text().replace("harvest(fields)", "harvest()"))
    assert "missing a required argument: 'fields'" in invoke("dags", "render", "mill", code=2)
    assert not Path("dags").exists()


def test_the_help_says_what_is_written(invoke: Invoke) -> None:
    assert "Pipelines as Airflow DAGs." in invoke("dags", "--help")
    shown = invoke("dags", "render", "--help")
    for option in ("--output", "--schedule", "--force"):
        assert option in shown


@needs_airflow
@pytest.mark.parametrize("name", ["mill.py", "über die Mühle.py"])
def test_airflow_imports_the_file_without_an_error(invoke: Invoke, mill: Path, tmp_path: Path, name: str) -> None:
    mill = mill.rename(mill.with_name(name))
    invoke("dags", "render", mill, "--schedule", "@daily")
    code = (
        "import json, pathlib; from airflow.dag_processing.dagbag import DagBag;"
        "bag = DagBag(pathlib.Path('dags').resolve());"
        "(dag,) = bag.dags.values();"
        "print(json.dumps([bag.import_errors, dag.dag_id, sorted(dag.task_dict), dag.fileloc,"
        " {name: dag.params[name] for name in ('fields', 'shares', 'stop')}]))"
    )
    done = _airflow(tmp_path / "home", "-c", code)
    assert done.returncode == 0, done.stderr
    errors, dag_id, tasks, file, params = json.loads(done.stdout.splitlines()[-1])
    assert (errors, dag_id) == ({}, "mill")
    assert {"harvest", "grind", "write_label", "close_run"} <= set(tasks)
    assert file == str(Path("dags", name).resolve())
    assert params == {"fields": 3, "shares": [0.25, 0.75], "stop": False}


@needs_airflow
def test_the_file_runs_and_its_types_are_named_as_on_any_engine(invoke: Invoke, mill: Path, tmp_path: Path) -> None:
    invoke("dags", "render", "mill")
    done = _airflow(tmp_path / "home", os.path.join("dags", "mill.py"))
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = json.loads(invoke("runs", "ls", "--json"))
    assert (run["state"], run["pipeline"]) == ("completed", "mill")
    listed = json.loads(invoke("artifacts", "ls", "--json", "--run", run["run_id"], "--name", "sack"))
    assert {artifact["type"] for artifact in listed} == {"mill.Sack"}
    assert len(listed) == 2
