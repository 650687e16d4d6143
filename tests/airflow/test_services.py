"""The Airflow that the other tests drive is a real one, and behaves as one with DAGs that know nothing of Tailrace."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from .services import Airflow, AirflowError

pytestmark = pytest.mark.xdist_group("airflow")

CHAIN = """
from airflow.sdk import Asset, Param, dag, get_current_context, task

numbers = Asset("file:///numbers")

@dag(schedule=None, params={"start": Param(1, type="integer", minimum=0)})
def chain():
    @task
    def first(params=None):
        return params["start"]

    @task
    def second(number):
        print("second has", number)
        return number + 1

    @task(outlets=[numbers])
    def third(number):
        get_current_context()["outlet_events"][numbers].extra = {"number": number}
        return number + 1

    third(second(first()))

@dag(schedule=[numbers])
def follower():
    @task
    def seen(triggering_asset_events=None):
        return [event.extra for events in triggering_asset_events.values() for event in events]

    seen()

chained, followed = chain(), follower()
"""

KILLED = """
import os, signal
from datetime import timedelta
from airflow.sdk import dag, get_current_context, task

@dag(schedule=None)
def killed():
    @task(retries=1, retry_delay=timedelta(0))
    def once():
        if get_current_context()["ti"].try_number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return "survived"

    once()

killed()
"""

HELD = """
import time
from datetime import timedelta
from pathlib import Path
from airflow.sdk import dag, get_current_context, task

@dag(schedule=None)
def held():
    @task(retries=2, retry_delay=timedelta(0))
    def wait():
        tries = Path(FOLDER)
        (tries / str(get_current_context()["ti"].try_number)).touch()
        while not (tries / "go").exists():
            time.sleep(0.05)

    wait()

