"""What other DAGs can be started by, and what a task's page leads to."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tailrace import Dataset, Metrics, Model, Pipeline, PipelineError, pipeline, step
from tailrace.adapters.airflow import artifact_asset

from .in_process import Ran, _as_scheduled, _go_on, as_dag, clear, run, run_because_of, run_pipeline

pytestmark = [pytest.mark.xdist_group("airflow"), pytest.mark.usefixtures("airflow_home")]


@step(outputs=["rows", "count"])
def load(size: int) -> tuple[Dataset, int]:
    return Dataset(list(range(size))), size


@step(outputs=["model"])
def fit(rows: Dataset, rate: float) -> Model:
    return {"rate": rate, "size": len(rows.data)}  # type: ignore[return-value]  # wrapped as declared


@step
def score(model: Model | None) -> Metrics:
    return Metrics(size=model.data["size"] if model else 0)


def making(name: str) -> Pipeline:
    """A pipeline with assets of its own, since all tests share a database."""

    @pipeline(name=name)
    def making(size: int = 3, rates: list[float] = [0.1, 0.2]) -> None:  # noqa: B006  # never changed
        rows = load(size)
        fit.partial(rows=rows.rows).map(rate=rates)
        score(fit.with_options(name="final", outputs=["best"])(rows.rows, 0.3))

    return making


def using(name: str) -> Pipeline:
    @step
    def look(model: Model) -> int:
        return int(model.data["size"])

    @step(name="look again")
    def look_again(look: int, model: Model) -> str:
        return f"{look} {model.data['rate']}"

    @pipeline(name=name)
    def using(model: Model) -> None:
        look_again(look(model), model)

    return using


# --- assets -----------------------------------------------------------------------------------------------------------


def test_every_dataset_and_model_is_an_asset_and_nothing_else_is() -> None:
    dag = as_dag(making("a b/ü"))
    uris = {task.task_display_name: [asset.uri for asset in task.outlets] for task in dag.tasks}
    assert uris["load"] == ["tailrace://a%20b%2F%C3%BC/load/rows"]
    assert uris["fit"] == ["tailrace://a%20b%2F%C3%BC/fit/model"]
    assert uris["final"] == ["tailrace://a%20b%2F%C3%BC/final/best"]
    assert uris["score"] == []
    assert {asset.group for task in dag.tasks for asset in task.outlets} == {"tailrace"}


def test_an_asset_is_asked_for_by_its_output_with_the_step_or_without() -> None:
    made = making("named")
    assert artifact_asset(made, "rows") == artifact_asset(made, "load.rows")
    assert artifact_asset(made, "best").uri == "tailrace://named/final/best"


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("roms", r"there is no Dataset or Model 'roms'. .*Did you mean 'load.rows'\?"),
        ("score", r"there is no Dataset or Model 'score'. Known: load.rows, fit.model, final.best."),
        ("fit.rows", r"there is no Dataset or Model 'fit.rows'"),
    ],
)
def test_what_is_no_asset_is_refused_with_those_that_are(output: str, message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        artifact_asset(making("named"), output)


def test_an_output_that_several_steps_have_needs_its_step() -> None:
    @pipeline
    def twice() -> None:
        load(1)
        load.with_options(name="more")(2)

    with pytest.raises(PipelineError, match=r"several steps have 'rows'. Known: load.rows, more.rows"):
        artifact_asset(twice, "rows")
    assert artifact_asset(twice, "more.rows").uri.endswith("/more/rows")


def events(ran: Ran) -> dict[tuple[str, int], tuple[str, dict[str, Any]]]:
    """By task and map index: the asset and what the event says."""
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        found = session.scalars(select(AssetEvent).where(AssetEvent.source_run_id == ran.dag_run.run_id))
        return {(event.source_task_id, event.source_map_index): (event.asset.uri, event.extra) for event in found}


def test_an_event_says_where_the_artifact_is_and_its_digest() -> None:
    ran = run_pipeline(making("events"), {"run_id": "a:b"})
    found = events(ran)
    assert set(found) == {("load", -1), ("fit", 0), ("fit", 1), ("final", -1)}
    for (task, index), (uri, extra) in found.items():
        name = task if index < 0 else f"{task}@{index}"
        output = uri.rpartition("/")[2]
        assert extra == {"run_id": "a:b", "artifacts": [ran.records[name].outputs[output].to_dict()]}
        (ref,) = extra["artifacts"]
        assert ref["uri"].startswith("file:///")
        assert ref["digest"].startswith("blake3:")


def test_a_task_of_several_items_names_each_in_its_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "2")
    ran = run_pipeline(making("chunks"), {"rates": [0.1, 0.2, 0.3]})
    (_, first), (_, second) = (events(ran)["fit", index] for index in (0, 1))
    assert [ref["id"] for ref in (*first["artifacts"], *second["artifacts"])] == [
        ran.records[f"fit@{index}"].outputs["model"].id for index in range(3)
    ]


def test_a_step_that_fails_or_is_skipped_has_no_event() -> None:
    @step(outputs=["lost"])
    def fails() -> Dataset:
        raise ValueError("no")

    @pipeline(name="eventless")
    def eventless(go: bool = False) -> None:
        fails()
        load.when(go)(1)

    assert events(run_pipeline(eventless)) == {}


# --- consumed assets --------------------------------------------------------------------------------------------------


def test_a_dag_that_consumes_assets_runs_when_they_are_new_unless_it_is_told_otherwise() -> None:
    made, user = making("made"), using("user")
    asset = artifact_asset(made, "best")
    assert as_dag(user, consumes={"model": asset}).timetable.asset_condition is not None
    assert as_dag(user, consumes={"model": asset}, schedule="@daily").timetable.summary == "0 0 * * *"
    assert as_dag(user, consumes={"model": asset}, schedule=None).timetable.can_be_scheduled is False


def test_a_run_that_an_asset_triggered_takes_the_artifact_of_the_event() -> None:
    made = making("trigger")
    asset = artifact_asset(made, "best")
    first = run_pipeline(made, {"run_id": "m1", "size": 4})
    dag = as_dag(using("triggered"), consumes={"model": asset})
    ran = run_because_of(dag, asset)
    assert ran.state == "success"
    last = run_pipeline(made, {"run_id": "m2", "size": 5})  # newer, and not what the run was triggered by
    again = clear(ran, "look", "look-again-" + key_digest(dag))
    record = by_run(again)
    assert record["params"]["model"]["uri"] == outcome(first)["final"].outputs["best"].uri
    assert last.state == again.state == "success"


def key_digest(dag: Any) -> str:
    (name,) = [task_id for task_id in dag.task_dict if task_id.startswith("look-again-")]
    return str(name).removeprefix("look-again-")


def outcome(ran: Ran) -> dict[str, Any]:
    """The records of this run, of the several that the store has."""
    from tailrace import LocalArtifactStore
    from tailrace.catalog.journal import find_runs

    found = [journal for journal in find_runs(LocalArtifactStore(".tailrace/artifacts")) if native(journal) == ran.dag_run.run_id]
    (journal,) = found
    return {task.step: task for task in journal.tasks() if task.map_index is None}


def native(journal: Any) -> str:
    record = journal.record()
    return str(record.run.native_id) if record else ""


def by_run(ran: Ran) -> dict[str, Any]:
    from tailrace import LocalArtifactStore
    from tailrace.catalog.journal import find_runs

    (found,) = [
        journal.record()
        for journal in find_runs(LocalArtifactStore(".tailrace/artifacts"))
        if native(journal) == ran.dag_run.run_id
    ]
    assert found is not None
    return {"params": dict(found.run.params)}


def test_a_run_that_is_started_by_hand_takes_the_newest_artifact_that_there_is() -> None:
    made = making("history")
    run_pipeline(made, {"run_id": "m1", "size": 4})
    run_pipeline(made, {"run_id": "m2", "size": 5})
    ran = run(as_dag(using("by hand"), consumes={"model": artifact_asset(made, "best")}))
    assert ran.state == "success"
    assert by_run(ran)["params"]["model"]["uri"].endswith("/m2/models/final/best") or "/m2/" in by_run(ran)["params"]["model"]["uri"]


def test_an_artifact_that_is_given_goes_before_any_event() -> None:
    made = making("explicit")
    first = run_pipeline(made, {"run_id": "m1", "size": 4})
    uri = first.records["final"].outputs["best"].uri
    run_pipeline(made, {"run_id": "m2", "size": 5})
    ran = run(as_dag(using("explicit user"), consumes={"model": artifact_asset(made, "best")}), {"model": uri})
    assert ran.state == "success"
    assert outcome(ran)["look"].inputs["model"] == [first_id(uri)]


def first_id(uri: str) -> str:
    from tailrace import LocalArtifactStore

    return str(LocalArtifactStore(".tailrace/artifacts").ref(uri).id)


def test_without_any_event_the_error_says_which_dag_to_run(capfd: pytest.CaptureFixture[str]) -> None:
    asset = artifact_asset(making("never made"), "best")
    ran = run(as_dag(using("too early"), consumes={"model": asset}, default_args={"retries": 2}))
    assert ran.state == "failed"
    assert ran.states["look"] == "failed"
    assert {ti.try_number for name, ti in ran.instances().items() if name == "look"} == {1}
    said = re.sub(r"\s+", " ", capfd.readouterr().out)
    assert "no artifact is given, and the asset 'never%20made/final/best' has no event yet; run the DAG that makes it" in said
    assert "@ pipeline 'too early', parameter 'model'" in said


def test_a_parameter_that_an_asset_gives_may_be_left_out_on_a_schedule() -> None:
    asset = artifact_asset(making("scheduled"), "best")
    as_dag(using("on time"), consumes={"model": asset}, schedule="@daily")
    with pytest.raises(PipelineError, match="nobody gives the parameters model"):
        as_dag(using("on time"), schedule="@daily")


def test_two_assets_of_which_one_triggered_are_both_taken() -> None:
    made = making("pair")
    rows, best = artifact_asset(made, "rows"), artifact_asset(made, "best")

    @step
    def count(model: Model, rows: Dataset) -> str:
        return f"{model.data['size']} {len(rows.data)}"

    @pipeline(name="both")
    def both(model: Model, rows: Dataset) -> None:
        count(model, rows)

    run_pipeline(made, {"run_id": "m1", "size": 4})
    ran = run_because_of(as_dag(both, consumes={"model": best, "rows": rows}, schedule=[rows | best]), best)
    assert ran.state == "success"


# --- links ------------------------------------------------------------------------------------------------------------


def links(ran: Ran, name: str) -> dict[str, str | None]:
    """What Airflow's page of a task leads to."""
    ti = ran.instances()[name]
    task = _as_scheduled(ran.dag).task_dict[ti.task_id]
    return {title: task.get_extra_links(ti, title) for title in task.operator_extra_link_dict}


