"""From the stores to the index: reads what is new there and writes it down. The stores are never changed.

What is looked at:

* One small file per run says how it ended. A run whose end is the one that was indexed is done with; a run that was
  started again under its id has another end, or none. A run without an end is read again each time.
* Of a run that is read, only those manifests are opened that its tasks' references say are new.
* A store that is *walked* is listed as a whole, so that artifacts saved by hand appear, deleted ones disappear, and
  those saved by hand are compared. Every sync walks the stores of this machine (half a second for 10,000 artifacts);
  the others, where a listing is slow and costs money, are walked by the first sync and by a rebuild.

Only a rebuild notices a run's manifest that was replaced by hand, and the record of a task that ended after its run.

The stores are read before the index is written, a batch at a time, and each batch leaves the index whole. Two processes
may do this at once: they write the same.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import Connection, Table, Update, bindparam, delete, func, insert, select, update

from ..core.names import MANIFEST
from ..core.refs import ArtifactRef, Manifest
from ..core.results import TaskRecord
from ..materializers.files import digest_bytes
from ..stores.base import ArtifactStore
from .database import Database
from .journal import Journal, RunEnd, RunRecord, find_runs
from .rows import SyncReport
from .schema import artifact, parent, run, scope, task, usage

__all__ = ["NEAR", "Found", "Sync", "write_artifacts"]

NEAR = frozenset({"file", "memory"})
"""The schemes of the stores that every sync walks."""

_SERIES = (artifact.c.project, artifact.c.name, artifact.c.item)
_ORDER = (artifact.c.created, artifact.c.id, artifact.c.uri)

_BATCH = 2000  # manifests in memory, and in one transaction
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError)  # what JSON that is damaged, or not ours, raises
_READERS = 16  # concurrent reads from a store that is not near


@dataclass(frozen=True, slots=True)
class Found:
    """A manifest that was read: in which store, where, and the digest of its bytes."""

    store: str
    uri: str
    manifest_digest: str
    manifest: Manifest


@dataclass(slots=True)
class _Batch:
    """What is read together and written in one transaction: runs, ids of runs that are gone, and places to look at."""

    runs: list[tuple[RunRecord, RunEnd | None, list[TaskRecord]]] = field(default_factory=list)
    gone: list[tuple[str, str]] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)  # URI -> name of its store
    known: dict[str, str] = field(default_factory=dict)  # URI -> digest of the manifest that is indexed


class Sync:
    """One pass over the stores of a scope; those named in ``walk`` are listed as a whole.

    With ``anew`` nothing that is indexed is taken for granted: every record and manifest that is found is read and
    written. The index is never empty meanwhile, so that those who ask it are answered.
    """

    def __init__(
        self,
        database: Database,
        scope_id: int,
        stores: Mapping[str, ArtifactStore],
        walk: Collection[str],
        *,
        anew: bool = False,
    ) -> None:
        self.database = database
        self.scope = scope_id
        self.stores = stores
        self.roots = sorted(((f"{store.root_uri}/", name) for name, store in stores.items()), reverse=True)
        self.walk = walk
        self.anew = anew
        self.looked_at: set[str] = set()
        self.problems: list[str] = []
        self.runs = self.artifacts = self.removed = 0

    def run(self) -> SyncReport:
        """Bring the index up to date and say what that took. What cannot be read is reported."""
        begin = time.perf_counter()
        for batch in self._run_batches():
            self._write(batch)
        for name in self.walk:
            for batch in self._walk_batches(name):
                self._write(batch)
        with self.database.writing() as connection:
            now = datetime.now(UTC).isoformat()
            connection.execute(update(scope).where(scope.c.id == self.scope).values(synced=now))
        seconds = time.perf_counter() - begin
        return SyncReport(self.runs, self.artifacts, self.removed, seconds, tuple(self.problems))

    # --- what to look at ---------------------------------------------------------------------------------------------

    def _run_batches(self) -> Iterator[_Batch]:
        with self.database.reading() as connection:
            rows = connection.execute(select(run.c.project, run.c.run_id, run.c.ended).where(run.c.scope == self.scope))
            indexed = {(project, run_id): ended for project, run_id, ended in rows}
        store = self.stores["default"]
        try:
            journals = sorted(find_runs(store), key=lambda journal: journal.started)  # so that versions count upwards
        except _UNREADABLE as error:
            self.problems.append(f"The runs of {store.root_uri} cannot be listed, so none is up to date: {error!r}")
            return
        gone = set(indexed)
        batch = _Batch()
        for journal in journals:
            key = (journal.project, journal.run_id)
            try:
                if self._add_run(batch, journal, indexed):
                    gone.discard(key)
            except (*_UNREADABLE, FileNotFoundError) as error:
                gone.discard(key)
                self.problems.append(f"The records of run {journal.run_id!r} cannot be read: {error!r}")
            if len(batch.runs) + len(batch.places) >= _BATCH:
                yield batch
                batch = _Batch()
        for project, run_id in gone:
            batch.gone.append((project, run_id))
            self._add_indexed(batch, project, run_id)
        yield batch

    def _add_run(self, batch: _Batch, journal: Journal, indexed: Mapping[tuple[str, str], str | None]) -> bool:
        """Read a run, unless it is indexed as it ended. False for an id under which things were only saved by hand."""
        key = (journal.project, journal.run_id)
        end = journal.end()
        if end is not None and _utc(end.ended) == indexed.get(key) and not self.anew:
            return True
        record = journal.record()
        if record is None:
            return False
        tasks = list(journal.tasks())
        if key in indexed:
            self._add_indexed(batch, *key)
        for ref in (ref for done in tasks for ref in (*done.outputs.values(), *done.extra)):
            if batch.known.get(ref.uri) == ref.manifest_digest:
                batch.places.pop(ref.uri, None)
            else:
                self._add_ref(batch, ref, journal.run_id)
        batch.runs.append((record, end, tasks))
        return True

    def _add_indexed(self, batch: _Batch, project: str, run_id: str) -> None:
        """Look at what is indexed of a run: whatever no reference of it vouches for may be gone."""
        columns = (artifact.c.uri, artifact.c.store, artifact.c.manifest_digest)
        mine = (artifact.c.scope == self.scope, artifact.c.project == project, artifact.c.run_id == run_id)
        with self.database.reading() as connection:
            for uri, store, digest in connection.execute(select(*columns).where(*mine)):
                batch.places[uri] = store
                if not self.anew:
                    batch.known[uri] = digest

    def _add_ref(self, batch: _Batch, ref: ArtifactRef, run_id: str) -> None:
        name = self._store_of(ref.uri)
        if name is None:
            self.problems.append(f"{ref.uri!r} of run {run_id!r} is in none of the stores {', '.join(self.stores)}.")
        else:
            batch.places[ref.uri] = name

    def _store_of(self, uri: str) -> str | None:
        """The store that a URI is in: of one inside another, the inner one."""
        return next((name for root, name in self.roots if uri.startswith(root)), None)

    def _walk_batches(self, name: str) -> Iterator[_Batch]:
        columns = (artifact.c.uri, artifact.c.run_id, artifact.c.manifest_digest)
        mine = (artifact.c.scope == self.scope, artifact.c.store == name)
        with self.database.reading() as connection:
            indexed = {uri: (by, digest) for uri, by, digest in connection.execute(select(*columns).where(*mine))}
        store = self.stores[name]
        found = {uri for uri in map(store.uri, store.list_artifacts()) if self._store_of(uri) == name}
        by_hand = (uri for uri, (run_id, _) in indexed.items() if not run_id)
        wanted = {*found, *indexed} if self.anew else {*(found ^ indexed.keys()), *by_hand}
        look_at = sorted(wanted - self.looked_at)
        for start in range(0, len(look_at), _BATCH):
            places = dict.fromkeys(look_at[start : start + _BATCH], name)
            known = {} if self.anew else {uri: indexed[uri][1] for uri in places if uri in indexed}
            yield _Batch(places=places, known=known)

    # --- reading and writing -----------------------------------------------------------------------------------------

    def _write(self, batch: _Batch) -> None:
        found, gone = self._read(batch)
        if not (found or gone or batch.runs or batch.gone):
            return
        with self.database.writing() as connection:
            # One writer at a time, also where the database would let several: each counts on what it has read here.
            connection.execute(select(scope.c.id).where(scope.c.id == self.scope).with_for_update())
            self.removed += write_artifacts(connection, self.scope, found, gone)
            _write_runs(connection, self.scope, batch.runs, batch.gone)
        self.artifacts += len(found)
        self.runs += len(batch.runs)

    def _read(self, batch: _Batch) -> tuple[list[Found], list[str]]:
        """The manifests that are new or changed, and the URIs where there is none."""
        found: list[Found] = []
        gone: list[str] = []
        self.looked_at.update(batch.places)
        for uri, data in self._fetch(batch.places):
            if data is None:
                gone.append(uri)
                continue
            digest = digest_bytes(data)
            if batch.known.get(uri) == digest:
                continue
            try:
                found.append(Found(batch.places[uri], uri, digest, Manifest.from_dict(orjson.loads(data))))
            except _UNREADABLE as error:
                self.problems.append(f"The manifest of {uri!r} cannot be read: {error!r}")
                gone.append(uri)
        return found, gone

    def _fetch(self, places: Mapping[str, str]) -> Iterator[tuple[str, bytes | None]]:
        far = []
        for uri, name in places.items():
            if self.stores[name].scheme in NEAR:
                yield uri, self._manifest((uri, name))
            else:
                far.append((uri, name))
        if far:
            with ThreadPoolExecutor(_READERS) as pool:
                for (uri, _), data in zip(far, pool.map(self._manifest, far), strict=True):
                    yield uri, data

    def _manifest(self, place: tuple[str, str]) -> bytes | None:
        uri, name = place
        store = self.stores[name]
        try:
            return store.read(f"{store.key(uri)}/{MANIFEST}")
        except FileNotFoundError:
            return None


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
    for start in range(0, len(uris), _BATCH):
        for row in connection.execute(query.where(artifact.c.uri.in_(uris[start : start + _BATCH]))):
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


def _write_runs(
    connection: Connection,
    scope_id: int,
    runs: Iterable[tuple[RunRecord, RunEnd | None, list[TaskRecord]]],
    gone: Iterable[tuple[str, str]],
) -> None:
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
        "created": _utc(manifest.created),
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
        "started": _utc(record.run.started.isoformat()),
        "ended": _utc(end.ended) if end else None,
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


def _utc(time_text: str) -> str:
    """A time in ISO 8601 so that later ones sort later: in UTC, with microseconds. Text that is no time stays."""
    try:
        moment = datetime.fromisoformat(time_text)
    except ValueError:
        return time_text
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
