"""Harm: bytes that changed where they lie, and writes that end half way."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...core.errors import IntegrityError, StoreError
from ...core.names import MANIFEST
from ..base import ArtifactStore
from .place import Case, Place, hold, refused, same

__all__ = ["CASES", "interrupted"]

_WRITES = ("new_staging", "put_tree", "read", "create", "replace")


@contextmanager
def interrupted(store: ArtifactStore, call: int, *, after: bool) -> Iterator[None]:
    """Let the store fail from its primitives' n-th call on (counted from 0): before the call acts, or after it has."""
    counted = itertools.count()

    def failing(act: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            number = next(counted)
            if number > call or (number == call and not after):
                raise StoreError("interrupted by the battery")
            result = act(*args, **kwargs)
            if number == call:
                raise StoreError("interrupted by the battery, after the call")
            return result

        return run

    for name in _WRITES:
        setattr(store, name, failing(getattr(store, name)))
    try:
        yield
    finally:
        for name in _WRITES:
            delattr(store, name)


def _interruptions(place: Place, act: Callable[[ArtifactStore], object]) -> Iterator[str]:
    """Run an act, interrupted at each call in turn, until one goes through; yields where it was interrupted."""
    store = place.store
    for call, after in itertools.product(range(40), (False, True)):
        try:
            with interrupted(store, call, after=after):
                act(store)
        except StoreError as error:
            hold("by the battery" in str(error), f"The interruption came out as: {error}")
            yield f"call {call}, {'after' if after else 'before'} it acted"
        else:
            return
    raise AssertionError("One save makes more than 40 calls of primitives.")


def _old_version(place: Place) -> None:
    old, new = {"version": "old"}, {"version": "new"}
    place.other.save(old, "a", {"of": "old"})
    for where in _interruptions(place, lambda store: store.save(new, "a", {"of": "new"})):
        again = place.other
        found = (again.load("a"), again.get_metadata("a"))
        hold(found in ((old, {"of": "old"}), (new, {"of": "new"})), f"Interrupted at {where}, it holds {found}")
        same(again.list_artifacts(), ["a"], f"The listing, interrupted at {where}")
        again.save(old, "a", {"of": "old"})
        same(place.other.load("a"), old, f"Saved again, after an interruption at {where}")
    same(place.other.load("a"), new, "Saved without an interruption")


def _garbage(place: Place) -> None:
    for number, where in enumerate(_interruptions(place, lambda store: store.save("new", "a"))):
        again = place.other
        there = again.exists("a")
        same(again.list_artifacts(), ["a"] if there else [], f"The listing, interrupted at {where}")
        same(again.size("a") > 0, there, f"Whether it has a size, interrupted at {where}")
        if there:
            same(again.load("a"), "new", f"What exists, interrupted at {where}")
        again.delete("a")
        hold(number < 1 or not again.exists("a"), "It exists after it was deleted.")
    store = place.store
    store.put_tree((staged := store.stage("unpublished")).directory, "b/content-0123456789abcdef", staged.files)
    same(place.other.list_artifacts("b"), [], "The listing, when there is content and no manifest")
    same(place.other.exists("b"), False, "exists(), when there is content and no manifest")


def _with_files(place: Place) -> tuple[ArtifactStore, Any, list[str]]:
    """A store with a folder of several files saved at ``a``: it, the value that it holds, and the content's keys."""
    store = place.store
    with tempfile.TemporaryDirectory() as scratch:
        for name, data in {"one": b"1" * 10, "in/two": bytes(range(256)) * 20, "in/three": b"3"}.items():
            file = Path(scratch, "folder", name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        value = {"folder": Path(scratch, "folder"), "text": "text"}
        store.save(value, "a")
    keys = sorted(key for key in store.walk("a/", contents=True) if not key.endswith(f"/{MANIFEST}"))
    hold(
        len(keys) >= len(store.manifest("a").files), f"The content of {len(store.manifest('a').files)} files is {keys}."
    )
    return store, value, keys


def _damaged(data: bytes) -> Iterator[tuple[str, bytes | None]]:
    for place in sorted({0, len(data) // 2, len(data) - 1}):
        changed = bytearray(data)
        changed[place] ^= 1 << (place % 8)
        yield f"with a bit flipped in byte {place}", bytes(changed)
    yield "one byte longer", data + b"\0"
    yield "one byte shorter", data[:-1]
    yield "empty", b""
    yield "gone", None


def _content(place: Place) -> None:
    store, _, keys = _with_files(place)
    for key in keys:
        sound = store.read(key)
        for how, data in _damaged(sound):
            if data is None:
                store.remove(key)
            else:
                store.replace(key, data)
            refused(IntegrityError, f"load() with {key} {how}", lambda: place.other.load("a"))
            store.replace(key, sound)
    hold(set(place.other.load("a")) == {"folder", "text"}, "It does not load after it was mended.")


def _mended(place: Place) -> None:
    store = place.store
    store.save({"a": "text"}, "a")
    keys = [key for key in store.walk("a/", contents=True) if not key.endswith(f"/{MANIFEST}")]
    for key in keys:
        for how, data in _damaged(store.read(key)):
            store.remove(key) if data is None else store.replace(key, data)
            place.other.save({"a": "text"}, "a")
            hold(place.other.load("a") == {"a": "text"}, f"Saving again did not mend {key} that was {how}.")


def _manifest(place: Place) -> None:
    store = place.store
    store.save({"a": 1}, "a", {"m": 1})
    ref, key = store.ref("a"), f"a/{MANIFEST}"
    sound = store.read(key)
    for position in range(0, len(sound), max(1, len(sound) // 24)):
        changed = bytearray(sound)
        changed[position] ^= 1
        store.replace(key, bytes(changed))
        for way in (ref, "a"):
            refused(
                IntegrityError,
                f"Loading {way!r}, byte {position} of the manifest changed",
                lambda way=way: place.other.load(way),  # type: ignore[misc]
            )
    for data in (b"", sound[: len(sound) // 2], b"{}", b"[]", b"null", b"\xff\xfe"):
        store.replace(key, data)
        refused(IntegrityError, f"load() with the manifest {data[:20]!r}", lambda: place.other.load("a"))
    store.save({"a": 1}, "a", {"m": 1})
    same(place.other.load("a"), {"a": 1}, "After saving over a damaged manifest")


CASES: Mapping[str, Case] = {
    "an interrupted save leaves the old version or the new one": _old_version,
    "an interrupted save leaves garbage that is not listed": _garbage,
    "damaged content is found before it is deserialized": _content,
    "saving again mends damaged content": _mended,
    "a damaged manifest is found": _manifest,
}
