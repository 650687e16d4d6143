"""Chains on one Prefect server in turn: bare tasks, and steps of ours; prints the milliseconds per task as JSON.

A bare task returns a small JSON value. What can be set on a run is set alike: heartbeats off, parameters not validated,
results neither cached nor persisted, at most so many tasks submitted at a time.
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
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from steps import chain

_IN_FLIGHT = 16


@task(cache_policy=NO_CACHE, persist_result=False)
def bare(given: dict[str, int]) -> dict[str, int]:
    return {"value": given["value"] + 1}


@flow(validate_parameters=False)
def bare_chain(length: int) -> None:
    waiting: deque[Any] = deque()
    future: Any = {"value": 0}
    for _ in range(length):
        while len(waiting) >= _IN_FLIGHT:
            waiting.popleft().wait()
        future = bare.submit(future)
        waiting.append(future)
    for one in waiting:
        one.wait()
    assert future.state.is_completed()


def _slope(run: Callable[[int], object], steps: int) -> float:
    begin = time.perf_counter()
    run(1 + steps)
    middle = time.perf_counter()
    run(1)
    return 1000 * (2 * middle - begin - time.perf_counter()) / steps


def main(rounds: int = 7, steps: int = 20) -> None:
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        names = ("bare", "quick", "durable")
        chains = {length: chain(length) for length in (1, 1 + steps)}
        ours = [partial(_slope, lambda length, stack=stack: chains[length].run(stack=stack), steps) for stack in names[1:]]
        figures = alternate(rounds, partial(_slope, bare_chain, steps), *ours)
    sys.stdout.write("\n" + json.dumps(dict(zip(names, figures, strict=True))))


main()
