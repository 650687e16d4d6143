"""Generators and other iterators: their items in chunks, so that neither end holds more than one chunk in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

from .base import LoadMember, SaveMember, Spec
from .files import FileReader, FileWriter
from .tagged import dumps, is_plain

__all__ = ["IteratorMaterializer"]

_CHUNK = 8_000_000
"""Bytes that a chunk's items hold in memory, roughly. An item whose size is not known is a chunk of its own."""

_ITEMS = 10_000


class IteratorMaterializer:
    """Values whose items exist only once: they are taken while they are saved. What comes back is a generator.

    An error of the iterator is raised as it is, and nothing is stored. Items are saved as a list of them would be, each
    by its own materializer; each chunk is verified when the iteration comes to it.
    """

    name: ClassVar[str] = "iterator"
    version: ClassVar[int] = 1
    executes_code: ClassVar[bool] = False

    def save(self, value: Any, files: FileWriter) -> Spec:
        """Never asked: :meth:`save_with` is."""
        raise TypeError("An iterator's items are saved by their own materializers.")

    def load(self, files: FileReader, spec: Mapping[str, Any]) -> Any:
        """Never asked: :meth:`load_with` is."""
        raise TypeError("An iterator's items are loaded by their own materializers.")

    def save_with(self, value: Any, files: FileWriter, save_member: SaveMember) -> Spec:
        """A folder for each chunk, ``000000`` and so on; the spec has what each needs, and the number of items."""
        chunks: list[dict[str, Any]] = []
        count = 0
        for items in _chunks(value):
            where = f"[{count}:{count + len(items)}]"
            chunks.append(save_member(items, where, files.within(f"{len(chunks):06}")))
            count += len(items)
        return {"chunks": chunks, "items": count}

    def load_with(self, files: FileReader, spec: Mapping[str, Any], load_member: LoadMember) -> Iterator[Any]:
        """A generator of the items, which reads a chunk when it comes to it."""
        files.lend()
        return _items(files, spec["chunks"], load_member)

    def describe(self, value: Any) -> dict[str, Any]:
        """Nothing: the items are gone. Their number is in the spec."""
        return {}


def _items(files: FileReader, chunks: list[Mapping[str, Any]], load_member: LoadMember) -> Iterator[Any]:
    for number, chunk in enumerate(chunks):
        yield from load_member(chunk, files.within(f"{number:06}"))


def _chunks(items: Iterable[Any]) -> Iterator[list[Any]]:
    chunk: list[Any] = []
    held = 0
    for item in items:
        size = _size(item)
        if chunk and (held + size > _CHUNK or len(chunk) == _ITEMS):
            yield chunk
            chunk, held = [], 0
        chunk.append(item)
        held += size
    if chunk:
        yield chunk


def _size(item: Any) -> int:
    """The bytes of an item: of plain data as JSON, of a table or an array as it says, else more than a chunk has."""
    if item is None or isinstance(item, bool | int | float):
        return 8
    if isinstance(item, str | bytes):
        return len(item)
    if is_plain(item):
        return len(dumps(item))
    nbytes = getattr(item, "nbytes", None)
    return nbytes if isinstance(nbytes, int) else _CHUNK + 1
