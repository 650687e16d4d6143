"""Every test runs in a folder of its own, and every home that a library might write to is a temporary one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples each time, so that a failure comes from a change; `--hypothesis-profile=default` looks for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

# Before any test module imports prefect or airflow, whose settings are read once.
_HOMES = tempfile.mkdtemp(prefix="tailrace-tests-")
os.environ["PREFECT_HOME"] = f"{_HOMES}/prefect"
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["AIRFLOW_HOME"] = f"{_HOMES}/airflow"
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__USAGE_DATA_COLLECTION__ENABLED"] = "False"
os.environ["DO_NOT_TRACK"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"


def pytest_unconfigure() -> None:
    """Leave nothing behind."""
    shutil.rmtree(_HOMES, ignore_errors=True)


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project folder, which is the working directory, with nothing of the user's environment in the way."""
    for name in [name for name in os.environ if name.startswith("TAILRACE_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A Prefect server for the whole session, with a database of its own."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield
