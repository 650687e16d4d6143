"""A DAG that another one starts: whenever breast_cancer.py has stored a model, this scores a batch with it.

    export AIRFLOW_HOME=$(mktemp -d)
    python dags/breast_cancer.py && python dags/monitor.py

The parameter `model` takes the newest model; a run that is triggered by hand may be given another, by its URI.
"""

from pathlib import Path

from tailrace import load_pipeline
from tailrace.adapters.airflow import artifact_asset, to_dag

FLOWS = Path(__file__).parent / "../flows"

model = artifact_asset(load_pipeline(FLOWS / "breast_cancer.py"), "model")
dag = to_dag(load_pipeline(FLOWS / "monitor.py"), consumes={"model": model})

if __name__ == "__main__":
    dag.test()
