"""What every task calls, on every engine: load the inputs, call the function, send each output where it belongs.

An adapter opens a run, calls :func:`run_step` for each task with references, and closes the run. Nothing of this
knows which engine it is, so the artifacts, digests, lineage, tracker entries and registrations are the same on each.
"""

from __future__ import annotations

import contextvars
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..catalog.journal import Journal, RunEnd, RunRecord
from ..core.annotations import pointed
from ..core.assets import Asset
from ..core.errors import DestinationError, MaterializationError, StepFailed, StepSkipped, StepTimeout
from ..core.plan import Fixed, FromParam, Node, Plan
from ..core.ref import Ref, handles
from ..core.refs import ArtifactRef, Parent, Run, named_artifact
from ..core.results import Outputs, RunResult, StepResult, TaskRecord
from ..core.typenames import type_name
from ..routing.router import Committed, Router, Task
from ..routing.stacks import Stack, resolve_stack
from .events import StepEvent, emit
from .handle import RunHandle, entered
from .inputs import Given, find_inputs, handed_on, load_inputs
from .memory import Memory

if TYPE_CHECKING:
    from .recall import Recall

__all__ = [
    "begin_run",
    "close_run",
    "closing",
    "join_run",
    "new_run_id",
    "open_run",
    "router_for",
    "run_step",
    "skip_step",
    "time_out",
]

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
    now = datetime.now(UTC)
    run = Run(
        run_id=run_id,
        pipeline=plan.name,
        project=stack.project,
        started=now,
        opened=opened or now,
        stack=stack.name,
        orchestrator=orchestrator,
        root=str(stack.root),
        config=str(stack.source) if stack.source else None,
        native_id=native_id,
        params=params,
    )
    router = router_for(run, stack)
    _, record = Journal.open(router.store(), RunRecord(run, plan.version, tuple(_outline(plan))))
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


def run_step(
    plan: Plan, step: str, run: Run, refs: Mapping[str, Any], memory: Memory | None = None
) -> dict[str, ArtifactRef]:
    """Execute one task of a run and return the references of its outputs, by output name.

    ``refs`` holds a reference, or a list of them, for each parameter that takes upstream outputs, None for what was
    skipped; ``run.map_index`` and ``run.attempt`` say which task and which try this is. ``memory`` is what steps of one
    task hand to each other. What the function raises comes
    out as it is, after the journal has it; then no output of this try is committed but those that were before the
    failure. :class:`~tailrace.StepSkipped` is no failure: the step's condition does not hold, an input that it needs
    was skipped, or it says so itself. Then it has no outputs, and must not be tried again.
    """
    node = plan.node(step)
    router = router_for(run)
    started = datetime.now(UTC).isoformat()
    record = TaskRecord(step, run.map_index, "completed", started, 0.0, run.attempt, native_id=run.native_id)
    begin = time.perf_counter()
    handle: RunHandle | None = None
    lent: list[Ref[Any]] = []
    try:
        emit(StepEvent("started", step, run.map_index, run.run_id))
        inputs, parents = find_inputs(plan, node, run, refs, memory or router)
        task = Task(run, step, node.step.code_version, plan.version, parents)
        record = replace(record, inputs=_ids(parents))
        recall = _look_up(node, task, inputs, router) if node.step.cache else None
        if recall is not None and recall.done:
            record = recall.recorded(record)
            _finish(router, run, replace(record, seconds=time.perf_counter() - begin))
            return dict(record.outputs)
        arguments = load_inputs(node, inputs, memory or router)
        lent += (found for argument in arguments.values() for found in handles(argument))
        record = replace(record, load=time.perf_counter() - begin)
        middle = time.perf_counter()
        handle = RunHandle(router, task)
        try:
            with entered(handle):
                values = _outputs(node, _call(node, dict(arguments)))
        finally:
            for lazy in lent:
                lazy.release()
            arguments.clear()  # what the step does not return is free before its outputs are written
        record = replace(record, compute=time.perf_counter() - middle)
        done = router.commit(task, values, {output.name: output.annotation for output in node.outputs})
        record = _completed(record, done, handle)
        if recall is not None:
            recall.keep(done, handle.committed, record.compute)
        if memory is not None:
            memory.keep(node, values, record.outputs)
    except StepSkipped as skipped:
        record = replace(record, state="skipped", error=str(skipped), extra=tuple(handle.recorded) if handle else ())
        _finish(router, run, replace(record, seconds=time.perf_counter() - begin))
        raise
    except BaseException as error:
        state = "failed" if isinstance(error, Exception | SystemExit) else "cancelled"  # a step may call sys.exit()
        shown = f"{type(error).__name__}: {error}"
        _finish(router, run, replace(record, state=state, error=shown, seconds=time.perf_counter() - begin))
        raise
    finally:
        for lazy in lent:
            lazy.close()
    _finish(router, run, replace(record, seconds=time.perf_counter() - begin))
    return dict(record.outputs)


def skip_step(run: Run, step: str, reason: str, map_index: int | None = None) -> None:
    """Record that a whole step, or an item of it, did not run: ``upstream step 'x' failed``, or ``was skipped``."""
    record = TaskRecord(
        step, map_index, "skipped", datetime.now(UTC).isoformat(), 0.0, error=reason, native_id=run.native_id
    )
    _finish(router_for(run), run, record)


def time_out(node: Node, run: Run) -> StepTimeout:
    """The error of a task that its engine stopped after the step's timeout, by an exception of the engine's own.

    The task's record, which :func:`run_step` took for a cancelled one's, says the same from now on.
    """
    error = StepTimeout(f"The step {node.name!r} ran longer than its timeout of {node.step.timeout} s.")
    journal = Journal.of(router_for(run).store(), run)
    record = journal.task(node.name, run.map_index)
    if record is not None:
        journal.write_task(replace(record, state="failed", error=f"{type(error).__name__}: {error}"))
    return error


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


def _look_up(node: Node, task: Task, inputs: Mapping[str, Given], router: Router) -> Recall | None:
    from .recall import look_up  # what follows code is imported where a step is cached

    return look_up(node, task, inputs, router)


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


def _outputs(node: Node, returned: Any) -> dict[str, Any]:
    """What is to be stored, by output."""
    values = _split(node, returned)
    return {output.name: handed_on(values.pop(output.name), output.annotation) for output in node.outputs}


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
