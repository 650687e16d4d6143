"""What the tests of MLflow's tracker and registry share: a database made once, and homes that stay empty."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tailrace.routing.mlflow_backend import MlflowBackend


@pytest.fixture
def nothing_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty home and working directory, which are empty afterwards."""
    places = [tmp_path / "home", tmp_path / "cwd"]
    for place in places:
        place.mkdir()
    monkeypatch.setenv("HOME", str(places[0]))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(places[0]))
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.chdir(places[1])
    yield
    assert [list(place.iterdir()) for place in places] == [[], []]


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database as MLflow's migrations leave it; they take a second."""
    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowBackend(f"sqlite:///{file}", None, file.parent)._prepare(f"sqlite:///{file}")
    return file


@pytest.fixture
def root(tmp_path: Path, empty_database: Path) -> Path:
    folder = tmp_path / "project"
    (folder / ".tailrace").mkdir(parents=True)
    shutil.copy(empty_database, folder / ".tailrace" / "mlflow.db")
    return folder
