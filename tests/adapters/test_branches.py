"""Branches, skipped steps and optional inputs: both engines decide the same, record the same and leave the same."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from tailrace import Model, Pipeline, StepFailed, StepSkipped, context, current_run, pipeline, step
from tailrace.adapters.prefect import to_flow
from tailrace.routing.catalog import open_catalog
from tailrace.routing.stacks import resolve_stack

pytestmark = pytest.mark.xdist_group("prefect")

ENGINES = pytest.mark.parametrize("engine", ["inline", "local"])


@pytest.fixture(autouse=True)
def server(prefect_server: None) -> None:
    """The tests of this module need the engine's server."""


@step
def data(size: int) -> list[int]:
    return list(range(size))


@step
def good(data: list[int]) -> bool:
    return len(data) > 3


@step
def kind(data: list[int]) -> str:
    return "fine" if len(data) > 3 else "poor"


@step
def train(data: list[int]) -> Model:
    return Model({"mean": sum(data) / len(data)})


@step
def baseline(data: list[int]) -> Model:
    return Model({"mean": 0.0})


@step
def tune(model: Model) -> Model:
    return Model({"tuned": model.data["mean"]})


@step
def report(models: list[Model]) -> list[str]:
    return sorted(key for model in models for key in model.data)


@step
def perhaps(model: Model | None, other: Model | str = "the default") -> str:
    return f"{model is None}, {other if isinstance(other, str) else other.data}"


@step(retries=3)
def halved(x: int) -> int:
    if x % 2:
        raise StepSkipped(f"{x} is odd")
    return x // 2


@step
def small(x: int) -> bool:
    return x < 2


@step
def double(x: int) -> int:
    return 2 * x


@step
def total(values: list[int]) -> int:
    return sum(values)


@pipeline
def branches(size: int = 5) -> None:
    rows = data(size)
    model = train.when(good(rows))(rows)
    other = baseline.when(kind(rows), equals="poor")(rows)
    tuned = tune(model)
    report([model, other])
    perhaps(tuned, other)


@pipeline
def items(size: int = 5) -> None:
    rows = data(size)
    found = halved.map(rows)
    doubled = double.map(found)
    total(doubled)
    double.with_options(name="again").when(small.map(rows)).map(rows)


@pipeline
def nothing(size: int = 0) -> None:
    rows = data.when(size)(size)
    doubled = double.map(rows)
    total(doubled)
    total.with_options(name="after")(rows)
    report.with_options(name="none")([train.when(False)(rows), baseline.when(False)(rows)])


ALL = {"branches": branches, "items": items, "nothing": nothing}


def records(root: Path) -> dict[str, Any]:
    """What each task's record says, but for its times."""
    found = {}
    for path in root.rglob("steps/*.json"):
        said = orjson.loads(path.read_bytes())
        made = {name: (ref["id"], ref["digest"]) for name, ref in said["outputs"].items()}
        found[path.name] = said["state"], said["error"], said["attempt"], said["inputs"], made
    return found


def listed(root: Path) -> list[Any]:
    """The artifacts of a run, as its journal lists them."""
    lines = next(root.rglob("artifacts.jsonl")).read_text().splitlines()
    return [(said["step"], said["map_index"], said["id"], said["digest"]) for said in map(orjson.loads, lines)]


@ENGINES
def test_a_branch_is_taken_by_a_true_output_and_by_an_equal_one(engine: str) -> None:
    result = branches.run({"size": 5}, orchestrator=engine)
    assert result.state == "completed"
    assert {name: found.state for name, found in result.steps.items() if found.state != "completed"} == {
        "baseline": "skipped"
    }
    assert result.outputs["report"] == ["mean"]
    assert result.outputs["perhaps"] == "False, the default"
    result = branches.run({"size": 2}, orchestrator=engine)
    assert {name: found.state for name, found in result.steps.items() if found.state != "completed"} == {
        "train": "skipped",
        "tune": "skipped",
    }
    assert result.outputs["perhaps"] == "True, {'mean': 0.0}"


@ENGINES
def test_a_skipped_step_says_why_and_has_no_outputs(engine: str) -> None:
    result = branches.run({"size": 2}, orchestrator=engine)
    why = "it runs only if output 'good' of step 'good' is true; it is False"
    assert [task.error for task in result.steps["train"].tasks] == [why]
    assert [task.error for task in result.steps["tune"].tasks] == ["upstream step 'train' was skipped"]
    assert why in result.summary()
    assert "train" not in result.outputs
    with pytest.raises(KeyError, match=r"'train' was not made, its step was skipped: it runs only if"):
        result.outputs["train"]
    with pytest.raises(KeyError, match="was skipped"):
        result.outputs["train.train"]


