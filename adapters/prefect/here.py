"""A run in this process: a flow that starts now, on the server that Prefect is set up with, else on one of its own."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from prefect.settings import (
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_SERVER_ANALYTICS_ENABLED,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    get_current_settings,
    temporary_settings,
)

from ...core.errors import TailraceError
from ...core.plan import Plan
from ...core.results import RunResult
from ...routing.stacks import Stack
from ..events import Listener
from .flow import HERE, Here, build_flow

__all__ = ["run_here"]

_STARTUP = PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS
_LOCAL_SETTINGS = {
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
    PREFECT_SERVER_ANALYTICS_ENABLED: False,
    _STARTUP: 60,  # 20 s are too few for a cold disk and a new database
}


def run_here(
    plan: Plan, params: Mapping[str, Any], stack: Stack, run_id: str | None, on_event: Listener | None
) -> RunResult:
    """Run a plan to its end in this process, on the server that Prefect is set up with, else on one of its own.

    Prefect's heartbeats are off for such a run: the process that would miss them is this one, and waiting for their
    thread costs up to a second. A server of its own sends no analytics, and has a minute to start.
    """
    flow = build_flow(plan, variable="flow", module=__name__, name=plan.name, options={"validate_parameters": False})
    here = Here(plan, stack, params, on_event)
    token = HERE.set(here)
    try:
        with temporary_settings(_LOCAL_SETTINGS), _quiet(on_event is not None):
            flow(**params, run_id=run_id, stack=stack.name)
    except RuntimeError as error:
        if "ephemeral Prefect API server" not in str(error):
            raise
        home = get_current_settings().home
        raise TailraceError(
            f"Prefect's own server did not start in {_LOCAL_SETTINGS[_STARTUP]} s; its home is {str(home)!r}. A newer "
            "Prefect may have used that home: its database cannot be read by this one. Set PREFECT_HOME to another "
            "folder that exists, or PREFECT_API_URL to a server that runs."
        ) from error
    finally:
        HERE.reset(token)
    return here.results[0]


@contextmanager
def _quiet(wanted: bool) -> Iterator[None]:
    """Keep Prefect's own log lines back while somebody else shows the run's progress."""
    logger = logging.getLogger("prefect")
    level = logger.level
    if wanted:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
