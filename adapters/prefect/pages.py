"""What Prefect's pages show of a run: an artifact for each task and mapped step, one for the run, and asset events.

They are sent beside the run, by threads of their own, so that no task waits for them. A page is no destination: what
Prefect refuses is a warning in the run's log, and the run goes on.
"""

from __future__ import annotations

import atexit
import functools
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import copy_context
from hashlib import sha256
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging import get_logger, get_run_logger
from prefect.settings import PREFECT_API_URL

from ...catalog.journal import Journal
from ...core.plan import Node, Plan
from ...core.refs import Run
from ...core.results import RunResult, StepResult
from ..runs import router_for
from .assets import Lineage, TaskLineage, announce, lineage_of
from .page_text import mapped_line, mapped_text, run_line, run_text, task_line, task_text

__all__ = ["artifact_key", "run_pages", "task_page"]

_PATIENCE = 60.0
"""Seconds that the end of a run waits for pages that are still on their way."""

_SENDERS = ThreadPoolExecutor(4, "tailrace-pages")
_SENDING: dict[Future[None], str] = {}
_ONE_AT_A_TIME = threading.Lock()
_CLIENTS = ExitStack()
atexit.register(_CLIENTS.close)  # the senders have ended by then


def task_page(plan: Plan, node: Node, run: Run, lineage: TaskLineage) -> None:
    """Show what the task that just ended stored; one item of a mapped step is shown with the others by the flow run.

    To be called within the task run. Returns at once; nothing is shown where nobody could look at it: on a server that
    lives only as long as the run.
    """
    context = TaskRunContext.get()
    if context is None or run.map_index is not None or not PREFECT_API_URL.value():
        return
    _soon(run, f"task {node.name!r}", lambda: _show_task(plan, node, run, dict(lineage), context.task_run.id))


@contextmanager
def run_pages(
    plan: Plan, run: Run, closing: AbstractContextManager[list[RunResult]], wanted: bool
) -> Iterator[list[RunResult]]:
    """Close the run as ``closing`` does, then show its summary and its mapped steps, and wait until all is sent."""
    results: list[RunResult] = []
    try:
        with closing as results:
            yield results
    finally:
        if wanted and results and run.native_id and PREFECT_API_URL.value():
            _show_run(plan, run, results[0])
            _wait_for(run)


# --- what is shown ----------------------------------------------------------------------------------------------------


def _show_task(plan: Plan, node: Node, run: Run, lineage: Lineage, task_run_id: UUID) -> None:
    router = router_for(run)
    journal = Journal.of(router.store(), run)
    tasks = [task for step in lineage if (task := journal.task(step, None))]
    tracked = any("tracker" in places for task in tasks for places in task.destinations.values())
    text = task_text(tasks, router.tracker_url(run) if tracked else "")
    _put(run, artifact_key(plan.name, node.name), text, task_line(tasks), task_run_id)
    for task in tasks:
        announce(plan, run, [task], lineage[task.step])


def _show_run(plan: Plan, run: Run, result: RunResult) -> None:
    def summary() -> None:
        _put(run, artifact_key(plan.name), run_text(plan, run, result), run_line(result))

    def mapped(step: StepResult) -> None:
        _put(run, artifact_key(plan.name, step.name), mapped_text(step), mapped_line(step))
        announce(plan, run, [task for task in step.tasks if task.state == "completed"], lineage[step.name])

    _soon(run, "the summary", summary)
    lineage = lineage_of(plan)
    for step in result.steps.values():
        if any(task.map_index is not None for task in step.tasks):
            _soon(run, f"the mapped step {step.name!r}", functools.partial(mapped, step))


def artifact_key(*names: str) -> str:
    """What Prefect's page of artifacts calls a pipeline, or a step of it; the same in each run, and for no others."""
    return "--".join(_slug(name) for name in names)


def _slug(name: str) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return slug if slug == name.replace("_", "-") else f"{slug or 'x'}-{sha256(name.encode()).hexdigest()[:8]}"


# --- sending ----------------------------------------------------------------------------------------------------------


def _soon(run: Run, what: str, job: Callable[[], None]) -> None:
    """Do it in a thread of this process, in the context of the task run or flow run."""

    def careful() -> None:
        try:
            job()
        except Exception as error:
            message = "Prefect does not show %s of run %s: %s: %s"
            _logger().warning(message, what, run.run_id, type(error).__name__, error)

    future = _SENDERS.submit(copy_context().run, careful)
    _SENDING[future] = run.run_id
    future.add_done_callback(lambda done: _SENDING.pop(done, None))


def _wait_for(run: Run) -> None:
    late = wait([future for future, run_id in list(_SENDING.items()) if run_id == run.run_id], _PATIENCE).not_done
    if late:
        _logger().warning("%d pages of the run %s are still on their way to Prefect", len(late), run.run_id)


def _put(run: Run, key: str, text: str, description: str, task_run_id: UUID | None = None) -> None:
    """Create the artifact; when the flow run is tried again, what it showed the last time is brought up to date."""
    # Plain requests: create_artifact costs this process twice as much, and read_artifacts sends null for the filters
    # that are left out, which Prefect 3.8 refuses.
    with _ONE_AT_A_TIME:  # of two that are made at once, one would never be closed
        client = _client(PREFECT_API_URL.value())
    context = FlowRunContext.get()
    if task_run_id is None and context and context.flow_run and context.flow_run.run_count > 1:
        mine = {"artifacts": {"key": {"any_": [key]}}, "flow_runs": {"id": {"any_": [run.native_id]}}, "limit": 1}
        found = client.request("POST", "/artifacts/filter", json=mine).json()
        if found:
            last = {"id": found[0]["id"]}
            client.request(
                "PATCH", "/artifacts/{id}", path_params=last, json={"data": text, "description": description}
            )
            return
    made = ArtifactCreate(
        key=key,
        type="markdown",
        data=text,
        description=description,
        flow_run_id=UUID(run.native_id),
        task_run_id=task_run_id,
    )
    client.request("POST", "/artifacts/", json=made.model_dump(mode="json", exclude_unset=True))


@functools.cache
def _client(api_url: str) -> SyncPrefectClient:
    """A client that all threads share, for as long as the process lives: the context's own ends with its task."""
    return _CLIENTS.enter_context(get_client(httpx_settings={}, sync_client=True))


def _logger() -> Any:
    try:
        return get_run_logger()
    except Exception:  # outside of a run
        return get_logger("tailrace")
