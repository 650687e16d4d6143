"""A Plan on the Prefect engine: a real flow, whose tasks load, call and route through the shared runtime.

What crosses Prefect are references of a few hundred bytes. The tasks' results are not persisted by Prefect, since the
artifacts are already where they belong when a task returns.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from prefect import Flow, Task
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext, TaskRunContext
from prefect.futures import PrefectFuture
from prefect.settings import (
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_SERVER_ANALYTICS_ENABLED,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    get_current_settings,
    temporary_settings,
)
from prefect.states import Completed
from prefect.utilities.annotations import opaque

from ..core.annotations import asset_type, pointed
from ..core.errors import PipelineError, Problem, StepSkipped, TailraceError, did_you_mean
from ..core.pipeline import Pipeline
from ..core.plan import Node, Plan
from ..core.refs import ArtifactRef, Run
from ..core.results import RunResult
from ..routing.stacks import Stack, resolve_stack
from .events import Listener, StepEvent, emit, listening
from .interrupt import Interruptible
from .runtime import closing, new_run_id, open_run, run_step, skip_step, time_out

__all__ = ["run_here", "to_flow"]

_IN_FLIGHT = 16
"""Tasks submitted at a time: on SQLite, Prefect's server stalls for seconds when hundreds start at once."""

_GRACE = 10.0
"""Seconds that a cancelled run waits for its steps to notice."""

_STARTUP = PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS
_LOCAL_SETTINGS = {
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
    PREFECT_SERVER_ANALYTICS_ENABLED: False,
    _STARTUP: 60,  # 20 s are too few for a cold disk and a new database
}

_WORKING = Interruptible()


def to_flow(pipeline: Pipeline, *, variable: str = "flow", name: str | None = None, **options: Any) -> Flow[..., Any]:
    """A Prefect flow that runs the pipeline: call it, serve it, deploy it.

    Assign it to ``variable`` in a module, since a deployment finds the flow by that name. Its parameters are the
    pipeline's, with their annotations and defaults, and two more: ``run_id`` (the logical run id; the flow run's own
    unless given) and ``stack``. ``options`` are those of ``prefect.Flow``. Nothing is looked up before it runs.
    """
    module = sys._getframe(1).f_globals.get("__name__", __name__)
    return _flow(pipeline.plan(), variable=variable, module=module, name=name or pipeline.name, options=options)


@dataclass
class _Here:
    """A run in this process: what was already settled before the flow started, and where its result goes.

    It is for the flow of its plan alone, not for one that a step of it calls.
    """

    plan: Plan
    stack: Stack
    params: Mapping[str, Any]
    on_event: Listener | None
    results: list[RunResult] = field(default_factory=list)


_HERE: contextvars.ContextVar[_Here | None] = contextvars.ContextVar("tailrace_here", default=None)


def run_here(
    plan: Plan, params: Mapping[str, Any], stack: Stack, run_id: str | None, on_event: Listener | None
) -> RunResult:
    """Run a plan to its end in this process, on the server that Prefect is set up with, else on one of its own.

    Prefect's heartbeats are off for such a run: the process that would miss them is this one, and waiting for their
    thread costs up to a second. A server of its own sends no analytics, and has a minute to start.
    """
    flow = _flow(plan, variable="flow", module=__name__, name=plan.name, options={"validate_parameters": False})
    here = _Here(plan, stack, params, on_event)
    token = _HERE.set(here)
    try:
        with temporary_settings(_LOCAL_SETTINGS), _quiet(on_event is not None):
            flow(**params, run_id=run_id, stack=stack.name)
    except RuntimeError as error:
        if "ephemeral Prefect API server" not in str(error):
            raise
        home = get_current_settings().home
        raise TailraceError(
            f"Prefect's own server did not start in {_LOCAL_SETTINGS[_STARTUP]} s; its home is {str(home)!r}. A newer "
            "Prefect may have used that home: its database cannot be read by this one. Set PREFECT_HOME to another "
            "folder that exists, or PREFECT_API_URL to a server that runs."
        ) from error
    finally:
        _HERE.reset(token)
    return here.results[0]


@contextmanager
def _quiet(wanted: bool) -> Iterator[None]:
    """Keep Prefect's own log lines back while somebody else shows the run's progress."""
    logger = logging.getLogger("prefect")
    level = logger.level
    if wanted:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


