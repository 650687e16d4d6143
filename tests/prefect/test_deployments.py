"""A pipeline is deployed as any flow is, and what it leaves is what the pipeline leaves inline."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import SECRET
from .projects import Project
from .services import POOL, Prefect, PrefectError

pytestmark = pytest.mark.xdist_group("prefect deployed")

FLOW = '''
from __future__ import annotations

from enum import Enum
from typing import Literal
from tailrace import Metrics, Model, current_run, pipeline, step
from tailrace.adapters.prefect import to_flow

class Colour(Enum):
    RED = "red"
    BLUE = "blue"

class Tally(dict):
    """A type of this file."""

@step(outputs="model", retries=2, retry_delay=[0.1, 5], retry_jitter=0.5, tags=["slow"], pool="training", owner="ann")
def train(rate: float, sizes: tuple[int, ...], colour: Colour, note: str) -> Model:
    """Fits."""
    assert isinstance(sizes, tuple) and isinstance(colour, Colour)
    if current_run().run.attempt == 1:
        raise OSError("busy")
    return Model({"rate": rate, "sizes": list(sizes), "colour": colour.value}, name=f"line {note}", version="7")

@step(outputs="part")
def each(fold: int) -> int:
    return fold * fold

@step(outputs="folds")
def folds(sizes: tuple[int, ...]) -> list[int]:
    return list(sizes)

@step
def evaluate(model: Model, parts: list[int]) -> Metrics:
    return Metrics(rate=model.data["rate"], total=sum(parts))

@pipeline(name="lines/all")
def lines(rate: float, sizes: tuple[int, ...] = (1, 2), colour: Colour = Colour.RED, mode: Literal["a", "b"] = "a",
          note: str = "") -> None:
    """What the lines are for."""
    evaluate(train(rate, sizes, colour, note), each.map(fold=folds(sizes)))

flow = to_flow(lines)

@pipeline
def takes(model: Model, names: dict[str, int] = {}) -> None:
    evaluate.with_options(name="again")(model, [])

taking = to_flow(takes, variable="taking")

if __name__ == "__main__":
    flow.serve(name="served", parameters={"rate": 2.0, "note": "served"}, pause_on_shutdown=False)
'''

CONFIG = """
project: {name: conformance}
catalog: {url: "sqlite:///.tailrace/${SECRET}.db"}
active_stack: first
stacks:
  first: &stack
    orchestrator: {type: inline}
    artifact_store: {type: local, path: .tailrace/artifacts}
    experiment_tracker: {type: mlflow}
    model_registry: {type: mlflow}
  second: *stack
"""
MORE = """version: '1.2.0', tags: [nightly], schedules: [{cron: '0 6 * * *', active: false}], concurrency_limit: 2,
  parameters: {rate: 0.5}"""


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the reference, which runs here."""
    monkeypatch.setenv("SECRET", SECRET)


@pytest.fixture(scope="module")
def lines(deployed: Prefect) -> Project:
    return Project(deployed, "lines", flow=FLOW, deployments={"flow": MORE, "taking": "version: null"}, config=CONFIG)


def test_a_deployment_has_the_parameters_and_the_options_of_the_pipeline(lines: Project) -> None:
    found = lines.prefect.deployment("lines-all/d")
    schema = found["parameter_openapi_schema"]
    about = schema["properties"]
    assert schema["required"] == ["rate"]
    assert {name: item.get("default") for name, item in about.items()} == {
        "rate": None,
        "sizes": [1, 2],
        "colour": "red",
        "mode": "a",
        "note": "",
        "run_id": None,
        "stack": None,
    }
    assert (about["rate"]["type"], about["sizes"]["items"], about["mode"]["enum"]) == (
        "number",
        {"type": "integer"},
        ["a", "b"],
    )
    assert schema["definitions"]["Colour"]["enum"] == ["red", "blue"]
    assert (found["description"], found["entrypoint"]) == ("What the lines are for.", "lines_flow.py:flow")
    assert (found["version"], found["tags"], found["parameters"]) == ("1.2.0", ["nightly"], {"rate": 0.5})
    assert found["schedules"][0]["schedule"]["cron"] == "0 6 * * *"


def test_the_version_of_a_deployment_is_that_of_the_plan_unless_it_is_given(lines: Project) -> None:
    from tailrace import load_pipeline

    plan = load_pipeline(f"{lines.flow}:takes").plan()
    assert lines.prefect.deployment("takes/d")["version"] == plan.version
    assert lines.prefect.deployment("takes/d")["parameter_openapi_schema"]["required"] == ["model"]


def test_a_bad_value_is_refused_before_there_is_a_run(lines: Project) -> None:
    for bad in ({"rate": "fast"}, {"sizes": ["x"]}, {"colour": "green"}, {"mode": "c"}):
        with pytest.raises(PrefectError, match=r"409|422"):
            lines.prefect.trigger("lines-all/d", {"rate": 0.5, **bad})
    said = lines.prefect.cli("deployment", "run", "lines-all/d", "-p", "depth=3", check=False)
    assert "depth" in said
    assert "Scheduled start time" not in said


