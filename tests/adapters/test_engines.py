"""Both engines run the same plan to the same artifacts, and say the same when a step fails."""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import orjson
import pytest

from tailrace import (
    Dataset,
    DestinationError,
    LocalArtifactStore,
    MaterializationError,
    MemoryArtifactStore,
    Metrics,
    Model,
    Pipeline,
    RunConflict,
    StepFailed,
    current_run,
    pipeline,
    start_run,
    step,
)
from tailrace.adapters.events import StepEvent
from tailrace.adapters.testing.pipelines import chain, diamond, fan, numbers
from tailrace.catalog.journal import Journal, find_runs

pytestmark = pytest.mark.xdist_group("prefect")

ENGINES = pytest.mark.parametrize("engine", ["inline", "local"])


@pytest.fixture(autouse=True)
def server(prefect_server: None) -> None:
    """The tests of this module need the engine's server."""


@ENGINES
def test_a_run_gives_back_its_outputs_by_name(engine: str) -> None:
    result = diamond.run(orchestrator=engine)
    assert result.state == "completed"
    assert result.outputs["score"] == {"slope": pytest.approx(1.8), "rows": 1}
    assert [model.data["slope"] for model in result.outputs["model"]] == pytest.approx([0.6, 1.2, 1.8])
    assert result.steps["fit"].duration > 0
    assert len(result.steps["fit"].artifacts) == 3
    assert "fit x3: completed" in result.summary()
    assert f"/{result.run_id}/data" in result.summary().splitlines()[-1], "where all that is"


@ENGINES
def test_dynamic_fan_out_fan_in_and_async_steps_work(engine: str) -> None:
    result = fan.run({"count": 5}, orchestrator=engine)
    assert result.outputs["total"] == 10 * (0 + 1 + 4 + 9 + 16) - 10
    assert result.outputs["half"] == [0, 5, 20, 45, 80]


@ENGINES
def test_a_fan_out_over_nothing_gives_an_empty_list(engine: str) -> None:
    result = fan.run({"count": 0}, orchestrator=engine)
    assert result.outputs["total"] == 0
    assert result.outputs["half"] == []


@ENGINES
def test_a_value_returned_bare_is_wrapped_as_declared(engine: str) -> None:
    @step
    def bare() -> Model:
        return {"a": 1}  # type: ignore[return-value]

    @step
    def content(bare: dict[str, int]) -> int:
        return bare["a"]

    @step
    def as_returned(bare):  # type: ignore[no-untyped-def]
        return type(bare).__name__

    result = Pipeline("p").add_step(bare).add_step(content).add_step(as_returned).run(orchestrator=engine)
    assert isinstance(result.outputs["bare"], Model)
    assert result.outputs["content"] == 1
    assert result.outputs["as_returned"] == "dict"


@ENGINES
def test_a_step_that_exits_has_failed_and_so_has_its_run(engine: str) -> None:
    @step
    def leave() -> int:
        sys.exit("enough")

    with pytest.raises(SystemExit, match="enough"):
        Pipeline("p").add_step(leave).run(orchestrator=engine)
    (journal,) = find_runs(LocalArtifactStore(".tailrace/artifacts"))
    end = journal.end()
    assert end is not None
    assert (end.state, end.failed_step, end.error) == ("failed", "leave", "SystemExit: enough")
    assert [task.state for task in journal.tasks()] == ["failed"]


@ENGINES
def test_a_failed_step_raises_with_the_result_and_the_others_still_run(engine: str) -> None:
    @step
    def boom(numbers: list[int]) -> int:
        raise ValueError("the numbers are odd")

    @step
    def after(boom: int) -> int:
        return boom

    @step
    def beside(numbers: list[int]) -> int:
        return len(numbers)

    made = Pipeline("p", context={"count": 3})
    for one in (numbers, boom, after, beside):
        made.add_step(one)
    with pytest.raises(StepFailed, match=r"step 'boom' of run .* failed: ValueError: the numbers are odd") as error:
        made.run(orchestrator=engine)
    assert isinstance(error.value.__cause__, ValueError)
    assert error.value.__cause__.__traceback__ is not None
    result = error.value.result
    assert result is not None
    states = {name: found.state for name, found in result.steps.items()}
    assert states == {"numbers": "completed", "boom": "failed", "after": "skipped", "beside": "completed"}
    assert result.outputs["beside"] == 3


