"""A DAG file costs what a bare one costs, touches nothing, and says the same to Airflow at every parse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tailrace import Pipeline, pipeline, step

pytestmark = [pytest.mark.xdist_group("airflow"), pytest.mark.usefixtures("airflow_home")]

BARE = """
from airflow.sdk import DAG, Asset, BaseOperator, BaseOperatorLink, Param, RetryPolicy, dag, task

class Echo(BaseOperator):
    def __init__(self, word, **options):
        super().__init__(**options)
        self.word = word

@dag(schedule="@daily", params={"size": Param(3, type="integer")})
def bare():
    @task(retries=2)
    def one():
        return [1]

    Echo.partial(task_id="each", outlets=[Asset("bare", "example://bare")]).expand(word=one())

bare()
"""

OURS = '''
from __future__ import annotations
from enum import Enum
from typing import Literal
from tailrace import Dataset, Metrics, Model, pipeline, step
from tailrace.adapters.airflow import artifact_asset, to_dag

class Colour(Enum):
    RED = "red"
    BLUE = "blue"

@step(outputs=["train", "test"], retries=2, retry_delay=[1, 5], tags=["io", "cheap"])
def load(size: int) -> tuple[Dataset, Dataset]:
    """Rows from nowhere."""
    import numpy as np
    import pandas as pd

    rows = pd.DataFrame({"x": np.arange(size)})
    return rows[:-1], rows[-1:]

@step(outputs=["model"], timeout=60)
def fit(train: Dataset, alpha: float, password: str = "hunter2") -> Model:
    import mlflow
    from sklearn.linear_model import Ridge

    mlflow.autolog()
    return Ridge(alpha=alpha).fit(train.data, train.data)

@step
def score(model: Model, test: Dataset, token: str) -> Metrics:
    return Metrics(r2=model.data.score(test.data, test.data))

@pipeline(name="heavy")
def heavy(size: int = 10, alphas: list[float] = [0.1, 1.0], colour: Colour = Colour.RED, mode: Literal["a", "b"] = "a",
          labels: set[str] = {"north", "south", "east", "west"}, rate: float = 0.5) -> None:
    """Ridge after ridge."""
    train, test = load(size)
    models = fit.partial(train=train).map(alpha=alphas)
    last = fit.with_options(name="last", outputs=["final"])(train, rate)
    score(last, test, "s3cr3t")

dag = to_dag(heavy, schedule="@daily", stack="prod")
after = to_dag(heavy, dag_id="after", consumes={}, schedule=artifact_asset(heavy, "final"))
'''


def python(code: str, *arguments: str, **env: str) -> str:
    """What a new process prints."""
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **env}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=env, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


AUDITED = """
import json, os, runpy, sys
runpy.run_path(sys.argv[1])  # whatever a bare DAG file needs is there already
before, done = set(sys.modules), []

def watch(event, args):
    if event == "open" and args[0] is not None:
        path, mode, flags = args
        writing = set(mode or "") & set("wax+") or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writing or str(path).endswith((".yaml", ".yml", ".db")):
            done.append(f"open {path} {mode}")
    elif event in {"socket.connect", "socket.bind", "socket.getaddrinfo", "sqlite3.connect", "subprocess.Popen",
                   "os.mkdir", "os.rename", "os.remove", "os.fork", "os.posix_spawn"}:
        done.append(f"{event} {args}")

