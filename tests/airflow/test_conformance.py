"""Airflow leaves what the reference leaves of every pipeline of the battery."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from tailrace import Pipeline
from tailrace.adapters.airflow.dag import make_dag
from tailrace.adapters.airflow.params import as_json
from tailrace.adapters.testing import check_engine, check_graph, conformance_cases, descriptions

pytestmark = [pytest.mark.xdist_group("airflow"), pytest.mark.usefixtures("airflow_home")]


def airflow(pipeline: Pipeline, *, params: Mapping[str, Any], run_id: str, stack_config: Path, source: str) -> None:
    plan = pipeline.plan(params)
    file = stack_config.with_name("dag.py")
    file.write_text(f"# {source}\n")
    dag = make_dag(plan, file)
    dag.test(run_conf={**as_json(plan, params), "run_id": run_id})


@pytest.mark.parametrize("case", conformance_cases())
def test_airflow_leaves_what_the_reference_leaves(case: str, tmp_path: Path) -> None:
    check_engine(airflow, case, tmp_path)


def test_airflow_leaves_what_the_reference_leaves_of_random_pipelines(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    @settings(max_examples=10, deadline=None)
    @given(descriptions())
    def check(description: Mapping[str, Any]) -> None:
        check_graph(airflow, description, tmp_path_factory.mktemp("graph"))

    check()
