"""A pipeline as an Airflow DAG: one task per step, each calling the same runtime as any other engine.

    from tailrace.adapters.airflow import to_dag

    dag = to_dag(pipeline, schedule="@daily")

Importing a file that says so costs what a plain Airflow DAG costs: ``airflow.sdk`` and ``tailrace.core``, no disk, no
network, no database, and none of the libraries that the steps use.
"""

from __future__ import annotations

from ...core.errors import MissingExtra

try:
    import airflow.sdk  # noqa: F401
except ModuleNotFoundError as error:
    raise MissingExtra("An Airflow DAG", "airflow", "apache-airflow") from error

from .assets import artifact_asset
from .dag import PipelineDag, to_dag

__all__ = ["PipelineDag", "artifact_asset", "to_dag"]
