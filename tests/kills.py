"""Where crash tests of real engines kill the process of a run, and the code that does so in a flow or DAG file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

POINTS: Mapping[str, tuple[Any, ...]] = {
    "before the save": ("LocalArtifactStore", "stage"),
    "between two files": ("FileWriter", "write", True),
    "before the content is in place": ("LocalArtifactStore", "put_tree"),
    "before the manifest": ("LocalArtifactStore", "put_tree", True),
    "after the manifest": ("LocalArtifactStore", "publish", True),
    "before the registration": ("MlflowRegistry", "register"),
    "in the registration": ("MlflowRegistry", "_create", True),
    "after the registration": ("MlflowRegistry", "register", True),
    "after the tracker's run is made": ("MlflowTracker", "_find_or_create", True),
    "before the metrics": ("MlflowTracker", "log_metrics"),
    "after the metrics": ("MlflowTracker", "log_metrics", True),
    "before the task's record": ("Journal", "write_task"),
    "after the task's record": ("Journal", "write_task", True),
    "before the tracker's run is closed": ("MlflowTracker", "close_run"),
    "after the tracker's run is closed": ("MlflowTracker", "close_run", True),
    "before the run is closed": ("Journal", "close"),
    "after the run is closed": ("Journal", "close", True),
}
"""By what it is called: a class, its method, and whether it is after that has returned."""

KILL_AT = """
import os, signal
from pathlib import Path
from tailrace.catalog.journal import Journal
from tailrace.materializers.files import FileWriter
from tailrace.routing.registries.mlflow import MlflowRegistry
from tailrace.routing.trackers.mlflow import MlflowTracker
from tailrace.stores.local import LocalArtifactStore

def kill_at(point, owner, name, after=False):
    original = getattr(owner, name)
    def killing(*args, **kwargs):
        result = original(*args, **kwargs) if after else None
        marker = Path(__file__).parent / str(run_id()) / point
        if marker.exists():
            marker.unlink()  # the next try comes further
            os.kill(os.getpid(), signal.SIGKILL)
        return result if after else original(*args, **kwargs)
    setattr(owner, name, killing)
"""
"""Defines `kill_at`, which kills once where a file says so of run and point; `run_id` is defined beside it."""


def patches(points: Mapping[str, tuple[Any, ...]], indent: str = "") -> str:
    """A call of `kill_at` for each point."""
    calls = (f"kill_at({point!r}, {owner}, *{rest})" for point, (owner, *rest) in points.items())
    return f"\n{indent}".join(calls)
