"""The files of one artifact: digested while they are written, verified before they are read."""

from __future__ import annotations

import io
import mmap
import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, cast

from blake3 import blake3

from ..core.errors import IntegrityError
from ..core.forms import Form
from ..core.refs import FileEntry

__all__ = ["FileReader", "FileWriter", "digest_bytes", "digest_file"]

Buffer = bytes | bytearray | memoryview

_ANY_FORM = Form()
_LARGE = 1 << 20  # bytes from which hashing is worth a second thread
_CHUNK = 8 << 20
_WINDOW = 64 << 20  # bytes of a file that are mapped at once


def _hash(data: Buffer) -> str:
    threads = blake3.AUTO if len(data) >= _LARGE else 1
    return f"blake3:{blake3(data, max_threads=threads).hexdigest()}"


def _buffer(size: int) -> memoryview:
    """Writable memory; large ones in huge pages, without which the page faults cost ten times the reading."""
    if size < _LARGE:
        return memoryview(bytearray(size))
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return memoryview(mmap.mmap(-1, size))
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # shared pages are never huge
    pages.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(pages)


def _filled(file: io.FileIO, size: int) -> tuple[memoryview, int, str]:
    """Memory of this size, how much of it the file has filled, and the digest of that."""
    data, got = _buffer(size), 0
    if size <= _CHUNK:
        while got < size and (count := file.readinto(data[got:])):
            got += count
        return data, got, _hash(data[:got])
    hasher = blake3(max_threads=blake3.AUTO)
    with ThreadPoolExecutor(1) as beside:  # each part is digested while the next is read
        while got < size and (count := file.readinto(data[got : got + _CHUNK])):
            beside.submit(hasher.update, data[got : got + count])
            got += count
    return data, got, f"blake3:{hasher.hexdigest()}"


def digest_bytes(data: Buffer) -> str:
    """The digest of bytes in memory, as ``"blake3:<64 hex digits>"``."""
    return _hash(memoryview(data).cast("B"))


def digest_file(path: Path) -> tuple[int, str]:
    """The size in bytes and the digest of a file, without holding it in memory."""
    size = os.path.getsize(path)
    hasher = blake3(max_threads=blake3.AUTO if size >= _LARGE else 1)
    if size <= _WINDOW:
        hasher.update_mmap(path)
    else:  # pages of a mapped file count as this process' memory, so not all of them at once
        with path.open("rb") as file:
            for start in range(0, size, _WINDOW):
                length = min(_WINDOW, size - start)
                with mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ, offset=start) as part:
                    hasher.update(part)
    return size, f"blake3:{hasher.hexdigest()}"


class _HashingFile(io.RawIOBase):
    """A write-only file that digests what passes through. Not seekable, so that the digest is of the file."""

    def __init__(self, raw: IO[bytes]) -> None:
        self.raw = raw
        self.hasher = blake3()
        self.size = 0
        self.seconds = 0.0

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer, /) -> int:  # type: ignore[override]  # io declares ReadableBuffer, of which these are
        view = memoryview(data).cast("B")
        begin = time.perf_counter()
        self.hasher.update(view)
        self.seconds += time.perf_counter() - begin
        self.raw.write(view)
        self.size += len(view)
        return len(view)

    def tell(self) -> int:
        return self.size


