"""``tailrace catalog``: the index of what exists. It follows the stores, and can be deleted and rebuilt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from .options import AsJson, Config, Stack

if TYPE_CHECKING:
    from ..catalog.index import Catalog

__all__ = ["app", "opened"]

app = typer.Typer(no_args_is_help=True, help="The index of what exists, which follows the stores.")


def opened(stack: str | None, config: str | None) -> Catalog:
    """The catalog of a stack, up to date with its stores."""
    from ..routing.catalog import open_catalog
    from ..routing.stacks import resolve_stack

    found = open_catalog(resolve_stack(stack, config=config))
    found.sync()
    return found


@app.command()
def rebuild(stack: Stack = None, config: Config = None) -> None:
    """Forget the index and make it anew from the stores."""
    from ..routing.catalog import open_catalog
    from ..routing.stacks import resolve_stack
    from .show import console

    found = open_catalog(resolve_stack(stack, config=config))
    found.rebuild()
    counts = found.stats()
    console().print(f"Rebuilt: {counts['runs']} runs, {counts['artifacts']} artifacts.")


@app.command()
def stats(stack: Stack = None, config: Config = None, json: AsJson = False) -> None:
    """Count what there is, and its bytes."""
    from .show import console, lines, print_json, size

    found = opened(stack, config).stats()
    if json:
        print_json(found)
        return
    facts = [(name.replace("_", " "), size(value) if "bytes" in name else value) for name, value in found.items()]
    console().print(lines(facts))
