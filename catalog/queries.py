"""The questions to the index, in SQL. Each is about one scope and one state of the database."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, String, cast, func, literal, select, union

from ..core.errors import AmbiguousName, ArtifactNotFound, RunNotFound
from ..core.results import TaskRecord
from .lineage import LineageEdge, LineageGraph, LineageNode
from .rows import ArtifactRow, CatalogStats, Consumer, RunDetail, RunRow
from .schema import artifact, parent, run, task, usage

__all__ = ["Reader"]

_SHOWN = 10  # candidates that an error lists
_MANY = 1000  # names that are compared with one that is not found

_VERSION = func.coalesce(artifact.c.version, literal("v").concat(cast(artifact.c.ordinal, String)))


def _columns(row: type, **computed: Any) -> list[Any]:
    """The columns of the fields of a row, in their order."""
    names = [item.name for item in fields(row)]
    return [computed[name].label(name) if name in computed else artifact.c[name] for name in names]


_ARTIFACT = _columns(ArtifactRow, version=_VERSION, kind=literal(""))
