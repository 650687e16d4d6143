"""Hostile keys: each is refused as InvalidKey, or names a place of its own below the root. Needs Hypothesis."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from ...core.errors import InvalidKey
from .place import Place, hold, same

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

__all__ = ["check_keys", "hostile_keys"]

# fmt: off
_PARTS = [
    "", ".", "..", "...", "~", "~root", "a", "A", "a.", " a", "a ", "\\", "..\\", "C:", "c:\\x", "\\\\host\\share", "%",
    "%2e%2e", "%2F", "%00", "%25", "?", "#", "*", "[a]", "{a}", "'", '"', "<", ">", "|", "&", ";", "+", "=", "@", ",",
    "\0", "a\0b", "\n", "\r", "\t", "\x1b[2J", "\x7f", "\u202e", "\u200b", "\ufeff", "\ufffe", "\ud800", "\U0001f30a",
    "CON", "nul", "aux.txt", "COM1", "LPT9.x", "con.", "dev", "etc", "passwd", "proc", "self", "-rf", "$(id)", "`id`",
    "manifest.json", "MANIFEST.JSON", "_runs", ".tmp-1", ".tmp-", "content-0123456789abcdef", "content-", "a.lock",
    "é", "e\u0301", "K", "\u212a", "x" * 161, "x" * 300, "é" * 100, "a-0123456789abcd", "file:", "s3:", "memory:",
]
# fmt: on


def hostile_keys() -> SearchStrategy[str]:
    """Keys made to get out of a store's root, or into each other's place."""
    from hypothesis import strategies as st

    parts = st.sampled_from(_PARTS) | st.text(max_size=8)
    joined = st.tuples(
        st.sampled_from(["", "", "", "/", "//", "./", "../", "file:///", "a/"]), st.lists(parts, max_size=5)
    )
    return joined.map(lambda pair: pair[0] + "/".join(pair[1])) | st.text(alphabet="./\\\0a%:", max_size=12)


def check_keys(place: Place, *, batches: int = 10, size: int = 40) -> None:
    """Write hostile keys, some at once, and check that none escapes and that no two become one.

    Every key is refused as :class:`~tailrace.InvalidKey` or can be saved, listed, loaded and deleted. ``place.around``
    is compared after every batch. Raises AssertionError, and Hypothesis prints a small batch that shows it.
    """
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    folders = itertools.count()
    before = place.around()

    @settings(max_examples=batches, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.lists(hostile_keys(), max_size=size, unique=True))
    def check(keys: list[str]) -> None:
        _check(place, f"batch-{next(folders)}", keys)
        same(place.around(), before, "What is around the place was changed")

    check()


def _check(place: Place, folder: str, keys: list[str]) -> None:
    store, again = place.store, place.other
    saved: dict[str, str] = {}  # by the place that they name: a slash at the end makes no difference
    for given_key in keys:
        for key in (given_key, f"{folder}/{given_key}"):
            try:
                uri = store.save(key, key)
            except InvalidKey:
                continue
            hold(uri.startswith(f"{store.root_uri}/"), f"{key!r} was saved at {uri}")
            saved[key.removesuffix("/")] = key
    for key in saved.values():
        same(again.load(key).removesuffix("/"), key.removesuffix("/"), f"What was saved at {key!r}")
        same(again.load(again.uri(again.key(key))).removesuffix("/"), key.removesuffix("/"), f"By URI, {key!r}")
    listed = again.list_artifacts()
    same(len(listed), len(saved), f"How many of the keys {list(saved)} are listed, as {listed}")
    for path in listed:
        again.delete(path)
    same(again.list_artifacts(), [], f"After deleting {listed}")
