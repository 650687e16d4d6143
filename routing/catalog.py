"""The catalog of a stack: the index over the manifests and journals of all its stores."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from sqlalchemy import URL

from ..catalog.index import Catalog
from ..core.errors import DestinationError
from .router import Router

if TYPE_CHECKING:
    from .stacks import Stack

__all__ = ["open_catalog"]


def open_catalog(stack: Stack) -> Catalog:
    """The index of what a stack's stores hold: in the stack's own database, or in SQLite below its root.

    It may lag behind the stores until :meth:`~tailrace.catalog.index.Catalog.sync`. Close it: it is a context manager.
    """
    router = Router(stack)
    beside = URL.create("sqlite", database=str(stack.root / ".tailrace" / "catalog.db"))
    stores = {name: router.store(name) for name in stack.stores}
    return Catalog(stack.catalog_url or beside, stores, lambda: _registered(router))


def _registered(router: Router) -> Iterable[tuple[str, str]]:
    """What the stack's model registry points at. One that cannot tell is refused: it may be any of the artifacts."""
    registry = router.registry
    if registry is None:
        return ()
    if not hasattr(registry, "registered"):
        raise DestinationError(
            f"The model registry {registry.name!r} does not say which artifacts its versions point at, so that nothing "
            f"is collected: {type(registry).__name__} has no registered()."
        )
    return registry.registered()
