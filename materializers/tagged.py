"""Python values as JSON that gives back exactly what went in: plain JSON where that is exact, tags where it is not.

A value that JSON holds exactly is its own encoding. Anything else becomes ``{"$t": kind, "v": ...}``, at any depth. A
value of a kind that is not known here goes to the caller's ``leaf``, or is refused: nothing is ever approximated.

Not kept: whether two equal parts of a structure were one object (they come back as two).
"""

from __future__ import annotations

import base64
import math
import reprlib
import struct
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

from ..core.errors import MaterializationError
from ..core.typenames import type_name

__all__ = [
    "TAG",
    "Attribute",
    "Decoder",
    "Encoder",
    "Place",
    "decode",
    "dumps",
    "encode",
    "is_plain",
    "loads",
    "plain_json",
    "readable",
    "tag",
]

TAG = "$t"

Leaf = Callable[[Any, str], Any]
"""Takes a value and where it is (``"['train'][0]"``); returns its tagged JSON or raises MaterializationError."""

_JSON = {type(None), bool, int, float, str, list, dict}
_MAX_DEPTH = 250
_REFERENCES_TO_ONE = 4  # in its container, in two lists here, in the call; to one that stands there twice, six or seven
_NAN = struct.pack(">d", math.nan)


def encode(value: Any, leaf: Leaf | None = None) -> Any:
    """The value as JSON-able data from which :func:`decode` makes it again.

    Raises MaterializationError, naming the place, for what has no exact form, is cyclic, or is nested too deeply.
    """
    if is_plain(value):
        return value
    try:
        return Encoder(leaf).encode(value)
    except RecursionError as error:
        raise MaterializationError("it contains itself or is nested too deeply") from error


def decode(node: Any, leaf: Callable[[Any], Any] | None = None) -> Any:
    """The value that :func:`encode` was given. ``leaf`` takes the nodes that the encoder's ``leaf`` wrote."""
    return Decoder(leaf).decode(node)


def dumps(tree: Any) -> bytes:
    """What :func:`encode` returned, as bytes of JSON."""
    import orjson

    try:
        return orjson.dumps(tree)
    except orjson.JSONEncodeError as error:
        raise MaterializationError(f"it contains itself or is nested too deeply ({error})") from error


def loads(data: bytes | bytearray | memoryview) -> Any:
    """The inverse of :func:`dumps`."""
    import orjson

    return orjson.loads(data)


# ---- is it plain? By levels, so that the loops run in C: a tenth of the cost of walking in Python.


def plain_json(value: Any, *, tags: bool = False) -> bytes | None:
    """The value as plain JSON, if that holds it exactly; ``None`` of any other, and of one that contains itself.

    With ``tags`` the value may be, or hold, what :func:`encode` returned.
    """
    import orjson

    found: set[type] = set()
    for depth, (kinds, _) in enumerate(_levels(value)):
        found |= kinds
        if not kinds <= _JSON or depth > _MAX_DEPTH:  # orjson would take tuples and enums, and crash on cyclic tuples
            return None
    try:
        data = orjson.dumps(value)  # refuses long integers, lone surrogates, keys that are not text
    except orjson.JSONEncodeError:
        return None
    if not tags and b"$" in data and any(TAG in item for item in _all(dict, value)):
        return None
    if float in found and b"null" in data:  # from None, from a text, or from a number that JSON does not have
        return data if all(map(math.isfinite, _all(float, value))) else None
    return data


def _all(kind: type, value: Any) -> Iterator[Any]:
    """What is of this type in a value that is known to end."""
    levels = ([item for item in level if type(item) is kind] for kinds, level in _levels(value) if kind in kinds)
    return chain.from_iterable(levels)


def _levels(value: Any) -> Iterator[tuple[set[type], list[Any]]]:
    """The value; the members of it if it is a list or dict; the members of these; and so on, without an end in a cycle.

    Each level with the types in it. A container is asked once in a level, however often it stands there.
    """
    level = [value]
    while level:
        kinds = set(map(type, level))
        yield kinds, level
        lists = _members(level, list, iter) if list in kinds else ()
        dicts = _members(level, dict, dict.values) if dict in kinds else ()
        level = [*lists, *dicts]


def _members(level: list[Any], kind: type, members: Callable[[Any], Iterable[Any]]) -> Iterator[Any]:
    found = [item for item in level if type(item) is kind]
    if max(map(sys.getrefcount, found)) > _REFERENCES_TO_ONE:  # a quick way to see that none stands there twice
        found = list({id(item): item for item in found}.values())
    return chain.from_iterable(map(members, found))


def is_plain(value: Any, *, tags: bool = False) -> bool:
    """Whether plain JSON holds the value exactly; see :func:`plain_json`."""
    return plain_json(value, tags=tags) is not None


