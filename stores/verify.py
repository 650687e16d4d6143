"""Whether what is stored is what was committed: every file hashed again, and nothing deserialized."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import IntegrityError
from ..core.names import MANIFEST
from ..core.refs import FileEntry, Manifest
from ..materializers.files import digest_file
from .base import ArtifactStore
from .manifests import content_digest, parsed

__all__ = ["Damage", "Verified", "verify", "verify_files"]


@dataclass(frozen=True, slots=True)
class Damage:
    """A file of an artifact that is not what was committed: ``missing`` or ``damaged``, and what was seen instead."""

    uri: str
    file: str
    state: str
    expected: str
    found: str


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found of one artifact. Sound is one without damage."""

    uri: str
    size_bytes: int
    damage: tuple[Damage, ...] = ()

    @property
    def absent(self) -> bool:
        """Whether no manifest is there: it was deleted, or never committed."""
        return any((found.file, found.state) == (MANIFEST, "missing") for found in self.damage)


def verify(store: ArtifactStore, path: str | os.PathLike[str]) -> Verified:
    """Hash every file of an artifact, and its manifest, as they are stored now.

    What another process saves there meanwhile is looked at instead. Raises :class:`~tailrace.StoreError` when the
    store cannot be reached; a file that is gone is damage.
    """
    key = store.key(path)
    uri = store.uri(key)
    data = _read(store, key)
    if data is None:
        return Verified(uri, 0, (Damage(uri, MANIFEST, "missing", "a manifest", "nothing"),))
    try:
        manifest = parsed(data)
        damage = _of_manifest(uri, manifest) or verify_files(store, key, manifest)
    except (ValueError, KeyError, TypeError, AttributeError, IntegrityError) as error:
        return Verified(uri, 0, (Damage(uri, MANIFEST, "damaged", "a manifest", str(error)),))
    if damage and _read(store, key) not in (data, None):
        return verify(store, key)
    return Verified(uri, manifest.size_bytes, damage)


def _read(store: ArtifactStore, key: str) -> bytes | None:
    try:
        return store.read(f"{key}/{MANIFEST}")
    except FileNotFoundError:
        return None


def _of_manifest(uri: str, manifest: Manifest) -> tuple[Damage, ...]:
    found = content_digest(manifest.materializer, manifest.materializer_version, manifest.spec, manifest.files)
    same = found == manifest.digest
    return () if same else (Damage(uri, MANIFEST, "damaged", manifest.digest, found),)


def verify_files(store: ArtifactStore, key: str, manifest: Manifest) -> tuple[Damage, ...]:
    """Hash the files of an artifact at a key, whether or not its manifest is there."""
    directory = store.local_tree(f"{key}/{manifest.content}", manifest.files)
    try:
        found = [_of_file(store.uri(key), directory, entry) for entry in manifest.files]
    finally:
        store.release_tree(directory)
    return tuple(damage for damage in found if damage)


def _of_file(uri: str, directory: Path, entry: FileEntry) -> Damage | None:
    expected = _told(entry.size, entry.digest)
    try:
        found = _told(*digest_file(directory / entry.path))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return Damage(uri, entry.path, "missing", expected, "nothing")
    return None if found == expected else Damage(uri, entry.path, "damaged", expected, found)


def _told(size: int, digest: str) -> str:
    return f"{digest}, {size} bytes"
