"""The catalog: what exists, who made it from what. Answers come from an SQL index that follows the stores."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Self, TypeVar

import orjson
from sqlalchemy import URL, insert, select
from sqlalchemy.exc import DBAPIError, IntegrityError

from ..core.errors import RunConflict, StoreError
from ..stores.base import ArtifactStore
from .database import Database, damaged
from .gc import GRACE, Collector, Progress, quiet
from .journal import find_run
from .lineage import LineageGraph
from .queries import Reader
from .removal import refuse_running, remove_artifact, remove_records
from .retention import Retention
from .rows import (
    ArtifactRow,
    CatalogStats,
    Change,
    Consumer,
    Garbage,
    GcReport,
    RunComparison,
    RunDetail,
    RunRow,
    StoreStats,
    SyncReport,
)
from .schema import artifact, run, scope
from .sync import NEAR, Sync
from .write import write_artifacts

__all__ = ["Catalog"]

T = TypeVar("T")

_ABSENT = object()


class Catalog:
    """What the given stores hold. ``url`` is SQLAlchemy's: ``sqlite:///.tailrace/catalog.db``.

    ``stores["default"]`` has the records of the runs; artifacts may be in any of the stores. The index is made on the
    first use and filled from the stores; from then on it is as old as the last :meth:`sync`. An index that is damaged,
    or of another version, is made anew with a warning in the log ``tailrace.catalog``. What the same database holds for
    other sets of stores is neither shown nor touched.

    An artifact's *key* is its id, the beginning of its id, its URI, the digest of its content (then the newest of those
    that hold it is meant) or ``run_id/step/output``, for a mapped step ``run_id/step/output/index``. A key to which
    nothing or too much answers is an :class:`~tailrace.ArtifactNotFound` or :class:`~tailrace.AmbiguousName`.

    ``pinned`` gives the URIs and content digests of what a model registry points at, which is not collected.
    """

    def __init__(
        self,
        url: str | URL,
        stores: Mapping[str, ArtifactStore],
        pinned: Callable[[], Iterable[tuple[str, str]]] = tuple,
    ) -> None:
        roots: dict[str, str] = {}
        for name in sorted(stores, key=lambda name: (name != "default", name)):
            roots.setdefault(stores[name].root_uri, name)  # a place under two names is one store
        self.stores = {name: stores[name] for name in roots.values()}
        self._key = orjson.dumps([[name, uri] for uri, name in roots.items()]).decode()
        self._pinned = pinned
        self._database = Database(url)
        self._scope_id: int | None = None

    def close(self) -> None:
        """Close the database. The next use opens it again."""
        self._database.close()
        self._scope_id = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- following the stores ----------------------------------------------------------------------------------------

    def sync(self, *, walk: bool = True) -> SyncReport:
        """Bring the index up to date: see :mod:`tailrace.catalog.sync` for what is looked at, and what is not.

        ``walk=False`` looks at runs only, not for what was saved or deleted by hand. Records and manifests that cannot
        be read are in the report's ``problems``. Raises what a store raises that cannot be reached.
        """
        near = [name for name, store in self.stores.items() if store.scheme in NEAR]
        return self._guard(lambda: self._sync((near if walk else []) if self._filled() else self.stores))

    def look(self, uris: Iterable[str]) -> SyncReport:
        """Bring the index up to date at these places: what was just copied there, or deleted. Also in a bucket."""
        return self._guard(lambda: Sync(self._database, self._scope, self.stores, ()).look(uris))

    def rebuild(self) -> SyncReport:
        """Read everything anew: the same answers as from a new index, also where a sync does not look."""
        return self._guard(lambda: self._sync(self.stores, anew=True))

    def _filled(self) -> bool:
        scope_id = self._scope
        with self._database.reading() as connection:
            return Reader(connection, scope_id).filled()

    def _sync(self, walk: Iterable[str], *, anew: bool = False) -> SyncReport:
        return Sync(self._database, self._scope, self.stores, list(walk), anew=anew).run()

    @property
    def _scope(self) -> int:
        """The number of this set of stores in the database."""
        if self._scope_id is None:
            known = select(scope.c.id).where(scope.c.stores == self._key)
            with self._database.reading() as connection:
                found = connection.scalar(known)
            if found is None:
                # Where another process is first, its number is ours.
                with contextlib.suppress(IntegrityError), self._database.writing() as connection:
                    connection.execute(insert(scope).values(stores=self._key, synced=""))
                with self._database.reading() as connection:
                    found = connection.scalars(known).one()
            self._scope_id = found
        return self._scope_id

    def _guard(self, act: Callable[[], T]) -> T:
        """Act, and once more on a new index if this one turns out to be damaged."""
        try:
            return act()
        except DBAPIError as error:
            if not damaged(error):
                what = str(error.orig).partition("\n")[0]
                raise StoreError(
                    f"The index {self._database.url} cannot be used: {what}. Nothing is lost: it follows from the "
                    "stores. Mend the database, or name another place: catalog: {url: ...} in tailrace.yaml."
                ) from error
            self._database.replace(error)
            self._scope_id = None
            return act()

    def _ask(self, question: Callable[[Reader], T]) -> T:
        """The answer, from an index that has been filled at least once."""

        def ask() -> T:
            scope_id = self._scope
            with self._database.reading() as connection:
                reader = Reader(connection, scope_id)
                if reader.filled():
                    return question(reader)
            self._sync(self.stores)
            with self._database.reading() as connection:
                return question(Reader(connection, scope_id))

        return self._guard(ask)

    # --- runs --------------------------------------------------------------------------------------------------------

    def runs(
        self,
        project: str | None = None,
        pipeline: str | None = None,
        state: str | None = None,
        limit: int | None = None,
    ) -> list[RunRow]:
        """The runs, newest first. ``state`` is ``running``, ``completed``, ``failed`` or ``cancelled``."""
        wanted = {"project": project, "pipeline": pipeline, "state": state}
        where = [run.c[name] == value for name, value in wanted.items() if value is not None]
        return self._ask(lambda reader: reader.runs(*where, limit=limit))

    def run(self, run_id: str, project: str | None = None) -> RunDetail:
        """One run with its parameters and tasks; ``project`` is needed where two of them have a run of this id.

        Raises :class:`~tailrace.RunNotFound` and :class:`~tailrace.AmbiguousName`.
        """
        return self._ask(lambda reader: reader.run(run_id, project))

    def compare(self, run_a: str, run_b: str) -> RunComparison:
        """What changed from one run to the other: parameters, and outputs by step, output and item."""
        asked_a, asked_b = self.run(run_a).params, self.run(run_b).params
        names = sorted({*asked_a, *asked_b})
        differing = [name for name in names if asked_a.get(name, _ABSENT) != asked_b.get(name, _ABSENT)]
        params = {name: (asked_a.get(name), asked_b.get(name)) for name in differing}
        made_a, made_b = (self._by_output(run_id) for run_id in (run_a, run_b))
        places = sorted({*made_a, *made_b}, key=lambda place: (*place[:2], -1 if place[2] is None else place[2]))
        changes = tuple(_change(place, made_a.get(place), made_b.get(place)) for place in places)
        return RunComparison(run_a, run_b, params, changes)

    def _by_output(self, run_id: str) -> dict[tuple[str, str, int | None], ArtifactRow]:
        oldest_first = reversed(self.artifacts(run_id=run_id))
        return {(made.step, made.output, made.map_index): made for made in oldest_first}

    # --- artifacts ---------------------------------------------------------------------------------------------------

    def artifacts(
        self,
        run_id: str | None = None,
        name: str | None = None,
        type: str | None = None,
        step: str | None = None,
        digest: str | None = None,
        limit: int | None = None,
    ) -> list[ArtifactRow]:
        """The artifacts, newest first. ``type`` is the whole name or its last part (``DataFrame``)."""
        wanted = {"run_id": run_id, "name": name, "step": step, "digest": digest}
        where = [artifact.c[column] == value for column, value in wanted.items() if value is not None]
        if type is not None:
            where.append((artifact.c.type == type) | artifact.c.type.endswith(f".{type}", autoescape=True))
        return self._ask(lambda reader: reader.artifacts(*where, limit=limit))

    def artifact(self, key: str) -> ArtifactRow:
        """The artifact of a key."""
        return self._ask(lambda reader: reader.artifact(key))

    def parents(self, key: str) -> list[ArtifactRow]:
        """What the artifact was made from, as far as it still exists; :meth:`lineage` has what does not, too."""
        return self._ask(lambda reader: reader.related(key, up=True))

    def children(self, key: str) -> list[ArtifactRow]:
        """What was made from the artifact."""
        return self._ask(lambda reader: reader.related(key, up=False))

    def consumers(self, key: str) -> list[Consumer]:
        """The tasks that took the artifact as an input, in the order of their runs."""
        return self._ask(lambda reader: reader.consumers(key))

    def lineage(self, key: str, *, up: bool = True, down: bool = True, depth: int | None = None) -> LineageGraph:
        """The artifact with all that it was made from (``up``) and all that was made from it (``down``).

        ``depth`` limits how many steps away. An artifact that is recorded as a parent and is in none of the stores is a
        node that is ``missing``; its id is a key here too.
        """
        return self._ask(lambda reader: reader.lineage(key, up=up, down=down, depth=depth))

    def stats(self) -> CatalogStats:
        """Counts over everything."""
        return self._ask(lambda reader: reader.stats())

    # --- what nobody needs -------------------------------------------------------------------------------------------

    def get_stats(self, *, progress: Progress = quiet) -> StoreStats:
        """What the stores hold and how much of it is shared, counted in the stores: every manifest is read."""
        collector = Collector(self.stores, progress=progress, digests=True)
        orphans = collector.find()
        marks = [mark for place in collector.places.values() for mark in place.marks]
        piles = (pile for place in collector.places.values() for pile in place.inventory.data())
        total, actual = sum(mark.size for mark in marks), sum(pile.size for pile in piles)
        return StoreStats(
            len(marks),
            len({digest for mark in marks for digest in mark.digests}),
            total,
            actual,
            total / actual if actual else 1.0,
            dict(sorted(Counter(mark.type for mark in marks).items())),
            len(orphans),
            sum(item.bytes for item in orphans),
        )

    def collect_garbage(
        self,
        rule: Retention | None = None,
        *,
        dry_run: bool = True,
        grace: float = GRACE,
        progress: Progress = quiet,
    ) -> GcReport:
        """Remove what nothing names and has not been written for ``grace`` seconds, and what the rule lets go.

        With ``dry_run`` it is only found. Runs may go on meanwhile. What is removed leaves the index, too.
        """
        collector = Collector(self.stores, grace=grace, rule=rule, pinned=self._pinned(), progress=progress)
        found = collector.find()
        if dry_run:
            return GcReport(False, tuple(found), problems=tuple(collector.problems))
        report = collector.remove(found)
        self._forget(self.stores[item.store].uri(item.key) for item in report.items if item.kind == "artifact")
        return report

    def find_orphaned_artifacts(self, *, grace: float = GRACE) -> list[Garbage]:
        """What no manifest, run or registry names, read from the stores; nothing younger than ``grace`` seconds."""
        return list(self.collect_garbage(grace=grace).items)

    def delete_orphaned_artifacts(self, dry_run: bool = True, *, grace: float = GRACE) -> GcReport:
        """Remove what :meth:`find_orphaned_artifacts` finds; unless told so, only say what that would be."""
        return self.collect_garbage(dry_run=dry_run, grace=grace)

    def delete_pipeline_artifacts(self, pipeline_id: str, delete_files: bool = False) -> int:
        """Delete the artifacts that a pipeline (its name) has made: how many. Their files are orphans then, or go too.

        Raises :class:`~tailrace.RunConflict`, and deletes nothing, while one of its runs has not ended.
        """
        self.sync()
        refuse_running(self.runs(pipeline=pipeline_id))
        where = artifact.c.pipeline == pipeline_id
        return self._delete(self._ask(lambda reader: reader.artifacts(where)), files=delete_files)

    def purge_dataset_artifacts(self, confirm: bool = False) -> int:
        """Delete every artifact of the type Dataset, with its files: how many. ``ValueError`` unless confirmed.

        Raises :class:`~tailrace.RunConflict`, and deletes nothing, while a run has not ended.
        """
        if not confirm:
            raise ValueError("This deletes every dataset of the stores. Call purge_dataset_artifacts(confirm=True).")
        self.sync()
        refuse_running(self.runs())
        return self._delete(self.artifacts(type="Dataset"), files=True)

    def cleanup_failed_run(self, run_id: str, project: str | None = None, *, lost: bool = False) -> int:
        """Delete a run that failed or was cancelled: its artifacts with their files (how many), then its records.

        Raises :class:`~tailrace.RunConflict` for a run that completed, or that has not ended; with ``lost``, its
        process is known to be gone. What an interrupted call has left is deleted by calling again.
        """
        self.sync()
        of = self.run(run_id, project).run
        if of.state == "completed" or (of.state == "running" and not lost):
            raise RunConflict(f"The run {run_id!r} is {of.state}, so it is kept: only what failed is cleaned up.")
        mine = [made for made in self.artifacts(run_id=run_id) if made.project == of.project]
        count = self._delete(mine, files=True)
        store = self.stores["default"]
        remove_records(store, find_run(store, of.project, run_id))
        self.sync()
        return count

    def _delete(self, rows: Iterable[ArtifactRow], *, files: bool) -> int:
        deleted = []
        for made in rows:
            remove_artifact(self.stores[made.store], made, files=files)
            deleted.append(made.uri)
        return self._forget(deleted)

    def _forget(self, uris: Iterable[str]) -> int:
        """Take artifacts out of the index that are not in the stores any more; how many they were."""
        gone = list(uris)

        def forget() -> int:
            number = self._scope
            with self._database.writing() as connection:
                connection.execute(select(scope.c.id).where(scope.c.id == number).with_for_update())
                write_artifacts(connection, number, [], gone)
            return len(gone)

        return self._guard(forget) if gone else 0


def _change(place: tuple[str, str, int | None], a: ArtifactRow | None, b: ArtifactRow | None) -> Change:
    if a is None or b is None:
        change = "only in b" if a is None else "only in a"
    else:
        change = "same" if a.digest == b.digest else "changed"
    code_changed = a is not None and b is not None and a.code_version != b.code_version
    ids = (a.id if a else "", b.id if b else "")
    return Change(*place, change, code_changed, *ids, a.digest if a else "", b.digest if b else "")
