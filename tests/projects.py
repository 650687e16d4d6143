"""A project whose pipelines run on a real engine, and one beside it for the same runs on the reference engine."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tailrace import LocalArtifactStore, StepFailed, load_pipeline
from tailrace.adapters.testing import Snapshot, left_behind
from tailrace.catalog.journal import Journal, RunEnd, find_run

CONFIG = """
project: {name: conformance}
plugins:
  orchestrator: {type: inline}
"""
TRACKED = """  experiment_tracker: {type: mlflow}
  model_registry: {type: mlflow}
"""


class Project:
    """A folder with `tailrace.yaml` and a flow file, and one of the same name in `references`.

    Runs are known by their run id: the logical one, which is the engine's own unless another is given.
    """

    def __init__(self, folder: Path, references: Path, *, flow: str, config: str = CONFIG + TRACKED) -> None:
        self.folder, self.reference = folder, references / folder.name
        for place in (self.folder, self.reference):
            (place / ".tailrace").mkdir(parents=True)
            (place / "tailrace.yaml").write_text(config)
            if "mlflow" in config:
                shutil.copyfile(_empty_database(references / ".empty"), place / ".tailrace" / "mlflow.db")
        self.flow = folder / f"{folder.name}_flow.py"
        self.flow.write_text(flow)

    @property
    def store(self) -> LocalArtifactStore:
        return _store(self.folder)

    def journal(self, run_id: str) -> Journal:
        found = find_run(self.store, "conformance", run_id)
        assert found is not None, f"there is no run {run_id!r}"
        return found

    def end(self, run_id: str) -> RunEnd:
        found = self.journal(run_id).end()
        assert found is not None, f"the run {run_id!r} is not closed"
        return found

    def left(self, run_id: str) -> Snapshot:
        """What a run left, all of it loaded and verified."""
        for path in self.store.list_artifacts():
            self.store.load(path)
        return left_behind(self.folder, run_id)

    def differences(self, pipeline: str, run_id: str, params: Mapping[str, Any] | None = None) -> Sequence[str]:
        """Where the run left something else than the reference, which is run first unless it was already."""
        if find_run(_store(self.reference), "conformance", run_id) is None:
            self.run_reference(pipeline, run_id, params)
        return left_behind(self.reference, run_id).differences(self.left(run_id))

    def run_reference(self, pipeline: str, run_id: str, params: Mapping[str, Any] | None = None) -> None:
        config = str(self.reference / "tailrace.yaml")
        try:
            load_pipeline(f"{self.flow}:{pipeline}").run(params, orchestrator="inline", run_id=run_id, config=config)
        except StepFailed:
            return


def _store(folder: Path) -> LocalArtifactStore:
    return LocalArtifactStore(folder / ".tailrace" / "artifacts")


def _empty_database(folder: Path) -> Path:
    """A database as MLflow makes it: a second for the first project alone."""
    from tailrace.routing.mlflow_backend import MlflowBackend

    file = folder / ".tailrace" / "mlflow.db"
    if not file.exists():
        with MlflowBackend(None, None, folder).client("making a database") as client:
            client.search_experiments()
    return file