@ENGINES
def test_skipped_items_are_left_out_of_lists_and_skip_their_own_items_downstream(engine: str) -> None:
    result = items.run({"size": 5}, orchestrator=engine)
    assert result.outputs["halved"] == [0, 1, 2]
    assert result.outputs["double"] == [0, 2, 4]
    assert result.outputs["total"] == 6
    assert result.outputs["again"] == [0, 2]
    assert result.steps["halved"].state == "completed"
    assert [task.state for task in result.steps["double"].tasks] == [
        "completed",
        "skipped",
        "completed",
        "skipped",
        "completed",
    ]
    assert result.steps["halved"].tasks[1].error == "1 is odd"
    assert result.steps["double"].tasks[1].error == "upstream step 'halved' was skipped"


@ENGINES
def test_a_step_that_skips_itself_is_not_tried_again(engine: str, tmp_path: Path) -> None:
    tries = tmp_path / "tries"

    @step(retries=3, retry_delay=0.01)
    def idle() -> int:
        with tries.open("a") as file:
            file.write("x")
        current_run().record_artifact({"looked": "everywhere"}, name="note")
        raise StepSkipped

    result = Pipeline("p").add_step(idle).run(orchestrator=engine)
    assert result.state == "completed"
    assert [ref.name for ref in result.steps["idle"].artifacts] == ["note"]
    assert tries.read_text() == "x"
    assert [(task.state, task.attempt, task.error) for task in result.steps["idle"].tasks] == [
        ("skipped", 1, "the step said so")
    ]


@ENGINES
def test_what_decides_a_fan_out_being_skipped_skips_all_of_it(engine: str) -> None:
    result = nothing.run(orchestrator=engine)
    assert result.state == "completed"
    assert {name: [(task.map_index, task.state) for task in found.tasks] for name, found in result.steps.items()} == {
        name: [(None, "skipped")] for name in ("data", "double", "total", "after", "train", "baseline", "none")
    }
    assert result.steps["double"].tasks[0].error == "upstream step 'data' was skipped"
    assert result.steps["train"].tasks[0].error == "it runs only if False is true; it is False"
    assert result.steps["none"].tasks[0].error == "upstream step 'train' was skipped"
    assert len(result.outputs) == 0


@ENGINES
def test_all_items_skipped_make_an_empty_list(engine: str) -> None:
    @pipeline
    def none(size: int = 3, go: bool = False) -> None:
        total(double.when(go).map(data(size)))

    result = none.run(orchestrator=engine)
    assert [task.map_index for task in result.steps["double"].tasks] == [0, 1, 2]
    assert result.steps["double"].state == "skipped"
    assert result.outputs["double"] == []
    assert result.outputs["total"] == 0


@ENGINES
def test_a_list_of_skipped_branches_only_is_the_default_where_there_is_one(engine: str) -> None:
    @step
    def count(models: Sequence[Model] = (Model({}),)) -> int:
        return len(models)

    @step
    def given(models: list[Model] | None) -> bool:
        return models is None

    @pipeline
    def defaults(go: bool = False) -> None:
        found = [train.when(go)([1]), baseline.when(go)([1])]
        count(found)
        given(found)

    result = defaults.run(orchestrator=engine)
    assert result.outputs["count"] == 1
    assert result.outputs["given"] is True
    result = defaults.run({"go": True}, orchestrator=engine)
    assert result.outputs["count"] == 2
    assert result.outputs["given"] is False


@ENGINES
def test_a_list_of_mapped_outputs_and_others_arrives_as_it_is_written(engine: str) -> None:
    @step
    def shapes(values: list[list[int]]) -> list[int]:
        return [len(value) for value in values]

    @pipeline
    def nested(size: int = 4) -> None:
        rows = data(size)
        shapes([halved.map(rows), double.map(rows), data.when(False)(size)])

    assert nested.run(orchestrator=engine).outputs["shapes"] == [2, 4]


@ENGINES
def test_a_failure_upstream_is_still_a_failure_for_a_step_with_optional_inputs(engine: str) -> None:
    @step
    def boom(data: list[int]) -> str:
        raise ValueError("no")

    @step
    def tolerant(model: Model | None, boom: str | None) -> int:
        return 1

    @pipeline
    def failing() -> None:
        rows = data(1)
        tolerant(train.when(False)(rows), boom(rows))

    with pytest.raises(StepFailed) as error:
        failing.run(orchestrator=engine)
    assert error.value.result is not None
    states = {name: found.state for name, found in error.value.result.steps.items()}
    assert states == {"data": "completed", "train": "skipped", "boom": "failed", "tolerant": "skipped"}
    assert error.value.result.steps["tolerant"].tasks[0].error == "upstream step 'boom' failed"


