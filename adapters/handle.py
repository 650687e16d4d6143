"""The run as a step's own code sees it: to record further artifacts, beside what the step returns."""

from __future__ import annotations

import contextvars
import os
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..catalog.journal import Journal, RunEnd, RunRecord
from ..core.errors import ArtifactNotFound, TailraceError
from ..core.models import Checkpoint
from ..core.refs import ArtifactRef, Run
from ..core.results import TaskRecord
from ..core.typenames import routing_names
from ..routing.router import Committed, Router, Task
from ..routing.stacks import resolve_stack
from .runs import make_run, new_run_id

__all__ = ["RunHandle", "current_run", "entered", "start_run"]

_CURRENT: contextvars.ContextVar[RunHandle | None] = contextvars.ContextVar("tailrace_run", default=None)


class RunHandle:
    """A run that is going on. ``run`` says which; what is recorded belongs to its current step."""

    def __init__(self, router: Router, task: Task, outputs: Container[str] = ()) -> None:
        self._router = router
        self._task = task
        self._outputs = outputs
        self.committed: dict[str, Committed] = {}

    @property
    def recorded(self) -> list[ArtifactRef]:
        """What the step has recorded so far."""
        return [done.ref for done in self.committed.values()]

    @property
    def run(self) -> Run:
        """The run's id, pipeline, project and start."""
        return self._task.run

    @property
    def run_id(self) -> str:
        """The logical run id."""
        return self._task.run.run_id

    def record_artifact(self, value: Any, kind: str = "artifact", *, name: str | None = None) -> ArtifactRef:
        """Store a file, a folder (by path, also as text) or any object as an artifact of this step, and record it.

        ``kind`` is a free word that becomes a tag ("result", "figure", ...). The name is the file's unless given; the
        same name again in the same step replaces it; that of an output of the step is refused. Raises
        :class:`~tailrace.ArtifactNotFound` for a missing file.
        """
        if isinstance(value, str | os.PathLike):
            value = Path(value)
            if not value.exists():
                raise ArtifactNotFound(f"{str(value)!r} cannot be recorded: there is no such file in {os.getcwd()!r}.")
        label = self._free(name or (value.name if isinstance(value, Path) else kind))
        done = self._router.commit(self._task, {label: value}, {}, tags={"kind": kind})[label]
        self.committed.pop(label, None)
        self.committed[label] = done
        return done.ref

    def checkpoint(
        self,
        state: Any,
        *,
        epoch: int | None = None,
        step: int | None = None,
        every: int = 1,
        name: str = "checkpoint",
    ) -> ArtifactRef | None:
        """Store the state that a training can go on from, in place of the last one of this name; see :meth:`resume`.

        With ``every`` only each so many epochs or steps are stored (by ``step`` where it is given, else ``epoch``), and
        None is returned for the others. A crash while one is stored leaves the last one.
        """
        count = epoch if step is None else step
        if every < 1:
            raise TailraceError(
                f"A checkpoint is stored every so many epochs or steps; every={every!r} is not above 0."
            )
        if count is not None and count % every:
            return None
        return self.record_artifact(Checkpoint(state, epoch=epoch, step=step, name=name), "checkpoint", name=name)

    def resume(self, name: str = "checkpoint") -> Checkpoint | None:
        """The last checkpoint of this name that this step has stored in this run, in whichever try; None without one.

        A retried step finds it, and so does a run that was started again under the same run id. It is loaded verified,
        and recorded as this try's until another takes its place.
        """
        route = self._router.route(self._task, self._free(name), Checkpoint)
        store = self._router.store(route.store)
        if not store.exists(route.path):
            return None
        ref = store.ref(route.path)
        found, _ = self._router.load(ref)
        if not isinstance(found, Checkpoint):
            raise TailraceError(f"The artifact {name!r} of step {self._task.step!r} is a {ref.type}, not a checkpoint.")
        self.committed[name] = Committed(ref, {}, {"store": ref.uri}, tuple(routing_names(Checkpoint)))
        return found

    def _free(self, name: str) -> str:
        if name in self._outputs:
            what = f"{name!r} is the name of an output of step {self._task.step!r}, which would take its place"
            raise TailraceError(f"{what}. Record it under another name.")
        return name


def current_run() -> RunHandle:
    """The run that the calling step belongs to. Raises :class:`~tailrace.TailraceError` outside a step."""
    handle = _CURRENT.get()
    if handle is None:
        raise TailraceError("There is no current run: call this inside a step, or open one with tailrace.start_run().")
    return handle


@contextmanager
def entered(handle: RunHandle) -> Iterator[RunHandle]:
    """Make the handle the current run of this context."""
    token = _CURRENT.set(handle)
    try:
        yield handle
    finally:
        _CURRENT.reset(token)


@contextmanager
def start_run(
    name: str, *, run_id: str | None = None, stack: str | None = None, params: Mapping[str, Any] | None = None
) -> Iterator[RunHandle]:
    """Open a run by hand, for code that is no pipeline: what is recorded in the block is in the catalog like any other.

    >>> with start_run("experiment") as run:  # doctest: +SKIP
    ...     run.record_artifact("output.csv", kind="result")
    """
    chosen = resolve_stack(stack)
    run = make_run(chosen, name, run_id or new_run_id(), orchestrator="by hand", params=params or {})
    router = Router(chosen)
    journal, record = Journal.open(router.store(), RunRecord(run, ""))
    journal.reopen()
    handle = RunHandle(router, Task(record.run, name, "", ""))
    state, error = "completed", ""
    try:
        with entered(handle):
            yield handle
    except BaseException as problem:
        state = "failed" if isinstance(problem, Exception) else "cancelled"
        error = f"{type(problem).__name__}: {problem}"
        raise
    finally:
        ended, extra = datetime.now(UTC), tuple(handle.recorded)
        seconds = (ended - run.started).total_seconds()
        task = TaskRecord(name, None, state, run.started.isoformat(), seconds, extra=extra, error=error)
        journal.write_task(task)
        journal.close(RunEnd(state, ended.isoformat(), seconds, error), [task])
