"""The breast cancer pipeline as an Airflow DAG.

Try it here, in an Airflow home that is thrown away:

    AIRFLOW_HOME=$(mktemp -d) python dags/breast_cancer.py

Deploy it: bring this folder, ../flows and ../tailrace.yaml, beside each other as they are here, to where Airflow's DAG
processor and workers find them. Each run announces its model as an asset, which starts the DAG of monitor.py.
"""

from pathlib import Path

from tailrace import load_pipeline
from tailrace.adapters.airflow import to_dag

dag = to_dag(load_pipeline(Path(__file__).parent / "../flows/breast_cancer.py"))

if __name__ == "__main__":
    dag.test()
