"""Servers that are started when a test first asks for them, and end with the session; one of each per worker."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from .servers import ENVIRONMENT, Missing, Server, azurite, fake_gcs, localstack, moto


@pytest.fixture(scope="session")
def credentials() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        yield


def _serve(start: Callable[[], AbstractContextManager[Server]]) -> Iterator[Server]:
    try:
        running = start()
        server = running.__enter__()
    except Missing as reason:
        pytest.skip(str(reason))
    try:
        yield server
    finally:
        running.__exit__(None, None, None)


@pytest.fixture(scope="session")
def s3(credentials: None) -> Iterator[Server]:
    python = os.environ.get("LOCALSTACK_PYTHON")
    yield from _serve(functools.partial(localstack, python) if python else moto)


@pytest.fixture(scope="session")
def gcs(credentials: None) -> Iterator[Server]:
    yield from _serve(fake_gcs)


@pytest.fixture(scope="session")
def azure(credentials: None) -> Iterator[Server]:
    yield from _serve(azurite)
