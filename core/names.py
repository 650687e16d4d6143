"""Names that become path segments, and keys that name places in a store."""

from __future__ import annotations

import re

from .errors import InvalidKey

__all__ = ["MANIFEST", "OBJECTS", "RUNS", "check_key", "content_segment", "is_content_segment", "segment"]

MANIFEST = "manifest.json"
"""The file whose existence makes an artifact exist."""

RUNS = "_runs"
"""The folder that names every run of a store."""

OBJECTS = "_objects"
"""The folder of the bytes that are stored once, by digest, in a store that deduplicates."""

_LIMIT = 160  # bytes; file systems allow 255, and temporary names are longer than final ones
_UNSAFE = re.compile(r"[^A-Za-z0-9._=-]")
_ESCAPED = re.compile(r"-[0-9a-f]{14}$")  # not twelve, as the last group of a UUID has
_UNWRITABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # line ends are refused by GCS, most others by Azure
_CONTENT = re.compile(r"content-[0-9a-f]{16}$")


def content_segment(digest: str) -> str:
    """The folder that holds the files of one content, named for its digest (``"blake3:<hex>"``)."""
    return f"content-{digest.rpartition(':')[2][:16]}"


def is_content_segment(name: str) -> bool:
    """Whether a folder holds content: one that :func:`content_segment` names, or what several of them share."""
    return name == OBJECTS or _CONTENT.match(name) is not None


def _escape(name: str) -> str:
    import hashlib

    short = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:14]
    stem = _UNSAFE.sub("-", name).lstrip(".")[:80]
    return f"{stem}-{short}"


def segment(name: str) -> str:
    """One safe path segment for any name; two different names never give the same one.

    Letters, digits and ``._=-`` stay. A name with anything else, or one that is too long, empty, reserved (``.``,
    ``..``, the store's own) or that looks like an escaped one, becomes its safe characters plus ``-`` and fourteen hex
    digits of its SHA-256.
    """
    plain = (
        name
        and not _UNSAFE.search(name)
        and len(name) <= _LIMIT
        and name not in {".", "..", MANIFEST, OBJECTS, RUNS}
        and not name.startswith(".tmp-")
        and not _ESCAPED.search(name)
        and not _CONTENT.match(name)
    )
    return name if plain else _escape(name)


def check_key(key: str) -> str:
    """The key itself, without a trailing slash; raises :class:`InvalidKey` for one that is not safe on every store.

    A segment longer than a file system allows is shortened as :func:`segment` does.
    """
    cleaned = key.removesuffix("/")
    if _UNWRITABLE.search(cleaned):
        raise InvalidKey(
            f"The key {key!r} holds a control character, or half of a surrogate pair; no store need take it."
        )
    if cleaned.startswith("/") or "\\" in cleaned or re.match(r"[A-Za-z]:/", cleaned):
        raise InvalidKey(f"The key {key!r} is not relative to the store's root.")
    parts = cleaned.split("/")
    for part in parts:
        if part in {"", ".", ".."}:
            raise InvalidKey(f"The key {key!r} has the segment {part!r}; name the place below the root plainly.")
        if part in {MANIFEST, OBJECTS, RUNS} or _CONTENT.match(part) or part.startswith(".tmp-"):
            raise InvalidKey(f"The key {key!r} has the segment {part!r}, which the store itself uses.")
    return "/".join(part if len(part.encode("utf-8", "surrogatepass")) <= _LIMIT else _escape(part) for part in parts)
