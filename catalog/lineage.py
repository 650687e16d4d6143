"""The graph of what was made from what, as text, Mermaid, JSON and a picture."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import orjson

__all__ = ["LineageEdge", "LineageGraph", "LineageNode"]


@dataclass(frozen=True, slots=True)
class LineageNode:
    """An artifact in the graph. One that is ``missing`` is recorded as a parent and is in none of the stores."""

    id: str
    name: str
    type: str
    version: str
    digest: str
    step: str
    output: str
    map_index: int | None
    run_id: str
    pipeline: str
    project: str
    uri: str
    created: str
    missing: bool = False

    @property
    def short_digest(self) -> str:
        """The first eight digits of the content's digest."""
        return self.digest.rpartition(":")[2][:8]

    @property
    def kind(self) -> str:
        """The type without its module."""
        return self.type.rpartition(".")[2]

    @property
    def task(self) -> str:
        """The step that made it, with the item of a mapped step."""
        return self.step if self.map_index is None else f"{self.step}[{self.map_index}]"

    def to_dict(self) -> dict[str, Any]:
        """As a flat JSON object."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def order(self) -> tuple[Any, ...]:
        """What nodes are sorted by: as far as possible nothing that differs between two runs of one pipeline."""
        index = -1 if self.map_index is None else self.map_index
        return (self.missing, self.project, self.pipeline, self.step, self.output, index, self.name, self.digest, self.created, self.id)


@dataclass(frozen=True, slots=True)
class LineageEdge:
    """From a parent to a child: which step of which run made the child, through which ``input``.

    ``replaced`` says that the parent's place holds another content by now than the child was made from.
    """

    parent: str
    child: str
    step: str
    run_id: str
    input: str
    replaced: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As a flat JSON object."""
        return {item.name: getattr(self, item.name) for item in fields(self)}
