"""On a server with PostgreSQL, which is where many work at once, runs leave what they leave with SQLite."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from .projects import Project
from .services import Prefect

pytestmark = pytest.mark.xdist_group("prefect deployed")

FLOW = """
from tailrace import Metrics, pipeline, step
from tailrace.adapters.prefect import to_flow

@step
def folds(count: int) -> list[int]:
    return list(range(count))

@step(outputs="part")
def each(fold: int) -> int:
    return fold * fold

@step
def total(parts: list[int]) -> Metrics:
    return Metrics(total=sum(parts))

@pipeline
def fanning(count: int) -> None:
    total(each.map(fold=folds(count)))

flow = to_flow(fanning)
"""


@pytest.fixture(scope="module")
def fanning(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    if shutil.which("postgres") is None:
        pytest.skip("there is no PostgreSQL here")
    with Prefect(tmp_path_factory.mktemp("prefect-postgresql"), database="postgresql") as prefect:
        yield Project(prefect, "fanning", flow=FLOW, deployments={"flow": "version: null", "flow e": "version: null"})


@pytest.mark.slow
def test_two_deployments_at_once_leave_what_inline_leaves(fanning: Project) -> None:
    ids = [f"{name} {number}" for name in "de" for number in range(2)]
    runs = {name: fanning.prefect.trigger(f"fanning/{name[0]}", {"count": 40, "run_id": name}) for name in ids}
    for name, run in runs.items():
        fanning.completes(run)
        assert fanning.differences("fanning", name, {"count": 40}) == []
