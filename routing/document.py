"""A YAML file as plain data with the line of every key, and with what YAML would let pass: keys that are doubled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..core.errors import ConfigError, Problem
from .variables import Loc, shown

__all__ = ["Document"]

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, where PyYAML was built with it
_TEXT = "tag:yaml.org,2002:str"
_MERGE = "tag:yaml.org,2002:merge"


@dataclass(frozen=True)
class Document:
    """What a file holds, as it is written. ``faults`` are those that leave something to go on with."""

    path: Path
    data: Mapping[str, Any]
    lines: Mapping[Loc, int]
    faults: tuple[Problem, ...]

    @classmethod
    def read(cls, path: Path) -> Document:
        """Read a file whose top is a mapping; an empty one has no keys.

        Raises :class:`~tailrace.ConfigError` if it cannot be read, or is no such YAML.
        """
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else f"it is not UTF-8 ({error.reason})"
            raise ConfigError(str(path), [Problem(f"The file cannot be read: {reason}", path.name)]) from error
        try:
            data, reader = _parse(text, path)
        except yaml.YAMLError as error:
            problem = _syntax(error, text, path)
        except (ValueError, RecursionError) as error:  # a date that does not exist; brackets without an end
            problem = Problem(f"This is no YAML: {error}", path.name)
        else:
            if isinstance(data, dict):
                return cls(path, data, reader.lines, tuple(reader.faults))
            problem = Problem(f"Expected a mapping (key: value), not {shown(data)}", path.name)
        raise ConfigError(str(path), [problem])

    def at(self, loc: Loc) -> Any:
        """What is written at a place; None if nothing is."""
        here: Any = self.data
        for step in loc:
            try:
                here = here[step]
            except (KeyError, IndexError, TypeError):
                return None
        return here

    def place(self, loc: Loc) -> str:
        """The place for people: ``tailrace.yaml @ stacks.prod.artifact_store (line 7)``."""
        return _place(self.path, loc, self.lines.get(loc))

    def problem(self, message: str, loc: Loc) -> Problem:
        """A problem at a place."""
        return Problem(message, self.place(loc))


class _Reader:
    """Goes through the nodes of a file before they become data, which would forget lines and doubled keys."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[Loc, int] = {}
        self.faults: list[Problem] = []
        self._open: list[yaml.Node] = []

    def visit(self, node: yaml.Node, loc: Loc) -> None:
        if node in self._open:
            raise yaml.constructor.ConstructorError(
                None, None, "an alias that is inside of what it stands for", node.start_mark
            )
        self._open.append(node)
        if isinstance(node, yaml.MappingNode):
            self._mapping(node, loc)
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.visit(item, (*loc, index))
        self._open.pop()

    def _mapping(self, node: yaml.MappingNode, loc: Loc) -> None:
        seen: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            line, place = key.start_mark.line + 1, (*loc, key.value)
            if key.tag != _TEXT:
                self._fault(f"The key {key.value!r} is not text; put it in quotes", place, line)
                key.tag = _TEXT
            if key.value in seen:
                self._fault(f"The key {key.value!r} is there twice, first in line {seen[key.value]}", place, line)
            seen.setdefault(key.value, line)
            self.lines[place] = line
            self.visit(value, place)

    def _fault(self, message: str, loc: Loc, line: int) -> None:
        self.faults.append(Problem(message, _place(self.path, loc, line)))


def _parse(text: str, path: Path) -> tuple[Any, _Reader]:
    loader, reader = _Loader(text), _Reader(path)
    try:
        node = loader.get_single_node()
        if node is None:
            return {}, reader
        reader.visit(node, ())
        return loader.construct_document(node), reader
    finally:
        loader.dispose()


def _place(path: Path, loc: Loc, line: int | None) -> str:
    steps = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in loc]
    keys = f" @ {''.join(steps).removeprefix('.')}" if steps else ""
    return f"{path.name}{keys}{f' (line {line})' if line else ''}"


def _syntax(error: yaml.YAMLError, text: str, path: Path) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    what = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be parsed"
    if mark is None:
        return Problem(f"This is no YAML: {what}", path.name)
    line = text.splitlines()[mark.line] if mark.line < len(text.splitlines()) else ""
    hint = '. Inside of { } put a variable in quotes: "${NAME}"' if "{" in line and "${" in line else ""
    return Problem(f"This is no YAML: {what}{hint}", f"{path.name} (line {mark.line + 1}, column {mark.column + 1})")
