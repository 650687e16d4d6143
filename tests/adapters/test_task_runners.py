"""On each of Prefect's task runners a run leaves what it leaves anywhere: threads, a pool of processes, Dask."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tailrace import Pipeline, TailraceError
from tailrace.adapters.testing import Engine, check_engine, check_graph, conformance_cases

from .test_conformance import GRAPH

pytestmark = pytest.mark.xdist_group("task-runners")
needs_dask = pytest.mark.skipif(find_spec("prefect_dask") is None, reason="prefect-dask is not installed")


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a Dask cluster of two worker processes."""
    from distributed import LocalCluster

    options: dict[str, Any] = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(**options) as running:  # type: ignore[no-untyped-call]  # has no types
        yield str(running.scheduler_address)


def _engine(make: Callable[[], Any]) -> Engine:
    def engine(pipeline: Pipeline, *, params: Mapping[str, Any], run_id: str, stack_config: Path, source: str) -> None:
        from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

        from tailrace.adapters.prefect import to_flow

        with contextlib.chdir(stack_config.parent), temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            to_flow(pipeline, task_runner=make())(**params, run_id=run_id)

    return engine


@pytest.fixture
def engine(request: pytest.FixtureRequest, prefect_server: None) -> Engine:
    from prefect.task_runners import ProcessPoolTaskRunner

    if request.param == "processes":
        return _engine(lambda: ProcessPoolTaskRunner(max_workers=2))
    from prefect_dask.task_runners import DaskTaskRunner

    address = request.getfixturevalue("cluster")
    return _engine(lambda: DaskTaskRunner(address=address))


_OFTEN = {"processes": ("timeout",), "dask": ("diamond", "an item fails", "retries", "timeout")}
"""Cases of the battery that are run by default. Processes are made anew for each, which takes seconds."""


def _on(runner: str, *values: object) -> Any:
    slow = bool(values) and values[0] not in _OFTEN[runner]
    marks = [*([needs_dask] if runner == "dask" else []), *([pytest.mark.slow] if slow else [])]
    return pytest.param(runner, *values, marks=marks)


@pytest.mark.parametrize(
    ("engine", "case"), [_on(name, case) for name in _OFTEN for case in conformance_cases()], indirect=["engine"]
)
def test_a_runner_leaves_what_the_reference_leaves(engine: Engine, case: str, tmp_path: Path) -> None:
    check_engine(engine, case, tmp_path)


@pytest.mark.parametrize("engine", [_on("dask")], indirect=True)
def test_a_runner_leaves_what_the_reference_leaves_of_a_random_pipeline(engine: Engine, tmp_path: Path) -> None:
    check_graph(engine, GRAPH, tmp_path)


# --- programs of their own --------------------------------------------------------------------------------------------

CONFIG = """
stacks:
  processes:
    orchestrator: {type: local, task_runner: processes, max_workers: 2}
  dask:
    orchestrator: {type: local, task_runner: dask, max_workers: 2}
"""
PROGRAM = """
from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tailrace import pipeline, step

@dataclass(frozen=True)
class Point:
    x: int
    pid: int

@step
def work(x: int, seconds: float) -> Point:
    Path(f"marks/begun-{x}-{os.getpid()}").touch()
    for _ in range(int(100 * seconds)):
        time.sleep(0.01)
    Path(f"marks/ended-{x}").touch()
    return Point(x, os.getpid())

@step
async def gather(points: list[Point]) -> list[int]:
    assert all(type(point) is Point for point in points), [type(point) for point in points]
    return [point.x for point in points]

@pipeline
def points(seconds: float = 0.0):
    gather(work.partial(seconds=seconds).map(x=list(range(6))))

if __name__ == "__main__":
    stack, seconds = sys.argv[1:]
    events = []
    result = points.run({"seconds": float(seconds)}, stack=stack, run_id="r", on_event=events.append)
    assert result.outputs["gather"] == list(range(6))
    assert not any(task.native_id == "" for task in result.steps["work"].tasks)
    pids = {point.pid for point in result.outputs["work"]}
    assert os.getpid() not in pids
    print([(event.kind, event.record.state) for event in events if event.step == "gather" and event.record])
"""


