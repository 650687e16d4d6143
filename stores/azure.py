"""A container of Azure Blob Storage as an artifact store: over adlfs' client."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from ..core.errors import MissingExtra, StoreError
from .listing import Stored
from .object_store import LONGEST_CONNECT, PART, ObjectStore, all_of

__all__ = ["AzureArtifactStore"]

_MOST_BLOCKS = 50_000


class AzureArtifactStore(ObjectStore):
    """Artifacts in a container (``bucket_name``) of an Azure storage account. Needs ``tailrace[azure]``.

    ``endpoint_url`` is that of an emulator or of another cloud, and needs ``AZURE_STORAGE_ACCOUNT_KEY``. See
    :class:`ObjectStore` for ``retries``, ``concurrency`` and ``deduplicate``.
    """

    scheme: ClassVar[str] = "az"
    kind: ClassVar[str] = "azure"
    credentials: ClassVar[str] = "AZURE_STORAGE_* variables or the default Azure credential"

    def __init__(
        self,
        name: str = "azure",
        bucket_name: str = "",
        account_name: str | None = None,
        prefix: str = "tailrace",
        endpoint_url: str | None = None,
        *,
        allow_pickle: str = "never",
        retries: int = 5,
        concurrency: int = 16,
        timeout: float = 60.0,
        deduplicate: bool = False,
    ) -> None:
        self.account_name = account_name
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
        return {**super().to_dict(), "account": self.account_name}

    def _connect(self) -> Any:
        try:
            from adlfs import AzureBlobFileSystem
        except ImportError as error:
            raise MissingExtra("The azure store", "azure", "adlfs") from error
        options: dict[str, Any] = {"account_name": self.account_name}
        if self.endpoint_url:
            options = {"connection_string": self._connection_string()}
        return AzureBlobFileSystem(**options, use_listings_cache=False, skip_instance_cache=True)

    def _connection_string(self) -> str:
        account = self.account_name or os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")
        key = os.environ.get("AZURE_STORAGE_ACCOUNT_KEY")
        if not account or not key:
            raise StoreError(
                f"The store {self.name!r} cannot be used: with an endpoint_url it needs the account's name and "
                "AZURE_STORAGE_ACCOUNT_KEY. Set them, or leave out the endpoint_url and set "
                "AZURE_STORAGE_CONNECTION_STRING."
            )
        return f"AccountName={account};AccountKey={key};BlobEndpoint={self.endpoint_url}"

    @property
    def _once(self) -> dict[str, float]:
        """What goes with each request: it is this store that repeats, not the client."""
        connect = min(self.timeout, LONGEST_CONNECT)
        return {"retry_total": 0, "connection_timeout": connect, "read_timeout": self.timeout}

    def _container(self, fs: Any) -> Any:
        return fs.service_client.get_container_client(self.bucket_name)

    async def _get(self, fs: Any, key: str, start: int | None = None, stop: int | None = None) -> bytes:
        wanted = {} if stop is None else {"offset": start, "length": stop - (start or 0)}
        with _plainly(key):
            stream = await self._container(fs).download_blob(key, **wanted, max_concurrency=1, **self._once)
            data: bytes = await stream.readall()
        return data

    async def _put(self, fs: Any, key: str, data: bytes, *, writer: str | None = None) -> None:
        condition = {"metadata": {"writer": writer}} if writer else {"overwrite": True}
        with _plainly(key):
            await self._container(fs).upload_blob(key, data, **condition, **self._once)

    async def _writer(self, fs: Any, key: str) -> str | None:
        with _plainly(key):
            found = await self._container(fs).get_blob_client(key).get_blob_properties(**self._once)
        writer: str | None = (found.metadata or {}).get("writer")
        return writer

    async def _put_large(self, fs: Any, key: str, path: Path, size: int) -> None:
        """Blocks, then a list of them. Two writers of one content name them alike, so the list of each finds all."""
        from azure.storage.blob import BlobBlock

        blob = self._container(fs).get_blob_client(key)
        part = max(PART, -(-size // _MOST_BLOCKS))
        blocks = {start: f"{part:012x}{start:012x}" for start in range(0, size, part)}

        async def send(start: int) -> None:
            with path.open("rb") as file:
                file.seek(start)
                data = file.read(part)
            with _plainly(key):
                await blob.stage_block(blocks[start], data, **self._once)

        await all_of(self._patiently(send, start) for start in blocks)
        with _plainly(key):
            await self._patiently(blob.commit_block_list, list(map(BlobBlock, blocks.values())), **self._once)

    async def _list(self, fs: Any, prefix: str) -> list[Stored]:
        with _plainly(prefix):
            return [
                Stored(item.name, item.size, item.last_modified.timestamp(), tag=item.etag)
                async for item in self._container(fs).list_blobs(name_starts_with=prefix, **self._once)
            ]

    async def _delete(self, fs: Any, key: str, tag: str | None = None) -> None:
        from azure.core import MatchConditions

        condition = {"etag": tag, "match_condition": MatchConditions.IfNotModified} if tag else {}
        with _plainly(key):
            await self._container(fs).delete_blob(key, **condition, **self._once)

    def _honours_conditions(self, fs: Any) -> bool | None:
        host = fs.service_client.primary_hostname.partition(":")[0]
        return True if host.endswith(".windows.net") else None

    def _broken(self) -> tuple[type[BaseException], ...]:
        from aiohttp import ClientError
        from azure.core.exceptions import IncompleteReadError, ServiceRequestError, ServiceResponseError

        return ServiceRequestError, ServiceResponseError, IncompleteReadError, ClientError


@contextmanager
def _plainly(key: str) -> Iterator[None]:
    """Azure's errors for an object that is there, or not, as Python's own."""
    from azure.core.exceptions import ResourceExistsError, ResourceModifiedError, ResourceNotFoundError

    try:
        yield
    except ResourceNotFoundError as error:
        raise FileNotFoundError(key) from error
    except (ResourceExistsError, ResourceModifiedError) as error:
        raise FileExistsError(key) from error
