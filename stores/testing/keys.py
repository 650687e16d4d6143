"""Hostile keys: each is refused as InvalidKey, or names a place of its own below the root. Needs Hypothesis."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

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
_ALIKE: list[Callable[[str], str]] = [
    str.swapcase,
    str.strip,
    lambda key: quote(key, errors="replace"),
    unquote,
    lambda key: key.rstrip(". "),
    lambda key: key.replace("\\", "/"),
    lambda key: re.sub(r"[^A-Za-z0-9/]", "-", key),
    lambda key: unicodedata.normalize("NFC", key),
    lambda key: unicodedata.normalize("NFD", key),
    lambda key: unicodedata.normalize("NFKC", key),
]
"""What some store, file system or client takes for the same key."""


def hostile_keys() -> SearchStrategy[str]:
    """Keys made to get out of a store's root, or into each other's place."""
    from hypothesis import strategies as st

    parts = st.sampled_from(_PARTS) | st.text(max_size=8)
    joined = st.tuples(
        st.sampled_from(["", "", "", "/", "//", "./", "../", "file:///", "a/"]), st.lists(parts, max_size=5)
    )
    return joined.map(lambda pair: pair[0] + "/".join(pair[1])) | st.text(alphabet="./\\\0a%:", max_size=12)


def check_keys(place: Place, *, batches: int = 10, size: int = 40) -> None:
    """Write hostile keys, each with one that looks like it, and check that none escapes and that no two become one.

    Every key is refused as :class:`~tailrace.InvalidKey` or can be saved, listed, loaded and deleted. ``place.around``
    is compared after every batch. Raises AssertionError, and Hypothesis prints a small batch that shows it.
    """
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    folders = itertools.count()
    before = place.around()

    checks = list(HealthCheck)
    pairs = st.builds(lambda key, alike: (key, alike(key)), hostile_keys(), st.sampled_from(_ALIKE))

    @settings(
        max_examples=batches, deadline=None, suppress_health_check=checks, database=None, report_multiple_bugs=False
    )
    @given(st.lists(pairs, min_size=size // 8, max_size=size // 2))
    def check(keys: list[tuple[str, str]]) -> None:
        _check(place, f"batch-{next(folders)}", [key for pair in keys for key in pair])
        same(place.around(), before, "What is around the place was changed")

    check()


def _check(place: Place, folder: str, keys: list[str]) -> None:
    store, other = place.store, place.other
    saved: dict[str, str] = {}  # by the place that they name: a slash at the end makes no difference
    try:
        for key in (key for given in keys for key in (given, f"{folder}/{given}")):
            with suppress(InvalidKey):
                uri = store.save(key, key)
                hold(uri.startswith(f"{store.root_uri}/"), f"{key!r} was saved at {uri}")
                saved[key.removesuffix("/")] = key
        for name, key in saved.items():
            for path in (key, store.uri(store.key(key))):
                same(other.load(path).removesuffix("/"), name, f"What was saved at {key!r}, loaded from {path!r}")
        listed = other.list_artifacts()
        same(len(listed), len(saved), f"How many of the keys {list(saved)} are listed, as {listed}")
    finally:
        for path in other.list_artifacts():
            other.delete(path)
    same(other.list_artifacts(), [], "After deleting them all")
