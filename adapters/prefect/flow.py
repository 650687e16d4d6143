"""A Plan as a Prefect flow, and the flow's function: open the run, run its tasks, close it."""

from __future__ import annotations

import contextvars
import inspect
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prefect import Flow
from prefect.context import FlowRunContext

from ...core.annotations import asset_type, pointed
from ...core.pipeline import Pipeline
from ...core.plan import Plan
from ...core.results import RunResult
from ...routing.stacks import Stack, resolve_stack
from ..events import Listener, listening
from ..runtime import closing, new_run_id, open_run
from .submit import run_tasks
from .tasks import make_task

__all__ = ["HERE", "Here", "build_flow", "to_flow"]


def to_flow(pipeline: Pipeline, *, variable: str = "flow", name: str | None = None, **options: Any) -> Flow[..., Any]:
    """A Prefect flow that runs the pipeline: call it, serve it, deploy it.

    Assign it to ``variable`` in a module, since a deployment finds the flow by that name. Its parameters are the
    pipeline's, with their annotations and defaults, and two more: ``run_id`` (the logical run id; the flow run's own
    unless given) and ``stack``. ``options`` are those of ``prefect.Flow``. Nothing is looked up before it runs.
    """
    module = sys._getframe(1).f_globals.get("__name__", __name__)
    return build_flow(pipeline.plan(), variable=variable, module=module, name=name or pipeline.name, options=options)


@dataclass
class Here:
    """A run in this process: what was already settled before the flow started, and where its result goes.

    It is for the flow of its plan alone, not for one that a step of it calls.
    """

    plan: Plan
    stack: Stack
    params: Mapping[str, Any]
    on_event: Listener | None
    results: list[RunResult] = field(default_factory=list)


HERE: contextvars.ContextVar[Here | None] = contextvars.ContextVar("tailrace_here", default=None)


def build_flow(plan: Plan, *, variable: str, module: str, name: str, options: Mapping[str, Any]) -> Flow[..., Any]:
    """The flow of a plan, whose function a deployment finds as ``variable`` of ``module``."""
    tasks = {node.name: make_task(plan, node) for node in plan.nodes}

    def body(**given: Any) -> str:
        run_id, stack = given.pop("run_id", None), given.pop("stack", None)
        here = HERE.get()
        here = here if here and here.plan is plan else None
        context = FlowRunContext.get()
        native_id = str(context.flow_run.id) if context and context.flow_run else ""
        run = open_run(
            plan,
            params=here.params if here else plan.resolve_params(given),
            stack=here.stack if here else resolve_stack(stack),
            orchestrator="local" if here else "prefect",
            run_id=run_id or native_id or new_run_id(),
            native_id=native_id,
        )
        with listening(run.run_id, here.on_event if here else None), closing(plan, run) as results:
            run_tasks(plan, run, tasks)
        if here:
            here.results += results
        return run.run_id

    # A deployment looks the flow up by its function's module and qualified name, so those must lead to the variable.
    body.__module__, body.__name__, body.__qualname__ = module, variable, variable
    body.__doc__ = plan.description or None
    body.__signature__ = _signature(plan)  # type: ignore[attr-defined]
    body.__annotations__ = {key: item.annotation for key, item in body.__signature__.parameters.items()}  # type: ignore[attr-defined]
    return Flow(body, name=re.sub(r"[/%&<>]", "-", name), **options)  # Prefect refuses these


def _signature(plan: Plan) -> inspect.Signature:
    kind = inspect.Parameter.KEYWORD_ONLY
    own = [
        inspect.Parameter(param.name, kind, default=param.default, annotation=_plain(param.annotation))
        for param in plan.params.values()
    ]
    run = [inspect.Parameter(name, kind, default=None, annotation=str | None) for name in ("run_id", "stack")]
    return inspect.Signature([*own, *run])


def _plain(annotation: Any) -> Any:
    """The annotation for Prefect's schema; one that could not be resolved to a type says nothing.

    Nor does an artifact type or a ``Ref``, whose parameter is given as a reference or a URI.
    """
    unknown = annotation is inspect.Parameter.empty or isinstance(annotation, str)
    artifact = asset_type(annotation) is not None or pointed(annotation) is not None
    return Any if unknown or artifact else annotation
