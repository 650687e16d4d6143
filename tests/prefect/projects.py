"""Projects whose flows are deployed on a running Prefect, and the same runs on the reference engine."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tailrace import LocalArtifactStore, load_pipeline
from tailrace.adapters.testing import Snapshot, left_behind
from tailrace.catalog.journal import Journal, RunEnd, find_run

from .services import POOL, Prefect

CONFIG = """
project: {name: conformance}
plugins:
  orchestrator: {type: inline}
  experiment_tracker: {type: mlflow}
  model_registry: {type: mlflow}
"""


class Project:
    """A folder with `tailrace.yaml`, `prefect.yaml` and a flow file, and one beside it for the reference.

    `deployments` has the entries of `prefect.yaml` by the variable of the flow and, where it is not `d`, their name.
    All are deployed by the real command line.
    """

    def __init__(
        self, prefect: Prefect, name: str, *, flow: str, deployments: Mapping[str, str], config: str = CONFIG
    ) -> None:
        self.prefect = prefect
        self.folder, self.reference = prefect.folder / name, prefect.folder / "reference" / name
        for folder in (self.folder, self.reference):
            (folder / ".tailrace").mkdir(parents=True)
            (folder / "tailrace.yaml").write_text(config)
            shutil.copyfile(_empty_database(prefect.folder / "empty"), folder / ".tailrace" / "mlflow.db")
        self.flow = self.folder / f"{name}_flow.py"
        self.flow.write_text(flow)
        self.deploy(deployments)

    def deploy(self, deployments: Mapping[str, str]) -> None:
        """`prefect deploy --all` of a `prefect.yaml` with these."""
        lines = ["deployments:"]
        for key, more in deployments.items():
            variable, _, name = key.partition(" ")
            place = f"entrypoint: '{self.flow.name}:{variable}', work_pool: {{name: {POOL}}}"
            lines.append(f"- {{name: {name or 'd'}, {place}, {more}}}")
        (self.folder / "prefect.yaml").write_text("\n".join(lines))
        self.prefect.cli("deploy", "--all", cwd=self.folder)

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

    def states(self, run_id: str) -> dict[str, str]:
        """The state of each task that has a record."""
        return {task.step: task.state for task in self.journal(run_id).tasks()}

    def tracker(self, run_id: str) -> Mapping[str, Any]:
        """MLflow's runs and model versions of the run."""
        return self.left(run_id).tracker

    def left(self, run_id: str) -> Snapshot:
        """What a run left, all of it loaded and verified."""
        for path in self.store.list_artifacts():
            self.store.load(path)
        return left_behind(self.folder, run_id)

    def completes(self, run: str) -> None:
        """Wait for a flow run; unless it completes, its log is in the error."""
        state = self.prefect.wait(run, 240)
        assert state == "COMPLETED", f"{state}\n{self.prefect.logs(run)}"

    def differences(self, pipeline: str, run_id: str, params: Mapping[str, Any] | None = None) -> Sequence[str]:
        """Where the run left something else than the reference, which is run now."""
        config = str(self.reference / "tailrace.yaml")
        load_pipeline(f"{self.flow}:{pipeline}").run(params, orchestrator="inline", run_id=run_id, config=config)
        return left_behind(self.reference, run_id).differences(self.left(run_id))


def _empty_database(folder: Path) -> Path:
    """A database as MLflow makes it: a second for the first project alone."""
    from tailrace.routing.mlflow_backend import MlflowBackend

    file = folder / ".tailrace" / "mlflow.db"
    if not file.exists():
        with MlflowBackend(None, None, folder).client("making a database") as client:
            client.search_experiments()
    return file
