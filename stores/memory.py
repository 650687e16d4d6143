"""The memory of this process as an artifact store: for tests, notebooks, and as the model that others must match."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from ..core.names import is_content_segment
from ..core.refs import FileEntry
from .base import ArtifactStore

__all__ = ["MemoryArtifactStore"]

_SPACES: dict[str, dict[str, bytes]] = {}
_LOCK = threading.Lock()


class MemoryArtifactStore(ArtifactStore):
    """Artifacts in memory. Stores of one ``bucket`` share them; they end with the process."""

    scheme: ClassVar[str] = "memory"

    def __init__(self, bucket: str = "default", *, name: str = "memory", allow_pickle: str = "never") -> None:
        super().__init__(name, allow_pickle=allow_pickle, durable=False)
        self.bucket = bucket
        self._files = _SPACES.setdefault(bucket, {})

    @property
    def root_uri(self) -> str:
        """``memory://bucket``."""
        return f"memory://{self.bucket}"

    def to_dict(self) -> dict[str, Any]:
        """The store's settings."""
        return {"type": "memory", "name": self.name, "bucket": self.bucket}

    def new_staging(self) -> Path:
        """A temporary folder, read into memory when it is published."""
        return Path(tempfile.mkdtemp(prefix="tailrace-"))

    def discard_staging(self, directory: Path) -> None:
        """Remove a staging folder."""
        shutil.rmtree(directory, ignore_errors=True)

    def put_tree(self, staging: Path, key: str, files: tuple[FileEntry, ...]) -> None:
        """Take the files into memory."""
        found = {f"{key}/{entry.path}": (staging / entry.path).read_bytes() for entry in files}
        with _LOCK:
            self._files.update(found)
        self.discard_staging(staging)

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
            self._files[key] = data
            return True

    def replace(self, key: str, data: bytes, *, durable: bool | None = None) -> None:
        """Write over whatever is there."""
        with _LOCK:
            self._files[key] = data

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
            for found in [found for found in self._files if found == key or found.startswith(f"{key}/")]:
                del self._files[found]
