"""An S3 bucket, or one of a server that speaks its protocol, as an artifact store: over botocore, in threads.

Why not over an asynchronous client: see ``docs/decisions/0017-object-store-clients.md``.
"""

from __future__ import annotations

import asyncio
import io
import mmap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast
from urllib.parse import urlsplit

from .listing import Stored
from .object_store import LONGEST_CONNECT, PART, ObjectStore, all_of, status_of

__all__ = ["S3ArtifactStore"]

T = TypeVar("T")

_MOST_PARTS = 10_000
_PIECE = 256 << 10  # bytes that are read at once
_AT_ONCE = 64 << 10  # bytes that are sent without asking first whether the server will take them
_AMAZON = (".amazonaws.com", ".amazonaws.com.cn")


class S3ArtifactStore(ObjectStore):
    """Artifacts in an S3 bucket. Credentials come from the environment, the profile or the machine's role.

    ``endpoint_url`` is that of a compatible server. See :class:`ObjectStore` for ``retries``, ``concurrency``
    and ``deduplicate``.
    """

    scheme: ClassVar[str] = "s3"
    kind: ClassVar[str] = "s3"
    credentials: ClassVar[str] = "AWS_* variables, AWS_PROFILE, ~/.aws or the machine's role"

    def __init__(
        self,
        name: str = "s3",
        bucket_name: str = "",
        region: str | None = None,
        prefix: str = "tailrace",
        endpoint_url: str | None = None,
        *,
        allow_pickle: str = "never",
        retries: int = 5,
        concurrency: int = 16,
        timeout: float = 60.0,
        deduplicate: bool = False,
    ) -> None:
        self.region = region
        super().__init__(
            name,
            bucket_name,
            prefix,
            endpoint_url,
            allow_pickle=allow_pickle,
            retries=retries,
            concurrency=concurrency,
            timeout=timeout,
            deduplicate=deduplicate,
        )

    def to_dict(self) -> dict[str, Any]:
        """The store's settings, without secrets."""
        return {**super().to_dict(), "region": self.region}

    def _connect(self) -> Any:
        import botocore.handlers
        import botocore.session
        from botocore.config import Config

        settings = Config(
            retries={"total_max_attempts": 1},
            connect_timeout=min(self.timeout, LONGEST_CONNECT),
            read_timeout=self.timeout,
            max_pool_connections=self.concurrency,
        )
        s3 = botocore.session.get_session().create_client(
            "s3", region_name=self.region, endpoint_url=self.endpoint_url, config=settings
        )
        # Bytes that are made a file wait for the server's "100 Continue": a round trip more for each small object.
        if makes_file := getattr(botocore.handlers, "convert_body_to_file_like_object", None):
            s3.meta.events.unregister("before-parameter-build.s3.PutObject", makes_file)
        return _Client(s3, self.bucket_name, self.concurrency)

    def _honours_conditions(self, fs: Any) -> bool | None:
        host = urlsplit(fs.s3.meta.endpoint_url).hostname or ""
        return True if host.endswith(_AMAZON) else None

    async def _get(self, fs: Any, key: str, start: int | None = None, stop: int | None = None) -> bytes | memoryview:
        wanted = {} if stop is None else {"Range": f"bytes={start}-{stop - 1}"}

        def get() -> bytes | memoryview:
            with closing(fs.request("get_object", Key=key, **wanted)["Body"]) as body:
                if stop is None:
                    return cast(bytes, body.read())
                data = mmap.mmap(-1, stop - (start or 0))  # goes back at once; a thread's heap keeps what it has
                while piece := body.read(_PIECE):
                    data.write(piece)
            return memoryview(data)[: data.tell()]

        return cast("bytes | memoryview", await fs.beside(get))

    async def _put(self, fs: Any, key: str, data: bytes, *, writer: str | None = None) -> None:
        condition = {"IfNoneMatch": "*", "Metadata": {"writer": writer}} if writer else {}
        body = data if len(data) <= _AT_ONCE else io.BytesIO(data)
        try:
            await fs.ask("put_object", Key=key, Body=body, **condition)
        except Exception as error:
            if writer and status_of(error) == 412:
                raise FileExistsError(key) from error
            raise

    async def _writer(self, fs: Any, key: str) -> str | None:
        head = await fs.ask("head_object", Key=key)
        found: str | None = head["Metadata"].get("writer")
        return found

    async def _put_large(self, fs: Any, key: str, path: Path, size: int) -> None:
        part = PART * -(-size // (PART * _MOST_PARTS))  # begins where memory can be mapped
        begun = await self._patiently(fs.ask, "create_multipart_upload", Key=key)
        upload = {"Key": key, "UploadId": begun["UploadId"]}
        tags: dict[int, str] = {}

        def send(number: int) -> None:
            start = (number - 1) * part
            length = min(part, size - start)
            with (
                path.open("rb") as file,
                mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ, offset=start) as body,
            ):
                tags[number] = fs.request("upload_part", **upload, PartNumber=number, Body=body)["ETag"]

        try:
            await all_of(self._patiently(fs.beside, send, number) for number in range(1, -(-size // part) + 1))
            parts = [{"PartNumber": number, "ETag": tags[number]} for number in sorted(tags)]
            await self._complete(fs, upload, parts, size)
        except BaseException:
            with suppress(Exception):  # what went wrong before is what matters
                await fs.ask("abort_multipart_upload", **upload)
            raise

    async def _complete(self, fs: Any, upload: dict[str, str], parts: list[Any], size: int) -> None:
        """Make one object of the parts. A second try does not find the upload if the first one's answer was lost."""
        try:
            await self._patiently(fs.ask, "complete_multipart_upload", **upload, MultipartUpload={"Parts": parts})
        except FileNotFoundError:
            head = await self._patiently(fs.ask, "head_object", Key=upload["Key"])
            if head["ContentLength"] != size:
                raise

    async def _list(self, fs: Any, prefix: str) -> list[Stored]:
        def pages() -> list[Stored]:
            found: list[Stored] = []
            page: dict[str, str] = {}
            while True:
                answer = fs.request("list_objects_v2", Prefix=prefix, **page)
                found += map(_stored, answer.get("Contents", ()))
                if not answer.get("NextContinuationToken"):
                    return found
                page = {"ContinuationToken": answer["NextContinuationToken"]}

        return cast("list[Stored]", await fs.beside(pages))

    async def _delete(self, fs: Any, key: str, tag: str | None = None) -> None:
        await fs.ask("delete_object", Key=key)

    def _broken(self) -> tuple[type[BaseException], ...]:
        from botocore.exceptions import ConnectionError as NotConnected
        from botocore.exceptions import HTTPClientError, IncompleteReadError
        from botocore.parsers import ResponseParserError

        return HTTPClientError, NotConnected, IncompleteReadError, ResponseParserError


class _Client:
    """botocore's client of one bucket, with a thread for each request that may be under way."""

    def __init__(self, s3: Any, bucket: str, threads: int) -> None:
        from fsspec.asyn import get_loop

        self.s3, self.bucket = s3, bucket
        self.loop = get_loop()
        self.threads = ThreadPoolExecutor(threads, "tailrace-s3")

    def request(self, name: str, **options: Any) -> Any:
        """Make a request; raises ``FileNotFoundError`` for a 404."""
        try:
            return getattr(self.s3, name)(Bucket=self.bucket, **options)
        except Exception as error:
            if status_of(error) == 404:
                raise FileNotFoundError(str(error)) from error
            raise

    async def beside(self, work: Callable[..., T], *args: Any) -> T:
        """Do something in a thread."""
        return await asyncio.wrap_future(self.threads.submit(work, *args))

    async def ask(self, name: str, **options: Any) -> Any:
        """:meth:`request`, in a thread."""
        return await self.beside(lambda: self.request(name, **options))


def _stored(item: dict[str, Any]) -> Stored:
    return Stored(item["Key"], item["Size"], item["LastModified"].timestamp())