@ENGINES
def test_a_step_is_retried_and_the_record_says_which_attempt_it_was(engine: str, tmp_path: Path) -> None:
    tries = tmp_path / "tries"

    @step(retries=2, retry_delay=0.01)
    def flaky() -> int:
        with tries.open("a") as file:
            file.write("x")
        if len(tries.read_text()) < 3:
            raise OSError("not yet")
        return 1

    result = Pipeline("p").add_step(flaky).run(orchestrator=engine)
    assert result.outputs["flaky"] == 1
    assert tries.read_text() == "xxx"
    assert result.steps["flaky"].tasks[0].attempt == 3


@ENGINES
def test_a_step_that_runs_too_long_fails(engine: str) -> None:
    @step(timeout=0.3)
    def slow() -> int:
        for _ in range(500):
            time.sleep(0.01)
        return 1

    begin = time.monotonic()
    with pytest.raises(StepFailed) as error:
        Pipeline("p").add_step(slow).run(orchestrator=engine)
    assert isinstance(error.value.__cause__, TimeoutError)
    assert time.monotonic() - begin < 5


@ENGINES
def test_an_output_that_cannot_be_stored_names_step_and_output_and_leaves_nothing(engine: str, project: Path) -> None:
    @step(outputs=["good", "bad"])
    def mixed():  # type: ignore[no-untyped-def]
        return 1, threading.Lock()

    with pytest.raises(StepFailed) as error:
        Pipeline("p").add_step(mixed).run(orchestrator=engine)
    cause = error.value.__cause__
    assert isinstance(cause, MaterializationError)
    assert "'mixed'" in str(cause)
    assert "'bad'" in str(cause)
    assert "lock" in str(cause)
    assert not list((project / ".tailrace").rglob("manifest.json"))
    assert not list((project / ".tailrace").rglob(".tmp-*"))


@ENGINES
def test_the_wrong_number_of_outputs_is_named(engine: str) -> None:
    @step(outputs=["a", "b"])
    def three():  # type: ignore[no-untyped-def]
        return 1, 2, 3

    with pytest.raises(StepFailed, match=r"declares 2 outputs \(a, b\) but returned a tuple of 3"):
        Pipeline("p").add_step(three).run(orchestrator=engine)


@ENGINES
def test_events_tell_when_each_task_starts_and_ends(engine: str) -> None:
    events: list[StepEvent] = []
    chain.run(orchestrator=engine, on_event=events.append)
    assert [(event.kind, event.step) for event in events] == [
        (kind, name) for name in ("load_data", "fit", "score") for kind in ("started", "ended")
    ]
    assert events[-1].record is not None
    assert events[-1].record.timings["score"]["bytes"] > 0


@ENGINES
def test_a_run_id_belongs_to_one_pipeline_and_its_parameters(engine: str) -> None:
    chain.run(orchestrator=engine, run_id="mine")
    again = chain.run(orchestrator=engine, run_id="mine")
    assert again.run_id == "mine"
    with pytest.raises(RunConflict, match="other values of lr"):
        chain.run({"lr": 0.5}, orchestrator=engine, run_id="mine")
    with pytest.raises(RunConflict, match="a run of the pipeline 'chain'"):
        diamond.run(orchestrator=engine, run_id="mine")


@ENGINES
def test_a_step_may_record_files_beside_what_it_returns(engine: str, project: Path) -> None:
    @step
    def writes() -> int:
        Path("output.csv").write_text("a,b\n1,2\n")
        ref = current_run().record_artifact("output.csv", kind="result")
        assert ref.name == "output.csv"
        return 1

    result = Pipeline("p").add_step(writes).run(orchestrator=engine, run_id="r")
    assert [ref.name for ref in result.steps["writes"].artifacts] == ["writes", "output.csv"]
    lines = next(project.rglob("artifacts.jsonl")).read_text().splitlines()
    assert len(lines) == 2


