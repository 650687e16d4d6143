"""The contract of a materializer: one kind of object, to files and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

from ..core.errors import MaterializationError
from .files import FileReader, FileWriter

__all__ = [
    "Container",
    "Gatherer",
    "Gathering",
    "LoadMember",
    "Materializer",
    "SaveMember",
    "Spec",
    "Tabular",
    "Unsavable",
    "check_columns",
]

Spec = dict[str, Any]


class Unsavable(MaterializationError):
    """A value that no format can hold, so that pickle is not tried either: a path to nothing, a generator, a lock.

    ``located`` says that the message names the value and the place in it already.
    """

    def __init__(self, message: str, *, located: bool = False) -> None:
        super().__init__(message)
        self.located = located


@runtime_checkable
class Materializer(Protocol):
    """Saves the values of some types as files and restores them exactly.

    ``name`` and ``version`` (of the format) are written in the manifest and choose the materializer when loading; a
    materializer also loads what its older versions wrote, and puts into the spec what it needs to tell them apart.
    ``executes_code`` marks pickle-family formats, which need the stack's permission both ways; such a one may have a
    text ``instead``, which tells the safe way when it is refused.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    executes_code: ClassVar[bool]

    def save(self, value: Any, files: FileWriter) -> Spec:
        """Write the files; return the spec, JSON-able data that :meth:`load` needs beside them.

        Raises :class:`~tailrace.MaterializationError`, best before anything is written, when the value could not be
        restored exactly; the message names the path inside the value and the way out. Equal values give equal bytes.
        """
        ...

    def load(self, files: FileReader, spec: Mapping[str, Any]) -> Any:
        """The value as it was saved. Only reads through ``files``, which verifies."""
        ...

    def describe(self, value: Any) -> dict[str, Any]:
        """JSON-able metadata for people and the catalog (shape, schema, dtypes, ...), in under 10 ms per 100 MB."""
        ...


SaveMember = Callable[[Any, str, FileWriter], dict[str, Any]]
"""Saves a member by its own materializer: value, place (``"['train']"``), folder; returns what LoadMember needs."""

LoadMember = Callable[[Mapping[str, Any], FileReader], Any]
"""Loads a member: what SaveMember returned, and its folder."""


@runtime_checkable
class Container(Materializer, Protocol):
    """A materializer whose values hold values that other materializers save."""

    def save_with(self, value: Any, files: FileWriter, save_member: SaveMember) -> Spec:
        """Like ``save``; members that this materializer cannot hold go through ``save_member``."""
        ...

    def load_with(self, files: FileReader, spec: Mapping[str, Any], load_member: LoadMember) -> Any:
        """Like ``load``, for what :meth:`save_with` wrote."""
        ...


class Gatherer(Protocol):
    """Saves the members of one container that belong to one materializer together, so that what they share stays so."""

    def add(self, value: Any, place: str) -> Any:
        """Take a member in; return tagged JSON that stands for it. After a MaterializationError it is as before."""
        ...

    def write(self, files: FileWriter) -> None:
        """Write what was taken in."""
        ...


@runtime_checkable
class Gathering(Materializer, Protocol):
    """A materializer whose values share parts: a model, and the optimizer of its parameters."""

    def gather(self) -> Gatherer:
        """For the members of one container, which are in one folder."""
        ...

    def scatter(self, files: FileReader) -> Callable[[Any], Any]:
        """For that folder: gives each member for what :meth:`Gatherer.add` returned."""
        ...


@runtime_checkable
class Tabular(Materializer, Protocol):
    """A materializer some of whose values have columns, of which a few can be loaded without the others."""

    def load_columns(self, files: FileReader, spec: Mapping[str, Any], columns: Sequence[Any]) -> Any:
        """What :meth:`load` gives, with these columns only, in this order. No column is named twice.

        Raises :class:`~tailrace.MaterializationError` for a value without columns, and, by :func:`check_columns`, for
        columns that it does not have.
        """
        ...


def check_columns(columns: Sequence[Any], known: Iterable[Any]) -> None:
    """Raise :class:`~tailrace.MaterializationError`, naming them, for columns that are not known."""
    names = dict.fromkeys(known)
    missing = [name for name in columns if name not in names]
    if missing:
        has = ", ".join(map(repr, list(names)[:20])) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
        raise MaterializationError(f"it has no column {', '.join(map(repr, missing))}. It has: {has or 'none'}")
