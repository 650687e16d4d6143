"""The catalog of a stack: the index over the manifests and journals of all its stores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..catalog.index import Catalog
from .router import Router

if TYPE_CHECKING:
    from .stacks import Stack

__all__ = ["open_catalog"]


def open_catalog(stack: Stack) -> Catalog:
    """The index of what a stack's stores hold: in its own database, or in SQLite below the root.

    It may lag behind the stores until :meth:`~tailrace.catalog.index.Catalog.sync`.
    """
    router = Router(stack)
    url = stack.catalog_url
    if url is None:
        path = stack.root / ".tailrace" / "catalog.db"
        path.parent.mkdir(parents=True, exist_ok=True)
        url = f"sqlite:///{path}"
    return Catalog(url, {name: router.store(name) for name in stack.stores})
