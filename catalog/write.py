"""Manifests and run records, as the rows of the index."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Table, Update, bindparam, delete, func, insert, select, update

from ..core.refs import Manifest
from ..core.results import TaskRecord
from .journal import RunEnd, RunRecord
from .schema import artifact, parent, run, task, usage

__all__ = ["Found", "utc", "write_artifacts", "write_runs"]

_SERIES = (artifact.c.project, artifact.c.name, artifact.c.item)
_ORDER = (artifact.c.created, artifact.c.id, artifact.c.uri)
_AT_ONCE = 2000  # values in one condition


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
        if before and after and all(before[column.name] == after[column.name] for column in (*_SERIES, *_ORDER)):
            after["ordinal"] = before["ordinal"]
        else:
            moved += [row for row in (before, after) if row]
    _delete(connection, artifact, scope_id, [{"uri": uri} for uri in old])
    _delete(connection, parent, scope_id, [{"child_uri": uri} for uri in old])
    _insert(connection, artifact, list(new.values()))
    _insert(connection, parent, [row for item in found for row in _parent_rows(scope_id, item)])
    _count(connection, scope_id, moved)
    return len(old.keys() - new.keys())


def _indexed(connection: Connection, scope_id: int, uris: Sequence[str]) -> Iterator[dict[str, Any]]:
    query = select(artifact.c.ordinal, *_SERIES, *_ORDER).where(artifact.c.scope == scope_id)
    for start in range(0, len(uris), _AT_ONCE):
        for row in connection.execute(query.where(artifact.c.uri.in_(uris[start : start + _AT_ONCE]))):
            yield row._asdict()


def _count(connection: Connection, scope_id: int, moved: Iterable[Mapping[str, Any]]) -> None:
    """Count the series of these rows again, each from the first of them on."""
    since: dict[tuple[Any, ...], str] = {}
    for row in moved:
        key = tuple(row[column.name] for column in _SERIES)
        since[key] = min(row["created"], since.get(key, row["created"]))
    names = [f"of_{column.name}" for column in _SERIES]
    values = [
        {"of_scope": scope_id, "since": created, **dict(zip(names, key, strict=True))} for key, created in since.items()
    ]
    if values:
        connection.execute(_counted(), values)


def _counted() -> Update:
    same = [column == bindparam(f"of_{column.name}") for column in (artifact.c.scope, *_SERIES)]
    last = select(artifact.c.ordinal).where(*same, artifact.c.created < bindparam("since"))
    before = last.order_by(*(column.desc() for column in _ORDER)).limit(1).scalar_subquery()
    number = (func.coalesce(before, 0) + func.row_number().over(order_by=_ORDER)).label("ordinal")
    new = select(artifact.c.uri, number).where(*same, artifact.c.created >= bindparam("since")).subquery()
    changed = (artifact.c.uri == new.c.uri, artifact.c.ordinal != new.c.ordinal)
    return update(artifact).values(ordinal=new.c.ordinal).where(*same, *changed)


def write_runs(
    connection: Connection,
    scope_id: int,
    runs: Iterable[tuple[RunRecord, RunEnd | None, list[TaskRecord]]],
    gone: Iterable[tuple[str, str]],
) -> None:
    """Put runs and their tasks into the index, in place of what it has of them, and take out those that are gone."""
    keys = [*gone, *((record.run.project, record.run.run_id) for record, _, _ in runs)]
    for table in (run, task, usage):
        _delete(connection, table, scope_id, [{"project": project, "run_id": run_id} for project, run_id in keys])
    for record, end, tasks in runs:
        key = {"scope": scope_id, "project": record.run.project, "run_id": record.run.run_id}
        places = {node["step"]: place for place, node in enumerate(record.nodes)}
        _insert(connection, run, [{**key, **_run_values(record, end, tasks)}])
        _insert(connection, task, [{**key, **_task_values(done, places)} for done in tasks])
        _insert(connection, usage, [{**key, **values} for done in tasks for values in _usages(done)])


def _delete(connection: Connection, table: Table, scope_id: int, keys: list[dict[str, str]]) -> None:
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
        "steps": len({done.step for done in tasks}),
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
