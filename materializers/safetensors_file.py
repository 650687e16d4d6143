"""safetensors files, written from memory without a copy and read over bytes that were verified.

The format is that of https://github.com/huggingface/safetensors: the length of a header, the header in JSON, and the
bytes of each tensor in C order without gaps. The library's own writer wants the whole file in memory once more, and its
reader opens files by itself; both are a few lines here. A header is data from outside and is checked in every number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..core.errors import MaterializationError
from .files import Buffer, FileWriter
from .tagged import dumps, loads

__all__ = ["Entry", "read_safetensors", "write_safetensors"]

_SIZES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}
_LENGTH = 8


class Entry(NamedTuple):
    """A tensor in a file: its dtype as the format names it, its shape, its bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: Buffer


def write_safetensors(
    files: FileWriter, name: str, entries: Mapping[str, Entry], notes: Mapping[str, str] | None = None
) -> None:
    """Write a file: the widest numbers first, so that all of them are aligned, then by name."""
    ordered = sorted(entries.items(), key=lambda item: (-_SIZES[item[1].dtype], item[0]))
    header: dict[str, Any] = {"__metadata__": dict(notes)} if notes else {}
    end = 0
    for key, entry in ordered:
        begin, end = end, end + len(entry.data)
        header[key] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [begin, end]}
    text = dumps(header)
    text += b" " * (-len(text) % 8)
    files.write(name, len(text).to_bytes(_LENGTH, "little"), text, *(entry.data for _, entry in ordered))


def read_safetensors(data: memoryview) -> dict[str, Entry]:
    """The tensors of a file, as parts of its memory. Raises MaterializationError when its header does not hold."""
    size = int.from_bytes(data[:_LENGTH], "little")
    begin = _LENGTH + size
    if len(data) < begin or bytes(data[_LENGTH : _LENGTH + 1]) != b"{":
        raise MaterializationError("it is no safetensors file")
    header = loads(data[_LENGTH:begin])
    header.pop("__metadata__", None)
    found = {name: _entry(name, about, data[begin:]) for name, about in header.items()}
    ends = sorted(tuple(about["data_offsets"]) for about in header.values())
    if [start for start, _ in ends] + [len(data) - begin] != [0, *(end for _, end in ends)]:
        raise MaterializationError("the tensors of the safetensors file overlap, or leave gaps")
    return found


def _entry(name: str, about: Any, data: memoryview) -> Entry:
    try:
        dtype, shape, (start, end) = about["dtype"], tuple(about["shape"]), about["data_offsets"]
        numbers = (*shape, start, end)
        sound = all(type(number) is int and number >= 0 for number in numbers) and end <= len(data)
        if not sound or end - start != math.prod(shape) * _SIZES[dtype]:
            raise ValueError(f"{dtype}{list(shape)} at {start} to {end} of {len(data)}")
    except (KeyError, TypeError, ValueError) as error:
        raise MaterializationError(f"the header of the safetensors file lies about {name!r}: {error}") from error
    return Entry(dtype, shape, data[start:end])
