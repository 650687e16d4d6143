"""Runs whose process was killed: the worker calls the flow's hooks then, and they close the run's record."""

from __future__ import annotations

from typing import Any

from ...catalog.journal import find_run
from ...core.plan import Plan
from ...routing.router import Router
from ...routing.stacks import resolve_stack
from ..runs import close_run, router_for

__all__ = ["close_lost"]


def close_lost(plan: Plan, flow: Any, flow_run: Any, state: Any) -> None:
    """Close the record of a flow run that crashed, as failed, or was cancelled, unless its own process has done so.

    Nothing happens where the run never began. A later try of the flow run opens the record again.
    """
    stack = resolve_stack(flow_run.parameters.get("stack"))
    run_id = flow_run.parameters.get("run_id") or str(flow_run.id)
    journal = find_run(Router(stack).store(), stack.project, run_id)
    record = journal.record() if journal else None
    if journal is None or record is None or journal.end() is not None:
        return
    router_for(record.run, stack)
    how = "failed" if state.is_crashed() else "cancelled"
    what = f"Its process was killed, or lost with its machine. Prefect says: {state.message}"
    close_run(plan, record.run, how, what, stale=lambda task: False)
