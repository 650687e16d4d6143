"""A chain as one would write it for Airflow alone: ``chain(n)`` makes the DAG, and nothing is imported but Airflow."""

from __future__ import annotations

from airflow.sdk import DAG, task


def chain(length: int) -> DAG:
    @task
    def add(x: int) -> int:
        return x + 1

    with DAG(f"bare_{length}", schedule=None) as dag:
        x = 0
        for number in range(length):
            x = add.override(task_id=f"add_{number}")(x)
    return dag
