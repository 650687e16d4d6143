"""``tailrace artifacts``: what exists, what is known of it, and its files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import transfer, verify
from .options import ArtifactId, AsJson, Config, Limit, Stack

if TYPE_CHECKING:
    from ..catalog.rows import ArtifactRow
    from ..core.refs import Manifest
    from ..stores.base import ArtifactStore

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="What exists, what is known of it, and its files.")
app.command("verify")(verify.verify)
app.command("cp")(transfer.cp)
app.command("mv")(transfer.mv)

_COLUMNS = {
    "id": "Id",
    "name": "Name",
    "version": "Version",
    "type": "Type",
    "size_bytes": ">Size",
    "step": "Step",
    "run_id": "Run",
}


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

    with opened(stack, config) as catalog:
        rows = catalog.artifacts(run_id=run, name=name, type=type, step=step, limit=limit)
    listing([row.to_dict() for row in rows], _COLUMNS, json=json, empty="No artifacts.")


@app.command()
def show(
    artifact: ArtifactId,
    no_preview: Annotated[
        bool, typer.Option("--no-preview", help="Only what is known, without a look into the files.")
    ] = False,
    stack: Stack = None,
    config: Config = None,
    json: AsJson = False,
) -> None:
    """Show an artifact: its manifest, a preview, what it was made from, and what was made from it."""
    from .catalog import opened
    from .preview import preview
    from .show import console, print_json

    with opened(stack, config) as catalog:
        row = catalog.artifact(artifact)
        near = {
            "parents": [parent.to_dict() for parent in catalog.parents(row.id)],
            "children": [child.to_dict() for child in catalog.children(row.id)],
        }
    store, manifest = _located(row, stack, config)
    if json:
        seen = {} if no_preview else {"preview": preview(store, manifest, row.uri)}
        print_json({**row.to_dict(), "manifest": manifest.to_dict(), **seen, **near})
    else:
        _show(console(), row, manifest, near, lambda: {} if no_preview else preview(store, manifest, row.uri))


def _show(
    out: Any,
    row: ArtifactRow,
    manifest: Manifest,
    near: dict[str, list[dict[str, Any]]],
    look: Callable[[], dict[str, Any]],
) -> None:
    """The manifest first: what is damaged is told of after it."""
    from .preview import show
    from .show import lines, place, size, table, when

    made_by = f"{row.step}.{row.output}" + ("" if row.map_index is None else f" of task {row.map_index}")
    facts: list[tuple[str, Any]] = [
        ("Artifact", f"{row.name} {row.version}"),
        ("Id", row.id),
        ("Type", row.type),
        ("Made by", f"{made_by} in run {row.run_id}" if row.run_id else ""),
        ("Created", f"{when(row.created)} UTC"),
        ("Place", place(row.uri)),
        ("Digest", row.digest),
        ("Materializer", f"{manifest.materializer} (format {manifest.materializer_version})"),
        ("Tags", ", ".join(f"{key}={value}" for key, value in manifest.tags.items())),
    ]
    told = _told(manifest)
    facts += [(name, _brief(value)) for name, value in told.items()]
    facts += [(name, _brief(value)) for name, value in (manifest.user_metadata or {}).items()]
    out.print(lines(facts))
    files = table("File", ">Size", "Digest")
    for entry in manifest.files:
        files.add_row(entry.path, size(entry.size), entry.digest)
    out.print()
    out.print(files)
    for heading, rows in near.items():
        if rows:
            made = table("Made from" if heading == "parents" else "Used for", "Type", "Id")
            for item in rows:
                made.add_row(item["name"], item["type"], item["id"])
            out.print()
            out.print(made)
    show(out, look(), told)


def _told(manifest: Manifest) -> dict[str, Any]:
    """What is known of the value, each thing once; a model's larger parts are in its preview."""
    metadata = dict(manifest.metadata)
    header, described = metadata.pop("asset", {}), metadata.pop("described", {})
    apart = {"name", "tags", "hyperparameters", "feature_importances"}
    found = {name: value for name, value in {**described, **header, **metadata}.items() if name not in apart}
    return {name: value for name, value in found.items() if value not in (None, "", {}, [])}


def _brief(value: Any) -> str:
    import json

    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 200 else f"{text[:200]} ... (all of it with --json)"


def _located(row: ArtifactRow, stack: str | None, config: str | None) -> tuple[ArtifactStore, Manifest]:
    from ..routing.router import Router
    from ..routing.stacks import resolve_stack

    store = Router(resolve_stack(stack, config=config)).store_of(row.uri)
    return store, store.manifest(row.uri)


# --- the files --------------------------------------------------------------------------------------------------------


@app.command()
def get(
    artifact: ArtifactId,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="PATH", help="Where to. Default: the artifact's name, here."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    stack: Stack = None,
    config: Config = None,
) -> None:
    """Copy an artifact's files out of the store, verified. One file becomes a file, several, or a folder, a folder."""
    from ..core.errors import ConfigError, Problem
    from ..core.names import segment
    from .catalog import opened
    from .show import console, size

    with opened(stack, config) as catalog:
        row = catalog.artifact(artifact)
    store, manifest = _located(row, stack, config)
    folder = manifest.materializer == "path" and manifest.spec["kind"] == "directory"
    single = len(manifest.files) == 1 and not folder
    suffix = Path(manifest.files[0].path).suffix if single and not Path(row.name).suffix else ""
    target = output or Path(segment(row.name) + suffix)
    if single and target.is_dir():
        raise ConfigError("Nothing was written", [Problem("It is a folder, and the artifact is one file", str(target))])
    if target.exists() and not force:
        raise ConfigError("Nothing was written", [Problem("It is there already; --force replaces it", str(target))])
    if folder:
        store.get(row.uri, target)  # with its own names, empty folders and links
    else:
        _copy(store, store.key(row.uri), manifest, target)
    count = "" if single else f" ({len(manifest.files)} files)"
    console().print(f"wrote {target}{count}, {size(manifest.size_bytes)}")


def _copy(store: ArtifactStore, key: str, manifest: Manifest, target: Path) -> None:
    """Copy to a folder beside the target, verify the copies, and put each in its place; what else is there stays."""
    import tempfile

    from ..materializers.files import FileReader

    source = store.local_tree(f"{key}/{manifest.content}", manifest.files)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".tailrace-") as aside:
        for entry in manifest.files:
            if (source / entry.path).is_file():  # a missing one is told like a damaged one, below
                copied = Path(aside, entry.path)
                copied.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / entry.path, copied)
        store.release_tree(source)
        FileReader(Path(aside), {entry.path: entry for entry in manifest.files}, label=store.uri(key)).path()
        if not manifest.files:
            target.mkdir(exist_ok=True)
        for entry in manifest.files:
            place = target / _inside(entry.path, manifest)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(Path(aside, entry.path), place)


def _inside(path: str, manifest: Manifest) -> str:
    """A file's path below the target: of a stored folder without the folder's name, of a single file nothing."""
    folders = {entry.path.rpartition("/")[0].partition("/")[0] for entry in manifest.files}
    if len(manifest.files) == 1:
        return ""
    return path if len(folders) > 1 or "" in folders else path.partition("/")[2]
