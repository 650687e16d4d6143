"""How a run begins and ends, on every engine: its record, its tracker's run, and what it gives back."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..catalog.journal import Journal, RunEnd, RunRecord
from ..core.annotations import pointed
from ..core.errors import DestinationError, StepFailed
from ..core.plan import Fixed, FromParam, Plan
from ..core.refs import ArtifactRef, Run, named_artifact
from ..core.results import Outputs, RunResult, StepResult, TaskRecord
from ..routing.router import Router
from ..routing.stacks import Stack, resolve_stack

__all__ = [
    "begin_run",
    "close_run",
    "closing",
    "failure",
    "join_run",
    "make_run",
    "new_run_id",
    "open_run",
    "router_for",
]

_ROUTERS: dict[tuple[str, str, str | None, str], Router] = {}
_ROUTERS_LOCK = threading.Lock()


def new_run_id() -> str:
    """A run id that sorts by time: ``20261121T120500-3f9a2c``."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.urandom(3).hex()}"


def make_run(stack: Stack, pipeline: str, run_id: str, **more: Any) -> Run:
    """A run on a stack that starts now; nothing is written down."""
    return Run(
        run_id=run_id,
        pipeline=pipeline,
        project=stack.project,
        started=datetime.now(UTC),
        stack=stack.name,
        root=str(stack.root),
        config=str(stack.source) if stack.source else None,
        **more,
    )


def router_for(run: Run, stack: Stack | None = None) -> Router:
    """The destinations of a run in this process. A given stack is used from now on; else the run's own is looked up."""
    key = (run.run_id, run.stack, run.config, run.root)
    with _ROUTERS_LOCK:
        if stack is not None or key not in _ROUTERS:
            while len(_ROUTERS) >= 16:  # a server that runs pipelines for weeks must not keep every stack it ever saw
                del _ROUTERS[next(iter(_ROUTERS))]
            _ROUTERS[key] = Router(stack or resolve_stack(run.stack, config=run.config, cwd=Path(run.root)))
        return _ROUTERS[key]


def open_run(plan: Plan, **start: Any) -> Run:
    """Start a run, or join the one that another process started under this id: :func:`join_run`, :func:`begin_run`."""
    run = join_run(plan, **start)
    begin_run(plan, run)
    return run


def join_run(
    plan: Plan,
    *,
    params: Mapping[str, Any],
    stack: Stack,
    orchestrator: str,
    run_id: str,
    native_id: str = "",
    opened: datetime | None = None,
) -> Run:
    """The run of this id: every process that asks gets the same start time; the first writes down what was asked.

    ``opened`` is when this execution began: now, unless several processes must agree on it. Raises
    :class:`~tailrace.RunConflict` when the id belongs to a run of another pipeline or with other parameters.
    """
    run = make_run(stack, plan.name, run_id, orchestrator=orchestrator, native_id=native_id, params=params)
    run = replace(run, opened=opened or run.started)
    _, record = Journal.open(router_for(run, stack).store(), RunRecord(run, plan.version, tuple(_outline(plan))))
    return replace(run, started=record.run.started)


def begin_run(plan: Plan, run: Run) -> None:
    """Before the first step: forget how the run ended earlier, and open the tracker's run with the parameters.

    So a tracker that cannot be reached fails the run before anything is computed. May be called several times.
    """
    router = router_for(run)
    journal = Journal.of(router.store(), run)
    journal.reopen()
    begin = datetime.now(UTC)
    try:
        tracker_run = router.tracker_run(run)
        if router.tracker is not None and tracker_run is not None:
            router.tracker.log_params(tracker_run, dict(_step_params(plan, run.params)))
    except BaseException as error:
        state = "failed" if isinstance(error, Exception) else "cancelled"
        now = datetime.now(UTC)
        end = RunEnd(state, now.isoformat(), (now - begin).total_seconds(), f"{type(error).__name__}: {error}")
        journal.close(end, [])
        raise


def _outline(plan: Plan) -> Iterator[dict[str, Any]]:
    for node in plan.nodes:
        outputs = [output.name for output in node.outputs]
        said = {"step": node.name, "upstream": list(node.upstream), "outputs": outputs, "mapped": list(node.mapped)}
        yield {**said, "when": node.condition} if node.condition else said


