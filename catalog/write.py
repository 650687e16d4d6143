"""Manifests and run records, as the rows of the index."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Connection, Table, Update, bindparam, delete, func, insert, select, union, union_all, update

from ..core.refs import Manifest
from ..core.results import TaskRecord
from .journal import FORGOTTEN, RunEnd, RunRecord
from .schema import artifact, parent, run, task, usage, vacant

__all__ = ["Found", "utc", "write_artifacts", "write_runs"]

_SERIES = ("project", "name", "item")
_PLACE = (*_SERIES, "created", "id")  # in a series, whose places are numbered by the last two

_AT_ONCE = 2000  # values in one condition
_RUNS = 100  # runs whose tasks are looked at together

T = TypeVar("T")
_RunKey = tuple[str, str]  # project and run id
_Tasks = tuple[_RunKey, list[TaskRecord]]
_Place = tuple[str | int, ...]  # by _PLACE


@dataclass(frozen=True, slots=True)
class Found:
    """A manifest that was read: in which store, where, and the digest of its bytes."""

    store: str
    uri: str
    manifest_digest: str
    manifest: Manifest


def write_artifacts(connection: Connection, scope_id: int, found: Sequence[Found], gone: Sequence[str] = ()) -> int:
    """Put manifests into the index, in place of what it has at their URIs, and take out what is gone.

    Returns how many were taken out. Part of the caller's transaction; there may be only one of these at a time.
    """
    new = {item.uri: _artifact_row(scope_id, item) for item in found}
    old = {row["uri"]: row for row in _indexed(connection, scope_id, [*new, *gone])}
    moved = []  # rows that take or leave a place in their series
    for uri in {**new, **old}:
        before, after = old.get(uri), new.get(uri)
        if before and after and all(before[name] == after[name] for name in _PLACE):
            after["ordinal"] = before["ordinal"]
        else:
            moved += [row for row in (before, after) if row]
    _delete(connection, artifact, scope_id, [{"uri": uri} for uri in old])
    _delete(connection, parent, scope_id, [{"child_uri": uri} for uri in old])
    _insert(connection, artifact, list(new.values()))
    _insert(connection, parent, [row for item in found for row in _parent_rows(scope_id, item)])
    runs = {(row["project"], row["run_id"]) for row in moved if row["run_id"]}
    moved += _vacate(connection, scope_id, _recorded(connection, scope_id, runs))
    _count(connection, scope_id, moved)
    return len(old.keys() - new.keys())


def _indexed(connection: Connection, scope_id: int, uris: Sequence[str]) -> Iterator[dict[str, Any]]:
    columns = (artifact.c[name] for name in (*_PLACE, "uri", "run_id", "ordinal"))
    query = select(*columns).where(artifact.c.scope == scope_id)
    for start in range(0, len(uris), _AT_ONCE):
        for row in connection.execute(query.where(artifact.c.uri.in_(uris[start : start + _AT_ONCE]))):
            yield row._asdict()


def _recorded(connection: Connection, scope_id: int, runs: Iterable[_RunKey]) -> Iterator[_Tasks]:
    """What is indexed of the tasks of these runs."""
    query = select(task.c.project, task.c.run_id, task.c.record).where(task.c.scope == scope_id)
    for some in _in_parts(runs, _RUNS):
        found: dict[_RunKey, list[TaskRecord]] = {key: [] for key in some}
        for project, run_id, record in connection.execute(query.where(task.c.run_id.in_({key[1] for key in some}))):
            if (project, run_id) in found:
                found[project, run_id].append(TaskRecord.from_dict(record))
        yield from found.items()


def _vacate(connection: Connection, scope_id: int, runs: Iterable[_Tasks]) -> list[dict[str, Any]]:
    """Keep the places of what these runs have recorded and is gone, and of nothing else. Returns those that changed."""
    changed = []
    for some in _in_parts(runs, _RUNS):
        keys = {key for key, _ in some}
        named = [item for key, tasks in some for item in _named(key, tasks)]
        before = _places(connection, scope_id, vacant, keys)
        if not (named or before):
            continue
        there = _places(connection, scope_id, artifact, keys)
        ids = {place[-1] for place in there}
        gone = {
            place: run_id for place, run_id, exact in named if place not in there and (exact or place[-1] not in ids)
        }
        left = [dict(zip(_PLACE, place, strict=True)) for place in before.keys() - gone.keys()]
        taken = [dict(zip(_PLACE, place, strict=True)) for place in gone.keys() - before.keys()]
        _delete(connection, vacant, scope_id, left)
        rows = [{**row, "scope": scope_id, "ordinal": 0, "run_id": gone[tuple(row.values())]} for row in taken]
        _insert(connection, vacant, rows)
        changed += [*left, *taken]
    return changed


def _named(key: _RunKey, tasks: Iterable[TaskRecord]) -> Iterator[tuple[_Place, str, bool]]:
    """The places of what the tasks have stored, and whether they are exact: one without a time has its task's."""
    for done in tasks:
        item = _item(done.map_index)
        for ref in (*done.stored, *done.earlier):
            yield (key[0], ref.name, item, utc(ref.created or done.started), ref.id), key[1], bool(ref.created)


