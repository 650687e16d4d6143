"""The three kinds of buckets, each on a server of this machine: what is to hold for one is to hold for all."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from tailrace import ArtifactStore, AzureArtifactStore, GCSArtifactStore, S3ArtifactStore

from .servers import Server

__all__ = ["CLASSES", "new_bucket", "server_of"]

CLASSES: dict[str, Callable[..., ArtifactStore]] = {
    "s3": S3ArtifactStore,
    "gcs": GCSArtifactStore,
    "azure": AzureArtifactStore,
}
"""By the kind, which is also the name of the fixture that has the server."""


def server_of(request: pytest.FixtureRequest, kind: str) -> Server:
    """The session's server of a kind; the test is skipped where it is not installed."""
    server: Server = request.getfixturevalue(kind)
    return server


def new_bucket(request: pytest.FixtureRequest, kind: str) -> Callable[..., Any]:
    """Opens the store of one new bucket, with options."""
    server = server_of(request, kind)
    return functools.partial(CLASSES[kind], bucket_name=server.bucket(), endpoint_url=server.url)
