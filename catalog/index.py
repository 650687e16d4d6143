"""The catalog: what exists, who made it from what. Answers come from an SQL index that follows the stores."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import orjson
from sqlalchemy import CTE, ColumnElement, Connection, Row, Select, String, cast, delete, func, insert, literal, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from ..core.errors import AmbiguousName, ArtifactNotFound, RunNotFound
from ..core.results import TaskRecord
from ..stores.base import ArtifactStore
from .database import Database, damaged
from .lineage import LineageEdge, LineageGraph, LineageNode
from .rows import ArtifactRow, CatalogStats, Change, Consumer, RunComparison, RunDetail, RunRow, SyncReport
from .schema import artifact, parent, run, scope, task, usage
from .sync import NEAR, Sync

__all__ = ["Catalog"]

T = TypeVar("T")

_SHOWN = 10  # candidates that an error lists


class Catalog:
    """What the given stores hold. ``url`` is SQLAlchemy's, for example ``sqlite:////home/me/project/.tailrace/catalog.db``.

    ``stores["default"]`` has the records of the runs; artifacts may be in any of the stores. The index is made on the
    first use and filled from the stores; from then on it is as old as the last :meth:`sync`. An index that is damaged, or of
    another version, is made anew with a warning in the log ``tailrace.catalog``. Indexes of other sets of stores in the
    same database are not touched.

    An artifact's *key* is its id, the beginning of its id, its URI, the digest of its content (then the newest of
    those that hold it is meant) or ``run_id/step/output``, for a mapped step ``run_id/step/output/index``.
    """

    def __init__(self, url: str, stores: Mapping[str, ArtifactStore]) -> None:
        roots: dict[str, str] = {}
        for name in sorted(stores, key=lambda name: (name != "default", name)):
            roots.setdefault(stores[name].root_uri, name)  # a place under two names is one store
        self.stores = {name: stores[name] for name in roots.values()}
        self._stores_text = orjson.dumps([[name, uri] for uri, name in roots.items()]).decode()
        self._database = Database(url)
        self._scope_id: int | None = None

    def close(self) -> None:
        """Close the database. The next use opens it again."""
        self._database.close()
        self._scope_id = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # --- following the stores -------------------------------------------------------------------------------------------

    def sync(self, *, walk: bool = True) -> SyncReport:
        """Bring the index up to date: see :mod:`tailrace.catalog.sync` for what is looked at.

        ``walk=False`` looks at runs only, not for what was saved or deleted by hand. Records and manifests that cannot be
        read are in the report's ``problems``. Raises what a store raises that cannot be reached.
        """
        near = [name for name, store in self.stores.items() if store.scheme in NEAR]
        return self._guard(lambda: self._fill() or self._sync(near if walk else []))

    def rebuild(self) -> SyncReport:
        """Empty the index and fill it from the stores: the same answers as before, unless the stores have changed."""

        def again() -> SyncReport:
            with self._database.writing() as connection:
                for table in (artifact, parent, run, task, usage):
                    connection.execute(delete(table).where(table.c.scope == self._scope))
                connection.execute(update(scope).where(scope.c.id == self._scope).values(synced=""))
            return self._sync(self.stores)

        return self._guard(again)

    def _sync(self, walk: Iterable[str]) -> SyncReport:
        return Sync(self._database, self._scope, self.stores, list(walk)).run()

    def _fill(self) -> SyncReport | None:
        """Fill the index if it is new."""
        with self._database.reading() as connection:
            synced = connection.scalar(select(scope.c.synced).where(scope.c.id == self._scope))
        return None if synced else self._sync(self.stores)

    @property
    def _scope(self) -> int:
        if self._scope_id is None:
            known = select(scope.c.id).where(scope.c.stores == self._stores_text)
            with self._database.reading() as connection:
                self._scope_id = connection.scalar(known)
        if self._scope_id is None:
            try:
                with self._database.writing() as connection:
                    connection.execute(insert(scope).values(stores=self._stores_text, synced=""))
            except IntegrityError:  # another process was first
                pass
            with self._database.reading() as connection:
                self._scope_id = connection.scalars(known).one()
        return self._scope_id

    def _guard(self, act: Callable[[], T]) -> T:
        """Act, a second time on a new index if this one is found to be damaged."""
        try:
            return act()
        except DBAPIError as error:
            if not damaged(error):
                raise
            self._database.replace(error)
            self._scope_id = None
            return act()

    def _answer(self, query: Callable[[Connection], T]) -> T:
        def answer() -> T:
            self._fill()
            with self._database.reading() as connection:
                return query(connection)

        return self._guard(answer)

    # --- runs -----------------------------------------------------------------------------------------------------------

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
        order = (run.c.started.desc(), run.c.run_id.desc(), run.c.project)
        return self._answer(lambda connection: self._runs(connection, *where, order=order, limit=limit))

    def _runs(
        self, connection: Connection, *where: ColumnElement[bool], order: Sequence[Any] = (), limit: int | None = None
    ) -> list[RunRow]:
        count = (
            select(func.count())
            .where(artifact.c.scope == run.c.scope, artifact.c.run_id == run.c.run_id, artifact.c.project == run.c.project)
            .scalar_subquery()
            .label("artifacts")
        )
        columns = [count if name == "artifacts" else run.c[name] for name in RunRow.__slots__]
        query = select(*columns).where(run.c.scope == self._scope, *where).order_by(*order).limit(limit)
        return [RunRow(*row) for row in connection.execute(query)]

    def run(self, run_id: str, project: str | None = None) -> RunDetail:
        """One run with its parameters and tasks. The project is needed where two have a run of this id.

        Raises :class:`~tailrace.RunNotFound` and :class:`~tailrace.AmbiguousName`.
        """
        return self._answer(lambda connection: self._run(connection, run_id, project))

    def _run(self, connection: Connection, run_id: str, project: str | None) -> RunDetail:
        where = [run.c.run_id == run_id, *([run.c.project == project] if project is not None else [])]
        found = self._runs(connection, *where)
        if not found:
            raise RunNotFound(self._no_run(connection, run_id))
        if len(found) > 1:
            projects = sorted(row.project for row in found)
            raise AmbiguousName(f"There is a run {run_id!r} in the projects {', '.join(projects)}. Name the project.", projects)
        key = (run.c.scope == self._scope, run.c.run_id == run_id, run.c.project == found[0].project)
        asked = connection.execute(select(run.c.plan_version, run.c.params).where(*key)).one()
        tasks = select(task.c.record).where(
            task.c.scope == self._scope, task.c.run_id == run_id, task.c.project == found[0].project
        )
        records = connection.scalars(tasks.order_by(task.c.position, task.c.step, task.c.item))
        return RunDetail(found[0], asked.plan_version, asked.params, tuple(map(TaskRecord.from_dict, records)))

    def _no_run(self, connection: Connection, run_id: str) -> str:
        latest = select(run.c.run_id).where(run.c.scope == self._scope).order_by(run.c.started.desc()).limit(1000)
        near = difflib.get_close_matches(run_id, connection.scalars(latest), n=3)
        return f"No run {run_id!r} is recorded.{_did_you_mean(near, 'tailrace runs ls')}"

    def compare(self, run_a: str, run_b: str) -> RunComparison:
        """What changed from one run to the other: parameters, and outputs by step, output and item."""
        one, other = self.run(run_a), self.run(run_b)
        sentinel = object()
        names = sorted({*one.params, *other.params})
        params = {
            name: (one.params.get(name), other.params.get(name))
            for name in names
            if one.params.get(name, sentinel) != other.params.get(name, sentinel)
        }
        made_a, made_b = (
            {(row.step, row.output, row.map_index): row for row in reversed(self.artifacts(run_id=of.run.run_id))}
            for of in (one, other)
        )
        places = sorted({*made_a, *made_b}, key=lambda place: (place[0], place[1], -1 if place[2] is None else place[2]))
        return RunComparison(run_a, run_b, params, tuple(_change(*place, made_a.get(place), made_b.get(place)) for place in places))

    # --- artifacts ------------------------------------------------------------------------------------------------------

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
        return self._answer(lambda connection: self._artifacts(connection, *where, limit=limit))

    def artifact(self, key: str) -> ArtifactRow:
        """The artifact of a key. Raises :class:`~tailrace.ArtifactNotFound` and :class:`~tailrace.AmbiguousName`."""
        return self._answer(lambda connection: self._artifact(connection, key))

    def parents(self, key: str) -> list[ArtifactRow]:
        """What the artifact was made from, as far as it still exists; :meth:`lineage` has the rest too."""
        return self._answer(lambda connection: self._related(connection, key, parent.c.child_id, parent.c.parent_id))

    def children(self, key: str) -> list[ArtifactRow]:
        """What was made from the artifact."""
        return self._answer(lambda connection: self._related(connection, key, parent.c.parent_id, parent.c.child_id))

    def consumers(self, key: str) -> list[Consumer]:
        """The tasks that took the artifact as an input, by time of their run."""

        def query(connection: Connection) -> list[Consumer]:
            of = self._artifact(connection, key).id
            same_run = (run.c.scope == usage.c.scope) & (run.c.project == usage.c.project) & (run.c.run_id == usage.c.run_id)
            item = func.nullif(usage.c.item, -1)
            columns = (run.c.run_id, run.c.project, run.c.pipeline, usage.c.step, item, usage.c.input)
            found = select(*columns).join(run, same_run).where(usage.c.scope == self._scope, usage.c.artifact_id == of)
            ordered = found.order_by(run.c.started, run.c.project, run.c.run_id, usage.c.step, usage.c.item, usage.c.input)
            return [Consumer(*row) for row in connection.execute(ordered)]

        return self._answer(query)

    def _artifacts(self, connection: Connection, *where: ColumnElement[bool], limit: int | None = None) -> list[ArtifactRow]:
        query = select(*_COLUMNS).where(artifact.c.scope == self._scope, *where)
        newest = (artifact.c.created.desc(), artifact.c.id.desc(), artifact.c.uri.desc())
        return [_artifact_row(row) for row in connection.execute(query.order_by(*newest).limit(limit))]

    def _related(self, connection: Connection, key: str, here: Any, there: Any) -> list[ArtifactRow]:
        ids = select(there).where(parent.c.scope == self._scope, here == self._artifact(connection, key).id)
        return self._artifacts(connection, artifact.c.id.in_(ids))

    def _artifact(self, connection: Connection, key: str) -> ArtifactRow:
        if "://" in key:
            found = self._artifacts(connection, artifact.c.uri == key, limit=1)
        elif ":" in key and "/" not in key:
            found = self._artifacts(connection, artifact.c.digest == key, limit=1)
        else:
            found = self._artifacts(connection, artifact.c.id == key, limit=1)
        found = found or self._by_place(connection, key) or self._by_prefix(connection, key)
        if not found:
            raise ArtifactNotFound(self._no_artifact(connection, key))
        if len(found) > 1:
            lines = "".join(f"\n  {row.id}  {row.name} {row.version}  {_place(row)}" for row in found[:_SHOWN])
            more = f"\n  and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            raise AmbiguousName(f"{key!r} may be one of {len(found)} artifacts:{lines}{more}", [row.id for row in found])
        return found[0]

    def _by_place(self, connection: Connection, key: str) -> list[ArtifactRow]:
        """The artifacts at ``run_id/step/output``, or at ``run_id/step/output/index``."""
        parts = key.rsplit("/", 3)
        places = [(*key.rsplit("/", 2), None)] if len(parts) >= 3 else []
        if len(parts) == 4 and parts[3].isdecimal():
            places.append((parts[0], parts[1], parts[2], int(parts[3])))
        for run_id, step, output, index in places:
            where = [artifact.c.run_id == run_id, artifact.c.step == step, artifact.c.output == output]
            found = self._artifacts(connection, *where, *([artifact.c.map_index == index] if index is not None else []))
            if found:
                return _one_per_id(found)
        return []

    def _by_prefix(self, connection: Connection, key: str) -> list[ArtifactRow]:
        if not re.fullmatch(r"[0-9a-f]+", key):
            return []
        after = key[:-1] + ("a" if key[-1] == "9" else chr(ord(key[-1]) + 1))  # the first hex text that sorts behind
        return _one_per_id(self._artifacts(connection, artifact.c.id >= key, artifact.c.id < after, limit=1000))

    def _no_artifact(self, connection: Connection, key: str) -> str:
        names = connection.scalars(select(artifact.c.name).distinct().where(artifact.c.scope == self._scope).limit(1000))
        near = difflib.get_close_matches(key.rpartition("/")[2], names, n=3)
        return f"No artifact {key!r} is in the catalog.{_did_you_mean(near, 'tailrace artifacts ls')}"

    def stats(self) -> CatalogStats:
        """Counts over everything."""

        def count(connection: Connection, column: Any, what: Any) -> dict[str, int]:
            grouped = select(column, what).where(column.table.c.scope == self._scope).group_by(column).order_by(column)
            return {name: int(number) for name, number in connection.execute(grouped)}

        def query(connection: Connection) -> CatalogStats:
            states = count(connection, run.c.state, func.count())
            types = count(connection, artifact.c.type, func.count())
            stores = count(connection, artifact.c.store, func.sum(artifact.c.size_bytes))
            return CatalogStats(sum(states.values()), states, sum(types.values()), sum(stores.values()), types, stores)

        return self._answer(query)

    # --- lineage --------------------------------------------------------------------------------------------------------

    def lineage(self, key: str, *, up: bool = True, down: bool = True, depth: int | None = None) -> LineageGraph:
        """The artifact with all that it was made from (``up``) and all that was made from it (``down``).

        ``depth`` limits how many steps away. An artifact that is recorded as a parent and is in none of the stores is a
        node that is ``missing``; its id is a key too.
        """
        return self._answer(lambda connection: self._lineage(connection, key, up, down, depth))

    def _lineage(self, connection: Connection, key: str, up: bool, down: bool, depth: int | None) -> LineageGraph:
        try:
            focus = self._artifact(connection, key).id
        except ArtifactNotFound:
            known = select(parent.c.parent_id).where(parent.c.scope == self._scope, parent.c.parent_id == key)
            if not connection.scalar(known.limit(1)):
                raise
            focus = key
        ids = select(literal(focus, String).label("id"))
        if up:
            ids = ids.union(self._closure(focus, parent.c.child_id, parent.c.parent_id, depth))  # type: ignore[assignment]
        if down:
            ids = ids.union(self._closure(focus, parent.c.parent_id, parent.c.child_id, depth))  # type: ignore[assignment]
        ...

    def _closure(self, focus: str, here: ColumnElement[str], there: ColumnElement[str], depth: int | None) -> Select[Any]:
        """The ids that are reached from one. Without a depth the level stays 0, so that each id is met only once."""
        reached = select(literal(focus, String).label("id"), literal(0).label("level")).cte(recursive=True)
        further = select(there, reached.c.level + (0 if depth is None else 1)).where(
            parent.c.scope == self._scope, here == reached.c.id, reached.c.level < (1 if depth is None else depth), there != ""
        )
        return select(reached.union(further).c.id)
