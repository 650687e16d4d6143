"""What is killed, cancelled, retried or run twice at once leaves nothing wrong, half or doubled."""

from __future__ import annotations

import os
import signal

import pytest

from .projects import Project
from .services import Prefect

pytestmark = pytest.mark.xdist_group("prefect deployed")

FLOW = """
import os, time
from pathlib import Path
import numpy as np
from tailrace import Metrics, Model, current_run, pipeline, step
from tailrace.adapters.prefect import to_flow

def wait(name):
    "Until the test says so; the first file says who waits."
    folder = Path(current_run().run.root)
    if (folder / f"hold {name}").exists():
        (folder / f"held {name} {os.getpid()}").touch()
        while (folder / f"hold {name}").exists():
            time.sleep(0.01)

@step(outputs="model")
def train(rate: float, name: str) -> Model:
    return Model({"rate": rate, "weights": np.arange(5.0)}, name=name, version="2026.1")

@step
def slow(model: Model, name: str) -> Model:
    wait(name)
    return Model({**model.data, "slow": True}, name=f"{name} slow", version="2026.2")

@step
def evaluate(slow: Model, name: str) -> Metrics:
    folder = Path(current_run().run.root)
    if (folder / f"fail {name}").exists():
        (folder / f"fail {name}").unlink()
        raise OSError("not now")
    return Metrics(accuracy=0.5, rate=slow.data["rate"]).at_step(7)

@pipeline
def holding(name: str, rate: float = 0.1) -> None:
    evaluate(slow(train(rate, name), name), name)

flow = to_flow(holding)
again = to_flow(holding, variable="again", name="again", retries=1, retry_delay_seconds=0)
"""


class Runs:
    """Flow runs that wait in the middle of a step, as long as they are held."""

    def __init__(self, prefect: Prefect) -> None:
        self.prefect = prefect
        more = {"flow": "version: null", "again": "version: null", "flow e": "version: null"}
        self.project = Project(prefect, "faults", flow=FLOW, deployments=more)
        self.folder = self.project.folder

    def begin(self, name: str, *, deployment: str = "holding/d", **params: object) -> str:
        return self.prefect.trigger(deployment, {"name": name, "run_id": name, **params})

    def held(self, name: str, processes: int = 1) -> list[int]:
        """Once as many wait there, their process ids."""

        def found() -> list[int]:
            pids = [int(path.name.split()[-1]) for path in self.folder.glob(f"held {name} *")]
            return pids if len(pids) >= processes else []

        return self.prefect.until(f"{processes} wait in {name!r}", found, 90)

    def hold(self, name: str) -> None:
        (self.folder / f"hold {name}").touch()

    def let_go(self, name: str) -> None:
        (self.folder / f"hold {name}").unlink()

    def is_whole(self, name: str, rate: float = 0.1) -> None:
        """The run left what the reference leaves, and each thing once."""
        assert self.project.differences("holding", name, {"name": name, "rate": rate}) == []
        assert self.project.end(name).state == "completed"
        tracker = self.project.tracker(name)
        assert [run["status"] for run in tracker["runs"]] == ["FINISHED"]
        assert tracker["runs"][0]["metrics"] == {"accuracy": [[7, "0.5"]], "rate": [[7, repr(rate)]]}
        assert tracker["numbers"] == {name: [1], f"{name} slow": [1]}


@pytest.fixture(scope="module")
def runs(deployed: Prefect) -> Runs:
    return Runs(deployed)


@pytest.fixture(scope="module")
def begun(runs: Runs) -> dict[str, str]:
    """They begin together, as their processes take seconds to start."""
    for name in ("killed", "cancelled", "two"):
        runs.hold(name)
    (runs.folder / "fail button").touch()
    return {
        "killed": runs.begin("killed"),
        "cancelled": runs.begin("cancelled"),
        "two": runs.begin("two"),
        "two more": runs.begin("two", deployment="holding/e"),
        "button": runs.begin("button"),
    }


def test_a_run_whose_process_is_killed_is_recorded_as_failed_and_a_retry_completes_it(
    runs: Runs, begun: dict[str, str]
) -> None:
    (pid,) = runs.held("killed")
    os.kill(pid, signal.SIGKILL)
    assert runs.prefect.wait(begun["killed"]) == "CRASHED"
    runs.prefect.until("its record is closed", lambda: runs.project.journal("killed").end() is not None)
    end = runs.project.end("killed")
    assert end.state == "failed"
    assert "killed" in end.error
    assert "-9" in end.error
    assert runs.project.states("killed") == {"train": "completed"}
    assert [run["status"] for run in runs.project.tracker("killed")["runs"]] == ["FAILED"]

    runs.let_go("killed")
    # Prefect 3.8 reports it twice; who is faster than the second report has two tries at once.
    worker = runs.prefect.services["worker"]
    runs.prefect.until("the worker knows", lambda: "flow_runs.worker - Check whether" in worker.output())
    runs.prefect.retry(begun["killed"])
    runs.project.completes(begun["killed"])
    runs.is_whole("killed")


