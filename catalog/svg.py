"""A lineage graph as a picture: columns by generation, edges led around the boxes.

After Sugiyama, Tagawa and Toda, "Methods for visual understanding of hierarchical system structures" (1981): an edge
over several columns passes each in a slot of its own, which it shares with the other edges of its parent; the order in
a column follows the mean place of the neighbours. The heights are the nearest to the neighbours' mean that leave no two
boxes overlapping (isotonic regression).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from itertools import pairwise

from .lineage import LineageGraph, LineageNode, layers, printable

__all__ = ["draw"]

Slot = tuple[str, int]  # a node and its column, or an edge's parent and a column that the edge passes

_WIDTH, _HEIGHT, _RUN = 224, 68, 14  # of a box; how much higher it is where it names its run
_ACROSS, _BETWEEN = 64, 18  # between columns, at least; between the boxes of one
_MARGIN = 24
_SWEEPS = 8

_COLOURS = {
    "Dataset": "#2563eb",
    "FeatureSet": "#0891b2",
    "Model": "#7c3aed",
    "Checkpoint": "#a855f7",
    "Metrics": "#059669",
    "Parameters": "#65a30d",
    "Report": "#d97706",
    "Prompt": "#db2777",
}
_STYLE = (
    "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif}"
    ".step{font-size:11px;fill:#64748b}.name{font-size:14px;font-weight:600;fill:#0f172a}"
    ".about{font-size:11px;fill:#475569}"
    ".box{fill:#fff;stroke:#cbd5e1}.focus{stroke:#0f172a;stroke-width:2}.missing{stroke-dasharray:5 4;fill:#f8fafc}"
    ".edge{fill:none;stroke:#94a3b8;stroke-width:1.5}.replaced{stroke-dasharray:5 4}"
)


def draw(graph: LineageGraph) -> str:
    """The picture as SVG text: self-contained, and the same for the same graph."""
    column = _columns(graph)
    lines = [_line(edge.parent, edge.child, column) for edge in graph.edges]
    height = _HEIGHT + (_RUN if len(graph.runs) > 1 else 0)
    boxes = {node.id: (node.id, column[node.id]) for node in graph.nodes}
    middle = _middles(_ordered(boxes.values(), lines), lines, set(boxes.values()), height)
    left = _lefts(lines, middle, max(column.values()))
    wide = left[-1] + _WIDTH + _MARGIN
    high = round(max(middle.values()) + height / 2 + _MARGIN)
    focus = next(node for node in graph.nodes if node.id == graph.focus)
    size = f'width="{wide}" height="{high}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {wide} {high}" role="img">',
        f"<title>Lineage of {_text(focus.name)}</title>",
        f"<style>{_STYLE}</style>",
        '<marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">',
        '<path d="M0 0L8 4L0 8z" fill="#94a3b8"/></marker>',
        f'<clipPath id="inside"><rect x="-2" y="-2" width="{_WIDTH + 4}" height="{height + 4}"/></clipPath>',
        f'<rect {size} fill="#fff"/>',
    ]
    for edge, line in zip(graph.edges, lines, strict=True):
        style = "edge replaced" if edge.replaced else "edge"
        parts.append(f'<path class="{style}" d="{_path(line, middle, left)}" marker-end="url(#arrow)"/>')
    for node in graph.nodes:
        parts += _box(node, node.id == graph.focus, left[column[node.id]], middle[boxes[node.id]] - height / 2, height)
    return "\n".join([*parts, "</svg>", ""])


# --- where things are -----------------------------------------------------------------------------------------------


def _columns(graph: LineageGraph) -> dict[str, int]:
    """The generation of each node. What was made from nothing stands beside the first that was made from it."""
    found = layers([node.id for node in graph.nodes], graph.edges)
    made = {edge.child for edge in graph.edges}
    first: dict[str, int] = {}
    for edge in graph.edges:
        first[edge.parent] = min(found[edge.child], first.get(edge.parent, found[edge.child]))
    return {node: max(first[node] - 1, 0) if node in first and node not in made else at for node, at in found.items()}


def _line(parent: str, child: str, column: Mapping[str, int]) -> list[Slot]:
    """The slots that an edge passes, from its parent's to its child's."""
    start, end = column[parent], column[child]
    return [*((parent, at) for at in range(start, max(end, start + 1))), (child, end)]


def _ordered(boxes: Iterable[Slot], lines: Sequence[Sequence[Slot]]) -> list[list[Slot]]:
    """The columns with their slots from top to bottom, so that few edges cross."""
    slots = dict.fromkeys([*boxes, *(slot for line in lines for slot in line)])
    columns: list[list[Slot]] = [[] for _ in range(1 + max(at for _, at in slots))]
    for slot in slots:
        columns[slot[1]].append(slot)
    before, after = _neighbours(lines)
    for sweep in range(_SWEEPS):
        beside, order = (before, columns) if sweep % 2 == 0 else (after, columns[::-1])
        place = {slot: float(index) for found in columns for index, slot in enumerate(found)}
        for found in order:
            found.sort(key=lambda slot: _mean([place[other] for other in beside.get(slot, ())], place[slot]))
            place.update((slot, float(index)) for index, slot in enumerate(found))
    return columns


def _middles(
    columns: Sequence[Sequence[Slot]], lines: Sequence[Sequence[Slot]], boxes: set[Slot], height: float
) -> dict[Slot, float]:
    """The height of each slot's middle: in order, without overlap, and near the mean of its neighbours."""
    before, after = _neighbours(lines)
    room = {slot: height + _BETWEEN if slot in boxes else _BETWEEN for found in columns for slot in found}
    middle: dict[Slot, float] = {}
    for found in columns:
        middle.update(_apart([0.0] * len(found), found, room))
    for sweep in range(_SWEEPS):
        for found in columns if sweep % 2 == 0 else columns[::-1]:
            beside = ([middle[other] for other in (*before.get(slot, ()), *after.get(slot, ()))] for slot in found)
            wanted = [_mean(heights, middle[slot]) for slot, heights in zip(found, beside, strict=True)]
            middle.update(_apart(wanted, found, room))
    top = min(middle.values())
    return {slot: round(at - top + height / 2 + _MARGIN, 1) for slot, at in middle.items()}


