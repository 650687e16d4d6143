"""``tailrace cache``: what the step cache has, and making room."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import AsJson, Config, Stack, seconds

if TYPE_CHECKING:
    from ..routing.cache.entries import Entry, Tier

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="The step cache: what it has, and making room.")

_COLUMNS = {
    "key": "Key",
    "step": "Step",
    "outputs": "Outputs",
    "size_bytes": ">Size",
    "seconds": ">Computed in",
    "started": "Computed (UTC)",
    "run_id": "Run",
}

Step = Annotated[str | None, typer.Option("--step", metavar="NAME", help="Only entries of this step.")]
Remote = Annotated[bool, typer.Option("--remote", help="The shared cache at TAILRACE_CACHE_REMOTE, not the local one.")]


@app.command()
def ls(
    step: Step = None, remote: Remote = False, stack: Stack = None, config: Config = None, json: AsJson = False
) -> None:
    """List the entries, newest first: what was computed when, by which run, and how long that took."""
    from .show import listing

    rows = [_row(entry) for entry in _tier(stack, config, remote).entries() if step in (None, entry.step)]
    shown = rows if json else [{**row, "key": row["key"][:12]} for row in rows]
    empty = "The cache is empty." if step is None else f"The cache has nothing of a step {step!r}."
    listing(shown, _COLUMNS, json=json, empty=empty)


@app.command()
def clear(
    step: Step = None,
    older_than: Annotated[
        float | None,
        typer.Option(
            "--older-than", metavar="AGE", parser=seconds, help="Only entries of that age: 90m, 12h, 30d, 4w."
        ),
    ] = None,
    remote: Remote = False,
    stack: Stack = None,
    config: Config = None,
    json: AsJson = False,
) -> None:
    """Remove entries, all of them unless you say which. Artifacts of runs stay; of a shared cache its copies go.

    A run that needs what is gone computes it again.
    """
    from .show import console, print_json, size

    tier = _tier(stack, config, remote)
    gone = tier.clear(step=step, older_than=older_than)
    if json:
        print_json([_row(entry) for entry in gone])
        return
    count = f"{len(gone)} {'entry' if len(gone) == 1 else 'entries'}"
    held = sum(entry.bytes for entry in gone)
    what = f" and their copies of {size(held)}" if remote else f", which stood for {size(held)} in the stores"
    console().print(f"Removed {count} from {tier.store.root_uri}" + (what if gone else ""))


def _tier(stack: str | None, config: str | None, remote: bool) -> Tier:
    from ..core.errors import ConfigError, Problem
    from ..routing.cache.entries import tiers
    from ..routing.stacks import resolve_stack

    chosen = resolve_stack(stack, config=config)
    found = tiers(chosen.root, chosen.name)
    if remote and len(found) == 1:
        problem = Problem("It is not set; give it the URI or the folder of the shared cache", "TAILRACE_CACHE_REMOTE")
        raise ConfigError("There is no shared cache", [problem])
    return found[-1] if remote else found[0]


def _row(entry: Entry) -> dict[str, Any]:
    return {
        "key": entry.key,
        "project": entry.project,
        "pipeline": entry.pipeline,
        "step": entry.step,
        "map_index": entry.map_index,
        "run_id": entry.run_id,
        "started": entry.created,
        "seconds": entry.seconds,
        "size_bytes": entry.bytes,
        "outputs": ", ".join(kept.output for kept in entry.kept),
    }
