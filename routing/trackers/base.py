"""The contract of an experiment tracker: one of its runs for each pipeline run."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar, Protocol, runtime_checkable

from ...core.refs import Run

__all__ = ["Claims", "Tracker"]


class Claims(Protocol):
    """Decisions that all processes of a run share; the run's journal keeps them."""

    def claim(self, name: str, value: str) -> str:
        """The value that the first process to claim the name gave: this one, or another's."""
        ...

    def peek(self, name: str) -> str | None:
        """The claimed value, if anybody has claimed the name."""
        ...


@runtime_checkable
class Tracker(Protocol):
    """Shows runs, their parameters and metrics to people.

    Every call may be repeated, and then changes nothing: a step that is retried calls it again. What the tracker
    refuses raises :class:`~tailrace.DestinationError`; what it accepts of the same call is logged nevertheless.
    Making a tracker opens no connection and imports no library.
    """

    name: ClassVar[str]

    def open_run(self, run: Run, claims: Claims) -> str:
        """The id of the tracker's run for a pipeline run, found or made; it is running afterwards.

        There is one, in however many processes and however often this is called. Raises for one that was deleted.
        """
        ...

    def log_params(self, tracker_run: str, params: Mapping[str, Any]) -> None:
        """Log what was chosen. A value that differs from the one logged before is refused."""
        ...

    def log_metrics(
        self, tracker_run: str, metrics: Mapping[str, float], *, step: int | None, timestamp: datetime
    ) -> None:
        """Log what was measured, at a step of the training if there are any.

        The time is when it was measured; a retry gives the same, so that it is known for the same measurement.
        """
        ...

    def set_tags(self, tracker_run: str, tags: Mapping[str, str]) -> None:
        """Set labels, over those of the same keys."""
        ...

    def close_run(self, tracker_run: str, state: str) -> None:
        """The pipeline run ended: ``completed``, ``failed`` or ``cancelled``. Only its owner calls this."""
        ...

    def describe(self, tracker_run: str) -> str:
        """Where people find the run: a URL, or the command that shows it."""
        ...
