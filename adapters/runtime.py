"""What every task calls, on every engine: load the inputs, call the function, send each output where it belongs.

An adapter opens a run, calls :func:`run_step` for each task with references, and closes the run. Nothing of this
knows which engine it is, so the artifacts, digests, lineage, tracker entries and registrations are the same on each.
"""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ..catalog.journal import Journal
from ..core.assets import Asset
from ..core.errors import MaterializationError, StepSkipped, StepTimeout
from ..core.plan import Node, Plan
from ..core.ref import handles
from ..core.refs import ArtifactRef, Parent, Run
from ..core.results import TaskRecord
from ..core.typenames import type_name
from ..routing.router import Committed, Router, Task
from .events import StepEvent, emit
from .handle import RunHandle, entered
from .inputs import Given, Loader, find_inputs, handed_on, load_inputs
from .memory import Memory
from .runs import router_for

if TYPE_CHECKING:
    from .recall import Recall

__all__ = ["run_step", "skip_step", "time_out"]


def run_step(
    plan: Plan, step: str, run: Run, refs: Mapping[str, Any], memory: Memory | None = None
) -> dict[str, ArtifactRef]:
    """Execute one task of a run and return the references of its outputs, by output name.

    ``refs`` holds a reference, or a list of them, for each parameter that takes upstream outputs, None for what was
    skipped; ``run.map_index`` and ``run.attempt`` say which task and which try this is. ``memory`` is what steps of one
    task hand to each other. What the function raises comes out as it is, after the journal has it; then no output of
    this try is committed but those that were before the failure. :class:`~tailrace.StepSkipped` is no failure: the
    step's condition does not hold, an input that it needs was skipped, or it says so itself. Then it has no outputs,
    and must not be tried again.
    """
    attempt = _Attempt(plan, plan.node(step), run)
    try:
        emit(StepEvent("started", step, run.map_index, run.run_id))
        attempt.perform(refs, memory)
    except StepSkipped as skipped:
        attempt.end("skipped", str(skipped))
        raise
    except BaseException as error:
        state = "failed" if isinstance(error, Exception | SystemExit) else "cancelled"  # a step may call sys.exit()
        attempt.end(state, f"{type(error).__name__}: {error}")
        raise
    attempt.end("completed")
    return dict(attempt.record.outputs)


class _Attempt:
    """One try of a task, and what its record says so far."""

    def __init__(self, plan: Plan, node: Node, run: Run) -> None:
        self.plan, self.node, self.run = plan, node, run
        self.router = router_for(run)
        started = datetime.now(UTC).isoformat()
        self.record = TaskRecord(
            node.name, run.map_index, "running", started, 0.0, run.attempt, native_id=run.native_id
        )
        self._begin = time.perf_counter()
        self._handle: RunHandle | None = None

    def perform(self, refs: Mapping[str, Any], memory: Memory | None) -> None:
        """Deliver what the step cache has; else load the inputs, call the function, and deliver what it returns."""
        node, router, loader = self.node, self.router, memory or self.router
        inputs, parents = find_inputs(self.plan, node, self.run, refs, loader)
        task = Task(self.run, node.name, node.step.code_version, self.plan.version, parents)
        self.record = replace(self.record, inputs=_ids(parents))
        recall = _look_up(node, task, inputs, router) if node.step.cache else None
        if recall is not None and recall.done:
            self.record = recall.recorded(self.record)
            return
        with ExitStack() as lent:
            self._handle = RunHandle(router, task, {output.name for output in node.outputs})
            values = self._compute(inputs, loader, self._handle, lent)
            done = router.commit(task, values, {output.name: output.annotation for output in node.outputs})
            self.record = _delivered(self.record, done)
            if recall is not None:
                recall.keep(done, self._handle.committed, self.record.compute)
            if memory is not None:
                memory.keep(node, values, self.record.outputs)

    def _compute(
        self, inputs: Mapping[str, Given], loader: Loader, handle: RunHandle, lent: ExitStack
    ) -> dict[str, Any]:
        """The values by output; the handles that the function was given are closed with ``lent``."""
        arguments = load_inputs(self.node, inputs, loader)
        lazy = [found for argument in arguments.values() for found in handles(argument)]
        for found in lazy:
            lent.callback(found.close)
        middle = time.perf_counter()
        self.record = replace(self.record, load=middle - self._begin)
        try:
            with entered(handle):
                values = _outputs(self.node, _call(self.node, dict(arguments)))
        finally:
            for found in lazy:
                found.release()
            arguments.clear()  # what the step does not return is free before its outputs are written
        self.record = replace(self.record, compute=time.perf_counter() - middle)
        return values

    def end(self, state: str, error: str = "") -> None:
        """Write the record, with what the step recorded by itself, however it ended."""
        extra = tuple(self._handle.recorded) if self._handle else self.record.extra
        seconds = time.perf_counter() - self._begin
        _finish(self.router, self.run, replace(self.record, state=state, error=error, extra=extra, seconds=seconds))


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


def _delivered(record: TaskRecord, done: Mapping[str, Committed]) -> TaskRecord:
    return replace(
        record,
        outputs={name: committed.ref for name, committed in done.items()},
        timings={name: committed.timings for name, committed in done.items()},
        destinations={name: committed.destinations for name, committed in done.items()},
    )


def _finish(router: Router, run: Run, record: TaskRecord) -> None:
    Journal.of(router.store(), run).write_task(record)
    emit(StepEvent("ended", record.step, record.map_index, run.run_id, record))
