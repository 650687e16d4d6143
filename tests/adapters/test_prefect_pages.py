"""What Prefect's pages show of a run is read back from its server: artifacts, once each, and the events of assets."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import Artifact
from prefect.settings import PREFECT_API_URL

from tailrace import Dataset, Metrics, Model, Pipeline, StepFailed, pipeline, step
from tailrace.adapters.prefect import pages, to_flow

pytestmark = [pytest.mark.xdist_group("prefect"), pytest.mark.usefixtures("prefect_server")]

T = TypeVar("T")


@step
def numbers(size: int) -> Dataset:
    """Some numbers."""
    return Dataset(list(range(size)), name="numbers")


@step(outputs=["low", "high"])
def halves(numbers: Dataset) -> tuple[list[int], list[int]]:
    middle = len(numbers.data) // 2
    return numbers.data[:middle], numbers.data[middle:]


@step
def square(low: int) -> Dataset:
    return Dataset({"square": [low * low]}, name="square")


@step(outputs="model")
def learn(squares: list[Dataset], high: list[int]) -> Model:
    return Model({"squares": len(squares), "high": high}, name="learned", framework="none")


@step
def score(model: Model) -> Metrics:
    return Metrics(accuracy=0.5)


@pipeline(name="Shown/pages")
def shown(size: int = 8) -> None:
    low, high = halves(numbers(size))
    score(learn(square.map(low=low), high))


def artifacts(run_id: Any) -> list[Artifact]:
    """Everything that Prefect shows of a flow run and its tasks."""
    with get_client(sync_client=True) as client:
        answer = client.request("POST", "/artifacts/filter", json={"flow_runs": {"id": {"any_": [run_id]}}})
    return [Artifact.model_validate(found) for found in answer.json()]


def texts(run_id: Any) -> dict[str, str]:
    """Their Markdown, by key; there is one of each. Those without a key are results, of Prefect's own."""
    found = [(artifact.key, str(artifact.data)) for artifact in artifacts(run_id) if artifact.key]
    assert len(found) == len(dict(found))
    return dict(found)


def events(run_id: Any) -> list[dict[str, Any]]:
    """The events of assets in a flow run that the server has by now."""
    filters = {
        "event": {"prefix": ["prefect.asset."]},
        "related": {"id": [f"prefect.flow-run.{run_id}"]},
        "occurred": {"since": "2020-01-01T00:00:00Z"},
    }
    with get_client(sync_client=True) as client:
        answer = client.request("POST", "/events/filter", json={"filter": filters, "limit": 50})
        found: list[dict[str, Any]] = answer.json()["events"]
        return found


