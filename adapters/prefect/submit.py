"""The tasks of a flow run: each submitted when all that it takes is there, a bounded number at a time."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from queue import SimpleQueue
from typing import Any
from uuid import UUID

from prefect import Task
from prefect.client.schemas.objects import RunInput, TaskRunResult
from prefect.context import FlowRunContext
from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner

from ...catalog.journal import Journal
from ...core.plan import Node, Plan
from ...core.refs import Run
from ..events import StepEvent, emit, is_heard
from ..runs import router_for
from ..task import skip_task
from .runners import in_flight, is_away, stopping, to_workers
from .tasks import Given, refs_of

__all__ = ["run_tasks"]

_EDGES = 100
"""Upstream tasks that Prefect is told of, of each task: its server keeps and draws them one by one."""

_LOOK_AGAIN = 5.0
"""Seconds after which a cluster is asked anew how many workers it has."""


def run_tasks(plan: Plan, run: Run, tasks: Mapping[str, Task[..., Any]], done: set[tuple[str, int | None]]) -> None:
    """Run every task on the flow's task runner and wait for all; raise the first failure, in the order of the plan.

    The steps and items that end well are added to ``done``.
    When this is interrupted the steps that run are interrupted too, so that none goes on after its run has ended.
    """
    context: Any = FlowRunContext.get()  # there is one in any flow run
    submission = _Submission(plan, run, tasks, context.task_runner, done)
    with to_workers(context, run), stopping(context.task_runner, run, submission.waiting):
        submission.finish()
    errors = submission.errors
    if errors:
        raise next(errors[node.name] for node in plan.nodes if node.name in errors)


@dataclass(slots=True)
class _Open:
    """A node whose tasks can run: the items that are left, and what came of the others, each in its place."""

    node: Node
    rest: list[int | None]
    made: list[Any]
    open: int


class _Submission:
    """What is known while the tasks of one run are submitted; all in the flow's own thread."""

    def __init__(
        self,
        plan: Plan,
        run: Run,
        tasks: Mapping[str, Task[..., Any]],
        runner: TaskRunner[Any],
        done: set[tuple[str, int | None]],
    ) -> None:
        self.plan, self.run, self.tasks, self.runner, self.done = plan, run, tasks, runner, done
        self.errors: dict[str, BaseException] = {}
        self.waiting: set[PrefectFuture[Any]] = set()
        self._away = is_away(runner)
        self._results: dict[str, Any] = {}
        self._ids: dict[str, Any] = {}  # of the task runs, as the results are kept
        self._lost: set[str] = set()
        self._rank = {node.name: place for place, node in enumerate(plan.nodes)}
        self._left = {node.name: len(node.upstream) for node in plan.nodes}
        self._below: dict[str, list[Node]] = {node.name: [] for node in plan.nodes}
        for node in plan.nodes:
            for name in node.upstream:
                self._below[name].append(node)
        self._ready: list[tuple[int, _Open]] = []
        self._ended: SimpleQueue[tuple[_Open, int | None, PrefectFuture[Any]]] = SimpleQueue()

    def finish(self) -> None:
        """Submit what can run, the earliest of the plan first, until all has ended."""
        for node in self.plan.nodes:
            if not node.upstream and not self._opened(node):
                self._settle(node.name)
        limit, looked = in_flight(self.runner), time.monotonic()
        while self._ready or self.waiting:
            while self._ready and len(self.waiting) < limit:
                self._submit_next()
            self._take(*self._ended.get())
            if time.monotonic() - looked > _LOOK_AGAIN:
                limit, looked = in_flight(self.runner), time.monotonic()

    def _opened(self, node: Node) -> bool:
        """Whether the node has tasks to run, now that all has ended that it takes from."""
        upstream = next((name for name in node.upstream if name in self._lost), None)
        if upstream is not None:
            skip_task(self.run, node, f"upstream step {upstream!r} failed")
            self._lost.add(node.name)
            return False
        try:
            length = self.plan.map_length(node, self.run.params, self._results) if node.mapped else 1
        except Exception as error:
            self.errors[node.name] = error
            self._lost.add(node.name)
            return False
        if not length:
            self._results[node.name] = self._ids[node.name] = [] if length == 0 else None
            if length is None:
                source = self.plan.skipped_source(node, self._results)
                skip_task(self.run, node, f"upstream step {source!r} was skipped")
            return False
        self._ids[node.name] = [None] * length if node.mapped else None
        rest: list[int | None] = list(reversed(range(length))) if node.mapped else [None]
        heapq.heappush(self._ready, (self._rank[node.name], _Open(node, rest, [None] * length, length)))
        return True

    def _settle(self, name: str) -> None:
        """A node has ended: open those that have waited for it alone, and so on where those have no tasks."""
        settled = [name]
        while settled:
            for node in self._below[settled.pop()]:
                self._left[node.name] -= 1
                if not self._left[node.name] and not self._opened(node):
                    settled.append(node.name)

    def _submit_next(self) -> None:
        work = self._ready[0][1]
        node, index = work.node, work.rest.pop()
        if not work.rest:
            heapq.heappop(self._ready)
        refs = self.plan.task_refs(node, self.plan.task_inputs(node, self._results, index), index)
        edges = self.plan.task_inputs(node, self._ids, index)
        taken: set[RunInput] = {TaskRunResult(id=one) for one in islice(_flat(list(edges.values())), _EDGES)}
        if self._away:
            self._tell("started", node, index)
        future = self.runner.submit(
            self.tasks[node.name], {"given": Given(self.run, refs), "index": index}, dependencies={"given": taken}
        )
        if index is None:
            self._ids[node.name] = future.task_run_id
        else:
            self._ids[node.name][index] = future.task_run_id
        self.waiting.add(future)
        future.add_done_callback(partial(_put, self._ended, work, index))

    def _take(self, work: _Open, index: int | None, future: PrefectFuture[Any]) -> None:
        """Keep what came of a task; after a node's last one the node has ended."""
        self.waiting.discard(future)
        node = work.node
        made = work.made[index or 0] = _outcome(node, future)
        if not isinstance(made, BaseException):
            self.done.update((member.name, index) for member in node.members or (node,))
        if self._away:
            self._tell("ended", node, index)
        work.open -= 1
        if work.open:
            return
        failure = next((made for made in work.made if isinstance(made, BaseException)), None)
        if failure is not None:
            self.errors[node.name] = failure
            self._lost.add(node.name)
        else:
            self._results[node.name] = work.made if node.mapped else work.made[0]
        self._settle(node.name)

    def _tell(self, kind: str, node: Node, index: int | None) -> None:
        """Say of a task in another process what it would have said in this one."""
        if not is_heard(self.run.run_id):
            return
        journal = Journal.of(router_for(self.run).store(), self.run)
        for member in node.members or (node,):
            record = journal.task(member.name, index) if kind == "ended" else None
            if record is not None or kind == "started":
                emit(StepEvent(kind, member.name, index, self.run.run_id, record))


def _put(
    ended: SimpleQueue[tuple[_Open, int | None, PrefectFuture[Any]]],
    work: _Open,
    index: int | None,
    future: PrefectFuture[Any],
) -> None:
    ended.put((work, index, future))


def _flat(ids: Any) -> Iterator[UUID]:
    for one in ids:
        if isinstance(one, list):
            yield from _flat(one)
        elif one is not None:
            yield one


def _outcome(node: Node, future: PrefectFuture[Any]) -> Any:
    """The references that a task returned, None of one that was skipped, or the exception that it ended with."""
    try:
        result = future.result(raise_on_failure=False)
    except Exception as error:
        lost = RuntimeError(f"The worker that ran the step {node.name!r} was lost: {type(error).__name__}: {error}")
        lost.__cause__ = error
        return lost
    if isinstance(result, BaseException):
        return result
    if not future.state.is_completed():
        return RuntimeError(f"The task ended as {future.state.name}: {future.state.message}")
    return refs_of(result)