def _places(connection: Connection, scope_id: int, table: Table, runs: Collection[_RunKey]) -> dict[_Place, str]:
    """The places of these runs in a table, with the run's id."""
    query = select(*(table.c[name] for name in (*_PLACE, "run_id"))).where(table.c.scope == scope_id)
    rows = connection.execute(query.where(table.c.run_id.in_({run_id for _, run_id in runs})))
    return {(project, *rest): run_id for project, *rest, run_id in rows if (project, run_id) in runs}


def _in_parts(things: Iterable[T], size: int) -> Iterator[list[T]]:
    left = iter(things)
    while part := list(islice(left, size)):
        yield part


def _count(connection: Connection, scope_id: int, moved: Iterable[Mapping[str, Any]]) -> None:
    """Count the series of these places again, each from the first of them on."""
    since: dict[tuple[Any, ...], str] = {}
    for row in moved:
        key = tuple(row[name] for name in _SERIES)
        since[key] = min(row["created"], since.get(key, row["created"]))
    names = [f"of_{name}" for name in _SERIES]
    values = [
        {"of_scope": scope_id, "since": created, **dict(zip(names, key, strict=True))} for key, created in since.items()
    ]
    if not values:
        return
    connection.execute(_counted(artifact), values)
    if connection.scalar(select(vacant.c.ordinal).limit(1)) is not None:
        connection.execute(_counted(vacant), values)


def _counted(table: Table) -> Update:
    """Number the places of a series in a table among those in both; copies of an artifact are in one place."""
    last, later = [], []
    for each in (artifact, vacant):
        same = [each.c[name] == bindparam(f"of_{name}") for name in ("scope", *_SERIES)]
        before = select(each.c.ordinal).where(*same, each.c.created < bindparam("since"))
        newest = before.order_by(*(each.c[name].desc() for name in _PLACE[-2:])).limit(1).subquery()
        last.append(select(newest.c.ordinal))
        later.append(select(each.c.created, each.c.id).where(*same, each.c.created >= bindparam("since")))
    until = union_all(*last).subquery()
    first = func.coalesce(select(func.max(until.c.ordinal)).scalar_subquery(), 0)
    places = union(*later).subquery()
    number = (first + func.row_number().over(order_by=(places.c.created, places.c.id))).label("ordinal")
    new = select(places.c.created, places.c.id, number).subquery()
    mine = [table.c[name] == bindparam(f"of_{name}") for name in ("scope", *_SERIES)]
    changed = (table.c.created == new.c.created, table.c.id == new.c.id, table.c.ordinal != new.c.ordinal)
    return update(table).values(ordinal=new.c.ordinal).where(*mine, *changed)


