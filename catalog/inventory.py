"""What is in a store, from one listing of it: artifacts, contents, shared bytes, runs, and work in progress."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from ..core.names import MANIFEST, OBJECTS, RUNS
from ..stores.base import ArtifactStore
from ..stores.listing import PROBE, Stored
from ..stores.manifests import unsealed

__all__ = ["UNREADABLE", "Inventory", "Mark", "Pile", "at_once", "marks"]

T = TypeVar("T")

_REQUESTS = 16  # at once
_THREADS = 4  # on a disk: more of them wait for each other
_BATCH = 1024  # things that are handed to the threads, so that few results wait for their turn
_INNER = re.compile(  # the first of either in a key; what a user has named alike is not ours
    r"(?:^|/)(?:\.tmp-[0-9a-f]+-[0-9a-f]{8}-[0-9a-f]+(?=/|$)|(content-[0-9a-f]{16})(?=/))"
)
_PROBE = re.compile(rf"{PROBE}(?:\d+(?:-[0-9a-f]{{8}})?|[0-9a-f]{{16}})(?=/|$)")
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError)
"""What JSON that is damaged, or not ours, raises."""


@dataclass(slots=True)
class Pile:
    """A file, or a folder with all that is in it; ``newest`` is when any of it was last written."""

    files: int = 0
    size: int = 0
    newest: float = 0.0

    def add(self, item: Stored) -> None:
        """One file more; an empty folder counts as none."""
        self.files += not item.key.endswith("/")
        self.size += item.size
        self.newest = max(self.newest, item.modified)

    def include(self, other: Pile) -> None:
        """Count another's files as well; its age stays."""
        self.files += other.files
        self.size += other.size


@dataclass(slots=True)
class Inventory:
    """What a listing had, by key: of folders the folder's. ``runs`` are the folders of runs by whether they ended."""

    artifacts: dict[str, Pile] = field(default_factory=dict)
    contents: dict[str, Pile] = field(default_factory=dict)
    objects: dict[str, Pile] = field(default_factory=dict)
    unfinished: dict[str, Pile] = field(default_factory=dict)
    claims: dict[str, Pile] = field(default_factory=dict)
    tasks: list[str] = field(default_factory=list)
    runs: dict[str, bool] = field(default_factory=dict)
    touched: dict[str, float] = field(default_factory=dict)  # of whatever may be a run's folder
    _links: dict[Hashable, list[tuple[str, int]]] = field(default_factory=dict)

    @classmethod
    def of(cls, store: ArtifactStore, inner: Iterable[str], progress: Callable[[int], None]) -> Inventory:
        """The inventory of a store, without what is below these roots: other stores inside this one.

        ``progress`` is told now and then how many files were found.
        """
        made = cls()
        roots = tuple(f"{root}/" for root in inner if root.startswith(f"{store.root_uri}/"))
        for done, item in enumerate(store.stored(), 1):
            if done % 10_000 == 0:
                progress(done)
            if not roots or not store.uri(item.key).startswith(roots):
                made._add(item)
        made._count_links()
        return made

    def _add(self, item: Stored) -> None:
        parts = item.key.split("/", 3)
        if len(parts) > 3:
            folder = item.key[: -len(parts[3]) - 1]
            if self.touched.get(folder, 0.0) < item.modified:
                self.touched[folder] = item.modified
        place, where = self._place(item.key)
        if place is None:
            self._add_record(item.key, *parts[3:])
            return
        pile = place.get(where)
        if pile is None:
            pile = place[where] = Pile()
        pile.add(item)
        if item.same is not None and (place is self.contents or place is self.objects):
            self._links.setdefault(item.same, []).append((where, item.size))

    def _place(self, key: str) -> tuple[dict[str, Pile] | None, str]:
        if key.startswith(f"{OBJECTS}/"):
            return self.objects, key
        if key.startswith(f"{RUNS}/"):
            return self.claims, key
        if inner := _INNER.search(key):
            return self.contents if inner[1] else self.unfinished, key[: inner.end()]
        if _PROBE.match(key):
            return self.unfinished, key.partition("/")[0]
        owner, _, name = key.rpartition("/")
        return (self.artifacts, owner) if name == MANIFEST else (None, "")

    def _add_record(self, key: str, below: str = "") -> None:
        """What is in a folder that may be a run's."""
        if below in {"run.json", "result.json"}:
            folder = key[: -len(below) - 1]
            self.runs[folder] = self.runs.get(folder, False) or below == "result.json"
        elif below.startswith("steps/") and below.count("/") == 1:
            self.tasks.append(key)

    def _count_links(self) -> None:
        """Count a file that has several names where it is shared; its other names cost nothing."""
        for names in self._links.values():
            first = min(names, key=lambda name: not name[0].startswith(f"{OBJECTS}/"))
            for name in names:
                if name is not first:
                    self.contents[name[0]].size -= name[1]
        self._links.clear()

    def data(self) -> Iterator[Pile]:
        """Every content and object."""
        yield from self.contents.values()
        yield from self.objects.values()

    def over(self, folder: str, lost_before: float) -> bool:
        """Whether a run has ended, or nothing of it has been written for so long that its process must be gone."""
        return self.runs.get(folder, False) or self.touched.get(folder, 0.0) < lost_before


