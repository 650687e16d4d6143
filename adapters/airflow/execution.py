"""What the tasks of a DAG do when they run. Only a worker imports this."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, AirflowTaskTimeout

from ...catalog.journal import find_run
from ...core.errors import ConfigError, PipelineError, Problem, RunConflict, StepSkipped
from ...core.plan import Node
from ...core.refs import ArtifactRef, Run
from ...core.results import TaskRecord
from ...routing.stacks import Stack, resolve_stack
from ..attempts import time_limit
from ..events import StepEvent, listening
from ..runs import begin_run, join_run
from ..runtime import time_out
from ..task import run_task, skip_task
from .assets import announce, newest, outlets
from .closing import close_after, has_ended
from .links import RUN
from .messages import Messages
from .params import values
from .tasks import CountTask, StepTask, Work

__all__ = ["count_items", "run_step_task"]

log = logging.getLogger(__name__)


def run_step_task(task: StepTask, context: Any) -> dict[str, Any]:
    """Run a step, or some items of a mapped one, and return the references for Airflow to keep."""
    work, ti = task.work, context["ti"]
    node = work.plan.node(task.step)
    messages = Messages(work, context)
    if task.span is None or task.span[0] < task.span[1]:
        messages.results(node, task.span[0] if task.span else None)  # asked for first, since they name the stack, too
    with permanent(work):
        run = join(work, context, messages, first=not node.upstream)
    with close_after(work, run, context, node) if has_ended(context) else nullcontext():
        if not node.upstream:
            begin_run(work.plan.origin, run)
        done, reason = _run_items(task, node, replace(run, attempt=ti.try_number), messages)
    message = messages.made(run, task.span, done)
    refs = [result for result in done or () if result is not None]
    announce(context["outlet_events"], outlets(work.plan, node), run.run_id, refs)
    if not context["dag"].testing:  # Airflow makes an entry in its database of each, and of a test there is no page
        task.links = _links(refs, message["tracker"])
    if refs or not reason:
        return message
    ti.xcom_push(key="return_value", value=message)  # those downstream must know that it was skipped, and not lost
    raise AirflowSkipException(reason)


def count_items(task: CountTask, context: Any) -> list[list[int]]:
    """The spans of items of a mapped step, one a task: each one item, or several where Airflow allows fewer tasks.

    A step without items has one task, with none of them; one that is skipped has one, which says so.
    """
    from airflow.sdk.configuration import conf

    work = task.work
    node = work.plan.node(task.step)
    messages = Messages(work, context)
    sources = work.plan.map_sources(node)
    results = messages.results(node, only=sources)
    with permanent(work):
        run = join(work, context, messages, first=not sources)
        length = work.plan.map_length(node, run.params, results)
    if length is None:
        return [[0, 0, -1]]
    most = conf.getint("core", "max_map_length", fallback=1024)
    size = max(1, -(-length // most))
    log.info("%s has %d items, in tasks of %d", node.name, length, size)
    return [[start, min(start + size, length), length] for start in range(0, max(length, 1), size)]


# --- the run --------------------------------------------------------------------------------------------------------


def join(work: Work, context: Any, messages: Messages, *, first: bool) -> Run:
    """The run of the task, which is the same for every task of a DAG run."""
    dag_run, params = context["dag_run"], dict(context["params"])
    run_id = params.pop("run_id", None) or dag_run.run_id
    named = params.pop("stack", None)
    # The run's first tasks choose the stack; the others are told, since what is active may have changed since.
    stack = (
        work.here.stack if work.here else resolve_stack(named or (None if first else messages.stack()), cwd=work.folder)
    )
    declared = context["dag"].params
    own = {name: value for name, value in params.items() if name in work.plan.params or name not in declared}
    given = values(work.plan, {**own, **_consumed(work, context, stack, run_id, own)})
    return join_run(
        work.plan.origin,
        params=given,
        stack=stack,
        orchestrator="airflow",
        run_id=run_id,
        native_id=dag_run.run_id,
        opened=dag_run.start_date,
    )


def _consumed(work: Work, context: Any, stack: Stack, run_id: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that take the newest artifact of an asset, unless they were given."""
    found: dict[str, Any] = {}
    for name, asset in work.consumes.items():
        if given.get(name) is not None:
            continue
        triggering = context["triggering_asset_events"]
        found[name] = newest(triggering[asset] if asset in list(triggering) else ())
        if found[name] is None:
            found[name] = _earlier(stack, run_id).get(name) or newest(_history(context, asset))
        if found[name] is None:
            what = f"no artifact is given, and the asset {asset.name!r} has no event yet; run the DAG that makes it"
            place = f"pipeline {work.plan.name!r}, parameter {name!r}"
            raise PipelineError("The run has nothing to start from", [Problem(what, place)])
    return found