def write_runs(
    connection: Connection,
    scope_id: int,
    runs: Iterable[tuple[RunRecord, RunEnd | None, list[TaskRecord]]],
    gone: Iterable[_RunKey],
) -> None:
    """Put runs and their tasks into the index, in place of what it has of them, and take out those that are gone.

    The artifacts that they name are in the index by now.
    """
    named: dict[_RunKey, list[TaskRecord]] = {key: [] for key in gone}
    named |= {(record.run.project, record.run.run_id): tasks for record, _, tasks in runs}
    for table in (run, task, usage):
        _delete(connection, table, scope_id, [{"project": project, "run_id": run_id} for project, run_id in named])
    for record, end, tasks in runs:
        key = {"scope": scope_id, "project": record.run.project, "run_id": record.run.run_id}
        places = {node["step"]: place for place, node in enumerate(record.nodes)}
        _insert(connection, run, [{**key, **_run_values(record, end, tasks)}])
        _insert(connection, task, [{**key, **_task_values(done, places)} for done in tasks])
        _insert(connection, usage, [{**key, **values} for done in tasks for values in _usages(done)])
    _count(connection, scope_id, _vacate(connection, scope_id, named.items()))


def _delete(connection: Connection, table: Table, scope_id: int, keys: Sequence[Mapping[str, Any]]) -> None:
    if keys:
        named = (table.c[name] == bindparam(f"key_{name}") for name in keys[0])
        values = [{f"key_{name}": value for name, value in key.items()} for key in keys]
        connection.execute(delete(table).where(table.c.scope == scope_id, *named), values)


def _insert(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    if rows:
        connection.execute(insert(table), rows)


# --- rows -----------------------------------------------------------------------------------------------------------


def _artifact_row(scope_id: int, found: Found) -> dict[str, Any]:
    manifest, producer = found.manifest, found.manifest.producer
    return {
        "scope": scope_id,
        "uri": found.uri,
        "id": manifest.id,
        "name": manifest.name,
        "type": manifest.type,
        "version": manifest.version,
        "ordinal": 0,
        "step": producer.step if producer else "",
        "output": producer.output if producer else "",
        "item": _item(producer.map_index if producer else None),
        "run_id": producer.run_id if producer else "",
        "pipeline": producer.pipeline if producer else "",
        "project": producer.project if producer else "",
        "store": found.store,
        "digest": manifest.digest,
        "size_bytes": manifest.size_bytes,
        "materializer": manifest.materializer,
        "wrapper": manifest.wrapper,
        "tags": dict(manifest.tags),
        "created": utc(manifest.created),
        "attempt": producer.attempt if producer else 1,
        "code_version": producer.code_version if producer else "",
        "orchestrator": producer.orchestrator if producer else "",
        "manifest_digest": found.manifest_digest,
    }


def _parent_rows(scope_id: int, found: Found) -> Iterator[dict[str, Any]]:
    for position, item in enumerate(found.manifest.parents):
        yield {
            "scope": scope_id,
            "child_uri": found.uri,
            "position": position,
            "child_id": found.manifest.id,
            "parent_id": item.id,
            "parent_uri": item.uri,
            "parent_digest": item.digest,
            "input": item.input,
        }


def _run_values(record: RunRecord, end: RunEnd | None, tasks: list[TaskRecord]) -> dict[str, Any]:
    return {
        "pipeline": record.run.pipeline,
        "state": end.state if end else "running",
        "started": utc(record.run.started.isoformat()),
        "ended": utc(end.ended) if end else None,
        "seconds": end.seconds if end else None,
        "stack": record.run.stack,
        "orchestrator": record.run.orchestrator,
        "steps": len({done.step for done in tasks if done.state != FORGOTTEN}),
        "failed_step": end.failed_step if end else "",
        "error": end.error if end else "",
        "tracker_url": end.tracker_url if end else "",
        "plan_version": record.plan_version,
        "params": dict(record.run.params),
    }


def _task_values(done: TaskRecord, places: Mapping[str, int]) -> dict[str, Any]:
    position = places.get(done.step, len(places))
    return {"step": done.step, "item": _item(done.map_index), "position": position, "record": done.to_dict()}


def _usages(done: TaskRecord) -> Iterator[dict[str, Any]]:
    for name, ids in done.inputs.items():
        for artifact_id in ids:
            yield {"step": done.step, "item": _item(done.map_index), "input": name, "artifact_id": artifact_id}


def _item(map_index: int | None) -> int:
    return -1 if map_index is None else map_index


def utc(time_text: str) -> str:
    """A time in ISO 8601 so that later ones sort later: in UTC, with microseconds. Text that is no time stays."""
    try:
        moment = datetime.fromisoformat(time_text)
    except ValueError:
        return time_text
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
