"""A run while it goes on: a table that fills on a terminal, a line for each event elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table

from ..adapters.events import StepEvent
from ..core.results import StepResult, TaskRecord
from .records import label
from .show import duration, size, styled, table

__all__ = ["Progress", "following"]

_MARKS = {"completed": "✓", "failed": "✗", "cancelled": "✗", "skipped": "–", "waiting": "·"}


@dataclass
class _Step:
    """What is known of one step so far."""

    running: set[int | None] = field(default_factory=set)
    ended: dict[int | None, TaskRecord] = field(default_factory=dict)
    message: str = ""

    @property
    def state(self) -> str:
        """``running``, ``waiting``, or how it ended."""
        if self.running or not self.ended:
            return "running" if self.running else "waiting"
        return StepResult("", tuple(self.ended.values())).state

    def note(self, event: StepEvent) -> None:
        """Take note of an event. A task that is tried again counts once, as running."""
        self.message = event.message
        if event.record is None:
            self.running.add(event.map_index)
            self.ended.pop(event.map_index, None)
        else:
            self.running.discard(event.map_index)
            self.ended[event.map_index] = event.record


class Progress:
    """Keeps what a run's events say. Called from the threads that the tasks run in."""

    def __init__(self, console: Console, steps: Sequence[str]) -> None:
        self.console = console
        self.steps = {name: _Step() for name in steps}
        self.run_id = ""
        self.live = console.is_terminal
        self._lock = threading.Lock()
        self._spinner = Spinner("dots", style="cyan")

    def __call__(self, event: StepEvent) -> None:
        """Take note of an event, and show it."""
        with self._lock:
            self.run_id = event.run_id
            self.steps.setdefault(event.step, _Step()).note(event)
            if not self.live:
                self.console.print(_line(event))

    def __rich__(self) -> Table:
        """The table as it is now."""
        made = table("", "Step", ">Seconds", "")
        made.show_header = False
        with self._lock:
            for name, step in self.steps.items():
                state = step.state
                mark = self._spinner if state == "running" else styled(state, _MARKS[state])
                seconds = sum(record.seconds for record in step.ended.values())
                title = styled("skipped" if state == "waiting" else "", name)
                made.add_row(mark, title, duration(seconds or None), _notes(step))
        return made


def _notes(step: _Step) -> str:
    """What is worth a few words beside the step's name."""
    done, tasks = len(step.ended), len(step.ended) + len(step.running)
    errors = [record.error.partition("\n")[0] for record in step.ended.values() if _failed(record)]
    if errors or step.message:
        return step.message or (errors[0] if tasks == 1 else f"{len(errors)} of {tasks} tasks: {errors[0]}")
    if tasks > 1 or any(index is not None for index in step.ended):
        cached = sum(bool(record.cached) for record in step.ended.values())
        return (f"{done} of {tasks} tasks" if step.running else f"{tasks} tasks") + (
            f", {cached} cached" if cached else ""
        )
    return ", ".join(map(_made, step.ended.values()))


def _failed(record: TaskRecord) -> bool:
    """Whether the error says more than the state does."""
    return bool(record.error) and record.state != "cancelled"


def _made(record: TaskRecord) -> str:
    made = ", ".join(f"{name} ({size(record.timings.get(name, {}).get('bytes'))})" for name in record.outputs)
    return f"{made} cached" if record.cached else made


def _line(event: StepEvent) -> str:
    name = label(event.step, event.map_index)
    if event.record is None:
        return f"{event.kind:<9}  {name}" + (f"  {event.message}" if event.message else "")
    record = event.record
    rest = record.error.partition("\n")[0] if _failed(record) else _made(record)
    seconds = "" if record.state == "skipped" else duration(record.seconds)
    return "  ".join(part for part in (f"{record.state:<9}", name, seconds, rest) if part)


@contextmanager
def following(progress: Progress) -> Iterator[Progress]:
    """Show the run's progress during the block."""
    with Live(progress, console=progress.console, refresh_per_second=8) if progress.live else nullcontext():
        yield progress
