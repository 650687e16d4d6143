"""Annotations that are written as text, made into what they name, as far as that can be known where they stand."""

from __future__ import annotations

import builtins
import inspect
import re
import types
import typing
from collections import ChainMap
from collections.abc import Callable
from typing import Any

__all__ = ["resolved"]


def resolved(annotation: Any, fn: Callable[..., Any]) -> Any:
    """The annotation itself for one written as text; the text where a name in it is not known here."""
    if not isinstance(annotation, str):
        return annotation
    inner = inspect.unwrap(fn)
    closure = getattr(inner, "__closure__", None) or ()
    names = inner.__code__.co_freevars if isinstance(inner, types.FunctionType) else ()
    local = {}
    for name, cell in zip(names, closure, strict=False):
        try:
            local[name] = cell.cell_contents
        except ValueError:  # not yet assigned in the enclosing function
            continue
    known = getattr(inner, "__globals__", {})
    try:
        return eval(annotation, known, local)  # noqa: S307  # as typing.get_type_hints does
    except (NameError, AttributeError, TypeError, SyntaxError):
        return _with_unknown(annotation, ChainMap(local, known, vars(builtins)))


def _with_unknown(annotation: str, known: ChainMap[str, Any]) -> Any:
    """The annotation around names that only type checkers know, where it says ``Ref``; else the text."""
    if not re.search(r"\bRef\b", annotation):
        return annotation
    try:
        return eval(annotation, {}, _Names(*known.maps))  # noqa: S307  # as above
    except (AttributeError, TypeError, SyntaxError):
        return annotation


class _Names(ChainMap[str, Any]):
    """Names, of which those that are not known stand for themselves."""

    def __missing__(self, name: str) -> _Unknown:
        return _Unknown(name)


class _Unknown:
    """A type that is imported for type checkers only, such as ``pd.DataFrame`` where pandas is."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __getattr__(self, name: str) -> _Unknown:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Unknown(f"{self.text}.{name}")

    def __getitem__(self, _items: Any) -> _Unknown:
        return self

    def __call__(self) -> None:
        """Called by nobody; what typing takes for a type must be callable."""

    def __or__(self, other: Any) -> Any:
        return typing.Union[self, other]  # noqa: UP007  # this is how it is made

    def __ror__(self, other: Any) -> Any:
        return typing.Union[other, self]  # noqa: UP007  # this is how it is made

    def __repr__(self) -> str:
        return self.text
