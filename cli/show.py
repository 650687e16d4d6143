"""How things look: tables, sizes, durations, times, JSON. Piped output is plain, whole lines without control codes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .records import label

__all__ = ["console", "duration", "lines", "listing", "place", "print_json", "short", "size", "styled", "table", "when"]

_WIDE = 100_000  # columns of an output that is no terminal: nothing is folded or cut there
_STYLES = {
    "completed": "green",
    "ok": "green",
    "failed": "red",
    "missing": "red",
    "cancelled": "yellow",
    "running": "cyan",
    "skipped": "dim",
    "absent": "dim",
}


class _Piped(Console):
    """A console whose lines do not end in the spaces that fill a table's last column."""

    def print(self, *objects: Any, **options: Any) -> None:
        with self.capture() as captured:
            super().print(*objects, **options)
        self.file.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))
        self.file.flush()


def console(*, stderr: bool = False) -> Console:
    """The terminal, or the file or pipe that stands for it."""
    plain: dict[str, Any] = {"stderr": stderr, "highlight": False, "markup": False, "emoji": False}
    made = Console(**plain)
    return made if made.is_terminal else _Piped(**plain, width=None if "COLUMNS" in os.environ else _WIDE)


def size(count: float | None) -> str:
    """Bytes for people: ``812 B``, ``4.1 kB``, ``3.0 GB`` (powers of 1000)."""
    if count is None:
        return ""
    if count < 1000:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB", "TB"):
        count /= 1000
        if count < 999.95 or unit == "TB":
            break
    return f"{count:.1f} {unit}"


def duration(seconds: float | None) -> str:
    """Seconds for people: ``0.3 ms``, ``1.24 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if seconds is None:
        return ""
    if seconds < 0.1:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 99.5:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def when(time: str) -> str:
    """A recorded time in UTC, to the second: ``2026-11-21 12:05:00``."""
    return datetime.fromisoformat(time).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def place(uri: str) -> str:
    """A URI for people: a local one is the path, from here where it lies below the working directory."""
    parts = urlsplit(uri)
    if parts.scheme != "file":
        return uri
    path = Path(unquote(parts.path))
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def short(name: str) -> str:
    """A type's name without its module."""
    return name.rpartition(".")[2]


def styled(state: str, text: str | None = None) -> Text:
    """A state, or a text that stands for it, in the state's colour."""
    return Text(state if text is None else text, _STYLES.get(state, ""))


def table(*columns: str) -> Table:
    """An empty table without lines. A column whose name starts with ``>`` is aligned to the right."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in columns:
        right = name.startswith(">")
        whole = right or name == "Id"  # a number or an id that is broken over two lines cannot be copied
        made.add_column(name.lstrip(">"), justify="right" if right else "left", overflow="fold", no_wrap=whole)
    return made


def listing(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], *, json: bool, empty: str) -> None:
    """Print flat rows: as a JSON list, or as a table of ``columns`` (key to heading, see :func:`table`)."""
    if json:
        print_json(rows)
    elif not rows:
        console(stderr=True).print(empty)
    else:
        made = table(*columns.values())
        for row in rows:
            made.add_row(*(_cell(key, row) for key in columns))
        console().print(made)


def _cell(key: str, row: Mapping[str, Any]) -> Text | str:
    value = row.get(key)
    if value is None:
        return ""
    if key == "state":
        return styled(value)
    if key == "step":
        return label(value, row.get("map_index"))
    return _CELLS[key](value) if key in _CELLS else str(value)


_CELLS: Mapping[str, Callable[[Any], str]] = {
    "seconds": duration,
    "size_bytes": size,
    "started": when,
    "type": short,
}


def print_json(data: Any) -> None:
    """Print one JSON document. Numbers that JSON does not have are null."""
    import orjson

    options = orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS
    print(orjson.dumps(data, default=repr, option=options).decode())


def lines(values: Iterable[tuple[str, Any]]) -> Table:
    """Names and what they stand for, one a line; those without a value are left out."""
    made = Table.grid(padding=(0, 2, 0, 0))
    made.add_column(style="dim")
    made.add_column(overflow="fold")
    for name, value in values:
        if value not in (None, ""):
            made.add_row(name, value if isinstance(value, Text) else str(value))
    return made
