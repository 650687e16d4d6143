"""A chain, a map, a map over many and large values, each beside bare Prefect, in turn on one server in one process.

``ours`` and ``bare`` of a round have the same shape and the same bound of tasks that are submitted at a time. Prints
the seconds of every round as JSON, and the peak of memory of the last, the map over most items.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from measure import alternate
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from tailrace import pipeline, step
from tailrace.adapters.prefect.server import settle

_IN_FLIGHT = 16
_NUMBERS = 10_000
_VALUES = 100
_SETTLE = 2.0
"""Seconds for the server to write down the last flow's events: a flow that starts meanwhile finds SQLite locked."""


@task(cache_policy=NO_CACHE, persist_result=False)
def bare_add(x: int, index: int | None = None) -> int:
    return x + 1


@task(cache_policy=NO_CACHE, persist_result=False)
def bare_count(values: list[int]) -> int:
    return len(values)


@task(persist_result=True)
def bare_numbers(seed: int) -> list[int]:
    return list(range(seed, seed + _NUMBERS))


@flow(validate_parameters=False)
def bare_chain(count: int) -> int:
    waiting: deque[Any] = deque()
    found: Any = 0
    for _ in range(count):
        while len(waiting) >= _IN_FLIGHT:
            waiting.popleft().wait()
        found = bare_add.submit(found)
        waiting.append(found)
    return int(found.result())


@flow(validate_parameters=False)
def bare_map(count: int) -> int:
    waiting: deque[Any] = deque()
    made = []
    for index in range(count):
        while len(waiting) >= _IN_FLIGHT:
            waiting.popleft().wait()
        made.append(bare_add.submit(index, index))
        waiting.append(made[-1])
    return int(bare_count.submit(made).result())


@flow(validate_parameters=False)
def bare_values(first: int) -> None:
    for seed in range(first, first + _VALUES):  # other values each time, else Prefect's cache has them
        bare_numbers.submit(seed).wait()


@step
def add(x: int) -> int:
    return x + 1


@step
def count(values: list[int]) -> int:
    return len(values)


@step
def numbers(seed: int) -> list[int]:
    return list(range(seed, seed + _NUMBERS))


@pipeline
def long(x: int = 0) -> None:
    for _ in range(1000):
        x = add(x)


@pipeline
def wide(items: list[int]) -> None:
    count(add.map(x=items))


@pipeline
def values(first: int) -> None:
    for offset in range(_VALUES):
        numbers.with_options(name=f"numbers-{offset}")(first)


def _ours_wide(items: int) -> None:
    assert wide.run({"items": list(range(items))}).outputs["count"] == items


def _timed(run: Callable[[], object]) -> float:
    time.sleep(_SETTLE)
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def main(rounds: int, most: int) -> None:
    seeds = iter(range(0, 10**9, _VALUES))
    shapes: dict[str, tuple[int, Callable[[], object], Callable[[], object]]] = {
        "chain": (rounds, long.run, lambda: bare_chain(1000)),
        "map": (rounds, lambda: _ours_wide(1000), lambda: bare_map(1000)),
        "values": (rounds, lambda: values.run({"first": next(seeds)}), lambda: bare_values(next(seeds))),
        "most": (1, lambda: _ours_wide(most), lambda: bare_map(most)),
    }
    found: dict[str, Any] = {}
    url, _ = settle()  # else a bare flow has a server of its own, and two on one SQLite lock each other out
    with temporary_settings({PREFECT_API_URL: url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        for name, (times, ours, bare) in shapes.items():
            pair = alternate(times, lambda one=ours: _timed(one), lambda one=bare: _timed(one), warm_up=0)
            found[name] = dict(zip(("ours", "bare"), pair, strict=True))
            sys.stderr.write(f"{name}: {found[name]}\n")
    found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write("\n" + json.dumps(found))


main(*map(int, sys.argv[1].split()))
