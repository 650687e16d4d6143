"""What DAGs of pipelines do on a real scheduler: the same as the reference engine, and what Airflow's users expect."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from tailrace import load_pipeline
from tailrace.catalog.index import Catalog

from .projects import Project
from .services import Airflow, AirflowError

pytestmark = pytest.mark.xdist_group("airflow")

TRAINING_FLOW = """
from tailrace import Dataset, Metrics, Model, pipeline, step

@step(outputs=["train", "test"])
def split(rows: int) -> tuple[Dataset, Dataset]:
    points = [{"x": x, "y": 2.0 * x} for x in range(rows)]
    return Dataset(points[:-1], name="points-train"), Dataset(points[-1:], name="points-test")

@step(outputs="slope")
def fit(train: Dataset, rate: float) -> float:
    return rate * sum(row["y"] for row in train.data)

@step(outputs="model")
def best(slopes: list[float], name: str) -> Model:
    return Model({"slope": max(slopes)}, name=name, version="2026.1")

@step
async def score(model: Model, test: Dataset) -> Metrics:
    return Metrics(slope=model.data["slope"], rows=len(test.data)).at_step(3)

@step
def explain(model: Model) -> str:
    return repr(model.data)

@step
def note(text: str | None = None) -> str:
    return text or "not explained"

@pipeline
def training(name: str, rows: int = 4, rates: list[float] = [0.1, 0.3, 0.2], explained: bool = False) -> None:
    train, test = split(rows)
    model = best(fit.partial(train=train).map(rate=rates), name)
    score(model, test)
    note(explain.when(explained)(model))
"""

SMALL_FLOW = """
from pathlib import Path
from tailrace import Dataset, Metrics, Model, current_run, pipeline, step

@step(outputs="model")
def make(slope: float) -> Model:
    return Model({"slope": slope}, name="small")

@step
def judge(model: Model) -> Metrics:
    return Metrics(slope=model.data["slope"])

@step
def independent(slope: float) -> float:
    return -slope

@step
def fragile(x: float) -> float:
    if not (Path(current_run().run.root) / "repaired").exists():
        raise OSError("the disk is not there")
    return x + 1

@step
def late(x: float) -> Metrics:
    return Metrics(late=x)

@pipeline
def producer(slope: float = 2.0) -> None:
    make(slope)

@pipeline
def consumer(model: Model) -> None:
    judge(model)

@pipeline
def broken(slope: float = 2.0) -> None:
    make(slope)
    late(fragile(independent(slope)))
"""
SMALL_DAGS = """
made = pipeline("producer")
producer = to_dag(made)
consumer = to_dag(pipeline("consumer"), consumes={"model": artifact_asset(made, "model")})
broken = to_dag(pipeline("broken"))
"""

CROWD_FLOW = """
from tailrace import pipeline, step

@step
def alone(number: int) -> int:
    return number

@pipeline
def crowd(number: int = 1) -> None:
    alone(number)
"""

BY_HAND = "by hand:1+2/ü"
CONFS: dict[str, dict[str, Any]] = {
    BY_HAND: {"name": "first", "run_id": BY_HAND},
    "cleared alone": {"name": "second", "run_id": "cleared alone", "explained": True},
    "cleared whole": {"name": "third", "run_id": "cleared whole", "rows": 6, "rates": [0.5]},
    "": {"name": "own"},
}


def given(conf: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in conf.items() if name != "run_id"}


class Training:
    """Four runs of one DAG, at the same time; `native` are Airflow's ids by the logical ones."""

    def __init__(self, project: Project) -> None:
        self.project, self.airflow = project, project.airflow
        self.native = {run_id: self.airflow.trigger("training", conf) for run_id, conf in CONFS.items()}
        self.own = self.native.pop("")
        self.native[self.own] = self.own

    def differences(self, run_id: str) -> Any:
        return self.project.differences("training", run_id, given(CONFS.get(run_id, CONFS[""])))


