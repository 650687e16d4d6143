"""Objects of classes with fields as tagged JSON: enum members, named tuples, dataclasses, attrs and pydantic.

An object is stored as the name of its class and its state, and made again from these without calling the class: no
``__init__``, ``__post_init__`` or validator runs. The name of a class is trusted like code in one way: its module is
imported if it is not yet. The class found must then be of the stored kind, else nothing is made of it.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import sys
import types
from typing import Any

from ..core.errors import MaterializationError
from .tagged import Attribute, Decoder, Encoder, Handler, plain_keys, tag

__all__ = ["class_handler", "find", "make", "resolve"]


def class_handler(cls: type) -> Handler | None:
    """How objects of this class are encoded, if it is of one of the kinds."""
    return next((encode for kind, encode in _ENCODERS.items() if _IS_KIND[kind](cls)), None)


def make(decoder: Decoder, node: Any) -> Any:
    """The object of a node."""
    kind = node["kind"]
    cls = resolve(node["class"])
    if not _IS_KIND[kind](cls):
        raise MaterializationError(f"the stored value names the class {node['class']!r}, which is no {kind}: refused")
    return _MAKERS[kind](decoder, cls, node)


# ---- classes by name


def find(module: str, name: str) -> Any:
    """What a module that is imported has under a dotted name; ``None`` if there is nothing."""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def _reference(encoder: Encoder, value: Any) -> str:
    cls = type(value)
    if "<locals>" in cls.__qualname__:
        raise encoder.refuse(
            value, "a class made inside a function, which cannot be found again; move it to the top of its module"
        )
    if find(cls.__module__, cls.__qualname__) is not cls:
        raise encoder.refuse(value, f"but {cls.__module__} has another {cls.__qualname__} now, or none")
    return f"{cls.__module__}:{cls.__qualname__}"


def resolve(reference: str) -> type:
    """The class of a ``"module:name"``, whose module is imported if it is not yet."""
    module, _, name = reference.partition(":")
    if module not in sys.modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise MaterializationError(
                f"the stored value is of the class {reference!r}, whose module cannot be imported here ({error}). "
                "Put the module on the path, or load where it was saved."
            ) from error
    found = find(module, name)
    if not isinstance(found, type):
        raise MaterializationError(
            f"the stored value is of the class {reference!r}, which is not there. "
            "If it was defined in a script or notebook (__main__), move it to a module that both sides import."
        )
    return found


def _node(encoder: Encoder, kind: str, value: Any, state: Any, **more: Any) -> Any:
    return tag("class", state, kind=kind, **{"class": _reference(encoder, value)}, **more)


def _attributes(encoder: Encoder, value: Any, state: dict[str, Any]) -> dict[str, Any]:
    if not plain_keys(state):
        raise encoder.refuse(value, f"with attributes whose names JSON cannot hold: {list(state)!r}")
    return dict(zip(state, encoder.members((Attribute(name), item) for name, item in state.items()), strict=True))


# ---- enum: by name; a combination of flags by value


def _is_enum(cls: type) -> bool:
    return issubclass(cls, enum.Enum)


def _enum(encoder: Encoder, value: enum.Enum) -> Any:
    if type(value).__members__.get(value.name or "") is value:
        return _node(encoder, "enum", value, value.name)
    return _node(encoder, "enum", value, encoder.encode(value.value), combined=True)


def _make_enum(decoder: Decoder, cls: Any, node: Any) -> Any:
    if node.get("combined"):
        return cls(decoder.decode(node["v"]))
    if node["v"] not in cls.__members__:
        raise MaterializationError(
            f"the stored value is {node['v']!r} of the enum {node['class']!r}, which has no such member now"
        )
    return cls[node["v"]]


# ---- named tuples


def _is_namedtuple(cls: type) -> bool:
    return issubclass(cls, tuple) and isinstance(getattr(cls, "_fields", None), tuple)


def _namedtuple(encoder: Encoder, value: Any) -> Any:
    if getattr(value, "__dict__", None):
        raise encoder.refuse(value, f"with attributes of its own ({', '.join(vars(value))})")
    state = dict(zip(value._fields, value, strict=True))
    return _node(encoder, "namedtuple", value, _attributes(encoder, value, state))


def _make_namedtuple(decoder: Decoder, cls: Any, node: Any) -> Any:
    if list(node["v"]) != list(cls._fields):
        raise MaterializationError(
            f"the stored {node['class']!r} has the fields {list(node['v'])}, the class now has {list(cls._fields)}"
        )
    return tuple.__new__(cls, [decoder.decode(item) for item in node["v"].values()])


# ---- dataclasses and attrs classes

_HEAP_TYPE = 1 << 9  # a class that is not made by a class statement has memory of its own, which no attribute shows
_CACHED_HASH = "_attrs_cached_hash"
_OWN_STATE = {"__init__", "__new__", "__getstate__", "__setstate__", "__reduce__", "__reduce_ex__"}


def _is_dataclass(cls: type) -> bool:
    return dataclasses.is_dataclass(cls) and all(_is_transparent(base) for base in cls.__mro__)


def _is_attrs(cls: type) -> bool:
    return hasattr(cls, "__attrs_attrs__") and all(_is_transparent(base) for base in cls.__mro__)


def _is_transparent(base: type) -> bool:
    """Whether attributes are all that a base class adds to an object."""
    if base is object or base.__module__ in ("typing", "abc"):
        return True
    if {"__dataclass_fields__", "__attrs_attrs__"} & set(vars(base)):
        return True
    return bool(base.__flags__ & _HEAP_TYPE) and not _OWN_STATE & set(vars(base))


def _dataclass(encoder: Encoder, value: Any) -> Any:
    return _fields(encoder, "dataclass", value, [field.name for field in dataclasses.fields(value)])


def _attrs(encoder: Encoder, value: Any) -> Any:
    return _fields(encoder, "attrs class", value, [field.name for field in type(value).__attrs_attrs__])


def _fields(encoder: Encoder, kind: str, value: Any, names: list[str]) -> Any:
    state = object.__getstate__(value)  # not one of the class's own
    attributes, slots = state if isinstance(state, tuple) else (state, None)
    attributes, slots = (_without_hash(part or {}) for part in (attributes, slots))
    fields = [name for name in names if name in attributes]
    ordered = {name: attributes[name] for name in [*fields, *sorted(set(attributes) - set(fields))]}
    more = {"slots": _attributes(encoder, value, slots)} if slots else {}
    return _node(encoder, kind, value, _attributes(encoder, value, ordered), **more)


def _without_hash(state: dict[str, Any]) -> dict[str, Any]:
    """The state, where attrs has remembered no hash: it is another in another process."""
    return state | {_CACHED_HASH: None} if _CACHED_HASH in state else state


def _make_fields(decoder: Decoder, cls: Any, node: Any) -> Any:
    value = object.__new__(cls)
    if node["v"]:
        value.__dict__.update({name: decoder.decode(item) for name, item in node["v"].items()})
    for name, item in node.get("slots", {}).items():
        slot = getattr(cls, name, None)
        if not isinstance(slot, types.MemberDescriptorType):
            raise MaterializationError(f"the stored {node['class']!r} has a slot {name!r}, the class now has none")
        slot.__set__(value, decoder.decode(item))
    return value


# ---- pydantic models: the state as their own __getstate__ gives it, so that private attributes and unset fields stay


def _is_pydantic(cls: type) -> bool:
    return hasattr(cls, "__pydantic_fields__") and any(
        base.__qualname__ == "BaseModel" and base.__module__.startswith("pydantic.") for base in cls.__mro__
    )


def _pydantic(encoder: Encoder, value: Any) -> Any:
    from pydantic import BaseModel

    state = BaseModel.__getstate__(value)
    more: dict[str, Any] = {"set": sorted(state["__pydantic_fields_set__"])}
    for name in ("extra", "private"):
        if state[f"__pydantic_{name}__"] is not None:
            more[name] = _attributes(encoder, value, state[f"__pydantic_{name}__"])
    return _node(encoder, "pydantic model", value, _attributes(encoder, value, state["__dict__"]), **more)


def _make_pydantic(decoder: Decoder, cls: Any, node: Any) -> Any:
    from pydantic import BaseModel

    value = cls.__new__(cls)
    state = {
        "__dict__": decoder.decode(node["v"]),
        "__pydantic_fields_set__": set(node["set"]),
        "__pydantic_extra__": decoder.decode(node.get("extra")),
        "__pydantic_private__": decoder.decode(node.get("private")),
    }
    BaseModel.__setstate__(value, state)
    return value


_IS_KIND = {
    "enum": _is_enum,
    "pydantic model": _is_pydantic,
    "dataclass": _is_dataclass,
    "attrs class": _is_attrs,
    "namedtuple": _is_namedtuple,
}
_ENCODERS: dict[str, Handler] = {
    "enum": _enum,
    "pydantic model": _pydantic,
    "dataclass": _dataclass,
    "attrs class": _attrs,
    "namedtuple": _namedtuple,
}
_MAKERS: dict[str, Any] = {
    "enum": _make_enum,
    "pydantic model": _make_pydantic,
    "dataclass": _make_fields,
    "attrs class": _make_fields,
    "namedtuple": _make_namedtuple,
}
