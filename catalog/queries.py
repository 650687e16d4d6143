"""The questions to the index, in SQL. Each is about one scope and one state of the database."""

from __future__ import annotations

import difflib
import re
from dataclasses import fields
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, String, cast, func, literal, select, union

from ..core.errors import AmbiguousName, ArtifactNotFound, RunNotFound
from ..core.results import TaskRecord
from .lineage import LineageEdge, LineageGraph, LineageNode
from .rows import ArtifactRow, CatalogStats, Consumer, RunDetail, RunRow
from .schema import artifact, parent, run, scope, task, usage

__all__ = ["Reader"]

Where = ColumnElement[bool]

_SHOWN = 10  # candidates that an error lists
_MANY = 1000  # candidates, and names that are compared with one that is not found

_DERIVED = [
    func.coalesce(artifact.c.version, literal("v").concat(cast(artifact.c.ordinal, String))).label("version"),
    func.nullif(artifact.c.item, -1).label("map_index"),
]
_ARTIFACT = [*_DERIVED, *(artifact.c[item.name] for item in fields(ArtifactRow) if item.name in artifact.c and item.name != "version")]
_NODE = [*_DERIVED, *(artifact.c[item.name] for item in fields(LineageNode) if item.name in artifact.c and item.name not in ("id", "version"))]
_NEWEST = (artifact.c.created.desc(), artifact.c.id.desc(), artifact.c.uri.desc())