@pytest.fixture(scope="module")
def training(airflow_deployment: Airflow) -> Training:
    dags = 'training = to_dag(pipeline("training"))\n'
    found = Training(Project(airflow_deployment, "training", flow=TRAINING_FLOW, dags=dags))
    for native in found.native.values():
        assert airflow_deployment.wait("training", native, 120) == "success"
    return found


@pytest.fixture(scope="module")
def small(airflow_deployment: Airflow) -> Project:
    return Project(airflow_deployment, "small", flow=SMALL_FLOW, dags=SMALL_DAGS)


# --- a run that goes well ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run_id", CONFS)
def test_each_of_four_runs_at_the_same_time_leaves_what_inline_leaves(training: Training, run_id: str) -> None:
    assert training.differences(run_id or training.own) == []


def test_a_run_has_the_id_that_it_was_given_or_airflows_own(training: Training) -> None:
    assert training.own.startswith("manual__")
    assert set(":+") <= set(training.own)
    for run_id, native in training.native.items():
        record = training.project.journal(run_id).record()
        assert record is not None
        assert (record.run.run_id, record.run.native_id) == (run_id, native)


def test_a_run_is_one_in_the_tracker_with_its_params_a_row_of_each_metric_and_a_version(training: Training) -> None:
    tracker = training.project.left(BY_HAND).tracker
    (run,) = tracker["runs"]
    assert run["status"] == "FINISHED"
    assert run["params"]["fit.rate"] == "[0.1, 0.3, 0.2]"
    assert run["params"]["split.rows"] == "4"
    assert run["metrics"] == {"slope": [[3, repr(0.3 * 6.0)]], "rows": [[3, "1.0"]]}
    assert [(one["name"], one["tags"]["tailrace.version"]) for one in tracker["versions"]] == [("first", "2026.1")]
    assert tracker["numbers"] == {"first": [1]}


def test_a_branch_is_taken_or_skipped_as_the_run_says(training: Training) -> None:
    airflow, native = training.airflow, training.native
    assert airflow.task_states("training", native[BY_HAND])["explain"] == "skipped"
    assert airflow.task_states("training", native[BY_HAND])["note"] == "success"
    assert airflow.task_states("training", native["cleared alone"])["explain"] == "success"
    assert training.project.tasks(BY_HAND)["explain"].state == "skipped"


def test_what_crosses_between_tasks_are_references_of_less_than_a_kilobyte_an_output(training: Training) -> None:
    native = training.native[BY_HAND]
    expected = {"split": 2, "fit": 1, "best": 1, "score": 1, "note": 1}
    for task in training.airflow.task_instances("training", native):
        if task["task_id"] not in expected:
            continue
        message = training.airflow.xcom("training", native, task["task_id"], map_index=task["map_index"])
        assert sorted(message) == ["results", "span", "stack", "tracker"]
        (result,) = message["results"]
        assert len(result) == expected[task["task_id"]]
        assert all(ref["uri"].startswith("file:///") and ref["digest"] for ref in result.values())
        assert len(json.dumps(message)) < 1000 * len(result)


def test_no_rendered_field_holds_data(training: Training) -> None:
    native = training.native[BY_HAND]
    for task in training.airflow.task_instances("training", native):
        fields = task["rendered_fields"]
        assert set(fields) <= {"span"}, task["task_id"]
        assert fields.get("span") in (None, [task["map_index"], task["map_index"] + 1, 3])


# --- what a user sees -------------------------------------------------------------------------------------------------


def test_the_trigger_form_has_the_schema_of_each_parameter(training: Training) -> None:
    params = training.airflow.details("training")["params"]
    schemas = {name: param["schema"] for name, param in params.items()}
    assert schemas["name"]["type"] == "string"
    assert schemas["rows"]["type"] == "integer"
    assert schemas["rates"] == {"type": "array", "items": {"type": "number"}}
    assert schemas["explained"]["type"] == "boolean"
    assert {name: params[name]["value"] for name in ("rows", "rates", "explained", "run_id", "stack")} == {
        "rows": 4,
        "rates": [0.1, 0.3, 0.2],
        "explained": False,
        "run_id": None,
        "stack": None,
    }