def _start(project: Path, runner: str, seconds: float) -> subprocess.Popen[str]:
    from prefect.settings import PREFECT_API_URL

    (project / "marks").mkdir()
    (project / "tailrace.yaml").write_text(CONFIG)
    (project / "points.py").write_text(PROGRAM)
    command = [sys.executable, "points.py", runner, str(seconds)]
    environment = os.environ | {"PREFECT_API_URL": PREFECT_API_URL.value() or ""}
    return subprocess.Popen(
        command, cwd=project, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def _wait(what: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def _is_empty(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("runner", [_on("processes"), _on("dask")])
def test_steps_and_classes_of_a_script_reach_the_workers_and_their_events_the_caller(
    runner: str, prefect_server: None, project: Path
) -> None:
    process = _start(project, runner, 0)
    said, _ = process.communicate(timeout=180)
    assert process.returncode == 0, said
    assert "[('ended', 'completed')]" in said
    _wait(lambda: _is_empty(process.pid))


@pytest.mark.parametrize("runner", [_on("processes"), _on("dask")])
def test_an_interrupted_run_stops_the_steps_in_its_workers(runner: str, prefect_server: None, project: Path) -> None:
    process = _start(project, runner, 60)
    _wait(lambda: len(list((project / "marks").glob("begun-*"))) >= 2)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in said
    _wait(lambda: _is_empty(process.pid))
    assert not list((project / "marks").glob("ended-*"))
    folder = next((project / ".tailrace" / "artifacts").rglob("result.json")).parent
    assert '"cancelled"' in (folder / "result.json").read_text()
    states = [record.read_text() for record in folder.rglob("steps/work*.json")]
    assert len(states) == len(list((project / "marks").glob("begun-*"))) == 2, said
    assert all('"cancelled"' in state for state in states)


def test_processes_end_when_the_flow_is_killed(prefect_server: None, project: Path) -> None:
    process = _start(project, "processes", 60)
    _wait(lambda: len(list((project / "marks").glob("begun-*"))) >= 2)
    process.kill()
    process.communicate(timeout=60)
    _wait(lambda: _is_empty(process.pid))
    assert not list((project / "marks").glob("ended-*"))


# --- what is sent -----------------------------------------------------------------------------------------------------

ELSEWHERE = """
import sys
from tailrace.adapters.prefect.sending import unpacked
part = unpacked(sys.stdin.buffer.read())
(step,) = [node.step for node in part.nodes if node.name == "work"]
print(step.code_version, part.version, step.annotations["return"].__name__, step.fn(3, 0.0).x)
"""


def test_a_step_of_a_file_that_was_loaded_by_its_path_is_sent_as_it_is(project: Path) -> None:
    from tailrace.adapters.prefect.sending import packed
    from tailrace.core.load import load_pipeline

    (project / "files" / "marks").mkdir(parents=True)
    (project / "files" / "points.py").write_text(PROGRAM)
    pipeline = load_pipeline("files/points.py")
    plan = pipeline.plan()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [folder for folder in sys.path if not folder.endswith("files")])
        sent = packed(plan, "work")
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], input=sent, cwd=project / "files", capture_output=True, check=False
    )
    expected = f"{plan.node('work').step.code_version} {plan.version} Point 3"
    assert done.stdout.decode().split() == expected.split(), done.stderr.decode()


def test_with_each_task_only_its_own_part_of_the_plan_is_sent() -> None:
    import cloudpickle

    from tailrace import pipeline
    from tailrace.adapters.prefect.tasks import StepTask
    from tailrace.adapters.testing.pipelines import add

    @pipeline
    def long() -> None:
        value = add(1, 2)
        for _ in range(1000):
            value = add(value, 1)

    plan = long.plan()
    sent = cloudpickle.dumps(StepTask(plan, "add-500"))
    assert len(sent) < 2000
    received = cloudpickle.loads(sent)
    assert [node.name for node in received.plan.nodes] == ["add-499", "add-500"]
    assert received.plan.version == plan.version
    assert cloudpickle.loads(sent) is received


def test_processes_refuse_a_store_that_is_in_memory(prefect_server: None, project: Path) -> None:
    from prefect.task_runners import ProcessPoolTaskRunner

    from tailrace.adapters.prefect import to_flow
    from tailrace.adapters.testing import PIPELINES

    (project / "tailrace.yaml").write_text("plugins: {artifact_store: {type: memory}}\n")
    flow = to_flow(PIPELINES["chain"].pipeline, task_runner=ProcessPoolTaskRunner(max_workers=1))
    with pytest.raises(TailraceError, match="store 'default' is in the memory of one process"):
        flow()
