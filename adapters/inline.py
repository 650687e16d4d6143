"""A Plan in this process, without any engine: for tests, notebooks, and as the reference that engines must match."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ..core.errors import StepSkipped, StepTimeout
from ..core.plan import Node, Plan
from ..core.refs import Run
from ..core.results import RunResult
from ..routing.stacks import Stack
from .events import Listener, StepEvent, emit, listening
from .interrupt import raise_in_thread
from .runtime import closing, new_run_id, open_run, run_step, skip_step

__all__ = ["execute", "run_here", "time_limit"]


def run_here(
    plan: Plan, params: Mapping[str, Any], stack: Stack, run_id: str | None, on_event: Listener | None
) -> RunResult:
    """Run a plan to its end in this process and thread."""
    run_id = run_id or new_run_id()
    with listening(run_id, on_event):
        run = open_run(plan, params=params, stack=stack, orchestrator="inline", run_id=run_id)
        with closing(plan, run) as results:
            execute(plan, run)
    return results[0]


def execute(plan: Plan, run: Run) -> None:
    """Run every step, one after the other, in topological order.

    When one fails, those that need it are skipped and the others still run, as on any engine; then the first failure
    is raised. Retries, delays and timeouts are those of the step.
    """
    results: dict[str, Any] = {}
    failed: dict[str, BaseException | None] = {}
    for node in plan.nodes:
        lost = next((name for name in node.upstream if name in failed), None)
        if lost is not None:
            failed[node.name] = None
            skip_step(run, node.name, f"upstream step {lost!r} failed")
            continue
        try:
            results[node.name] = _run_node(plan, node, run, results)
        except Exception as error:
            failed[node.name] = error
    first = next((error for error in failed.values() if error is not None), None)
    if first is not None:
        raise first


def _run_node(plan: Plan, node: Node, run: Run, results: dict[str, Any]) -> Any:
    if not node.mapped:
        return _run_task(plan, node, run, plan.task_inputs(node, results))
    length = plan.map_length(node, run.params, results)
    if length is None:
        skip_step(run, node.name, f"upstream step {plan.skipped_source(node, results)!r} was skipped")
        return None
    done: list[Any] = []
    errors: list[Exception] = []
    for index in range(length):
        try:
            inputs = plan.task_inputs(node, results, index)
            done.append(_run_task(plan, node, replace(run, map_index=index), inputs))
        except Exception as error:
            errors.append(error)
    if errors:
        raise errors[0]
    return done


def _run_task(plan: Plan, node: Node, run: Run, inputs: dict[str, Any]) -> dict[str, Any] | None:
    """One task with its retries; None where it is skipped."""
    refs = plan.task_refs(node, inputs, run.map_index)
    delays = node.step.delays
    for attempt in range(1, len(delays) + 2):
        try:
            with time_limit(node):
                return run_step(plan, node.name, run if attempt == 1 else replace(run, attempt=attempt), refs)
        except StepSkipped:
            return None
        except Exception as error:
            if attempt > len(delays):
                raise
            message = f"attempt {attempt} failed with {type(error).__name__}: {error}; again in {delays[attempt - 1]} s"
            emit(StepEvent("retrying", node.name, run.map_index, run.run_id, message=message))
            time.sleep(delays[attempt - 1])
    raise AssertionError("a task returns or raises")


@contextmanager
def time_limit(node: Node) -> Iterator[None]:
    """Raise :class:`StepTimeout` in this thread after the step's timeout.

    In the main thread by a signal, which interrupts waiting too; elsewhere at the next byte code.
    """
    seconds = node.step.timeout
    if seconds is None:
        yield
        return
    error = StepTimeout(f"The step {node.name!r} ran longer than its timeout of {seconds} s.")
    if threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer"):

        def expire(_signal: int, _frame: Any) -> None:
            raise error

        before = signal.signal(signal.SIGALRM, expire)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        return
    timer = threading.Timer(seconds, raise_in_thread, (threading.get_ident(), StepTimeout))
    timer.daemon = True
    timer.start()
    try:
        yield
    except StepTimeout:
        raise error from None
    finally:
        timer.cancel()
