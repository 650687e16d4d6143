"""What happens while a run goes on, for whoever wants to show it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..core.results import TaskRecord

__all__ = ["Listener", "StepEvent", "emit", "is_heard", "listening"]


@dataclass(frozen=True, slots=True)
class StepEvent:
    """A task started or ended. ``kind`` is ``started``, ``retrying``, ``ended``; ``record`` is there when it ended."""

    kind: str
    step: str
    map_index: int | None
    run_id: str
    record: TaskRecord | None = None
    message: str = ""


Listener = Callable[[StepEvent], None]

_LISTENERS: dict[str, Listener] = {}


@contextmanager
def listening(run_id: str, listener: Listener | None) -> Iterator[None]:
    """Call the listener for every event of a run in this process, from the thread that the task runs in."""
    if listener is None:
        yield
        return
    _LISTENERS[run_id] = listener
    try:
        yield
    finally:
        _LISTENERS.pop(run_id, None)


def emit(event: StepEvent) -> None:
    """Tell the run's listener, if there is one."""
    listener = _LISTENERS.get(event.run_id)
    if listener is not None:
        listener(event)


def is_heard(run_id: str) -> bool:
    """Whether somebody listens to the run in this process."""
    return run_id in _LISTENERS
