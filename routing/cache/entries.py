"""What a cache holds: an entry for each key, a small JSON document that says which artifacts the outputs are.

The local cache refers to artifacts in the stores of the stack. A shared one holds copies of them, at places named for
what they are, so that whoever reads it needs no other store. An entry is written after everything that it names.

    entries/{first two digits}/{key}.json      {"checksum": ..., "entry": {...}}
    artifacts/{first two digits}/{digest}/     in a shared cache
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from ...core.errors import ArtifactNotFound, IntegrityError
from ...core.names import segment
from ...core.refs import ArtifactRef, Manifest, Parent
from ...materializers.files import digest_bytes
from ...stores.base import ArtifactStore, Labels
from ...stores.build import build_artifact_store
from ...stores.local import LocalArtifactStore
from .key import FORMAT

__all__ = ["Entry", "Kept", "Tier", "own_parents", "tiers"]

_ENTRIES = "entries"


@dataclass(frozen=True, slots=True)
class Kept:
    """One artifact of an entry: the output's name, the names by which its type is routed, its reference.

    ``extra`` is one that the step recorded beside what it returned.
    """

    output: str
    names: tuple[str, ...]
    ref: ArtifactRef
    extra: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """What a task made, and which run computed it. ``seconds`` is how long that took, ``bytes`` of all its outputs."""

    key: str
    project: str
    pipeline: str
    step: str
    run_id: str
    map_index: int | None
    created: str
    seconds: float
    bytes: int
    kept: tuple[Kept, ...]

    @property
    def age(self) -> float:
        """Seconds since it was computed."""
        return (datetime.now(UTC) - datetime.fromisoformat(self.created)).total_seconds()

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data; :meth:`from_dict` is its inverse."""
        data = {name: getattr(self, name) for name in self.__slots__}
        kept = [
            {"output": item.output, "names": list(item.names), "ref": item.ref.to_dict(), "extra": item.extra}
            for item in self.kept
        ]
        return {**data, "kept": kept, "v": FORMAT}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Entry:
        """The entry that :meth:`to_dict` wrote."""
        known = {name: data[name] for name in cls.__slots__}
        known["kept"] = tuple(
            Kept(item["output"], tuple(item["names"]), ArtifactRef.from_dict(item["ref"]), item["extra"])
            for item in data["kept"]
        )
        return cls(**known)


