"""The example pipeline with its artifacts in S3, GCS and Azure: the same tree and digests as in a local folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tailrace import ArtifactStore, build_artifact_store, load_pipeline
from tailrace.stores.verify import verify

from .buckets import CLASSES, server_of

EXAMPLE = Path(__file__).parents[2] / "flows" / "breast_cancer.py"

pytest.importorskip("sklearn")


def ran(store: ArtifactStore, settings: str, project: Path) -> dict[str, str]:
    """Runs the example on a store; the digests of its artifacts by path, each verified and loaded."""
    (project / "tailrace.yaml").write_text(
        f"project: {{name: health}}\nplugins: {{orchestrator: {{type: inline}}, artifact_store: {settings}}}\n"
    )
    result = load_pipeline(str(EXAMPLE)).run(run_id="example")
    assert result.state == "completed"
    digests = {}
    for path in store.list_artifacts():
        assert verify(store, path).damage == ()
        store.load(path)
        digests[path.partition("/data/")[2]] = store.manifest(path).digest
    assert min(result.outputs["metrics"].data.values()) > 0.9
    return digests


def keys(store: ArtifactStore) -> set[str]:
    return {key.partition("/example/")[2] for key in store.walk(contents=True) if "/example/" in key}


@pytest.mark.parametrize("kind", CLASSES)
def test_the_example_leaves_in_a_bucket_what_it_leaves_in_a_folder(
    kind: str, request: pytest.FixtureRequest, project: Path
) -> None:
    server = server_of(request, kind)
    bucket = server.bucket()
    far = CLASSES[kind](bucket_name=bucket, prefix="lab", endpoint_url=server.url)
    near = build_artifact_store(project / "near")
    settings = f'{{type: {kind}, bucket: {bucket}, prefix: lab, endpoint_url: "{server.url}"}}'
    there = ran(far, settings, project)
    here = ran(near, "{type: local, path: near}", project)
    assert len(here) == 10
    assert there == here
    assert keys(far) == keys(near)
