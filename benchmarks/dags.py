"""A pipeline as an Airflow DAG beside bare TaskFlow of the same shape: importing its file, and running it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial

from handover import CONFIG
from measure import Bench, Row, alternate, process, row

__all__ = ["rows"]


def rows(bench: Bench) -> Iterator[Row]:
    """Whole processes that import a DAG of 100 tasks; then ``dag.test`` in turn; then the size of what Airflow keeps."""
    cwd = bench.folder / "dags"
    cwd.mkdir()
    (cwd / "tailrace.yaml").write_text(CONFIG, encoding="utf-8")
    if process(bench.python, "import importlib.util as u; print(u.find_spec('airflow') is not None)", cwd)[1] != "True\n":
        yield Row("Airflow", note="not installed here")
        return

    def imported(code: str) -> float:
        return process(bench.python, code, cwd)[0]

    make = "import {0}; {0}.chain(100)"
    ours, bare = alternate(
        9, partial(imported, make.format("dag_tailrace")), partial(imported, make.format("dag_bare")), warm_up=1
    )
    yield row("Airflow: import a DAG of 100 steps, whole process", ours, "s", bare, "bare TaskFlow", most_ratio=1.1)
    found = json.loads(process(bench.python, "import dag_rounds", cwd, given="9")[1].splitlines()[-1])
    floor = "dag.test of bare TaskFlow, 20 tasks"
    for stack, word in ("quick", "not durable"), ("durable", "durable"):
        yield row(f"Airflow: one step of 20, dag.test, {word}", found[stack], "ms", found["bare"], floor, most_ratio=1.1)
    yield row("Airflow: XCom of a task, largest", [found["xcom"] / 1024], "KB", most=1)