class Mark(NamedTuple):
    """What a committed manifest says that matters for keeping it.

    ``modified`` is when it was last written, by the store's clock; ``created`` when the artifact was made, in ISO 8601.
    ``seen`` is Python's hash of the manifest, by which this process knows whether it is still the same.
    """

    store: str
    key: str
    modified: float
    created: str
    seen: int
    id: str
    content: str
    digests: tuple[str, ...]
    size: int
    type: str
    name: str
    project: str
    pipeline: str
    run_id: str
    item: int | None
    tags: dict[str, str]
    parents: tuple[str, ...]

    @property
    def place(self) -> tuple[str, str]:
        """The store and the key."""
        return self.store, self.key


def marks(name: str, store: ArtifactStore, artifacts: dict[str, Pile], *, digests: bool) -> Iterator[Mark | str]:
    """The marks of a store's manifests; of one that cannot be read only its key. One that is gone has none.

    Without ``digests`` those of the files are left out, which take most of the memory.
    """

    def read(key: str) -> Mark | str | None:
        try:
            data = store.read(f"{key}/{MANIFEST}")
            return _mark(name, key, artifacts[key].newest, data, digests=digests)
        except FileNotFoundError:
            return None
        except UNREADABLE:
            return key

    return (found for found in at_once(store, read, list(artifacts)) if found is not None)


def _mark(name: str, key: str, modified: float, data: bytes, *, digests: bool) -> Mark:
    manifest = unsealed(data)
    by = manifest.get("producer") or {}
    return Mark(
        name,
        key,
        modified,
        manifest["created"],
        hash(data),
        manifest["id"],
        manifest["content"],
        tuple(entry["digest"] for entry in manifest["files"]) if digests else (),
        sum(entry["size"] for entry in manifest["files"]),
        sys.intern(manifest["type"]),
        sys.intern(manifest["name"]),
        sys.intern(by.get("project", "")),
        sys.intern(by.get("pipeline", "")),
        sys.intern(by.get("run_id", "")),
        by.get("map_index"),
        dict(manifest.get("tags", {})),
        tuple(parent["id"] for parent in manifest.get("parents", ())),
    )


def at_once(
    store: ArtifactStore, act: Callable[[T], Any], things: Sequence[T], *, removing: bool = False
) -> Iterator[Any]:
    """What the act gives for each of the things, in their order; several at once where the store lets one wait.

    A disk does so where something is removed: for its journal, often much longer than the removal takes.
    """
    if store.scheme == "memory" or (store.scheme == "file" and not removing) or len(things) < 2:
        yield from map(act, things)
        return
    with ThreadPoolExecutor(_THREADS if store.scheme == "file" else _REQUESTS) as pool:
        for start in range(0, len(things), _BATCH):
            yield from pool.map(act, things[start : start + _BATCH])
