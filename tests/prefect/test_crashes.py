"""A flow run's process that is killed between any two writes, and retried each time, leaves what inline leaves."""

from __future__ import annotations

import pytest

from ..kills import KILL_AT, POINTS, patches
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
def run_id():
    from prefect.runtime import flow_run
    return flow_run.parameters.get("run_id")

if "PREFECT__FLOW_RUN_ID" in os.environ:  # neither here nor in the worker
    POINTS
"""

RUNS = [list(POINTS)[start::4] for start in range(4)]
"""Where each run is killed, one point after the other."""


@pytest.fixture(scope="module")
def crashes(deployed: Prefect) -> tuple[Project, list[str]]:
    """The runs, all begun at once; each is tried again, as by hand, when it has crashed."""
    text = FLOW + KILL_AT + KILLS.replace("POINTS", patches(POINTS, indent="    "))
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
