"""A Plan as a Prefect flow, and the flow's function: open the run, run its tasks, close it."""

from __future__ import annotations

import contextvars
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from prefect import Flow, Task
from prefect.context import FlowRunContext

from ...core.annotations import asset_type, pointed
from ...core.pipeline import Pipeline
from ...core.plan import Plan
from ...core.results import RunResult
from ...routing.stacks import Stack, resolve_stack
from ..events import Listener, listening
from ..runs import closing, new_run_id, open_run
from .assets import task_lineage
from .lost import close_lost
from .pages import run_pages
from .submit import run_tasks
from .tasks import make_task

__all__ = ["HERE", "Here", "build_flow", "deployable_flow"]


def deployable_flow(
    pipeline: Pipeline, *, variable: str, module: str, name: str, options: Mapping[str, Any], pages: bool
) -> Flow[..., Any]:
    """The flow that :func:`to_flow` gives: a version, a name for its runs, and hooks that close a lost run's record."""
    plan = pipeline.plan()
    options = {"version": plan.version, "flow_run_name": _run_name, **options}
    for hooks in ("on_crashed", "on_cancellation"):
        options[hooks] = [partial(close_lost, plan), *(options.get(hooks) or ())]
    return build_flow(plan, variable=variable, module=module, name=name, options=options, pages=pages)


def _run_name() -> str:
    """The run id, where one is given; else the name that Prefect or whoever started the run has chosen."""
    context = FlowRunContext.get()
    assert context is not None  # noqa: S101  # Prefect asks inside of it
    return str((context.parameters or {}).get("run_id") or (context.flow_run and context.flow_run.name))


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


def build_flow(
    plan: Plan, *, variable: str, module: str, name: str, options: Mapping[str, Any], pages: bool = True
) -> Flow[..., Any]:
    """The flow of a plan, whose function a deployment finds as ``variable`` of ``module``."""
    lineage = task_lineage(plan.tasks) if pages else {}
    tasks = {node.name: make_task(plan.tasks, node, pages=lineage.get(node.name)) for node in plan.tasks.nodes}

    def body(**given: Any) -> str:
        return _run(plan, tasks, given, pages)  # `serve` sends this to another process, by value, with what it names

    # A deployment looks the flow up by its function's module and qualified name, so those must lead to the variable.
    body.__module__, body.__name__, body.__qualname__ = module, variable, variable
    body.__doc__ = plan.description or None
    body.__signature__ = _signature(plan)  # type: ignore[attr-defined]
    body.__annotations__ = {key: item.annotation for key, item in body.__signature__.parameters.items()}  # type: ignore[attr-defined]
    return Flow(body, name=re.sub(r"[/%&<>]", "-", name), **options)  # Prefect refuses these


def _run(plan: Plan, tasks: Mapping[str, Task[..., Any]], given: dict[str, Any], pages: bool) -> str:
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
    done: set[tuple[str, int | None]] = set()
    closed = closing(plan, run, done)
    with listening(run.run_id, here.on_event if here else None), run_pages(plan, run, closed, pages) as results:
        run_tasks(plan.tasks, run, tasks, done)
    if here:
        here.results += results
    return run.run_id


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
