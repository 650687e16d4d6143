"""What can be said of annotations without importing anyone's library: does a value, or another annotation, fit?

Only certain mismatches are reported. Whatever is not understood (type variables, protocols, text that cannot be
resolved) fits, since the step itself is the better judge.
"""

from __future__ import annotations

import enum
import inspect
import re
import types
import typing
from collections.abc import Mapping, Sequence
from datetime import datetime, time, timedelta, timezone
from typing import Any

from .assets import Asset
from .ref import Ref
from .refs import named_artifact

__all__ = [
    "allows_none",
    "asset_type",
    "canonical",
    "compatible",
    "concrete",
    "conforms",
    "describe",
    "item_type",
    "pointed",
]

_NUMBERS: dict[type, tuple[type, ...]] = {float: (int,), complex: (int, float)}  # PEP 484's numeric tower


def describe(annotation: Any) -> str:
    """The annotation as a reader knows it."""
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__qualname__
    return re.sub(rf"\btyping\.|\b{re.escape(__package__)}\.\w+\.", "", str(annotation))


def pointed(annotation: Any) -> Any:
    """``T`` for ``Ref[T]``, also where that is optional or annotated; None for what takes a loaded value."""
    for part in _members(annotation):
        if part is Ref or typing.get_origin(part) is Ref:
            return next(iter(typing.get_args(part)), Any)
    return None


def asset_type(annotation: Any) -> type[Asset] | None:
    """The artifact type that an annotation declares (``Model``, ``Model | None``, ``"Model"``), if it does."""
    if isinstance(annotation, str):
        name = annotation.rpartition(".")[2]
        return next((kind for kind in _asset_types(Asset) if kind.__name__ == name), None)
    for part in _union(annotation):
        plain = typing.get_origin(part) or part
        if isinstance(plain, type) and issubclass(plain, Asset):
            return plain
    return None


def _asset_types(kind: type[Asset]) -> typing.Iterator[type[Asset]]:
    yield kind
    for sub in kind.__subclasses__():
        yield from _asset_types(sub)


def _members(annotation: Any) -> tuple[Any, ...]:
    """The members of a union; what is no union is its only one."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _members(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return tuple(part for member in typing.get_args(annotation) for part in _members(member))
    return (annotation,)


def _union(annotation: Any) -> tuple[Any, ...]:
    """The members of a union; of a ``Ref[T]`` those of ``T``, since the value behind it must fit all the same."""
    parts = _members(annotation)
    return tuple(inner for part in parts for inner in (_union(pointed(part)) if pointed(part) is not None else (part,)))


def allows_none(annotation: Any) -> bool:
    """Whether an annotation says that None is a value of it: ``Model | None``, also as text."""
    if isinstance(annotation, str):
        return bool(re.search(r"\bNone\b|\bOptional\b", annotation))
    return type(None) in _members(annotation)


def concrete(annotation: Any) -> type | None:
    """The plain class of an annotation, or None where nothing certain can be said of it."""
    if annotation is None:
        return type(None)
    origin = typing.get_origin(annotation) or annotation
    if origin in (object, Any, inspect.Parameter.empty) or not isinstance(origin, type):
        return None
    if getattr(origin, "_is_protocol", False):
        return None
    return origin


def item_type(annotation: Any) -> Any:
    """The annotation of one item of a list or tuple type, also an optional one; unknown (``Parameter.empty``) else."""
    found = []
    for part in _members(annotation):
        origin, args = typing.get_origin(part), typing.get_args(part)
        if origin in (list, tuple, typing.Sequence, Sequence) and args and (len(args) == 1 or args[1:] == (Ellipsis,)):
            found.append(args[0])
    return found[0] if len(found) == 1 else inspect.Parameter.empty


def compatible(given: Any, wanted: Any) -> bool:
    """Whether a value annotated ``given`` may be passed to a parameter annotated ``wanted``.

    An artifact type fits anything: its content is unwrapped for a parameter of another type, and the other way round.
    """
    if asset_type(given) or asset_type(wanted):
        one, other = asset_type(given), asset_type(wanted)
        return one is None or other is None or issubclass(one, other) or issubclass(other, one)
    return any(_fits(one, other) for one in _union(given) for other in _union(wanted))


def _fits(given: Any, wanted: Any) -> bool:
    one, other = concrete(given), concrete(wanted)
    if one is None or other is None:
        return True
    try:
        related = issubclass(one, other) or issubclass(other, one) or (other in _NUMBERS and one in _NUMBERS[other])
    except TypeError:
        return True
    if not related:
        return False
    inner, outer = item_type(given), item_type(wanted)
    empty = inspect.Parameter.empty
    return inner is empty or outer is empty or compatible(inner, outer)


def conforms(value: Any, annotation: Any) -> bool:
    """Whether a parameter's value is of the annotated type, as far as the annotation is plain Python.

    Of a ``Ref`` it may be what names an artifact, too.
    """
    named = pointed(annotation) is not None and named_artifact(value) is not None
    return named or any(_value_fits(value, part) for part in _union(annotation))


def canonical(value: Any, annotation: Any) -> Any:
    """A conforming value in the one form that it has however it was given, in Python or as the JSON of an engine.

    Where the annotation says ``float`` whole numbers are floats, inside of it too; the zone of a parsed time is the
    standard library's. So the same run has the same bytes.
    """
    parts = _union(annotation)
    if isinstance(value, datetime | time) and type(value.tzinfo).__module__.startswith("pydantic"):
        return value.replace(tzinfo=timezone(value.utcoffset() or timedelta()))
    if type(value) is int:
        return float(value) if float in parts and int not in parts and abs(value) < 2**1023 else value
    for part in parts:
        origin, args = typing.get_origin(part), typing.get_args(part)
        if origin is type(value) is dict and len(args) == 2:
            return {canonical(key, args[0]): canonical(item, args[1]) for key, item in value.items()}
        if origin is type(value) and origin in (list, tuple) and args:
            inner = args if len(args) == len(value) and Ellipsis not in args else (item_type(part),) * len(value)
            return origin(canonical(item, kind) for item, kind in zip(value, inner, strict=True))
    return value


def _value_fits(value: Any, annotation: Any) -> bool:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return value in args
    plain = concrete(annotation)
    if plain is None or annotation is inspect.Parameter.empty or issubclass(plain, Asset):
        return True
    if plain in (int, float) and isinstance(value, bool):
        return False
    if issubclass(plain, enum.Enum) and not isinstance(value, plain):
        return False
    try:
        if not isinstance(value, (plain, *_NUMBERS.get(plain, ()))):
            return False
    except TypeError:
        return True
    if args and isinstance(value, list | tuple | set | frozenset):
        inner = item_type(annotation) if origin in (list, tuple) else inspect.Parameter.empty
        return all(conforms(item, inner) for item in value)
    if args and isinstance(value, Mapping) and len(args) == 2:
        return all(conforms(key, args[0]) and conforms(item, args[1]) for key, item in value.items())
    return True
