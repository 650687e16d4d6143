"""The catalog: what exists, who made it from what. Answers come from an SQL index that follows the stores."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

import orjson
from sqlalchemy import Connection, Row, Select, String, cast, delete, func, insert, literal, select, union, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from ..core.errors import AmbiguousArtifact, ArtifactNotFound, RunNotFound, did_you_mean
from ..core.results import TaskRecord
from ..stores.base import ArtifactStore
from .database import Database, damaged
from .lineage import LineageEdge, LineageGraph, LineageNode
from .rows import ArtifactRow, CatalogStats, Change, Consumer, RunComparison, RunDetail, RunRow, SyncReport
from .schema import artifact, parent, run, scope, task, usage
from .sync import NEAR, Sync

__all__ = ["Catalog"]

T = TypeVar("T")
