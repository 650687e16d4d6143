"""What is written beside a content: the manifest, made of a staged value and of what is said of it, and its bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from ..core.errors import StoreError
from ..core.names import content_segment
from ..core.refs import FileEntry, Manifest, Parent, Producer
from ..materializers.files import digest_bytes
from ..materializers.registry import Saved
from ..materializers.tagged import encode

__all__ = ["Labels", "Staged", "content_digest", "dumped", "manifest_of", "parsed", "unsealed"]

_SEAL = b',\n  "checksum": "'


@dataclass(frozen=True, slots=True)
class Labels:
    """What a manifest says of an artifact beside its content."""

    id: str
    name: str
    type: str | None = None
    producer: Producer | None = None
    parents: tuple[Parent, ...] = ()
    user_metadata: Mapping[str, Any] | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    bare: bool = False


@dataclass(frozen=True, slots=True)
class Staged:
    """A value that has been written aside, whole and digested, and is not an artifact yet."""

    directory: Path
    type: str
    digest: str
    files: tuple[FileEntry, ...]
    saved: Saved
    wrapper: str
    header: Mapping[str, Any]
    described: Mapping[str, Any]
    seconds: float
    digest_seconds: float


def manifest_of(staged: Staged, labels: Labels) -> Manifest:
    """What is written beside the content."""
    header = dict(staged.header)
    version = header.pop("version", None)
    user = labels.user_metadata
    return Manifest(
        id=labels.id,
        name=header.get("name") or labels.name,
        type=labels.type or staged.type,
        materializer=staged.saved.materializer,
        materializer_version=staged.saved.materializer_version,
        digest=staged.digest,
        content=content_segment(staged.digest),
        files=staged.files,
        created=datetime.now(UTC).isoformat(),
        spec=staged.saved.spec,
        metadata=_metadata(staged, header),
        wrapper=staged.wrapper,
        bare=labels.bare,
        version=version,
        user_metadata=None if user is None else encode(dict(user)),
        tags={**header.get("tags", {}), **labels.tags},
        producer=labels.producer,
        parents=labels.parents,
    )


def _metadata(staged: Staged, header: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of the value, of the list it is, and of the artifact type around it."""
    metadata = dict(staged.saved.metadata)
    if staged.saved.length is not None:
        metadata["length"] = staged.saved.length
    if staged.wrapper:
        metadata |= {"asset": header, "described": staged.described}
    return metadata


def dumped(manifest: Manifest) -> bytes:
    """The manifest as it is written, sealed by a digest of its own bytes. :func:`parsed` is the inverse.

    Raises :class:`~tailrace.StoreError` for metadata that JSON cannot hold.
    """
    try:
        return _sealed(orjson.dumps(manifest.to_dict(), option=orjson.OPT_INDENT_2).removesuffix(b"\n}"))
    except TypeError as error:
        raise StoreError(f"The metadata of {manifest.name!r} cannot be written as JSON: {error}") from error


def parsed(data: bytes) -> Manifest:
    """The manifest that was written as these bytes.

    Raises a ValueError, KeyError, TypeError or AttributeError when they are no manifest, or were changed.
    """
    return Manifest.from_dict(unsealed(data))


def unsealed(data: bytes) -> Any:
    """The JSON of a manifest, for those who read many and need little of each. One of format 1 has no seal.

    Raises what :func:`parsed` raises.
    """
    document = orjson.loads(data)
    sealed = document.get("format", 1) != 1 or "checksum" in document
    if sealed and data != _sealed(data.rpartition(_SEAL)[0]):
        raise ValueError("its bytes are not those that were written")
    return document


def _sealed(body: bytes) -> bytes:
    """A JSON object that lacks its end, with a digest of what it has so far, and the end."""
    return b'%s%s%s"\n}\n' % (body, _SEAL, digest_bytes(body).encode())


def content_digest(materializer: str, version: int, spec: Mapping[str, Any], files: tuple[FileEntry, ...]) -> str:
    """The digest over the files' digests and what loading needs beside them."""
    content = [materializer, version, spec, [[entry.path, entry.size, entry.digest] for entry in files]]
    return digest_bytes(orjson.dumps(content, option=orjson.OPT_SORT_KEYS))
