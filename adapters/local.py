"""``Pipeline.run()``: choose the stack and the orchestrator, run the plan here, give back the result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.errors import ConfigError, Problem, did_you_mean
from ..core.pipeline import Pipeline
from ..core.results import RunResult
from ..routing.stacks import Stack, resolve_stack
from .events import Listener, listening
from .runtime import closing, new_run_id, open_run

__all__ = ["ORCHESTRATORS", "run"]

ORCHESTRATORS = {"local": "the Prefect engine in this process", "inline": "this process, without an engine"}


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
    kind = orchestrator or chosen.orchestrator.type
    if kind not in ORCHESTRATORS:
        what = f"unknown orchestrator {kind!r}.{did_you_mean(kind, ORCHESTRATORS)}"
        place = "orchestrator=" if orchestrator else chosen.orchestrator.place
        raise ConfigError("The pipeline cannot run", [Problem(what, place)])
    plan = pipeline.plan(params)
    values = plan.resolve_params(params or {})
    if kind == "inline":
        return _run_inline(plan, values, chosen, run_id or new_run_id(), on_event)
    from .prefect import run_here

    return run_here(pipeline, plan, values, chosen, run_id, on_event)


def _run_inline(plan: Any, values: dict[str, Any], stack: Stack, run_id: str, on_event: Listener | None) -> RunResult:
    from .inline import execute

    with listening(run_id, on_event):
        opened = open_run(plan, params=values, stack=stack, orchestrator="inline", run_id=run_id)
        with closing(plan, opened) as results:
            execute(plan, opened)
    return results[0]
