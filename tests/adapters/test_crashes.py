"""A process that is killed anywhere leaves nothing wrong; the same run again finishes what is missing, once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from tailrace import LocalArtifactStore

pytestmark = pytest.mark.xdist_group("prefect")

CONFIG = """
project: {name: demo}
plugins:
  orchestrator: {type: inline}
  experiment_tracker: {type: mlflow}
  model_registry: {type: mlflow}
"""

PROGRAM = """
import os, signal, sys
from tailrace import Metrics, Model, Pipeline, context, step
from tailrace.routing.router import Router
from tailrace.stores.local import LocalArtifactStore
from tailrace.routing.trackers.mlflow import MlflowTracker
from tailrace.routing.registries.mlflow import MlflowRegistry

def kill_at(owner, name, after):
    original = getattr(owner, name)
    def killing(*args, **kwargs):
        result = original(*args, **kwargs) if after else None
        os.kill(os.getpid(), signal.SIGKILL)
        return result
    setattr(owner, name, killing)

@step
def train(lr: float) -> Model:
    return Model({"lr": lr}, name="net", version="2026.1")

@step
def evaluate(train: Model) -> Metrics:
    return Metrics(accuracy=0.5).at_step(7)

pipeline = Pipeline("p", context=context(lr=0.1)).add_step(train).add_step(evaluate)
POINTS = {
    "before the save": (LocalArtifactStore, "stage", False),
    "before the content is in place": (LocalArtifactStore, "put_tree", False),
    "before the manifest": (LocalArtifactStore, "put_tree", True),
    "before the registration": (MlflowRegistry, "register", False),
    "after the registration": (MlflowRegistry, "register", True),
    "before the metrics": (MlflowTracker, "log_metrics", False),
    "after the metrics": (MlflowTracker, "log_metrics", True),
    "before the run is closed": (MlflowTracker, "close_run", False),
    "after the tracker's run is made": (MlflowTracker, "_find_or_create", True),
}
if len(sys.argv) > 1:
    kill_at(*POINTS[sys.argv[1]])
pipeline.run(run_id="r")
"""

POINTS = [
    "before the save",
    "before the content is in place",
    "before the manifest",
    "before the registration",
    "after the registration",
    "before the metrics",
    "after the metrics",
    "before the run is closed",
    "after the tracker's run is made",
]


@pytest.fixture(scope="module")
def fresh_database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An MLflow database that is made once, since making one takes a second."""
    folder = tmp_path_factory.mktemp("mlflow")
    (folder / "tailrace.yaml").write_text(CONFIG)
    (folder / "program.py").write_text(PROGRAM.replace('run(run_id="r")', 'run(run_id="other")'))
    subprocess.run([sys.executable, "program.py"], cwd=folder, check=True)
    return (folder / ".tailrace" / "mlflow.db").read_bytes()


@pytest.mark.parametrize("point", POINTS)
def test_a_run_killed_anywhere_is_finished_by_the_same_run_again(
    point: str, project: Path, fresh_database: bytes
) -> None:
    from mlflow import MlflowClient

    (project / "tailrace.yaml").write_text(CONFIG)
    (project / "program.py").write_text(PROGRAM)
    (project / ".tailrace").mkdir()
    (project / ".tailrace" / "mlflow.db").write_bytes(fresh_database)
    killed = subprocess.run([sys.executable, "program.py", point], cwd=project, check=False)
    assert killed.returncode == -signal.SIGKILL

    store = LocalArtifactStore(project / ".tailrace" / "artifacts")
    for path in store.list_artifacts():
        store.load(path)  # whatever is committed is whole

    subprocess.run([sys.executable, "program.py"], cwd=project, check=True)
    client = MlflowClient(f"sqlite:///{project}/.tailrace/mlflow.db")
    runs = client.search_runs(
        [experiment.experiment_id for experiment in client.search_experiments()], "tags.`tailrace.run_id` = 'r'"
    )
    assert [run.info.status for run in runs] == ["FINISHED"]
    assert runs[0].data.params == {"train.lr": "0.1"}
    history = client.get_metric_history(runs[0].info.run_id, "accuracy")
    assert [(entry.step, entry.value) for entry in history] == [(7, 0.5)]
    versions = [
        version for version in client.search_model_versions("name = 'net'") if version.tags["tailrace.run_id"] == "r"
    ]
    assert [version.tags["tailrace.version"] for version in versions] == ["2026.1"]
    assert versions[0].tags["tailrace.digest"] == store.ref(versions[0].tags["tailrace.uri"]).digest
    assert [path.rpartition("/data/")[2] for path in store.list_artifacts()] == ["evaluate/evaluate", "train/train"]


SLEEPS = """
import time
from tailrace import Pipeline, step

@step
def first() -> int:
    return 1

@step
def sleeps(first: int) -> int:
    print("asleep", flush=True)
    for _ in range(1000):
        time.sleep(0.05)
    return 2

Pipeline("p").add_step(first).add_step(sleeps).run(run_id="r", orchestrator=%r)
"""


@pytest.mark.parametrize("engine", ["inline", "local"])
def test_an_interrupted_run_is_recorded_as_cancelled_and_stops_at_once(
    engine: str, project: Path, prefect_server: None
) -> None:
    from prefect.settings import get_current_settings

    (project / "program.py").write_text(SLEEPS % engine)
    environment = {**os.environ, "PREFECT_API_URL": str(get_current_settings().api.url or "")}
    with subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); import program",
        ],
        cwd=project,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        while "asleep" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode != 0
    assert "KeyboardInterrupt" in said
    folder = next((project / ".tailrace" / "artifacts").glob("*/*/r"))
    assert orjson.loads((folder / "result.json").read_bytes())["state"] == "cancelled"
    assert orjson.loads((folder / "steps" / "sleeps@all.json").read_bytes())["state"] == "cancelled"
    store = LocalArtifactStore(project / ".tailrace" / "artifacts")
    assert [path.rpartition("/data/")[2] for path in store.list_artifacts()] == ["first/first"]
    assert not list(store.base_path.rglob(".tmp-*"))
