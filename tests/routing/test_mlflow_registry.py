"""The MLflow registry on a SQLite file: what is registered is found once, points at the artifact's files, and loads."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tailrace.core.errors import DestinationError
from tailrace.routing.registries.base import Registry
from tailrace.routing.registries.mlflow import MlflowRegistry

from .artifacts import a_run, artifact, at_once

ML_MODEL = """\
flavors:
  python_function: {loader_module: mlflow.sklearn, model_path: model.skops, predict_fn: predict, python_version: 3.11.0}
  sklearn: {pickled_model: model.skops, serialization_format: skops}
"""


pytestmark = pytest.mark.usefixtures("nothing_outside")


def versions(root: Path, name: str = "model") -> dict[str, Any]:
    from mlflow import MlflowClient

    found = MlflowClient(f"sqlite:///{root}/.tailrace/mlflow.db").search_model_versions(f"name = '{name}'")
    return {str(version.version): version for version in found}


@pytest.fixture
def registry(root: Path) -> MlflowRegistry:
    return MlflowRegistry(root=root)


def test_it_is_a_registry(registry: MlflowRegistry) -> None:
    assert isinstance(registry, Registry)


def test_a_version_says_where_it_comes_from(registry: MlflowRegistry, root: Path) -> None:
    ref, manifest = artifact(root, tags={"team": "risk"})
    assert registry.register(ref, manifest, run=a_run(root), tracker_run="f" * 32) == ("model", "1")
    [version] = versions(root).values()
    assert version.source == f"{ref.uri}/{manifest.content}"
    assert version.run_id == "f" * 32
    assert version.status == "READY"
    assert version.tags.pop("tailrace.key").startswith("a1-blake3-000")
    assert version.tags == {
        "team": "risk",
        "tailrace.artifact_id": "a1",
        "tailrace.digest": ref.digest,
        "tailrace.uri": ref.uri,
        "tailrace.run_id": "r1",
        "tailrace.pipeline": "train",
        "tailrace.version": "v1.2",
    }


@pytest.mark.filterwarnings("default:.*Any type hint:UserWarning")  # MLflow warns of itself
def test_a_registered_model_loads_with_mlflows_loaders(
    registry: MlflowRegistry, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow
    import numpy as np
    import skops.io
    from sklearn.linear_model import LinearRegression

    ref, manifest = artifact(root)
    folder = root / "artifacts" / "a1" / manifest.content
    skops.io.dump(LinearRegression().fit([[0.0], [1.0]], [0.0, 2.0]), folder / "model.skops")
    (folder / "MLmodel").write_text(ML_MODEL)
    name, version = registry.register(ref, manifest, run=a_run(root))

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/.tailrace/mlflow.db")
    uri = f"models:/{name}/{version}"
    assert mlflow.sklearn.load_model(uri).predict([[3.0]]) == pytest.approx([6.0])
    assert mlflow.pyfunc.load_model(uri).predict(np.array([[3.0]])) == pytest.approx([6.0])


def test_registering_again_finds_the_version(registry: MlflowRegistry, root: Path) -> None:
    ref, manifest = artifact(root)
    first = registry.register(ref, manifest, run=a_run(root))
    assert registry.register(ref, manifest, run=a_run(root)) == first
    assert MlflowRegistry(root=root).register(ref, manifest, run=a_run(root)) == first
    assert set(versions(root)) == {"1"}


def test_other_content_and_another_artifact_are_other_versions(registry: MlflowRegistry, root: Path) -> None:
    for expected, about in [("1", {}), ("2", {"content": "1" * 64}), ("3", {"artifact_id": "a2"}), ("1", {})]:
        ref, manifest = artifact(root, **about)
        assert registry.register(ref, manifest, run=a_run(root)) == ("model", expected)


def test_the_same_artifact_under_another_name_is_another_version(registry: MlflowRegistry, root: Path) -> None:
    ref, manifest = artifact(root)
    registry.register(ref, manifest, run=a_run(root))
    named = MlflowRegistry(root=root, model_name="it's the model")
    assert named.register(ref, manifest, run=a_run(root)) == ("it's the model", "1")


def test_a_version_that_a_user_deleted_is_registered_anew(registry: MlflowRegistry, root: Path) -> None:
    from mlflow import MlflowClient

    ref, manifest = artifact(root)
    registry.register(ref, manifest, run=a_run(root))
    MlflowClient(f"sqlite:///{root}/.tailrace/mlflow.db").delete_model_version("model", "1")
    registry.register(ref, manifest, run=a_run(root))
    assert len(versions(root)) == 1


def test_a_duplicate_left_by_a_killed_process_is_deleted(registry: MlflowRegistry, root: Path) -> None:
    from mlflow import MlflowClient

    ref, manifest = artifact(root)
    registry.register(ref, manifest, run=a_run(root))
    [first] = versions(root).values()
    MlflowClient(f"sqlite:///{root}/.tailrace/mlflow.db").create_model_version("model", first.source, tags=first.tags)
    assert registry.register(ref, manifest, run=a_run(root)) == ("model", "1")
    assert set(versions(root)) == {"1"}


def test_processes_that_register_the_same_at_once_leave_one_version(root: Path) -> None:
    ref, manifest = artifact(root)
    ended = at_once(root, ref, manifest, "register(ref, manifest, run=run)")
    [(version, _)] = versions(root).items()
    assert ended == {f"model {version}\n"}


@pytest.mark.parametrize("name", ["team/model", "model:v1", "", "  "])
def test_a_name_that_mlflow_does_not_take_is_an_error_that_says_what_to_do(
    registry: MlflowRegistry, root: Path, name: str
) -> None:
    ref, manifest = artifact(root, name=name)
    with pytest.raises(DestinationError, match=f"{name!r}, of {ref.uri}. Set model_name in the stack's model registry"):
        registry.register(ref, manifest, run=a_run(root))
    assert versions(root, "x") == {}


def test_nothing_is_registered_that_does_not_exist(registry: MlflowRegistry, root: Path) -> None:
    ref, manifest = artifact(root)
    shutil.rmtree(root / "artifacts")
    with pytest.raises(DestinationError, match=f"There is nothing to register at {ref.uri}/{manifest.content}"):
        registry.register(ref, manifest, run=a_run(root))
    assert versions(root) == {}


def test_an_artifact_without_a_flavour_is_registered_with_its_uri(registry: MlflowRegistry, root: Path) -> None:
    ref, manifest = artifact(root, version=None)
    registry.register(ref, manifest, run=a_run(root))
    [version] = versions(root).values()
    assert version.tags["tailrace.uri"] == ref.uri
    assert "tailrace.version" not in version.tags


def test_an_artifact_in_an_object_store_is_registered_where_it_is(registry: MlflowRegistry, root: Path) -> None:
    ref, manifest = artifact(root)
    registry.register(replace(ref, uri="s3://bucket/a1"), manifest, run=a_run(root))
    [version] = versions(root).values()
    assert version.source == f"s3://bucket/a1/{manifest.content}"


def test_a_registry_without_a_uri_of_its_own_uses_the_trackers(root: Path) -> None:
    ref, manifest = artifact(root)
    (root / ".tailrace" / "mlflow.db").rename(root / "tracking.db")
    MlflowRegistry(root=root, tracking_uri="sqlite:///tracking.db").register(ref, manifest, run=a_run(root))
    (root / ".tailrace" / "mlflow.db").hardlink_to(root / "tracking.db")
    assert set(versions(root)) == {"1"}


def test_a_registry_with_a_uri_of_its_own_uses_that(root: Path) -> None:
    ref, manifest = artifact(root)
    (root / ".tailrace" / "mlflow.db").rename(root / "registry.db")
    registry = MlflowRegistry(root=root, tracking_uri="http://127.0.0.1:1", registry_uri="sqlite:///registry.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tailrace.routing.mlflow_backend._PATIENCE", 0.1)
        with pytest.raises(DestinationError, match=r"http://127\.0\.0\.1:1 has not answered"):
            registry.register(ref, manifest, run=a_run(root))
    MlflowRegistry(root=root, registry_uri="sqlite:///registry.db").register(ref, manifest, run=a_run(root))
    shutil.copy(root / "registry.db", root / ".tailrace" / "mlflow.db")
    assert set(versions(root)) == {"1"}