@pytest.mark.parametrize(
    "conf",
    [{"name": "x", "rows": "many"}, {"name": "x", "rates": [0.1, None]}, {"rows": 4}],
    ids=["no number", "a list with a hole", "a required one missing"],
)
def test_a_value_that_a_parameter_cannot_have_starts_no_run(training: Training, conf: dict[str, Any]) -> None:
    before = len(training.airflow.runs("training"))
    with pytest.raises(AirflowError, match="400"):
        training.airflow.trigger("training", conf)
    assert len(training.airflow.runs("training")) == before


@pytest.mark.parametrize(
    ("task", "index", "output"), [("best", -1, "model"), ("split", -1, "test"), ("fit", 1, "slope")]
)
def test_the_links_of_a_task_lead_to_artifact_manifest_and_tracker(
    training: Training, task: str, index: int, output: str
) -> None:
    links = training.airflow.extra_links("training", training.native[BY_HAND], task, index)
    record = training.project.tasks(BY_HAND)[task if index < 0 else f"{task}@{index}"]
    uri = record.outputs[output].uri
    assert links[output] == uri
    assert links[f"{output} manifest"] == f"{uri}/manifest.json"
    assert Path(uri.removeprefix("file://"), "manifest.json").exists()
    if task != "fit":  # which needs no tracker, and does not import one for a link
        assert str(links["experiment run"]).startswith("run ")
        assert "mlflow ui --backend-store-uri" in str(links["experiment run"])


def test_the_log_of_a_task_says_what_was_stored_where_how_large_and_in_how_long(training: Training) -> None:
    log = training.airflow.logs("training", training.native[BY_HAND], "best")
    ref = training.project.tasks(BY_HAND)["best"].outputs["model"]
    (line,) = [line for line in log.splitlines() if line.startswith("model: file:")]
    assert line.startswith(f"model: {ref.uri}, ")
    assert " bytes in " in line
    assert ref.digest in line
    assert "model: registry mlflow:first/1" in log
    assert "s to compute" in log


# --- again ------------------------------------------------------------------------------------------------------------


def tries(training: Training, run_id: str) -> dict[tuple[str, int], int]:
    found = training.airflow.task_instances("training", training.native[run_id])
    return {(task["task_id"], task["map_index"]): task["try_number"] for task in found}


def test_a_task_that_is_cleared_alone_runs_again_and_the_run_is_closed_again(training: Training) -> None:
    run_id, airflow = "cleared alone", training.airflow
    before, ended = tries(training, run_id), training.project.end(run_id).ended
    airflow.clear("training", training.native[run_id], ["best"])
    assert airflow.wait("training", training.native[run_id]) == "success"
    assert {task for task, number in tries(training, run_id).items() if number > before[task]} == {("best", -1)}
    assert training.differences(run_id) == []
    assert training.project.tasks(run_id)["best"].attempt > before["best", -1]
    assert training.project.end(run_id).ended > ended


def test_a_run_that_is_cleared_as_a_whole_runs_again_and_nothing_is_doubled(training: Training) -> None:
    run_id, airflow = "cleared whole", training.airflow
    before, ended = tries(training, run_id), training.project.end(run_id).ended
    airflow.clear("training", training.native[run_id])
    assert airflow.wait("training", training.native[run_id], 120) == "success"
    assert [task for task, number in tries(training, run_id).items() if number == before[task]] == []
    assert training.differences(run_id) == []
    assert training.project.end(run_id).ended > ended


def test_ten_runs_at_once_are_ten(airflow_deployment: Airflow) -> None:
    dags = 'crowd = to_dag(pipeline("crowd"), max_active_runs=10)\n'
    crowd = Project(airflow_deployment, "crowd", flow=CROWD_FLOW, dags=dags, tracked=False)
    runs = {f"run {number}": crowd.airflow.trigger("crowd", {"run_id": f"run {number}"}) for number in range(10)}
    for run_id, native in runs.items():
        assert crowd.airflow.wait("crowd", native, 120) == "success"
        assert crowd.differences("crowd", run_id) == []


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def repaired(small: Project) -> Iterator[list[Path]]:
    files = [folder / "repaired" for folder in (small.folder, small.reference)]
    yield files
    for file in files:
        file.unlink(missing_ok=True)


