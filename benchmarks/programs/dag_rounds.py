"""Chains of twenty tasks through ``dag.test``, ours and bare in turn, on one Airflow home; JSON on stdout."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

home = Path(tempfile.mkdtemp(dir=Path.cwd()))
(home / "dags").mkdir()
os.environ |= {
    "TAILRACE_CONFIG": str(Path("tailrace.yaml").resolve()),  # else that of this repository
    "AIRFLOW_HOME": str(home),
    "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "CRITICAL",
    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
}

import dag_bare  # noqa: E402
import dag_tailrace  # noqa: E402
from measure import alternate  # noqa: E402

from tailrace.adapters.airflow.home import make_database, register  # noqa: E402

make_database()
dags = {"bare": dag_bare.chain(20), "ours": dag_tailrace.chain(20)}


def timed(name: str, **conf: str) -> float:
    begin = time.perf_counter()
    run = dags[name].test(run_conf=conf)
    assert run.state == "success", run.state
    return (time.perf_counter() - begin) * 1000 / 20


register(dags["bare"])
quick, durable, bare = alternate(
    int(sys.argv[1]),
    lambda: timed("ours", stack="quick"),
    lambda: timed("ours", stack="durable"),
    lambda: timed("bare"),
)
from airflow.models.xcom import XComModel  # noqa: E402
from airflow.utils.session import create_session  # noqa: E402
from sqlalchemy import select  # noqa: E402

with create_session() as session:
    sizes = [
        len(json.dumps(value))
        for value in session.scalars(select(XComModel.value).where(XComModel.dag_id == "ours_20"))
    ]
print(json.dumps({"quick": quick, "durable": durable, "bare": bare, "xcom": max(sizes)}))
