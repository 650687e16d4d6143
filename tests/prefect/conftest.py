"""A running Prefect for the tests of this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from .services import Prefect

SECRET = "hunter2-hunter2"


@pytest.fixture(scope="session")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    """A server and a worker, up in six seconds. PREFECT_TEST_DATABASE=postgresql changes the database."""
    database = os.environ.get("PREFECT_TEST_DATABASE", "sqlite")
    with Prefect(tmp_path_factory.mktemp("prefect"), database=database, env={"SECRET": SECRET}) as prefect:
        yield prefect
