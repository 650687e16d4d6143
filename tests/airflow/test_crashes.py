"""A process that is killed anywhere in a run on a real Airflow leaves nothing wrong, half or doubled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .projects import Project
from .services import Airflow

pytestmark = pytest.mark.xdist_group("airflow")

FLOW = """
import os, signal, time
from pathlib import Path
import numpy as np
from tailrace import Metrics, Model, current_run, pipeline, step

@step(outputs="model", retries=2, retry_delay=0.1)
def train(rate: float, name: str) -> Model:
    return Model({"rate": rate, "weights": np.arange(5.0)}, name=name, version="2026.1")

@step(retries=2, airflow={"retry_delay": 0.1})
def evaluate(model: Model) -> Metrics:
    return Metrics(accuracy=0.5, rate=model.data["rate"]).at_step(7)

@step(retries=2, retry_delay=0.1)
def folds(count: int) -> list[int]:
    return list(range(count))

@step(outputs="part", retries=2, retry_delay=0.1)
def each(fold: int) -> int:
    return fold * fold

@step(retries=2, retry_delay=0.1)
def slow(name: str) -> Model:
    folder = Path(current_run().run.root)
    if (folder / f"hold {name}").exists():
        (folder / f"{name} {current_run().run.attempt}").touch()
        while not (folder / f"go {name}").exists():
            time.sleep(0.01)
    return Model({"rate": 0.0}, name=name, version="2026.2")

@step
def deadly(x: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)

@step
def independent(x: int) -> Metrics:
    return Metrics(x=x)

@pipeline
def crashing(name: str, rate: float = 0.1) -> None:
    evaluate(train(rate, name))

@pipeline
def fanning(name: str, count: int = 2) -> None:
    each.map(fold=folds(count))

@pipeline
def holding(name: str) -> None:
    evaluate.with_options(name="look")(slow(name))

@pipeline
def doomed(x: int = 1) -> None:
    independent.with_options(name="after")(deadly(x))
    independent(x)
"""

DAGS = """
import os, signal
from airflow.sdk import get_current_context
from tailrace.adapters.airflow import closing, execution
from tailrace.catalog.journal import Journal
from tailrace.core.plan import Plan
from tailrace.materializers.files import FileWriter
from tailrace.routing.registries.mlflow import MlflowRegistry
from tailrace.routing.trackers.mlflow import MlflowTracker
from tailrace.stores.local import LocalArtifactStore

def kill_at(point, owner, name, after=False):
    original = getattr(owner, name)
    def killing(*args, **kwargs):
        result = original(*args, **kwargs) if after else None
        if get_current_context()["params"]["run_id"] == point:
            try:
                (Path(__file__).parent / point).unlink()
                os.kill(os.getpid(), signal.SIGKILL)
            except FileNotFoundError:  # killed once already
                pass
        return result if after else original(*args, **kwargs)
    setattr(owner, name, killing)

POINTS
crashing, fanning, holding = (to_dag(pipeline(name)) for name in ("crashing", "fanning", "holding"))
doomed = to_dag(pipeline("doomed"))
"""

POINTS = {
    "before the save": ("LocalArtifactStore", "stage"),
    "between two files": ("FileWriter", "write", True),
    "before all files are digested": ("FileWriter", "finish"),
    "before the content is in place": ("LocalArtifactStore", "put_tree"),
    "before the manifest": ("LocalArtifactStore", "put_tree", True),
    "after the manifest": ("LocalArtifactStore", "publish", True),
    "before the registration": ("MlflowRegistry", "register"),
    "in the registration": ("MlflowRegistry", "_create", True),
    "after the registration": ("MlflowRegistry", "register", True),
    "before the metrics": ("MlflowTracker", "log_metrics"),
    "after the metrics": ("MlflowTracker", "log_metrics", True),
    "after the tracker's run is made": ("MlflowTracker", "_find_or_create", True),
    "before the task's record": ("Journal", "write_task"),
    "before Airflow hears of it": ("execution", "announce"),
    "before the run is closed": ("closing", "close_run"),
    "before the tracker's run is closed": ("MlflowTracker", "close_run"),
    "after the tracker's run is closed": ("MlflowTracker", "close_run", True),
    "after the run is closed": ("Journal", "close", True),
}
COUNTING = {"before the count": ("Plan", "map_length"), "after the count": ("Plan", "map_length", True)}


def _patches() -> str:
    lines = []
    for point, (owner, *rest) in (POINTS | COUNTING).items():
        lines.append(f"kill_at({point!r}, {owner}, {', '.join(map(repr, rest))})")
    return "\n".join(lines)


class Crashes:
    """A run for each point, all at once; `native` are Airflow's ids of them."""

    def __init__(self, airflow: Airflow) -> None:
        self.airflow = airflow
        self.project = Project(airflow, "crashes", flow=FLOW, dags=DAGS.replace("POINTS", _patches()))
        for point in POINTS | COUNTING:
            (self.project.folder / point).touch()
        dags = dict.fromkeys(POINTS, "crashing") | dict.fromkeys(COUNTING, "fanning")
        self.native = {
            point: airflow.trigger(dag, {"run_id": point, "name": f"net {number}"})
            for number, (point, dag) in enumerate(dags.items())
        }
        self.dags = dags
        self.names = {point: f"net {number}" for number, point in enumerate(dags)}


