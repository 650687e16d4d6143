"""The questions to the index, in SQL. Each is about one scope and one state of the database."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import fields
from typing import Any
from urllib.parse import unquote

from sqlalchemy import ColumnElement, Connection, Select, String, cast, func, literal, select, union

from ..core.errors import AmbiguousName, ArtifactNotFound, RunNotFound
from ..core.results import TaskRecord
from .journal import FORGOTTEN
from .lineage import LineageEdge, LineageGraph, LineageNode
from .rows import ArtifactRow, CatalogStats, Consumer, RunDetail, RunRow
from .schema import artifact, parent, run, scope, task, usage

__all__ = ["Reader"]

Where = ColumnElement[bool]

_SHOWN = 10  # candidates that an error lists
_MANY = 1000  # candidates, and names that are compared with one that is not found

_COUNTED = literal("v").concat(cast(artifact.c.ordinal, String))
_DERIVED = {
    "version": func.coalesce(artifact.c.version, _COUNTED).label("version"),
    "map_index": func.nullif(artifact.c.item, -1).label("map_index"),
}


def _columns(row: type) -> list[ColumnElement[Any]]:
    """The columns of a row's fields, in their order."""
    known = {**artifact.c, **_DERIVED}
    return [known[item.name] for item in fields(row) if item.name in known]


_ARTIFACT = _columns(ArtifactRow)
_NODE = _columns(LineageNode)
_NEWEST = (artifact.c.created.desc(), artifact.c.id.desc(), artifact.c.uri.desc())


class Reader:
    """Answers about the stores of one scope; :class:`~tailrace.catalog.index.Catalog` describes them."""

    def __init__(self, connection: Connection, scope_id: int) -> None:
        self.connection = connection
        self.scope = scope_id

    def filled(self) -> bool:
        """Whether the scope has been filled from its stores."""
        return bool(self.connection.scalar(select(scope.c.synced).where(scope.c.id == self.scope)))

    # --- runs --------------------------------------------------------------------------------------------------------

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
        records = map(TaskRecord.from_dict, self.connection.scalars(tasks))
        return RunDetail(of, plan_version, params, tuple(done for done in records if done.state != FORGOTTEN))

    def _of(self, table: Any, of: RunRow) -> tuple[Where, ...]:
        return table.c.scope == self.scope, table.c.project == of.project, table.c.run_id == of.run_id

    # --- artifacts ---------------------------------------------------------------------------------------------------

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
        places = [(key, None), (rest, int(last))] if re.fullmatch("[0-9]{1,9}", last) else [(key, None)]
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
        next_digit = "a" if key[-1] == "9" else chr(ord(key[-1]) + 1)
        after = key[:-1] + next_digit  # the first text that sorts behind all that begin so
        return self.artifacts(artifact.c.id >= key, artifact.c.id < after, limit=_MANY)

    def related(self, key: str, *, up: bool) -> list[ArtifactRow]:
        """The parents, or the children, that are in the index."""
        here, there = (parent.c.child_id, parent.c.parent_id) if up else (parent.c.parent_id, parent.c.child_id)
        ids = select(there).where(parent.c.scope == self.scope, here == self.artifact(key).id)
        return self.artifacts(artifact.c.id.in_(ids))

    def consumers(self, key: str) -> list[Consumer]:
        """The tasks that took an artifact as an input."""
        same = (run.c.scope == usage.c.scope) & (run.c.project == usage.c.project) & (run.c.run_id == usage.c.run_id)
        item = func.nullif(usage.c.item, -1)
        columns = (run.c.run_id, run.c.project, run.c.pipeline, usage.c.step, item, usage.c.input)
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

    # --- lineage -----------------------------------------------------------------------------------------------------

    def lineage(self, key: str, *, up: bool, down: bool, depth: int | None) -> LineageGraph:
        """The graph around an artifact."""
        focus = self._focus(key)
        starts = [select(literal(focus, String).label("id"))]
        ways = [(parent.c.child_id, parent.c.parent_id)] * up + [(parent.c.parent_id, parent.c.child_id)] * down
        ids = union(*starts, *(self._reached(focus, here, there, depth) for here, there in ways)).cte("ids")
        same = (artifact.c.scope == self.scope) & (artifact.c.id == ids.c.id)
        oldest = (artifact.c.created, artifact.c.uri)  # of one id in several places, the newest counts
        nodes = select(ids.c.id, *_NODE).outerjoin_from(ids, artifact, same).order_by(*oldest)
        columns = (parent.c.parent_id, parent.c.child_id, parent.c.parent_uri, parent.c.parent_digest, parent.c.input)
        of = (parent.c.scope == self.scope) & (parent.c.child_id == ids.c.id)
        links = select(*columns).join_from(ids, parent, of)
        return _graph(focus, self.connection.execute(nodes).all(), self.connection.execute(links).all())

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


def _artifact(row: Any) -> ArtifactRow:
    return ArtifactRow(**row._mapping, kind=row.tags.get("kind", ""))


def _place(row: ArtifactRow) -> str:
    if not row.run_id:
        return row.uri
    index = "" if row.map_index is None else f"/{row.map_index}"
    return f"{row.run_id}/{row.step}/{row.output}{index}"


def _graph(focus: str, rows: Iterable[Any], links: Iterable[Any]) -> LineageGraph:
    """The graph of the nodes (those without a row are missing) and of the links between them."""
    nodes = {row[0]: LineageNode(*row[1:]) if row.uri is not None else None for row in rows}
    inputs: dict[tuple[str, str], list[str]] = {}
    places: dict[str, tuple[str, str]] = {}
    replaced: set[tuple[str, str]] = set()
    for parent_id, child_id, uri, digest, name in links:
        if parent_id not in nodes:  # nobody asked for it
            continue
        inputs.setdefault((parent_id, child_id), []).append(name)
        node = nodes[parent_id]
        if node is None:
            places[parent_id] = max((uri, digest), places.get(parent_id, ("", "")))
        elif digest not in ("", node.digest):
            replaced.add((parent_id, child_id))
    found = {name: node or _missing(name, *places.get(name, ("", ""))) for name, node in nodes.items()}
    edges = []
    for pair, names in inputs.items():
        child = found[pair[1]]
        shown = names[0] if len(names) == 1 else ", ".join(sorted({*names} - {""}))
        edges.append(LineageEdge(*pair, child.step, child.run_id, shown, pair in replaced))
    return LineageGraph.of(focus, found.values(), edges)


def _missing(id: str, uri: str, digest: str) -> LineageNode:
    name = unquote(uri.rpartition("/")[2]) or id
    return LineageNode(id, name, "", "", digest, "", "", None, "", "", "", uri, "", missing=True)
