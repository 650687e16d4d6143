"""The MLflow tracker and registry against a real MLflow server, whose rules differ from a database's in places."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tailrace import Prompt
from tailrace.catalog.journal import Journal
from tailrace.core.errors import DestinationError
from tailrace.core.refs import ArtifactRef, Manifest, Run
from tailrace.routing import mlflow_backend
from tailrace.routing.registries.mlflow import MlflowRegistry
from tailrace.routing.trackers.mlflow import MlflowTracker
from tailrace.stores.local import LocalArtifactStore

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server's URI, with a password that it does not ask for. Seven seconds until it answers."""
    home = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{home}/m.db", "--artifacts-destination", f"{home}/artifacts"]
    environment = {**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home), "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    with (home / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=home, env=environment, stdout=log, stderr=log)
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(mlflow_backend, "_PATIENCE", 120.0)
                mlflow_backend._await_server(f"http://127.0.0.1:{port}")
            yield f"http://me:s3cret@127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


def test_a_run_with_metrics_parameters_and_a_registered_model(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import mlflow

    monkeypatch.setenv("HOME", str(tmp_path))
    run = Run("r1", "train", "churn", NOW, "local", "inline", str(tmp_path))
    journal = Journal.of(LocalArtifactStore(tmp_path / "artifacts"), run)
    tracker = MlflowTracker(tracking_uri=server, root=tmp_path, project="churn")
    opened = tracker.open_run(run, journal)
    assert tracker.open_run(run, journal) == opened

    for _ in range(2):
        tracker.log_params(opened, {"train.lr": 0.1, "train.note": ""})
        with pytest.raises(
            DestinationError, match=r"refuses 1 of the metrics.*\n  - 'bad!': .*alphanumerics"
        ) as caught:
            tracker.log_metrics(opened, {"acc": 0.5, "nan": float("nan"), "bad!": 1}, step=3, timestamp=NOW)
        assert "s3cret" not in str(caught.value)
    with pytest.raises(DestinationError, match=r"'train.lr'.*'0.1'.*'0.2'"):
        tracker.log_params(opened, {"train.lr": 0.2})

    model = tmp_path / "artifacts" / "a1" / "content-0"
    model.mkdir(parents=True)
    (model / "data.json").write_text("{}")
    ref = ArtifactRef("a1", model.parent.as_uri(), "blake3:0", "", "Model", "model")
    manifest = Manifest("a1", "model", "Model", "json", 1, "blake3:0", model.name, (), NOW.isoformat())
    registry = MlflowRegistry(tracking_uri=server, root=tmp_path)
    with pytest.raises(DestinationError, match="takes no model from the local folder"):
        registry.register(ref, manifest, run=run)
    for _ in range(2):
        assert registry.register(ref, manifest, run=run, tracker_run=opened) == ("model", "1")
    other = model.rename(model.with_name("content-1"))
    (other / "data.json").write_text("[]")
    changed = replace(manifest, digest="blake3:1", content="content-1")
    assert registry.register(replace(ref, digest="blake3:1"), changed, run=run, tracker_run=opened) == ("model", "2")
    for _ in range(2):
        tracker.close_run(opened, "completed")
    assert capfd.readouterr() == ("", "")

    client = mlflow.MlflowClient(server)
    found = client.get_run(opened)
    assert found.info.status == "FINISHED"
    assert found.data.params == {"train.lr": "0.1", "train.note": ""}
    assert [(point.step, point.value) for point in client.get_metric_history(opened, "acc")] == [(3, 0.5)]
    assert len(client.get_metric_history(opened, "nan")) == 1
    assert tracker.describe(opened) == (
        f"{server.replace('me:s3cret@', '')}/#/experiments/{found.info.experiment_id}/runs/{opened}"
    )
    for version, content in [("1", "{}"), ("2", "[]")]:
        source = client.get_model_version("model", version).source
        copied = mlflow.artifacts.download_artifacts(source, tracking_uri=server, dst_path=str(tmp_path / version))
        assert (Path(copied) / "data.json").read_text() == content


def test_a_prompt_is_registered_from_a_local_store(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import mlflow

    monkeypatch.setenv("HOME", str(tmp_path))
    run = Run("r1", "train", "churn", NOW, "local", "inline", str(tmp_path))
    ref = ArtifactRef("p1", (tmp_path / "p1").as_uri(), "blake3:0", "", "Prompt", "greeting")
    manifest = Manifest("p1", "greeting", "Prompt", "plain", 1, "blake3:0", "content-0", (), NOW.isoformat())
    registry = MlflowRegistry(tracking_uri=server, root=tmp_path)
    prompts = [Prompt("Hello {name}, {{name}}!"), Prompt([{"role": "user", "content": "{{ x }} {name}"}])]
    for version, prompt in enumerate(prompts, 1):
        new = replace(ref, digest=f"blake3:{version}")
        for _ in range(2):
            assert registry.register_prompt(prompt, new, manifest, run=run) == ("greeting", str(version))
        loaded = mlflow.MlflowClient(server).get_prompt_version("greeting", version)
        assert loaded.format(name="Eve") == prompt.render(name="Eve")
        assert loaded.tags["tailrace.digest"] == new.digest
    model = replace(ref, id="m1", uri="s3://bucket/m1"), replace(manifest, type="Model")
    with pytest.raises(DestinationError, match="already taken by a prompt"):
        registry.register(*model, run=run)
    assert capfd.readouterr() == ("", "")
