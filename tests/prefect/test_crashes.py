"""A flow run's process that is killed between any two writes, and retried each time, leaves what inline leaves."""

from __future__ import annotations

import pytest

from .projects import Project
from .services import Prefect

pytestmark = [pytest.mark.xdist_group("prefect deployed"), pytest.mark.slow]

FLOW = """
import numpy as np
from tailrace import Metrics, Model, pipeline, step
from tailrace.adapters.prefect import to_flow

@step(outputs="model")
def train(rate: float, name: str) -> Model:
    return Model({"rate": rate, "weights": np.arange(5.0)}, name=name, version="2026.1")

@step(outputs="part")
def each(fold: int) -> int:
    return fold * fold

@step
def evaluate(model: Model, parts: list[int]) -> Metrics:
    return Metrics(accuracy=0.5, total=sum(parts), rate=model.data["rate"]).at_step(7)

@pipeline
def crashing(name: str, rate: float = 0.1) -> None:
    evaluate(train(rate, name), each.map(fold=[1, 2, 3]))

flow = to_flow(crashing)
"""

KILLS = """
import os, signal
from pathlib import Path
from tailrace.catalog.journal import Journal
from tailrace.core.plan import Plan
from tailrace.materializers.files import FileWriter
from tailrace.routing.registries.mlflow import MlflowRegistry
from tailrace.routing.trackers.mlflow import MlflowTracker
from tailrace.stores.local import LocalArtifactStore

def kill_at(point, owner, name, after=False):
    original = getattr(owner, name)
    def killing(*args, **kwargs):
        from prefect.runtime import flow_run
        result = original(*args, **kwargs) if after else None
        marker = Path(__file__).parent / str(flow_run.parameters.get("run_id")) / point
        if marker.exists():
            marker.unlink()  # the next try comes further
            os.kill(os.getpid(), signal.SIGKILL)
        return result if after else original(*args, **kwargs)
    setattr(owner, name, killing)

if "PREFECT__FLOW_RUN_ID" in os.environ:  # neither here nor in the worker
    POINTS
"""

POINTS = {
    "before the save": ("LocalArtifactStore", "stage"),
    "between two files": ("FileWriter", "write", True),
    "before the content is in place": ("LocalArtifactStore", "put_tree"),
    "before the manifest": ("LocalArtifactStore", "put_tree", True),
    "after the manifest": ("LocalArtifactStore", "publish", True),
    "before the registration": ("MlflowRegistry", "register"),
    "in the registration": ("MlflowRegistry", "_create", True),
    "after the registration": ("MlflowRegistry", "register", True),
    "after the tracker's run is made": ("MlflowTracker", "_find_or_create", True),
    "before the metrics": ("MlflowTracker", "log_metrics"),
    "after the metrics": ("MlflowTracker", "log_metrics", True),
    "before the task's record": ("Journal", "write_task"),
    "after the task's record": ("Journal", "write_task", True),
    "before the tracker's run is closed": ("MlflowTracker", "close_run"),
    "after the tracker's run is closed": ("MlflowTracker", "close_run", True),
    "before the run is closed": ("Journal", "close"),
    "after the run is closed": ("Journal", "close", True),
}
RUNS = [list(POINTS)[start::4] for start in range(4)]
"""Where each run is killed, one point after the other."""


@pytest.fixture(scope="module")
def crashes(deployed: Prefect) -> tuple[Project, list[str]]:
    """The runs, all begun at once; each is tried again, as by hand, when it has crashed."""
    points = "\n    ".join(f"kill_at({point!r}, {owner}, *{rest})" for point, (owner, *rest) in POINTS.items())
    text = FLOW + KILLS.replace("POINTS", points)
    project = Project(deployed, "crashes", flow=text, deployments={"flow": "version: null"})
    for number, reached in enumerate(RUNS):
        (project.folder / f"run {number}").mkdir()
        for point in reached:
            (project.folder / f"run {number}" / point).touch()
    names = [f"run {number}" for number in range(len(RUNS))]
    return project, [deployed.trigger("crashing/d", {"name": name, "run_id": name}) for name in names]


def test_every_point_is_one_at_which_a_run_is_killed() -> None:
    assert sorted(POINTS) == sorted(point for points in RUNS for point in points)


@pytest.mark.parametrize("number", range(len(RUNS)))
def test_a_run_whose_process_is_killed_again_and_again_leaves_what_inline_leaves(
    crashes: tuple[Project, list[str]], number: int
) -> None:
    project, ids = crashes
    name, run = f"run {number}", ids[number]
    while project.prefect.wait(run) == "CRASHED":
        project.prefect.until("its record is closed", lambda: project.journal(name).end() is not None)
        project.prefect.retry(run)
    project.completes(run)
    assert list((project.folder / name).iterdir()) == []  # all were reached
    found = project.differences("crashing", name, {"name": name})
    # What another thread of the process was just writing lies beside the artifact; nobody reads it.
    assert [line for line in found if "/.tmp-" not in line] == []
    tracker = project.tracker(name)
    assert [run["status"] for run in tracker["runs"]] == ["FINISHED"]
    assert tracker["runs"][0]["metrics"] == {
        "accuracy": [[7, "0.5"]],
        "rate": [[7, "0.1"]],
        "total": [[7, "14.0"]],
    }
    assert tracker["numbers"] == {name: [1]}
