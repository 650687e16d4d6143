"""Runs by `dag.test()`: what Airflow calls its tasks, what the journal says of them, and what passes between them."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tailrace import Dataset, Metrics, Pipeline, PipelineError, StepSkipped, current_run, pipeline, step
from tailrace.adapters.testing.pipelines import chain, diamond, names
from tailrace.core.names import segment

from .in_process import Ran, as_dag, clear, run, run_pipeline, told_by_inline

pytestmark = [pytest.mark.xdist_group("airflow"), pytest.mark.usefixtures("airflow_home")]


@step
def one() -> int:
    return 1


@step
def plus(x: int, y: int = 10) -> int:
    return x + y


@step
def total(values: list[int]) -> int:
    return sum(values)


@step
def boom(x: int) -> int:
    raise ValueError(f"{x} is too much")


# --- runs that succeed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "params"), [(chain, {"lr": 0.5}), (diamond, {"rates": [0.1, 0.7]})], ids=["chain", "diamond"]
)
def test_a_run_leaves_the_records_that_inline_leaves(made: Pipeline, params: dict[str, Any]) -> None:
    ran = run_pipeline(made, {**params, "run_id": "r"})
    assert ran.state == "success"
    assert set(ran.states.values()) == {"success"}
    assert ran.told == told_by_inline(made, params, run_id="r")


def test_outputs_of_every_shape_arrive_as_they_were_returned() -> None:
    odd: dict[str, Any] = {"": 0, "a/b": None, "ü": (1, 2), "1": [{"x": {}}]}

    @step(outputs=["first", "second/third"])
    def two() -> tuple[int, str]:
        return 1, "b"

    @step(outputs=["a", "b"])
    def by_name() -> Any:
        return {"b": None, "a": (1, (2,), [])}

    @step
    async def slowly(second: str) -> None:
        assert second == "b"

    @step
    def keyed() -> dict[Any, Any]:
        return odd

    @step
    def seen(first: int, a: Any, b: Any, none: Any, keyed: Any) -> str:
        return repr((first, a, b, none, keyed))

    @pipeline
    def shapes() -> None:
        first, second = two()
        named = by_name()
        seen(first, named.a, named.b, slowly(second), keyed())

    ran = run_pipeline(shapes, {"run_id": "r"})
    assert ran.value("seen") == repr((1, (1, (2,), []), None, None, odd))
    assert ran.told == told_by_inline(shapes, run_id="r")


def test_names_that_airflow_would_refuse_run_and_are_recorded_as_they_are() -> None:
    ran = run_pipeline(names, {"run_id": "r"})
    assert ran.state == "success"
    assert "each/ü@0" in ran.records
    assert all(name.isascii() and "/" not in name for name in ran.states)
    assert ran.told == told_by_inline(names, run_id="r")


def test_a_step_named_as_the_closing_task_is_refused() -> None:
    with pytest.raises(PipelineError, match=r"task of its own named 'close_run'; rename the step @ step 'close_run'"):
        as_dag(Pipeline("p").add_step(one, name="close_run"))


# --- run ids ----------------------------------------------------------------------------------------------------------


def test_a_run_without_an_id_has_airflows_own_in_paths_that_are_safe() -> None:
    ran = run_pipeline(Pipeline("p").add_step(one))
    native = ran.dag_run.run_id
    assert ":" in native
    assert "+" in native
    assert ran.journal.run_id == native
    assert Path(ran.journal.folder).name == segment(native)
    (record,) = ran.records.values()
    assert record.native_id == native


def test_the_users_id_names_the_run_whatever_is_in_it() -> None:
    ran = run_pipeline(Pipeline("p").add_step(one), {"run_id": "a:b+c/../ü"})
    found = ran.journal.record()
    assert found is not None
    assert found.run.run_id == "a:b+c/../ü"
    assert found.run.native_id == ran.dag_run.run_id
    assert ran.state == "success"


def test_an_id_that_another_run_has_fails_at_once_and_leaves_that_run_alone() -> None:
    made = Pipeline("p", context={"x": 1}).add_step(plus.with_options(retries=3))
    first = run_pipeline(made, {"run_id": "taken"})
    before = first.told
    second = run_pipeline(made, {"run_id": "taken", "x": 2}, default_args={"retries": 3})
    assert second.state == "failed"
    assert second.states == {"plus": "failed", "close_run": "failed"}
    assert {ti.try_number for ti in second.instances().values()} == {1}
    assert first.told == before


def test_the_same_id_with_the_same_parameters_goes_on_with_that_run() -> None:
    made = Pipeline("p", context={"x": 1}).add_step(plus)
    first = run_pipeline(made, {"run_id": "again"}).told
    again = run_pipeline(made, {"run_id": "again"})
    assert again.state == "success"
    assert again.told == first


# --- failures ---------------------------------------------------------------------------------------------------------


@pipeline
def failing() -> None:
    lost = boom(one())
    plus(lost)
    total([lost])
    plus.with_options(name="beside")(one.with_options(name="other")())


def test_a_failing_step_takes_along_what_needs_it_and_nothing_else() -> None:
    ran = run_pipeline(failing, {"run_id": "r"})
    assert ran.state == "failed"
    assert ran.states == {
        "one": "success",
        "boom": "failed",
        "plus": "upstream_failed",
        "total": "upstream_failed",
        "other": "success",
        "beside": "success",
        "close_run": "failed",
    }
    assert (ran.end.state, ran.end.failed_step) == ("failed", "boom")
    assert ran.end.error == "ValueError: 1 is too much"
    assert ran.told == told_by_inline(failing, run_id="r")


def test_a_step_that_exits_has_failed() -> None:
    @step
    def leave() -> int:
        sys.exit("enough")

    ran = run_pipeline(Pipeline("leaving").add_step(leave))
    assert ran.states == {"leave": "failed", "close_run": "failed"}
    assert ran.recorded == {"leave": "failed"}
    assert (ran.end.state, ran.end.failed_step, ran.end.error) == ("failed", "leave", "SystemExit: enough")


@step(retries=2, retry_delay=[0.01, 0.02])
def flaky(tries: str, enough: int) -> int:
    with Path(tries).open("a") as file:
        file.write("x")
    if len(Path(tries).read_text()) < enough:
        raise OSError("not yet")
    return 1


def histories(ran: Ran, task_id: str) -> list[Any]:
    """The tries before the last."""
    from airflow.models.taskinstancehistory import TaskInstanceHistory
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        found = select(TaskInstanceHistory).where(TaskInstanceHistory.run_id == ran.dag_run.run_id)
        rows = session.scalars(found.where(TaskInstanceHistory.task_id == task_id)).all()
        return sorted(rows, key=lambda row: row.try_number)


def test_a_step_is_retried_after_the_delays_it_says_and_the_record_names_the_attempt(tmp_path: Path) -> None:
    made = Pipeline("retried", context={"tries": str(tmp_path / "tries"), "enough": 3}).add_step(flaky)
    ran = run_pipeline(made)
    assert ran.state == "success"
    assert ran.records["flaky"].attempt == 3
    assert [one.retry_delay_override for one in histories(ran, "flaky")] == [0.01, 0.02]


def test_a_step_that_fails_at_every_try_is_recorded_once_with_the_last(tmp_path: Path) -> None:
    made = Pipeline("in vain", context={"tries": str(tmp_path / "tries"), "enough": 9}).add_step(flaky)
    ran = run_pipeline(made)
    assert ran.state == "failed"
    assert ran.recorded == {"flaky": "failed"}
    assert ran.records["flaky"].attempt == 3
    assert ran.end.error == "OSError: not yet"


@pytest.mark.parametrize("mapped", [False, True], ids=["plain", "mapped"])
def test_a_step_that_takes_too_long_is_recorded_as_failed_by_its_timeout(mapped: bool) -> None:
    @step(timeout=0.2)
    def slow(x: int) -> int:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            time.sleep(0.01)
        return x

    made = Pipeline("slow", context={"x": [1] if mapped else 1}).add_step(slow, map_over="x" if mapped else ())
    ran = run_pipeline(made, {"run_id": "r"})
    assert ran.state == "failed"
    (record,) = ran.records.values()
    assert record.state == "failed"
    assert record.error == "StepTimeout: The step 'slow' ran longer than its timeout of 0.2 s."
    assert 0.1 <= record.seconds < 10
    assert ran.end.error == record.error


# --- what passes between the tasks, and what Airflow writes down ------------------------------------------------------


def test_a_message_has_references_alone_and_less_than_a_kilobyte_an_output() -> None:
    @step(outputs=["a", "b", "c"])
    def large() -> tuple[Dataset, str, list[int]]:
        return Dataset(["needle"] * 10_000), "needle" * 10_000, list(range(10_000))

    @pipeline
    def heavy() -> None:
        _, text, numbers = large()
        total(numbers)
        plus.map(x=one_or_two(text))

    @step
    def one_or_two(text: str) -> list[int]:
        return [1, 2]

    ran = run_pipeline(heavy)
    assert ran.state == "success"
    found = {key: json.dumps(value) for key, value in ran.xcoms().items()}
    assert {key[:2] for key in found} >= {("large", -1), ("total", -1), ("plus", 0), ("plus", 1)}
    assert not [key for key, value in found.items() if "needle" in value]
    for (task_id, _, key), value in found.items():
        outputs = 3 if task_id == "large" else 1
        assert len(value) < 1000 * outputs, (task_id, key)


SECRET = "hunter2-correct-horse"
CONFIG = """
project: {name: secretive}
plugins:
  orchestrator: {type: inline}
  experiment_tracker:
    type: mlflow
    tracking_uri: ${TRACKING_URI}