class Tier:
    """One cache: the local one, or with ``shared`` one that several machines use."""

    def __init__(self, store: ArtifactStore, *, shared: bool = False) -> None:
        self.store = store
        self.shared = shared
        self.reachable = True  # set to False by who has seen that it is not, so that no later step waits for it again

    @property
    def name(self) -> str:
        """``local``, or where the shared cache is."""
        return self.store.root_uri if self.shared else "local"

    def get(self, key: str) -> Entry | None:
        """The entry of a key, if there is one. Raises :class:`~tailrace.IntegrityError` for a damaged one."""
        try:
            return self._parsed(key, self.store.read(_place(key)))
        except FileNotFoundError:
            return None

    def put(self, entry: Entry, *, replacing: bool = False) -> bool:
        """Write an entry, unless there is one already; True if it is this one that is there now."""
        if self.shared:
            entry = replace(entry, kept=tuple(self._relative(item) for item in entry.kept))
        said = orjson.dumps(entry.to_dict())
        data = b'{"checksum":"%s","entry":%s}\n' % (digest_bytes(said).encode(), said)
        if replacing:
            self.store.replace(_place(entry.key), data)
            return True
        return self.store.create(_place(entry.key), data)

    def copy_in(self, item: Kept, source: ArtifactStore, *, replacing: bool = False) -> Kept:
        """Copy an artifact into a shared cache, or find it there. ``replacing`` mends one that may be damaged."""
        address = _address(source.manifest(item.ref))
        if not replacing:
            try:
                return replace(item, ref=self.store.ref(address))
            except (ArtifactNotFound, IntegrityError):
                pass
        files, manifest = source.reader(item.ref)
        try:
            staged = self.store.stage_copy(files, manifest)
        finally:
            source.release_tree(files.directory)
        identity = address.rpartition("/")[2][:16]
        labels = Labels(identity, manifest.name, parents=own_parents(manifest), tags=manifest.tags, bare=manifest.bare)
        return replace(item, ref=self.store.publish(staged, address, labels))

    def entries(self) -> Iterator[Entry]:
        """All entries, newest first; those that cannot be read are left out."""
        found = []
        for place in self.store.walk(f"{_ENTRIES}/"):
            try:
                found.append(self._parsed(_key(place), self.store.read(place)))
            except (FileNotFoundError, IntegrityError):
                continue
        yield from sorted(found, key=lambda entry: entry.created, reverse=True)

    def clear(self, *, step: str | None = None, older_than: float | None = None) -> list[Entry]:
        """Remove the entries of a step, of an age in seconds, or all, and the copies that no entry needs any more.

        Returns what was removed. A run that looks one of them up at this moment computes instead.
        """
        gone: list[Entry] = []
        left: list[Entry] = []
        for entry in self.entries():
            chosen = step in (None, entry.step) and (older_than is None or entry.age > older_than)
            (gone if chosen else left).append(entry)
        for entry in gone:
            self.store.remove(_place(entry.key))
        if step is None and older_than is None:
            for place in list(self.store.walk(f"{_ENTRIES}/")):  # also what cannot be read
                self.store.remove(place)
        if self.shared:
            needed = {item.ref.uri for entry in left for item in entry.kept}
            for uri in {item.ref.uri for entry in gone for item in entry.kept} - needed:
                self.store.delete(uri)
        return gone

    def _parsed(self, key: str, data: bytes) -> Entry:
        try:
            document = orjson.loads(data)
            said = document["entry"]
            entry = Entry.from_dict(said)
            sound = digest_bytes(orjson.dumps(said)) == document["checksum"] and entry.key == key
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise IntegrityError(f"The entry {key} of the step cache cannot be read: {error!r}") from error
        if not sound:
            raise IntegrityError(f"The entry {key} of the step cache is not what was written.")
        if not self.shared:
            return entry
        return replace(entry, kept=tuple(self._absolute(item) for item in entry.kept))

    def _relative(self, item: Kept) -> Kept:
        return replace(item, ref=replace(item.ref, uri=self.store.key(item.ref.uri)))

    def _absolute(self, item: Kept) -> Kept:
        """For each machine the place is where it sees the shared cache."""
        return replace(item, ref=replace(item.ref, uri=self.store.uri(item.ref.uri)))


def tiers(root: Path, stack: str) -> tuple[Tier, ...]:
    """The caches of a stack: below its folder, and at ``TAILRACE_CACHE_REMOTE`` where that is set.

    A local entry refers to the stores of its stack, so each stack has its own. A relative path in the variable is
    relative to the project. Raises :class:`~tailrace.ConfigError` for a scheme that is not known.
    """
    local = Tier(LocalArtifactStore(root / ".tailrace" / "cache" / segment(stack), name="cache", durable=False))
    remote = os.environ.get("TAILRACE_CACHE_REMOTE", "").strip()
    if not remote:
        return (local,)
    uri = remote if "://" in remote else root / Path(remote).expanduser()
    return local, Tier(build_artifact_store(uri, name="cache"), shared=True)


def _place(key: str) -> str:
    return f"{_ENTRIES}/{key[:2]}/{key}.json"


def _key(place: str) -> str:
    return place.rpartition("/")[2].removesuffix(".json")


def own_parents(manifest: Manifest) -> tuple[Parent, ...]:
    """The parents that the step's author named, which no input is."""
    return tuple(parent for parent in manifest.parents if not parent.input)


def _address(manifest: Manifest) -> str:
    """Where a copy is: named for everything that is the same of it in every run."""
    said = manifest.to_dict()
    names = ("digest", "type", "name", "wrapper", "bare", "version", "metadata", "tags", "materializer")
    what = [{name: said[name] for name in names}, [parent.uri or parent.id for parent in own_parents(manifest)]]
    digest = digest_bytes(orjson.dumps(what, option=orjson.OPT_SORT_KEYS)).rpartition(":")[2]
    return f"artifacts/{digest[:2]}/{digest}"
