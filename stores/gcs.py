"""A bucket of Google Cloud Storage as an artifact store: over gcsfs' client."""

from __future__ import annotations

import functools
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from .listing import Stored
from .object_store import LONGEST_CONNECT, PART, ObjectStore

__all__ = ["GCSArtifactStore"]


class GCSArtifactStore(ObjectStore):
    """Artifacts in a bucket of Google Cloud Storage. Credentials are the application default ones.

    ``endpoint_url`` is that of an emulator; one of plain http is asked without credentials, which nobody else should
    read. See :class:`ObjectStore` for ``retries``, ``concurrency`` and ``deduplicate``.
    """

    scheme: ClassVar[str] = "gs"
    kind: ClassVar[str] = "gcs"
    credentials: ClassVar[str] = "GOOGLE_APPLICATION_CREDENTIALS, gcloud or the machine's service account"

    def __init__(
        self,
        name: str = "gcs",
        bucket_name: str = "",
        project_id: str | None = None,
        prefix: str = "tailrace",
        endpoint_url: str | None = None,
        *,
        allow_pickle: str = "never",
        retries: int = 5,
        concurrency: int = 16,
        timeout: float = 60.0,
        deduplicate: bool = False,
    ) -> None:
        self.project_id = project_id
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
        return {**super().to_dict(), "project": self.project_id}

    def _connect(self) -> Any:
        from aiohttp import ClientTimeout
        from gcsfs.core import GCSFileSystem  # the plain one: the other asks Google for the bucket's type, always

        plain = (self.endpoint_url or "").startswith("http:")
        fs = GCSFileSystem(
            project=self.project_id or "",
            endpoint_url=self.endpoint_url,
            token="anon" if plain else None,
            requests_timeout=ClientTimeout(
                total=None, sock_connect=min(self.timeout, LONGEST_CONNECT), sock_read=self.timeout
            ),
            use_listings_cache=False,
            skip_instance_cache=True,
        )
        fs._request = functools.partial(GCSFileSystem._request.__wrapped__, fs)  # without its own repeating
        return fs

    def _path(self, key: str) -> str:
        return f"{self.bucket_name}/{key}"

    async def _get(self, fs: Any, key: str, start: int | None = None, stop: int | None = None) -> bytes:
        data: bytes = await fs._cat_file(self._path(key), start=start, end=stop)
        return data

    async def _put(self, fs: Any, key: str, data: bytes, *, writer: str | None = None) -> None:
        condition = {"mode": "create", "metadata": {"writer": writer}} if writer else {}
        await fs._pipe_file(self._path(key), data, **condition)

    async def _writer(self, fs: Any, key: str) -> str | None:
        found = await fs._call("GET", "b/{}/o/{}", self.bucket_name, key, json_out=True)
        writer: str | None = found.get("metadata", {}).get("writer")
        return writer

    async def _put_large(self, fs: Any, key: str, path: Path, size: int) -> None:
        await self._patiently(fs._put_file, str(path), self._path(key), chunksize=PART)

    async def _list(self, fs: Any, prefix: str) -> list[Stored]:
        found: list[Stored] = []
        page: dict[str, str] = {}
        while True:
            answer = await fs._call("GET", "b/{}/o", self.bucket_name, prefix=prefix, json_out=True, **page)
            found += map(_stored, answer.get("items", ()))
            if "nextPageToken" not in answer:
                return found
            page = {"pageToken": answer["nextPageToken"]}

    async def _delete(self, fs: Any, key: str, tag: str | None = None) -> None:
        condition = {"ifGenerationMatch": tag} if tag else {}
        await fs._call("DELETE", "b/{}/o/{}", self.bucket_name, key, **condition)

    async def _has_bucket(self, fs: Any, error: BaseException) -> bool:
        """Google answers alike for an object and a bucket that are not there, so the bucket is asked for, once."""
        if not self._bucket_seen:
            try:
                await self._patiently(fs._call, "GET", "b/{}/o", self.bucket_name, maxResults=1)
            except FileNotFoundError:
                return False
        return True

    def _broken(self) -> tuple[type[BaseException], ...]:
        from aiohttp import ClientError
        from requests.exceptions import RequestException

        return ClientError, RequestException


def _stored(item: dict[str, Any]) -> Stored:
    modified = datetime.fromisoformat(item["updated"]).timestamp()
    return Stored(item["name"], int(item["size"]), modified, tag=item.get("generation"))
