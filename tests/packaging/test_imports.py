"""What importing the package costs and gives."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "airflow cloudpickle fsspec mlflow numpy orjson pandas prefect pyarrow pydantic rich sklearn sqlalchemy typer yaml"
)

PUBLIC = """
    step pipeline Pipeline context use_stack load_pipeline
    Asset Model Dataset Metrics Parameters FeatureSet Report Artifact Prompt Checkpoint
    ArtifactRef RunResult
    ArtifactStore LocalArtifactStore MemoryArtifactStore build_artifact_store
    materializer_for current_run start_run
    TailraceError IntegrityError MaterializationError ConfigError ArtifactNotFound
""".split()  # noqa: SIM905  # read as the list in the documentation is


def _python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("module", ["tailrace", "tailrace.core"])
def test_importing_loads_no_heavy_library(module: str) -> None:
    assert _python(f"import sys, {module}; print(sorted(set({HEAVY!r}.split()) & set(sys.modules)))") == "[]"


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_importable_and_listed(name: str) -> None:
    import tailrace

    assert getattr(tailrace, name) is not None
    assert name in tailrace.__all__
    assert name in dir(tailrace)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    import tailrace

    name = "no_such_name"
    with pytest.raises(AttributeError, match=name):
        getattr(tailrace, name)


@pytest.mark.parametrize("name", ["Model", "Dataset", "Metrics", "Parameters", "step", "Pipeline"])
def test_the_package_and_its_core_export_the_same_objects(name: str) -> None:
    import tailrace
    import tailrace.core

    assert getattr(tailrace, name) is getattr(tailrace.core, name)
