"""Lazy inputs on each engine: nothing is loaded unless it is asked for, and all else is as for a loaded input."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tailrace import (
    ArtifactRef,
    Dataset,
    IntegrityError,
    LocalArtifactStore,
    MaterializationError,
    Metrics,
    Model,
    Pipeline,
    Ref,
    StepFailed,
    context,
    pipeline,
    step,
)
from tailrace.adapters.prefect import to_flow
from tailrace.materializers.pandas import PandasMaterializer
from tailrace.routing.catalog import open_catalog
from tailrace.routing.stacks import resolve_stack

pytestmark = pytest.mark.xdist_group("prefect")

ENGINES = pytest.mark.parametrize("engine", ["inline", "local"])
MB = 1 << 20


@pytest.fixture(autouse=True)
def server(prefect_server: None) -> None:
    """The tests of this module need the engine's server."""


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the materializer of frames was asked for, in order."""
    asked: list[str] = []
    for name in ("load", "load_columns"):
        original = getattr(PandasMaterializer, name)

        def watched(*args: Any, original: Any = original, name: str = name) -> Any:
            asked.append(name)
            return original(*args)

        monkeypatch.setattr(PandasMaterializer, name, watched)
    return asked


@step
def frame(rows: int = 4) -> Dataset:
    data = pd.DataFrame({"a": range(rows), "b": np.arange(rows) / 2, "c": "text"}, index=pd.RangeIndex(rows, name="i"))
    return Dataset(data, name="points")


@step
def number(x: int) -> int:
    return x * x


@step
def about(data: Ref[Dataset]) -> dict[str, Any]:
    with data.open() as file:
        magic = file.read(4)
    return {
        "uri": data.uri,
        "digest": data.digest,
        "type": data.type,
        "name": data.name,
        "rows": data.metadata["rows"],
        "columns": list(data.metadata["schema"]),
        "files": list(data.files),
        "magic": magic,
        "path": data.path.name,
    }


@step
def part(data: Ref[pd.DataFrame]) -> pd.DataFrame:
    return data.load(columns=["c", "a"])


@step
def everything(data: Ref[Dataset]) -> Dataset:
    assert data.load() is data.load()
    return data.load()


@step
def total(values: list[Ref[int]]) -> int:
    return sum(value.load() for value in values)


@step
def next_to(x: Ref[int], other: Ref[Model] | None = None) -> int:
    assert other is None
    return x.load() + 1


@pipeline
def lazy(rows: int = 4) -> None:
    data: Any = frame(rows)
    about(data)
    part(data)
    everything(data)


# --- one input --------------------------------------------------------------------------------------------------------


@ENGINES
def test_a_handle_says_what_the_artifact_is(engine: str, loads: list[str]) -> None:
    result = Pipeline("p").add_step(step(outputs=["data"])(frame.fn)).add_step(about).run(orchestrator=engine)
    ref = result.outputs.ref("data")
    assert isinstance(ref, ArtifactRef)
    assert loads == []
    assert result.outputs["about"] == {
        "uri": ref.uri,
        "digest": ref.digest,
        "type": "Dataset",
        "name": "points",
        "rows": 4,
        "columns": ["a", "b", "c"],
        "files": ["data.parquet"],
        "magic": b"PAR1",
        "path": "data.parquet",
    }


@ENGINES
def test_columns_and_all_of_it_are_what_an_eager_input_has(engine: str, loads: list[str]) -> None:
    result = lazy.run(orchestrator=engine)
    assert sorted(loads) == ["load", "load_columns"]
    whole = result.outputs["frame"]
    pd.testing.assert_frame_equal(result.outputs["part"], whole.data[["c", "a"]])
    pd.testing.assert_frame_equal(result.outputs["everything"].data, whole.data)
    assert result.outputs["everything"].name == "points"


@ENGINES
def test_a_handle_is_a_parent_like_a_loaded_input(engine: str) -> None:
    result = lazy.run(orchestrator=engine)
    made, used = result.outputs.ref("frame"), result.outputs.ref("about")
    assert isinstance(made, ArtifactRef)
    assert isinstance(used, ArtifactRef)
    assert result.steps["about"].tasks[0].inputs == {"data": [made.id]}
    with open_catalog(resolve_stack()) as catalog:
        catalog.sync()
        edges = {(edge.parent, edge.child, edge.input) for edge in catalog.lineage(used.id, down=False).edges}
    assert edges == {(made.id, used.id, "data")}


def test_a_large_input_is_in_memory_only_where_it_is_asked_for() -> None:
    peaks: dict[str, int] = {}

    @step
    def large() -> bytes:
        return bytes(50 * MB)

    @step
    def untouched(data: Ref[bytes]) -> int:
        with data.open() as file:
            return len(file.read(1)) + data.path.stat().st_size

    @step
    def loaded(data: Ref[bytes]) -> int:
        return len(data.load())

    def wired() -> None:
        data = Ref.of(large())
        untouched(data)
        loaded(data)

    def watch(event: Any) -> None:
        if event.kind == "ended":
            peaks[event.step] = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()

    tracemalloc.start()
    try:
        pipeline(wired).run(orchestrator="inline", on_event=watch)
        left = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert peaks["untouched"] < 25 * MB
    assert peaks["loaded"] > 45 * MB
    assert left < 25 * MB


def test_what_was_loaded_is_gone_before_the_outputs_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    import weakref

    seen: list[Any] = []

    @step
    def use(data: Ref[pd.DataFrame], again: pd.DataFrame) -> int:
        seen.extend([weakref.ref(data.load()), weakref.ref(again), data])
        return len(again)

    from tailrace.routing.router import Router

    original = Router.commit

    def commit(self: Router, task: Any, values: Any, declared: Any, **more: Any) -> Any:
        if task.step == "use":
            seen.append([one() for one in seen[:2]])
        return original(self, task, values, declared, **more)

    monkeypatch.setattr(Router, "commit", commit)

    def wired() -> None:
        data: Any = frame()
        use(data, data)

    pipeline(wired).run(orchestrator="inline")
    assert seen[3] == [None, None]
    assert len(seen[2].load()) == 4  # a handle that outlives its step reads again


# --- several inputs ---------------------------------------------------------------------------------------------------


@ENGINES
def test_handles_come_in_lists_one_by_one_and_not_at_all(engine: str) -> None:
    def wired(count: int = 3) -> None:
        squares = number.map(x=[1, 2, 3])
        total(squares)
        four, five = Ref.of(number.with_options(name="a")(4)), Ref.of(number.with_options(name="b")(5))
        total.with_options(name="some")([four, five])
        next_to.map(squares)
        skipped = step(name="never")(lambda: Model({"a": 1})).when(count, equals=0)()
        next_to.with_options(name="without")(Ref.of(number.with_options(name="c")(6)), Ref.of(skipped))

    result = pipeline(wired).run(orchestrator=engine)
    assert result.outputs["total"] == 14
    assert result.outputs["some"] == 41
    assert result.outputs["next_to"] == [2, 5, 10]
    assert result.outputs["without"] == 37
    refs = result.outputs.ref("number")
    assert isinstance(refs, list)
    made = [ref.id for ref in refs]
    assert [task.inputs["x"] for task in result.steps["next_to"].tasks] == [[one] for one in made]
    assert result.steps["total"].tasks[0].inputs == {"values": made}


# --- artifacts of other runs ------------------------------------------------------------------------------------------


@pipeline
def taking(data: Ref[pd.DataFrame]) -> None:
    part(data)


@pytest.mark.parametrize("engine", ["inline", "local", "flow"])
@pytest.mark.parametrize("way", ["reference", "data", "uri"])
def test_a_parameter_takes_an_artifact_of_another_run(way: str, engine: str) -> None:
    ref = lazy.run(orchestrator="inline").outputs.ref("frame")
    assert isinstance(ref, ArtifactRef)
    value = {"reference": ref, "data": ref.to_dict(), "uri": ref.uri}[way]
    if engine == "flow":
        to_flow(taking)(data=value.to_dict() if isinstance(value, ArtifactRef) else value)
        with open_catalog(resolve_stack()) as catalog:
            catalog.sync()
            assert [one.step for one in catalog.consumers(ref.id) if one.pipeline == "taking"] == ["part"]
        return
    result = taking.run({"data": value}, orchestrator=engine)
    assert list(result.outputs["part"].columns) == ["c", "a"]
    assert result.steps["part"].tasks[0].inputs == {"data": [ref.id]}


def test_what_is_written_into_the_pipeline_is_a_handle_too() -> None:
    ref: Any = lazy.run(orchestrator="inline").outputs.ref("frame")
    given = pipeline(lambda: part(ref)).run(orchestrator="inline")
    assert given.steps["part"].tasks[0].inputs == {"data": [ref.id]}
    value = Pipeline("p", context=context(x=3)).add_step(next_to).run(orchestrator="inline")
    assert value.outputs["next_to"] == 4
    assert value.steps["next_to"].tasks[0].inputs == {}


# --- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "columns", "said"),
    [
        (lambda: pd.DataFrame({"a": [1]}), ["a", "z"], "it has no column 'z'. It has: 'a'"),
        (lambda: Dataset(pd.DataFrame({"a": [1]})), ["z"], "it has no column 'z'. It has: 'a'"),
        (lambda: pd.Series([1]), ["a"], "it is a series, which has no columns"),
        (lambda: {"a": 1}, ["a"], "values of the materializer 'plain' have no columns"),
    ],
)
def test_columns_that_are_not_there_are_named(make: Any, columns: list[str], said: str) -> None:
    @step
    def take(data: Ref[Any]) -> int:
        return len(data.load(columns=columns))

    with pytest.raises(StepFailed) as error:
        pipeline(lambda: take(step(name="made")(make)())).run(orchestrator="inline")
    assert isinstance(error.value.__cause__, MaterializationError)
    assert said in str(error.value)
    assert "file://" in str(error.value)


@pytest.mark.parametrize("way", ["path", "open", "load", "columns"])
def test_damaged_files_are_not_handed_over(way: str, project: Path) -> None:
    ref: Any = lazy.run(orchestrator="inline").outputs.ref("frame")
    (file,) = project.rglob("data/frame/**/data.parquet")
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    ways: dict[str, Any] = {
        "path": lambda data: data.path,
        "open": lambda data: data.open(),
        "load": lambda data: data.load(),
        "columns": lambda data: data.load(columns=["a"]),
    }

    @step
    def look(data: Ref[Any]) -> int:
        assert data.metadata["rows"] == 4
        ways[way](data)
        return 1

    with pytest.raises(StepFailed) as error:
        pipeline(lambda: look(ref)).run(orchestrator="inline")
    assert isinstance(error.value.__cause__, IntegrityError)


# --- files ------------------------------------------------------------------------------------------------------------


@ENGINES
def test_files_are_in_place_on_a_local_store(engine: str, project: Path) -> None:
    (project / "a.csv").write_text("x\n1\n")

    @step
    def kept() -> Path:
        return project / "a.csv"

    @step
    def where(file: Ref[Path]) -> list[str]:
        assert file.path == file.load()
        with file.open(mode="r") as text:
            return [str(file.path), text.read()]

    result = pipeline(lambda: where(Ref.of(kept()))).run(orchestrator=engine)
    path, text = result.outputs["where"]
    assert text == "x\n1\n"
    assert Path(path) in (project / ".tailrace").rglob("*.csv")


def test_a_copy_from_elsewhere_lasts_as_long_as_the_step(project: Path) -> None:
    (project / "tailrace.yaml").write_text("plugins:\n  artifact_store: {type: memory, bucket: test-ref}\n")
    seen: list[Path] = []

    @step
    def copied(data: Ref[Dataset]) -> Path:
        seen.extend([data.path, data.path])
        return data.path

    result = pipeline(lambda: copied(Ref.of(frame()))).run(orchestrator="inline")
    assert seen[0] == seen[1]
    assert not seen[0].is_relative_to(project)
    assert result.outputs["copied"].read_bytes()[:4] == b"PAR1"


# --- handing on -------------------------------------------------------------------------------------------------------


@step
def passed(data: Ref[Dataset]) -> Ref[Dataset]:
    return data


@step(outputs=["one", "two"])
def changed(data: Ref[Any]) -> tuple[Any, Any]:
    data.load().data["a"] = 0
    return data, data


@step
def unwrapped(data: Ref[pd.DataFrame]) -> Any:
    return data


@step
def eager(data: Dataset) -> Dataset:
    return data


@pipeline
def handing_on() -> None:
    data: Any = frame()
    eager(passed(data))  # type: ignore[arg-type]  # what is handed on is a Dataset for it
    changed(data)
    unwrapped(data)


def manifest(result: Any, name: str) -> dict[str, Any]:
    """What the manifest of an output says of its content."""
    found = LocalArtifactStore(".tailrace/artifacts").manifest(result.outputs.ref(name)).to_dict()
    return {key: value for key, value in found.items() if key not in ("id", "created", "producer", "parents")}


@ENGINES
def test_a_handle_that_is_returned_is_stored_as_the_artifact_that_it_is(engine: str) -> None:
    result = handing_on.run(orchestrator=engine)
    refs: dict[str, Any] = {name: result.outputs.ref(name) for name in result.outputs}
    source = manifest(result, "frame")
    assert refs["eager"].digest == refs["frame"].digest
    for name in ("passed", "one", "two"):
        assert manifest(result, name) == source
        assert refs[name].uri != refs["frame"].uri
    assert result.outputs["unwrapped"].equals(result.outputs["frame"].data)
    assert refs["unwrapped"].type == "pandas.DataFrame"
    assert result.steps["passed"].tasks[0].inputs == {"data": [refs["frame"].id]}


def test_what_is_handed_on_as_it_is_is_not_loaded(loads: list[str]) -> None:
    pipeline(lambda: passed(Ref.of(frame()))).run(orchestrator="inline")
    assert loads == []


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: 5, "int"),
        (lambda: Metrics(loss=0.5).at_step(2), "Metrics"),
        (lambda: Model({"w": 1}, name="net", version="2", tags={"a": "b"}), "Model"),
        (lambda: [1, 2], "list"),
        (lambda: {"frame": pd.DataFrame({"x": [1]})}, "dict"),
    ],
)
def test_any_value_is_handed_on(make: Any, kind: str) -> None:
    @step
    def on(data: Ref[Any]) -> Any:
        return data

    def wired() -> None:
        data: Any = step(name="made")(make)()
        on(data)

    result = pipeline(wired).run(orchestrator="inline")
    ref: Any = result.outputs.ref("on")
    assert ref.type == kind
    here, there = manifest(result, "made"), manifest(result, "on")
    for found in (here, there):
        found["name"] = "" if kind != "Model" else found["name"]
    assert here == there


def test_a_bare_value_is_handed_on_as_the_declared_type(loads: list[str]) -> None:
    @step
    def bare() -> Dataset:
        return pd.DataFrame({"x": [1]})  # type: ignore[return-value]  # wrapped as declared

    def wired() -> None:
        data: Any = bare()
        passed(data)
        unwrapped.with_options(name="plain")(data)

    result = pipeline(wired).run(orchestrator="inline")
    assert result.outputs.ref("passed").type == "Dataset"  # type: ignore[union-attr]  # it is one
    assert result.outputs.ref("plain").type == "pandas.DataFrame"  # type: ignore[union-attr]  # it is one
    assert loads == ["load"]


def test_damaged_files_are_not_handed_on(project: Path) -> None:
    ref: Any = lazy.run(orchestrator="inline").outputs.ref("frame")
    (file,) = project.rglob("data/frame/**/data.parquet")
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(StepFailed) as error:
        pipeline(lambda: passed(ref)).run(orchestrator="inline", run_id="r")
    assert isinstance(error.value.__cause__, IntegrityError)
    assert not list(project.rglob("r/data/**/manifest.json"))
    assert not list(project.rglob(".tmp-*"))


def test_a_model_that_is_handed_on_is_registered(project: Path) -> None:
    uri = f"sqlite:///{project}/mlflow.db"
    (project / "tailrace.yaml").write_text(
        f"plugins:\n  experiment_tracker: {{type: mlflow, tracking_uri: '{uri}'}}\n"
        f"  model_registry: {{type: mlflow, tracking_uri: '{uri}'}}\n"
    )

    @step
    def trained() -> Model:
        return Model({"w": 1}, name="net")

    @step
    def approved(model: Ref[Model]) -> Ref[Model]:
        return model

    result = pipeline(lambda: approved(Ref.of(trained()))).run(orchestrator="inline")
    destinations = [result.steps[name].tasks[0].destinations[name]["registry"] for name in ("trained", "approved")]
    assert destinations == ["mlflow:net/1", "mlflow:net/2"]
