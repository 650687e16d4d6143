"""The step cache in runs: what is taken from it is stored, tracked, registered and shown like what was computed."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from tailrace import (
    ArtifactRef,
    Dataset,
    MaterializationError,
    Metrics,
    Model,
    Parameters,
    Pipeline,
    PipelineError,
    Report,
    RunResult,
    StepFailed,
    StepSkipped,
    current_run,
    pipeline,
    step,
)
from tailrace.adapters.events import StepEvent
from tailrace.adapters.testing import left_behind
from tailrace.routing.cache.entries import tiers
from tailrace.routing.catalog import open_catalog
from tailrace.routing.stacks import resolve_stack

from ..stores.servers import ENVIRONMENT, Missing, moto

TRACKED = """
active_stack: dev
stacks:
  dev:
    orchestrator: {type: inline}
    experiment_tracker: {type: mlflow}
    model_registry: {type: mlflow}
    artifact_stores: {cold: {type: local, path: .tailrace/cold}}
    artifact_routing:
      Report: {store: cold}
"""


def count(name: str) -> None:
    """Note that a step was computed, where neither its key nor another process is in the way."""
    with Path("calls.txt").open("a") as calls:
        calls.write(f"{name}\n")


def computed() -> list[str]:
    return Path("calls.txt").read_text().split() if Path("calls.txt").exists() else []


def run(pipe: Pipeline, params: dict[str, Any] | None = None, **how: Any) -> RunResult:
    return pipe.run(params, orchestrator="inline", **how)


def one(result: RunResult, name: str) -> ArtifactRef:
    ref = result.outputs.ref(name)
    assert isinstance(ref, ArtifactRef)
    return ref


def entry_files(folder: Path = Path(".tailrace/cache")) -> list[Path]:
    return sorted(folder.rglob("entries/*/*.json"))


@step(outputs=["rows"])
def rows(size: int) -> Dataset:
    return Dataset([{"x": x} for x in range(size)], name="points")


@step(cache=True, outputs=["model", "scores", "settings", "report"])
def fit(rows: Dataset, rate: float) -> tuple[Model, Metrics, Parameters, Report]:
    count("fit")
    current_run().record_artifact({"rows": len(rows.data)}, kind="note")
    current_run().record_artifact(Metrics(inner=1.5), name="beside")
    size = len(rows.data) * rate
    model = Model({"slope": size}, name="line", tags={"team": "mill"}, parents=["elsewhere"])
    return model, Metrics(size=size).at_step(3), Parameters(rate=rate), Report("# fine", name="fine")


@pipeline
def train(size: int = 3, rate: float = 0.5) -> None:
    fit(rows(size), rate)


@step(cache=True)
def double(number: int) -> int:
    count("double")
    return 2 * number


@pipeline
def doubling(number: int = 4) -> None:
    double(number)


# --- like a computed result -------------------------------------------------------------------------------------------


def test_a_hit_leaves_what_the_computed_run_left_but_for_the_ids(project: Path) -> None:
    (project / "tailrace.yaml").write_text(TRACKED)
    events: list[StepEvent] = []
    first, again = run(train, run_id="first"), run(train, run_id="again", on_event=events.append)
    assert computed() == ["fit"]
    names = {"run_id", "cached", "manifest_digest", "id", "inputs"}

    def plain(run_id: str) -> Any:
        text = orjson.dumps([vars(left_behind(project, run_id))["files"], left_behind(project, run_id).tracker["runs"]])
        data = orjson.loads(text.replace(run_id.encode(), b"RUN"))
        return _without(data, names)

    assert plain("first") == plain("again")
    for name in ("model", "scores", "settings", "report"):
        one_first, one_again = one(first, name), one(again, name)
        assert one_first.digest == one_again.digest
        assert one_first.uri != one_again.uri
    assert "/.tailrace/cold/" in one(again, "report").uri
    assert again.outputs["model"].data == {"slope": 1.5}
    task = again.steps["fit"].tasks[0]
    assert task.state == "completed"
    assert task.cached["run_id"] == "first"
    assert task.cached["cache"] == "local"
    assert task.destinations["model"]["registry"] == "mlflow:line/2"
    assert [ref.name for ref in task.extra] == ["note", "beside"]
    assert "fit: completed (cached)" in again.summary()
    assert [event.record.cached["run_id"] for event in events if event.record and event.record.cached] == ["first"]


def _without(data: Any, names: set[str]) -> Any:
    if isinstance(data, dict):
        return {key: _without(value, names) for key, value in data.items() if key not in names}
    return [_without(item, names) for item in data] if isinstance(data, list) else data


def test_the_parents_of_a_hit_are_this_runs_inputs_and_those_its_author_named() -> None:
    run(train, run_id="first")
    again = run(train, run_id="again")
    with open_catalog(resolve_stack()) as catalog:
        catalog.sync()
        assert [parent.id for parent in catalog.parents(one(again, "model").id)] == [one(again, "rows").id]
        manifest = resolve_manifest(one(again, "model"))
    assert [parent.input for parent in manifest.parents] == ["rows", ""]
    assert manifest.parents[1].id == "elsewhere"
    assert manifest.producer.run_id == "again"
    assert manifest.tags == {"team": "mill"}


def resolve_manifest(ref: ArtifactRef) -> Any:
    from tailrace.routing.router import Router

    return Router(resolve_stack()).store_of(ref.uri).manifest(ref)


# --- what the key holds -----------------------------------------------------------------------------------------------


def test_other_inputs_parameters_and_outputs_are_other_entries() -> None:
    run(train)
    run(train, {"size": 4})
    run(train, {"rate": 0.25})
    run(train)
    assert computed() == ["fit"] * 3
    run(Pipeline("renamed", function=lambda: double.with_options(outputs=["twice"])(4)))
    run(doubling)
    run(doubling, {"number": 5})
    assert computed()[3:] == ["double"] * 3


def test_a_step_of_another_name_and_pipeline_that_does_the_same_takes_the_entry() -> None:
    run(doubling)
    result = run(Pipeline("other", function=lambda: double.with_options(name="again", outputs=["double"])(4)))
    assert result.outputs["double"] == 8
    assert computed() == ["double"]


def test_what_an_artifact_says_beside_its_content_counts_where_the_step_sees_it() -> None:
    def made(unit: str) -> Pipeline:
        @step(outputs=["data"])
        def make(unit: str) -> Dataset:
            return Dataset([1, 2], metadata={"unit": unit})

        @step(cache=True)
        def say(data: Dataset) -> str:
            count("say")
            return str(data.metadata["unit"])

        return Pipeline("units", function=lambda: say(make(unit)))

    assert [run(made(unit)).outputs["say"] for unit in ("m", "km", "m")] == ["m", "km", "m"]
    assert computed() == ["say", "say"]


def test_a_version_stands_for_the_code_and_names_the_function() -> None:
    def made(version: str | None, number: int) -> Pipeline:
        @step(cache=True, version=version)
        def give() -> int:
            return number

        @step(cache=True, version=version)
        def other() -> int:
            return -number

        def wire() -> None:
            give()
            other.with_options(outputs=["give2"])()

        return Pipeline("versions", function=wire)

    values = [run(made(version, number)).outputs["give"] for version, number in [("1", 1), ("1", 2), ("2", 3)]]
    assert values == [1, 1, 3]
    assert [run(made(None, number)).outputs["give"] for number in (1, 2)] == [1, 2]
    assert run(made("2", 9)).outputs["give2"] == -3


def test_files_packages_and_objects_that_the_step_depends_on_count(project: Path) -> None:
    (project / "data").mkdir()
    (project / "data" / "a.csv").write_text("1")
    limits = {"most": 1}

    @step(cache=True, depends_on=["data", Path("data/a.csv"), "numpy", len, limits])
    def read() -> str:
        count("read")
        return Path("data/a.csv").read_text()

    pipe = Pipeline("reading", function=lambda: read())
    assert [run(pipe).outputs["read"] for _ in range(2)] == ["1", "1"]
    (project / "data" / "a.csv").write_text("2")
    assert run(pipe).outputs["read"] == "2"
    limits["most"] = 2
    run(pipe)
    assert computed() == ["read"] * 3


def test_a_dependency_that_is_nowhere_fails_the_step_by_name() -> None:
    lost = Pipeline("lost", function=lambda: double.with_options(depends_on=["no-such-package"])(1))
    with pytest.raises(StepFailed, match="no-such-package") as failed:
        run(lost)
    assert isinstance(failed.value.__cause__, PipelineError)
    assert failed.value.step == "double"


def test_a_parameter_counts_by_its_content_and_one_without_is_refused_by_name() -> None:
    @step(cache=True)
    def total(numbers: Any) -> int:
        count("total")
        return int(numbers.sum())

    for numbers in (np.arange(3), np.arange(3), np.arange(4)):
        run(Pipeline("arrays", function=lambda numbers=numbers: total.partial(numbers=numbers)()))
    assert computed() == ["total", "total"]
    with pytest.raises(StepFailed, match=r"step 'total' cannot be cached: its parameter 'numbers'") as failed:
        run(Pipeline("objects", function=lambda: total.partial(numbers=object())()))
    assert isinstance(failed.value.__cause__, MaterializationError)


@pytest.mark.parametrize("value", [0, -1, timedelta(0)])
def test_an_age_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(PipelineError, match="seconds above 0"):
        step(cache=value)(lambda: 1)


# --- what is not kept -------------------------------------------------------------------------------------------------


def test_skipped_and_failed_steps_are_not_kept() -> None:
    @step(cache=True)
    def moody(fails: bool) -> int:
        count("moody")
        if fails:
            raise ValueError("no")
        raise StepSkipped("not today")

    pipe = Pipeline("moods", context={"fails": False}, function=lambda fails=False: moody(fails))
    for _ in range(2):
        assert run(pipe).steps["moody"].state == "skipped"
        with pytest.raises(StepFailed):
            run(pipe, {"fails": True})
    assert computed() == ["moody"] * 4
    assert entry_files() == []


def test_a_step_without_the_option_leaves_no_cache() -> None:
    run(Pipeline("plain", function=lambda: double.with_options(cache=False)(1)))
    assert not Path(".tailrace/cache").exists()


def test_items_have_entries_of_their_own_whatever_their_place() -> None:
    @step(outputs=["numbers"])
    def numbers(upto: int) -> list[int]:
        return list(range(upto, 0, -1))

    def wire(upto: int) -> Pipeline:
        return Pipeline("items", function=lambda: double.map(number=numbers(upto)))

    assert run(wire(3)).outputs["double"] == [6, 4, 2]
    result = run(wire(5))
    assert result.outputs["double"] == [10, 8, 6, 4, 2]
    assert result.steps["double"].cached == 3
    assert "double x5: completed (3 of 5 cached)" in result.summary()
    assert len(computed()) == 5


# --- age, refusing, refreshing ----------------------------------------------------------------------------------------


def test_an_entry_that_is_too_old_is_computed_again_and_replaced() -> None:
    def aged(limit: Any) -> Pipeline:
        return Pipeline("aged", function=lambda: double.with_options(cache=limit)(4))

    run(aged(True))
    (kept,) = entry_files()
    before = kept.read_bytes()
    run(aged(timedelta(hours=1)))
    run(aged(3600.0))
    assert computed() == ["double"]
    run(aged(1e-6))
    assert computed() == ["double"] * 2
    assert kept.read_bytes() != before


def test_refresh_computes_and_replaces_and_off_neither_reads_nor_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILRACE_CACHE", "off")
    run(doubling)
    assert entry_files() == []
    monkeypatch.delenv("TAILRACE_CACHE")
    run(doubling, run_id="one")
    monkeypatch.setenv("TAILRACE_CACHE", "refresh")
    run(doubling, run_id="two")
    monkeypatch.setenv("TAILRACE_CACHE", "on")
    assert run(doubling).steps["double"].tasks[0].cached["run_id"] == "two"
    assert len(computed()) == 3
    monkeypatch.setenv("TAILRACE_CACHE", "perhaps")
    with pytest.raises(StepFailed, match="on, refresh, off"):
        run(doubling)


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["half", "digit", "empty", "other"])
def test_a_damaged_entry_is_a_miss_that_is_told_and_replaced(damage: str) -> None:
    run(doubling)
    (kept,) = entry_files()
    data = kept.read_bytes()
    kept.write_bytes(
        {"half": data[: len(data) // 2], "digit": data.replace(b'"v":1', b'"v":7'), "empty": b"", "other": b"[1]"}[
            damage
        ]
    )
    with pytest.warns(UserWarning, match="step cache .* cannot be read for step 'double'"):
        assert run(doubling).outputs["double"] == 8
    assert run(doubling).steps["double"].cached == 1
    assert computed() == ["double"] * 2


@pytest.mark.parametrize("what", ["content", "manifest", "everything"])
def test_an_artifact_that_is_damaged_or_gone_is_a_miss_that_is_told_and_replaced(what: str) -> None:
    first = run(doubling)
    folder = Path(one(first, "double").uri.removeprefix("file://"))
    if what == "content":
        (content,) = folder.glob("content-*/*")
        content.chmod(0o644)
        content.write_bytes(b"9")
    elif what == "manifest":
        (folder / "manifest.json").write_bytes((folder / "manifest.json").read_bytes().replace(b"double", b"triple"))
    else:
        subprocess.run(["rm", "-r", str(folder)], check=True)
    with pytest.warns(UserWarning, match="has lost an artifact for step 'double'"):
        assert run(doubling).outputs["double"] == 8
    assert run(doubling).steps["double"].cached == 1


# --- several machines, several processes ------------------------------------------------------------------------------


def machine(folder: Path, monkeypatch: pytest.MonkeyPatch, config: str = "") -> None:
    folder.mkdir(exist_ok=True)
    if config:
        (folder / "tailrace.yaml").write_text(config)
    monkeypatch.chdir(folder)


def test_two_machines_share_a_cache_in_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        server = moto()
        running = server.__enter__()
    except Missing as reason:
        pytest.skip(str(reason))
    try:
        for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": running.url}.items():
            monkeypatch.setenv(name, value)
        _share(f"s3://{running.bucket()}/cache", tmp_path, monkeypatch)
    finally:
        server.__exit__(None, None, None)


def test_two_machines_share_a_cache_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _share(str(tmp_path / "shared"), tmp_path, monkeypatch)


def _share(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILRACE_CACHE_REMOTE", place)
    machine(tmp_path / "one", monkeypatch)
    first = run(train, run_id="on-one")
    assert computed() == ["fit"]
    machine(tmp_path / "two", monkeypatch, TRACKED)
    second = run(train)
    assert computed() == []
    task = second.steps["fit"].tasks[0]
    assert task.cached["run_id"] == "on-one"
    assert task.cached["cache"] != "local"
    assert len(task.extra) == 2
    assert [one(first, name).digest for name in ("model", "scores", "report")] == [
        one(second, name).digest for name in ("model", "scores", "report")
    ]
    assert resolve_manifest(one(second, "model")).parents[1].id == "elsewhere"
    subprocess.run(["rm", "-r", str(tmp_path / "one")], check=True)
    third = run(train)  # the hit filled the local cache
    assert third.steps["fit"].tasks[0].cached["cache"] == "local"
    assert third.steps["fit"].tasks[0].cached["run_id"] == "on-one"
    shared = tiers(tmp_path / "two", "dev")[-1]
    assert [entry.step for entry in shared.entries()] == ["fit"]
    assert [entry.run_id for entry in shared.clear()] == ["on-one"]
    assert list(shared.store.walk(contents=True)) == []


def test_a_damaged_copy_in_a_shared_cache_is_mended_by_who_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAILRACE_CACHE_REMOTE", str(tmp_path / "shared"))
    machine(tmp_path / "one", monkeypatch)
    run(doubling)
    (content,) = (tmp_path / "shared").rglob("content-*/*")
    content.chmod(0o644)
    content.write_bytes(b"9")
    machine(tmp_path / "two", monkeypatch)
    with pytest.warns(UserWarning, match="has lost an artifact"):
        assert run(doubling).outputs["double"] == 8
    machine(tmp_path / "three", monkeypatch)
    result = run(doubling)
    assert result.outputs["double"] == 8
    assert result.steps["double"].cached == 1


def test_a_shared_cache_that_cannot_be_reached_fails_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("TAILRACE_CACHE_REMOTE", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="The run goes on without it") as told:
        assert run(doubling).outputs["double"] == 8
    assert len(told) == 1  # it is not asked again
    assert run(doubling).steps["double"].cached == 1  # by the local one


PROCESS = """
import sys, time
from pathlib import Path
from tailrace import Pipeline, step

