"""What every task calls, on every engine: load the inputs, call the function, send each output where it belongs.

An adapter opens a run, calls :func:`run_step` for each task with references, and closes the run. Nothing of this
knows which engine it is, so the artifacts, digests, lineage, tracker entries and registrations are the same on each.
"""

from __future__ import annotations

import contextvars
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..catalog.journal import Journal, RunEnd, RunRecord
from ..core.annotations import asset_type, concrete, item_type
from ..core.assets import Asset
from ..core.errors import DestinationError, MaterializationError, StepFailed
from ..core.plan import Fixed, FromOutput, FromParam, Node, Plan
from ..core.refs import ArtifactRef, Manifest, Parent, Run
from ..core.results import Outputs, RunResult, StepResult, TaskRecord
from ..core.typenames import type_name
from ..routing.router import Committed, Router, Task
from ..routing.stacks import Stack, resolve_stack
from .events import StepEvent, emit
from .handle import RunHandle, entered

__all__ = ["close_run", "closing", "new_run_id", "open_run", "router_for", "run_step", "skip_step"]

_ROUTERS: dict[tuple[str, str, str | None, str], Router] = {}
_ROUTERS_LOCK = threading.Lock()


def new_run_id() -> str:
    """A run id that sorts by time: ``20261121T120500-3f9a2c``."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.urandom(3).hex()}"


def router_for(run: Run, stack: Stack | None = None) -> Router:
    """The destinations of a run in this process. A given stack is used from now on; else the run's own is looked up."""
    key = (run.run_id, run.stack, run.config, run.root)
    with _ROUTERS_LOCK:
        if stack is not None or key not in _ROUTERS:
            while len(_ROUTERS) >= 16:  # a server that runs pipelines for weeks must not keep every stack it ever saw
                del _ROUTERS[next(iter(_ROUTERS))]
            _ROUTERS[key] = Router(stack or resolve_stack(run.stack, config=run.config, cwd=Path(run.root)))
        return _ROUTERS[key]


def open_run(
    plan: Plan,
    *,
    params: Mapping[str, Any],
    stack: Stack,
    orchestrator: str,
    run_id: str,
    native_id: str = "",
) -> Run:
    """Start a run, or join the one that another process started under this id: both get the same start time.

    Writes what was asked into the journal and opens the tracker's run with the parameters, so that a tracker that
    cannot be reached fails the run before anything is computed. Raises :class:`~tailrace.RunConflict` when the id
    belongs to a run of another pipeline or with other parameters.
    """
    now = datetime.now(UTC)
    run = Run(
        run_id=run_id,
        pipeline=plan.name,
        project=stack.project,
        started=now,
        opened=now,
        stack=stack.name,
        orchestrator=orchestrator,
        root=str(stack.root),
        config=str(stack.source) if stack.source else None,
        native_id=native_id,
        params=params,
    )
    router = router_for(run, stack)
    journal, record = Journal.open(router.store(), RunRecord(run, plan.version, tuple(_outline(plan))))
    journal.reopen()
    try:
        tracker_run = router.tracker_run(record.run)
        if router.tracker is not None and tracker_run is not None:
            router.tracker.log_params(tracker_run, dict(_step_params(plan, params)))
    except BaseException as error:
        state = "failed" if isinstance(error, Exception) else "cancelled"
        seconds = (datetime.now(UTC) - now).total_seconds()
        journal.close(RunEnd(state, datetime.now(UTC).isoformat(), seconds, f"{type(error).__name__}: {error}"), [])
        raise
    return record.run


def _outline(plan: Plan) -> Iterator[dict[str, Any]]:
    for node in plan.nodes:
        outputs = [output.name for output in node.outputs]
        yield {"step": node.name, "upstream": list(node.upstream), "outputs": outputs, "mapped": list(node.mapped)}


