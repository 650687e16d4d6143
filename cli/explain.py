"""``tailrace explain``: where each output of a pipeline would go, and which rule decides, without running anything."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import AsJson, Config, Stack, Target

if TYPE_CHECKING:
    from ..core.plan import Node, Plan
    from ..core.step import Output
    from ..routing.stacks import Stack as StackOf

__all__ = ["explain"]

_BY_VALUE = "decided by value at run time"
_CONTENT = {"Metrics": dict, "Parameters": dict, "Prompt": str}  # what artifact types always hold
_INDEX = 987654  # stands for every map index, until it is written as its placeholder
_RUN_ID = "RUN-ID"


def explain(
    target: Target,
    stack: Stack = None,
    config: Config = None,
    run_id: Annotated[
        str | None, typer.Option("--run-id", metavar="ID", help="Show the paths of this run, if it started today.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Show where each output would go, and why. Nothing is run or written."""
    from ..core.load import load_pipeline
    from ..routing.stacks import resolve_stack
    from .show import console, print_json

    plan = load_pipeline(target).plan()
    chosen = resolve_stack(stack, config=config)
    rows = [row for node in plan.nodes for row in _node_rows(plan, node, chosen, run_id)]
    if json:
        print_json(rows)
        return
    out = console()
    source = f" of {chosen.source}" if chosen.source else ""
    out.print(f"{plan.name} on the stack {chosen.name}{source}")
    for row in rows:
        out.print()
        _show(out, row, chosen)


def _node_rows(plan: Plan, node: Node, stack: StackOf, run_id: str | None) -> Iterator[dict[str, Any]]:
    for output in node.outputs:
        yield _row(plan, node, output, stack, run_id)


def _row(plan: Plan, node: Node, output: Output, stack: StackOf, run_id: str | None) -> dict[str, Any]:
    from datetime import UTC, datetime

    from ..core.typenames import routing_names
    from ..routing.rules import decide

    route = decide(
        routing_names(output.annotation),
        stack=stack,
        project=stack.project,
        pipeline=plan.name,
        run_id=run_id or _RUN_ID,
        date=datetime.now(UTC).date().isoformat(),
        step=node.name,
        output=output.name,
        map_index=_INDEX if node.mapped else None,
    )
    kind = _type(output.annotation)
    path = route.path.replace(str(_INDEX), "{map_index}")
    return {
        "step": node.name,
        "output": output.name,
        "when": node.condition or None,
        "type": kind or _BY_VALUE,
        "materializer": _materializer(output.annotation, route.type),
        "store": route.store,
        "path": path if run_id else path.replace(_RUN_ID, "{run_id}"),
        "tracker": route.tracker,
        "registry": route.registry,
        "deployer": route.deployer,
        "gate": route.gate or None,
        "format": route.format,
        "compression": route.compression,
        "on_error": route.on_error,
        "rule": route.rule,
    }


def _type(annotation: Any) -> str:
    """The declared type as rules know it; as it is written where it is no class; nothing where none is declared."""
    from ..core.annotations import describe
    from ..core.typenames import routing_names

    if annotation is inspect.Parameter.empty or annotation is Any:
        return ""
    names = routing_names(annotation)
    return names[0] if names else describe(annotation)


def _materializer(annotation: Any, kind: str) -> str:
    from ..core.annotations import asset_type, pointed
    from ..materializers.registry import choose

    annotation = pointed(annotation) or annotation
    if annotation in (inspect.Parameter.empty, Any):
        return _BY_VALUE
    if asset_type(annotation) is not None:
        annotation = _CONTENT.get(kind)
    if annotation is None:
        return "decided by its content"
    choice = choose(annotation)
    return choice.materializer or choice.reason


def _show(out: Any, row: dict[str, Any], stack: StackOf) -> None:
    from .show import lines

    component = stack.stores[row["store"]]
    title = f"{row['step']} -> {row['output']}: {row['type']}"
    out.print(title, style="bold")
    facts = [
        ("  only if", row["when"]),
        ("  materializer", row["materializer"]),
        ("  store", f"{row['store']} ({component.type})"),
        ("  path", row["path"]),
        ("  tracker", row["tracker"]),
        ("  registry", _registry(row["registry"], stack)),
        ("  deployer", row["deployer"] and f"{row['deployer']}, {row['gate']}"),
        ("  tables as", ", ".join(filter(None, (row["format"], row["compression"])))),
        ("  on error", "warn" if row["on_error"] == "warn" else ""),
        ("  rule", row["rule"]),
    ]
    out.print(lines(facts))


def _registry(name: str | None, stack: StackOf) -> str | None:
    """A tracker registers prompts where no model registry does."""
    return f"{name}, the tracker's" if name and (stack.registry is None or stack.registry.type != name) else name
