"""Stores by URI, or by type and options."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from ..core.errors import ConfigError, Problem
from ..core.plugins import component

if TYPE_CHECKING:
    from .base import ArtifactStore

__all__ = ["STORES", "build_artifact_store", "build_store"]

STORES = {
    "local": "tailrace.stores.local:LocalArtifactStore",
    "memory": "tailrace.stores.memory:MemoryArtifactStore",
    "s3": "tailrace.stores.s3:S3ArtifactStore",
    "gcs": "tailrace.stores.gcs:GCSArtifactStore",
    "azure": "tailrace.stores.azure:AzureArtifactStore",
}
"""The stores that come with Tailrace, by type. Others register the entry point group ``tailrace.stores``."""

_SCHEMES = {"file": "local", "memory": "memory", "s3": "s3", "gs": "gcs", "az": "azure"}
_NAMES = {"bucket": "bucket_name", "project": "project_id", "account": "account_name"}  # in YAML, and in Python


def build_artifact_store(uri: str | os.PathLike[str], **options: Any) -> ArtifactStore:
    """The store at a path or URI, the rest of which is percent-decoded.

    That is ``./dir``, ``dir``, ``~/dir``, ``/dir``, ``file:///dir``, ``memory://name``, ``s3://bucket/prefix``,
    ``gs://bucket/prefix`` or ``az://container/prefix``. ``options`` are those of the store's class. Raises
    :class:`~tailrace.ConfigError` for an unknown scheme.
    """
    text = os.fspath(uri)
    if "://" not in text:
        return build_store("local", {"base_path": text, **options})
    scheme = text.partition("://")[0]
    if scheme not in _SCHEMES:
        known = ", ".join(f"{name}://" for name in sorted(_SCHEMES))
        shown = re.sub(r"(?<=://)[^/@]*@", "***@", text)  # a user and a password
        raise ConfigError("The store cannot be used", [Problem(f"unknown scheme {scheme!r}; known: {known}", shown)])
    parts = urlsplit(text)
    if scheme == "file":
        if parts.netloc not in ("", "localhost"):
            what = f"a file URI names this machine; {parts.netloc!r} is another. Write file:///path"
            raise ConfigError("The store cannot be used", [Problem(what, text)])
        return build_store("local", {"base_path": unquote(parts.path, errors="surrogateescape"), **options})
    return build_store(_SCHEMES[scheme], {**in_bucket(text), **options})


def in_bucket(uri: str) -> dict[str, str]:
    """The options that the URI of a bucket, or of memory, stands for. A URI has no default prefix."""
    scheme, _, rest = uri.partition("://")
    if scheme == "memory":
        return {"bucket": unquote(rest.strip("/")) or "default"}
    bucket, _, prefix = rest.partition("/")
    return {"bucket": bucket, "prefix": unquote(prefix.strip("/"))}


def build_store(
    kind: str,
    options: Mapping[str, Any],
    *,
    name: str = "default",
    root: Path | None = None,
    allow_pickle: str = "never",
) -> ArtifactStore:
    """The store of a type with its options; a relative ``base_path`` is relative to ``root``."""
    settings = {"name": name, "allow_pickle": allow_pickle, **options}
    if kind == "local":
        path = settings.pop("path", None) or settings.get("base_path") or ".tailrace/artifacts"
        settings["base_path"] = Path(root or ".") / os.path.expanduser(path)
    elif kind in {"s3", "gcs", "azure"}:
        settings = {_NAMES.get(key, key): value for key, value in settings.items()}
    store: ArtifactStore = component("tailrace.stores", kind, STORES)(**settings)
    return store
