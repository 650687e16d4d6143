"""The graph of what was made from what, as text, Mermaid, JSON and a picture."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import orjson

__all__ = ["LineageEdge", "LineageGraph", "LineageNode", "layers", "printable"]


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
    def about(self) -> str:
        """The type and version, or that it is missing."""
        return "missing" if self.missing else f"{self.kind} {self.version}"

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
        made = (self.missing, self.project, self.pipeline, self.step, self.output, index)
        return (*made, self.name, self.digest, self.created, self.id)


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


@dataclass(frozen=True, slots=True)
class LineageGraph:
    """Artifacts and what was made from what, around the artifact ``focus``. Parents stand before their children."""

    focus: str
    nodes: tuple[LineageNode, ...]
    edges: tuple[LineageEdge, ...]

    @classmethod
    def of(cls, focus: str, nodes: Iterable[LineageNode], edges: Iterable[LineageEdge]) -> LineageGraph:
        """The graph in the one order that its content gives, whatever the order of what is passed."""
        found = {node.id: node for node in nodes}
        links = list(edges)
        layer = layers(found, links)
        ordered = sorted(found.values(), key=lambda node: (layer[node.id], node.order()))
        place = {node.id: index for index, node in enumerate(ordered)}
        links.sort(key=lambda edge: (place[edge.parent], place[edge.child], edge.input))
        return cls(focus, tuple(ordered), tuple(links))

    @property
    def runs(self) -> tuple[str, ...]:
        """The ids of the runs that made its artifacts, in the order of the nodes."""
        return tuple(dict.fromkeys(node.run_id for node in self.nodes if node.run_id))

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data: ``focus``, and the flat lists ``nodes`` and ``edges``."""
        return {
            "focus": self.focus,
            "nodes": [node.to_dict() for node in self.nodes],
            "edges": [edge.to_dict() for edge in self.edges],
        }

    def to_json(self) -> str:
        """:meth:`to_dict` as text."""
        return orjson.dumps(self.to_dict(), option=orjson.OPT_INDENT_2).decode()

    def to_text(self) -> str:
        """A tree for the terminal: the artifact, what it was made from, and what was made from it.

        An artifact that is reached by several ways is opened out the first time only.
        """
        several = len(self.runs) > 1
        shown = {node.id: _line(node, several) for node in self.nodes}
        lines = [shown[self.focus]]
        for title, neighbours in (("made from", self._neighbours(up=True)), ("made into", self._neighbours(up=False))):
            if self.focus in neighbours:
                lines += ["", title, *self._branches(shown, neighbours)]
        return "\n".join(lines)

    def _neighbours(self, *, up: bool) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for edge in self.edges:
            here, there = (edge.child, edge.parent) if up else (edge.parent, edge.child)
            found.setdefault(here, []).append(there)
        return found

    def _branches(self, shown: Mapping[str, str], neighbours: Mapping[str, list[str]]) -> Iterator[str]:
        opened = {self.focus}
        waiting = _siblings("", neighbours[self.focus])
        while waiting:
            indent, here, last = waiting.pop()
            again = here in opened and here in neighbours
            yield f"{indent}{'└── ' if last else '├── '}{shown[here]}{' (see above)' if again else ''}"
            if here in neighbours and not again:
                waiting += _siblings(indent + ("    " if last else "│   "), neighbours[here])
            opened.add(here)

    def to_mermaid(self) -> str:
        """A Mermaid flowchart: a box per artifact, an arrow per step; of several runs, each in a frame."""
        names = {node.id: f"n{index}" for index, node in enumerate(self.nodes, 1)}
        lines = ["flowchart LR"]
        frames = self.runs if len(self.runs) > 1 else ()
        for index, run_id in enumerate(frames, 1):
            lines.append(f"  subgraph r{index}[{_quoted(f'run {run_id}')}]")
            lines += [f"    {self._box(node, names)}" for node in self.nodes if node.run_id == run_id]
            lines.append("  end")
        lines += [f"  {self._box(node, names)}" for node in self.nodes if node.run_id not in frames]
        steps = {node.id: node.task for node in self.nodes}
        for edge in self.edges:
            arrow = "-.->" if edge.replaced else "-->"
            label = f"|{_quoted(steps[edge.child])}|" if edge.step else ""
            lines.append(f"  {names[edge.parent]} {arrow}{label} {names[edge.child]}")
        lines.append("  classDef focus stroke-width:3px")
        if any(node.missing for node in self.nodes):
            lines.append("  classDef missing stroke-dasharray:4 3")
        return "\n".join([*lines, ""])

    def _box(self, node: LineageNode, names: Mapping[str, str]) -> str:
        shown = "<br/>".join(_escaped(part) for part in (node.name, node.about, node.short_digest) if part)
        style = ":::missing" if node.missing else ":::focus" if node.id == self.focus else ""
        return f'{names[node.id]}["{shown}"]{style}'

    def to_svg(self) -> str:
        """A picture: one column per generation, in the order of making, as a file that needs nothing else."""
        from .svg import draw

        return draw(self)


def _line(node: LineageNode, several: bool) -> str:
    parts = [node.name, node.about, node.short_digest, f"by {node.task}" if node.step else ""]
    if several and node.run_id:
        parts.append(f"in {node.run_id}")
    return printable("  ".join(part for part in parts if part))


def _siblings(indent: str, nodes: Sequence[str]) -> list[tuple[str, str, bool]]:
    """What is to be drawn at an indent, the first at the end; of each, whether it is the last of them."""
    return [(indent, node, index == 0) for index, node in enumerate(reversed(nodes))]


def layers(nodes: Iterable[str], edges: Iterable[LineageEdge]) -> dict[str, int]:
    """How many generations each node is from the first ones, by the longest way. A cycle is cut where it is met."""
    children: dict[str, list[str]] = {}
    waiting = dict.fromkeys(sorted(nodes), 0)
    for edge in edges:
        children.setdefault(edge.parent, []).append(edge.child)
        waiting[edge.child] += 1
    found = dict.fromkeys(waiting, 0)
    ready = [node for node, count in waiting.items() if not count]
    while waiting:
        node = ready.pop() if ready else min(waiting, key=lambda name: (waiting[name], name))
        if waiting.pop(node, None) is None:
            continue
        for child in children.get(node, ()):
            if child in waiting:
                found[child] = max(found[child], found[node] + 1)
                waiting[child] -= 1
                if not waiting[child]:
                    ready.append(child)
    return found


def printable(text: str) -> str:
    """The text on one line, without what would control a terminal and what XML cannot hold."""
    return re.sub("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]", "\ufffd", text)


_SPECIAL = re.compile(
    r"""["#%&*<>`|\\~]"""  # Mermaid's own, HTML's and Markdown's characters
    r"""|(?<![^\W_])_|_(?![^\W_])"""  # emphasis, in Markdown
    r"""|[-+.)](?=\s)"""  # a list
)


def _escaped(text: str) -> str:
    """The text for a quoted label, where Mermaid would take some characters for itself: they become entities."""
    return _SPECIAL.sub(lambda match: f"#{ord(match.group())};", printable(text))


def _quoted(text: str) -> str:
    return f'"{_escaped(text)}"'
