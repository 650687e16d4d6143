"""The files in ``dags/`` are what they say: DAGs without an error, and the same artifacts as on any other engine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .services import Airflow, AirflowError

pytestmark = pytest.mark.xdist_group("airflow")

ROOT = Path(__file__).parents[2]
FILES = sorted(path.name for path in (ROOT / "dags").glob("*.py"))

IMPORT = """
import json, sys
from pathlib import Path
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(Path("dags").resolve())
heavy = {"numpy", "pandas", "sklearn", "mlflow", "prefect"} & set(sys.modules)
found = {dag_id: Path(dag.fileloc).name for dag_id, dag in bag.dags.items()}
modules = {name: sys.modules[name].__file__ for name in ("breast_cancer", "cross_validation", "monitor")}
print(json.dumps([bag.import_errors, found, sorted(heavy), modules]))
"""

FLOW = """
from dataclasses import dataclass
from tailrace import pipeline, step

@dataclass
class Sack:
    kilos: float

@step(outputs="sack")
def grind(kilos: float) -> Sack:
    return Sack(kilos)

@step(outputs="kilos")
def weigh(sack: Sack) -> float:
    assert isinstance(sack, Sack)
    return sack.kilos

@pipeline
def mill(kilos: float = 1.5) -> None:
    weigh(grind(kilos))
"""

FILE = """
from pathlib import Path
from tailrace import load_pipeline
from tailrace.adapters.airflow import to_dag
dag = to_dag(load_pipeline(Path(__file__).parent / "../mill_flows/mill.py"))
"""


def _copy(folder: Path) -> Path:
    """The examples, as a user has them."""
    for name in ("dags", "flows"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "tailrace.yaml", folder)
    return folder


def _python(folder: Path, *command: str, home: Path) -> str:
    changes = {"AIRFLOW_HOME": str(home), "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags")}
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, env=os.environ | changes, cwd=folder, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _tailrace(folder: Path, *arguments: str) -> Any:
    command = [sys.executable, "-m", "tailrace.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def _contents(folder: Path, run_id: str) -> list[tuple[str, ...]]:
    keys = ("step", "output", "map_index", "name", "type", "digest")
    listed = _tailrace(folder, "artifacts", "ls", "--json", "--run", run_id)
    return sorted(tuple(str(item[key]) for key in keys) for item in listed)


def _tree(folder: Path) -> list[str]:
    """Every file of the stored artifacts, without the date."""
    (project,) = folder.glob(".tailrace/artifacts/tailrace-examples")
    return sorted(path.relative_to(project).as_posix().partition("/")[2] for path in project.glob("*/*/data/**/*"))


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples after each has been run once by its own file, all in one new Airflow home."""
    folder, home = _copy(tmp_path_factory.mktemp("examples")), tmp_path_factory.mktemp("home")
    for name in FILES:
        (folder / name).with_suffix(".txt").write_text(_python(folder, f"dags/{name}", home=home))
    return folder


def test_every_file_is_a_dag_and_imports_nothing_that_its_steps_use(project: Path, tmp_path: Path) -> None:
    told = _python(_copy(project), "-c", IMPORT, home=tmp_path / "home")
    errors, found, heavy, modules = json.loads(told.splitlines()[-1])
    assert errors == {}
    assert sorted(found.values()) == FILES
    assert "breast_cancer.py" in FILES
    assert heavy == []
    assert modules == {name: str((project / "flows" / f"{name}.py").resolve()) for name in modules}, (
        "so are types named"
    )


@pytest.mark.parametrize(
    ("pipeline", "params"),
    [("breast_cancer", ()), ("cross_validation", ("--param", "folds=8"))],
    ids=["breast_cancer", "cross_validation"],
)
def test_a_file_that_is_run_leaves_what_the_pipeline_leaves_inline(
    examples: Path, project: Path, pipeline: str, params: tuple[str, ...]
) -> None:
    (run,) = _tailrace(examples, "runs", "ls", "--json", "--pipeline", pipeline.replace("_", "-"))
    inline = _tailrace(
        _copy(project), "run", pipeline, "--json", "--orchestrator", "inline", "--run-id", run["run_id"], *params
    )
    assert (run["state"], inline["state"]) == ("completed", "completed")
    assert _contents(examples, run["run_id"]) == _contents(project, run["run_id"])
    assert set(_tree(project)) <= set(_tree(examples))


def test_it_says_at_the_end_where_everything_went(examples: Path) -> None:
    *_, stored, tracked = (examples / "breast_cancer.txt").read_text().splitlines()
    assert stored.startswith(f"  stored in {(examples / '.tailrace' / 'artifacts').resolve().as_uri()}/")
    assert "mlflow" in tracked


def test_the_monitor_takes_the_model_of_the_run_before_it(examples: Path) -> None:
    (run,) = _tailrace(examples, "runs", "ls", "--json", "--pipeline", "monitor")
    lineage = _tailrace(examples, "lineage", f"{run['run_id']}/watch/health", "--up", "--format", "json")
    assert {"wisconsin", "breast-cancer", "batch"} <= {node["name"] for node in lineage["nodes"]}


def test_a_scheduler_starts_the_second_of_the_pair_when_the_first_has_stored_its_model(
    airflow_deployment: Airflow,
) -> None:
    folder = airflow_deployment.dags / "pair"
    folder.mkdir()
    _copy(folder)
    (folder / "dags" / "cross_validation.py").unlink()

    def known() -> bool:
        try:
            return bool(airflow_deployment.details("breast-cancer") and airflow_deployment.details("monitor"))
        except AirflowError:
            return False

    airflow_deployment.until("the pair is parsed", known, 60)
    run_id = airflow_deployment.trigger("breast-cancer")
    assert airflow_deployment.wait("breast-cancer", run_id, 240) == "success"
    (started,) = airflow_deployment.until("the monitor is started", lambda: airflow_deployment.runs("monitor"), 60)
    assert airflow_deployment.wait("monitor", started["dag_run_id"], 120) == "success"

    (event,) = [one for one in airflow_deployment.asset_events("breast-cancer", run_id) if "model" in one["uri"]]
    (reference,) = event["extra"]["artifacts"]
    (task,) = [
        one
        for one in _tailrace(folder, "runs", "show", "--json", started["dag_run_id"])["tasks"]
        if one["step"] == "score"
    ]
    assert reference["id"] in str(task)


def test_a_worker_names_types_as_every_engine_does_though_the_dag_file_is_called_like_the_pipeline_s(
    airflow_deployment: Airflow,
) -> None:
    flows = airflow_deployment.folder / "mill_flows"
    flows.mkdir()
    (flows / "mill.py").write_text(FLOW)
    assert airflow_deployment.write_dag("mill.py", FILE) == ["mill"]
    run_id = airflow_deployment.trigger("mill")
    assert airflow_deployment.wait("mill", run_id) == "success"
    (result,) = airflow_deployment.xcom("mill", run_id, "grind")["results"]
    assert result["sack"]["type"] == "mill.Sack"
