"""A process that is killed anywhere in a run on a real Airflow leaves nothing wrong, half or doubled."""

from __future__ import annotations

from pathlib import Path

import pytest

from .. import kills
from .projects import Project
from .services import Airflow

pytestmark = pytest.mark.xdist_group("airflow")

FLOW = """
import os, signal, time
from pathlib import Path
import numpy as np
from tailrace import Metrics, Model, current_run, pipeline, step

@step(outputs="model", retries=3, retry_delay=0.1)
def train(rate: float, name: str) -> Model:
    return Model({"rate": rate, "weights": np.arange(5.0)}, name=name, version="2026.1")

@step(retries=3, airflow={"retry_delay": 0.1})
def evaluate(model: Model) -> Metrics:
    return Metrics(accuracy=0.5, rate=model.data["rate"]).at_step(7)

@step(retries=3, retry_delay=0.1)
def folds(count: int) -> list[int]:
    return list(range(count))

@step(outputs="part", retries=3, retry_delay=0.1)
def each(fold: int) -> int:
    return fold * fold

@step(retries=3, retry_delay=0.1)
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
def grouped(name: str, rate: float = 0.1) -> None:
    evaluate.with_options(group="both")(train.with_options(group="both")(rate, name))

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
from airflow.sdk import get_current_context
from tailrace.adapters.airflow import execution
from tailrace.core.plan import Plan

def run_id():
    return get_current_context()["params"]["run_id"]

POINTS
crashing, grouped = (to_dag(pipeline(name)) for name in ("crashing", "grouped"))
fanning, holding = (to_dag(pipeline(name)) for name in ("fanning", "holding"))
doomed = to_dag(pipeline("doomed"))
"""

POINTS = {
    **kills.POINTS,
    "before Airflow hears of it": ("execution", "announce"),
    "before the count": ("Plan", "map_length"),
    "after the count": ("Plan", "map_length", True),
}
RUNS = {
    "crashing 1": (
        "before the save",
        "before the manifest",
        "before the metrics",
        "before the tracker's run is closed",
    ),
    "crashing 2": (
        "between two files",
        "after the manifest",
        "after the metrics",
        "after the tracker's run is closed",
    ),
    "crashing 3": ("before the content is in place", "before the registration", "after the run is closed"),
    "crashing 4": ("after the tracker's run is made", "in the registration"),
    "crashing 5": ("after the registration", "before the task's record", "before Airflow hears of it"),
    "grouped 1": ("after the registration", "before the metrics", "before Airflow hears of it"),
    "fanning 1": ("before the count", "after the count"),
}
"""Where each run is killed, one point after the other: a task at most three times, and Airflow's own at most twice."""


class Crashes:
    """The runs, all begun at once; `native` are Airflow's ids of them."""

    def __init__(self, airflow: Airflow) -> None:
        self.airflow = airflow
        reached = {point: POINTS[point] for points in RUNS.values() for point in points}
        dags = kills.KILL_AT + DAGS.replace("POINTS", kills.patches(reached))
        self.project = Project(airflow, "crashes", flow=FLOW, dags=dags)
        for run_id, points in RUNS.items():
            (self.project.folder / run_id).mkdir()
            for point in points:
                (self.project.folder / run_id / point).touch()
        self.native = {run_id: self.begin(run_id) for run_id in RUNS}

    def begin(self, run_id: str) -> str:
        return self.airflow.trigger(run_id.split()[0], {"run_id": run_id, "name": run_id})


@pytest.fixture(scope="module")
def crashes(airflow_deployment: Airflow) -> Crashes:
    return Crashes(airflow_deployment)


@pytest.mark.parametrize("run_id", [pytest.param(run_id, id=", ".join(points)) for run_id, points in RUNS.items()])
def test_a_run_whose_tasks_are_killed_leaves_what_inline_leaves(crashes: Crashes, run_id: str) -> None:
    dag = run_id.split()[0]
    crashes.project.succeeds(dag, crashes.native[run_id], 180)
    assert list((crashes.project.folder / run_id).iterdir()) == []  # all were reached
    assert crashes.project.differences(dag, run_id, {"name": run_id}) == []
    assert crashes.project.end(run_id).state == "completed"
    left = crashes.project.left(run_id).tracker
    assert [run["status"] for run in left["runs"]] == ["FINISHED"]
    if dag in ("crashing", "grouped"):
        assert left["runs"][0]["metrics"] == {"accuracy": [[7, "0.5"]], "rate": [[7, "0.1"]]}
        assert [version["tags"]["tailrace.version"] for version in left["versions"]] == ["2026.1"]
        assert left["numbers"] == {run_id: [1]}


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
    """A task that has only lost its master lives on for a while: two processes may commit the same at the same time."""
    airflow, folder = crashes.airflow, crashes.project.folder
    run_id = f"holding {'with tasks' if tasks else 'alone'}"
    (folder / f"hold {run_id}").touch()
    native = crashes.begin(run_id)
    airflow.until("the first try has begun", lambda: _tries(folder, run_id), 60)
    executes = "celery worker" if airflow.executor == "CeleryExecutor" else "scheduler"
    airflow.kill(executes, tasks=tasks)
    airflow.restart(executes)
    airflow.until("another try has begun", lambda: _tries(folder, run_id) > 1, 90)
    (folder / f"go {run_id}").touch()
    crashes.project.succeeds("holding", native, 120)
    assert crashes.project.differences("holding", run_id, {"name": run_id}) == []
    left = crashes.project.left(run_id).tracker
    assert [run["status"] for run in left["runs"]] == ["FINISHED"]
    assert left["runs"][0]["metrics"] == {"accuracy": [[7, "0.5"]], "rate": [[7, "0.0"]]}
    assert left["numbers"] == {run_id: [1]}


def _tries(folder: Path, run_id: str) -> int:
    return len(list(folder.glob(f"{run_id} [0-9]*")))