def plain_keys(mapping: dict[Any, Any]) -> bool:
    """Whether a JSON object can have the keys of this one."""
    return set(map(type, mapping)) <= {str} and TAG not in mapping and _are_utf8(mapping)


def _are_utf8(texts: Collection[str]) -> bool:
    """Whether no text has a lone surrogate, which UTF-8 and so JSON cannot hold."""
    if all(map(str.isascii, texts)):
        return True
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return False
    return True


def readable(value: Any) -> Any:
    """Something like the value, for people: plain JSON, with text in place of what that cannot hold."""
    if is_plain(value):
        return value
    if isinstance(value, Mapping):
        return {_text(str(key)): readable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [readable(item) for item in value]
    return _text(value if isinstance(value, str) else reprlib.repr(value))


def _text(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


# ---- encoding


class Attribute(str):
    """A place inside an object, as opposed to a key or an index of a container."""

    __slots__ = ()


class Place(str):
    """Where a part is, as Python would write it; with the keys and indexes that lead there."""

    __slots__ = ("path",)
    path: tuple[Any, ...]


class Encoder:
    """Walks one value. ``where`` is the place it has come to, for messages."""

    def __init__(self, leaf: Leaf | None = None, path: list[Any] | None = None) -> None:
        self.leaf = leaf
        self._path: list[Any] = [] if path is None else path

    def encode(self, value: Any) -> Any:
        """Encode a part of the value, at the current place."""
        handler = _HANDLERS.get(type(value)) or _find_handler(type(value))
        if handler:
            return handler(self, value)
        if self.leaf:
            return self.leaf(value, self.where)
        raise self.refuse(value, "which has no exact form in JSON")

    def members(self, items: Iterable[tuple[Any, Any]]) -> list[Any]:
        """Encode parts; each comes with its place below the current one: a key, an index or an :class:`Attribute`."""
        path = self._path
        if len(path) >= _MAX_DEPTH:
            raise MaterializationError(f"it contains itself or is nested more than {_MAX_DEPTH} levels deep")
        path.append(None)
        out = []
        for place, item in items:
            path[-1] = place
            out.append(self.encode(item))
        path.pop()
        return out

    def items(self, value: Iterable[Any]) -> list[Any]:
        """Encode the items of a sequence."""
        items = list(value)
        return items if is_plain(items) else self.members(enumerate(items))

    def keys(self, value: Iterable[Any]) -> list[Any]:
        """Encode parts that have no place of their own, hence no files of their own: keys, the items of a set."""
        return Encoder(path=self._path).members((key, key) for key in value)

    def pairs(self, value: Any) -> list[list[Any]]:
        """Encode a mapping with any keys, in its order."""
        values = self.members(value.items())
        return [list(pair) for pair in zip(self.keys(value), values, strict=True)]

    @property
    def where(self) -> Place:
        """The current place, as Python would write it: ``"['train'][0].name"``; ``""`` at the top."""
        parts = (f".{part}" if type(part) is Attribute else f"[{reprlib.repr(part)}]" for part in self._path)
        place = Place("".join(parts))
        place.path = tuple(self._path)
        return place

    def refuse(self, value: Any, reason: str) -> MaterializationError:
        """The error that names the place, the type and the reason."""
        place = f"at {self.where} " if self._path else ""
        return MaterializationError(f"{place}it is a {type_name(type(value))}, {reason}")


Handler = Callable[[Encoder, Any], Any]


def tag(kind: str, value: Any, /, **more: Any) -> dict[str, Any]:
    """A tagged node."""
    return {TAG: kind, **more, "v": value}


def _int(encoder: Encoder, value: int) -> Any:
    return value if -(1 << 63) <= value < 1 << 64 else tag("int", hex(value))


def _float(encoder: Encoder, value: float) -> Any:
    if math.isfinite(value):
        return value
    bits = struct.pack(">d", value)
    if math.isnan(value) and bits != _NAN:
        return tag("float", f"0x{bits.hex()}")  # NaNs differ in sign and payload
    return tag("float", repr(value))


def _str(encoder: Encoder, value: str) -> Any:
    return value if _are_utf8([value]) else tag("str", value.encode("unicode_escape").decode("ascii"))


def _dict(encoder: Encoder, value: dict[Any, Any]) -> Any:
    if plain_keys(value):
        return dict(zip(value, encoder.members(value.items()), strict=True))
    return tag("dict", encoder.pairs(value))


def _set(encoder: Encoder, value: set[Any] | frozenset[Any]) -> Any:
    return tag(type(value).__name__, sorted(encoder.keys(value), key=dumps))


def _bytes(encoder: Encoder, value: bytes | bytearray) -> Any:
    return tag(type(value).__name__, base64.b64encode(value).decode())


def _sliced(encoder: Encoder, value: range | slice) -> Any:
    return tag(type(value).__name__, encoder.items((value.start, value.stop, value.step)))


_HANDLERS: dict[type, Handler] = {
    type(None): lambda encoder, value: None,
    bool: lambda encoder, value: value,
    int: _int,
    float: _float,
    str: _str,
    list: Encoder.items,
    dict: _dict,
    tuple: lambda encoder, value: tag("tuple", encoder.items(value)),
    set: _set,
    frozenset: _set,
    bytes: _bytes,
    bytearray: _bytes,
    complex: lambda encoder, value: tag("complex", [_float(encoder, value.real), _float(encoder, value.imag)]),
    range: _sliced,
    slice: _sliced,
    type(...): lambda encoder, value: tag("ellipsis", None),
}

_LIBRARY_SCALARS = {"numpy.generic": "numpy_scalars"} | {
    f"pandas.{name}": "pandas_scalars" for name in ("Timestamp", "Timedelta", "NaTType", "NAType", "Period", "Interval")
}


_FOUND: WeakKeyDictionary[type, Handler | None] = WeakKeyDictionary()


def _find_handler(cls: type) -> Handler | None:
    """The handler of a type that is not built in; ``None`` for one that is not known here."""
    try:
        return _FOUND[cls]
    except KeyError:
        found = _FOUND[cls] = _search_handler(cls)
        return found


def _search_handler(cls: type) -> Handler | None:
    """The standard library's, a library's for its scalars, or that of a class with fields."""
    from .classes import class_handler
    from .stdlib import ENCODERS

    names = [f"{base.__module__.partition('.')[0]}.{base.__qualname__}" for base in cls.__mro__]
    if names[0] in ENCODERS:
        return ENCODERS[names[0]]
    for name in names:
        if name in _LIBRARY_SCALARS:
            scalar: Handler = _module(_LIBRARY_SCALARS[name]).encode_scalar
            return scalar
    return class_handler(cls)


def _module(name: str) -> Any:
    import importlib

    return importlib.import_module(f".{name}", __package__)


# ---- decoding


class Decoder:
    """Makes the value again."""

    def __init__(self, leaf: Callable[[Any], Any] | None = None) -> None:
        self.leaf = leaf

    def decode(self, node: Any) -> Any:
        """The value of a node."""
        kind = type(node)
        if kind is list:
            return [self.decode(item) for item in node]
        if kind is not dict:
            return node
        if TAG not in node:
            return {key: self.decode(item) for key, item in node.items()}
        maker = _MAKERS.get(node[TAG]) or _find_maker(node[TAG])
        if maker:
            return maker(self, node)
        if self.leaf:
            return self.leaf(node)
        raise MaterializationError(f"the stored JSON has a value of the unknown kind {node[TAG]!r}")

    def items(self, node: Any) -> Any:
        """The values of the nodes in a tagged node."""
        return [self.decode(item) for item in node["v"]]


Maker = Callable[[Decoder, Any], Any]


def _make_float(decoder: Decoder, node: Any) -> float:
    text = node["v"]
    if not text.startswith("0x"):
        return float(text)
    number: float = struct.unpack(">d", bytes.fromhex(text[2:]))[0]
    return number


_MAKERS: dict[str, Maker] = {
    "int": lambda decoder, node: int(node["v"], 16),
    "float": _make_float,
    "complex": lambda decoder, node: complex(*decoder.items(node)),
    "str": lambda decoder, node: node["v"].encode("ascii").decode("unicode_escape"),
    "bytes": lambda decoder, node: base64.b64decode(node["v"]),
    "bytearray": lambda decoder, node: bytearray(base64.b64decode(node["v"])),
    "tuple": lambda decoder, node: tuple(decoder.items(node)),
    "set": lambda decoder, node: set(decoder.items(node)),
    "frozenset": lambda decoder, node: frozenset(decoder.items(node)),
    "dict": lambda decoder, node: dict(decoder.items(node)),
    "range": lambda decoder, node: range(*decoder.items(node)),
    "slice": lambda decoder, node: slice(*decoder.items(node)),
    "ellipsis": lambda decoder, node: ...,
}

_ELSEWHERE = {
    "class": "classes",
    "numpy": "numpy_scalars",
    "array": "numpy_scalars",
    "pandas": "pandas_scalars",
}


def _find_maker(kind: str) -> Maker | None:
    from .stdlib import MAKERS

    if kind in _ELSEWHERE:
        found: Maker = _module(_ELSEWHERE[kind]).make
        return found
    return MAKERS.get(kind)
