"""A user's exception as the user's own code would have shown it: without our frames and the engine's."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

__all__ = ["trimmed"]

_PACKAGE = Path(__file__).parent.parent  # not resolved: code objects have the path by which they were found
_ROOMS = ("adapters", "catalog", "cli", "core", "materializers", "routing", "stores")
_OURS = tuple(f"{_PACKAGE / room}/" for room in _ROOMS)  # not the whole package: its root may hold the user's flows
_STDLIB = sysconfig.get_path("stdlib")
_ENGINES = ("/site-packages/prefect/", "/site-packages/anyio/")


def trimmed(error: BaseException | None) -> str:
    """The traceback of an exception and of what caused it; where no frame is the user's, the message alone."""
    if error is None:
        return ""
    shown = traceback.TracebackException.from_exception(error)
    waiting = [shown]
    while waiting:
        part = waiting.pop()
        _trim(part)
        waiting += [inner for inner in (part.__cause__, part.__context__) if inner]
    return "".join(shown.format()).rstrip()


def _trim(part: traceback.TracebackException) -> None:
    frames = [frame for frame in part.stack if not _is_foreign(frame.filename)]
    while frames and _is_machinery(frames[0].filename):
        frames.pop(0)
    # Without a frame None, as for an exception that was never raised: then it is formatted without a heading.
    part.stack = traceback.StackSummary.from_list(frames) if frames else None  # type: ignore[assignment]


def _is_foreign(file: str) -> bool:
    return file.startswith(_OURS) or any(engine in file for engine in _ENGINES)


def _is_machinery(file: str) -> bool:
    """Whether it is what calls the user's code, seen from the outside: importlib, asyncio, thread pools."""
    return file.startswith("<frozen ") or (file.startswith(_STDLIB) and "site-packages" not in file)
