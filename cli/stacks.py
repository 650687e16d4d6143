"""``tailrace stack``: which destinations there are, and which a run gets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import AsJson, Config

if TYPE_CHECKING:
    from ..routing.stacks import Component
    from ..routing.stacks import Stack as StackOf

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="The stacks of tailrace.yaml: what goes where.")


@app.command("list")
def list_(config: Config = None, json: AsJson = False) -> None:
    """List the stacks; the active one is the one that a run gets."""
    from ..routing.stacks import list_stacks
    from .show import console, lines, listing

    known = list_stacks(config)
    active = known.active
    rows = [{"name": name, "active": name == active.name} for name in known.names]
    if json:
        listing(rows, {}, json=True, empty="")
        return
    out = console()
    for name in known.names:
        out.print(f"{'*' if name == active.name else ' '} {name}", style="bold" if name == active.name else "")
    if active.name not in known.names:
        out.print(f"The chosen stack {active.name!r} does not exist.", style="yellow")
    chosen = "" if active.source == "local" else f"{active.source}, in {active.place}"
    out.print()
    out.print(lines([("File", known.config or "none: there is no tailrace.yaml here or above"), ("Chosen by", chosen)]))


@app.command()
def show(
    name: Annotated[str | None, typer.Argument(help="The stack. Default: the active one.", show_default=False)] = None,
    config: Config = None,
    json: AsJson = False,
) -> None:
    """Show what a stack consists of. Passwords are masked."""
    from ..routing.stacks import resolve_stack
    from .show import console, lines, print_json

    stack = resolve_stack(name, config=config)
    keys = ("component", "name", "type", "options")
    rows: list[dict[str, Any]] = [dict(zip(keys, row, strict=True)) for row in _components(stack)]
    if json:
        head = {"name": stack.name, "project": stack.project, "allow_pickle": stack.allow_pickle}
        print_json({**head, "components": rows})
        return
    out = console()
    facts: list[tuple[str, Any]] = [("stack", stack.name), ("project", stack.project), ("file", stack.source)]
    for row in rows:
        label = row["component"] + (f" {row['name']}" if row["name"] else "")
        options = ", ".join(f"{key}: {value}" for key, value in row["options"].items())
        facts.append((label, row["type"] + (f" ({options})" if options else "")))
    facts += [("catalog", stack.catalog_shown), ("allow_pickle", stack.allow_pickle)]
    facts += [(f"rule {kind}", _rule(rule)) for kind, rule in stack.rules.items()]
    out.print(lines(facts))


def _components(stack: StackOf) -> list[tuple[str, str, str, dict[str, Any]]]:
    single = {
        "orchestrator": stack.orchestrator,
        "tracker": stack.tracker,
        "registry": stack.registry,
        "deployer": stack.deployer,
    }
    named: list[tuple[str, str, Component | None]] = [("store", name, part) for name, part in stack.stores.items()]
    named += [(kind, "", part) for kind, part in single.items()]
    return [(kind, name, part.type, dict(part.shown)) for kind, name, part in named if part is not None]


def _rule(rule: Any) -> str:
    from dataclasses import fields

    said = {field.name: getattr(rule, field.name) for field in fields(rule)}
    return ", ".join(f"{name}: {value}" for name, value in said.items() if value not in (None, {}))


@app.command("set")
def set_(name: Annotated[str, typer.Argument(help="The stack.")], config: Config = None) -> None:
    """Choose the stack of this project from now on. --stack, use_stack and TAILRACE_STACK are stronger."""
    import os

    from ..routing.stacks import set_active_stack
    from .show import console, place

    path = set_active_stack(name, config)
    console().print(f"Runs of this project use the stack {name} now (kept in {place(path.as_uri())}).")
    stronger = os.environ.get("TAILRACE_STACK", name)
    if stronger != name:
        console(stderr=True).print(f"TAILRACE_STACK={stronger} is stronger, and is set here.", style="yellow")


@app.command()
def validate(config: Config = None, json: AsJson = False) -> None:
    """Check the configuration: every problem with its file and key. Exit code 2 if there is any."""
    from ..routing.stacks import find_config, validate_config
    from .show import console, listing, place

    problems = validate_config(config)
    if json:
        rows = [{"message": problem.message, "place": problem.place} for problem in problems]
        listing(rows, {}, json=True, empty="")
    for problem in () if json else problems:
        console(stderr=True).print(f"{problem.place}: {problem.message}", style="red")
    if problems:
        raise typer.Exit(2)
    if not json:
        source = find_config(config)
        none = "There is no tailrace.yaml here or above: nothing to check."
        said = f"{place(source.as_uri())} is sound." if source else none
        console().print(said)


@app.command()
def schema() -> None:
    """Print the JSON Schema of tailrace.yaml, for editors."""
    from ..routing.schema import json_schema
    from .show import print_json

    print_json(json_schema())
