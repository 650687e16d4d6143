"""What other DAGs can be started by, and what a task's page leads to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tailrace import Dataset, Metrics, Model, Pipeline, PipelineError, pipeline, step
from tailrace.adapters.airflow import artifact_asset

from .in_process import Ran, as_dag, clear, links, run, run_as_deployed, run_pipeline

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
        rows, _ = load(size)
        fit.partial(rows=rows).map(rate=rates)
        score(fit.with_options(name="final", outputs=["best"])(rows, 0.3))

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
        ("lode.rows", r"there is no Dataset or Model 'lode.rows'. Did you mean 'load.rows'\? @ pipeline 'named'"),
        ("score", r"there is no Dataset or Model 'score'. Known: final.best, fit.model, load.rows."),
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

    with pytest.raises(PipelineError, match=r"several steps have 'rows'; say which: load.rows, more.rows"):
        artifact_asset(twice, "rows")
    assert artifact_asset(twice, "more.rows").uri.endswith("/more/rows")


def events(ran: Ran) -> dict[Any, tuple[str, dict[str, Any]]]:
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

    def schedule(**options: Any) -> Any:
        return as_dag(user, consumes={"model": asset}, **options).timetable

    assert list(schedule().asset_condition.objects) == [asset]
    assert schedule(schedule="@daily").expression == "0 0 * * *"
    assert schedule(schedule=None).can_be_scheduled is False


def test_a_run_that_an_asset_triggered_takes_the_artifact_of_the_event() -> None:
    made = making("trigger")
    asset = artifact_asset(made, "best")
    first = run_pipeline(made, {"run_id": "m1", "size": 4})
    dag = as_dag(using("triggered"), consumes={"model": asset})
    ran = run_as_deployed(dag, because_of=[asset])
    assert ran.state == "success"
    best = first.records["final"].outputs["best"]
    assert ran.asked.params["model"]["uri"] == best.uri
    run_pipeline(made, {"run_id": "m2", "size": 5})  # newer, and not what the run was triggered by
    again = clear(ran)
    assert again.state == "success"
    assert again.records["look"].inputs == {"model": [best.id]}


def test_a_run_that_is_started_by_hand_takes_the_newest_artifact_that_there_is() -> None:
    made = making("history")
    run_pipeline(made, {"run_id": "m1", "size": 4})
    best = run_pipeline(made, {"run_id": "m2", "size": 5}).records["final"].outputs["best"]
    ran = run(as_dag(using("by hand"), consumes={"model": artifact_asset(made, "best")}))
    assert ran.state == "success"
    assert ran.asked.params["model"]["uri"] == best.uri
    assert ran.records["look again"].inputs["model"] == [best.id]
    run_pipeline(made, {"run_id": "m3", "size": 6})
    assert clear(ran).state == "success"  # with the artifact that it began with, and no conflict
    assert ran.records["look"].inputs["model"] == [best.id]


def test_an_artifact_that_is_given_goes_before_any_event() -> None:
    made = making("explicit")
    best = run_pipeline(made, {"run_id": "m1", "size": 4}).records["final"].outputs["best"]
    run_pipeline(made, {"run_id": "m2", "size": 5})
    ran = run(as_dag(using("explicit user"), consumes={"model": artifact_asset(made, "best")}), {"model": best.uri})
    assert ran.state == "success"
    assert ran.records["look"].inputs["model"] == [best.id]


def test_without_any_event_the_error_says_which_dag_to_run(capfd: pytest.CaptureFixture[str]) -> None:
    asset = artifact_asset(making("never made"), "best")
    ran = run(as_dag(using("too early"), consumes={"model": asset}, default_args={"retries": 2}))
    assert ran.state == "failed"
    assert ran.states["look"] == "failed"
    assert {ti.try_number for name, ti in ran.instances().items() if name == "look"} == {1}
    said = re.sub(r"\s+", " ", capfd.readouterr().out)
    assert (
        "no artifact is given, and the asset 'never%20made/final/best' has no event yet; run the DAG that makes it"
        in said
    )
    assert "@ pipeline 'too early', parameter 'model'" in said


def test_a_parameter_that_an_asset_gives_may_be_left_out_on_a_schedule() -> None:
    asset = artifact_asset(making("scheduled"), "best")
    as_dag(using("on time"), consumes={"model": asset}, schedule="@daily")
    with pytest.raises(PipelineError, match="nobody gives the parameters model"):
        as_dag(using("on time"), schedule="@daily")


def test_a_parameter_that_is_no_artifact_cannot_take_one() -> None:
    asset = artifact_asset(making("no artifact"), "best")
    with pytest.raises(PipelineError, match=r"consumes gives 'size' an artifact; annotate .* @ pipeline 'no artifact'"):
        as_dag(making("no artifact"), consumes={"size": asset})


def test_what_no_asset_gives_needs_a_default_where_assets_start_the_runs() -> None:
    @pipeline(name="half given")
    def half_given(model: Model, rate: float) -> None:
        score(model)

    asset = artifact_asset(making("no artifact"), "best")
    with pytest.raises(
        PipelineError, match="nobody gives the parameters rate; give them defaults @ pipeline 'half given'"
    ):
        as_dag(half_given, consumes={"model": asset})
    assert as_dag(half_given, consumes={"model": asset}, schedule=None).params["model"] is None


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
    dag = as_dag(both, consumes={"model": best, "rows": rows}, schedule=(rows | best))
    ran = run_as_deployed(dag, because_of=[best])
    assert ran.state == "success"
    assert ran.value("count") == "4 4"


# --- links ------------------------------------------------------------------------------------------------------------


def test_the_links_of_a_task_lead_to_its_artifacts_and_their_manifests() -> None:
    ran = run_as_deployed(as_dag(making("links")), {"run_id": "r"})
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
    ran = run_as_deployed(as_dag(making("many links")), {"run_id": "r"})
    folder = ran.records["fit@0"].outputs["model"].uri.rpartition("/")[0]
    assert links(ran, "fit_0")["model"] == folder


def test_the_links_of_every_task_lead_to_the_run_in_the_tracker(project: Path) -> None:
    pytest.importorskip("mlflow")
    (project / "tailrace.yaml").write_text("project: {name: tracked}\nplugins:\n  experiment_tracker: {type: mlflow}\n")
    ran = run_as_deployed(as_dag(making("tracked")), {"run_id": "r", "rates": [0.5]})
    assert ran.state == "success"
    assert re.fullmatch(
        r"run [0-9a-f]{32}: mlflow ui --backend-store-uri 'sqlite:///.*mlflow\.db'", ran.end.tracker_url
    )
    found = {name: links(ran, name)["experiment run"] for name in ("load", "fit_0", "final", "score")}
    assert set(found.values()) == {ran.end.tracker_url}
