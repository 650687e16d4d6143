"""What a store holds, file by file, and what time it is there: for those who count and collect."""

from __future__ import annotations

import secrets
from collections.abc import Hashable
from typing import TYPE_CHECKING, NamedTuple

from ..core.errors import StoreError
from ..core.names import OBJECTS

if TYPE_CHECKING:
    from .base import ArtifactStore

__all__ = ["PROBE", "Stored", "object_key", "store_time"]

PROBE = "_probe-"
"""What the names of files begin with that are written to try a store, and removed."""


class Stored(NamedTuple):
    """One file of a store: its key, its bytes, and when it was last written, in seconds of the store's own clock.

    ``same`` is equal for two names of one file (hard links). ``tag`` is what the store calls this version of it. A key
    that ends with a slash is that of an empty folder.
    """

    key: str
    size: int
    modified: float
    same: Hashable = None
    tag: str | None = None


def object_key(digest: str) -> str:
    """Where the bytes of this digest are, in a store that deduplicates."""
    plain = digest.rpartition(":")[2]
    return f"{OBJECTS}/{plain[:2]}/{plain}"


def store_time(store: ArtifactStore) -> float:
    """What time it is now by the store's own clock: a file is written to find out, and removed."""
    key = f"{PROBE}{secrets.token_hex(8)}"
    store.replace(key, b"", durable=False)
    try:
        found = [item.modified for item in store.stored(key)]
    finally:
        store.remove(key)
    if not found:
        raise StoreError(f"The store {store.name!r} at {store.root_uri} does not list what was just written.")
    return found[0]
