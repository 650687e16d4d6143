"""Whether a store can be used, and how fast it answers: a probe is written, read, listed and deleted."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress

from ..core.errors import StoreError
from .base import ArtifactStore

__all__ = ["probe"]


def probe(store: ArtifactStore) -> dict[str, float]:
    """Seconds to ``write``, ``read``, ``list`` and ``delete`` a small file, the client's start not counted in.

    Raises :class:`~tailrace.StoreError`, which says what failed and what to check. Nothing is left in the store, unless
    it lets nothing be deleted.
    """
    key, data = f"_probe-{os.getpid()}-{os.urandom(4).hex()}", os.urandom(64)

    def read() -> bool:
        return store.read(key) == data

    def listed() -> bool:
        return key in store.walk(key)

    steps: dict[str, Callable[[], bool | None]] = {
        "write": lambda: store.replace(key, data),
        "read": read,
        "list": listed,
        "delete": lambda: store.remove(key),
    }
    seconds = {}
    try:
        with suppress(FileNotFoundError):
            store.read(key)  # the client is opened and connected
        for name, act in steps.items():
            begin = time.perf_counter()
            if act() is False:
                raise StoreError(
                    f"The store {store.name!r} at {store.root_uri} does not {name} what was just written. Check that "
                    "nothing between here and it answers in its place, such as a cache."
                )
            seconds[name] = time.perf_counter() - begin
    except OSError as error:
        raise StoreError(f"The store {store.name!r} at {store.root_uri} cannot be used: {error}") from error
    finally:
        if "write" in seconds and "delete" not in seconds:
            with suppress(StoreError, OSError):  # what went wrong before is what matters
                store.remove(key)
    return seconds
