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
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy import select, update

from ..core.errors import IntegrityError
from ..core.names import MANIFEST
from ..core.refs import ArtifactRef
from ..core.results import TaskRecord
from ..materializers.files import digest_bytes
from ..stores.base import ArtifactStore
from ..stores.layout import claim_key
from ..stores.manifests import parsed
from .database import Database
from .journal import Journal, RunEnd, RunRecord, find_runs
from .rows import SyncReport
from .schema import artifact, run, scope
from .write import Found, utc, write_artifacts, write_runs

__all__ = ["NEAR", "Sync"]

NEAR = frozenset({"file", "memory"})
"""The schemes of the stores that every sync walks."""

_BATCH = 2000  # manifests in memory, and in one transaction
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError)  # what JSON that is damaged, or not ours, raises
_READERS = 16  # concurrent reads from a store that is not near


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

    def look(self, uris: Iterable[str]) -> SyncReport:
        """Bring the index up to date at these places only."""
        begin = time.perf_counter()
        places = {uri: name for uri in uris if (name := self._store_of(uri)) is not None}
        for start in range(0, len(places), _BATCH):
            self._write(_Batch(places=dict(list(places.items())[start : start + _BATCH])))
        seconds = time.perf_counter() - begin
        return SyncReport(self.runs, self.artifacts, self.removed, seconds, tuple(self.problems))

    # --- what to look at ---------------------------------------------------------------------------------------------

    def _run_batches(self) -> Iterator[_Batch]:
        with self.database.reading() as connection:
            rows = connection.execute(select(run.c.project, run.c.run_id, run.c.ended).where(run.c.scope == self.scope))
            indexed = {(project, run_id): ended for project, run_id, ended in rows}
        store = self.stores["default"]
        damaged: dict[str, IntegrityError] = {}
        found = find_runs(store, damaged=damaged.__setitem__)
        journals = sorted(found, key=lambda journal: journal.started)  # so that versions count upwards
        self.problems += map(str, damaged.values())
        gone = {key for key in indexed if claim_key(*key) not in damaged}
        batch = _Batch()
        for journal in journals:
            key = (journal.project, journal.run_id)
            try:
                if self._add_run(batch, journal, indexed):
                    gone.discard(key)
            except IntegrityError as error:
                gone.discard(key)
                self.problems.append(str(error))
            except _UNREADABLE as error:  # JSON of ours that says nonsense
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
        if end is not None and utc(end.ended) == indexed.get(key) and not self.anew:
            return True
        record = journal.record()
        if record is None:
            return False
        tasks = list(journal.records())
        if key in indexed:
            self._add_indexed(batch, *key)
        for ref in (ref for done in tasks for ref in done.stored):
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
            write_runs(connection, self.scope, batch.runs, batch.gone)
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
                found.append(Found(batch.places[uri], uri, digest, parsed(data)))
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
