"""What the steps of one task hand to each other in memory, where that cannot be told from loading it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..core.annotations import item_type, pointed
from ..core.assets import Asset
from ..core.plan import Node
from ..core.refs import ArtifactRef
from ..materializers.tagged import is_plain
from ..routing.router import Router, as_declared
from ..stores.base import ArtifactStore

__all__ = ["Memory"]

_LIBRARIES = frozenset(
    {"catboost", "keras", "lightgbm", "numpy", "onnx", "pandas", "plotly", "polars", "pyarrow", "scipy", "sklearn"}
    | {"torch", "transformers", "xarray", "xgboost"}
)
"""Their objects hold their data, where a path or an iterator stands for data that is somewhere else."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """A value, and what its manifest says that its receiver needs."""

    value: Any
    bare: bool
    name: str


class Memory:
    """The values that later members of a task take: loaded from the store, all but the last time.

    So every receiver has an object of its own, as if it were a task of its own, and may change it. What is handed over
    is plain JSON data or an object of a known library; anything else is loaded.
    """

    def __init__(self, router: Router, members: Sequence[Node]) -> None:
        self._router = router
        self._uses = Counter(_uses(members))
        self._left: dict[str, int] = {}
        self._kept: dict[str, _Kept] = {}

    def keep(self, node: Node, values: Mapping[str, Any], refs: Mapping[str, ArtifactRef]) -> None:
        """Keep what a member has returned, by output, for the members that follow."""
        several = Counter(map(id, values.values()))
        for output in node.outputs:
            value, uses = values[output.name], self._uses[node.name, output.name]
            if uses and several[id(value)] == 1 and _is_whole(value):
                ref = refs[output.name]
                self._left[ref.uri] = uses
                self._kept[ref.uri] = _Kept(*as_declared(value, output.annotation, node.name, output.name), ref.name)

    def store_of(self, uri: str) -> ArtifactStore:
        """The store of the stack that holds a URI."""
        return self._router.store_of(uri)

    def load(self, ref: ArtifactRef, columns: Sequence[Any] | None = None) -> tuple[Any, Any]:
        """The value behind a reference, and its manifest or what stands for it."""
        left = self._left[ref.uri] = self._left.get(ref.uri, 0) - 1
        kept = self._kept.pop(ref.uri, None) if left <= 0 else None
        if kept is None or columns is not None:
            return self._router.load(ref, columns)
        value = kept.value
        return (type(value).from_parts(*value.to_parts()) if isinstance(value, Asset) else value), kept


def _uses(members: Sequence[Node]) -> Iterator[tuple[str, str]]:
    """Each time that a member loads an output of another, as node and output."""
    for member in members:
        for parameter, sources in member.sources.items():
            wanted = member.step.annotations.get(parameter)
            if pointed(wanted) is None and pointed(item_type(wanted)) is None:
                yield from ((source.node, source.output) for source in sources)


def _is_whole(value: Any) -> bool:
    data = value.data if isinstance(value, Asset) else value
    if type(data).__module__.partition(".")[0] in _LIBRARIES:
        return getattr(data, "base", None) is None  # a view would be changed through the array that it shows
    return is_plain(data)
