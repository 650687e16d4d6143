"""Many writers and readers at once, in threads and in processes."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any, TypeVar

from ..base import ArtifactStore
from .place import Case, Place, hold, same

__all__ = ["CASES"]

T = TypeVar("T")

_WRITERS = 16
_PROCESSES = 4
_ROUNDS = 5


def _at_once(acts: Iterable[Callable[[], T]]) -> list[T]:
    """Every act in a thread of its own, begun together; what they return. Raises what one of them raises."""
    acts = list(acts)
    ready = threading.Barrier(len(acts))

    def run(act: Callable[[], T]) -> T:
        ready.wait()
        return act()

    with ThreadPoolExecutor(len(acts)) as pool:
        return [future.result() for future in [pool.submit(run, act) for act in acts]]


def _value(number: int) -> dict[str, Any]:
    """A value of several files that says in each of them whose it is."""
    return {"number": number, "bytes": bytes([number % 256]) * 30_000, "text": str(number) * 1000}


def _create(place: Place) -> None:
    stores = [place.open() for _ in range(4)] * (_WRITERS // 4)
    for turn in range(_ROUNDS):
        won = _at_once([_creates(store, f"claim/{turn}", number) for number, store in enumerate(stores)])
        _check_winner(place, f"claim/{turn}", won)


def _creates(store: ArtifactStore, key: str, number: int) -> Callable[[], bool]:
    return lambda: store.create(key, b"%d" % number)


def _check_winner(place: Place, key: str, won: list[bool]) -> None:
    winners = [number for number, first in enumerate(won) if first]
    held = place.other.read(key)
    if place.one_winner:
        hold(len(winners) == 1, f"{len(winners)} of {len(won)} writers were told that they were first.")
        same(held, b"%d" % winners[0], "What is there, of the one that was first")
    hold(held in [b"%d" % number for number in winners], f"{held!r} is there, and {winners} were told to be first.")


def _same_content(place: Place) -> None:
    stores = [place.open() for _ in range(4)] * (_WRITERS // 4)
    for turn in range(_ROUNDS):
        path = f"a/{turn}"
        uris = _at_once([_saves(store, path, turn) for store in stores])
        same(set(uris), {stores[0].uri(path)}, "What the writers were told")
        _check_whole(place, path, [turn])


def _other_content(place: Place) -> None:
    stores = [place.open() for _ in range(4)] * 2
    for turn in range(_ROUNDS):
        _at_once([_saves(store, f"a/{turn}", number) for number, store in enumerate(stores)])
        _check_whole(place, f"a/{turn}", range(8))


def _saves(store: ArtifactStore, path: str, number: int) -> Callable[[], str]:
    return lambda: store.save(_value(number), path, {"number": number})


def _check_whole(place: Place, path: str, numbers: Iterable[int]) -> None:
    value, metadata = place.other.load(path), place.other.get_metadata(path)
    hold(value in [_value(number) for number in numbers], f"A mixture: {value['number']}, {value['text'][:9]}")
    same(metadata, {"number": value["number"]}, "The metadata beside the value")


def _one_store(place: Place) -> None:
    store = place.store
    _at_once([_saves(store, f"a/{number}", number) for number in range(_WRITERS)])
    same(place.other.list_artifacts(), sorted(f"a/{number}" for number in range(_WRITERS)), "The listing")
    loaded = _at_once([lambda number=number: store.load(f"a/{number}") for number in range(_WRITERS)])  # type: ignore[misc]
    hold(loaded == [_value(number) for number in range(_WRITERS)], "A value came back as another one.")


def _readers(place: Place) -> None:
    place.other.save(_value(0), "a")
    over = threading.Event()

    def write(first: int) -> int:
        store = place.open()
        try:
            for number in range(first, first + 10):
                store.save(_value(number), "a")
                store.save(_value(number), f"new/{number}")
        finally:
            over.set()
        return 0

    def read() -> int:
        store, count = place.open(), 0
        while not over.is_set() or not count:
            value = store.load("a")
            hold(value == _value(value["number"]), f"A reader saw a mixture: {value['number']}, {value['text'][:9]}")
            for path in store.list_artifacts("new/"):
                same(store.load(path), _value(int(path.removeprefix("new/"))), "What was listed")
            count += 1
        return count

    counts = _at_once([lambda: write(1), lambda: write(101), read, read])
    hold(sum(counts) > 0, "No reader has read anything.")


def _save_elsewhere(open_store: Callable[[], ArtifactStore], number: int, same_value: bool) -> bool:
    """In another process: claim, and save at one path and at a path of its own."""
    store = open_store()
    won = store.create("claim", b"%d" % number)
    store.save(_value(0 if same_value else number), "shared", {"number": 0 if same_value else number})
    store.save(_value(number), f"own/{number}")
    return won


def _meet(ready: Any) -> None:
    """Begin together: a process that is done with its work before the others begin is in nobody's way."""
    ready.wait(timeout=120)


def _processes(place: Place) -> None:
    if not place.processes:
        return
    numbers, spawn = range(_PROCESSES), multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(_PROCESSES, spawn, _meet, (spawn.Barrier(_PROCESSES),)) as pool:
        for same_value in (True, False):
            work = [pool.submit(_save_elsewhere, place.open, number, same_value) for number in numbers]
            _check_winner(place, "claim", [future.result() for future in work])
            _check_whole(place, "shared", [0] if same_value else numbers)
            same(place.other.list_artifacts("own/"), [f"own/{number}" for number in numbers], "The listing")
            for number in numbers:
                same(place.other.load(f"own/{number}"), _value(number), "What one process wrote")
            place.other.remove("claim")


CASES: Mapping[str, Case] = {
    "of many that create at once one is first": _create,
    "writers of the same content all succeed": _same_content,
    "writers of different content leave one of them whole": _other_content,
    "one store serves many threads": _one_store,
    "a reader never sees half of an artifact": _readers,
    "processes share a place": _processes,
}
