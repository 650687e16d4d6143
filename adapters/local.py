"""``Pipeline.run()``: choose the stack and the orchestrator, run the plan here, give back the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..core.pipeline import Pipeline
from ..core.plugins import component
from ..core.results import RunResult
from ..routing.stacks import resolve_stack
from .events import Listener

__all__ = ["ORCHESTRATORS", "run"]

ORCHESTRATORS = {
    "local": "tailrace.adapters.prefect:run_here",
    "inline": "tailrace.adapters.inline:run_here",
    "airflow": "tailrace.adapters.airflow_local:run_here",
}
"""What runs a plan to its end, by type. Others register the entry point group ``tailrace.orchestrators``."""


def run(
    pipeline: Pipeline,
    *,
    params: Mapping[str, Any] | None = None,
    stack: str | None = None,
    orchestrator: str | None = None,
    run_id: str | None = None,
    config: str | None = None,
    on_event: Listener | None = None,
) -> RunResult:
    """Run a pipeline to its end. See :meth:`tailrace.Pipeline.run`."""
    chosen = resolve_stack(stack, config=config)
    plan = pipeline.plan(params)
    values = plan.resolve_params(params or {})
    run_here: Callable[..., RunResult] = component(
        "tailrace.orchestrators", orchestrator or chosen.orchestrator.type, ORCHESTRATORS
    )
    return run_here(plan, values, chosen, run_id, on_event)
