"""A second pipeline takes the artifacts of a first, by reference or by URI: verified, and with lineage across both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from tailrace import (
    ArtifactRef,
    Dataset,
    IntegrityError,
    InvalidKey,
    Metrics,
    Model,
    Pipeline,
    RunConflict,
    StepFailed,
    pipeline,
    step,
)
from tailrace.adapters.prefect import to_flow
from tailrace.routing.catalog import open_catalog
from tailrace.routing.stacks import resolve_stack

pytestmark = pytest.mark.xdist_group("prefect")

ENGINES = pytest.mark.parametrize("engine", ["inline", "local"])


@pytest.fixture(autouse=True)
def server(prefect_server: None) -> None:
    """The tests of this module need the engine's server."""


@step(outputs="model")
def fit(slope: float) -> Model:
    return {"slope": slope}  # type: ignore[return-value]  # wrapped as declared


@pipeline
def first(slope: float = 2.0) -> None:
    fit(slope)


@step
def judge(model: Model) -> Metrics:
    return Metrics(slope=model.data["slope"])


@step
def content(model: dict[str, float], rows: Dataset | None) -> list[Any]:
    return [model["slope"], None if rows is None else rows.data]


@pipeline
def second(model: Model, rows: Dataset | None = None) -> None:
    judge(model)
    content(model, rows)  # type: ignore[arg-type]  # unwrapped for it


def made(slope: float = 2.0, run_id: str | None = None) -> ArtifactRef:
    """The artifact of a run of the first pipeline."""
    found = first.run({"slope": slope}, orchestrator="inline", run_id=run_id).outputs.ref("model")
    assert isinstance(found, ArtifactRef)
    return found


WAYS: dict[str, Callable[[ArtifactRef], Any]] = {
    "a reference": lambda ref: ref,
    "its data": lambda ref: ref.to_dict(),
    "uri and digest": lambda ref: {"uri": ref.uri, "digest": ref.digest},
    "a URI": lambda ref: ref.uri,
}


@ENGINES
@pytest.mark.parametrize("way", WAYS)
def test_an_artifact_is_given_by(way: str, engine: str, project: Path) -> None:
    ref = made()
    result = second.run({"model": WAYS[way](ref)}, orchestrator=engine, run_id="r")
    assert result.outputs["judge"] == {"slope": 2.0}
    assert result.outputs["content"] == [2.0, None]
    assert result.steps["judge"].tasks[0].inputs == {"model": [ref.id]}
    recorded = orjson.loads(next(project.rglob("r/run.json")).read_bytes())["run"]["params"]
    assert recorded == {"model": ref.to_dict() if way == "a reference" else WAYS[way](ref), "rows": None}


@ENGINES
def test_lineage_goes_on_through_both_pipelines(engine: str) -> None:
    ref = made()
    result = second.run({"model": ref}, orchestrator=engine)
    score = result.outputs.ref("judge")
    assert isinstance(score, ArtifactRef)
    with open_catalog(resolve_stack()) as catalog:
        catalog.sync()
        graph = catalog.lineage(score.id, down=False)
        assert {node.pipeline for node in graph.nodes} == {"first", "second"}
        assert {(edge.parent, edge.child, edge.input) for edge in graph.edges} == {(ref.id, score.id, "model")}
        assert {(one.pipeline, one.step) for one in catalog.consumers(ref.id)} == {
            ("second", "judge"),
            ("second", "content"),
        }


@ENGINES
def test_an_object_is_taken_as_it_is(engine: str) -> None:
    result = (
        Pipeline("p", context={"model": None})
        .add_step(judge)
        .run({"model": Model({"slope": 7.0})}, orchestrator=engine)
    )
    assert result.outputs["judge"] == {"slope": 7.0}
    assert result.steps["judge"].tasks[0].inputs == {}


@ENGINES
def test_a_uri_of_no_store_fails_before_the_step_is_called(engine: str, project: Path) -> None:
    called = project / "called"

    @step
    def touch(model: Model) -> int:
        called.touch()
        return 1

    with pytest.raises(StepFailed) as error:
        Pipeline("p", context={"model": None}).add_step(touch).run(
            {"model": "s3://elsewhere/model"}, orchestrator=engine
        )
    assert isinstance(error.value.__cause__, InvalidKey)
    assert "'s3://elsewhere/model' is in no store of the stack" in str(error.value)
    assert not called.exists()


@ENGINES
def test_an_artifact_that_is_no_longer_what_was_given_is_refused(engine: str, project: Path) -> None:
    ref = made(run_id="a")
    changed = ref.to_dict() | {"digest": "blake3:" + "0" * 64}
    with pytest.raises(StepFailed) as error:
        second.run({"model": changed}, orchestrator=engine)
    assert isinstance(error.value.__cause__, IntegrityError)
    assert ref.digest in str(error.value)
    (content,) = (path for path in project.rglob("data/fit/**/content-*/*") if path.is_file())
    content.write_bytes(b"{}")
    with pytest.raises(StepFailed, match="IntegrityError"):
        second.run({"model": ref}, orchestrator=engine)


def test_an_artifact_of_another_type_is_named() -> None:
    ref = made()
    with pytest.raises(StepFailed, match="Dataset was declared, but Model was given"):
        second.run({"model": ref, "rows": ref}, orchestrator="inline")


def test_the_same_run_takes_the_same_artifact_however_it_is_given() -> None:
    ref = made()
    second.run({"model": ref}, orchestrator="inline", run_id="r")
    second.run({"model": ref.to_dict()}, orchestrator="inline", run_id="r")
    with pytest.raises(RunConflict, match="other values of model"):
        second.run({"model": made(3.0)}, orchestrator="inline", run_id="r")


def test_the_tracker_is_told_the_uri(project: Path) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{project}/mlflow.db"
    (project / "tailrace.yaml").write_text(f"plugins:\n  experiment_tracker: {{type: mlflow, tracking_uri: '{uri}'}}\n")
    ref = made()
    result = second.run({"model": ref}, orchestrator="inline", run_id="r")
    client = MlflowClient(uri)
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
    (told,) = (run.data.params for run in runs if "judge.model" in run.data.params)
    assert result.state == "completed"
    assert told["judge.model"] == told["content.model"] == ref.uri
    assert told["content.rows"] == "None"


def test_a_flow_takes_a_uri(project: Path) -> None:
    flow = to_flow(second)
    ref = made()
    assert set(flow.parameters.model_dump()["properties"]) == {"model", "rows", "run_id", "stack"}
    assert flow(model=ref.uri, run_id="r") == "r"
    assert flow(model=ref.to_dict(), run_id="s") == "s"
    manifests = [orjson.loads(path.read_bytes()) for path in project.rglob("data/judge/**/manifest.json")]
    assert [[parent["id"] for parent in found["parents"]] for found in manifests] == [[ref.id]] * 2


def test_the_command_takes_a_uri(project: Path) -> None:
    from typer.testing import CliRunner

    from tailrace.cli.app import app

    (project / "second.py").write_text(
        "from tailrace import Metrics, Model, pipeline, step\n"
        "@step\ndef judge(model: Model | None) -> Metrics:\n    return Metrics(slope=model.data['slope'])\n"
        "@pipeline\ndef second(model: Model | None = None) -> None:\n    judge(model)\n"
    )
    ref = made()
    for value in (ref.uri, orjson.dumps(ref.to_dict()).decode()):
        arguments = ["run", "second.py", "--orchestrator", "inline", "-p", f"model={value}", "--json"]
        done = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        assert [row["name"] for row in orjson.loads(done.stdout)["artifacts"]] == ["judge"]
