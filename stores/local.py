"""A folder of this machine as an artifact store: written aside, flushed, renamed."""

from __future__ import annotations

import itertools
import os
import shutil
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from ..core.errors import InvalidKey
from ..core.names import is_content_segment
from ..core.refs import FileEntry
from ..materializers.files import digest_file
from .base import ArtifactStore

__all__ = ["LocalArtifactStore"]

_CHUNK = 1 << 16
_REMEMBERED = 4096  # folders known not to be links out of the root, so that they are not asked about at every file


class LocalArtifactStore(ArtifactStore):
    """Artifacts in a folder, made on the first write.

    With ``durable`` (the default) what is committed survives a power cut: every file and folder is flushed (fsync)
    before the manifest is renamed into place.
    """

    scheme: ClassVar[str] = "file"

    def __init__(
        self,
        base_path: str | os.PathLike[str] = ".tailrace/artifacts",
        *,
        name: str = "default",
        allow_pickle: str = "never",
        durable: bool = True,
    ) -> None:
        super().__init__(name, allow_pickle=allow_pickle, durable=durable)
        self.base_path = Path(os.path.realpath(os.path.expanduser(base_path)))
        self._root = str(self.base_path)
        self._uri = f"file://{quote(self._root, errors='surrogateescape')}".rstrip("/")
        self._token = os.urandom(4).hex()
        self._count = itertools.count()
        self._pending = threading.local()
        self._sound: set[str] = {self._root}

    @property
    def root_uri(self) -> str:
        """``file:///the/folder``."""
        return self._uri

    def to_dict(self) -> dict[str, Any]:
        """The store's settings."""
        return {"type": "local", "name": self.name, "base_path": self._root, "durable": self.durable}

    def new_staging(self) -> Path:
        """A hidden folder below the root, so that publishing is a rename."""
        while True:
            directory = f"{self._root}/{self._temporary()}"
            try:
                os.mkdir(directory)
            except FileNotFoundError:
                self._make_folders(self._root)
            except FileExistsError:
                continue
            else:
                return Path(directory)

    def discard_staging(self, directory: Path) -> None:
        """Remove a staging folder."""
        shutil.rmtree(directory, ignore_errors=True)

    def put_tree(self, staging: Path, key: str, files: tuple[FileEntry, ...]) -> None:
        """Rename the staging folder to its place; where the content already is, mend what is damaged of it."""
        target = self._place(key)
        try:
            self._make_folders(os.path.dirname(target))
            os.rename(staging, target)
        except OSError:
            if not os.path.isdir(target):
                self.discard_staging(staging)
                raise
            self._mend(staging, target, files)
        self._unflushed({f"{target}/{os.path.dirname(entry.path)}" for entry in files} | {os.path.dirname(target)})

    def _mend(self, staging: Path, target: str, files: tuple[FileEntry, ...]) -> None:
        """Replace what is damaged of a content that is there already; each file at once."""
        for entry in files:
            place = Path(target, entry.path)
            if not place.is_file() or digest_file(place) != (entry.size, entry.digest):
                place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(staging / entry.path, place)
        self.discard_staging(staging)

    def local_tree(self, key: str, files: tuple[FileEntry, ...]) -> Path:
        """The folder itself."""
        return Path(self._place(key))

    def read(self, key: str) -> bytes:
        """A small file."""
        try:
            fd = os.open(self._place(key), os.O_RDONLY)
            try:
                data = b""
                while more := os.read(fd, _CHUNK):
                    data += more
            finally:
                os.close(fd)
        except (NotADirectoryError, IsADirectoryError) as error:
            raise FileNotFoundError(key) from error
        return data

    def create(self, key: str, data: bytes) -> bool:
        """As :meth:`replace`, but by a link, which fails where there is a file already."""
        target = self._place(key)
        temporary = self._write_aside(target, data, self.durable)
        try:
            if self.durable:
                self._flush_folders()
            os.link(temporary, target)
        except FileExistsError:
            return False
        finally:
            os.unlink(temporary)
        if self.durable:
            _flush(os.path.dirname(target))
        return True

    def replace(self, key: str, data: bytes, *, durable: bool | None = None) -> None:
        """Write aside, flush, flush the folders of what was put before, rename, flush the folder.

        In this order the folders cost next to nothing on a journaling file system: the file's flush has committed them.
        """
        flush = self.durable if durable is None else durable
        target = self._place(key)
        temporary = self._write_aside(target, data, flush)
        try:
            if flush:
                self._flush_folders()
            os.rename(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
        if flush:
            _flush(os.path.dirname(target))

    def walk(self, prefix: str = "", *, contents: bool = False) -> Iterator[str]:
        """The keys that start with the prefix."""
        start = prefix.rpartition("/")[0]
        if ".." in start.split("/") or prefix.startswith("/"):
            raise InvalidKey(f"The prefix {prefix!r} is not below the store's root.")
        top = f"{self._root}/{start}" if start else self._root
        for folder, folders, files in os.walk(top):
            folders[:] = [
                name for name in folders if not name.startswith(".tmp-") and (contents or not is_content_segment(name))
            ]
            relative = folder[len(self._root) + 1 :]
            for name in files:
                key = f"{relative}/{name}" if relative else name
                if key.startswith(prefix) and not name.startswith(".tmp-"):
                    yield key

    def remove(self, key: str) -> None:
        """Remove a file or a folder."""
        target = self._place(key)
        try:
            os.unlink(target)
        except (IsADirectoryError, PermissionError):
            shutil.rmtree(target)
        except (FileNotFoundError, NotADirectoryError):
            return

    def _relative(self, path: str) -> str:
        if not os.path.isabs(path):
            return path
        absolute = os.path.normpath(path)
        for root in (self._root, os.path.realpath(self._root)):
            if absolute.startswith(f"{root}/"):
                return absolute[len(root) + 1 :]
        raise InvalidKey(f"{path!r} is not inside the store {self.name!r}, whose root is {self._root!r}.")

    def _place(self, key: str) -> str:
        target = f"{self._root}/{key}"
        self._inside(os.path.dirname(target), key)
        return target

    def _inside(self, folder: str, key: str) -> bool:
        """Whether a folder is there. Refuses a key that a symbolic link would take out of the root."""
        if folder in self._sound:
            return True
        if not self._inside(os.path.dirname(folder), key):
            return False
        try:
            linked = stat.S_ISLNK(os.lstat(folder).st_mode)
        except OSError:
            return False
        if linked and not f"{os.path.realpath(folder)}/".startswith(f"{self._root}/"):
            raise InvalidKey(f"The key {key!r} leaves the store's root {self._root!r} through a symbolic link.")
        self._remember(folder)
        return True

    def _remember(self, folder: str) -> None:
        if len(self._sound) > _REMEMBERED:
            self._sound = {self._root}
        self._sound.add(folder)

    def _temporary(self) -> str:
        """A name that no other thread, process or host uses."""
        return f".tmp-{os.getpid():x}-{self._token}-{next(self._count):x}"

    def _write_aside(self, target: str, data: bytes, flush: bool) -> str:
        folder = os.path.dirname(target)
        temporary = f"{folder}/{self._temporary()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        try:
            fd = os.open(temporary, flags, 0o644)
        except FileNotFoundError:
            self._make_folders(folder)
            fd = os.open(temporary, flags, 0o644)
        try:
            view = memoryview(data)
            while len(view):
                view = view[os.write(fd, view) :]
            if flush:
                os.fsync(fd)
        except BaseException:
            os.unlink(temporary)
            raise
        finally:
            os.close(fd)
        return temporary

    def _make_folders(self, folder: str) -> None:
        """Make a folder and those above it; flush the parents of the new ones, so that the names last."""
        above = os.path.dirname(folder)
        try:
            os.mkdir(folder)
        except FileExistsError:
            return
        except FileNotFoundError:
            self._make_folders(above)
            with suppress(FileExistsError):  # another writer was first
                os.mkdir(folder)
                self._remember(folder)
        else:
            self._remember(folder)
        self._unflushed({above})

    def _unflushed(self, folders: set[str]) -> None:
        """Remember folders that must be flushed before the next manifest of this thread names what is in them."""
        if self.durable:
            self._pending.__dict__.setdefault("folders", set()).update(folders)

    def _flush_folders(self) -> None:
        folders = self._pending.__dict__.pop("folders", ())
        for folder in folders:
            with suppress(FileNotFoundError):  # somebody has deleted what was in it
                _flush(folder)


def _flush(folder: str) -> None:
    """Flush a folder's entries to the disk."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
