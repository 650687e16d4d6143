"""What ``dag.test`` needs of an Airflow home: a database, and the DAG in it."""

from __future__ import annotations

from typing import Any

__all__ = ["make_database", "register"]


def make_database() -> None:
    """Make the tables of a home that has none. A database that has them is left as it is, of whatever version."""
    import sqlalchemy
    from airflow import settings
    from airflow.utils.db import initdb

    if not sqlalchemy.inspect(settings.engine).has_table("alembic_version"):
        initdb()


def register(dag: Any) -> None:
    """Write the DAG down as the DAG processor would: Airflow runs only DAGs that its database knows."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.collection import update_dag_parsing_results_in_db
    from airflow.serialization.serialized_objects import LazyDeserializedDAG
    from airflow.utils.session import create_session

    with create_session() as session:
        bundles = DagBundlesManager()
        bundles.sync_bundles_to_db(session=session)
        session.flush()
        bundle = next(iter(bundles.get_all_dag_bundles()))
        found = [LazyDeserializedDAG.from_dag(dag)]
        update_dag_parsing_results_in_db(bundle.name, None, found, {}, None, set(), session=session)