held()
"""


@pytest.fixture(scope="module")
def chain(airflow_deployment: Airflow) -> str:
    assert sorted(airflow_deployment.write_dag("chain.py", CHAIN)) == ["chain", "follower"]
    return "chain"


def test_a_dag_of_three_tasks_runs_to_success(airflow_deployment: Airflow, chain: str) -> None:
    run_id = airflow_deployment.trigger(chain, {"start": 5}, run_id="by:hand+1")
    assert airflow_deployment.wait(chain, run_id) == "success"
    assert run_id == "by:hand+1"
    assert airflow_deployment.task_states(chain, run_id) == dict.fromkeys(["first", "second", "third"], "success")
    assert airflow_deployment.xcom(chain, run_id, "third") == 7
    assert "second has 5" in airflow_deployment.logs(chain, run_id, "second")
    assert airflow_deployment.rendered_fields(chain, run_id, "second")["op_args"] == [5]
    assert airflow_deployment.extra_links(chain, run_id, "second") == {}
    assert airflow_deployment.details(chain)["params"]["start"]["schema"] == {"type": "integer", "minimum": 0}
    assert airflow_deployment.tasks(chain)["second"]["downstream_task_ids"] == ["third"]


def test_a_value_that_the_form_forbids_starts_no_run(airflow_deployment: Airflow, chain: str) -> None:
    with pytest.raises(AirflowError, match=r"400.*start"):
        airflow_deployment.trigger(chain, {"start": -1}, run_id="refused")
    assert "refused" not in [run["dag_run_id"] for run in airflow_deployment.runs(chain)]


def test_an_event_of_an_asset_starts_the_dag_that_waits_for_it(airflow_deployment: Airflow, chain: str) -> None:
    run_id = airflow_deployment.trigger(chain, {"start": 20}, logical_date=datetime(2026, 1, 2, tzinfo=UTC))
    assert airflow_deployment.wait(chain, run_id) == "success"
    (event,) = airflow_deployment.asset_events(chain, run_id)
    assert event["uri"] == "file:///numbers"
    assert event["extra"] == {"number": 21}
    airflow_deployment.until("the follower has run on the event", lambda: _seen(airflow_deployment, 21), 60)


def _seen(airflow: Airflow, number: int) -> bool:
    runs = [run["dag_run_id"] for run in airflow.runs("follower") if run["state"] == "success"]
    return any({"number": number} in airflow.xcom("follower", run_id, "seen") for run_id in runs)


def test_a_task_that_is_cleared_runs_again(airflow_deployment: Airflow, chain: str) -> None:
    run_id = airflow_deployment.trigger(chain)
    assert airflow_deployment.wait(chain, run_id) == "success"
    airflow_deployment.clear(chain, run_id, ["second"])
    assert airflow_deployment.wait(chain, run_id) == "success"
    tries = {task["task_id"]: task["try_number"] for task in airflow_deployment.task_instances(chain, run_id)}
    assert tries == {"first": 1, "second": 2, "third": 1}

    airflow_deployment.clear(chain, run_id)
    assert airflow_deployment.wait(chain, run_id) == "success"
    tries = {task["task_id"]: task["try_number"] for task in airflow_deployment.task_instances(chain, run_id)}
    assert tries == {"first": 2, "second": 3, "third": 2}


def test_a_task_that_is_killed_is_tried_again(airflow_deployment: Airflow) -> None:
    airflow_deployment.write_dag("killed.py", KILLED)
    run_id = airflow_deployment.trigger("killed")
    assert airflow_deployment.wait("killed", run_id) == "success"
    assert airflow_deployment.task("killed", run_id, "once")["try_number"] == 2
    assert airflow_deployment.xcom("killed", run_id, "once") == "survived"
    assert "SIGKILL" in airflow_deployment.logs("killed", run_id, "once", try_number=1)


@pytest.mark.parametrize("tasks", [True, False], ids=["with its tasks", "alone"])
def test_a_task_is_tried_again_when_what_executes_it_was_killed(
    airflow_deployment: Airflow, tmp_path: Path, tasks: bool
) -> None:
    """Also when the first try is alive and has only lost its master: then two of them run at the same time."""
    airflow_deployment.write_dag("held.py", HELD.replace("FOLDER", repr(str(tmp_path))))
    run_id = airflow_deployment.trigger("held")
    airflow_deployment.until("the first try has begun", (tmp_path / "1").exists, 60)
    executes = "celery worker" if airflow_deployment.executor == "CeleryExecutor" else "scheduler"
    airflow_deployment.kill(executes, tasks=tasks)
    airflow_deployment.restart(executes)
    airflow_deployment.until("the second try has begun", (tmp_path / "2").exists, 60)
    (tmp_path / "go").touch()
    assert airflow_deployment.wait("held", run_id) == "success"
    assert airflow_deployment.task("held", run_id, "wait")["try_number"] == 2


def test_a_file_that_cannot_be_imported_is_an_error_with_its_traceback(airflow_deployment: Airflow) -> None:
    with pytest.raises(AirflowError, match="ZeroDivisionError"):
        airflow_deployment.write_dag("broken.py", "from airflow.sdk import DAG\n1 / 0\n")


def test_a_deployment_that_does_not_start_says_why_and_leaves_nothing(
    airflow_deployment: Airflow, tmp_path: Path
) -> None:
    broken = Airflow(tmp_path / "broken", env={"AIRFLOW__API__PORT": "none"})
    with pytest.raises(AirflowError, match=r"(?s)api-server is not running.*none"), broken:
        pass
    assert sorted(broken.services) == ["api-server", "dag-processor", "scheduler"]
    assert not any(service.runs() for service in broken.services.values())


def test_a_dag_runs_in_this_process_too(airflow_home: Path) -> None:
    from airflow.dag_processing.dagbag import DagBag

    (airflow_home / "dags" / "chain.py").write_text(CHAIN)
    bag = DagBag(airflow_home / "dags")
    assert bag.import_errors == {}
    run = bag.dags["chain"].test(run_conf={"start": 3})
    assert run.state == "success"