def _step_params(plan: Plan, params: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The parameters of the steps as trackers name them, ``<step>.<key>``: those known before the run."""
    for node in plan.nodes:
        for name, declared in node.step.parameters.items():
            binding = node.bindings.get(name)
            if isinstance(binding, FromParam | Fixed):
                lazy = pointed(node.step.annotations.get(name)) is not None
                value = binding.value if isinstance(binding, Fixed) else params[binding.name]
                lazy = lazy or (isinstance(binding, FromParam) and plan.params[binding.name].is_artifact)
                named = named_artifact(value) if lazy else None
                yield f"{node.name}.{name}", named[0] if named else value
            elif binding is None and declared.default is not declared.empty:
                yield f"{node.name}.{name}", declared.default


def close_run(
    plan: Plan,
    run: Run,
    state: str,
    error: BaseException | str | None = None,
    *,
    stale: Callable[[TaskRecord], bool],
) -> RunResult:
    """End a run: ``completed``, ``failed`` or ``cancelled``, in the journal and in the tracker. Returns its result.

    ``error`` is what it failed with, or its text. Task records that are ``stale`` are forgotten: those that an earlier
    execution under the same id left, of what this one did not have or did not reach.
    """
    router = router_for(run)
    journal = Journal.of(router.store(), run)
    opened = run.opened or run.started
    tasks = list(journal.tasks(stale))
    seconds = (datetime.now(UTC) - opened).total_seconds()
    url, refusal = "", None
    try:
        tracker_run = router.tracker_run(run)
        if router.tracker is not None and tracker_run is not None:
            router.tracker.close_run(tracker_run, state)
            url = router.tracker.describe(tracker_run)
    except DestinationError as trouble:  # the journal is closed first, and a step's own error is not hidden by this one
        refusal = trouble
        state = "failed" if state == "completed" else state
        if isinstance(error, BaseException):
            error.add_note(str(trouble))
    error = error or refusal
    lost = {task.step for task in tasks if task.state == "failed"}
    failed = next((node.name for node in plan.nodes if node.name in lost), "")
    shown = f"{type(error).__name__}: {error}" if isinstance(error, BaseException) else error or ""
    end = RunEnd(state, datetime.now(UTC).isoformat(), seconds, shown, failed if state != "completed" else "", url)
    journal.close(end, tasks)
    if refusal is not None and error is refusal:
        raise refusal
    return _result(plan, run, state, seconds, tasks, router, url)


@contextmanager
def closing(plan: Plan, run: Run, done: Collection[tuple[str, int | None]]) -> Iterator[list[RunResult]]:
    """Close the run when the block ends, as it ended. A failure is raised as :class:`~tailrace.StepFailed`.

    ``done`` are the steps and items that have ended well by then: their records stay, even where a slower execution
    under the same id has written them last.
    """
    results: list[RunResult] = []
    opened = run.opened or run.started

    def stale(task: TaskRecord) -> bool:
        return (task.step, task.map_index) not in done and datetime.fromisoformat(task.started) < opened

    try:
        yield results
    except Exception as error:
        results.append(close_run(plan, run, "failed", error, stale=stale))
        raise failure(results[0], error) from error
    except BaseException as error:
        state = "failed" if isinstance(error, SystemExit) else "cancelled"
        close_run(plan, run, state, error, stale=stale)
        raise
    else:
        results.append(close_run(plan, run, "completed", stale=stale))


def _result(
    plan: Plan, run: Run, state: str, seconds: float, tasks: list[TaskRecord], router: Router, url: str
) -> RunResult:
    found: dict[str, list[TaskRecord]] = {node.name: [] for node in plan.nodes}
    for task in tasks:
        found.setdefault(task.step, []).append(task)
    steps = {name: StepResult(name, tuple(of)) for name, of in found.items() if of}
    refs: dict[tuple[str, str], ArtifactRef | list[ArtifactRef]] = {}
    skipped: dict[tuple[str, str], str] = {}
    for node in plan.nodes:
        done = [task for task in found[node.name] if task.state == "completed"]
        whole = next((task for task in found[node.name] if task.state == "skipped" and task.map_index is None), None)
        for output in node.outputs:
            if whole is not None:
                skipped[node.name, output.name] = whole.error
            elif node.mapped:
                refs[node.name, output.name] = [task.outputs[output.name] for task in done]
            elif done:
                refs[node.name, output.name] = done[0].outputs[output.name]
    outputs = Outputs(refs, lambda ref: router.load(ref)[0], skipped)
    return RunResult(run.run_id, state, plan.name, run.stack, run.orchestrator, seconds, steps, outputs, url)


def failure(result: RunResult, error: BaseException) -> StepFailed:
    """The exception that a failed run raises; raise it ``from`` the step's own."""
    failed = [step for step in result.steps.values() if step.state == "failed"]
    where = f"step {failed[0].name!r} of run {result.run_id!r}" if failed else f"run {result.run_id!r}"
    message = f"{where} failed: {type(error).__name__}: {error}"
    return StepFailed(message, step=failed[0].name if failed else "", result=result)