@ENGINES
def test_branches_are_wired_by_names_too(engine: str) -> None:
    made = (
        Pipeline("p", context=context(size=5, wanted="fine"))
        .add_step(data)
        .add_step(kind)
        .add_step(train, when={"kind": "fine"})
        .add_step(baseline, when={"wanted": "poor"})
    )
    result = made.run(orchestrator=engine)
    assert {name: found.state for name, found in result.steps.items()} == {
        "data": "completed",
        "kind": "completed",
        "train": "completed",
        "baseline": "skipped",
    }
    again = made.run({"wanted": "poor"}, orchestrator=engine)
    assert again.steps["baseline"].state == "completed"


@ENGINES
def test_the_condition_is_a_parent_of_what_was_made(engine: str) -> None:
    result = branches.run(orchestrator=engine)
    (task,) = result.steps["train"].tasks
    assert set(task.inputs) == {"data", "when?"}
    assert task.inputs["when?"] == [result.outputs.ref("good").id]  # type: ignore[union-attr]  # it is not mapped
    with open_catalog(resolve_stack()) as catalog:
        catalog.sync()
        assert catalog.run(result.run_id).run.state == "completed"
        assert [task.state for task in catalog.run(result.run_id).tasks].count("skipped") == 1
        graph = catalog.lineage(result.outputs.ref("train").id)  # type: ignore[union-attr]
    assert {edge.input for edge in graph.edges if edge.step == "train"} >= {"data", "when?"}


@ENGINES
def test_a_condition_that_is_neither_true_nor_false_fails_the_step_by_name(engine: str) -> None:
    @step
    def table():  # type: ignore[no-untyped-def]
        import numpy as np

        return np.array([True, False])

    @pipeline
    def unclear() -> None:
        train.when(table())([1])

    with pytest.raises(
        StepFailed, match=r"'train' runs only if output 'table' .* is true, but that is a numpy.ndarray"
    ):
        unclear.run(orchestrator=engine)


@ENGINES
def test_the_same_run_id_may_take_the_other_branch_and_lists_nothing_of_the_first(
    engine: str, tmp_path: Path, project: Path
) -> None:
    switch = tmp_path / "switch"

    @step
    def chosen() -> str:
        return switch.read_text()

    @pipeline
    def switched() -> None:
        found = chosen()
        report([train.when(found, equals="a")([1]), baseline.when(found, equals="b")([1])])
        double.when(found, equals="a").map([1, 2])

    switch.write_text("a")
    first = switched.run(orchestrator=engine, run_id="r")
    assert {name for name, *_ in listed(project)} == {"chosen", "train", "report", "double"}
    assert "train" in first.outputs
    switch.write_text("b")
    second = switched.run(orchestrator=engine, run_id="r")
    assert {name for name, *_ in listed(project)} == {"chosen", "baseline", "report"}
    assert sorted(second.outputs) == ["baseline", "chosen", "double", "report"]
    assert second.outputs["double"] == []
    assert second.outputs["report"] == ["mean"]


@pytest.mark.parametrize("size", [0, 2, 5])
@pytest.mark.parametrize("name", ALL)
def test_records_and_artifacts_are_equal_on_both(
    name: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "branches" and size == 0:
        size = 1
    left = {}
    for engine in ("inline", "local"):
        home = tmp_path / engine
        home.mkdir()
        monkeypatch.chdir(home)
        ALL[name].run({"size": size}, orchestrator=engine, run_id="same")
        left[engine] = records(home), listed(home)
        assert left[engine][0]
    assert left["inline"] == left["local"]


def test_prefect_shows_a_skipped_step_as_completed_and_names_it_skipped() -> None:
    from prefect.client.orchestration import get_client

    flow: Any = to_flow(branches)
    with get_client(sync_client=True) as client:
        state = flow(size=2, return_state=True)
        assert state.is_completed()
        runs = _task_runs(client, str(state.state_details.flow_run_id))
    shown = {run.name: (run.state.type.value, run.state.message) for run in runs if run.state.name == "Skipped"}
    assert shown == {
        "train": ("COMPLETED", "it runs only if output 'good' of step 'good' is true; it is False"),
        "tune": ("COMPLETED", "upstream step 'train' was skipped"),
    }


def _task_runs(client: Any, flow_run_id: str) -> list[Any]:
    """The task runs of a flow run, once the server has recorded how all of them ended."""
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.client.schemas.sorting import TaskRunSort

    only = FlowRunFilter.model_validate({"id": {"any_": [flow_run_id]}})
    deadline = time.monotonic() + 30
    while True:
        runs = client.read_task_runs(flow_run_filter=only, sort=TaskRunSort.NAME_ASC, limit=50)
        if len(runs) == len(branches.plan().nodes) and all(run.state and run.state.is_final() for run in runs):
            return list(runs)
        assert time.monotonic() < deadline, [(run.name, run.state_name) for run in runs]
        time.sleep(0.05)
