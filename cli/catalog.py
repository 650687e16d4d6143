"""``tailrace catalog``: the index of what exists. It follows the stores, and can be deleted and rebuilt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from .options import AsJson, Config, Stack

if TYPE_CHECKING:
    from ..catalog.index import Catalog
    from ..catalog.rows import SyncReport

__all__ = ["app", "opened"]

app = typer.Typer(no_args_is_help=True, help="The index of what exists, which follows the stores.")


@contextmanager
def opened(stack: str | None, config: str | None) -> Iterator[Catalog]:
    """The catalog of a stack, up to date with its stores, for the block."""
    from ..routing.catalog import open_catalog
    from ..routing.stacks import resolve_stack

    with open_catalog(resolve_stack(stack, config=config)) as found:
        _tell(found.sync())
        yield found


def _tell(report: SyncReport) -> None:
    from .show import console

    for problem in report.problems:
        console(stderr=True).print(f"Not read: {problem}", style="yellow")


@app.command()
def rebuild(stack: Stack = None, config: Config = None) -> None:
    """Forget the index and make it anew from the stores."""
    from ..routing.catalog import open_catalog
    from ..routing.stacks import resolve_stack
    from .show import console, duration

    with open_catalog(resolve_stack(stack, config=config)) as found:
        report = found.rebuild()
    _tell(report)
    console().print(f"{report.runs} runs and {report.artifacts} artifacts in {duration(report.seconds)}")


@app.command()
def stats(stack: Stack = None, config: Config = None, json: AsJson = False) -> None:
    """Count what there is, its bytes, and what sharing saves. Every manifest is read."""
    from .gc import shown_progress
    from .show import console, lines, print_json, size

    with opened(stack, config) as catalog, shown_progress() as progress:
        found = catalog.stats().to_dict() | {"stored": catalog.get_stats(progress=progress).to_dict()}
    if json:
        print_json(found)
        return
    facts: list[tuple[str, Any]] = [("runs", found["runs"])]
    facts += [(f"  {state}", count) for state, count in found["runs_by_state"].items()]
    facts += [("artifacts", found["artifacts"])]
    facts += [(f"  {kind}", count) for kind, count in found["by_type"].items()]
    facts += [("bytes", size(found["bytes"]))]
    facts += [(f"  in {store}", size(count)) for store, count in found["by_store"].items()]
    stored = found["stored"]
    facts += [("  stored as", f"{size(stored['actual_bytes'])}, {stored['ratio']:.2f} to 1")]
    facts += [("unique files", stored["unique_files"])]
    facts += [("orphans", f"{stored['orphans']}, {size(stored['orphan_bytes'])}: tailrace gc")]
    console().print(lines(facts))
