"""``tailrace gc``: what nobody needs any more is found and, if asked for, removed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import AsJson, Config, Stack, seconds

if TYPE_CHECKING:
    from ..catalog.rows import GcReport

__all__ = ["gc", "shown_progress"]

_COLUMNS = {"kind": "Kind", "store": "Store", "key": "Key", "files": ">Files", "bytes": ">Size", "why": "Why"}
_SHOWN = 20


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go. This is the default.")] = False,
    delete: Annotated[bool, typer.Option("--delete", "--yes", help="Remove it.")] = False,
    older_than: Annotated[
        float | None,
        typer.Option(
            "--older-than",
            metavar="AGE",
            parser=seconds,
            help="Let go artifacts of ended runs that are older, as in 30d.",
        ),
    ] = None,
    keep_last: Annotated[
        int | None,
        typer.Option("--keep-last", min=0, metavar="N", help="Let go all but the last N of each name in a pipeline."),
    ] = None,
    keep_tag: Annotated[
        list[str] | None, typer.Option("--keep-tag", metavar="TAG", help="Keep what has the tag, KEY or KEY=VALUE.")
    ] = None,
    grace: Annotated[
        float,
        typer.Option(
            "--grace",
            metavar="AGE",
            parser=seconds,
            help="Leave what was written since: longer than a save takes.",
        ),
    ] = "1h",  # type: ignore[assignment]  # the parser reads it, too
    stack: Stack = None,
    config: Config = None,
    json: AsJson = False,
) -> None:
    """Find what no manifest, run or registry names, and what a rule lets go; with --delete, remove it."""
    from ..catalog.retention import Retention
    from ..routing.catalog import open_catalog
    from ..routing.stacks import resolve_stack
    from .show import print_json

    if dry_run and delete:
        raise typer.BadParameter("--dry-run and --delete exclude each other.")
    rule = Retention(older_than, keep_last, tuple(keep_tag or ()))
    with open_catalog(resolve_stack(stack, config=config)) as catalog, shown_progress() as progress:
        report = catalog.collect_garbage(rule, dry_run=not delete, grace=grace, progress=progress)
    if json:
        print_json(report.to_dict())
    else:
        _show(report, grace)


@contextmanager
def shown_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Say on a terminal how far a long work is, for the block."""
    from .show import console

    with console(stderr=True).status("") as status:

        def note(doing: str, done: int, of: int) -> None:
            told = f"{done:,} of {of:,}" if of else f"{done:,}"
            status.update(f"{doing}: {told}" if done else doing)

        yield note


def _show(report: GcReport, grace: float) -> None:
    from .show import console, duration, size, table

    out = console()
    for problem in report.problems:
        console(stderr=True).print(problem, style="yellow")
    made: Any = table(*_COLUMNS.values())
    for item in report.items[:_SHOWN]:
        made.add_row(item.kind, item.store, item.key, str(item.files), size(item.bytes), item.why)
    if report.items:
        out.print(made)
    if len(report.items) > _SHOWN:
        out.print(f"... and {len(report.items) - _SHOWN} more: --json lists all")
    for kind, of in report.by_kind.items():
        out.print(f"{kind}: {of['count']}, {of['files']} files, {size(of['bytes'])}")
    if report.left:
        out.print(f"{report.left} found and left: in use by now")
    if not report.items:
        young = f" What was written in the last {duration(grace)} is left: see --grace." if grace else ""
        out.print(f"Nothing to remove.{young}")
        return
    said = "removed" if report.deleted else "would be removed; --delete removes it"
    out.print(f"{len(report.items)} things, {size(report.bytes)}: {said}")
