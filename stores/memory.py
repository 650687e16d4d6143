"""The memory of this process as an artifact store: for tests, notebooks, and as the model that others must match."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from ..core.names import is_content_segment
from ..core.refs import FileEntry
from .base import ArtifactStore
from .listing import Stored, object_key

__all__ = ["MemoryArtifactStore"]

_SPACES: dict[str, tuple[dict[str, bytes], dict[str, float]]] = {}  # the files, and when they were written
_LOCK = threading.Lock()


class MemoryArtifactStore(ArtifactStore):
    """Artifacts in memory. Stores of one ``bucket`` share them; they end with the process."""

    scheme: ClassVar[str] = "memory"

    def __init__(
        self,
        bucket: str = "default",
        *,
        name: str = "memory",
        allow_pickle: str = "never",
        deduplicate: bool = False,
    ) -> None:
        super().__init__(name, allow_pickle=allow_pickle, durable=False, deduplicate=deduplicate)
        self.bucket = bucket
        self._files, self._written = _SPACES.setdefault(bucket, ({}, {}))

    @property
    def root_uri(self) -> str:
        """``memory://bucket``."""
        return f"memory://{self.bucket}"

    def to_dict(self) -> dict[str, Any]:
        """The store's settings."""
        return {"type": "memory", "name": self.name, "bucket": self.bucket, "deduplicate": self.deduplicate}

    def new_staging(self) -> Path:
        """A temporary folder, read into memory when it is published."""
        return Path(tempfile.mkdtemp(prefix="tailrace-"))

    def discard_staging(self, directory: Path) -> None:
        """Remove a staging folder."""
        shutil.rmtree(directory, ignore_errors=True)

    def put_tree(self, staging: Path, key: str, files: tuple[FileEntry, ...]) -> None:
        """Take the files into memory."""
        found = [(entry, (staging / entry.path).read_bytes()) for entry in files]
        with _LOCK:
            for entry, data in found:
                self._put(f"{key}/{entry.path}", self._shared(entry, data) if self.deduplicate else data)
        self.discard_staging(staging)

    def _put(self, key: str, data: bytes) -> None:
        self._files[key] = data
        self._written[key] = time.time()

    def _shared(self, entry: FileEntry, data: bytes) -> bytes:
        """The equal bytes that are there already, or these from now on."""
        key = object_key(entry.digest)
        if self._files.get(key) != data:
            self._files[key] = data
        self._written[key] = time.time()
        return self._files[key]

    def local_tree(self, key: str, files: tuple[FileEntry, ...]) -> Path:
        """A temporary folder with the files, kept until the process ends."""
        directory = Path(tempfile.mkdtemp(prefix="tailrace-"))
        atexit.register(shutil.rmtree, directory, ignore_errors=True)
        for entry in files:
            data = self._files.get(f"{key}/{entry.path}")
            if data is not None:
                (directory / entry.path).parent.mkdir(parents=True, exist_ok=True)
                (directory / entry.path).write_bytes(data)
        return directory

    def read(self, key: str) -> bytes:
        """A small file."""
        try:
            return self._files[key]
        except KeyError:
            raise FileNotFoundError(key) from None

    def create(self, key: str, data: bytes) -> bool:
        """Write unless there is one."""
        with _LOCK:
            if key in self._files:
                return False
            self._put(key, data)
            return True

    def replace(self, key: str, data: bytes, *, durable: bool | None = None) -> None:
        """Write over whatever is there."""
        with _LOCK:
            self._put(key, data)

    def walk(self, prefix: str = "", *, contents: bool = False) -> Iterator[str]:
        """The keys that start with the prefix."""
        with _LOCK:
            keys = [key for key in self._files if key.startswith(prefix)]
        for key in keys:
            if contents or not any(map(is_content_segment, key.split("/")[:-1])):
                yield key

    def remove(self, key: str) -> None:
        """Remove a file, or everything below a folder."""
        with _LOCK:
            self._drop(self._at(key))

    def stored(self, prefix: str = "") -> Iterator[Stored]:
        """Every file that starts with the prefix; those that share their bytes are the ``same``."""
        with _LOCK:
            found = [(key, data) for key, data in self._files.items() if key.startswith(prefix)]
            written = dict(self._written)
        for key, data in found:
            yield Stored(key, len(data), written[key], same=id(data))

    def collect(self, key: str, before: float) -> bool:
        """Remove a file or folder, unless any of it was written since."""
        with _LOCK:
            found = self._at(key)
            if not found or any(self._written[item] >= before for item in found):
                return False
            self._drop(found)
            return True

    def _at(self, key: str) -> list[str]:
        return [found for found in self._files if found == key or found.startswith(f"{key}/")]

    def _drop(self, keys: list[str]) -> None:
        for key in keys:
            del self._files[key], self._written[key]