@ENGINES
def test_what_a_step_recorded_before_it_failed_is_in_its_record_and_in_the_run_s_list(
    engine: str, project: Path
) -> None:
    @step
    def fails() -> int:
        current_run().record_artifact({"epoch": 3}, name="note")
        raise OSError("busy")

    with pytest.raises(StepFailed) as raised:
        Pipeline("p").add_step(fails).run(orchestrator=engine, run_id="r")
    assert raised.value.result is not None
    assert [ref.name for ref in raised.value.result.steps["fails"].artifacts] == ["note"]
    (line,) = next(project.rglob("artifacts.jsonl")).read_text().splitlines()
    assert '"note"' in line


def test_a_run_opened_by_hand_is_recorded_like_any_other(project: Path) -> None:
    Path("output.csv").write_text("a\n1\n")
    with start_run("experiment", run_id="by-hand") as run:
        run.record_artifact("output.csv", kind="result")
        run.record_artifact({"a": 1}, name="settings")
    assert len(next(project.rglob("artifacts.jsonl")).read_text().splitlines()) == 2


@ENGINES
def test_odd_names_are_stored_safely_and_apart(engine: str, project: Path) -> None:
    names = ["a/b", "a b", "a:b", "..", "ünï", "x" * 300, "a.b"]
    made = Pipeline("p/../q")
    for name in names:
        made.add_step(step(name=f"step {name}", outputs=[name])(lambda: 1))
    result = made.run(orchestrator=engine, run_id="../r:1")
    assert sorted(result.outputs) == sorted(names)
    assert all(result.outputs[name] == 1 for name in names)
    stored = list((project / ".tailrace" / "artifacts").rglob("manifest.json"))
    assert len(stored) == len(names)
    assert not [path for path in project.rglob("*") if not path.is_relative_to(project / ".tailrace")]


def test_an_artifact_type_other_than_the_declared_one_is_refused() -> None:
    @step
    def confused() -> Model:
        return Dataset([1])  # type: ignore[return-value]

    with pytest.raises(StepFailed, match=r"declares the output 'confused' as Model, but returned a Dataset"):
        Pipeline("p").add_step(confused).run(orchestrator="inline")


def test_a_run_that_cannot_open_its_tracker_is_recorded_as_failed(project: Path) -> None:
    database = "sqlite:////proc/nowhere/mlflow.db"
    (project / "tailrace.yaml").write_text(
        f"plugins:\n  experiment_tracker: {{type: mlflow, tracking_uri: '{database}'}}\n"
    )
    with pytest.raises(DestinationError, match="MLflow at"):
        chain.run(orchestrator="inline", run_id="r")
    end = orjson.loads(next(project.rglob("r/result.json")).read_bytes())
    assert end["state"] == "failed"
    assert "DestinationError" in end["error"]


@ENGINES
def test_what_a_slower_execution_under_the_same_id_writes_last_stays(engine: str) -> None:
    @step
    def twice(first: int) -> int:
        run = current_run().run
        journal = Journal.of(LocalArtifactStore(".tailrace/artifacts"), run)
        record = journal.task("first", None)
        assert record is not None
        journal.write_task(replace(record, started="2026-01-01T00:00:00+00:00"))  # its own began before this one
        return 2 * first

    @step
    def first() -> int:
        return 1

    result = Pipeline("p").add_step(first).add_step(twice).run(orchestrator=engine)
    assert result.steps["first"].state == "completed"
    assert result.outputs["first"] == 1


