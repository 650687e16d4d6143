"""A bucket as an artifact store: what S3, GCS and Azure have in common, over botocore, gcsfs and adlfs.

The data go first, each object whole or not at all, below a key that is named for the content; the manifest goes last.
Nothing is locked: see ``docs/decisions/0013-publication-in-object-stores.md``.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import random
import re
import secrets
import shutil
import tempfile
import threading
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from urllib.parse import quote, urlsplit

from ..core.errors import ConfigError, IntegrityError, InvalidKey, Problem, StoreError, TailraceError
from ..core.names import MANIFEST, is_content_segment
from ..core.refs import FileEntry
from .base import ArtifactStore
from .listing import Stored, object_key

__all__ = ["LONGEST_CONNECT", "PART", "ObjectStore", "all_of", "status_of"]

T = TypeVar("T")

PART = 5 << 20  # bytes; what is larger goes up and down in parts of this size, the least that S3 takes
_KEY_LIMIT = 1024  # bytes, on all three
_BUCKET = re.compile(r"[A-Za-z0-9$][A-Za-z0-9._-]{2,221}")
_LONGEST_WAIT = 20.0  # seconds between two tries
LONGEST_CONNECT = 10.0  # seconds until a server that is there takes a connection
_CHANGED = 412  # a condition does not hold
_BEYOND = 416  # a range that begins behind the end
_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
_TRANSIENT_CODES = frozenset(
    {"RequestTimeout", "SlowDown", "Throttling", "ConditionalRequestConflict", "OperationAborted"}
)
_NO_BUCKET = frozenset({"NoSuchBucket", "ContainerNotFound", "InvalidBucketName"})
_SECRET = re.compile(r"(?i)([?&](?:sig|signature|token|x-amz-[a-z-]+|x-goog-[a-z-]+)=)[^&\s\"']+|(?<=://)[^/\s@]+@")


class ObjectStore(ArtifactStore):
    """Artifacts in a bucket, below ``prefix``. Nothing is contacted before the first use, nor imported.

    A request that fails for a reason that may pass (an overloaded server, a broken connection, no answer for
    ``timeout`` seconds) is repeated up to ``retries`` times, waiting longer each time; one that is refused raises
    :class:`~tailrace.StoreError` at once. At most ``concurrency`` requests of a store are under way, each with
    :data:`PART` bytes at most. With ``deduplicate`` equal files are one object, below ``_objects``; those of an MLflow
    model, which MLflow reads by itself, are not.
    """

    kind: ClassVar[str]
    credentials: ClassVar[str]

    def __init__(
        self,
        name: str,
        bucket_name: str,
        prefix: str,
        endpoint_url: str | None,
        *,
        allow_pickle: str,
        retries: int,
        concurrency: int,
        timeout: float,
        deduplicate: bool,
    ) -> None:
        # what is staged here need not last
        super().__init__(name, allow_pickle=allow_pickle, durable=False, deduplicate=deduplicate)
        self.bucket_name = bucket_name
        self.prefix = prefix.strip("/")
        self.endpoint_url = endpoint_url
        self.retries = retries
        self.concurrency = concurrency
        self.timeout = timeout
        self._root = f"{self.prefix}/" if self.prefix else ""
        self._check()
        self._lock = threading.Lock()
        self._opened: tuple[int, Any, asyncio.Semaphore] | None = None
        self._bucket_seen = False
        self._conditional: bool | None = None  # whether a conditional create is honoured; not known yet

    # --- what a kind of bucket supplies: one request each, without repeating ------------------------------------------

    @abstractmethod
    def _connect(self) -> Any:
        """The fsspec file system, with its own repeating and caching off."""

    @abstractmethod
    async def _get(self, fs: Any, key: str, start: int | None = None, stop: int | None = None) -> bytes | memoryview:
        """An object's bytes, or those of a range, as far as they go; raises ``FileNotFoundError``."""

    @abstractmethod
    async def _put(self, fs: Any, key: str, data: bytes, *, writer: str | None = None) -> None:
        """Write an object; with ``writer``, noted in its metadata, raises ``FileExistsError`` where there is one."""

    @abstractmethod
    async def _writer(self, fs: Any, key: str) -> str | None:
        """The writer that is noted in an object's metadata; raises ``FileNotFoundError``."""

    @abstractmethod
    async def _put_large(self, fs: Any, key: str, path: Path, size: int) -> None:
        """Write an object of more than one part from a file; what is there is the old or the new object, whole."""

    @abstractmethod
    async def _list(self, fs: Any, prefix: str) -> list[Stored]:
        """All objects whose keys start with the prefix."""

    @abstractmethod
    async def _delete(self, fs: Any, key: str, tag: str | None = None) -> None:
        """Delete an object; may raise ``FileNotFoundError``. With a ``tag``, only that version, where the server can.

        Then it raises what has the status 412, or ``FileExistsError``, for another version.
        """

    @abstractmethod
    def _broken(self) -> tuple[type[BaseException], ...]:
        """The errors by which the client tells that a connection failed."""

    def _honours_conditions(self, fs: Any) -> bool | None:
        """Whether the server is known to honour a conditional create; None where that is to be found out."""
        return None if self.endpoint_url else True

    async def _has_bucket(self, fs: Any, error: BaseException) -> bool:
        """Whether the bucket exists, after an object was not found."""
        return not _codes(error) & _NO_BUCKET

    # --- the store's primitives ---------------------------------------------------------------------------------------

    @property
    def root_uri(self) -> str:
        """``scheme://bucket/prefix``."""
        return f"{self.scheme}://{self.bucket_name}/{quote(self.prefix, safe='/._=-')}".rstrip("/")

    def to_dict(self) -> dict[str, Any]:
        """The store's settings. There are no secrets among them: credentials come from the environment."""
        settings: dict[str, Any] = {
            "type": self.kind,
            "name": self.name,
            "bucket": self.bucket_name,
            "prefix": self.prefix,
        }
        settings |= {"endpoint_url": self.endpoint_url, "retries": self.retries, "concurrency": self.concurrency}
        settings["timeout"] = self.timeout
        return {**settings, "deduplicate": self.deduplicate}

    def new_staging(self) -> Path:
        """A temporary folder of this machine."""
        return Path(tempfile.mkdtemp(prefix="tailrace-"))

    def discard_staging(self, directory: Path) -> None:
        """Remove a staging folder."""
        shutil.rmtree(directory, ignore_errors=True)

    def put_tree(self, staging: Path, key: str, files: tuple[FileEntry, ...]) -> None:
        """Upload the files. One that is there already is written over: its key is named for its bytes."""
        alone = not self.deduplicate or any(entry.path.rpartition("/")[2] == "MLmodel" for entry in files)
        named = {f"{key}/{entry.path}" if alone else object_key(entry.digest): entry for entry in files}
        places = [(self._place(name), staging / entry.path, entry.size) for name, entry in named.items()]
        try:
            self._run("write", key, lambda fs: all_of(self._upload(fs, *place) for place in places))
        finally:
            self.discard_staging(staging)

    def local_tree(self, key: str, files: tuple[FileEntry, ...]) -> Path:
        """A temporary folder with the files; :meth:`release_tree` removes it."""
        directory = Path(tempfile.mkdtemp(prefix="tailrace-"))
        try:
            places = [(self._places(key, entry), _inside(directory, entry), entry.size) for entry in files]
            self._run("read", key, lambda fs: all_of(self._fetch(fs, *place) for place in places))
        except BaseException:
            self.discard_staging(directory)
            raise
        return directory

    def _places(self, key: str, entry: FileEntry) -> list[str]:
        """Where a file may be: in the artifact's folder, or shared. The one that is likelier comes first."""
        found = [self._place(f"{key}/{entry.path}"), self._place(object_key(entry.digest))]
        return found[::-1] if self.deduplicate else found

    def release_tree(self, directory: Path, *, lent: bool = False) -> None:
        """Remove the local copy; at the end of the process, if a value may go on reading from it."""
        if lent:
            atexit.register(shutil.rmtree, directory, ignore_errors=True)
        else:
            shutil.rmtree(directory, ignore_errors=True)

    def read(self, key: str) -> bytes:
        """A small object."""
        place = self._place(key)

        async def get(fs: Any) -> bytes:
            try:
                return bytes(await self._patiently(self._get, fs, place))
            except FileNotFoundError as error:
                if await self._has_bucket(fs, error):
                    raise FileNotFoundError(key) from None
                raise StoreError(self._no_bucket()) from error

        return self._run("read", key, get)

    def create(self, key: str, data: bytes) -> bool:
        """Write unless there is one: by a condition that the server checks, where it does.

        A server of which that is not known is asked twice: the second time it has to refuse. Where it does not, or
        knows no conditions, this looks, writes and looks again: two that create at the same moment may then both be
        told that they were first.
        """
        place = self._place(key)
        return self._run("create", key, lambda fs: self._create(fs, place, data))

    def replace(self, key: str, data: bytes, *, durable: bool | None = None) -> None:
        """Write over whatever is there."""
        place = self._place(key)
        self._run("write", key, lambda fs: self._patiently(self._put, fs, place, data))

    @property
    def creates_first(self) -> bool:
        """A conditional create is one request, so looking before is needless, unless the server refuses conditions."""
        return self._conditional is not False

    def walk(self, prefix: str = "", *, contents: bool = False) -> Iterator[str]:
        """The keys that start with the prefix, as they are now."""
        if ".." in prefix.split("/") or prefix.startswith("/"):
            raise InvalidKey(f"The prefix {prefix!r} is not below the store's root.")
        for item in self._below(prefix):
            key = item.key
            if contents or not any(map(is_content_segment, key.split("/")[:-1])):
                yield key

    def remove(self, key: str) -> None:
        """Remove an object and everything below it."""
        self._remove([key])
        self._remove(item.key for item in self._below(f"{key}/"))

    def stored(self, prefix: str = "") -> Iterator[Stored]:
        """Every object that starts with the prefix."""
        return iter(self._below(prefix))

    def collect(self, key: str, before: float) -> bool:
        """Look at what is there now and remove exactly that, if none of it is too young.

        S3 cannot be told which version is meant: there, an object that is written over with the same bytes between the
        look and the removal, two requests that follow each other at once, is removed.
        """
        found = [item for item in self._below(key) if item.key == key or item.key.startswith(f"{key}/")]
        if not found or any(item.modified >= before for item in found):
            return False
        return self._run("delete", key, lambda fs: self._drop(fs, found))

    async def _drop(self, fs: Any, found: list[Stored]) -> bool:
        """Remove these versions, each by one request: one that is repeated later may meet another version."""
        assert self._opened is not None  # noqa: S101  # there is a client, or nobody could ask
        kept: list[Stored] = []

        async def drop(item: Stored) -> None:
            try:
                async with turns:
                    await self._delete(fs, self._place(item.key), item.tag)
            except FileNotFoundError:
                pass
            except Exception as error:
                if not isinstance(error, FileExistsError) and status_of(error) != _CHANGED:
                    raise
                kept.append(item)

        turns = self._opened[2]
        await all_of(drop(item) for item in found)
        return not kept

    def delete(self, path: str | os.PathLike[str]) -> None:
        """Delete the artifact at a path and every artifact below it, manifests first. No error if there is none."""
        key = self.key(path)
        found = [item.key for item in self._below(f"{key}/")]
        manifests = [item for item in found if item.endswith(f"/{MANIFEST}")]
        self._remove(manifests)
        self._remove({key, *found}.difference(manifests))

    # --- requests -----------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        """Refuse settings that cannot work, or that hold a secret, which is not repeated."""
        problems = []
        if not _BUCKET.fullmatch(self.bucket_name):
            shown = "with a user or password" if "@" in self.bucket_name else repr(self.bucket_name)
            problems.append(f"the bucket name {shown} is none: it has 3 or more letters, digits, '.', '_' and '-'")
        if any(part in {"", ".", ".."} for part in self.prefix.split("/")) and self.prefix:
            problems.append(f"the prefix {self.prefix!r} is no plain path")
        if self.endpoint_url is not None:
            parts = urlsplit(self.endpoint_url)
            if parts.scheme not in {"http", "https"} or not parts.hostname:
                problems.append("endpoint_url is no http or https URL")
            if "@" in parts.netloc or parts.query:
                problems.append(f"endpoint_url holds a secret; credentials come from {self.credentials}")
        if not 0 <= self.retries <= 100:
            problems.append(f"retries is {self.retries}, and goes from 0 to 100")
        if not 0.1 <= self.timeout <= 3600:
            problems.append(f"timeout is {self.timeout} s, and goes from 0.1 to 3600")
        if not 1 <= self.concurrency <= 256:
            problems.append(f"concurrency is {self.concurrency}, and goes from 1 to 256")
        if problems:
            raise ConfigError(
                f"The store {self.name!r} cannot be used", [Problem(what, self.kind) for what in problems]
            )

    def _place(self, key: str) -> str:
        place = f"{self._root}{key}"
        size = len(place.encode("utf-8", "surrogatepass"))
        if size > _KEY_LIMIT:
            raise InvalidKey(f"The key {key[:80]!r}... has {size} bytes with the prefix; at most {_KEY_LIMIT}.")
        return place

    def _run(self, doing: str, key: str, work: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
        """Do something in the client's own thread. What fails for good is a StoreError that says what to check."""
        from fsspec.asyn import sync

        try:
            fs = self._client()
            result: T = sync(fs.loop, work, fs)
        except TailraceError:
            raise
        except FileNotFoundError as error:
            if doing == "read":
                raise
            lacking = not self._bucket_seen or _codes(error) & _NO_BUCKET
            raise StoreError(self._no_bucket() if lacking else self._explain(doing, key, error)) from error
        except Exception as error:
            raise StoreError(self._explain(doing, key, error)) from error
        return result

    def _client(self) -> Any:
        """The file system, opened at the first use in each process: a forked one has no threads of its parent."""
        with self._lock:
            if self._opened is None or self._opened[0] != os.getpid():
                fs = self._connect()
                self._opened = (os.getpid(), fs, asyncio.Semaphore(self.concurrency))
                self._conditional = self._honours_conditions(fs)
            return self._opened[1]

    async def _patiently(self, request: Callable[..., Awaitable[T]], *args: Any, **options: Any) -> T:
        """Make a request, again where it failed for a reason that may pass."""
        assert self._opened is not None  # noqa: S101  # there is a client, or nobody could ask
        tries = 0
        while True:
            try:
                async with self._opened[2]:
                    answer = await request(*args, **options)
                self._bucket_seen = True
                return answer
            except Exception as error:
                tries += 1
                if tries > self.retries or not self._passes(error):
                    raise
            await asyncio.sleep(min(0.1 * 2**tries, _LONGEST_WAIT) * random.uniform(0.5, 1))  # noqa: S311  # no secret

    def _passes(self, error: BaseException) -> bool:
        """Whether what failed may work in a moment."""
        if isinstance(error, (ConnectionError, TimeoutError, *self._broken())):
            return True
        return status_of(error) in _TRANSIENT or bool(_codes(error) & _TRANSIENT_CODES)

    async def _create(self, fs: Any, place: str, data: bytes) -> bool:
        if self._conditional is True:
            return await self._create_conditionally(fs, place, data)
        if await self._look(fs, place) is not None:
            return False
        if self._conditional is None:
            try:
                if not await self._create_conditionally(fs, place, data):
                    return False
                self._conditional = not await self._create_conditionally(fs, place, data)
            except Exception as error:
                if status_of(error) != 501:
                    raise
                self._conditional = False
            else:
                return True
        await self._patiently(self._put, fs, place, data)
        return await self._look(fs, place) == data

    async def _create_conditionally(self, fs: Any, place: str, data: bytes) -> bool:
        """Create, and tell an object of somebody else's from this one, of which the answer was lost on the way."""
        writer = secrets.token_hex(8)
        try:
            await self._patiently(self._put, fs, place, data, writer=writer)
        except FileExistsError:
            # Whether there was an earlier try is not known here: HTTP clients repeat what broke off by themselves.
            try:
                return await self._patiently(self._writer, fs, place) == writer
            except FileNotFoundError:
                return False  # it has been removed since
        return True

    async def _look(self, fs: Any, place: str) -> bytes | None:
        try:
            return bytes(await self._patiently(self._get, fs, place))
        except FileNotFoundError as error:
            if await self._has_bucket(fs, error):
                return None
            raise

    async def _upload(self, fs: Any, place: str, path: Path, size: int) -> None:
        if size > PART:
            await self._put_large(fs, place, path, size)
            return

        async def put() -> None:
            await self._put(fs, place, path.read_bytes())  # read when it is its turn: memory stays bounded

        await self._patiently(put)

    async def _fetch(self, fs: Any, places: Sequence[str], path: Path, size: int) -> None:
        """Fetch a file from the first of the places that has it; if none has, whoever reads it says so."""
        for place in places:
            await self._download(fs, place, path, size)
            if path.exists():
                return

    async def _download(self, fs: Any, place: str, path: Path, size: int) -> None:
        """Fetch a file in parts. One byte more than it should have is asked for, so that a longer one is noticed."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "xb", buffering=0) as file:

            async def fetch(start: int) -> None:
                stop = min(start + PART, size)
                wanted = (start, stop + (stop == size)) if size else ()
                try:
                    os.pwrite(file.fileno(), await self._get(fs, place, *wanted), start)
                except Exception as error:
                    if status_of(error) != _BEYOND:  # it is shorter than it was: whoever reads it says so
                        raise

            try:
                await all_of(self._patiently(fetch, start) for start in range(0, max(size, 1), PART))
            except FileNotFoundError:
                path.unlink()  # whoever reads it says which one is missing

    def _below(self, prefix: str) -> list[Stored]:
        place = f"{self._root}{prefix}"
        found = self._run("list", prefix, lambda fs: self._patiently(self._list, fs, place))
        start = len(self._root)  # without the "folders" of a web console's
        return [item._replace(key=item.key[start:]) for item in found if not item.key.endswith("/")]

    def _remove(self, keys: Iterable[str]) -> None:
        places = [self._place(key) for key in keys]

        async def drop(fs: Any, place: str) -> None:
            try:
                await self._patiently(self._delete, fs, place)
            except FileNotFoundError as error:
                if not await self._has_bucket(fs, error):
                    raise

        if places:
            self._run("delete", "objects", lambda fs: all_of(drop(fs, place) for place in places))

    # --- messages -----------------------------------------------------------------------------------------------------

    def _no_bucket(self) -> str:
        where = f" at {self.endpoint_url}" if self.endpoint_url else ""
        return (
            f"The store {self.name!r} cannot be used: there is no bucket {self.bucket_name!r}{where}. Correct the "
            "name, or create the bucket: Tailrace creates none."
        )

    def _explain(self, doing: str, key: str, error: BaseException) -> str:
        status, reason = status_of(error), _SECRET.sub(r"\1***", f"{type(error).__name__}: {error}"[:500])
        what = f"Cannot {doing} {key!r} in the store {self.name!r} at {self.root_uri}"
        if status in {401, 403} or isinstance(error, PermissionError) or "Credential" in type(error).__name__:
            advice = (
                f"Check the credentials, which come from {self.credentials}, and that they may read, write, list and "
                f"delete in {self.bucket_name!r}."
            )
        elif status in {301, 307, 400}:
            advice = "Check the bucket's region and the endpoint_url."
        elif self._passes(error):
            advice = (
                f"It was tried {self.retries + 1} times. Check the network and the endpoint, or raise `retries` or "
                "`timeout`."
            )
        else:
            advice = "What the store held before is intact."
        return f"{what}: {reason}. {advice}"


async def all_of(work: Iterable[Coroutine[Any, Any, Any]]) -> None:
    """Do all of it at once. The first failure ends the rest, and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for item in work:
                group.create_task(item)
    except BaseExceptionGroup as failures:
        first = failures.exceptions[0]
        raise first from first.__cause__


def _inside(directory: Path, entry: FileEntry) -> Path:
    """Where a file of an artifact goes; a manifest that somebody has forged takes nothing out of the folder."""
    if "\0" in entry.path or any(part in {"", ".", ".."} for part in entry.path.split("/")):
        raise IntegrityError(f"The manifest names a file {entry.path!r}, which is no path inside an artifact.")
    return directory / entry.path


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def status_of(error: BaseException) -> int | None:
    """The HTTP status behind an error of botocore, gcsfs or Azure's client."""
    for item in _chain(error):
        answer = getattr(item, "response", None)
        if isinstance(answer, dict):
            return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) or None
        code = getattr(item, "status_code", None)  # Azure's
        if type(item).__module__.startswith("gcsfs"):
            code = getattr(item, "code", None)
        if isinstance(code, int):
            return code
        if str(item).startswith("Forbidden: "):  # gcsfs
            return 403
    return None


def _codes(error: BaseException) -> set[str]:
    """The error codes behind an error."""
    found = set()
    for item in _chain(error):
        answer = getattr(item, "response", None)
        if isinstance(answer, dict):
            found.add(str(answer.get("Error", {}).get("Code")))
        found.add(str(getattr(item, "error_code", "")))
    return found