def _apart(wanted: Sequence[float], slots: Sequence[Slot], room: Mapping[Slot, float]) -> Iterator[tuple[Slot, float]]:
    """The heights nearest to those that are wanted that keep the order and the room of each."""
    offsets = [0.0]
    for above, below in pairwise(slots):
        offsets.append(offsets[-1] + (room[above] + room[below]) / 2)
    pools: list[tuple[float, int]] = []  # sum and count of neighbours that would overlap, which move together
    for height, offset in zip(wanted, offsets, strict=False):
        total, count = height - offset, 1
        while pools and pools[-1][0] / pools[-1][1] > total / count:
            total, count = total + pools[-1][0], count + pools[-1][1]
            pools.pop()
        pools.append((total, count))
    places = [total / count for total, count in pools for _ in range(count)]
    return ((slot, place + offset) for slot, place, offset in zip(slots, places, offsets, strict=False))


def _lefts(lines: Iterable[Sequence[Slot]], middle: Mapping[Slot, float], last: int) -> list[int]:
    """Where each column begins: further from the one before it where edges between them are steep."""
    steep = [0.0] * (last + 1)
    for one, other in (pair for line in lines for pair in pairwise(line)):
        steep[other[1]] = max(steep[other[1]], abs(middle[one] - middle[other]))
    left = [_MARGIN]
    for height in steep[1:]:
        left.append(left[-1] + _WIDTH + round(min(max(_ACROSS, height / 6), 4 * _ACROSS)))
    return left


def _neighbours(lines: Iterable[Sequence[Slot]]) -> tuple[dict[Slot, list[Slot]], dict[Slot, list[Slot]]]:
    before: dict[Slot, list[Slot]] = {}
    after: dict[Slot, list[Slot]] = {}
    for one, other in dict.fromkeys(pair for line in lines for pair in pairwise(line)):
        after.setdefault(one, []).append(other)
        before.setdefault(other, []).append(one)
    return before, after


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


# --- how they look --------------------------------------------------------------------------------------------------


def _path(line: Sequence[Slot], middle: Mapping[Slot, float], left: Sequence[int]) -> str:
    """From the right of the parent's box, through the slots between, to the left of the child's."""
    parts = [f"M{left[line[0][1]] + _WIDTH} {middle[line[0]]}"]
    for one, other in pairwise(line):
        start, end = left[one[1]] + _WIDTH, left[other[1]]
        half = (start + end) / 2
        parts.append(f"C{half} {middle[one]} {half} {middle[other]} {end} {middle[other]}")
        if other is not line[-1]:
            parts.append(f"H{end + _WIDTH}")
    return "".join(parts)


def _box(node: LineageNode, focus: bool, left: float, top: float, height: float) -> Iterator[str]:
    style = "box missing" if node.missing else "box focus" if focus else "box"
    colour = "#cbd5e1" if node.missing else _COLOURS.get(node.kind, "#64748b")
    about = " · ".join(part for part in (node.about, node.short_digest) if part)
    maker = node.task or ("" if node.missing else "saved by hand")
    texts = [("step", maker), ("name", node.name), ("about", about)]
    if height > _HEIGHT:
        texts.append(("about", f"run {node.run_id}" if node.run_id else ""))
    yield f'<g transform="translate({left} {top:.1f})" clip-path="url(#inside)">'
    yield f"<title>{_text(f'{node.name} ({node.type or node.about}), id {node.id}, {node.uri}')}</title>"
    yield f'<rect class="{style}" width="{_WIDTH}" height="{height}" rx="8"/>'
    yield f'<rect x="8" y="10" width="4" height="{height - 20}" rx="2" fill="{colour}"/>'
    for (kind, text), y in zip(texts, (20, 39, 56, 70), strict=False):
        yield f'<text class="{kind}" x="22" y="{y}">{_text(_short(text, 22 if kind == "name" else 32))}</text>'
    yield "</g>"


def _short(text: str, limit: int) -> str:
    """The text, its middle left out where it is too long: names often differ at the end."""
    keep = limit // 2
    return text if len(text) <= limit else f"{text[: limit - keep - 1]}…{text[-keep:]}"


def _text(text: str) -> str:
    return escape(printable(text))