def test_a_failed_run_is_recorded_as_inline_records_it_and_completed_when_its_cause_is_gone(
    small: Project, repaired: list[Path]
) -> None:
    airflow, run_id = small.airflow, "broken+1"
    native = airflow.trigger("broken", {"run_id": run_id})
    assert airflow.wait("broken", native) == "failed"
    states = {"make": "success", "independent": "success", "fragile": "failed", "late": "upstream_failed"}
    assert airflow.task_states("broken", native) == states | {"close_run": "failed"}
    assert small.differences("broken", run_id) == []
    assert (small.end(run_id).state, small.end(run_id).failed_step) == ("failed", "fragile")
    assert [run["status"] for run in small.left(run_id).tracker["runs"]] == ["FAILED"]
    before = small.tasks(run_id)

    for file in repaired:
        file.touch()
    airflow.clear("broken", native, ["fragile"], downstream=True)
    assert airflow.wait("broken", native) == "success"
    small.run_reference("broken", run_id)
    assert small.differences("broken", run_id) == []
    assert small.end(run_id).state == "completed"
    assert [run["status"] for run in small.left(run_id).tracker["runs"]] == ["FINISHED"]
    after = small.tasks(run_id)
    assert {name: after[name] for name in ("make", "independent")} == {
        name: before[name] for name in ("make", "independent")
    }


# --- one DAG starts another -------------------------------------------------------------------------------------------


def test_a_stored_model_starts_the_dag_that_waits_for_it_and_is_its_parent(small: Project) -> None:
    airflow = small.airflow
    native = airflow.trigger("producer", {"run_id": "producer 1"}, logical_date=datetime(2026, 1, 2, tzinfo=UTC))
    assert airflow.wait("producer", native) == "success"
    ref = small.tasks("producer 1")["make"].outputs["model"]
    (event,) = airflow.asset_events("producer", native)
    assert event["uri"] == "tailrace://producer/make/model"
    assert event["extra"] == {"run_id": "producer 1", "artifacts": [ref.to_dict()]}

    started = airflow.until("the consumer has started", lambda: airflow.runs("consumer"), 60)
    assert [run["run_type"] for run in started] == ["asset_triggered"]
    run_id = started[0]["dag_run_id"]
    assert airflow.wait("consumer", run_id) == "success"
    judged = small.tasks(run_id)["judge"]
    assert judged.inputs == {"model": [ref.id]}
    (run,) = small.left(run_id).tracker["runs"]
    assert run["metrics"] == {"slope": [[0, "2.0"]]}
    with Catalog("sqlite://", {"default": small.store}) as catalog:
        catalog.sync()
        graph = catalog.lineage(judged.outputs["judge"].id, down=False)
        assert {node.pipeline for node in graph.nodes} == {"producer", "consumer"}
        assert [edge.parent for edge in graph.edges] == [ref.id]


def test_a_consumer_takes_the_artifact_that_it_is_given_by_hand(small: Project) -> None:
    result = load_pipeline(f"{small.flow}:producer").run(
        {"slope": 5.0}, orchestrator="inline", run_id="by hand", config=str(small.folder / "tailrace.yaml")
    )
    ref: Any = result.outputs.ref("model")
    native = small.airflow.trigger("consumer", {"model": ref.uri, "run_id": "on the fifth"})
    assert small.airflow.wait("consumer", native) == "success"
    client = MlflowClient(f"sqlite:///{small.folder}/.tailrace/mlflow.db")
    assert small.tasks("on the fifth")["judge"].inputs == {"model": [ref.id]}
    experiments = [one.experiment_id for one in client.search_experiments()]
    (run,) = client.search_runs(experiments, "tags.`tailrace.run_id` = 'on the fifth'")
    assert run.data.params == {"judge.model": ref.uri}
