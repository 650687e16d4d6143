"""``tailrace artifacts``: what exists, what is known of it, and its files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import AsJson, Config, Limit, Stack

if TYPE_CHECKING:
    from ..catalog.rows import ArtifactRow
    from ..core.refs import Manifest
    from ..stores.base import ArtifactStore

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="What exists, what is known of it, and its files.")

_COLUMNS = {
    "id": "Id",
    "name": "Name",
    "version": "Version",
    "type": "Type",
    "size_bytes": ">Size",
    "step": "Step",
    "run_id": "Run",
    "created": "Created (UTC)",
}

ArtifactId = Annotated[str, typer.Argument(metavar="ID", help="An artifact's id, digest or URI.", show_default=False)]


@app.command()
def ls(
    run: Annotated[str | None, typer.Option("--run", metavar="ID", help="Only those of this run.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Only those of this name.")] = None,
    type: Annotated[str | None, typer.Option("--type", help="Only those of this type, such as Model.")] = None,
    step: Annotated[str | None, typer.Option("--step", help="Only those of this step.")] = None,
    limit: Limit = 100,
    stack: Stack = None,
    config: Config = None,
    json: AsJson = False,
) -> None:
    """List the artifacts, newest first."""
    from .catalog import opened
    from .show import listing

    rows = opened(stack, config).artifacts(run=run, name=name, type=type, step=step, limit=limit)
    listing([row.to_dict() for row in rows], _COLUMNS, json=json, empty="No artifacts.")
