"""A Prefect task for each step of a plan."""

from __future__ import annotations

import asyncio
import functools
import inspect
import multiprocessing
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.context import TaskRunContext
from prefect.states import Cancelled, Completed

from ...core.errors import PipelineError, Problem, StepSkipped, did_you_mean
from ...core.plan import Node, Plan
from ...core.refs import ArtifactRef, Run
from ..events import StepEvent, emit
from ..interrupt import Interruptible
from ..runtime import time_out
from ..task import run_task
from .assets import TaskLineage
from .pages import task_page
from .sending import packed, unpacked

__all__ = ["WORKING", "Given", "StepTask", "forget_run", "make_task", "refs_of", "stop_run"]

WORKING = Interruptible()
"""The threads of this process that run steps."""


def stop_run(run_id: str) -> None:
    """Interrupt the steps of a run in this process; none of its tasks begins here until :func:`forget_run`."""
    WORKING.stop(run_id)


def forget_run(run_id: str) -> None:
    """The run's id may be used again."""
    WORKING.forget(run_id)


class Given:
    """What a task is given: its run, and the references that it loads. Prefect looks for nothing inside of it."""

    __slots__ = ("refs", "run")

    def __init__(self, run: Run, refs: Mapping[str, Any]) -> None:
        self.run = run
        self.refs = refs


class StepTask:
    """The function of a Prefect task: one node of a plan of tasks.

    It can be sent to another process, with as much of the plan as the step needs; it is ``away`` then, and kept there
    for the next task of the step.
    """

    def __init__(self, plan: Plan, node: str, *, pages: TaskLineage | None = None, away: bool = False) -> None:
        self.plan = plan
        self.node = node
        self.pages = pages
        self.away = away
        self.__name__ = self.__qualname__ = node
        self.__doc__ = plan.node(node).step.__doc__
        self.__signature__ = _SIGNATURE  # Prefect asks for it several times a task

    def __call__(self, given: Given, index: int | None = None) -> Any:
        """Run the step with what it is given; returns the references of its outputs as plain data.

        A skipped one ends as *Completed*, named "Skipped", and its result is None.
        """
        node = self.plan.node(self.node)
        context = TaskRunContext.get()
        attempt = context.task_run.run_count if context else 1
        run = replace(given.run, map_index=index, attempt=attempt)
        if attempt > 1:
            emit(StepEvent("retrying", self.node, index, run.run_id, message=f"attempt {attempt}"))
        try:
            with WORKING.working(run.run_id):
                done = run_task(self.plan, node, run, given.refs)
        except StepSkipped as skipped:
            return Completed(name="Skipped", message=str(skipped))
        except asyncio.CancelledError as error:  # how Prefect stops the thread of a step that is overdue
            if node.step.timeout is None:
                raise
            raise time_out(node, run) from error
        except KeyboardInterrupt:
            if not self.away:
                raise
            WORKING.stop(run.run_id)  # a worker process goes on, and must not begin what else it has of this run
            return Cancelled(message="The run was interrupted.")
        if self.pages is not None:
            task_page(self.plan, node, run, self.pages)
        return {name: ref.to_dict() for name, ref in done.items()}

    @functools.cached_property
    def _packed(self) -> bytes:
        return packed(self.plan, self.node)

    def __reduce__(self) -> Any:
        return _received, (self._packed, self.node, self.pages)


@functools.lru_cache(1024)
def _received(data: bytes, node: str, pages: TaskLineage | None) -> StepTask:
    """The task in another process, each step's made once there."""
    _end_with_parent()
    return StepTask(unpacked(data), node, pages=pages, away=True)


@functools.cache
def _end_with_parent() -> None:
    """A process of a pool would wait for work forever when the flow's process is killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent.join,), daemon=True).start()


def _end_after(wait: Callable[[], None]) -> None:
    wait()
    os._exit(1)


_SIGNATURE = inspect.signature(partial(StepTask.__call__, None))  # type: ignore[arg-type]  # only its parameters


def make_task(plan: Plan, node: Node, *, pages: TaskLineage | None = None) -> Task[..., Any]:
    """The Prefect task of one step, with its options. Raises :class:`~tailrace.PipelineError` for unknown ones."""
    step = node.step
    function: Callable[..., Any] = StepTask(plan, node.name, pages=pages)
    unknown = sorted(set(step.prefect) - _OPTIONS)
    if unknown:
        what = [f"Prefect's Task has no option {name!r}.{did_you_mean(name, _OPTIONS)}" for name in unknown]
        problems = [Problem(text, f"step {node.name!r}, prefect") for text in what]
        raise PipelineError(f"The pipeline {plan.name!r} cannot become a flow", problems)
    options: dict[str, Any] = {
        "name": node.name,
        "task_run_name": f"{node.name}-{{index}}" if node.mapped else node.name,
        "tags": {*step.tags, *((step.pool,) if step.pool else ())},
        "retries": 0 if node.members else step.retries,  # each member has its own
        "retry_delay_seconds": list(step.delays) or None,
        "retry_jitter_factor": step.retry_jitter or None,
        "timeout_seconds": step.timeout,
        "cache_policy": NO_CACHE,
        "persist_result": False,
    }
    return Task(function, **{**options, **step.prefect})


_OPTIONS = frozenset(inspect.signature(Task).parameters) - {"fn"}


def refs_of(result: Mapping[str, Any] | None) -> dict[str, ArtifactRef] | None:
    """The references of a task's result; None of a skipped one."""
    return None if result is None else {name: ArtifactRef.from_dict(data) for name, data in result.items()}