@pytest.fixture(scope="module")
def crashes(airflow_deployment: Airflow) -> Crashes:
    return Crashes(airflow_deployment)


@pytest.mark.parametrize("point", [*POINTS, *COUNTING])
def test_a_task_killed_anywhere_is_tried_again_and_leaves_what_inline_leaves(crashes: Crashes, point: str) -> None:
    dag, native, name = crashes.dags[point], crashes.native[point], crashes.names[point]
    crashes.project.succeeds(dag, native, 180)
    assert not (crashes.project.folder / point).exists(), "nothing was killed"
    assert max(task["try_number"] for task in crashes.airflow.task_instances(dag, native)) > 1
    assert crashes.project.differences(dag, point, {"name": name}) == []
    end, left = crashes.project.end(point), crashes.project.left(point).tracker
    assert end.state == "completed"
    assert [run["status"] for run in left["runs"]] == ["FINISHED"]
    if dag == "crashing":
        assert left["runs"][0]["metrics"] == {"accuracy": [[7, "0.5"]], "rate": [[7, "0.1"]]}
        assert [(version["name"], version["tags"]["tailrace.version"]) for version in left["versions"]] == [
            (name, "2026.1")
        ]
        assert left["numbers"] == {name: [1]}


def test_a_task_killed_at_its_last_try_is_recorded_as_killed_and_the_run_as_failed(crashes: Crashes) -> None:
    native = crashes.airflow.trigger("doomed", {"run_id": "doomed"})
    assert crashes.airflow.wait("doomed", native) == "failed"
    states = crashes.airflow.task_states("doomed", native)
    assert states == {
        "deadly": "failed",
        "after": "upstream_failed",
        "independent": "success",
        "close_run": "failed",
    }
    tasks, end = crashes.project.tasks("doomed"), crashes.project.end("doomed")
    assert {name: task.state for name, task in tasks.items()} == {
        "deadly": "failed",
        "after": "skipped",
        "independent": "completed",
    }
    assert "it was killed" in tasks["deadly"].error
    assert tasks["after"].error == "upstream step 'deadly' failed"
    assert (end.state, end.failed_step) == ("failed", "deadly")
    assert "it was killed" in end.error
    assert [run["status"] for run in crashes.project.left("doomed").tracker["runs"]] == ["FAILED"]
    log = crashes.airflow.logs("doomed", native, "close_run")
    assert "deadly" in log


@pytest.mark.parametrize("tasks", [True, False], ids=["with its tasks", "alone"])
def test_a_step_is_run_again_when_what_executes_it_was_killed_even_beside_its_first_try(
    crashes: Crashes, tasks: bool
) -> None:
    """A task that has only lost its master lives on: then two processes commit the same artifact at the same time."""
    airflow, folder = crashes.airflow, crashes.project.folder
    name = "with tasks" if tasks else "alone"
    (folder / f"hold {name}").touch()
    native = airflow.trigger("holding", {"run_id": name, "name": name})
    airflow.until("the first try has begun", (folder / f"{name} 1").exists, 60)
    executes = "celery worker" if airflow.executor == "CeleryExecutor" else "scheduler"
    airflow.kill(executes, tasks=tasks)
    airflow.restart(executes)
    airflow.until("another try has begun", lambda: _tries(folder, name) > 1, 90)
    (folder / f"go {name}").touch()
    crashes.project.succeeds("holding", native, 120)
    assert crashes.project.differences("holding", name, {"name": name}) == []
    left: Any = crashes.project.left(name).tracker
    assert [run["status"] for run in left["runs"]] == ["FINISHED"]
    assert left["runs"][0]["metrics"] == {"accuracy": [[7, "0.5"]], "rate": [[7, "0.0"]]}
    assert left["numbers"] == {name: [1]}


def _tries(folder: Path, name: str) -> int:
    return len(list(folder.glob(f"{name} [0-9]")))
