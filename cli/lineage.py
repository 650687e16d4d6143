"""``tailrace lineage``: what an artifact was made from, and what was made from it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .options import ArtifactId, Config, Stack

__all__ = ["Format", "lineage"]


class Format(StrEnum):
    """How the graph is written."""

    text = "text"
    mermaid = "mermaid"
    svg = "svg"
    json = "json"


def lineage(
    artifact: ArtifactId,
    format: Annotated[Format, typer.Option("--format", help="How the graph is written.")] = Format.text,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to a file instead of the terminal.")
    ] = None,
    up: Annotated[bool, typer.Option("--up", help="Only what it was made from.")] = False,
    down: Annotated[bool, typer.Option("--down", help="Only what was made from it.")] = False,
    depth: Annotated[int | None, typer.Option("--depth", min=1, help="How many steps away. Default: all.")] = None,
    stack: Stack = None,
    config: Config = None,
) -> None:
    """Show what an artifact was made from, and what was made from it."""
    from .catalog import opened
    from .show import console

    with opened(stack, config) as catalog:
        graph = catalog.lineage(artifact, up=up or not down, down=down or not up, depth=depth)
    text: str = getattr(graph, f"to_{format.value}")()
    if output is None:
        print(text.rstrip("\n"))
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
    console().print(f"wrote {output}")
