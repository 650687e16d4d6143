"""``tailrace artifacts cp`` and ``mv``: from the stores of one stack to those of another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from .options import AsJson, Config, Stack
from .verify import ArtifactIds, OfRun, chosen, watched

if TYPE_CHECKING:
    from ..routing.router import Router
    from ..stores.base import ArtifactStore

__all__ = ["cp", "mv"]

T = TypeVar("T")
To = Annotated[str, typer.Option("--to", metavar="STACK", help="The stack whose stores they go to.")]

_AT_ONCE = 4  # artifacts; the files of one go at once anyway


@dataclass(frozen=True)
class _Way:
    """An artifact, and the store that it goes to: the one of the same name, else the default one."""

    source: ArtifactStore
    target: ArtifactStore
    key: str

    @property
    def uris(self) -> tuple[str, str]:
        """From where, and to where."""
        return self.source.uri(self.key), self.target.uri(self.key)


def cp(
    to: To,
    artifacts: ArtifactIds = None,
    run: OfRun = None,
    stack: Stack = None,
    config: Config = None,
    json: AsJson = False,
) -> None:
    """Copy artifacts to another stack's stores, with their producer and parents; digests are checked on arrival.

    What is there already is not copied again. The records of runs are not copied.
    """
    _transfer(to, artifacts or [], run, stack, config, json=json, move=False)


def mv(
    to: To,
    artifacts: ArtifactIds = None,
    run: OfRun = None,
    stack: Stack = None,
    config: Config = None,
    json: AsJson = False,
) -> None:
    """Copy artifacts as cp does, and delete them here once all of them have been verified there."""
    _transfer(to, artifacts or [], run, stack, config, json=json, move=True)


def _transfer(
    to: str, artifacts: Sequence[str], run: str | None, stack: str | None, config: str | None, *, json: bool, move: bool
) -> None:
    from ..core.errors import ArtifactNotFound
    from ..routing.router import Router
    from ..routing.stacks import resolve_stack
    from ..stores.transfer import copy, remove_copied
    from .show import console, print_json

    here, there = Router(resolve_stack(stack, config=config)), Router(resolve_stack(to, config=config))
    ways = [_way(here, there, uri) for uri in chosen(here, artifacts, run)]

    def state(way: _Way) -> str:
        try:
            new = copy(way.source, way.key, way.target)
        except ArtifactNotFound:
            if run is None:
                raise
            return "gone"  # collected or deleted; the run's records name it still
        return ("moved" if new else "removed") if move else ("copied" if new else "present")

    try:
        states = _each("copying", ways, state)
        if move:
            _each("deleting", ways, lambda way: remove_copied(way.source, way.key, way.target))
    finally:
        for router, uris in ((here, [way.uris[0] for way in ways]), (there, [way.uris[1] for way in ways])):
            _follow(router, uris)
    if json:
        rows = [
            dict(zip(("from", "to", "state"), (*way.uris, state), strict=True))
            for way, state in zip(ways, states, strict=True)
        ]
        print_json(rows)
        return
    done, already = ("moved", "removed") if move else ("copied", "present")
    told = [f"{done} {states.count(done)} artifacts to the stack {to!r}"]
    told += [f"{count} were there already" for count in [states.count(already)] if count]
    told += [f"{count} are in neither any more" for count in [states.count("gone")] if count]
    console().print("; ".join(told))


def _way(here: Router, there: Router, uri: str) -> _Way:
    from ..core.errors import ConfigError, Problem

    source = here.store_of(uri)
    name = next(name for name in here.stack.stores if here.store(name) is source)
    target = there.store(name if name in there.stack.stores else "default")
    if target.root_uri == source.root_uri:
        what = f"the stack {there.stack.name!r} keeps its artifacts in the same place, {target.root_uri}"
        raise ConfigError("Nothing was copied", [Problem(what, uri)])
    return _Way(source, target, source.key(uri))


def _each(what: str, ways: Sequence[_Way], act: Callable[[_Way], T]) -> list[T]:
    """Do it for all; what fails first is raised, when those that had begun are done."""
    with watched(what, len(ways)) as step, ThreadPoolExecutor(_AT_ONCE) as pool:

        def done(way: _Way) -> T:
            result = act(way)
            step()
            return result

        try:
            return list(pool.map(done, ways))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _follow(router: Router, uris: Sequence[str]) -> None:
    from ..routing.catalog import open_catalog

    with open_catalog(router.stack) as catalog:
        catalog.look(uris)