def test_a_cancelled_run_is_recorded_as_cancelled_with_what_was_stored_before(
    runs: Runs, begun: dict[str, str]
) -> None:
    runs.held("cancelled")
    runs.prefect.cli("flow-run", "cancel", begun["cancelled"])
    assert runs.prefect.wait(begun["cancelled"]) == "CANCELLED"
    assert "Crashed" not in runs.prefect.states(begun["cancelled"])
    assert runs.project.end("cancelled").state == "cancelled"
    assert runs.project.states("cancelled") == {"train": "completed", "slow": "cancelled"}
    assert [run["status"] for run in runs.project.tracker("cancelled")["runs"]] == ["KILLED"]
    assert runs.project.left("cancelled").tracker["numbers"] == {"cancelled": [1]}


def test_two_deployments_that_run_under_one_id_at_once_leave_one_run(runs: Runs, begun: dict[str, str]) -> None:
    runs.held("two", processes=2)
    runs.let_go("two")
    for run in ("two", "two more"):
        runs.project.completes(begun[run])
    runs.is_whole("two")
    refused = runs.begin("two", rate=0.9)
    assert runs.prefect.wait(refused) == "FAILED"
    why = "is taken by a run with other values of rate"
    runs.prefect.until("its log says why", lambda: why in runs.prefect.logs(refused))
    runs.is_whole("two")


def test_a_run_that_failed_and_is_retried_by_its_page_s_button_is_completed_once(
    runs: Runs, begun: dict[str, str]
) -> None:
    assert runs.prefect.wait(begun["button"]) == "FAILED"
    end = runs.project.end("button")
    assert (end.state, end.failed_step) == ("failed", "evaluate")
    assert [run["status"] for run in runs.project.tracker("button")["runs"]] == ["FAILED"]
    runs.prefect.retry(begun["button"])
    runs.project.completes(begun["button"])
    runs.is_whole("button")


@pytest.mark.slow
def test_a_flow_that_retries_itself_completes_its_run_once(runs: Runs) -> None:
    (runs.folder / "fail again").touch()
    run = runs.begin("again", deployment="again/d")
    runs.project.completes(run)
    assert "AwaitingRetry" in runs.prefect.states(run)
    runs.is_whole("again")


@pytest.mark.slow
def test_runs_of_two_deployments_at_once_do_not_touch_each_other(runs: Runs) -> None:
    one, other = runs.begin("one"), runs.begin("other", deployment="holding/e", rate=0.2)
    for run in (one, other):
        runs.project.completes(run)
    runs.is_whole("one")
    runs.is_whole("other", rate=0.2)


def test_the_server_may_be_restarted_in_the_middle_of_a_run(runs: Runs) -> None:
    runs.hold("restarted")
    run = runs.begin("restarted")
    runs.held("restarted")
    runs.prefect.kill("server")
    runs.let_go("restarted")
    runs.prefect.start_server()
    runs.project.completes(run)
    runs.is_whole("restarted")


@pytest.mark.slow
def test_a_new_worker_takes_up_the_runs_of_one_that_was_killed(runs: Runs) -> None:
    for name in ("orphaned", "lost"):
        runs.hold(name)
    orphaned, lost = runs.begin("orphaned"), runs.begin("lost")
    runs.held("orphaned")
    (pid,) = runs.held("lost")
    runs.prefect.kill("worker", descendants=False)
    os.kill(pid, signal.SIGKILL)
    for name in ("orphaned", "lost"):
        runs.let_go(name)

    # A process whose worker is gone ends when it next writes to the log, which the worker has read.
    assert runs.prefect.wait(orphaned) == "CRASHED"
    assert runs.project.end("orphaned").state == "failed"
    # Of one that is gone too there is nobody who could say so.
    assert runs.prefect.run(lost)["state"]["type"] == "RUNNING"
    assert runs.project.journal("lost").end() is None

    runs.prefect.start_worker()
    for name, run in {"orphaned": orphaned, "lost": lost}.items():
        runs.prefect.retry(run)
        runs.project.completes(run)
        runs.is_whole(name)
