"""Projects in the DAG folder of a running Airflow, and the same runs of the same pipelines on the reference engine."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tailrace import LocalArtifactStore, StepFailed, load_pipeline
from tailrace.adapters.testing import Snapshot, left_behind
from tailrace.catalog.journal import Journal, RunEnd, find_run
from tailrace.core.results import TaskRecord

from .services import Airflow

CONFIG = """
project: {name: conformance}
plugins:
  orchestrator: {type: inline}
"""
TRACKED = """  experiment_tracker: {type: mlflow}
  model_registry: {type: mlflow}
"""
DAG_FILE = """
from pathlib import Path
from tailrace import load_pipeline
from tailrace.adapters.airflow import artifact_asset, to_dag

def pipeline(name):
    return load_pipeline(f"{Path(__file__).parent}/NAME_flow.py:{name}")

"""


class Project:
    """A folder of the DAG folder with `tailrace.yaml`, a flow file and a DAG file, and one beside it for the reference.

    Runs are known by their run id: the logical one, which is Airflow's own unless another is given.
    """

    def __init__(self, airflow: Airflow, name: str, *, flow: str, dags: str, tracked: bool = True) -> None:
        self.airflow, self.name = airflow, name
        self.folder, self.reference = airflow.dags / name, airflow.folder / "reference" / name
        for folder in (self.folder, self.reference):
            (folder / ".tailrace").mkdir(parents=True)
            (folder / "tailrace.yaml").write_text(CONFIG + (TRACKED if tracked else ""))
            if tracked:
                shutil.copyfile(_empty_database(airflow.folder / "empty"), folder / ".tailrace" / "mlflow.db")
        self.flow = self.folder / f"{name}_flow.py"
        self.flow.write_text(flow)
        airflow.write_dag(f"{name}/{name}_dags.py", DAG_FILE.replace("NAME", name) + dags)

    def succeeds(self, dag_id: str, native: str, timeout: float = 60) -> None:
        """Wait for a DAG run; unless it succeeds, the logs of what failed are in the error."""
        if self.airflow.wait(dag_id, native, timeout) != "success":
            failed = [task for task in self.airflow.task_instances(dag_id, native) if task["state"] == "failed"]
            logs = [
                f"{task['task_id']}, try {number}:\n{self.airflow.logs(dag_id, native, task['task_id'], number)}"
                for task in failed
                for number in range(1, task["try_number"] + 1)
            ]
            raise AssertionError("\n".join([f"{dag_id} failed: {self.airflow.task_states(dag_id, native)}", *logs]))

    @property
    def store(self) -> LocalArtifactStore:
        return LocalArtifactStore(self.folder / ".tailrace" / "artifacts")

    def journal(self, run_id: str) -> Journal:
        found = find_run(self.store, "conformance", run_id)
        assert found is not None, f"there is no run {run_id!r}"
        return found

    def end(self, run_id: str) -> RunEnd:
        found = self.journal(run_id).end()
        assert found is not None, f"the run {run_id!r} is not closed"
        return found

    def tasks(self, run_id: str) -> dict[str, TaskRecord]:
        """By step; of an item by step, `@` and index."""
        found = self.journal(run_id).tasks()
        return {task.step if task.map_index is None else f"{task.step}@{task.map_index}": task for task in found}

    def left(self, run_id: str) -> Snapshot:
        """What a run left, all of it loaded and verified."""
        for path in self.store.list_artifacts():
            self.store.load(path)
        return left_behind(self.folder, run_id)

    def differences(self, pipeline: str, run_id: str, params: Mapping[str, Any] | None = None) -> Sequence[str]:
        """Where the run left something else than the reference, which is run first unless it was already."""
        if find_run(LocalArtifactStore(self.reference / ".tailrace" / "artifacts"), "conformance", run_id) is None:
            self.run_reference(pipeline, run_id, params)
        return left_behind(self.reference, run_id).differences(self.left(run_id))

    def run_reference(self, pipeline: str, run_id: str, params: Mapping[str, Any] | None = None) -> None:
        config = str(self.reference / "tailrace.yaml")
        try:
            load_pipeline(f"{self.flow}:{pipeline}").run(params, orchestrator="inline", run_id=run_id, config=config)
        except StepFailed:
            return


def _empty_database(folder: Path) -> Path:
    """A database as MLflow makes it: a second for the first project alone."""
    from tailrace.routing.mlflow_backend import MlflowBackend

    file = folder / ".tailrace" / "mlflow.db"
    if not file.exists():
        with MlflowBackend(None, None, folder).client("making a database") as client:
            client.search_experiments()
    return file
