"""``${VAR}`` and ``${VAR:-default}`` in a configuration's text, and how that text is shown without its secrets."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

__all__ = ["Loc", "expand", "has_variable", "mask", "mask_options", "shown"]

Loc = tuple[str | int, ...]
"""A place in a document: the keys and indices that lead there."""

_VARIABLE = re.compile(r"\$\{(?:([A-Za-z_]\w*)(?::-([^}]*))?\})?")
_SECRETIVE = "secret|passw|token|credential|api_?key|access_?key"  # what names of options that are secret contain
_IN_URL = re.compile(r"(?<=://)[^/\s]+@")
_IN_QUERY = re.compile(rf"(?i)(?<=[?&])([^=&\s]*(?:{_SECRETIVE}|signature)[^=&\s]*|sig)=[^&\s]+")


def has_variable(value: Any) -> bool:
    """Whether a value is text that is expanded."""
    return isinstance(value, str) and "${" in value


def expand(value: Any, loc: Loc, report: Callable[[Loc, str], None]) -> Any:
    """The value with the variables in all its text replaced; what cannot be is reported with its place, and stays.

    As in a shell, the default of ``${VAR:-default}`` stands for an unset variable and for an empty one.
    """
    if isinstance(value, dict):
        return {key: expand(item, (*loc, key), report) for key, item in value.items()}
    if isinstance(value, list):
        return [expand(item, (*loc, index), report) for index, item in enumerate(value)]
    if not has_variable(value):
        return value

    def replacement(match: re.Match[str]) -> str:
        name, default = match.groups()
        if name is None:
            report(loc, "Write a variable as ${NAME} or ${NAME:-default}")
            return match.group()
        found = os.environ.get(name)
        if default is not None:
            return found or default
        if found is None:
            report(loc, f"The variable {name} is not set. Set it, or give a default: ${{{name}:-default}}")
            return match.group()
        return found

    return _VARIABLE.sub(replacement, value)


def mask(text: str) -> str:
    """The text without the secrets of any URL in it: user and password, and passwords and tokens in the query."""
    return _IN_QUERY.sub(r"\1=***", _IN_URL.sub("***@", text))


def mask_options(value: Any, name: str = "") -> Any:
    """Options as they were written, to show to people: values whose name says that they are secret are hidden.

    A variable is shown as it was written.
    """
    if isinstance(value, dict):
        return {key: mask_options(item, str(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [mask_options(item, name) for item in value]
    secret = re.search(_SECRETIVE, name, re.IGNORECASE) and not re.fullmatch(r"\$\{\w+\}", str(value))
    return "***" if secret else mask(value) if isinstance(value, str) else value


def shown(value: Any) -> str:
    """A value as it was written, short, as part of a sentence."""
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    return "nothing" if value is None else repr(mask(value) if isinstance(value, str) else value)[:80]
