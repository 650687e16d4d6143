"""The primitives that a back end supplies: small files by key."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from ...core.names import MANIFEST
from .place import Case, Place, hold, refused, same

__all__ = ["CASES"]


def _read_back(place: Place) -> None:
    store = place.store
    for key, data in {"a": b"", "b/c": b"small", "b/d": bytes(range(256)) * 4096}.items():
        store.replace(key, data)
        same(store.read(key), data, f"{key} was read")
        same(place.other.read(key), data, f"{key} was read by another")
    store.replace("b/d", b"new", durable=False)
    same(place.other.read("b/d"), b"new", "What was replaced")


def _absent(place: Place) -> None:
    store = place.store
    refused(FileNotFoundError, "Reading in an empty place", lambda: store.read("a/b"))
    store.replace("a/b", b"1")
    for key in ("a", "a/b/c", "ab", "a/"):
        refused(FileNotFoundError, f"Reading {key!r} beside 'a/b'", lambda key=key: store.read(key))  # type: ignore[misc]
    for key in ("absent", "a/absent", "a/b/absent"):
        store.remove(key)
    same(sorted(store.walk()), ["a/b"], "After removing what is not there")
    same(list(store.walk("absent/")), [], "What is below an absent folder")


def _create(place: Place) -> None:
    store = place.store
    same(store.create("a/b", b"first"), True, "create() of a new file")
    same(place.other.create("a/b", b"second"), False, "create() of one that is there")
    same(store.create("a/b", b"first"), False, "create() of one that is there, with the same bytes")
    same(store.read("a/b"), b"first", "What was created")
    store.remove("a/b")
    same(store.create("a/b", b"third"), True, "create() after remove()")
    same(place.other.read("a/b"), b"third", "What was created after remove()")


def _remove(place: Place) -> None:
    store = place.store
    keys = ["a/b", "a/c/d", "a.b", "ab", "a-b/c", "b"]
    for key in keys:
        store.replace(key, b"x")
    store.remove("a")
    same(sorted(store.walk()), ["a-b/c", "a.b", "ab", "b"], "After removing the folder 'a'")
    store.remove("b")
    store.remove("b")
    same(sorted(place.other.walk()), ["a-b/c", "a.b", "ab"], "After removing the file 'b'")


def _walk(place: Place) -> None:
    store = place.store
    content = "a/content-0123456789abcdef"
    for key in ("a/b", "a/b.c", "ab", "_runs/p/r.json", f"{content}/x", "content-x/y"):
        store.replace(key, b"x")
    same(sorted(store.walk()), ["_runs/p/r.json", "a/b", "a/b.c", "ab", "content-x/y"], "Everything but contents")
    same(sorted(store.walk("a")), ["a/b", "a/b.c", "ab"], "What starts with 'a'")
    same(sorted(store.walk("a/b")), ["a/b", "a/b.c"], "What starts with 'a/b'")
    same(sorted(store.walk("a/")), ["a/b", "a/b.c"], "What starts with 'a/'")
    same(list(store.walk("_ru")), ["_runs/p/r.json"], "What starts with '_ru'")
    same(sorted(store.walk("a/", contents=True)), ["a/b", "a/b.c", f"{content}/x"], "With contents")
    same(list(store.walk("nothing")), [], "What starts with 'nothing'")


def _many(place: Place) -> None:
    store = place.store
    paths = [f"many/{number % 7}/{number:06d}" for number in range(place.keys)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda path: store.replace(f"{path}/{MANIFEST}", b"{}", durable=False), paths))
    found = place.other.list_artifacts()
    hold(found == sorted(paths), f"Of {len(paths)} paths, {len(found)} are listed, {len(set(found))} different ones.")
    same(store.list_artifacts("many/3/0"), [path for path in sorted(paths) if path.startswith("many/3/0")], "A prefix")
    store.remove("many")
    same(list(place.other.walk()), [], "After removing them all")


CASES: Mapping[str, Case] = {
    "a file is read as it was written": _read_back,
    "an absent file is absent": _absent,
    "create writes only what is not there": _create,
    "remove takes what is below and nothing beside": _remove,
    "walk goes by string prefix": _walk,
    "many keys are listed": _many,
}
