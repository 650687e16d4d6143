"""``tailrace artifacts verify``: hash again what is stored, and name what is damaged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import AsJson, Config, Stack

if TYPE_CHECKING:
    from ..routing.router import Router
    from ..stores.verify import Verified

__all__ = ["ArtifactIds", "OfRun", "chosen", "verify", "watched"]

ArtifactIds = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[ID]...",
        help="Artifacts: the id or the beginning of that, the URI, the digest, or RUN/STEP/OUTPUT.",
        show_default=False,
    ),
]
OfRun = Annotated[str | None, typer.Option("--run", metavar="ID", help="Those that this run's records name.")]

_AT_ONCE = 4  # artifacts; hashing uses the processors, and a bucket's files come at once anyway
_COLUMNS = {"uri": "Artifact", "file": "File", "state": "State", "expected": "Expected", "found": "Found"}


def verify(
    artifacts: ArtifactIds = None,
    run: OfRun = None,
    all: Annotated[bool, typer.Option("--all", help="Everything that the stack's stores hold.")] = False,
    stack: Stack = None,
    config: Config = None,
    json: AsJson = False,
) -> None:
    """Hash again what is stored, and name what is damaged or missing. Exit code 0 if everything is sound, else 1."""
    from ..routing.router import Router
    from ..routing.stacks import resolve_stack
    from .show import console, listing, print_json, size

    router = Router(resolve_stack(stack, config=config))
    uris = _everything(router) if all else chosen(router, artifacts or [], run)
    seen = [found for found in _verified(router, uris) if not (all and found.absent)]  # deleted since it was listed
    damage = [asdict(item) for found in seen for item in found.damage]
    total = sum(found.size_bytes for found in seen)
    if json:
        print_json({"artifacts": len(seen), "size_bytes": total, "damage": damage})
    else:
        if damage:
            listing(damage, _COLUMNS, json=False, empty="")
        broken = sum(bool(found.damage) for found in seen)
        told = f"{broken} of {len(seen)} artifacts are damaged" if broken else f"{len(seen)} artifacts are sound"
        console().print(f"{told} ({size(total)}).")
    if damage:
        raise typer.Exit(1)


def _everything(router: Router) -> list[str]:
    stores = [router.store(name) for name in router.stack.stores]
    return sorted({store.uri(path) for store in stores for path in store.list_artifacts()})


def chosen(router: Router, artifacts: Sequence[str], run: str | None) -> list[str]:
    """The URIs of the artifacts that are named, and of those of the run, in order. Raises for a name of none."""
    from ..core.errors import ConfigError, Problem

    if not artifacts and run is None:
        raise ConfigError("Nothing was done", [Problem("Name artifacts, or --run ID", "artifacts")])
    found = list(_named(router, artifacts))
    if run is not None:
        found += _of_run(router, run)
    return list(dict.fromkeys(found))


def _named(router: Router, artifacts: Sequence[str]) -> Iterator[str]:
    """By the index as it is, and only where it does not know one brought up to date: that drops what is damaged."""
    from ..core.errors import ArtifactNotFound
    from ..routing.catalog import open_catalog

    with open_catalog(router.stack) as catalog:
        for name in artifacts:
            if "://" in name:
                router.store_of(name)
                yield name
                continue
            try:
                row = catalog.artifact(name)
            except ArtifactNotFound:
                catalog.sync()
                row = catalog.artifact(name)
            yield row.uri


def _of_run(router: Router, run: str) -> Iterator[str]:
    from ..catalog.journal import find_runs
    from ..core.errors import RunNotFound
    from .records import stored

    journals = list(find_runs(router.store("default"), run_id=run))
    if not journals:
        raise RunNotFound(f"No run {run!r} is recorded in {router.store('default').root_uri}. See: tailrace runs ls")
    for journal in journals:
        for task in journal.tasks():
            yield from (ref.uri for _, ref in stored(task))


def _verified(router: Router, uris: Sequence[str]) -> Iterator[Verified]:
    from ..stores.verify import verify

    with watched("verifying", len(uris)) as step, ThreadPoolExecutor(_AT_ONCE) as pool:
        for found in pool.map(lambda uri: verify(router.store_of(uri), uri), uris):
            step()
            yield found


@contextmanager
def watched(what: str, total: int) -> Iterator[Any]:
    """A bar on a terminal's standard error; call what it gives once for each that is done."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from .show import console

    err = console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)
