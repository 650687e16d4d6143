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
    """Write the DAG down as the DAG processor would, unless it is known as it is: Airflow runs only what it knows."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.collection import update_dag_parsing_results_in_db
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.serialization.serialized_objects import LazyDeserializedDAG
    from airflow.utils.session import create_session

    found = LazyDeserializedDAG.from_dag(dag)
    with create_session() as session:
        known = SerializedDagModel.get(dag.dag_id, session=session)
        if known is not None and known.dag_hash == SerializedDagModel.hash(found.data):  # type: ignore[no-untyped-call]
            return
        bundles = DagBundlesManager()  # type: ignore[no-untyped-call]
        bundles.sync_bundles_to_db(session=session)
        session.flush()
        bundle = next(iter(bundles.get_all_dag_bundles()))
        update_dag_parsing_results_in_db(bundle.name, None, [found], {}, None, set(), session=session)