def _step_params(plan: Plan, params: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The parameters of the steps as trackers name them, ``<step>.<key>``: those known before the run."""
    for node in plan.nodes:
        for name, declared in node.step.parameters.items():
            binding = node.bindings.get(name)
            if isinstance(binding, FromParam):
                yield f"{node.name}.{name}", params[binding.name]
            elif isinstance(binding, Fixed):
                yield f"{node.name}.{name}", binding.value
            elif binding is None and declared.default is not declared.empty:
                yield f"{node.name}.{name}", declared.default


def run_step(plan: Plan, step: str, run: Run, refs: Mapping[str, Any]) -> dict[str, ArtifactRef]:
    """Execute one task of a run and return the references of its outputs, by output name.

    ``refs`` holds a reference, or a list of them, for each parameter that takes upstream outputs; ``run.map_index``
    and ``run.attempt`` say which task and which try this is. What the function raises comes out as it is, after the
    journal has it; then no output of this try is committed but those that were before the failure.
    """
    node = plan.node(step)
    router = router_for(run)
    record = TaskRecord(step, run.map_index, "completed", datetime.now(UTC).isoformat(), 0.0, run.attempt)
    begin = time.perf_counter()
    try:
        emit(StepEvent("started", step, run.map_index, run.run_id))
        arguments, parents = _load(plan, node, run, refs, router)
        task = Task(run, step, node.step.code_version, plan.version, parents)
        record = replace(record, load=time.perf_counter() - begin, inputs=_ids(parents))
        middle = time.perf_counter()
        handle = RunHandle(router, task)
        with entered(handle):
            returned = _call(node, arguments)
        record = replace(record, compute=time.perf_counter() - middle)
        values = _split(node, returned)
        done = router.commit(task, values, {output.name: output.annotation for output in node.outputs})
        record = _completed(record, done, handle)
    except BaseException as error:
        state = "failed" if isinstance(error, Exception) else "cancelled"
        shown = f"{type(error).__name__}: {error}"
        _finish(router, run, replace(record, state=state, error=shown, seconds=time.perf_counter() - begin))
        raise
    _finish(router, run, replace(record, seconds=time.perf_counter() - begin))
    return dict(record.outputs)


def skip_step(run: Run, step: str, because: str) -> None:
    """Record that a step did not run because an upstream step failed."""
    record = TaskRecord(
        step, None, "skipped", datetime.now(UTC).isoformat(), 0.0, error=f"upstream step {because!r} failed"
    )
    _finish(router_for(run), run, record)


def close_run(plan: Plan, run: Run, state: str, error: BaseException | None = None) -> RunResult:
    """End a run: ``completed``, ``failed`` or ``cancelled``, in the journal and in the tracker. Returns its result."""
    router = router_for(run)
    journal = Journal.of(router.store(), run)
    opened = run.opened or run.started
    tasks = list(journal.tasks(since=opened))
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
        if error is not None:
            error.add_note(str(trouble))
    error = error or refusal
    failed = next((task.step for task in tasks if task.state == "failed"), "")
    shown = "" if error is None else f"{type(error).__name__}: {error}"
    end = RunEnd(state, datetime.now(UTC).isoformat(), seconds, shown, failed if state != "completed" else "", url)
    journal.close(end, tasks)
    if refusal is not None and error is refusal:
        raise refusal
    return _result(plan, run, state, seconds, tasks, router, url)


def _result(
    plan: Plan, run: Run, state: str, seconds: float, tasks: list[TaskRecord], router: Router, url: str
) -> RunResult:
    found: dict[str, list[TaskRecord]] = {node.name: [] for node in plan.nodes}
    for task in tasks:
        found.setdefault(task.step, []).append(task)
    steps = {name: StepResult(name, tuple(of)) for name, of in found.items() if of}
    refs: dict[tuple[str, str], ArtifactRef | list[ArtifactRef]] = {}
    for node in plan.nodes:
        done = [task for task in found[node.name] if task.state == "completed"]
        for output in node.outputs:
            if node.mapped:
                refs[node.name, output.name] = [task.outputs[output.name] for task in done]
            elif done:
                refs[node.name, output.name] = done[0].outputs[output.name]
    outputs = Outputs(refs, lambda ref: router.load(ref)[0])
    return RunResult(run.run_id, state, plan.name, run.stack, run.orchestrator, seconds, steps, outputs, url)


def failure(result: RunResult, error: BaseException) -> StepFailed:
    """The exception that a failed run raises; raise it ``from`` the step's own."""
    failed = [step for step in result.steps.values() if step.state == "failed"]
    where = f"step {failed[0].name!r} of run {result.run_id!r}" if failed else f"run {result.run_id!r}"
    message = f"{where} failed: {type(error).__name__}: {error}"
    return StepFailed(message, step=failed[0].name if failed else "", result=result)


# --- inputs ---------------------------------------------------------------------------------------------------------


def _load(
    plan: Plan, node: Node, run: Run, refs: Mapping[str, Any], router: Router
) -> tuple[dict[str, Any], tuple[Parent, ...]]:
    """The arguments of one task, and the artifacts that they are."""
    arguments: dict[str, Any] = {}
    parents: list[Parent] = []
    for name, binding in node.bindings.items():
        own = name in node.mapped
        wanted = node.step.annotations.get(name)
        if isinstance(binding, FromParam | Fixed):
            value = run.params[binding.name] if isinstance(binding, FromParam) else binding.value
            arguments[name] = value[run.map_index] if own else value
            continue
        given = refs[name]
        refs_given = given if isinstance(given, list) else [given]
        parents += [Parent(ref.id, ref.uri, ref.digest, name) for ref in refs_given]
        if isinstance(given, list):
            arguments[name] = [_adapt(*router.load(ref), item_type(wanted)) for ref in given]
        else:
            value, manifest = router.load(given)
            if own and isinstance(binding, FromOutput) and not plan.node(binding.node).mapped:
                items = value.data if isinstance(value, Asset) else value  # one list, of which this task has an item
                arguments[name] = items[run.map_index]
            else:
                arguments[name] = _adapt(value, manifest, wanted)
    return arguments, tuple(parents)


def _adapt(value: Any, manifest: Manifest, wanted: Any) -> Any:
    """The value as the parameter's annotation asks for it: an artifact type, or what it holds."""
    declared = asset_type(wanted)
    if value is None:
        return None
    if declared is not None:
        return value if isinstance(value, declared) else declared.wrap(value, manifest.name)
    if not isinstance(value, Asset):
        return value
    plain = concrete(wanted) if wanted is not None else None
    if plain is None:
        return value.data if manifest.bare else value
    return value if isinstance(value, plain) else value.data


# --- the call -------------------------------------------------------------------------------------------------------


def _call(node: Node, arguments: dict[str, Any]) -> Any:
    step = node.step
    positional = [
        arguments.pop(name)
        for name, declared in step.parameters.items()
        if declared.kind is declared.POSITIONAL_ONLY and name in arguments
    ]
    if not step.is_async:
        return step.fn(*positional, **arguments)
    return _run_async(lambda: step.fn(*positional, **arguments))


def _run_async(make: Callable[[], Any]) -> Any:
    """Run a coroutine to its end; where this thread has a running loop (a notebook), in a thread of its own."""
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(make())
    from concurrent.futures import ThreadPoolExecutor

    context = contextvars.copy_context()
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(context.run, asyncio.run, make()).result()


def _split(node: Node, returned: Any) -> dict[str, Any]:
    """The returned value by output."""
    names = [output.name for output in node.outputs]
    if len(names) == 1:
        return {names[0]: returned}
    if isinstance(returned, Mapping) and not isinstance(returned, Asset) and set(returned) == set(names):
        return {name: returned[name] for name in names}
    if isinstance(returned, tuple | list) and len(returned) == len(names):
        return dict(zip(names, returned, strict=True))
    shown = f"{type_name(type(returned))}" + (f" of {len(returned)}" if isinstance(returned, tuple | list) else "")
    raise MaterializationError(
        f"The step {node.name!r} declares {len(names)} outputs ({', '.join(names)}) but returned a {shown}. "
        "Return a tuple of as many values, or a dict with these keys."
    )


# --- the record -----------------------------------------------------------------------------------------------------


def _ids(parents: tuple[Parent, ...]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for parent in parents:
        found.setdefault(parent.input, []).append(parent.id)
    return found


def _completed(record: TaskRecord, done: Mapping[str, Committed], handle: RunHandle) -> TaskRecord:
    return replace(
        record,
        outputs={name: committed.ref for name, committed in done.items()},
        extra=tuple(handle.recorded),
        timings={name: committed.timings for name, committed in done.items()},
        destinations={name: committed.destinations for name, committed in done.items()},
    )


def _finish(router: Router, run: Run, record: TaskRecord) -> None:
    Journal.of(router.store(), run).write_task(record)
    emit(StepEvent("ended", record.step, record.map_index, run.run_id, record))


@contextmanager
def closing(plan: Plan, run: Run) -> Iterator[list[RunResult]]:
    """Close the run when the block ends, as it ended. A failure is raised as :class:`~tailrace.StepFailed`."""
    results: list[RunResult] = []
    try:
        yield results
    except Exception as error:
        results.append(close_run(plan, run, "failed", error))
        raise failure(results[0], error) from error
    except BaseException as error:
        close_run(plan, run, "cancelled", error)
        raise
    else:
        results.append(close_run(plan, run, "completed"))
