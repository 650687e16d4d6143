"""An S3 bucket, or one of a server that speaks its protocol, as an artifact store: over s3fs' client."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from .listing import Stored
from .object_store import LONGEST_CONNECT, PART, ObjectStore, all_of, status_of

__all__ = ["S3ArtifactStore"]

_MOST_PARTS = 10_000
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
        from fsspec.asyn import sync
        from s3fs import S3FileSystem

        fs = S3FileSystem(
            endpoint_url=self.endpoint_url,
            client_kwargs={"region_name": self.region} if self.region else {},
            config_kwargs={
                "retries": {"total_max_attempts": 1},
                "connect_timeout": min(self.timeout, LONGEST_CONNECT),
                "read_timeout": self.timeout,
                "max_pool_connections": self.concurrency,
            },
            use_listings_cache=False,
            skip_instance_cache=True,
        )
        fs.retries = 1
        sync(fs.loop, fs.set_session)
        return fs

    def _honours_conditions(self, fs: Any) -> bool | None:
        host = urlsplit(fs._s3.meta.endpoint_url).hostname or ""
        return True if host.endswith(_AMAZON) else None

    async def _get(self, fs: Any, key: str, start: int | None = None, stop: int | None = None) -> bytes:
        wanted = {} if stop is None else {"Range": f"bytes={start}-{stop - 1}"}
        answer = await fs._call_s3("get_object", Bucket=self.bucket_name, Key=key, **wanted)
        async with answer["Body"] as body:
            data: bytes = await body.read()
        return data

    async def _put(self, fs: Any, key: str, data: bytes, *, writer: str | None = None) -> None:
        condition = {"IfNoneMatch": "*", "Metadata": {"writer": writer}} if writer else {}
        try:
            await fs._call_s3("put_object", Bucket=self.bucket_name, Key=key, Body=data, **condition)
        except OSError as error:
            if writer and status_of(error) == 412:
                raise FileExistsError(key) from error
            raise

    async def _writer(self, fs: Any, key: str) -> str | None:
        head = await fs._call_s3("head_object", Bucket=self.bucket_name, Key=key)
        found: str | None = head["Metadata"].get("writer")
        return found

    async def _put_large(self, fs: Any, key: str, path: Path, size: int) -> None:
        where = {"Bucket": self.bucket_name, "Key": key}
        part = max(PART, -(-size // _MOST_PARTS))
        upload = (await self._patiently(fs._call_s3, "create_multipart_upload", **where))["UploadId"]
        tags: dict[int, str] = {}

        async def send(number: int) -> None:
            with path.open("rb") as file:
                file.seek((number - 1) * part)
                data = file.read(part)
            answer = await fs._call_s3("upload_part", **where, UploadId=upload, PartNumber=number, Body=data)
            tags[number] = answer["ETag"]

        try:
            await all_of(self._patiently(send, number) for number in range(1, -(-size // part) + 1))
            parts = [{"PartNumber": number, "ETag": tags[number]} for number in sorted(tags)]
            await self._complete(fs, where, upload, parts, size)
        except BaseException:
            with suppress(Exception):  # what went wrong before is what matters
                await fs._call_s3("abort_multipart_upload", **where, UploadId=upload)
            raise

    async def _complete(self, fs: Any, where: dict[str, str], upload: str, parts: list[Any], size: int) -> None:
        """Make one object of the parts. A second try does not find the upload if the first one's answer was lost."""
        try:
            done = {"UploadId": upload, "MultipartUpload": {"Parts": parts}}
            await self._patiently(fs._call_s3, "complete_multipart_upload", **where, **done)
        except FileNotFoundError:
            head = await self._patiently(fs._call_s3, "head_object", **where)
            if head["ContentLength"] != size:
                raise

    async def _list(self, fs: Any, prefix: str) -> list[Stored]:
        found = fs._iterdir(self.bucket_name, delimiter="", prefix=prefix)
        return [
            Stored(item["Key"].partition("/")[2], item["Size"], item["LastModified"].timestamp())
            async for item in found
        ]

    async def _delete(self, fs: Any, key: str, tag: str | None = None) -> None:
        await fs._call_s3("delete_object", Bucket=self.bucket_name, Key=key)

    def _broken(self) -> tuple[type[BaseException], ...]:
        from aiohttp import ClientError
        from botocore.exceptions import ConnectionError as NotConnected
        from botocore.exceptions import HTTPClientError
        from botocore.parsers import ResponseParserError

        return HTTPClientError, NotConnected, ResponseParserError, ClientError
