"""The tasks of one run may be processes that share nothing but the stores, the run and the references."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from tailrace import ArtifactRef
from tailrace.adapters.runs import close_run, open_run
from tailrace.core.refs import Run
from tailrace.routing.stacks import resolve_stack

from .test_crashes import CONFIG

PROGRAM = """
import os
from tailrace import Metrics, Model, Parameters, pipeline, step

@step(outputs=["first", "second"])
def split(size: int) -> tuple[list[int], list[int]]:
    return list(range(size)), [size]

@step
def train(rows: list[int], lr: float) -> Model:
    if os.environ.get("CRASH"):
        os._exit(7)
    return Model({"w": sum(rows) * lr}, name="net")

@step
def evaluate(models: list[Model], rows: list[int]) -> Metrics:
    return Metrics(best=max(model.data["w"] for model in models))

@pipeline
def p(size: int = 3, rates: list[float] = [0.1, 0.2]):
    first, second = split(size)
    evaluate(train.partial(rows=first).map(lr=rates), second)
"""

TASK = """
import json, sys
from program import p
from tailrace import ArtifactRef
from tailrace.adapters.runtime import run_step
from tailrace.core.refs import Run

def read(value):
    return [read(item) for item in value] if isinstance(value, list) else ArtifactRef.from_dict(value)

asked = json.load(sys.stdin)
refs = {name: read(value) for name, value in asked["refs"].items()}
done = run_step(p.plan(), asked["step"], Run.from_dict(asked["run"]), refs)
print(json.dumps({name: ref.to_dict() for name, ref in done.items()}))
"""


def _task(folder: Path, run: Run, step: str, refs: dict[str, Any], crash: bool = False) -> dict[str, Any]:
    asked = json.dumps({"run": run.to_dict(), "step": step, "refs": refs})
    environment = {**os.environ, **({"CRASH": "1"} if crash else {})}
    done = subprocess.run(
        [sys.executable, "task.py"],
        cwd=folder,
        env=environment,
        input=asked,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (7 if crash else 0), done.stderr
    return {} if crash else dict(json.loads(done.stdout))


def test_one_tracker_run_and_one_version_each_though_every_task_is_a_process_and_one_crashes(project: Path) -> None:
    from mlflow import MlflowClient

    (project / "tailrace.yaml").write_text(CONFIG)
    (project / "program.py").write_text(PROGRAM)
    (project / "task.py").write_text(TASK)
    module: dict[str, Any] = {"__name__": "program"}
    exec(compile(PROGRAM, "program.py", "exec"), module)
    plan = module["p"].plan()
    stack = resolve_stack()
    run = open_run(plan, params=plan.resolve_params({}), stack=stack, orchestrator="test", run_id="r:1")

    parts = _task(project, run, "split", {})
    models = []
    for index in range(2):
        own = replace(run, map_index=index)
        if index == 1:
            _task(project, own, "train", {"rows": parts["first"]}, crash=True)
        models.append(_task(project, replace(own, attempt=index + 1), "train", {"rows": parts["first"]})["train"])
    _task(project, run, "evaluate", {"models": models, "rows": parts["second"]})
    result = close_run(plan, run, "completed", stale=lambda task: False)

    assert result.outputs["evaluate"] == {"best": 3 * 0.2}
    assert all(len(json.dumps(ref)) < 1000 for ref in models)
    assert ArtifactRef.from_dict(models[0]).type == "Model"
    client = MlflowClient(f"sqlite:///{project}/.tailrace/mlflow.db")
    runs = client.search_runs([found.experiment_id for found in client.search_experiments()])
    assert [(found.info.status, found.data.metrics) for found in runs] == [("FINISHED", {"best": 3 * 0.2})]
    assert runs[0].data.params == {"split.size": "3", "train.lr": "[0.1, 0.2]"}
    assert len(client.search_model_versions("name = 'net'")) == 2
