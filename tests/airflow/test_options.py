"""What a step says of how it is to be run arrives at its task, a mapped one alike; the rest is left to Airflow."""

from __future__ import annotations

import importlib.util
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tailrace import Dataset, Pipeline, PipelineError, pipeline, step

from .in_process import as_dag

pytestmark = [pytest.mark.xdist_group("airflow"), pytest.mark.usefixtures("airflow_home")]

MAPPED = pytest.mark.parametrize("mapped", [False, True], ids=["plain", "mapped"])


def made(*, mapped: bool = False, dag: dict[str, Any] | None = None, **options: Any) -> Any:
    """The task of a step with these options, in a DAG with those."""

    @step(name="work", **options)
    def work(x: int) -> int:
        """Work on it."""
        return x

    made = Pipeline("p", context={"x": [1, 2] if mapped else 1}).add_step(work, map_over="x" if mapped else ())
    return as_dag(made, **(dag or {})).task_dict["work"]


def scheduled(task: Any) -> Any:
    """The task as the scheduler sees it."""
    from airflow.serialization.serialized_objects import DagSerialization

    dag = task.dag
    return DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dag)).task_dict[task.task_id]


@MAPPED
@pytest.mark.parametrize(
    ("said", "name", "expected"),
    [
        ({"retries": 3}, "retries", 3),
        ({"retries": 3, "retry_delay": 7.5}, "retry_delay", timedelta(seconds=7.5)),
        ({"retries": 3, "retry_delay": [1, 1]}, "retry_delay", timedelta(seconds=1)),
        ({"pool": "gpus"}, "pool", "gpus"),
        ({"queue": "large"}, "queue", "large"),
        ({"priority": 7}, "priority_weight", 7),
        ({"owner": "ana"}, "owner", "ana"),
        ({}, "doc_md", "Work on it."),
    ],
)
def test_an_option_arrives_at_the_task(mapped: bool, said: dict[str, Any], name: str, expected: Any) -> None:
    task = made(mapped=mapped, **said)
    assert getattr(task, name) == expected
    assert getattr(scheduled(task), name) == expected


@MAPPED
def test_equal_delays_need_no_policy(mapped: bool) -> None:
    assert made(mapped=mapped, retries=2, retry_delay=5).retry_policy is None


@MAPPED
def test_delays_that_grow_are_waited_for_one_after_the_other(mapped: bool) -> None:
    task = made(mapped=mapped, retries=4, retry_delay=[1, 10, 100])
    assert task.has_retry_policy
    assert scheduled(task).has_retry_policy
    waited = [
        task.retry_policy.evaluate(OSError(), try_number, 4).retry_delay.total_seconds() for try_number in (1, 2, 3, 4)
    ]
    assert waited == [1, 10, 100, 100]


@MAPPED
def test_delays_with_jitter_differ_from_retry_to_retry(mapped: bool) -> None:
    task = made(mapped=mapped, retries=1, retry_delay=100, retry_jitter=0.2)
    assert scheduled(task).has_retry_policy
    waited = {task.retry_policy.evaluate(OSError(), 1, 1).retry_delay.total_seconds() for _ in range(20)}
    assert len(waited) > 1
    assert all(80 <= seconds <= 120 for seconds in waited)


def test_a_timeout_is_the_tasks_own_and_of_a_mapped_step_each_items() -> None:
    assert made(timeout=90).execution_timeout == timedelta(seconds=90)
    assert made(mapped=True, timeout=90).execution_timeout is None  # a task may have several items


def test_the_tags_of_the_steps_are_the_dags() -> None:
    task = made(tags=["nightly", "cheap"])
    assert task.dag.tags == {"tailrace", "nightly", "cheap"}


@MAPPED
@pytest.mark.skipif(importlib.util.find_spec("kubernetes") is not None, reason="Kubernetes's client is installed here")
def test_resources_are_noted_for_the_executor(mapped: bool) -> None:
    task = made(mapped=mapped, resources={"cpu": 2, "memory": "1Gi"})
    assert task.executor_config == {"resources": {"cpu": 2, "memory": "1Gi"}}


@pytest.mark.skipif(importlib.util.find_spec("kubernetes") is None, reason="Kubernetes's client is not installed here")
@MAPPED
def test_resources_are_requests_and_limits_of_the_pod(mapped: bool) -> None:
    task = made(mapped=mapped, resources={"cpu": 2, "memory": "1Gi", "gpu": 1, "example.com/fpga": 3})
    (container,) = task.executor_config["pod_override"].spec.containers
    asked = {"cpu": "2", "memory": "1Gi", "nvidia.com/gpu": "1", "example.com/fpga": "3"}
    assert container.name == "base"
    assert container.resources.requests == container.resources.limits == asked
    assert scheduled(task).task_id == "work"