class FileWriter:
    """Where a materializer puts the files of one artifact: a fresh local folder, digested while it is filled.

    Give a file's whole content to :meth:`write`, stream it through :meth:`open`, or let a library write to the
    :meth:`path`. :meth:`finish` returns every file's entry, sorted by path. With ``durable`` each file is flushed to
    the disk (fsync) before that.
    """

    def __init__(
        self, directory: Path, *, durable: bool = False, allow_pickle: str = "never", form: Form = _ANY_FORM
    ) -> None:
        self.directory = directory
        self.durable = durable
        self.allow_pickle = allow_pickle
        self._form = form
        self._asked = [False]  # shared with the writers of inner folders
        self._entries: dict[str, FileEntry] = {}
        self._prefix = ""
        self._by_path: set[str] = set()
        self._seconds = [0.0]  # shared with the writers of inner folders

    @property
    def digest_seconds(self) -> float:
        """Seconds spent on digests; those made beside the writing count too."""
        return self._seconds[0]

    @property
    def form(self) -> Form:
        """The file format that was chosen for tables, for a look; :meth:`form_of_table` takes it."""
        return self._form

    def form_of_table(self) -> Form:
        """The file format that was chosen for tables; a materializer that asks stores the value so, or refuses it."""
        self._asked[0] = True
        return self._form

    @property
    def has_table(self) -> bool:
        """Whether a materializer asked for :meth:`form_of_table`."""
        return self._asked[0]

    def within(self, folder: str, *, form: Form | None = None) -> FileWriter:
        """The same writer, one folder deeper: for the members of a container; with a form, for one that chose it."""
        inner = FileWriter(
            self.directory, durable=self.durable, allow_pickle=self.allow_pickle, form=form or self._form
        )
        inner._asked = self._asked if form is None else inner._asked
        inner._entries, inner._by_path, inner._seconds = self._entries, self._by_path, self._seconds
        inner._prefix = f"{self._prefix}{folder}/"
        return inner

    def _place(self, name: str) -> tuple[str, str]:
        full = self._prefix + name
        if full in self._entries or full in self._by_path:
            raise ValueError(f"The file {full!r} of this artifact is written twice.")
        target = f"{self.directory}/{full}"
        if "/" in full:
            os.makedirs(os.path.dirname(target), exist_ok=True)
        return full, target

    def write(self, name: str, *parts: Buffer) -> None:
        """Write a file whose content is the parts, one after the other; a large one is digested beside the write."""
        full, target = self._place(name)
        views = [memoryview(part).cast("B") for part in parts]
        size = sum(map(len, views))
        hasher = blake3(max_threads=blake3.AUTO if size >= _LARGE else 1)

        def digest() -> None:
            begin = time.perf_counter()
            for view in views:
                hasher.update(view)
            self._seconds[0] += time.perf_counter() - begin

        beside = threading.Thread(target=digest) if size >= _LARGE else None
        if beside:
            beside.start()
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            if size >= _LARGE and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(fd, 0, size)  # a third faster, and a full disk is found before the first byte
            for view in views:
                while len(view):
                    view = view[os.write(fd, view) :]
            if self.durable:
                os.fsync(fd)
        finally:
            os.close(fd)
            if beside:
                beside.join()
        if not beside:
            digest()
        self._entries[full] = FileEntry(full, size, f"blake3:{hasher.hexdigest()}")

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """A binary file to stream into; digested as it goes. It cannot seek."""
        full, target = self._place(name)
        with open(target, "xb") as raw:
            tee = _HashingFile(raw)
            with io.BufferedWriter(cast("io.RawIOBase", tee), buffer_size=1 << 20) as buffered:
                yield cast("BinaryIO", buffered)
                buffered.flush()
                raw.flush()
                if self.durable:
                    os.fsync(raw.fileno())
        self._seconds[0] += tee.seconds
        self._entries[full] = FileEntry(full, tee.size, f"blake3:{tee.hasher.hexdigest()}")

    def digest(self, name: str) -> str:
        """The digest of a file that was written."""
        return self._entries[self._prefix + name].digest

    def path(self, name: str) -> Path:
        """A path for a library that writes by itself: a file, or a folder whose files all belong to the artifact."""
        full, target = self._place(name)
        self._by_path.add(full)
        return Path(target)

    def discard(self) -> None:
        """Take back everything written so far in this folder of the artifact: the value is saved another way."""
        for full in [name for name in self._entries if name.startswith(self._prefix)]:
            del self._entries[full]
        self._by_path.difference_update([name for name in self._by_path if name.startswith(self._prefix)])
        folder = self.directory / self._prefix
        for item in folder.iterdir() if folder.exists() else ():
            if item.is_dir() and not item.is_symlink():
                shutil.rmtree(item)
            else:
                item.unlink()

    def finish(self) -> tuple[FileEntry, ...]:
        """The entry of every file, sorted by path. Digests what libraries wrote by themselves."""
        for full in sorted(self._by_path):
            target = self.directory / full
            found = sorted(target.rglob("*")) if target.is_dir() else [target]
            for file in found:
                if file.is_file():
                    self._adopt(file)
        self._by_path.clear()
        return tuple(self._entries[name] for name in sorted(self._entries))

    def _adopt(self, file: Path) -> None:
        if self.durable:
            fd = os.open(file, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        name = file.relative_to(self.directory).as_posix()
        begin = time.perf_counter()
        size, digest = digest_file(file)
        self._seconds[0] += time.perf_counter() - begin
        self._entries[name] = FileEntry(name, size, digest)


class FileReader:
    """The files of one artifact for a materializer to load: each is verified before it is handed over.

    ``directory`` holds the files locally. :meth:`read` verifies the very bytes that it returns; :meth:`path` verifies
    the file and returns where it is, for libraries that open files by themselves.
    """

    def __init__(
        self, directory: Path, entries: Mapping[str, FileEntry], *, allow_pickle: str = "never", label: str = ""
    ) -> None:
        self.directory = directory
        self.allow_pickle = allow_pickle
        self.label = label or str(directory)
        self._entries = entries
        self._prefix = ""
        self._lent = [False]  # shared with the readers of inner folders

    @property
    def lent(self) -> bool:
        """Whether a path was handed over, from which the value may go on reading."""
        return self._lent[0]

    def lend(self) -> None:
        """Let the value go on reading after it has been loaded."""
        self._lent[0] = True

    def within(self, folder: str) -> FileReader:
        """The same reader, one folder deeper: for the members of a container."""
        inner = FileReader(self.directory, self._entries, allow_pickle=self.allow_pickle, label=self.label)
        inner._prefix, inner._lent = f"{self._prefix}{folder}/", self._lent
        return inner

    def names(self) -> list[str]:
        """The paths of the files, sorted, relative to this folder of the artifact."""
        start = len(self._prefix)
        return sorted(name[start:] for name in self._entries if name.startswith(self._prefix))

    def read(self, name: str) -> memoryview:
        """The verified bytes of a file, writable. Raises :class:`IntegrityError` when they are not what was saved."""
        entry = self._entry(name)
        target = f"{self.directory}/{entry.path}"
        try:
            with open(target, "rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                if size != entry.size:
                    raise self._damaged(entry, f"it has {size} bytes instead of {entry.size}")
                data, got, digest = _filled(file, size)
        except FileNotFoundError as error:
            raise self._damaged(entry, "it is missing") from error
        if got < size:
            raise self._damaged(entry, f"it ended after {got} of {entry.size} bytes")
        if digest != entry.digest:
            raise self._damaged(entry, "its digest differs from the manifest's")
        return data

    def path(self, name: str = "") -> Path:
        """The local path of a verified file, or of a folder whose files are all verified (``""``: the artifact's)."""
        full = (self._prefix + name).rstrip("/")
        self._lent[0] = True
        if full in self._entries:
            members = [self._entries[full]]
        else:
            start = f"{full}/" if full else ""
            members = [entry for path, entry in self._entries.items() if path.startswith(start)]
        for entry in members:
            try:
                size, digest = digest_file(self.directory / entry.path)
            except FileNotFoundError as error:
                raise self._damaged(entry, "it is missing") from error
            if (size, digest) != (entry.size, entry.digest):
                raise self._damaged(entry, "its digest differs from the manifest's")
        return self.directory / full

    def _entry(self, name: str) -> FileEntry:
        full = self._prefix + name
        if full not in self._entries:
            raise IntegrityError(f"The artifact {self.label} has no file {full!r} in its manifest.")
        return self._entries[full]

    def _damaged(self, entry: FileEntry, what: str) -> IntegrityError:
        return IntegrityError(
            f"The file {entry.path!r} of the artifact {self.label} is damaged: {what}. Nothing of it was loaded. "
            "Restore the file from a backup, or run the step again."
        )
