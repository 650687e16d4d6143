"""What is in a store, from one listing of it: artifacts, contents, shared bytes, runs, and work in progress."""

from __future__ import annotations

import sys
from collections.abc import Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..core.names import MANIFEST, OBJECTS, RUNS, is_content_segment
from ..materializers.files import digest_bytes
from ..stores.base import ArtifactStore
from ..stores.listing import PROBE, Stored
from ..stores.manifests import parsed

__all__ = ["NEAR", "Inventory", "Mark", "Pile", "at_once", "marks"]

T = TypeVar("T")

NEAR = frozenset({"file", "memory"})
"""The schemes of the stores of this machine, where a request at a time is fastest."""

_REQUESTS = 16  # at once, to a store that is not near
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError)  # what JSON that is damaged, or not ours, raises


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
    def of(cls, store: ArtifactStore, inner: Iterable[str] = ()) -> Inventory:
        """The inventory of a store, without what is below these roots: other stores inside this one."""
        made = cls()
        roots = tuple(f"{root}/" for root in inner if root.startswith(f"{store.root_uri}/"))
        for item in store.stored():
            if not roots or not f"{store.uri(item.key)}".startswith(roots):
                made._add(item)
        made._count_links()
        return made

    def _add(self, item: Stored) -> None:
        parts = item.key.split("/")
        if len(parts) > 3:
            folder = "/".join(parts[:3])
            self.touched[folder] = max(self.touched.get(folder, 0.0), item.modified)
        place, where = self._place(parts)
        if place is None:
            self._add_record(item.key, parts)
            return
        place.setdefault(where, Pile()).add(item)
        if item.same is not None and (place is self.contents or place is self.objects):
            self._links.setdefault(item.same, []).append((where, item.size))

    def _place(self, parts: list[str]) -> tuple[dict[str, Pile] | None, str]:
        if parts[0] == OBJECTS:
            return self.objects, "/".join(parts)
        if parts[0] == RUNS:
            return self.claims, "/".join(parts)
        for depth, part in enumerate(parts, 1):
            if part.startswith(".tmp-") or (depth == 1 and part.startswith(PROBE)):
                return self.unfinished, "/".join(parts[:depth])
            if is_content_segment(part) and depth < len(parts):
                return self.contents, "/".join(parts[:depth])
        return (self.artifacts, "/".join(parts[:-1])) if parts[-1] == MANIFEST else (None, "")

    def _add_record(self, key: str, parts: list[str]) -> None:
        if len(parts) == 4 and parts[3] in {"run.json", "result.json"}:
            folder = "/".join(parts[:3])
            self.runs[folder] = self.runs.get(folder, False) or parts[3] == "result.json"
        elif len(parts) == 5 and parts[3] == "steps":
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


@dataclass(frozen=True, slots=True)
class Mark:
    """What a committed manifest says that matters for keeping it; ``modified`` is when it was last written."""

    store: str
    key: str
    uri: str
    modified: float
    manifest_digest: str
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


def marks(name: str, store: ArtifactStore, artifacts: dict[str, Pile], *, digests: bool) -> Iterator[Mark | str]:
    """The marks of a store's manifests; of one that cannot be read only its key. One that is gone has none.

    Without ``digests`` those of the files are left out, which take most of the memory.
    """

    def read(key: str) -> Mark | str | None:
        try:
            data = store.read(f"{key}/{MANIFEST}")
            return _mark(name, store, key, artifacts[key].newest, data, digests=digests)
        except FileNotFoundError:
            return None
        except _UNREADABLE:
            return key

    return (found for found in at_once(store, read, sorted(artifacts)) if found is not None)


def _mark(name: str, store: ArtifactStore, key: str, modified: float, data: bytes, *, digests: bool) -> Mark:
    manifest = parsed(data)
    by = manifest.producer
    project, pipeline, run_id = (by.project, by.pipeline, by.run_id) if by else ("", "", "")
    return Mark(
        name,
        key,
        store.uri(key),
        modified,
        digest_bytes(data),
        manifest.id,
        manifest.content,
        tuple(entry.digest for entry in manifest.files) if digests else (),
        manifest.size_bytes,
        sys.intern(manifest.type),
        sys.intern(manifest.name),
        sys.intern(project),
        sys.intern(pipeline),
        sys.intern(run_id),
        by.map_index if by else None,
        dict(manifest.tags),
        tuple(parent.id for parent in manifest.parents),
    )


def at_once(store: ArtifactStore, act: Any, things: Sequence[T]) -> Iterator[Any]:
    """What the act gives for each of the things, in their order; several requests at once where that is faster."""
    if store.scheme in NEAR or len(things) < 2:
        yield from map(act, things)
        return
    with ThreadPoolExecutor(_REQUESTS) as pool:
        yield from pool.map(act, things)
