"""A run's own records, as small files in the store: what was asked, what each task did, how it ended.

They are all that a worker writes: the SQL index follows from them, at the end of a run or when somebody asks.

    {project}/{date}/{run_id}/run.json               what was asked: written once, by the first process
                              steps/{step}@{i}.json  one task: its state, inputs, outputs, times
                              claims/{name}.json     a decision that only one process may take
                              artifacts.jsonl        every artifact, one a line: written when the run ends
                              result.json            how the run ended
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeVar

import orjson

from ..core.errors import IntegrityError, RunConflict, RunNotFound
from ..core.names import RUNS, segment
from ..core.refs import ArtifactRef, Run
from ..core.results import TaskRecord
from ..stores.base import ArtifactStore
from ..stores.layout import claim_key, read_claim, run_folder, run_start

__all__ = ["FORGOTTEN", "Journal", "RunEnd", "RunRecord", "find_run", "find_runs"]

T = TypeVar("T")

FORGOTTEN = "forgotten"
"""The state of a record that only says what a task had stored which the run has no more."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What was asked for: the run, and its plan's nodes with their upstream nodes and outputs."""

    run: Run
    plan_version: str
    nodes: tuple[Mapping[str, Any], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data; :meth:`from_dict` is its inverse."""
        return {"v": 1, "run": self.run.to_dict(), "plan_version": self.plan_version, "nodes": list(self.nodes)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RunRecord:
        """The record that :meth:`to_dict` wrote."""
        return cls(Run.from_dict(data["run"]), data["plan_version"], tuple(data["nodes"]))


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a run ended: ``state`` is ``completed``, ``failed`` or ``cancelled``; ``seconds`` is its whole duration."""

    state: str
    ended: str
    seconds: float
    error: str = ""
    failed_step: str = ""
    tracker_url: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RunEnd:
        """The end that :meth:`Journal.close` wrote."""
        return cls(**{key: data[key] for key in cls.__slots__ if key in data})


class Journal:
    """The records of one run in one store. One that is damaged is an :class:`~tailrace.IntegrityError` to its reader.

    ``again`` says that the run was executed before, so that its tasks may have records.
    """

    def __init__(
        self, store: ArtifactStore, project: str, run_id: str, started: datetime, *, again: bool = False
    ) -> None:
        self.store = store
        self.project = project
        self.run_id = run_id
        self.started = started
        self.again = again
        self.folder = run_folder(project, started, run_id)

    @classmethod
    def of(cls, store: ArtifactStore, run: Run) -> Journal:
        """The journal of a run that is known."""
        again = run.opened is not None and run.opened > run.started
        return cls(store, run.project, run.run_id, run.started, again=again)

    @classmethod
    def open(cls, store: ArtifactStore, record: RunRecord) -> tuple[Journal, RunRecord]:
        """The journal of a run and its record: this one, or the one that an earlier process of the run wrote.

        Raises :class:`~tailrace.RunConflict` when the id belongs to a run of another pipeline or other parameters.
        """
        run = record.run
        started = run_start(store, run.project, run.run_id, run.started)
        record = replace(record, run=replace(run, started=started))
        journal = cls(store, run.project, run.run_id, started)
        if store.create(f"{journal.folder}/run.json", _json(record.to_dict())):
            return journal, record
        journal.again = True
        first = journal.record()
        if first is None:
            raise RunNotFound(f"The record of run {run.run_id!r} disappeared while it was opened.")
        journal._check_same(first, record)  # JSON against JSON: a value that is none is compared by its repr
        return journal, record

    def reopen(self) -> None:
        """Forget how an earlier execution under this id ended: it runs again, and its record is as new."""
        if self.end() is not None:
            record = f"{self.folder}/run.json"
            self.store.replace(record, self.store.read(record), durable=False)
            self.store.remove(f"{self.folder}/result.json")

    def _check_same(self, first: RunRecord, again: RunRecord) -> None:
        asked = orjson.loads(_json(again.to_dict()))["run"]
        differing = [
            name
            for name in sorted({*first.run.params, *asked["params"]})
            if first.run.params.get(name) != asked["params"].get(name)
        ]
        if first.run.pipeline == again.run.pipeline and not differing:
            return
        what = f"of the pipeline {first.run.pipeline!r}"
        if first.run.pipeline == again.run.pipeline:
            what = f"with other values of {', '.join(differing)}"
        raise RunConflict(f"The run id {self.run_id!r} is taken by a run {what}. Choose another run id.")

    def record(self) -> RunRecord | None:
        """What was asked; None for a run without a plan (artifacts saved by hand under a run id)."""
        return self._read("run.json", RunRecord.from_dict)

    def write_task(self, record: TaskRecord) -> None:
        """Record what a task did; a later attempt of the same task replaces it, and says what that had stored."""
        if self.again or record.attempt > 1:
            with suppress(IntegrityError):  # what is damaged is replaced
                before = self._read(_task_file(record.step, record.map_index), TaskRecord.from_dict)
                record = record if before is None else record.after(before)
        self._write_task(record)

    def _write_task(self, record: TaskRecord) -> None:
        name = _task_file(record.step, record.map_index)
        self.store.replace(f"{self.folder}/{name}", _json(record.to_dict()), durable=False)

    def task(self, step: str, map_index: int | None) -> TaskRecord | None:
        """What a task did, if it is recorded."""
        found = self._read(_task_file(step, map_index), TaskRecord.from_dict)
        return None if found is None or found.state == FORGOTTEN else found

    def tasks(self, stale: Callable[[TaskRecord], bool] | None = None) -> Iterator[TaskRecord]:
        """Every recorded task, by step and item.

        Those that are ``stale`` are forgotten, but for what they had stored: an earlier execution under this run id
        left them, and this one had no such step or item any more.
        """
        for task in self.records():
            if task.state == FORGOTTEN:
                continue
            if stale is not None and stale(task):
                self._write_task(TaskRecord(task.step, task.map_index, FORGOTTEN, task.started, 0.0).after(task))
            else:
                yield task

    def records(self) -> Iterator[TaskRecord]:
        """Every recorded task, also those that are forgotten."""
        for key in sorted(self.store.walk(f"{self.folder}/steps/")):
            task = self._read(key.removeprefix(f"{self.folder}/"), TaskRecord.from_dict)
            if task is not None:
                yield task

    def close(self, end: RunEnd, tasks: Sequence[TaskRecord]) -> None:
        """Record how the run ended, and list its tasks' artifacts in ``artifacts.jsonl``, one a line."""
        lines = [
            _json({"step": task.step, "map_index": task.map_index, "output": output, **ref.to_dict()})
            for task in tasks
            for output, ref in _stored(task)
        ]
        self.store.replace(f"{self.folder}/artifacts.jsonl", b"\n".join([*lines, b""]), durable=False)
        values = {name: getattr(end, name) for name in end.__slots__}
        self.store.replace(f"{self.folder}/result.json", _json({"v": 1, **values}))

    def end(self) -> RunEnd | None:
        """How the run ended; None while it runs, or when its process was killed."""
        return self._read("result.json", RunEnd.from_dict)

    def claim(self, name: str, value: str) -> str:
        """The value that the first process to claim the name gave: this one, or another's."""
        key = f"{self.folder}/claims/{segment(name)}.json"
        mine = self.store.create(key, _json({"value": value}))
        return value if mine else self.peek(name) or value

    def peek(self, name: str) -> str | None:
        """The claimed value, if anybody has claimed the name."""
        return self._read(f"claims/{segment(name)}.json", lambda data: str(data["value"]))

    def _read(self, name: str, parse: Callable[[Any], T]) -> T | None:
        key = f"{self.folder}/{name}"
        try:
            return parse(orjson.loads(self.store.read(key)))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise IntegrityError(
                f"{self.store.uri(key)}, a record of run {self.run_id!r}, is damaged ({error!r}). Restore it; or "
                "delete it, and run the run again under its id, which writes it anew."
            ) from error


def find_run(store: ArtifactStore, project: str, run_id: str) -> Journal | None:
    """The journal of a run, by one read; None if there is no such run.

    Raises :class:`~tailrace.IntegrityError` where what says when the run started is damaged.
    """
    try:
        return Journal(store, *read_claim(store, claim_key(project, run_id)))
    except FileNotFoundError:
        return None


def find_runs(
    store: ArtifactStore,
    project: str | None = None,
    run_id: str | None = None,
    *,
    damaged: Callable[[str, IntegrityError], None] | None = None,
) -> Iterator[Journal]:
    """The journals of a store's runs, in no order; of one project, or of one run id, where they are given.

    ``damaged`` is called with the key of each file that is to say when a run started and does not, and with the error;
    without it, that is raised.
    """
    prefix = f"{RUNS}/{segment(project)}/" if project is not None else f"{RUNS}/"
    for key in store.walk(prefix):
        if run_id is not None and not key.endswith(f"/{segment(run_id)}.json"):
            continue
        try:
            found = Journal(store, *read_claim(store, key))
        except FileNotFoundError:  # removed meanwhile
            continue
        except IntegrityError as error:
            if damaged is None:
                raise
            damaged(key, error)
            continue
        yield found


def _task_file(step: str, map_index: int | None) -> str:
    return f"steps/{segment(step)}@{'all' if map_index is None else f'{map_index:06d}'}.json"


def _stored(task: TaskRecord) -> Iterator[tuple[str, ArtifactRef]]:
    yield from task.outputs.items()
    for ref in task.extra:
        yield ref.name, ref


def _json(data: Any) -> bytes:
    try:
        return orjson.dumps(data, default=repr, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # an integer of more than 64 bits, which JSON holds and orjson does not write
        import json

        return json.dumps(data, default=repr).encode()