def linked(made: Pipeline, conf: dict[str, Any]) -> Ran:
    """A run as in a deployment; of a test Airflow has no pages."""
    from airflow import settings
    from airflow.sdk import timezone
    from airflow.utils.types import DagRunTriggeredByType, DagRunType

    from tailrace.adapters.airflow.home import register

    dag = as_dag(made)
    register(dag)
    scheduled, now = _as_scheduled(dag), timezone.utcnow()
    session = settings.Session()
    dag_run = scheduled.create_dagrun(
        run_id=f"manual__{now.isoformat()}", run_after=now, run_type=DagRunType.MANUAL, conf=conf,
        triggered_by=DagRunTriggeredByType.REST_API, state="running", start_date=now, session=session,
    )
    session.commit()
    return _go_on(dag, scheduled, dag_run.run_id)


def test_the_links_of_a_task_lead_to_its_artifacts_and_their_manifests() -> None:
    ran = linked(making("links"), {"run_id": "r"})
    assert ran.state == "success"
    found = links(ran, "load")
    for output in ("rows", "count"):
        uri = ran.records["load"].outputs[output].uri
        assert found[output] == uri
        assert found[f"{output} manifest"] == f"{uri}/manifest.json"
        assert Path(str(found[f"{output} manifest"]).removeprefix("file://")).is_file()
    assert not found["experiment run"]
    for index in range(2):
        uri = ran.records[f"fit@{index}"].outputs["model"].uri
        assert links(ran, f"fit_{index}")["model"] == uri
        assert links(ran, f"fit_{index}")["model manifest"] == f"{uri}/manifest.json"


def test_the_link_of_several_items_leads_to_the_folder_that_holds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "1")
    ran = linked(making("many links"), {"run_id": "r"})
    folder = ran.records["fit@0"].outputs["model"].uri.rpartition("/")[0]
    assert links(ran, "fit_0")["model"] == folder


def test_the_links_of_every_task_lead_to_the_run_in_the_tracker(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    pytest.importorskip("mlflow")
    (project / "tailrace.yaml").write_text(
        "project: {name: tracked}\nplugins:\n  experiment_tracker: {type: mlflow}\n"
    )
    ran = linked(making("tracked"), {"run_id": "r", "rates": [0.5]})
    assert ran.state == "success"
    assert re.fullmatch(r"run [0-9a-f]{32}: mlflow ui --backend-store-uri 'sqlite:///.*mlflow\.db'", ran.end.tracker_url)
    found = {name: links(ran, name)["experiment run"] for name in ("load", "fit_0", "final", "score")}
    assert set(found.values()) == {ran.end.tracker_url}