sys.addaudithook(watch)
dag = runpy.run_path(sys.argv[2])["dag"]
new = set(sys.modules) - before
print(json.dumps({
    "dag": dag.dag_id,
    "done": done,
    "foreign": sorted(name for name in new if name.partition(".")[0] not in {*sys.stdlib_module_names, "tailrace"}),
    "rooms": sorted({".".join(name.split(".")[:3]) for name in new if name.startswith("tailrace.")}),
}))
"""


@pytest.fixture
def files(project: Path) -> Path:
    folder = project / "dags"
    folder.mkdir()
    (folder / "bare.py").write_text(BARE)
    (folder / "heavy.py").write_text(OURS)
    (project / "tailrace.yaml").write_text("this: is not valid\n")
    return folder


def test_a_dag_file_loads_no_library_that_a_bare_one_does_not_and_touches_nothing(files: Path) -> None:
    seen = json.loads(python(AUDITED, str(files / "bare.py"), str(files / "heavy.py")))
    assert seen["dag"] == "heavy"
    assert seen["done"] == []
    assert seen["foreign"] == []
    assert {room.split(".")[1] for room in seen["rooms"]} == {"adapters", "core"}
    assert "tailrace.adapters.runtime" not in seen["rooms"]


WRITTEN = """
import json, runpy, sys
from airflow.models.serialized_dag import SerializedDagModel
from airflow.serialization.serialized_objects import LazyDeserializedDAG
found = runpy.run_path(sys.argv[1])
data = [LazyDeserializedDAG.from_dag(found[name]).data for name in ("dag", "after")]
print(json.dumps([data, [SerializedDagModel.hash(one) for one in data]], sort_keys=True))
"""


def test_two_processes_serialize_the_same_dag_alike(files: Path) -> None:
    # Airflow makes a new version of a DAG whose hash is another one, at each parse.
    one, other = (json.loads(python(WRITTEN, str(files / "heavy.py"), PYTHONHASHSEED=seed)) for seed in ("1", "2"))
    assert one == other


def dag_bag(folder: Path) -> Any:
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(dag_folder=str(folder))


def test_airflow_finds_the_dags_of_a_file_where_they_are(files: Path) -> None:
    bag = dag_bag(files)
    assert bag.import_errors == {}
    assert set(bag.dags) == {"bare", "heavy", "after"}
    assert bag.dags["heavy"].fileloc == str(files / "heavy.py")
    assert bag.dags["heavy"].task_dict["load"].work.folder == files


def test_a_pipeline_that_cannot_be_a_dag_is_an_import_error_that_names_it(files: Path) -> None:
    (files / "heavy.py").unlink()
    (files / "wrong.py").write_text(
        OURS.replace('dag = to_dag(heavy, schedule="@daily", stack="prod")', "").replace(
            "consumes={}", 'consumes={"sise": artifact_asset(heavy, "final")}'
        )
    )
    (message,) = dag_bag(files).import_errors.values()
    assert "consumes names 'sise', which is no parameter. Did you mean 'size'? @ pipeline 'heavy'" in message


@pytest.fixture
def serialized(files: Path) -> str:
    from airflow.serialization.serialized_objects import DagSerialization

    return json.dumps(DagSerialization.serialize_dag(dag_bag(files).dags["heavy"]))


def test_the_serialized_dag_holds_nothing_that_a_step_keeps_to_itself(serialized: str) -> None:
    assert "hunter2" not in serialized  # the default of a function
    assert "s3cr3t" not in serialized  # a value written in the pipeline
    assert "Ridge after ridge" in serialized
    assert "Rows from nowhere" in serialized


def test_the_serialized_dag_grows_by_less_than_two_kilobytes_a_step() -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    from .in_process import as_dag

    @step
    def grow(x: int) -> int:
        return x + 1

    def size(steps: int) -> int:
        @pipeline
        def growing(x: int = 0) -> None:
            for index in range(steps):
                x = grow.with_options(name=f"step_{index}")(x)

        return len(json.dumps(DagSerialization.serialize_dag(as_dag(growing))))

    assert (size(30) - size(10)) / 20 < 2048


def test_a_serialized_dag_comes_back_as_it_was(files: Path) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    dag = dag_bag(files).dags["heavy"]
    again = DagSerialization.deserialize_dag(json.loads(json.dumps(DagSerialization.serialize_dag(dag))))
    assert again.params.dump() == dag.params.dump()
    assert again.params["size"] == 10
    assert {name: task.downstream_task_ids for name, task in again.task_dict.items()} == {
        name: task.downstream_task_ids for name, task in dag.task_dict.items()
    }
    assert again.task_dict["load"].retries == 2
    assert again.task_dict["fit"].is_mapped
    assert [outlet.uri for outlet in again.task_dict["last"].outlets] == ["tailrace://heavy/last/final"]
    assert again.task_dict["close_run"].is_teardown


def test_names_that_airflow_refuses_become_keys_and_stay_to_be_seen() -> None:
    from .in_process import as_dag

    @step(name="straße a/b=1")
    def odd() -> int:
        return 1

    dag = as_dag(Pipeline("what = this / ü").add_step(odd))
    (task,) = [task for task in dag.tasks if task.task_id != "close_run"]
    assert task.task_display_name == "straße a/b=1"
    assert dag.dag_display_name == "what = this / ü"
    assert dag.dag_id.isascii()
    assert dag.dag_id != as_dag(Pipeline("what = this - ü").add_step(odd)).dag_id


BLOCKED = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "airflow":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import tailrace
try:
    import tailrace.adapters.airflow
except tailrace.TailraceError as error:
    print(type(error).__name__, error)
"""


def test_without_airflow_the_error_is_the_command_that_installs_it() -> None:
    said = python(BLOCKED)
    assert said.startswith("MissingExtra")
    assert "pip install 'tailrace[airflow]'" in said
