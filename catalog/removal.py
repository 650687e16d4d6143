"""Removing what somebody named: the artifacts of a pipeline, all datasets, what a failed run has left."""

from __future__ import annotations

from collections.abc import Iterable

from ..core.errors import RunConflict, RunNotFound
from ..core.names import MANIFEST, RUNS, is_content_segment, segment
from ..stores.base import ArtifactStore
from .journal import Journal
from .rows import ArtifactRow, RunRow

__all__ = ["refuse_running", "remove_artifact", "remove_records"]


def refuse_running(runs: Iterable[RunRow]) -> None:
    """Raise :class:`~tailrace.RunConflict` if one of the runs has not ended."""
    running = sorted(run.run_id for run in runs if run.state == "running")
    if running:
        raise RunConflict(
            f"{', '.join(map(repr, running))} may be running, so nothing was deleted. Wait; or, if its process is "
            "gone, run it again under its id, or clean it up: cleanup_failed_run(..., lost=True)."
        )


def remove_artifact(store: ArtifactStore, row: ArtifactRow, *, files: bool) -> None:
    """Remove an artifact's manifest, and its contents if asked for; what is at paths below it stays."""
    key = store.key(row.uri)
    store.remove(f"{key}/{MANIFEST}")
    if files:
        below = (item.removeprefix(f"{key}/").split("/")[0] for item in store.walk(f"{key}/", contents=True))
        for content in {name for name in below if is_content_segment(name)}:
            store.remove(f"{key}/{content}")


def remove_records(store: ArtifactStore, journal: Journal | None) -> None:
    """Remove a run's folder with all in it, manifests first, then its name; what says that it failed goes last."""
    if journal is None:
        raise RunNotFound("The run has no records in the store any more.")
    last = [f"{journal.folder}/{name}" for name in ("result.json", "run.json")]
    found = set(store.walk(f"{journal.folder}/", contents=True)).difference(last)
    for key in sorted(found, key=lambda key: (not key.endswith(f"/{MANIFEST}"), key)):
        store.remove(key)
    for key in last:
        store.remove(key)
    store.remove(journal.folder)
    store.remove(f"{RUNS}/{segment(journal.project)}/{segment(journal.run_id)}.json")
