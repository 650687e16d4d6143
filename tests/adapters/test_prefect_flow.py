"""``to_flow`` gives a real Prefect flow, found by its module and variable, with the parameters of the pipeline."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tailrace import LocalArtifactStore, StepFailed

pytestmark = pytest.mark.xdist_group("prefect")

MODULE = '''
from typing import Literal
from tailrace import Metrics, pipeline, step
from tailrace.adapters.prefect import to_flow

@step
def score(size: int, mode: str) -> Metrics:
    """Says how many."""
    if mode == "bad":
        raise ValueError("bad mode")
    return Metrics(size=size)

@pipeline(name="scores/all")
def scores(size: int = 3, mode: Literal["fast", "slow", "bad"] = "fast"):
    """What the flow is for."""
    score(size, mode)

deployed = to_flow(scores, variable="deployed")
'''


@pytest.fixture
def flow(prefect_server: None, project: Path) -> Any:
    from prefect.flows import load_flow_from_entrypoint

    (project / "scores.py").write_text(MODULE)
    return load_flow_from_entrypoint("scores.py:deployed")


def test_a_deployment_finds_the_flow_by_its_variable(flow: Any, project: Path) -> None:
    deployment = flow.to_deployment("nightly")
    assert deployment.entrypoint.endswith("scores.py:deployed")
    assert flow.name == "scores-all"
    assert flow.description == "What the flow is for."


def test_the_flow_has_the_schema_and_defaults_of_the_pipeline(flow: Any) -> None:
    properties = flow.parameters.model_dump()["properties"]
    assert properties["size"]["type"] == "integer"
    assert properties["size"]["default"] == 3
    assert properties["mode"]["enum"] == ["fast", "slow", "bad"]
    assert set(properties) == {"size", "mode", "run_id", "stack"}


def test_a_called_flow_stores_under_the_flow_runs_own_id_unless_it_is_given_one(flow: Any, project: Path) -> None:
    own = flow(size=5)
    assert flow(size=5, run_id="mine") == "mine"
    paths = LocalArtifactStore(project / ".tailrace" / "artifacts").list_artifacts()
    assert sorted(path.split("/")[2] for path in paths) == sorted([own, "mine"])


def test_bad_parameters_are_refused_before_the_run(flow: Any, project: Path) -> None:
    from prefect.exceptions import ParameterTypeError

    with pytest.raises(ParameterTypeError):
        flow(size="many")
    assert not (project / ".tailrace").exists()


def test_a_failed_step_fails_the_flow_run(flow: Any) -> None:
    with pytest.raises(StepFailed, match="bad mode"):
        flow(mode="bad")
    assert flow(mode="bad", return_state=True).is_failed()


def test_step_options_become_task_options() -> None:
    from tailrace import Pipeline, step
    from tailrace.adapters.prefect.tasks import make_task

    @step(retries=2, retry_delay=[1, 5], timeout=30, tags=["cheap"])
    def careful() -> int:
        """Says what it does."""
        return 1

    plan = Pipeline("p").add_step(careful).plan()
    task = make_task(plan, plan.nodes[0])
    assert (task.name, task.description) == ("careful", "Says what it does.")
    assert (task.retries, task.retry_delay_seconds, task.timeout_seconds) == (2, [1, 5], 30)
    assert task.tags == {"cheap"}
    assert task.persist_result is False


def test_a_flow_that_a_step_calls_is_a_run_of_its_own(flow: Any, project: Path) -> None:
    from tailrace import Pipeline, step

    @step
    def outer(size: int) -> str:
        inner: str = flow(size=size + 1, run_id="inner")
        return inner

    Pipeline("outer", context={"size": 1}).add_step(outer).run(run_id="outer")
    store = LocalArtifactStore(project / ".tailrace" / "artifacts")
    metrics = next(path for path in store.list_artifacts() if "/inner/" in path)
    assert store.load(metrics) == {"size": 2}


def test_the_error_of_a_failed_run_can_be_sent_to_another_process() -> None:
    import pickle

    sent = pickle.loads(pickle.dumps(StepFailed("it failed", step="one", result=None)))
    assert (str(sent), sent.step) == ("it failed", "one")


def test_options_for_prefect_go_to_its_task_over_ours(prefect_server: None) -> None:
    from tailrace import PipelineError, pipeline, step
    from tailrace.adapters.prefect import to_flow
    from tailrace.adapters.prefect.tasks import make_task

    @step(retries=1, prefect={"log_prints": True, "retries": 4, "version": "7"})
    def load() -> int:
        return 1

    @pipeline
    def loads() -> None:
        load()

    plan = loads.plan()
    task = make_task(plan, plan.node("load"))
    assert (task.log_prints, task.retries, task.version, task.name) == (True, 4, "7", "load")

    @pipeline
    def wrong() -> None:
        load.with_options(prefect={"retry": 1, "log_print": True})()

    with pytest.raises(PipelineError) as error:
        to_flow(wrong)
    assert [str(problem) for problem in error.value.problems] == [
        "Prefect's Task has no option 'log_print'. Did you mean 'log_prints'? @ step 'load', prefect",
        "Prefect's Task has no option 'retry'. Did you mean 'retries'? @ step 'load', prefect",
    ]


DAMAGED = """
from tailrace import Pipeline, TailraceError, step

@step
def one() -> int:
    return 1

try:
    Pipeline("p").add_step(one).run(orchestrator="local")
except TailraceError as error:
    print(error)
"""


def test_a_home_that_prefect_cannot_use_is_named(project: Path) -> None:
    home = project / "home"
    home.mkdir()
    (home / "prefect.db").write_text("a database of another version")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_API")}
    done = subprocess.run(
        [sys.executable, "-c", DAMAGED],
        cwd=project,
        env=environment | {"PREFECT_HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"its home is '{home}'" in done.stdout