@pytest.mark.skipif(importlib.util.find_spec("kubernetes") is None, reason="Kubernetes's client is not installed here")
def test_a_resource_that_nobody_knows_is_an_error_that_names_the_step() -> None:
    with pytest.raises(PipelineError, match=r"unknown resource 'ram'; known: cpu, memory, gpu.* @ step 'work'"):
        made(resources={"ram": "1Gi"})


@MAPPED
def test_what_is_said_for_airflow_alone_wins(mapped: bool) -> None:
    said = {"retries": 9, "pool": "other", "doc_md": "Mine.", "max_active_tis_per_dag": 2, "trigger_rule": "all_done"}
    task = made(mapped=mapped, retries=1, pool="mine", airflow=said)
    assert {name: getattr(task, name) for name in said} == said


@MAPPED
def test_an_option_that_airflow_does_not_know_is_an_error_that_names_it_and_the_step(mapped: bool) -> None:
    with pytest.raises(PipelineError, match=r"'retrys', .* Did you mean 'retries'\? @ step 'work'"):
        made(mapped=mapped, airflow={"retrys": 1})


@MAPPED
def test_further_outlets_and_inlets_stand_beside_the_steps_own(mapped: bool) -> None:
    from airflow.sdk import Asset

    @step(outputs=["rows"], airflow={"outlets": [Asset("mine")], "inlets": Asset("yours")})
    def work(x: int, base: Dataset | None) -> Dataset:
        return Dataset([x])

    context = {"x": [1, 2] if mapped else 1, "base": None}
    made = Pipeline("p", context=context).add_step(work, map_over="x" if mapped else ())
    task = as_dag(made, consumes={"base": Asset("theirs")}).task_dict["work"]
    assert [asset.name for asset in task.outlets] == ["p/work/rows", "mine"]
    assert [asset.name for asset in task.inlets] == ["theirs", "yours"]


def test_the_id_of_a_task_is_not_for_a_step_to_choose() -> None:
    with pytest.raises(PipelineError, match=r"'task_id', .* @ step 'work'"):
        made(airflow={"task_id": "other"})


@MAPPED
def test_what_a_step_does_not_say_the_dag_does_and_else_airflow(mapped: bool) -> None:
    defaults = {"retries": 5, "owner": "team", "pool": "shared", "retry_delay": timedelta(minutes=3), "queue": "slow"}
    task = made(mapped=mapped, dag={"default_args": defaults}, owner="ana")
    assert (task.retries, task.owner, task.pool, task.queue) == (5, "ana", "shared", "slow")
    assert task.retry_delay == timedelta(minutes=3)
    plain = made(mapped=mapped)
    assert (plain.retries, plain.pool, plain.queue, plain.priority_weight) == (0, "default_pool", "default", 1)


def test_a_step_that_is_to_be_tried_once_says_so_against_the_dags_default() -> None:
    assert made(dag={"default_args": {"retries": 5}}, airflow={"retries": 0}).retries == 0


def test_the_dags_own_options_pass_through() -> None:
    task = made(
        dag={
            "schedule": "0 5 * * 1",
            "catchup": True,
            "max_active_runs": 2,
            "start_date": datetime(2026, 1, 1, tzinfo=UTC),
            "tags": ["mine"],
            "dag_id": "weekly",
            "description": "Said here.",
            "dagrun_timeout": timedelta(hours=1),
        }
    )
    dag = scheduled(task).dag
    assert (dag.dag_id, dag.catchup, dag.max_active_runs) == ("weekly", True, 2)
    assert dag.timetable.summary == "0 5 * * 1"
    assert dag.start_date == datetime(2026, 1, 1, tzinfo=UTC)
    assert set(dag.tags) == {"mine"}
    assert dag.description == "Said here."
    assert dag.dagrun_timeout == timedelta(hours=1)


@pytest.mark.parametrize(
    ("given", "expected"), [({}, False), ({"schedule": None}, False), ({"schedule": "@daily"}, True)]
)
def test_a_dag_runs_on_a_schedule_only_when_it_is_given_one(given: dict[str, Any], expected: bool) -> None:
    assert made(dag=given).dag.timetable.can_be_scheduled is expected


def test_further_params_stand_beside_the_pipelines() -> None:
    from airflow.sdk import Param

    dag = made(dag={"params": {"reason": Param("none", type="string")}}).dag
    assert dict(dag.params.dump()) == {"x": 1, "run_id": None, "stack": None, "reason": "none"}


def test_the_description_of_the_pipeline_is_the_dags() -> None:
    @step
    def one() -> int:
        return 1

    @pipeline
    def told() -> None:
        """A line.

        And more *of it*.
        """
        one()

    dag = as_dag(told)
    assert dag.description == "A line."
    assert dag.doc_md == "A line.\n\nAnd more *of it*."
