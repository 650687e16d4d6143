"""Tasks of a flow are submitted as soon as what they take is there, a bounded number at a time."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from tailrace import PipelineError, StepFailed, pipeline, step
from tailrace.adapters.prefect import to_flow

pytestmark = [pytest.mark.xdist_group("prefect"), pytest.mark.usefixtures("prefect_server")]

_seen: dict[str, Any] = {}
_lock = threading.Lock()


@pytest.fixture(autouse=True)
def seen() -> dict[str, Any]:
    _seen.clear()
    _seen.update(running=0, most=0, go=threading.Event())
    return _seen


@step
def start() -> int:
    return 1


@step
def held(x: int) -> int:
    assert _seen["go"].wait(60)
    return x


@step
def let_go(x: int) -> int:
    _seen["go"].set()
    return x


@step
def counted(x: int) -> int:
    with _lock:
        _seen["running"] += 1
        _seen["most"] = max(_seen["most"], _seen["running"])
    time.sleep(0.01)
    with _lock:
        _seen["running"] -= 1
    return x


@step
def gather(values: list[int]) -> list[int]:
    return values


@step
def fails(x: int) -> int:
    raise ValueError(f"{x} is too many")


def test_a_slow_step_holds_up_only_what_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILRACE_MAX_IN_FLIGHT", "2")

    @pipeline
    def crossed() -> None:
        slow = held(start())
        held.map(x=[slow])
        value = start()
        for _ in range(10):
            value = counted(value)
        let_go(value)

    assert to_flow(crossed)()


def test_no_more_tasks_run_at_once_than_may_be_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILRACE_MAX_IN_FLIGHT", "3")

    @pipeline
    def wide() -> None:
        gather(counted.map(x=list(range(12))))

    result = wide.run()
    assert result.outputs["gather"] == list(range(12))
    assert 1 < _seen["most"] <= 3


@pytest.mark.parametrize("given", ["0", "many", "-1", "1.5"])
def test_a_bound_that_is_no_number_is_refused(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILRACE_MAX_IN_FLIGHT", given)

    @pipeline
    def one() -> None:
        start()

    with pytest.raises(StepFailed, match="give a whole number") as error:
        one.run()
    assert isinstance(error.value.__cause__, PipelineError)


def test_the_bound_follows_the_runners_workers() -> None:
    from prefect.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner

    from tailrace.adapters.prefect.runners import in_flight

    assert in_flight(ThreadPoolTaskRunner()) == 16
    assert in_flight(ThreadPoolTaskRunner(max_workers=2)) == 16
    assert in_flight(ThreadPoolTaskRunner(max_workers=40)) == 80
    assert in_flight(ProcessPoolTaskRunner(max_workers=30)) == 60


def test_a_failure_at_the_head_of_a_long_chain_is_told_of_every_step_after_it() -> None:
    @pipeline
    def long() -> None:
        value = fails(start())
        for _ in range(1500):
            value = counted(value)

    with pytest.raises(StepFailed, match="1 is too many") as error:
        long.run()
    assert error.value.result is not None
    steps = error.value.result.steps
    assert len(steps) == 1502
    assert steps["counted-1500"].tasks[0].error == "upstream step 'counted-1499' failed"


def test_prefect_knows_what_each_task_took_from_which() -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter

    @pipeline
    def small() -> None:
        gather(counted.map(x=gather([start(), start()])))

    run_id = to_flow(small)()
    deadline = time.monotonic() + 30
    with get_client(sync_client=True) as client:
        while True:  # the server writes them down a little later
            runs = client.read_task_runs(flow_run_filter=FlowRunFilter.model_validate({"id": {"any_": [run_id]}}))
            names = {run.id: run.name for run in runs}
            taken = {
                run.name: sorted(names.get(getattr(one, "id", run.id), "") for one in run.task_inputs.get("given", []))
                for run in runs
            }
            ended = [run for run in runs if run.state is not None and run.state.is_completed()]  # under its last name
            if len(ended) == 6 or time.monotonic() > deadline:
                break
            time.sleep(0.1)
    assert taken == {
        "start": [],
        "start-2": [],
        "gather": ["start", "start-2"],
        "counted-0": ["gather"],
        "counted-1": ["gather"],
        "gather-2": ["counted-0", "counted-1"],
    }