class Reader:
    """Answers from one connection about the stores of one scope. :class:`~tailrace.catalog.index.Catalog` describes them."""

    def __init__(self, connection: Connection, scope_id: int) -> None:
        self.connection = connection
        self.scope = scope_id

    def filled(self) -> bool:
        """Whether the scope has been filled from its stores."""
        return bool(self.connection.scalar(select(scope.c.synced).where(scope.c.id == self.scope)))

    # --- runs -----------------------------------------------------------------------------------------------------------

    def runs(self, *where: Where, limit: int | None = None) -> list[RunRow]:
        """The runs for which the conditions hold, newest first."""
        same = (artifact.c.scope == run.c.scope, artifact.c.run_id == run.c.run_id, artifact.c.project == run.c.project)
        artifacts = select(func.count()).where(*same).scalar_subquery()
        columns = [artifacts if item.name == "artifacts" else run.c[item.name] for item in fields(RunRow)]
        query = select(*columns).where(run.c.scope == self.scope, *where)
        newest = query.order_by(run.c.started.desc(), run.c.run_id.desc(), run.c.project).limit(limit)
        return [RunRow(*row) for row in self.connection.execute(newest)]

    def run(self, run_id: str, project: str | None) -> RunDetail:
        """One run with its parameters and tasks."""
        found = self.runs(run.c.run_id == run_id, *([run.c.project == project] if project is not None else []))
        if not found:
            latest = select(run.c.run_id).where(run.c.scope == self.scope).order_by(run.c.started.desc()).limit(_MANY)
            near = self._near(run_id, latest, "tailrace runs ls")
            raise RunNotFound(f"No run {run_id!r} is recorded.{near}")
        if len(found) > 1:
            projects = sorted(row.project for row in found)
            message = f"There is a run {run_id!r} in the projects {', '.join(projects)}. Name the project."
            raise AmbiguousName(message, candidates=projects)
        of = found[0]
        asked = select(run.c.plan_version, run.c.params).where(*self._of(run, of))
        plan_version, params = self.connection.execute(asked).one()
        tasks = select(task.c.record).where(*self._of(task, of)).order_by(task.c.position, task.c.step, task.c.item)
        return RunDetail(of, plan_version, params, tuple(map(TaskRecord.from_dict, self.connection.scalars(tasks))))

    def _of(self, table: Any, of: RunRow) -> tuple[Where, ...]:
        return table.c.scope == self.scope, table.c.project == of.project, table.c.run_id == of.run_id

    # --- artifacts ------------------------------------------------------------------------------------------------------

    def artifacts(self, *where: Where, limit: int | None = None) -> list[ArtifactRow]:
        """The artifacts for which the conditions hold, newest first."""
        query = select(*_ARTIFACT).where(artifact.c.scope == self.scope, *where)
        return [_artifact(row) for row in self.connection.execute(query.order_by(*_NEWEST).limit(limit))]

    def artifact(self, key: str) -> ArtifactRow:
        """The one artifact of a key."""
        column = artifact.c.uri if "://" in key else artifact.c.digest if ":" in key else artifact.c.id
        found = self.artifacts(column == key, limit=1) or self._by_place(key) or self._by_prefix(key)
        found = list({row.id: row for row in reversed(found)}.values())  # of one id in several places, the newest
        if not found:
            names = select(artifact.c.name).distinct().where(artifact.c.scope == self.scope).limit(_MANY)
            near = self._near(key.rpartition("/")[2], names, "tailrace artifacts ls")
            raise ArtifactNotFound(f"No artifact {key!r} is in the catalog.{near}")
        if len(found) > 1:
            lines = "".join(f"\n  {row.id}  {row.name} {row.version}  {_place(row)}" for row in found[:_SHOWN])
            more = "\n  ..." if len(found) > _SHOWN else ""
            raise AmbiguousName(f"{key!r} names several artifacts:{lines}{more}", candidates=[row.id for row in found])
        return found[0]

    def _by_place(self, key: str) -> list[ArtifactRow]:
        """The artifacts at ``run_id/step/output``, or at ``run_id/step/output/index``."""
        rest, _, last = key.rpartition("/")
        places = [(key, None), (rest, int(last))] if last.isdecimal() else [(key, None)]
        for place, index in places:
            run_id, step, output = (["", "", *place.rsplit("/", 2)])[-3:]
            where = [artifact.c.run_id == run_id, artifact.c.step == step, artifact.c.output == output]
            found = self.artifacts(*where, *([artifact.c.item == index] if index is not None else []))
            if run_id and found:
                return found
        return []

    def _by_prefix(self, key: str) -> list[ArtifactRow]:
        if not re.fullmatch(r"[0-9a-f]+", key):
            return []
        after = key[:-1] + ("a" if key[-1] == "9" else chr(ord(key[-1]) + 1))  # the first text that sorts behind all of them
        return self.artifacts(artifact.c.id >= key, artifact.c.id < after, limit=_MANY)

    def related(self, key: str, *, up: bool) -> list[ArtifactRow]:
        """The parents, or the children, that are in the index."""
        here, there = (parent.c.child_id, parent.c.parent_id) if up else (parent.c.parent_id, parent.c.child_id)
        return self.artifacts(artifact.c.id.in_(select(there).where(parent.c.scope == self.scope, here == self.artifact(key).id)))

    def consumers(self, key: str) -> list[Consumer]:
        """The tasks that took an artifact as an input."""
        same = (run.c.scope == usage.c.scope) & (run.c.project == usage.c.project) & (run.c.run_id == usage.c.run_id)
        columns = (run.c.run_id, run.c.project, run.c.pipeline, usage.c.step, func.nullif(usage.c.item, -1), usage.c.input)
        where = (usage.c.scope == self.scope, usage.c.artifact_id == self.artifact(key).id)
        order = (run.c.started, run.c.project, run.c.run_id, usage.c.step, usage.c.item, usage.c.input)
        query = select(*columns).join(run, same).where(*where).order_by(*order)
        return [Consumer(*row) for row in self.connection.execute(query)]

    def stats(self) -> CatalogStats:
        """Counts over everything."""
        states = self._count(run.c.state, func.count())
        types = self._count(artifact.c.type, func.count())
        stores = self._count(artifact.c.store, func.sum(artifact.c.size_bytes))
        return CatalogStats(sum(states.values()), states, sum(types.values()), sum(stores.values()), types, stores)

    def _count(self, column: Any, what: ColumnElement[Any]) -> dict[str, int]:
        query = select(column, what).where(column.table.c.scope == self.scope).group_by(column).order_by(column)
        return {name: int(number) for name, number in self.connection.execute(query)}

    def _near(self, name: str, known: Select[Any], command: str) -> str:
        near = difflib.get_close_matches(name, self.connection.scalars(known).all(), n=3)
        if near:
            return f" Did you mean {' or '.join(map(repr, near))}? `{command}` shows what there is."
        return f" `{command}` shows what there is."

    # --- lineage --------------------------------------------------------------------------------------------------------

    def lineage(self, key: str, *, up: bool, down: bool, depth: int | None) -> LineageGraph:
        """The graph around an artifact."""
        focus = self._focus(key)
        starts = [select(literal(focus, String).label("id"))]
        ways = [(parent.c.child_id, parent.c.parent_id)] * up + [(parent.c.parent_id, parent.c.child_id)] * down
        ids = union(*starts, *(self._reached(focus, here, there, depth) for here, there in ways)).cte("ids")
        same = (artifact.c.scope == self.scope) & (artifact.c.id == ids.c.id)
        found = select(ids.c.id, *_NODE).outerjoin_from(ids, artifact, same).order_by(*reversed(_NEWEST))
        rows = {row.id: row for row in self.connection.execute(found)}
        made = select(parent).join_from(ids, parent, (parent.c.scope == self.scope) & (parent.c.child_id == ids.c.id))
        links = self.connection.execute(made.order_by(parent.c.child_uri, parent.c.position))
        return _graph(focus, rows, [link for link in links if link.parent_id in rows])

    def _focus(self, key: str) -> str:
        try:
            return self.artifact(key).id
        except ArtifactNotFound:
            recorded = select(parent.c.parent_id).where(parent.c.scope == self.scope, parent.c.parent_id == key)
            if self.connection.scalar(recorded.limit(1)) is None:
                raise
            return key

    def _reached(self, focus: str, here: Any, there: Any, depth: int | None) -> Select[Any]:
        """The ids that are reached from one. Without a depth the level stays 0, so that each id is met only once."""
        reached = select(literal(focus, String).label("id"), literal(0).label("level")).cte(recursive=True)
        limit, one = (1, 0) if depth is None else (depth, 1)
        further = select(there, reached.c.level + one).where(
            parent.c.scope == self.scope, here == reached.c.id, reached.c.level < limit, there != ""
        )
        return select(reached.union(further).c.id)