catalog: {url: 'postgresql://ana:${PASSWORD}@127.0.0.1:1/tailrace'}
"""


@pytest.fixture
def secretive(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stack with a password in it, and a tracker that nobody listens at."""
    monkeypatch.setenv("PASSWORD", SECRET)
    monkeypatch.setenv("TRACKING_URI", f"http://ana:{SECRET}@127.0.0.1:1")
    monkeypatch.setattr("tailrace.routing.mlflow_backend._PATIENCE", 0.1)
    (project / "tailrace.yaml").write_text(CONFIG)


@pytest.mark.usefixtures("secretive")
@pytest.mark.parametrize("fails", [False, True], ids=["completes", "fails"])
def test_a_secret_of_the_stack_is_nowhere_that_airflow_writes(
    fails: bool, project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    if not fails:
        monkeypatch.setenv("TRACKING_URI", f"sqlite:///{project}/mlflow.db")

    @step
    def measured(x: int) -> Metrics:
        return Metrics(x=x)

    @pipeline
    def secretive(xs: list[int] = [1]) -> None:  # noqa: B006  # never changed
        measured(one())
        plus.map(x=xs)

    dag = as_dag(secretive)
    ran = run(dag)
    out, err = capfd.readouterr()
    assert ran.state == ("failed" if fails else "success")
    assert ("127.0.0.1:1" in out) is fails
    assert "secretive" in out
    rendered = json.dumps(list(rendered_fields(ran).values()))
    records = b"".join(path.read_bytes() for path in (project / ".tailrace" / "artifacts").rglob("*.json"))
    serialized = json.dumps(DagSerialization.serialize_dag(dag))
    for text in (out, err, json.dumps(list(ran.xcoms().values())), rendered, serialized, records.decode()):
        assert SECRET not in text


def rendered_fields(ran: Ran) -> dict[tuple[str, int], Any]:
    from airflow.models.renderedtifields import RenderedTaskInstanceFields
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        found = select(RenderedTaskInstanceFields).where(RenderedTaskInstanceFields.run_id == ran.dag_run.run_id)
        return {(row.task_id, row.map_index): row.rendered_fields for row in session.scalars(found)}


def test_what_airflow_renders_of_a_task_stays_small() -> None:
    ran = run_pipeline(diamond, {"rates": [0.5] * 3})
    assert all(len(json.dumps(fields)) < 200 for fields in rendered_fields(ran).values())


# --- branches ---------------------------------------------------------------------------------------------------------


@step
def choose(kind: str) -> str:
    return kind


@step
def either(left: int | None, right: int | None) -> str:
    return f"{left} {right}"


@pipeline
def branches(kind: str = "left") -> None:
    chosen = choose(kind)
    left = one.with_options(name="left").when(chosen, equals="left")()
    right = plus.with_options(name="right").when(chosen, equals="right")(1)
    plus.with_options(name="more")(right)
    either(left, right)
    total([left, right])
    plus.with_options(name="each").map(x=[left, right])


@pytest.mark.parametrize(("kind", "merged"), [("left", "1 None"), ("right", "None 11"), ("neither", "None None")])
def test_the_branch_that_is_not_taken_is_skipped_and_the_run_a_success(kind: str, merged: str) -> None:
    ran = run_pipeline(branches, {"kind": kind, "run_id": "r"})
    assert ran.state == "success"
    states = ran.states
    assert states["left"] == ("success" if kind == "left" else "skipped")
    assert states["right"] == states["more"] == ("success" if kind == "right" else "skipped")
    assert states["each_0" if kind == "left" else "each_1"] == ("skipped" if kind == "neither" else "success")
    assert states["either"] == states["close_run"] == "success"
    assert states["total"] == ("skipped" if kind == "neither" else "success")  # of a list without any item left
    assert ran.value("either") == merged
    assert ran.told == told_by_inline(branches, {"kind": kind}, run_id="r")


def test_a_step_may_skip_itself_and_with_it_what_needs_its_output() -> None:
    @step
    def maybe(x: int) -> int:
        raise StepSkipped("nothing to do")

    @step
    def listed(x: int) -> list[int]:
        return [x]

    @pipeline
    def idle() -> None:
        found = maybe(one())
        plus(found)
        plus.with_options(name="each").map(x=listed(found))
        total(plus.with_options(name="then").map(x=listed.with_options(name="more")(found)))

    ran = run_pipeline(idle, {"run_id": "r"})
    assert ran.state == "success"
    assert ran.states["maybe"] == ran.states["plus"] == "skipped"
    assert ran.records["maybe"].error == "nothing to do"
    assert ran.told == told_by_inline(idle, run_id="r")


def test_items_that_are_skipped_are_not_among_the_results() -> None:
    @step
    def odd(x: int) -> int:
        if x % 2 == 0:
            raise StepSkipped(f"{x} is even")
        return x

    @step
    def numbers(count: int) -> list[int]:
        return list(range(count))

    @pipeline
    def some(count: int = 4) -> None:
        found = odd.map(x=numbers(count))
        total(found)
        plus.map(x=found)

    ran = run_pipeline(some, {"run_id": "r"})
    assert ran.state == "success"
    assert [ran.states[f"odd_{index}"] for index in range(4)] == ["skipped", "success", "skipped", "success"]
    assert ran.value("total") == 4
    assert ran.told == told_by_inline(some, run_id="r")


def test_a_skipped_step_is_not_tried_again() -> None:
    @step(retries=3)
    def never() -> int:
        raise StepSkipped

    ran = run_pipeline(Pipeline("p").add_step(never))
    assert ran.instances()["never"].try_number == 1
    assert ran.recorded == {"never": "skipped"}


# --- closing ----------------------------------------------------------------------------------------------------------


@step
def switched(file: str) -> list[int]:
    """What is in the file: what changes between a run and its rerun."""
    found = json.loads(Path(file).read_text())
    if found is None:
        raise ValueError("nothing in there")
    return list(found)


@pipeline
def rerun(file: str = "input.json") -> None:
    items = switched(file)
    first = plus.map(x=items)
    total(plus.with_options(name="again").map(x=first))


def test_a_failed_task_that_is_cleared_with_what_follows_completes_the_run() -> None:
    Path("input.json").write_text("null")
    ran = run_pipeline(rerun, {"run_id": "r"})
    assert ran.end.state == "failed"
    Path("input.json").write_text("[1, 2]")
    again = clear(ran)
    assert again.state == "success"
    assert again.end.state == "completed"
    assert again.end.error == ""
    assert again.value("total") == 43
    assert without_attempts(again.told) == told_by_inline_with(rerun, "[1, 2]")


def told_by_inline_with(made: Pipeline, content: str) -> dict[str, Any]:
    folder = Path.cwd().parent / "inline"
    folder.mkdir()
    (folder / "input.json").write_text(content)
    return without_attempts(told_by_inline(made, run_id="r"))


def without_attempts(told: dict[str, Any]) -> dict[str, Any]:
    """Airflow goes on counting when a task is cleared."""
    return {name: {**record, "attempt": 0} if isinstance(record, dict) else record for name, record in told.items()}


def test_a_whole_run_that_is_cleared_leaves_no_record_of_items_that_are_no_more() -> None:
    Path("input.json").write_text("[1, 2, 3]")
    ran = run_pipeline(rerun, {"run_id": "r"})
    assert len(ran.records) == 8
    Path("input.json").write_text("[5]")
    again = clear(ran)
    assert again.state == "success"
    assert again.recorded == dict.fromkeys(["switched", "plus@0", "again@0", "total"], "completed")
    assert again.value("total") == 25
    listed = [
        json.loads(line) for line in again.journal.store.read(f"{again.journal.folder}/artifacts.jsonl").splitlines()
    ]
    assert len(listed) == 4
    assert without_attempts(again.told) == told_by_inline_with(rerun, "[5]")


def test_the_other_branch_of_a_cleared_run_replaces_the_first() -> None:
    @step
    def read(file: str) -> str:
        return Path(file).read_text()

    @pipeline
    def turned(file: str = "input.json") -> None:
        kind = read(file)
        total([one.when(kind, equals="a")(), plus.when(kind, equals="b")(1)])

    Path("input.json").write_text("a")
    ran = run_pipeline(turned, {"run_id": "r"})
    assert ran.recorded == {"read": "completed", "one": "completed", "plus": "skipped", "total": "completed"}
    Path("input.json").write_text("b")
    again = clear(ran)
    assert again.recorded == {"read": "completed", "one": "skipped", "plus": "completed", "total": "completed"}
    assert again.value("total") == 11
    assert without_attempts(again.told) == told_by_inline_with(turned, "b")


def test_one_task_cleared_alone_after_the_end_closes_the_run_again() -> None:
    Path("input.json").write_text("[1, 2]")

    @step
    def late(file: str) -> int:
        return sum(json.loads(Path(file).read_text()))

    ran = run_pipeline(Pipeline("alone", context={"file": "input.json"}).add_step(late).add_step(one), {"run_id": "r"})
    ended = ran.end.ended
    Path("input.json").write_text("null")
    failed = clear(ran, "late")
    assert failed.states["late"] == "failed"
    assert failed.recorded == {"late": "failed", "one": "completed"}
    assert failed.end.state == "failed"
    assert failed.end.failed_step == "late"
    Path("input.json").write_text("[4]")
    mended = clear(failed, "late")
    assert mended.end.state == "completed"
    assert mended.end.error == ""
    assert mended.end.ended > ended
    assert mended.value("late") == 4


def test_an_item_cleared_alone_closes_the_run_with_all_the_others() -> None:
    Path("input.json").write_text("[1, 2]")
    ran = run_pipeline(rerun, {"run_id": "r"})
    before = ran.told
    again = clear(ran, "plus")
    assert again.state == "success"
    assert without_attempts(again.told) == without_attempts(before)
    assert again.recorded == dict.fromkeys(["switched", "plus@0", "plus@1", "again@0", "again@1", "total"], "completed")


def test_the_closing_task_may_be_cleared_alone() -> None:
    ran = run_pipeline(failing, {"run_id": "r"})
    before = ran.told
    again = clear(ran, "close_run")
    assert again.state == "failed"
    assert again.told == before


def test_a_further_artifact_of_a_step_is_recorded_with_it() -> None:
    @step
    def noted() -> int:
        current_run().record_artifact({"a": 1}, name="note")
        return 1

    ran = run_pipeline(Pipeline("noted").add_step(noted))
    assert [ref.name for ref in ran.records["noted"].extra] == ["note"]
