"""A pipeline through Airflow in this process: ``dag.test`` on an Airflow home that is thrown away afterwards.

Apart from the adapter, since Airflow reads where its home is when it is first imported.
"""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.errors import ConfigError, Problem, TailraceError
from ..core.plan import Plan
from ..core.results import RunResult
from ..routing.stacks import Stack
from .events import Listener
from .runs import failure, new_run_id

__all__ = ["run_here"]


def run_here(
    plan: Plan, params: Mapping[str, Any], stack: Stack, run_id: str | None, on_event: Listener | None
) -> RunResult:
    """Run a plan to its end as a DAG: real tasks and XCom, no scheduler, and nothing of an Airflow that is set up here.

    Parameters go through Airflow as JSON, as they would in a deployment. Raises :class:`~tailrace.ConfigError` in a
    process that has imported Airflow already, with a home of its own.
    """
    file = Path(_make_home().name, "pipeline.py")
    file.write_text(f"# The pipeline {plan.name!r}, whose DAG was made without a file.\n")
    from .airflow.dag import make_dag
    from .airflow.params import as_json
    from .airflow.tasks import Here

    here = Here(stack, on_event)
    dag = make_dag(plan, file, here=here)
    dag.test(run_conf={**as_json(plan, params), "run_id": run_id or new_run_id(), "stack": stack.name})
    if not here.results:
        raise (
            here.errors[0]
            if here.errors
            else TailraceError(f"Airflow ended the pipeline {plan.name!r} without running it.")
        )
    result: RunResult = here.results[-1]
    if result.state != "completed":
        error = here.errors[0] if here.errors else TailraceError("Airflow says so, and no step does.")
        raise failure(result, error) from error
    return result


@functools.cache
def _make_home() -> tempfile.TemporaryDirectory[str]:
    """The home of this process's runs, which is removed when the process ends."""
    if "airflow" in sys.modules:
        home = os.environ.get("AIRFLOW_HOME", "~/airflow")
        what = f"Airflow is already imported here, and its home is {home}, which is not for runs like this"
        advice = "call to_dag(pipeline).test() to use that home, or start the run in a process of its own"
        raise ConfigError("No pipeline can run here", [Problem(f"{what}; {advice}", "orchestrator 'airflow'")])
    folder = tempfile.TemporaryDirectory(prefix="tailrace-airflow-", ignore_cleanup_errors=True)
    dags = Path(folder.name, "dags")
    dags.mkdir()
    os.environ |= {
        "AIRFLOW_HOME": folder.name,
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder.name}/airflow.db",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "CRITICAL",  # a step's error is raised, and its progress is told
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }
    return folder