def eventually(read: Callable[[], T], enough: Callable[[T], bool]) -> T:
    """What is read once it is enough; what there is after half a minute."""
    deadline = time.monotonic() + 30
    while not enough(found := read()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


@pytest.fixture(scope="module")
def run_id(prefect_server: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    flow: Any = to_flow(shown)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("shown"))
        yield flow()


def test_each_task_each_mapped_step_and_the_run_have_one_page(run_id: str) -> None:
    from tailrace.adapters.prefect.pages import artifact_key

    found = texts(run_id)
    top = artifact_key("Shown/pages")
    assert set(found) == {top, *(f"{top}--{name}" for name in ("numbers", "halves", "square", "learn", "score"))}
    of_tasks = {str(artifact.key): artifact.task_run_id for artifact in artifacts(run_id)}
    assert {key.partition("--")[2] for key, task in of_tasks.items() if task is None} == {"", "square"}


def test_a_tasks_page_says_what_it_stored_where_and_what_that_cost(run_id: str) -> None:
    page = next(text for key, text in texts(run_id).items() if key.endswith("--halves"))
    assert "| Output | Type | Size | Save | Digest | Publish | Content |" in page
    assert "| low | list |" in page
    assert re.search(rf"^- high: `file:///.*/{run_id}/.*/halves/high`$", page, re.MULTILINE)


def test_the_page_of_a_mapped_step_has_a_row_for_each_item(run_id: str) -> None:
    page = next(text for key, text in texts(run_id).items() if key.endswith("--square"))
    assert [line.split(" | ")[0] for line in page.splitlines() if " square " in line] == ["| 0", "| 1", "| 2", "| 3"]


def test_the_runs_page_sums_up(run_id: str) -> None:
    page = next(text for key, text in texts(run_id).items() if "--" not in key)
    assert f"`tailrace runs show {run_id}`" in page
    assert "| square | 4 completed |" in page
    assert "| square.square ×4 | Dataset |" in page
    assert "went wrong" not in page


def test_the_events_of_assets_have_their_lineage_and_the_artifact(run_id: str) -> None:
    def materialized(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        made = [event for event in found if event["event"] == "prefect.asset.materialization.succeeded"]
        return {event["resource"]["prefect.resource.id"].rpartition("/")[2]: event for event in made}

    found = materialized(eventually(lambda: events(run_id), lambda some: len(materialized(some)) == 3))
    parents = {
        name: {
            related["prefect.resource.id"].partition("//")[2].partition("/")[2]
            for related in event["related"]
            if related["prefect.resource.role"] == "asset"
        }
        for name, event in found.items()
    }
    assert parents == {
        "numbers": set(),
        "square": {"numbers/numbers"},
        "model": {"numbers/numbers", "square/square"},  # the first by way of a list, which is no asset
    }
    assert found["model"]["payload"]["run_id"] == run_id
    assert found["model"]["payload"]["uri"].startswith("file://")
    assert found["square"]["payload"]["count"] == 4


def test_an_asset_has_the_same_key_as_on_airflow() -> None:
    pytest.importorskip("airflow.sdk")
    from tailrace.adapters.airflow.assets import outlets
    from tailrace.adapters.prefect.assets import asset_key

    @pipeline(name="one")
    def one() -> None:
        numbers(3)

    plan = one.plan()
    assert outlets(plan, plan.node("numbers"))["numbers"].uri == asset_key("one", "numbers", "numbers")


@pytest.mark.parametrize("name", ["a name", "50%", "a/b", "é", "#", "x" * 300])
def test_any_name_makes_keys_that_prefect_takes(name: str) -> None:
    from prefect.assets import Asset
    from prefect.client.schemas.actions import ArtifactCreate

    from tailrace.adapters.prefect.assets import asset_key
    from tailrace.adapters.prefect.pages import artifact_key

    assert Asset(key=asset_key(name, name, name)).key.startswith("tailrace://")
    assert ArtifactCreate(key=artifact_key(name, name)).key == artifact_key(name, name)


def test_different_names_have_different_keys() -> None:
    from tailrace.adapters.prefect.pages import artifact_key

    names = ["a", "A", "a b", "a-b", "a--b", "a b ", "é", "ü", "-a"]
    pairs = {artifact_key(first, second) for first in names for second in names}
    assert len(pairs) == len(names) ** 2
    assert artifact_key("breast-cancer", "cross_validate") == "breast-cancer--cross-validate"


def test_what_a_run_takes_from_another_is_on_its_page_and_in_its_lineage(project: Path) -> None:
    first = to_flow(Pipeline("first", context={"size": 3}).add_step(numbers))()
    uri = next(line for line in texts(first)["first--numbers"].splitlines() if line.startswith("- numbers"))
    uri = uri.split("`")[1]

    @pipeline(name="second")
    def second(numbers: Dataset) -> None:
        doubled(numbers)

    run_id = to_flow(second)(numbers=uri)
    assert f"- doubled.numbers: `{uri}`" in texts(run_id)["second"]
    found = eventually(lambda: events(run_id), lambda some: len(some) == 2)
    assert {event["resource"]["prefect.resource.id"] for event in found} == {
        "tailrace://first/numbers/numbers",
        "tailrace://second/doubled/twice",
    }


@step(outputs="twice")
def doubled(numbers: Dataset) -> Dataset:
    return Dataset(numbers.data * 2, name="twice")


def test_a_task_that_is_tried_again_has_one_page(project: Path) -> None:
    @step(retries=2)
    def shaky(size: int) -> int:
        tries = project / "tries"
        tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
        if len(tries.read_text()) < 3:
            raise OSError("not yet")
        return size

    found = texts(to_flow(Pipeline("again", context={"size": 1}).add_step(shaky))())
    assert set(found) == {"again", "again--shaky"}
    assert "| shaky | completed |" in found["again"]
    assert "| 3 |" in found["again"]


def test_a_flow_run_that_is_tried_again_has_one_summary_which_is_the_last(project: Path) -> None:
    @step
    def once(size: int) -> int:
        if not (project / "tried").exists():
            (project / "tried").touch()
            raise OSError("a broken | disk")
        return size

    flow = to_flow(Pipeline("whole", context={"size": 1}).add_step(once), retries=1)
    found = texts(flow())
    assert set(found) == {"whole", "whole--once"}
    assert "broken" not in found["whole"]
    assert "| once | completed |" in found["whole"]


def test_the_summary_of_a_failed_run_says_what_failed(project: Path) -> None:
    @step
    def breaks(numbers: Dataset) -> int:
        raise ValueError("<b>no</b> | `way` https://me:secret@host/x")

    @step
    def waits(breaks: int) -> int:
        return breaks

    made = Pipeline("broken", context={"size": 1}).add_step(numbers).add_step(breaks).add_step(waits)
    flow: Any = to_flow(made)
    state = flow(return_state=True)
    page = texts(str(state.state_details.flow_run_id))["broken"]
    assert "### What went wrong\n\n- breaks: ValueError\\: \\<b\\>no\\</b\\> \\| \\`way\\` https\\://" in page
    assert "secret" not in page
    assert "| waits | skipped |" in page


def test_pages_can_be_switched_off(project: Path) -> None:
    run_id = to_flow(Pipeline("quiet", context={"size": 1}).add_step(numbers), pages=False)()
    assert artifacts(run_id) == []


def test_what_prefect_refuses_is_a_warning_and_the_run_goes_on(
    project: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "artifact_key", lambda *names: f"NO KEY {names}")
    run_id = to_flow(Pipeline("refused", context={"size": 1}).add_step(numbers))()
    assert artifacts(run_id) == []
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    for what in ("task 'numbers'", "the summary"):
        assert any(text.startswith(f"Prefect does not show {what} of run {run_id}: ") for text in warnings)


def test_a_summary_of_thousands_of_tasks_is_bounded() -> None:
    from tailrace.adapters.prefect.page_text import mapped_text
    from tailrace.core.results import StepResult, TaskRecord

    records = [TaskRecord("s", index, "completed", "2026-11-21T12:00:00+00:00", 1.0) for index in range(5000)]
    records[4000] = TaskRecord("s", 4000, "failed", "2026-11-21T12:00:00+00:00", 1.0, error="late" * 1000)
    page = mapped_text(StepResult("s", tuple(records)))
    assert page.splitlines()[2].startswith("| 4000 | failed |")
    assert "and 4800 more." in page
    assert len(page) < 20_000


def test_a_failed_run_still_raises_its_own_error(project: Path) -> None:
    @step
    def broken() -> int:
        raise ValueError("its own")

    with pytest.raises(StepFailed, match="its own"):
        to_flow(Pipeline("own").add_step(broken))()


# --- connections ------------------------------------------------------------------------------------------------------


@pipeline
def beside() -> None:
    for name in ("a", "b", "c", "d"):
        numbers.with_options(name=name)(2)


def test_threads_that_show_something_at_once_share_one_client(monkeypatch: pytest.MonkeyPatch) -> None:
    made, together = [], threading.Barrier(2)

    def slowly(*args: Any, **kwargs: Any) -> Any:
        with suppress(threading.BrokenBarrierError):
            together.wait(0.5)  # a second one that is made meanwhile
        made.append(get_client(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(pages, "get_client", slowly)
    pages._client.cache_clear()
    beside.run(orchestrator="local")
    assert len(made) == 1


def test_a_process_that_has_shown_its_run_leaves_no_connection_open(project: Path) -> None:
    program = project / "small.py"
    program.write_text(
        "from tailrace import pipeline, step\n@step\ndef one() -> int:\n    return 1\n"
        "@pipeline\ndef p():\n    one()\nprint(p.run(orchestrator='local').run_id)\n"
    )
    environment = {**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value())}
    command = [sys.executable, "-W", "always::ResourceWarning", str(program)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    (run_id,) = re.findall(r"^\d{8}T\S+$|^[0-9a-f-]{36}$", done.stdout, re.MULTILINE)
    assert len(texts(run_id)) == 2
    assert "ResourceWarning" not in done.stderr
