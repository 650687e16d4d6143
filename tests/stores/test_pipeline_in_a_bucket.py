"""A whole pipeline whose artifacts and records are in a bucket: the same tree and digests as in a local folder."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from tailrace import (
    ArtifactRef,
    ArtifactStore,
    Dataset,
    Metrics,
    Model,
    Pipeline,
    RunResult,
    build_artifact_store,
    step,
)
from tailrace.catalog.index import Catalog
from tailrace.catalog.journal import find_run

from .buckets import CLASSES, server_of


@step(outputs=["rows"])
def gauge() -> Dataset:
    return Dataset.create([{"day": day, "level": day / 2} for day in range(50)], "rows")


@step(inputs=["rows"], outputs=["model"])
def fit(rows: Dataset) -> Model:
    levels = [row["level"] for row in rows.data]
    return Model.create({"mean": sum(levels) / len(levels)}, "model")


@step(inputs=["rows", "model"], outputs=["metrics"])
def judge(rows: Dataset, model: Model) -> Metrics:
    return Metrics.create({"rows": len(rows.data), "mean": model.data["mean"]}, name="metrics")


def rivers() -> Pipeline:
    return Pipeline("rivers").add_step(gauge).add_step(fit).add_step(judge)


def ref_of(result: RunResult, output: str) -> ArtifactRef:
    ref = result.outputs.ref(output)
    assert isinstance(ref, ArtifactRef)
    return ref


def written(store: ArtifactStore) -> set[str]:
    return {key.partition("/data/")[2] for key in store.walk(contents=True) if "/data/" in key}


@pytest.fixture(params=["s3", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("gcs", "azure"))])
def place(request: pytest.FixtureRequest, project: Path) -> ArtifactStore:
    server = server_of(request, request.param)
    bucket = server.bucket()
    text = f"""
        plugins:
          orchestrator: {{type: inline}}
          artifact_store: {{type: {request.param}, bucket: {bucket}, prefix: water, endpoint_url: "{server.url}"}}
          experiment_tracker: {{type: mlflow}}
    """
    (project / "tailrace.yaml").write_text(textwrap.dedent(text))
    return CLASSES[request.param](bucket_name=bucket, prefix="water", endpoint_url=server.url)


def test_a_pipeline_leaves_in_a_bucket_what_it_leaves_in_a_folder(place: ArtifactStore, tmp_path: Path) -> None:
    result = rivers().run(run_id="first")
    assert result.outputs["metrics"].data == {"rows": 50, "mean": 12.25}
    ref = ref_of(result, "metrics")
    assert ref.uri.startswith(f"{place.root_uri}/default/")
    assert place.load(ref).data == {"rows": 50, "mean": 12.25}

    journal = find_run(place, "default", "first")
    assert journal is not None
    assert {task.step: task.state for task in journal.tasks()} == dict.fromkeys(["gauge", "fit", "judge"], "completed")
    end = journal.end()
    assert end is not None
    assert end.state == "completed"

    (tmp_path / "tailrace.yaml").write_text("plugins: {orchestrator: {type: inline}}")
    local = rivers().run(run_id="first", config=str(tmp_path / "tailrace.yaml"))
    assert [ref_of(local, name).digest for name in ("rows", "model", "metrics")] == [
        ref_of(result, name).digest for name in ("rows", "model", "metrics")
    ]
    assert written(build_artifact_store(tmp_path / ".tailrace" / "artifacts")) == written(place)


def test_the_catalog_is_rebuilt_from_the_bucket(place: ArtifactStore) -> None:
    result = rivers().run(run_id="first")
    with Catalog("sqlite://", {"default": place}) as catalog:
        catalog.sync()
        row = catalog.artifact(ref_of(result, "metrics").uri)
        assert row.digest == ref_of(result, "metrics").digest


def test_a_run_that_is_asked_for_again_writes_nothing_anew(place: ArtifactStore) -> None:
    first = rivers().run(run_id="first")
    before = {key: place.read(key) for key in place.walk(contents=True) if "/data/" in key}
    again = rivers().run(run_id="first")
    assert ref_of(again, "model") == ref_of(first, "model")
    assert {key: place.read(key) for key in place.walk(contents=True) if "/data/" in key} == before
