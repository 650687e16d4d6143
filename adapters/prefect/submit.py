"""The tasks of a flow run: submitted in order, a bounded number at a time, and waited for."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from prefect import Task
from prefect.futures import PrefectFuture
from prefect.utilities.annotations import opaque

from ...core.plan import Node, Plan
from ...core.refs import Run
from ..runtime import skip_step
from .tasks import WORKING, refs_of

__all__ = ["run_tasks"]

_IN_FLIGHT = 16
"""Tasks submitted at a time: on SQLite, Prefect's server stalls for seconds when hundreds start at once."""

_GRACE = 10.0
"""Seconds that a cancelled run waits for its steps to notice."""


def run_tasks(plan: Plan, run: Run, tasks: Mapping[str, Task[..., Any]]) -> None:
    """Submit every task, a bounded number at a time, and wait for all; raise the first failure.

    When this is interrupted the steps that run are interrupted too, so that none goes on after its run has ended.
    """
    waiting: deque[PrefectFuture[Any]] = deque()
    try:
        _submit_and_wait(plan, run, tasks, waiting)
    except Exception:
        raise
    except BaseException:
        WORKING.stop(run.run_id)
        deadline = time.monotonic() + _GRACE
        for future in waiting:
            future.wait(timeout=max(0.0, deadline - time.monotonic()))
        raise
    finally:
        WORKING.forget(run.run_id)


def _submit_and_wait(
    plan: Plan, run: Run, tasks: Mapping[str, Task[..., Any]], waiting: deque[PrefectFuture[Any]]
) -> None:
    futures: dict[str, Any] = {}
    errors: dict[str, BaseException] = {}
    lost: dict[str, str] = {}  # by node, the upstream node (or itself) because of which it has no result
    for node in plan.nodes:
        upstream = next((name for name in node.upstream if name in lost), None)
        if upstream is not None:
            lost[node.name] = upstream
            continue
        known = _Known(futures)
        try:
            _await_items(node, futures)
            length = plan.map_length(node, run.params, known) if node.mapped else 1
        except Exception as error:
            errors[node.name] = error
            lost[node.name] = node.name
            continue
        if length is None:
            skip_step(run, node.name, f"upstream step {plan.skipped_source(node, known)!r} was skipped")
            futures[node.name] = None
            continue
        indexes = range(length) if node.mapped else [None]
        made = []
        for index in indexes:
            while len(waiting) >= _IN_FLIGHT:
                waiting.popleft().wait()
            inputs = plan.task_inputs(node, futures, index)
            made.append(tasks[node.name].submit(run=opaque(run), inputs=inputs, index=index))
            waiting.append(made[-1])
        futures[node.name] = made if node.mapped else made[0]
    for node in plan.nodes:
        upstream = next((name for name in node.upstream if name in lost), None)
        if upstream is not None:
            lost[node.name] = upstream
            skip_step(run, node.name, f"upstream step {upstream!r} failed")
        elif futures.get(node.name) is not None and (failure := _failure(futures[node.name])) is not None:
            lost[node.name] = node.name
            errors[node.name] = failure
    first = next((errors[node.name] for node in plan.nodes if node.name in errors), None)
    if first is not None:
        raise first


def _await_items(node: Node, futures: Mapping[str, Any]) -> None:
    """Wait for all that is mapped over: when one item of it failed, no item of this step runs, as on any engine."""
    for source in (source for name in node.mapped for source in node.sources.get(name, ())):
        found = futures[source.node]
        for future in found if isinstance(found, list) else [found]:
            if future is not None:
                future.result()


class _Known(Mapping[str, Any]):
    """The results so far, as :meth:`Plan.map_length` needs them: waits for the one that decides the length."""

    def __init__(self, futures: Mapping[str, Any]) -> None:
        self._futures = futures

    def __getitem__(self, name: str) -> Any:
        found = self._futures[name]
        return found if found is None or isinstance(found, list) else refs_of(found.result())

    def __iter__(self) -> Iterator[str]:
        return iter(self._futures)

    def __len__(self) -> int:
        return len(self._futures)


def _failure(futures: Any) -> BaseException | None:
    """The first exception among a node's tasks, once all have ended."""
    found = None
    for future in futures if isinstance(futures, list) else [futures]:
        future.wait()
        if not future.state.is_completed() and found is None:
            found = future.result(raise_on_failure=False)
            if not isinstance(found, BaseException):
                found = RuntimeError(f"The task ended as {future.state.name}: {future.state.message}")
    return found
