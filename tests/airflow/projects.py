"""Projects in the DAG folder of a running Airflow."""

from __future__ import annotations

from tailrace.core.results import TaskRecord

from .. import projects
from .services import Airflow

DAG_FILE = """
from pathlib import Path
from tailrace import load_pipeline
from tailrace.adapters.airflow import artifact_asset, to_dag

def pipeline(name):
    return load_pipeline(f"{Path(__file__).parent}/NAME_flow.py:{name}")

"""


class Project(projects.Project):
    """A project with a DAG file."""

    def __init__(self, airflow: Airflow, name: str, *, flow: str, dags: str, tracked: bool = True) -> None:
        config = projects.CONFIG + (projects.TRACKED if tracked else "")
        super().__init__(airflow.dags / name, airflow.folder / "reference", flow=flow, config=config)
        self.airflow = airflow
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

    def tasks(self, run_id: str) -> dict[str, TaskRecord]:
        """By step; of an item by step, `@` and index."""
        found = self.journal(run_id).tasks()
        return {task.step if task.map_index is None else f"{task.step}@{task.map_index}": task for task in found}
