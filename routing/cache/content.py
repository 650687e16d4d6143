"""The digest of a value's content, as an artifact of it would have, where JSON does not hold the value."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from ...materializers.files import FileWriter, digest_bytes
from ...materializers.registry import save
from ...materializers.tagged import dumps

__all__ = ["content_digest"]


def content_digest(value: Any) -> str:
    """Write the value as a store would, to a temporary folder. Raises MaterializationError; pickle does not count."""
    with tempfile.TemporaryDirectory(prefix="tailrace-") as folder:
        writer = FileWriter(Path(folder))
        saved = save(value, writer)
        files = [[entry.path, entry.size, entry.digest] for entry in writer.finish()]
    return digest_bytes(dumps([saved.materializer, saved.materializer_version, saved.spec, files]))
