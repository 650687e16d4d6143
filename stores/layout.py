"""Where a run's artifacts and records are, by default: ``{project}/{date}/{run_id}/data/{step}/{artifact}``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import orjson

from ..core.names import RUNS, segment

if TYPE_CHECKING:
    from .base import ArtifactStore

__all__ = ["default_path", "run_folder", "run_start"]


def run_folder(project: str, started: datetime, run_id: str) -> str:
    """The folder of a run's records and, by default, of its artifacts."""
    return f"{segment(project)}/{started.astimezone(UTC).date().isoformat()}/{segment(run_id)}"


def default_path(project: str, started: datetime, run_id: str, step: str, name: str) -> str:
    """The default key of an artifact."""
    return f"{run_folder(project, started, run_id)}/data/{segment(step)}/{segment(name)}"


def run_start(store: ArtifactStore, project: str, run_id: str, now: datetime) -> datetime:
    """When a run started, as the first process to ask has written it down; every later one gets the same time.

    So a run stays on one date, whatever the host, the retry, midnight or the engine.
    """
    key = f"{RUNS}/{segment(project)}/{segment(run_id)}.json"
    data = orjson.dumps({"project": project, "run_id": run_id, "started": now.astimezone(UTC).isoformat()})
    if store.create(key, data):
        return now
    return datetime.fromisoformat(orjson.loads(store.read(key))["started"])