def _artifact(row: Row[Any]) -> ArtifactRow:
    return ArtifactRow(**row._mapping, kind=row.tags.get("kind", ""))


def _place(row: ArtifactRow) -> str:
    if not row.run_id:
        return row.uri
    index = "" if row.map_index is None else f"/{row.map_index}"
    return f"{row.run_id}/{row.step}/{row.output}{index}"


def _graph(focus: str, rows: dict[str, Row[Any]], links: list[Row[Any]]) -> LineageGraph:
    places = {link.parent_id: (link.parent_uri, link.parent_digest) for link in links}
    nodes = {
        name: _missing(name, *places.get(name, ("", ""))) if row.uri is None else LineageNode(**row._mapping)
        for name, row in rows.items()
    }
    inputs: dict[tuple[str, str], list[str]] = {}
    stale: set[tuple[str, str]] = set()
    for link in links:
        pair = (link.parent_id, link.child_id)
        inputs.setdefault(pair, []).append(link.input)
        if link.parent_digest not in ("", nodes[link.parent_id].digest):
            stale.add(pair)
    edges = [
        LineageEdge(*pair, nodes[pair[1]].step, nodes[pair[1]].run_id, ", ".join(dict.fromkeys(filter(None, names))), pair in stale)
        for pair, names in inputs.items()
    ]
    return LineageGraph.of(focus, nodes.values(), edges)


def _missing(name: str, uri: str, digest: str) -> LineageNode:
    return LineageNode(name, uri.rpartition("/")[2] or name, "", "", digest, "", "", None, "", "", "", uri, "", missing=True)