def test_a_run_leaves_what_inline_leaves_under_the_id_that_it_was_given(lines: Project) -> None:
    given = {"rate": 0.25, "sizes": [3, 4, 5], "colour": "blue"}
    run = lines.prefect.trigger("lines-all/d", given | {"run_id": "w 47", "stack": "second"})
    lines.completes(run)
    from tailrace import load_pipeline

    colour = load_pipeline(f"{lines.flow}:lines").plan().params["colour"].default
    typed = {"rate": 0.25, "sizes": (3, 4, 5), "colour": type(colour)("blue")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAILRACE_STACK", "second")
        assert lines.differences("lines", "w 47", typed) == []
    record = lines.journal("w 47").record()
    assert record is not None
    assert (record.run.orchestrator, record.run.native_id, record.run.stack) == ("prefect", run, "second")
    assert lines.prefect.run(run)["name"] == "w 47"
    tasks = {
        task["name"]: task
        for task in lines.prefect.call("POST", "/task_runs/filter", flow_runs={"id": {"any_": [run]}})
    }
    assert sorted(tasks) == ["each-0", "each-1", "each-2", "evaluate", "folds", "train"]
    assert (sorted(tasks["train"]["tags"]), tasks["train"]["run_count"]) == (["slow", "training"], 2)
    policy = tasks["train"]["empirical_policy"]
    assert (policy["retry_delay"], policy["retry_jitter_factor"]) == ([0.1, 5], 0.5)


def test_a_parameter_takes_the_artifact_of_another_run(lines: Project) -> None:
    (model,) = [path for path in lines.store.list_artifacts() if path.endswith("/model")]
    run = lines.prefect.trigger("takes/d", {"model": lines.store.uri(model)})
    lines.completes(run)
    (task,) = lines.journal(run).tasks()
    assert len(task.inputs) == 1
    assert lines.prefect.run(run)["name"] != run, "Prefect's own name"


def test_nothing_that_the_config_keeps_secret_is_in_prefect_s_database(deployed: Prefect, lines: Project) -> None:
    files = list((deployed.folder / "home").glob("prefect.db*"))
    if deployed.database != "sqlite":
        pytest.skip("its files are PostgreSQL's")
    text = b"".join(file.read_bytes() for file in files)
    assert b"What the lines are for." in text
    assert SECRET.encode() not in text


FETCH = """
from prefect import Flow
from prefect.runner.storage import GitRepository
source = GitRepository(url={source!r}, branch="main")
found = Flow.from_source(source=source, entrypoint="lines_flow.py:flow")
assert found.name == "lines-all"
found.deploy("fetched", work_pool_name={pool!r}, parameters={{"rate": 1.0, "note": "fetched"}}, build=False,
             print_next_steps=False, job_variables={{"env": {{"TAILRACE_CONFIG": {config!r}}}}})
"""


def test_code_is_pulled_from_a_git_repository_and_the_config_is_named_in_the_job_s_environment(
    deployed: Prefect, lines: Project, project: Path
) -> None:
    (project / "lines_flow.py").write_text(FLOW)
    who = ["-c", "user.name=ann", "-c", "user.email=ann@example.org"]
    for command in (["init", "--quiet", "--initial-branch=main"], ["add", "."], [*who, "commit", "-qm", "first"]):
        subprocess.run(["git", *command], cwd=project, check=True)
    script = project / "fetch.py"
    config = str(lines.folder / "tailrace.yaml")
    script.write_text(FETCH.format(source=project.as_uri(), pool=POOL, config=config))
    done = subprocess.run(
        [sys.executable, str(script)], env=deployed.env, cwd=deployed.folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    run = deployed.trigger("lines-all/fetched", {"run_id": "fetched"})
    lines.completes(run)
    deployed.until("its log says how", lambda: "git_clone" in deployed.logs(run))
    assert lines.differences("lines", "fetched", {"rate": 1.0, "note": "fetched"}) == []


@pytest.mark.slow
def test_a_flow_serves_itself_though_prefect_was_not_imported_when_it_was_made(
    deployed: Prefect, lines: Project
) -> None:
    service = deployed.start("serving", lines.flow)
    try:
        deployed.until("it is served", lambda: "served" in service.output(), 60)
        run = deployed.until("there is a deployment", lambda: _trigger(deployed), 60)
        lines.completes(run)
        assert lines.differences("lines", "served", {"rate": 2.0, "note": "served"}) == []
    finally:
        deployed.kill("serving")


def _trigger(deployed: Prefect) -> str:
    try:
        return deployed.trigger("lines-all/served", {"run_id": "served"})
    except PrefectError:
        return ""