def _earlier(stack: Stack, run_id: str) -> Mapping[str, Any]:
    """The parameters that the run's first task has written down."""
    from ...routing.router import Router

    journal = find_run(Router(stack).store(), stack.project, run_id)
    record = journal.record() if journal else None
    return record.run.params if record else {}


def _history(context: Any, asset: Any) -> list[Any]:
    return list(context["inlet_events"][asset]) if asset in context["task"].inlets else []


@contextmanager
def permanent(work: Work) -> Iterator[None]:
    """What is wrong with the pipeline, its parameters or its configuration is not tried again."""
    try:
        yield
    except (ConfigError, PipelineError, RunConflict) as error:
        if work.here is not None:
            work.here.errors.append(error)
        raise AirflowFailException(str(error)) from error


# --- the items ------------------------------------------------------------------------------------------------------


def _run_items(
    task: StepTask, node: Node, run: Run, messages: Messages
) -> tuple[list[dict[str, ArtifactRef] | None] | None, str]:
    """The result of each item, None for a skipped one, and why the last was skipped; no list if the whole step was.

    All items of the task are run; then the first failure is raised.
    """
    plan, here = task.work.plan, task.work.here
    if task.span is not None and task.span[-1] < 0:
        reason = f"upstream step {plan.skipped_source(node, messages.results(node))!r} was skipped"
        skip_task(run, node, reason)
        return None, reason
    done: list[dict[str, ArtifactRef] | None] = []
    errors: list[BaseException] = []
    reason = ""
    for index in [None] if task.span is None else range(*task.span[:2]):
        refs = plan.task_refs(node, plan.task_inputs(node, messages.results(node, index), index), index)
        try:
            with listening(run.run_id, _Log(here.on_event if here else None)):
                done.append(_run_one(task, node, replace(run, map_index=index), refs))
        except StepSkipped as skipped:
            done.append(None)
            reason = str(skipped) or "the step said so"
        except Exception as error:
            errors.append(error)
    if errors:
        if here:
            here.errors.append(errors[0])
        if node.members:  # each has had its own tries; the task's are for a worker that is lost
            raise AirflowFailException(f"{type(errors[0]).__name__}: {errors[0]}") from errors[0]
        raise errors[0]
    return done, reason


def _run_one(task: StepTask, node: Node, run: Run, refs: Mapping[str, Any]) -> dict[str, ArtifactRef]:
    try:
        with time_limit(node) if node.mapped else nullcontext():
            return run_task(task.work.plan, node, run, refs)
    except AirflowTaskTimeout as error:
        if node.step.timeout is None:
            raise
        raise time_out(node, run) from error


class _Log:
    """Says in the task's log what was stored where, how large it is, and how long that took."""

    def __init__(self, more: Any) -> None:
        self.more = more

    def __call__(self, event: StepEvent) -> None:
        if event.record is not None:
            self._tell(event.record)
        if self.more is not None:
            self.more(event)

    def _tell(self, record: TaskRecord) -> None:
        item = "" if record.map_index is None else f"[{record.map_index}]"
        times = f"{record.load:.3f} s to load, {record.compute:.3f} s to compute"
        log.info("%s%s: %s, %s, %.3f s in all", record.step, item, record.state, times, record.seconds)
        for output, ref in record.outputs.items():
            timings = record.timings[output]
            seconds = sum(value for name, value in timings.items() if name != "bytes")
            log.info("%s: %s, %d bytes in %.3f s, %s", output, ref.uri, int(timings["bytes"]), seconds, ref.digest)
            for kind, name in record.destinations[output].items():
                if kind != "store":
                    log.info("%s: %s %s", output, kind, name)


def _links(done: list[dict[str, ArtifactRef]], tracker: str) -> dict[str, str]:
    """Where the task's links lead; of several items, to the folder that holds them all."""
    found = {RUN: tracker}
    for output, ref in (done[0] if done else {}).items():
        found[output] = ref.uri if len(done) == 1 else ref.uri.rpartition("/")[0]
        found[f"{output} manifest"] = f"{ref.uri}/manifest.json" if len(done) == 1 else ""
    return found
