"""What a step and ``to_flow`` say is said to Prefect; a flow's file stays cheap for those who want no Prefect."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace import Pipeline, PipelineError, StepFailed, load_pipeline, pipeline, step
from tailrace.adapters.prefect import to_flow
from tailrace.adapters.prefect.tasks import make_task
from tailrace.core.step import jittered

ROOT = Path(__file__).parents[2]


@step(retries=2, retry_delay=[1, 5], retry_jitter=0.5, timeout=30, tags=["cheap"], pool="warehouse", owner="ann")
def measure(days: int) -> int:
    """Says how many."""
    return days


@pipeline
def nightly(days: int = 1) -> None:
    """What the night brought."""
    measure(days)


def test_options_of_a_step_are_those_of_its_task() -> None:
    plan = nightly.plan()
    task = make_task(plan, plan.node("measure"))
    assert (task.retries, task.retry_delay_seconds, task.retry_jitter_factor) == (2, [1, 5], 0.5)
    assert (task.timeout_seconds, task.tags, task.description) == (30, {"cheap", "warehouse"}, "Says how many.")
    plain = make_task(plan, plan.node("measure")).with_options(name="x")
    assert plain.persist_result is False


def test_a_flow_has_the_plan_s_version_and_docstring_and_any_option_of_prefect_s() -> None:
    def told(*_: object) -> None:
        """A hook of the user's."""

    flow = to_flow(nightly, retries=2, log_prints=True, on_crashed=[told], flow_run_name="{days} days")
    assert (flow.version, flow.description) == (nightly.plan().version, "What the night brought.")
    assert (flow.retries, flow.log_prints, flow.flow_run_name) == (2, True, "{days} days")
    assert flow.on_crashed_hooks[1:] == [told]
    assert len(flow.on_cancellation_hooks) == 1
    assert to_flow(nightly, version="3").version == "3"


@given(st.floats(0, 1e6), st.floats(0, 10))
def test_a_delay_varies_by_its_share_and_never_below_zero(delay: float, share: float) -> None:
    found = jittered(delay, share)
    assert max(0.0, delay * (1 - share)) <= found + 1e-6
    assert found <= delay * (1 + share) + 1e-6
    assert jittered(delay, 0.0) == delay


def test_inline_waits_a_delay_with_jitter() -> None:
    waited: list[float] = []

    @step(retries=8, retry_delay=0.01, retry_jitter=0.5)
    def fails() -> int:
        raise OSError("busy")

    def told(event: Any) -> None:
        if event.kind == "retrying":
            waited.append(float(event.message.split()[-2]))

    with pytest.raises(StepFailed):
        Pipeline("p").add_step(fails).run(orchestrator="inline", on_event=told)
    assert len(set(waited)) > 1
    assert all(0.005 <= seconds <= 0.015 for seconds in waited)


def test_a_jitter_below_zero_is_refused() -> None:
    with pytest.raises(PipelineError, match="retry_jitter is -1"):
        measure.with_options(retry_jitter=-1)


CHEAP = """
import sys
from tailrace import load_pipeline
plan = load_pipeline(sys.argv[1]).plan()
flow = vars(sys.modules["breast_cancer"])["flow"]
assert not isinstance(flow, int)
assert not hasattr(flow, "__wrapped__")
assert not {"prefect", "sklearn", "pandas", "mlflow"} & set(sys.modules)

from prefect import Flow
assert isinstance(flow, Flow)
assert (flow.name, flow.version) == ("breast-cancer", plan.version)
assert flow.to_deployment("d").entrypoint.endswith("flows/breast_cancer.py:flow")
assert flow.with_options(name="other").name == "other"
flow.log_prints = True
assert flow.log_prints is True
"""


def test_a_flow_file_does_not_import_prefect_until_its_flow_is_asked_for() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHEAP, str(ROOT / "flows" / "breast_cancer.py")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["breast_cancer", "cross_validation", "monitor"])
def test_a_flow_file_says_the_same_to_prefect_as_to_tailrace(name: str) -> None:
    from prefect.flows import load_flow_from_entrypoint

    plan = load_pipeline(ROOT / "flows" / f"{name}.py").plan()
    flow: Any = load_flow_from_entrypoint(f"{ROOT / 'flows' / name}.py:flow")
    assert (flow.name, flow.version) == (plan.name, plan.version)
    assert set(flow.parameters.properties) == {*plan.params, "run_id", "stack"}
