"""Where a run's artifacts and records are, by default: ``{project}/{date}/{run_id}/data/{step}/{artifact}``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import orjson

from ..core.errors import IntegrityError
from ..core.names import RUNS, segment

if TYPE_CHECKING:
    from .base import ArtifactStore

__all__ = ["claim_key", "default_path", "read_claim", "run_folder", "run_start"]


def run_folder(project: str, started: datetime, run_id: str) -> str:
    """The folder of a run's records and, by default, of its artifacts."""
    return f"{segment(project)}/{started.astimezone(UTC).date().isoformat()}/{segment(run_id)}"


def default_path(project: str, started: datetime, run_id: str, step: str, name: str) -> str:
    """The default key of an artifact."""
    return f"{run_folder(project, started, run_id)}/data/{segment(step)}/{segment(name)}"


def run_start(store: ArtifactStore, project: str, run_id: str, now: datetime) -> datetime:
    """When a run started, as the first process to ask has written it down; every later one gets the same time.

    So a run stays on one date, whatever the host, the retry, midnight or the engine. Raises
    :class:`~tailrace.IntegrityError` where what was written down is damaged.
    """
    key = claim_key(project, run_id)
    data = orjson.dumps({"project": project, "run_id": run_id, "started": now.astimezone(UTC).isoformat()})
    if store.create(key, data):
        return now
    return read_claim(store, key)[2]


def claim_key(project: str, run_id: str) -> str:
    """The file that holds when a run started."""
    return f"{RUNS}/{segment(project)}/{segment(run_id)}.json"


def read_claim(store: ArtifactStore, key: str) -> tuple[str, str, datetime]:
    """The project, the run id and the start that such a file holds.

    Raises ``FileNotFoundError``, and :class:`~tailrace.IntegrityError` that says how to mend a damaged one: by hand,
    since to look for the run's folder means to list all that the project has.
    """
    data = store.read(key)
    try:
        claim = orjson.loads(data)
        project, run_id = claim["project"], claim["run_id"]
        if key != claim_key(project, run_id):
            raise ValueError(f"it is that of run {run_id!r} of project {project!r}")
        return project, run_id, datetime.fromisoformat(claim["started"]).astimezone(UTC)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        folder = key.removeprefix(f"{RUNS}/").removesuffix(".json").replace("/", "/*/")
        raise IntegrityError(
            f"{store.uri(key)}, which holds when the run started, is damaged ({error!r}). Write it anew as "
            '{"project": ..., "run_id": ..., "started": ...}, with the values that '
            f'{store.root_uri}/{folder}/run.json has under "run"; if there is no such file, delete it.'
        ) from error
