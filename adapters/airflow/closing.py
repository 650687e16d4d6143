"""The end of a run: what Airflow knows of its tasks, and what the journal says of them, brought together."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from airflow.sdk.exceptions import AirflowFailException

from ...catalog.journal import Journal
from ...core.plan import Node
from ...core.refs import Run
from ...core.results import RunResult, TaskRecord
from ..runs import close_run, router_for
from ..task import skip_task
from .messages import Messages
from .tasks import CLOSE, CloseTask, Work

__all__ = ["close", "close_after", "has_ended"]

log = logging.getLogger(__name__)

_KILLED = "it was killed, lost with its machine, or stopped before it began; see Airflow's log of the task"
_LOST = frozenset({"failed", "upstream_failed"})


def close(task: CloseTask, context: Any) -> None:
    """End the run: ``failed`` if any of its tasks did, else ``completed``. Again after a task was cleared and rerun.

    This task fails with the run, since the DAG run's state is that of the last task alone.
    """
    from .execution import join, permanent

    work = task.work
    with permanent(work):
        run = join(work, context, Messages(work, context), first=False)
    result = _close(work, run, context, _states(context))
    log.info(result.summary())
    if work.here is None:
        context["dag"].told = result.summary()
    if result.state != "completed":
        raise AirflowFailException(f"The run {run.run_id!r} {result.state}; the log above says why.")


def has_ended(context: Any) -> bool:
    """Whether the task that closes the run will not run again: this one alone was cleared, so it is a later try."""
    ended = {"success", "failed", "skipped", "upstream_failed", "removed"}
    return context["ti"].try_number > 1 and _states(context).get(CLOSE) in ended


@contextmanager
def close_after(work: Work, run: Run, context: Any, node: Node) -> Iterator[None]:
    """Close the run once more when the block ends, since nobody else will."""
    own = work.tasks[node.name] + (f"_{context['ti'].map_index}" if node.mapped else "")
    try:
        yield
    except BaseException:
        _close(work, run, context, _states(context) | {own: "failed"})
        raise
    _close(work, run, context, _states(context) | {own: "success"})


def _states(context: Any) -> dict[str, str]:
    """The states of the tasks of the DAG run, by task id; of a mapped one, by task id, ``_`` and index."""
    ti = context["ti"]
    found = ti.get_task_states(dag_id=ti.dag_id, run_ids=[ti.run_id]).get(ti.run_id, {})
    return {name: str(getattr(state, "value", state)) for name, state in found.items()}


@dataclass(frozen=True)
class _Seen:
    """What Airflow says of a step: the states of its tasks, and the items of each; and of the task that counts them."""

    states: tuple[str, ...]
    spans: tuple[tuple[int, int] | None, ...]
    counting: str = ""
    why: str = ""

    @property
    def lost(self) -> bool:
        return bool(_LOST & {*self.states, self.counting})

    @property
    def indexes(self) -> set[int | None]:
        """The items that there are; ``{None}`` for a step that is not mapped, or was never fanned out."""
        found = {index for span in self.spans if span for index in range(*span)}
        return {*found} or {None}


def _close(work: Work, run: Run, context: Any, states: Mapping[str, str]) -> RunResult:
    seen = {node.name: _seen(work, node, context["ti"], states) for node in work.plan.nodes}
    journal = Journal.of(router_for(run).store(), run)
    known = {(task.step, task.map_index): task for task in journal.tasks() if task.native_id == run.native_id}
    error = ""
    for node in work.plan.nodes:
        found = seen[node.name]
        upstream = next((name for name in node.upstream if seen[name].lost), None)
        if upstream is not None and "upstream_failed" in (*found.states, found.counting):
            skip_task(run, node, f"upstream step {upstream!r} failed")
        elif found.counting == "failed":
            error = error or found.why
        else:
            for record in _silent(node, run, found, known):
                journal.write_task(record)
                known[record.step, record.map_index] = record
        own = {member.name for member in node.members or (node,)}
        failed = [task for (step, _), task in known.items() if step in own and task.state == "failed"]
        error = error or (failed[0].error if failed and found.lost else "")
    state = "failed" if any(found.lost for found in seen.values()) else "completed"

    of_step = {member.name: seen[node.name] for node in work.plan.nodes for member in node.members or (node,)}

    def stale(task: TaskRecord) -> bool:
        there = of_step[task.step].indexes if task.step in of_step else set()
        return task.native_id != run.native_id or task.map_index not in there

    result = close_run(work.plan.origin, run, state, error or None, stale=stale)
    if work.here is not None:
        work.here.results.append(result)
    return result


def _seen(work: Work, node: Node, ti: Any, states: Mapping[str, str]) -> _Seen:
    task_id = work.tasks[node.name]
    if not node.mapped:
        return _Seen((states.get(task_id, "none"),), (None,))
    counter = work.counters.get(node.name)
    counting = states.get(counter, "none") if counter else ""
    why = ti.xcom_pull(task_ids=counter, key="error", map_indexes=-1) if counting == "failed" else ""
    spans = ti.xcom_pull(task_ids=counter, map_indexes=-1) if counting == "success" else work.spans.get(node.name)
    names = [f"{task_id}_{number}" for number in range(len(spans or ()))]
    found = [states[name] for name in names if name in states] or [states.get(task_id, "none")]
    real = tuple((start, stop) for start, stop, of in spans or () if of >= 0)
    return _Seen(tuple(found), real if "upstream_failed" not in found else (), counting, why or "")


def _silent(
    node: Node, run: Run, found: _Seen, known: Mapping[tuple[str, int | None], TaskRecord]
) -> Iterator[TaskRecord]:
    """Records for each task that Airflow calls failed and that could not say so itself."""
    for state, span in zip(found.states, found.spans or (None,), strict=False):
        for index in [None] if span is None else range(*span):
            own = [member.name for member in node.members or (node,)]
            said = [known[name, index].state for name in own if (name, index) in known]
            if state != "failed" or "failed" in said:
                continue
            how, error = "failed", _KILLED
            now = datetime.now(UTC).isoformat()
            for name in own[len(said) :]:
                yield TaskRecord(name, index, how, now, 0.0, error=error, native_id=run.native_id)
                how, error = "skipped", f"step {own[len(said)]!r} of the same task failed"