def test_what_an_earlier_execution_under_the_same_id_left_is_not_taken_for_this_one(project: Path) -> None:
    listing = project / "count"

    @step
    def found() -> list[int]:
        return list(range(int(listing.read_text())))

    @step
    def double(x: int) -> int:
        return 2 * x

    made = Pipeline("p").add_step(found).add_step(step(inputs=["found"])(double.fn), map_over="x")
    listing.write_text("3")
    made.run(orchestrator="inline", run_id="r")
    listing.write_text("2")
    assert made.run(orchestrator="inline", run_id="r").outputs["double"] == [0, 2]


def test_an_async_step_runs_where_a_loop_is_running_already() -> None:
    import asyncio

    async def notebook() -> int:
        found: int = fan.run({"count": 2}, orchestrator="inline").outputs["total"]
        return found

    assert asyncio.run(notebook()) == 9


@ENGINES
def test_what_upstream_damaged_on_disk_is_found_before_it_is_used(engine: str, project: Path) -> None:
    @step
    def damage(values: list[int]) -> int:
        next((project / ".tailrace").rglob("content-*/*")).write_bytes(b"[6,6,6]")
        return 1

    @step
    def use(values: list[int], after: int) -> list[int]:
        return values

    @pipeline
    def damaged(count: int = 3) -> None:
        found = numbers(count)
        use(found, damage(found))

    with pytest.raises(StepFailed, match="IntegrityError"):
        damaged.run(orchestrator=engine)


def test_metrics_of_a_memory_stack_never_touch_the_disk(project: Path) -> None:
    (project / "tailrace.yaml").write_text("plugins:\n  artifact_store: {type: memory, bucket: here}\n")
    result = diamond.run(orchestrator="inline")
    assert isinstance(result.outputs["score"], Metrics)
    assert MemoryArtifactStore("here").list_artifacts()
    assert os.listdir(project) == ["tailrace.yaml"]


def test_a_parameter_of_any_size_is_recorded(project: Path) -> None:
    @step
    def take(seed: int) -> int:
        return seed

    made = Pipeline("p", context={"seed": 2**70}).add_step(take)
    assert made.run(orchestrator="inline", run_id="r").outputs["take"] == 2**70
    assert str(2**70) in next(project.rglob("r/run.json")).read_text()


def test_an_output_whose_place_is_taken_leaves_nothing_aside(project: Path) -> None:
    (project / "tailrace.yaml").write_text(
        "plugins:\n  artifact_routing:\n    default: {path: 'fixed/{artifact_name}'}\n"
    )

    @step(outputs=["first", "second", "third"])
    def three() -> tuple[int, int, int]:
        return 1, 2, 3

    store = project / ".tailrace" / "artifacts"
    (store / "fixed").mkdir(parents=True)
    (store / "fixed" / "second").write_text("a file where a folder has to be")
    made = Pipeline("p").add_step(three)
    with pytest.raises(StepFailed):
        made.run(orchestrator="inline", run_id="r")
    assert not list(store.rglob(".tmp-*"))
    (store / "fixed" / "second").unlink()
    assert made.run(orchestrator="inline", run_id="r").outputs["third"] == 3


def test_parameters_have_one_form_whether_they_come_from_python_or_from_json() -> None:
    from pydantic import TypeAdapter

    @step
    def show(value: object) -> str:
        return repr(value)

    @pipeline
    def numeric(
        rate: float,
        rates: list[float | None],
        by_name: dict[str, float],
        pair: tuple[int, float],
        either: int | float,
        when: datetime,
    ) -> None:
        show.map(value=[show(value) for value in (rate, rates, by_name, pair, either, when)])

    parsed = TypeAdapter(datetime).validate_python("2026-01-31T00:00:00Z")
    given = {"rate": 1, "rates": [2, None, 0.5], "by_name": {"a": 3}, "pair": (4, 5), "either": 6, "when": parsed}
    assert repr(numeric.plan().resolve_params(given)) == (
        "{'rate': 1.0, 'rates': [2.0, None, 0.5], 'by_name': {'a': 3.0}, 'pair': (4, 5.0), 'either': 6, "
        "'when': datetime.datetime(2026, 1, 31, 0, 0, tzinfo=datetime.timezone.utc)}"
    )
