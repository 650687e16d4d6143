"""A Prefect task for each step of a plan."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.context import TaskRunContext
from prefect.states import Completed
from prefect.utilities.annotations import opaque

from ...core.errors import PipelineError, Problem, StepSkipped, did_you_mean
from ...core.plan import Node, Plan
from ...core.refs import ArtifactRef, Run
from ..events import StepEvent, emit
from ..interrupt import Interruptible
from ..runtime import run_step, time_out

__all__ = ["WORKING", "StepTask", "make_task", "refs_of"]

WORKING = Interruptible()
"""The threads of this process that run steps."""


class StepTask:
    """The function of a Prefect task: one step of a plan. Importable and picklable, as process pools and Dask need."""

    def __init__(self, plan: Plan, node: str) -> None:
        self.plan = plan
        self.node = node
        self.__name__ = self.__qualname__ = node
        self.__doc__ = plan.node(node).step.__doc__
        self.__signature__ = _SIGNATURE  # Prefect asks for it several times a task

    def __call__(self, run: Any, inputs: dict[str, Any], index: int | None = None) -> Any:
        """Run the step with what upstream tasks returned; returns the references of its outputs as plain data.

        A skipped one ends as *Completed*, named "Skipped", and its result is None.
        """
        given: Run = run.unwrap() if isinstance(run, opaque) else run
        node = self.plan.node(self.node)
        refs = self.plan.task_refs(node, {name: _each(value) for name, value in inputs.items()}, index)
        context = TaskRunContext.get()
        attempt = context.task_run.run_count if context else 1
        if attempt > 1:
            emit(StepEvent("retrying", self.node, index, given.run_id, message=f"attempt {attempt}"))
        try:
            with WORKING.working(given.run_id):
                done = run_step(self.plan, self.node, replace(given, map_index=index, attempt=attempt), refs)
        except StepSkipped as skipped:
            return Completed(name="Skipped", message=str(skipped))
        except asyncio.CancelledError as error:  # how Prefect stops the thread of a step that is overdue
            if node.step.timeout is None:
                raise
            raise time_out(node, replace(given, map_index=index)) from error
        return {name: ref.to_dict() for name, ref in done.items()}


_SIGNATURE = inspect.signature(partial(StepTask.__call__, None))  # type: ignore[arg-type]  # only its parameters


def make_task(plan: Plan, node: Node) -> Task[..., Any]:
    """The Prefect task of one step, with its options. Raises :class:`~tailrace.PipelineError` for unknown ones."""
    step = node.step
    function: Callable[..., Any] = StepTask(plan, node.name)
    unknown = sorted(set(step.prefect) - _OPTIONS)
    if unknown:
        what = [f"Prefect's Task has no option {name!r}.{did_you_mean(name, _OPTIONS)}" for name in unknown]
        problems = [Problem(text, f"step {node.name!r}, prefect") for text in what]
        raise PipelineError(f"The pipeline {plan.name!r} cannot become a flow", problems)
    options: dict[str, Any] = {
        "name": node.name,
        "task_run_name": f"{node.name}-{{index}}" if node.mapped else node.name,
        "tags": set(step.tags),
        "retries": step.retries,
        "retry_delay_seconds": list(step.delays) or None,
        "timeout_seconds": step.timeout,
        "cache_policy": NO_CACHE,
        "persist_result": False,
    }
    return Task(function, **{**options, **step.prefect})


_OPTIONS = frozenset(inspect.signature(Task).parameters) - {"fn"}


def refs_of(result: Mapping[str, Any] | None) -> dict[str, ArtifactRef] | None:
    """The references of a task's result; None of a skipped one."""
    return None if result is None else {name: ArtifactRef.from_dict(data) for name, data in result.items()}


def _each(value: Any) -> Any:
    return [_each(item) for item in value] if isinstance(value, list) else refs_of(value)
