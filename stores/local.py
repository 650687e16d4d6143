"""A folder of this machine as an artifact store: written aside, flushed, renamed."""

from __future__ import annotations

import errno
import functools
import itertools
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Concatenate, ParamSpec, TypeVar
from urllib.parse import quote

from ..core.errors import InvalidKey
from ..core.names import is_content_segment
from ..core.refs import FileEntry
from ..materializers.files import digest_file
from .base import ArtifactStore
from .listing import Stored, object_key

__all__ = ["LocalArtifactStore"]

_CHUNK = 1 << 16
_TRIES = 10  # to put a content where another is just being collected
_REMEMBERED = 4096  # folders known not to be links out of the root, so that they are not asked about at every file


P = ParamSpec("P")
R = TypeVar("R")


def _telling(write: Callable[Concatenate[LocalArtifactStore, P], R]) -> Callable[Concatenate[LocalArtifactStore, P], R]:
    """An error of the file system as one of the store, which says where it is and what to do."""

    @functools.wraps(write)
    def telling(self: LocalArtifactStore, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return write(self, *args, **kwargs)
        except OSError as error:
            raise self._unwritable(error, error.filename or self._root) from error

    return telling


class LocalArtifactStore(ArtifactStore):
    """Artifacts in a folder, made on the first write.

    With ``durable`` (the default) what is committed survives a power cut: every file and folder is flushed (fsync)
    before the manifest is renamed into place. With ``deduplicate`` equal files are hard links to one; where the file
    system has none, or no more of them, a file is a copy of its own.
    """

    scheme: ClassVar[str] = "file"

    def __init__(
        self,
        base_path: str | os.PathLike[str] = ".tailrace/artifacts",
        *,
        name: str = "default",
        allow_pickle: str = "never",
        durable: bool = True,
        deduplicate: bool = False,
    ) -> None:
        super().__init__(name, allow_pickle=allow_pickle, durable=durable, deduplicate=deduplicate)
        self.base_path = Path(os.path.realpath(os.path.expanduser(base_path)))
        self._root = str(self.base_path)
        self._given = os.path.abspath(os.path.expanduser(base_path))  # perhaps through a symbolic link
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
        settings = {"type": "local", "name": self.name, "base_path": self._root}
        return {**settings, "durable": self.durable, "deduplicate": self.deduplicate}

    @_telling
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

    @_telling
    def put_tree(self, staging: Path, key: str, files: tuple[FileEntry, ...]) -> None:
        """Rename the staging folder to its place; where the content already is, mend what is damaged of it."""
        try:
            target = self._place(key)
            if self.deduplicate:
                for entry in files:
                    self._share(f"{staging}/{entry.path}", entry)
            self._move(staging, target, files)
        except BaseException:
            self.discard_staging(staging)
            raise
        self._unflushed({f"{target}/{os.path.dirname(entry.path)}" for entry in files} | {os.path.dirname(target)})

    def _move(self, staging: Path, target: str, files: tuple[FileEntry, ...]) -> None:
        """Rename, or take what is there into use again, which may be collected at this moment: then, once more."""
        os.utime(staging)  # its age counts from now on, however long ago it was filled
        for tries in range(_TRIES):
            try:
                self._make_folders(os.path.dirname(target))
                os.rename(staging, target)
                return
            except OSError as error:
                if not os.path.isdir(target):
                    if not isinstance(error, FileNotFoundError) or tries == _TRIES - 1:
                        raise
                    continue
            try:
                self._mend(staging, target, files)
                os.utime(target)  # fails if it has been collected; from now on it is too young for that
            except FileNotFoundError:
                if tries == _TRIES - 1:
                    raise
            else:
                self.discard_staging(staging)
                return

    def _mend(self, staging: Path, target: str, files: tuple[FileEntry, ...]) -> None:
        """Replace what is damaged of a content that is there already; each file at once."""
        for entry in files:
            place = Path(target, entry.path)
            if not place.is_file() or digest_file(place) != (entry.size, entry.digest):
                if place.parent != Path(target):
                    place.parent.mkdir(parents=True, exist_ok=True)
                aside = f"{target}/{self._temporary()}"
                os.link(staging / entry.path, aside)
                os.replace(aside, place)

    def _share(self, file: str, entry: FileEntry) -> None:
        """Make a file that is about to be published, and all that are equal to it, one."""
        place = self._place(object_key(entry.digest))
        aside = f"{file}{self._temporary()}"
        with suppress(OSError):  # no links here, or no more of them: it stays a copy of its own
            try:
                self._link_new(file, place)
            except FileExistsError:
                if digest_file(Path(place)) == (entry.size, entry.digest):
                    os.link(place, aside)
                    os.replace(aside, file)
                    if self.durable:
                        _flush(file)  # whoever wrote it first need not have
                else:  # damaged: this one takes its place
                    os.link(file, aside)
                    os.replace(aside, place)

    def _link_new(self, file: str, place: str) -> None:
        try:
            os.link(file, place)
        except FileNotFoundError:
            self._make_folders(os.path.dirname(place))
            os.link(file, place)

    def has_tree(self, key: str) -> bool:
        """Whether it is still there."""
        return os.path.isdir(f"{self._root}/{key}")

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

    @_telling
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

    @_telling
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
            _remove_folder(target)
        except (FileNotFoundError, NotADirectoryError):
            return

    def stored(self, prefix: str = "") -> Iterator[Stored]:
        """Every file that starts with the prefix; hard links to one file are the ``same``."""
        start = prefix.rpartition("/")[0]
        folders = [start] if not start or self._inside(f"{self._root}/{start}", prefix) else []
        while folders:
            folder = folders.pop()
            try:
                found = list(os.scandir(f"{self._root}/{folder}"))
                status = None if found or not folder else os.stat(f"{self._root}/{folder}")
            except (FileNotFoundError, NotADirectoryError):  # it has been removed since
                continue
            if status and f"{folder}/".startswith(prefix):
                yield Stored(f"{folder}/", 0, status.st_mtime)
            for item in found:
                key = f"{folder}/{item.name}" if folder else item.name
                if not key.startswith(prefix) and not prefix.startswith(f"{key}/"):
                    continue
                if item.is_dir(follow_symlinks=False):
                    folders.append(key)
                    continue
                with suppress(FileNotFoundError):
                    status = item.stat(follow_symlinks=False)
                    same = (status.st_dev, status.st_ino) if status.st_nlink > 1 else None
                    yield Stored(key, status.st_size, status.st_mtime, same)

    def collect(self, key: str, before: float) -> bool:
        """Rename it away, look at its age again, and remove it, or rename it back if it has been taken into use."""
        target = self._place(key)
        aside = f"{os.path.dirname(target)}/{self._temporary()}"
        try:
            if _newest(target) >= before:
                return False
            os.rename(target, aside)
        except (FileNotFoundError, NotADirectoryError):
            return False
        if _newest(aside) < before:
            _drop(aside)
            self._prune(os.path.dirname(target))
            return True
        with suppress(OSError):  # it is there again, anew
            os.rename(aside, target) if os.path.isdir(aside) else os.link(aside, target)
        with suppress(FileNotFoundError):
            _drop(aside)
        return False

    def _prune(self, folder: str) -> None:
        """Remove a folder, and those above it, if nothing is in them. Whoever puts something there makes them anew."""
        with suppress(OSError):
            while folder != self._root:
                os.rmdir(folder)
                self._sound.discard(folder)
                folder = os.path.dirname(folder)

    def _relative(self, path: str) -> str:
        if not os.path.isabs(path):
            return path
        absolute = os.path.normpath(path)
        for root in (self._root, self._given):
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
        fd = self._open_new(temporary, flags)
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

    def _open_new(self, place: str, flags: int) -> int:
        """Open a new file; its folder is made where it is missing, again if it was removed because it was empty."""
        for _ in range(_TRIES):
            try:
                return os.open(place, flags, 0o644)
            except FileNotFoundError:
                with suppress(FileNotFoundError):
                    self._make_folders(os.path.dirname(place))
        return os.open(place, flags, 0o644)

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


def _newest(place: str) -> float:
    """When a file, or anything in a folder, was last written. Raises ``FileNotFoundError``."""
    status = os.lstat(place)
    newest = status.st_mtime
    if stat.S_ISDIR(status.st_mode):
        for name in os.listdir(place):
            with suppress(FileNotFoundError):
                newest = max(newest, _newest(f"{place}/{name}"))
    return newest


def _remove_folder(folder: str) -> None:
    """Remove a folder, also while another process removes what is in it."""
    for tries in range(_TRIES):
        try:
            shutil.rmtree(folder)
        except OSError as error:
            if not os.path.lexists(folder):
                return
            if error.errno not in (errno.ENOENT, errno.ENOTEMPTY) or tries == _TRIES - 1:
                raise
        else:
            return


def _drop(place: str) -> None:
    if os.path.isdir(place) and not os.path.islink(place):
        shutil.rmtree(place, ignore_errors=True)
    else:
        os.unlink(place)


def _flush(folder: str) -> None:
    """Flush a folder's entries, or a file, to the disk."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
