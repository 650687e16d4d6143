"""Cross-validation as an Airflow DAG, once a week: a mapped task for each fold, as many as the parameter `folds` says.

    AIRFLOW_HOME=$(mktemp -d) python dags/cross_validation.py

What a task needs (retries, a pool, ...) its step says, in ../flows/cross_validation.py; when the DAG runs is said here.
"""

from pathlib import Path

from tailrace import load_pipeline
from tailrace.adapters.airflow import to_dag

dag = to_dag(load_pipeline(Path(__file__).parent / "../flows/cross_validation.py"), schedule="@weekly", catchup=False)

if __name__ == "__main__":
    dag.test(run_conf={"folds": 8})