# --- the flow -------------------------------------------------------------------------------------------------------


def _flow(plan: Plan, *, variable: str, module: str, name: str, options: Mapping[str, Any]) -> Flow[..., Any]:
    tasks = {node.name: _task(plan, node) for node in plan.nodes}

    def body(**given: Any) -> str:
        run_id, stack = given.pop("run_id", None), given.pop("stack", None)
        here = _HERE.get()
        here = here if here and here.plan is plan else None
        context = FlowRunContext.get()
        native_id = str(context.flow_run.id) if context and context.flow_run else ""
        run = open_run(
            plan,
            params=here.params if here else plan.resolve_params(given),
            stack=here.stack if here else resolve_stack(stack),
            orchestrator="local" if here else "prefect",
            run_id=run_id or native_id or new_run_id(),
            native_id=native_id,
        )
        with listening(run.run_id, here.on_event if here else None), closing(plan, run) as results:
            _run_tasks(plan, run, tasks)
        if here:
            here.results += results
        return run.run_id

    # A deployment looks the flow up by its function's module and qualified name, so those must lead to the variable.
    body.__module__, body.__name__, body.__qualname__ = module, variable, variable
    body.__doc__ = plan.description or None
    body.__signature__ = _signature(plan)  # type: ignore[attr-defined]
    body.__annotations__ = {key: item.annotation for key, item in body.__signature__.parameters.items()}  # type: ignore[attr-defined]
    return Flow(body, name=re.sub(r"[/%&<>]", "-", name), **options)  # Prefect refuses these


def _signature(plan: Plan) -> inspect.Signature:
    kind = inspect.Parameter.KEYWORD_ONLY
    own = [
        inspect.Parameter(param.name, kind, default=param.default, annotation=_plain(param.annotation))
        for param in plan.params.values()
    ]
    run = [inspect.Parameter(name, kind, default=None, annotation=str | None) for name in ("run_id", "stack")]
    return inspect.Signature([*own, *run])


def _plain(annotation: Any) -> Any:
    """The annotation for Prefect's schema; one that could not be resolved to a type says nothing.

    Nor does an artifact type or a ``Ref``, whose parameter is given as a reference or a URI.
    """
    unknown = annotation is inspect.Parameter.empty or isinstance(annotation, str)
    artifact = asset_type(annotation) is not None or pointed(annotation) is not None
    return Any if unknown or artifact else annotation


def _run_tasks(plan: Plan, run: Run, tasks: Mapping[str, Task[..., Any]]) -> None:
    """Submit every task, a bounded number at a time, and wait for all; raise the first failure.

    When this is interrupted the steps that run are interrupted too, so that none goes on after its run has ended.
    """
    waiting: deque[PrefectFuture[Any]] = deque()
    try:
        _submit_and_wait(plan, run, tasks, waiting)
    except Exception:
        raise
    except BaseException:
        _WORKING.stop(run.run_id)
        deadline = time.monotonic() + _GRACE
        for future in waiting:
            future.wait(timeout=max(0.0, deadline - time.monotonic()))
        raise
    finally:
        _WORKING.forget(run.run_id)


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
        return found if found is None or isinstance(found, list) else _refs(found.result())

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


# --- the tasks ------------------------------------------------------------------------------------------------------


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
            with _WORKING.working(given.run_id):
                done = run_step(self.plan, self.node, replace(given, map_index=index, attempt=attempt), refs)
        except StepSkipped as skipped:
            return Completed(name="Skipped", message=str(skipped))
        except asyncio.CancelledError as error:  # how Prefect stops the thread of a step that is overdue
            if node.step.timeout is None:
                raise
            raise time_out(node, replace(given, map_index=index)) from error
        return {name: ref.to_dict() for name, ref in done.items()}


_SIGNATURE = inspect.signature(partial(StepTask.__call__, None))  # type: ignore[arg-type]  # only its parameters


def _task(plan: Plan, node: Node) -> Task[..., Any]:
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


def _refs(result: Mapping[str, Any] | None) -> dict[str, ArtifactRef] | None:
    return None if result is None else {name: ArtifactRef.from_dict(data) for name, data in result.items()}


def _each(value: Any) -> Any:
    return [_each(item) for item in value] if isinstance(value, list) else _refs(value)
