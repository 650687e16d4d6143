"""Chains on one Prefect server in turn: bare tasks, and steps of ours; prints the milliseconds per task as JSON.

A bare task returns a small JSON value. What can be set on a run is set alike: heartbeats off, parameters not validated,
results neither cached nor persisted, a bounded number of tasks submitted at a time. ``plain`` passes the last task's
future as an argument, and Prefect then asks the server for its state; ``bare`` passes it inside a dict, as ours do.
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from measure import alternate
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.task_runners import ThreadPoolTaskRunner

from tailrace import pipeline, step
from tailrace.adapters.prefect.server import settle

_STEPS = 20
_IN_FLIGHT = 16
_SETTLE = 1.0
"""Seconds for the server to write down the last flow's events: a flow that starts meanwhile finds SQLite locked."""

_began: list[float] = []
_submitted: list[float] = []


@task(cache_policy=NO_CACHE, persist_result=False)
def bare(inputs: dict[str, Any]) -> dict[str, int]:
    _began.append(time.perf_counter())
    return {"value": inputs["x"]["value"] + 1}


@task(cache_policy=NO_CACHE, persist_result=False)
def plain(x: dict[str, int]) -> dict[str, int]:
    _began.append(time.perf_counter())
    return {"value": x["value"] + 1}


def _bare_flow(submit: Callable[[Any], Any]) -> Callable[[], None]:
    @flow(name="bare", validate_parameters=False)
    def made() -> None:
        waiting: deque[Any] = deque()
        future: Any = {"value": 0}
        for _ in range(1 + _STEPS):
            while len(waiting) >= _IN_FLIGHT:
                waiting.popleft().wait()
            future = submit(future)
            waiting.append(future)
        for one in waiting:
            one.wait()
        assert future.state.is_completed()

    return made


@step
def add(x: int) -> int:
    _began.append(time.perf_counter())
    return x + 1


@pipeline
def chain(x: int = 0) -> None:
    for _ in range(1 + _STEPS):
        x = add(x)


def _noting(submit: Callable[..., Any]) -> Callable[..., Any]:
    def noted(*args: Any, **kwargs: Any) -> Any:
        _submitted.append(time.perf_counter())
        return submit(*args, **kwargs)

    return noted


def _per_task(run: Callable[[], object]) -> float:
    """From the first submission until the last task is running."""
    time.sleep(_SETTLE)
    _submitted.clear()
    run()
    return 1000 * (_began[-1] - _submitted[0]) / _STEPS


def main(rounds: int) -> None:
    runner: Any = ThreadPoolTaskRunner
    runner.submit = _noting(runner.submit)  # the one place where both kinds of run begin alike
    runs: dict[str, Callable[[], object]] = {
        "bare": _bare_flow(lambda future: bare.submit(inputs={"x": future})),
        "plain": _bare_flow(plain.submit),
        "quick": partial(chain.run, stack="quick"),
        "durable": partial(chain.run, stack="durable"),
    }
    url, _ = settle()  # else a bare flow has a server of its own, on the same SQLite
    with temporary_settings({PREFECT_API_URL: url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        figures = alternate(rounds, *(partial(_per_task, run) for run in runs.values()))
    sys.stdout.write("\n" + json.dumps(dict(zip(runs, figures, strict=True))))


main(rounds=int(sys.argv[1]))
