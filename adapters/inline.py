"""A Plan in this process, without any engine: for tests, notebooks, and as the reference that engines must match."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ..core.errors import StepSkipped
from ..core.plan import Node, Plan
from ..core.refs import Run
from ..core.results import RunResult
from ..routing.stacks import Stack
from .attempts import attempts
from .events import Listener, listening
from .runs import closing, new_run_id, open_run
from .task import run_task, skip_task

__all__ = ["execute", "run_here"]


def run_here(
    plan: Plan, params: Mapping[str, Any], stack: Stack, run_id: str | None, on_event: Listener | None
) -> RunResult:
    """Run a plan to its end in this process and thread."""
    run_id = run_id or new_run_id()
    with listening(run_id, on_event):
        run = open_run(plan, params=params, stack=stack, orchestrator="inline", run_id=run_id)
        done: set[tuple[str, int | None]] = set()
        with closing(plan, run, done) as results:
            execute(plan.tasks, run, done)
    return results[0]


def execute(plan: Plan, run: Run, done: set[tuple[str, int | None]]) -> None:
    """Run every task, one after the other, in topological order; ``plan`` is a :attr:`Plan.tasks`.

    When one fails, those that need it are skipped and the others still run, as on any engine; then the first failure
    is raised. Retries, delays and timeouts are those of the step. What ends well is added to ``done``.
    """
    results: dict[str, Any] = {}
    failed: dict[str, BaseException | None] = {}
    for node in plan.nodes:
        lost = next((name for name in node.upstream if name in failed), None)
        if lost is not None:
            failed[node.name] = None
            skip_task(run, node, f"upstream step {lost!r} failed")
            continue
        try:
            results[node.name] = _run_node(plan, node, run, results, done)
        except Exception as error:
            failed[node.name] = error
    first = next((error for error in failed.values() if error is not None), None)
    if first is not None:
        raise first


def _run_node(plan: Plan, node: Node, run: Run, results: dict[str, Any], done: set[tuple[str, int | None]]) -> Any:
    if not node.mapped:
        return _run_task(plan, node, run, plan.task_inputs(node, results), done)
    length = plan.map_length(node, run.params, results)
    if length is None:
        skip_task(run, node, f"upstream step {plan.skipped_source(node, results)!r} was skipped")
        return None
    made: list[Any] = []
    errors: list[Exception] = []
    for index in range(length):
        try:
            inputs = plan.task_inputs(node, results, index)
            made.append(_run_task(plan, node, replace(run, map_index=index), inputs, done))
        except Exception as error:
            errors.append(error)
    if errors:
        raise errors[0]
    return made


def _run_task(
    plan: Plan, node: Node, run: Run, inputs: dict[str, Any], done: set[tuple[str, int | None]]
) -> dict[str, Any] | None:
    """One task with its retries; None where it is skipped."""
    refs = plan.task_refs(node, inputs, run.map_index)
    made: dict[str, Any] | None = None
    if node.members:  # each with retries of its own
        made = run_task(plan, node, run, refs)
    else:
        with suppress(StepSkipped):
            made = attempts(node, run, lambda now: run_task(plan, node, now, refs))
    done.update((member.name, run.map_index) for member in node.members or (node,))
    return made