@step(cache=True)
def slow(number: int) -> dict:
    Path(f"started-{sys.argv[1]}").touch()
    deadline = time.monotonic() + 30
    while len(list(Path(".").glob("started-*"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    return {"by": sys.argv[1], "all": len(list(Path(".").glob("started-*")))}

result = Pipeline("race", function=lambda: slow(1)).run(orchestrator="inline")
print(result.outputs["slow"]["all"], result.steps["slow"].cached)
"""


def test_processes_that_compute_one_key_at_once_all_succeed_and_leave_one_entry(tmp_path: Path, project: Path) -> None:
    import os

    (project / "race.py").write_text(PROCESS)
    env = {**os.environ, "TAILRACE_CACHE_REMOTE": str(tmp_path / "shared")}
    racing = [
        subprocess.Popen([sys.executable, "race.py", name], stdout=subprocess.PIPE, text=True, env=env)
        for name in ("a", "b", "c")
    ]
    assert [process.communicate(timeout=60)[0].split() for process in racing] == [["3", "0"]] * 3
    assert len(entry_files()) == 1
    assert len(entry_files(tmp_path / "shared")) == 1
    last = subprocess.run([sys.executable, "race.py", "d"], capture_output=True, text=True, env=env, check=True)
    assert last.stdout.split() == ["3", "1"]
