"""What a task's record says, in the words in which people see it."""

from __future__ import annotations

from collections.abc import Iterator

from ..core.refs import ArtifactRef
from ..core.results import TaskRecord

__all__ = ["label", "origin", "reached", "stored"]


def label(step: str, map_index: int | None) -> str:
    """The task's name: the step's, with the item of a mapped one."""
    return step if map_index is None else f"{step}[{map_index}]"


def stored(task: TaskRecord) -> Iterator[tuple[str, ArtifactRef]]:
    """What the task stored, by output: what it returned, then what it recorded beside that."""
    yield from task.outputs.items()
    for ref in task.extra:
        yield ref.name, ref


def origin(task: TaskRecord) -> str:
    """Of what the step cache had, which run computed it; empty for what was computed here."""
    return f"cached, from run {task.cached['run_id']}" if task.cached else ""


def reached(task: TaskRecord, output: str) -> str:
    """Where an output went beside the store: ``mlflow:cancer/3`` of a registry, of a tracker only its name."""
    named = task.destinations.get(output, {})
    return ", ".join(_brief(place) for kind, place in named.items() if kind != "store")


def _brief(destination: str) -> str:
    name, _, rest = destination.partition(":")
    return destination if "/" in rest or name == "failed" else name  # a tracker's run is the same for all
