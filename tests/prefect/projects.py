"""Projects whose flows are deployed on a running Prefect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import projects
from .services import POOL, Prefect

CONFIG = projects.CONFIG + projects.TRACKED


class Project(projects.Project):
    """A project with a `prefect.yaml`.

    `deployments` has the entries of `prefect.yaml` by the variable of the flow and, where it is not `d`, their name.
    All are deployed by the real command line.
    """

    def __init__(
        self, prefect: Prefect, name: str, *, flow: str, deployments: Mapping[str, str], config: str = CONFIG
    ) -> None:
        super().__init__(prefect.folder / name, prefect.folder / "reference", flow=flow, config=config)
        self.prefect = prefect
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

    def states(self, run_id: str) -> dict[str, str]:
        """The state of each task that has a record."""
        return {task.step: task.state for task in self.journal(run_id).tasks()}

    def tracker(self, run_id: str) -> Mapping[str, Any]:
        """MLflow's runs and model versions of the run."""
        return self.left(run_id).tracker

    def completes(self, run: str) -> None:
        """Wait for a flow run; unless it completes, its log is in the error."""
        state = self.prefect.wait(run, 240)
        assert state == "COMPLETED", f"{state}\n{self.prefect.logs(run)}"
