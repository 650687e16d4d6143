"""The names by which types are routed and shown, without importing anything."""

from __future__ import annotations

import inspect
import sys
import typing
from typing import Any

from .annotations import asset_type, pointed
from .assets import Asset
from .errors import MaterializationError

__all__ = ["asset_named", "routing_names", "type_name"]


def type_name(kind: type) -> str:
    """``"Model"``, ``"dict"``, ``"pandas.DataFrame"``: shortest name by which people know the type.

    A class that its top-level package exports under its own name goes by that name, wherever it is really defined.
    """
    if issubclass(kind, Asset) and kind.__module__.startswith(f"{__package__}."):
        return kind.__name__
    if kind.__module__ == "builtins":
        return kind.__qualname__
    top = kind.__module__.partition(".")[0]
    if (
        vars(sys.modules.get(top, sys)).get(kind.__qualname__) is kind
    ):  # not getattr, which some modules answer with a warning
        return f"{top}.{kind.__qualname__}"
    return f"{kind.__module__}.{kind.__qualname__}"


def routing_names(kind: Any) -> list[str]:
    """The names under which rules are looked for, most specific first: the type's and those of its base classes.

    ``kind`` is a class or an annotation; what is no class has no names and falls to the default rule.
    """
    declared = asset_type(kind)
    target = pointed(kind)
    kind = kind if target is None else target
    plain = declared or (kind if isinstance(kind, type) else typing.get_origin(kind))
    if not isinstance(plain, type) or plain is inspect.Parameter.empty or plain is Any:
        return []
    names: list[str] = []
    for base in plain.__mro__[:-1]:
        names += [type_name(base), f"{base.__module__}.{base.__qualname__}"]
    return list(dict.fromkeys(names))


def asset_named(name: str) -> type[Asset]:
    """The artifact type that :func:`type_name` calls so, from the classes that are loaded: a name imports nothing.

    Raises :class:`~tailrace.MaterializationError` when no such class is loaded.
    """
    waiting: list[type[Asset]] = [Asset]
    while waiting:
        kind = waiting.pop()
        if type_name(kind) == name:
            return kind
        waiting += kind.__subclasses__()
    module = name.rpartition(".")[0]
    raise MaterializationError(f"It is a {name}, and no class of that name is loaded. Import {module!r} first.")
