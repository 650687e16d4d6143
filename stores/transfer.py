"""An artifact from one store to another, with its manifest as it is: the same digests, producer, parents and time."""

from __future__ import annotations

from ..core.errors import ArtifactNotFound, IntegrityError, StoreError
from ..core.names import MANIFEST
from ..core.refs import Manifest
from .base import ArtifactStore
from .manifests import parsed
from .verify import verify, verify_files

__all__ = ["copy", "remove_copied"]


def copy(source: ArtifactStore, key: str, target: ArtifactStore) -> bool:
    """Copy an artifact to the same key of another store. False if it was there already, whole.

    The files are hashed when they leave and again as they have arrived, and only then the manifest is written: what
    exists there is whole. What is only there any more was moved before. Raises :class:`~tailrace.ArtifactNotFound`
    where it is in neither, :class:`~tailrace.IntegrityError` for damage on either side, and
    :class:`~tailrace.StoreError` where another artifact is at the key.
    """
    place = f"{key}/{MANIFEST}"
    try:
        files, manifest = source.reader(key)
    except ArtifactNotFound:
        if target.exists(key):
            return False
        raise
    try:
        data = source.read(place)
        if parsed(data) != manifest:
            raise StoreError(f"{source.uri(key)} was saved anew while it was copied. Copy it again.")
        there = _there(target, key, manifest)
        if there == "whole":
            return False
        staged = target.stage_copy(files, manifest)
    finally:
        source.release_tree(files.directory)
    target.put_tree(staged.directory, f"{key}/{manifest.content}", staged.files)
    damage = verify_files(target, key, manifest)
    if damage:
        raise IntegrityError(
            f"{damage[0].file!r} of {target.uri(key)} arrived {damage[0].state}: {damage[0].found} instead of "
            f"{damage[0].expected}. It is not committed there; copy it again."
        )
    if there == "damaged":
        target.replace(place, data)
    elif not target.create(place, data) and _there(target, key, manifest) != "whole":
        raise _taken(target, key)
    return True


def remove_copied(source: ArtifactStore, key: str, target: ArtifactStore) -> None:
    """Remove an artifact that :func:`copy` has copied, manifest first. What is below its path stays.

    Raises :class:`~tailrace.StoreError`, and removes nothing, where the two are not the same any more.
    """
    try:
        manifest = source.manifest(key)
    except ArtifactNotFound:
        return
    if not manifest.same_artifact(target.manifest(key)):
        raise StoreError(f"{source.uri(key)} was saved anew after it was copied, so that it stays. Copy it again.")
    source.remove(f"{key}/{MANIFEST}")
    source.remove(f"{key}/{manifest.content}")


def _there(target: ArtifactStore, key: str, manifest: Manifest) -> str:
    """``whole`` or ``damaged`` where the artifact is at the key, else ``""``. Raises where another one is."""
    try:
        found = target.manifest(key)
    except ArtifactNotFound:
        return ""
    except IntegrityError:
        return "damaged"
    if not found.same_artifact(manifest):
        raise _taken(target, key)
    return "damaged" if verify(target, key).damage else "whole"


def _taken(target: ArtifactStore, key: str) -> StoreError:
    return StoreError(
        f"Another artifact is at {target.uri(key)}; it stays. Delete it there first if it is not wanted any more."
    )
