"""A run in this process: a flow that starts now, on the server that Prefect is set up with, else on one of its own."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from . import server

if TYPE_CHECKING:
    from ...core.plan import Plan
    from ...core.results import RunResult
    from ...routing.stacks import Stack
    from ..events import Listener

__all__ = ["run_here"]


def run_here(
    plan: Plan, params: Mapping[str, Any], stack: Stack, run_id: str | None, on_event: Listener | None
) -> RunResult:
    """Run a plan to its end in this process, on the server that Prefect is set up with, else on one of its own.

    Prefect's heartbeats are off for such a run: the process that would miss them is this one, and waiting for their
    thread costs up to a second. A server of its own is started while Prefect is imported here, if not earlier.
    """
    server.begin()
    import prefect.flow_engine
    import prefect.task_engine  # noqa: F401  # the run needs them, and the server is not ready yet
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    from .flow import HERE, Here, build_flow
    from .runners import task_runner

    url, private = server.settle()
    settings: dict[Any, Any] = {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
    options: dict[str, Any] = {"validate_parameters": False}
    if stack.orchestrator.type == "local":
        options["task_runner"] = task_runner(stack.orchestrator.options)
    flow = build_flow(plan, variable="flow", module=__name__, name=plan.name, options=options, pages=not private)
    here = Here(plan, stack, params, on_event)
    token = HERE.set(here)
    try:
        with temporary_settings(settings | ({PREFECT_API_URL: url} if url else {})), _quiet(on_event, private):
            flow(**params, run_id=run_id, stack=stack.name)
    finally:
        HERE.reset(token)
    return here.results[0]


@contextmanager
def _quiet(on_event: Listener | None, private: bool) -> Iterator[None]:
    """Keep Prefect's own log lines back while somebody else shows the run's progress.

    Always the one with the run's address on a server that ends with this process, and has no pages; and, at the end of
    the process, that a few events are still to be sent, as they are after a run that did not wait for heartbeats.
    """
    logger, runs = logging.getLogger("prefect"), logging.getLogger("prefect.flow_runs")
    level = logger.level
    if on_event is not None:
        logger.setLevel(logging.CRITICAL)
    logging.getLogger("EventsWorker").addFilter(_is_news)
    if private:
        runs.addFilter(_is_news)
    try:
        yield
    finally:
        logger.setLevel(level)
        runs.removeFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(("View at http", "Still processing items"))
