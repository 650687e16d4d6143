"""Every engine leaves what the reference leaves of each pipeline of the battery; and the battery sees differences."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from mlflow import MlflowClient

from tailrace import Pipeline
from tailrace.adapters.testing import (
    PIPELINES,
    RUN_ID,
    Case,
    Engine,
    build,
    check_engine,
    check_graph,
    conformance_cases,
    descriptions,
    inline,
    left_behind,
    load,
    wiring,
)


def local(pipeline: Pipeline, *, params: Mapping[str, Any], run_id: str, stack_config: Path, source: str) -> None:
    pipeline.run(params, orchestrator="local", run_id=run_id, config=str(stack_config))


def flow(pipeline: Pipeline, *, params: Mapping[str, Any], run_id: str, stack_config: Path, source: str) -> None:
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    from tailrace.adapters.prefect import to_flow

    with contextlib.chdir(stack_config.parent), temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        to_flow(pipeline)(**params, run_id=run_id)


PROGRAM = """
import sys
from tailrace.adapters.testing import PIPELINES, load
source, run_id = sys.argv[1:]
params = PIPELINES[source].params if source in PIPELINES else {}
load(source).run(params, orchestrator="inline", run_id=run_id)
"""


def elsewhere(pipeline: Pipeline, *, params: Mapping[str, Any], run_id: str, stack_config: Path, source: str) -> None:
    """In another process, which makes the pipeline anew."""
    subprocess.run([sys.executable, "-c", PROGRAM, source, run_id], cwd=stack_config.parent, check=True)


ENGINES: dict[str, Engine] = {"local": local, "flow": flow}
"""Every engine that is to pass the whole battery."""


def _on(engine: str, *values: object) -> Any:
    """A parametrisation of a test: those of one engine run one after the other, beside the server that it needs."""
    return pytest.param(engine, *values, marks=pytest.mark.xdist_group(f"conformance-{engine}"))


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> Engine:
    if request.param in {"local", "flow"}:
        request.getfixturevalue("prefect_server")
    return ENGINES[request.param]


@pytest.mark.parametrize(
    ("engine", "case"), [_on(name, case) for name in ENGINES for case in conformance_cases()], indirect=["engine"]
)
def test_an_engine_leaves_what_the_reference_leaves(engine: Engine, case: str, tmp_path: Path) -> None:
    check_engine(engine, case, tmp_path)


@pytest.mark.parametrize("engine", [_on(name) for name in ENGINES], indirect=True)
def test_an_engine_leaves_what_the_reference_leaves_of_random_pipelines(
    engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    @settings(max_examples=10, deadline=None)
    @given(descriptions())
    def check(description: Mapping[str, Any]) -> None:
        check_graph(engine, description, tmp_path_factory.mktemp("graph"))

    check()


# --- the battery itself -----------------------------------------------------------------------------------------------

GRAPH = {
    "base": 5,
    "steps": [
        {"op": "count", "inputs": {"n": "base"}, "map": []},
        {"op": "split", "inputs": {"x": "base"}, "map": []},
        {"op": "add", "inputs": {"a": "s0.items", "b": 3}, "map": ["a"]},
        {"op": "reduce", "inputs": {"items": "s2.sum"}, "map": []},
        {"op": "even", "inputs": {"x": ["s1.low", "s3.total"]}, "map": ["x"]},
        {"op": "size", "inputs": {"anything": "s4.maybe"}, "map": []},
    ],
}


@pytest.mark.parametrize("case", ["names", "artifact types"])
def test_a_case_is_the_same_in_another_process(case: str, tmp_path: Path) -> None:
    check_engine(elsewhere, case, tmp_path)


def test_a_random_pipeline_is_the_same_in_another_process(tmp_path: Path) -> None:
    check_graph(elsewhere, GRAPH, tmp_path)


@given(descriptions())
def test_a_random_pipeline_can_be_planned_and_built_again_from_its_description(description: Mapping[str, Any]) -> None:
    plan = build(description).plan()
    assert len(plan.nodes) == len(description["steps"]) >= 3
    assert load(json.dumps(description)).plan().version == plan.version


def test_a_random_pipeline_is_shown_as_one_would_write_it() -> None:
    assert wiring(GRAPH).splitlines()[3:] == [
        "s2.sum = add.partial(b=3).map(a=s0.items)",
        "s3.rest, s3.total = reduce(items=s2.sum)",
        "s4.maybe = even.map(x=[s1.low, s3.total])",
        "s5.size = size(anything=s4.maybe)",
    ]


def test_a_case_whose_package_is_missing_is_left_out() -> None:
    assert "chain" in conformance_cases()
    assert all(PIPELINES[name].runnable for name in conformance_cases())
    assert not Case(PIPELINES["chain"].pipeline, needs=("no_such_package",)).runnable


def _tampering(tamper: Callable[[Path], object]) -> Engine:
    def engine(pipeline: Pipeline, *, stack_config: Path, **how: Any) -> None:
        inline(pipeline, stack_config=stack_config, **how)
        tamper(stack_config.parent / ".tailrace")

    return engine


def _change(place: str, old: str, new: str) -> Callable[[Path], object]:
    def tamper(folder: Path) -> None:
        file = next(folder.glob(f"artifacts/conformance/*/*/{place}"))
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))

    return tamper


def _log_again(folder: Path) -> None:
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    (run,) = client.search_runs(["1"])
    client.log_metric(run.info.run_id, "slope", 0.12, step=3)


def _register_again(folder: Path) -> None:
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    (version,) = client.search_model_versions()
    client.create_model_version(version.name, str(version.source), run_id=version.run_id, tags=version.tags)


_LINEAGE = "data/score/score/manifest.json", '"input": "test"', '"input": "rest"'
TAMPERED = {
    "a file's content": (_change("data/load_data/data/content-*/*.json", "2.0", "2.5"), r"value.json'\]: '"),
    "a manifest": (_change("data/fit/model/manifest.json", "blake3:", "blake2:"), r"manifest.json'\]\['digest'\]"),
    "lineage": (_change(*_LINEAGE), r"lineage\['graphs'\]"),
    "a task's state": (_change("steps/fit@all.json", "completed", "cancelled"), r"\['state'\]: 'completed' | 'cance"),
    "the run's state": (_change("result.json", "completed", "failed"), r"result.json'\]\['state'\]"),
    "a file left over": (lambda folder: (folder / "artifacts" / ".tmp-1").write_text(""), r"tmp-1'\]: nothing"),
    "a metric logged twice": (_log_again, r"tracker\['runs'\]\[0\]\['metrics'\]\['slope'\]"),
    "a model registered twice": (_register_again, r"tracker\['numbers'\]\['model'\]: \[1\] | \[1, 2\]"),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_the_battery_sees_a_difference_in(what: str, tmp_path: Path) -> None:
    tamper, shown = TAMPERED[what]
    with pytest.raises(AssertionError, match=shown):
        check_engine(_tampering(tamper), "chain", tmp_path)


def test_an_engine_that_does_nothing_or_raises_does_not_pass(tmp_path: Path) -> None:
    def raises(pipeline: Pipeline, **_: Any) -> None:
        inline(pipeline, **_)
        raise OSError("no connection")

    with pytest.raises(AssertionError, match=r"result.json'\]: {.*} | nothing"):
        check_engine(lambda *_, **__: None, "chain", tmp_path / "nothing")
    with pytest.raises(OSError, match="no connection"):
        check_engine(raises, "chain", tmp_path / "raises")
    with pytest.raises(AssertionError, match=r"s2.sum = add.partial\(b=3\).map\(a=s0.items\)"):
        check_graph(lambda *_, **__: None, GRAPH, tmp_path / "graph")


def test_what_one_run_left_is_told_from_what_another_did(project: Path) -> None:
    config = project / "tailrace.yaml"
    config.write_text("project: {name: conformance}\n")
    for run_id in (RUN_ID, "other"):
        PIPELINES["chain"].pipeline.run(orchestrator="inline", run_id=run_id)
    one, other, both = left_behind(project, RUN_ID), left_behind(project, "other"), left_behind(project)
    assert len(one.files) == len(other.files) == len(both.files) / 2
    assert one.differences(left_behind(project, RUN_ID)) == []
    assert len(one.lineage["graphs"]) == len(other.lineage["graphs"]) == 3
