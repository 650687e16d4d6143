"""Components by name: those that come with Tailrace first, then the entry points of installed packages."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from typing import Any

from .errors import ConfigError, Problem, did_you_mean

__all__ = ["component", "entry_points"]


@functools.cache
def entry_points(group: str) -> Mapping[str, Any]:
    """The entry points of a group by name. Reading them takes milliseconds, so ask only when nothing built in fits."""
    from importlib import metadata

    return {point.name: point for point in metadata.entry_points(group=group)}


def component(group: str, name: str, builtin: Mapping[str, str]) -> Any:
    """The class or function behind a name: ``builtin`` maps names to ``"module:attribute"``.

    Raises :class:`~tailrace.ConfigError` that lists the known names.
    """
    if name in builtin:
        module, _, attribute = builtin[name].partition(":")
        return getattr(importlib.import_module(module), attribute)
    points = entry_points(group)
    if name in points:
        return points[name].load()
    what = f"unknown type {name!r}.{did_you_mean(name, {*builtin, *points})}"
    raise ConfigError("A component cannot be used", [Problem(what, group)])
